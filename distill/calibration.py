"""How far scores lie from how often their answers are right. Of a bundle's held-out queries, and of every row that is measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["CALIBRATION_BINS", "bin_edges", "expected_calibration_error"]

CALIBRATION_BINS = 15


def expected_calibration_error(
    score: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error with bins of equal mass (Nguyen and O'Connor, 2015): mean of abs(accuracy - score).

    Equal scores share a bin, so that the order of the queries means nothing.

    Args:
        score: float array of shape (n,), n at least 1.
        right: bool array of shape (n,).
        bins: How many.
    """
    order = np.argsort(score, kind="stable")
    edges = bin_edges(score[order], bins)
    gaps = np.add.reduceat(right[order] - score[order].astype(np.float64), edges)
    return float(np.abs(gaps).sum() / len(score))


def bin_edges(score: npt.NDArray[np.floating], bins: int = CALIBRATION_BINS) -> npt.NDArray[np.int64]:
    """Where each bin that is not empty begins: as ``numpy.array_split`` parts them, but before the first of equal scores.

    Args:
        score: Shape (n,), rising; n at least 1.
        bins: How many at most.
    """
    sizes = np.full(bins, len(score) // bins)
    sizes[: len(score) % bins] += 1
    edges = np.concatenate([[0], np.cumsum(sizes[sizes > 0])[:-1]])
    return np.unique(np.searchsorted(score, score[edges], side="left"))
