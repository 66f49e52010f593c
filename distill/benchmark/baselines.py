"""What a router must beat: TF-IDF with logistic regression, and the majority class. Fitted on the same labels."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.errors import DataError
from distill.policy import fit_policy
from distill.split import HELD_OUT_SHARE, stratified_holdout
from distill.types import HOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distill.policy import Policy
    from distill.types import Example, Prediction, Task

__all__ = ["Baseline", "fit_majority", "fit_tfidf"]

_MAX_FEATURES = 25_000
_INVERSE_REGULARISATION = 10.0
_MAX_ITERATIONS = 200

_MOST_PARAMETERS_AT_ONCE = 8_000_000
"""Features times labels up to which one regression learns all labels: L-BFGS keeps some 25 numbers of 8 bytes for each."""

_MOST_PARAMETERS = 80_000_000
"""Beyond so many features are left out: coefficients are kept as 4 bytes each, and pickled once to be weighed."""

_PASSES = 5
_TWO = 2

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A plain model under the same kind of policy that the students have.

    Attributes:
        probabilities_of: Texts to a float32 array of shape (n, n_labels).
        policy: Thresholds, fitted on held-out examples.
        size_mb: Size of the pickled model, MB of 10**6 bytes.
        notes: What is out of the ordinary about the fit, for its row in bench.json.
    """

    probabilities_of: Callable[[Sequence[str]], Floats]
    policy: Policy
    size_mb: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    def route(self, text: str) -> Prediction:
        """The answer for one query."""
        return self.policy.decide(self.probabilities_of([text])[0])

    def route_batch(self, texts: Sequence[str]) -> list[Prediction]:
        """One answer for each text, in order."""
        return self.policy.decide_batch(self.probabilities_of(texts))


def fit_tfidf(examples: Sequence[Example], labels: Sequence[str], task: Task, *, seed: int = 0) -> Baseline:
    """TF-IDF of words, word pairs and character 2- to 5-grams, and logistic regression on top (scikit-learn).

    Many labels would take it gigabytes: then each label is learnt on its own, from fewer features where need be, and the notes say so.

    Args:
        examples: Labelled queries. Those that are held out fit the thresholds; with none held out, a tenth is.
        labels: All labels, in the order of the targets.
        task: What a label means.
        seed: Of the split.

    Raises:
        DataError: There is nothing to fit on.
    """
    train, held_out = _split(examples, seed)
    model = _TfidfModel(train, independent=not task.sums_to_one)
    return _baseline(model, held_out, labels, task)


def fit_majority(examples: Sequence[Example], labels: Sequence[str], task: Task, *, seed: int = 0) -> Baseline:
    """Answers every query with the labels' mean over the training queries. Arguments as ``fit_tfidf``."""
    train, held_out = _split(examples, seed)
    return _baseline(_MeanModel(train), held_out, labels, task)


class _MeanModel:
    notes: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, train: Sequence[Example]) -> None:
        total = np.zeros(len(train[0].target))
        for example in train:  # together, of many queries over many labels, they would take gigabytes
            total += example.target
        self.mean = (total / len(train)).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> Floats:
        return np.tile(self.mean, (len(texts), 1))


class _TfidfModel:
    def __init__(self, train: Sequence[Example], *, independent: bool) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        n_labels = len(train[0].target)
        most = min(_MAX_FEATURES, _MOST_PARAMETERS // (2 * n_labels))
        common: dict[str, Any] = {"sublinear_tf": True, "max_features": most, "dtype": np.float32}
        texts = [example.text for example in train]
        words = TfidfVectorizer(ngram_range=(1, 2), **common)
        characters = TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb", **common)
        has_words = any(map(words.build_analyzer(), texts))  # emoji and single letters are none, and fitting would fail
        self.features = make_union(*([words] if has_words else []), characters)
        matrix = self.features.fit_transform(texts).tocsr()
        counts = [len(vectorizer.vocabulary_) for _, vectorizer in self.features.transformer_list]
        self.is_cut = most < _MAX_FEATURES and max(counts) == most
        weights = np.asarray([example.weight for example in train], dtype=np.float64)
        self.independent = independent
        is_small = n_labels * matrix.shape[1] <= _MOST_PARAMETERS_AT_ONCE
        fit = _fit_independent if independent else _fit_distribution if is_small else _fit_each
        self.coefficients, self.intercepts = fit(matrix, [example.target for example in train], weights)

    @property
    def notes(self) -> dict[str, Any]:
        n_labels, n_features = self.coefficients.shape
        if self.independent:
            return {"fit": f"for want of memory over {n_features:,} features"} if self.is_cut else {}
        if n_labels * n_features <= _MOST_PARAMETERS_AT_ONCE:
            return {}
        return {"fit": f"for want of memory a regression for each of {n_labels:,} labels, over {n_features:,} features"}

    def __call__(self, texts: Sequence[str]) -> Floats:
        from scipy.special import expit, softmax

        logits = self.features.transform(texts) @ self.coefficients.T + self.intercepts
        probabilities: Floats = expit(logits) if self.independent else softmax(logits, axis=1)
        return probabilities.astype(np.float32)


def _fit_distribution(matrix: Any, targets: Sequence[Array], weights: Array) -> tuple[Floats, Floats]:
    """One softmax over the labels: a query counts for each of its labels as much as that label's share.

    Returns:
        Coefficients of shape (n_labels, n_features) and intercepts of shape (n_labels,); a label that never occurs has
        the intercept -inf, and so the probability 0.
    """
    rows, columns, shares = _shares(targets)
    occurring = np.unique(columns)
    coefficients, intercepts = _without_labels(len(targets[0]), matrix.shape[1])
    intercepts[occurring] = 0.0
    if len(occurring) > 1:
        regression = _regression(matrix[rows], columns, shares * weights[rows])
        positive = occurring[1:] if len(occurring) == _TWO else occurring  # of two classes, one is the reference
        coefficients[positive], intercepts[positive] = regression.coef_, regression.intercept_
    return coefficients, intercepts


def _fit_each(matrix: Any, targets: Sequence[Array], weights: Array) -> tuple[Floats, Floats]:
    """As ``_fit_distribution``, a label against all others at a time, by stochastic gradient descent; their odds are the shares."""
    from sklearn.linear_model import SGDClassifier

    rows, columns, shares = _shares(targets)
    counted = shares * weights[rows]
    coefficients, intercepts = _without_labels(len(targets[0]), matrix.shape[1])
    matrix, penalty = matrix[rows], 1 / (_INVERSE_REGULARISATION * counted.sum())
    for label in np.unique(columns):
        regression = SGDClassifier(loss="log_loss", alpha=penalty, max_iter=_PASSES, tol=None, random_state=0)
        regression.fit(matrix, columns == label, sample_weight=counted)
        coefficients[label], intercepts[label] = regression.coef_[0], regression.intercept_[0]
    return coefficients, intercepts


def _shares(targets: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Query, label and share wherever a label has one. Thousands of labels make a whole array too large."""
    found = [np.flatnonzero(target) for target in targets]
    rows = np.repeat(np.arange(len(targets)), [len(columns) for columns in found])
    shares = [target[columns] for target, columns in zip(targets, found, strict=True)]
    return rows, np.concatenate(found), np.concatenate(shares)


def _without_labels(n_labels: int, n_features: int) -> tuple[Floats, Floats]:
    return np.zeros((n_labels, n_features), dtype=np.float32), np.full(n_labels, -np.inf, dtype=np.float32)


def _fit_independent(matrix: Any, targets: Sequence[Array], weights: Array) -> tuple[Floats, Floats]:
    """One logistic regression a label; a label that always or never occurs has an infinite intercept. Shapes as above."""
    positives = np.stack(targets) >= HOLDS
    coefficients = np.zeros((positives.shape[1], matrix.shape[1]), dtype=np.float32)
    intercepts = np.where(positives.any(axis=0), np.inf, -np.inf).astype(np.float32)
    for label in np.flatnonzero(positives.any(axis=0) & ~positives.all(axis=0)):
        regression = _regression(matrix, positives[:, label], weights)
        coefficients[label], intercepts[label] = regression.coef_[0], regression.intercept_[0]
    return coefficients, intercepts


def _regression(matrix: Any, classes: Array, weights: Array) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit keeps hundreds of intents affordable
        warnings.filterwarnings(
            "ignore", "The number of unique classes"
        )  # many intents of one or two queries are no regression
        return regression.fit(matrix, classes, sample_weight=weights)


def _baseline(model: Any, held_out: Sequence[Example], labels: Sequence[str], task: Task) -> Baseline:
    policy = fit_policy(
        task,
        tuple(labels),
        model([example.text for example in held_out]),
        np.stack([example.target for example in held_out]),
        np.asarray([example.weight for example in held_out], dtype=np.float32),
    )
    return Baseline(model, policy, len(pickle.dumps(model)) / 1e6, model.notes)


def _split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    train = [example for example in examples if example.split == "train"]
    held_out = [example for example in examples if example.split != "train"]
    if not train:
        raise DataError("no labelled query to fit the baselines on")
    if held_out:
        return train, held_out
    kept, chosen = stratified_holdout([int(example.target.argmax()) for example in train], HELD_OUT_SHARE, seed)
    if not chosen:
        return train, train
    return [train[position] for position in kept], [train[position] for position in chosen]
