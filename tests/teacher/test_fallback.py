from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import nullcontext
from decimal import Decimal

import pytest
from fake_server import FakeServer
from teacher_specs import INTENTS, PRICE, TEXTS, ledger_lines
from words import ByWords

from distill import Cascade, pipeline
from distill.cascade import Budget, FallbackOutcome
from distill.errors import MissingKeyError, SpecError, TeacherError
from distill.teacher.fallback import TeacherFallback
from distill.teacher.label import label

DOUBTED = "cancel unheard words"
"""What the tiny student is not sure of, and the server is."""


@pytest.fixture
def make_fallback(make_spec):
    """The teacher of a spec as a fallback; closed when the test ends."""
    made = []

    def make(*arguments, timeout_s=20.0, **keys):
        made.append(pipeline.fallback(make_spec(*arguments, **keys), timeout_s=timeout_s))
        return made[-1]

    yield make
    for fallback in made:
        fallback.close()


def test_a_cascade_asks_the_teacher(make_fallback, tiny_router, server, tmp_path):
    fallback = make_fallback(server.base_url, teacher={"price": PRICE})
    cascade = Cascade(tiny_router, fallback, timeout_s=20, ask_below=1.0)
    prediction = cascade.route(DOUBTED)
    assert (prediction.intent, prediction.fallback) == ("cancel_order", FallbackOutcome.ANSWERED)
    assert prediction.usd == Decimal("0.0002")
    assert asyncio.run(cascade.aroute("sing a song")).intent is None
    assert server.asked == {DOUBTED: 1, "sing a song": 1}
    assert not (tmp_path / "ledger.jsonl").exists()  # nothing is recorded


UNUSABLE = pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("HTTPS_PROXY", "http://[::1", "InvalidURL"),
        ("ALL_PROXY", "foo://me:hunter2@h:1", "ValueError"),
        ("SSL_CERT_FILE", "/none/hunter2.pem", "FileNotFoundError"),
        ("ALL_PROXY", "socks5://me:hunter2@h:1", "ImportError"),
    ],
)


@pytest.fixture
def no_socks(monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)


@UNUSABLE
def test_a_proxy_or_certificates_that_cannot_be_used_are_one_clear_line(
    make_spec, monkeypatch, no_socks, variable, value, named
):
    monkeypatch.setenv(variable, value)
    n_threads = threading.active_count()
    for ask in (lambda spec: label(spec, show_progress=False), TeacherFallback):
        with pytest.raises(TeacherError, match=rf"\({named}\): see to HTTP_PROXY, .* and SSL_CERT_FILE") as caught:
            ask(make_spec("http://127.0.0.1:1/v1"))
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
        assert ("pip install socksio" in str(caught.value)) == value.startswith("socks5")
    assert threading.active_count() <= n_threads


def test_it_asks_as_labelling_asks(make_spec, make_fallback, server):
    label(make_spec(server.base_url), show_progress=False)
    labelling = next(body for body in server.requests if TEXTS[0] in str(body["messages"]))
    make_fallback(server.base_url)(TEXTS[0])
    assert server.requests[-1] == labelling


def test_it_begins_in_the_dialect_of_the_recording(make_spec, make_fallback):
    with FakeServer("schema-refusing") as server:
        spec = make_spec(server.base_url)
        label(spec, show_progress=False)
        assert ledger_lines(spec)
        n_requests = server.n_requests
        make_fallback(server.base_url)("where is my parcel")
        assert server.n_requests == n_requests + 1


def test_queries_are_redacted(make_fallback, server, tmp_path, monkeypatch):
    (tmp_path / "redacting.py").write_text("def hide(text):\n    return text.replace('4711', '#')\n", encoding="utf-8")
    make_fallback(server.base_url, teacher={"redact": "redacting:hide"})("refund 4711")
    assert [*server.asked] == ["refund #"]
    monkeypatch.delitem(sys.modules, "redacting")


@pytest.mark.parametrize(
    ("profile", "is_paid"),
    [("broken", False), ("invalid-json", True), ("no-such-intent", True), ("unauthorised", False), ("empty", True)],
)
def test_a_teacher_that_fails_leaves_the_students_answer(make_fallback, tiny_router, profile, is_paid):
    with FakeServer(profile) as server:
        fallback = make_fallback(server.base_url, teacher={"price": PRICE})
        with nullcontext() if is_paid else pytest.raises(TeacherError):
            reply = fallback(DOUBTED)
            assert isinstance(reply.answer, ValueError)
            assert reply.usd > 0
        n_requests = server.n_requests
        prediction = Cascade(tiny_router, fallback, timeout_s=20, ask_below=1.0).route(DOUBTED)
        assert prediction.fallback is FallbackOutcome.FAILED
        assert prediction.intent == prediction.student.intent
        assert (prediction.usd is not None) == is_paid
        assert server.n_requests == n_requests + 1  # it is not sent again


def test_a_slow_teacher_is_given_up(make_fallback, tiny_router, capsys):
    with FakeServer(delay_s=0.5) as server:
        fallback = make_fallback(server.base_url, timeout_s=0.05, teacher={"price": PRICE})
        with pytest.raises(TeacherError, match=r"no answer within 0\.05 s"):
            fallback(DOUBTED)
        cascade = Cascade(tiny_router, fallback, timeout_s=20, ask_below=1.0)
        assert "no answer within" in cascade.route(DOUBTED).error
    fallback.close()
    assert not capsys.readouterr().err, "a service is not told of a limit that is not its own"


def test_a_server_that_only_keeps_the_line_open_is_given_up(make_fallback):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            with server.accept()[0] as line, contextlib.suppress(OSError):
                line.recv(65536)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(100):
                    line.sendall(b"1\r\n \r\n")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        fallback = make_fallback(f"http://127.0.0.1:{server.getsockname()[1]}/v1", timeout_s=0.5)
        with pytest.raises(TeacherError, match=r"no answer within 0\.5 s"):
            fallback(DOUBTED)
        fallback.close()
        thread.join(5)
        assert not thread.is_alive()


def test_closing_it_waits_for_the_calls_that_are_made_and_stops_no_other(make_fallback):
    with FakeServer(delay_s=0.02) as server:
        fallback = make_fallback(server.base_url)
        answers = []

        def ask(thread):
            answers.extend(fallback(f"cancel {thread} {n}").answer for n in range(12))

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and len(answers) < 96:
            fallback.close()
            time.sleep(0.01)
        for thread in threads:
            thread.join(30)
    assert answers == [{"cancel_order": 1.0}] * 96


def test_half_a_surrogate_is_read_as_the_router_reads_it(make_fallback, server):
    assert make_fallback(server.base_url)("\ud800 cancel it").answer == {"cancel_order": 1.0}


def test_threads_share_it(make_fallback, tiny_router):
    with FakeServer(delay_s=0.05) as server:
        cascade = Cascade(tiny_router, make_fallback(server.base_url), timeout_s=20, ask_below=1.0)
        answers = cascade.route_batch([f"cancel unheard {n}" for n in range(24)])
    assert {each.intent for each in answers} == {"cancel_order"}
    assert server.most_in_flight > 4


def test_what_a_call_costs_at_most_keeps_a_budget(make_fallback, tiny_router, server):
    fallback = make_fallback(server.base_url, teacher={"price": PRICE, "max_output_tokens": 100})
    assert Decimal("0.0012") < fallback.usd_per_call < Decimal("0.01")
    budget = Budget(max_usd=fallback.usd_per_call + Decimal("0.0003"), usd_per_call=fallback.usd_per_call)
    cascade = Cascade(tiny_router, fallback, timeout_s=20, ask_below=1.0, budget=budget)
    outcomes = [cascade.route(DOUBTED).fallback.value for _ in range(4)]
    assert outcomes == ["answered", "answered", "over_budget", "over_budget"]


def test_a_long_query_is_cut_so_that_no_call_exceeds_its_price(make_fallback, server):
    fallback = make_fallback(server.base_url, teacher={"price": PRICE})
    fallback("refund " + "\N{GRINNING FACE}" * 1_000_000)
    sent = server.requests[-1]["messages"][-1]["content"]
    assert "refund" in sent
    assert Decimal(len(sent.encode()) + 100) / 1_000_000 < fallback.usd_per_call
    assert sent.count("\N{GRINNING FACE}") == 2_000 - len("refund ")


def test_a_long_query_is_redacted_whole_before_it_is_cut(make_fallback, server, tmp_path, monkeypatch):
    (tmp_path / "whole.py").write_text("def hide(text):\n    return text.replace('4711', '#')\n", encoding="utf-8")
    text = "refund " + "x" * (1_998 - len("refund ")) + "4711"
    make_fallback(server.base_url, teacher={"redact": "whole:hide"})(text)
    sent = server.requests[-1]["messages"][-1]["content"]
    assert "x#" in sent
    assert "47" not in sent
    monkeypatch.delitem(sys.modules, "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_that_is_forked_while_a_line_opens_opens_its_own(make_fallback, server):
    fallback = make_fallback(server.base_url)
    with fallback._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)  # or it would wait for ever
            os._exit(fallback("refund").answer != {"refund": 1.0})
    assert os.waitpid(child, 0)[1] == 0


def test_without_a_price_or_a_count_the_cost_is_unknown(make_fallback, server):
    assert make_fallback(server.base_url).usd_per_call is None
    assert make_fallback(server.base_url)("refund").usd is None
    server.usage = None
    assert make_fallback(server.base_url, teacher={"price": PRICE})("refund").usd is None


def test_a_reply_without_an_answer_costs_what_the_server_counted(make_fallback, server):
    server.profile = "parts"
    reply = make_fallback(server.base_url, teacher={"price": PRICE})("refund")
    assert (str(reply.answer), reply.usd) == ("the server's reply is not a chat completion", Decimal("0.0002"))
    server.usage = None
    with pytest.raises(TeacherError, match="not a chat completion"):
        make_fallback(server.base_url, teacher={"price": PRICE})("refund")


def test_a_callable_teacher(make_fallback, tiny_router, tmp_path, monkeypatch):
    (tmp_path / "sorting.py").write_text("def sort(text):\n    return {'refund': 2, 'oos': 1}\n", encoding="utf-8")
    fallback = make_fallback(teacher={"model": None, "callable": "sorting:sort"})
    assert Cascade(tiny_router, fallback, ask_below=1.0).route(DOUBTED).intent == "refund"
    assert fallback.usd_per_call is None
    monkeypatch.delitem(sys.modules, "sorting")


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("'refund\\n'", "refund"),
        ("None", "TypeError: the function must return the name of an intent or {name: score}, found None: does it lack a return?"),
        ("{'refund': -1}", "ValueError: the scores must be numbers from 0 on, and not all 0"),
    ],
)  # fmt: skip
def test_what_a_callable_returns_is_read_as_when_it_labels(make_fallback, tiny_router, tmp_path, returned, answer):
    name = f"sorting_{tmp_path.name}"  # a module's name is taken for as long as the process lasts
    (tmp_path / f"{name}.py").write_text(f"def sort(text):\n    return {returned}\n", encoding="utf-8")
    fallback = make_fallback(teacher={"model": None, "callable": f"{name}:sort"})
    found = Cascade(tiny_router, fallback, ask_below=1.0).route(DOUBTED)
    assert (found.intent if found.error is None else found.error).startswith(answer)


def test_a_sentence_encoder_that_is_needed_is_opened_before_the_first_query(make_spec, server):
    many = {f"intent_{number}": f"About subject {number}" for number in range(400)}
    spec = make_spec(server.base_url, intents=INTENTS | many)
    opened = []
    fallback = TeacherFallback(spec, timeout_s=20, open_embedder=lambda: opened.append(1) or ByWords())
    assert (len(opened), server.requests) == (1, [])
    fallback("where is my parcel")
    fallback.close()
    assert len(opened) == 1
    with pytest.raises(TeacherError, match="too many for one prompt"):
        TeacherFallback(spec)


def test_human_labels_cannot_be_asked(make_spec, tmp_path):
    (tmp_path / "labels.jsonl").write_text('{"text": "a", "intent": "refund"}\n', encoding="utf-8")
    with pytest.raises(SpecError, match="a teacher that can be asked"):
        TeacherFallback(make_spec(teacher={"model": None, "labels": "labels.jsonl"}))


def test_a_missing_key_is_found_at_once(make_spec):
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        TeacherFallback(make_spec("https://api.example.com/v1"))


def test_closed_it_opens_again(make_fallback, server):
    fallback = make_fallback(server.base_url)
    for _ in range(2):
        assert fallback("refund").answer == {"refund": 1.0}
        fallback.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "distill-teacher"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_its_own(make_fallback, server):
    fallback = make_fallback(server.base_url)
    fallback("refund")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send(fallback("cancel it").answer))
    child.start()
    assert here.poll(60)
    assert here.recv() == {"cancel_order": 1.0}
    child.join(60)
    assert child.exitcode == 0
