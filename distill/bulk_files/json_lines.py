"""JSON lines: an object a line."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any

from distill.bulk_files import limits
from distill.bulk_files.lines import MARK, open_lines, parts_of_bytes, shown, whole_lines
from distill.bulk_files.parts import Answers, Columns, Line, Part, Plan, listed
from distill.data import atomic_write, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["JsonLines"]

_LOOKED_THROUGH_LINES = 1000


class _Json(str):
    """A value that is JSON already: a part that waits to be written holds texts in place of objects, and their depth is known to do."""

    __slots__ = ()


class JsonLines:
    """A JSON object a line, with the query under a key."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many lines, or of 16 MiB, whichever is less. Into a table goes text, and as JSON what is none."""
        with open_lines(path) as stream:
            parts = parts_of_bytes(stream, ((1, 0) for _ in whole_lines(stream)), lines_per_part, first_line=1)
        return Plan(parts, ("string",) * len(columns.kept), _unseen(path, columns))

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The lines of one part."""
        with open_lines(path) as stream:
            stream.seek(part.start)
            for number, raw in zip(range(part.first_line, part.first_line + part.n_lines), whole_lines(stream)):  # noqa: B905
                plain = raw.removeprefix(MARK) if number == 1 else raw
                if not plain.strip():
                    continue
                try:
                    line = _object_of(plain)
                    yield Line(number, _text_in(line, columns.text), _kept_of(line, columns) if columns.kept else ())
                except ValueError as error:
                    yield Line(number, None, error=str(error), raw=shown(raw))

    def write(self, path: Path, rows: Sequence[dict[str, Any]], answers: Answers) -> None:
        """Writes one JSON object a line."""
        as_json = _spliced if answers.kept else _dumped
        with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(as_json(row) + "\n" for row in rows)

    def join(self, paths: Sequence[Path], target: Path, answers: Answers) -> None:  # noqa: ARG002
        """One file after another."""
        with storage_errors(target), target.open("wb") as stream:
            for path in paths:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, stream)


def _object_of(raw: bytes) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ValueError: There is none; says why.
    """
    if len(raw) == limits.LONGEST_LINE and not raw.endswith(b"\n"):
        raise ValueError(f"longer than {limits.LONGEST_LINE} bytes")
    try:
        value = json.loads(raw.decode().rstrip("\r\n"))  # or the error would speak of a second line
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")  # noqa: TRY004
    return value


def _text_in(line: dict[str, Any], column: str) -> str:
    """The query of a line.

    Raises:
        ValueError: There is none; says why.
    """
    if column not in line:
        raise ValueError(f'has no "{column}"; its keys: {listed(line)}; --column says where the queries stand')
    text = line[column]
    if not isinstance(text, str):
        raise ValueError(f'"{column}" must be a string, found {type(text).__name__ if text is not None else "none"}')  # noqa: TRY004
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half a surrogate pair") from error
    return text


def _kept_of(line: dict[str, Any], columns: Columns) -> tuple[str | None, ...]:
    """What is kept of a line, None for what it lacks.

    Raises:
        ValueError: A value is nested too deeply.
    """
    try:
        return tuple(_as_text(line.get(name)) for name in columns.kept)
    except RecursionError as error:
        raise ValueError(f"not a JSON object: {error}") from error


def _as_text(value: Any) -> str | None:
    """A value of JSON as text or as JSON; what JSON or UTF-8 cannot hold, though Python reads it, is null or replaced."""
    if isinstance(value, str | None):
        return value if value is None else value.encode(errors="replace").decode()
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        value = _finite(value)
        encoded = json.dumps(value, ensure_ascii=False)
    return None if value is None else _Json(encoded.encode(errors="replace").decode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _unseen(path: Path, columns: Columns) -> tuple[str, ...]:
    """Columns to keep that none of the first lines has: a name may be spelt wrongly."""
    unseen = dict.fromkeys(columns.kept)
    with open_lines(path) as stream:
        lines = islice(whole_lines(stream), _LOOKED_THROUGH_LINES)
        while unseen and stream.tell() < limits.BYTES_PER_PART and (raw := next(lines, None)) is not None:
            with suppress(ValueError):
                line = _object_of(raw.removeprefix(MARK))
                unseen = {name: None for name in unseen if name not in line}
    return tuple(unseen)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _spliced(row: dict[str, Any]) -> str:
    """A row as JSON, with the values that are JSON already."""
    values = (value if isinstance(value, _Json) else _dumped(_finite(value)) for value in row.values())
    return "{" + ", ".join(f"{_dumped(name)}: {value}" for name, value in zip(row, values, strict=True)) + "}"
