"""Which labels are probably wrong: those that the rest of the labels speaks against.

Two views of each query that its own label has no part in: what a logistic regression on sentence vectors says that was fitted on
other queries (out of fold), and what the nearest other queries are labelled. Their mean goes into confident learning (Northcutt, Jiang
and Chuang, JAIR 70, 2021): with a threshold for each label, it estimates how many labels are wrong, and of which kind; so many are
listed, those first for which another label is likelier by most. A label that its own samples disagree about is listed where the
two views do not speak for it.

Both views are taken twice, the second time without the queries that the first time speaks against: wrong labels would teach them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import pipeline
from distill.embed import nearest
from distill.errors import DataError, SpecError
from distill.progress import Progress
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.teacher.relabel import Case, RelabelPlan, RelabelSummary
    from distill.types import Example

    Booleans = np.ndarray[Any, np.dtype[np.bool_]]
    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

__all__ = [
    "Audit",
    "Findings",
    "IntentAudit",
    "Suspect",
    "audit",
    "confident_joint",
    "find_label_errors",
    "plan_relabel",
    "relabel",
]

_FOLDS = 5
_INVERSE_PENALTY = 3.0
"""``C`` of the logistic regression: wrong labels punish weaker penalties, which fit them."""
_ITERATIONS = 200
_FEWEST_NEIGHBOURS, _MOST_NEIGHBOURS, _SHARPNESS = 5, 20, 10.0
_FEWEST_TRUSTED = 2
"""Of a label: where fewer are left, all its queries stay."""
_UNANIMOUS = 0.999
_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        text: The query, redacted.
        label: What it is labelled.
        suggested: What the other queries speak for.
        margin: How likely the label is less how likely the suggested one is: -1 is worst.
        self_confidence: Probability of the label by the logistic regression that has not seen it.
        neighbours: Share of the nearest other queries that have the same label, by nearness.
        agreement: Share of the label in the teacher's answers to this query; 1 where all say the same, or there is one.
        asked_again: What the teacher said when it was asked again, answers by label; empty where it was not.
        evidence: The nearest known queries and their labels, the nearest first: the spec's own examples, and queries whose labels
            nothing speaks against.
    """

    text: str
    label: str
    suggested: str
    margin: float
    self_confidence: float
    neighbours: float
    agreement: float
    asked_again: Mapping[str, int] = field(default_factory=dict)
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class IntentAudit:
    """The labels of one intent.

    Attributes:
        name: The label; ``oos`` among them.
        n: Queries with this label.
        n_suspected: Of these, probably wrong.
        mostly: The label that is suggested most often; None where none is suspected.
    """

    name: str
    n: int
    n_suspected: int
    mostly: str | None


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        n_labels: Labels that were looked at; gold is never among them.
        n_unjudged: Of these, the only one of their intent: nothing to compare them with.
        estimated_wrong: How many are wrong, as confident learning estimates it.
        suspects: Worst first.
        intents: Those with most suspects first.
    """

    n_labels: int
    n_unjudged: int
    estimated_wrong: int
    suspects: tuple[Suspect, ...]
    intents: tuple[IntentAudit, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What is found about n labels, as arrays of shape (n,).

    Attributes:
        self_confidence: Out-of-fold probability of the given label.
        neighbours: Share of the nearest other queries with the given label.
        margin: Mean of both, less that of the likeliest other label.
        suggested: The likeliest other label.
        is_suspect: Whether the label is probably wrong.
        is_judged: False for the only query of its label.
        estimated_wrong: How many labels are wrong, by the confident joint.
    """

    self_confidence: Floats
    neighbours: Floats
    margin: Floats
    suggested: Integers
    is_suspect: Booleans
    is_judged: Booleans
    estimated_wrong: float


def audit(spec: Spec, *, show_progress: bool = True) -> Audit:
    """Lists the labels that are probably wrong. Asks nothing, and never looks at gold.

    Args:
        spec: The router's spec; its queries are labelled.
        show_progress: Shows progress on stderr.

    Raises:
        SpecError: The task is not ``single``.
        DataError: There is no labelled query, or all have the same label.
    """
    from distill.student.embedder import embedder_of

    _check_task(spec)
    labelled = pipeline.examples(spec, with_evidence=False, show_notes=False)
    if len(set(_labels(spec, labelled))) == 1:  # said before the encoder is fetched, exported and asked
        raise DataError(f"{spec.ledger_path}: all labels are the same; an audit compares them with one another")
    embedder = embedder_of(spec, show_progress=show_progress)
    with Progress("embed", len(labelled), show=show_progress) as progress:
        vectors = embedder.embed([example.text for example in labelled], progress.advance)
    found = _find(labelled, vectors, spec)
    rows = np.flatnonzero(found.is_suspect)
    rows = rows[np.argsort(found.margin[rows], kind="stable")]
    suspects = _suspects(spec, labelled, found, rows, _evidence(spec, labelled, vectors, rows, embedder))
    return Audit(
        n_labels=len(labelled),
        n_unjudged=int((~found.is_judged).sum()),
        estimated_wrong=round(found.estimated_wrong),
        suspects=suspects,
        intents=_by_intent(_labels(spec, labelled), suspects),
    )


def _check_task(spec: Spec) -> None:
    if spec.task is not Task.SINGLE:
        raise SpecError(f"{spec.path}: audit knows `task: single` so far, found {spec.task.value!r}")


def _find(labelled: Sequence[Example], vectors: Floats, spec: Spec) -> Findings:
    targets = np.stack([example.target for example in labelled])
    given = targets.argmax(axis=1)
    return find_label_errors(vectors, given, len(spec.labels), agreement=targets.max(axis=1), seed=spec.seed)


def _labels(spec: Spec, labelled: Sequence[Example]) -> list[str]:
    return [spec.labels[int(example.target.argmax())] for example in labelled]


def _evidence(
    spec: Spec, labelled: Sequence[Example], vectors: Floats, suspects: Integers, embedder: Embedder
) -> list[tuple[tuple[str, str], ...]]:
    """For each suspect the nearest known queries and their labels, none of them a suspect, the nearest first."""
    intents = (*spec.intent_list, *((spec.out_of_scope_intent,) if spec.out_of_scope_intent else ()))
    own = [(text, intent.name) for intent in intents for text in intent.examples]
    others = np.setdiff1d(np.arange(len(labelled)), suspects)
    labels = _labels(spec, labelled)
    known = [*own, *((labelled[row].text, labels[row]) for row in others.tolist())]
    known_vectors = np.concatenate([embedder.embed([text for text, _ in own]), vectors[others]])
    positions, _ = nearest(vectors[suspects], known_vectors, _EVIDENCE)
    return [tuple(known[position] for position in row) for row in positions.tolist()]


def _suspects(
    spec: Spec,
    labelled: Sequence[Example],
    found: Findings,
    rows: Integers,
    evidence: Sequence[tuple[tuple[str, str], ...]],
) -> tuple[Suspect, ...]:
    from distill.teacher.relabel import votes_of

    votes, labels = votes_of(spec, [labelled[row].text for row in rows]), _labels(spec, labelled)
    return tuple(
        Suspect(
            text=labelled[row].text,
            label=labels[row],
            suggested=spec.labels[int(found.suggested[row])],
            margin=round(float(found.margin[row]), 4),
            self_confidence=round(float(found.self_confidence[row]), 4),
            neighbours=round(float(found.neighbours[row]), 4),
            agreement=round(float(labelled[row].target.max()), 4),
            asked_again=votes.get(labelled[row].text, {}),
            evidence=known,
        )
        for row, known in zip(rows.tolist(), evidence, strict=True)
    )


def _by_intent(labels: Sequence[str], suspects: Sequence[Suspect]) -> tuple[IntentAudit, ...]:
    suggested: dict[str, Counter[str]] = {name: Counter() for name in labels}
    for suspect in suspects:
        suggested[suspect.label][suspect.suggested] += 1
    found = [
        IntentAudit(name, n, suggested[name].total(), next((most for most, _ in suggested[name].most_common(1)), None))
        for name, n in Counter(labels).items()
    ]
    return tuple(sorted(found, key=lambda intent: (-intent.n_suspected, -intent.n_suspected / intent.n, intent.name)))


# --- finding ---------------------------------------------------------------------------------------------------------


def find_label_errors(
    vectors: Floats, given: Integers, n_labels: int, *, agreement: Floats | None = None, seed: int = 0
) -> Findings:
    """Which labels are probably wrong.

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
        given: Label of each row, shape (n,); at least two labels occur.
        n_labels: How many labels there are.
        agreement: Share of the given label in the teacher's answers, shape (n,); None: 1.
        seed: Of the folds.
    """
    counts = np.bincount(given, minlength=n_labels)
    is_judged = counts[given] > 1
    rows = np.arange(len(given))
    is_trusted = np.ones(len(given), bool)
    for turn in range(2):
        own = _out_of_fold(vectors, given, n_labels, is_trusted, seed + turn)
        near = _votes(vectors, given, n_labels, is_trusted)
        mean = (own + near) / 2
        others = mean.copy()
        others[rows, given] = -1.0
        suggested = others.argmax(axis=1)
        margin = mean[rows, given] - others[rows, suggested]
        is_trusted = margin >= 0
        is_trusted |= (np.bincount(given[is_trusted], minlength=n_labels) < _FEWEST_TRUSTED)[given]
    joint = confident_joint(mean, given)
    is_listed = _most_doubtful(mean, given, joint) & (margin < 0)
    if agreement is not None:
        is_listed |= (agreement < _UNANIMOUS) & (margin < 1.0 - agreement)
    return Findings(
        self_confidence=own[rows, given],
        neighbours=near[rows, given],
        margin=margin,
        suggested=suggested,
        is_suspect=is_listed & is_judged,
        is_judged=is_judged,
        estimated_wrong=float(joint.sum() - np.trace(joint)),
    )


def _out_of_fold(vectors: Floats, given: Integers, n_labels: int, is_trusted: Booleans, seed: int) -> Floats:
    """Probability of each label, shape (n, n_labels), by models that were fitted on the trusted rows of other folds."""
    from warnings import catch_warnings, simplefilter

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    folds = _stratified_folds(given, seed)
    scores = np.zeros((len(given), n_labels), np.float32)
    for fold in range(_FOLDS):
        asked, fitted = folds == fold, (folds != fold) & is_trusted
        known = np.unique(given[fitted])
        if not asked.any() or not len(known):
            continue
        if len(known) == 1:
            scores[asked, known[0]] = 1.0
            continue
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # nearly converged is as good here
            model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ITERATIONS).fit(vectors[fitted], given[fitted])
        scores[np.ix_(asked, model.classes_)] = model.predict_proba(vectors[asked])
    return scores


def _stratified_folds(given: Integers, seed: int) -> Integers:
    """A fold from 0 for each row: the rows of a label are dealt out in turn, so that the fewest labels are in all folds but one."""
    chance = np.random.default_rng(seed)
    folds = np.empty(len(given), np.int64)
    order = np.lexsort((chance.random(len(given)), given))
    folds[order] = np.arange(len(given)) % _FOLDS
    return folds


def _votes(vectors: Floats, given: Integers, n_labels: int, is_trusted: Booleans) -> Floats:
    """Share of each label among the nearest other trusted rows, weighted by nearness: shape (n, n_labels)."""
    known = np.flatnonzero(is_trusted)
    counts = np.bincount(given)
    wanted = int(np.clip(np.median(counts[counts > 0]) // 3, _FEWEST_NEIGHBOURS, _MOST_NEIGHBOURS))
    positions, cosines = nearest(vectors, vectors[known], wanted + 1)  # one more: a row is its own nearest
    neighbours, rows = known[positions], np.arange(len(given))[:, None]
    weights = np.where(neighbours == rows, 0.0, np.exp((cosines - 1.0) * _SHARPNESS)).astype(np.float32)
    shares = np.zeros((len(given), n_labels), np.float32)
    np.add.at(shares, (rows, given[neighbours]), weights)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return shares


def confident_joint(probabilities: Floats, given: Integers) -> Floats:
    """How many queries have label i and are really j, as confident learning estimates it.

    A query counts for j where the probability of j reaches the mean probability of j among the queries labelled j; of several such the
    likeliest. Rows are then scaled to how often each label is given. A label that nobody counts for keeps its queries.

    Args:
        probabilities: Out-of-sample, shape (n, n_labels).
        given: Labels, shape (n,).

    Returns:
        Shape (n_labels, n_labels); the sum is n.
    """
    n_labels = probabilities.shape[1]
    counts = np.bincount(given, minlength=n_labels)
    own = np.bincount(given, probabilities[np.arange(len(given)), given], minlength=n_labels)
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
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


# --- asking again ----------------------------------------------------------------------------------------------------


def plan_relabel(spec: Spec, found: Audit, *, samples: int, limit: int | None = None) -> RelabelPlan:
    """What asking again about the suspects would ask and cost; asks nothing.

    Raises:
        SpecError: The labels are people's.
    """
    from distill.teacher.relabel import plan_relabel as plan

    return plan(spec, _cases(found, limit), samples=samples)


def _cases(found: Audit, limit: int | None) -> list[Case]:
    from distill.teacher.relabel import Case

    return [Case(suspect.text, suspect.evidence[::-1]) for suspect in found.suspects[:limit]]


def relabel(
    spec: Spec,
    found: Audit,
    *,
    samples: int,
    limit: int | None = None,
    max_usd: Decimal | None = None,
    show_progress: bool = True,
) -> RelabelSummary:
    """Asks the teacher again about the suspects, worst first, beside the nearest known queries that are not suspected.

    See ``distill.teacher.relabel``. The ledger gets every answer, and what follows from them; ``train`` takes it from there.

    Args:
        spec: The router's spec.
        found: What ``audit`` found.
        samples: New answers to each suspect.
        limit: Only so many, the worst; None: all.
        max_usd: Most that this run may spend; None: what ``teacher.max_usd`` leaves.
        show_progress: Shows progress on stderr.

    Raises:
        SpecError: The labels are people's; or the limit cannot be kept, as no price is known.
        TeacherError: The teacher cannot answer at all. Every answer received is kept.
    """
    from distill.student.embedder import embedder_of
    from distill.teacher.relabel import relabel as ask

    return ask(
        spec,
        _cases(found, limit),
        samples=samples,
        max_usd=max_usd,
        open_embedder=lambda: embedder_of(spec, show_progress=show_progress),
        show_progress=show_progress,
    )
