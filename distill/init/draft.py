"""What router.yaml is to say: put together from what was found and what the user asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from distill.data import as_known, read_gold
from distill.errors import DataError, SpecError
from distill.types import OUT_OF_SCOPE_LABEL, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from distill.init.sources import Source

__all__ = ["DEFAULT_MODEL", "Draft", "Options", "draft", "name_of"]

DEFAULT_MODEL = "gpt-5-mini"
_INTENTS = (
    Intent("track_order", "Where an order is, or when it will arrive."),
    Intent("cancel_order", "Stop an order that was placed."),
    Intent("refund", "Get money back for something that was bought."),
)
_CHANNELS = (
    Intent("visual", "What is seen: people and what they do, things, places."),
    Intent("transcription", "What is said."),
    Intent("metadata", "Title, people, date and place of a recording."),
)
_PLACEHOLDERS = {Task.SINGLE: _INTENTS, Task.MULTI: _INTENTS, Task.WEIGHTS: _CHANNELS}
_EXAMPLES = 10
"""Most examples of an intent that stand in router.yaml: each of them stands in every prompt."""

_LABELS_ENOUGH = 10
"""Labelled queries an intent, in the mean, from which on they are the teacher where nothing else is said."""

_MANY_INTENTS = 100
_PER_INTENT, _PER_INTENT_OF_MANY, _OUT_OF_SCOPE = 60, 20, 300
_CHANNELS_WEIGH = 5
"""How many times more queries a channel gets than an intent: there are few of them, and what they share is to be learnt."""
_WHAT_A_PROMPT_SAID = "if the labels are what the prompt answered, `distill label --import` takes them, if they are people's, `gold:` may name them"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. None: what was found decides.

    Attributes:
        name: Of the router.
        task: What its labels are to mean.
        intents: Given by hand; their descriptions go before those that were found.
        out_of_scope: Whether a query may fit none.
        teacher_model: Who labels.
        base_url: Its endpoint.
        labels_teach: Whether human labels are the teacher; None: where there are enough, no model was named and there are no
            other queries, which a model is to label.
    """

    name: str | None = None
    task: Task | None = None
    intents: tuple[Intent, ...] = ()
    out_of_scope: bool | None = None
    teacher_model: str | None = None
    base_url: str | None = None
    labels_teach: bool | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What router.yaml is to say.

    Attributes:
        name: Of the router.
        task: What the labels mean.
        intents: At least two.
        out_of_scope: Whether a query may fit none.
        out_of_scope_examples: Of such queries.
        teacher_model: Who labels; None: the human labels of ``labels``.
        base_url: Its endpoint; None: OpenAI's own.
        prompt: The user's own prompt.
        queries: Whose queries are labelled; None: the model writes them, or the labelled ones are.
        labels: Human labels that are the teacher.
        evidence: Human labels that are shown to the teacher.
        gold: Human labels to measure against.
        per_intent: Queries to write for each intent.
        n_out_of_scope: Queries to write that fit none.
        are_placeholders: Whether the intents are made up, for the user to replace.
        notes: Lines for people.
    """

    name: str
    task: Task
    intents: tuple[Intent, ...]
    out_of_scope: bool
    out_of_scope_examples: tuple[str, ...]
    teacher_model: str | None
    base_url: str | None = None
    prompt: Path | None = None
    queries: Source | None = None
    labels: Source | None = None
    evidence: Source | None = None
    gold: Path | None = None
    per_intent: int = _PER_INTENT
    n_out_of_scope: int = _OUT_OF_SCOPE
    are_placeholders: bool = False
    notes: tuple[str, ...] = ()


def draft(folder: Path, sources: Sequence[Source], options: Options) -> Draft:
    """Puts together what router.yaml is to say.

    Args:
        folder: Where it will lie; names the router where no name is given.
        sources: What the user has.
        options: What the user asked for.

    Raises:
        DataError: Two sources say the same thing twice.
        SpecError: The intents cannot be those of a router.
    """
    labelled = _only("labelled queries", [source for source in sources if source.labelled])
    queries = _only("queries", [source for source in sources if source.queries])
    prompt = _only("a prompt", [source for source in sources if source.prompt])
    notes = [f"{source.path}: {source.note}" for source in sources]
    use = None if labelled is None else _use_of(labelled, options, queries=queries, prompt=prompt)
    labels_teach, are_evidence = use is _Use.TEACHER, use is _Use.EVIDENCE
    if labelled is not None and use is not None:
        notes.append(f"{labelled.path}: {_what_labels_do(labelled, use, queries)}")
    if labelled is not None and use is _Use.QUERIES:
        queries = _without_labels(labelled)
    found = _merged([*options.intents, *(intent for source in sources for intent in source.intents)])
    written = [*options.intents, *(intent for source in sources if not source.labelled for intent in source.intents)]
    own = {intent.name: intent.examples for intent in _merged(written)}
    if cut := [name for name, examples in own.items() if len(examples) > _EXAMPLES]:
        notes.append(f"of the examples of {', '.join(cut)} the first {_EXAMPLES} were taken")
    if not found:
        notes.append("no intents were given: router.yaml holds three made-up ones, replace them with yours")
    task = _task(options, labelled)
    intents = found or _PLACEHOLDERS[task]
    if labels_teach or are_evidence:
        _check_out_of_scope(labelled, options)
    fits_none = [source.out_of_scope for source in sources if source.out_of_scope is not None]
    measured = read_gold(labelled.gold) if labelled is not None and labelled.gold is not None else []
    gold = frozenset(as_known(query.text) for query in measured)
    is_in_gold = any(OUT_OF_SCOPE_LABEL in query.target for query in measured)
    is_bare = labels_teach or are_evidence or prompt is not None
    made = Draft(
        name=options.name or name_of(folder),
        task=task,
        intents=tuple(
            Intent(
                intent.name, intent.description, _shown(own.get(intent.name, ()) if is_bare else intent.examples, gold)
            )
            for intent in intents
        ),
        out_of_scope=_has_out_of_scope(
            options, task, fits_none=bool(fits_none) or is_in_gold, labels_teach=labels_teach
        ),
        out_of_scope_examples=() if is_bare else _shown((text for texts in fits_none for text in texts), gold),
        teacher_model=None if labels_teach else options.teacher_model or DEFAULT_MODEL,
        base_url=options.base_url,
        prompt=prompt.path if prompt else None,
        queries=queries,
        labels=labelled if labels_teach else None,
        evidence=_without_gold(labelled, gold) if labelled is not None and are_evidence else None,
        gold=labelled.gold if labelled else None,
        per_intent=(_PER_INTENT if len(intents) <= _MANY_INTENTS else _PER_INTENT_OF_MANY)
        * (_CHANNELS_WEIGH if task.is_mixture else 1),
        n_out_of_scope=_OUT_OF_SCOPE,
        are_placeholders=not found,
        notes=tuple(notes),
    )
    _check(made)
    if made.gold is not None:
        labels = [*(intent.name for intent in made.intents), *([OUT_OF_SCOPE_LABEL] if made.out_of_scope else [])]
        read_gold(made.gold, labels, task)
    return made


def _only(what: str, found: list[Source]) -> Source | None:
    if len(found) > 1:
        raise DataError(f"{found[0].path} and {found[1].path} both hold {what}; give one of them")
    return found[0] if found else None


class _Use(Enum):
    """What becomes of labelled queries."""

    TEACHER = "their labels are what is learnt"
    EVIDENCE = "the model that labels other queries is shown those that are near"
    EXAMPLES = "the first of them stand in router.yaml"
    QUERIES = "a prompt labels them anew"
    NOTHING = "a prompt labels other queries"


def _use_of(labelled: Source, options: Options, *, queries: Source | None, prompt: Source | None) -> _Use:
    if prompt is not None:
        return _Use.QUERIES if queries is None else _Use.NOTHING
    if _labels_teach(labelled, options, queries):
        return _Use.TEACHER
    can_be_evidence = queries is not None and not labelled.task.is_mixture
    return _Use.EVIDENCE if can_be_evidence and _most_examples(labelled) > _EXAMPLES else _Use.EXAMPLES


def _labels_teach(labelled: Source, options: Options, queries: Source | None) -> bool:
    if options.labels_teach is not None:
        return options.labels_teach
    is_asked = options.teacher_model is not None or queries is not None
    return not is_asked and len(labelled.labelled) >= _LABELS_ENOUGH * len(labelled.intents)


def _most_examples(labelled: Source) -> int:
    return max((len(intent.examples) for intent in labelled.intents), default=0)


def _what_labels_do(labelled: Source, use: _Use, queries: Source | None) -> str:
    if use is _Use.TEACHER:
        others = f"; of {queries.path} only what stands here too gets a label" if queries is not None else ""
        return f"these labels are the teacher, no model is asked (--teacher-model NAME: a model labels){others}"
    if use is _Use.QUERIES:
        return f"these are the queries; {_WHAT_A_PROMPT_SAID}"
    others = "" if queries is None else f"; what is learnt are the queries of {queries.path}"
    if use is _Use.NOTHING:
        return f"these are not read{others}; {_WHAT_A_PROMPT_SAID}"
    if use is _Use.EVIDENCE:
        return f"these are evidence for the model that labels{others}"
    cut = f"; the first {_EXAMPLES} of each intent were taken" if _most_examples(labelled) > _EXAMPLES else ""
    shared = (
        "; an example can only say which channels share a query equally, so queries of other weights are left out of them"
        if labelled.task.is_mixture
        else ""
    )
    return f"these are examples for the model that labels{others}{cut}{shared}"


def _merged(intents: Sequence[Intent]) -> tuple[Intent, ...]:
    """Each intent once, in the order of first mention: its first description, and all examples."""
    found: dict[str, Intent] = {}
    for intent in intents:
        known = found.get(intent.name, Intent(intent.name))
        examples = tuple(dict.fromkeys([*known.examples, *intent.examples]))
        found[intent.name] = Intent(intent.name, known.description or intent.description, examples)
    return tuple(found.values())


def _shown(examples: Iterable[str], gold: frozenset[str]) -> tuple[str, ...]:
    """The first examples that are not gold too, which the teacher must not be shown."""
    return tuple(islice((text for text in examples if as_known(text) not in gold), _EXAMPLES))


def _without_gold(labelled: Source, gold: frozenset[str]) -> Source:
    """Evidence must not be gold: where some is, the file itself cannot be named, and what is left is written beside router.yaml."""
    lines = tuple(line for line in labelled.labelled if as_known(line["text"]) not in gold)
    return labelled if len(lines) == len(labelled.labelled) else replace(labelled, labelled=lines, is_ready=False)


def _without_labels(labelled: Source) -> Source:
    """The queries of a labelled source, to be labelled anew."""
    texts = tuple(dict.fromkeys(str(line["text"]) for line in labelled.labelled))
    return replace(labelled, queries=texts, labelled=())


def _task(options: Options, labelled: Source | None) -> Task:
    """What the labels mean: as the user says, or as the labelled queries have it."""
    if labelled is None or options.task in {None, labelled.task}:
        return options.task or (labelled.task if labelled else None) or Task.SINGLE
    raise DataError(f"{labelled.path}: its labels are for `task: {labelled.task.value}`, not {options.task}")


def _check_out_of_scope(labelled: Source | None, options: Options) -> None:
    if labelled is not None and labelled.out_of_scope and options.out_of_scope is False:
        raise DataError(
            f"{labelled.path}: {len(labelled.out_of_scope)} of its queries fit no intent ({OUT_OF_SCOPE_LABEL}), such as "
            f"{labelled.out_of_scope[0]!r}; leave --no-out-of-scope out, or take their lines out"
        )


def _has_out_of_scope(options: Options, task: Task, *, fits_none: bool, labels_teach: bool) -> bool:
    if options.out_of_scope is not None:
        return options.out_of_scope
    return task.has_one_label and (fits_none or not labels_teach)


def name_of(folder: Path) -> str:
    """The name of a folder as the name of a router."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return name or "my-router"


def _check(made: Draft) -> None:
    """Raises what ``load_spec`` would say, before anything is written."""
    from pydantic import ValidationError

    from distill.spec import Spec

    teacher: dict[str, Any] = {"model": made.teacher_model} if made.teacher_model else {"labels": "labelled.jsonl"}
    raw = {
        "name": made.name,
        "task": made.task.value,
        "intents": {
            intent.name: {"description": intent.description, "examples": intent.examples} for intent in made.intents
        },
        "out_of_scope": made.out_of_scope,
        "teacher": {**teacher, "base_url": made.base_url},
    }
    try:
        Spec.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise SpecError(f"`{name}`: {problem['msg'].removeprefix('Value error, ')}") from error
