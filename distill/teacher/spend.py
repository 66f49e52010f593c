"""What was spent: every paid answer of both recordings counts towards ``teacher.max_usd``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.data import read_jsonl, read_labels
from distill.teacher.prices import Budget, batch_price, price_of
from distill.teacher.rounds import synthesis_paths
from distill.types import StageSpend, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from distill.spec import Spec
    from distill.teacher.ledger import Ledger
    from distill.types import Label

__all__ = ["PaidAnswer", "is_paid", "limited", "open_budget", "paid_answers", "spend_by_stage"]


@dataclass(frozen=True, slots=True)
class PaidAnswer:
    """One answer in a recording that was paid for.

    Attributes:
        stage: ``synth``, ``label`` or ``label --batch``.
        model: Who answered.
        usage: Its tokens.
    """

    stage: str
    model: str
    usage: Usage


_BATCH = "label --batch"


def open_budget(spec: Spec, model: str | None, ledger: Ledger | None = None) -> Budget:
    """The spend limit, less what the recordings say was spent already on the spec's models.

    Args:
        spec: The router's spec.
        model: Who is about to be asked; None for a callable, which has no price.
        ledger: The spec's, where it was read already.
    """
    if model is None:
        return Budget(None, None)
    budget = Budget(price_of(spec, model), spec.teacher.max_usd)
    prices = {name: price_of(spec, name) for name in (model, spec.teacher.model, spec.synth.model) if name}
    in_batch = batch_price(spec)
    for answer in paid_answers(spec, ledger):
        is_own_batch = answer.stage == _BATCH and answer.model == spec.teacher.model
        price = in_batch if is_own_batch else prices.get(answer.model)
        if price is not None:
            budget.count(answer.usage, price)
        elif is_own_batch:
            budget.count_unpriced()
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
    models = {"synth": spec.synth.model or spec.teacher_name, "label": spec.teacher_name, _BATCH: spec.teacher_name}
    for answer in paid_answers(spec):
        if answer.model == models[answer.stage]:
            asked.setdefault(answer.stage, []).append(answer.usage)
    found = []
    for stage, usages in asked.items():
        counted = [usage for usage in usages if None not in {usage.prompt_tokens, usage.completion_tokens}]
        total = Usage(
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in counted),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counted),
            cached_tokens=sum(min(usage.cached_tokens or 0, usage.prompt_tokens or 0) for usage in counted),
        )
        price = batch_price(spec) if stage == _BATCH else price_of(spec, models[stage])
        found.append(StageSpend(stage, len(usages), len(usages) - len(counted), total, price))
    return tuple(found)


def is_paid(label: Label) -> bool:
    """Whether a line of the ledger was paid for here: it has an answer, good or not, and was not carried over."""
    if "carried_from" in label.extra:
        return False
    if "batch" not in label.extra:
        return label.latency_ms is not None
    return label.scores is not None or label.usage.prompt_tokens is not None


def paid_answers(spec: Spec, ledger: Ledger | None = None) -> Iterator[PaidAnswer]:
    """Every answer in the recordings that was paid for, failed ones included, carried-over ones not."""
    for path in synthesis_paths(spec):
        for _, line in read_jsonl(path, skip_torn=True):
            if line.get("latency_ms") is not None:
                usage = Usage(line.get("prompt_tokens"), line.get("completion_tokens"), line.get("cached_tokens"))
                yield PaidAnswer("synth", str(line.get("teacher")), usage)
    for label in read_labels(spec.ledger_path) if ledger is None else ledger.lines:
        if is_paid(label):
            yield PaidAnswer(_BATCH if "batch" in label.extra else "label", label.teacher, label.usage)
