from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from distill.benchmark.gates import judge_gates
from distill.benchmark.statistics import compare_paired
from distill.types import BenchRow


def compare(only_student, only_teacher, both):
    student = np.asarray([True] * only_student + [False] * only_teacher + [True] * both)
    return compare_paired(student, ~student | (np.arange(len(student)) >= only_student + only_teacher))


def verdict_of(limit, comparison, gate="accuracy_drop", **figures):
    row = BenchRow("static", **figures)
    (verdict,) = judge_gates({"static": {gate: limit}}, [row], {"static": comparison} if comparison else {})
    return verdict


def test_the_point_estimate_decides_and_the_detail_says_what_is_shown():
    kept = verdict_of(0.03, compare(10, 20, 470))
    assert (kept.passed, kept.figure) == (True, pytest.approx(0.02))
    assert "2.0 points below the teacher on 500 gold queries" in kept.detail
    assert (
        "at most 3 points worse: not shown at 95 %; about 4,300 more gold queries would show it in four cases of five if"
        in kept.detail
    )
    low, high = kept.ci95
    assert low < kept.figure < kept.limit < high
    assert kept.verdict == "not shown"
    assert kept.p_value == pytest.approx(binomtest(10, 30).pvalue)
    assert 4200 < kept.more_gold < 4400


def test_what_is_not_so_no_number_of_queries_would_show():
    broken = verdict_of(0.02, compare(10, 25, 465))
    assert (broken.passed, broken.verdict, broken.more_gold) == (False, "not shown", None)
    assert "no number of gold queries would show it" in broken.detail
    close = verdict_of(0.0301, compare(10, 25, 465))
    assert (close.passed, close.verdict, close.more_gold) == (True, "not shown", None)
    assert "only millions of gold queries would show it" in close.detail


def test_a_drop_of_just_the_limit_keeps_it():
    assert verdict_of(0.02, compare(10, 20, 470)).passed


def test_shown_and_refuted():
    shown = verdict_of(0.01, compare(1, 1, 998))
    assert (shown.passed, shown.verdict, shown.more_gold) == (True, "shown", None)
    assert "at most 1 point worse: shown at 95 %" in shown.detail
    broken = verdict_of(0.01, compare(0, 100, 400))
    assert (broken.passed, broken.verdict, broken.more_gold) == (False, "refuted", None)
    assert "refuted at 95 %" in broken.detail


@pytest.mark.parametrize(("counts", "words"), [((20, 10, 70), "10.0 points above"), ((5, 5, 90), "level with")])
def test_the_direction_is_said(counts, words):
    assert words in verdict_of(0.01, compare(*counts)).detail


def test_without_a_comparison_nothing_is_judged():
    verdict = verdict_of(0.01, None)
    assert (verdict.passed, verdict.figure, verdict.verdict, verdict.ci95) == (None, None, None, None)


@pytest.mark.parametrize(("p95_ms", "passed"), [(4.9, True), (5.0, True), (5.1, False), (None, None)])
def test_latency_against_its_limit(p95_ms, passed):
    verdict = verdict_of(5.0, None, "p95_ms", p95_ms=p95_ms, latency_n=1000)
    assert (verdict.passed, verdict.figure) == (passed, p95_ms)


def test_no_limit_no_verdict():
    assert judge_gates({"static": {"p95_ms": None}, "encoder": {"p95_ms": 1.0}}, [BenchRow("static")], {}) == ()
