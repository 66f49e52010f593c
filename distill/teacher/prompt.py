"""Prompts: numbered text files, never edited once a recording uses them. What never changes stands first."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from distill.errors import SpecError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jinja2 import Template

    from distill.types import Intent

__all__ = ["Messages", "examples_of", "in_turn", "render", "template_text", "user_prompt", "user_prompt_text"]

Messages = tuple[tuple[str, str], ...]
"""Pairs of role and content."""


def template_text(name: str) -> str:
    """The text of one of our own templates, such as ``label_single_001``."""
    return resources.files("distill.teacher").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")


@lru_cache
def _templates(name: str) -> tuple[tuple[str, Template], ...]:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise missing_extra("jinja2") from error
    environment = Environment(  # noqa: S701 - plain text for a model; queries enter as JSON strings
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    _, *sections = re.split(r"^\[(system|user|assistant)\]\n", template_text(name), flags=re.MULTILINE)
    return tuple(
        (role, environment.from_string(text)) for role, text in zip(sections[::2], sections[1::2], strict=True)
    )


def render(name: str, **values: Any) -> Messages:
    """One of our own templates as messages, without those that these values leave empty."""
    messages = ((role, template.render(**values).strip()) for role, template in _templates(name))
    return tuple((role, content) for role, content in messages if content)


def examples_of(intents: tuple[Intent, ...]) -> list[tuple[str, str]]:
    """Pairs of example and intent: the first of every intent, then the second, so that no intent stands last for long."""
    longest = max((len(intent.examples) for intent in intents), default=0)
    return [
        (intent.examples[position], intent.name)
        for position in range(longest)
        for intent in intents
        if position < len(intent.examples)
    ]


def in_turn(intents: tuple[Intent, ...], sample: int) -> tuple[Intent, ...]:
    """The intents in the order in which a sample shows them: the first in their own, each other sample beginning with another intent.

    A model prefers what stands in some places. Over as many samples as there are intents, each intent stands in each place once, and the
    mean favours no place; who follows whom stays, and ``oos`` stays last (cyclic permutation: Zheng et al., Large Language Models Are Not
    Robust Multiple Choice Selectors, ICLR 2024).

    Args:
        intents: In their own order.
        sample: From 0.
    """
    n = len(intents)
    step = next(each for each in range(max(round(n * _STEP), 1), n + 1) if math.gcd(each, n) == 1) if n > 1 else 0
    start = sample * step % n if n else 0
    return intents[start:] + intents[:start]


_STEP = (math.sqrt(5) - 1) / 2
"""About the share of the circle from one sample's beginning to the next one's: by the golden ratio a few of them among many intents lie far apart."""


def user_prompt_text(path: Path) -> str:
    """The user's own prompt file.

    Raises:
        SpecError: It cannot be read, or does not contain ``{query}``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(f"{path}: teacher.prompt does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: teacher.prompt cannot be read as UTF-8 text ({error})") from error
    if "{query}" not in text:
        raise SpecError(f"{path}: teacher.prompt must contain {{query}}, where the query is to stand")
    return text


def user_prompt(
    path: Path,
    text: str,
    *,
    query: str,
    intents: tuple[Intent, ...],
    examples: Sequence[tuple[str, str | Sequence[str]]] | None = None,
) -> Messages:
    """The user's own prompt as messages: a .txt is one user message, a .json a list of messages.

    Only the literal tokens {query}, {intents} and {examples} are replaced; what is put in is not looked into again.

    Args:
        path: Tells the two kinds apart.
        text: What the file holds.
        query: Stands for {query}.
        intents: Stand for {intents}.
        examples: Stand for {examples}; None: those of the intents.

    Raises:
        SpecError: A .json file is not a list of messages.
    """
    described = "\n".join(f"- {i.name}: {i.description}" if i.description else f"- {i.name}" for i in intents)
    pairs = examples_of(intents) if examples is None else examples
    shown = "\n".join(f"{example} -> {name if isinstance(name, str) else ', '.join(name)}" for example, name in pairs)
    values = {"{query}": query, "{intents}": described, "{examples}": shown}
    if path.suffix.lower() != ".json":
        return (("user", _replace(text, values)),)
    return tuple((role, _replace(content, values)) for role, content in _messages(path, text))


@lru_cache
def _messages(path: Path, text: str) -> Messages:
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON: {error}") from error
    match messages:
        case [*parts] if all(isinstance(part, dict) for part in parts):
            pairs = tuple((part.get("role"), part.get("content")) for part in parts)
            if pairs and all(isinstance(value, str) for pair in pairs for value in pair):
                return pairs
    raise SpecError(f'{path}: expected a list of {{"role": "...", "content": "..."}}, as text')


def _replace(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(?:query|intents|examples)\}", lambda match: values[match.group()], text)
