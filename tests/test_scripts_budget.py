from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import int8_bundle
from project import write_lines

from distill import Router, tokenizer
from distill.outline import PROBABILITIES
from distill.types import Task

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))
import budget  # noqa: E402


def test_the_page_is_of_the_results_that_are_kept(tmp_path, monkeypatch):
    result = json.loads(budget.RESULTS.read_text(encoding="utf-8"))
    assert {*budget.tables(result)} == {*budget.PARTS}
    result["bundles"][0]["steps_us"]["route"]["p50"] = 12345.67
    monkeypatch.setattr(budget, "RESULTS", tmp_path / "other.json")
    budget.RESULTS.write_text(json.dumps(result), encoding="utf-8")
    assert "12,345.7" in budget.part("budget")


def test_every_step_and_setting_of_a_bundle_is_measured(tiny_router, monkeypatch):
    monkeypatch.setattr(budget, "ROUNDS", 1)
    texts = ["refund", "where is my parcel?", "\x07"]
    found = budget.steps(tiny_router, texts)
    assert all(each["p5"] <= each["p50"] for each in found.values())
    assert "tokenise, default install" in found
    measured = budget.batches(tiny_router, texts * 10)
    assert set(measured) == {"1", "8", "16"}  # a batch of more would be one of 20
    assert all(each > 0 for each in measured.values())
    found = budget.settings(tiny_router, texts)
    assert found[budget.OWN_SETTINGS] == 1.0
    assert len(found) == 6


def test_words_never_seen_before_are_learnt_anew_each_time(tiny_router, monkeypatch):
    monkeypatch.setattr(budget, "ROUNDS", 2)
    learnt = []
    learn = tokenizer._Words._ids

    def noting(self, word):
        learnt.append(word)
        return learn(self, word)

    monkeypatch.setattr(tokenizer._Words, "_ids", noting)
    budget.steps(tiny_router, ["refund"])
    assert learnt == ["refund"] * 3  # once to know it, and in each round


@pytest.mark.skipif(os.name == "nt", reason="nothing is mapped on Windows")
@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_all_settings_are_of_the_graph_that_the_router_runs(tmp_path, monkeypatch, task):
    monkeypatch.setattr(budget.outlines, "_LARGE", 200)
    opened = Router.load(int8_bundle(tmp_path / "static", task))
    sessions = budget._sessions(opened)
    outputs = [[each.name for each in session.get_outputs()] for session in sessions.values()]
    assert outputs == [[*["logits"], *[PROBABILITIES] * task.sums_to_one]] * len(sessions)
    feed = {"input_ids": np.array([[2, 5, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    answers = [session.run([opened._output], feed)[0] for session in sessions.values()]
    for each in answers[1:]:
        np.testing.assert_array_equal(each, answers[0])


def test_products_are_of_one_shape():
    made = budget._products(64, 32, budget.np.random.default_rng(0))
    rows = budget.np.ones((3, 64))
    for session, kind in made.values():
        (found,) = session.run(None, {"x": rows.astype(kind)})
        assert found.shape == (3, 32)


@pytest.fixture
def quickly(monkeypatch):
    """Everything is measured once, but for the products and the machine."""
    for name, value in {"ROUNDS": 1, "STARTS": 1, "ROWS": (1,), "MATRICES": ((64, 32),)}.items():
        monkeypatch.setattr(budget, name, value)
    where = {
        "processor": "Abacus",
        "versions": {"onnxruntime": "1"},
        "loaded": False,
        "measured_at": "2026-12-01T00:00:00+00:00",
    }
    monkeypatch.setattr(budget, "environment", lambda: where)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["budget.py", *map(str, arguments)])
    budget.main()


def test_a_users_run_prints_and_overwrites_nothing(tiny_bundle, tmp_path, monkeypatch, capsys, quickly):
    queries = tmp_path / "mine.jsonl"
    write_lines(queries, [{"text": "refund"}, {"text": "where is my parcel?"}])
    kept = budget.RESULTS.read_bytes()
    run(monkeypatch, tiny_bundle.path, "--queries", queries, "--out", tmp_path / "found.json")
    assert budget.RESULTS.read_bytes() == kept
    printed = capsys.readouterr().out
    assert "Abacus, one thread, onnxruntime 1, 2 queries of `mine.jsonl`." in printed
    assert budget.OWN_SETTINGS in printed
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert found["queries"] == "mine.jsonl"
    assert found["bundles"][0]["start"]["load_ms"] > 0


def test_memory_is_not_known_where_the_system_does_not_say(tiny_bundle, monkeypatch, quickly):
    monkeypatch.setattr(budget, "START", budget.START.replace("/proc/self/status", "/nowhere/status"))
    begun = budget.start(tiny_bundle.path)
    assert (begun["libraries_mb"], begun["resident_mb"], begun["peak_mb"]) == (None, None, None)
    assert ["most memory until then", "not known"] in budget._start_rows(begun)
    assert budget._start_rows(begun)[0][1].endswith(" ms")


@pytest.mark.parametrize("lacking", ["bundle", "queries", "text"])
def test_what_cannot_be_read_is_one_line(tiny_bundle, tmp_path, monkeypatch, lacking):
    queries = tmp_path / "mine.jsonl"
    if lacking != "queries":
        write_lines(queries, [{"text": " " if lacking == "text" else "refund"}])
    bundle = tmp_path / "nowhere" if lacking == "bundle" else tiny_bundle.path
    with pytest.raises(SystemExit, match=r"^budget.py: .*(nowhere|mine\.jsonl)[^\n]*$"):
        run(monkeypatch, bundle, "--queries", queries)
