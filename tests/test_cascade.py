from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from bundles import GOLDEN_TEXTS, build_bundle

from distill import Cascade, Router
from distill import loop as background
from distill.cascade import (
    DECLINED,
    Breaker,
    Budget,
    CascadePrediction,
    FallbackOutcome,
    FallbackReply,
)
from distill.errors import QueryError
from distill.policy import confidence
from distill.types import Prediction, Reason, Task

SURE, DOUBTED, OUTSIDE = "where is my parcel", "unheard words", "a joke please"
"""What the tiny student accepts, has low confidence in, and holds to be out of scope."""
PATIENCE_S = 30.0


class Fallback:
    """A fallback that remembers what it was asked, and does as it is told: answers, raises, or waits."""

    def __init__(self, answer="refund", *, waits=False):
        self.answer, self.asked = answer, []
        self.released = threading.Event()
        if not waits:
            self.released.set()

    def __call__(self, text):
        self.asked.append(text)
        self.released.wait(PATIENCE_S)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("fallback", [None, "refund", 3])
def test_a_fallback_that_cannot_be_called_is_refused(tiny_router, fallback):
    with pytest.raises(TypeError, match=f"^a fallback is called with a query, found {type(fallback).__name__}$"):
        Cascade(tiny_router, fallback)
    with pytest.raises(TypeError, match=r"found Router; give its `route`$"):
        Cascade(tiny_router, tiny_router)


def as_coroutine(fallback):
    async def ask(text):
        while not fallback.released.is_set():  # noqa: ASYNC110 - it is an event of threads
            await asyncio.sleep(0.005)
        return fallback(text)

    return ask


def ask_all(cascade, texts, way):
    """The same queries by each of the four ways."""

    async def one_by_one():
        return [await cascade.aroute(text) for text in texts]

    return {
        "route": lambda: [cascade.route(text) for text in texts],
        "route_batch": lambda: cascade.route_batch(texts),
        "aroute": lambda: asyncio.run(one_by_one()),
        "aroute_batch": lambda: asyncio.run(cascade.aroute_batch(texts)),
    }[way]()


WAYS = pytest.mark.parametrize("way", ["route", "route_batch", "aroute", "aroute_batch"])
KINDS = pytest.mark.parametrize("kind", [lambda fallback: fallback, as_coroutine], ids=["function", "coroutine"])


@WAYS
@KINDS
def test_only_what_the_policy_declines_is_asked(tiny_router, way, kind):
    fallback = Fallback()
    cascade = Cascade(tiny_router, kind(fallback))
    texts = [SURE, DOUBTED, "", OUTSIDE, "cancel"]
    answers = ask_all(cascade, texts, way)
    assert sorted(fallback.asked) == sorted([DOUBTED, OUTSIDE])
    assert [each.intent for each in answers] == ["track_order", "refund", None, "refund", "cancel_order"]
    assert [each.fallback.value for each in answers] == [
        "not_asked", "answered", "not_asked", "answered", "not_asked",
    ]  # fmt: skip
    for text, each in zip(texts, answers, strict=True):
        alone = tiny_router.route(text)
        assert (each.student.intent, each.student.reason, each.student.score) == (
            alone.intent, alone.reason, pytest.approx(alone.score, abs=1e-6),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("ask_when", "asked"),
    [
        ({Reason.LOW_CONFIDENCE}, [DOUBTED]),
        ({Reason.OUT_OF_SCOPE}, [OUTSIDE]),
        (DECLINED, [DOUBTED, OUTSIDE]),
        ((), []),
        (Reason, [SURE, DOUBTED, OUTSIDE]),  # empty input is nothing to ask about
        ("low_confidence", [DOUBTED]),
        (Reason.OUT_OF_SCOPE, [OUTSIDE]),
        (["low_confidence", Reason.OUT_OF_SCOPE], [DOUBTED, OUTSIDE]),
    ],
)
def test_what_is_asked_can_be_chosen(tiny_router, ask_when, asked):
    fallback = Fallback()
    cascade = Cascade(tiny_router, fallback, ask_when=ask_when)
    for text in (SURE, DOUBTED, OUTSIDE, " "):
        cascade.route(text)
    assert fallback.asked == asked


def test_what_the_student_is_not_sure_of_is_asked_whatever_the_policy_says(tiny_router):
    fallback = Fallback("cancel_order")
    cascade = Cascade(tiny_router, fallback, ask_when=(), ask_below=0.5)
    answers = [cascade.route(text) for text in (SURE, OUTSIDE, "parcel refund", DOUBTED, "")]
    assert fallback.asked == ["parcel refund", DOUBTED]  # it is sure enough that OUTSIDE fits none
    assert answers[2].student.intent == "track_order"
    assert answers[2].intent == "cancel_order"


def test_of_several_intents_the_least_sure_one_is_asked_about(tiny_bundles):
    router = Router.load(tiny_bundles[Task.MULTI].path)
    fallback = Fallback(["refund"])
    answer = Cascade(router, fallback, ask_when=(), ask_below=1.0).route(SURE)
    assert answer.intents == ("refund",)


@pytest.mark.parametrize(
    ("probabilities", "intents", "asks"),
    [
        ([0.21, 0.01, 0.02], ("track_order",), True),  # accepted by a low threshold, and likely wrong
        ([0.21, 0.01, 0.02], (), False),
        ([0.95, 0.01, 0.02], ("track_order",), False),
        ([0.95, 0.65, 0.02], ("track_order",), True),  # left out by a high one
    ],
)
def test_a_label_that_its_own_threshold_decides_is_as_sure_as_that(tiny_bundles, probabilities, intents, asks):
    router = Router.load(tiny_bundles[Task.MULTI].path)
    student = replace(
        router.route(SURE),
        intents=intents,
        labels=("track_order", "cancel_order", "refund"),
        probabilities=np.array(probabilities, np.float32),
    )
    assert Cascade(router, str, ask_when=(), ask_below=0.5).should_ask(student) == asks


def test_a_number_just_above_a_confidence_asks_it(tiny_router):
    """Of float32, as probabilities are: 0.7 is the same as float32, and less as the number that it is."""
    sure = np.float32(0.7)
    student = replace(tiny_router.route(SURE), probabilities=np.array([sure, 1 - sure], dtype=np.float32))
    for number, asks in ((float(sure), False), (0.7, float(sure) < 0.7), (0.70000001, True)):
        assert Cascade(tiny_router, str, ask_when=(), ask_below=number).should_ask(student) == asks


@pytest.mark.parametrize("task", Task)
def test_confidence_is_that_of_the_decision(task):
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert confidence(rows, task) == pytest.approx([0.7, 0.8])
    unsure = np.array([0.45, 0.99, 0.98])
    assert confidence(unsure, task) == pytest.approx(0.55 if task is Task.MULTI else 0.99)
    chosen = np.array([True, False, True])
    assert confidence(unsure, task, chosen) == pytest.approx(0.01 if task is Task.MULTI else 0.99)


# --- what an answer may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "intent", "reason", "score"),
    [
        ("refund", "refund", Reason.ACCEPTED, 1.0),
        ("oos", None, Reason.OUT_OF_SCOPE, 0.0),
        (None, None, Reason.OUT_OF_SCOPE, 0.0),
        ({"refund": 3, "cancel_order": 1}, "refund", Reason.ACCEPTED, 0.75),
        ({"refund": 1, "oos": 3}, None, Reason.OUT_OF_SCOPE, 0.25),
        ({"refund": 3, "oos": 1}, "refund", Reason.ACCEPTED, 0.75),
        ({"refund": 0.2}, "refund", Reason.ACCEPTED, 1.0),  # scores are shares
        (Prediction("refund", 0.6, Reason.ACCEPTED, "refund"), "refund", Reason.ACCEPTED, 0.6),
        (FallbackReply("refund"), "refund", Reason.ACCEPTED, 1.0),
        (Prediction("refund", 0.6, Reason.ACCEPTED, "refund", ("refund",)), "refund", Reason.ACCEPTED, 0.6),
    ],
)
@pytest.mark.parametrize("labels", [None, ("track_order", "cancel_order", "refund")], ids=["oos", "no oos"])
def test_an_answer_is_a_name_or_scores_or_a_prediction(tmp_path, labels, answer, intent, reason, score):
    router = Router.load(build_bundle(tmp_path / "static", labels=labels).path)
    prediction = Cascade(router, Fallback(answer)).route(DOUBTED)
    assert (prediction.intent, prediction.reason, prediction.fallback.value) == (intent, reason, "answered")
    assert prediction.intents == ((intent,) if intent else ())
    if not (labels and reason is Reason.OUT_OF_SCOPE):  # without a label for it there is no distribution
        assert prediction.score == pytest.approx(score)
    assert prediction.top_intent == (intent or ("refund" if prediction.score else None))
    assert json.loads(json.dumps(prediction.as_dict()))["fallback"] == "answered"


@pytest.mark.parametrize(
    ("answer", "intents"),
    [
        *(("refund", ("refund",)), (["refund", "track_order"], ("track_order", "refund"))),
        *(([], ()), ({"refund": 0.4}, ()), (None, ())),
    ],
)
def test_an_answer_for_several_intents(tiny_bundles, answer, intents):
    router = Router.load(tiny_bundles[Task.MULTI].path)
    prediction = Cascade(router, Fallback(answer), ask_below=1.0).route(SURE)
    assert (prediction.intents, prediction.fallback) == (intents, FallbackOutcome.ANSWERED)


def test_of_several_intents_the_fallback_is_asked_where_none_fits(tiny_bundles):
    router = Router.load(tiny_bundles[Task.MULTI].path)
    cascade = Cascade(router, Fallback("refund"))
    assert cascade.route(SURE).fallback is FallbackOutcome.NOT_ASKED
    answer = cascade.route(OUTSIDE)
    assert (answer.student.reason, answer.intents) == (Reason.OUT_OF_SCOPE, ("refund",))


@pytest.mark.parametrize("answer", [{"refund": 0.3, "oos": 0.7}, "oos"])
def test_of_shares_none_is_out_of_scope(tiny_bundles, answer):
    router = Router.load(tiny_bundles[Task.WEIGHTS].path)
    prediction = Cascade(router, Fallback(answer), ask_below=1.0).route(SURE)
    assert (prediction.fallback, prediction.weights) == (FallbackOutcome.FAILED, prediction.student.weights)
    assert prediction.error == "ValueError: the answer is no intent: 'oos'"


@pytest.mark.parametrize("scale", [1.0, 1e-300, 5e307])
def test_an_answer_in_weights(tiny_bundles, scale):
    router = Router.load(tiny_bundles[Task.WEIGHTS].path)
    fallback = Fallback({"refund": 3 * scale, "track_order": scale})
    prediction = Cascade(router, fallback, ask_below=1.0).route(SURE)
    assert prediction.weights == pytest.approx({"track_order": 0.25, "cancel_order": 0.0, "refund": 0.75})


def test_scores_of_several_intents_are_probabilities(tiny_bundles):
    router = Router.load(tiny_bundles[Task.MULTI].path)
    prediction = Cascade(router, Fallback({"refund": 85, "track_order": 3}), ask_below=1.0).route(SURE)
    assert (prediction.fallback, prediction.intents) == (FallbackOutcome.FAILED, prediction.student.intents)
    assert "from 0 to 1" in prediction.error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("no such", "ValueError: the answer is no intent: 'no such'"),
        (3, "ValueError: the answer is int"),
        (["refund"], "ValueError: the answer is list"),
        ({}, "ValueError: every score is 0"),
        ({"refund": -1, "cancel_order": 2}, "from 0 on"),
        ({"refund": float("nan")}, "from 0 on"),
        ({"refund": "much"}, "ValueError: could not convert"),
        (FallbackReply("no such", Decimal(1)), "no intent"),
        (Prediction("no such", 1.0, Reason.ACCEPTED, "no such", ("no such",)), "no intent"),
        (Prediction("no such", 1.0, Reason.ACCEPTED, "refund"), "no intent"),
        (Prediction(None, 0.2, Reason.LOW_CONFIDENCE, "no such"), "no intent"),
        (RuntimeError("boom\nand more"), "RuntimeError: boom and more"),
        (TimeoutError("its own"), "TimeoutError: its own"),
    ],
)
@WAYS
@KINDS
def test_what_is_no_answer_leaves_the_students(tiny_router, answer, error, way, kind):
    (prediction,) = ask_all(Cascade(tiny_router, kind(Fallback(answer))), [DOUBTED], way)
    alone = tiny_router.route(DOUBTED)
    assert prediction.fallback is FallbackOutcome.FAILED
    assert error in prediction.error
    assert (prediction.intent, prediction.reason, prediction.top_intent) == (None, alone.reason, alone.top_intent)
    assert prediction.probabilities == pytest.approx(alone.probabilities)


def test_what_a_fallback_raises_shows_no_secret(tiny_router, monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", "sk-planted-4711")
    cascade = Cascade(tiny_router, Fallback(RuntimeError("401 for Bearer sk-planted-4711")))
    (prediction,) = ask_all(cascade, [DOUBTED], "route")
    assert prediction.as_dict()["error"] == "RuntimeError: 401 for Bearer [key]"


def test_a_coroutine_that_cancels_itself_has_failed(tiny_router):
    cascade = Cascade(tiny_router, as_coroutine(Fallback(asyncio.CancelledError())))
    assert [each.error for each in ask_all(cascade, [DOUBTED], "aroute")] == ["CancelledError:"]


def test_a_larger_student_is_a_fallback(tmp_path, tiny_router):
    larger = Router.load(build_bundle(tmp_path / "encoder", student="encoder").path)
    for ask in (larger.route, larger.aroute):
        cascade = Cascade(tiny_router, ask, ask_when=set(Reason))
        assert cascade.route(SURE).intent == asyncio.run(cascade.aroute(SURE)).intent == "track_order"
    last = Fallback("refund")
    chain = Cascade(tiny_router, Cascade(larger, last).route)
    assert chain.route(DOUBTED).intent == "refund"
    assert last.asked == [DOUBTED]


@KINDS
def test_the_end_of_the_program_is_not_an_answer(tiny_router, kind):
    with pytest.raises(KeyboardInterrupt):
        Cascade(tiny_router, kind(Fallback(KeyboardInterrupt()))).route(DOUBTED)
    assert Cascade(tiny_router, kind(Fallback("refund"))).route(DOUBTED).intent == "refund"


@pytest.fixture
def kept_open():
    """A client that asks a server on loopback over one connection, opened at its first query; and how many it opened."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    address: list[tuple[str, int]] = []
    begun, ended, turn = threading.Event(), threading.Event(), asyncio.Lock()

    async def answer(reader, writer):
        while await reader.readline():
            writer.write(b"refund\n")
        await close(writer)

    async def serve():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address.append(server.sockets[0].getsockname())
            begun.set()
            await asyncio.to_thread(ended.wait)

    async def ask(text):
        async with turn:
            if not opened:
                opened.append(await asyncio.open_connection(*address[0]))
            reader, writer = opened[0]
            writer.write(text.encode() + b"\n")
            return (await reader.readline()).decode().strip()

    async def close(writer):
        writer.close()
        await writer.wait_closed()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    begun.wait(PATIENCE_S)
    yield ask
    for _, writer in opened:
        background.wait_for(close(writer))
    ended.set()
    thread.join()


@pytest.mark.parametrize("way", ["route", "route_batch"])
def test_a_coroutine_function_keeps_its_connection(tiny_router, kept_open, way):
    def begin(text):
        """No coroutine function, and returns a coroutine all the same."""
        return kept_open(text)

    answers = ask_all(Cascade(tiny_router, kept_open), [DOUBTED] * 4, way)
    answers += ask_all(Cascade(tiny_router, begin), [DOUBTED] * 4, "aroute")
    assert [(each.fallback.value, each.error) for each in answers] == [("answered", None)] * 8


def test_a_coroutine_that_asks_a_cascade_of_its_own_loop_is_told_so(tiny_router):
    inner = Cascade(tiny_router, as_coroutine(Fallback("refund")), timeout_s=PATIENCE_S)
    answers = []

    async def ask(text):
        answers.append(inner.route(text))
        return answers[0]

    started = time.monotonic()
    Cascade(tiny_router, ask).route(DOUBTED)
    assert time.monotonic() - started < PATIENCE_S / 2
    assert (answers[0].fallback, answers[0].intent) == (FallbackOutcome.FAILED, None)
    assert "await aroute" in answers[0].error


# --- time, budget, breaker -------------------------------------------------------------------------------------------


@WAYS
@KINDS
def test_after_its_time_the_students_answer_is_given(tiny_router, way, kind):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, kind(fallback), timeout_s=0.05)
    try:
        started = time.monotonic()
        (prediction,) = ask_all(cascade, [DOUBTED], way)
        assert time.monotonic() - started < PATIENCE_S / 2
    finally:
        fallback.released.set()
    assert (prediction.intent, prediction.reason) == (None, Reason.LOW_CONFIDENCE)
    assert prediction.fallback is FallbackOutcome.TIMED_OUT
    assert prediction.error == "no answer within 0.05 s"


def test_the_loop_runs_on_while_the_fallback_is_asked(tiny_router):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=PATIENCE_S)

    async def ask():
        asking = asyncio.create_task(cascade.aroute(DOUBTED))
        while not fallback.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        fallback.released.set()
        return await asking

    assert asyncio.run(ask()).intent == "refund"


def test_a_coroutine_function_runs_in_the_callers_loop_and_is_cancelled_when_its_time_is_up(tiny_router):
    ends = []

    async def ask(text):
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            ends.append(loop)
            raise

    async def check():
        prediction = await Cascade(tiny_router, ask, timeout_s=0.02).aroute(DOUBTED)
        await asyncio.sleep(0)
        assert prediction.fallback is FallbackOutcome.TIMED_OUT
        assert ends == [asyncio.get_running_loop()]

    asyncio.run(check())


def test_calls_that_hang_do_not_pile_up(tiny_router):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=0.01, max_in_flight=2, breaker=Breaker(failures=99))
    outcomes = [cascade.route(DOUBTED).fallback.value for _ in range(4)]
    assert outcomes == ["timed_out", "timed_out", "busy", "busy"]
    fallback.released.set()
    for _ in range(1000):
        if cascade.route(DOUBTED).fallback is FallbackOutcome.ANSWERED:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the places of calls that ended were not given back")


@KINDS
def test_a_caller_that_goes_away_gives_its_place_back(tiny_router, kind):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, kind(fallback), timeout_s=PATIENCE_S, max_in_flight=1)

    async def leave():
        for delay_s in (0.0, 0.02):  # before it is asked, and while it is
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await cascade.aroute(DOUBTED)
            fallback.released.set()
            await asyncio.sleep(0.05)
            while cascade._guard._in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert (await cascade.aroute(DOUBTED)).intent == "refund"
            fallback.released.clear()
        fallback.released.set()

    asyncio.run(leave())


@WAYS
def test_a_budget_of_calls(tiny_router, way):
    fallback = Fallback()
    cascade = Cascade(tiny_router, fallback, budget=Budget(max_calls=3))
    outcomes = sorted(each.fallback.value for each in ask_all(cascade, [DOUBTED] * 5, way))
    assert outcomes == ["answered"] * 3 + ["over_budget"] * 2
    assert len(fallback.asked) == 3


def test_a_budget_of_dollars_counts_what_replies_say(tiny_router):
    fallback = Fallback(FallbackReply("refund", Decimal("0.1")))
    cascade = Cascade(tiny_router, fallback, budget=Budget(max_usd=1, usd_per_call="0.5"))
    answers = [cascade.route(DOUBTED) for _ in range(8)]
    assert [each.fallback.value for each in answers] == ["answered"] * 6 + ["over_budget"] * 2
    assert [each.usd for each in answers] == [Decimal("0.1")] * 6 + [None] * 2
    assert answers[0].as_dict()["usd"] == 0.1


@WAYS
@KINDS
def test_what_an_answer_cost_may_be_a_float(tiny_router, way, kind):
    cascade = Cascade(
        tiny_router, kind(Fallback(FallbackReply("refund", usd=0.001))), budget=Budget(max_usd=1, usd_per_call=0.5)
    )
    answers = ask_all(cascade, [DOUBTED] * 2, way)
    assert [(each.fallback.value, each.usd) for each in answers] == [("answered", Decimal("0.001"))] * 2


@pytest.mark.parametrize("usd", ["much", float("nan"), float("inf"), -0.1])
def test_what_an_answer_cost_is_a_number_from_0_on(usd):
    with pytest.raises(ValueError, match="usd must be"):
        FallbackReply("refund", usd)


def test_an_answer_that_cannot_be_read_is_paid_for_too(tiny_router):
    cascade = Cascade(tiny_router, Fallback(FallbackReply("no such", Decimal(1))), budget=Budget(max_usd=1, usd_per_call="0.5"))  # fmt: skip
    answers = [cascade.route(DOUBTED) for _ in range(2)]
    assert [(each.fallback.value, each.usd) for each in answers] == [("failed", Decimal(1)), ("over_budget", None)]


def test_what_was_paid_for_and_is_an_error_says_what_it_cost(tiny_router):
    answer = Cascade(tiny_router, lambda _: FallbackReply(ValueError("it rambles"), 0.25)).route(DOUBTED)
    assert (answer.fallback.value, answer.error, answer.usd) == ("failed", "ValueError: it rambles", Decimal("0.25"))


@WAYS
@pytest.mark.parametrize("wrapped", [lambda answer: answer, FallbackReply], ids=["plain", "in a reply"])
def test_a_cascade_behind_a_cascade_says_what_it_paid(tiny_router, way, wrapped):
    inner = Cascade(tiny_router, lambda _: FallbackReply("refund", 0.25), budget=Budget(max_calls=1))
    outer = Cascade(
        tiny_router, lambda text: wrapped(inner.route(text)), budget=Budget(max_usd=2, usd_per_call=1), max_in_flight=1
    )
    answers = ask_all(outer, [DOUBTED] * 5, way)
    assert [(each.fallback.value, each.usd) for each in answers] == [
        ("answered", Decimal("0.25")),
        *[("answered", 0)] * 4,
    ]


@pytest.mark.parametrize("step", ["__init__", "start"])
def test_a_signal_that_ends_the_start_of_a_trial_leaves_the_circuit_free(tiny_router, monkeypatch, step):
    fallback = Fallback("refund")
    cascade = Cascade(tiny_router, fallback, breaker=Breaker(failures=1, pause_s=1e-9), max_in_flight=1)
    fallback.answer = RuntimeError("down")
    assert cascade.route(DOUBTED).fallback is FallbackOutcome.FAILED
    fallback.answer = "refund"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            cascade.route(DOUBTED)
    assert cascade.route(DOUBTED).fallback is FallbackOutcome.ANSWERED


def test_a_call_that_the_garbage_collector_ends_waits_for_no_lock(tiny_router):
    async def slow(_):
        await asyncio.sleep(60)

    cascade = Cascade(tiny_router, slow, timeout_s=60, max_in_flight=1)

    async def begin():
        begun.append(asyncio.ensure_future(cascade.aroute(DOUBTED)))
        await asyncio.sleep(0.05)

    begun: list[asyncio.Future] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(begin())
    loop.close()
    assert len(cascade._guard._in_flight) == 1
    collected = []

    def collect():
        with cascade._guard._lock:  # as the thread may that collects
            begun.clear()
            collected.append(gc.collect())

    del loop
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert collected
    assert not cascade._guard._in_flight


def test_calls_of_event_loops_that_ended_early_keep_no_place(tiny_router):
    async def slow(_):
        await asyncio.sleep(60)

    cascade = Cascade(tiny_router, slow, timeout_s=0.01, max_in_flight=1)
    for _ in range(2):
        loop = asyncio.new_event_loop()
        answer = loop.run_until_complete(cascade.aroute(DOUBTED))
        loop.close()
        assert answer.fallback is FallbackOutcome.TIMED_OUT


@WAYS
def test_a_fallback_that_fails_is_left_alone(tiny_router, way):
    fallback = Fallback(RuntimeError("down"))
    cascade = Cascade(tiny_router, fallback, breaker=Breaker(failures=2, pause_s=3600), max_in_flight=1)
    answers = ask_all(cascade, [DOUBTED] * 5, way)
    assert [each.fallback.value for each in answers] == ["failed"] * 2 + ["circuit_open"] * 3
    assert len(fallback.asked) == 2
    assert {each.intent for each in answers} == {None}


def test_timeouts_open_the_circuit_and_a_trial_closes_it(tiny_router):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=0.02, breaker=Breaker(failures=1, pause_s=0.1))
    assert cascade.route(DOUBTED).fallback is FallbackOutcome.TIMED_OUT
    assert cascade.route(DOUBTED).fallback is FallbackOutcome.CIRCUIT_OPEN
    fallback.released.set()
    cascade.timeout_s = PATIENCE_S
    time.sleep(0.15)
    assert [cascade.route(DOUBTED).fallback.value for _ in range(2)] == ["answered"] * 2


# --- the rest --------------------------------------------------------------------------------------------------------


@WAYS
def test_hooks_of_a_cascade_are_told_who_answered(tiny_bundle, way):
    router = Router.load(tiny_bundle.path)
    students, events = [], []
    router.on_prediction.append(students.append)
    cascade = Cascade(router, Fallback())
    cascade.on_prediction.append(events.append)
    answers = ask_all(cascade, [SURE, DOUBTED], way)
    assert [event.prediction for event in events] == answers
    assert [event.text for event in events] == [event.text for event in students] == [SURE, DOUBTED]
    assert {event.bundle_id for event in events} == {tiny_bundle.manifest.bundle_id}
    assert students[1].prediction.intent is None


def test_other_tasks_have_their_turn_while_hooks_are_called(tiny_router, monkeypatch):
    turns = Turns()
    cascade = Cascade(tiny_router, Fallback())
    cascade.on_prediction.append(turns.count(lambda event: None))
    asyncio.run(turns.watch(cascade.aroute_batch([SURE] * 1000)))
    assert 0 < turns.most <= 64


def test_what_a_caller_is_doing_is_known_in_the_fallbacks_thread(tiny_router):
    request = ContextVar("request", default=None)
    seen = []

    def ask(text):
        seen.append(request.get())
        return "refund"

    request.set("42")
    cascade = Cascade(tiny_router, ask)
    cascade.route(DOUBTED)
    cascade.route_batch([DOUBTED] * 3)
    assert seen == ["42"] * 4


@pytest.mark.parametrize("way", ["route_batch", "aroute_batch"])
def test_a_batch_waits_for_its_places_beside_others(tiny_router, way):
    """One call hangs, and two batches share what places there are: every other query is asked all the same."""
    hanging = threading.Event()

    def fallback(text):
        if text == OUTSIDE:
            hanging.wait(PATIENCE_S)
        time.sleep(0.002)
        return "refund"

    cascade = Cascade(tiny_router, fallback, timeout_s=20.0, max_in_flight=3, breaker=Breaker(failures=99))
    first = threading.Thread(target=cascade.route, args=(OUTSIDE,))
    first.start()
    found = []
    batches = [threading.Thread(target=lambda: found.extend(ask_all(cascade, [DOUBTED] * 30, way))) for _ in range(2)]
    for batch in batches:
        batch.start()
    for batch in batches:
        batch.join()
    hanging.set()
    first.join()
    assert [each.fallback for each in found] == [FallbackOutcome.ANSWERED] * 60


@pytest.mark.parametrize("way", ["route_batch", "aroute_batch"])
def test_places_are_given_in_the_order_of_coming(tiny_router, way):
    """A long batch does not keep a short one from its places, however soon its own workers come again."""
    asked = []

    def fallback(text):
        asked.append(text)
        time.sleep(0.002)
        return "refund"

    cascade = Cascade(tiny_router, fallback, timeout_s=20.0, max_in_flight=2)
    long = threading.Thread(target=ask_all, args=(cascade, [DOUBTED] * 300, way))
    long.start()
    while len(asked) < 10:
        time.sleep(0.001)
    short = ask_all(cascade, ["unheard of words"] * 4, way)
    n_asked = len(asked)
    long.join()
    assert [each.fallback for each in short] == [FallbackOutcome.ANSWERED] * 4
    assert n_asked < 200


@pytest.mark.parametrize("way", ["route_batch", "aroute_batch"])
def test_a_batch_whose_places_are_all_held_waits_once(tiny_router, way):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=0.3, max_in_flight=2, breaker=Breaker(failures=99))
    callers = [threading.Thread(target=cascade.route, args=(DOUBTED,)) for _ in range(2)]
    for caller in callers:
        caller.start()
    while len(fallback.asked) < 2:
        time.sleep(0.001)
    started = time.monotonic()
    found = ask_all(cascade, [DOUBTED] * 400, way)
    fallback.released.set()
    assert {each.fallback for each in found} == {FallbackOutcome.BUSY}
    assert 0.3 <= time.monotonic() - started < 20
    for caller in callers:
        caller.join()


@pytest.mark.parametrize("way", ["route_batch", "aroute_batch"])
def test_a_circuit_that_opens_ends_the_waiting(tiny_router, way):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=2.0, max_in_flight=1, breaker=Breaker(failures=1))
    caller = threading.Thread(target=cascade.route, args=(DOUBTED,))
    caller.start()
    while not fallback.asked:
        time.sleep(0.001)
    time.sleep(1.0)  # the batch would wait for as long after the circuit opens
    found = ask_all(cascade, [DOUBTED] * 3, way)
    fallback.released.set()
    caller.join()
    assert [each.fallback for each in found] == [FallbackOutcome.CIRCUIT_OPEN] * 3


@pytest.mark.parametrize("way", ["route_batch", "aroute_batch"])
def test_a_batch_waits_for_a_place_no_longer_than_for_an_answer(tiny_router, way):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=0.02, max_in_flight=1, breaker=Breaker(failures=99))
    outcomes = [each.fallback.value for each in ask_all(cascade, [DOUBTED] * 3, way)]
    fallback.released.set()
    assert outcomes == ["timed_out", "busy", "busy"]


def test_a_coroutine_that_route_asks_is_cancelled_too(tiny_router):
    ended = threading.Event()

    async def ask(text):
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            ended.set()
            raise

    assert Cascade(tiny_router, ask, timeout_s=0.02).route(DOUBTED).fallback is FallbackOutcome.TIMED_OUT
    assert ended.wait(PATIENCE_S / 2)


def test_a_program_ends_whatever_its_fallback_is_doing(tiny_bundle):
    """Threads that came back from compiled code when the interpreter was taken down aborted the process."""
    script = (
        "import sys, time; from distill import Cascade, Router\n"
        "router = Router.load(sys.argv[1])\n"
        "def fallback(text):\n"
        "    until = time.monotonic() + 0.2\n"
        "    while time.monotonic() < until:\n"
        "        router.route_batch(['where is my parcel'] * 64)\n"
        "    return 'refund'\n"
        f"print(Cascade(router, fallback, timeout_s=0.02).route({DOUBTED!r}).fallback.value)"
    )
    command = [sys.executable, "-c", script, tiny_bundle.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "timed_out", "")


def test_many_queries_are_answered_in_order(tiny_router):
    cascade = Cascade(tiny_router, lambda text: "refund" if "unheard" in text else "cancel_order", max_in_flight=3)
    texts = [*GOLDEN_TEXTS, DOUBTED] * 2
    batch = cascade.route_batch(iter(texts))
    assert [each.intent for each in batch] == [cascade.route(text).intent for text in texts]
    assert [each.intent for each in asyncio.run(cascade.aroute_batch(texts))] == [each.intent for each in batch]
    assert cascade.route_batch([]) == []


class Turns:
    """Counts the tasks that an event loop is given, and what is done between two turns of another task."""

    def __init__(self):
        self.done = self.most = self.n_tasks = 0

    def count(self, function):
        def counted(*arguments):
            self.done += 1
            return function(*arguments)

        return counted

    def make_task(self, loop, coroutine, **options):
        self.n_tasks += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    async def watch(self, work):
        loop = asyncio.get_running_loop()
        answers = asyncio.ensure_future(work)
        loop.set_task_factory(self.make_task)
        while not answers.done():
            self.most, self.done = max(self.most, self.done), 0
            await asyncio.sleep(0)
        loop.set_task_factory(None)
        return answers.result()


@pytest.mark.parametrize(
    ("text", "budget", "outcome", "n_tasks"),
    [
        (SURE, None, FallbackOutcome.NOT_ASKED, 0),
        (DOUBTED, None, FallbackOutcome.ANSWERED, 64 + 1000),  # those that wait for a place, and the calls
        (DOUBTED, Budget(max_calls=1), FallbackOutcome.OVER_BUDGET, 64 + 1),
    ],
)
def test_other_tasks_have_their_turn_while_a_batch_is_answered(
    tiny_router, monkeypatch, text, budget, outcome, n_tasks
):
    async def fallback(text):
        return "refund"

    students = tiny_router.route_batch([text] * 1000)

    async def route_batch(texts, *, batch_size=None):
        return students

    turns = Turns()
    cascade = Cascade(tiny_router, fallback, budget=budget, max_in_flight=64, timeout_s=PATIENCE_S)
    monkeypatch.setattr(cascade.router, "aroute_batch", route_batch)
    monkeypatch.setattr(cascade, "_keep", turns.count(cascade._keep))
    answers = asyncio.run(turns.watch(cascade.aroute_batch([text] * 1000)))
    assert [each.fallback for each in answers[1:]] == [outcome] * 999
    assert 0 < turns.most <= 64
    assert turns.n_tasks == n_tasks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_calls_that_hang_in_the_parent_keep_no_place_in_a_fork(tiny_router):
    fallback = Fallback(waits=True)
    cascade = Cascade(tiny_router, fallback, timeout_s=0.01, max_in_flight=2, breaker=Breaker(failures=99))
    for _ in range(2):
        cascade.route(DOUBTED)
    child = os.fork()
    if not child:
        fallback.released = threading.Event()
        fallback.released.set()
        cascade.timeout_s = PATIENCE_S
        os._exit(0 if cascade.route(DOUBTED).intent == "refund" else 1)
    assert cascade.route(DOUBTED).fallback is FallbackOutcome.BUSY
    fallback.released.set()
    assert os.waitpid(child, 0)[1] == 0


def test_32_threads_share_a_cascade(tiny_router):
    from concurrent.futures import ThreadPoolExecutor

    cascade = Cascade(tiny_router, Fallback(), max_in_flight=64, timeout_s=PATIENCE_S)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(cascade.route, [SURE, DOUBTED, OUTSIDE] * 64))
    assert [each.intent for each in answers] == ["track_order", "refund", "refund"] * 64


@pytest.mark.parametrize("value", [None, 3, ["refund"]])
def test_what_is_no_query_is_refused(tiny_router, value):
    cascade = Cascade(tiny_router, Fallback())
    with pytest.raises(QueryError):
        cascade.route(value)
    with pytest.raises(QueryError):
        asyncio.run(cascade.aroute(value))
    for texts in (value if isinstance(value, list) else [value], "refund", None)[1:]:
        with pytest.raises(QueryError):
            cascade.route_batch(texts)
        with pytest.raises(QueryError):
            asyncio.run(cascade.aroute_batch(texts))


@pytest.mark.parametrize("name", ["low-confidence", "declined", ""])
def test_a_reason_that_there_is_not_is_refused(tiny_router, name):
    for ask_when in (name, {Reason.OUT_OF_SCOPE, name}):
        with pytest.raises(ValueError, match=rf"^ask_when: '{name}' is no reason; there are .*low_confidence"):
            Cascade(tiny_router, Fallback(), ask_when=ask_when)


def test_no_clock_counts_for_ever(tiny_router):
    with pytest.raises(ValueError, match=r"^timeout_s \(inf\) must be \d+ at most$"):
        Cascade(tiny_router, Fallback(), timeout_s=float("inf"))
    assert (
        Cascade(tiny_router, Fallback("refund"), timeout_s=threading.TIMEOUT_MAX, ask_below=1.0).route(DOUBTED).intent
        == "refund"
    )


@pytest.mark.parametrize("error", [StopIteration, type("PanicException", (BaseException,), {})])
def test_errors_that_threads_and_loops_treat_otherwise_are_failures_too(tiny_router, error):
    def ask(text):
        raise error("no more")

    cascade = Cascade(tiny_router, ask, timeout_s=PATIENCE_S, ask_below=1.0)
    for answer in (cascade.route(DOUBTED), asyncio.run(cascade.aroute(DOUBTED))):
        assert answer.fallback is FallbackOutcome.FAILED
        assert error.__name__ in answer.error


def test_an_error_that_cannot_say_what_it_is_is_a_failure_too(tiny_router):
    class ApiError(Exception):
        def __str__(self):
            raise AttributeError("response")

    class Stopped(StopIteration):
        __str__ = __repr__ = ApiError.__str__

    for error in (ApiError(), Stopped()):
        cascade = Cascade(tiny_router, Fallback(error), timeout_s=PATIENCE_S, ask_below=1.0)
        for answer in (cascade.route(DOUBTED), asyncio.run(cascade.aroute(DOUBTED))):
            assert (answer.fallback, answer.intent) == (FallbackOutcome.FAILED, answer.student.intent)
            assert answer.error.startswith(("ApiError", "RuntimeError: the fallback raised Stopped"))


def test_a_batch_that_ends_with_an_error_asks_no_more(tiny_router, monkeypatch):
    asked = []

    async def ask(text):
        asked.append(text)
        await asyncio.sleep(0)
        return "refund"

    cascade = Cascade(tiny_router, ask, ask_below=1.0, max_in_flight=2)
    conclude, n_concluded = cascade._conclude, iter(range(100))

    def first_fails(*given, **keys):
        return conclude(*given, **keys) if next(n_concluded) else 1 / 0

    monkeypatch.setattr(cascade, "_conclude", first_fails)

    async def main():
        with pytest.raises(ZeroDivisionError):
            await cascade.aroute_batch([DOUBTED] * 50)
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert len(asked) <= 4


def test_a_batch_that_is_broken_off_waits_for_no_call(tiny_router):
    release, begun = threading.Event(), threading.Semaphore(0)

    def ask(text):
        if text == DOUBTED:
            begun.acquire(timeout=PATIENCE_S)
            raise KeyboardInterrupt
        begun.release()
        release.wait(PATIENCE_S)
        return "refund"

    cascade = Cascade(tiny_router, ask, ask_below=1.0, timeout_s=PATIENCE_S)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cascade.route_batch([DOUBTED, "parcel"])
    assert time.monotonic() - started < PATIENCE_S / 2
    release.set()


def test_a_batch_that_is_broken_off_asks_no_more(tiny_router, monkeypatch):
    release, asked, pools = threading.Event(), [], []

    def ask(text):
        asked.append(text)
        release.wait(PATIENCE_S)
        return "refund"

    class Interrupted(ThreadPoolExecutor):
        def map(self, *given):
            pools.append(self)
            super().map(*given)
            while not cascade._guard._waiting:
                time.sleep(0.001)
            raise KeyboardInterrupt

    monkeypatch.setattr("distill.cascade.ThreadPoolExecutor", Interrupted)
    cascade = Cascade(tiny_router, ask, ask_below=1.0, timeout_s=PATIENCE_S, max_in_flight=1)
    holding = threading.Thread(target=cascade.route, args=("hold",))
    holding.start()
    while not asked:
        time.sleep(0.001)
    with pytest.raises(KeyboardInterrupt):
        cascade.route_batch([DOUBTED, "parcel"])
    started = time.monotonic()
    pools[0].shutdown()  # which waits for who waited for a place
    assert time.monotonic() - started < PATIENCE_S / 2
    release.set()
    holding.join()
    assert asked == ["hold"]
    assert not cascade._guard._in_flight


@pytest.mark.parametrize("n_turns", range(8))
def test_a_batch_that_is_cancelled_when_a_place_is_free_asks_no_more(tiny_router, n_turns):
    asked = []

    async def cancelled():
        release = asyncio.Event()

        async def ask(text):
            asked.append(text)
            if text == "hold":
                await release.wait()
            return "refund"

        cascade = Cascade(tiny_router, ask, ask_below=1.0, timeout_s=PATIENCE_S, max_in_flight=1)
        holding = asyncio.ensure_future(cascade.aroute("hold"))
        while not asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        batch = asyncio.ensure_future(cascade.aroute_batch([DOUBTED] * 20))
        while not cascade._guard._waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        release.set()
        for _ in range(n_turns):
            await asyncio.sleep(0)
        n_asked = len(asked)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        await holding
        assert len(asked) <= n_asked + 1
        assert not cascade._guard._in_flight

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"budget": 1000}, "budget is a Budget or None, found 1000"),
        ({"breaker": 3}, "breaker is a Breaker or None, found 3"),
        ({"router": "models/a"}, "a cascade takes a Router, found str; Router.load opens a folder"),
    ],
)
def test_parts_of_another_kind_are_refused_at_once(tiny_router, wrong, complaint):
    parts = {"router": tiny_router, "fallback": Fallback()} | wrong
    with pytest.raises(TypeError, match=f"^{complaint}$"):
        Cascade(**parts)
    for limit, found, kind in (
        ("timeout_s", "5", "number"),
        ("max_in_flight", "8", "whole number"),
        ("max_in_flight", 1.5, "whole number"),
        ("max_in_flight", float("nan"), "whole number"),
    ):
        with pytest.raises(TypeError, match=f"{limit} must be a {kind}, found {found!r}"):
            Cascade(tiny_router, Fallback(), **{limit: found})
    with pytest.raises(TypeError, match="ask_when names reasons, found 5; there are "):
        Cascade(tiny_router, Fallback(), ask_when=5)


@pytest.mark.parametrize("limits", [{"timeout_s": 0}, {"timeout_s": -1}, {"max_in_flight": 0}])
def test_limits_are_above_0(tiny_router, limits):
    with pytest.raises(ValueError, match="above 0"):
        Cascade(tiny_router, Fallback(), **limits)


@pytest.mark.parametrize("ask_below", [float("nan"), -0.1, 5])
def test_what_it_asks_below_is_a_probability(tiny_router, ask_below):
    with pytest.raises(ValueError, match=f"ask_below must be from 0 to 1, found {ask_below}"):
        Cascade(tiny_router, Fallback(), ask_below=ask_below)


def test_an_answer_shows_itself(tiny_router):
    prediction = Cascade(tiny_router, Fallback()).route(DOUBTED)
    assert isinstance(prediction, CascadePrediction)
    assert "answered" in repr(prediction)
    assert set(prediction.as_dict()) >= {"intent", "score", "fallback", "error", "usd"}
