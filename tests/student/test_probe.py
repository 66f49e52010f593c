"""The linear head that fine-tuning starts from."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from distill.student.calibrate import probabilities
from distill.student.probe import linear_probe, most_iterations
from distill.types import Task


@pytest.fixture
def vectors():
    values = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def answers(task, vectors, targets, weights=None):
    weights = np.ones(len(vectors), np.float32) if weights is None else weights
    weight, bias = linear_probe(task, vectors, targets, weights)
    return probabilities(task, vectors @ weight.numpy().T + bias.numpy())


def test_is_the_logistic_regression_of_scikit_learn(vectors):
    truth = vectors[:, :4].argmax(axis=1)
    weights = np.where(truth == 1, 2.0, 0.5).astype(np.float32)
    expected = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(vectors, truth, sample_weight=weights)
    found = answers(Task.SINGLE, vectors, np.eye(4, dtype=np.float32)[truth], weights)
    np.testing.assert_allclose(found, expected.predict_proba(vectors), atol=5e-3)


def test_multi_is_one_regression_a_label(vectors):
    targets = (vectors[:, :3] > 0).astype(np.float32)
    found = answers(Task.MULTI, vectors, targets)
    for label in range(3):
        expected = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(vectors, targets[:, label])
        np.testing.assert_allclose(found[:, label], expected.predict_proba(vectors)[:, 1], atol=5e-3)


def test_soft_targets_are_met_in_the_mean(vectors):
    targets = np.tile(np.asarray([0.7, 0.2, 0.1], np.float32), (len(vectors), 1))
    np.testing.assert_allclose(answers(Task.WEIGHTS, vectors, targets).mean(axis=0), targets[0], atol=1e-2)


def test_iterations_become_fewer_only_where_there_is_more_than_in_any_set_measured():
    assert most_iterations(6 * 15_100, 151) == most_iterations(60_000, 77) == most_iterations(1, 2) == 100
    assert most_iterations(5_000, 10_000) == 40
    assert most_iterations(200_000, 10_000) == 5
