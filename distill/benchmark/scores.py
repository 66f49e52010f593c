"""What a score is worth: calibration, and risk against coverage. Arrays in, figures out.

A score that is right is a licence to reject: these figures say how far it can be trusted, and what rejecting by it buys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.benchmark.metrics import coverage, exact_set
from distill.benchmark.statistics import bootstrap_interval, wilson_interval
from distill.calibration import CALIBRATION_BINS, bin_edges, expected_calibration_error
from distill.types import ReliabilityBin, RiskCoverage, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.benchmark.metrics import Answers, Gold

__all__ = [
    "area_under_risk_coverage",
    "calibration_noise_floor",
    "reliability",
    "reliability_bins",
    "risk_coverage",
    "score_figures",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_CURVE_POINTS = 50
_MOST_DRAWS = 1000
_FEWEST_DRAWS = 50
_MOST_NUMBERS = 20_000_000
_TINY = 1e-12


def calibration_noise_floor(score: Floats, bins: int = CALIBRATION_BINS, *, seed: int = 0) -> tuple[float, float]:
    """What the calibration error would be by chance alone if every score were exactly right.

    Answers are drawn anew, each right with the probability that its score says (Vaicenavicius et al., 2019).

    Args:
        score: float64 array of shape (n,), n at least 1.
        bins: How many.
        seed: Of the draws.

    Returns:
        Mean of the error over the draws, and what it stays under in 95 of 100.
    """
    score = np.clip(np.sort(score), 0.0, 1.0)
    edges = bin_edges(score, bins)
    chance = np.random.default_rng(seed)
    n_draws = max(_FEWEST_DRAWS, min(_MOST_DRAWS, _MOST_NUMBERS // len(score)))
    errors = [
        np.abs(np.add.reduceat((chance.random(len(score)) < score) - score, edges)).sum() / len(score)
        for _ in range(n_draws)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def reliability_bins(row: str, score: Floats, right: Bools, bins: int = CALIBRATION_BINS) -> list[ReliabilityBin]:
    """The bins of ``expected_calibration_error``, lowest score first. Arguments as there; none where there are no scores."""
    if not len(score):
        return []
    order = np.argsort(score, kind="stable")
    return [
        ReliabilityBin(
            row=row,
            n=len(part),
            score=float(score[part].mean()),
            accuracy=float(right[part].mean()),
            accuracy_ci95=wilson_interval(int(right[part].sum()), len(part)) or (0.0, 1.0),
        )
        for part in np.split(order, bin_edges(score[order], bins)[1:])
    ]


def _surest_first(score: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Scores in falling order, and whether each is wrong: the mean over equal scores, whose order means nothing."""
    distinct, group = np.unique(-score, return_inverse=True)
    wrong = np.bincount(group, weights=~right) / np.bincount(group)
    order = np.argsort(group, kind="stable")
    return -distinct[group[order]], wrong[group[order]]


def area_under_risk_coverage(score: Floats, right: Bools) -> float:
    """AURC (Geifman and El-Yaniv, 2017): mean over k of the share of wrong answers among the k surest; 0 is best.

    Args:
        score: float64 array of shape (n,), n at least 1.
        right: bool array of shape (n,).
    """
    _, wrong = _surest_first(score, right)
    return float(_mean_risk(wrong))


def _mean_risk(wrong: Floats | Bools) -> Floats:
    """Mean of the running means along the last axis."""
    risks: Floats = (np.cumsum(wrong, axis=-1) / np.arange(1, wrong.shape[-1] + 1)).mean(axis=-1)
    return risks


def _aurc_statistic(score: Floats, right: Bools) -> Callable[[npt.NDArray[np.int64]], Floats]:
    """AURC of resamples: from positions of shape (batch, n) to shape (batch,). Equal scores count as in AURC itself."""
    order = np.argsort(-score, kind="stable")
    wrong = ~right[order]
    _, group = np.unique(-score[order], return_inverse=True)

    def statistic(positions: npt.NDArray[np.int64]) -> Floats:
        drawn = np.sort(positions, axis=-1)
        if group[-1] == len(group) - 1:  # no two are equal
            return _mean_risk(wrong[drawn])
        runs = (group[drawn] + len(group) * np.arange(len(drawn))[:, None]).ravel()
        starts = np.flatnonzero(np.diff(runs, prepend=-1))
        sizes = np.diff(starts, append=len(runs))
        means = np.add.reduceat(wrong[drawn].ravel().astype(np.float64), starts) / sizes
        return _mean_risk(np.repeat(means, sizes).reshape(drawn.shape))

    return statistic


def _sureness(task: Task, answers: Answers) -> Floats:
    """By which a query is accepted or handed on: shape (n,), -1 for a query without probabilities.

    ``single``: the score of ``top_intent``. ``multi``: the probability of just the accepted set, labels independent.
    """
    if task is Task.MULTI:
        probabilities = np.clip(answers.probabilities, _TINY, 1 - _TINY)
        sure = np.exp(np.log(np.where(answers.chosen, probabilities, 1 - probabilities)).sum(axis=1))
    else:
        sure = answers.score
    return np.where(answers.scored & ~answers.failed, sure, -1.0)


def _right_before_policy(task: Task, answers: Answers, gold: Gold) -> Bools:
    """Whether accepting the answer would be right: an out-of-scope query has no right ``top_intent``. Shape (n,)."""
    if task is Task.MULTI:
        return exact_set(answers, gold)
    right: Bools = (answers.top == gold.intent) & ~gold.out_of_scope
    return right


def _scores_and_right(task: Task, answers: Answers, gold: Gold) -> tuple[Floats, Bools]:
    """What calibration is about: ``single``: top intents of in-scope queries; ``multi``: every label of every query. Shape (n,) each.

    ``score`` is the probability over all labels, out-of-scope among them. How often that is right depends on how many queries are out of
    scope, which gold chooses as it likes; so those are left out, as they are for ``accuracy``.
    """
    answered = answers.scored & ~answers.failed
    if task is Task.MULTI:
        return answers.probabilities[answered].ravel(), (gold.targets[answered] > 0).ravel()
    counted = answered & ~gold.out_of_scope
    return answers.score[counted], _right_before_policy(task, answers, gold)[counted]


def score_figures(task: Task, answers: Answers, gold: Gold) -> dict[str, Any]:
    """Calibration and AURC with their intervals, as fields of ``BenchRow``; ``weights`` have no scores to trust."""
    if task is Task.WEIGHTS or not len(gold.intent) or not (answers.scored & ~answers.failed).any():
        return {}
    score, right = _scores_and_right(task, answers, gold)
    floor, floor_p95 = calibration_noise_floor(score) if len(score) else (None, None)
    sure, right_answers = _sureness(task, answers), _right_before_policy(task, answers, gold)
    return {
        "ece": expected_calibration_error(score, right) if len(score) else None,
        "ece_noise_floor": floor,
        "ece_noise_floor_p95": floor_p95,
        "aurc": area_under_risk_coverage(sure, right_answers),
        "aurc_ci95": bootstrap_interval([len(sure)], _aurc_statistic(sure, right_answers)),
    }


def reliability(row: str, task: Task, answers: Answers, gold: Gold) -> list[ReliabilityBin]:
    """The reliability diagram of a row; empty for ``weights``."""
    if task is Task.WEIGHTS:
        return []
    return reliability_bins(row, *_scores_and_right(task, answers, gold))


def risk_coverage(row: str, task: Task, answers: Answers, gold: Gold) -> RiskCoverage | None:
    """The risk-coverage curve of a row, at fifty coverages at most, and its own policy's place; None for ``weights``."""
    if task is Task.WEIGHTS:
        return None
    right = _right_before_policy(task, answers, gold)
    score, wrong = _surest_first(_sureness(task, answers), right)
    n = len(wrong)
    taken = np.unique(np.linspace(1, n, min(n, _CURVE_POINTS)).round().astype(np.int64))
    risk = np.cumsum(wrong)[taken - 1] / taken
    accepted = answers.intent >= 0
    return RiskCoverage(
        row=row,
        coverage=tuple((taken / n).tolist()),
        risk=tuple(risk.tolist()),
        score=tuple(score[taken - 1].tolist()),
        policy_coverage=coverage(answers),
        policy_risk=float(1 - right[accepted].mean()) if accepted.any() else None,
    )
