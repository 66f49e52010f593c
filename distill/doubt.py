"""Which labels are probably wrong, from vectors alone: those that the rest of the labels speaks against.

A label is a number of decisions, and a decision is a distribution over options: ``single`` decides once which label it is, ``multi`` of each
label whether the query has it, ``weights`` once how the weight is shared out. How far two distributions agree is their overlap, the sum of the
lesser shares: 1 less their total variation. Where the one is a plain label, that is the other's probability of it.

Two views of each decision that the query's own label has no part in: what a logistic regression on sentence vectors says that was fitted
on other queries (out of fold), and the mean of what the nearest other queries are labelled. Both views are taken twice, the second time
without the decisions that the first time speaks against: wrong labels would teach them. ``multi`` takes them once: a rare label is seldom
held for present even where it is right, and without its queries it never would be. A query is as plausible as its least plausible
decision (Thyagarajan et al., Identifying Incorrect Annotations in Multi-Label Classification Data, 2022).

Where options exclude each other, the mean of both views goes into confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021): with
a threshold for each option, it estimates how many labels are wrong, and of which kind; so many are listed, those first for which another
option is likelier by most. Weights have no such kinds: those are listed that lie beyond Tukey's fence (Exploratory Data Analysis, 1977),
where others do not. A decision that its own samples disagree about is listed where the two views do not speak for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.embed import nearest
from distill.types import HOLDS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Booleans = np.ndarray[Any, np.dtype[np.bool_]]
    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

__all__ = [
    "Findings",
    "confident_joint",
    "find_doubts",
    "find_label_errors",
    "given_decisions",
    "labels_mislead",
    "n_models",
    "probable_labels",
    "unanimity",
]

_FOLDS = 5
_INVERSE_PENALTY = 3.0
"""``C`` of the logistic regression: wrong labels punish weaker penalties, which fit them."""
_ITERATIONS = 200
_FOLDS_OF_A_LOOK, _ITERATIONS_OF_A_LOOK = 3, 30
"""Of models that only tell whether anything is wrong."""
_FEWEST_NEIGHBOURS, _MOST_NEIGHBOURS, _SHARPNESS = 5, 20, 10.0
_FEWEST_TRUSTED = 2
"""Of an option: where fewer are left, all its queries stay."""
_UNANIMOUS = 0.999
_LEAST_MOVED = 0.25
"""``weights``: share of the weight that may always be elsewhere."""
_FENCE = 1.5
"""Tukey's, in interquartile ranges."""
_STANDARD_ERRORS, _MOST_WRONG = 3.0, 0.35
"""By how many leaving the doubted labels out must predict the others better, to say that they mislead; and the share of labels that may seem
wrong: where more do, it is the vectors that cannot tell them apart."""
_LEAST_LIKELY = 1e-3
"""Share of a label's queries that may be given any other label, whatever the joint says."""


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What is found about n labels.

    Attributes:
        self_confidence: Out-of-fold probability of the given label, of its least plausible decision: shape (n,).
        neighbours: The same by the nearest other queries: shape (n,).
        margin: Mean of both, less that of the likeliest other option; of ``weights`` how much less of the weight lies elsewhere than is
            usual. Of the worst of the doubted decisions, or of all where none is: shape (n,).
        instead: What the other queries speak for, as a target: shape (n, n_labels). Decisions that are not doubted stay.
        is_doubted: Whether a decision is probably wrong: shape (n, n_decisions).
        subject: The label that is doubted most: the given one, or the strongest of the given ones; of ``multi`` the one whose
            decision is worst: shape (n,).
        n_decided: Queries that each label may be the subject of: shape (n_labels,).
        is_judged: False where there is no other query for one of the decisions: shape (n,).
        estimated_wrong: How many labels are wrong, as confident learning estimates it; None where decisions are judged one by one (``multi``)
            or by shares (``weights``).
    """

    self_confidence: Floats
    neighbours: Floats
    margin: Floats
    instead: Floats
    is_doubted: Booleans
    subject: Integers
    n_decided: Integers
    is_judged: Booleans
    estimated_wrong: float | None

    @property
    def is_suspect(self) -> Booleans:
        """Whether the label is probably wrong: shape (n,)."""
        return np.asarray(self.is_doubted.any(axis=1))

    @property
    def suggested(self) -> Integers:
        """The likeliest other label (``single``): shape (n,)."""
        return np.asarray(self.instead.argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class _Verdict:
    """What the views say of one decision of each query.

    Attributes:
        margin: Below 0 where they speak against it: shape (n,).
        instead: The distribution that they speak for: shape (n, n_options).
        is_listed: Whether it is probably wrong: shape (n,).
        n_wrong: How many are, by estimate; None where there is none.
    """

    margin: Floats
    instead: Floats
    is_listed: Booleans
    n_wrong: float | None


@dataclass(frozen=True, slots=True)
class _Form:
    """What a label is made of.

    Attributes:
        plain: From targets to what they say without doubt: (n, n_labels) to the same.
        decisions: From targets to distributions: (n, n_labels) to (n, n_decisions, n_options).
        targets: The way back.
        subject: From the worst decision of each query, (n,), and what is given, to the label that it is about: (n,).
        n_decided: From what is given to how many queries each label may be the subject of: (n_labels,).
        judge: From the mean of the views and what is given, both (n, n_options), to a verdict.
        turns: How often the views are taken.
        unanimous: Agreement of the samples from which on they count as one.
    """

    plain: Callable[[Floats], Floats]
    decisions: Callable[[Floats], Floats]
    targets: Callable[[Floats], Floats]
    subject: Callable[[Integers, Floats], Integers]
    n_decided: Callable[[Floats], Integers]
    judge: Callable[[Floats, Floats], _Verdict]
    turns: int = 2
    unanimous: float = _UNANIMOUS


def given_decisions(targets: Floats, task: Task) -> Floats:
    """What targets of shape (n, n_labels) say without doubt, as distributions: shape (n, n_decisions, n_options)."""
    form = _FORMS[task]
    return form.decisions(form.plain(targets))


def unanimity(samples: Floats, target: Floats, task: Task) -> Floats:
    """How far a query's samples agree with its label in each decision, 1 where all do: shape (n_decisions,).

    Args:
        samples: Shape (n_samples, n_labels).
        target: The label that was made of them, shape (n_labels,).
        task: What they mean.
    """
    agreement: Floats = _overlap(_FORMS[task].decisions(samples), given_decisions(target[None], task)).mean(axis=0)
    return agreement


def find_label_errors(
    vectors: Floats, given: Integers, n_labels: int, *, agreement: Floats | None = None, seed: int = 0
) -> Findings:
    """Which of the labels are probably wrong, where each query has one (``single``).

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
        given: Label of each row, shape (n,); at least two labels occur.
        n_labels: How many labels there are.
        agreement: Share of the given label in the teacher's answers, shape (n,); None: 1.
        seed: Of the folds.
    """
    targets = np.eye(n_labels, dtype=np.float32)[given]
    return find_doubts(
        vectors, targets, Task.SINGLE, agreement=None if agreement is None else agreement[:, None], seed=seed
    )


def n_models(targets: Floats, task: Task) -> int:
    """How many models ``find_doubts`` fits, which take most of its time.

    Args:
        targets: Shape (n, n_labels).
        task: What they mean.
    """
    n_decisions: int = given_decisions(targets[:1], task).shape[1]
    return _FORMS[task].turns * n_decisions * _FOLDS


def find_doubts(
    vectors: Floats,
    targets: Floats,
    task: Task,
    *,
    agreement: Floats | None = None,
    seed: int = 0,
    on_fitted: Callable[[], None] = lambda: None,
) -> Findings:
    """Which labels are probably wrong. Takes time in proportion to the number of decisions, and to the square of n.

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
        targets: float32 of shape (n, n_labels); not all rows are the same.
        task: What they mean.
        agreement: How far the samples of each decision agree with it (``unanimity``), shape (n, n_decisions); None: 1.
        seed: Of the folds.
        on_fitted: Is called after each of the ``n_models``.
    """
    form = _FORMS[task]
    given = given_decisions(targets, task)
    decisions = range(given.shape[1])
    k = _neighbours_wanted(form.plain(targets).sum(axis=0))
    is_trusted = np.ones(given.shape[:2], bool)
    for turn in range(form.turns):
        own = np.stack(
            [_out_of_fold(vectors, given[:, d], is_trusted[:, d], seed + turn, on_fitted=on_fitted) for d in decisions],
            axis=1,
        )
        near = _of_neighbours(vectors, given, is_trusted, k)
        verdicts = [form.judge((own[:, d] + near[:, d]) / 2, given[:, d]) for d in decisions]
        margin = np.stack([verdict.margin for verdict in verdicts], axis=1)
        is_trusted = np.stack([_trusted(margin[:, d], given[:, d]) for d in decisions], axis=1)
    is_judged = np.stack([_has_others(given[:, d]) for d in decisions], axis=1)
    is_listed = np.stack([verdict.is_listed for verdict in verdicts], axis=1)
    if agreement is not None:
        is_listed |= (agreement < form.unanimous) & (margin < 1.0 - agreement)
    is_doubted = is_listed & is_judged
    worst = is_doubted | (_worst(margin, is_judged) & ~is_doubted.any(axis=1, keepdims=True))
    instead = np.stack([verdict.instead for verdict in verdicts], axis=1)
    subject = form.subject(np.where(worst, margin, np.inf).argmin(axis=1), given)
    return Findings(
        self_confidence=_least(_overlap(given, own), is_judged),
        neighbours=_least(_overlap(given, near), is_judged),
        margin=_least(margin, worst),
        instead=form.targets(np.where(worst[:, :, None], instead, given)),
        is_doubted=is_doubted,
        subject=subject,
        n_decided=form.n_decided(given),
        is_judged=np.asarray(is_judged.all(axis=1)),
        estimated_wrong=verdicts[0].n_wrong,  # where there is an estimate there is one decision
    )


def labels_mislead(vectors: Floats, targets: Floats, *, seed: int = 0) -> bool:
    """Whether so many labels are wrong that a model learns better without those that the others speak against (``single``).

    Where they are right, and only hard to tell from vectors, it learns no better without them. So two models are fitted to the other folds, with all
    and without those that the rest of these speaks against, and must agree with the labels given in a fold that neither saw nor a list was made
    from: these are no more wrong for the one model than for the other (McNemar's test; that folds share models is not in it).

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
        targets: float32 of shape (n, n_labels); not all rows have the same best label.
        seed: Of the folds.
    """
    given = given_decisions(targets, Task.SINGLE)
    own, labels = given[:, 0], given[:, 0].argmax(axis=1)
    folds = _stratified_folds(labels, seed, _FOLDS_OF_A_LOOK)
    gained = lost = 0
    for fold in range(_FOLDS_OF_A_LOOK):
        asked, fitted = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        is_listed, share_wrong = _listed(vectors[fitted], given[fitted], seed)
        if share_wrong > _MOST_WRONG:
            return False
        agrees, agrees_without = (
            _asked_of_others(vectors, own, rows, asked, _ITERATIONS_OF_A_LOOK).argmax(axis=1) == labels[asked]
            for rows in (fitted, fitted[~is_listed])
        )
        gained += int((agrees_without & ~agrees).sum())
        lost += int((agrees & ~agrees_without).sum())
    return bool(gained - lost > _STANDARD_ERRORS * np.sqrt(gained + lost))


def _listed(vectors: Floats, given: Floats, seed: int) -> tuple[Booleans, float]:
    """Which labels the others speak against, at a quick look, shape (n,); and the share that seems wrong."""
    own, everything = given[:, 0], np.ones(len(given), bool)
    from_others = _out_of_fold(
        vectors, own, everything, seed, n_folds=_FOLDS_OF_A_LOOK, iterations=_ITERATIONS_OF_A_LOOK
    )
    near = _of_neighbours(vectors, given, everything[:, None], _neighbours_wanted(own.sum(axis=0)))[:, 0]
    verdict = _judge_options((from_others + near) / 2, own)
    return verdict.is_listed, (verdict.n_wrong or 0.0) / len(own)


def probable_labels(vectors: Sequence[Floats], targets: Floats, *, seed: int = 0) -> Floats:
    """What the labels probably are (``single``), given what they are said to be: float32 of shape (n, n_labels), rows summing to 1.

    By Bayes' rule: the mean of the views of what a query's label is, times how often queries of that label are given the label that
    this one has. Confident learning estimates the latter, as it does for forward correction (Patrini et al., CVPR 2017). A soft target counts as each of
    its labels, by its share.

    Args:
        vectors: Of one encoder or several, float32 of shape (n, d) each, rows of length 1: each makes both views.
        targets: float32 of shape (n, n_labels); not all rows have the same best label.
        seed: Of the folds.
    """
    given = given_decisions(targets, Task.SINGLE)
    own, labels = given[:, 0], given[:, 0].argmax(axis=1)
    k, is_trusted = _neighbours_wanted(own.sum(axis=0)), np.ones(len(given), bool)
    for turn in range(_ONE_OF_ALL.turns):
        views = [
            view
            for each in vectors
            for view in (
                _out_of_fold(each, own, is_trusted, seed + turn),
                _of_neighbours(each, given, is_trusted[:, None], k)[:, 0],
            )
        ]
        mean: Floats = np.mean(views, axis=0, dtype=np.float64)
        is_trusted = _trusted(_judge_options(mean, own).margin, own)
    joint = confident_joint(mean, labels)
    given_by_true = joint / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)
    given_by_true = (1 - _LEAST_LIKELY) * given_by_true + _LEAST_LIKELY / len(joint)
    likelihood = np.maximum(mean, np.finfo(np.float32).eps)
    shares = targets / targets.sum(axis=1, keepdims=True)
    probable: Floats = likelihood * ((shares / (likelihood @ given_by_true.T)) @ given_by_true)
    return np.asarray(probable, np.float32)


def _overlap(one: Floats, other: Floats) -> Floats:
    """What two distributions have in common, 1 where they are the same: over the last axis."""
    common: Floats = np.minimum(one, other).sum(axis=-1)
    return common


def _least(values: Floats, chosen: Booleans) -> Floats:
    """The least of each query's chosen decisions, of all of them where none is chosen: (n, n_decisions) to (n,)."""
    least: Floats = np.where(chosen | ~chosen.any(axis=1, keepdims=True), values, np.inf).min(axis=1)
    return least


def _worst(margin: Floats, is_judged: Booleans) -> Booleans:
    """Which decision of each query is the least plausible one: shape (n, n_decisions)."""
    worst: Booleans = np.where(is_judged, margin, np.inf).argmin(axis=1)[:, None] == np.arange(margin.shape[1])
    return worst


def _neighbours_wanted(mass: Floats) -> int:
    """From how often each label is given."""
    return int(np.clip(np.median(mass[mass > 0]) // 3, _FEWEST_NEIGHBOURS, _MOST_NEIGHBOURS))


def _trusted(margin: Floats, given: Floats) -> Booleans:
    """Where nothing speaks against it, and every query with an option of which too few are left."""
    is_trusted, options = margin >= 0, given.argmax(axis=1)
    left = np.bincount(options[is_trusted], minlength=given.shape[1])
    trusted: Booleans = is_trusted | (left < _FEWEST_TRUSTED)[options]
    return trusted


def _has_others(given: Floats) -> Booleans:
    """Whether another query is decided in the same way."""
    options = given.argmax(axis=1)
    others: Booleans = np.bincount(options, minlength=given.shape[1])[options] > 1
    return others


# --- two views -------------------------------------------------------------------------------------------------------


def _out_of_fold(
    vectors: Floats,
    given: Floats,
    is_trusted: Booleans,
    seed: int,
    *,
    n_folds: int = _FOLDS,
    iterations: int = _ITERATIONS,
    on_fitted: Callable[[], None] = lambda: None,
) -> Floats:
    """Probability of each option, shape (n, n_options), by models that were fitted on the trusted rows of other folds."""
    folds = _stratified_folds(given.argmax(axis=1), seed, n_folds)
    scores = np.zeros(given.shape, np.float32)
    for fold in range(n_folds):
        asked, fitted = np.flatnonzero(folds == fold), np.flatnonzero((folds != fold) & is_trusted)
        scores[asked] = _asked_of_others(vectors, given, fitted, asked, iterations)
        on_fitted()
    return scores


def _asked_of_others(vectors: Floats, given: Floats, fitted: Integers, asked: Integers, iterations: int) -> Floats:
    """Probability of each option for the rows asked about, shape (n_asked, n_options), by a model of the fitted ones."""
    from warnings import catch_warnings, filterwarnings, simplefilter

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros((len(asked), given.shape[1]), np.float32)
    rows, options = np.nonzero(given[fitted])  # a shared decision stands once for each option, by its share
    known = np.unique(options)
    if len(known) == 1:
        scores[:, known] = 1.0
    elif len(known) and len(asked):
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # nearly converged is as good here
            filterwarnings(
                "ignore", "The number of unique classes"
            )  # many intents of one or two queries are no regression
            model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=iterations)
            model.fit(vectors[fitted[rows]], options, sample_weight=given[fitted[rows], options])
        scores[:, model.classes_] = model.predict_proba(vectors[asked])
    return scores


def _stratified_folds(given: Integers, seed: int, n_folds: int) -> Integers:
    """A fold from 0 for each row: the rows of an option are dealt out in turn, so that the fewest are in all folds but one."""
    chance = np.random.default_rng(seed)
    folds = np.empty(len(given), np.int64)
    order = np.lexsort((chance.random(len(given)), given))
    folds[order] = np.arange(len(given)) % n_folds
    return folds


def _of_neighbours(vectors: Floats, given: Floats, is_trusted: Booleans, k: int) -> Floats:
    """Mean of what the nearest other trusted rows are given, weighted by nearness: shape (n, n_decisions, n_options)."""
    shares = np.zeros(given.shape, np.float32)
    masks, which = np.unique(is_trusted, axis=1, return_inverse=True)
    for position, mask in enumerate(masks.T):
        own = np.flatnonzero(which.reshape(-1) == position)
        columns = np.ascontiguousarray(given[:, own]).reshape(len(given), -1)
        shares[:, own] = _nearest_mean(vectors, columns, mask, k).reshape(len(given), len(own), -1)
    shares /= np.maximum(shares.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    return shares


def _nearest_mean(vectors: Floats, columns: Floats, is_trusted: Booleans, k: int) -> Floats:
    """Sums of the columns over the nearest other trusted rows, by nearness: shape as of the columns."""
    from scipy.sparse import csr_array

    known = np.flatnonzero(is_trusted)
    positions, cosines = nearest(vectors, vectors[known], k + 1)  # one more: a row is its own nearest
    neighbours = known[positions]
    is_own = neighbours == np.arange(len(vectors))[:, None]
    weights = np.where(is_own, 0.0, np.exp((cosines - 1.0) * _SHARPNESS)).astype(np.float32)
    starts = np.arange(len(vectors) + 1) * neighbours.shape[1]
    sums: Floats = csr_array((weights.ravel(), neighbours.ravel(), starts), shape=(len(vectors),) * 2) @ columns
    return sums


# --- judging ---------------------------------------------------------------------------------------------------------


def _judge_options(mean: Floats, given: Floats) -> _Verdict:
    """Where options exclude each other: confident learning."""
    labels, rows = given.argmax(axis=1), np.arange(len(given))
    others = mean.copy()
    others[rows, labels] = -1.0
    suggested = others.argmax(axis=1)
    margin = mean[rows, labels] - others[rows, suggested]
    joint = confident_joint(mean, labels)
    return _Verdict(
        margin=margin,
        instead=np.eye(given.shape[1], dtype=np.float32)[suggested],
        is_listed=_most_doubtful(mean, labels, joint) & (margin < 0),
        n_wrong=float(joint.sum() - np.trace(joint)),
    )


def _judge_presence(mean: Floats, given: Floats) -> _Verdict:
    """Whether a query has a label, which most queries have not.

    Models are surer of what is common: where a label is missing they hold it for absent all the same, though less than is usual. So
    an absence has to be likelier by the difference of the two mean self-confidences (the thresholds of confident learning). The joint is no
    estimate here: what it counts besides is likelier as it is.
    """
    verdict, labels, rows = _judge_options(mean, given), given.argmax(axis=1), np.arange(len(given))
    usual = np.bincount(labels, mean[rows, labels], minlength=2) / np.maximum(np.bincount(labels, minlength=2), 1)
    surplus = np.maximum(usual[labels] - usual[1 - labels], 0.0)
    return replace(verdict, margin=verdict.margin - surplus, n_wrong=None)


def _judge_shares(mean: Floats, given: Floats) -> _Verdict:
    """Where they share a whole: how much of it lies elsewhere, beside what is usual."""
    elsewhere = 1.0 - _overlap(given, mean)
    low, high = np.quantile(elsewhere, [0.25, 0.75])
    margin = max(_LEAST_MOVED, high + _FENCE * (high - low)) - elsewhere
    return _Verdict(margin, mean, margin < 0, None)


def confident_joint(probabilities: Floats, given: Integers) -> Floats:
    """How many queries have label i and are really j, as confident learning estimates it.

    A query counts for j where the probability of j reaches the mean probability of j among the queries labelled j; of several such the
    likeliest. Rows are then scaled to how often each label is given. A label that nobody counts for keeps its queries, and for one that is
    given once nobody counts: no other query tells what its probability is to be.

    Args:
        probabilities: Out-of-sample, shape (n, n_labels).
        given: Labels, shape (n,).

    Returns:
        Shape (n_labels, n_labels); the sum is n.
    """
    n_labels = probabilities.shape[1]
    counts = np.bincount(given, minlength=n_labels)
    own = np.bincount(given, probabilities[np.arange(len(given)), given], minlength=n_labels)
    thresholds = np.where(counts > 1, own / np.maximum(counts, 1), np.inf)
    is_confident = probabilities >= thresholds
    really = np.where(is_confident, probabilities, -1.0).argmax(axis=1)
    counted = is_confident.any(axis=1)
    joint = np.zeros((n_labels, n_labels))
    np.add.at(joint, (given[counted], really[counted]), 1.0)
    joint[np.diag_indices(n_labels)] += joint.sum(axis=1) == 0
    joint *= (counts / joint.sum(axis=1))[:, None]
    return joint


def _most_doubtful(probabilities: Floats, given: Integers, joint: Floats) -> Booleans:
    """For labels i and j, as many of those labelled i as the joint says are j: those for which j is likelier than i by most."""
    chosen = np.zeros(len(given), bool)
    wrong = np.rint(joint).astype(np.int64)
    np.fill_diagonal(wrong, 0)
    for label, other in np.argwhere(wrong):
        rows = np.flatnonzero(given == label)
        lead = probabilities[rows, other] - probabilities[rows, label]
        chosen[rows[np.argsort(-lead, kind="stable")[: wrong[label, other]]]] = True
    return chosen


# --- one form a task -------------------------------------------------------------------------------------------------


def _likeliest(targets: Floats) -> Floats:
    plain: Floats = np.eye(targets.shape[1], dtype=np.float32)[targets.argmax(axis=1)]
    return plain


_ONE_OF_ALL = _Form(
    plain=_likeliest,
    decisions=lambda targets: targets[:, None, :],
    targets=lambda decisions: decisions[:, 0],
    subject=lambda _, given: given[:, 0].argmax(axis=1),
    n_decided=lambda given: np.bincount(given[:, 0].argmax(axis=1), minlength=given.shape[2]),
    judge=_judge_options,
)
_FORMS: Mapping[Task, _Form] = {
    Task.SINGLE: _ONE_OF_ALL,
    Task.MULTI: _Form(
        plain=lambda targets: (targets >= HOLDS).astype(np.float32),
        decisions=lambda targets: np.stack([1.0 - targets, targets], axis=2),
        targets=lambda decisions: decisions[:, :, 1],
        subject=lambda worst, _: worst,
        n_decided=lambda given: np.full(given.shape[1], len(given)),
        judge=_judge_presence,
        turns=1,
    ),
    Task.WEIGHTS: replace(
        _ONE_OF_ALL, plain=lambda targets: targets, judge=_judge_shares, unanimous=1.0 - _LEAST_MOVED
    ),
}
