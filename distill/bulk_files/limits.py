"""How much is read at once: a bulk run takes constant memory, whatever the file holds."""

from __future__ import annotations

__all__ = [
    "BYTES_AT_A_TIME",
    "BYTES_PER_PART",
    "LISTED_CHARACTERS",
    "LONGEST_LINE",
    "LONGEST_OF_SEVERAL_LINES",
    "ROWS_AT_A_TIME",
    "SHOWN_CHARACTERS",
]

LONGEST_LINE = 1 << 24
"""Bytes of a line that is read whole; of a longer one only the beginning is kept, and it holds no query."""

LONGEST_OF_SEVERAL_LINES = 1 << 12
"""Bytes of a row of a CSV that has several lines, once quotes that are never closed have had the file read several times over."""

BYTES_PER_PART = 1 << 24
"""Bytes from which on a part is whole, however few its lines are."""

ROWS_AT_A_TIME = 256
"""Rows of a Parquet file in memory at once, however long their texts are: a text that occurs again takes no place in the file."""

BYTES_AT_A_TIME = 1 << 20
"""Bytes of a Parquet file's column that are read ahead."""

SHOWN_CHARACTERS = 10_000
"""Characters that errors.jsonl shows of a line without a query."""

LISTED_CHARACTERS = 300
"""Characters of an error's list of columns."""
