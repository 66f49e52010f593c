from __future__ import annotations

import json
import random
from decimal import Decimal

import numpy as np
import pytest

from distill import Cascade
from distill.benchmark.cascade_curve import SHARES, CascadeInputs, cascade_curve
from distill.benchmark.statistics import paired_difference_interval, wilson_interval
from distill.policy import confidence
from distill.types import Task


def make_inputs(n=200, seed=0, **changes):
    chance = np.random.default_rng(seed)
    sure = chance.integers(20, 100, n) / 100  # with many ties
    student_right = chance.random(n) < sure
    teacher_failed = chance.random(n) < 0.05
    columns = {
        "confidence": np.where(chance.random(n) < 0.03, np.nan, sure),
        "declined": (sure < 0.4) & (chance.random(n) < 0.8),
        "student_right": student_right,
        "teacher_right": (chance.random(n) < 0.9) & ~teacher_failed,
        "teacher_failed": teacher_failed,
        "student_ms": chance.random(n + 13) / 10,
        "teacher_ms": np.where(chance.random(n) < 0.1, np.nan, 500 + 500 * chance.random(n)),
        "teacher_usd_per_1k": Decimal("0.30"),
    }
    return CascadeInputs(**columns | changes)


def asked_by_brute_force(inputs, point):
    """Which queries a point asks, one by one."""
    if point.rule == "policy":
        return [bool(declined) for declined in inputs.declined]
    return [not np.isnan(sure) and sure < point.ask_below for sure in inputs.confidence]


@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 7), (3, 60), (4, 200)])
def test_every_point_is_what_asking_one_by_one_gives(seed, n):
    inputs = make_inputs(n, seed)
    for point in cascade_curve(inputs):
        asked = asked_by_brute_force(inputs, point)
        right = only_cascade = only_teacher = n_failed = 0
        for row in range(n):
            answered = asked[row] and not inputs.teacher_failed[row]
            is_right = bool(inputs.teacher_right[row] if answered else inputs.student_right[row])
            right += is_right
            only_cascade += is_right and not inputs.teacher_right[row] and not inputs.teacher_failed[row]
            only_teacher += bool(inputs.teacher_right[row]) and not is_right and not inputs.teacher_failed[row]
            n_failed += bool(asked[row] and inputs.teacher_failed[row])
        assert (point.n_asked, point.n_failed) == (sum(asked), n_failed)
        assert point.share_asked == sum(asked) / n
        assert point.accuracy == pytest.approx(right / n)
        assert point.accuracy_ci95 == wilson_interval(right, n)
        n_answered = n - int(inputs.teacher_failed.sum())
        assert point.drop == pytest.approx((only_teacher - only_cascade) / n_answered)
        assert point.drop_ci95 == pytest.approx(paired_difference_interval(only_teacher, only_cascade, n_answered))
        assert point.asking_usd_per_1k == Decimal("0.30") * sum(asked) / n


@pytest.mark.parametrize("seed", range(5))
def test_the_latency_is_that_of_a_crowd_of_callers(seed):
    inputs = make_inputs(40, seed)
    for point in cascade_curve(inputs, (0.0, 0.04, 0.06, 0.5, 1.0)):
        asked = asked_by_brute_force(inputs, point)
        known = [inputs.teacher_ms[row] for row in range(40) if asked[row] and not np.isnan(inputs.teacher_ms[row])]
        if any(asked) and not known:
            assert point.p95_ms is None
            continue
        # so many callers that every time occurs as often as its weight says
        own, middle = inputs.student_ms.tolist(), float(np.median(inputs.student_ms))
        per_own, per_known = (40 - sum(asked)) * max(len(known), 1), sum(asked) * len(own)
        crowd = sorted(own * per_own + [time + middle for time in known] * per_known)
        assert point.p95_ms == crowd[-(-len(crowd) * 95 // 100) - 1]


def test_the_curve_goes_from_the_student_alone_to_the_teacher():
    inputs = make_inputs()
    policy, first, *_, last = cascade_curve(inputs)
    assert (policy.rule, policy.ask_below, policy.n_asked) == ("policy", 0.0, int(inputs.declined.sum()))
    assert (first.n_asked, first.accuracy, first.asking_usd_per_1k) == (0, inputs.student_right.mean(), 0)
    assert first.p95_ms < 1
    assert last.n_asked == int((~np.isnan(inputs.confidence)).sum())
    assert last.p95_ms > 500


def test_a_point_asks_as_many_as_its_share_allows_and_equal_confidences_stay_together():
    inputs = make_inputs()
    points = [point for point in cascade_curve(inputs) if point.rule == "confidence"]
    sure = sorted(inputs.confidence[~np.isnan(inputs.confidence)].tolist())
    expected = []
    for share in SHARES:
        most = int(share * len(inputs.confidence) + 1e-9)
        sizes = [n for n in range(most + 1) if n >= len(sure) or n == 0 or sure[n - 1] < sure[n]]
        expected.append(min(max(sizes), len(sure)))
    assert [point.n_asked for point in points] == sorted(set(expected))
    assert all(point.ask_below not in sure for point in points[1:])


@pytest.mark.parametrize(
    ("confidence", "numbers"),
    [
        ([0.2, 0.4, 0.9], [0.3, 0.6, 1.0]),
        ([0.501695, 0.501697], [0.501696, 0.75]),
        ([0.9999996, 0.9999999], [0.99999975, 1.0]),
    ],
)
def test_a_point_is_printed_as_it_can_be_set(confidence, numbers):
    n = len(confidence)
    inputs = make_inputs(n, confidence=np.array(confidence))
    _, _, *points = cascade_curve(inputs, [0.0, *(number / n for number in range(1, n + 1))])
    assert [point.n_asked for point in points] == list(range(1, n + 1))
    assert [float(f"{point.ask_below:.9g}") for point in points] == [point.ask_below for point in points]


def test_what_is_not_known_is_none():
    inputs = make_inputs(teacher_usd_per_1k=None, teacher_ms=np.full(200, np.nan))
    _, first, *others = cascade_curve(inputs)
    assert (first.asking_usd_per_1k, first.p95_ms is None) == (0, False)
    assert {(point.asking_usd_per_1k, point.p95_ms) for point in others} == {(None, None)}
    assert {point.p95_ms for point in cascade_curve(make_inputs(student_ms=np.array([])))} == {None}


def test_no_query_no_point_and_columns_must_fit():
    assert cascade_curve(make_inputs(0)) == ()
    with pytest.raises(ValueError, match="needs 200 queries"):
        make_inputs(declined=np.zeros(3, dtype=bool))


def test_every_point_is_one_that_a_cascade_takes():
    confidence = np.linspace(0.5, 1.0, 200)
    *_, last = cascade_curve(make_inputs(confidence=confidence))
    assert (last.ask_below, last.share_asked) == (1.0, 199 / 200)
    *_, last = cascade_curve(make_inputs(confidence=np.ones(200)))
    assert (last.ask_below, last.share_asked) == (1.0, 0.0)
    *_, last = cascade_curve(make_inputs(confidence=np.full(200, 0.25)))
    assert (last.ask_below, last.share_asked) == (0.6, 1.0)


def test_it_is_json():
    assert json.loads(json.dumps([point.as_dict() for point in cascade_curve(make_inputs())]))


def test_a_cascade_that_is_set_as_a_point_says_does_what_the_point_says(tiny_router):
    chance = random.Random(0)  # noqa: S311
    words = ["parcel", "refund", "cancel", "joke", "weather", "please", "where", "money", "the", "song"]
    texts = [" ".join(chance.choices(words, k=3)) for _ in range(60)] + [""]
    gold = {text: chance.choice(tiny_router.labels) for text in texts}
    teacher = {text: chance.choice(tiny_router.labels) for text in texts}
    students = tiny_router.route_batch(texts)
    empty = np.full(len(tiny_router.labels), np.nan)
    probabilities = np.stack([empty if p.probabilities is None else p.probabilities for p in students])
    inputs = CascadeInputs(
        confidence=confidence(probabilities, Task.SINGLE).astype(np.float64),
        declined=np.array([p.intent is None and p.probabilities is not None for p in students]),
        student_right=np.array([(p.intent or "oos") == gold[t] for p, t in zip(students, texts, strict=True)]),
        teacher_right=np.array([teacher[text] == gold[text] for text in texts]),
        teacher_failed=np.zeros(len(texts), dtype=bool),
        student_ms=np.ones(3),
        teacher_ms=np.full(len(texts), 100.0),
    )
    for point in cascade_curve(inputs, (0.05, 0.3, 0.8)):
        rule = {} if point.rule == "policy" else {"ask_when": (), "ask_below": point.ask_below}
        answers = Cascade(tiny_router, teacher.__getitem__, **rule, timeout_s=30).route_batch(texts)
        assert sum(each.fallback == "answered" for each in answers) == point.n_asked
        right = [(each.intent or "oos") == gold[text] for each, text in zip(answers, texts, strict=True)]
        assert point.accuracy == pytest.approx(sum(right) / len(texts))
