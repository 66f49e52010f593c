"""Rounds that better the students where they are weak: find, have written, label, train, compare.

A round looks at the held-out queries: where the students disagree with the teacher, and which other label they were how near to. For
the pairs of labels that are mixed up most, queries are written (by ``distill.teacher.synth``, which is told of the rivals, and never
shown a held-out query), labelled blind, and trained on; where queries are written by kinds (``weights``), for the kinds that the worst
ones are of. The students so made stay if they agree more with the teacher on the same held-out queries, none of which they learnt from;
otherwise everything is as it was before, and that was the last round. Gold is never looked at.

What agreement is, and what is mixed up, goes by the task: ``distill.agreement``.

Everything lies in files as it comes (``distill.teacher.rounds``), so that a run that was cut goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import pipeline
from distill.agreement import MEASURES, NEAR
from distill.bundle import load_bundle
from distill.data import (
    leaked,
    read_jsonl,
    read_queries,
    sha256_json,
    storage_errors,
    swap_folder,
    write_json,
    write_jsonl,
)
from distill.embed import Distinct
from distill.errors import BundleError, DataError, SpecError, SpendLimitError, UnknownSpendError
from distill.labelled import redacted_gold
from distill.router import Router
from distill.spec import Spec
from distill.teacher.answers import FORMS
from distill.teacher.functions import redactor
from distill.teacher.rounds import SOURCE, added_queries_path, round_folder
from distill.types import OUT_OF_SCOPE_LABEL, Example, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from distill.agreement import Measure
    from distill.embed import Embedder
    from distill.teacher.writer import Focus
    from distill.types import Interval

    Array = np.ndarray[Any, Any]
    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

__all__ = [
    "PAIRS",
    "PER_INTENT",
    "ROUNDS",
    "Confusion",
    "Improvement",
    "ImprovementPlan",
    "LabelErrors",
    "Round",
    "WeakKind",
    "Weakness",
    "improve",
    "plan_improvement",
]

ROUNDS = 3
PER_INTENT = 20
"""Queries that a round has written for each label of a pair, or each kind of queries."""
PAIRS = 6
"""Pairs of labels, or kinds of queries, that a round looks after."""

_LEAST_MASS = 0.5
"""What the mistakes of a pair, made or near, must sum up to."""
_FEWEST_INTENTS = 2
_CANDIDATES = ".improve"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two labels that the students mix up on held-out queries.

    Attributes:
        labels: The two; ``oos``, which stands for none, may be one.
        mass: How often one was taken for the other, near mistakes included with their probability, where that is a quarter or more; in
            the mean over students. ``weights``: how much weight one had that was the other's, of queries with a quarter of it or more in
            wrong channels.
        n_wrong: How often one was taken for the other, in the mean over students. ``weights``: as the weightiest channel.
    """

    labels: tuple[str, str]
    mass: float
    n_wrong: float


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """What the students get wrong about one label on held-out queries.

    Attributes:
        label: Its name.
        missed: How often it is missed, in the mean over students; ``weights``: how much weight it lacks in all.
        false: How often it is wrongly given, likewise; ``weights``: how much weight it has too much.
    """

    label: str
    missed: float
    false: float


@dataclass(frozen=True, slots=True)
class WeakKind:
    """A kind of queries (``weights``) on which the students are weak.

    Attributes:
        name: The value of the first attribute of ``synth.attributes``.
        n_held_out: Held-out queries of this kind.
        disagreement: What is lacking to full agreement on these, where that is a quarter or more; summed up, in the mean over students.
    """

    name: str
    n_held_out: int
    disagreement: float


@dataclass(frozen=True, slots=True)
class Weakness:
    """Where the students are weak.

    Attributes:
        n_held_out: Held-out queries.
        agreement: How far each student says what the teacher says, 1 being all of it. ``single``: the share of queries with the same
            label. ``multi``: with the same set after the policy. ``weights``: of the weight, what lies in the channels that the teacher
            puts it in.
        n_disagree: Queries on which a student has another label or set, or another weightiest channel.
        n_unsure: Of the others, those that a student doubts: it is less than half sure, or (``multi``) of one intent nearly undecided.
            ``weights``: none, as even shares are no doubt.
        confusions: Pairs of labels, most mixed up first.
        labels: ``multi`` and ``weights``: what is wrong about each label of these pairs, worst first.
        kinds: ``weights`` with ``synth.attributes``: the kinds that the worst queries are of, worst first.
    """

    n_held_out: int
    agreement: Mapping[str, float]
    n_disagree: int
    n_unsure: int
    confusions: tuple[Confusion, ...]
    labels: tuple[LabelErrors, ...] = ()
    kinds: tuple[WeakKind, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did.

    Attributes:
        number: From 1, over all runs.
        weakness: What it set out from.
        n_written: Queries that were written.
        n_repeated: Of these, nearly another query, held-out ones included, or gold, and left out.
        n_added: Those left that have a label.
        n_calls: Requests that were answered, for writing and for labelling.
        usd: What these cost; None when a price or the tokens are unknown.
        before: Agreement of each student with the teacher on held-out queries, before.
        after: The same after training with the new queries.
        gain: Mean difference over students and queries.
        gain_ci95: Its interval (Tango's, of paired shares; ``weights``: the bootstrap's).
        kept: Whether the new queries and students stay.
    """

    number: int
    weakness: Weakness
    n_written: int
    n_repeated: int
    n_added: int
    n_calls: int
    usd: Decimal | None
    before: Mapping[str, float]
    after: Mapping[str, float]
    gain: float
    gain_ci95: Interval
    kept: bool


@dataclass(frozen=True, slots=True)
class Improvement:
    """What a run of rounds did: the rounds that it finished, and why it ended."""

    rounds: tuple[Round, ...]
    stopped: str


@dataclass(frozen=True, slots=True)
class ImprovementPlan:
    """What the next round would do.

    Attributes:
        number: Of the round.
        in_progress: Whether it was begun before.
        weakness: What it sets out from.
        labels: For which queries are written; or the kinds.
        n_queries: Queries to write and label.
        n_requests: About how many requests that takes.
        estimated_usd: Their estimated price, or None when a price is unknown.
        most_usd: The same should each answer of a model that has given none yet be as long as it may.
    """

    number: int
    in_progress: bool
    weakness: Weakness
    labels: tuple[str, ...]
    n_queries: int
    n_requests: int
    estimated_usd: Decimal | None
    most_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """plan.json: what a round is to better, and how the students stood on which held-out queries.

    Attributes:
        number: From 1.
        weakness: What was found.
        per_intent: Queries to write for each label of a pair, or each kind.
        held_out_sha256: Of the held-out queries and their labels.
        right: By student, how far it agreed with the teacher on each of them, from 0 to 1.
    """

    number: int
    weakness: Weakness
    per_intent: int
    held_out_sha256: str
    right: Mapping[str, tuple[float, ...]]

    @property
    def targets(self) -> dict[str, list[str]]:
        """Labels for which queries are written, and the rivals of each; or kinds, which have none."""
        if self.weakness.kinds:
            return {kind.name: [] for kind in self.weakness.kinds}
        found: dict[str, list[str]] = {}
        for confusion in self.weakness.confusions:
            for label, rival in (confusion.labels, confusion.labels[::-1]):
                found.setdefault(label, []).append(rival)
        return found


def improve(
    spec: Spec,
    *,
    out: Path | None = None,
    rounds: int = ROUNDS,
    per_intent: int = PER_INTENT,
    max_usd: Decimal | None = None,
    show_progress: bool = True,
    on_round: Callable[[Round], None] | None = None,
) -> Improvement:
    """Goes through rounds until one gains nothing, so many are done, or the limit is reached. One that was begun is finished first.

    Args:
        spec: The router's spec; its queries are labelled.
        out: Folder of the bundles; None is ``models/NAME``.
        rounds: How many at most.
        per_intent: Queries to write for each label of a pair that is mixed up, or for each kind.
        max_usd: Most that this run may spend; None: what ``teacher.max_usd`` leaves. Checked before each request.
        show_progress: Shows progress on stderr.
        on_round: Is told of each round when it is done.

    Raises:
        SpecError: The teacher cannot be asked; or the limit cannot be kept, as no price is known. Nothing is trained then.
        DataError: There is no labelled query, or none is held out.
        TeacherError: The teacher cannot answer at all. Every answer received is kept.
    """
    _check(spec)
    limit_usd, done = _limit_usd(spec, max_usd), list[Round]()
    while len(done) < rounds:
        pending = _pending(spec)
        if pending is None or not _added(spec, pending.number):  # something is to be asked then
            _check_can_ask(_with_limit(spec, limit_usd))
        plan = pending or _begin(spec, out, per_intent, show_progress=show_progress)
        if not plan.weakness.confusions:
            return Improvement(tuple(done), "the students mix up no pair of labels on the held-out queries")
        finished = _finish(spec, plan, limit_usd, out, show_progress=show_progress)
        if finished is None:
            return Improvement(tuple(done), "the spend limit is reached; the same command goes on with this round")
        done.append(finished)
        if on_round is not None:
            on_round(finished)
        if not finished.kept:
            return Improvement(tuple(done), f"round {finished.number} gained nothing")
    return Improvement(tuple(done), f"{len(done)} round{'s are' if len(done) > 1 else ' is'} done")


def plan_improvement(spec: Spec, *, out: Path | None = None, per_intent: int = PER_INTENT) -> ImprovementPlan:
    """What the next round would have written, and its price; asks, trains and writes nothing.

    Raises:
        SpecError: As for ``improve``.
        DataError: The students are not trained on the labels as they are.
    """
    from distill.teacher.label import plan_labels
    from distill.teacher.spend import FREE, Estimate
    from distill.teacher.synth import plan_synthesis

    _check(spec)
    pending = _pending(spec)
    plan = pending or _look(spec, _current_bundles(spec, out), per_intent, _next_number(spec))
    if not plan.weakness.confusions:
        return ImprovementPlan(plan.number, pending is not None, plan.weakness, (), 0, 0, Decimal(0))
    writing = plan_synthesis(_writers_spec(spec, plan, None), focus=_focus(spec, plan))
    n_wanted, added = _n_wanted(spec, plan), [str(line["text"]) for line in _added(spec, plan.number)]
    labelling = plan_labels(spec, texts=added, n_unwritten=0 if added else n_wanted)
    costs = [Estimate(each.estimated_usd, each.most_usd) for each in (writing, labelling) if each.n_missing]
    cost = sum(costs, FREE)
    return ImprovementPlan(
        number=plan.number,
        in_progress=pending is not None,
        weakness=plan.weakness,
        labels=tuple(plan.targets),
        n_queries=n_wanted,
        n_requests=writing.n_requests + labelling.n_missing,
        estimated_usd=cost.usd,
        most_usd=cost.most_usd,
    )


def _check(spec: Spec) -> None:
    if spec.labels_path is not None:
        raise SpecError(
            f"{spec.path}: the labels are people's ({spec.labels_path}): nobody could label what is written"
        )
    if not (spec.synth.model or spec.teacher.model):
        raise SpecError(f"{spec.path}: improve has queries written, and needs a model for that: give synth.model")


def _check_can_ask(spec: Spec) -> None:
    """What cannot work is found before anything is trained or paid for."""
    from distill.teacher.label import check_can_label
    from distill.teacher.synth import check_can_write

    check_can_write(spec)
    check_can_label(spec)


# --- finding ---------------------------------------------------------------------------------------------------------


def _begin(spec: Spec, out: Path | None, per_intent: int, *, show_progress: bool) -> _Plan:
    """Trains the students if they are not, looks where they are weak, and writes plan.json where they are."""
    number = _next_number(spec)
    _forget(spec, number)  # where the plan of such a round was removed
    bundles = pipeline.train(spec, out=out, show_progress=show_progress)
    plan = _look(spec, {name: bundle.path for name, bundle in bundles.items()}, per_intent, number)
    if plan.weakness.confusions:
        write_json(round_folder(spec, plan.number) / "plan.json", asdict(plan))
    return plan


def _current_bundles(spec: Spec, out: Path | None) -> dict[str, Path]:
    paths: dict[str, Path] = {student: spec.output(out) / student for student in spec.students}
    for student, path in paths.items():
        try:
            is_current = pipeline.trained_on(spec, load_bundle(path))[1]
        except BundleError:
            is_current = False
        if not is_current:
            raise DataError(
                f"{path}: {student} is not trained on the labels as they are, so that its weaknesses are not known yet; "
                f"{spec.command('train')} trains it, as `distill improve` without --dry-run would do first"
            )
    return paths


def _held_out(spec: Spec) -> list[Example]:
    """The held-out queries, which no round adds to.

    Raises:
        DataError: There is none.
    """
    found = [example for example in pipeline.examples(spec, show_notes=False) if example.split == "held_out"]
    if not found:
        raise DataError(f"{spec.queries_path}: too few queries to hold any out; nothing could be compared")
    return found


def _look(spec: Spec, students: Mapping[str, Path], per_intent: int, number: int) -> _Plan:
    held_out, measure = _held_out(spec), MEASURES[spec.task]
    given = _given(held_out, measure)
    answers = _answers(students, held_out, measure)
    right = {name: measure.agreement(own, given) for name, own in answers.items()}
    weakness = _weakness(answers, right, given, spec.labels, measure)
    if weakness.confusions:
        weakness = replace(weakness, kinds=_weak_kinds(spec, held_out, right))
    return _Plan(
        number,
        weakness,
        per_intent,
        _sha256_of(held_out, given),
        {name: tuple(own.tolist()) for name, own in right.items()},
    )


def _given(held_out: Sequence[Example], measure: Measure) -> Array:
    """What the teacher says of each."""
    return measure.given(np.stack([example.target for example in held_out]))


def _answers(students: Mapping[str, Path], held_out: Sequence[Example], measure: Measure) -> dict[str, Floats]:
    """What each student says of each."""
    texts = [example.text for example in held_out]
    routers = {name: Router.load(path) for name, path in students.items()}
    return {name: measure.answers(own.predict_proba(texts), own.policy) for name, own in routers.items()}


def _sha256_of(held_out: Sequence[Example], given: Array) -> str:
    return sha256_json([[example.text, own] for example, own in zip(held_out, given.tolist(), strict=True)])


def _weakness(
    answers: Mapping[str, Floats],
    right: Mapping[str, Floats],
    given: Array,
    labels: Sequence[str],
    measure: Measure = MEASURES[Task.SINGLE],
) -> Weakness:
    """What all students mix up, averaged over them.

    Args:
        answers: By student.
        right: By student, how far it agrees with the teacher on each query, shape (n,).
        given: What the teacher says.
        labels: In the order of the columns.
        measure: Of the task.
    """
    mass, n_wrong = defaultdict[tuple[int, int], float](float), Counter[tuple[int, int]]()
    disagree, unsure = np.zeros(len(given), bool), np.zeros(len(given), bool)
    for own in answers.values():
        disagree |= ~measure.right(own, given)
        unsure |= measure.unsure(own)
        for mistake in measure.mistakes(own, given):
            pair = min(mistake.labels), max(mistake.labels)
            mass[pair] += mistake.mass
            n_wrong[pair] += mistake.n_wrong
    n_students, names = len(answers), (*labels, OUT_OF_SCOPE_LABEL)
    worst = [
        pair for pair in sorted(mass, key=mass.__getitem__, reverse=True) if mass[pair] / n_students >= _LEAST_MASS
    ]
    confusions = tuple(
        Confusion((names[pair[0]], names[pair[1]]), round(mass[pair] / n_students, 3), n_wrong[pair] / n_students)
        for pair in worst[:PAIRS]
    )
    return Weakness(
        n_held_out=len(given),
        agreement={name: round(float(own.mean()), 6) for name, own in right.items()},
        n_disagree=int(disagree.sum()),
        n_unsure=int((unsure & ~disagree).sum()),
        confusions=confusions,
        labels=_label_errors(answers, given, labels, measure, {name for each in confusions for name in each.labels}),
    )


def _label_errors(
    answers: Mapping[str, Floats], given: Array, labels: Sequence[str], measure: Measure, shown: set[str]
) -> tuple[LabelErrors, ...]:
    """Of the labels that are shown, in the mean over students, worst first; none where the pairs tell all of it."""
    if measure.errors is None:
        return ()
    errors = [measure.errors(own, given) for own in answers.values()]
    missed, false = (
        np.mean([np.maximum(sign * each, 0).sum(axis=0) for each in errors], axis=0).tolist() for sign in (-1, 1)
    )
    found = [
        LabelErrors(label, round(missed[column], 3), round(false[column], 3))
        for column, label in enumerate(labels)
        if label in shown
    ]
    return tuple(sorted(found, key=lambda each: -each.missed - each.false))


def _weak_kinds(spec: Spec, held_out: Sequence[Example], right: Mapping[str, Floats]) -> tuple[WeakKind, ...]:
    """The kinds of queries that the worst held-out queries are of; none where queries are not written by kinds, or have none."""
    from distill.teacher.label import queries_of

    known = set(_kinds(spec))
    redact = redactor(spec) if known else str
    kinds = {redact(query.text): query.intended_intent for query in queries_of(spec)} if known else {}
    each_lacks = (1 - own for own in right.values())
    lacking = np.mean([np.where(own >= NEAR, own, 0.0) for own in each_lacks], axis=0).tolist()
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for example, own in zip(held_out, lacking, strict=True):
        if (kind := str(kinds.get(example.text))) in known:
            by_kind[kind].append(own)
    found = [WeakKind(kind, len(own), round(sum(own), 3)) for kind, own in by_kind.items() if sum(own) > 0]
    return tuple(sorted(found, key=lambda each: -each.disagreement)[:PAIRS])


def _kinds(spec: Spec) -> tuple[str, ...]:
    """The kinds by which queries are written; empty where they are written by label."""
    attributes = spec.synth.attributes if FORMS[spec.task].takes_kinds else {}
    return next(iter(attributes.values()), ())


# --- a round's files -------------------------------------------------------------------------------------------------


def _numbers(spec: Spec) -> list[int]:
    """Of the rounds that were begun, in order."""
    plans = round_folder(spec, 1).parent.glob("round-*/plan.json")
    numbers = (path.parent.name.removeprefix("round-") for path in plans)
    return sorted(int(number) for number in numbers if number.isdecimal())


def _next_number(spec: Spec) -> int:
    return max(_numbers(spec), default=0) + 1


def _pending(spec: Spec) -> _Plan | None:
    """The round that was begun and not finished, or None.

    Raises:
        DataError: Its plan.json cannot be read.
    """
    numbers = _numbers(spec)
    if not numbers or (round_folder(spec, numbers[-1]) / "result.json").exists():
        return None
    path = round_folder(spec, numbers[-1]) / "plan.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        weakness = value["weakness"]
        confusions = tuple(
            Confusion(tuple(each["labels"]), each["mass"], each["n_wrong"]) for each in weakness["confusions"]
        )
        labels = tuple(LabelErrors(**each) for each in weakness.get("labels", ()))
        kinds = tuple(WeakKind(**each) for each in weakness.get("kinds", ()))
        right = {name: tuple(float(each) for each in own) for name, own in value["right"].items()}
        plan = _Plan(
            value["number"],
            Weakness(**weakness | {"confusions": confusions, "labels": labels, "kinds": kinds}),
            value["per_intent"],
            value["held_out_sha256"],
            right,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the plan of a round ({error!r}); remove it to begin the round anew") from error
    if unmeasured := set(spec.students) - right.keys():
        raise DataError(
            f"{path}: the round was begun without the student {min(unmeasured)}; finish it without, or remove this file to begin "
            "it anew"
        )
    known = {*spec.labels, *_kinds(spec), *((OUT_OF_SCOPE_LABEL,) if FORMS[spec.task].may_be_empty else ())}
    unknown = set(plan.targets) - known
    if unknown:
        raise DataError(
            f"{path}: is about {', '.join(sorted(unknown))}, no intent or kind any more; remove this file to begin the round anew"
        )
    return plan


def _added(spec: Spec, number: int | None = None) -> list[dict[str, Any]]:
    """Lines of the queries that rounds added: of one of them, or of all."""
    path = added_queries_path(spec)
    lines = [line for _, line in read_jsonl(path)] if path.exists() else []
    return [line for line in lines if number is None or line.get("round") == number]


def _forget(spec: Spec, number: int) -> None:
    """Takes a round's queries out of those that are trained on."""
    if _added(spec, number):
        write_jsonl(added_queries_path(spec), [line for line in _added(spec) if line.get("round") != number])


# --- one round -------------------------------------------------------------------------------------------------------


def _finish(
    spec: Spec, plan: _Plan, limit_usd: Decimal | None, out: Path | None, *, show_progress: bool
) -> Round | None:
    """Does what is left of a round; None where the limit does not allow it."""
    from distill.student.embedder import embedder_of
    from distill.teacher.label import label

    def open_embedder() -> Embedder:
        return embedder_of(spec, show_progress=show_progress)

    try:
        texts = _have_written(spec, plan, limit_usd, show_progress=show_progress)
        label(_with_limit(spec, limit_usd), texts, open_embedder=open_embedder, show_progress=show_progress)
    except UnknownSpendError:
        raise
    except SpendLimitError:
        return None
    folder, candidates = spec.output(out), spec.output(out) / _CANDIDATES
    students = _train_candidates(spec, folder, candidates, show_progress=show_progress)
    held_out, measure = _held_out(spec), MEASURES[spec.task]
    given = _given(held_out, measure)
    if _sha256_of(held_out, given) != plan.held_out_sha256:
        raise DataError(
            f"{round_folder(spec, plan.number) / 'plan.json'}: labels of held-out queries changed since this round began, so that nothing "
            "can be compared; remove this file to begin the round anew"
        )
    answers = _answers(students, held_out, measure)
    done = _compared(spec, plan, texts, {name: measure.agreement(own, given) for name, own in answers.items()})
    if done.kept:
        for name, path in students.items():
            swap_folder(path, folder / name, path.with_name(f"{path.name}.old"))
    else:
        _forget(spec, plan.number)
    write_json(round_folder(spec, plan.number) / "result.json", _as_json(done))
    shutil.rmtree(candidates, ignore_errors=True)
    return done


def _as_json(done: Round) -> dict[str, Any]:
    return asdict(done) | {"usd": None if done.usd is None else float(done.usd)}


def _have_written(spec: Spec, plan: _Plan, limit_usd: Decimal | None, *, show_progress: bool) -> list[str]:
    """The round's queries, written if they are not yet, nearly repeated ones left out; they stand in improve/queries.jsonl then."""
    from distill.student.embedder import embedder_of
    from distill.teacher.synth import synthesise

    if not (lines := _added(spec, plan.number)):
        writer = _writers_spec(spec, plan, limit_usd)
        synthesise(
            writer,
            focus=_focus(spec, plan),
            open_embedder=lambda: embedder_of(spec, show_progress=show_progress),
            show_progress=show_progress,
        )
        written = read_queries(writer.queries_path)
        is_new = _is_new(spec, [query.text for query in written], show_progress=show_progress)
        lines = [
            {
                "id": f"{SOURCE}-{plan.number}-{position:04d}",
                "text": query.text,
                "source": SOURCE,
                "round": plan.number,
                "intended_intent": query.intended_intent,
            }
            for position, query in enumerate(written)
            if is_new[position]
        ]
        write_jsonl(added_queries_path(spec), [*_added(spec), *lines])
    return [str(line["text"]) for line in lines]


def _is_new(spec: Spec, texts: Sequence[str], *, show_progress: bool) -> list[bool]:
    """Which texts are, redacted, no gold query, and no near-duplicate of a labelled query or of an earlier text."""
    from distill.student.embedder import embedder_of

    redact = redactor(spec)
    texts = [redact(text) for text in texts]
    also_gold = set(leaked(texts, redacted_gold(spec)))
    embedder = embedder_of(spec, show_progress=show_progress)
    distinct = Distinct()
    distinct.add(embedder.embed([example.text for example in pipeline.examples(spec, show_notes=False)]))
    repeats = distinct.add(embedder.embed(texts)).tolist()
    return [repeated < 0 and text not in also_gold for text, repeated in zip(texts, repeats, strict=True)]


def _train_candidates(spec: Spec, folder: Path, candidates: Path, *, show_progress: bool) -> dict[str, Path]:
    """Trains with the round's queries beside the students that there are, from which the new bundles say they come."""
    with storage_errors(candidates):
        for student in spec.students:
            if not (candidates / student).exists() and (folder / student).exists():
                shutil.copytree(folder / student, candidates / student)
    bundles = pipeline.train(spec, out=candidates, show_progress=show_progress)
    return {name: bundle.path for name, bundle in bundles.items()}


def _compared(spec: Spec, plan: _Plan, texts: Sequence[str], after: Mapping[str, Floats]) -> Round:

    before = {name: np.asarray(plan.right[name], np.float64) for name in after}
    difference = np.mean([after[name] - before[name] for name in after], axis=0)
    gain = float(difference.mean())
    n_written = len(read_queries(_writers_spec(spec, plan, None).queries_path))
    sent = set(map(redactor(spec), texts))
    n_calls, usd = _paid(spec, plan.number, sent)
    return Round(
        number=plan.number,
        weakness=plan.weakness,
        n_written=n_written,
        n_repeated=n_written - len(texts),
        n_added=len(sent & {example.text for example in pipeline.examples(spec, show_notes=False)}),
        n_calls=n_calls,
        usd=usd,
        before={name: round(float(own.mean()), 6) for name, own in before.items()},
        after={name: round(float(own.mean()), 6) for name, own in after.items()},
        gain=round(gain, 6),
        gain_ci95=MEASURES[spec.task].interval(difference),
        kept=gain > 0,
    )


# --- what is written -------------------------------------------------------------------------------------------------


def _writers_spec(spec: Spec, plan: _Plan, limit_usd: Decimal | None) -> Spec:
    """What synth is given: the labels that are mixed up alone, or the kinds; it writes to the round's folder."""
    targets = plan.targets
    raw = spec.model_dump(by_alias=True)
    raw["teacher"] |= {"answer_map": {}, "prompt": None, "evidence": None, "max_usd": None}
    raw["teacher"] |= {"logprobs": False, "samples": 1}  # of answers; a writer gives none
    n_misses = plan.per_intent * len(targets.get(OUT_OF_SCOPE_LABEL, ()))
    raw["synth"] |= {"per_intent": plan.per_intent, "out_of_scope": n_misses}
    raw |= {
        "out_of_scope": raw["out_of_scope"] if n_misses else False,
        "queries": None,
        "gold": None,  # it has other labels too
        "seed": spec.seed + plan.number,
    }
    if plan.weakness.kinds:
        by, *_ = spec.synth.attributes
        raw["synth"]["attributes"] = {**spec.synth.attributes, by: tuple(targets)}
    else:
        raw["intents"] = _intents_of(spec, targets)
        if _kinds(spec):  # of which the user's own queries say nothing
            raw["synth"]["attributes"] = {}
    writer = Spec.model_validate(raw)
    writer._path = round_folder(spec, plan.number) / spec.path.name  # noqa: SLF001
    return writer if limit_usd is None else _with_limit(writer, limit_usd)


def _intents_of(spec: Spec, targets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The intents for which queries are written, as a spec spells them."""
    described = {
        each.name: {"description": each.description, "examples": list(each.examples)} for each in spec.intent_list
    }
    intents = {name: described[name] for name in targets if name != OUT_OF_SCOPE_LABEL}
    for name in spec.intents:  # a spec has two intents at least: the one that is mixed up with none, and one more
        if len(intents) < _FEWEST_INTENTS:
            intents.setdefault(name, described[name])
    return intents


def _n_wanted(spec: Spec, plan: _Plan) -> int:
    from distill.teacher.writer import Writer

    return sum(Writer(_writers_spec(spec, plan, None), focus=_focus(spec, plan)).wanted.values())


def _focus(spec: Spec, plan: _Plan) -> Focus:
    """What the writer is told besides: rivals, and the known queries of the labels for which it writes, which its own spec lacks."""
    from distill.teacher.evidence import evidence_by_label
    from distill.teacher.writer import Focus

    known = evidence_by_label(spec)
    return Focus(plan.targets, {name: known[name] for name in plan.targets if known.get(name)})


# --- what is spent ---------------------------------------------------------------------------------------------------


def _model(spec: Spec) -> str | None:
    return spec.teacher.model or spec.synth.model


def _limit_usd(spec: Spec, max_usd: Decimal | None) -> Decimal | None:
    from distill.teacher.spend import limited

    return limited(spec, _model(spec), max_usd).teacher.max_usd


def _with_limit(spec: Spec, limit_usd: Decimal | None) -> Spec:
    """The spec with that limit in all."""
    return spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"max_usd": limit_usd})})


def _paid(spec: Spec, number: int, sent: set[str]) -> tuple[int, Decimal | None]:
    """Requests of a round that were answered, and what they cost; None when a price or the tokens of one are unknown."""
    from distill.teacher.spend import paid_labels, paid_requests, spent_usd_on

    path = round_folder(spec, number) / spec.synthesis_path.name
    answers = [*(paid_requests(path) if path.exists() else ()), *paid_labels(spec, sent)]
    return len(answers), spent_usd_on(spec, answers)
