"""What a user has: a file or a folder, recognised by what it holds."""

from __future__ import annotations

import io
import json
import re
import shlex
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.data import read_gold, with_whole_characters
from distill.errors import DataError, missing_extra
from distill.init.tables import USUAL_NAMES, Table, read_table, text_column
from distill.types import OUT_OF_SCOPE_LABEL, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

__all__ = ["Source", "read_source"]

_TABLES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson"})
_NO_INTENTS = frozenset({"readme", "license", "licence", "notes"})


@dataclass(frozen=True, slots=True)
class Source:
    """What was found in one file or folder.

    Attributes:
        path: Where.
        intents: Names, with description and examples where they are known.
        out_of_scope: Examples of queries that fit none; None where the source does not say that there are any.
        queries: Distinct queries without a label.
        labelled: Lines with a text and its human label.
        task: What the labels mean.
        is_ready: Whether the file itself can be named in router.yaml, as it is.
        prompt: Whether it is a routing prompt.
        gold: Human labels that are not for training, where they lie beside the others.
        also: Another file that was read.
        n_left_out: Lines that were not taken: repeated ones, or such without a text.
        note: One line for people: what was found, and what was left out.
    """

    path: Path
    intents: tuple[Intent, ...] = ()
    out_of_scope: tuple[str, ...] | None = None
    queries: tuple[str, ...] = ()
    labelled: tuple[dict[str, Any], ...] = ()
    task: Task = Task.SINGLE
    is_ready: bool = False
    prompt: bool = False
    gold: Path | None = None
    also: Path | None = None
    n_left_out: int = 0
    note: str = field(default="", compare=False)


def read_source(
    path: Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    choose: Callable[[str, Sequence[str]], str] | None = None,
) -> Source:
    """Reads what lies at a path, whatever it is.

    A folder: one text file an intent, or a data set (train.jsonl, with intents.json and test.jsonl where they are there).
    A .csv, .tsv or .jsonl: queries, with their labels where a column ``intent`` holds them. A .json: tools as OpenAI takes
    them, the messages of a prompt, or intents with descriptions. A .txt: a prompt that holds {query}, intents as
    ``name: description``, or queries; one a line. One that reads like a prompt but holds no {query} is asked about, or an error.

    Args:
        path: The file or folder.
        text_column: Where the queries of a table stand; None: it is found, asked for, or an error.
        label_column: Where its labels stand; None: in ``intent``, ``intents`` or ``weights`` where there is one.
        choose: Asks a user to pick one of several; None: nobody can be asked.

    Raises:
        DataError: It cannot be read, or it is none of these.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return _read_rows(read_table(path), text_column, label_column, choose)
    if suffix in {".yaml", ".yml"}:
        return _read_mapping(path, _yaml(path))
    text = _text(path)
    if suffix == ".json":
        value = _json(path, text)
        if isinstance(value, list) and value and all(_is_row(part) for part in value):
            return _read_rows(read_table(path, value), text_column, label_column, choose)
        return _read_json(path, value, text)
    return _read_text(path, text, choose)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def _lines(path: Path) -> tuple[str, ...]:
    """The lines that are not blank."""
    return tuple(line.strip() for line in io.StringIO(_text(path), newline=None) if line.strip())


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for text in texts:
        if text.strip():
            found.setdefault(unicodedata.normalize("NFC", text), text)
    return tuple(found.values())


def _left_out(n: int, what: str) -> str:
    """The end of a note; nothing where nothing was left out."""
    return f", {n:,} {what} left out" if n else ""


def _json(path: Path, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}: `{twice}` stands twice; keep one")
        return value

    try:
        value = json.loads(text, object_pairs_hook=unique)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataError(f"{path}: holds half a surrogate pair ({half}); mend or remove it") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    return value


def _yaml(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise missing_extra("yaml") from error
    try:
        return with_whole_characters(yaml.safe_load(_text(path)))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: holds half a surrogate pair; mend or remove it") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


# --- folders ---------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Source:
    if (folder / "train.jsonl").is_file():
        return _read_data_set(folder)
    files = sorted(
        path
        for path in folder.glob("*.txt")
        if not path.name.startswith(".") and path.stem.casefold() not in _NO_INTENTS
    )
    if not files:
        raise DataError(f"{folder}: holds neither train.jsonl nor a text file for each intent, such as refund.txt")
    lines: dict[str, tuple[str, ...]] = {}
    for path in files:
        name = unicodedata.normalize("NFC", path.stem)  # macOS gives a letter and its mark apart
        lines[name] = lines.get(name, ()) + _lines(path)
    own = {name: _distinct(texts) for name, texts in lines.items()}
    n_left_out = sum(map(len, lines.values())) - sum(map(len, own.values()))
    in_order = sorted(own, key=lambda name: name == OUT_OF_SCOPE_LABEL)
    labelled = tuple({"text": text, "intent": name} for name in in_order for text in own[name])
    examples, n_unclear = _of_one_intent(own)
    out_of_scope = examples.pop(OUT_OF_SCOPE_LABEL, None)
    return Source(
        folder,
        intents=tuple(Intent(name, "", texts) for name, texts in examples.items()),
        out_of_scope=out_of_scope,
        labelled=labelled,
        n_left_out=n_left_out,
        note=f"{len(labelled)} examples of {_intents(len(examples))}, a file each{_left_out(n_left_out, 'repeated')}{_unclear(n_unclear)}",
    )


def _intents(n: int) -> str:
    return "1 intent" if n == 1 else f"{n:,} intents"


def _read_data_set(folder: Path) -> Source:
    source = _labelled(read_table(folder / "train.jsonl"), "text", None, is_sure=True)
    if source is None:
        raise DataError(
            f'{folder / "train.jsonl"}:1: no label; expected "intent", "intents" or "weights" beside "text"'
        )
    described = folder / "intents.json"
    intents = {intent.name: intent for intent in source.intents}
    if described.is_file():
        known = {
            intent.name: intent.description
            for intent in _read_json(described, _json(described, _text(described))).intents
        }
        names = dict.fromkeys([*known, *intents])
        names.pop(OUT_OF_SCOPE_LABEL, None)
        intents = {
            name: Intent(name, known.get(name, ""), intents[name].examples if name in intents else ()) for name in names
        }
    gold = folder / "test.jsonl"
    return Source(
        folder / "train.jsonl",
        intents=tuple(intents.values()),
        out_of_scope=source.out_of_scope,
        labelled=source.labelled,
        task=source.task,
        is_ready=source.is_ready,
        gold=gold if gold.is_file() and read_gold(gold) else None,
        also=described if described.is_file() else None,
        n_left_out=source.n_left_out,
        note=f"{source.note}{_not_read(folder)}",
    )


_DATA_SET = frozenset({"train.jsonl", "test.jsonl"})


def _not_read(folder: Path) -> str:
    """The end of a note: tables that lie beside a data set."""
    others = sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in _TABLES and path.name not in _DATA_SET
    )
    return f"; not read: {', '.join(others)} (--from FILE takes one of them too)" if others else ""


# --- tables ----------------------------------------------------------------------------------------------------------


def _is_row(value: Any) -> bool:
    """Whether an entry of a JSON list is a row of a table: neither a tool nor a message, though its columns may be called as theirs are."""
    if not isinstance(value, dict):
        return False
    has_text = any(isinstance(value.get(name), str) for name in USUAL_NAMES if name != "content")
    return not (_OF_TOOLS if has_text else _OF_TOOLS | {"name", "type", "role"}) & value.keys()


_OF_TOOLS = {"function", "parameters", "input_schema", "inputSchema", "description"}
"""Keys that tools have and rows seldom."""


def _read_rows(
    table: Table,
    wanted: str | None,
    label_column: str | None,
    choose: Callable[[str, Sequence[str]], str] | None,
) -> Source:
    if label_column is not None and label_column not in table.columns:
        raise DataError(f"{table.path}: has no column {label_column!r}; its columns: {', '.join(table.columns)}")
    column = text_column(table, wanted, choose)
    source = _labelled(table, column, label_column)
    if source is not None:
        return source
    texts = [_cell(table, number, row, column) for number, row in table.rows]
    queries = _distinct(texts)
    if not queries:
        raise DataError(f"{table.path}: the column {column!r} holds no text")
    n_left_out = len(texts) - len(queries)
    return Source(
        table.path,
        queries=queries,
        is_ready=column == "text" and not n_left_out and table.path.suffix.lower() in {".jsonl", ".ndjson"},
        n_left_out=n_left_out,
        note=f"{len(queries):,} queries in the column {column!r}{_left_out(n_left_out, 'repeated or blank')}{_labels_aside(table)}",
    )


def _labels_aside(table: Table) -> str:
    """The end of a note: labels that are not used, because some rows have none."""
    found = _column_of_labels(table)
    if found is None:
        return ""
    column, task = found
    without = [number for number, row in table.rows if _is_blank(row.get(column))]
    if len(without) == len(table.rows):
        return ""
    if not _holds_labels(table, column, task):
        _, form = _FORMS[task]
        return f"; the column {column!r} left aside: no row has {form} there"
    return (
        f"; labels in the column {column!r} left aside: {len(without):,} of {len(table.rows):,} rows have none, the first in "
        f"line {without[0]}"
    )


def _holds_labels(table: Table, column: str, task: Task) -> bool:
    """Whether a column of that name has labels' form anywhere: `weights` may be a parcel's."""
    form, _ = _FORMS.get(task, (object, ""))
    return any(isinstance(row.get(column), form) for _, row in table.rows)


def _column_of_labels(table: Table) -> tuple[str, Task] | None:
    """The column that is called as labels are, and what they mean then; None where there is none."""
    columns = {name.casefold(): name for name in reversed(table.columns)}
    return next(((columns[key], task) for key, task in _LABEL_COLUMNS.items() if key in columns), None)


def _task_of(table: Table, column: str) -> Task:
    """What the labels in a column mean, by the first of them."""
    first = next((row[column] for _, row in table.rows if not _is_blank(row.get(column))), None)
    return next((task for task, (form, _) in _FORMS.items() if isinstance(first, form)), Task.SINGLE)


def _is_blank(label: Any) -> bool:
    return label is None or label == ""


def _cell(table: Table, number: int, row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{table.path}:{number}: {column!r} must be text, found {value!r}")
    return _encodable(value or "", f"{table.path}:{number}: the text")


_FORMS = {Task.MULTI: (list, "a list of intents"), Task.WEIGHTS: (dict, "weights by intent")}
"""What labels are that are more than a name, and how that is said."""
_LABEL_COLUMNS = {"intent": Task.SINGLE, "intents": Task.MULTI, "weights": Task.WEIGHTS}


def _labelled(table: Table, column: str, label_column: str | None, *, is_sure: bool = False) -> Source | None:
    """The table as human labels; None where not every row has one, or, unless that is sure, none has the form of one."""
    found = _column_of_labels(table) if label_column is None else (label_column, _task_of(table, label_column))
    if found is None:
        return None
    column_of_labels, task = found
    key = next(name for name, meaning in _LABEL_COLUMNS.items() if meaning is task)
    if label_column is None and not is_sure and not _holds_labels(table, column_of_labels, task):
        return None
    lines: list[dict[str, Any]] = []
    found_under: dict[str, list[str]] = {}
    spelled: dict[str, tuple[str, int]] = {}
    is_stripped = False
    for number, row in table.rows:
        text, given = _cell(table, number, row, column), row.get(column_of_labels)
        label = _without_space_around(given)
        if _is_blank(label):
            if label_column is None:
                return None
            raise DataError(f"{table.path}:{number}: has no label in the column {label_column!r}")
        if text.strip():
            names = _names(table, number, label, task)
            if isinstance(given, dict) and len(label) != len(given):
                raise DataError(f"{table.path}:{number}: the label {given!r} names an intent twice")
            is_stripped |= label != given
            lines.append({"text": text, key: label})
            shows = _shown_by_an_example(label, names, task)
            for name in names:
                _check_spelling(table, number, name, spelled)
                found_under.setdefault(name, []).extend([text] if name in shows else [])
    own = {name: _distinct(texts) for name, texts in found_under.items()}
    examples, n_unclear = _of_one_intent(own) if task.has_one_label else (own, 0)
    out_of_scope = examples.pop(OUT_OF_SCOPE_LABEL, None)
    n_left_out = len(table.rows) - len(lines)
    return Source(
        table.path,
        intents=tuple(Intent(name, "", texts) for name, texts in examples.items()),
        out_of_scope=out_of_scope,
        labelled=tuple(lines),
        task=task,
        is_ready=(column, column_of_labels, n_left_out, is_stripped) == ("text", key, 0, False)
        and table.path.suffix.lower() in {".jsonl", ".ndjson"},
        n_left_out=n_left_out,
        note=f"{len(lines):,} labelled queries of {_intents(len(examples))}{_left_out(n_left_out, 'blank')}{_unclear(n_unclear)}",
    )


_EQUAL = 0.05


def _shown_by_an_example(label: Any, names: Sequence[str], task: Task) -> set[str]:
    """Of which intents the text is an example. One says no more of weights than which channels share them equally."""
    if not task.is_mixture:
        return set(names)
    own = {name: weight for name, weight in label.items() if isinstance(weight, int | float) and weight > 0}
    is_equal = bool(own) and max(own.values()) - min(own.values()) <= _EQUAL * sum(own.values())
    return set(own) if is_equal else set()


def _without_space_around(label: Any) -> Any:
    """Names as tables often have them: a space after each comma."""
    if isinstance(label, dict):
        return {name.strip(): weight for name, weight in label.items()}
    if isinstance(label, list):
        return [_without_space_around(name) for name in label]
    return label.strip() if isinstance(label, str) else label


def _check_spelling(table: Table, number: int, name: str, spelled: dict[str, tuple[str, int]]) -> None:
    before, line = spelled.setdefault(name.casefold(), (name, number))
    if before != name:
        raise DataError(
            f"{table.path}:{number}: the label {name!r} differs from {before!r} (line {line}) by case only; spell them alike"
        )


def _of_one_intent(own: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], int]:
    """Examples by intent without the texts that stand under several, which are examples of none, and how many these are."""
    n_intents = Counter(unicodedata.normalize("NFC", text) for texts in own.values() for text in texts)
    unclear = {text for text, n in n_intents.items() if n > 1}
    kept = {
        name: tuple(text for text in texts if unicodedata.normalize("NFC", text) not in unclear)
        for name, texts in own.items()
    }
    return kept, len(unclear)


def _unclear(n: int) -> str:
    if not n:
        return ""
    return (
        f"; {'1 text stands' if n == 1 else f'{n:,} texts stand'} under several intents, and can be an example of none"
    )


def _names(table: Table, number: int, label: Any, task: Task) -> list[str]:
    names: list[Any] = [label] if task.has_one_label else list(label) if isinstance(label, list | dict) else [None]
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{table.path}:{number}: not a label: {label!r}")
    return [_encodable(name, f"{table.path}:{number}: the label") for name in names]


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} holds half a surrogate pair; mend or remove it") from error
    return text


# --- JSON and text ---------------------------------------------------------------------------------------------------


def _read_json(path: Path, value: Any, text: str = "") -> Source:
    if isinstance(value, dict):
        for key in ("tools", "functions"):
            if isinstance(value.get(key), list):
                return _read_tools(path, value[key])
        return _read_mapping(path, value)
    if isinstance(value, list) and value:
        if all(isinstance(part, str) for part in value):
            return _named(path, [(name, "") for name in value])
        if all(isinstance(part, dict) and "role" in part for part in value):
            return _read_prompt(path, text, "\n".join(str(part.get("content")) for part in value))
        if all(isinstance(part, dict) for part in value):
            return _read_tools(path, value)
    raise DataError(
        f"{path}: expected tools as OpenAI takes them, the messages of a prompt, or intents (name to description)"
    )


def _read_tools(path: Path, tools: list[Any]) -> Source:
    """Each tool an intent. Knows OpenAI's two shapes, its older functions, and those of other makers that have a name too."""
    pairs: list[tuple[str, str]] = []
    built_in: list[str] = []
    for position, tool in enumerate(tools):
        body = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(body, dict) and "name" not in body and isinstance(body.get("type"), str):
            built_in.append(body["type"])  # such as web_search: it has no name of its own
            continue
        name = body.get("name") if isinstance(body, dict) else None
        description = body.get("description") if isinstance(body, dict) else None
        if not isinstance(name, str) or not isinstance(description, str | None):
            raise DataError(f"{path}: tool {position} (from 0) has no name, or its description is no text")
        pairs.append((name, description or ""))
    skipped = f"; left out, as they have no name: {', '.join(built_in)}" if built_in else ""
    return _named(path, pairs, what="tools", more=skipped)


def _named(path: Path, pairs: Sequence[tuple[str, str]], *, what: str = "intents", more: str = "") -> Source:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise DataError(f"{path}: `{name}` stands twice; keep one")
        seen.add(name)
    if not pairs:
        raise DataError(f"{path}: holds no {what}")
    bare = sum(not description.strip() for _, description in pairs)
    note = f", {bare:,} without a description" if bare else ""
    return Source(
        path,
        intents=tuple(Intent(name, " ".join(description.split())) for name, description in pairs),
        note=f"{len(pairs):,} {what}{note}{more}",
    )


def _read_mapping(path: Path, value: Any) -> Source:
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path}: expected intents: name to description")
    if {"name", "intents", "teacher"} <= value.keys():
        raise DataError(f"{path}: is a router.yaml already; `distill run {shlex.quote(str(path))}` runs it")
    for name in value:
        if not isinstance(name, str):
            raise DataError(f"{path}: the name of an intent must be text, found {name!r}; put it in quotes")
    intents = tuple(_described(path, name, body) for name, body in value.items())
    bare = sum(not intent.description for intent in intents)
    note = f", {bare:,} without a description" if bare else ""
    return Source(path, intents=intents, note=f"{_intents(len(intents))}{note}")


def _described(path: Path, name: str, body: Any) -> Intent:
    """An intent of a mapping, given as router.yaml takes it."""
    keys: dict[str, Any] = {"description": body} if body is None or isinstance(body, str) else body
    if isinstance(keys, dict) and keys.keys() <= {"description", "examples"}:
        description, examples = keys.get("description") or "", keys.get("examples") or []
        if isinstance(examples, list) and all(isinstance(text, str) for text in [description, *examples]):
            return Intent(name, " ".join(description.split()), _distinct(examples))
    raise DataError(f"{path}: {name!r} must have a description, or {{description, examples}}")


_PLACEHOLDER = re.compile(r"\{\{?\s*[A-Za-z_]\w*\s*\}?\}|<(?:query|input|message|text)>", re.IGNORECASE)
_LISTED = re.compile(
    r"^\s*(?P<bullet>[-*\u2022]|\d+[.)])?\s*[`\"'*]*(?P<name>[A-Za-z][\w./-]*)[`\"'*]*\s*(?::|\s[-\u2013\u2014])\s+(?P<about>\S.*)$"
)
_ANSWER = re.compile(r'^[\s{]*"[^"]*"\s*:\s*("[^"\s]*"|[^"\s]*)[\s,}]*$')
"""A member of a JSON object that has one word as its value: part of how the answer is to look, no intent with its description."""
_DESCRIBED = re.compile(r"^(?:[-*\u2022]\s+|\d+[.)]\s+)?([^\s:]+)\s*:\s*(.*)$")
_INSTRUCTION = re.compile(
    r":\s*$|^\s*[-*\u2022]\s+[`\"'*]*[\w./-]+[`\"'*]*\s*:|^\W*classify\b|\byou(?:r task| are an?| will be given| must)\b"
    r"|\b(?:answer|respond|reply) (?:only|just|with)\b|\breturn (?:only|json)\b",
    re.IGNORECASE,
)
"""What a query seldom looks like, whatever its language: a line that ends with a colon, a list of names, words to a model."""

_SHARE_OF_A_PROMPT = 0.05
"""Of its lines, at least: a query now and then reads so too."""

_IS_A_PROMPT, _ARE_QUERIES = "a prompt", "queries, one a line"


def _read_text(path: Path, text: str, choose: Callable[[str, Sequence[str]], str] | None) -> Source:
    if "{query}" in text:
        return _read_prompt(path, text, text)
    if found := _PLACEHOLDER.search(text):
        raise DataError(
            f"{path}: looks like a prompt, but holds no {{query}}; write {{query}} in place of {found.group()}"
        )
    lines = _lines(path)
    if not lines:
        raise DataError(f"{path}: is empty")
    described = [match.groups() for line in _distinct(lines) if (match := _DESCRIBED.match(line))]
    if len(described) == len(_distinct(lines)):
        return _named(path, [(name, about) for name, about in described])
    sign = _sign_of_a_prompt(text)
    if sign is not None:
        number, line = sign
        is_prompt = choose is None or choose(f"What does {path} hold?", (_IS_A_PROMPT, _ARE_QUERIES)) == _IS_A_PROMPT
        if is_prompt:
            raise DataError(
                f"{path}:{number}: {line!r} looks like a prompt, but the file holds no {{query}}: write {{query}} where the "
                "query is to stand; if these are queries, give them as a .csv or .jsonl"
            )
    queries = _distinct(lines)
    n_left_out = len(lines) - len(queries)
    note = f"{len(queries):,} queries, one a line{_left_out(n_left_out, 'repeated')}"
    return Source(path, queries=queries, n_left_out=n_left_out, note=note)


def _sign_of_a_prompt(text: str) -> tuple[int, str] | None:
    """Number and content of the first line that reads like a prompt, where there are enough of them; None: queries."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    signs = [(number, line) for number, line in lines if _INSTRUCTION.search(line)]
    return signs[0] if len(signs) >= max(1, _SHARE_OF_A_PROMPT * len(lines)) else None


def _read_prompt(path: Path, raw: str, shown: str) -> Source:
    """A routing prompt, and the intents that it lists as ``- name: description``."""
    if "{query}" not in raw:
        raise DataError(f"{path}: looks like a prompt, but holds no {{query}}, where the query is to stand")
    matches = [
        match
        for line in shown.splitlines()
        if "{query}" not in line  # "Message: {query}" names no intent
        and not _ANSWER.match(line)
        and (match := _LISTED.match(line))
        and match["name"].casefold() not in _NO_NAMES
    ]
    marked = [match for match in matches if match["bullet"]]
    listed: dict[str, str] = {}
    for match in marked if len(marked) > 1 else matches:
        listed.setdefault(match["name"], match["about"].strip())
    names = {name: about for name, about in listed.items() if name != OUT_OF_SCOPE_LABEL}
    found = f"; it lists {_intents(len(names))}: {', '.join(names)}" if len(names) > 1 else ""
    return Source(
        path,
        intents=tuple(Intent(name, about) for name, about in names.items()) if len(names) > 1 else (),
        out_of_scope=() if OUT_OF_SCOPE_LABEL in listed else None,
        prompt=True,
        note=f"a prompt{found}",
    )


_NO_NAMES = frozenset(
    {"query", "answer", "user", "system", "assistant", "example", "examples", "input", "output", "note", "intents"}
    | {"important", "warning", "remember", "rules"}
)
