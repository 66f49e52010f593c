"""What each task asks of a teacher: templates, the JSON schema of an answer, and how scores are read from one.

``FORMS`` is the one place where prompts, schemas and reading go by the task.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.data import canonical_json, unknown_label
from distill.teacher.likelihood import label_probabilities
from distill.teacher.prompt import examples_of
from distill.types import HOLDS, OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from distill.spec import Spec
    from distill.teacher.likelihood import Token
    from distill.types import Intent

__all__ = [
    "FORMS",
    "SAID",
    "Answer",
    "Names",
    "NotJsonError",
    "TaskForm",
    "UnmatchedError",
    "answer_schema",
    "as_said",
    "function_scores",
    "in_words",
    "label_names",
    "parse_json",
    "read_scores",
    "without_thoughts",
]

SAID = "answer"
"""Under which a line of the ledger keeps what was said, where that may be read otherwise some day."""

Names = Mapping[str, str | None]
"""Every spelling that a teacher may answer with, and the label it stands for; None: no label at all (``multi``)."""


Answer = str | Sequence[str] | Mapping[str, float]
"""A label as it is shown: a name; names, none included; or each channel's share."""


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


# --- one form a task -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskForm:
    """How a teacher is asked in one task, and how its answers are read.

    Attributes:
        key: Where the answer stands in a JSON object, as in a line of a data set.
        label_template: Our own prompt for labelling.
        synth_templates: Our own prompts for writing queries, the newest first: a recording goes on with the one it was begun with.
        synth_templates_crossed: The same where router.yaml gives ``synth.attributes``.
        synth_templates_close: The same where labels are given that the queries are to come near to; empty: as otherwise.
        schema: From labels to the JSON schema of each field of an answer, in the order in which they are to come; from none: of any names.
        examples: From the intents to pairs of example and what stands beside it in the prompt.
        numbers: From an answer to its numbers by name, as it spells them; None where it is no such answer.
        answer: From scores by label to what they say: the likeliest label, those that hold, or the share of each.
        relabel_template: Our own prompt for asking again.
        answer_tokens: From labels to about how many tokens an answer has.
        highest: Highest number that a name may have.
        may_be_empty: Whether an answer may name nothing: queries that fit none are no label of their own then.
        mixes_intents: Whether one query may ask for several things.
        names_rivals: Whether the newest prompt for writing names the intents that a query is not to be taken for.
        takes_kinds: Whether queries are written by the first attribute of ``synth.attributes`` in place of the labels.
        label_template_by_query: Our own prompt for labelling where not all that is known fits; None: there all of it stands in the prompt.
        relabel_template_by_query: The same for asking again.
        settings: What the prompt's hash covers besides (empty where a recording was made before there were other tasks).
    """

    key: str
    label_template: str
    synth_templates: tuple[str, ...]
    synth_templates_crossed: tuple[str, ...]
    schema: Callable[[Sequence[str]], dict[str, Any]]
    examples: Callable[[Sequence[Intent]], list[tuple[str, Any]]]
    numbers: Callable[[Any], dict[str, Any] | None]
    answer: Callable[[Mapping[str, float]], Answer]
    relabel_template: str
    answer_tokens: Callable[[Sequence[str]], int]
    highest: float = sys.float_info.max
    may_be_empty: bool = False
    mixes_intents: bool = False
    names_rivals: bool = False
    takes_kinds: bool = False
    synth_templates_close: tuple[str, ...] = ()
    label_template_by_query: str | None = None
    relabel_template_by_query: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def _intent_number(value: Any) -> dict[str, Any] | None:
    return {value: 1.0} if isinstance(value, str) else None


def _intents_numbers(value: Any) -> dict[str, Any] | None:
    """A list of names; a name alone, names with commas between them, or null; or a probability for each name."""
    match value:
        case None:
            return {}
        case str():
            return dict.fromkeys(_listed(value), 1.0) or None
        case list() | tuple() | set() | frozenset() if all(isinstance(name, str | int) for name in value):
            return {name if isinstance(name, str) else _spelt(name): 1.0 for name in value}
        case Mapping():
            return {name: float(number) if isinstance(number, bool) else number for name, number in value.items()}
    return None


def _weights_numbers(value: Any) -> dict[str, Any] | None:
    """A number for each channel; the name of the one that is to give all; or names, with commas or "and" between them, that give alike."""
    if isinstance(value, str):
        return dict.fromkeys(_listed(value.replace(" and ", ",")), 1.0) or _intent_number(value)
    return dict(value) if isinstance(value, Mapping) else None


def _shares(scores: Mapping[str, float]) -> dict[str, float]:
    total = sum(scores.values()) or 1.0
    return {name: round(score / total, 2) for name, score in scores.items()}


def in_words(answer: Answer) -> str:
    """An answer as it is shown: names, and what is above 0 of shares, the greatest first."""
    match answer:
        case str():
            return answer
        case Mapping():
            shown = sorted((name for name, share in answer.items() if share), key=lambda name: (-answer[name], name))
            return ", ".join(f"{name} {answer[name]:.2f}" for name in shown)
    return ", ".join(answer) or "none"


def _listed(text: str) -> list[str]:
    """Names with commas, semicolons or line breaks between them."""
    parts = (part.strip(_AROUND_NAMES) for part in re.split(r"[,;\n]", text))
    return [part for part in parts if part]


_AROUND_NAMES = " \t\r-*"


def _names_by_text(intents: Sequence[Intent]) -> dict[str, list[str]]:
    """Examples in turn, each once, with all intents that list it."""
    names: dict[str, list[str]] = {text: [] for text, _ in examples_of(tuple(intents))}
    for intent in intents:
        for text in dict.fromkeys(intent.examples):
            names[text].append(intent.name)
    return names


def _example_weights(intents: Sequence[Intent]) -> list[tuple[str, Any]]:
    """An example of several channels has equal weights for them."""
    weights = {
        text: dict.fromkeys(names, round(_WHOLE / len(names))) for text, names in _names_by_text(intents).items()
    }
    zeros = dict.fromkeys((intent.name for intent in intents), 0)
    return [(text, {"channels": list(own), "weights": zeros | own}) for text, own in weights.items()]


_WHOLE = 100

_MOST_NAMED = 20
"""Intents in one answer: a small model may say the same one for ever."""

FORMS: Mapping[Task, TaskForm] = {
    Task.SINGLE: TaskForm(
        key="intent",
        label_template="label_single_001",
        label_template_by_query="label_single_002",
        synth_templates=("synth_004", "synth_003", "synth_001"),
        synth_templates_crossed=("synth_003", "synth_002"),
        schema=lambda labels: {"intent": _one_of(labels)},
        examples=lambda intents: list(examples_of(tuple(intents))),
        numbers=_intent_number,
        answer=lambda scores: max(scores, key=lambda name: scores[name]),
        relabel_template="relabel_single_001",
        relabel_template_by_query="relabel_single_002",
        answer_tokens=lambda _: 12,
        names_rivals=True,
    ),
    Task.MULTI: TaskForm(
        key="intents",
        label_template="label_multi_001",
        label_template_by_query="label_multi_002",
        synth_templates=("synth_multi_001",),
        synth_templates_crossed=("synth_multi_001",),
        synth_templates_close=("synth_multi_002",),
        schema=lambda labels: {
            "intents": {
                "type": "array",
                "items": _one_of(labels),
                "maxItems": min(len(labels) or _MOST_NAMED, _MOST_NAMED),
            }
        },
        examples=lambda intents: list(_names_by_text(intents).items()),
        numbers=_intents_numbers,
        answer=lambda scores: [name for name, score in scores.items() if score >= HOLDS],
        relabel_template="relabel_multi_001",
        relabel_template_by_query="relabel_multi_001",
        answer_tokens=lambda _: 18,
        highest=1.0,
        may_be_empty=True,
        mixes_intents=True,
        settings={"task": Task.MULTI.value},
    ),
    Task.WEIGHTS: TaskForm(
        key="weights",
        label_template="label_weights_001",
        synth_templates=("synth_weights_001",),
        synth_templates_crossed=("synth_weights_001",),
        # named first, for the numbers to go by: asked for numbers alone, a small model gives 0 to all where several are needed
        schema=lambda labels: {
            "channels": {"type": "array", "items": _one_of(labels)},
            "weights": _strict_object({name: {"type": "integer"} for name in labels}),
        },
        examples=_example_weights,
        numbers=_weights_numbers,
        answer=_shares,
        relabel_template="relabel_weights_001",
        answer_tokens=lambda labels: 20 + 6 * len(labels),
        takes_kinds=True,
        settings={"task": Task.WEIGHTS.value},
    ),
}


def _one_of(labels: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(labels)} if labels else {"type": "string"}


def answer_schema(labels: Sequence[str], task: Task = Task.SINGLE) -> dict[str, Any]:
    """The JSON schema of an answer, strict as OpenAI wants it: no other keys, every key required.

    How large a number may be does not stand in it: not every server takes that, and ``read_scores`` checks.

    Args:
        labels: What may be answered; none where that differs from query to query: each new schema would be compiled by the server, and end
            what it has cached of the prompt. ``read_scores`` checks that too.
        task: Of the router.
    """
    return _strict_object(FORMS[task].schema(labels))


def _strict_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# --- reading an answer -----------------------------------------------------------------------------------------------


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


def read_scores(
    content: str, spec: Spec, tokens: Sequence[Token] = (), *, shown: Sequence[str] = (), cut_off: bool = False
) -> dict[str, float]:
    """Scores by label from a teacher's raw answer.

    Args:
        content: The answer.
        spec: The router's spec.
        tokens: Those of the answer, where the server gave log-probabilities.
        shown: The labels that may be answered; none: all of them.
        cut_off: Whether the answer was longer than allowed: then an answer is what could not have gone on otherwise, JSON that it begins with, or
            one name that no longer name begins with.

    Returns:
        The scores as the answer gives them, for the labels that it names; where it names one, and its tokens are known, how likely each label was.

    Raises:
        UnmatchedError: The answer names something that is no label, or was not shown; nothing is guessed.
        ValueError: It is no such answer at all.
    """
    answer = without_thoughts(content)
    if cut_off and answer.strip() and not _is_one_name(answer.strip(), spec):
        answer = _whole(answer)
    scores = _plain_scores(answer, spec)
    for name, score in scores.items():
        if shown and score and name not in shown:
            raise UnmatchedError(name, " of those that were shown")
    if tokens and len(scores) == 1 and not FORMS[spec.task].mixes_intents:
        return label_probabilities(tokens, next(iter(scores)), label_names(spec))
    return scores


def without_thoughts(content: str) -> str:
    """An answer without what some servers leave before it of a model's reasoning, ``<think>...</think>``; an answer that never came is empty."""
    answer = content.strip()
    if not answer.startswith(_THINKS):
        return content
    return answer.partition(_HAS_THOUGHT)[2]


_THINKS, _HAS_THOUGHT = "<think>", "</think>"


def _is_one_name(answer: str, spec: Spec) -> bool:
    """Whether an answer that is cut off is a name that may stand alone, and that no longer name begins with."""
    if not spec.task.has_one_label or spec.teacher.prompt is None or spec.teacher.answer_path is not None:
        return False
    return [name for name in label_names(spec) if name.startswith(answer)] == [answer]


def _whole(content: str) -> str:
    """The JSON that an answer begins with, which may stand in a Markdown fence.

    Raises:
        ValueError: It is cut off, or begins with something else.
    """
    answer = re.sub(r"^```\w*\s*", "", content.strip())
    with suppress(ValueError, RecursionError):
        value, end = json.JSONDecoder().raw_decode(answer)
        if isinstance(value, dict | list | str):  # of a number there may be more
            return answer[:end]
    raise ValueError(f"the answer is not whole: {_short(content)}")


def as_said(content: str, *, tokens: Sequence[Token], shown: Sequence[str], cut_off: bool) -> dict[str, str]:
    """What a line keeps of a raw answer, so that another ``answer_path`` or ``answer_map`` can read it without asking again.

    Nothing where more than the answer is needed to read it: its tokens, or what was shown.
    """
    return {} if tokens or shown or cut_off else {SAID: content}


def _plain_scores(content: str, spec: Spec) -> dict[str, float]:
    form, names, answer = FORMS[spec.task], label_names(spec), content.strip()
    if not answer:
        raise ValueError("the answer is empty")
    may_be_bare = spec.teacher.prompt is not None and spec.teacher.answer_path is None
    if may_be_bare and _is_answer(answer, form, names):
        return _scores(answer, form, names)
    try:
        value = parse_json(content)
    except NotJsonError:
        if may_be_bare and not spec.teacher.send_schema:  # nobody asked for JSON
            raise UnmatchedError(_unknown_part(answer, form, names)) from None
        raise
    if spec.teacher.answer_path is None and _is_the_answer_itself(value, form, names, may_be_bare=may_be_bare):
        return _scores(value, form, names, shown=answer)
    hint = "; teacher.answer_path names the field that holds it" if may_be_bare else ""
    return _scores(_field(value, spec.teacher.answer_path or form.key, content, hint), form, names)


def _is_the_answer_itself(value: Any, form: TaskForm, names: Names, *, may_be_bare: bool) -> bool:
    """Whether JSON is the answer, and not an object that holds it in a field."""
    if isinstance(value, dict):
        return form.key not in value and bool(value) and _is_answer(value, form, names)
    return may_be_bare or (isinstance(value, list) and _is_answer(value, form, names))


def _is_answer(value: Any, form: TaskForm, names: Names) -> bool:
    numbers = _numbers(value, form, names)
    return numbers is not None and all(name.strip() in names for name in numbers)


def _unknown_part(answer: str, form: TaskForm, names: Names) -> str:
    """Of several names the first that is unknown; the whole answer where none is known."""
    listed = form.numbers(answer) or {}
    unknown = [name for name in listed if name not in names]
    return unknown[0] if len(unknown) < len(listed) else answer


def _numbers(value: Any, form: TaskForm, names: Iterable[str]) -> dict[str, Any] | None:
    """``form.numbers``, but a name that holds a comma is one name, and what is no text may have a name as it stands in JSON: ``3``, ``null``."""
    spelling = "" if isinstance(value, Mapping | list | tuple | set | frozenset) else _spelt(value)
    if spelling in names:
        return {spelling: 1.0}
    if value is None and not form.may_be_empty and OUT_OF_SCOPE_LABEL in names:
        return {OUT_OF_SCOPE_LABEL: 1.0}
    return form.numbers(value)


def _spelt(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _scores(value: Any, form: TaskForm, names: Names, *, shown: str | None = None) -> dict[str, float]:
    """Numbers by label; those of several spellings of one label add up, as far as a number may go."""
    numbers = _numbers(value, form, names)
    if numbers is None:
        raise UnmatchedError(shown or _spelt(value))
    scores: dict[str, float] = {}
    for name, number in numbers.items():
        if name.strip() not in names:
            raise UnmatchedError(shown if shown is not None and isinstance(value, str) else name)
        label = names[name.strip()]
        if label is not None:
            scores[label] = min(scores.get(label, 0.0) + _checked(name, number, form.highest), form.highest)
    if not form.may_be_empty and not any(scores.values()):
        raise ValueError(f"every number is 0: {_short(str(value))}")
    return scores


def _checked(name: str, number: Any, highest: float) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= highest:
        upper = "on" if highest == sys.float_info.max else f"to {highest:g}"
        raise ValueError(f"the score of {name!r} must be a number from 0 {upper}, found {_short(str(number))}")
    return float(number)


def _field(value: Any, path: str, content: str, hint: str) -> Any:
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f"the answer has no field {part!r}: {_short(content)}{hint}")
    return value


def label_names(spec: Spec) -> Names:
    """Every spelling a teacher may answer with, and the label it stands for; None: it stands for no intent."""
    return {name: name for name in spec.labels} | spec.teacher.answer_map


# --- what a function returned ----------------------------------------------------------------------------------------


def function_scores(answer: Any, labels: Sequence[str], task: Task) -> dict[str, float]:
    """Scores by label from what ``teacher.callable`` returned.

    Raises:
        UnmatchedError: It names something that is no label.
        TypeError: It is nothing of the kind.
        ValueError: A score is no number, or out of range; or all are 0 where one must not be.
    """
    form = FORMS[task]
    numbers = (
        dict(answer) if isinstance(answer, Mapping) else None if answer is None else _numbers(answer, form, labels)
    )
    if numbers is None:
        wanted = "a list of names" if form.may_be_empty else "the name of an intent"
        raise TypeError(f"the function must return {wanted} or {{name: score}}, found {_described(answer, labels)}")
    known = frozenset(labels)
    unknown = next((str(name) for name in numbers if name not in known), None)
    if unknown is not None or not (numbers or form.may_be_empty):
        hint = "" if unknown is None else f" ({unknown_label(unknown, labels, task)})"
        raise UnmatchedError(unknown or str(answer), hint)
    scores = {name: float(score) for name, score in numbers.items()}
    in_range = all(0 <= score <= form.highest and math.isfinite(score) for score in scores.values())
    if not in_range or not (form.may_be_empty or any(scores.values())):
        bounds = "from 0 to 1" if form.may_be_empty else "from 0 on, and not all 0"
        raise ValueError(f"the scores must be numbers {bounds}: {canonical_json(scores)[:80]}")
    return scores


def _described(answer: Any, labels: Sequence[str]) -> str:
    """What a function returned instead, and what was probably meant."""
    if answer is None:
        return "None: does it lack a return?"
    shown = " ".join(repr(answer).split())[:80]
    match answer:
        case (str(name), float(score)) if isinstance(answer, tuple) and name in labels:
            return f"the tuple {shown}; return {{{name!r}: {score}}}"
    return f"{type(answer).__name__}: {shown}"


_SHOWN_CHARACTERS = 80


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
