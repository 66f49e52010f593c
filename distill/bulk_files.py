"""The files of a bulk run: queries are read, and answers written, in parts, as JSON lines or as Parquet.

Parquet needs pyarrow, which the extra ``[parquet]`` brings; JSON lines need nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from distill.data import atomic_write, storage_errors
from distill.errors import DataError, missing_extra
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from distill.types import Prediction

__all__ = ["FORMATS", "Format", "JsonLines", "Line", "Parquet", "Part", "answer_row", "format_of"]

_LONGEST_LINE = 1 << 24
_BYTES_PER_PART = 1 << 24
_ROWS_AT_A_TIME = 4096
_SHOWN_CHARACTERS = 10_000
_TEXT = "text"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the input that is routed as one piece.

    Attributes:
        number: From 0.
        start: Where it begins: a byte of JSON lines, a row of Parquet.
        first_line: Number of its first line, from 1.
        n_lines: How many lines or rows it has.
    """

    number: int
    start: int
    first_line: int
    n_lines: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line or row of the input.

    Attributes:
        number: From 1.
        text: The query; None where there is none to be had.
        error: Why not.
        raw: What stands there instead.
    """

    number: int
    text: str | None
    error: str = ""
    raw: str = ""


class Format(Protocol):
    """How one kind of file is read and written."""

    def plan(self, path: Path, lines_per_part: int) -> list[Part]:
        """The parts of an input, in order."""
        ...

    def read(self, path: Path, part: Part) -> Iterator[Line]:
        """The lines of one part; blank ones are passed over."""
        ...

    def write(self, path: Path, rows: Sequence[dict[str, Any]], task: Task) -> None:
        """Writes answers, atomically."""
        ...

    def join(self, paths: Sequence[Path], target: Path, task: Task) -> None:
        """Writes one file of many, in order and piece by piece."""
        ...


def format_of(path: Path) -> Format:
    """The format that a file's name says.

    Raises:
        DataError: It says none.
        MissingExtraError: pyarrow is needed and not installed.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise DataError(f"{path}: expected a file that ends in {' or '.join(FORMATS)}")
    if isinstance(found, Parquet):
        _pyarrow()
    return found


def answer_row(line: int, text: str, prediction: Prediction, task: Task) -> dict[str, Any]:
    """One row of the output: the input's line, the query, and the answer without the scores of all labels."""
    row = {
        "line": line,
        _TEXT: text,
        "intent": prediction.intent,
        "score": round(prediction.score, 6),
        "reason": prediction.reason.value,
        "top_intent": prediction.top_intent,
    }
    if task is Task.MULTI:
        row["intents"] = list(prediction.intents)
    if task is Task.WEIGHTS:
        weights = prediction.weights or {}
        row["weights"] = {name: round(weight, 6) for name, weight in weights.items()}
    return row


class JsonLines:
    """A JSON object a line, with the query as ``text``."""

    def plan(self, path: Path, lines_per_part: int) -> list[Part]:
        """The parts of a file: so many lines, or 16 MiB, whichever is less."""
        parts: list[Part] = []
        start = n_lines = 0
        first_line = 1
        try:
            with path.open("rb") as stream:
                for _ in _whole_lines(stream):
                    n_lines += 1
                    if n_lines == lines_per_part or stream.tell() - start >= _BYTES_PER_PART:
                        parts.append(Part(len(parts), start, first_line, n_lines))
                        start, first_line, n_lines = stream.tell(), first_line + n_lines, 0
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        return [*parts, Part(len(parts), start, first_line, n_lines)] if n_lines else parts

    def read(self, path: Path, part: Part) -> Iterator[Line]:
        """The lines of one part."""
        with path.open("rb") as stream:
            stream.seek(part.start)
            for number, raw in zip(range(part.first_line, part.first_line + part.n_lines), _whole_lines(stream)):  # noqa: B905
                if not raw.strip():
                    continue
                try:
                    yield Line(number, _text_of(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw))
                except ValueError as error:
                    shown = raw.rstrip(b"\r\n").decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
                    yield Line(number, None, str(error), shown)

    def write(self, path: Path, rows: Sequence[dict[str, Any]], task: Task) -> None:  # noqa: ARG002
        """Writes one JSON object a line."""
        with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def join(self, paths: Sequence[Path], target: Path, task: Task) -> None:  # noqa: ARG002
        """One file after another."""
        with storage_errors(target), target.open("wb") as stream:
            for path in paths:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, stream)


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Every line; of one that is too long to be kept in memory only the beginning, without a newline."""
    while raw := stream.readline(_LONGEST_LINE):
        rest = raw
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST_LINE)
        yield raw


def _text_of(raw: bytes) -> str:
    """The query in a line.

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
    return _checked(value.get(_TEXT))


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f'"{_TEXT}" must be a string, found {type(text).__name__ if text is not None else "none"}')  # noqa: TRY004
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half a surrogate pair") from error
    return text


class Parquet:
    """A table with the query in the column ``text``."""

    def plan(self, path: Path, lines_per_part: int) -> list[Part]:
        """The parts of a table, by rows."""
        with _open_parquet(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
        if _TEXT not in schema.names:
            raise DataError(f"{path}: has no column `{_TEXT}`; it has {', '.join(schema.names) or 'none'}")
        if str(schema.field(_TEXT).type) not in {"string", "large_string", "string_view", "null"}:
            raise DataError(f"{path}: the column `{_TEXT}` must hold text, found {schema.field(_TEXT).type}")
        starts = range(0, n_rows, lines_per_part)
        return [Part(number, at, at + 1, min(lines_per_part, n_rows - at)) for number, at in enumerate(starts)]

    def read(self, path: Path, part: Part) -> Iterator[Line]:
        """The rows of one part."""
        number = part.first_line
        for texts in self._columns(path, part):
            for text in texts.to_pylist():
                yield Line(number, text) if text is not None else Line(number, None, f'"{_TEXT}" is null', "null")
                number += 1

    def _columns(self, path: Path, part: Part) -> Iterator[pa.Array]:
        """The column of the part's rows, some rows at a time; only the row groups they lie in are read."""
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
            for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=groups, columns=[_TEXT]):
                texts = batch.column(0)[skip : skip + left]
                skip, left = max(skip - batch.num_rows, 0), left - len(texts)
                yield texts
                if not left:
                    return

    def write(self, path: Path, rows: Sequence[dict[str, Any]], task: Task) -> None:
        """Writes one table."""
        arrow, parquet = _pyarrow()
        columns = [{**row, "weights": list(row["weights"].items())} if "weights" in row else row for row in rows]
        with atomic_write(path) as partial:
            parquet.write_table(arrow.Table.from_pylist(columns, schema=_schema(task)), partial)

    def join(self, paths: Sequence[Path], target: Path, task: Task) -> None:
        """One row group after another."""
        _, parquet = _pyarrow()
        with storage_errors(target), parquet.ParquetWriter(target, _schema(task)) as writer:
            for path in paths:
                writer.write_table(parquet.read_table(path, schema=_schema(task)))


def _schema(task: Task) -> pa.Schema:
    arrow, _ = _pyarrow()
    fields = [
        ("line", arrow.int64()),
        (_TEXT, arrow.string()),
        ("intent", arrow.string()),
        ("score", arrow.float32()),
        ("reason", arrow.string()),
        ("top_intent", arrow.string()),
    ]
    if task is Task.MULTI:
        fields.append(("intents", arrow.list_(arrow.string())))
    if task is Task.WEIGHTS:
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
        return parquet.ParquetFile(path, pre_buffer=False)
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
"""By the end of a file's name."""
