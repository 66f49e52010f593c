"""How far students agree with the teacher in each task, and what they mix up: against the policy, the bench's figures, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.agreement import MEASURES, NEAR
from distill.benchmark.metrics import Answers, absolute_error, fidelity_figures
from distill.policy import Policy
from distill.types import Task

LABELS = ("a", "b", "c")
shares = st.floats(0, 1, width=32)
MULTI, WEIGHTS, SINGLE = (MEASURES[task] for task in (Task.MULTI, Task.WEIGHTS, Task.SINGLE))


def test_even_shares_are_no_doubt_and_even_odds_are():
    even = np.asarray([[0.3, 0.4, 0.3], [0.9, 0.1, 0.0]])
    assert SINGLE.unsure(even).tolist() == [True, False]
    assert WEIGHTS.unsure(even).tolist() == [False, False]
    assert MULTI.unsure(np.asarray([[0.9, 0.45, 0.0], [0.9, 0.1, 0.0]])).tolist() == [True, False]


def found(measure, answers, wanted):
    """What is mixed up, added up by pair in either order."""
    total = {}
    for each in measure.mistakes(np.asarray(answers, float), np.asarray(wanted)):
        pair = tuple(sorted(each.labels))
        mass, n_wrong = total.get(pair, (0.0, 0))
        total[pair] = (mass + each.mass, n_wrong + each.n_wrong)
    return {pair: each for pair, each in total.items() if each[0]}


def test_of_a_doubted_answer_the_likeliest_other_counts_however_unlikely():
    doubted, sure, wrong = [0.45, 0.2, 0.15, 0.2], [0.76, 0.24, 0.0, 0.0], [0.1, 0.4, 0.3, 0.2]
    assert found(SINGLE, [doubted, sure], [0, 0]) == {(0, 1): (pytest.approx(0.2), 0)}
    assert found(SINGLE, [wrong], [2]) == {(1, 2): (1.0, 1)}


def rows_of_weights(n):
    return arrays(np.float64, (n, 3), elements=st.floats(0.01, 1)).map(
        lambda rows: rows / rows.sum(axis=1, keepdims=True)
    )


@given(arrays(np.float32, (4, 3), elements=shares), st.tuples(shares, shares, shares))
def test_what_reaches_its_threshold_is_what_the_policy_chooses(probabilities, thresholds):
    policy = Policy(Task.MULTI, LABELS, thresholds=thresholds)
    stretched = MULTI.answers(probabilities, policy)
    chosen = [[name in each.intents for name in LABELS] for each in policy.decide_batch(probabilities)]
    assert ((stretched >= 0.5) == np.asarray(chosen)).all()
    assert ((stretched >= 0) & (stretched <= 1)).all()


@given(arrays(np.float32, (6, 3), elements=shares), arrays(np.float32, (6, 3), elements=shares))
def test_agreement_of_sets_is_the_bench_s_fidelity(own, teacher):
    policies = [Policy(Task.MULTI, LABELS, thresholds=(limit,) * 3) for limit in (0.4, 0.5)]
    student, labelled = (
        Answers.from_predictions(policy.decide_batch(each), LABELS)
        for policy, each in zip(policies, (own, teacher), strict=True)
    )
    agreement = MULTI.agreement(MULTI.answers(own, policies[0]), MULTI.given(teacher))
    assert agreement.mean() == pytest.approx(fidelity_figures(Task.MULTI, student, labelled)["fidelity"])


@given(rows_of_weights(5), rows_of_weights(5))
def test_agreement_of_weights_follows_from_the_absolute_error(own, teacher):
    agreement = WEIGHTS.agreement(own, WEIGHTS.given(teacher))
    assert agreement == pytest.approx(1 - 1.5 * absolute_error(teacher, own))
    assert agreement == pytest.approx(np.minimum(own, teacher).sum(axis=1))
    assert WEIGHTS.agreement(own, own) == pytest.approx(1)


@given(rows_of_weights(5), rows_of_weights(5))
@settings(max_examples=50)
def test_misplaced_weight_is_that_which_does_not_agree(own, teacher):
    lacking = 1 - WEIGHTS.agreement(own, teacher)
    mistakes = list(WEIGHTS.mistakes(own, teacher))
    assert sum(each.mass for each in mistakes) == pytest.approx(lacking[lacking >= NEAR].sum())
    assert sum(each.n_wrong for each in mistakes) == (own.argmax(axis=1) != teacher.argmax(axis=1)).sum()


def test_a_label_that_is_missed_is_mixed_up_with_what_is_chosen_in_its_place():
    assert found(MULTI, [[0.0, 1.0, 0.0]], [[True, False, False]]) == {(0, 1): (1.0, 1)}


def test_a_label_that_is_missed_beside_others_is_mixed_up_with_these():
    assert found(MULTI, [[0.0, 1.0, 1.0]], [[True, True, True]]) == {(0, 1): (0.5, 1), (0, 2): (0.5, 1)}


def test_a_label_that_is_wrongly_added_is_mixed_up_with_what_is_asked_for():
    assert found(MULTI, [[1.0, 1.0, 0.0]], [[False, True, False]]) == {(0, 1): (1.0, 1)}


def test_a_label_that_is_missed_or_given_alone_is_mixed_up_with_none():
    none = len(LABELS)
    assert found(MULTI, [[0.0, 0.0, 0.0]], [[True, False, False]]) == {(0, none): (1.0, 1)}
    assert found(MULTI, [[0.0, 0.0, 1.0]], [[False, False, False]]) == {(2, none): (1.0, 1)}


def test_a_near_mistake_counts_by_its_likelihood_and_a_far_one_does_not():
    assert found(MULTI, [[0.9, 0.4, 0.1]], [[True, False, False]]) == {(0, 1): (0.4, 0)}
    assert found(MULTI, [[0.7, 0.1, 0.1]], [[True, False, False]]) == {(0, 3): (pytest.approx(0.3), 0)}
    assert found(MULTI, [[0.9, 0.2, 0.1]], [[True, False, False]]) == {}


def test_errors_are_what_is_too_much_and_too_little():
    errors = MULTI.errors(np.array([[0.9, 0.1, 0.5]]), np.array([[False, True, True]]))
    assert errors.tolist() == [[1.0, -1.0, 0.0]]
    assert WEIGHTS.errors(np.array([[0.75, 0.25, 0.0]]), np.array([[0.5, 0.25, 0.25]])).tolist() == [[0.25, 0.0, -0.25]]


def test_a_student_is_unsure_of_a_set_where_a_label_is_near_its_threshold():
    assert MULTI.unsure(np.array([[0.9, 0.6, 0.0], [0.9, 0.1, 0.0], [0.9, 0.3, 0.0]])).tolist() == [True, False, True]


def test_the_interval_of_weights_holds_the_mean_and_of_one_query_says_nothing():
    differences = np.linspace(-0.1, 0.3, 21)
    low, high = WEIGHTS.interval(differences)
    assert low < differences.mean() < high
    assert WEIGHTS.interval(np.array([0.2])) == (-1.0, 1.0)


def test_one_intent_has_the_likeliest_mistake_of_each_query():
    answers = [[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0]]
    assert found(SINGLE, answers, [0, 0, 0]) == {(0, 1): (pytest.approx(1.4), 1)}
