"""Gold among the training queries: the same query, or nearly the same. Whoever was trained on the question knows the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distill.data import as_known
from distill.types import Leakage, NearPair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.types import GoldQuery

__all__ = ["NEAR", "find_leakage", "nearest"]

NEAR = 0.9
"""Cosine from which on a gold query is nearly a training query: a word or two apart."""
_METHOD = "cosine of TF-IDF over character 2- to 4-grams within words"
_SHOWN_PAIRS = 50
_MOST_CELLS = 4_000_000
_NOTHING = "(none)"  # for a text without a letter: the vectoriser needs one gram at least


def find_leakage(
    gold: Sequence[GoldQuery], training: Sequence[str], right: Mapping[str, npt.NDArray[np.bool_]]
) -> Leakage | None:
    """How much of gold stands among the training queries; None without gold.

    Args:
        gold: Human-labelled queries.
        training: Texts that were trained on or set thresholds.
        right: For each row a bool array of shape (n_gold,): what ``accuracy_policy`` counts as right.
    """
    if not gold or not training:
        return None
    known = {as_known(text) for text in training}
    exact = np.asarray([as_known(query.text) in known for query in gold])
    position, similarity = nearest([query.text for query in gold], training)
    near = (similarity >= NEAR) & ~exact
    worst = sorted(np.flatnonzero(near).tolist(), key=lambda row: -similarity[row])
    clean = ~(exact | near)
    return Leakage(
        n_exact=int(exact.sum()),
        n_near=int(near.sum()),
        threshold=NEAR,
        method=_METHOD,
        pairs=tuple(
            NearPair(gold[row].text, training[position[row]], float(similarity[row])) for row in worst[:_SHOWN_PAIRS]
        ),
        accuracy_policy_without={}
        if clean.all() or not clean.any()
        else {name: float(of_row[clean].mean()) for name, of_row in right.items()},
    )


def nearest(texts: Sequence[str], others: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The most similar of ``others`` for each text (scikit-learn's TF-IDF), and how similar it is, 1 being the same.

    Memory is linear in the texts: they are compared in blocks.

    Args:
        texts: At least one.
        others: At least one.

    Returns:
        Positions in ``others`` and cosines, each of shape (n_texts,).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    plain = [as_known(text) or _NOTHING for text in (*texts, *others)]
    matrix = grams.fit_transform(plain).tocsr()
    rows, columns = matrix[: len(texts)], matrix[len(texts) :].T.tocsr()
    block = max(1, _MOST_CELLS // len(others))
    position, cosine = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts))
    for start in range(0, len(texts), block):
        similarities = (rows[start : start + block] @ columns).tocsr()
        position[start : start + block] = np.asarray(similarities.argmax(axis=1)).ravel()
        cosine[start : start + block] = similarities.max(axis=1).toarray().ravel()
    return position, cosine
