"""What a bulk run reads and writes, whatever the file: parts, lines, columns and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from distill.bulk_files import limits
from distill.errors import DataError
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from distill.types import Prediction

__all__ = [
    "TEXT",
    "Answers",
    "Columns",
    "Format",
    "Line",
    "Part",
    "Plan",
    "Source",
    "answer_columns",
    "answer_row",
    "check_columns",
    "listed",
]

TEXT = "text"
"""The column of the queries in an output."""


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


def answer_columns(task: Task) -> tuple[str, ...]:
    """The columns of an output, but for those that are kept of the input."""
    own = {Task.MULTI: ("intents",), Task.WEIGHTS: ("weights",)}
    return ("line", TEXT, "intent", "score", "reason", "top_intent", *own.get(task, ()))


def answer_row(line: Line, prediction: Prediction, answers: Answers) -> dict[str, Any]:
    """One row of the output: the input's line, what is kept of it, the query, and the answer without the scores of all labels."""
    row = {
        "line": line.number,
        **{name: value for (name, _), value in zip(answers.kept, line.kept, strict=True)},
        TEXT: line.text,
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


def check_columns(path: Path, columns: Columns, found: Sequence[str]) -> None:
    """Finds what a table lacks.

    Raises:
        DataError: It lacks a column, or has it twice.
    """
    options = dict.fromkeys(columns.kept, "--keep names what goes into the output")
    for name, option in {**options, columns.text: "--column says where the queries stand"}.items():
        if name not in found:
            raise DataError(f"{path}: has no column {name!r}; it has {listed(found)}; {option}")
        if found.count(name) > 1:
            raise DataError(
                f"{path}: has {found.count(name)} columns `{name}`; rename all but one, or name another: {option}"
            )


def listed(names: Iterable[str]) -> str:
    """Names on one line, whatever they hold, and no more of them than one can read."""
    return ", ".join(map(repr, names))[: limits.LISTED_CHARACTERS] or "none"
