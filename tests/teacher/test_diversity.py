from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist

from distill.teacher.diversity import distinct_2, mean_distance


@given(arrays(np.float32, st.tuples(st.integers(2, 30), st.integers(1, 8)), elements=st.floats(-1, 1, width=32)))
def test_the_mean_distance_is_that_over_all_pairs(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where(
        lengths > 1e-3, vectors / np.maximum(lengths, 1e-3), np.eye(1, vectors.shape[1], dtype=np.float32)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert mean_distance(vectors) == pytest.approx(float(pdist(vectors, "cosine").mean()), abs=1e-5)


def test_of_a_text_without_tokens_the_distance_to_any_other_is_one():
    assert mean_distance(np.asarray([[0, 0], [1, 0], [1, 0]], np.float32)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_pair_there_is_no_distance(n):
    assert mean_distance(np.ones((n, 1), np.float32)) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["where is it", "Where is it?"], 0.5),
        (["where is it", "cancel my order"], 1.0),
        (["a b a b"], 2 / 3),
        (["one", "two"], None),
        ([], None),
    ],
)
def test_distinct_2(texts, expected):
    assert distinct_2(texts) == (None if expected is None else pytest.approx(expected))
