"""Answers that the ledger holds under other intents: the same teacher gave them before intents were added, renamed, removed or described anew."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distill.teacher.asking import Question, brief
from distill.teacher.client import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

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


def earlier_answers(teacher: Teacher, ledger: Ledger) -> Earlier:
    """Looks through a ledger for what the same teacher answered under other intents.

    People's labels, which do not depend on the intents, are never among them.
    """
    now = brief(teacher.settings(DIALECTS[0])).get("intents")
    if now is None:
        return Earlier()
    answers: dict[tuple[str, int], Label] = {}
    described: dict[str, Mapping[str, str | None]] = {}
    for line in ledger.lines:
        group = group_of(line)
        if line.teacher != teacher.name or group in {None, now}:
            continue
        if isinstance(own := line.extra.get("intents"), Mapping):
            described[str(group)] = own
        if line.scores is not None:
            answers[unicodedata.normalize("NFC", line.text), line.sample] = line
    named: dict[str, dict[str, None]] = {}
    for line in answers.values():
        group = str(group_of(line))
        if group not in described:
            named.setdefault(group, {}).update(dict.fromkeys(line.scores or ()))
    return Earlier(answers, {**described, **named})


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
