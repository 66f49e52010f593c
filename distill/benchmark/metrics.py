"""What is measured against gold and against the teacher. Arrays in, plain figures out.

Three numbers are never mixed: student against gold, teacher against gold (both here: accuracy and its kin), and student
against teacher (fidelity). A query that the teacher failed to answer is wrong in the first two, counted apart, and left
out of the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.benchmark.statistics import FEWEST_OF_BOOTSTRAP, bootstrap_interval, mean_interval, wilson_interval
from distill.errors import DataError
from distill.types import OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distill.types import GoldQuery, Interval, Prediction

__all__ = [
    "NO_INTENT",
    "Answers",
    "Gold",
    "absolute_error",
    "coverage",
    "exact_set",
    "f1_figures",
    "fidelity_figures",
    "gold_figures",
    "kl_divergence",
    "kl_divergence_of_sets",
    "nearest_weights",
    "oos_auroc",
    "oos_score",
    "resampled_counts",
    "right",
    "right_after_policy",
    "right_on_top",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_INTENT = -1
"""Position that stands for no intent: out of scope in gold, rejected (or failed) in an answer."""
_CLIP = 1e-6
_DIGITS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Gold:
    """Human labels as arrays.

    Attributes:
        labels: All labels, in the order of the columns.
        targets: float64 array of shape (n, n_labels).
        intent: int64 array of shape (n,): column of the best label, -1 for out-of-scope.
    """

    labels: tuple[str, ...]
    targets: Floats
    intent: Ints

    @classmethod
    def from_queries(cls, queries: Sequence[GoldQuery], labels: Sequence[str]) -> Gold:
        """Gold queries as arrays.

        Raises:
            DataError: A gold query has a label that does not exist.
        """
        column = {name: position for position, name in enumerate(labels)}
        targets = np.zeros((len(queries), len(labels)))
        intent = np.full(len(queries), NO_INTENT, dtype=np.int64)
        for row, query in enumerate(queries):
            for name, weight in query.target.items():
                if name in column:
                    targets[row, column[name]] = weight
                elif name != OUT_OF_SCOPE_LABEL:
                    raise DataError(f"gold query {query.text!r}: the intent {name!r} does not exist")
            if query.target and query.intent != OUT_OF_SCOPE_LABEL:
                intent[row] = column[query.intent]
        return cls(labels=tuple(labels), targets=targets, intent=intent)

    @property
    def out_of_scope(self) -> Bools:
        """Whether the query fits no intent: bool array of shape (n,)."""
        outside: Bools = self.intent == NO_INTENT
        return outside


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A classifier's predictions as arrays. A query without an answer has NaN probabilities.

    Attributes:
        labels: All labels, in the order of the columns.
        probabilities: float64 array of shape (n, n_labels), before the policy.
        top: int64 array of shape (n,): column of ``top_intent``, -1 for none.
        intent: int64 array of shape (n,): column of the accepted ``intent``, -1 for none.
        score: float64 array of shape (n,): score of ``top_intent``.
        chosen: bool array of shape (n, n_labels): every accepted intent.
        weights: float64 array of shape (n, n_labels): weights after the policy, NaN where there are none.
        failed: bool array of shape (n,): there is no answer.
    """

    labels: tuple[str, ...]
    probabilities: Floats
    top: Ints
    intent: Ints
    score: Floats
    chosen: Bools
    weights: Floats
    failed: Bools

    @classmethod
    def from_predictions(
        cls, predictions: Sequence[Prediction], labels: Sequence[str], failed: Bools | None = None
    ) -> Answers:
        """Predictions as arrays, columns in the order of ``labels`` whatever the classifier's own order is.

        Args:
            predictions: One for each query.
            labels: All labels.
            failed: bool array of shape (n,), or None where every query has an answer.

        Raises:
            DataError: The classifier knows other labels.
        """
        column = {name: position for position, name in enumerate(labels)}
        shape = (len(predictions), len(labels))
        probabilities = np.full(shape, np.nan)
        has_weights = any(prediction.weights for prediction in predictions)
        weights = np.full(shape, np.nan) if has_weights else np.broadcast_to(np.nan, shape)  # which takes no memory
        chosen = np.zeros(shape, dtype=np.bool_)
        try:
            for row, prediction in enumerate(predictions):
                if prediction.probabilities is not None:
                    own = [column[name] for name in prediction.labels]
                    probabilities[row] = 0.0
                    probabilities[row, own] = prediction.probabilities
                for name, weight in (prediction.weights or {}).items():
                    weights[row] = np.nan_to_num(weights[row])
                    weights[row, column[name]] = weight
                chosen[row, [column[name] for name in prediction.intents]] = True
            top = [NO_INTENT if p.top_intent is None else column[p.top_intent] for p in predictions]
            intent = [NO_INTENT if p.intent is None else column[p.intent] for p in predictions]
        except KeyError as error:
            raise DataError(f"the label {error} is not in router.yaml; train again") from error
        return cls(
            labels=tuple(labels),
            probabilities=probabilities,
            top=np.asarray(top, dtype=np.int64),
            intent=np.asarray(intent, dtype=np.int64),
            score=np.asarray([p.score for p in predictions], dtype=np.float64),
            chosen=chosen,
            weights=weights,
            failed=np.zeros(shape[0], dtype=np.bool_) if failed is None else failed,
        )

    @property
    def scored(self) -> Bools:
        """Whether the query has probabilities: bool array of shape (n,)."""
        filled: Bools = ~np.isnan(self.probabilities[:, 0])
        return filled

    @property
    def best(self) -> Ints:
        """Column of the best label, ``oos`` included and no policy applied; -1 for none: int64 array of shape (n,)."""
        filled = np.nan_to_num(self.probabilities, nan=-1.0)
        return np.where(self.scored, filled.argmax(axis=1), NO_INTENT).astype(np.int64)


def right_on_top(answers: Answers, gold: Gold) -> Bools:
    """Whether ``top_intent`` is gold, on in-scope gold; an out-of-scope answer there is wrong. Shape (n_in_scope,)."""
    in_scope = ~gold.out_of_scope
    right: Bools = answers.top[in_scope] == gold.intent[in_scope]
    return right


def right_after_policy(answers: Answers, gold: Gold) -> Bools:
    """Whether ``intent`` is gold; out-of-scope is right if and only if it is None. Failed is wrong. Shape (n,)."""
    right: Bools = (answers.intent == gold.intent) & ~answers.failed
    return right


def exact_set(answers: Answers, gold: Gold) -> Bools:
    """Whether the accepted intents are exactly gold's (``multi``). Failed is wrong. Shape (n,)."""
    same: Bools = (answers.chosen == (gold.targets > 0)).all(axis=1)
    return same & ~answers.failed


def nearest_weights(predicted: Floats, gold: Floats) -> Bools:
    """Whether gold's own vector is the nearest, in L1, of gold's distinct vectors (``weights``). Shape (n,).

    Vectors are the same where they agree to nine digits: 2 and 98 are the shares of .02 and .98.
    """
    from scipy.spatial.distance import cdist

    _, first, own = np.unique(gold.round(_DIGITS), axis=0, return_index=True, return_inverse=True)
    answered = ~np.isnan(predicted).any(axis=1)
    nearest = cdist(np.nan_to_num(predicted), gold[first], "cityblock").argmin(axis=1)
    right: Bools = (nearest == own.reshape(-1)) & answered
    return right


def coverage(answers: Answers) -> float:
    """Share of queries with an accepted intent."""
    return float((answers.intent != NO_INTENT).mean())


def f1_figures(truth: Bools, chosen: Bools) -> dict[str, Any]:
    """Macro and micro F1 with bootstrap intervals, as fields of ``BenchRow``.

    Macro is over the labels that occur in ``truth``, and in a resample over those that occur there; micro counts what is
    given to the others too, as wrong. Empty where no label occurs, and without intervals where fewer than twenty queries have one.

    Args:
        truth: bool array of shape (n, n_labels).
        chosen: bool array of shape (n, n_labels).
    """
    if not truth.any():
        return {}
    by_average = _f1_statistics(truth, chosen)
    macro, micro = by_average(np.arange(len(truth))[None])

    def interval(average: int) -> Interval | None:
        if truth.any(axis=1).sum() < FEWEST_OF_BOOTSTRAP:
            return None
        return bootstrap_interval([len(truth)], lambda positions: by_average(positions)[average])

    return {
        "macro_f1": float(macro[0]),
        "macro_f1_ci95": interval(0),
        "micro_f1": float(micro[0]),
        "micro_f1_ci95": interval(1),
    }


def _f1_statistics(truth: Bools, chosen: Bools) -> Callable[[Ints], tuple[Floats, Floats]]:
    """Macro and micro F1 of resamples: from positions of shape (batch, n) to two arrays of shape (batch,)."""
    from scipy.sparse import csr_array, hstack

    n, n_labels = truth.shape
    counted = hstack([csr_array(each) for each in (truth & chosen, truth, chosen)], format="csr").astype(np.float64).T

    def statistics(positions: Ints) -> tuple[Floats, Floats]:
        drawn = resampled_counts(positions, n)
        hits, wanted, given = np.split((counted @ drawn.T).T, [n_labels, 2 * n_labels], axis=1)
        occurs = wanted > 0
        f1 = np.where(occurs, 2 * hits / np.maximum(wanted + given, 1), 0.0)
        macro = f1.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1)
        return macro, 2 * hits.sum(axis=1) / np.maximum((wanted + given).sum(axis=1), 1)

    return statistics


def resampled_counts(codes: Ints, size: int) -> Floats:
    """How often each code from 0 to ``size`` - 1 stands in each row: (batch, n) to float64 (batch, size)."""
    batch = len(codes)
    flat = (codes + size * np.arange(batch)[:, None]).ravel()
    return np.bincount(flat, minlength=batch * size).reshape(batch, size).astype(np.float64)


def _one_hot(columns: Ints, n_labels: int) -> Bools:
    """Columns as rows with one True, all False for -1: (n,) to bool (n, n_labels)."""
    marked: Bools = columns[:, None] == np.arange(n_labels)
    return marked


def oos_score(answers: Answers) -> Floats:
    """How far out of scope each query is: p(oos) where there is such a label, otherwise 1 - score. Shape (n,)."""
    if answers.labels and answers.labels[-1] == OUT_OF_SCOPE_LABEL:
        return answers.probabilities[:, -1]
    return 1.0 - answers.score


def oos_auroc(answers: Answers, gold: Gold) -> dict[str, Any]:
    """AUROC (scikit-learn) of in-scope against out-of-scope gold, with a bootstrap interval, as fields of ``BenchRow``.

    In-scope and out-of-scope queries are resampled each on their own. Empty where gold lacks one of them.
    """
    from sklearn.metrics import roc_auc_score

    judged = answers.scored & ~answers.failed
    outside = gold.out_of_scope[judged]
    if outside.all() or not outside.any():
        return {}
    score = oos_score(answers)[judged]
    return {
        "oos_auroc": float(roc_auc_score(outside, score)),
        "oos_auroc_ci95": bootstrap_interval([int(outside.sum()), int((~outside).sum())], _auroc(score, outside)),
    }


def _auroc(score: Floats, positive: Bools) -> Callable[[Ints, Ints], Floats]:
    """AUROC of resamples by counting pairs, equal scores half: from positions among positives and among negatives."""
    distinct, code = np.unique(score, return_inverse=True)
    positives, negatives = code[positive], code[~positive]

    def statistic(drawn_positives: Ints, drawn_negatives: Ints) -> Floats:
        above = resampled_counts(positives[drawn_positives], len(distinct))
        below = resampled_counts(negatives[drawn_negatives], len(distinct))
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        auroc: Floats = won / (len(positives) * len(negatives))
        return auroc

    return statistic


def kl_divergence(target: Floats, predicted: Floats) -> Floats:
    """KL divergence of each query from ``target`` to ``predicted`` in nats, the latter clipped at 1e-6.

    Args:
        target: float64 array of shape (n, n_labels), rows summing to 1.
        predicted: The same.

    Returns:
        float64 array of shape (n,).
    """
    from scipy.special import rel_entr

    divergence: Floats = rel_entr(target, np.clip(predicted, _CLIP, None)).sum(axis=1)
    return divergence


def kl_divergence_of_sets(target: Floats, predicted: Floats) -> Floats:
    """As ``kl_divergence`` for independent probabilities (``multi``): summed over the labels' two-way distributions."""
    from scipy.special import rel_entr

    predicted = np.clip(predicted, _CLIP, 1 - _CLIP)
    divergence: Floats = (rel_entr(target, predicted) + rel_entr(1 - target, 1 - predicted)).sum(axis=1)
    return divergence


def absolute_error(target: Floats, predicted: Floats) -> Floats:
    """Mean over labels of abs(target - predicted), for each query: (n, n_labels) twice to (n,)."""
    error: Floats = np.abs(target - predicted).mean(axis=1)
    return error


def _mean(name: str, values: Floats) -> dict[str, Any]:
    """A mean with its bootstrap interval, as fields of a row."""
    return {name: float(values.mean()), f"{name}_ci95": mean_interval(values)}


def _share(name: str, right: Bools) -> dict[str, Any]:
    """A share with its Wilson interval, as fields of a row; empty where there is nothing to count."""
    if not len(right):
        return {}
    return {name: float(right.mean()), f"{name}_ci95": wilson_interval(int(right.sum()), len(right))}


def _single_figures(answers: Answers, gold: Gold) -> dict[str, Any]:
    outside = gold.out_of_scope
    figures = _share("accuracy_policy", right_after_policy(answers, gold)) | {"coverage": coverage(answers)}
    figures |= _share("oos_recall", right_after_policy(answers, gold)[outside]) | oos_auroc(answers, gold)
    if outside.all():
        return figures
    figures |= _share("accuracy", right_on_top(answers, gold))
    n_labels = len(gold.labels)
    return figures | f1_figures(_one_hot(gold.intent[~outside], n_labels), _one_hot(answers.top[~outside], n_labels))


def _multi_figures(answers: Answers, gold: Gold) -> dict[str, Any]:
    right = exact_set(answers, gold)
    figures = _share("accuracy", right) | _share("accuracy_policy", right) | {"coverage": coverage(answers)}
    return figures | f1_figures(gold.targets > 0, answers.chosen)


def _weights_figures(answers: Answers, gold: Gold) -> dict[str, Any]:
    figures = {
        **_share("accuracy", nearest_weights(answers.probabilities, gold.targets)),
        **_share("accuracy_policy", nearest_weights(answers.weights, gold.targets)),
        "coverage": coverage(answers),
    }
    answered = answers.scored & ~answers.failed
    if answered.any():
        target, predicted = gold.targets[answered], answers.probabilities[answered]
        figures["notes"] = {
            **_mean("kl", kl_divergence(target, predicted)),
            **_mean("mae", absolute_error(target, predicted)),
            **_mean("mae_policy", absolute_error(target, answers.weights[answered])),
        }
    return figures


_GOLD_FIGURES: dict[Task, Callable[[Answers, Gold], dict[str, Any]]] = {
    Task.SINGLE: _single_figures,
    Task.MULTI: _multi_figures,
    Task.WEIGHTS: _weights_figures,
}


def gold_figures(task: Task, answers: Answers, gold: Gold) -> dict[str, Any]:
    """Everything measured against gold, as fields of ``BenchRow``; a figure that does not apply is left out."""
    return _GOLD_FIGURES[task](answers, gold) if len(gold.intent) else {}


def right(task: Task, answers: Answers, gold: Gold) -> Bools:
    """Which queries ``accuracy_policy`` counts as right. Shape (n,)."""
    if task is Task.MULTI:
        return exact_set(answers, gold)
    return nearest_weights(answers.weights, gold.targets) if task is Task.WEIGHTS else right_after_policy(answers, gold)


def fidelity_figures(task: Task, answers: Answers, teacher: Answers) -> dict[str, Any]:
    """Agreement with the teacher on the queries that it answered, as fields of ``BenchRow``.

    ``fidelity`` is top-1 agreement over all labels, ``oos`` included and no policy applied (``multi``: of the accepted
    sets); ``fidelity_kl`` is the mean KL divergence from the teacher's scores.
    """
    answered = teacher.scored & ~teacher.failed
    if not answered.any():
        return {}
    if task is Task.MULTI:
        agree = (answers.chosen == teacher.chosen).all(axis=1)
        divergence = kl_divergence_of_sets
    else:
        agree, divergence = answers.best == teacher.best, kl_divergence
    figures = _share("fidelity", agree[answered])
    both = answered & answers.scored
    if both.any():
        figures |= _mean("fidelity_kl", divergence(teacher.probabilities[both], answers.probabilities[both]))
    return figures
