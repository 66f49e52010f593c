"""Intents that change: answers given under other intents are kept where they still hold, and the others asked again.

What holds is written as a ledger line of its own with ``carried_from``, under its intent's name of today; it costs nothing. So is what
a model wrote for an intent that has another name now, in synth.jsonl. Queries whose intent is gone fit none now (``oos``); where there
is no such label, what else was answered holds, and where that is nothing, ``label`` asks. Asked again, in this order, are

1. where the user wants it, queries whose answer was an intent that is gone;
2. queries that could now belong to an intent that is new, or described anew: the nearest first, in parts. A query is near if its
   vector lies nearer to what is known of that intent than to the other queries with its label. Each part teaches more of the intent:
   what was answered with it is known of it from then on. It ends when hardly an answer moves there any more;
3. what the teacher was of two minds about, or a trained student doubts: likewise.

Nothing is carried before the search has ended, so a run that was cut goes on where it stopped: what was answered is not asked again.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.errors import BundleError, SpecError, SpendLimitError, TeacherError, UnknownSpendError
from distill.policy import confidence
from distill.teacher.changed import Case, IntentChange, Recorded, best, mean
from distill.teacher.label import label, recorded_samples
from distill.teacher.ledger import Ledger
from distill.teacher.nearness import Nearness, known_of
from distill.teacher.prices import teacher_price
from distill.teacher.spend import estimate, limited, open_budget
from distill.teacher.synth import carry_synthesis, n_to_carry
from distill.types import OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from distill.spec import Spec
    from distill.teacher.retrieve import OpenEmbedder
    from distill.teacher.spend import Estimate
    from distill.types import Label, Task

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Booleans = np.ndarray[Any, np.dtype[np.bool_]]

__all__ = ["CarryOptions", "CarryPlan", "CarrySummary", "carry", "plan_carry"]

SHARE = 0.2
"""Of the queries, that may be asked again in the search for those of new intents, where new intents are few."""
LEAST_YIELD = 0.05
"""Share of a part's answers that must move to a new intent, or out of one that is described anew, for the search to go on."""
SURE_TEACHER = 0.7
"""Share of the likeliest intent under which a teacher was of two minds."""
SURE_STUDENT = 0.5
"""Probability of the likeliest intent under which a student is unsure."""
_PARTS = 10
_LEAST_PART = 10
_MOST_BAD_PARTS = 2
"""In a row, of which most requests failed."""
_SURE_OF_EACH = 0.7
"""Probability under which it is nearly a toss-up whether a label holds or not, where each stands for itself."""
_SAMPLED_PROMPTS = 50


@dataclass(frozen=True, slots=True)
class CarryOptions:
    """How to carry over.

    Attributes:
        renames: New name by old name. Two may have the same new name: they are merged.
        described_anew: Intents whose description or examples changed, where the recording does not say it.
        max_share: Share of the answers that may be asked for again in the search for what belongs to new or newly described
            intents; None: ``SHARE``, or twice the share of these among all labels where that is more.
        ask_removed: Whether queries whose intent is gone are asked again, as they may belong to another.
        max_calls: Requests at most, all in all; 0 asks nothing.
        max_usd: Most that this run may spend; None: what ``teacher.max_usd`` leaves.
    """

    renames: Mapping[str, str] = field(default_factory=dict)
    described_anew: tuple[str, ...] = ()
    ask_removed: bool = False
    max_share: float | None = None
    max_calls: int | None = None
    max_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CarryPlan:
    """What carrying over would do.

    Attributes:
        changes: How the intents differ, once for each set of intents under which answers were given.
        n_texts: Texts whose answers were given under other intents.
        n_removed: Of these, whose intent is gone.
        n_nothing_left: Of these, of whose answers nothing is left; asked again if the options say so.
        n_renamed: Texts whose intent has another name now.
        n_near: Texts that lie nearer to what is known of a new or newly described intent than to the others with their label.
        n_doubted: Texts that the teacher was of two minds about, or a student doubts.
        n_unanswered: Texts that were never answered: ``label`` asks about them.
        most_calls: Requests at most.
        estimated_usd: For so many; None when the price is unknown.
        most_usd: The same should each answer be as long as it may, where the model has given none yet.
        n_written: Answers of synth.jsonl, queries that a model wrote, which would stand under an intent's new name.
    """

    changes: tuple[IntentChange, ...]
    n_texts: int
    n_removed: int
    n_nothing_left: int
    n_renamed: int
    n_near: int
    n_doubted: int
    n_unanswered: int
    most_calls: int
    estimated_usd: Decimal | None
    most_usd: Decimal | None
    n_written: int = 0


@dataclass(frozen=True, slots=True)
class CarrySummary:
    """What carrying over did.

    Attributes:
        changes: As in the plan.
        n_texts: Texts whose answers were given under other intents.
        n_carried: Of these, whose answers were carried over.
        n_renamed: Of these, under another name.
        n_removed: Of these, whose intent is gone: under ``oos``, or under what else was answered.
        n_calls: Requests whose answer came in this run.
        asked: Texts that were asked again, by reason: ``removed``, ``near``, ``doubted``.
        moved: Of these, by reason, those whose label is another now.
        n_left: Texts that have no answer under today's intents: they failed, or the limit left them out. ``label`` asks.
        n_unanswered: Texts that were never answered: ``label`` asks about them too.
        is_cut: Whether a limit, or requests that failed, left queries unasked that were in doubt.
        spent_usd: By every recorded answer; None when a price or the tokens are unknown.
        n_written: Answers of synth.jsonl, queries that a model wrote, which stand under an intent's new name now.
    """

    changes: tuple[IntentChange, ...]
    n_texts: int
    n_carried: int
    n_renamed: int
    n_removed: int
    n_calls: int
    asked: Mapping[str, int]
    moved: Mapping[str, int]
    n_left: int
    n_unanswered: int
    is_cut: bool
    spent_usd: Decimal | None
    n_written: int = 0


# --- what is in doubt ------------------------------------------------------------------------------------------------


def _doubted(work: Recorded, cases: Sequence[Case], out: Path | None) -> Booleans:
    """Which texts the teacher was of two minds about, or a student that is there doubts."""
    task = work.spec.task
    scores = (np.asarray([*case.target.values(), 0.0]) for case in cases)
    doubted = np.asarray([_is_unsure(own, task, SURE_TEACHER) for own in scores], bool)
    unsure: Booleans = doubted | _unsure_student(work.spec, [case.text for case in cases], out)
    return unsure


def _is_unsure(scores: Floats, task: Task, sure: float) -> Booleans:
    """Of scores of shape (..., n_labels), whether the best label has less than ``sure``, or one that may hold is nearly a toss-up.

    A mixture's shares say nothing of doubt.
    """
    if task.is_mixture:
        return np.zeros(scores.shape[:-1], bool)
    return np.asarray(confidence(scores.astype(np.float64), task) < (sure if task.sums_to_one else _SURE_OF_EACH), bool)


def _unsure_student(spec: Spec, texts: list[str], out: Path | None) -> Booleans:
    """What the quickest student that is there is unsure of, whichever labels it was trained on."""
    from distill.router import Router

    unsure = np.zeros(len(texts), bool)
    for name in sorted(spec.students, key=lambda name: name != "static"):
        folder = spec.output(out) / name
        if spec.task.is_mixture or not folder.is_dir():
            continue
        try:
            probabilities = Router.load(folder).predict_proba(texts)
        except BundleError:  # it was trained by another version, or is not whole: the others may do
            continue
        return _is_unsure(probabilities, spec.task, SURE_STUDENT)
    return unsure


# --- what is near ----------------------------------------------------------------------------------------------------


def _nearness(
    work: Recorded,
    cases: Sequence[Case],
    change: IntentChange,
    open_embedder: OpenEmbedder | None,
    *,
    show_progress: bool,
) -> Nearness:
    """Of texts that were answered under the same intents, with all that is known of those that are sought."""
    if open_embedder is None:
        raise TeacherError(
            f"{work.spec.path}: what lies near an intent is found by a sentence encoder, which `open_embedder` opens"
        )
    task, hashes = work.spec.task, set(work.teacher.hashes.values())
    near = Nearness(
        open_embedder(),
        [case.text for case in cases],
        [best(case.target, task) for case in cases],
        loose=change.described_anew,
        show_progress=show_progress,
    )
    # a run that was cut has answers already
    answers = [line for line in work.ledger.lines if line.prompt_sha256 in hashes and line.scores is not None]
    found = _of_new({line.text: best(line.scores or {}, task) for line in answers}, change)
    for intent in work.teacher.intents:
        if intent.name in change.sought:
            near.learn(intent.name, [*known_of(intent), *found.get(intent.name, ())])
    return near


# --- plan and run ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Limit:
    """How many requests may still be made: all in all, and in the search for what is near or in doubt."""

    calls: float
    search: float

    def room(self, *, is_search: bool) -> float:
        return min(self.calls, self.search) if is_search else self.calls

    def take(self, n_calls: int, *, is_search: bool) -> None:
        self.calls -= n_calls
        if is_search:
            self.search -= n_calls


def _limit(work: Recorded, cases: Sequence[Case], change: IntentChange, max_share: float | None) -> int:
    """Requests that the search may make for the texts of one set of intents."""
    if not change.sought:
        return 0
    share = max_share
    if share is None:
        share = min(max(SHARE, 2 * len(change.sought) / len(work.spec.labels)), 1.0)
    return math.ceil(share * sum(case.n_calls for case in cases))


def _by_change(work: Recorded) -> list[tuple[IntentChange, list[Case], list[Case]]]:
    """For each set of intents: how it differs, its texts of whose answers nothing is left, and its other texts."""
    return [
        (
            change,
            [case for case in work.cases if case.group == group and case.is_removed],
            [case for case in work.cases if case.group == group and not case.is_removed],
        )
        for group, change in work.changes.items()
    ]


def plan_carry(
    spec: Spec,
    options: CarryOptions | None = None,
    *,
    open_embedder: OpenEmbedder | None = None,
    out: Path | None = None,
    show_progress: bool = True,
) -> CarryPlan:
    """What ``carry`` would do, and what it would cost at most; asks nothing. Arguments and errors as there."""
    options = options or CarryOptions()
    work = _recorded(spec, options)
    n_near = n_doubted = 0
    calls: list[int] = []
    for change, removed, others in _by_change(work):
        calls.append(sum(case.n_calls for case in removed) if options.ask_removed else 0)
        most = _limit(work, others, change, options.max_share)
        if not most or not others:
            continue
        gaps = _nearness(work, others, change, open_embedder, show_progress=show_progress).gaps
        n_near += int((gaps > 0).sum())
        n_doubted += int((_doubted(work, others, out) & (gaps <= 0)).sum())
        calls.append(min(most, sum(case.n_calls for case in others)))
    most_calls = sum(calls) if options.max_calls is None else min(sum(calls), options.max_calls)
    cost = _cost(work, most_calls)
    return CarryPlan(
        changes=tuple(work.changes.values()),
        n_texts=len(work.cases),
        n_removed=sum(case.is_removed or case.was_removed for case in work.cases),
        n_nothing_left=sum(case.is_removed for case in work.cases),
        n_renamed=sum(case.is_renamed for case in work.cases),
        n_near=n_near,
        n_doubted=n_doubted,
        n_unanswered=work.n_unanswered,
        most_calls=most_calls,
        estimated_usd=cost.usd,
        most_usd=cost.most_usd,
        n_written=n_to_carry(spec, options.renames),
    )


def _recorded(spec: Spec, options: CarryOptions) -> Recorded:
    return Recorded(spec, options.renames, options.described_anew, keep_removed=not options.ask_removed)


def _check_renames(work: Recorded) -> None:
    """An intent that only seems to be gone would be written as none of the others, which nothing takes back.

    Raises:
        SpecError: A new intent is described as one that is gone was.
    """
    changes = (work.changes[case.group] for case in work.cases)
    found = {old: new for change in changes for old, new in change.perhaps_renamed.items()}
    if not found:
        return
    named = ", ".join(f"{new!r} is described as {old!r} was, which is gone" for old, new in found.items())
    renames = " ".join(f"--rename {old}={new}" for old, new in found.items())
    gone = "--ask-removed has its queries asked again"
    if work.spec.out_of_scope_intent is not None:
        old = next(iter(found))
        gone = f"--rename {old}={OUT_OF_SCOPE_LABEL} says that its queries fit none now, {gone}"
    raise SpecError(
        f"{work.spec.path}: {named}; if that is its new name, give {renames}. If it is gone indeed: {gone}. Nothing was written"
    )


def _cost(work: Recorded, n_calls: int) -> Estimate:
    teacher, settings = work.teacher, work.spec.teacher
    texts = [case.text for case in work.cases[:_SAMPLED_PROMPTS]]
    characters = sum(map(teacher.typical_characters, texts))
    return estimate(
        work.spec,
        teacher.name,
        "label",
        None if settings.callable is not None else teacher_price(work.spec),
        characters=n_calls * characters // max(len(texts), 1),
        n_requests=n_calls,
        typical_tokens=teacher.form.answer_tokens(work.spec.labels),
        most_tokens=settings.max_output_tokens,
    )


def carry(
    spec: Spec,
    options: CarryOptions | None = None,
    *,
    open_embedder: OpenEmbedder | None = None,
    out: Path | None = None,
    show_progress: bool = True,
) -> CarrySummary:
    """Keeps what was answered under other intents where it still holds, and asks again what may not.

    Args:
        spec: The router's spec, with the intents as they are now.
        options: How; None: as ``CarryOptions`` has it.
        open_embedder: Opens the sentence encoder; called where an intent is new or described anew.
        out: Folder with the students that may doubt an answer; None is ``models/NAME``.
        show_progress: Shows progress on stderr.

    Raises:
        SpecError: A name is wrong, or the labels are people's; or an intent seems to have another name now, and ``renames`` does not say so.
        TeacherError: The teacher cannot answer at all, or a spend limit cannot be kept, as no price is known. Every answer
            received is kept; the same call goes on. (A limit that is reached ends the search, and all else is carried over.)
        DataError: A data file is wrong, or the ledger is being written by another process.
    """
    options = options or CarryOptions()
    spec = limited(spec, spec.teacher.model, options.max_usd)
    work = _recorded(spec, options)
    if not options.ask_removed:
        _check_renames(work)
    n_written = carry_synthesis(spec, options.renames)
    run = _Run(
        work, open_embedder, show_progress, _Limit(math.inf if options.max_calls is None else options.max_calls, 0.0)
    )
    n_carried = n_renamed = n_removed = 0
    for change, removed, others in _by_change(work):
        run.limit.search = _limit(work, others, change, options.max_share)
        kept = others if not change.sought else None
        if kept is not None:  # it does not depend on what is answered
            n_carried += work.write(kept)
        moved_to = run.ask_removed(removed, change) if options.ask_removed else {}
        if kept is None:
            kept = run.search(others, change, moved_to, out)
            n_carried += work.write(kept)
        n_renamed += sum(case.is_renamed for case in kept)
        n_removed += sum(case.was_removed for case in kept)
    n_before, n_after = _n_asked(work.ledger), _n_asked(Ledger(spec.ledger_path))
    answered = recorded_samples(spec, [case.text for case in work.cases], redacted=True)
    return CarrySummary(
        changes=tuple(work.changes.values()),
        n_texts=len(work.cases),
        n_carried=n_carried,
        n_renamed=n_renamed,
        n_removed=n_removed,
        n_calls=n_after - n_before,
        asked=dict(+run.asked),
        moved={reason: run.moved[reason] for reason in +run.asked},
        n_left=sum(not _is_answered(answered.get(case.text, ())) for case in work.cases),
        n_unanswered=work.n_unanswered,
        is_cut=run.is_cut,
        spent_usd=open_budget(spec, spec.teacher.model).known_spend_usd,
        n_written=n_written,
    )


def _n_asked(ledger: Ledger) -> int:
    return sum("carried_from" not in line.extra for line in ledger.lines)


def _is_answered(samples: Sequence[Label]) -> bool:
    return any(sample.scores is not None for sample in samples)


@dataclass
class _Run:
    """Asking again in progress."""

    work: Recorded
    open_embedder: OpenEmbedder | None
    show_progress: bool
    limit: _Limit
    is_cut: bool = False
    is_spent: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)

    def ask_removed(self, cases: Sequence[Case], change: IntentChange) -> dict[str, list[str]]:
        """Asks about texts whose intent is gone; those that belong to a new one, by its name."""
        chosen = self._within(cases, is_search=False)
        self.is_cut = self.is_cut or len(chosen) < len(cases)
        answers = self._ask(chosen, "removed", is_search=False)
        self.moved["removed"] += len(answers)
        return _of_new(answers, change)

    def search(
        self, cases: Sequence[Case], change: IntentChange, known: Mapping[str, Sequence[str]], out: Path | None
    ) -> list[Case]:
        """Asks about texts that may belong elsewhere now; those that it did not ask about."""
        asked = np.zeros(len(cases), bool)
        if not cases or not self.limit.room(is_search=True) > 0:
            return list(cases)
        near = _nearness(self.work, cases, change, self.open_embedder, show_progress=self.show_progress)
        for name, texts in known.items():
            near.learn(name, texts)
        part = max(_LEAST_PART, math.ceil(min(self.limit.search, len(cases)) / _PARTS))
        for reason, among in (("near", np.ones(len(cases), bool)), ("doubted", _doubted(self.work, cases, out))):
            self._in_parts(cases, change, near, among, asked, reason, part)
        return [case for case, was_asked in zip(cases, asked.tolist(), strict=True) if not was_asked]

    def _in_parts(
        self,
        cases: Sequence[Case],
        change: IntentChange,
        near: Nearness,
        among: Booleans,
        asked: Booleans,
        reason: str,
        part: int,
    ) -> None:
        """Asks the nearest first, until hardly an answer moves any more, or most fail twice running; notes in ``asked`` which."""
        n_bad = 0
        while (left := np.flatnonzero(among & ~asked)).size:
            rows = left[np.argsort(-near.gaps[left], kind="stable")[:part]].tolist()
            chosen = self._within([cases[row] for row in rows], is_search=True)
            if not chosen:
                self.is_cut = True
                return
            answers = self._ask(chosen, reason, is_search=True)
            asked[[row for row, case in zip(rows, chosen, strict=False) if self._is_asked(case, answers)]] = True
            n_moved = sum(self._has_moved(case, answers[case.text], change) for case in chosen if case.text in answers)
            self.moved[reason] += n_moved
            for name, texts in _of_new(answers, change).items():
                near.learn(name, texts)
            n_failed = len(chosen) - len(answers)
            if n_failed > len(answers) and not self.is_spent:  # so few answers do not tell whether more would move
                self.is_cut, n_bad = True, n_bad + 1
                if n_bad < _MOST_BAD_PARTS:
                    continue
                return
            n_bad = 0
            if n_moved < LEAST_YIELD * len(answers) or not answers:
                return

    def _has_moved(self, case: Case, answer: frozenset[str], change: IntentChange) -> bool:
        """Whether a label is another now because of the change: to an intent that is sought, or out of it."""
        return bool((best(case.target, self.work.spec.task) ^ answer) & set(change.sought))

    def _within(self, cases: Sequence[Case], *, is_search: bool) -> list[Case]:
        """As many of some texts, in order, as the limit has room for."""
        room, chosen = self.limit.room(is_search=is_search), []
        for case in cases:
            room -= case.n_calls
            if room < 0:
                break
            chosen.append(case)
        return chosen

    def _ask(self, cases: Sequence[Case], reason: str, *, is_search: bool) -> dict[str, frozenset[str]]:
        """Has the teacher answer; the labels of those texts to which it did."""
        self.limit.take(sum(case.n_calls for case in cases), is_search=is_search)
        for is_gold in (False, True):
            texts = [case.text for case in cases if case.is_gold == is_gold]
            if texts:
                spec = self.work.spec.asked_once if is_gold else self.work.spec
                self._label(spec, texts)
        recorded = recorded_samples(self.work.spec, [case.text for case in cases], redacted=True)
        task = self.work.spec.task
        good = {text: [each.scores for each in own if each.scores is not None] for text, own in recorded.items()}
        wanted = {
            case.text: 1 if case.is_gold or not self.is_spent else self.work.spec.teacher.samples for case in cases
        }
        answers = {text: best(mean(own, task), task) for text, own in good.items() if len(own) >= wanted[text]}
        self.asked[reason] += sum(self._is_asked(case, answers) for case in cases)
        return answers

    def _is_asked(self, case: Case, answers: Mapping[str, frozenset[str]]) -> bool:
        """Whether a text that was to be asked about was: where the spend limit ended it, those that have every answer now."""
        return not self.is_spent or case.text in answers

    def _label(self, spec: Spec, texts: list[str]) -> None:
        """Records the answers to some redacted texts; where a spend limit ends it, nothing more is asked.

        Raises:
            UnknownSpendError: The limit cannot be kept.
        """
        try:
            label(spec, texts, redacted=True, open_embedder=self.open_embedder, show_progress=self.show_progress)
        except UnknownSpendError:
            raise
        except SpendLimitError:
            self.limit.calls, self.is_cut, self.is_spent = 0, True, True


def _of_new(answers: Mapping[str, frozenset[str]], change: IntentChange) -> dict[str, list[str]]:
    """Texts that were answered with a new intent, by its name."""
    return {name: [text for text, own in answers.items() if name in own] for name in change.added}
