from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from distill.benchmark import leakage
from distill.benchmark.leakage import NEAR, find_leakage, nearest
from distill.types import GoldQuery

TRAINING = [
    "how do i unlock my account",
    "please tell me when my water bill is due",
    "what is my routing number",
    "transfer fifty dollars to savings",
    "is my card frozen",
]


def gold_of(*texts):
    return [GoldQuery(text, {"any": 1.0}) for text in texts]


def found_in(*texts, right=None):
    return find_leakage(gold_of(*texts), TRAINING, right or {})


def test_the_same_query_is_exact_and_nearly_the_same_is_near():
    found = found_in("Is my card FROZEN?", "what's my routing number", "how tall is mount everest")
    assert (found.n_exact, found.n_near) == (1, 1)
    (pair,) = found.pairs
    assert (pair.gold, pair.training) == ("what's my routing number", "what is my routing number")
    assert NEAR <= pair.similarity < 1


def test_similarity_is_scikit_learns_cosine_whatever_the_blocks(monkeypatch):
    texts = ["unlock the account", "water bill", "dollars to my savings", "what a card"]
    monkeypatch.setattr(leakage, "_MOST_CELLS", 7)
    position, similarity = nearest(texts, TRAINING)
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(texts + TRAINING)
    expected = cosine_similarity(grams.transform(texts), grams.transform(TRAINING))
    assert position.tolist() == expected.argmax(axis=1).tolist()
    assert similarity == pytest.approx(expected.max(axis=1), abs=1e-5)


def test_accuracy_is_given_without_what_was_leaked():
    right = {"static": np.asarray([True, True, False, True])}
    texts = ("is my card frozen", "what's my routing number", "a joke", "the weather")
    assert found_in(*texts, right=right).accuracy_policy_without == {"static": 0.5}


def test_where_nothing_or_everything_is_leaked_there_is_no_second_accuracy():
    right = {"static": np.asarray([True])}
    assert found_in("a joke", right=right).accuracy_policy_without == {}
    assert found_in("is my card frozen", right=right).accuracy_policy_without == {}


def test_fifty_pairs_are_named_and_all_are_counted():
    many = [f"what's my routing number {n}" for n in range(60)]
    found = find_leakage(gold_of(*many), [f"what is my routing number {n}" for n in range(60)], {})
    assert (found.n_near, len(found.pairs)) == (60, 50)
    similarities = [pair.similarity for pair in found.pairs]
    assert similarities == sorted(similarities, reverse=True)


def test_texts_without_a_letter_do_not_matter():
    found = find_leakage(gold_of("?!", "a joke"), ["...", "is my card frozen"], {})
    assert (found.n_exact, found.n_near) == (1, 0)


def test_other_emoji_are_other_queries():
    assert (
        (found := find_leakage(gold_of("👍", "a joke"), ["👎", "is my card frozen"], {})).n_near == found.n_exact == 0
    )
    assert find_leakage(gold_of("👍", "a joke"), ["👍!", "is my card frozen"], {}).n_exact == 1


@pytest.mark.parametrize(("gold", "training"), [([], TRAINING), (gold_of("a joke"), [])])
def test_nothing_to_compare(gold, training):
    assert find_leakage(gold, training, {}) is None
