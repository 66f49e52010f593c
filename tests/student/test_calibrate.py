"""Temperature scaling, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import log_loss

from distill.student import calibrate
from distill.student.calibrate import fit_temperature, negative_log_likelihood
from distill.types import Task


def _sample(seed, n=4_000, n_labels=4):
    chance = np.random.default_rng(seed)
    logits = chance.normal(scale=2, size=(n, n_labels)).astype(np.float32)
    true = (logits + chance.gumbel(size=logits.shape)).argmax(axis=1)  # distributed as softmax(logits)
    return logits, np.eye(n_labels, dtype=np.float32)[true]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_finds_the_factor_that_was_applied(factor):
    logits, targets = _sample(0)
    assert fit_temperature(Task.SINGLE, logits * np.float32(factor), targets) == pytest.approx(factor, rel=0.08)


@pytest.mark.parametrize("task", [Task.MULTI, Task.WEIGHTS])
def test_never_worse_than_none(task):
    logits, targets = _sample(1)
    temperature = fit_temperature(task, logits * 4, targets)
    assert negative_log_likelihood(task, logits * 4 / temperature, targets) < negative_log_likelihood(
        task, logits * 4, targets
    )


def test_few_examples_are_not_fitted():
    logits, targets = _sample(2, n=19)
    assert fit_temperature(Task.SINGLE, logits, targets) == 1.0


def test_where_every_answer_is_right_scores_are_not_sharpened_without_bound():
    logits, _ = _sample(3, n=40)
    targets = np.eye(4, dtype=np.float32)[logits.argmax(axis=1)]
    expected = minimize(
        lambda t: log_loss(targets.argmax(1), softmax(logits / np.exp(t[0]), axis=1)) * 40 + t[0] ** 2 / 2, [0.0]
    )
    assert 0.1 < fit_temperature(Task.SINGLE, logits, targets) == pytest.approx(np.exp(expected.x[0]), rel=1e-3)


def test_what_has_no_label_says_nothing():
    logits, targets = _sample(4, n=50)
    weights = np.random.default_rng(0).uniform(0.5, 2, 100).astype(np.float32)
    others, none = 9 * np.ones((50, 4), np.float32), np.zeros((50, 4), np.float32)
    both = np.concatenate([logits, others]), np.concatenate([targets, none])
    assert fit_temperature(Task.SINGLE, *both, weights) == fit_temperature(Task.SINGLE, logits, targets, weights[:50])
    assert fit_temperature(Task.SINGLE, np.tile(others, (2, 1)), np.tile(none, (2, 1))) == 1.0


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_log_likelihood_is_scikit_learns(seed, n_labels):
    logits, targets = _sample(seed, n=30, n_labels=n_labels)
    weights = np.random.default_rng(seed).uniform(0.1, 2, 30).astype(np.float32)
    expected = log_loss(
        targets.argmax(1),
        softmax(logits.astype(float), axis=1),
        labels=range(n_labels),
        sample_weight=weights,
    )
    assert negative_log_likelihood(Task.SINGLE, logits, targets, weights) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_rows_a_few_at_a_time_give_the_same_number(monkeypatch, task):
    logits, targets = _sample(1, n=50, n_labels=7)
    weights = np.random.default_rng(0).random(50).astype(np.float32)
    whole = negative_log_likelihood(task, logits, targets, weights)
    monkeypatch.setattr(calibrate, "_CELLS_AT_ONCE", 21)
    assert negative_log_likelihood(task, logits, targets, weights) == whole
