"""CSV, which is read only: a header, then a row a query."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.bulk_files import limits
from distill.bulk_files.lines import MARK, open_lines, parts_of_bytes, shown, whole_lines
from distill.bulk_files.parts import Columns, Line, Part, Plan, check_columns
from distill.data import csv_delimiter, csv_fields_up_to
from distill.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Csv"]

_MOST_TIMES_READ = 4


class Csv:
    """A table with a header; a row may have several lines, where a quoted value holds line breaks."""

    def plan(self, path: Path, lines_per_part: int, columns: Columns) -> Plan:
        """Parts of so many lines or a row more, or of 16 MiB, whichever is less. All values are text."""
        with open_lines(path) as stream:
            header = _header(path, stream, columns)
            pieces = ((row.n_lines, row.wasted_bytes) for row in _rows(stream, header.delimiter))
            parts = parts_of_bytes(stream, pieces, lines_per_part, first_line=1 + header.n_lines)
        return Plan(parts, ("string",) * len(columns.kept))

    def read(self, path: Path, part: Part, columns: Columns) -> Iterator[Line]:
        """The rows of one part, each with the line on which it begins."""
        with open_lines(path) as stream:
            header = _header(path, stream, columns)
            stream.seek(part.start)
            number = part.first_line
            for row in _rows(stream, header.delimiter, part.wasted_bytes):
                if row.raw.strip():
                    try:
                        text, *kept = _values_in(row, header)
                        yield Line(number, text, tuple(kept))
                    except ValueError as error:
                        yield Line(number, None, error=str(error), raw=shown(row.raw))
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
    if stream.read(len(MARK)) != MARK:
        stream.seek(0)
    start = stream.tell()
    delimiter = csv_delimiter(next(whole_lines(stream), b"").decode("utf-8", "replace"))
    stream.seek(start)
    row = next(_rows(stream, delimiter), _Row(b"", 0))
    if row.error:
        raise DataError(f"{path}:1: {row.error}")
    check_columns(path, columns, row.values)
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
        is_too_dear = wasted_bytes > limits.LONGEST_LINE + _MOST_TIMES_READ * start
        most = limits.LONGEST_OF_SEVERAL_LINES if is_too_dear else limits.LONGEST_LINE
        try:
            with csv_fields_up_to(limits.LONGEST_LINE):
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
            yield _Row(next(whole_lines(stream)), 1, wasted_bytes, error=f"not CSV: {error}")


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
    for raw in whole_lines(stream):
        lines.append(raw)
        n_bytes += len(raw)
        if n_bytes >= (limits.LONGEST_LINE if len(lines) == 1 else most_bytes):
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
