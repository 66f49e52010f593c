"""The teacher's answers and what known examples say of the same queries, as one soft label. numpy only.

    cosines to known examples → vote, a distribution over labels, calibrated on the known examples, each left out once
    vote and answers of many queries → how often the teacher is right, and what it says where it is wrong
    vote times likelihood of the answer → the label

Both are taken to err independently given the right label (naive Bayes; Dawid and Skene, Applied Statistics 28, 1979). They do not
quite: what is hard is hard for both. So the teacher's own habits count for a fifth, and the rest is one rate for all labels. Where
there are too few known examples to know better, the teacher looks reliable, and its answers stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

__all__ = ["Combination", "Vote", "fit_combination", "fit_vote"]

_SHARPNESSES = (4.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0, 40.0, 60.0)
_DOUBTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_MOST_RELIABLE = 0.99
_USUALLY, _GIVE_OR_TAKE = 0.9, 0.1
"""How often a teacher is taken to be right before anything is seen: mean and standard deviation."""
_BETTER_THAN_CHANCE = 0.05
_HABITS = 0.2
"""How much the teacher's own confusions count, against one rate for all labels."""
_FEWEST_ANSWERS = 20
_ITERATIONS = 10
_MOST_LABELS = 1_000
"""Up to which a table of labels by labels is kept; with more, one rate is all that is known of the teacher."""


@dataclass(frozen=True, slots=True)
class Vote:
    """How known examples vote: each with the exponential of its cosine.

    Attributes:
        sharpness: What the cosine is multiplied by: the higher, the more the nearest decides.
        doubt: Share that goes to all labels alike.
        accuracy: Of the label with most votes, on the known examples, each left out once.
        n_examples: On how many that was measured.
    """

    sharpness: float
    doubt: float
    accuracy: float
    n_examples: int

    def __call__(self, cosines: Array, labels: Integers, n_labels: int) -> Array:
        """The vote about each query.

        Args:
            cosines: To its nearest known examples, shape (n, k); -inf: not to be counted.
            labels: Of these, from 0, shape (n, k).
            n_labels: How many labels have known examples.

        Returns:
            float64 of shape (n, n_labels); rows sum to 1.
        """
        return (1.0 - self.doubt) * _shares(cosines, labels, n_labels, self.sharpness) + self.doubt / n_labels


def _shares(cosines: Array, labels: Integers, n_labels: int, sharpness: float) -> Array:
    """Votes without doubt; where nobody votes, all labels have the same."""
    highest = cosines.max(axis=1, keepdims=True, initial=-1.0)
    weights = np.exp(sharpness * (cosines.astype(np.float64) - highest))
    shares = np.zeros((len(cosines), n_labels))
    np.add.at(shares, (np.arange(len(cosines))[:, None], labels), weights)
    total = shares.sum(axis=1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / n_labels)


def fit_vote(cosines: Array, labels: Integers, own: Integers, n_labels: int) -> Vote | None:
    """The vote that gives the known examples' own labels the highest likelihood.

    Args:
        cosines: Of each known example to its nearest others, shape (m, k); -inf: not to be counted, as the example itself.
        labels: Of these others, shape (m, k).
        own: Label of each known example, shape (m,).
        n_labels: How many labels there are.

    Returns:
        None where no label has two examples.
    """
    rows = np.flatnonzero(np.bincount(own, minlength=n_labels)[own] > 1)
    if not len(rows):
        return None
    found: list[tuple[float, Vote]] = []
    for sharpness in _SHARPNESSES:
        shares = _shares(cosines[rows], labels[rows], n_labels, sharpness)
        accuracy = float((shares.argmax(axis=1) == own[rows]).mean())
        of_own = shares[np.arange(len(rows)), own[rows]]
        found += [
            (
                float(np.log((1.0 - doubt) * of_own + doubt / n_labels).mean()),
                Vote(sharpness, doubt, accuracy, len(rows)),
            )
            for doubt in _DOUBTS
        ]
    return max(found, key=lambda pair: pair[0])[1]


@dataclass(frozen=True, slots=True, eq=False)
class Combination:
    """Teacher and evidence, as far as it is known how reliable they are.

    Attributes:
        covered: Labels that have known examples, int64 of shape (k,). On the others evidence is silent.
        teacher_accuracy: How often the teacher is right about covered labels, by how often the vote agrees with it.
        evidence_accuracy: Of the vote, as ``Vote.accuracy``.
        likelihood: Of each answer (column) by right label (row): float64 of shape (k, k); None: by ``teacher_accuracy`` alone.
    """

    covered: Integers
    teacher_accuracy: float
    evidence_accuracy: float
    likelihood: Array | None

    def __call__(self, targets: Array, votes: Array) -> Array:
        """One soft label for each query.

        Args:
            targets: The teacher's answers, shape (n, n_labels), rows sum to 1.
            votes: Of the known examples, shape (n, k), rows sum to 1.

        Returns:
            float32 of shape (n, n_labels), rows sum to 1. What the teacher gives to labels that are not covered stays as it is.
        """
        combined = targets.astype(np.float32)
        mass = targets[:, self.covered].sum(axis=1, keepdims=True)
        rows = np.flatnonzero(mass > 0)
        answers = targets[np.ix_(rows, self.covered)] / mass[rows]
        combined[np.ix_(rows, self.covered)] = mass[rows] * _posterior(
            answers, votes[rows], self.teacher_accuracy, self.likelihood
        )
        return combined


def _posterior(answers: Array, votes: Array, accuracy: float, likelihood: Array | None) -> Array:
    """Probability of each right label, shape (n, k)."""
    k = answers.shape[1]
    if likelihood is None:
        of_wrong = (1.0 - accuracy) / (k - 1)
        joint = votes * (of_wrong + (accuracy - of_wrong) * answers)
    else:
        joint = votes * (answers @ likelihood.T)
    posterior: Array = joint / joint.sum(axis=1, keepdims=True)
    return posterior


def fit_combination(targets: Array, votes: Array, covered: Integers, vote: Vote) -> Combination | None:
    """Reliabilities from what teacher and evidence say of the same queries; no right label is looked at.

    Args:
        targets: The teacher's answers, shape (n, n_labels), rows sum to 1.
        votes: Of the known examples on the same queries, shape (n, k).
        covered: Labels that have known examples, shape (k,).
        vote: What gave the votes.

    Returns:
        None where fewer than two labels are covered, the evidence is no better than chance, or the teacher names no covered label.
    """
    k = len(covered)
    if k < 2:  # noqa: PLR2004
        return None
    mass = targets[:, covered].sum(axis=1)
    rows = np.flatnonzero(mass > 0.5)  # noqa: PLR2004  # the answer is a covered label
    better = vote.accuracy - (1.0 - vote.accuracy) / (k - 1)
    if not len(rows) or better < _BETTER_THAN_CHANCE:
        return None
    answers, votes = targets[np.ix_(rows, covered)] / mass[rows, None], votes[rows]
    agreement = float((answers.argmax(axis=1) == votes.argmax(axis=1)).mean())
    accuracy = _teacher_accuracy(agreement, len(rows), vote, better, k)
    likelihood = _habits(answers, votes, accuracy) if k <= _MOST_LABELS else None
    return Combination(covered, accuracy, vote.accuracy, likelihood)


def _teacher_accuracy(agreement: float, n: int, vote: Vote, better: float, k: int) -> float:
    """How often the teacher is right, by how often the vote says the same about n queries.

    P(both say the same) = a e + (1 - a) (1 - e) / (k - 1), for the teacher's accuracy a and the vote's e. What that gives is as
    uncertain as both shares are, and is weighed against what is usual.
    """
    accuracy = (agreement - (1.0 - vote.accuracy) / (k - 1)) / better
    accuracy = float(np.clip(accuracy, 1.0 / k, 1.0))
    share = (agreement * n + 1.0) / (n + 2.0)  # never certain
    variance = share * (1.0 - share) / n + accuracy**2 * vote.accuracy * (1.0 - vote.accuracy) / vote.n_examples
    precision = better**2 / variance
    usual = 1.0 / _GIVE_OR_TAKE**2
    weighed = (precision * accuracy + usual * _USUALLY) / (precision + usual)
    return float(np.clip(weighed, 1.0 / k, _MOST_RELIABLE))


def _habits(answers: Array, votes: Array, accuracy: float) -> Array:
    """Likelihood of each answer by right label, by expectation and maximisation, held near one rate for all labels."""
    k = answers.shape[1]
    usual = np.full((k, k), (1.0 - accuracy) / (k - 1))
    np.fill_diagonal(usual, accuracy)
    worth = max(_FEWEST_ANSWERS, (1.0 / _HABITS - 1.0) * len(answers) / k)
    likelihood = usual
    for _ in range(_ITERATIONS):
        counts = _posterior(answers, votes, accuracy, likelihood).T @ answers
        likelihood = (counts + worth * usual) / (counts.sum(axis=1, keepdims=True) + worth)
    return likelihood
