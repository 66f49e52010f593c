"""Which examples are held out: for calibration, thresholds and gates, never trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELD_OUT_SHARE", "stratified_holdout"]

HELD_OUT_SHARE = 0.1
"""Share of the labelled queries that is held out where nothing else is said."""


def stratified_holdout(strata: Sequence[Any], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of two disjoint parts, the second about ``fraction`` of each stratum (scikit-learn's split).

    Strata with fewer than two members stay whole in the first part.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    _, codes, counts = np.unique(np.asarray([str(s) for s in strata]), return_inverse=True, return_counts=True)
    splittable = np.flatnonzero(counts[codes] >= 2)  # noqa: PLR2004
    n_strata = int((counts >= 2).sum())  # noqa: PLR2004
    n_held_out = max(round(fraction * len(splittable)), n_strata)
    if not n_strata or n_held_out > len(splittable) - n_strata:
        return list(range(len(strata))), []
    _, held_out = train_test_split(splittable, test_size=n_held_out, stratify=codes[splittable], random_state=seed)
    chosen = set(held_out.tolist())
    return [i for i in range(len(strata)) if i not in chosen], sorted(chosen)
