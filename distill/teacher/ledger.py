"""Append-only files: one line for each answer that was paid for, written as soon as it arrives."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from distill.data import label_as_line, read_labels, storage_errors
from distill.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from distill.types import Label

__all__ = ["AppendLog", "Ledger", "as_time", "time_now"]


def time_now() -> str:
    """The time of the day, as a line of a recording says it."""
    return as_time(datetime.now(UTC))


def as_time(moment: datetime) -> str:
    """A moment, which must know its zone, in UTC and to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AppendLog:
    """A JSONL file that only grows, held by one writer at a time.

    A line that a killed writer left torn is cut off when the file is opened: it was never a whole answer.

    Args:
        path: The file. One that was made here and got no line does not stay.

    Raises:
        LedgerError: Another process is writing to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        from filelock import FileLock, Timeout

        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shared = self.path.resolve() if self.path.is_file() else self.path  # two links to one file have one writer
            self._lock = FileLock(f"{shared}.lock", timeout=0)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise LedgerError(f"{self.path}: another process is writing to it; wait until it ends") from error
        try:
            with storage_errors(self.path):
                self._is_new = not (self.path.exists() or self.path.is_symlink())
                self._stream = self.path.open("a+b")
                _cut_torn_line(self._stream)
        except BaseException:
            self._lock.release()
            raise
        return self

    def append(self, line: dict[str, Any]) -> None:
        """Writes one line and hands it to the operating system.

        Raises:
            StorageError: The disk is full; the lines before this one are kept.
        """
        if self._stream is None:
            raise LedgerError(f"{self.path}: not open for writing")
        with storage_errors(self.path):
            self._stream.write(_encode(line) + b"\n")
            self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                with storage_errors(self.path):
                    stream.close()
                    if self._is_new and self.path.stat().st_size == 0:
                        self.path.unlink()
        finally:
            self._lock.release()


def _encode(line: dict[str, Any]) -> bytes:
    """UTF-8 JSON. Half a surrogate pair, which a cut-off emoji leaves, has no UTF-8: then the line is escaped."""
    try:
        return json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(line).encode()


def _cut_torn_line(stream: BinaryIO) -> None:
    """Ends the file with a newline, after a whole last line or by cutting a torn one."""
    size = stream.seek(0, os.SEEK_END)
    start, tail = size, b""
    while start > 0 and b"\n" not in tail:
        step = min(1 << 16, start)
        start -= step
        stream.seek(start)
        tail = stream.read(step) + tail
    last = tail.rpartition(b"\n")[2]
    if not last:
        return
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        stream.truncate(size - len(last))
        stream.seek(0, os.SEEK_END)
    else:
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n")
        stream.flush()


class Ledger:
    """The teacher's answers by key. The last good line of a key wins; a failed one never hides a good one.

    Args:
        path: ledger.jsonl; need not exist.

    Raises:
        LedgerError: A line is not an answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._labels: dict[str, Label] = {}
        self.lines: list[Label] = []
        self.hashes: set[str] = set()
        """Every ``prompt_sha256`` of a line."""
        self._size_bytes = _size_bytes(path)
        for label in read_labels(path):
            self.add(label)

    @property
    def is_as_read(self) -> bool:
        """Whether nobody has written to the file since it was read here."""
        return _size_bytes(self.path) == self._size_bytes

    def add(self, label: Label) -> None:
        """Takes an answer into the index (the file is written by ``AppendLog``)."""
        self.lines.append(label)
        self.hashes.add(label.prompt_sha256)
        known = self._labels.get(label.key)
        if label.scores is not None or known is None or known.scores is None:
            self._labels[label.key] = label

    def get(self, keys: Iterable[str]) -> Label | None:
        """The first good answer among several keys, else a failed one, else None."""
        found = [label for key in keys if (label := self._labels.get(key)) is not None]
        return next((label for label in found if label.scores is not None), found[0] if found else None)

    def write(self, log: AppendLog, label: Label) -> None:
        """Writes an answer to the file, then takes it into the index."""
        log.append(label_as_line(label))
        self.add(label)


def _size_bytes(path: Path) -> int:
    with storage_errors(path):
        return path.stat().st_size if path.exists() else 0
