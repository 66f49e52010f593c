"""The files of a bulk run: queries are read, and answers written, in parts, as JSON lines or as Parquet; CSV is read only.

Parquet needs pyarrow, which the extra ``[parquet]`` brings; the others need nothing.
"""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from distill.data import atomic_write, csv_delimiter, csv_fields_up_to, storage_errors
from distill.errors import DataError, missing_extra
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from distill.types import Prediction

__all__ = [
    "FORMATS",
    "SOURCES",
    "Answers",
    "Columns",
    "Csv",
    "Format",
    "JsonLines",
    "Line",
    "Parquet",
    "Part",
    "Plan",
    "Source",
    "answer_columns",
    "answer_row",
    "format_of",
    "source_of",
]

_LONGEST_LINE = 1 << 24
_LONGEST_OF_SEVERAL_LINES = 1 << 12
"""Of a row, once quotes that are never closed have had the file read several times over."""
_MOST_TIMES_READ = 4
_BYTES_PER_PART = 1 << 24
_ROWS_AT_A_TIME, _BYTES_AT_A_TIME = 4096, 1 << 20
_SHOWN_CHARACTERS = 10_000
_LISTED_CHARACTERS = 300
_TEXT = "text"
_LOOKED_THROUGH_LINES = 1000
_TEXT_TYPES = {"string", "large_string"}
_NUMBER_TYPES = {"float", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
"""Names of Arrow's types whose values JSON has too."""
_MARK = b"\xef\xbb\xbf"
"""Of UTF-8, at the start of a file."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the input that is routed as one piece.

    Attributes:
        number: From 0.
        start: Where it begins: a byte of JSON lines or CSV, a row of Parquet.
        first_line: Number of its first line, from 1.
        n_lines: How many lines or rows it has.
        wasted_bytes: Of CSV: what was read before it for rows that turned out to be none, by which is told how long its rows may be.
    """

    number: int
    start: int
    first_line: int
    n_lines: int
    wasted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read of the input.

    Attributes:
        text: Where the queries stand.
        kept: What goes with them into the output.
    """

    text: str
    kept: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the queries first."""
        return self.text, *self.kept


@dataclass(frozen=True, slots=True)
class Plan:
    """What an input holds.

    Attributes:
        parts: In order.
        types: The Arrow type of each column that is kept.
        unseen: Columns to keep that none of the first lines has.
    """

    parts: list[Part]
    types: tuple[str, ...]
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What the rows of an output hold.

    Attributes:
        task: Of the student, whose answers they are.
        kept: Name and Arrow type of each column that is kept of the input.
    """

    task: Task
    kept: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line or row of the input.

    Attributes:
        number: From 1.
        text: The query; None where there is none to be had.
        kept: A value for each column that is kept.
        error: Why there is no query.
        raw: What stands there instead.
    """

    number: int
    text: str | None
    kept: tuple[Any, ...] = ()
    error: str = ""
    raw: str = ""


class Source(Protocol):
    """How one kind of file is read."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """What is to be read, in which parts."""
        ...

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The lines of one part; blank ones are passed over."""
        ...


class Format(Source, Protocol):
    """How one kind of file is read and written."""

    def write(self, path: Path, rows: Sequence[dict[str, Any]], answers: Answers) -> None:
        """Writes answers, atomically."""
        ...

    def join(self, paths: Sequence[Path], target: Path, answers: Answers) -> None:
        """Writes one file of many, in order and piece by piece."""
        ...


def source_of(path: Path) -> Source:
    """How an input is read, by its name.

    Raises:
        DataError: The name says nothing that can be read.
        MissingExtraError: pyarrow is needed and not installed.
    """
    return _known(path, SOURCES)


def format_of(path: Path) -> Format:
    """How an output is written, by its name.

    Raises:
        DataError: The name says nothing that can be written.
        MissingExtraError: pyarrow is needed and not installed.
    """
    return _known(path, FORMATS)


_Kind = TypeVar("_Kind", bound=Source)
_Item = TypeVar("_Item")


def _known(path: Path, kinds: dict[str, _Kind]) -> _Kind:
    found = kinds.get(path.suffix.lower())
    if found is None:
        *others, last = kinds
        raise DataError(f"{path}: expected a file that ends in {', '.join(others)} or {last}")
    if isinstance(found, Parquet):
        _pyarrow()
    return found


def answer_columns(task: Task) -> tuple[str, ...]:
    """The columns of an output, but for those that are kept of the input."""
    own = {Task.MULTI: ("intents",), Task.WEIGHTS: ("weights",)}
    return ("line", _TEXT, "intent", "score", "reason", "top_intent", *own.get(task, ()))


def answer_row(line: Line, prediction: Prediction, answers: Answers) -> dict[str, Any]:
    """One row of the output: the input's line, what is kept of it, the query, and the answer without the scores of all labels."""
    row = {
        "line": line.number,
        **{name: value for (name, _), value in zip(answers.kept, line.kept, strict=True)},
        _TEXT: line.text,
        "intent": prediction.intent,
        "score": round(prediction.score, 6),
        "reason": prediction.reason.value,
        "top_intent": prediction.top_intent,
    }
    if answers.task is Task.MULTI:
        row["intents"] = list(prediction.intents)
    if answers.task is Task.WEIGHTS:
        weights = prediction.weights
        row["weights"] = None if weights is None else {name: round(weight, 6) for name, weight in weights.items()}
    return row


class _Json(str):
    """A value that is JSON already: a part that waits to be written holds texts in place of objects, and their depth is known to do."""

    __slots__ = ()


class JsonLines:
    """A JSON object a line, with the query under a key."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many lines, or of 16 MiB, whichever is less. Into a table goes text, and as JSON what is none."""
        with _open(path) as stream:
            parts = _parts(stream, ((1, 0) for _ in _whole_lines(stream)), lines_per_part, first_line=1)
        return Plan(parts, ("string",) * len(columns.kept), _unseen(path, columns))

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The lines of one part."""
        with _open(path) as stream:
            stream.seek(part.start)
            for number, raw in zip(range(part.first_line, part.first_line + part.n_lines), _whole_lines(stream)):  # noqa: B905
                plain = raw.removeprefix(_MARK) if number == 1 else raw
                if not plain.strip():
                    continue
                try:
                    line = _object_of(plain)
                    yield Line(number, _text_in(line, columns.text), _kept_of(line, columns) if columns.kept else ())
                except ValueError as error:
                    yield Line(number, None, error=str(error), raw=_shown(raw))

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


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """A file of lines.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parts(stream: BinaryIO, pieces: Iterable[tuple[int, int]], lines_per_part: int, first_line: int) -> list[Part]:
    """Parts of so many lines, or 16 MiB, whichever is less; what is read in one piece is not parted.

    Args:
        stream: Where the first part begins.
        pieces: Reads one piece after another, and says how many lines each has, and the ``wasted_bytes`` behind it.
        lines_per_part: Lines from which on a part is whole.
        first_line: Number of the first line.
    """
    parts: list[Part] = []
    start, n_lines, wasted_before = stream.tell(), 0, 0
    for more, wasted in pieces:
        n_lines += more
        if n_lines >= lines_per_part or stream.tell() - start >= _BYTES_PER_PART:
            parts.append(Part(len(parts), start, first_line, n_lines, wasted_before))
            start, first_line, n_lines, wasted_before = stream.tell(), first_line + n_lines, 0, wasted
    return [*parts, Part(len(parts), start, first_line, n_lines, wasted_before)] if n_lines else parts


def _shown(raw: bytes) -> str:
    return raw.rstrip(b"\r\n").decode("utf-8", "replace")[:_SHOWN_CHARACTERS]


def _check_columns(path: Path, columns: Columns, found: Sequence[str]) -> None:
    """Finds what a table lacks.

    Raises:
        DataError: It lacks a column, or has it twice.
    """
    options = dict.fromkeys(columns.kept, "--keep names what goes into the output")
    for name, option in {**options, columns.text: "--column says where the queries stand"}.items():
        if name not in found:
            raise DataError(f"{path}: has no column `{name}`; it has {_listed(found)}; {option}")
        if found.count(name) > 1:
            raise DataError(
                f"{path}: has {found.count(name)} columns `{name}`; rename all but one, or name another: {option}"
            )


def _listed(names: Iterable[str]) -> str:
    """Names on one line, whatever they hold, and no more of them than one can read."""
    return ", ".join(repr(name)[1:-1] for name in names)[:_LISTED_CHARACTERS] or "none"


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Every line; of one that is too long to be kept in memory only the beginning, without a newline."""
    while raw := stream.readline(_LONGEST_LINE):
        rest = raw
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST_LINE)
        yield raw


def _object_of(raw: bytes) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ValueError: There is none; says why.
    """
    if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
        raise ValueError(f"longer than {_LONGEST_LINE} bytes")
    try:
        value = json.loads(raw.decode())
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
        raise ValueError(f'has no "{column}"; its keys: {_listed(line)}; --column says where the queries stand')
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
    with _open(path) as stream:
        lines = islice(_whole_lines(stream), _LOOKED_THROUGH_LINES)
        while unseen and stream.tell() < _BYTES_PER_PART and (raw := next(lines, None)) is not None:
            with suppress(ValueError):
                line = _object_of(raw.removeprefix(_MARK))
                unseen = {name: None for name in unseen if name not in line}
    return tuple(unseen)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _spliced(row: dict[str, Any]) -> str:
    """A row as JSON, with the values that are JSON already."""
    values = (value if isinstance(value, _Json) else _dumped(_finite(value)) for value in row.values())
    return "{" + ", ".join(f"{_dumped(name)}: {value}" for name, value in zip(row, values, strict=True)) + "}"


class Csv:
    """A table with a header; a row may have several lines, where a quoted value holds line breaks."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many lines or a row more, or of 16 MiB, whichever is less. All values are text."""
        with _open(path) as stream:
            header = _header(path, stream, columns)
            pieces = ((row.n_lines, row.wasted_bytes) for row in _rows(stream, header.delimiter))
            parts = _parts(stream, pieces, lines_per_part, first_line=1 + header.n_lines)
        return Plan(parts, ("string",) * len(columns.kept))

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The rows of one part, each with the line on which it begins."""
        with _open(path) as stream:
            header = _header(path, stream, columns)
            stream.seek(part.start)
            number = part.first_line
            for row in _rows(stream, header.delimiter, part.wasted_bytes):
                if row.raw.strip():
                    try:
                        text, *kept = _values_in(row, header)
                        yield Line(number, text, tuple(kept))
                    except ValueError as error:
                        yield Line(number, None, error=str(error), raw=_shown(row.raw))
                number += row.n_lines
                if number >= part.first_line + part.n_lines:
                    return


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a CSV: its bytes, its lines and its values; ``error`` says why it has no values. ``wasted_bytes``: up to here, as of ``Part``."""

    raw: bytes
    n_lines: int
    wasted_bytes: int = 0
    values: Sequence[str] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Header:
    """What the first row of a CSV says, and where the columns that are read stand, that of the queries first."""

    n_lines: int
    n_columns: int
    positions: tuple[int, ...]
    delimiter: str


def _header(path: Path, stream: BinaryIO, columns: Columns) -> _Header:
    """The header of the table that begins where the stream stands; the stream stands behind it then.

    Raises:
        DataError: There is none, or it lacks a column.
    """
    if stream.read(len(_MARK)) != _MARK:
        stream.seek(0)
    start = stream.tell()
    delimiter = csv_delimiter(next(_whole_lines(stream), b"").decode("utf-8", "replace"))
    stream.seek(start)
    row = next(_rows(stream, delimiter), _Row(b"", 0))
    if row.error:
        raise DataError(f"{path}:1: {row.error}")
    _check_columns(path, columns, row.values)
    return _Header(row.n_lines, len(row.values), tuple(map(row.values.index, columns.names)), delimiter)


def _rows(stream: BinaryIO, delimiter: str, wasted_bytes: int = 0) -> Iterator[_Row]:
    """Every row from where the stream stands, which is behind the row then.

    Of a row that is not CSV only the first line is one, the next begins on the second: a quote that is never closed costs one
    line, not all that follow. Reading to where it might have been closed costs time: where many are not, rows of several lines have to be
    short from then on.
    """
    while True:
        lines: list[bytes] = []
        start = stream.tell()
        is_too_dear = wasted_bytes > _LONGEST_LINE + _MOST_TIMES_READ * start
        most = _LONGEST_OF_SEVERAL_LINES if is_too_dear else _LONGEST_LINE
        try:
            with csv_fields_up_to(_LONGEST_LINE):
                values = next(csv.reader(_lines_of_row(stream, lines, most), delimiter=delimiter, strict=True), None)
            if values is None:
                return
            raw = b"".join(lines)
            raw.decode()
            yield _Row(raw, len(lines), wasted_bytes, values)
        except UnicodeDecodeError as error:
            yield _Row(raw, len(lines), wasted_bytes, error=f"not UTF-8 (byte {error.start})")
        except (csv.Error, ValueError) as error:
            wasted_bytes += stream.tell() - start
            stream.seek(start)
            yield _Row(next(_whole_lines(stream)), 1, wasted_bytes, error=f"not CSV: {error}")


def _lines_of_row(stream: BinaryIO, lines: list[bytes], most_bytes: int) -> Iterator[str]:
    """Line after line, as the reader of a row asks for them; each is added to ``lines``.

    Args:
        stream: Where the row begins.
        lines: What was read.
        most_bytes: Of a row of several lines; a single one may have 16 MiB.

    Raises:
        ValueError: The row grows too long to be kept in memory.
    """
    n_bytes = 0
    for raw in _whole_lines(stream):
        lines.append(raw)
        n_bytes += len(raw)
        if n_bytes >= (_LONGEST_LINE if len(lines) == 1 else most_bytes):
            raise ValueError(f"a row of {n_bytes} bytes or more; a quote may not be closed")
        yield raw.decode("utf-8", "surrogateescape")


def _values_in(row: _Row, header: _Header) -> Iterator[str]:
    """The query of a row, and what is kept of it.

    Raises:
        ValueError: There is none; says why.
    """
    if row.error:
        raise ValueError(row.error)
    if len(row.values) != header.n_columns:
        raise ValueError(f"expected as many values as the header has ({header.n_columns}), found {len(row.values)}")
    return (row.values[position] for position in header.positions)


class Parquet:
    """A table with the query in a column."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many rows, or of about 16 MiB, whichever is less. Types stay where JSON has such values; dates, times and decimals are text."""
        with _open_parquet(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
            n_bytes = sum(_bytes_of(file.metadata, name) for name in columns.names)
        _check_columns(path, columns, schema.names)
        found = _type_name(schema.field(columns.text).type)
        if found not in _TEXT_TYPES and found != "null":
            raise DataError(f"{path}: the column `{columns.text}` must hold text, found {found}")
        types = tuple(_type_of_kept(path, schema.field(name)) for name in columns.kept)
        n_bytes = max(n_bytes, self._bytes_by_samples(path, columns, n_rows))
        lines_per_part = max(min(lines_per_part, n_rows * _BYTES_PER_PART // max(n_bytes, 1)), 1)
        starts = range(0, n_rows, lines_per_part)
        parts = [Part(number, at, at + 1, min(lines_per_part, n_rows - at)) for number, at in enumerate(starts)]
        return Plan(parts, types)

    def _bytes_by_samples(self, path: Path, columns: Columns, n_rows: int) -> int:
        """What the columns' texts come to if all are like the first, middle and last ones: the file holds a text that occurs again once."""
        n_sampled = n_bytes = 0
        for start in sorted({max(at, 0) for at in (0, (n_rows - _ROWS_AT_A_TIME) // 2, n_rows - _ROWS_AT_A_TIME)}):
            for rows in self._rows(path, Part(0, start, start + 1, min(n_rows, _ROWS_AT_A_TIME)), columns):
                for values in rows:
                    n_sampled += 1
                    n_bytes += sum(
                        len(value.encode(errors="replace") if isinstance(value, str) else value)
                        for value in values
                        if isinstance(value, str | bytes)
                    )
        return n_bytes * n_rows // max(n_sampled, 1)

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The rows of one part."""
        number = part.first_line
        for rows in self._rows(path, part, columns):
            for values in rows:
                yield _line_of(number, values, columns)
                number += 1

    def _rows(self, path: Path, part: Part, columns: Columns) -> Iterator[Iterator[tuple[Any, ...]]]:
        """The columns of the part's rows, some rows at a time; only the row groups they lie in are read."""
        with _open_parquet(path) as file:
            groups: list[int] = []
            begin = skip = 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                if begin < part.start + part.n_lines and end > part.start:
                    skip = skip if groups else part.start - begin
                    groups.append(group)
                begin = end
            left = part.n_lines
            names = list(dict.fromkeys(columns.names))
            for batch in _readable(path, file.iter_batches(_ROWS_AT_A_TIME, row_groups=groups, columns=names)):
                rows = batch[skip : skip + left]
                skip, left = max(skip - batch.num_rows, 0), left - rows.num_rows
                yield zip(
                    *(_values(rows.column(rows.schema.get_field_index(name))) for name in columns.names), strict=True
                )
                if not left:
                    return

    def write(self, path: Path, rows: Sequence[dict[str, Any]], answers: Answers) -> None:
        """Writes one table."""
        arrow, parquet = _pyarrow()
        columns = [_for_table(row) for row in rows]
        with atomic_write(path) as partial:
            parquet.write_table(arrow.Table.from_pylist(columns, schema=_schema(answers)), partial)

    def join(self, paths: Sequence[Path], target: Path, answers: Answers) -> None:
        """One row group after another."""
        _, parquet = _pyarrow()
        with storage_errors(target), parquet.ParquetWriter(target, _schema(answers)) as writer:
            for path in paths:
                with parquet.ParquetFile(path) as part:
                    writer.write_table(part.read())


def _values_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, which a dictionary may hold (as pandas writes a category)."""
    arrow, _ = _pyarrow()
    return kind.value_type if arrow.types.is_dictionary(kind) else kind


def _type_name(kind: pa.DataType) -> str:
    """The name of the type of a column's values; the same for text however it is kept."""
    found = str(_values_type(kind))
    return "string" if found == "string_view" else found


def _type_of_kept(path: Path, field: pa.Field) -> str:
    """The type of a column that is kept: that of its values, or text for what JSON has no values for.

    Raises:
        DataError: It holds what is neither.
    """
    found = _type_name(field.type)
    if found in _TEXT_TYPES | _NUMBER_TYPES | {"bool", "null"}:
        return found
    if _is_kept_as_text(field.type):
        return "string"
    raise DataError(
        f"{path}: the column `{field.name}` holds {found}, which cannot be kept: text, numbers, booleans, dates and times can"
    )


def _is_kept_as_text(kind: pa.DataType) -> bool:
    arrow, _ = _pyarrow()
    tests = (arrow.types.is_timestamp, arrow.types.is_date, arrow.types.is_time, arrow.types.is_decimal)
    return any(test(_values_type(kind)) for test in tests)


def _for_table(row: dict[str, Any]) -> dict[str, Any]:
    """A row as Arrow takes it: weights as pairs."""
    weights = row.get("weights")  # which may be the name of a column that is kept
    return {**row, "weights": list(weights.items())} if isinstance(weights, dict) else row


def _line_of(number: int, values: tuple[Any, ...], columns: Columns) -> Line:
    """A row of a table: the query, and what is kept."""
    text, kept = values[0], values[1:]
    if isinstance(text, bytes):
        return Line(number, None, error="not UTF-8", raw=text.decode("utf-8", "replace")[:_SHOWN_CHARACTERS])
    if text is None:
        return Line(number, None, error=f'"{columns.text}" is null', raw="null")
    if kept:
        kept = tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in kept)
    return Line(number, text, kept)


def _bytes_of(metadata: Any, column: str) -> int:
    """Of a column, before compression."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def _values(column: pa.Array) -> Iterator[Any]:
    """The values of a column; as bytes those texts that are not UTF-8, which whoever wrote the file did not look at."""
    arrow, _ = _pyarrow()
    if _is_kept_as_text(column.type):
        column = column.cast(_values_type(column.type)).cast(arrow.string())
    try:
        yield from column.to_pylist()
    except UnicodeDecodeError:
        for value in column.cast(_values_type(column.type)).cast(arrow.large_binary()).to_pylist():
            try:
                yield None if value is None else value.decode()
            except UnicodeDecodeError:
                yield value


def _readable(path: Path, batches: Iterator[_Item]) -> Iterator[_Item]:
    """The pieces of a Parquet file.

    Raises:
        DataError: One is damaged.
    """
    arrow, _ = _pyarrow()
    try:
        yield from batches
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())})") from error


def _schema(answers: Answers) -> pa.Schema:
    arrow, _ = _pyarrow()
    fields = [
        ("line", arrow.int64()),
        *((name, arrow.type_for_alias(kind)) for name, kind in answers.kept),
        (_TEXT, arrow.string()),
        ("intent", arrow.string()),
        ("score", arrow.float32()),
        ("reason", arrow.string()),
        ("top_intent", arrow.string()),
    ]
    if answers.task is Task.MULTI:
        fields.append(("intents", arrow.list_(arrow.string())))
    if answers.task is Task.WEIGHTS:
        fields.append(("weights", arrow.map_(arrow.string(), arrow.float32())))
    return arrow.schema(fields)


def _open_parquet(path: Path) -> Any:
    """A Parquet file, as a context.

    Raises:
        DataError: It is none.
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    try:
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BYTES_AT_A_TIME)  # page by page
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    return pa, pq


FORMATS: dict[str, Format] = {".jsonl": JsonLines(), ".parquet": Parquet()}
"""What can be written, by the end of a file's name."""

SOURCES: dict[str, Source] = {".jsonl": FORMATS[".jsonl"], ".csv": Csv(), ".parquet": FORMATS[".parquet"]}
"""What can be read, likewise."""
