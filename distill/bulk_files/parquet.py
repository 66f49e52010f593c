"""Parquet, by pyarrow, which the extra ``[parquet]`` brings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from distill.bulk_files import limits
from distill.bulk_files.parts import TEXT, Answers, Columns, Line, Part, Plan, check_columns
from distill.data import atomic_write, storage_errors
from distill.errors import DataError, missing_extra
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

__all__ = ["Parquet", "pyarrow_modules"]

_TEXT_TYPES = {"string", "large_string"}
_NUMBER_TYPES = {"float", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
"""Names of Arrow's types whose values JSON has too."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Left:
    """What of a file is not read yet.

    Attributes:
        path: The file.
        columns: Of which columns.
        start: From which row on.
        batches: Its rows but for the first ones.
        rows: These.
    """

    path: Path
    columns: Columns
    start: int
    batches: Iterator[pa.RecordBatch]
    rows: Sequence[pa.RecordBatch] = ()


class Parquet:
    """A table with the query in a column. It holds the file open that it reads."""

    def __init__(self) -> None:
        self._left: _Left | None = None

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many rows, or of 16 MiB of texts, whichever is less. Types stay where JSON has such values; dates, times and decimals are text."""
        with _open_parquet(path) as file:
            schema = file.schema_arrow
        check_columns(path, columns, schema.names)
        found = _type_name(schema.field(columns.text).type)
        if found not in _TEXT_TYPES and found != "null":
            raise DataError(f"{path}: the column `{columns.text}` must hold text, found {found}")
        types = tuple(_type_of_kept(path, schema.field(name)) for name in columns.kept)
        return Plan(_parts_of(_bytes_of_rows(path, columns), lines_per_part), types)

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The rows of one part; to find one that follows the last part takes no decoding of all rows before."""
        number = part.first_line
        for rows in self._rows(path, part, columns):
            found = {
                name: _with_texts(path, name, column)
                for name, column in zip(rows.schema.names, rows.columns, strict=True)
            }
            for values in zip(*(_values(found[name]) for name in columns.names), strict=True):
                yield _line_of(number, values, columns)
                number += 1

    def _rows(self, path: Path, part: Part, columns: Columns) -> Iterator[pa.RecordBatch]:
        """The columns of a part's rows, some rows at a time."""
        left, self._left = self._left, None
        is_next = left is not None and left.path == path and left.columns == columns and left.start == part.start
        left = (
            left
            if left is not None and is_next
            else _Left(path, columns, part.start, _rows_from(path, columns, part.start))
        )
        n_left = part.n_lines
        for rows in chain(left.rows, left.batches):
            yield rows[:n_left]
            rest, n_left = rows[n_left:], max(n_left - rows.num_rows, 0)
            if not n_left:
                self._left = _Left(path, columns, part.start + part.n_lines, left.batches, [rest])
                return

    def write(self, path: Path, rows: Sequence[dict[str, Any]], answers: Answers) -> None:
        """Writes one table."""
        arrow, parquet = pyarrow_modules()
        columns = [_for_table(row) for row in rows]
        with atomic_write(path) as partial:
            parquet.write_table(arrow.Table.from_pylist(columns, schema=_schema(answers)), partial)

    def join(self, paths: Sequence[Path], target: Path, answers: Answers) -> None:
        """One row group after another."""
        _, parquet = pyarrow_modules()
        with storage_errors(target), parquet.ParquetWriter(target, _schema(answers)) as writer:
            for path in paths:
                with parquet.ParquetFile(path) as part:
                    writer.write_table(part.read())


def _values_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, which a dictionary may hold (as pandas writes a category)."""
    arrow, _ = pyarrow_modules()
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
    arrow, _ = pyarrow_modules()
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
        return Line(number, None, error="not UTF-8", raw=text.decode("utf-8", "replace")[: limits.SHOWN_CHARACTERS])
    if text is None:
        return Line(number, None, error=f'"{columns.text}" is null', raw="null")
    if kept:
        kept = tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in kept)
    return Line(number, text, kept)


def _rows_from(path: Path, columns: Columns, start: int) -> Iterator[pa.RecordBatch]:
    """The columns of all rows from one on, some rows at a time; the row groups before it are not read."""
    with _open_parquet(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = [*accumulate(sizes)]
        groups = [number for number, end in enumerate(ends) if end > start]
        skip = start - ends[groups[0]] + sizes[groups[0]] if groups else 0
        names = list(dict.fromkeys(columns.names))
        for batch in _readable(path, file.iter_batches(limits.ROWS_AT_A_TIME, row_groups=groups, columns=names)):
            rows, skip = batch[skip:], max(skip - batch.num_rows, 0)
            if rows.num_rows:
                yield rows


def _bytes_of_rows(path: Path, columns: Columns) -> Iterator[int]:
    """What each row's texts come to. The file does not say: it holds a text that occurs again once."""
    for rows in _rows_from(path, columns, 0):
        texts = map(_with_texts, repeat(path), rows.schema.names, rows.columns)
        of_texts = [*filter(None, map(_bytes_of_texts, texts))]
        yield from map(sum, zip(*of_texts, strict=True)) if of_texts else [0] * rows.num_rows


def _bytes_of_texts(column: pa.Array) -> list[int]:
    """Of each text of a column; empty where it holds others."""
    arrow, _ = pyarrow_modules()
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _type_name(column.type) not in _TEXT_TYPES:
        return []
    import pyarrow.compute as pc

    if column.type == arrow.string_view():  # which has no length in older versions
        column = column.cast(arrow.large_string())
    lengths: list[int] = pc.fill_null(pc.binary_length(column), 0).to_pylist()
    return lengths


def _parts_of(n_bytes: Iterator[int], lines_per_part: int) -> list[Part]:
    """Parts of rows of so many bytes each."""
    parts: list[Part] = []
    start = end = within = 0
    for size in n_bytes:
        if end > start and (end - start >= lines_per_part or within + size > limits.BYTES_PER_PART):
            parts.append(Part(len(parts), start, start + 1, end - start))
            start, within = end, 0
        end, within = end + 1, within + size
    if end > start:
        parts.append(Part(len(parts), start, start + 1, end - start))
    return parts


def _with_texts(path: Path, name: str, column: pa.Array) -> pa.Array:
    """A column with its dates, times or decimals as texts, if it holds such.

    Raises:
        DataError: They cannot be told: their time zone is not known here, for instance.
    """
    if not _is_kept_as_text(column.type):
        return column
    arrow, _ = pyarrow_modules()
    try:
        return column.cast(_values_type(column.type)).cast(arrow.string())
    except arrow.ArrowException as error:
        raise DataError(
            f"{path}: the column `{name}` ({column.type}) cannot be kept: {' '.join(str(error).split())}"
        ) from error


def _values(column: pa.Array) -> Iterator[Any]:
    """The values of a column; as bytes those texts that are not UTF-8, which whoever wrote the file did not look at."""
    arrow, _ = pyarrow_modules()
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
    arrow, _ = pyarrow_modules()
    try:
        yield from batches
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())})") from error


def _schema(answers: Answers) -> pa.Schema:
    arrow, _ = pyarrow_modules()
    fields = [
        ("line", arrow.int64()),
        *((name, arrow.type_for_alias(kind)) for name, kind in answers.kept),
        (TEXT, arrow.string()),
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
    arrow, parquet = pyarrow_modules()
    try:
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=limits.BYTES_AT_A_TIME)  # page by page
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error


def pyarrow_modules() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        MissingExtraError: They are not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    return pa, pq
