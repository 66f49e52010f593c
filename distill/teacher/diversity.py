"""How much the queries of an intent differ from each other: in words, and in meaning."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    Floats = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["distinct_2", "mean_distance"]

_FEWEST = 2


def distinct_2(texts: Sequence[str]) -> float | None:
    """Share of pairs of words in a row that are distinct, over all texts; None where no text has two words.

    It is the distinct-2 of Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (NAACL 2016), divided by
    the number of pairs. It falls as texts become more, so compare it between intents with as many.
    """
    pairs = [pair for text in texts for pair in pairwise(normalise(text).split())]
    return len(set(pairs)) / len(pairs) if pairs else None


def mean_distance(vectors: Floats) -> float | None:
    """Mean cosine distance (1 - cosine) over all pairs of vectors; None where there is no pair.

    Takes time linear in their number: the cosines of all ordered pairs, those with themselves included, sum up to the squared length of
    the vectors' sum.

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
    """
    n = len(vectors)
    if n < _FEWEST:
        return None
    exact = vectors.astype(np.float64)
    total = exact.sum(axis=0)
    of_pairs = float(total @ total) - float((exact * exact).sum())
    return max(1.0 - of_pairs / (n * (n - 1)), 0.0)
