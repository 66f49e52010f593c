"""Doubtful labels of every task: planted errors come first, and what is said of them follows from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from distill import doubt as module
from distill.doubt import find_doubts, given_decisions, labels_mislead, probable_labels, unanimity
from distill.types import Task

N_WRONG = 10


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of small products would wait for each other's processors."""
    with threadpool_limits(1):
        yield


def queries(targets, seed, noise=0.1, dimension=12):
    """Unit vectors that the targets explain but for some noise."""
    chance = np.random.default_rng(seed)
    directions = np.linalg.qr(chance.normal(size=(dimension, dimension)))[0][: targets.shape[1] + 1]
    vectors = np.column_stack([targets, 0.3 * np.ones(len(targets))]) @ directions
    vectors += chance.normal(scale=noise, size=vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def some_sets(n=160, n_labels=5, seed=0):
    """None, one or two labels a query."""
    chance = np.random.default_rng(seed)
    targets = np.zeros((n, n_labels), np.float32)
    for row in range(n):
        targets[row, chance.permutation(n_labels)[: row % 3]] = 1.0
    return targets


def some_weights(n=160, n_labels=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(n_labels, 0.6), n).astype(np.float32)


def wrong_sets(targets, seed):
    """The targets with one intent too few, too many, or another in its place; and the rows in which it is so."""
    chance, given_targets = np.random.default_rng(seed + 100), targets.copy()
    rows = chance.permutation(len(targets))[:N_WRONG]
    for row in rows:
        given_targets[row, chance.integers(targets.shape[1])] += 1.0
        if targets[row].any() and row % 2:
            given_targets[row, targets[row].argmax()] += 1.0
    return given_targets % 2, np.flatnonzero((given_targets % 2 != targets).any(axis=1))


def wrong_weights(targets, seed):
    """The targets, some of them turned so that most of the weight stands elsewhere; and the rows in which it is so."""
    chance, given_targets = np.random.default_rng(seed + 100), targets.copy()
    clear = np.flatnonzero(targets.max(axis=1) > 0.7)
    rows = chance.permutation(clear)[:N_WRONG]
    given_targets[rows] = np.roll(targets[rows], 1, axis=1)
    return given_targets, np.sort(rows)


MADE_UP = [(Task.MULTI, some_sets, wrong_sets), (Task.WEIGHTS, some_weights, wrong_weights)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_planted_errors_are_listed_first(task, make, spoil, seed):
    targets = make(seed=seed)
    given_targets, wrong = spoil(targets, seed)
    found = find_doubts(queries(targets, seed), given_targets, task)
    assert len(wrong) >= N_WRONG - 1
    first = np.argsort(found.margin, kind="stable")[: len(wrong)]
    assert np.isin(first, wrong).mean() >= 0.8  # by chance 0.06
    suspects = np.flatnonzero(found.is_suspect)
    assert np.isin(suspects, wrong).mean() >= 0.8
    assert np.isin(wrong, suspects).mean() >= 0.7
    assert found.estimated_wrong is None
    assert (found.margin[suspects] < 0).all()


@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_what_is_suggested_is_nearer_to_the_truth_than_what_was_given(task, make, spoil):
    targets = make()
    given_targets, wrong = spoil(targets, 0)
    found = find_doubts(queries(targets, 0), given_targets, task)
    wrong = wrong[found.is_suspect[wrong]]
    before, after = (np.abs(each[wrong] - targets[wrong]).sum(axis=1) for each in (given_targets, found.instead))
    assert (after < before).mean() >= 0.8
    assert found.instead.shape == targets.shape


@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_every_model_that_is_announced_is_told_of(task, make, spoil):
    assert spoil
    targets, fitted = make(), []
    find_doubts(queries(targets, 0), targets, task, on_fitted=lambda: fitted.append(1))
    assert len(fitted) == module.n_models(targets, task) > 0


@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_where_nothing_is_wrong_next_to_nothing_is_suspected(task, make, spoil):
    targets = make()
    assert spoil
    assert find_doubts(queries(targets, 0, noise=0.02), targets, task).is_suspect.sum() <= 2


def test_for_a_label_that_is_given_once_nothing_counts():
    """No other row taught it, so nothing is ever given to it, and any probability would reach such a threshold."""
    chance = np.random.default_rng(0)
    targets = np.eye(4, dtype=np.float32)[np.repeat([0, 1, 2], 40)]
    alone = np.eye(4, dtype=np.float32)[[3]]
    vectors = queries(np.concatenate([targets, alone]), 0, noise=0.3)
    found = find_doubts(vectors, np.concatenate([targets, alone]), Task.SINGLE)
    before = find_doubts(vectors[:-1], targets, Task.SINGLE)
    assert before.estimated_wrong <= 3
    assert found.estimated_wrong <= before.estimated_wrong + 1
    probabilities = chance.dirichlet(np.ones(4), 121)
    probabilities[:, 3] = 0.0
    joint = module.confident_joint(probabilities, np.concatenate([targets, alone]).argmax(axis=1))
    assert joint[:3, 3].sum() == 0


def test_the_doubted_intents_are_named():
    targets = some_sets()
    given_targets = targets.copy()
    lack = np.flatnonzero(targets[:, 2] == 1)[:4]
    have = np.flatnonzero((targets[:, 3] == 0) & (targets[:, 2] == 0))[:4]
    given_targets[lack, 2], given_targets[have, 3] = 0.0, 1.0
    found = find_doubts(queries(targets, 0, noise=0.05), given_targets, Task.MULTI)
    planted = {*((row, 2) for row in lack), *((row, 3) for row in have)}
    doubted = {tuple(pair) for pair in np.argwhere(found.is_doubted)}
    assert len(doubted & planted) >= 7
    assert len(doubted) <= 8
    rows = [row for row, _ in sorted(doubted & planted)]
    np.testing.assert_array_equal(found.instead[rows], targets[rows])
    assert found.subject[rows].tolist() == [label for _, label in sorted(doubted & planted)]
    assert found.n_decided.tolist() == [len(targets)] * 5


def test_a_query_is_as_plausible_as_its_least_plausible_decision():
    """Against scikit-learn, label by label."""
    targets = some_sets(n=100)
    vectors = queries(targets, 0)
    found = find_doubts(vectors, targets, Task.MULTI, seed=3)
    least = np.ones(len(targets))
    for column in targets.T:
        folds = module._stratified_folds(column.astype(int), 3, 5)
        for fold in range(5):
            model = LogisticRegression(C=3.0, max_iter=200).fit(vectors[folds != fold], column[folds != fold])
            present = model.predict_proba(vectors[folds == fold])[:, 1]
            given_probability = np.where(column[folds == fold] == 1, present, 1 - present)
            least[folds == fold] = np.minimum(least[folds == fold], given_probability)
    np.testing.assert_allclose(found.self_confidence, least, atol=1e-3)


def test_an_absence_has_to_be_likelier_than_a_presence_where_models_are_surer_of_it():
    mean = np.asarray([[0.9, 0.1], [0.8, 0.2], [1.0, 0.0], [0.7, 0.3], [0.5, 0.5]])
    given_options = np.eye(2)[[0, 0, 0, 1, 1]]
    verdict = module._judge_presence(mean, given_options)
    np.testing.assert_allclose(verdict.margin, [0.8 - 0.5, 0.6 - 0.5, 1.0 - 0.5, -0.4, 0.0])  # 0.9 and 0.4 in the mean


@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_a_label_has_no_part_in_what_is_said_of_its_own_query(task, make, spoil):
    """Labels that nothing explains, in so many dimensions that each query could be learnt by heart."""
    assert spoil
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(80, 300)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = make(n=80)
    found = find_doubts(vectors, targets, task)
    assert found.self_confidence.mean() < 0.7
    assert found.neighbours.mean() < 0.7


def test_an_intent_that_no_other_query_has_is_not_judged():
    targets = some_sets()
    alone = np.zeros((len(targets), 1), np.float32)
    alone[7] = 1.0
    found = find_doubts(queries(targets, 0, noise=0.02), np.hstack([targets, alone]), Task.MULTI)
    assert np.flatnonzero(~found.is_judged).tolist() == [7]
    assert not found.is_doubted[7, -1]


def test_many_intents_of_a_query_or_two_are_looked_at_without_a_word():
    vectors, targets = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), np.eye(30, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    given = np.concatenate([targets, targets[:10]])
    assert find_doubts(vectors, given, Task.SINGLE).is_doubted.shape[0] == len(given)


def test_an_intent_that_no_query_has_is_no_trouble():
    targets = np.hstack([some_sets(), np.zeros((160, 1), np.float32)])
    assert not find_doubts(queries(some_sets(), 0, noise=0.02), targets, Task.MULTI).is_doubted[:, -1].any()


@pytest.mark.parametrize(("task", "make", "spoil"), MADE_UP)
def test_samples_that_disagree_are_listed_where_the_other_queries_do_not_speak_for_the_label(task, make, spoil):
    targets = make()
    assert spoil
    vectors = queries(targets, 0, noise=0.02)
    agreement = np.ones(given_decisions(targets, task).shape[:2])
    before = find_doubts(vectors, targets, task, agreement=agreement)
    np.testing.assert_array_equal(before.is_suspect, find_doubts(vectors, targets, task).is_suspect)
    least = int(np.where(before.is_suspect, np.inf, before.margin).argmin())
    agreement[least] = 0.0
    assert find_doubts(vectors, targets, task, agreement=agreement).is_suspect[least]


# --- agreement of samples --------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(votes=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_samples_of_one_intent_agree_as_far_as_they_name_the_commonest(votes):
    samples = np.eye(4, dtype=np.float32)[votes]
    agreement = unanimity(samples, samples.mean(axis=0), Task.SINGLE)
    assert agreement == pytest.approx([max(map(votes.count, votes)) / len(votes)])


def test_samples_of_several_intents_agree_intent_by_intent():
    samples = np.asarray([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 1, 1]], np.float32)
    assert unanimity(samples, samples.mean(axis=0), Task.MULTI).tolist() == [1.0, 0.75, 0.5]


@settings(max_examples=50)
@given(n=st.integers(1, 6), seed=st.integers(0, 99))
def test_samples_of_weights_agree_as_far_as_their_weight_is_that_of_the_label(n, seed):
    samples = np.random.default_rng(seed).dirichlet(np.ones(3), n).astype(np.float32)
    label = samples.mean(axis=0)
    total_variation = np.abs(samples - label).sum(axis=1) / 2
    assert unanimity(samples, label, Task.WEIGHTS) == pytest.approx([1 - total_variation.mean()], abs=1e-5)


# --- what misleads, and what is probable ------------------------------------------------------------------------------


def some_labels(n=900, n_labels=6, seed=0):
    return np.eye(n_labels, dtype=np.float32)[np.random.default_rng(seed).integers(n_labels, size=n)]


def turned(targets, share, seed=0):
    """So many labels turned to the next one, as when one intent is taken for another."""
    rows = np.random.default_rng(seed + 50).permutation(len(targets))[: round(share * len(targets))]
    given_targets = targets.copy()
    given_targets[rows] = np.roll(targets[rows], 1, axis=1)
    return given_targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.1, 0.4, 0.8])
def test_right_labels_do_not_mislead_however_hard_they_are_to_tell(noise, seed):
    targets = some_labels(seed=seed)
    assert not labels_mislead(queries(targets, seed, noise=noise), targets)


@pytest.mark.parametrize("seed", range(3))
def test_right_labels_do_not_mislead_where_pairs_of_them_lie_near_each_other(seed):
    """Where the same queries are listed and asked, leaving out those that disagree makes the others agree: 4.8 to 5.4 standard errors here."""
    chance = np.random.default_rng(seed)
    means = chance.normal(size=(12, 48))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    means[1::2] = means[::2] + 0.5 * means[1::2]
    labels = chance.integers(12, size=3000)
    vectors = means[labels] + 1.8 / np.sqrt(48) * chance.normal(size=(3000, 48))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert not labels_mislead(vectors.astype(np.float32), np.eye(12, dtype=np.float32)[labels])


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_which_one_in_six_is_wrong_mislead(seed):
    targets = some_labels(seed=seed)
    assert labels_mislead(queries(targets, seed, noise=0.3), turned(targets, 1 / 6, seed))


def test_what_is_probable_is_nearer_to_the_truth_than_what_was_given():
    targets = some_labels()
    given_targets = turned(targets, 0.15)
    vectors = queries(targets, 0, noise=0.25), queries(targets, 1, noise=0.25)
    wrong = []
    for views in (vectors[:1], vectors):
        found = probable_labels(views, given_targets)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
        wrong.append(np.mean(found.argmax(axis=1) != targets.argmax(axis=1)))
        assert np.mean(found[targets > 0]) > np.mean(given_targets[targets > 0])
    assert wrong[0] < 0.08
    assert wrong[1] < 0.04  # two encoders see more than one


def test_what_is_probable_follows_from_bayes_rule(monkeypatch):
    chance = np.random.default_rng(0)
    view, joint = chance.dirichlet(np.ones(4), 30), chance.uniform(size=(4, 4)) * 30
    monkeypatch.setattr(module, "_out_of_fold", lambda *_: view)
    monkeypatch.setattr(module, "_of_neighbours", lambda *_: view[:, None])
    monkeypatch.setattr(module, "confident_joint", lambda *_: joint)
    monkeypatch.setattr(module, "_LEAST_LIKELY", 0.0)
    targets = chance.dirichlet(np.full(4, 0.3), 30).astype(np.float32)
    found = probable_labels([np.zeros((30, 2), np.float32)], targets)
    for row, expected in enumerate(found):
        total = np.zeros(4)
        for label, share in enumerate(targets[row]):
            odds = np.asarray([view[row, true] * joint[label, true] / joint[:, true].sum() for true in range(4)])
            total += share * odds / odds.sum()
        np.testing.assert_allclose(expected, total, atol=1e-5)
