"""Rounds of improvement with several intents a query, and with weights: the same as with one, but for what agreement is."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from functools import partial

import pytest
from improvable import WEAK, ByText, train_by_number
from project import SHOP, distill
from several import BOTH, KINDS, Assistant, write_several
from threadpoolctl import threadpool_limits

from distill import improve as module
from distill import pipeline
from distill.bundle import load_bundle
from distill.data import read_jsonl, read_labels
from distill.errors import DataError
from distill.improve import improve, plan_improvement
from distill.spec import load_spec
from distill.student import train
from distill.teacher.rounds import added_queries_path, round_folder
from distill.teacher.spend import open_budget

TASKS = ("multi", "weights")
MONEY = next(iter(KINDS))
run = partial(improve, show_progress=False, per_intent=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No training and no export."""
    monkeypatch.setattr(train, "train_students", partial(train_by_number, enough=80))
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with threadpool_limits(1):
        yield


@pytest.fixture
def server():
    with Assistant() as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(params=TASKS)
def spec(request, tmp_path, server):
    """A labelled project whose students do not know ``WEAK`` yet."""
    return write_several(tmp_path / "project", server.base_url, request.param)


@pytest.fixture
def multi(tmp_path, server):
    return write_several(tmp_path / "project", server.base_url, "multi")


@pytest.fixture
def weights(tmp_path, server):
    return write_several(tmp_path / "project", server.base_url, "weights")


def cut(*_, **__):
    raise KeyboardInterrupt


def added(spec):
    path = added_queries_path(spec)
    return [line for _, line in read_jsonl(path)] if path.exists() else []


def bundle_ids(spec, out):
    return {name: load_bundle(out / name).manifest.bundle_id for name in spec.students}


def test_a_round_that_gains_is_kept_and_the_one_that_gains_nothing_is_the_last(spec, out, server):
    done = run(spec, out=out)
    first, *others = done.rounds
    assert first.kept
    if spec.task == "multi":  # whose near mistakes stay
        assert [(each.kept, each.gain, each.before) for each in others] == [(False, 0, first.after)]
        assert done.stopped == "round 2 gained nothing"
    else:
        assert (others, done.stopped) == ([], "the students mix up no pair of labels on the held-out queries")
    assert first.gain_ci95[0] <= first.gain <= first.gain_ci95[1]
    assert first.gain > 0.1
    assert first.before == first.weakness.agreement
    assert all(first.after[name] > before for name, before in first.before.items())
    assert any(WEAK in confusion.labels for confusion in first.weakness.confusions)
    worst = first.weakness.labels[0]
    assert worst.label == WEAK
    assert worst.missed > worst.false
    assert first.n_written == first.n_added == len(added(spec))
    assert sum(each.n_calls for each in done.rounds) == server.n_requests
    assert sum(each.usd for each in done.rounds) == server.n_requests * Decimal("0.0002")
    n_requests = server.n_requests
    assert pipeline.label(spec, show_progress=False).n_asked == 0
    before = bundle_ids(spec, out)
    pipeline.train(spec, out=out, show_progress=False)
    assert bundle_ids(spec, out) == before
    assert server.n_requests == n_requests


def test_a_round_that_gains_nothing_leaves_everything_as_it_was(spec, out, monkeypatch):
    monkeypatch.setattr(train, "train_students", partial(train_by_number, enough=10_000))
    pipeline.train(spec, out=out, show_progress=False)
    before = bundle_ids(spec, out)
    data = [(each.text, each.target.tolist(), each.split) for each in pipeline.examples(spec, show_notes=False)]
    done = run(spec, out=out)
    assert [each.kept for each in done.rounds] == [False]
    assert (done.rounds[0].gain, done.stopped) == (0, "round 1 gained nothing")
    assert added(spec) == []
    assert [(each.text, each.target.tolist(), each.split) for each in pipeline.examples(spec, show_notes=False)] == data
    assert bundle_ids(spec, out) == before
    assert not (out / ".improve").exists()
    assert json.loads((round_folder(spec, 1) / "result.json").read_text("utf-8"))["kept"] is False


def test_what_is_held_out_stays_so_and_neither_it_nor_gold_is_sent(spec, out, server):
    held_out = {each.text for each in pipeline.examples(spec, show_notes=False) if each.split == "held_out"}
    gold = {line["text"] for _, line in read_jsonl(spec.gold_path)}
    run(spec, out=out)
    after = pipeline.examples(spec, show_notes=False)
    assert {each.text for each in after if each.split == "held_out"} == held_out
    assert {line["text"] for line in added(spec)} <= {each.text for each in after if each.split == "train"}
    sent = [json.dumps(body["messages"], ensure_ascii=False) for body in server.requests]
    assert sent
    assert not any(text in each for each in sent for text in held_out | gold)


@pytest.mark.parametrize(
    "where", ["distill.teacher.label.label", "distill.improve._compared", "distill.improve.swap_folder"]
)
def test_a_run_that_was_cut_goes_on_and_pays_nothing_twice(spec, out, server, where, monkeypatch):
    pipeline.train(spec, out=out, show_progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(where, cut)
        with pytest.raises(KeyboardInterrupt):
            run(spec, out=out)
    planned = plan_improvement(spec, out=out, per_intent=10)
    assert planned.in_progress
    assert planned.labels
    (done,) = run(spec, out=out, rounds=1).rounds
    assert (done.number, done.kept) == (1, True)
    assert done.n_calls == server.n_requests
    assert max(server.asked.values()) == 1


def test_the_limit_holds_and_the_same_command_goes_on(spec, out, server):
    spent = open_budget(spec, "fake").spent_usd
    done = run(spec, out=out, per_intent=20, max_usd=Decimal("0.0075"))
    assert done.rounds == ()
    assert done.stopped.startswith("the spend limit is reached")
    assert server.n_requests > 0
    assert open_budget(spec, "fake").spent_usd - spent == server.n_requests * Decimal("0.0002") <= Decimal("0.0075")
    rest = run(spec, out=out, rounds=1, per_intent=20, max_usd=Decimal(1))
    assert rest.rounds[0].kept
    assert rest.rounds[0].n_calls == server.n_requests
    assert max(server.asked.values()) == 1


def test_a_plan_asks_trains_and_writes_nothing_and_says_what_is_written(spec, out, server):
    with pytest.raises(DataError, match="is not trained on the labels as they are"):
        plan_improvement(spec, out=out)
    pipeline.train(spec, out=out, show_progress=False)
    before = sorted(path for path in spec.folder.rglob("*") if path.is_file())
    plan = plan_improvement(spec, out=out, per_intent=10)
    assert server.n_requests == 0
    assert sorted(path for path in spec.folder.rglob("*") if path.is_file()) == before
    assert Decimal(0) < plan.estimated_usd < Decimal("0.2")
    done = run(spec, out=out, rounds=1).rounds[0]
    assert done.n_written == plan.n_queries
    assert {line["intended_intent"] for line in added(spec)} == set(plan.labels)


def test_labels_that_changed_meanwhile_are_said(spec, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_candidates", cut)
        with pytest.raises(KeyboardInterrupt):
            run(spec, out=out)
    held_out = next(each for each in pipeline.examples(spec, show_notes=False) if each.split == "held_out")
    other = SHOP[(int(held_out.target.argmax()) + 1) % len(SHOP)]
    path = spec.folder / "other.jsonl"
    line = {"text": held_out.text, "intents": [other], "weights": {other: 1}}
    del line["weights" if spec.task == "multi" else "intents"]
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    pipeline.import_answers(spec, path)
    with pytest.raises(DataError, match="labels of held-out queries changed"):
        run(spec, out=out)


# --- what is written -------------------------------------------------------------------------------------------------


def test_multi_is_written_close_to_the_rivals_and_together_with_them(multi, out, server):
    (done,) = run(multi, out=out, rounds=1).rounds
    rivals = {name for each in done.weakness.confusions if WEAK in each.labels for name in each.labels if name != WEAK}
    assert rivals >= {"oos"}  # it is missed where nothing else is asked for, and beside others
    assert rivals & {"track_order", "cancel_order"}
    prompt = next(each for each in server.prompts if each.startswith(f"Intent: {WEAK}: about {WEAK}\n"))
    assert "Easily mixed up with:\n- " in prompt
    for rival in rivals:
        assert ("- anything that fits no intent" if rival == "oos" else f"- {rival}: about {rival}") in prompt
    mixed = re.findall(r"and asks for (.*) too", prompt)
    assert mixed
    assert {name for each in mixed for name in each.split(" and ")} <= rivals
    assert any(
        "Subject: the same as in" in each for each in server.prompts
    )  # near misses, for what is mixed up with none
    labelled = [body["messages"][0]["content"] for body in server.requests if "You write" not in str(body)]
    assert labelled
    assert not any("mixed up" in each for each in labelled)  # blind


def test_weights_are_written_by_the_kinds_of_the_worst_queries(weights, out, server):
    (done,) = run(weights, out=out, rounds=1).rounds
    worst, *others = done.weakness.kinds
    assert worst.name == MONEY
    assert worst.n_held_out > 0
    assert worst.disagreement > sum(each.disagreement for each in others) / 2
    kinds = {worst.name, *(each.name for each in others)}
    assert {line["intended_intent"] for line in added(weights)} == kinds
    assert not any(f"by {kind}" in prompt for kind in {*KINDS, BOTH} - kinds for prompt in server.prompts)
    assert all("subject: " in prompt for prompt in server.prompts)  # the other attributes stay
    assert all(f"- {name}: about {name}" in server.requests[0]["messages"][0]["content"] for name in SHOP)


@pytest.mark.parametrize("attributes", ["", "synth: {attributes: {about: [shoes, hats]}}\n"])
def test_weights_of_queries_without_a_kind_are_written_by_channel(tmp_path, out, server, attributes):
    spec = write_several(tmp_path / "project", server.base_url, "weights", with_kinds=False)
    spec.path.write_text(spec.path.read_text("utf-8") + attributes, encoding="utf-8")
    (done,) = run(load_spec(spec.path), out=out, rounds=1).rounds
    assert done.kept
    assert done.weakness.kinds == ()
    assert any(f"found mostly under {WEAK} (about {WEAK})" in prompt for prompt in server.prompts)
    assert not any("look for something by" in prompt for prompt in server.prompts)


def test_a_kind_that_is_gone_is_named(weights, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_candidates", cut)
        with pytest.raises(KeyboardInterrupt):
            run(weights, out=out)
    weights.path.write_text(weights.path.read_text("utf-8").replace(MONEY, "cash"), encoding="utf-8")
    with pytest.raises(DataError, match=f"is about {MONEY}, no intent or kind any more; remove"):
        run(load_spec(weights.path), out=out)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_missed_and_mixed_up(multi):
    done = distill("improve", multi.path, "--per-intent", 10, "--rounds", 1, "--out", "out", "--quiet")
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith("round 1: of ")
    assert any(re.fullmatch(rf"\S+ / {WEAK} \d+\.\d mixed up|{WEAK} / \S+ \d+\.\d mixed up", line) for line in lines)
    assert any(re.fullmatch(rf"{WEAK} \d+\.\d missed, 0\.0 wrongly given", line) for line in lines)
    assert any(re.fullmatch(r"gain \+\d+\.\d+ points \[\S+, \S+\], kept", line) for line in lines)
    assert lines[-1] == "stopped: 1 round is done"


def test_the_command_says_which_kinds_are_wrong(weights):
    assert distill("train", weights.path, "--out", "out", "--quiet").exit_code == 0
    done = distill("improve", weights.path, "--dry-run", "--out", "out", "--per-intent", 5)
    assert done.exit_code == 0, done.output
    assert re.search(rf"^  {MONEY} +\d+\.\d of \d+ wrong$", done.stdout, re.MULTILINE)
    assert re.search(rf"queries written and labelled, for .*{MONEY}", done.stdout)
    value = json.loads(distill("improve", weights.path, "--out", "out", "--rounds", 1, "--json", "--quiet").stdout)
    assert value["rounds"][0]["weakness"]["kinds"][0]["name"] == MONEY
    assert value["rounds"][0]["kept"] is True


def test_answers_of_a_round_are_in_the_ledger_in_the_tasks_own_form(spec, out):
    run(spec, out=out, rounds=1)
    texts = {line["text"] for line in added(spec)}
    scores = {label.text: label.scores for label in read_labels(spec.ledger_path) if label.text in texts}
    assert scores.keys() == texts
    most = 1.0 if spec.task == "multi" else 100.0
    assert max(score for own in scores.values() for score in own.values()) == most
