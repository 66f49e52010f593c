"""Thresholds: fitted here on held-out examples, applied here by the router. numpy only.

The model says how likely each label is; the policy says which of them is the answer, and why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distill.types import HOLDS, OUT_OF_SCOPE_LABEL, Prediction, Reason, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]
    Booleans = np.ndarray[Any, np.dtype[np.bool_]]

__all__ = ["Policy", "confidence", "confidence_of", "decide_differently", "fit_policy", "scores_as_target"]

_SINGLE, _MULTI = Task.SINGLE, Task.MULTI
_ACCEPTED, _LOW_CONFIDENCE, _OUT_OF_SCOPE = Reason.ACCEPTED, Reason.LOW_CONFIDENCE, Reason.OUT_OF_SCOPE
_KEPT_SHARE = 0.99
_ROUNDING = 1e-9
_STANDARD_ERRORS = 1.0
_EQUAL_SHARE = 0.5
_LEAST_ODDS = 0.25
"""Of out-of-scope to in-scope queries, in use: labelled examples often hold next to none."""
_PRIOR_POSITIVES = 10.0
_MINIMUM_LABELS = 2
_WEIGHT_MOVED = 0.1
"""How much a weight must move to be another answer."""
_SMALLEST, _LARGEST = 1e-30, 1e30


_new = object.__new__
_set_intent, _set_score, _set_reason, _set_top, _set_intents, _set_weights, _set_labels, _set_probabilities = (
    Prediction.__dict__[name].__set__ for name in Prediction.__slots__
)


def _prediction(
    intent: str | None,
    score: float,
    reason: Reason,
    top: str,
    intents: tuple[str, ...],
    weights: Mapping[str, float] | None,
    labels: tuple[str, ...],
    probabilities: np.ndarray[Any, np.dtype[np.float32]],
) -> Prediction:
    """``Prediction(...)`` of all its fields, in half the time: a frozen dataclass looks each one up by its name."""
    prediction = _new(Prediction)
    _set_intent(prediction, intent)
    _set_score(prediction, score)
    _set_reason(prediction, reason)
    _set_top(prediction, top)
    _set_intents(prediction, intents)
    _set_weights(prediction, weights)
    _set_labels(prediction, labels)
    _set_probabilities(prediction, probabilities)
    return prediction


@dataclass(frozen=True, slots=True)
class Policy:
    """Turns probabilities into a decision.

    Attributes:
        task: ``single`` rejects what is out of scope or under the threshold; ``multi`` accepts every label that reaches
            its own threshold, none included; ``weights`` accepts always.
        labels: Label names in the order of the probabilities; for ``single`` a last label ``oos`` means out of scope.
        threshold: For ``single``: lowest probability of the top intent that is accepted. Unused otherwise.
        out_of_scope_ratio: For ``single`` with ``oos``: from which share of the top intent's probability on that of ``oos`` rejects it, from 0
            to 1. At 1 ``oos`` has to be as likely.
        thresholds: For ``multi``: lowest accepted probability of each label. None otherwise.

    Raises:
        ValueError: Fewer than two labels, a label twice, ``oos`` not last, or thresholds that do not fit task and labels.
    """

    task: Task
    labels: tuple[str, ...]
    threshold: float = 0.0
    thresholds: tuple[float, ...] | None = None
    out_of_scope_ratio: float = 1.0
    _n_in_scope: int = field(init=False, repr=False, compare=False)
    _limits: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_labels(self.task, self.labels)
        if (self.thresholds is None) == (self.task is _MULTI):
            raise ValueError("`thresholds` belong to the task multi, and to that alone")
        limits = (self.threshold,) if self.thresholds is None else self.thresholds
        if self.thresholds is not None and len(limits) != len(self.labels):
            raise ValueError(f"{len(limits)} thresholds for {len(self.labels)} labels")
        if not all(math.isfinite(limit) and limit >= 0.0 for limit in limits):
            raise ValueError("a threshold is a finite number, 0 or more")
        if not 0.0 <= self.out_of_scope_ratio <= 1.0:
            raise ValueError("`out_of_scope_ratio` is a number from 0 to 1")
        object.__setattr__(self, "_n_in_scope", _count_in_scope(self.task, self.labels))
        object.__setattr__(self, "_limits", np.asarray(limits, dtype=np.float64))

    def decide(self, probabilities: np.ndarray[Any, np.dtype[np.float32]]) -> Prediction:
        """The decision for one query. Costs one to three microseconds.

        Args:
            probabilities: float32 array of shape (n_labels,). Kept by the prediction, not copied.
        """
        if self.task is _SINGLE:
            n_in_scope = self._n_in_scope
            if n_in_scope == len(self.labels):
                best = int(probabilities.argmax())
                return self._single(best, probabilities.item(best), -1.0, probabilities)
            best = int(probabilities[:n_in_scope].argmax())
            return self._single(best, probabilities.item(best), probabilities.item(n_in_scope), probabilities)
        if self.task is _MULTI:
            return self._multi(probabilities)
        return self._weights(probabilities)

    def decide_batch(self, probabilities: np.ndarray[Any, np.dtype[np.float32]]) -> list[Prediction]:
        """The same decisions as ``decide``, for many queries.

        Args:
            probabilities: float32 array of shape (n, n_labels). The predictions keep views of it.
        """
        if self.task is _MULTI:
            return [self._multi(row) for row in probabilities]
        if self.task is not _SINGLE:
            return [self._weights(row) for row in probabilities]
        best, scores, out_of_scope = _top(probabilities, self._n_in_scope)
        decided = zip(best.tolist(), scores.tolist(), out_of_scope.tolist(), probabilities, strict=True)
        return [self._single(*answer) for answer in decided]

    def _single(
        self, best: int, score: float, out_of_scope: float, probabilities: np.ndarray[Any, np.dtype[np.float32]]
    ) -> Prediction:
        labels = self.labels
        top = labels[best]
        if out_of_scope >= score * self.out_of_scope_ratio:
            return _prediction(None, score, _OUT_OF_SCOPE, top, (), None, labels, probabilities)
        if score >= self.threshold:
            return _prediction(top, score, _ACCEPTED, top, (top,), None, labels, probabilities)
        return _prediction(None, score, _LOW_CONFIDENCE, top, (), None, labels, probabilities)

    def _multi(self, probabilities: np.ndarray[Any, np.dtype[np.float32]]) -> Prediction:
        best = int(probabilities.argmax())
        accepted = np.flatnonzero(probabilities >= self._limits)
        accepted = accepted[np.argsort(-probabilities[accepted], kind="stable")]
        intents = tuple([self.labels[position] for position in accepted])
        return _prediction(
            intents[0] if intents else None,
            probabilities.item(best),
            _ACCEPTED if intents else _OUT_OF_SCOPE,
            self.labels[best],
            intents,
            None,
            self.labels,
            probabilities,
        )

    def _weights(self, probabilities: np.ndarray[Any, np.dtype[np.float32]]) -> Prediction:
        best = int(probabilities.argmax())
        top = self.labels[best]
        weights = dict(zip(self.labels, probabilities.tolist(), strict=True))
        return _prediction(top, probabilities.item(best), _ACCEPTED, top, (top,), weights, self.labels, probabilities)

    @classmethod
    def of_answers(cls, task: Task, labels: Sequence[str]) -> Self:
        """What a teacher's own answers are decided by: the best label; for ``multi`` every label that is more likely than not."""
        return cls(task, tuple(labels), thresholds=(HOLDS,) * len(labels) if task is _MULTI else None)

    def as_dict(self) -> dict[str, Any]:
        """What stands in a manifest under ``policy``; task and labels stand beside it."""
        return {
            "threshold": self.threshold,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "out_of_scope_ratio": self.out_of_scope_ratio,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, task: Task, labels: Sequence[str]) -> Self:
        """The policy that ``as_dict`` described.

        Args:
            value: What ``as_dict`` gave.
            task: What the labels mean.
            labels: Label names in logit order.

        Raises:
            ValueError: The thresholds are missing, are not numbers, or do not fit task and labels.
        """
        try:
            thresholds = value.get("thresholds")
            return cls(
                task=task,
                labels=tuple(labels),
                threshold=float(value["threshold"]),
                thresholds=None if thresholds is None else tuple(float(limit) for limit in thresholds),
                out_of_scope_ratio=float(value.get("out_of_scope_ratio", 1.0)),  # bundles of format 1 have none
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a policy: {error!r}") from error


def confidence(probabilities: Floats, task: Task, chosen: Booleans | None = None) -> Floats:
    """How sure a student is of its decision: what ``Cascade.ask_below`` is compared with.

    Args:
        probabilities: Calibrated probabilities, shape (..., n_labels).
        task: What the labels mean.
        chosen: ``multi``: which labels were accepted, bool of the same shape. None: those that are at least as likely as not.

    Returns:
        Shape (...,). ``single``, ``weights``: the highest probability, ``oos`` included. ``multi``: how likely the least sure of its
        decisions is right, a label accepted or not. A threshold far under a half accepts labels that are likely wrong.
    """
    if task is not _MULTI:
        highest: Floats = probabilities.max(-1)
        return highest
    accepted = probabilities >= HOLDS if chosen is None else chosen
    least: Floats = np.where(accepted, probabilities, 1 - probabilities).min(-1)
    return least


def confidence_of(answer: Prediction, task: Task) -> float | None:
    """``confidence`` of one answer; None where it has no probabilities, as that to an empty query."""
    if answer.probabilities is None:
        return None
    chosen = np.asarray([label in answer.intents for label in answer.labels]) if task is _MULTI else None
    return float(confidence(answer.probabilities, task, chosen))  # float32 beside a float would round the latter


def decide_differently(one: Prediction, other: Prediction) -> bool:
    """Whether two answers to a query decide differently: other intents accepted; of weights another best, or one that moved by a tenth."""
    if one.weights is None or other.weights is None:
        return set(one.intents) != set(other.intents)
    names = {*one.weights, *other.weights}
    moved = max(abs(one.weights.get(name, 0.0) - other.weights.get(name, 0.0)) for name in names)
    return one.top_intent != other.top_intent or moved >= _WEIGHT_MOVED


def scores_as_target(
    scores: Mapping[str, float] | None, columns: Mapping[str, int], task: Task
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """What a teacher answered, as it is learnt and measured.

    Args:
        scores: By label, of any scale; others than those in ``columns`` are left out.
        columns: The place of each label.
        task: What the labels mean.

    Returns:
        float32 of shape (n_labels,), summing to 1 but for ``multi``; None where the scores are no such thing.
    """
    if scores is None:
        return None
    numbers = np.zeros(len(columns))
    for name, score in scores.items():
        if (column := columns.get(name)) is not None:
            numbers[column] = score
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        return None
    if not task.sums_to_one:
        return numbers.astype(np.float32)
    if numbers.any() and not _SMALLEST < numbers.max() < _LARGEST:  # float32 would hold neither them nor their sum
        numbers = numbers / numbers.max()
    target = numbers.astype(np.float32)
    total = target.sum()
    return (target / total).astype(np.float32) if total > 0 else None


def _check_labels(task: Task, labels: Sequence[str]) -> None:
    if len(labels) < _MINIMUM_LABELS:
        raise ValueError(f"a policy needs at least two labels, found {len(labels)}")
    if len(set(labels)) != len(labels):
        raise ValueError("a label stands twice")
    if task is _SINGLE and OUT_OF_SCOPE_LABEL in labels[:-1]:
        raise ValueError(f"{OUT_OF_SCOPE_LABEL!r} must be the last label")


def _count_in_scope(task: Task, labels: Sequence[str]) -> int:
    return len(labels) - (task is _SINGLE and labels[-1] == OUT_OF_SCOPE_LABEL)


def _top(probabilities: Floats, n_in_scope: int) -> tuple[Integers, Floats, Floats]:
    """Best in-scope label, its probability, and that of out-of-scope (-1 where there is no such label): each (n,)."""
    best = probabilities[:, :n_in_scope].argmax(axis=1)
    scores = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
    if n_in_scope == probabilities.shape[1]:
        return best, scores, np.full_like(scores, -1.0)
    return best, scores, probabilities[:, n_in_scope]


def fit_policy(
    task: Task,
    labels: Sequence[str],
    probabilities: Floats,
    targets: Floats,
    weights: Floats | None = None,
) -> Policy:
    """Fits the thresholds on held-out examples, in O(n log n).

    ``single``: the highest ratio of ``oos`` to the top intent, and then of what that accepts the lowest threshold, that agrees with the target's
    best label (none when that is out of scope) as often as the best one but for one standard error of their difference (Breiman et
    al., 1984; McNemar's normal approximation). Of calibrated probabilities a ratio of 1 and a threshold of 0 are the best (``oos``
    competes as a label), so leaving them takes evidence: the best of few, noisy examples is mostly chance, and costs new queries
    their answers. Out-of-scope examples count for more where they are rarer than one in five. Where no target is out of scope
    there is nothing to reject by, and the threshold is the highest that still accepts 99 % of what is answered rightly. Where all are,
    nothing says what rejecting costs: the ratio is 1 and the threshold 0.

    ``multi``: for each label the threshold with the highest F1 (a target of 0.5 or more is a positive), drawn towards
    the one best for all labels together as if by ten more positives, so that rare labels do not overfit. With fewer than ten positives in
    all it is a half.

    A row of zeros is of a query that fits none of the labels: it is out of scope where ``oos`` is no label too.

    ``single``'s lie midway between two observed probabilities: the same decision survives another processor's rounding.

    Args:
        task: What the labels mean.
        labels: Label names in the order of the columns.
        probabilities: Calibrated probabilities, shape (n, n_labels).
        targets: Target scores, shape (n, n_labels).
        weights: Weight of each example, shape (n,); None: all 1.

    Raises:
        ValueError: The shapes do not fit, or the labels are not usable.
    """
    names = tuple(labels)
    if probabilities.shape != targets.shape or probabilities.shape[1:] != (len(names),):
        raise ValueError(
            f"probabilities {probabilities.shape} and targets {targets.shape} do not fit {len(names)} labels"
        )
    example_weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    if example_weights.shape != (len(targets),):
        raise ValueError(f"weights {example_weights.shape} do not fit {len(targets)} examples")
    if task is _MULTI:
        return Policy(task, names, thresholds=_fit_multi(probabilities, targets, example_weights))
    if task is not _SINGLE:
        return Policy(task, names)
    _check_labels(task, names)
    ratio, threshold = _fit_single(probabilities, targets, example_weights, _count_in_scope(task, names))
    return Policy(task, names, threshold, out_of_scope_ratio=ratio)


def _fit_single(probabilities: Floats, targets: Floats, weights: Floats, n_in_scope: int) -> tuple[float, float]:
    """The ratio of out-of-scope to the top intent from which on a query is rejected, and the threshold."""
    best, scores, out_of_scope = (column.astype(np.float64) for column in _top(probabilities, n_in_scope))
    truth = np.where(targets.any(axis=1), targets.argmax(axis=1), n_in_scope)
    right = np.where(best == truth, weights, 0.0)
    is_out = truth >= n_in_scope
    answered = scores > out_of_scope  # the others are rejected in any case
    n_out, n_in = float(weights[is_out].sum()), float(weights[~is_out].sum())
    if not n_in:  # all there is would be declined
        return 1.0, 0.0
    if not n_out:
        return 1.0, _threshold_keeping(scores[answered], right[answered], _KEPT_SHARE)
    rejectable = np.where(is_out, max(1.0, _LEAST_ODDS * n_in / n_out) * weights, 0.0)
    ratio = 1.0
    if n_in_scope < probabilities.shape[1]:
        share = scores[answered] / (scores[answered] + out_of_scope[answered])
        limit = _lowest_as_good(share, right[answered], rejectable[answered])
        if limit > _EQUAL_SHARE:
            ratio = max((1.0 - limit) / limit, 0.0)
    kept = out_of_scope < scores * ratio
    return ratio, _lowest_as_good(scores[kept], right[kept], rejectable[kept])


def _lowest_as_good(scores: Floats, right: Floats, rejectable: Floats) -> float:
    """The lowest limit of the scores that is as good as the best but for a standard error; all of shape (n,).

    Args:
        scores: What is under the limit is rejected.
        right: What rejecting a query loses.
        rejectable: What rejecting it gains.
    """
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    gain = np.concatenate([[0.0], np.cumsum(rejectable[order] - right[order])])
    gain[1:-1][scores[1:] == scores[:-1]] = -np.inf  # a threshold cannot part equal scores
    most = int(gain.argmax())
    variance = np.concatenate([[0.0], np.cumsum(rejectable[order] ** 2 + right[order] ** 2)])
    lost = gain[most] - gain[: most + 1]
    is_as_good = lost <= _STANDARD_ERRORS * np.sqrt(variance[most] - variance[: most + 1])
    return _boundary(scores, int(is_as_good.argmax()))


def _boundary(scores: Floats, n_rejected: int) -> float:
    """A threshold that rejects the ``n_rejected`` lowest of the ascending ``scores``, midway to the next."""
    if n_rejected == 0:
        return 0.0
    highest_rejected = float(scores[n_rejected - 1])
    if n_rejected < len(scores):
        return (highest_rejected + float(scores[n_rejected])) / 2
    return (highest_rejected + 1.0) / 2 if highest_rejected < 1.0 else math.nextafter(1.0, 2.0)


def _threshold_keeping(scores: Floats, right: Floats, share: float) -> float:
    """The highest threshold that is to accept at least ``share`` of the right answers to come, lowered to midway.

    Of n right answers at most ``(1 - share) * (n + 1)`` may have a score up to the threshold, as in split conformal prediction (Vovk et al.,
    2005): with fewer than 99, to keep 99 %, there is none. The lowest of a few says little of what comes.
    """
    n_right = int(np.count_nonzero(right))
    n_up_to = math.floor((1.0 - share) * (n_right + 1) + _ROUNDING)
    if not n_up_to:
        return 0.0
    order = np.argsort(scores, kind="stable")
    ascending, lost = scores[order], np.cumsum(right[order])
    first_kept = ascending[int(np.searchsorted(lost, lost[-1] * n_up_to / n_right * (1.0 - _ROUNDING)))]
    return _boundary(ascending, int(np.searchsorted(ascending, first_kept, side="left")))


def _fit_multi(probabilities: Floats, targets: Floats, weights: Floats) -> tuple[float, ...]:
    positives = targets >= HOLDS
    n_positives = positives.sum(axis=0)
    if n_positives.sum() < _PRIOR_POSITIVES:  # the best of so few may well be to accept every label
        return (HOLDS,) * int(targets.shape[1])
    columns = np.repeat(weights[:, None], targets.shape[1], axis=1)
    (common,) = _best_f1_thresholds(
        probabilities.reshape(-1, 1), positives.reshape(-1, 1), columns.reshape(-1, 1)
    ).tolist()
    own = _best_f1_thresholds(probabilities, positives, columns)
    shrunk = (n_positives * own + _PRIOR_POSITIVES * common) / (n_positives + _PRIOR_POSITIVES)
    return tuple(shrunk.tolist())


def _best_f1_thresholds(
    probabilities: Floats, positives: np.ndarray[Any, np.dtype[np.bool_]], weights: Floats
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """For each column the threshold with the highest F1; of equally good ones the lowest. All (n, m); gives (m,)."""
    order = np.argsort(probabilities, axis=0, kind="stable")
    scores = np.take_along_axis(probabilities, order, axis=0).astype(np.float64)
    weight = np.take_along_axis(weights, order, axis=0)
    positive = np.take_along_axis(positives * weights, order, axis=0)
    accepted = weight[::-1].cumsum(axis=0)[::-1]
    true_positives = positive[::-1].cumsum(axis=0)[::-1]
    f1 = 2 * true_positives / np.maximum(accepted + positive.sum(axis=0), np.finfo(np.float64).tiny)
    f1[1:][scores[1:] == scores[:-1]] = -1.0
    lowest = f1.argmax(axis=0)[None, :]
    kept = np.take_along_axis(scores, lowest, axis=0)[0]
    below = np.take_along_axis(scores, np.maximum(lowest - 1, 0), axis=0)[0]
    return np.where(lowest[0] == 0, 0.0, (kept + below) / 2)
