from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from fake_server import FakeServer, query_of
from project import distill
from teacher_specs import PRICE, TEXTS, ledger_lines

from distill import pipeline
from distill.benchmark.cost import spent_usd
from distill.benchmark.recorded import RecordedTeacher
from distill.data import read_labels
from distill.errors import DataError, SpecError, SpendLimitError, TeacherError
from distill.spec import load_spec
from distill.teacher import batch as batch_module
from distill.teacher import prices
from distill.teacher.client import RequestFailedError, read_completion
from distill.teacher.in_flight import open_batches
from distill.teacher.label import label, plan_labels
from distill.teacher.prices import batch_price, teacher_price
from distill.teacher.spend import limited, open_budget, spend_by_stage
from distill.teacher.synth import synthesise

PROGRAM = Path(__file__).with_name("label_program.py")
BATCH_PRICE = PRICE | {"batch": {"input_per_mtok": 0.5, "output_per_mtok": 5}}
"""A request of 100 tokens in and 10 out costs USD 0.0001 in a batch, and 0.0002 alone."""
KEY = "sk-planted-0123456789"


class KilledError(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(batch_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(batch_module, "LONGEST_PAUSE_S", 0.001)


def by_batch(spec, **keys):
    return label(spec, batch=True, show_progress=False, **keys)


def good_texts(spec):
    return sorted(line["text"] for line in ledger_lines(spec) if "scores" in line)


def in_batch(spec):
    return [line for line in ledger_lines(spec) if "batch" in line]


def folder(spec):
    return spec.folder / "batches"


def kill_at(monkeypatch, name, *, after):
    """The process dies before or after a call of the API."""
    real = getattr(batch_module, name)

    async def dying(*given):
        if after:
            await real(*given)
        raise KilledError

    monkeypatch.setattr(batch_module, name, dying)


def die_creating(spec, monkeypatch, *, after):
    """A run whose process dies before or after its batch is created: after it, the batch is in flight."""
    with monkeypatch.context() as dying:
        kill_at(dying, "_create", after=after)
        with pytest.raises(KilledError):
            by_batch(spec)


# --- the usual way ----------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_single_requests_give(server, make_spec, tmp_path):
    spec = make_spec(server.base_url)
    label(spec, show_progress=False)
    single = {line["text"]: (line["key"], line["scores"], line["prompt_sha256"]) for line in ledger_lines(spec)}
    spec.ledger_path.unlink()
    summary = by_batch(spec)
    assert (summary.n_asked, summary.n_failed, summary.n_recorded) == (len(TEXTS), 0, 0)
    assert {line["text"]: (line["key"], line["scores"], line["prompt_sha256"]) for line in ledger_lines(spec)} == single
    assert not folder(spec).exists()


def test_every_line_has_its_own_tokens_its_batch_and_no_latency(server, make_spec):
    spec = make_spec(server.base_url)
    by_batch(spec)
    first, *others = ledger_lines(spec)
    assert first["latency_ms"] > 0, "one is asked alone, which finds out what the server takes"
    assert "batch" not in first
    assert len(others) == len(TEXTS) - 1
    assert [line["text"] for line in others] == list(TEXTS[1:])[::-1], "recorded as they come: the last first"
    for line in others:
        assert (line["batch"], line["server"], line["latency_ms"]) == ("batch_1", "this machine", None)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (100, 10)
        assert line["asked_at"].endswith("Z")


def test_the_custom_id_is_the_ledgers_key(server, make_spec):
    spec = make_spec(server.base_url)
    by_batch(spec)
    assert sorted(server.batches.custom_ids()) == sorted(line["key"] for line in in_batch(spec))
    (upload,) = server.batches.uploads
    line = json.loads(server.batches.contents[upload["id"]].splitlines()[0])
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["body"] == next(body for body in server.requests if query_of(body) == query_of(line["body"]))


def test_what_the_ledger_holds_is_not_asked_again(server, make_spec):
    spec = make_spec(server.base_url)
    by_batch(spec)
    n_looks, n_requests = server.batches.n_looks, server.n_requests
    assert by_batch(spec).n_recorded == len(TEXTS)
    assert (server.batches.n_looks, server.n_requests) == (n_looks, n_requests)


def test_a_single_query_needs_no_batch(server, make_spec):
    spec = make_spec(server.base_url, ["where is my parcel"])
    assert by_batch(spec).n_failed == 0
    assert not server.batches.batches


def test_samples_are_asked_apart(server, make_spec):
    spec = make_spec(server.base_url, TEXTS[:3], teacher={"samples": 3, "temperature": 0.7})
    by_batch(spec)
    assert sorted((line["text"], line["sample"]) for line in ledger_lines(spec)) == sorted(
        (text, sample) for text in TEXTS[:3] for sample in range(3)
    )


def test_progress_says_how_far_a_batch_is(server, make_spec, capsys):
    label(make_spec(server.base_url), batch=True)
    shown = capsys.readouterr().err
    for status in ("validating, 0 of 11", "in_progress", "finalizing", "completed, 11 of 11"):
        assert f"batch batch_1: {status}" in shown


# --- what the server takes --------------------------------------------------------------------------------------------


def test_a_refused_parameter_is_found_out_before_the_batch(make_spec):
    with FakeServer("reasoning") as fake:
        spec = make_spec(fake.base_url)
        assert by_batch(spec).n_failed == 0
        bodies = [json.loads(line)["body"] for line in fake.batches.contents["file-1"].splitlines()]
    assert all("temperature" not in body and "max_completion_tokens" in body for body in bodies)
    assert {line["settings"]["temperature"] for line in ledger_lines(spec)} == {None}


def test_a_server_that_ignores_the_schema_is_found_out_before_the_batch(make_spec):
    with FakeServer("schema-ignoring") as fake:
        spec = make_spec(fake.base_url)
        assert by_batch(spec).n_failed == 0
        bodies = [json.loads(line)["body"] for line in fake.batches.contents["file-1"].splitlines()]
    assert {body["response_format"]["type"] for body in bodies} == {"json_object"}


@pytest.mark.parametrize("profile", ["unauthorised", "not-found", "broken"])
def test_where_nothing_can_be_asked_no_batch_is_made(make_spec, profile):
    with FakeServer(profile) as fake:
        with pytest.raises(TeacherError):
            by_batch(make_spec(fake.base_url))
        assert not fake.batches.uploads
        assert fake.n_requests <= 3


def test_an_endpoint_without_batches_is_one_clear_error(server, make_spec):
    server.batches.is_served = False
    with pytest.raises(TeacherError, match=r"has no Batch API \(404\); label without --batch"):
        by_batch(make_spec(server.base_url))
    assert server.n_requests == 0


def test_only_a_model_has_batches(tmp_path, make_spec):
    spec = make_spec(teacher={"model": None, "callable": "module:function"})
    with pytest.raises(SpecError, match=r"teacher\.model"):
        by_batch(spec)


# --- answers that are none --------------------------------------------------------------------------------------------


def test_errors_of_single_requests_are_recorded_and_asked_again(make_spec, capsys):
    with FakeServer("too-long") as fake:
        texts = ["where is my parcel", "a long story", "refund"]
        spec = make_spec(fake.base_url, texts)
        summary = by_batch(spec)
        assert (summary.n_asked, summary.n_failed) == (3, 1)
        (failed,) = [line for line in ledger_lines(spec) if "error" in line]
        assert (failed["text"], failed["batch"], failed["prompt_tokens"]) == ("a long story", "batch_1", None)
        assert "maximum context length" in failed["error"]
        assert "1 of 2 requests in batch batch_1 (completed) have no good answer" in capsys.readouterr().err
        fake.profile = "normal"
        assert by_batch(spec).n_failed == 0


def test_an_answer_that_names_no_intent_is_counted(server, make_spec):
    server.profile = "no-such-intent"
    summary = by_batch(make_spec(server.base_url))
    assert (summary.n_failed, summary.n_unmatched) == (len(TEXTS), len(TEXTS))
    assert dict(summary.unmatched) == {"transfer_all_the_money": len(TEXTS)}


def test_all_of_a_batch_may_fail_without_an_end_in_the_middle(server, make_spec):
    spec = make_spec(server.base_url, [f"parcel {number}" for number in range(40)])
    server.profile = "cut-off"
    assert by_batch(spec).n_failed == 40
    assert "cut off after 10 tokens (teacher.max_output_tokens)" in ledger_lines(spec)[-1]["error"]


def output_of(server, change):
    """From now on every output file of the provider holds what ``change`` makes of it."""
    store = server.batches._store
    server.batches._store = lambda name, content, purpose="batch": store(
        name, change(content) if purpose == "batch_output" else content, purpose
    )


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe\n", b'{"custom_id": 3}\n[]\nnull\n{}\n', b'{"response": {"status_code": 200, "body": []}}'])  # fmt: skip
def test_a_mangled_output_file_is_looked_at_again_and_loses_no_paid_answer(server, make_spec, capsys, garbage):
    spec, whole = make_spec(server.base_url), []
    output_of(server, lambda content: whole.append(content) or garbage)
    with pytest.raises(
        TeacherError, match=r"has answered 11 requests, and its files hold . of these answers; --give-up"
    ):
        by_batch(spec)
    said = capsys.readouterr().err
    assert said.count("has answered 11 requests") == 1
    assert "cannot see" not in said
    assert in_batch(spec) == []
    server.batches.contents[server.batches.batches["batch_1"]["output_file_id"]] = whole[0]
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}
    assert not folder(spec).exists()


def test_answers_that_are_missing_are_said_once_beside_a_batch_in_progress(server, make_spec, monkeypatch, capsys):
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 6)
    answer = server.batches.answer

    def second_in_progress(method, path, *given):
        status, body = answer(method, path, *given)
        if method == "GET" and path.endswith("batch_2"):
            body = body | {"status": "in_progress", "output_file_id": None}
        return status, body

    monkeypatch.setattr(server.batches, "answer", second_in_progress)
    output_of(server, lambda _: b"")
    with pytest.raises(TeacherError, match=r"batch_1.* has answered 6 requests"):
        by_batch(make_spec(server.base_url))
    assert capsys.readouterr().err.count("batch_1 (completed) has answered 6 requests") == 1


def test_an_output_file_that_is_missing_for_a_moment_is_asked_for_again(server, make_spec):
    n_served, answer = [], server.batches.answer

    def missing_once(method, path, *given):
        if path.endswith("/content") and not n_served:
            n_served.append(path)
            return 404, {"error": {"message": "No such File object"}}
        return answer(method, path, *given)

    server.batches.answer = missing_once
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    assert by_batch(spec).n_failed == 0
    assert n_served
    assert set(server.asked.values()) == {1}
    assert len(ledger_lines(spec)) == len(TEXTS)


def test_what_half_an_output_file_holds_is_recorded_once(server, make_spec):
    spec, whole = make_spec(server.base_url, teacher={"price": BATCH_PRICE}), []
    output_of(server, lambda content: whole.append(content) or content[: len(content) // 2])
    with pytest.raises(TeacherError, match="has answered 11 requests, and its files hold 5 of these answers"):
        by_batch(spec)
    assert len(in_batch(spec)) == 5
    server.batches.contents[server.batches.batches["batch_1"]["output_file_id"]] = whole[0]
    assert by_batch(spec).n_failed == 0
    assert sorted(line["text"] for line in ledger_lines(spec)) == sorted(TEXTS)
    assert open_budget(spec, "fake").known_spend_usd == Decimal("0.0002") + 11 * Decimal("0.0001")


def test_paid_answers_that_never_come_are_given_up_on_demand_alone(server, make_spec):
    spec = make_spec(server.base_url)
    output_of(server, lambda content: b"")
    for _ in range(2):
        with pytest.raises(TeacherError, match="--give-up"):
            by_batch(spec)
    assert by_batch(spec, give_up=True).n_failed == len(TEXTS) - 1
    assert "no answer" in ledger_lines(spec)[-1]["error"]
    assert not folder(spec).exists()
    del server.batches._store
    assert by_batch(spec).n_failed == 0
    assert len(server.batches.batches) == 2


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"status_code": 200, "body": {"hello": "world"}}, "not a chat completion"),
        ({"status_code": 200, "body": None}, "answered 200"),
        ({"status_code": 503, "body": "busy"}, "answered 503: busy"),
        (None, "no reason given"),
        ("what", "no reason given"),
    ],
)
def test_a_line_that_holds_no_completion_is_a_failed_answer(response, error):
    with pytest.raises(RequestFailedError, match=error):
        read_completion(batch_module._completion({"response": response}))


def test_an_answer_that_echoes_the_key_is_kept_without_it(server, make_spec, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-4711")
    normal = server.respond
    echo = server._profile_echoing_fields

    def respond(body, query):
        return (normal if server.n_requests < 2 else echo)(body, query)

    monkeypatch.setattr(server, "respond", respond)
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == len(TEXTS) - 1
    assert server.keys == {"sk-planted-4711"}
    assert "sk-planted" not in spec.ledger_path.read_text("utf-8") + "".join(capsys.readouterr())
    assert "Authorization: Bearer [key]" in ledger_lines(spec)[-1]["error"]


# --- how a batch may end ----------------------------------------------------------------------------------------------


def test_an_expired_batch_keeps_what_was_answered(server, make_spec):
    server.batches.outcome, server.batches.n_answered = "expired", 4
    spec = make_spec(server.base_url)
    summary = by_batch(spec)
    assert (summary.n_asked, summary.n_failed) == (len(TEXTS), len(TEXTS) - 5)
    expired = [line for line in ledger_lines(spec) if "error" in line]
    assert {line["error"].split(":")[1].strip() for line in expired} == {"batch_expired"}
    assert len(good_texts(spec)) == 5
    server.batches.outcome, server.batches.n_answered = "completed", None
    assert by_batch(spec).n_failed == 0
    assert good_texts(spec) == sorted(TEXTS)
    assert max(server.asked.values()) == 1


def test_an_expired_batch_without_any_output(server, make_spec):
    server.batches.outcome, server.batches.n_answered = "expired", 0
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    summary = by_batch(spec)
    assert summary.n_failed == len(TEXTS) - 1
    assert summary.spent_usd == open_budget(spec, "fake").known_spend_usd == Decimal("0.0002"), "unanswered is unpaid"


def test_a_failed_batch_is_one_clear_error_and_is_asked_anew(server, make_spec):
    server.batches.outcome = "failed"
    spec = make_spec(server.base_url)
    with pytest.raises(TeacherError, match=r"batch_1 failed: This line is not parseable as valid JSON. \(line 3\)"):
        by_batch(spec)
    assert not folder(spec).exists()
    server.batches.outcome = "completed"
    assert by_batch(spec).n_failed == 0
    assert len(server.batches.batches) == 2


def test_a_failed_batch_without_a_reason(server, make_spec):
    server.batches.outcome, server.batches.failure = "failed", []
    with pytest.raises(TeacherError, match="the provider does not say why"):
        by_batch(make_spec(server.base_url))


def test_a_cancelled_batch_is_an_error_and_keeps_what_was_answered(server, make_spec):
    server.batches.outcome, server.batches.n_answered = "cancelled", 4
    spec = make_spec(server.base_url)
    with pytest.raises(TeacherError, match="batch_1 was cancelled; the answers it had are recorded"):
        by_batch(spec)
    assert len(good_texts(spec)) == 5
    server.batches.outcome, server.batches.n_answered = "completed", None
    assert by_batch(spec).n_failed == 0
    assert max(server.asked.values()) == 1


def test_a_full_queue_makes_batches_smaller(server, make_spec, capsys):
    server.batches.fails_above = 3
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    assert good_texts(spec) == sorted(TEXTS)
    assert set(server.asked.values()) == {1}
    assert "more than the provider lets wait in its queue; asking it 5 requests at a time" in capsys.readouterr().err


def test_a_queue_that_takes_nothing_is_an_error(server, make_spec):
    server.batches.fails_above = 0
    with pytest.raises(TeacherError, match="Enqueued token limit reached"):
        by_batch(make_spec(server.base_url))


# --- limits of the API ------------------------------------------------------------------------------------------------


def test_more_requests_than_a_file_takes_are_several_batches(server, make_spec, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 4)
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    assert [batch["request_counts"]["total"] for batch in server.batches.batches.values()] == [4, 4, 3]
    assert set(server.asked.values()) == {1}
    assert {line["batch"] for line in in_batch(spec)} == {"batch_1", "batch_2", "batch_3"}


def test_more_bytes_than_a_file_takes_are_several_batches(server, make_spec, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_BYTES", 3500)
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    uploads = [file["bytes"] for file in server.batches.uploads]
    assert len(uploads) > 2
    assert max(uploads) <= 3500


def test_the_limits_are_those_of_the_api():
    assert (batch_module.MOST_REQUESTS, batch_module.MOST_BYTES) == (50_000, 200_000_000)


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_batch_is_counted_at_its_own_price(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 5})
    summary = by_batch(spec)
    assert summary.spent_usd == Decimal("0.0002") + 11 * Decimal("0.0001")
    assert open_budget(spec, "fake").known_spend_usd == summary.spent_usd
    stages = {stage.stage: stage for stage in spend_by_stage(spec)}
    assert {name: stage.n_answers for name, stage in stages.items()} == {"label": 1, "label --batch": 11}
    assert spent_usd(list(stages.values())) == summary.spent_usd
    assert stages["label --batch"].usd == 11 * Decimal("0.0001")


def test_an_unknown_batch_price_stays_unknown(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": PRICE})
    assert by_batch(spec).spent_usd is None
    assert open_budget(spec, "fake").known_spend_usd is None
    assert spent_usd(spend_by_stage(spec)) is None
    assert plan_labels(make_spec(server.base_url, ["new"], teacher={"price": PRICE}), batch=True).estimated_usd is None


def test_a_limit_without_a_batch_price_is_refused(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": PRICE, "max_usd": 5})
    with pytest.raises(SpecError, match=r"no price in batches is known for 'fake'; give teacher.price with `batch:"):
        by_batch(spec)
    assert server.n_requests == 0


def test_a_limit_does_not_hold_where_batches_had_no_price(server, make_spec):
    by_batch(make_spec(server.base_url, teacher={"price": PRICE}))
    with pytest.raises(SpendLimitError, match="answers by 'fake' were paid for at a price that is not known"):
        label(make_spec(server.base_url, ["new"], teacher={"price": PRICE, "max_usd": 5}), show_progress=False)


def test_the_limit_is_kept_whatever_a_batch_costs(server, make_spec, capsys):
    """What may cost the most it can does not fit at once: batch after batch, each when it is known what the last one cost."""
    teacher = {"price": BATCH_PRICE, "max_usd": 0.009, "max_output_tokens": 200}
    spec = make_spec(server.base_url, teacher=teacher)
    assert by_batch(spec).n_failed == 0
    counts = [batch["request_counts"]["total"] for batch in server.batches.batches.values()]
    assert len(counts) > 1
    assert sum(counts) == len(TEXTS) - 1
    assert "leaves room for" in capsys.readouterr().err


def test_the_limit_is_checked_before_a_batch_is_created(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 0.0043, "max_output_tokens": 200})
    server.usage = {"prompt_tokens": 2000, "completion_tokens": 200, "total_tokens": 2200}
    with pytest.raises(SpendLimitError, match="spend limit is reached"):
        by_batch(spec)
    assert open_budget(spec, "fake").spent_usd <= Decimal("0.0043")
    assert len(good_texts(spec)) == 1
    assert not server.batches.batches


def test_batch_prices_come_from_the_price_list(make_spec):
    def prices_of(model, base_url=None):
        spec = make_spec(base_url, teacher={"model": model})
        return teacher_price(spec), batch_price(spec)

    single, batched = prices_of("gpt-5-mini")
    assert batched.source.endswith("provider openai, batch")
    assert batched.input_usd_per_mtok < single.input_usd_per_mtok
    assert batched.output_usd_per_mtok < single.output_usd_per_mtok
    _, elsewhere = prices_of("gpt-5-mini", "https://models.example.org/v1")
    assert elsewhere is None, "another provider's batches are not known to cost less"
    assert prices_of("no-such-model-4711") == (None, None)
    assert prices_of("gpt-5-mini", "http://127.0.0.1:1/v1") == (None, None)


def test_a_model_without_a_batch_price_in_the_list_has_none(make_spec):
    from genai_prices.data_snapshot import get_snapshot

    (openai,) = [provider for provider in get_snapshot().providers if provider.id == "openai"]
    without = next(
        model.id
        for model in openai.models
        if model.id.startswith("o1") and not any(v.when == prices._IN_BATCH for v in model.price_variants or ())
    )
    spec = make_spec(teacher={"model": without})
    assert teacher_price(spec) is not None
    assert batch_price(spec) is None


def test_other_variants_of_a_price_are_not_taken_for_a_batch_price(make_spec, monkeypatch):
    monkeypatch.setattr(prices, "_IN_BATCH", {"processing": "of another kind"})
    assert batch_price(make_spec(teacher={"model": "gpt-5-mini"})) is None


def test_a_dry_run_estimates_at_the_batch_price(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    batched, single = pipeline.plan_label(spec, batch=True), pipeline.plan_label(spec)
    assert batched.estimated_usd == single.estimated_usd / 2 > 0
    assert batched.n_missing == single.n_missing == len(TEXTS)
    assert server.n_requests == 0


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_would_do_and_does_it(server, make_spec):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 5})
    planned = distill("label", spec.path, "--batch", "--dry-run").stdout.splitlines()
    assert planned[0].startswith("label   12 of 12 queries to label, by fake in batches, USD about 0.0")
    assert planned[1].endswith("teacher.max_usd leaves 5.0000; price: made up, batch, 2026-01-31. Nothing was asked.")
    assert server.n_requests == 0
    done = distill("label", spec.path, "--batch", "--json")
    assert json.loads(done.stdout)["n_asked"] == len(TEXTS)
    assert "batch batch_1: completed" in done.stderr
    assert distill("label", spec.path, "--batch", "--dry-run").stdout.endswith(
        "Nothing is to be asked, and nothing was.\n"
    )
    assert json.loads(distill("label", spec.path, "--dry-run", "--json").stdout)["n_missing"] == 0


def test_a_dry_run_says_what_is_in_flight(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    die_creating(spec, monkeypatch, after=True)
    planned = distill("label", spec.path, "--batch", "--dry-run").stdout
    assert planned.startswith("label   0 of 12 queries to label, 11 in flight already, by fake in batches\n")


def test_importing_asks_nothing_so_that_it_goes_without_batches(server, make_spec):
    spec = make_spec(server.base_url)
    assert distill("label", spec.path, "--import", spec.queries_path, "--batch").exit_code == 2


def test_giving_up_is_for_batches(server, make_spec):
    assert distill("label", make_spec(server.base_url).path, "--give-up").exit_code == 2
    assert distill("label", make_spec(server.base_url).path, "--batch", "--give-up").exit_code == 0


# --- going on after a kill --------------------------------------------------------------------------------------------

STEPS = [("_upload", False), ("_upload", True), ("_create", False), ("_create", True)]


@pytest.mark.parametrize(("step", "after"), STEPS)
def test_a_kill_around_upload_and_creation_pays_nothing_twice(server, make_spec, monkeypatch, step, after):
    spec = make_spec(server.base_url)
    with monkeypatch.context() as dying:
        kill_at(dying, step, after=after)
        with pytest.raises(KilledError):
            by_batch(spec)
    assert len(open_batches(spec)) == 1
    by_batch(spec)
    assert good_texts(spec) == sorted(TEXTS)
    assert set(server.asked.values()) == {1}
    assert len(server.batches.uploads) == 1
    assert len(server.batches.batches) == 1
    assert not folder(spec).exists()


def test_a_kill_while_polling_pays_nothing_twice(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    server.batches.stays = "in_progress"

    def die(*_):
        raise KilledError

    with monkeypatch.context() as dying:
        dying.setattr(batch_module.BatchRun, "_show", die)
        with pytest.raises(KilledError):
            by_batch(spec)
    (state,) = open_batches(spec)
    assert (state.batch_id, state.input_file_id, len(state.asked)) == ("batch_1", "file-1", len(TEXTS) - 1)
    assert [path.name for path in folder(spec).iterdir()] == [f"{state.token}.json"], "what was uploaded is not kept"
    server.batches.stays = None
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}
    assert len(server.batches.batches) == 1


@pytest.mark.parametrize("n_recorded", [0, 1, 7, 11])
def test_a_kill_while_answers_are_recorded_records_none_twice(server, make_spec, monkeypatch, n_recorded):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    real, taken = batch_module.BatchRun._take, []

    def die(*given):
        if len(taken) == n_recorded:
            raise KilledError
        taken.append(given)
        return real(*given)

    with monkeypatch.context() as dying:
        dying.setattr(batch_module.BatchRun, "_take", die)
        dying.setattr(batch_module.BatchRun, "_forget", die)
        with pytest.raises(KilledError):
            by_batch(spec)
    assert len(in_batch(spec)) == n_recorded
    by_batch(spec)
    assert sorted(line["text"] for line in ledger_lines(spec)) == sorted(TEXTS)
    assert open_budget(spec, "fake").known_spend_usd == Decimal("0.0002") + 11 * Decimal("0.0001")


def test_a_reply_that_got_lost_creates_no_second_batch(server, make_spec):
    server.batches.loses_reply_to_creation = True
    spec = make_spec(server.base_url, teacher={"max_retries": 4})
    with pytest.raises(TeacherError, match="answered 500"):
        by_batch(spec)
    assert len(server.batches.batches) == 1
    by_batch(spec)
    assert len(server.batches.batches) == 1
    assert good_texts(spec) == sorted(TEXTS)


def test_a_batch_is_known_by_its_metadata_where_nothing_is_written_down(server, make_spec, monkeypatch, capsys):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 5})
    die_creating(spec, monkeypatch, after=True)
    for path in folder(spec).iterdir():
        path.unlink()
    summary = by_batch(spec)
    assert summary.n_failed == 0
    assert len(server.batches.batches) == 1
    assert set(server.asked.values()) == {1}
    assert "batch batch_1 was created before and asks 11 of these queries" in capsys.readouterr().err


def test_a_batch_of_a_spec_that_was_renamed_is_not_held_twice(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 5})
    die_creating(spec, monkeypatch, after=True)
    (state,) = folder(spec).glob("*.json")
    state.write_text(json.dumps(json.loads(state.read_text("utf-8")) | {"batch_id": "batch_1"}), encoding="utf-8")
    renamed = load_spec(spec.path.rename(spec.path.with_name("shop.yaml")))
    assert by_batch(renamed).n_failed == 0
    assert len(server.batches.batches) == 1
    assert list(folder(spec).glob("*.json")) == []


def test_batches_of_others_are_left_alone(server, make_spec):
    other = make_spec(server.base_url, intents={"a": "", "b": ""}, out_of_scope=False)
    server.profile = "cut-off"
    by_batch(other)
    other.ledger_path.unlink()
    server.profile = "normal"
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    assert len(server.batches.batches) == 2


def test_a_batch_that_brought_no_good_answer_is_not_taken_up_again(server, make_spec):
    spec = make_spec(server.base_url)
    server.profile = "cut-off"
    by_batch(spec)
    server.profile = "normal"
    assert by_batch(spec).n_failed == 0
    assert len(server.batches.batches) == 2


def test_queries_that_came_meanwhile_are_asked_after_what_is_in_flight(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url), monkeypatch, after=True)
    spec = make_spec(server.base_url, [*TEXTS, "refund once more", "cancel once more"])
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}


def test_queries_that_went_meanwhile_are_recorded_all_the_same(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url), monkeypatch, after=True)
    spec = make_spec(server.base_url, TEXTS[:1])
    by_batch(spec)
    assert good_texts(spec) == sorted(TEXTS)


def test_other_settings_than_those_of_the_batch_in_flight(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url), monkeypatch, after=True)
    with pytest.raises(TeacherError, match=r"asked 'fake' with other settings .* put them back to take its answers"):
        by_batch(make_spec(server.base_url, teacher={"temperature": 0.5}))
    with pytest.raises(TeacherError, match="with other settings"):
        by_batch(make_spec(server.base_url, teacher={"model": "other"}))
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}


def test_what_is_in_flight_is_not_asked_one_by_one(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    die_creating(spec, monkeypatch, after=True)
    n_requests = server.n_requests
    with pytest.raises(TeacherError, match="11 of these queries are being asked in batch"):
        label(spec, show_progress=False)
    with pytest.raises(
        TeacherError, match="11 of these queries are being asked in batch"
    ):  # its answers can be read anew
        label(make_spec(server.base_url, teacher={"answer_map": {"GELD": "refund"}}), show_progress=False)
    spec = make_spec(server.base_url)
    assert server.n_requests == n_requests
    assert label(spec, ["another query"], show_progress=False).n_failed == 0
    plan = plan_labels(spec, batch=True)
    assert (plan.n_missing, plan.n_in_flight) == (0, 11)


def test_a_batch_in_flight_is_taken_even_where_the_limit_leaves_no_room(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url, teacher={"price": BATCH_PRICE}), monkeypatch, after=True)
    spec = make_spec(server.base_url, [*TEXTS, "refund new"], teacher={"price": BATCH_PRICE, "max_usd": 0.001})
    with pytest.raises(SpendLimitError):
        by_batch(spec)
    assert good_texts(spec) == sorted(TEXTS)


def test_what_is_in_flight_counts_towards_the_limit_of_every_command(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url, teacher={"price": BATCH_PRICE}), monkeypatch, after=True)
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    (batch,) = open_batches(spec)
    budget = open_budget(spec, "m")
    assert budget.committed_usd == budget.spent_usd + batch.reserved_usd
    n_requests = server.n_requests
    limit = {"price": BATCH_PRICE, "max_usd": float(budget.committed_usd)}
    with pytest.raises(SpendLimitError, match=rf"what is in flight can cost {batch.reserved_usd:.4f} more"):
        label(make_spec(server.base_url, teacher=limit), ["another query"], show_progress=False)
    assert server.n_requests == n_requests
    assert limited(spec, "m", Decimal(1)).teacher.max_usd == budget.committed_usd + 1
    assert label(limited(spec, "m", Decimal(1)), ["another query"], show_progress=False).n_asked == 1


def test_a_run_that_takes_up_a_batch_spends_no_more_than_it_may_on_new_requests(server, make_spec, monkeypatch):
    teacher = {"price": BATCH_PRICE}
    die_creating(make_spec(server.base_url, teacher=teacher), monkeypatch, after=True)
    spec = make_spec(server.base_url, [*TEXTS, *(f"refund new {n}" for n in range(6))], teacher=teacher)
    with pytest.raises(SpendLimitError):
        by_batch(limited(spec, "fake", Decimal("0.0001"), batch=True))
    assert good_texts(spec) == sorted(TEXTS), "what was in flight is taken, and nothing more is asked"


def test_the_request_that_tries_a_server_out_counts_the_batches_of_others(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url, teacher={"price": BATCH_PRICE})
    die_creating(spec, monkeypatch, after=True)
    limit = {"price": BATCH_PRICE, "max_usd": float(open_budget(spec, "fake").committed_usd)}
    raw = json.loads(spec.path.read_text())
    raw |= {"intents": {"a": "", "refund": ""}, "teacher": raw["teacher"] | limit}
    other = spec.path.with_name("other.yaml")
    other.write_text(json.dumps(raw | {"name": "other", "queries": "queries.jsonl"}))
    n_requests = server.n_requests
    with pytest.raises(SpendLimitError):
        by_batch(load_spec(other))
    assert server.n_requests == n_requests


def test_a_plan_says_what_a_batch_in_flight_would_stop(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    die_creating(spec, monkeypatch, after=True)
    (obstacle,) = plan_labels(spec).obstacles
    assert "11 of these queries are being asked in batch" in obstacle
    assert plan_labels(spec, batch=True).obstacles == ()
    (obstacle,) = plan_labels(make_spec(server.base_url, intents={"a": "", "refund": ""}), batch=True).obstacles
    assert "with other settings" in obstacle


def test_a_run_that_a_batch_in_flight_would_stop_pays_for_no_query_before(server, make_spec, monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "_embedder_if_there", lambda *_, **__: None)
    synth = {"per_intent": 4, "out_of_scope": 4, "per_request": 4}
    spec = make_spec(server.base_url, None, synth=synth)
    synthesise(spec, show_progress=False)
    die_creating(spec, monkeypatch, after=True)
    n_requests = server.n_requests
    spec = make_spec(server.base_url, None, synth=synth | {"per_intent": 8})
    with pytest.raises(TeacherError, match="are being asked in batch"):
        pipeline.run(spec, out=tmp_path / "out", show_progress=False)
    assert server.n_requests == n_requests


def test_a_batch_that_was_not_created_is_not_created_above_the_limit(server, make_spec, monkeypatch):
    die_creating(make_spec(server.base_url, teacher={"price": BATCH_PRICE}), monkeypatch, after=False)
    with pytest.raises(SpendLimitError):
        by_batch(make_spec(server.base_url, teacher={"price": BATCH_PRICE, "max_usd": 0.001}))
    assert not server.batches.batches
    assert by_batch(make_spec(server.base_url, teacher={"price": BATCH_PRICE})).n_failed == 0
    assert len(server.batches.uploads) == 1


def test_a_batch_that_the_endpoint_does_not_know(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    die_creating(spec, monkeypatch, after=False)
    (path,) = folder(spec).glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"batch_id": "batch_99"}))
    with pytest.raises(TeacherError, match=r"batch batch_99 is not known to the endpoint \(404\)"):
        by_batch(spec)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"asked": [{"text": "a"}]}', '{"asked": 3'])
def test_a_state_that_cannot_be_read_is_one_clear_error(server, make_spec, content):
    spec = make_spec(server.base_url)
    folder(spec).mkdir()
    (folder(spec) / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: cannot be read as the state of a batch"):
        by_batch(spec)


def test_a_provider_that_cannot_be_reached_for_a_while_is_waited_for(server, make_spec, capsys):
    server.batches.n_unreachable = 4
    assert by_batch(make_spec(server.base_url)).n_failed == 0
    assert capsys.readouterr().err.count("cannot see how far a batch is") == 1


def test_a_provider_that_stays_away_is_an_error_that_says_how_to_go_on(server, make_spec):
    server.batches.n_unreachable = 10
    spec = make_spec(server.base_url)
    with pytest.raises(
        TeacherError, match=r"batch batch_1 \(11 requests\); `distill label --batch .*` takes the answers"
    ):
        by_batch(spec)
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}


def test_a_provider_that_is_now_and_then_unreachable_is_no_error(server, make_spec, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 2)
    server.batches.is_flaky = True
    spec = make_spec(server.base_url)
    assert by_batch(spec).n_failed == 0
    assert server.batches.n_looks > 2 * batch_module._FAILED_LOOKS


def test_what_was_not_created_waits_for_what_was_where_the_limit_has_no_room_for_both(server, make_spec, monkeypatch):
    teacher = {"price": BATCH_PRICE, "max_output_tokens": 200}
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 6)
    real = batch_module._create

    async def dies_the_second_time(*given):
        if server.batches.batches:
            raise KilledError
        return await real(*given)

    with monkeypatch.context() as dying:
        dying.setattr(batch_module, "_create", dies_the_second_time)
        with pytest.raises(KilledError):
            by_batch(make_spec(server.base_url, teacher=teacher))
    spec = make_spec(server.base_url, teacher=teacher)
    dearest_usd = max(batch.reserved_usd for batch in open_batches(spec))
    spec = make_spec(server.base_url, teacher=teacher | {"max_usd": float(dearest_usd + Decimal("0.001"))})
    create, statuses = server.batches._create, []

    def created(body):
        statuses.extend(batch["status"] for batch in server.batches.batches.values())
        return create(body)

    monkeypatch.setattr(server.batches, "_create", created)
    assert by_batch(spec).n_failed == 0
    assert statuses == ["completed"]
    assert len(server.batches.uploads) == 2


def test_another_spec_beside_the_same_ledger_is_not_held_up(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    die_creating(spec, monkeypatch, after=True)
    raw = json.loads(spec.path.read_text()) | {
        "name": "other",
        "intents": {"a": "", "refund": ""},
        "queries": "queries.jsonl",
    }
    other = spec.path.with_name("other.yaml")
    other.write_text(json.dumps(raw))
    by_batch(load_spec(other))
    assert len(server.batches.batches) == 2
    same = spec.path.with_name("same.yaml")
    same.write_text(json.dumps(raw | json.loads(spec.path.read_text())))
    with pytest.raises(TeacherError, match=r"`distill label --batch .*router\.yaml` takes its answers"):
        label(load_spec(same), show_progress=False)


def start(spec):
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}
    command = [sys.executable, str(PROGRAM), str(spec.path), "--batch"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_looks(fake):
    deadline = time.monotonic() + 60
    while fake.batches.n_looks < 3:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_while_polling_says_how_to_go_on(server, make_spec):
    server.batches.stays = "in_progress"
    spec = make_spec(server.base_url)
    with start(spec) as process:
        wait_for_looks(server)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert "in flight, and going on at the provider: batch batch_1 (11 requests); `distill label --batch" in shown
    server.batches.stays = None
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}


def test_kill_9_while_polling(server, make_spec):
    server.batches.stays = "in_progress"
    spec = make_spec(server.base_url)
    with start(spec) as process:
        wait_for_looks(server)
        process.kill()
    server.batches.stays = None
    assert by_batch(spec).n_failed == 0
    assert set(server.asked.values()) == {1}
    assert good_texts(spec) == sorted(TEXTS)


# --- what the key, and the benchmark, see of it -----------------------------------------------------------------------


def test_the_key_is_sent_and_stands_nowhere(server, make_spec, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.batches.outcome = "failed"
    server.batches.failure = [{"code": "x", "message": f"Bad key\n{KEY} given", "line": None}]
    spec = make_spec(server.base_url)
    with pytest.raises(TeacherError, match=r"Bad key \[key\] given"):
        by_batch(spec)
    assert server.keys == {KEY}
    monkeypatch.setattr(batch_module.BatchRun, "_look_at", lambda *_: (_ for _ in ()).throw(KilledError))
    server.batches.outcome = "completed"
    with pytest.raises(KilledError):
        by_batch(spec)
    written = [path for path in spec.folder.rglob("*") if path.is_file()]
    assert any(path.parent.name == "batches" for path in written)
    assert not any(KEY in path.read_text(encoding="utf-8") for path in written)
    assert KEY not in capsys.readouterr().err


def test_an_error_line_that_echoes_the_key_is_scrubbed(server, make_spec, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    spec = make_spec(server.base_url)
    server.batches._end = lambda batch, real=server.batches._end: (setattr(server, "profile", "echoing"), real(batch))
    assert by_batch(spec).n_failed == len(TEXTS) - 1
    assert "[key]" in ledger_lines(spec)[-1]["error"]
    assert KEY not in spec.ledger_path.read_text()


def test_the_teachers_latency_is_taken_from_single_requests_alone(server, make_spec):
    spec = make_spec(server.base_url)
    by_batch(spec)
    teacher = RecordedTeacher(read_labels(spec.ledger_path), spec.labels, spec.task, name="fake")
    assert teacher.latencies_ms(TEXTS).shape == (1,)
    assert teacher.requests_in_flight(TEXTS) == (1, 1)
    assert teacher.tokens_per_query(TEXTS).prompt == 100


def test_tokens_of_reasoning_in_the_total_alone_are_counted(server, make_spec):
    server.usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 510}
    by_batch(spec := make_spec(server.base_url))
    assert {line["completion_tokens"] for line in ledger_lines(spec)} == {410}
