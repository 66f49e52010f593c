"""Answers that the ledger holds under other intents: the same teacher gave them before intents were added, renamed, removed or described anew."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distill.teacher.asking import Question, brief
from distill.teacher.client import DIALECTS
from distill.types import OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable

    from distill.teacher.asking import Teacher
    from distill.teacher.ledger import Ledger
    from distill.types import Label

__all__ = ["Earlier", "described", "earlier_answers", "group_of"]


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was answered under other intents.

    Attributes:
        answers: The last good answer under other intents to each text (NFC) and sample.
        intents: What those intents were, by the hash that an answer's settings have of them: each name, and a hash of
            its description and examples, or None where the recording does not say it.
    """

    answers: Mapping[tuple[str, int], Label] = field(default_factory=dict)
    intents: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def to(self, question: Question) -> Label | None:
        """What was answered to a question, or None."""
        return self.answers.get((unicodedata.normalize("NFC", question.text), question.sample))

    def n_texts(self, questions: Iterable[Question]) -> int:
        """How many of the texts that some questions are about have such an answer."""
        return len({question.text for question in questions if self.to(question) is not None})


def earlier_answers(teacher: Teacher, ledger: Ledger, renames: Collection[str] = ()) -> Earlier:
    """Looks through a ledger for what the same teacher answered under other intents.

    People's labels, which do not depend on the intents, are never among them; nor is what another router was answered that shares
    the ledger.

    Args:
        teacher: Who labels.
        ledger: Its ledger.
        renames: Old names of intents that have another name now.
    """
    now = brief(teacher.settings(DIALECTS[0])).get("intents")
    if now is None:
        return Earlier()
    groups: dict[str, _Group] = {}
    for line in ledger.lines:
        group = group_of(line)
        if line.teacher == teacher.name and group is not None and group != now:
            groups.setdefault(group, _Group()).add(line)
    is_named = any(line.extra.get("router") == teacher.spec.name for line in ledger.lines)
    own = {name: group for name, group in groups.items() if group.may_be_of(teacher, renames, is_named=is_named)}
    answers: dict[tuple[str, int], Label] = {}
    for line in ledger.lines:
        if line.teacher == teacher.name and line.scores is not None and group_of(line) in own:
            answers[unicodedata.normalize("NFC", line.text), line.sample] = line
    return Earlier(answers, {name: group.described or dict.fromkeys(group.answered) for name, group in own.items()})


@dataclass(slots=True)
class _Group:
    """What is known of the intents that some answers were given under.

    Attributes:
        described: As ``Earlier.intents``; empty where the recording does not say it.
        answered: Names in answers, in order.
        routers: Whose answers these are; of older recordings nothing.
    """

    described: Mapping[str, str | None] = field(default_factory=dict)
    answered: dict[str, None] = field(default_factory=dict)
    routers: set[str] = field(default_factory=set)

    def add(self, line: Label) -> None:
        """Learns from one of the answers."""
        if isinstance(own := line.extra.get("intents"), Mapping):
            self.described = own
        if isinstance(router := line.extra.get("router"), str):
            self.routers.add(router)
        self.answered.update(dict.fromkeys(line.scores or ()))

    def may_be_of(self, teacher: Teacher, renames: Collection[str], *, is_named: bool) -> bool:
        """Whether the answers are the router's, by its name, else by intents that both have.

        Args:
            teacher: Its teacher.
            renames: As for ``earlier_answers``.
            is_named: Whether the ledger has lines under the router's name: otherwise it may have had another name.
        """
        if teacher.spec.name in self.routers:
            return True
        if self.routers and is_named:
            return False
        names = {*self.described, *self.answered} - {OUT_OF_SCOPE_LABEL}
        if not names or not names.isdisjoint({*teacher.intent_hashes, *renames}):
            return True
        said = {i.name for i in teacher.intents if i.description or i.examples} - {OUT_OF_SCOPE_LABEL}
        return not {teacher.intent_hashes[name] for name in said}.isdisjoint(self.described.values())


def described(teacher: Teacher, begun: Container[str], prompt_sha256: str) -> dict[str, Mapping[str, str]]:
    """What the first line under some settings says of their intents, so that a later change of them can be told; else nothing.

    Args:
        teacher: Who labels.
        begun: The settings under which the ledger has lines already.
        prompt_sha256: Those of a line that is about to be written.
    """
    is_first = prompt_sha256 not in begun and teacher.spec.teacher.labels is None
    return {"intents": teacher.intent_hashes} if is_first else {}


def group_of(line: Label) -> str | None:
    """The hash of the intents under which a label was given; None for other lines, such as those of ``relabel``."""
    settings = line.extra.get("settings")
    if not isinstance(settings, Mapping) or "stage" in settings:
        return None
    intents = settings.get("intents")
    return intents if isinstance(intents, str) else None
