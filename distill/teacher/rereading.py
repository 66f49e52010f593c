"""Answers that were read by another ``answer_path`` or ``answer_map``, or asked by a prompt file of another name: read anew, and nothing is asked.

A line of the ledger holds for the settings that it was read by. Where these alone differ from today's, a line of today's settings carries it over.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.data import ledger_key, sha256_json
from distill.teacher.answers import FORMS, SAID, read_scores
from distill.teacher.asking import brief
from distill.teacher.ledger import time_now

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from distill.spec import Spec
    from distill.teacher.asking import Question, Teacher
    from distill.teacher.ledger import Ledger
    from distill.types import Label

__all__ = ["ASKED_AGAIN", "hash_of", "is_asked_again", "is_decision", "read_anew", "settings_today"]

ASKED_AGAIN = "relabel"
"""The stage that such answers are of."""


def read_anew(teacher: Teacher, ledger: Ledger, questions: Iterable[Question]) -> dict[Question, list[Label]]:
    """The lines that answer questions anew, from answers under other settings that asked the same.

    The last good answer decides; where none was good, the last that says anything. An answer under today's settings gives way to a later one only where
    that was imported or decided.

    Args:
        teacher: Today's settings.
        ledger: What was answered.
        questions: Which answers are wanted.

    Returns:
        Lines by question, to be written in this order: one, or before a decision what it was decided from. A question is not among them where it has
        its answer, where what was said cannot be known, or where it says nothing today either.
    """
    today = settings_today(teacher)
    others = _hashes_asked_alike(ledger, today) - today.keys()
    if not others:
        return {}
    wanted = {_place(question.text, question.sample): question for question in questions}
    recorded: dict[Question, list[Label]] = {}
    for line in ledger.lines:
        if line.teacher == teacher.name and (line.prompt_sha256 in others or line.prompt_sha256 in today):
            question = wanted.get(_place(line.text, line.sample))
            if question is not None:
                recorded.setdefault(question, []).append(line)
    found = {question: _deciding(lines, today) for question, lines in recorded.items()}
    anew = {question: [_of_today(line, teacher.spec, today) for line in lines] for question, lines in found.items()}
    return {
        question: [line for line in lines if line is not None]
        for question, lines in anew.items()
        if lines
        and lines[-1] is not None
        and not _says(ledger.get(teacher.keys(question.text, question.sample)), lines[-1])
    }


def _says(known: Label | None, line: Label) -> bool:
    return known is not None and known.scores == line.scores


def _hashes_asked_alike(ledger: Ledger, today: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Of the recorded settings those that asked just what today's would."""
    seen: dict[str, Any] = {}
    for line in ledger.lines:
        seen.setdefault(line.prompt_sha256, line.extra.get("settings"))
    return {hash_ for hash_, settings in seen.items() if hash_of(settings, today) is not None}


def _deciding(lines: Sequence[Label], today: Container[str]) -> list[Label]:
    """Of the lines about one question, the first first, those that are to be read anew."""
    good = [line for line in lines if line.scores is not None]
    if not good:
        return [line for line in lines if SAID in line.extra and line.prompt_sha256 not in today][-1:]
    last = good[-1]
    if last.prompt_sha256 in today or (not _is_given(last) and any(line.prompt_sha256 in today for line in good)):
        return []
    if not is_decision(last):
        return [last]
    return [*[line for line in good if not is_decision(line)][-1:], last]


def is_asked_again(line: Mapping[str, Any]) -> bool:
    """Whether a line of a ledger is one of several answers for which a doubtful label was asked anew, and no label itself."""
    settings = line.get("settings")
    return isinstance(settings, Mapping) and settings.get("stage") == ASKED_AGAIN


def is_decision(line: Label) -> bool:
    """Whether a line is what `audit --relabel` made of several answers."""
    return "answers" in _source(line)


def _is_given(line: Label) -> bool:
    """Whether a line was imported or decided, and not just carried over."""
    return is_decision(line) or "file" in _source(line)


def _source(line: Label) -> Mapping[str, Any]:
    source = line.extra.get("carried_from")
    return source if isinstance(source, dict) else {}


def settings_today(teacher: Teacher) -> dict[str, dict[str, Any]]:
    """Today's settings in each dialect, as a line says them, by their hash."""
    return {hash_: brief(teacher.settings(dialect)) for dialect, hash_ in teacher.hashes.items()}


def hash_of(settings: Any, today: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The hash of those of today's settings that ask just what some recorded ones did; None where these asked something else."""
    if not isinstance(settings, dict):
        return None
    return next((hash_ for hash_, own in today.items() if _as_asked(own) == _as_asked(settings)), None)


def _as_asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what does not change the question: how answers are read, and the name of the prompt's file."""
    unasked = {"answer", "template"} if "template_sha256" in settings else {"answer"}
    return {name: value for name, value in settings.items() if name not in unasked}


def _place(text: str, sample: int) -> tuple[str, int]:
    return unicodedata.normalize("NFC", text), sample


def _of_today(line: Label, spec: Spec, today: Mapping[str, dict[str, Any]]) -> Label | None:
    hash_, scores = hash_of(line.extra["settings"], today), _scores_today(line, spec)
    if hash_ is None or scores is None:
        return None
    extra = {name: value for name, value in line.extra.items() if name not in {"batch", "usd"}}
    source = {"teacher": line.teacher, "prompt_sha256": line.prompt_sha256, "key": line.key, "reread_at": time_now()}
    return replace(
        line,
        key=ledger_key(line.teacher, hash_, line.text, line.sample),
        prompt_sha256=hash_,
        scores=scores,
        error=None,
        extra={"carried_from": source}
        | extra
        | {"settings": today[hash_], "router": spec.name},  # where it came from first stays
    )


def _scores_today(line: Label, spec: Spec) -> Mapping[str, float] | None:
    """What a line says by today's ``answer_path`` and ``answer_map``; None where that cannot be known."""
    if isinstance(said := line.extra.get(SAID), str):
        with suppress(ValueError):
            return read_scores(said, spec)
        return None
    if line.scores is None:
        return None
    if "carried_from" in line.extra:  # imported, decided anew or carried over: these are names of intents
        return line.scores
    if line.extra["settings"].get("logprobs") and spec.teacher.answer_map and not FORMS[spec.task].mixes_intents:
        return None  # how likely a label is depends on every spelling of it
    was_by_name = sha256_json([spec.teacher.answer_path, {}])
    is_as_it_was = line.extra["settings"].get("answer") == brief({"answer": was_by_name})["answer"]
    return line.scores if is_as_it_was and spec.teacher.answer_map.keys().isdisjoint(line.scores) else None
