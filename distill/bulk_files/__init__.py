"""The files of a bulk run: queries are read, and answers written, in parts, as JSON lines or as Parquet; CSV is read only.

Parquet needs pyarrow, which the extra ``[parquet]`` brings; the others need nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from distill.bulk_files.csv_rows import Csv
from distill.bulk_files.json_lines import JsonLines
from distill.bulk_files.parquet import Parquet, pyarrow_modules
from distill.bulk_files.parts import (
    Answers,
    Columns,
    Format,
    Line,
    Part,
    Plan,
    Source,
    answer_columns,
    answer_row,
)
from distill.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

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

FORMATS: dict[str, Format] = {".jsonl": JsonLines(), ".parquet": Parquet()}
"""What can be written, by the end of a file's name."""

SOURCES: dict[str, Source] = {".jsonl": FORMATS[".jsonl"], ".csv": Csv(), ".parquet": FORMATS[".parquet"]}
"""What can be read, likewise."""

_Kind = TypeVar("_Kind", bound=Source)


def source_of(path: Path) -> Source:
    """How an input is read, by its name; for one run.

    Raises:
        DataError: The name says nothing that can be read.
        MissingExtraError: pyarrow is needed and not installed.
    """
    return type(_known(path, SOURCES))()


def format_of(path: Path) -> Format:
    """How an output is written, by its name.

    Raises:
        DataError: The name says nothing that can be written.
        MissingExtraError: pyarrow is needed and not installed.
    """
    return _known(path, FORMATS)


def _known(path: Path, kinds: dict[str, _Kind]) -> _Kind:
    found = kinds.get(path.suffix.lower())
    if found is None:
        *others, last = kinds
        raise DataError(f"{path}: expected a file that ends in {', '.join(others)} or {last}")
    if isinstance(found, Parquet):
        pyarrow_modules()
    return found
