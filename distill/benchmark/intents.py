"""Figures intent by intent (or channel by channel), and what is taken for what. All of it after the policy."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.benchmark.statistics import wilson_interval
from distill.types import IntentFigures, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.benchmark.metrics import Answers, Gold

__all__ = ["confusions", "intent_figures"]

_WORST_PAIRS = 20

Pair = tuple[str | None, str | None]
Bools = npt.NDArray[np.bool_]


def confusions(row: str, task: Task, answers: Answers, gold: Gold) -> list[dict[str, Any]]:
    """The pairs of gold and answer that are mixed up most, at most twenty; None is out of scope, or a rejection.

    ``multi``: an intent that was missed with one that was wrongly given in its place, None where there is none.
    ``weights``: the weightiest channels.
    """
    worst = Counter(_mistakes(task, answers, gold)).most_common(_WORST_PAIRS)
    return [{"row": row, "gold": truth, "answer": answer, "n": n} for (truth, answer), n in worst]


def _mistakes(task: Task, answers: Answers, gold: Gold) -> Iterator[Pair]:
    """Every wrong pair of gold and answer, in the order of the queries; failed queries left out."""
    truth, chosen = _chosen(task, answers, gold)
    names = _names(task, gold)
    for row in np.flatnonzero((truth != chosen).any(axis=1) & ~answers.failed):
        missed = np.flatnonzero(truth[row] & ~chosen[row]).tolist()
        wrong = np.flatnonzero(chosen[row] & ~truth[row]).tolist()
        yield from ((names[a], names[b]) for a, b in product(missed or [-1], wrong or [-1]))


def _names(task: Task, gold: Gold) -> dict[int, str | None]:
    """Name of each column of ``_chosen``; -1 is none. ``single`` has one more column for none."""
    names: dict[int, str | None] = {-1: None, **dict(enumerate(gold.labels))}
    return names | ({len(gold.labels): None} if task is Task.SINGLE else {})


def _chosen(task: Task, answers: Answers, gold: Gold) -> tuple[Bools, Bools]:
    """Gold's and the answers' intents: bool arrays of shape (n, n_labels), for ``single`` with a column for none."""
    if task is Task.MULTI:
        return gold.targets > 0, answers.chosen
    columns = np.arange(len(gold.labels) + (task is Task.SINGLE))
    none = len(gold.labels)
    truth = np.where(gold.out_of_scope, none, gold.intent)
    chosen = answers.best if task is Task.WEIGHTS else np.where(answers.intent < 0, none, answers.intent)
    return truth[:, None] == columns, chosen[:, None] == columns


def intent_figures(row: str, task: Task, answers: Answers, gold: Gold) -> list[IntentFigures]:
    """Precision, recall and F1 (scikit-learn) of each intent that stands in gold or is answered, in the labels' order.

    A failed query counts against the recall of its intent. ``weights``: of being the weightiest channel, and the error
    of the channel's weight. A channel that has no weight anywhere in gold was not asked about: precision and F1 are None.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth, chosen = _chosen(task, answers, gold)
    chosen = chosen & ~answers.failed[:, None]
    precision, recall, f1, _ = precision_recall_fscore_support(truth, chosen, zero_division=np.nan)
    taken_for: dict[str | None, Counter[str | None]] = {}
    for wanted, given in _mistakes(task, answers, gold):
        taken_for.setdefault(wanted, Counter())[given] += 1
    names = _names(task, gold)
    n_gold, n_answered, n_right = (marked.sum(axis=0).tolist() for marked in (truth, chosen, truth & chosen))
    found = []
    for column in np.flatnonzero(truth.any(axis=0) | chosen.any(axis=0)).tolist():
        name, n = names[column], n_gold[column]
        is_unasked = task is Task.WEIGHTS and not gold.targets[:, column].any()
        [(confused_with, n_confused)] = taken_for.get(name, Counter({None: 0})).most_common(1)
        found.append(
            IntentFigures(
                row=row,
                intent=name,
                n=n,
                n_answered=n_answered[column],
                precision=None if is_unasked else _known(precision[column]),
                recall=_known(recall[column]),
                recall_ci95=wilson_interval(n_right[column], n),
                f1=None if is_unasked else _known(f1[column]),
                confused_with=confused_with,
                n_confused=n_confused,
                **(_weight_errors(answers, gold, column) if task is Task.WEIGHTS else {}),
            )
        )
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _weight_errors(answers: Answers, gold: Gold, column: int) -> dict[str, float]:
    answered = answers.scored & ~answers.failed
    if not answered.any():
        return {}
    error = answers.probabilities[answered, column] - gold.targets[answered, column]
    return {"mae": float(np.abs(error).mean()), "bias": float(error.mean())}
