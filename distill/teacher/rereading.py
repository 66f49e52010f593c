"""Answers that were read by another ``answer_path`` or ``answer_map``: read anew from what was said, and nothing is asked.

A line of the ledger holds for the settings that it was read by. Where these alone differ from today's, a line of today's settings carries it over.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.data import ledger_key, sha256_json
from distill.teacher.answers import SAID, read_scores
from distill.teacher.asking import brief
from distill.teacher.ledger import time_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.spec import Spec
    from distill.teacher.asking import Question, Teacher
    from distill.teacher.ledger import Ledger
    from distill.types import Label

__all__ = ["hash_of", "read_anew", "settings_today"]


def read_anew(teacher: Teacher, ledger: Ledger, missing: Iterable[Question]) -> dict[Question, Label]:
    """The lines that answer questions which have no answer under today's settings, from the last answer under settings that asked the same.

    Args:
        teacher: Today's settings.
        ledger: What was answered.
        missing: Questions without a good answer under today's settings.

    Returns:
        Line by question; a question is not among them where what was said cannot be known, or says nothing today either.
    """
    wanted = {_place(question.text, question.sample): question for question in missing}
    today = settings_today(teacher)
    last: dict[Question, Label] = {}
    for line in ledger.lines if wanted else ():
        question = wanted.get(_place(line.text, line.sample))
        if question is None or line.teacher != teacher.name or hash_of(line.extra.get("settings"), today) is None:
            continue
        if line.scores is not None or question not in last or last[question].scores is None:
            last[question] = line
    lines = {question: _of_today(line, teacher.spec, today) for question, line in last.items()}
    return {question: line for question, line in lines.items() if line is not None}


def settings_today(teacher: Teacher) -> dict[str, dict[str, Any]]:
    """Today's settings in each dialect, as a line says them, by their hash."""
    return {hash_: brief(teacher.settings(dialect)) for dialect, hash_ in teacher.hashes.items()}


def hash_of(settings: Any, today: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The hash of those of today's settings that ask just what some recorded ones did; None where these asked something else."""
    if not isinstance(settings, dict):
        return None
    asked = settings | {"answer": None}
    return next((hash_ for hash_, own in today.items() if {**own, "answer": None} == asked), None)


def _place(text: str, sample: int) -> tuple[str, int]:
    return unicodedata.normalize("NFC", text), sample


def _of_today(line: Label, spec: Spec, today: Mapping[str, dict[str, Any]]) -> Label | None:
    hash_, scores = hash_of(line.extra["settings"], today), _scores_today(line, spec)
    if hash_ is None or scores is None or hash_ == line.prompt_sha256:
        return None
    extra = {name: value for name, value in line.extra.items() if name not in {"batch", "usd"}}
    source = {"teacher": line.teacher, "prompt_sha256": line.prompt_sha256, "key": line.key, "carried_at": time_now()}
    return replace(
        line,
        key=ledger_key(line.teacher, hash_, line.text, line.sample),
        prompt_sha256=hash_,
        scores=scores,
        error=None,
        extra={"carried_from": source} | extra | {"settings": today[hash_]},  # where it came from first stays
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
    was_by_name = sha256_json([spec.teacher.answer_path, {}])
    is_as_it_was = line.extra["settings"].get("answer") == brief({"answer": was_by_name})["answer"]
    return line.scores if is_as_it_was and spec.teacher.answer_map.keys().isdisjoint(line.scores) else None
