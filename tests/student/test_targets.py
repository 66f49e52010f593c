"""Targets as an array and as what is not zero in it: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from distill.student import targets
from distill.student.soft_labels import mean_answer
from distill.student.targets import SparseTargets, highest, joined, likeliest, mapped, mean, mixed, stacked, taken
from distill.types import Task

SIZES = {"n": st.integers(1, 6), "n_labels": st.integers(2, 9), "seed": st.integers(0, 20)}


def rows(n, n_labels, seed):
    chance = np.random.default_rng(seed)
    dense = chance.dirichlet(np.ones(n_labels), n).astype(np.float32)
    return dense * (chance.random(dense.shape) < 0.5)


def sparse(dense):
    from scipy.sparse import csr_array

    return SparseTargets(csr_array(dense))


@given(**SIZES)
def test_both_forms_give_the_same_rows(n, n_labels, seed):
    dense = rows(n, n_labels, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "most_rows", lambda _: 0)
        found = stacked(list(dense), n_labels)
    assert isinstance(found, SparseTargets)
    assert (len(found), found.shape) == (n, dense.shape)
    chosen = np.random.default_rng(seed).integers(n, size=4)
    for wanted in (slice(None), slice(1, 3), chosen, chosen.tolist()):
        np.testing.assert_array_equal(found[wanted], dense[wanted])
        np.testing.assert_array_equal(taken(found, wanted)[:], dense[wanted])
        assert found[wanted].dtype == np.float32
    assert isinstance(stacked(list(dense), n_labels), np.ndarray)


@given(**SIZES, share=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_labels_and_answers_are_mixed_alike(n, n_labels, seed, share):
    answers, labels = rows(n + 2, n_labels, seed), rows(n, n_labels, seed + 100)
    expected = answers.copy()
    expected[:n] += np.float32(share) * (labels - answers[:n])
    np.testing.assert_array_equal(mixed(answers, labels, share), expected)
    for own in (labels, sparse(labels)):
        np.testing.assert_allclose(mixed(sparse(answers), own, share)[:], expected, atol=1e-7)


@given(**SIZES)
def test_a_mean_of_answers(n, n_labels, seed):
    several = [rows(n, n_labels, seed), rows(n, n_labels, seed + 1)]
    np.testing.assert_allclose(mean([sparse(each) for each in several])[:], np.mean(several, axis=0), atol=1e-7)
    np.testing.assert_allclose(mean(several), np.mean(several, axis=0), atol=1e-7)


def test_of_many_labels_the_likeliest_are_kept_and_softened(monkeypatch):
    monkeypatch.setattr(targets, "KEPT", 3)
    logits = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    kept = highest(logits)
    places = np.argsort(-logits, axis=1)[:, :3]
    answers = mean_answer(Task.SINGLE, [kept, kept], 2.0)[:]
    best = np.take_along_axis(logits, places, axis=1)
    np.testing.assert_allclose(np.take_along_axis(answers, places, axis=1), softmax(best / 2, axis=1), rtol=1e-5)
    assert (np.count_nonzero(answers, axis=1) == 3).all()
    np.testing.assert_allclose(mapped(kept, np.exp)[:].sum(axis=1), np.exp(best).sum(axis=1), rtol=1e-5)


@given(**SIZES)
def test_parts_are_joined_in_either_form(n, n_labels, seed):
    first, second = rows(n, n_labels, seed), rows(2, n_labels, seed + 1)
    whole = np.concatenate([first, second])
    forms = [(first, second), (sparse(first), second), (first, sparse(second)), (sparse(first), sparse(second))]
    for parts in forms:
        found = joined(parts)
        assert found[:].dtype == np.float32
        np.testing.assert_array_equal(found[:], whole)
    assert isinstance(joined(forms[0]), np.ndarray)


def test_arrays_that_are_too_large_together_keep_their_highest(monkeypatch):
    monkeypatch.setattr(targets, "KEPT", 2)
    monkeypatch.setattr(targets, "_MOST_CELLS", 20)
    parts = [np.random.default_rng(seed).dirichlet(np.ones(5), 3).astype(np.float32) for seed in range(2)]
    found = joined(parts)
    assert isinstance(found, SparseTargets)
    whole = np.concatenate(parts)
    expected = np.where(whole >= np.sort(whole, axis=1)[:, -2:-1], whole, 0)
    np.testing.assert_array_equal(found[:], expected)


@given(**SIZES)
def test_the_likeliest_label_in_either_form(n, n_labels, seed):
    dense = rows(n, n_labels, seed) + np.float32(0.01)
    np.testing.assert_array_equal(likeliest(dense), dense.argmax(axis=1))
    np.testing.assert_array_equal(likeliest(sparse(dense)), dense.argmax(axis=1))
    marked = np.where(dense.max(axis=1) >= 0.5, dense.argmax(axis=1), -1)
    np.testing.assert_array_equal(likeliest(dense, 0.5), marked)
    np.testing.assert_array_equal(likeliest(sparse(dense), 0.5), marked)
