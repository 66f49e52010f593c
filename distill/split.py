"""Which examples are held out: for calibration, thresholds and gates, while the others are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    Integers = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["HELD_OUT_SHARE", "MOST_SEED", "stratified_holdout", "with_every_label"]

HELD_OUT_SHARE = 0.1
"""Share of the labelled queries that is held out where nothing else is said."""


MOST_SEED = 4_294_000_000
"""The highest seed there is: scikit-learn takes 32 bits, and other seeds are counted on from it."""

_MOST = 2.0
"""Of the fraction that is wanted: what is held out at most."""


def stratified_holdout(strata: Sequence[Any], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of two disjoint parts, the second about ``fraction`` of each stratum (scikit-learn's split).

    Strata with fewer than two members stay whole in the first part. Where the others are so many that a member of each would be more than
    twice ``fraction`` of all, each gives its share, or one member, the largest first, by chance among equals, until that much is held out.
    """
    import numpy as np

    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra("sklearn") from error
    _, codes, counts = np.unique(np.asarray([str(s) for s in strata]), return_inverse=True, return_counts=True)
    splittable = np.flatnonzero(counts[codes] >= 2)  # noqa: PLR2004
    n_strata = int((counts >= 2).sum())  # noqa: PLR2004
    n_held_out, most = max(round(fraction * len(splittable)), n_strata), round(_MOST * fraction * len(strata))
    if n_held_out > most:
        held_out = _of_the_largest(codes, counts, fraction, most, seed)
    elif not n_strata or n_held_out > len(splittable) - n_strata:
        return list(range(len(strata))), []
    else:
        _, held_out = train_test_split(splittable, test_size=n_held_out, stratify=codes[splittable], random_state=seed)
    chosen = set(held_out.tolist())
    return [i for i in range(len(strata)) if i not in chosen], sorted(chosen)


def with_every_label(
    has_label: Callable[[int], np.ndarray[Any, np.dtype[np.bool_]]], kept: list[int], held_out: list[int]
) -> tuple[list[int], list[int]]:
    """Both parts, what is held out that alone has a label given back.

    Args:
        has_label: Gives for a position which labels its example has, any number of them, (n_labels,).
        kept: Positions that are not held out.
        held_out: Those that are.
    """
    import numpy as np

    if not held_out:
        return kept, held_out
    known = np.zeros_like(has_label(held_out[0]))
    for position in kept:
        known |= has_label(position)
    back = set()
    for position in held_out:
        if ((has := has_label(position)) & ~known).any():
            back.add(position)
            known |= has
    return sorted([*kept, *back]), [position for position in held_out if position not in back]


def _of_the_largest(codes: Integers, counts: Integers, fraction: float, most: int, seed: int) -> Integers:
    """At most so many positions: ``fraction`` of each stratum, or one, the strata with the most members first.

    Args:
        codes: The stratum of each position, (n,).
        counts: Members of each stratum, (n_strata,).
        fraction: Share of a stratum.
        most: Positions in all.
        seed: Chooses among strata of one size, and among the members of each.
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    order = np.lexsort((chance.permutation(len(counts)), -counts))
    order = order[counts[order] >= 2]  # noqa: PLR2004
    shares = np.maximum(np.round(fraction * counts[order]).astype(np.int64), 1)
    by_stratum, ends = np.argsort(codes, kind="stable"), counts.cumsum()
    chosen = [
        chance.choice(by_stratum[ends[code] - counts[code] : ends[code]], share, replace=False)
        for code, share in zip(order[shares.cumsum() <= most].tolist(), shares.tolist(), strict=False)
    ]
    return np.concatenate([np.empty(0, np.int64), *chosen])
