"""Which examples are held out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from distill.split import HELD_OUT_SHARE, stratified_holdout


def strata_of(*counts):
    """Strata of so many members each, in a shuffled order."""
    strata = [f"intent {number}" for number, count in enumerate(counts) for _ in range(count)]
    return np.random.default_rng(0).permutation(strata).tolist()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(0, 3))
def test_never_more_than_a_fifth_is_held_out_and_no_stratum_is_held_out_whole(counts, seed):
    strata = strata_of(*counts)
    kept, held_out = stratified_holdout(strata, HELD_OUT_SHARE, seed)
    assert sorted(kept + held_out) == list(range(len(strata)))
    assert len(held_out) <= round(0.2 * len(strata))
    assert {strata[each] for each in kept} == set(strata)
    assert (kept, held_out) == stratified_holdout(strata, HELD_OUT_SHARE, seed)


@pytest.mark.parametrize("counts", [(10,) * 77, (100,) * 150, (9, 10, 35, 170, 187), (12,) * 4, (5,) * 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_about_ten_of_each_intent_the_split_is_scikit_learns(counts, seed):
    strata = strata_of(*counts)
    _, codes = np.unique(strata, return_inverse=True)
    size = max(round(HELD_OUT_SHARE * len(strata)), len(counts))
    kept, held_out = train_test_split(range(len(strata)), test_size=size, stratify=codes, random_state=seed)
    assert stratified_holdout(strata, HELD_OUT_SHARE, seed) == (sorted(kept), sorted(held_out))


def test_with_few_of_each_the_largest_strata_come_first():
    strata = strata_of(*(2,) * 60, *(3,) * 10, 40)
    _, held_out = stratified_holdout(strata, HELD_OUT_SHARE, 0)
    found = Counter(strata[each] for each in held_out)
    assert len(held_out) == 38
    assert found["intent 70"] == 4
    assert all(found[f"intent {number}"] == 1 for number in range(60, 70))
    others = [stratified_holdout(strata, HELD_OUT_SHARE, seed)[1] for seed in range(1, 4)]
    assert all(each != held_out for each in others)


@pytest.mark.parametrize("counts", [(1,) * 30, (2,), ()])
def test_nothing_is_held_out_where_nothing_can_be_spared(counts):
    strata = strata_of(*counts)
    assert stratified_holdout(strata, HELD_OUT_SHARE, 0) == (list(range(len(strata))), [])


def test_half_of_pairs_can_be_set_aside():
    kept, held_out = stratified_holdout(strata_of(2, 2, 2), 0.5, 0)
    assert len(kept) == len(held_out) == 3
