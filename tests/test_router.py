from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
import numpy as np
import onnx
import pytest
from bundles import GOLDEN, GOLDEN_TEXTS, KEYWORDS, build_bundle, golden_predictions
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from scipy.special import expit, softmax

import distill.bundle
import distill.router as router_module
from distill.bundle import Bundle, seal
from distill.cascade import Cascade
from distill.errors import BundleError, DistillError, QueryError
from distill.policy import Policy
from distill.router import Router
from distill.selfcheck import verify_selfcheck
from distill.types import Prediction, Reason, Task

if TYPE_CHECKING:
    from distill.hooks import PredictionEvent

TOLERANCE = 1e-6


def answer(prediction: Prediction) -> tuple:
    return prediction.intent, prediction.intents, prediction.reason, prediction.top_intent


def breakable(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "broken"))


def reseal(folder: Path, bundle: Bundle, **changes: object) -> Path:
    return seal(folder, replace(bundle.manifest, **changes)).path


@pytest.mark.parametrize("task", Task)
def test_golden_predictions(task, tmp_path):
    expected = json.loads((GOLDEN / f"tiny_{task.value}.json").read_text(encoding="utf-8"))
    found = golden_predictions(task, tmp_path)
    assert len(found) == len(expected) == len(GOLDEN_TEXTS)
    for one, other in zip(found, expected, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
        for key in ("text", "intent", "intents", "reason", "top_intent"):
            assert one[key] == other[key]


def test_a_prediction_says_what_and_why(tiny_router):
    prediction = tiny_router.route("Where is my parcel?")
    assert prediction.intent == prediction.top_intent == "track_order"
    assert prediction.reason is Reason.ACCEPTED
    assert list(prediction.scores) == list(KEYWORDS)
    assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=1e-6)
    assert prediction.score == prediction.scores["track_order"]


@pytest.mark.parametrize("task", Task)
def test_probabilities_are_those_of_the_graphs_logits(tiny_bundles, task):
    router = Router.load(tiny_bundles[task].path)
    text = "cancel my order and refund the money"
    logits = router.logits(router.tokenise(text))
    expected = expit(logits) if task is Task.MULTI else softmax(logits)
    np.testing.assert_allclose(router.predict_proba([text])[0], expected, atol=TOLERANCE)
    np.testing.assert_allclose(router.route(text).probabilities, expected, atol=TOLERANCE)


@given(texts=st.lists(st.sampled_from(GOLDEN_TEXTS), max_size=12), batch_size=st.integers(1, 5))
@pytest.mark.parametrize("task", Task)
def test_a_batch_is_answered_in_order_as_one_by_one(tiny_bundles, task, texts, batch_size):
    router = Router.load(tiny_bundles[task].path, verify=False)
    batch = router.route_batch(texts, batch_size=batch_size)
    assert len(batch) == len(texts)
    for text, found in zip(texts, batch, strict=True):
        alone = router.route(text)
        assert answer(found) == answer(alone)
        assert found.scores == pytest.approx(alone.scores, abs=TOLERANCE)


def test_no_query_gives_no_prediction(tiny_router):
    assert tiny_router.route_batch([]) == []
    assert tiny_router.predict_proba([]).shape == (0, 4)


def test_predict_proba_gives_float32_rows_that_sum_to_one(tiny_router):
    probabilities = tiny_router.predict_proba(text for text in GOLDEN_TEXTS)
    assert probabilities.shape == (len(GOLDEN_TEXTS), 4)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


NOTHING = ["", " ", "\n\t \u3000", "\x00", "\u200b\u200b"]


@pytest.mark.parametrize("special_tokens", [True, False])
@pytest.mark.parametrize("text", NOTHING)
def test_empty_blank_and_vanishing_text_is_empty_input(tmp_path, text, special_tokens):
    router = Router.load(build_bundle(tmp_path / "static", special_tokens=special_tokens).path)
    for prediction in (router.route(text), router.route_batch(["refund", text])[1]):
        assert answer(prediction) == (None, (), Reason.EMPTY_INPUT, None)
        assert prediction.score == 0.0
        assert set(prediction.scores.values()) == {0.0}
        json.dumps(prediction.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("task", "expected"), [(Task.SINGLE, 1 / 4), (Task.MULTI, 0.0), (Task.WEIGHTS, 1 / 3)])
def test_the_probabilities_of_empty_input_are_uniform_or_none(tiny_bundles, task, expected):
    assert Router.load(tiny_bundles[task].path).predict_proba([""])[0] == pytest.approx(expected)


def test_a_long_text_is_cut_at_max_length_tokens(tiny_router):
    max_length = tiny_router.manifest.max_length
    assert len(tiny_router.tokenise("where " * 1000)) == max_length
    fits = "where " * (max_length - 2)
    assert tiny_router.route(fits + "refund " * 1000).scores == tiny_router.route(fits).scores


def test_characters_that_reach_the_tokenizer_are_bounded(tiny_router):
    bound = tiny_router.manifest.max_length * 64
    gap = " " * bound
    assert tiny_router.route("parcel" + gap + "refund").scores == tiny_router.route("parcel").scores
    assert tiny_router.route(gap + "refund").intent == "refund"
    assert tiny_router.route("a" * 3_000_000).reason is Reason.LOW_CONFIDENCE


@pytest.mark.parametrize(
    "value", [None, 3, 1.5, b"refund", ["refund"], ("refund",), {"text": "refund"}, np.array(["a"])]
)
def test_what_is_not_a_string_is_refused_by_name(tiny_router, value):
    name = "None" if value is None else type(value).__name__
    for call in (tiny_router.route, tiny_router.tokenise, lambda query: asyncio.run(tiny_router.aroute(query))):
        with pytest.raises(QueryError, match=name):
            call(value)
    with pytest.raises(QueryError, match=rf"query 1 of the batch.*{name}"):
        tiny_router.route_batch(["refund", value])


def test_the_refusal_says_what_to_use_instead(tiny_router):
    with pytest.raises(QueryError, match="use route_batch"):
        tiny_router.route(["refund", "parcel"])
    with pytest.raises(QueryError, match="for one query use route"):
        tiny_router.route_batch("refund")
    with pytest.raises(QueryError, match="found None"):
        tiny_router.predict_proba(None)
    with pytest.raises(QueryError, match="decode"):
        tiny_router.route(b"refund")
    with pytest.raises(TypeError):  # what callers of other libraries expect
        tiny_router.route(1)


@pytest.mark.parametrize("count", [0, -1])
def test_threads_and_batch_size_are_one_or_more(tiny_bundle, tiny_router, count):
    with pytest.raises(ValueError, match="threads"):
        Router.load(tiny_bundle.path, threads=count)
    with pytest.raises(ValueError, match="batch_size"):
        tiny_router.route_batch(["refund"], batch_size=count)


any_text = st.text(st.characters(), max_size=200)  # surrogates included


@given(any_text)
def test_any_text_gets_an_answer(tiny_router, text):
    prediction = tiny_router.route(text)
    assert 0.0 <= prediction.score <= 1.0
    assert answer(tiny_router.route_batch([text])[0]) == answer(prediction)


def test_surrogates_do_not_hide_the_rest(tiny_router):
    assert tiny_router.route("refund \ud800").intent == tiny_router.route("refund \ufffd").intent == "refund"


def test_a_string_of_numpy_is_a_string(tiny_router):
    texts = np.array(["refund", "where is my parcel"])
    assert [each.intent for each in tiny_router.route_batch(texts)] == ["refund", "track_order"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("task", Task)
def test_32_threads_share_a_router_and_get_the_answers_of_one(tiny_bundles, task, threads):
    router = Router.load(tiny_bundles[task].path, threads=threads)
    told: list[str] = []
    router.on_prediction.append(lambda event: told.append(event.text))
    texts = [*GOLDEN_TEXTS] * 4
    expected = [(answer(p), p.scores) for p in map(router.route, GOLDEN_TEXTS)] * 4
    told.clear()
    start = threading.Barrier(32)

    def work(number: int) -> tuple[list, list]:
        start.wait()
        mine = texts[number:] + texts[:number]  # no two threads ask the same at the same time
        alone = [(answer(p), p.scores) for p in map(router.route, mine)]
        return alone[len(texts) - number :] + alone[: len(texts) - number], router.route_batch(texts)

    with ThreadPoolExecutor(32) as pool:
        for one_by_one, batch in pool.map(work, range(32)):
            assert one_by_one == expected
            assert [answer(p) for p in batch] == [each for each, _ in expected]
    assert sorted(told) == sorted(texts * 64)


@pytest.mark.parametrize("task", Task)
def test_a_later_query_of_the_same_length_does_not_touch_an_earlier_answer(tiny_bundles, task):
    router = Router.load(tiny_bundles[task].path)
    texts = ["refund", "cancel", "parcel"]
    assert len({len(router.tokenise(text)) for text in texts}) == 1
    rows = router.predict_proba(texts)
    for prediction, row in zip([router.route(text) for text in texts], rows, strict=True):
        np.testing.assert_allclose(prediction.probabilities, row, atol=TOLERANCE)
        assert prediction.probabilities.base is None  # of no buffer a view


def test_an_answer_that_is_kept_of_a_large_batch_keeps_few_others(tiny_router):
    *_, last = tiny_router.route_batch(["refund"] * 1_000)
    assert last.probabilities.base.shape == (1_000 % 64, len(tiny_router.labels))


@pytest.mark.parametrize(("texts", "error"), [((row["text"] for row in [None]), TypeError), (b"refund", QueryError)])
def test_what_is_wrong_with_a_batch_is_said_as_it_is(tiny_router, texts, error):
    with pytest.raises(error, match=r"not subscriptable|text\.decode"):
        tiny_router.route_batch(texts)


@pytest.mark.parametrize("number", [0, -1, 1.5, "2"])
def test_threads_and_batches_are_counted_in_whole_numbers(tiny_bundle, tiny_router, number):
    with pytest.raises(ValueError, match=f"threads must be a whole number from 1 to 1024, found {number!r}"):
        Router.load(tiny_bundle.path, threads=number)
    with pytest.raises(ValueError, match=f"batch_size must be a whole number, 1 or more, found {number!r}"):
        tiny_router.route_batch(["refund"], batch_size=number)


def test_more_threads_than_any_machine_has_are_refused(tiny_bundle):
    with pytest.raises(ValueError, match="threads must be a whole number from 1 to 1024, found 10000000000"):
        Router.load(tiny_bundle.path, threads=10**10)


@pytest.mark.parametrize("opening", [Router.load, Router.from_pretrained])
@pytest.mark.parametrize(
    ("path", "error", "complaint"),
    [
        (None, TypeError, "a bundle is given by its path, found None"),
        (b"models", TypeError, "a bundle is given by its path, found bytes"),
        ("", BundleError, "'': not the path of a bundle"),
        ("models\0", BundleError, r"'models\\x00': not the path of a bundle"),
        ("\ud800", BundleError, r"'\\ud800': not the path of a bundle"),
        ("a" * 5_000, BundleError, "aaa"),
    ],
)
def test_what_is_no_path_is_refused(opening, path, error, complaint):
    with pytest.raises(error, match=complaint):
        opening(path)


def test_a_file_in_place_of_a_folder_is_said_by_either_way_in(tiny_bundle):
    for opening in (Router.load, Router.from_pretrained):
        with pytest.raises(BundleError, match=r"manifest\.json: not a bundle but a file"):
            opening(str(tiny_bundle.path / "manifest.json"))


def test_hooks_are_a_list(tiny_bundle):
    router = Router.load(tiny_bundle.path)
    for each in (router, Cascade(router, str)):
        told = []
        for wrong in (told.append, None, (told.append,)):
            with pytest.raises(
                TypeError, match="on_prediction is a list of functions, to which you append yours; found"
            ):
                each.on_prediction = wrong
        each.on_prediction = [told.append]
        each.route("refund")
        assert len(told) == 1


def test_a_row_is_no_batch(tiny_router):
    for ask in (tiny_router.route_batch, tiny_router.predict_proba, Cascade(tiny_router, str).route_batch):
        with pytest.raises(QueryError, match="a batch is a list of queries, found dict; give its values"):
            ask({"text": "refund"})


def test_white_space_before_a_query_is_passed_over_up_to_a_limit(tiny_router):
    assert tiny_router.route(" \n" * 40_000 + "refund").intent == "refund"
    for text in (" " * 200_000 + "refund", "\n" * 10_000_000):
        assert tiny_router.route(text).reason is Reason.EMPTY_INPUT


@pytest.mark.parametrize("ids", [[], [-1], [2] * 1_000])
def test_what_are_no_ids_of_a_text_is_refused(tiny_router, ids):
    with pytest.raises(ValueError, match=rf"ids: expected 1 to \d+ of 0 or more, found {len(ids)}: "):
        tiny_router.logits(ids)


@pytest.mark.parametrize("logits", [None, np.zeros(3, np.float32), np.zeros((1, 5), np.float32)])
def test_what_are_no_logits_is_refused(tiny_router, logits):
    with pytest.raises(ValueError, match=rf"logits: expected the shape \({len(tiny_router.labels)},\), found "):
        tiny_router.decide(logits)


@pytest.mark.parametrize("kind", [tuple, iter, bytes, np.asarray])
def test_ids_of_any_kind_get_the_same_logits(tiny_router, kind):
    np.testing.assert_array_equal(tiny_router.logits(kind([2, 5, 3])), tiny_router.logits([2, 5, 3]))


@pytest.mark.parametrize("ids", [[1_000_000], [2**63], ["refund"], [2.5], iter(["refund"])])
def test_ids_that_the_graph_does_not_take_are_a_bundle_error(tiny_router, ids):
    with pytest.raises(BundleError, match=r"model\.onnx: the graph fails on"):
        tiny_router.logits(ids)


@pytest.mark.parametrize("n_words", [1, 61, 62, 63, 90, 120])
def test_a_query_of_any_length_gets_the_probabilities_of_its_logits(tmp_path, n_words):
    router = Router.load(build_bundle(tmp_path / "static", max_length=100).path)
    text = "refund " + "a " * (n_words - 1)
    ids = router.tokenise(text)
    assert len(ids) == min(n_words + 2, 100)
    for _ in range(2):  # buffers that were kept, too
        np.testing.assert_allclose(router.route(text).probabilities, softmax(router.logits(ids)), atol=TOLERANCE)


def test_buffers_are_kept_and_no_more_than_there_are_threads(tiny_bundle):
    router = Router.load(tiny_bundle.path)
    n_tokens = len(router.tokenise("refund"))
    for _ in range(9):
        router.route("refund")
    (kept,) = router._bound[n_tokens]
    router.route("cancel")
    assert router._bound[n_tokens] == [kept]
    with ThreadPoolExecutor(4) as pool:
        assert {each.intent for each in pool.map(router.route, ["refund"] * 400)} == {"refund"}
    assert 1 <= len(router._bound[n_tokens]) <= 4


class WatchedSession:
    """Remembers in which threads the graph is run, and may take its time as a large one would."""

    def __init__(self, router: Router, delay_s: float = 0.0) -> None:
        self.session, self.delay_s = router._session, delay_s
        self.io_binding = self.session.io_binding
        self.threads: set[threading.Thread] = set()
        router._session = self

    @property
    def is_inline(self) -> bool:
        used, self.threads = self.threads, set()
        assert len(used) == 1
        return used == {threading.main_thread()}

    def run(self, *arguments: object) -> object:
        self.notice()
        return self.session.run(*arguments)

    def run_with_iobinding(self, binding: object) -> None:
        self.notice()
        self.session.run_with_iobinding(binding)

    def notice(self) -> None:
        self.threads.add(threading.current_thread())
        time.sleep(self.delay_s)


@pytest.mark.parametrize("student", ["static", "encoder"])
def test_an_event_loop_gets_the_same_answers(tmp_path, student):
    router = Router.load(build_bundle(tmp_path / student, student=student).path)

    async def ask() -> list:
        one = await router.aroute("refund")
        return [one, *await router.aroute_batch(["parcel", "cancel"]), *await router.aroute_batch(["refund"] * 999)]

    answers = asyncio.run(ask())
    assert [each.intent for each in answers] == ["refund", "track_order", "cancel_order", *["refund"] * 999]


@pytest.mark.parametrize(
    ("texts", "is_quick"),
    [(["refund"], True), (["refund"] * 16, True), (["refund"] * 17, False), (["refund " * 300], False)],
)
def test_static_is_asked_inline_where_that_is_quick_and_an_encoder_never(tmp_path, texts, is_quick):
    for student in ("static", "encoder"):
        router = Router.load(build_bundle(tmp_path / student, student=student).path)
        session = WatchedSession(router)
        asyncio.run(router.aroute_batch(texts))
        assert session.is_inline == (is_quick and student == "static")
        asyncio.run(router.aroute(texts[0]))
        assert session.is_inline == (len(texts[0]) < 2000 and student == "static")


def test_an_event_loop_runs_on_while_an_encoder_answers(tmp_path):
    router = Router.load(build_bundle(tmp_path / "encoder", student="encoder").path)
    WatchedSession(router, delay_s=0.025)  # sixteen batches of 16: 0.4 s that no loop should have to wait

    async def ask() -> int:
        n_turns = 0

        async def turn() -> None:
            nonlocal n_turns
            while True:
                await asyncio.sleep(0.001)
                n_turns += 1

        turning = asyncio.create_task(turn())
        assert len(await router.aroute_batch(["refund"] * 256)) == 256
        turning.cancel()
        return n_turns

    assert asyncio.run(ask()) > 20  # how late each is: scripts/throughput.py


def test_a_thread_beside_a_loop_pauses_while_it_is_in_python(tmp_path, monkeypatch):
    pauses: list[threading.Thread] = []
    monkeypatch.setattr("distill.router.sleep", lambda _: pauses.append(threading.current_thread()))
    router = Router.load(build_bundle(tmp_path / "encoder", student="encoder").path)
    told = []
    router.on_prediction.append(told.append)
    monkeypatch.setattr("distill.router._KEPT_S", 60)
    asyncio.run(router.aroute_batch(["refund"] * 640))
    assert not pauses
    monkeypatch.setattr("distill.router._KEPT_S", -1)  # every step took too long
    asyncio.run(router.aroute_batch(["refund"] * 640))
    assert len(pauses) == 640 + 10 + 640  # while tokenising, deciding 64 at a time, and telling
    assert threading.main_thread() not in pauses
    router.route_batch(["refund"] * 640)
    assert len(pauses) == 640 + 10 + 640
    assert len(told) == 3 * 640


def test_what_is_no_query_is_refused_in_an_event_loop_too(tmp_path):
    for student in ("static", "encoder"):
        router = Router.load(build_bundle(tmp_path / student, student=student).path)
        for texts, named in (
            ("refund", "one string"),
            (None, "found None"),
            (["a", None], "query 1"),
            ([3] * 20, "int"),
        ):
            with pytest.raises(QueryError, match=named):
                asyncio.run(router.aroute_batch(texts))


# --- hooks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(tiny_bundle):
    """A router of its own, and what its hook was told."""
    router = Router.load(tiny_bundle.path)
    events: list[PredictionEvent] = []
    router.on_prediction.append(events.append)
    return router, events


def test_a_hook_is_told_of_every_prediction(hooked, tiny_bundle):
    router, events = hooked
    alone = router.route("refund")
    batch = router.route_batch(["parcel", "", "cancel"])
    asyncio.run(router.aroute("joke"))
    asyncio.run(router.aroute_batch(["money"] * 99))
    assert [event.text for event in events] == ["refund", "parcel", "", "cancel", "joke", *["money"] * 99]
    assert [event.prediction for event in events[:4]] == [alone, *batch]
    assert [event.batch_size for event in events] == [1, 3, 3, 3, 1, *[99] * 99]
    assert {event.bundle_id for event in events} == {tiny_bundle.manifest.bundle_id}
    assert all(0 < event.latency_ms < 60_000 for event in events)


def test_a_query_that_is_refused_is_no_prediction(hooked):
    router, events = hooked
    with pytest.raises(QueryError):
        router.route(None)
    router.route_batch([])
    router.predict_proba(["refund"])
    assert events == []


def test_a_hook_that_fails_breaks_nothing_and_is_logged_once(hooked, caplog):
    router, events = hooked

    def broken(event: PredictionEvent) -> None:
        raise RuntimeError(f"told of {event.text}")

    router.on_prediction.insert(0, broken)
    for _ in range(5):
        assert router.route("refund").intent == "refund"
    assert [each.intent for each in router.route_batch(["parcel", "cancel"])] == ["track_order", "cancel_order"]
    assert len(events) == 7
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("distill", "ERROR")
    assert "broken" in record.getMessage()
    assert "told of refund" in str(record.exc_info)


def test_a_hook_may_stop_the_program(hooked):
    router, _ = hooked

    def interrupt(_: PredictionEvent) -> None:
        raise KeyboardInterrupt

    router.on_prediction.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        router.route("refund")


def test_hooks_do_not_travel(hooked):
    router, events = hooked
    assert pickle.loads(pickle.dumps(router)).on_prediction == []  # noqa: S301
    assert events == []


def test_it_pickles_by_path(tiny_router):
    content = pickle.dumps(tiny_router)
    assert len(content) < 1000
    copy = pickle.loads(content)  # noqa: S301
    assert copy.bundle == tiny_router.bundle
    assert answer(copy.route("refund")) == answer(tiny_router.route("refund"))


PROCESSES = """
import multiprocessing, sys
from distill import Router

def ask(router, connection):
    connection.send([p.intent for p in (router.route("refund"), *router.route_batch(["parcel", "cancel"]))])

if __name__ == "__main__":
    method, threads, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    router = Router.load(path, threads=threads)
    assert router.route("refund").intent == "refund"
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    child = context.Process(target=ask, args=(router, there))
    child.start()
    assert here.poll(60), "no answer"
    print(*here.recv())
    child.join(60)
    assert child.exitcode == 0, child.exitcode
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_it_works_in_a_child_process(tiny_bundle, tmp_path, method, threads):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), method, str(threads), str(tiny_bundle.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout.split(), done.stderr) == (["refund", "track_order", "cancel_order"], "")


class HeldSession:
    """In the place of a session whose locks somebody holds: nobody may ask it."""

    def __getattr__(self, name):
        raise AssertionError(name)


def in_a_fork(ask):
    """What ``ask`` returns, or the error it raises, in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(ask())
        except DistillError as error:
            said = f"{type(error).__name__} {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        return stream.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_comes_to_its_end(tiny_bundle, threads):
    """By the interpreter's own end, where sessions are closed, and what onnxruntime has begun is waited for."""
    code = (
        "import os, sys, warnings\n"
        "from distill import Router\n"
        "warnings.simplefilter('ignore')\n"
        "router = Router.load(sys.argv[1], threads=int(sys.argv[2]))\n"
        "router.route('refund')\n"
        "child = os.fork()\n"
        "assert router.route('refund').intent == 'refund'\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 7)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle.path), str(threads)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_leaves_the_parents_session_alone(tiny_bundle):
    router = Router.load(tiny_bundle.path)
    router._session = HeldSession()
    for bindings in router._bound:
        bindings[:] = [HeldSession() for _ in bindings]
    assert in_a_fork(
        lambda: [each.intent for each in (router.route("refund"), *router.route_batch(["my parcel"]))]
    ) == ("['refund', 'track_order']")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_opens_no_session_on_the_event_loop(tiny_bundle, monkeypatch):
    router = Router.load(tiny_bundle.path)
    opened_in = []

    def noting(*given, open_session=router_module.open_session):
        opened_in.append(threading.current_thread() is threading.main_thread())
        return open_session(*given)

    monkeypatch.setattr(router_module, "open_session", noting)

    async def ask():
        first = await router.aroute("refund")
        return first.intent, (await router.aroute_batch(["refund"]))[0].intent

    assert in_a_fork(lambda: (asyncio.run(ask()), opened_in)) == "(('refund', 'refund'), [False])"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_takes_no_other_graph(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    router = Router.load(folder)
    other = build_bundle(tmp_path / "other", labels=(*reversed(router.labels[:-1]), router.labels[-1]))
    shutil.copy(other.onnx_path, folder / "onnx" / "model.onnx")
    said = in_a_fork(lambda: router.route("refund").intent)
    assert said == f"BundleError {folder}: replaced since it was loaded; load it again"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_reads_a_graph_again_only_where_it_was_written_anew(tiny_bundle, tmp_path, monkeypatch):
    folder = breakable(tiny_bundle, tmp_path)
    graph = folder / "onnx" / "model.onnx"
    router = Router.load(folder)
    read = []

    def noting(path, sha256_file=distill.bundle.sha256_file):
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr(distill.bundle, "sha256_file", noting)
    assert in_a_fork(lambda: (router.route("refund").intent, len(read))) == "('refund', 0)"
    of_unknown_graph = Router(distill.bundle.load_bundle(folder, verify=False))
    assert in_a_fork(lambda: (of_unknown_graph.route("refund").intent, read)) == f"('refund', [{graph!r}])"
    graph.write_bytes(graph.read_bytes())
    assert in_a_fork(lambda: (router.route("refund").intent, read)) == f"('refund', [{graph!r}])"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_threads_of_a_forked_process_share_one_session(tiny_bundle, monkeypatch):
    router = Router.load(tiny_bundle.path)
    opened = []

    def slowly(*given, open_session=router_module.open_session):
        opened.append(given)
        time.sleep(0.05)
        return open_session(*given)

    monkeypatch.setattr(router_module, "open_session", slowly)

    def ask():
        with ThreadPoolExecutor(16) as pool:
            intents = {each.intent for each in pool.map(router.route, ["refund"] * 16)}
        return len(opened), intents

    assert in_a_fork(ask) == "(1, {'refund'})"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_router_that_is_not_to_verify_does_not_in_other_processes(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    graph = folder / "onnx" / "model.onnx"
    model = onnx.load(graph)
    model.producer_name = "somebody else"
    onnx.save(model, graph)
    router = Router.load(folder, verify=False)
    assert in_a_fork(lambda: router.route("refund").intent) == "refund"
    assert pickle.loads(pickle.dumps(router)).route("refund").intent == "refund"  # noqa: S301


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_takes_no_other_bundle_where_nothing_is_verified_either(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    router = Router.load(folder, verify=False)
    shutil.rmtree(folder)
    build_bundle(folder, labels=(*reversed(router.labels[:-1]), router.labels[-1]))
    said = in_a_fork(lambda: router.route("refund").intent)
    assert said == f"BundleError {folder}: replaced since it was loaded; load it again"


def replacing(monkeypatch, folder, labels, times):
    """Lets a bundle with these labels take the place of the one in ``folder`` whenever its graph is opened."""
    left = list(range(times))
    as_it_is = router_module.open_session

    def replaced(*given):
        if left:
            shutil.rmtree(folder)
            with monkeypatch.context() as undone:
                undone.setattr(router_module, "open_session", as_it_is)  # building one opens it too
                build_bundle(folder, labels=labels, data_sha256=f"number {left.pop()}")
        return as_it_is(*given)

    monkeypatch.setattr(router_module, "open_session", replaced)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_takes_no_bundle_that_comes_while_it_opens_its_own(tiny_bundle, tmp_path, monkeypatch):
    folder = breakable(tiny_bundle, tmp_path)
    router = Router.load(folder)
    replacing(monkeypatch, folder, (*reversed(router.labels[:-1]), router.labels[-1]), times=1)
    said = in_a_fork(lambda: router.route("refund").intent)
    assert said == f"BundleError {folder}: replaced while it was opened; load it again"


def test_a_bundle_that_is_replaced_while_it_is_opened_is_opened_anew(tiny_bundle, tmp_path, monkeypatch):
    folder = breakable(tiny_bundle, tmp_path)
    swapped = ("refund", "cancel_order", "track_order", "oos")
    assert set(swapped) == set(Router.load(folder).labels)
    replacing(monkeypatch, folder, swapped, times=1)
    router = Router.load(folder)
    assert router.labels == swapped
    assert router.manifest.data_sha256 == "number 0"


@pytest.mark.parametrize("is_gone", [False, True], ids=["while it is verified", "between one and the other"])
@pytest.mark.parametrize("labels", [("one", "two"), None], ids=["by another", "by the same"])
def test_a_bundle_whose_place_is_taken_while_it_is_verified_is_opened_anew(
    tiny_bundle, tmp_path, monkeypatch, is_gone, labels
):
    folder = breakable(tiny_bundle, tmp_path)
    other = build_bundle(tmp_path / "other", labels=labels).path
    load = router_module.load_bundle

    def taken(*given, **how):
        monkeypatch.setattr(router_module, "load_bundle", load)
        shutil.move(folder, tmp_path / "old")
        if not is_gone:
            shutil.copytree(other, folder)
        raise BundleError("altered")

    def returning(_):
        shutil.copytree(other, folder)

    monkeypatch.setattr(router_module, "load_bundle", taken)
    monkeypatch.setattr(router_module, "sleep", returning)
    assert Router.load(folder).labels == (labels or tiny_bundle.manifest.labels)


def test_a_bundle_that_is_replaced_all_the_time_is_one_clear_line(tiny_bundle, tmp_path, monkeypatch):
    folder = breakable(tiny_bundle, tmp_path)
    replacing(monkeypatch, folder, ("refund", "cancel_order", "track_order", "oos"), times=9)
    with pytest.raises(BundleError, match=r"replaced while it was opened; load it again$"):
        Router.load(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_link_that_leads_elsewhere_now_changes_no_router(tiny_bundle, tmp_path):
    release, current = breakable(tiny_bundle, tmp_path), tmp_path / "current"
    current.symlink_to(release)
    router = Router.load(current)
    pickled = pickle.dumps(router)
    current.unlink()
    current.symlink_to(build_bundle(tmp_path / "next", labels=("one", "two")).path)
    assert in_a_fork(lambda: router.route("refund").intent) == "refund"
    assert pickle.loads(pickled).route("refund").intent == "refund"  # noqa: S301


def test_a_pickle_opens_no_other_bundle(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    pickled = pickle.dumps(Router.load(folder))
    shutil.rmtree(folder)
    build_bundle(folder, labels=("one", "two"))
    with pytest.raises(BundleError, match=r"replaced since the router was pickled; load it again$"):
        pickle.loads(pickled)  # noqa: S301


def test_a_relative_path_holds_wherever_the_process_goes(tiny_bundle, monkeypatch):
    monkeypatch.chdir(tiny_bundle.path.parent)
    router = Router.load(tiny_bundle.path.name)
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(router))  # noqa: S301
    assert copy.route("refund").intent == "refund"


@pytest.mark.parametrize(
    "inputs",
    [("input_ids",), ("input_ids", "attention_mask", "token_type_ids"), ("attention_mask", "input_ids")],
)
def test_a_graph_is_fed_the_inputs_it_has(tmp_path, inputs):
    router = Router.load(build_bundle(tmp_path / "static", inputs=inputs).path)
    assert router.route("where is my parcel").intent == "track_order"
    assert [each.intent for each in router.route_batch(["refund", "where is my parcel"])][1] == "track_order"


def test_padding_of_the_tokenizer_is_not_applied_to_single_queries(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["padding"] = {
        "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    router = Router.load(reseal(folder, tiny_bundle))
    assert router.tokenise("my parcel") == Router.load(tiny_bundle.path).tokenise("my parcel")
    assert router._pad_id == 1


@pytest.mark.parametrize(("config", "pad_id"), [({"pad_token_id": 3}, 3), ({"pad_token_id": None}, 0), ({}, 0)])
def test_the_padding_id_comes_from_the_configuration(tmp_path, config, pad_id):
    assert Router.load(build_bundle(tmp_path / "static", config=config).path)._pad_id == pad_id


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", b"{}", "tokenizer.json: not a tokenizer"),
        ("onnx/model.onnx", b"not a graph", "model.onnx: not a graph"),
        ("config.json", b"[", "config.json: not a model's configuration"),
        ("config.json", b"[" * 100_000, "config.json: not a model's configuration"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tiny_bundle, tmp_path, name, content, complaint):
    folder = breakable(tiny_bundle, tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=complaint) as caught:
        Router.load(reseal(folder, tiny_bundle))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": (*list(KEYWORDS)[:3], "extra", "oos")}, "gives 4 logits, the manifest has 5 labels"),
        ({"labels": ("oos", "a", "b", "c")}, "policy is not usable"),
        ({"policy": {}}, "policy is not usable"),
        ({"max_length": 2}, "leaves no room"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_loading(tiny_bundle, tmp_path, changes, complaint):
    with pytest.raises(BundleError, match=complaint):
        Router.load(reseal(breakable(tiny_bundle, tmp_path), tiny_bundle, **changes))


def test_a_graph_with_other_inputs_or_outputs_is_refused(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    for old, new, complaint in (("input_ids", "words", "inputs are words"), ("logits", "scores", "cannot be run")):
        model = onnx.load(tiny_bundle.onnx_path)
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        onnx.save(model, folder / "onnx/model.onnx")
        with pytest.raises(BundleError, match=complaint):
            Router.load(reseal(folder, tiny_bundle))


def with_graph(bundle, tmp_path, change, **changes):
    """The bundle's folder, sealed anew with what ``change`` makes of its graph."""
    folder = breakable(bundle, tmp_path)
    model = onnx.load(folder / "onnx/model.onnx")
    change(model.graph)
    onnx.save(model, folder / "onnx/model.onnx")
    return reseal(folder, bundle, **changes)


def renamed(graph, old, new):
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]


def constants(graph, **values):
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def eight_positions(graph):
    """Adds to each token a vector for its place, of which there are eight."""
    renamed(graph, "vectors", "unplaced")
    constants(graph, positions=np.zeros((8, 4), np.float32), zero=np.array(0), one=np.array(1))
    new = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["places"]),
        helper.make_node("Gather", ["positions", "places"], ["placed"]),
        helper.make_node("Add", ["unplaced", "placed"], ["vectors"]),
    ]
    first, *rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([first, *new, *rest])


def no_numbers(graph):
    renamed(graph, "logits", "finite")
    constants(graph, nan=np.array(np.nan, np.float32))
    graph.node.append(helper.make_node("Mul", ["finite", "nan"], ["logits"]))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (eight_positions, r"model\.onnx: the graph cannot be run on 16 tokens of id 26"),
        (no_numbers, r"model\.onnx: the graph gives logits that are no finite numbers"),
    ],
)
def test_a_graph_that_not_every_query_suits_is_refused_when_loading(tiny_bundle, tmp_path, change, complaint):
    with pytest.raises(BundleError, match=complaint):
        Router.load(with_graph(tiny_bundle, tmp_path, change))


def test_an_encoder_that_fails_on_a_long_query_says_so_in_one_line(tiny_bundle, tmp_path):
    router = Router.load(with_graph(tiny_bundle, tmp_path, eight_positions, student="encoder"))
    assert router.route("refund").intent == "refund"
    for ask in (router.route, lambda text: router.route_batch([text])):
        with pytest.raises(BundleError, match=r"the graph fails on a query of 12 tokens: .*") as caught:
            ask("refund " * 10)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [27, 4_000])
def test_a_tokenizer_with_more_words_than_the_graph_is_refused_when_loading(tiny_bundle, tmp_path, number):
    folder = breakable(tiny_bundle, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"]["newest"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"model\.onnx: the graph cannot be run on 2 tokens of id {number}, which"):
        Router.load(reseal(folder, tiny_bundle))


def test_a_tokenizer_that_cannot_take_unknown_words_is_refused_when_loading(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["model"]["unk_token"] = "[NONE]"  # noqa: S105
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json: fails on a text: .*UNK"):
        Router.load(reseal(folder, tiny_bundle))


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("post_processor", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}, "not a tokenizer"),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "fails on a text"),
    ],
)  # fmt: skip
def test_a_panic_of_the_tokenizer_is_a_bundle_error(tiny_bundle, tmp_path, capfd, part, value, complaint):
    folder = breakable(tiny_bundle, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {part: value}), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"tokenizer\.json: {complaint}") as caught:
        Router.load(reseal(folder, tiny_bundle))
    assert "\n" not in str(caught.value)


def test_a_self_check_that_is_too_deep_is_no_reason_not_to_load(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    (folder / "selfcheck.jsonl").write_bytes(b"[" * 100_000)
    router = Router.load(reseal(folder, tiny_bundle))
    assert router.route("refund").intent == "refund"
    with pytest.raises(BundleError, match=r"selfcheck\.jsonl: not a self-check"):
        verify_selfcheck(router)


@pytest.mark.parametrize("named", ["*", "../secret", ["onnx/model.onnx"], None])
def test_no_pattern_of_a_manifest_is_fetched(tmp_path, monkeypatch, named):
    (tmp_path / "manifest.json").write_text(json.dumps({"onnx_file": named}), encoding="utf-8")
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append(options["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BundleError):
        Router.from_pretrained("org/name")
    assert asked[1] == ["*.json", "*.jsonl", "README.md", "onnx/model.onnx"]


def test_extreme_logits_of_a_multi_student_neither_overflow_nor_warn(tmp_path):
    labels = ("track_order", "refund")
    policy = Policy(Task.MULTI, labels, thresholds=(0.5, 0.5))
    router = Router.load(build_bundle(tmp_path / "multi", task=Task.MULTI, labels=labels, policy=policy).path)
    router._session = type("Session", (), {"run": lambda *_: [np.array([[-1e4, 1e4]], np.float32)]})()
    assert router.decide(np.array([-1e4, 1e4], np.float32)).scores == pytest.approx({"track_order": 0.0, "refund": 1.0})
    assert router.predict_proba(["anything"])[0] == pytest.approx([0.0, 1.0])


def test_a_path_is_no_bundle(tiny_bundle):
    with pytest.raises(TypeError, match=r"Router takes a Bundle, found .*; Router\.load opens a folder"):
        Router(str(tiny_bundle.path))


def test_from_pretrained_takes_a_local_folder(tiny_bundle):
    assert Router.from_pretrained(str(tiny_bundle.path)).bundle == tiny_bundle


def a_hub(bundle, cache, asked):
    """In place of huggingface_hub.snapshot_download: copies what the patterns name, unless it may not ask."""

    def fetch(name, *, revision, allow_patterns, local_files_only=False):
        asked.append((name, revision, allow_patterns, local_files_only))
        if local_files_only and not cache.exists():
            raise FileNotFoundError
        for path in bundle.path.rglob("*"):
            file = path.relative_to(bundle.path)
            if not local_files_only and path.is_file() and any(map(file.match, allow_patterns)):
                (cache / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, cache / file)
        return str(cache)

    return fetch


def test_from_pretrained_fetches_a_repository_with_the_graph_that_runs(tiny_bundle, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", a_hub(tiny_bundle, tmp_path / "c0ffee", asked))
    assert Router.from_pretrained("org/name", revision="v1").route("refund").intent == "refund"
    manifest = ("org/name", "v1", ["manifest.json"], False)
    assert asked == [
        manifest,
        ("org/name", "c0ffee", ["*.json", "*.jsonl", "README.md", "onnx/model.onnx"], False),  # the same commit
    ]
    asked.clear()
    Router.from_pretrained("org/name", revision="v1")
    assert asked == [manifest]  # v1 may have become another; what this one holds is here


def test_of_a_commit_that_was_fetched_nobody_is_asked(tiny_bundle, tmp_path, monkeypatch):
    asked, commit = [], "c0ffee" * 6 + "feed"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", a_hub(tiny_bundle, tmp_path / commit, asked))
    Router.from_pretrained("org/name", revision=commit)
    assert [is_local for *_, is_local in asked] == [True, False, False]
    asked.clear()
    assert Router.from_pretrained("org/name", revision=commit).route("refund").intent == "refund"
    assert [is_local for *_, is_local in asked] == [True]
    for missing in ("tokenizer.json", "tokenizer_config.json"):  # as a fetch leaves it that was cut
        asked.clear()
        (tmp_path / commit / missing).unlink()
        Router.from_pretrained("org/name", revision=commit)
        assert [is_local for *_, is_local in asked] == [True, False, False]


def test_a_local_folder_has_no_revision(tiny_bundle):
    with pytest.raises(BundleError, match=r"is here, and has no revision 'v2'"):
        Router.from_pretrained(str(tiny_bundle.path), revision="v2")


def test_an_error_of_the_network_is_one_clear_line(monkeypatch):
    class ProxyError(Exception):
        """As httpx's: no OSError."""

    def fetch(*_: object, **__: object) -> str:
        raise ProxyError("the proxy refuses")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BundleError, match=r"^org/name: neither a folder here nor fetched .* \(the proxy refuses\)$"):
        Router.from_pretrained("org/name")


def test_an_error_of_the_hub_shows_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted4711")
    monkeypatch.setenv("SHOP_SECRET", "planted-too")

    def fetch(*_: object, **__: object) -> str:
        raise OSError("the mirror refuses 'Bearer hf_planted4711' and planted-too")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BundleError, match=r"the mirror refuses 'Bearer \[key\]' and \[key\]") as caught:
        Router.from_pretrained("org/name")
    assert "planted" not in "".join(traceback.format_exception(caught.value))


def test_from_pretrained_fetches_no_graph_of_a_repository_without_a_manifest(tmp_path, monkeypatch):
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append(options["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BundleError, match=r"^org/name: a repository without manifest\.json, so no bundle"):
        Router.from_pretrained("org/name")
    assert asked == [["manifest.json"]]


@pytest.mark.parametrize("name", ["org/name", "no such/name at all", "a/b/c", ""])
def test_what_cannot_be_fetched_is_one_clear_line(tmp_path, name):
    script = (
        "import sys; from distill import Router, DistillError\n"
        "try: Router.from_pretrained(sys.argv[1])\n"
        "except DistillError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.stdout.startswith("BundleError ")
    assert name in done.stdout
    assert done.stdout.count("\n") == 1


def test_every_refusal_is_a_distill_error(tmp_path):
    with pytest.raises(DistillError):
        Router.load(tmp_path)
