"""Rows of a CSV, a JSONL or a JSON list, and the column in which the queries stand."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.data import csv_delimiter, csv_fields_up_to, read_jsonl
from distill.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Choose = Callable[[str, Sequence[str]], str]

__all__ = ["USUAL_NAMES", "Table", "read_table", "text_column"]

USUAL_NAMES = (
    "text", "query", "user_query", "question", "utterance", "message", "user_message", "user_input", "input", "sentence",
    "transcript", "body", "content",
)  # fmt: skip
"""Of columns that hold queries."""
_SAMPLE = 200
_SHARE_OF_SENTENCES = 0.3
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows with the line on which each begins.

    Attributes:
        path: The file.
        rows: Pairs of line number and values by column; what lies deeper has a dotted name, such as ``request.text``.
    """

    path: Path
    rows: list[tuple[int, dict[str, Any]]]

    @property
    def columns(self) -> list[str]:
        """The columns of all rows, in the order in which they first occur."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))


def read_table(path: Path, value: Any = None) -> Table:
    """Reads a table.

    Args:
        path: A .csv or .tsv with a header, or JSONL.
        value: What a .json file holds, where that was read already.

    Raises:
        DataError: The file cannot be read, or holds no row.
    """
    if value is not None:
        rows = list(enumerate(value, 1))
    elif path.suffix.lower() in {".csv", ".tsv", ".tab"}:
        with csv_fields_up_to(_LONGEST_FIELD):
            rows = list(_csv_rows(path))
    else:
        rows = list(read_jsonl(path))
    if not rows:
        raise DataError(f"{path}: holds no row")
    return Table(path, [(number, dict(_flat(row))) for number, row in rows])


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    delimiter = csv_delimiter(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    begins = 1
    try:
        for values in reader:
            if header and values and len(values) != len(header):
                raise DataError(
                    f"{path}:{begins}: expected as many values as the header has ({len(header)}), found {len(values)}; "
                    f"put a value that holds {delimiter!r} in quotes"
                )
            if header and values:
                yield begins, {name: value for name, value in zip(header, values, strict=True) if name}
            header = header or [name.strip() for name in values]
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{begins}: not CSV: {error}; a quote may not be closed") from error


def _flat(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by column; a mapping of texts to numbers (weights) stays whole."""
    for name, value in row.items():
        holds_texts = isinstance(value, dict) and any(isinstance(part, str | dict) for part in value.values())
        if holds_texts:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def text_column(table: Table, wanted: str | None, choose: Choose | None) -> str:
    """The column that holds the queries.

    Args:
        table: The rows.
        wanted: The user's word for it, or None.
        choose: Asks where several columns could be meant; None: that is an error.

    Raises:
        DataError: There is no such column, or it is not clear which one it is.
    """
    columns = table.columns
    if wanted is not None:
        if wanted not in columns:
            raise DataError(f"{table.path}: has no column {wanted!r}; its columns: {', '.join(columns)}")
        return wanted
    usual = [name for name in columns if name.casefold().replace(" ", "_") in USUAL_NAMES]
    candidates = usual or [name for name in columns if _holds_sentences(table, name)] or columns
    if "text" in candidates or len(candidates) == 1:
        return "text" if "text" in candidates else candidates[0]
    if choose is not None:
        return choose(f"{table.path}: which column holds the queries?", candidates)
    raise DataError(
        f"{table.path}: it is not clear which column holds the queries; --text-column names it ({', '.join(columns)})"
    )


def _holds_sentences(table: Table, column: str) -> bool:
    values = [value for _, row in table.rows[:_SAMPLE] if (value := row.get(column)) is not None and value != ""]
    if not all(isinstance(value, str) for value in values):
        return False
    sentences = sum(" " in value.strip() and any(map(str.isalpha, value)) for value in values)
    return sentences > _SHARE_OF_SENTENCES * len(values)
