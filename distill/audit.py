"""Which of a project's labels are probably wrong, and asking the teacher again about them.

What makes a label doubtful is worked out in ``distill.doubt``, for every task alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import pipeline
from distill.doubt import confident_joint, find_doubts, find_label_errors, given_decisions, n_models, unanimity
from distill.embed import nearest
from distill.errors import DataError
from distill.labelled import target_of
from distill.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from distill.doubt import Findings
    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.teacher.answers import Answer
    from distill.teacher.relabel import Case, RelabelPlan, RelabelSummary

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

__all__ = [
    "Audit",
    "IntentAudit",
    "Suspect",
    "audit",
    "check_can_relabel",
    "confident_joint",
    "find_label_errors",
    "plan_relabel",
    "relabel",
]

_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label that is probably wrong.

    A label is a name (``single``), names (``multi``), or each channel's share (``weights``).

    Attributes:
        text: The query, redacted.
        label: What it is labelled.
        suggested: What the other queries speak for.
        margin: How likely the label is less how likely the suggested one is, of its least plausible decision: -1 is worst. Of
            weights, how much less of the weight lies elsewhere than is usual.
        self_confidence: Probability of the label by the logistic regression that has not seen it (``multi``: of its least
            plausible decision; ``weights``: the share of the weight on which they agree).
        neighbours: The same by the nearest other queries: for ``single`` the share of them with the same label, by nearness.
        agreement: The same by the teacher's answers to this query; 1 where all say the same. Of one answer with scores, how sure it is.
        listed_under: The intent that is doubted most; for ``single`` and ``weights`` the label, or the strongest one.
        missing: Intents that the label probably lacks (``multi``).
        superfluous: Intents that it probably has for no good reason (``multi``).
        asked_again: What the teacher said when it was asked again, how often each answer; empty where it was not.
        evidence: The nearest known queries and their labels, the nearest first: the spec's own examples, and queries whose labels
            nothing speaks against.
    """

    text: str
    label: Answer
    suggested: Answer
    margin: float
    self_confidence: float
    neighbours: float
    agreement: float
    listed_under: str
    missing: tuple[str, ...] = ()
    superfluous: tuple[str, ...] = ()
    asked_again: Mapping[str, int] = field(default_factory=dict)
    evidence: tuple[tuple[str, Answer], ...] = ()


@dataclass(frozen=True, slots=True)
class IntentAudit:
    """The labels of one intent.

    Attributes:
        name: The label; ``oos`` among them.
        n: Queries with this label (``multi``: all queries, as each has this intent or has it not; ``weights``: those with most weight there).
        n_suspected: Of these, probably wrong, and wrong in this above all.
        mostly: The label, or the strongest one, that is suggested most often (``multi``: ``missing`` or ``superfluous``); None where none
            is suspected.
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
        n_unjudged: Of these, the only one of an intent: nothing to compare them with.
        estimated_wrong: How many are wrong, as confident learning estimates it; None where it does not (``multi``, ``weights``).
        suspects: Worst first.
        intents: Those with most suspects first.
    """

    n_labels: int
    n_unjudged: int
    estimated_wrong: int | None
    suspects: tuple[Suspect, ...]
    intents: tuple[IntentAudit, ...]


def audit(spec: Spec, *, show_progress: bool = True) -> Audit:
    """Lists the labels that are probably wrong. Asks nothing, and never looks at gold.

    Args:
        spec: The router's spec; its queries are labelled.
        show_progress: Shows progress on stderr.

    Raises:
        DataError: There is no labelled query, or all have the same label.
    """
    from distill.student.embedder import embedder_of

    labelled = pipeline.examples(spec, with_evidence=False, show_notes=False)
    targets = np.stack([example.target for example in labelled])
    given = given_decisions(targets, spec.task)
    if (given == given[0]).all():  # said before the encoder is fetched, exported and asked
        raise DataError(f"{spec.ledger_path}: all labels are the same; an audit compares them with one another")
    embedder = embedder_of(spec, show_progress=show_progress)
    texts = [example.text for example in labelled]
    with Progress("embed", len(texts), show=show_progress) as progress:
        vectors = embedder.embed(texts, progress.advance)
    agreement = _agreement(spec, texts, targets)
    with Progress("compare", n_models(targets, spec.task), "models", show=show_progress) as progress:
        found = find_doubts(
            vectors, targets, spec.task, agreement=agreement, seed=spec.seed, on_fitted=progress.advance
        )
    rows = np.flatnonzero(found.is_suspect)
    rows = rows[np.argsort(found.margin[rows], kind="stable")]
    labels = _answers(spec, targets)
    suspects = _suspects(spec, texts, labels, found, agreement.min(axis=1), rows)
    evidence = _evidence(spec, texts, labels, vectors, rows, embedder)
    return Audit(
        n_labels=len(labelled),
        n_unjudged=int((~found.is_judged).sum()),
        estimated_wrong=None if found.estimated_wrong is None else round(found.estimated_wrong),
        suspects=tuple(replace(each, evidence=known) for each, known in zip(suspects, evidence, strict=True)),
        intents=_by_intent(dict(zip(spec.labels, found.n_decided.tolist(), strict=True)), suspects),
    )


def _agreement(spec: Spec, texts: Sequence[str], targets: Floats) -> Floats:
    """How far the teacher's answers to each query agree with its label, in each decision: shape (n, n_decisions)."""
    from distill.teacher.label import recorded_samples

    samples = recorded_samples(spec, texts, redacted=True) if spec.teacher.samples > 1 else {}
    rows = []
    for text, target in zip(texts, targets, strict=True):
        answers = [answer for each in samples.get(text, ()) if (answer := target_of(each, spec)) is not None]
        rows.append(unanimity(np.stack(answers or [target]), target, spec.task))
    return np.stack(rows)


def _answers(spec: Spec, targets: Floats) -> list[Answer]:
    """Targets as labels are shown."""
    from distill.teacher.answers import FORMS

    return [FORMS[spec.task].answer(dict(zip(spec.labels, target.tolist(), strict=True))) for target in targets]


def _evidence(
    spec: Spec, texts: Sequence[str], labels: Sequence[Answer], vectors: Floats, suspects: Integers, embedder: Embedder
) -> list[tuple[tuple[str, Answer], ...]]:
    """For each suspect the nearest known queries and their labels, none of them a suspect, the nearest first."""
    own = _own_examples(spec)
    others = np.setdiff1d(np.arange(len(texts)), suspects)
    known = [*own, *((texts[row], labels[row]) for row in others.tolist())]
    known_vectors = np.concatenate([embedder.embed([text for text, _ in own]), vectors[others]])
    positions, _ = nearest(vectors[suspects], known_vectors, _EVIDENCE)
    return [tuple(known[position] for position in row) for row in positions.tolist()]


def _own_examples(spec: Spec) -> list[tuple[str, Answer]]:
    """The spec's examples and their labels."""
    from distill.teacher.answers import FORMS

    form = FORMS[spec.task]
    intents = (*spec.intent_list, *((spec.out_of_scope_intent,) if spec.out_of_scope_intent else ()))
    said = ((text, shown[form.key] if isinstance(shown, dict) else shown) for text, shown in form.examples(intents))
    return [(text, form.answer(form.numbers(answer) or {})) for text, answer in said]


def _suspects(
    spec: Spec,
    texts: Sequence[str],
    labels: Sequence[Answer],
    found: Findings,
    agreement: Floats,
    rows: Integers,
) -> list[Suspect]:
    from distill.teacher.relabel import votes_of

    votes = votes_of(spec, [texts[row] for row in rows])
    suggested = _answers(spec, found.instead[rows])
    return [
        Suspect(
            text=texts[row],
            label=labels[row],
            suggested=instead,
            margin=round(float(found.margin[row]), 4),
            self_confidence=round(float(found.self_confidence[row]), 4),
            neighbours=round(float(found.neighbours[row]), 4),
            agreement=round(float(agreement[row]), 4),
            listed_under=spec.labels[int(found.subject[row])],
            missing=_names_only_in(instead, labels[row]),
            superfluous=_names_only_in(labels[row], instead),
            asked_again=votes.get(texts[row], {}),
        )
        for row, instead in zip(rows.tolist(), suggested, strict=True)
    ]


def _names_only_in(one: Answer, other: Answer) -> tuple[str, ...]:
    """Of two lists of names, those that only the one holds."""
    return tuple(name for name in one if name not in other) if isinstance(one, list) else ()


def _by_intent(n_decided: Mapping[str, int], suspects: Sequence[Suspect]) -> tuple[IntentAudit, ...]:
    kinds: dict[str, Counter[str]] = {name: Counter() for name in n_decided}
    for suspect in suspects:
        kinds[suspect.listed_under][_kind(suspect)] += 1
    found = [
        IntentAudit(name, n, kinds[name].total(), next((most for most, _ in kinds[name].most_common(1)), None))
        for name, n in n_decided.items()
        if n
    ]
    return tuple(sorted(found, key=lambda intent: (-intent.n_suspected, -intent.n_suspected / intent.n, intent.name)))


def _kind(suspect: Suspect) -> str:
    match suspect.suggested:
        case str(name):
            return name
        case dict(shares):
            return str(max(shares, key=lambda name: shares[name]))
    return "missing" if suspect.listed_under in suspect.missing else "superfluous"


# --- asking again ----------------------------------------------------------------------------------------------------


def plan_relabel(spec: Spec, found: Audit, *, samples: int, limit: int | None = None) -> RelabelPlan:
    """What asking again about the suspects would ask and cost; asks nothing.

    Raises:
        SpecError: The labels are people's.
    """
    from distill.teacher.relabel import plan_relabel as plan

    return plan(spec, _cases(found, limit), samples=samples)


def check_can_relabel(spec: Spec, *, max_usd: Decimal | None = None) -> None:
    """What would stop ``relabel`` before anything is asked is found before the audit; see ``distill.teacher.relabel``."""
    from distill.teacher.relabel import check_can_relabel as check

    check(spec, max_usd=max_usd)


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
