"""Rounds of improvement: what they look at, what they have written, what stays, and what a cut leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from functools import partial

import numpy as np
import project
import pytest
from improvable import PRICED, WEAK, ByText, Shop, label_from_elsewhere, train_by_number, write_improvable
from project import write_lines, write_project

from distill import improve as module
from distill import pipeline
from distill.bundle import load_bundle
from distill.data import label_as_line, read_jsonl, read_labels
from distill.errors import DataError, DistillError, SpecError, SpendLimitError
from distill.improve import improve, plan_improvement
from distill.labelled import redacted_gold
from distill.spec import load_spec
from distill.student import train
from distill.teacher.ledger import AppendLog
from distill.teacher.rounds import added_queries_path, round_folder
from distill.teacher.spend import open_budget, spend_by_stage
from distill.types import Usage


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No training and no export."""
    monkeypatch.setattr(train, "train_students", train_by_number)
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())


@pytest.fixture
def server():
    with Shop() as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def spec(tmp_path, server):
    """A labelled project whose students do not know ``WEAK`` yet."""
    settings = f", {PRICED}, max_output_tokens: 99"
    return label_from_elsewhere(write_improvable(tmp_path / "project", server.base_url, teacher=settings))


run = partial(improve, show_progress=False)


def added(spec):
    path = added_queries_path(spec)
    return [line for _, line in read_jsonl(path)] if path.exists() else []


def texts_sent(server):
    return [json.dumps(body["messages"], ensure_ascii=False) for body in server.requests]


def test_a_round_mends_what_is_weak_and_the_next_one_finds_nothing(spec, out, server):
    done = run(spec, out=out, per_intent=10)
    (first,) = done.rounds
    assert done.stopped == "the students mix up no pair of labels on the held-out queries"
    assert any(WEAK in confusion.labels for confusion in first.weakness.confusions)
    assert first.kept
    assert first.gain > 0
    assert first.gain_ci95[0] <= first.gain <= first.gain_ci95[1]
    assert first.after == {"static": 1.0, "encoder": 1.0}
    assert first.before == first.weakness.agreement
    assert first.n_written == first.n_added == len(added(spec))
    assert {line["intended_intent"] for line in added(spec)} >= {WEAK}
    assert first.n_calls == server.n_requests
    assert first.usd == server.n_requests * Decimal("0.0002")


def test_what_is_kept_is_what_train_and_bench_take(spec, out, server):
    run(spec, out=out, per_intent=10)
    before = {name: load_bundle(out / name).manifest.bundle_id for name in spec.students}
    n_requests = server.n_requests
    assert pipeline.label(spec, show_progress=False).n_asked == 0
    after = pipeline.train(spec, out=out, show_progress=False)
    assert {name: bundle.manifest.bundle_id for name, bundle in after.items()} == before
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"static", "encoder"}
    assert server.n_requests == n_requests


def test_what_was_held_out_stays_so_and_is_never_shown_to_the_writer(spec, out, server):
    held_out = {each.text for each in pipeline.examples(spec, show_notes=False) if each.split == "held_out"}
    gold = {line["text"] for _, line in read_jsonl(spec.gold_path)}
    run(spec, out=out, per_intent=10)
    after = pipeline.examples(spec, show_notes=False)
    assert {each.text for each in after if each.split == "held_out"} == held_out
    assert {line["text"] for line in added(spec)} <= {each.text for each in after if each.split == "train"}
    assert not any(text in sent for sent in texts_sent(server) for text in held_out | gold)


def test_a_written_query_that_is_redacted_to_a_known_one_is_not_new(tmp_path):
    path = write_project(tmp_path, teacher="{callable: 'project:answer', redact: 'project:without_please'}")
    spec = load_spec(path)
    pipeline.label(spec, show_progress=False)
    known, gold = pipeline.examples(spec)[0].text, redacted_gold(spec)[0].text
    texts = [f"{known} please", f"please {gold}", "something else", "something else please"]
    assert module._is_new(spec, texts, show_progress=False) == [False, False, True, False]


def test_the_writer_is_told_of_the_rivals(spec, out, server):
    (done,) = run(spec, out=out, rounds=1, per_intent=10).rounds
    rivals = [name for confusion in done.weakness.confusions if WEAK in confusion.labels for name in confusion.labels]
    (prompt, *_) = (sent for sent in texts_sent(server) if f"Intent: {WEAK}: about {WEAK}\\n" in sent)
    for rival in set(rivals) - {WEAK}:
        assert ("- anything that fits no intent" if rival == "oos" else f"- {rival}: about {rival}") in prompt
    assert (
        f"with the intent {WEAK}, close to what they are not to be taken for and yet clearly asking for that" in prompt
    )
    assert "the labeller" not in prompt
    labelled = [sent for sent in texts_sent(server) if "You write queries" not in sent]
    assert not any("Not to be taken for" in sent for sent in labelled)  # blind, with the spec's own descriptions


def test_the_writer_is_shown_known_queries_of_the_labels_that_are_mixed_up(tmp_path, server, out):
    known = {name: [f"{name} said by user {number}" for number in range(3)] for name in (WEAK, "track_order")}
    path = write_improvable(tmp_path / "project", server.base_url, teacher=", evidence: known.jsonl")
    lines = [{"text": text, "intent": name} for name, own in known.items() for text in own]
    write_lines(path.parent / "known.jsonl", lines)
    (done,) = run(label_from_elsewhere(path), out=out, rounds=1, per_intent=20).rounds
    written = [sent for sent in texts_sent(server) if "You write queries" in sent]
    for_weak = [sent for sent in written if f"Intent: {WEAK}: about {WEAK}\\n" in sent]
    assert any("Not to be taken for" in sent for sent in for_weak)
    assert any(
        all(text in sent for text in known[WEAK]) for sent in for_weak
    )  # every other request shows them together
    assert not any(
        text in sent for sent in written for text in known["track_order"] if WEAK in sent and "track_order" not in sent
    )
    assert done.n_added


def test_a_plan_counts_what_the_round_would_ask_and_nothing_else(spec, out, server):
    pipeline.train(spec, out=out, show_progress=False)
    lines = [line for _, line in read_jsonl(spec.gold_path)]
    write_lines(spec.gold_path, [*lines, *({"text": f"never asked {n}", "intent": WEAK} for n in range(30))])
    plan = plan_improvement(spec, out=out, per_intent=10)
    (done,) = run(spec, out=out, rounds=1, per_intent=10).rounds
    assert done.n_written == plan.n_queries
    assert server.n_requests == done.n_calls < plan.n_requests + 10
    assert plan.n_requests < plan.n_queries + 30


def test_a_round_that_gains_nothing_leaves_everything_as_it_was_and_is_the_last(spec, out, monkeypatch):
    monkeypatch.setattr(train, "train_students", partial(train_by_number, enough=10_000))
    pipeline.train(spec, out=out, show_progress=False)
    before = {name: load_bundle(out / name).manifest.bundle_id for name in spec.students}
    data = [(each.text, each.split) for each in pipeline.examples(spec, show_notes=False)]
    done = run(spec, out=out, per_intent=10)
    assert [each.kept for each in done.rounds] == [False]
    assert (done.rounds[0].gain, done.stopped) == (0, "round 1 gained nothing")
    assert added(spec) == []
    assert [(each.text, each.split) for each in pipeline.examples(spec, show_notes=False)] == data
    assert {name: load_bundle(out / name).manifest.bundle_id for name in spec.students} == before
    assert not (out / ".improve").exists()
    assert json.loads((round_folder(spec, 1) / "result.json").read_text("utf-8"))["kept"] is False
    again = run(spec, out=out, per_intent=10)  # a new round, with other requests
    assert [each.number for each in again.rounds] == [2]


def test_near_repetitions_are_left_out(spec, out, monkeypatch, server):
    known = next(each.text for each in pipeline.examples(spec, show_notes=False) if each.split == "held_out")

    class AllAlike(ByText):
        def embed(self, texts, on_done=None):
            return super().embed([known if "refund" in text else text for text in texts])

    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: AllAlike())
    (done,) = run(spec, out=out, per_intent=10).rounds
    assert done.n_repeated >= 1  # of each other, synth left them out before
    assert not any("refund" in line["text"] for line in added(spec))
    assert not any("refund 1" in sent for sent in texts_sent(server))  # what is left out is not labelled


# --- cut and resumed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "distill.teacher.label.label",
        "distill.pipeline.train",
        "distill.improve._compared",
        "distill.improve.swap_folder",
    ],
)
def test_a_run_that_was_cut_goes_on_and_pays_nothing_twice(spec, out, server, where, monkeypatch, tmp_path):
    def cut(*_, **__):
        raise KeyboardInterrupt

    pipeline.train(spec, out=out, show_progress=False)
    with monkeypatch.context() as patch:
        if where == "distill.pipeline.train":
            patch.setattr(module, "_train_candidates", cut)
        else:
            patch.setattr(where, cut)
        with pytest.raises(KeyboardInterrupt):
            run(spec, out=out, per_intent=10)
    done = run(spec, out=out, per_intent=10)
    first = done.rounds[0]
    assert (first.number, first.kept) == (1, True)
    assert first.n_calls == server.n_requests
    assert max(server.asked.values()) == 1
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"static", "encoder"}


def test_the_limit_stops_it_and_the_same_command_goes_on(spec, out, server):
    spent = open_budget(spec, "fake").spent_usd
    done = run(spec, out=out, per_intent=20, max_usd=Decimal("0.0075"))
    assert done.rounds == ()
    assert done.stopped.startswith("the spend limit is reached")
    assert server.n_requests > 0
    assert open_budget(spec, "fake").spent_usd - spent == server.n_requests * Decimal("0.0002") <= Decimal("0.0075")
    rest = run(spec, out=out, per_intent=20, max_usd=Decimal(1))
    assert rest.rounds[0].kept
    assert rest.rounds[0].n_calls == server.n_requests
    assert max(server.asked.values()) == 1


def test_the_limit_stops_it_too_where_a_server_of_ones_own_answered_for_no_price(spec, out):
    line = next(read_labels(spec.ledger_path))
    before = replace(
        line, key="0" * 64, text="asked before", teacher="own", usage=Usage(9, 9), latency_ms=1.0, extra={}
    )
    with AppendLog(spec.ledger_path) as log:
        log.append(label_as_line(before))
    budget = open_budget(spec, "fake")
    budget.check_limit()
    assert budget.known_spend_usd is None
    done = run(spec, out=out, per_intent=20, max_usd=Decimal("0.0075"))
    assert done.stopped.startswith("the spend limit is reached")


def test_the_limit_holds_over_writing_and_labelling_together(spec, out, server):
    """The round's own recording counts towards teacher.max_usd too."""
    limit = open_budget(spec, "fake").spent_usd + Decimal("0.008")
    capped = spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"max_usd": limit, "concurrency": 1})})
    done = run(capped, out=out, per_intent=20)
    assert done.stopped.startswith("the spend limit is reached")
    assert server.n_written > 0
    assert server.n_requests > server.n_written
    assert open_budget(spec, "fake").spent_usd <= limit
    synth, _ = sorted(spend_by_stage(spec), key=lambda stage: stage.stage, reverse=True)
    assert (synth.stage, synth.n_answers) == ("synth", server.n_written)


def test_what_was_spent_before_does_not_count_towards_this_runs_limit(spec, out, server):
    """Neither for the run nor for what the round's writer may spend of it."""
    line = next(read_labels(spec.ledger_path))
    paid = replace(line, key="0" * 64, text="paid before", usage=Usage(1_000_000, 0), latency_ms=1.0, extra={})
    with AppendLog(spec.ledger_path) as log:
        log.append(label_as_line(paid))
    assert open_budget(spec, "fake").spent_usd == 1
    assert run(spec, out=out, per_intent=10, max_usd=Decimal("0.001")).stopped.startswith("the spend limit is reached")
    assert server.n_requests == 0
    assert run(spec, out=out, per_intent=10, max_usd=Decimal(1)).rounds[0].usd < Decimal("0.1")


def test_a_limit_that_cannot_be_kept_is_an_error(spec, out, server):
    server.usage = None
    with pytest.raises(SpendLimitError, match="does not say how many tokens"):
        run(spec, out=out, per_intent=10, max_usd=Decimal(1))


def test_a_limit_that_the_writer_reaches_ends_the_rounds(spec, out, monkeypatch):
    def full(*_, **__):
        raise SpendLimitError("the spend limit is reached")

    monkeypatch.setattr("distill.teacher.synth.synthesise", full)
    assert run(spec, out=out, per_intent=10, max_usd=Decimal(1)).stopped.startswith("the spend limit is reached")


def test_labels_that_changed_meanwhile_are_said(spec, out, monkeypatch):
    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_candidates", cut)
        with pytest.raises(KeyboardInterrupt):
            run(spec, out=out, per_intent=10)
    held_out = next(each.text for each in pipeline.examples(spec, show_notes=False) if each.split == "held_out")
    path = spec.folder / "other.jsonl"
    write_lines(path, [{"text": held_out, "intent": "oos" if project.answer(held_out) != "oos" else WEAK}])
    pipeline.import_answers(spec, path)
    with pytest.raises(DataError, match=r"plan\.json: labels of held-out queries changed .* remove this file"):
        run(spec, out=out)
    (round_folder(spec, 1) / "plan.json").unlink()
    assert run(spec, out=out, rounds=1, per_intent=10).rounds[0].number == 1


def test_a_plan_that_cannot_be_read_is_named(spec, out):
    folder = round_folder(spec, 1)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"plan\.json: not the plan of a round .*; remove it to begin the round anew"):
        run(spec, out=out)


def test_a_student_that_came_after_a_round_was_begun_is_named(spec, out, server):
    assert run(spec, out=out, per_intent=20, max_usd=Decimal("0.0075")).stopped
    plan = round_folder(spec, 1) / "plan.json"
    value = json.loads(plan.read_text("utf-8"))
    del value["right"]["encoder"]
    plan.write_text(json.dumps(value), "utf-8")
    n_requests = server.n_requests
    with pytest.raises(DataError, match=r"begun without the student encoder; finish it without, or remove this file"):
        run(spec, out=out, per_intent=20, max_usd=Decimal(1))
    assert server.n_requests == n_requests


def test_a_round_that_somebody_put_aside_is_none(spec, out):
    aside = round_folder(spec, 1).with_name("round-1.bak")
    aside.mkdir(parents=True)
    (aside / "plan.json").write_text("{", encoding="utf-8")
    assert run(spec, out=out, rounds=1, per_intent=10).rounds[0].number == 1


def test_a_teacher_of_several_weighed_answers_has_a_writer_of_one(tmp_path, server, out):
    settings = f", {PRICED}, max_output_tokens: 99, logprobs: true, samples: 3"
    spec = label_from_elsewhere(write_improvable(tmp_path / "several", server.base_url, teacher=settings))
    assert run(spec, out=out, rounds=1, per_intent=10).rounds[0].n_written > 0


# --- planning --------------------------------------------------------------------------------------------------------


def test_a_plan_asks_trains_and_writes_nothing(spec, out, server):
    with pytest.raises(
        DataError,
        match=r"static is not trained on the labels as they are, so that its weaknesses are not known yet; `distill train",
    ):
        plan_improvement(spec, out=out)
    pipeline.train(spec, out=out, show_progress=False)
    before = sorted(path for path in spec.folder.rglob("*") if path.is_file())
    plan = plan_improvement(spec, out=out, per_intent=10)
    assert (plan.number, plan.in_progress) == (1, False)
    assert WEAK in plan.labels
    assert plan.n_queries == 10 * len(plan.labels)
    assert plan.n_queries < plan.n_requests
    assert Decimal(0) < plan.estimated_usd < plan.most_usd < Decimal("0.2")
    assert server.n_requests == 0
    assert sorted(path for path in spec.folder.rglob("*") if path.is_file()) == before
    done = run(spec, out=out, rounds=1, per_intent=10).rounds[0]
    assert done.n_written == plan.n_queries
    assert plan_improvement(spec, out=out).labels == ()


def test_a_plan_says_what_is_left_of_a_round(spec, out, monkeypatch):
    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_candidates", cut)
        with pytest.raises(KeyboardInterrupt):
            run(spec, out=out, per_intent=10)
    plan = plan_improvement(spec, out=out)
    assert (plan.in_progress, plan.n_requests, plan.estimated_usd) == (True, 0, 0)


def test_confusions_are_the_likeliest_mistakes_of_all_students():
    labels = ("a", "b", "c")
    given = np.array([0, 0, 1, 2])
    first = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9]])
    second = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.0, 0.8]])
    probabilities = {"static": first, "encoder": second}
    right = {name: own.argmax(axis=1) == given for name, own in probabilities.items()}
    found = module._weakness(probabilities, right, given, labels)
    assert [confusion.labels for confusion in found.confusions] == [("a", "b")]
    assert found.confusions[0].mass == pytest.approx((0.4 + 1 + 1) / 2)
    assert found.confusions[0].n_wrong == 1
    assert (found.n_held_out, found.n_disagree, found.n_unsure) == (4, 2, 0)
    assert found.agreement == {"static": 0.75, "encoder": 0.75}


@pytest.mark.parametrize(
    ("teacher", "more", "message"),
    [
        ("model: gpt-5-mini", "", "OPENAI_API_KEY is not set"),
        ("model: a-model-nobody-sells, api_key_env: A_KEY", "", "no price is known for 'a-model-nobody-sells'"),
        ("callable: 'nowhere:answer', api_key_env: A_KEY", "synth: {model: gpt-5-mini}", "cannot be imported"),
    ],
)
def test_what_could_not_be_asked_is_said_before_anything_is_trained(tmp_path, out, monkeypatch, teacher, more, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("A_KEY", "sk-1")
    monkeypatch.setattr(pipeline, "train", lambda *_, **__: pytest.fail("students were trained"))
    path = write_project(tmp_path / "project", teacher=f"{{{teacher}}}", more=more)
    with pytest.raises(DistillError, match=message):
        run(label_from_elsewhere(path), out=out, max_usd=Decimal(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{callable: 'project:answer'}", "improve has queries written, and needs a model"),
        ("{labels: answers.jsonl}", "nobody could label what is written"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_refused(tmp_path, settings, message):
    spec = load_spec(write_project(tmp_path / "project", teacher=settings))
    with pytest.raises(SpecError, match=message):
        run(spec)
