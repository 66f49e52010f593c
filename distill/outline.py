"""The outline of an ONNX file: the same graph, with its large 8-bit tensors left in the file.

ONNX Runtime reads a whole file twice over, as a message and as tensors. Of a table from which a query gathers a few rows, that is
wasted. It maps data of which the graph says that they lie in another file; here that file is the graph's own. So loading
takes milliseconds whatever the size, only rows that are used come into memory, and processes share them.

Nothing else of the format is interpreted: every other field is copied as it is. Field numbers from onnx.proto; wire format from
protobuf's encoding guide.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PROBABILITIES", "outline"]

PROBABILITIES = "distill.probabilities"
"""The output that ``outline`` may add."""

_GRAPH, _INITIALIZER = 7, 5
_DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 9, 13, 14
_KEY, _VALUE, _EXTERNAL = 1, 2, 1
_NODE, _OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _OUTPUT_NAME = 1, 2, 4, 1
_EIGHT_BITS = (2, 3)
"""uint8 and int8: of these any place in the file will do, wider ones would have to be aligned."""
_VARINT, _LENGTH_DELIMITED = 0, 2
_BITS = 70
"""What the ten bytes of the longest number of a protobuf message hold."""
_LARGE = 1_000_000

Field = tuple[int, int, int, int]
"""Number of a field, where it starts, where its value starts, where it ends."""


def outline(path: Path, *, softmax_of: str = "") -> bytes | None:
    """The content of an ONNX file, its 8-bit tensors of a megabyte or more replaced by where in the file they are.

    Args:
        path: The file.
        softmax_of: Name of an output of shape (n, n_labels): ``PROBABILITIES``, its softmax, becomes one output more.

    Returns:
        A model for ONNX Runtime, which must be told in which folder the file lies; None where there is no such tensor.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a protobuf message of the kinds of fields that a model has.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            parts = [_without_tensors(content, field, path.name) for field in _fields(content, 0, len(content))]
        except IndexError as error:
            raise ValueError(f"{path}: ends in the middle of a field") from error
        if sum(map(len, parts)) >= len(content):
            return None
        return b"".join([*parts, _softmax(softmax_of)] if softmax_of else parts)


def _without_tensors(content: mmap.mmap, field: Field, name: str) -> bytes:
    number, start, value, end = field
    if number != _GRAPH:
        return content[start:end]
    return _message(_GRAPH, b"".join(_pointed(content, part, name) for part in _fields(content, value, end)))


def _softmax(logits: str) -> bytes:
    """A node and an output, to stand behind a model: where a message stands twice, protobuf puts the two together."""
    node = (
        _message(_NODE_INPUT, logits.encode()),
        _message(_NODE_OUTPUT, PROBABILITIES.encode()),
        _message(_NODE_KIND, b"Softmax"),
    )
    output = _message(_OUTPUT_NAME, PROBABILITIES.encode())
    return _message(_GRAPH, _message(_NODE, b"".join(node)) + _message(_OUTPUT, output))


def _pointed(content: mmap.mmap, field: Field, name: str) -> bytes:
    """A field of the graph; a large 8-bit tensor's says where its data are."""
    number, start, value, end = field
    if number != _INITIALIZER or end - value < _LARGE:
        return content[start:end]
    parts = list(_fields(content, value, end))
    raw = [part for part in parts if part[0] == _RAW_DATA]
    types = [_varint(content, part[2])[0] for part in parts if part[0] == _DATA_TYPE]
    if len(raw) != 1 or types not in ([each] for each in _EIGHT_BITS):
        return content[start:end]
    _, _, offset, stop = raw[0]
    kept = b"".join(content[part[1] : part[3]] for part in parts if part[0] != _RAW_DATA)
    where = {"location": name, "offset": str(offset), "length": str(stop - offset)}
    entries = (
        _message(_EXTERNAL_DATA, _message(_KEY, key.encode()) + _message(_VALUE, text.encode()))
        for key, text in where.items()
    )
    flag = _number(_DATA_LOCATION << 3 | _VARINT) + _number(_EXTERNAL)
    return _message(_INITIALIZER, b"".join((kept, *entries, flag)))


def _fields(content: mmap.mmap, start: int, stop: int) -> Iterator[Field]:
    while start < stop:
        key, value = _varint(content, start)
        if key & 7 == _VARINT:
            _, end = _varint(content, value)
        elif key & 7 == _LENGTH_DELIMITED:
            length, value = _varint(content, value)
            end = value + length
        else:
            raise ValueError(f"a field of wire type {key & 7} where a model has none")
        if end > stop:
            raise ValueError("a field is longer than what it is part of")
        yield key >> 3, start, value, end
        start = end


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for shift in range(0, _BITS, 7):  # no longer, or a crafted file would keep us for hours
        byte = content[position]
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004  # the high bit says that more follows
            return number, position
    raise ValueError("a number of more bytes than a model has")


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004  # as above
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _LENGTH_DELIMITED) + _number(len(content)) + content
