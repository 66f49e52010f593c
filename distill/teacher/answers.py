"""What a teacher's answer looks like for each task: its JSON schema, and how scores are read from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.spec import Spec

__all__ = ["NotJsonError", "UnmatchedError", "answer_schema", "label_names", "parse_json", "read_scores"]


class NotJsonError(ValueError):
    """An answer holds no JSON: the server may not know the response format that it was asked for."""


class UnmatchedError(ValueError):
    """An answer names no label.

    Args:
        answer: What it says instead.
        hint: What was probably meant.
    """

    def __init__(self, answer: str, hint: str = "") -> None:
        self.answer = " ".join(answer.split())[:_SHOWN_CHARACTERS]
        super().__init__(f"the answer is no intent: {_short(answer)}{hint}")


def answer_schema(labels: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a ``single`` answer, strict as OpenAI wants it: no other keys, every key required."""
    return {
        "type": "object",
        "properties": {"intent": {"type": "string", "enum": list(labels)}},
        "required": ["intent"],
        "additionalProperties": False,
    }


def parse_json(content: str) -> Any:
    """The JSON value in an answer, also inside a Markdown fence or after a sentence.

    Raises:
        NotJsonError: There is none.
    """
    inner = sorted((content.find(begin), content.rfind(end) + 1) for begin, end in ("{}", "[]"))
    for candidate in (content, *(content[start:stop] for start, stop in inner if start >= 0)):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    raise NotJsonError(f"not JSON: {_short(content)}")


def read_scores(content: str, spec: Spec) -> dict[str, float]:
    """Scores by label from a teacher's raw answer.

    Raises:
        UnmatchedError: The answer names no label; nothing is guessed.
        ValueError: It is no such answer at all.
    """
    names, answer = label_names(spec), content.strip()
    if not answer:
        raise ValueError("the answer is empty")
    may_be_bare = spec.teacher.prompt is not None and spec.teacher.answer_path is None
    if may_be_bare and answer in names:
        return {names[answer]: 1.0}
    try:
        value = parse_json(content)
    except NotJsonError:
        if may_be_bare and not spec.teacher.send_schema:  # nobody asked for JSON
            raise UnmatchedError(answer) from None
        raise
    if not may_be_bare or isinstance(value, dict):
        hint = "; teacher.answer_path names the field that holds it" if may_be_bare else ""
        value = answer = _field(value, spec.teacher.answer_path or "intent", content, hint)
    if not isinstance(value, str) or value.strip() not in names:
        raise UnmatchedError(str(answer))
    return {names[value.strip()]: 1.0}


def _field(value: Any, path: str, content: str, hint: str) -> Any:
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f"the answer has no field {part!r}: {_short(content)}{hint}")
    return value


def label_names(spec: Spec) -> Mapping[str, str]:
    """Every spelling a teacher may answer with, and the label it stands for."""
    return {name: name for name in spec.labels} | spec.teacher.answer_map


_SHOWN_CHARACTERS = 80


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
