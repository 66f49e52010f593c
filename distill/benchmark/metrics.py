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

from distill.benchmark.statistics import wilson_interval
from distill.errors import DataError
from distill.types import OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distill.types import GoldQuery, Prediction

__all__ = [
    "NO_INTENT",
    "Answers",
    "Gold",
    "coverage",
    "exact_set",
    "expected_calibration_error",
    "f1_scores",
    "f1_scores_of_sets",
    "fidelity_figures",
    "gold_figures",
    "kl_divergence",
    "kl_divergence_of_sets",
    "mean_absolute_error",
    "nearest_weights",
    "oos_auroc",
    "oos_score",
    "right",
    "right_after_policy",
    "right_on_top",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_INTENT = -1
"""Position that stands for no intent: out of scope in gold, rejected (or failed) in an answer."""
ECE_BINS = 15
_CLIP = 1e-6


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
        probabilities, weights = np.full(shape, np.nan), np.full(shape, np.nan)
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
    """Whether gold's own vector is the nearest, in L1, of gold's distinct vectors (``weights``). Shape (n,)."""
    from scipy.spatial.distance import cdist

    distinct, own = np.unique(gold, axis=0, return_inverse=True)
    answered = ~np.isnan(predicted).any(axis=1)
    nearest = cdist(np.nan_to_num(predicted), distinct, "cityblock").argmin(axis=1)
    right: Bools = (nearest == own.reshape(-1)) & answered
    return right


def coverage(answers: Answers) -> float:
    """Share of queries with an accepted intent."""
    return float((answers.intent != NO_INTENT).mean())


def f1_scores(answers: Answers, gold: Gold) -> tuple[float, float]:
    """Macro and micro F1 (scikit-learn) of ``top_intent`` on in-scope gold, over the intents that occur in gold."""
    from sklearn.metrics import f1_score

    in_scope = ~gold.out_of_scope
    truth, predicted = gold.intent[in_scope], answers.top[in_scope]
    occurring = np.unique(truth).tolist()
    macro, micro = (
        f1_score(truth, predicted, labels=occurring, average=average, zero_division=0) for average in ("macro", "micro")
    )
    return float(macro), float(micro)


def f1_scores_of_sets(answers: Answers, gold: Gold) -> tuple[float, float] | None:
    """Macro and micro F1 (scikit-learn) of the accepted intents (``multi``), over the intents that occur in gold.

    None where no intent occurs.
    """
    from sklearn.metrics import f1_score

    truth = gold.targets > 0
    occurring = np.flatnonzero(truth.any(axis=0))
    if not len(occurring):
        return None
    macro, micro = (
        f1_score(truth[:, occurring], answers.chosen[:, occurring], average=average, zero_division=0)
        for average in ("macro", "micro")
    )
    return float(macro), float(micro)


def oos_score(answers: Answers) -> Floats:
    """How far out of scope each query is: p(oos) where there is such a label, otherwise 1 - score. Shape (n,)."""
    if answers.labels and answers.labels[-1] == OUT_OF_SCOPE_LABEL:
        return answers.probabilities[:, -1]
    return 1.0 - answers.score


def oos_auroc(answers: Answers, gold: Gold) -> float | None:
    """AUROC (scikit-learn) of in-scope against out-of-scope gold; None where gold lacks one of them."""
    from sklearn.metrics import roc_auc_score

    judged = answers.scored & ~answers.failed
    outside = gold.out_of_scope[judged]
    if outside.all() or not outside.any():
        return None
    return float(roc_auc_score(outside, oos_score(answers)[judged]))


def expected_calibration_error(score: Floats, right: Bools, bins: int = ECE_BINS) -> float:
    """Expected calibration error with bins of equal mass (Nguyen and O'Connor, 2015): mean of abs(accuracy - score).

    Args:
        score: float64 array of shape (n,).
        right: bool array of shape (n,).
        bins: How many.
    """
    order = np.argsort(score, kind="stable")
    gaps = [
        abs(right[part].mean() - score[part].mean()) * len(part) for part in np.array_split(order, bins) if len(part)
    ]
    return float(sum(gaps) / len(score))


def kl_divergence(target: Floats, predicted: Floats) -> float:
    """Mean KL divergence from ``target`` to ``predicted`` in nats, the latter clipped at 1e-6. Shapes (n, n_labels)."""
    from scipy.special import rel_entr

    return float(rel_entr(target, np.clip(predicted, _CLIP, None)).sum(axis=1).mean())


def kl_divergence_of_sets(target: Floats, predicted: Floats) -> float:
    """As ``kl_divergence`` for independent probabilities (``multi``): summed over the labels' two-way distributions."""
    from scipy.special import rel_entr

    predicted = np.clip(predicted, _CLIP, 1 - _CLIP)
    divergence = rel_entr(target, predicted) + rel_entr(1 - target, 1 - predicted)
    return float(divergence.sum(axis=1).mean())


def mean_absolute_error(target: Floats, predicted: Floats) -> float:
    """Mean over queries and labels of abs(target - predicted)."""
    return float(np.abs(target - predicted).mean())


def _share(name: str, right: Bools) -> dict[str, Any]:
    """A share with its Wilson interval, as fields of a row; empty where there is nothing to count."""
    if not len(right):
        return {}
    return {name: float(right.mean()), f"{name}_ci95": wilson_interval(int(right.sum()), len(right))}


def _single_figures(answers: Answers, gold: Gold) -> dict[str, Any]:
    outside = gold.out_of_scope
    figures = _share("accuracy_policy", right_after_policy(answers, gold)) | {"coverage": coverage(answers)}
    figures |= _share("oos_recall", right_after_policy(answers, gold)[outside])
    if not outside.all():
        macro, micro = f1_scores(answers, gold)
        figures |= _share("accuracy", right_on_top(answers, gold)) | {"macro_f1": macro, "micro_f1": micro}
    answered = answers.scored & ~answers.failed
    if answered.any():
        right = (answers.top == gold.intent) & ~outside
        figures["ece"] = expected_calibration_error(answers.score[answered], right[answered])
    return figures | {"oos_auroc": oos_auroc(answers, gold)}


def _multi_figures(answers: Answers, gold: Gold) -> dict[str, Any]:
    right = exact_set(answers, gold)
    macro, micro = f1_scores_of_sets(answers, gold) or (None, None)
    return {
        **_share("accuracy", right),
        **_share("accuracy_policy", right),
        "coverage": coverage(answers),
        "macro_f1": macro,
        "micro_f1": micro,
    }


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
            "kl": kl_divergence(target, predicted),
            "mae": mean_absolute_error(target, predicted),
            "mae_policy": mean_absolute_error(target, answers.weights[answered]),
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
        figures["fidelity_kl"] = divergence(teacher.probabilities[both], answers.probabilities[both])
    return figures
