"""Files of lines, read in binary: where parts begin, and lines that are too long to be kept."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from distill.bulk_files import limits
from distill.bulk_files.parts import Part
from distill.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["MARK", "open_lines", "parts_of_bytes", "shown", "whole_lines"]

MARK = b"\xef\xbb\xbf"
"""Of UTF-8, at the start of a file."""


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of lines.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def parts_of_bytes(
    stream: BinaryIO, pieces: Iterable[tuple[int, int]], lines_per_part: int, first_line: int
) -> list[Part]:
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
        if n_lines >= lines_per_part or stream.tell() - start >= limits.BYTES_PER_PART:
            parts.append(Part(len(parts), start, first_line, n_lines, wasted_before))
            start, first_line, n_lines, wasted_before = stream.tell(), first_line + n_lines, 0, wasted
    return [*parts, Part(len(parts), start, first_line, n_lines, wasted_before)] if n_lines else parts


def whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Every line; of one that is too long to be kept in memory only the beginning, without a newline."""
    while raw := stream.readline(limits.LONGEST_LINE):
        rest = raw
        while len(rest) == limits.LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(limits.LONGEST_LINE)
        yield raw


def shown(raw: bytes) -> str:
    """What stands in a line, as text and no longer than one can look at."""
    return raw.rstrip(b"\r\n").decode("utf-8", "replace")[: limits.SHOWN_CHARACTERS]
