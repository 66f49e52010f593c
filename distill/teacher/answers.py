"""What a teacher's answer looks like for each task: its JSON schema, and how scores are read from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.spec import Spec

__all__ = ["NotJsonError", "answer_schema", "parse_json", "read_scores"]


class NotJsonError(ValueError):
    """An answer holds no JSON: the server may not know the response format that it was asked for."""


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
        ValueError: The answer names no label; nothing is guessed.
    """
    names = _label_names(spec)
    if spec.teacher.prompt is not None and spec.teacher.answer_path is None and content.strip() in names:
        return {names[content.strip()]: 1.0}
    if not content.strip():
        raise ValueError("the answer is empty")
    value = parse_json(content)
    for part in (spec.teacher.answer_path or "intent").split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f"the answer has no field {part!r}: {_short(content)}")
    if not isinstance(value, str) or value.strip() not in names:
        raise ValueError(f"the answer is no intent: {_short(str(value))}")
    return {names[value.strip()]: 1.0}


def _label_names(spec: Spec) -> Mapping[str, str]:
    """Every spelling a teacher may answer with, and the label it stands for."""
    return {name: name for name in spec.labels} | spec.teacher.answer_map


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else f"{text[:80]}...")  # noqa: PLR2004
