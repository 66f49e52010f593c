"""What was spent: every paid answer of both recordings counts towards ``teacher.max_usd``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.data import read_jsonl, read_labels
from distill.teacher.prices import Budget, price_of
from distill.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.spec import Spec

__all__ = ["open_budget", "paid_answers"]


def open_budget(spec: Spec, model: str | None) -> Budget:
    """The spend limit, less what the recordings say was spent already on the spec's models.

    Args:
        spec: The router's spec.
        model: Who is about to be asked; None for a callable, which has no price.
    """
    if model is None:
        return Budget(None, None)
    budget = Budget(price_of(spec, model), spec.teacher.max_usd)
    prices = {name: price_of(spec, name) for name in (spec.teacher.model, spec.synth.model) if name}
    for name, usage in paid_answers(spec):
        price = budget.price if name == model else prices.get(name)
        if price is not None:
            budget.count(usage, price)
    return budget


def paid_answers(spec: Spec) -> Iterator[tuple[str, Usage]]:
    """Model and tokens of every answer in synth.jsonl and ledger.jsonl, failed ones included, carried-over ones not."""
    if spec.synthesis_path.exists():
        for _, line in read_jsonl(spec.synthesis_path, skip_torn=True):
            if line.get("latency_ms") is not None:
                usage = Usage(line.get("prompt_tokens"), line.get("completion_tokens"), line.get("cached_tokens"))
                yield str(line.get("teacher")), usage
    for label in read_labels(spec.ledger_path):
        if label.latency_ms is not None and "carried_from" not in label.extra:
            yield label.teacher, label.usage
