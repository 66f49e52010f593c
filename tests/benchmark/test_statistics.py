from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, bootstrap

from distill.benchmark.statistics import (
    NonInferiority,
    _only_second_given,
    bootstrap_interval,
    compare_paired,
    judge_drop,
    mcnemar_p_value,
    mean_interval,
    paired_difference_interval,
    queries_needed,
    wilson_interval,
)

tables = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300)).filter(lambda t: sum(t) > 0)


def compare(only_student: int, only_teacher: int, both: int):
    student = [True] * only_student + [False] * only_teacher + [True] * both
    teacher = [False] * only_student + [True] * only_teacher + [True] * both
    return compare_paired(np.asarray(student), np.asarray(teacher))


@given(st.integers(1, 400), st.data())
def test_wilson_interval_is_the_closed_formula(n, data):
    n_right = data.draw(st.integers(0, n))
    z, share = 1.959963984540054, n_right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson_interval(n_right, n) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-9)


def test_of_nothing_and_of_a_few_there_is_no_interval():
    assert wilson_interval(0, 0) is None
    few, enough = np.random.default_rng(0).random(19), np.random.default_rng(0).random(20)
    assert mean_interval(np.zeros(0)) is mean_interval(few) is None
    assert mean_interval(enough) is not None
    assert bootstrap_interval([19, 90], lambda one, many: one.mean(-1) + many.mean(-1)) is None


def test_a_figure_that_chance_never_moves_has_no_interval():
    assert bootstrap_interval([20, 90], lambda one, _: np.ones(len(one))) is None
    assert mean_interval(np.zeros(20)) == (0, 0)


def test_the_bootstrap_of_a_mean_is_scipys_and_the_same_every_time():
    values = np.random.default_rng(0).exponential(size=80)
    expected = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
    assert mean_interval(values) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert mean_interval(values) == mean_interval(values)


def test_each_sample_is_drawn_from_on_its_own():
    seen = []

    def statistic(few, many):
        seen.append((few.shape[-1], many.shape[-1], few.max() < 30, many.max() < 70))
        return few.mean(axis=-1) - many.mean(axis=-1)

    low, high = bootstrap_interval([30, 70], statistic)
    assert low < 14.5 - 34.5 < high
    assert set(seen) == {(30, 70, True, True)}


def test_many_queries_are_drawn_in_batches_that_fit_memory():
    sizes = []

    def statistic(positions):
        sizes.append(positions.size)
        return positions[:, :10].mean(axis=1)

    bootstrap_interval([50_000], statistic)
    assert max(sizes) <= 2_000_000


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_tail(only_first, only_second):
    n, few = only_first + only_second, min(only_first, only_second)
    expected = min(1.0, 2 * binom.cdf(few, n, 0.5)) if n else 1.0
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(expected)


@given(tables)
def test_the_paired_interval_holds_the_difference_and_turns_with_the_order(table):
    first, second, _ = table
    n = sum(table)
    low, high = paired_difference_interval(first, second, n)
    assert -1 <= low <= (first - second) / n <= high <= 1
    assert low < high
    assert paired_difference_interval(second, first, n) == pytest.approx((-high, -low), abs=1e-9)


def test_the_paired_interval_of_a_published_example():
    """Airway reactivity in 21 children; Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), 2850-2875."""
    low, high = paired_difference_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def test_classifiers_that_never_differ_have_tangos_closed_interval():
    bound = 1.959963984540054**2 / (100 + 1.959963984540054**2)
    assert paired_difference_interval(0, 0, 100) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize(("first", "second", "n", "delta"), [(7, 3, 50, 0.1), (7, 3, 50, -0.2), (0, 9, 40, 0.05)])
def test_the_restricted_share_is_the_most_likely_one(first, second, n, delta):
    def cost(share):
        rest = 1 - 2 * share - delta
        return -(first * log(share + delta) + second * log(share) + (n - first - second) * log(rest))

    lowest = max(0.0, -delta) + 1e-12
    best = minimize_scalar(cost, bounds=(lowest, (1 - delta) / 2 - 1e-12), method="bounded", options={"xatol": 1e-12})
    assert _only_second_given(delta, first, second, n) == pytest.approx(best.x, abs=1e-6)


def test_the_paired_interval_agrees_with_the_bootstrap_where_there_is_much_data():
    comparison = compare(only_student=180, only_teacher=240, both=1580)
    differences = np.repeat([-1.0, 1.0, 0.0], [180, 240, 1580])
    drawn = bootstrap((differences,), np.mean, n_resamples=2000, batch=100, method="percentile", rng=0)
    expected = (drawn.confidence_interval.low, drawn.confidence_interval.high)
    assert comparison.drop_ci95 == pytest.approx(expected, abs=0.003)


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for first, second, _ in rng.multinomial(120, [0.08, 0.04, 0.88], size=400):
        low, high = paired_difference_interval(first, second, 120)
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 400 <= 0.985


@given(tables, st.floats(0, 0.5))
def test_the_verdict_says_where_the_interval_lies(table, limit):
    comparison = compare(*table)
    low, high = comparison.drop_ci95
    verdict = judge_drop(comparison, limit)
    assert (verdict is NonInferiority.SHOWN) == (high <= limit)
    assert (verdict is NonInferiority.REFUTED) == (low > limit)


def test_a_comparison_counts_who_was_right_alone():
    comparison = compare(only_student=2, only_teacher=5, both=93)
    assert (comparison.n, comparison.only_student, comparison.only_teacher) == (100, 2, 5)
    assert comparison.drop == pytest.approx(0.03)


@pytest.mark.parametrize("counts", [(18, 20, 362), (3, 8, 389), (60, 50, 290)])
def test_so_many_queries_would_show_it_in_four_cases_of_five(counts):
    comparison = compare(*counts)
    needed = queries_needed(comparison, 0.02)
    assert judge_drop(comparison, 0.02) is NonInferiority.NOT_SHOWN
    assert needed > comparison.n
    only_student, only_teacher, _ = np.random.default_rng(0).multinomial(needed, np.array(counts) / 400, size=1000).T
    highs = [paired_difference_interval(*each, needed)[1] for each in zip(only_teacher, only_student, strict=True)]
    assert 0.76 < np.mean(np.array(highs) <= 0.02) < 0.84


def test_no_number_of_queries_shows_what_is_not_so():
    assert queries_needed(compare(only_student=0, only_teacher=20, both=80), 0.1) is None
