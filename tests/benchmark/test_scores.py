from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve
from test_metrics import INTENTS, LABELS, answers_of, gold_of, random_case

from distill.benchmark.metrics import Answers, Gold
from distill.benchmark.scores import (
    _aurc_statistic,
    area_under_risk_coverage,
    calibration_noise_floor,
    reliability,
    reliability_bins,
    risk_coverage,
    score_figures,
)
from distill.calibration import expected_calibration_error
from distill.types import GoldQuery, Prediction, Reason, Task

cases = st.tuples(st.integers(0, 10_000), st.integers(1, 200))


def scores_and_right(case, decimals=9):
    seed, n = case
    rng = np.random.default_rng(seed)
    score = np.round(rng.random(n), decimals)
    return score, rng.random(n) < score


def test_the_bins_are_those_of_scikit_learns_calibration_curve():
    score, right = scores_and_right((3, 15 * 40))
    share, mean = calibration_curve(right, score, n_bins=15, strategy="quantile")
    bins = reliability_bins("static", score, right)
    assert [each.score for each in bins] == pytest.approx(mean.tolist(), abs=0.01)
    assert [each.accuracy for each in bins] == pytest.approx(share.tolist(), abs=0.05)
    assert {each.n for each in bins} == {40}
    assert all(each.accuracy_ci95[0] <= each.accuracy <= each.accuracy_ci95[1] for each in bins)


@settings(max_examples=20)
@given(cases)
def test_the_bins_add_up_to_the_error(case):
    score, right = scores_and_right(case)
    bins = reliability_bins("static", score, right)
    assert sum(each.n for each in bins) == len(score)
    gaps = sum(each.n * abs(each.accuracy - each.score) for each in bins) / len(score)
    assert expected_calibration_error(score, right) == pytest.approx(gaps)


def test_ece_of_calibrated_scores_is_near_its_noise_floor_and_of_boasting_ones_far_over_it():
    score, right = scores_and_right((0, 2000))
    floor, p95 = calibration_noise_floor(score)
    assert 0 < floor < p95
    assert expected_calibration_error(score, right) < 1.5 * p95
    assert expected_calibration_error(np.ones(2000), right) > 10 * p95


def test_the_noise_floor_is_the_mean_error_of_calibrated_scores_and_falls_with_their_number():
    few, many = np.random.default_rng(0).random(300), np.random.default_rng(0).random(30_000)
    rng = np.random.default_rng(5)
    errors = [expected_calibration_error(few, rng.random(300) < few) for _ in range(300)]
    floor, p95 = calibration_noise_floor(few)
    assert floor == pytest.approx(np.mean(errors), rel=0.1)
    assert p95 == pytest.approx(np.quantile(errors, 0.95), rel=0.15)
    assert calibration_noise_floor(many)[0] < floor / 5


def test_scores_without_doubt_leave_nothing_to_chance():
    assert calibration_noise_floor(np.ones(50)) == (0.0, 0.0)


@settings(max_examples=40)
@given(st.tuples(st.integers(0, 10_000), st.integers(1, 50)))
def test_risk_is_one_minus_scikit_learns_precision_at_every_score(case):
    seed, n = case
    names, probabilities = random_case(seed, n)
    answers, gold = answers_of(probabilities), gold_of(*names)
    curve = risk_coverage("static", Task.SINGLE, answers, gold)
    right = (answers.top == gold.intent) & ~gold.out_of_scope
    if not right.any():
        return
    precision, _, scores = precision_recall_curve(right, answers.score)
    at_score = dict(zip(scores.tolist(), (1 - precision[:-1]).tolist(), strict=True))
    assert [at_score[score] for score in curve.score] == pytest.approx(curve.risk)
    assert list(curve.coverage) == pytest.approx(np.arange(1, n + 1) / n)


@settings(max_examples=15)
@given(cases)
def test_aurc_is_the_mean_of_the_risks_whatever_the_order_of_equal_scores(case):
    score, right = scores_and_right(case, decimals=1)
    rng = np.random.default_rng(0)
    risks = []
    for _ in range(200):
        order = rng.permutation(len(score))
        order = order[np.argsort(-score[order], kind="stable")]
        risks.append((np.cumsum(~right[order]) / np.arange(1, len(order) + 1)).mean())
    found = area_under_risk_coverage(score, right)
    assert found == pytest.approx(np.mean(risks), abs=5 * np.std(risks) / np.sqrt(200) + 1e-9)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_the_interval_of_aurc_is_of_the_same_figure_over_resamples_equal_scores_or_not(decimals):
    score, right = scores_and_right((2, 150), decimals=decimals)
    rng = np.random.default_rng(1)
    drawn = rng.integers(150, size=(200, 150))
    expected = [area_under_risk_coverage(score[each], right[each]) for each in drawn]
    assert _aurc_statistic(score, right)(np.argsort(np.argsort(-score, kind="stable"))[drawn]) == pytest.approx(
        expected
    )


@settings(max_examples=20)
@given(cases, st.integers(0, 1))
def test_calibration_means_the_same_in_any_order_of_the_queries(case, decimals):
    score, right = scores_and_right(case, decimals=decimals)
    shuffled = np.random.default_rng(0).permutation(len(score))
    error = expected_calibration_error(score, right)
    assert expected_calibration_error(score[shuffled], right[shuffled]) == pytest.approx(error)
    found, again = reliability_bins("a", score, right), reliability_bins("a", score[shuffled], right[shuffled])
    assert [(each.n, each.accuracy) for each in again] == [(each.n, each.accuracy) for each in found]


def test_one_score_for_all_is_judged_by_the_share_that_is_right_however_gold_is_sorted():
    right = np.arange(450) < 30
    score = np.full(450, 0.06)
    assert expected_calibration_error(score, right) == pytest.approx(30 / 450 - 0.06)
    (one,) = reliability_bins("majority", score, right)
    assert (one.n, one.accuracy) == (450, pytest.approx(30 / 450))
    floor, _ = calibration_noise_floor(score)
    assert floor == pytest.approx(np.sqrt(2 / np.pi * 0.06 * 0.94 / 450), rel=0.1)  # mean of abs(normal)


def test_the_best_order_has_the_least_area_and_no_order_has_the_error_rate():
    right = np.asarray([True] * 80 + [False] * 20)
    falling = np.linspace(1, 0, 100)
    areas = [area_under_risk_coverage(score, right) for score in (falling, np.full(100, 0.5), falling[::-1])]
    assert areas == sorted(areas)
    assert areas[1] == pytest.approx(0.2)


def test_the_figures_of_scores_have_intervals_and_a_floor():
    names, probabilities = random_case(1, 200)
    figures = score_figures(Task.SINGLE, answers_of(probabilities), gold_of(*names))
    assert figures["aurc_ci95"][0] < figures["aurc"] < figures["aurc_ci95"][1]
    assert figures["ece_noise_floor"] < figures["ece_noise_floor_p95"]


def test_an_answer_to_an_out_of_scope_query_is_a_risk_and_rejecting_it_none():
    answers = answers_of([[0.9, 0.1, 0, 0], [0.6, 0.1, 0.1, 0.2], [0.1, 0.1, 0.1, 0.7]])
    curve = risk_coverage("static", Task.SINGLE, answers, gold_of("cancel", "oos", "oos"))
    assert curve.risk == pytest.approx((0, 1 / 2, 2 / 3))
    assert (curve.policy_coverage, curve.policy_risk) == pytest.approx((2 / 3, 1 / 2))


def test_a_long_curve_is_cut_to_fifty_points_and_ends_with_everything():
    names, probabilities = random_case(0, 700)
    curve = risk_coverage("static", Task.SINGLE, answers_of(probabilities), gold_of(*names))
    assert len(curve.coverage) == len(curve.risk) == len(curve.score) == 50
    assert curve.coverage[-1] == 1.0


def test_multi_scores_are_those_of_every_label_and_the_curve_is_about_whole_sets():
    gold = Gold.from_queries([GoldQuery("a", {"cancel": 1.0, "refund": 1.0}), GoldQuery("b", {})], INTENTS)
    answers = answers_of([[0.9, 0.8, 0.1], [0.2, 0.1, 0.6]], labels=INTENTS, task=Task.MULTI)
    assert sum(each.n for each in reliability("static", Task.MULTI, answers, gold)) == 6
    curve = risk_coverage("static", Task.MULTI, answers, gold)
    assert curve.score == pytest.approx((0.9 * 0.8 * 0.9, 0.8 * 0.9 * 0.6))
    assert curve.risk == (0.0, 0.5)
    assert (curve.policy_coverage, curve.policy_risk) == (1.0, 0.5)
    none = answers_of([[0.9, 0.8, 0.1], [0.2, 0.1, 0.3]], labels=INTENTS, task=Task.MULTI)
    curve = risk_coverage("static", Task.MULTI, none, gold)
    assert (curve.policy_coverage, curve.policy_risk) == (
        0.5,
        0.0,
    )  # an answer without an intent is not an accepted one


def test_weights_have_no_score_to_reject_by():
    gold = Gold.from_queries([GoldQuery("a", {"cancel": 1.0})], INTENTS)
    answers = answers_of([[0.8, 0.1, 0.1]], labels=INTENTS, task=Task.WEIGHTS)
    assert score_figures(Task.WEIGHTS, answers, gold) == {}
    assert reliability("static", Task.WEIGHTS, answers, gold) == []
    assert risk_coverage("static", Task.WEIGHTS, answers, gold) is None


def test_who_never_answered_has_no_figures_of_scores():
    failed = Prediction(None, 0.0, Reason.LOW_CONFIDENCE, None, labels=LABELS)
    answers = Answers.from_predictions([failed], LABELS, np.asarray([True]))
    assert score_figures(Task.SINGLE, answers, gold_of("cancel")) == {}
