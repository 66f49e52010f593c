from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from distill.benchmark.recorded import RecordedTeacher
from distill.types import Label, Reason, Task, Usage

LABELS = ("cancel", "refund", "oos")


def answer(
    text,
    scores,
    *,
    sample=0,
    error=None,
    usage=(100, 5, 40),
    latency_ms=900.0,
    asked_at="2026-02-01T00:00:00Z",
    **extra,
):
    return Label(
        key=f"{text}-{sample}",
        text=text,
        scores=scores,
        error=error,
        teacher="some-model",
        prompt_sha256="p",
        sample=sample,
        usage=Usage(*usage),
        latency_ms=latency_ms,
        asked_at=asked_at,
        extra=extra,
    )


def test_an_answer_is_replayed_and_named():
    teacher = RecordedTeacher([answer("stop it", {"cancel": 3.0, "refund": 1.0})], LABELS)
    (prediction,) = teacher.route_batch(["stop it"])
    assert (prediction.intent, prediction.top_intent, prediction.reason) == ("cancel", "cancel", Reason.ACCEPTED)
    assert prediction.scores == {"cancel": 0.75, "refund": 0.25, "oos": 0.0}
    assert teacher.name == "some-model"


@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1.0, 1e30, 1e300])
def test_scores_of_any_scale_are_read_as_training_reads_them(scale):
    teacher = RecordedTeacher([answer("x", {"cancel": 3 * scale, "refund": scale})], LABELS)
    assert teacher.failed(["x"]).tolist() == [False]
    np.testing.assert_allclose(teacher.route("x").probabilities, [0.75, 0.25, 0.0], rtol=1e-6)


def test_oos_is_no_intent_at_all():
    teacher = RecordedTeacher([answer("a joke", {"oos": 1.0})], LABELS)
    prediction = teacher.route("a joke")
    assert (prediction.intent, prediction.top_intent, prediction.reason) == (None, None, Reason.OUT_OF_SCOPE)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [answer("x", None, error="timeout")],
        [answer("x", {"cancel": 1.0}, error="cut off")],
        [answer("x", {"another": 1.0})],
        [answer("x", {"cancel": 0.0})],
    ],
    ids=["never asked", "failed", "failed with scores", "no label of ours", "nothing scored"],
)
def test_what_was_not_answered_has_failed_and_is_not_invented(answers):
    teacher = RecordedTeacher(answers, LABELS)
    prediction = teacher.route("x")
    assert teacher.failed(["x"]).tolist() == [True]
    assert (prediction.intent, prediction.top_intent, prediction.probabilities) == (None, None, None)


def test_a_later_good_answer_mends_a_failure_and_a_later_failure_spoils_nothing():
    good, bad = answer("x", {"refund": 1.0}), answer("x", None, error="500")
    for lines in ([bad, good], [good, bad]):
        teacher = RecordedTeacher(lines, LABELS)
        assert not teacher.failed(["x"]).any()
        assert teacher.route("x").intent == "refund"


def test_the_last_good_line_of_a_key_wins():
    teacher = RecordedTeacher([answer("x", {"refund": 1.0}), answer("x", {"cancel": 1.0})], LABELS)
    assert teacher.route("x").scores == {"cancel": 1.0, "refund": 0.0, "oos": 0.0}


def test_samples_are_averaged_and_the_failed_ones_left_out():
    lines = [
        answer("x", {"refund": 1.0}),
        answer("x", {"cancel": 1.0}, sample=1),
        answer("x", {"cancel": 2.0}, sample=2),
        answer("x", None, sample=3, error="500"),
    ]
    prediction = RecordedTeacher(lines, LABELS).route("x")
    assert prediction.intent == "cancel"
    assert prediction.scores == pytest.approx({"cancel": 2 / 3, "refund": 1 / 3, "oos": 0.0})


def test_composed_and_decomposed_letters_are_the_same_query():
    teacher = RecordedTeacher([answer("caf\u00e9", {"refund": 1.0})], LABELS)
    assert teacher.route("cafe\u0301").intent == "refund"


def test_multi_takes_every_label_from_one_half_on():
    lines = [answer("both", {"cancel": 0.5, "refund": 0.9}), answer("none", {})]
    teacher = RecordedTeacher(lines, ("cancel", "refund"), Task.MULTI)
    both, none = teacher.route_batch(["both", "none"])
    assert (both.intents, none.intents) == (("refund", "cancel"), ())
    assert not teacher.failed(["both", "none"]).any()


def test_weights_sum_to_one():
    teacher = RecordedTeacher([answer("x", {"text": 3, "image": 1})], ("text", "image"), Task.WEIGHTS)
    assert teacher.route("x").weights == {"text": 0.75, "image": 0.25}


def test_latency_is_that_of_the_answers_to_these_queries():
    lines = [
        answer("x", {"refund": 1.0}, latency_ms=100.0),
        answer("x", {"refund": 1.0}, sample=1, latency_ms=200.0),
        answer("y", {"refund": 1.0}, latency_ms=None),
        answer("z", {"refund": 1.0}, latency_ms=999.0),
    ]
    assert RecordedTeacher(lines, LABELS).latencies_ms(["x", "y"]).tolist() == [100.0, 200.0]


def test_each_query_has_the_mean_latency_of_its_samples():
    lines = [
        answer("x", {"refund": 1.0}, latency_ms=100.0),
        answer("x", {"refund": 1.0}, sample=1, latency_ms=200.0),
        answer("y", {"refund": 1.0}, latency_ms=None),
    ]
    found = RecordedTeacher(lines, LABELS).latency_of_each_ms(["y", "x", "unasked"])
    assert found.tolist() == pytest.approx([np.nan, 150.0, np.nan], nan_ok=True)


def test_the_load_is_what_was_recorded_and_unknown_where_a_line_lacks_it():
    lines = [
        answer("x", {"refund": 1.0}, in_flight=4, server="this machine"),
        answer("y", {"refund": 1.0}, in_flight=1, server="this machine"),
        answer("old", {"refund": 1.0}),
        answer("carried", {"refund": 1.0}, latency_ms=None),
    ]
    teacher = RecordedTeacher(lines, LABELS)
    assert teacher.requests_in_flight(["x", "y", "carried"]) == (1, 4)
    assert teacher.requests_in_flight(["x", "old"]) is None
    assert teacher.requests_in_flight(["unasked"]) is None
    assert (teacher.servers(["x", "y", "old"]), teacher.servers(["old"])) == (("this machine",), ())


def test_a_query_costs_all_its_samples():
    lines = [
        answer("x", {"refund": 1.0}, usage=(100, 5, 40)),
        answer("x", {"refund": 1.0}, sample=1, usage=(100, 7, None)),
        answer("y", {"refund": 1.0}, usage=(110, 6, 50)),
        answer("uncounted", {"refund": 1.0}, usage=(None, None, None)),
    ]
    tokens = RecordedTeacher(lines, LABELS).tokens_per_query(["x", "y", "uncounted", "unasked"])
    assert (tokens.prompt, tokens.completion, tokens.cached, tokens.n) == (Decimal(155), Decimal(9), Decimal(45), 2)


@pytest.mark.parametrize("usage", [(None, None, None), (900, None, None), (None, 5, None)])
def test_tokens_that_nobody_counted_are_not_known(usage):
    teacher = RecordedTeacher([answer("x", {"refund": 1.0}, usage=usage)], LABELS)
    assert teacher.tokens_per_query(["x"]) is None


def test_no_more_tokens_are_cached_than_were_sent():
    teacher = RecordedTeacher([answer("x", {"refund": 1.0}, usage=(100, 5, 150))], LABELS)
    assert teacher.tokens_per_query(["x"]).cached == 100


def test_it_knows_when_it_was_recorded():
    lines = [
        answer("x", {"refund": 1.0}, asked_at="2026-02-03T00:00:00Z"),
        answer("y", {"refund": 1.0}, asked_at="2026-02-01T00:00:00Z"),
    ]
    teacher = RecordedTeacher(lines, LABELS)
    assert teacher.recorded_between(["x", "y"]) == ("2026-02-01T00:00:00Z", "2026-02-03T00:00:00Z")
    assert teacher.recorded_between(["unasked"]) is None


def test_probabilities_are_float32():
    prediction = RecordedTeacher([answer("x", {"refund": 1.0})], LABELS).route("x")
    assert prediction.probabilities.dtype == np.float32
