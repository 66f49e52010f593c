"""Teacher and evidence as one label: what must hold whatever they say, and that both together are better than either."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from distill.teacher.combine import Combination, Vote, fit_combination, fit_vote

N_LABELS = 8


def one_hot(labels, n_labels=N_LABELS):
    return np.eye(n_labels, dtype=np.float32)[labels]


def answers(right, accuracy, chance, n_labels=N_LABELS):
    """Right with some probability, another label otherwise."""
    other = (right + chance.integers(1, n_labels, len(right))) % n_labels
    return np.where(chance.random(len(right)) < accuracy, right, other)


def votes_of(labels, share=0.9, n_labels=N_LABELS):
    return share * one_hot(labels, n_labels) + (1 - share) / n_labels


def right_in(accuracy, n_examples=400):
    """A vote that was right on so many known examples."""
    return Vote(20.0, 0.05, accuracy, n_examples)


def scene(teacher, evidence, n=2_000, seed=0):
    chance = np.random.default_rng(seed)
    right = chance.integers(0, N_LABELS, n)
    return right, one_hot(answers(right, teacher, chance)), votes_of(answers(right, evidence, chance), evidence)


# --- the vote --------------------------------------------------------------------------------------------------------


def test_a_vote_is_the_softmax_of_cosines_summed_by_label():
    cosines = np.asarray([[0.9, 0.7, 0.1], [0.2, 0.1, -np.inf]], np.float32)
    labels = np.asarray([[2, 0, 2], [1, 1, 0]])
    shares = Vote(10.0, 0.0, 1.0, 9)(cosines, labels, 3)
    weights = softmax(10.0 * cosines[0].astype(float))
    np.testing.assert_allclose(shares[0], [weights[1], 0, weights[0] + weights[2]], atol=1e-9)
    np.testing.assert_allclose(shares[1], [0, 1, 0])
    np.testing.assert_allclose(Vote(10.0, 0.3, 1.0, 9)(cosines, labels, 3), 0.7 * shares + 0.1)


@pytest.mark.parametrize("cosines", [np.full((1, 2), -np.inf, np.float32), np.zeros((1, 0), np.float32)])
def test_where_nobody_votes_all_labels_are_alike(cosines):
    np.testing.assert_allclose(Vote(10.0, 0.1, 1.0, 9)(cosines, np.zeros(cosines.shape, int), 4), 0.25)


def test_the_vote_is_sharp_where_the_nearest_is_right_and_doubts_where_it_is_not():
    own = np.repeat([0, 1], 20)
    labels = np.stack([own, 1 - own], axis=1)
    near = np.tile(np.asarray([[0.9, 0.5]], np.float32), (40, 1))
    right, wrong = fit_vote(near, labels, own, 2), fit_vote(near, labels[:, ::-1], own, 2)
    assert (right.accuracy, wrong.accuracy) == (1.0, 0.0)
    assert right.doubt < wrong.doubt
    assert right.sharpness > wrong.sharpness


def test_without_two_examples_of_a_label_nothing_can_be_left_out():
    assert fit_vote(np.zeros((3, 2), np.float32), np.asarray([[1, 2], [0, 2], [0, 1]]), np.arange(3), 3) is None


# --- the combination -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("teacher", "evidence"), [(0.5, 0.7), (0.64, 0.72), (0.9, 0.7), (0.5, 0.9)])
def test_both_together_are_better_than_either(teacher, evidence):
    right, targets, votes = scene(teacher, evidence)
    both = fit_combination(targets, votes, np.arange(N_LABELS), right_in(evidence))
    assert both.teacher_accuracy == pytest.approx(teacher, abs=0.04)
    label = both(targets, votes).argmax(axis=1)
    alone = max((each.argmax(axis=1) == right).mean() for each in (targets, votes))
    assert (label == right).mean() > alone - 0.005


def test_a_teacher_with_a_habit_is_seen_through():
    """It says 1 for every 0: the evidence is weaker over all, but the habit shows."""
    chance = np.random.default_rng(1)
    right = chance.integers(0, N_LABELS, 4_000)
    targets = one_hot(np.where(right == 0, 1, right))
    votes = votes_of(answers(right, 0.7, chance), 0.7)
    both = fit_combination(targets, votes, np.arange(N_LABELS), right_in(0.7))
    assert both.likelihood[0, 1] > 2 * both.likelihood[0, 2]
    assert (both(targets, votes).argmax(axis=1) == right).mean() > 0.93


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.4, 0.55]))
def test_a_teacher_much_better_than_its_evidence_keeps_its_answers(seed, evidence):
    _, targets, votes = scene(0.985, evidence, n=400, seed=seed)
    both = fit_combination(targets, votes, np.arange(N_LABELS), right_in(evidence))
    combined = both(targets, votes)
    assert (combined.argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.97
    assert np.abs(combined - targets).max(axis=1).mean() < 0.2


@pytest.mark.parametrize(("n_queries", "n_examples"), [(10, 400), (2_000, 12)])
def test_where_little_was_seen_the_teacher_is_taken_at_its_word(n_queries, n_examples):
    _, targets, votes = scene(0.5, 0.6, n=n_queries)
    both = fit_combination(targets, votes, np.arange(N_LABELS), right_in(0.6, n_examples))
    assert both.teacher_accuracy > 0.7


@given(st.integers(0, 10_000))
def test_evidence_that_says_nothing_changes_no_answer(seed):
    chance = np.random.default_rng(seed)
    targets = one_hot(chance.integers(0, N_LABELS, 50))
    votes = np.full((50, N_LABELS), 1 / N_LABELS)
    assert fit_combination(targets, votes, np.arange(N_LABELS), right_in(1 / N_LABELS)) is None
    both = fit_combination(targets, votes, np.arange(N_LABELS), right_in(0.8))
    assert (both(targets, votes).argmax(axis=1) == targets.argmax(axis=1)).all()


@given(st.integers(0, 10_000))
def test_what_is_combined_is_a_distribution_and_keeps_what_lies_outside(seed):
    chance = np.random.default_rng(seed)
    covered = np.sort(chance.choice(N_LABELS, chance.integers(2, N_LABELS), replace=False))
    targets = chance.dirichlet(np.full(N_LABELS, 0.3), 60).astype(np.float32)
    targets[:5] = one_hot(chance.integers(0, N_LABELS, 5))
    votes = chance.dirichlet(np.ones(len(covered)), 60) * 0.9 + 0.1 / len(covered)
    both = fit_combination(targets, votes, covered, right_in(0.6))
    if both is None:
        return
    combined = both(targets, votes)
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined.sum(axis=1), 1.0, atol=1e-5)
    assert (combined >= 0).all()
    outside = np.setdiff1d(np.arange(N_LABELS), covered)
    np.testing.assert_array_equal(combined[:, outside], targets[:, outside])


@given(st.integers(0, 10_000))
def test_the_order_of_labels_and_of_queries_does_not_matter(seed):
    chance = np.random.default_rng(seed)
    _, targets, votes = scene(0.6, 0.7, n=80, seed=seed)
    labels, queries = chance.permutation(N_LABELS), chance.permutation(80)
    everything = np.arange(N_LABELS)
    plain = fit_combination(targets, votes, everything, right_in(0.7))(targets, votes)
    moved_targets, moved_votes = targets[queries][:, labels], votes[queries][:, labels]
    moved = fit_combination(moved_targets, moved_votes, everything, right_in(0.7))(moved_targets, moved_votes)
    np.testing.assert_allclose(moved, plain[queries][:, labels], atol=1e-5)


def test_more_evidence_for_a_label_never_makes_it_less_likely():
    both = Combination(np.arange(3), 0.7, 0.7, None)
    targets = one_hot([1], 3)
    shares = [both(targets, np.asarray([[1 - 2 * share, share, share]]))[0] for share in np.linspace(0.01, 0.49, 20)]
    assert (np.diff([share[0] for share in shares]) <= 0).all()


def test_many_labels_have_one_rate():
    n_labels = 1_001
    right = np.arange(n_labels)
    both = fit_combination(one_hot(right, n_labels), votes_of(right, 0.9, n_labels), np.arange(n_labels), right_in(0.8))
    assert both.likelihood is None
    assert (both(one_hot(right, n_labels), votes_of(right, 0.9, n_labels)).argmax(axis=1) == right).all()


@pytest.mark.parametrize("covered", [[], [3]])
def test_nothing_is_combined_where_fewer_than_two_labels_are_known(covered):
    targets = one_hot([3, 3, 1])
    assert fit_combination(targets, np.ones((3, len(covered))), np.asarray(covered, int), right_in(0.9)) is None
