"""What was spent: every paid answer of both recordings counts towards ``teacher.max_usd``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.data import read_jsonl, read_labels
from distill.teacher.prices import Budget, price_of
from distill.teacher.rounds import synthesis_paths
from distill.types import StageSpend, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from distill.spec import Spec

__all__ = ["limited", "open_budget", "paid_answers", "spend_by_stage"]


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
    for _, name, usage in paid_answers(spec):
        price = budget.price if name == model else prices.get(name)
        if price is not None:
            budget.count(usage, price)
    return budget


def limited(spec: Spec, model: str | None, max_usd: Decimal | None) -> Spec:
    """The same spec with a ``teacher.max_usd`` that leaves no more than ``max_usd`` to be spent from now on.

    Args:
        spec: The router's spec.
        model: Who is about to be asked; None for a callable, which has no price.
        max_usd: None: as it is.
    """
    if max_usd is None:
        return spec
    limit = open_budget(spec, model).spent_usd + max_usd
    if spec.teacher.max_usd is not None:
        limit = min(limit, spec.teacher.max_usd)
    return spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"max_usd": limit})})


def spend_by_stage(spec: Spec) -> tuple[StageSpend, ...]:
    """What synth and label have asked of the spec's own models so far, each as far as it has asked anything."""
    asked: dict[str, list[Usage]] = {}
    models = {"synth": spec.synth.model or spec.teacher_name, "label": spec.teacher_name}
    for stage, model, usage in paid_answers(spec):
        if model == models[stage]:
            asked.setdefault(stage, []).append(usage)
    found = []
    for stage, usages in asked.items():
        counted = [usage for usage in usages if None not in {usage.prompt_tokens, usage.completion_tokens}]
        total = Usage(
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in counted),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counted),
            cached_tokens=sum(min(usage.cached_tokens or 0, usage.prompt_tokens or 0) for usage in counted),
        )
        price = price_of(spec, models[stage])
        found.append(StageSpend(stage, len(usages), len(usages) - len(counted), total, price))
    return tuple(found)


def paid_answers(spec: Spec) -> Iterator[tuple[str, str, Usage]]:
    """Stage, model and tokens of every answer in the recordings, failed ones included, carried-over ones not."""
    for path in synthesis_paths(spec):
        for _, line in read_jsonl(path, skip_torn=True):
            if line.get("latency_ms") is not None:
                usage = Usage(line.get("prompt_tokens"), line.get("completion_tokens"), line.get("cached_tokens"))
                yield "synth", str(line.get("teacher")), usage
    for label in read_labels(spec.ledger_path):
        if label.latency_ms is not None and "carried_from" not in label.extra:
            yield "label", label.teacher, label.usage
