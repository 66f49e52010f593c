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

    Args:
        score: float array of shape (n,), n at least 1.
        right: bool array of shape (n,).
        bins: How many.
    """
    edges = bin_edges(len(score), bins)
    order = np.argsort(score, kind="stable")
    gaps = np.add.reduceat(right[order] - score[order].astype(np.float64), edges)
    return float(np.abs(gaps).sum() / len(score))


def bin_edges(n: int, bins: int) -> npt.NDArray[np.int64]:
    """Where each bin that is not empty begins, as ``numpy.array_split`` parts them."""
    sizes = np.full(bins, n // bins)
    sizes[: n % bins] += 1
    return np.concatenate([[0], np.cumsum(sizes[sizes > 0])[:-1]])
