"""The command carry: what it prints where, and what the others say of answers under other intents."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from guides import empty_folder
from improvable import ByText
from project import ALL_WORDS, distill, fails, write_project
from threadpoolctl import threadpool_limits

from distill import pipeline
from distill.spec import load_spec

THREE = ("track_order", "cancel_order", "refund")


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    with empty_folder(tmp_path, monkeypatch), threadpool_limits(1):
        monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
        yield


@pytest.fixture
def path(tmp_path):
    """A labelled project."""
    found = write_project(tmp_path / "project")
    assert distill("label", found, "--quiet").exit_code == 0
    return found


def with_intents(path, *pairs):
    """The same project with names in place of others."""
    text = path.read_text("utf-8")
    for old, new in pairs:
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_project_has_these_intents():
    assert set(THREE) <= set(ALL_WORDS)


def test_other_names_are_carried_over(path):
    gold = path.parent / "gold.jsonl"
    gold.write_text(gold.read_text("utf-8").replace('"refund"', '"money_back"'), encoding="utf-8")
    spec = with_intents(path, ('"refund"', '"money_back"'))
    dry = distill("carry", spec, "--rename", "refund=money_back", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "renamed: refund to money_back" in dry.stdout
    assert "at most 0 requests" in dry.stdout
    done = distill("carry", spec, "--rename", "refund=money_back")
    assert done.exit_code == 0, done.output
    n = len((path.parent / "ledger.jsonl").read_text("utf-8").splitlines()) // 2
    assert (
        f"{n} queries were answered under other intents: {n} carried over, 16 of them under another name; 0 asked"
        in done.stdout
    )
    assert "Nothing was carried over" in distill("carry", spec, "--rename", "refund=money_back").stdout


def test_what_another_name_would_spare_is_said(path):
    gold = path.parent / "gold.jsonl"
    gold.write_text(gold.read_text("utf-8").replace('"refund"', '"money_back"'), encoding="utf-8")
    spec = with_intents(path, ('"refund"', '"money_back"'), ("about refund", "about money"))
    assert "--rename" not in distill("carry", spec, "--dry-run", "--quiet").stderr
    spec = with_intents(path, ("about money", "about refund"))
    assert "--rename refund=money_back" in distill("carry", spec, "--dry-run", "--quiet").stderr
    assert "give --rename refund=money_back" in fails("carry", spec, "--quiet")


def test_json_is_one_document(path):
    spec = with_intents(path, ("about refund", "about money"))
    plan = json.loads(distill("carry", spec, "--dry-run", "--json", "--quiet").stdout)
    assert plan["changes"][0]["described_anew"] == ["refund"]
    done = json.loads(distill("carry", spec, "--json", "--quiet", "--max-share", 0.1).stdout)
    assert done["n_calls"] == sum(done["asked"].values()) <= plan["most_calls"]
    assert done["n_carried"] + done["n_calls"] == plan["n_texts"]


def test_label_and_run_say_that_there_is_such_a_thing(path):
    spec = with_intents(path, ("about refund", "about money"))
    for command in ("label", "run"):
        assert (
            "answered under other intents: `distill carry` may keep that)" in distill(command, spec, "--dry-run").stdout
        )
    plan = json.loads(distill("label", spec, "--dry-run", "--json").stdout)
    assert plan["n_under_other_intents"] == plan["n_texts"]


def test_the_benchmark_says_what_was_carried_over(path):
    spec = load_spec(path)
    pipeline.train(spec, show_progress=False)
    assert "n_carried_over" not in pipeline.bench(spec, show_progress=False).result.provenance
    spec = load_spec(with_intents(path, ("about refund", "about money")))
    assert distill("carry", path, "--max-calls", 0).exit_code == 0
    shutil.rmtree("models")  # in place of training, nothing is written over
    pipeline.train(spec, show_progress=False)
    provenance = pipeline.bench(spec, show_progress=False).result.provenance
    assert provenance["n_carried_over"] == len((path.parent / "gold.jsonl").read_text("utf-8").splitlines())


def test_what_a_student_is_unsure_of_is_in_doubt(path):
    logs = path.parent / "logs.jsonl"
    logs.write_text(logs.read_text("utf-8") + '{"text": "refund my parcel cancel"}\n', encoding="utf-8")
    distill("label", path, "--quiet")
    plans = []
    for with_student in (False, True):
        if with_student:
            pipeline.train(load_spec(path), show_progress=False)
            with_intents(path, ("about refund", "about money"))
        else:
            with_intents(path, ("about refund", "about money"))
        plans.append(json.loads(distill("carry", path, "--dry-run", "--json", "--quiet").stdout))
        with_intents(path, ("about money", "about refund"))
    assert plans[0]["n_doubted"] == 0
    assert plans[1]["n_doubted"] >= 1


def test_what_a_user_gets_wrong(path):
    done = distill("carry", path, "--rename", "refund")
    assert (done.exit_code, "OLD=NEW" in done.stderr) == (2, True)
    assert "'refund' is still an intent" in fails("carry", path, "--rename", "refund=track_order")
    assert "--changed nothing" in fails("carry", path, "--changed", "nothing")
