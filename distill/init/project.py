"""Writes what a draft says: router.yaml with comments, the files that it names, and a .gitignore. Nothing is written over."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.data import atomic_write
from distill.errors import MissingExtraError, StorageError
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from distill.init.draft import Draft
    from distill.init.sources import Source
    from distill.types import Intent

__all__ = ["Written", "write_project"]

_INTENTS_INLINE = 20
"""Most intents that stand in router.yaml itself."""

_LABELLED = "labelled.jsonl"
_INTENTS = "intents.json"
_IGNORED = (
    "ledger.jsonl",
    "batches/",
    "synth.jsonl",
    "queries.jsonl",
    "improve/",
    "*errors.jsonl",
    "*.jsonl.lock",
    "*.partial",
    "/models/",
)
_MEANS_MORE = re.compile(r"([\\\[\]*?!# ])")
"""Characters that are more than themselves in a line of .gitignore."""

_IGNORED_BECAUSE = (
    "# What models answered, what users asked, and what runs write. To share a recording, take its line out."
)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        spec: router.yaml.
        files: Every file, router.yaml first.
    """

    spec: Path
    files: tuple[Path, ...]


def write_project(spec_path: Path, draft: Draft, *, force: bool = False, sources: Sequence[Source] = ()) -> Written:
    """Writes router.yaml and what belongs to it.

    A .gitignore that is there already gets the lines that it lacks; any other file that is there is left alone.

    Args:
        spec_path: Where router.yaml will stand; the other files lie beside it.
        draft: What it is to say.
        force: Writes over files that are there.
        sources: What the draft was made of: none of its files is written over.

    Raises:
        StorageError: A file is there already, or is a source (nothing is written then), or cannot be written.
    """
    folder = spec_path.parent
    files = dict(_files(spec_path, draft))
    there = [path for path in files if path.exists()]
    if there and not force:
        exist = "exists already" if len(there) == 1 else "exist already"
        raise StorageError(f"{', '.join(map(str, there))} {exist}; --force writes over what is there")
    read = [path for source in sources for path in (source.path, source.also) if path is not None]
    for path in there:
        if any(each.samefile(path) for each in read) and path.read_bytes() != files[path].encode():
            raise StorageError(f"{path}: would be written over, and it is what is read; move it to another folder")
    gitignore = folder / ".gitignore"
    ignored = _with_lines(gitignore, [*_IGNORED, *_own_texts(folder, draft)])
    if ignored is not None:
        files[gitignore] = ignored
    for path, content in files.items():
        with atomic_write(path) as partial:
            partial.write_text(content, encoding="utf-8", newline="")
    return Written(spec_path, tuple(files))


def _files(spec_path: Path, draft: Draft) -> Iterator[tuple[Path, str]]:
    """Path and content of each file but .gitignore."""
    folder = spec_path.parent
    yield spec_path, "".join(f"{line}\n" for line in _router_yaml(folder, draft))
    if len(draft.intents) > _INTENTS_INLINE:
        yield folder / _INTENTS, json.dumps(dict(map(_entry, draft.intents)), indent=2, ensure_ascii=False) + "\n"
    if draft.queries is not None and not draft.queries.is_ready:
        yield folder / _queries_name(draft.queries), _jsonl({"text": text} for text in draft.queries.queries)
    labelled = draft.labels or draft.evidence
    if labelled is not None and not labelled.is_ready:
        yield folder / _LABELLED, _jsonl(labelled.labelled)


def _entry(intent: Intent) -> tuple[str, Any]:
    if not intent.examples:
        return intent.name, intent.description
    return intent.name, {"description": intent.description, "examples": list(intent.examples)}


def _jsonl(lines: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _queries_name(queries: Source) -> str:
    return f"{queries.path.stem}.queries.jsonl"


def _own_texts(folder: Path, draft: Draft) -> list[str]:
    """Files beside router.yaml that hold what users asked."""
    if draft.queries is None:
        return []
    names = [_queries_name(draft.queries)] if not draft.queries.is_ready else []
    if draft.queries.path.resolve().parent == folder.resolve():
        names.append(draft.queries.path.name)
    return [_MEANS_MORE.sub(r"\\\1", name) for name in names]


def _with_lines(path: Path, wanted: list[str]) -> str | None:
    """What .gitignore is to say, with the lines that it lacks, and ends of lines like its own; None where it lacks none.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        before = path.read_bytes().decode("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path}: cannot be read ({error}); lines are to be added to it: save it as UTF-8"
        ) from error
    missing = [line for line in wanted if line not in before.splitlines()]
    if not missing:
        return None
    end = "\r\n" if "\r\n" in before else "\n"
    start = before if not before or before.endswith("\n") else f"{before}{end}"
    gap = end if before else ""
    return f"{start}{gap}{_IGNORED_BECAUSE}{end}" + "".join(f"{line}{end}" for line in missing)


# --- router.yaml -----------------------------------------------------------------------------------------------------


_WIDTH = 42


def _line(key: str, comment: str) -> str:
    return f"{key:<{_WIDTH}}  # {comment}"


_TASKS = {
    Task.SINGLE: "one intent a query",
    Task.MULTI: "any number of intents a query, none included",
    Task.WEIGHTS: "how much of the answer each should give",
}


def _router_yaml(folder: Path, draft: Draft) -> Iterator[str]:
    yield "# What this router is to tell apart, and who teaches it. `distill run` does the rest."
    yield '# Every key of such a file: distill\'s README, "Make your own".'
    yield f"name: {_scalar(draft.name)}"
    yield _line(f"task: {draft.task.value}", _TASKS[draft.task])
    yield ""
    if draft.are_placeholders:
        yield "# These three are made up: put yours in their place."
    if draft.task is Task.WEIGHTS:
        yield "# What an answer can come from. The teacher goes by the descriptions: say what tells a channel from the others."
    elif draft.labels is None:
        yield "# What a query can want. The teacher goes by the descriptions: say what tells an intent from its neighbours."
    else:
        yield "# What a query can want: the names that the labels use."
    yield from _intents(draft)
    yield from _out_of_scope(draft)
    yield ""
    yield from _teacher(folder, draft)
    yield ""
    yield from _queries(folder, draft)
    yield ""
    yield from _gold(folder, draft)
    yield ""
    yield _line("students: [static, encoder]", "microseconds; milliseconds, and usually a little better")
    yield _line("# bench: {queries_per_month: 1000000}", "for the cost of a month")


def _intents(draft: Draft) -> Iterator[str]:
    if len(draft.intents) > _INTENTS_INLINE:
        yield _line(f"intents: {_INTENTS}", "name to description, or to {description, examples}")
        return
    yield "intents:"
    for intent in draft.intents:
        if not intent.examples:
            yield _described(f"  {_scalar(intent.name)}: ", intent)
            continue
        yield f"  {_scalar(intent.name)}:"
        yield _described("    description: ", intent)
        yield from _examples(intent.examples, "    ")


def _described(key: str, intent: Intent) -> str:
    shown = f"{key}{_scalar(intent.description)}"
    return shown if intent.description else _line(shown, "say what it is for")


def _examples(examples: Iterable[str], indent: str) -> Iterator[str]:
    yield f"{indent}examples:"
    for text in examples:
        yield f"{indent}  - {_scalar(text)}"


def _out_of_scope(draft: Draft) -> Iterator[str]:
    if draft.task is not Task.SINGLE:
        return
    if draft.out_of_scope and draft.out_of_scope_examples:
        yield _line("out_of_scope:", "a query may fit none of them")
        yield from _examples(draft.out_of_scope_examples, "  ")
        return
    meaning = "a query may fit none of them" if draft.out_of_scope else "every query gets an intent"
    yield _line(f"out_of_scope: {'true' if draft.out_of_scope else 'false'}", meaning)


def _teacher(folder: Path, draft: Draft) -> Iterator[str]:
    yield "teacher:"
    if draft.labels is not None:
        yield _line(
            f"  labels: {_labelled_name(draft.labels, folder)}", "people's labels: no model is asked, nothing is paid"
        )
        return
    yield _line(f"  model: {_scalar(draft.teacher_model or '')}", "as its endpoint spells it")
    if draft.base_url is None:
        yield _line("  # base_url: http://127.0.0.1:8080/v1", "any OpenAI-compatible server; without it OpenAI's own")
    else:
        yield f"  base_url: {_scalar(draft.base_url)}"
    yield _line("  api_key_env: OPENAI_API_KEY", "the variable that holds the key; no file ever does")
    yield _line(
        "  # reasoning_effort: minimal", "for a model that reasons and takes it (gpt-5-mini does): less output to pay"
    )
    if draft.evidence is not None:
        yield _line(
            f"  evidence: {_labelled_name(draft.evidence, folder)}",
            "people's labels: the nearest are shown to the model",
        )
    if draft.prompt is not None:
        yield _line(f"  prompt: {_scalar(_relative(draft.prompt, folder))}", "{query} in it becomes the query")
        yield _line("  # answer_path: result.intent", "the field of a JSON answer that holds the intent")
        none = "null" if draft.task is Task.MULTI else "oos"
        yield _line(f"  # answer_map: {{none: {none}}}", "the prompt's names of intents, to those above")
    if draft.task is not Task.SINGLE:
        yield _line("  # samples: 5", "ask each query several times and learn the mean ...")
        yield _line("  # temperature: 0.7", "... of answers that differ")
    if _has_price(draft):
        yield _line("  max_usd: 5.0", "most that may be spent on this file, over all runs")
    else:
        yield _line("  # max_usd: 5.0", "a limit takes a price:")
        yield "  # price: {input_per_mtok: 0.25, output_per_mtok: 2.0, source: price list, date: 2026-01-31}"


def _labelled_name(labelled: Source, folder: Path) -> str:
    return _scalar(_relative(labelled.path, folder) if labelled.is_ready else _LABELLED)


def _has_price(draft: Draft) -> bool:
    """Whether a spend limit can be kept: the list price of the model is known, and it is not on this machine."""
    from distill.teacher.prices import endpoint_price

    try:
        return endpoint_price(draft.teacher_model or "", draft.base_url) is not None
    except MissingExtraError:
        return True


def _queries(folder: Path, draft: Draft) -> Iterator[str]:
    if draft.queries is not None:
        name = _relative(draft.queries.path, folder) if draft.queries.is_ready else _queries_name(draft.queries)
        yield _line(f"queries: {_scalar(name)}", "what users asked; without it the model writes queries")
        return
    if draft.labels is not None:
        yield "# The labelled queries are what is learnt. `queries: FILE` would take others, of which some may have no label."
        return
    yield '# Real queries are better where you have them: `queries: logs.jsonl`, a line {"text": "..."} each.'
    writes_none = draft.out_of_scope or draft.task is Task.MULTI
    out_of_scope = f", out_of_scope: {draft.n_out_of_scope}" if writes_none else ""
    yield _line(f"synth: {{per_intent: {draft.per_intent}{out_of_scope}}}", "queries that the model writes")
    if draft.task is Task.WEIGHTS:
        yield "# With attributes, queries are written for each value of the first one in place of each channel:"
        yield "# synth: {per_intent: 150, attributes: {about: [a scene, a line of dialogue], subject: [cooking, sport]}}"


def _gold(folder: Path, draft: Draft) -> Iterator[str]:
    if draft.gold is not None:
        yield _line(
            f"gold: {_scalar(_relative(draft.gold, folder))}", "people's labels to measure against; never trained on"
        )
        drop = "" if draft.labels is not None else "accuracy_drop: 0.01, "  # people are no row to compare with
        yield _line(f"gates: {{{drop}p95_ms: 5.0}}", "what a student must keep")
        return
    key = {Task.SINGLE: '"intent": "..."', Task.MULTI: '"intents": [...]', Task.WEIGHTS: '"weights": {...}'}[draft.task]
    yield "# People's labels of a few hundred real queries say how good it is; they are never trained on."
    yield _line("# gold: gold.jsonl", f'a line {{"text": "...", {key}}} each')
    yield "# gates: {accuracy_drop: 0.01, p95_ms: 5.0}"


_FAR = "../../../"


def _relative(path: Path, folder: Path) -> str:
    """A path as router.yaml names it: relative, unless that would be all the way up and down again."""
    try:
        relative = os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")
    except ValueError:  # another drive
        relative = _FAR
    return str(path.resolve()) if relative.startswith(_FAR) else relative


_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_./ ,'?!()-]*[A-Za-z0-9_./?!)])?")
_NOT_TEXT_TO_YAML = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_NOT_PRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def _scalar(text: str) -> str:
    """A text as YAML: plain where that is safe, otherwise as JSON, which YAML reads too."""
    if _PLAIN.fullmatch(text) and text.casefold() not in _NOT_TEXT_TO_YAML:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", quoted)
