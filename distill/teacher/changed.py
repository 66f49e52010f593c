"""What was answered under other intents, by today's names, and how these intents differ from today's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from distill.data import ledger_key, read_gold, unknown_label
from distill.errors import SpecError
from distill.teacher.answers import SAID
from distill.teacher.asking import Question, Teacher, brief
from distill.teacher.client import DIALECTS
from distill.teacher.earlier import described, earlier_answers, group_of
from distill.teacher.label import texts_of
from distill.teacher.ledger import AppendLog, Ledger, time_now
from distill.teacher.rereading import read_anew
from distill.teacher.synth import is_recorded, plan_synthesis
from distill.types import HOLDS, OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from distill.spec import Spec
    from distill.types import Label, Task

__all__ = ["Case", "IntentChange", "Recorded", "best", "mean"]


@dataclass(frozen=True, slots=True)
class IntentChange:
    """How the intents differ from those under which answers were given.

    Attributes:
        added: New ones.
        removed: Those that are gone.
        renamed: New name by old name, as the user said.
        described_anew: Those whose description or examples are others, as far as the recording says, or the user.
        other_settings: What else differs, such as ``temperature``: answers are carried over all the same.
        perhaps_renamed: New ones that are described word for word as one that is gone was, by that one's name.
        says_descriptions: Whether the recording says how intents were described.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    described_anew: tuple[str, ...] = ()
    other_settings: tuple[str, ...] = ()
    perhaps_renamed: Mapping[str, str] = field(default_factory=dict)
    says_descriptions: bool = True

    @property
    def sought(self) -> tuple[str, ...]:
        """Intents to which other queries may belong now."""
        return (*self.added, *self.described_anew)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A text that was answered under other intents.

    Attributes:
        text: Redacted.
        is_gold: Whether it is a gold query, which is asked once.
        group: Hash of the intents it was answered under.
        answers: What was answered, by today's names.
        lines: The lines of the ledger that say so.
        n_calls: Requests that it takes to ask again.
        is_removed: Whether an answer is an intent that is gone, and nothing is left of it.
        was_removed: Whether the label was an intent that is gone, and what is left of the answers is the label now.
        is_renamed: Whether the label has another name now.
        target: The mean of the answers by today's names.
    """

    text: str
    is_gold: bool
    group: str
    answers: tuple[Mapping[str, float], ...]
    lines: tuple[Label, ...]
    n_calls: int
    is_removed: bool
    was_removed: bool
    is_renamed: bool
    target: Mapping[str, float]


class Recorded:
    """A ledger's answers under other intents, by text.

    Args:
        spec: The router's spec, with the intents as they are now.
        renames: New name by old name.
        described_anew: Intents whose description or examples changed, besides those of which the recording says it.
        keep_removed: Whether a query whose intent is gone fits none now (``oos``), or, where there is no such label, keeps what else
            was answered; otherwise nothing is left of such an answer.

    Attributes:
        changes: How the intents differ, by the hash of those under which answers were given.
        cases: The texts that were answered under other intents, and not since.
        n_unanswered: Texts that were never answered.

    Raises:
        SpecError: A name is wrong, or the labels are people's.
    """

    def __init__(
        self,
        spec: Spec,
        renames: Mapping[str, str],
        described_anew: Sequence[str] = (),
        *,
        keep_removed: bool = True,
    ) -> None:
        if spec.labels_path is not None:
            raise SpecError(
                f"{spec.path}: the labels are people's ({spec.labels_path}): nothing is asked and nothing to be carried over; "
                "rename intents in that file"
            )
        self.spec, self.renames, self.keep_removed = spec, renames, keep_removed
        self.teacher, self.ledger = Teacher(spec), Ledger(spec.ledger_path)
        self.earlier = earlier_answers(self.teacher, self.ledger, renames)
        self._check_names(described_anew)
        self.changes = {group: self._change(group, described_anew) for group in self._groups()}
        self.cases, self.n_unanswered = self._read()

    def _groups(self) -> list[str]:
        return list(dict.fromkeys(str(group_of(line)) for line in self.earlier.answers.values()))

    def _check_names(self, described_anew: Sequence[str]) -> None:
        """Raises ``SpecError`` for names that a user got wrong."""
        before = dict.fromkeys(name for own in self.earlier.intents.values() for name in own)
        for old, new in self.renames.items():
            if new not in self.spec.labels:
                raise SpecError(f"{self.spec.path}: --rename {old}={new}: {unknown_label(new, self.spec.labels)}")
            if old in self.spec.labels:
                raise SpecError(f"{self.spec.path}: --rename {old}={new}: {old!r} is still an intent")
            if before and old not in before:
                raise SpecError(f"{self.spec.path}: --rename {old}={new}: {unknown_label(old, list(before))}")
        for name in described_anew:
            if name not in self.spec.labels:
                raise SpecError(f"{self.spec.path}: --changed {name}: {unknown_label(name, self.spec.labels)}")

    def _change(self, group: str, described_anew: Sequence[str]) -> IntentChange:
        before, now = self.earlier.intents[group], self.teacher.intent_hashes
        own = {old: new for old, new in self.renames.items() if old in before}
        kept = {own[old]: before[old] for old in own} | {old: before[old] for old in before if old in now}
        added = tuple(name for name in now if name not in kept)
        removed = tuple(old for old in before if own.get(old, old) not in now)
        other = {name for name, hash_ in kept.items() if hash_ not in {None, now[name]}} | set(described_anew)
        line = next(line for line in self.earlier.answers.values() if group_of(line) == group)
        settings = line.extra["settings"]
        differing = min((self._differing(settings, dialect) for dialect in DIALECTS), key=len)
        return IntentChange(
            added,
            removed,
            own,
            tuple(name for name in now if name in other and name not in added),
            tuple(differing),
            {old: name for old in removed for name in added if before[old] == now[name] and self._is_described(name)},
            all(before.values()),
        )

    def _differing(self, recorded: Mapping[str, Any], dialect: Any) -> list[str]:
        now = brief(self.teacher.settings(dialect))
        return [name for name in now if name != "intents" and now[name] != recorded.get(name)]

    def _is_described(self, name: str) -> bool:
        return any(intent.name == name and (intent.description or intent.examples) for intent in self.teacher.intents)

    # --- what was answered ---

    def _read(self) -> tuple[list[Case], int]:
        """The texts without an answer that were answered under other intents, and how many were never answered at all."""
        spec = self.spec
        gold = [query.text for query in read_gold(spec.gold_path, spec.labels, spec.task)] if spec.gold_path else []
        questions = self.teacher.questions(_queries(spec, self.renames), gold)
        asked_once = set(self.teacher.sendable(gold))
        missing: dict[str, list[Question]] = {}
        for each in questions:
            answer = self.ledger.get(self.teacher.keys(each.text, each.sample))
            if answer is None or answer.scores is None:
                missing.setdefault(each.text, []).append(each)
        for each in read_anew(self.teacher, self.ledger, [each for own in missing.values() for each in own]):
            missing[each.text].remove(each)  # `label` does
        missing = {text: own for text, own in missing.items() if own}
        cases = [self._case(text, own, is_gold=text in asked_once) for text, own in missing.items()]
        found = [case for case in cases if case is not None]
        return found, len(cases) - len(found)

    def _case(self, text: str, questions: Sequence[Question], *, is_gold: bool) -> Case | None:
        lines = [line for each in questions if (line := self.earlier.to(each)) is not None]
        if not lines:
            return None
        mapped = [self._by_todays_names(line.scores or {}) for line in lines]
        answers = [scores for scores in mapped if scores is not None]
        before = best(mean([line.scores or {} for line in lines], self.spec.task), self.spec.task)
        is_removed = len(answers) < len(lines)
        is_gone = any(self.renames.get(name, name) not in self.spec.labels for name in before)
        return Case(
            text=text,
            is_gold=is_gold,
            group=str(group_of(lines[-1])),
            answers=tuple(answers),
            lines=tuple(lines),
            n_calls=len(questions),
            is_removed=is_removed,
            was_removed=is_gone and not is_removed,
            is_renamed=not before.isdisjoint(self.renames),
            target=mean(answers, self.spec.task),
        )

    def _by_todays_names(self, scores: Mapping[str, float]) -> dict[str, float] | None:
        """Scores of the intents there are today; None where the answer was one that is gone, and nothing is left of it."""
        found: dict[str, float] = {}
        for name, score in scores.items():
            now = self.renames.get(name, name)
            both = (found.get(now, 0.0), score)
            found[now] = sum(both) if self.spec.task.sums_to_one else max(both)
        kept = {name: score for name, score in found.items() if name in self.spec.labels}
        answered = best(found, self.spec.task)
        if not answered.isdisjoint(kept) if self.spec.task.sums_to_one else answered <= kept.keys():
            return kept
        if not self.keep_removed:
            return None
        if not self.spec.task.sums_to_one:
            return kept
        if self.spec.out_of_scope_intent is not None:
            gone = sum(score for name, score in found.items() if name not in kept)
            return kept | {OUT_OF_SCOPE_LABEL: kept.get(OUT_OF_SCOPE_LABEL, 0.0) + gone}
        return kept if any(kept.values()) else None

    # --- what is written ---

    def write(self, cases: Iterable[Case]) -> int:
        """Carries the answers to some texts over; how many texts those are. What has an answer by now is left as it is."""
        texts, now = 0, time_now()
        cases = list(cases)
        if not cases:
            return 0
        with AppendLog(self.spec.ledger_path) as log:
            ledger = Ledger(self.spec.ledger_path)
            for case in cases:
                lines = [
                    self._carried(line, scores, ledger, now)
                    for line, scores in zip(case.lines, case.answers, strict=True)
                ]
                new = [line for line in lines if line is not None]
                for line in new:
                    extra = described(self.teacher, ledger.hashes, line.prompt_sha256)
                    ledger.write(log, replace(line, extra={**line.extra, **extra}))
                texts += bool(new)
        return texts

    def _carried(self, line: Label, scores: Mapping[str, float], ledger: Ledger, now: str) -> Label | None:
        """A line under today's settings, in the dialect that the answer was given in; None where there is an answer already."""
        known = ledger.get(self.teacher.keys(line.text, line.sample))
        if known is not None and known.scores is not None:
            return None
        recorded = line.extra["settings"]
        dialect = min(DIALECTS, key=lambda dialect: len(self._differing(recorded, dialect)))
        hash_ = self.teacher.hashes[dialect]
        source = line.extra.get("carried_from")
        who = source.get("teacher", line.teacher) if isinstance(source, dict) else line.teacher
        carried_from = {"teacher": who, "prompt_sha256": line.prompt_sha256, "key": line.key, "carried_at": now}
        extra = {
            name: value
            for name, value in line.extra.items()
            if name not in {"settings", "intents", "carried_from", SAID}
        }
        return replace(
            line,
            key=ledger_key(self.teacher.name, hash_, line.text, line.sample),
            scores=dict(scores),
            prompt_sha256=hash_,
            extra={
                "settings": brief(self.teacher.settings(dialect)),
                **extra,
                "router": self.spec.name,
                "carried_from": carried_from,
            },
        )


def _queries(spec: Spec, renames: Mapping[str, str]) -> list[str]:
    """The queries that are to be labelled: of those that a model wrote, without those for an intent that is gone."""
    written = plan_synthesis(spec, renames=renames).recorded if is_recorded(spec) else None
    return texts_of(spec, written)


def mean(answers: Sequence[Mapping[str, float]], task: Task) -> dict[str, float]:
    """The mean of several answers, each scaled to a sum of 1 but for ``multi``."""
    found: dict[str, float] = {}
    for scores in answers:
        total = (sum(scores.values()) or 1.0) if task.sums_to_one else 1.0
        for name, score in scores.items():
            found[name] = found.get(name, 0.0) + score / total / len(answers)
    return found


def best(target: Mapping[str, float], task: Task) -> frozenset[str]:
    """The likeliest label; in ``multi`` every one that holds."""
    if not task.sums_to_one:
        return frozenset(name for name, score in target.items() if score >= HOLDS)
    return frozenset({max(target, key=target.__getitem__)} if target else ())
