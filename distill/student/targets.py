"""Targets of many examples over many labels: an array where that is small, otherwise what is not zero in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scipy.sparse import csr_array

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Rows = slice | Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]

__all__ = [
    "KEPT",
    "LEAST_TARGET",
    "SparseTargets",
    "Targets",
    "fits_array",
    "highest",
    "joined",
    "likeliest",
    "mapped",
    "mean",
    "mixed",
    "most_rows",
    "stacked",
    "taken",
]

KEPT = 64
"""Of each example's answers, where there are too many labels to keep them all."""

LEAST_TARGET = 1e-9
"""A query all of whose targets are below fits no label."""

_MOST_CELLS = 1 << 26
"""Examples times labels that an array may have: 268 MB of float32. 200,000 queries over 10,000 intents would take 8 GB."""


class SparseTargets:
    """float32 of shape (n, n_labels), mostly zero. Some rows of it are an array, as some rows of an array are.

    Args:
        matrix: float32 of shape (n, n_labels).
    """

    def __init__(self, matrix: csr_array) -> None:
        self.matrix = matrix

    @classmethod
    def of(cls, columns: np.ndarray[Any, Any], values: Array, n_labels: int) -> SparseTargets:
        """Of as many values for each example, both of shape (n, m)."""
        from scipy.sparse import csr_array

        ends = np.arange(len(columns) + 1) * columns.shape[1]
        return cls(csr_array((values.ravel(), columns.ravel().astype(np.int32), ends), shape=(len(columns), n_labels)))

    @classmethod
    def joined(cls, parts: Sequence[SparseTargets]) -> SparseTargets:
        """The examples of all parts."""
        from scipy.sparse import csr_array, vstack

        return cls(csr_array(vstack([part.matrix for part in parts])))

    @property
    def shape(self) -> tuple[int, int]:
        """Examples and labels."""
        n, n_labels = self.matrix.shape
        return int(n), int(n_labels)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Array:
        dense: Array = self.matrix[rows].toarray()
        return dense


Targets = np.ndarray[Any, np.dtype[np.float32]] | SparseTargets
"""Either has a length and a shape, and gives float32 of shape (m, n_labels) for m rows."""


def most_rows(n_labels: int) -> int:
    """How many examples over so many labels are small enough for an array."""
    return max(_MOST_CELLS // n_labels, 1)


def fits_array(n: int, n_labels: int) -> bool:
    """Whether ``n`` examples over so many labels are small enough for an array."""
    return n <= most_rows(n_labels)


def stacked(rows: Sequence[Array], n_labels: int) -> Targets:
    """Rows of shape (n_labels,) as targets."""
    if not rows:
        return np.empty((0, n_labels), np.float32)
    if fits_array(len(rows), n_labels):
        return np.stack(list(rows)).astype(np.float32)
    from scipy.sparse import csr_array

    columns = [np.flatnonzero(row).astype(np.int32) for row in rows]
    values = [row[marked].astype(np.float32) for row, marked in zip(rows, columns, strict=True)]
    ends = np.cumsum([0, *map(len, columns)])
    return SparseTargets(
        csr_array((np.concatenate(values), np.concatenate(columns), ends), shape=(len(rows), n_labels))
    )


def taken(targets: Targets, rows: Rows) -> Targets:
    """Some rows, in the same form."""
    return SparseTargets(targets.matrix[rows]) if isinstance(targets, SparseTargets) else targets[rows]


def joined(parts: Sequence[Targets]) -> Targets:
    """The examples of all parts, at least one; of an array that becomes sparse the highest values of each example are kept."""
    n_labels = parts[0].shape[1]
    if fits_array(sum(map(len, parts)), n_labels) and not any(isinstance(part, SparseTargets) for part in parts):
        return np.concatenate([part[:] for part in parts])
    return SparseTargets.joined([part if isinstance(part, SparseTargets) else highest(part) for part in parts])


def highest(values: Array) -> SparseTargets:
    """The ``KEPT`` highest of each row of an array of shape (n, n_labels)."""
    import torch

    kept, columns = torch.from_numpy(values).topk(min(KEPT, values.shape[1]))
    return SparseTargets.of(columns.numpy(), kept.numpy(), values.shape[1])


def likeliest(targets: Targets, least: float = 0.0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The label of each example whose target is greatest, -1 where that is below ``least``: int64 of shape (n,)."""
    if isinstance(targets, SparseTargets):
        places, greatest = targets.matrix.argmax(axis=1), targets.matrix.max(axis=1).toarray()
    else:
        places, greatest = targets.argmax(axis=1), targets.max(axis=1)
    return np.where(np.ravel(greatest) >= least, np.ravel(places), -1).astype(np.int64)


def mapped(targets: Targets, function: Callable[[Array], Array]) -> Targets:
    """Each row's values through a function from (n, m) to (n, m), labels without a value left out.

    Every row of sparse targets must have as many values, as after ``SparseTargets.of``.
    """
    if not isinstance(targets, SparseTargets):
        return function(targets)
    matrix = targets.matrix
    values = function(matrix.data.reshape(len(targets), -1))
    return SparseTargets(type(matrix)((values.ravel(), matrix.indices, matrix.indptr), shape=matrix.shape))


def mean(several: Sequence[Targets]) -> Targets:
    """Mean of one or more."""
    sparse = [each.matrix for each in several if isinstance(each, SparseTargets)]
    if sparse:
        return SparseTargets(sum(sparse[1:], sparse[0]) / np.float32(len(sparse)))
    total: Array = np.zeros_like(several[0])
    for each in several:
        total += each[:]
    return total / np.float32(len(several))


def mixed(answers: Targets, labels: Targets, label_share: float) -> Targets:
    """Answers, the first of which are drawn towards labels: ``answers + label_share * (labels - answers)``.

    Args:
        answers: Of shape (n + m, n_labels).
        labels: Of shape (n, n_labels).
        label_share: 0 leaves the answers as they are, 1 takes the labels.
    """
    n, share = len(labels), np.float32(label_share)
    if not isinstance(answers, SparseTargets):
        targets = answers.copy()
        targets[:n] += share * (labels[:] - targets[:n])
        return targets
    from scipy.sparse import csr_array

    known = answers.matrix[:n]
    wanted = labels.matrix if isinstance(labels, SparseTargets) else csr_array(labels)
    return SparseTargets.joined([SparseTargets(known + (wanted - known) * share), SparseTargets(answers.matrix[n:])])
