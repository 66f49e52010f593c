"""How far students agree with the teacher on the same queries, and where they do not: one measure for each task.

Answers of a student are a float array of shape (n, n_labels): probabilities, for ``multi`` as ``_about_half`` gives them. What the
teacher says is an array as the measure has it: int (n,), bool (n, n_labels) or float (n, n_labels). Gold has no part in any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.benchmark.metrics import absolute_error
from distill.benchmark.statistics import mean_interval, paired_difference_interval
from distill.types import HOLDS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distill.policy import Policy
    from distill.types import Interval

    Array = np.ndarray[Any, Any]
    Booleans = np.ndarray[Any, np.dtype[np.bool_]]
    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

__all__ = ["MEASURES", "NEAR", "Measure", "Mistake"]

NEAR = 0.25
"""How likely a mistake that was not made must be to count; ``weights``: how much of a query's weight must lie in other channels."""
_UNSURE = 0.5
_OF_TOO_FEW = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Mistake:
    """Labels that were mixed up, on one query or more.

    Attributes:
        labels: Positions of the two; the number of labels stands for none of them.
        mass: How often, near mistakes included with their probability; ``weights``: how much weight one has that is the other's.
        n_wrong: How often a query was answered wrongly because of it.
    """

    labels: tuple[int, int]
    mass: float
    n_wrong: int


@dataclass(frozen=True, slots=True)
class Measure:
    """How agreement is measured in one task.

    Attributes:
        given: From the examples' targets of shape (n, n_labels) to what the teacher says.
        answers: From a student's probabilities and its policy to its answers.
        agreement: From answers and what the teacher says to how far they agree on each query, from 0 to 1; float64 of shape (n,).
        right: From the same to whether the answer is the teacher's; bool of shape (n,).
        unsure: From answers to whether the student doubts what it says; bool of shape (n,).
        mistakes: From answers and what the teacher says to what is mixed up, in the order of the queries.
        errors: From the same to how much each answer has too much of each label, or too little where negative, of shape
            (n, n_labels); None where pairs of labels tell all of it.
        interval: From differences of two agreements, of shape (n,), to the interval of their mean.
    """

    given: Callable[[Floats], Array]
    answers: Callable[[Floats, Policy], Floats]
    agreement: Callable[[Floats, Array], Floats]
    right: Callable[[Floats, Array], Booleans]
    unsure: Callable[[Floats], Booleans]
    mistakes: Callable[[Floats, Array], Iterable[Mistake]]
    errors: Callable[[Floats, Array], Floats] | None
    interval: Callable[[Floats], Interval]


# --- one intent ------------------------------------------------------------------------------------------------------


def _best(scores: Floats) -> Array:
    columns: Array = scores.argmax(axis=1)
    return columns


def _probabilities(probabilities: Floats, _: Policy) -> Floats:
    return probabilities


def _is_best(answers: Floats, given: Array) -> Booleans:
    right: Booleans = answers.argmax(axis=1) == given
    return right


def _as_share(right: Callable[[Floats, Array], Booleans]) -> Callable[[Floats, Array], Floats]:
    return lambda answers, given: right(answers, given).astype(np.float64)


def _best_is_unlikely(answers: Floats) -> Booleans:
    unsure: Booleans = answers.max(axis=1) < _UNSURE
    return unsure


def _mistaken_for(answers: Floats, given: Array) -> Iterator[Mistake]:
    """Of each query the likeliest mistake, made or not; of a doubted one however little it has, as many may share the rest."""
    rows = np.arange(len(given))
    others = answers.copy()
    others[rows, given] = -1.0
    mistaken = others.argmax(axis=1)
    likely, is_wrong = answers[rows, mistaken], answers.argmax(axis=1) != given
    is_near = (likely >= NEAR) | _best_is_unlikely(answers)
    mass = np.where(is_wrong, 1.0, np.where(is_near, likely, 0.0))
    pairs = zip(given.tolist(), mistaken.tolist(), strict=True)
    for labels, own, wrong in zip(pairs, mass.tolist(), is_wrong.tolist(), strict=True):
        yield Mistake(labels, own, int(wrong))


def _if_near(likely: float) -> float:
    return likely if likely >= NEAR else 0.0


def _paired_shares(differences: Floats) -> Interval:
    """Tango's, of paired shares; of means over students of these."""
    more, less = float(np.maximum(differences, 0).sum()), float(np.maximum(-differences, 0).sum())
    return paired_difference_interval(more, less, len(differences))


# --- any number of intents -------------------------------------------------------------------------------------------


def _at_least_half(targets: Floats) -> Array:
    chosen: Array = targets >= HOLDS
    return chosen


def _about_half(probabilities: Floats, policy: Policy) -> Floats:
    """Probabilities stretched so that every threshold of the policy comes to lie at a half: what reaches it is chosen."""
    own = probabilities.astype(np.float64)
    thresholds = np.asarray(policy.thresholds, np.float64)
    tiny = np.finfo(np.float64).tiny
    below = own / np.maximum(thresholds, tiny) / 2
    above = HOLDS + (own - thresholds) / np.maximum(1 - thresholds, tiny) / 2
    return np.where(own >= thresholds, np.minimum(above, 1.0), below)


def _is_same_set(answers: Floats, given: Array) -> Booleans:
    right: Booleans = ((answers >= HOLDS) == given).all(axis=1)
    return right


def _some_label_is_near(answers: Floats) -> Booleans:
    unsure: Booleans = (np.abs(answers - HOLDS) < _UNSURE / 2).any(axis=1)
    return unsure


def _in_place_of(answers: Floats, given: Array) -> Iterator[Mistake]:
    """Every label that is missed or falsely chosen, and of queries without any the one that is nearest to that.

    A label that is missed is mixed up with those that were chosen falsely, one that is chosen falsely with those that were missed;
    where there are none, with what the query asks for besides, and otherwise with none.
    """
    for own, wanted in zip(answers, given, strict=True):
        chosen = own >= HOLDS
        missed, false = np.flatnonzero(wanted & ~chosen).tolist(), np.flatnonzero(chosen & ~wanted).tolist()
        wrong, mass, rivals = missed or false, 1.0, false if missed else []
        if not wrong:
            likely = np.where(wanted, 1 - own, own)
            wrong = [int(likely.argmax())]
            mass = _if_near(float(likely.max()))
        besides = [label for label in np.flatnonzero(wanted).tolist() if label not in wrong]
        rivals = rivals or besides or [len(own)]
        for label in wrong:
            for rival in rivals:
                yield Mistake((label, rival), mass / len(rivals), int(bool(missed or false)))


def _wrongly_chosen(answers: Floats, given: Array) -> Floats:
    return (answers >= HOLDS).astype(np.float64) - given


# --- weights ---------------------------------------------------------------------------------------------------------


def _targets(targets: Floats) -> Array:
    return targets.astype(np.float64)


def _shared_weight(answers: Floats, given: Array) -> Floats:
    """How much of the weight lies where the teacher puts it: 1 less half of the sum of absolute errors."""
    shared: Floats = 1 - absolute_error(given, answers.astype(np.float64)) * given.shape[1] / 2
    return shared


def _has_same_best(answers: Floats, given: Array) -> Booleans:
    return _is_best(answers, _best(given))


def _never(answers: Floats) -> Booleans:
    """Shares that are nearly even are an answer like any other, and no doubt."""
    return np.zeros(len(answers), bool)


def _displaced(answers: Floats, given: Array) -> Iterator[Mistake]:
    """Between which channels weight is misplaced: what one lacks is spread over those that have too much, in proportion."""
    error = _weight_errors(answers, given)
    lacking, surplus = np.maximum(-error, 0), np.maximum(error, 0)
    total = surplus.sum(axis=1)
    is_much = total >= NEAR
    moved = (lacking[is_much] / total[is_much, None]).T @ surplus[is_much]
    wanted, chosen = _best(given), _best(answers)
    n_wrong = np.zeros_like(moved, dtype=np.int64)
    np.add.at(n_wrong, (wanted[wanted != chosen], chosen[wanted != chosen]), 1)
    for first, second in np.argwhere((moved > 0) | (n_wrong > 0)).tolist():
        yield Mistake((first, second), float(moved[first, second]), int(n_wrong[first, second]))


def _weight_errors(answers: Floats, given: Array) -> Floats:
    error: Floats = answers.astype(np.float64) - given
    return error


def _mean_of_any(differences: Floats) -> Interval:
    """The percentile bootstrap's; of a few queries nothing is known."""
    return mean_interval(differences.astype(np.float64)) or _OF_TOO_FEW


MEASURES: dict[Task, Measure] = {
    Task.SINGLE: Measure(
        given=_best,
        answers=_probabilities,
        agreement=_as_share(_is_best),
        right=_is_best,
        unsure=_best_is_unlikely,
        mistakes=_mistaken_for,
        errors=None,
        interval=_paired_shares,
    ),
    Task.MULTI: Measure(
        given=_at_least_half,
        answers=_about_half,
        agreement=_as_share(_is_same_set),
        right=_is_same_set,
        unsure=_some_label_is_near,
        mistakes=_in_place_of,
        errors=_wrongly_chosen,
        interval=_paired_shares,
    ),
    Task.WEIGHTS: Measure(
        given=_targets,
        answers=_probabilities,
        agreement=_shared_weight,
        right=_has_same_best,
        unsure=_never,
        mistakes=_displaced,
        errors=_weight_errors,
        interval=_mean_of_any,
    ),
}
