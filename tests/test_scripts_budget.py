from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import int8_bundle

from distill import Router
from distill.outline import PROBABILITIES
from distill.types import Task

ROOT = Path(__file__).resolve().parent.parent
SPECIFICATION = importlib.util.spec_from_file_location("budget", ROOT / "scripts" / "budget.py")
budget = importlib.util.module_from_spec(SPECIFICATION)
sys.modules["budget"] = budget
SPECIFICATION.loader.exec_module(budget)


def test_the_page_is_what_was_measured():
    result = json.loads(budget.RESULTS.read_text(encoding="utf-8"))
    text = budget.PAGE.read_text(encoding="utf-8")
    assert budget.page(text, result) == text


def test_another_measurement_makes_another_page():
    result = json.loads(budget.RESULTS.read_text(encoding="utf-8"))
    result["bundles"][0]["steps_us"]["route"]["p50"] = 12345.67
    assert "12,345.7" in budget.page(budget.PAGE.read_text(encoding="utf-8"), result)


def test_missing_markers_are_named():
    result = json.loads(budget.RESULTS.read_text(encoding="utf-8"))
    with pytest.raises(SystemExit, match="budget"):
        budget.page("an empty page", result)


def test_every_step_and_setting_of_a_bundle_is_measured(tiny_router, monkeypatch):
    monkeypatch.setattr(budget, "ROUNDS", 1)
    texts = ["refund", "where is my parcel?"]
    assert all(each["p5"] <= each["p50"] for each in budget.steps(tiny_router, texts).values())
    measured = budget.batches(tiny_router, texts)
    assert set(measured) == {*map(str, budget.BATCHES), "the default size, words never seen before"}
    assert all(each > 0 for each in measured.values())
    found = budget.settings(tiny_router, texts)
    assert found[budget.OWN_SETTINGS] == 1.0
    assert len(found) == 5


@pytest.mark.skipif(os.name == "nt", reason="nothing is mapped on Windows")
@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_all_settings_are_of_the_graph_that_the_router_runs(tmp_path, monkeypatch, task):
    monkeypatch.setattr(budget.outlines, "_LARGE", 200)
    opened = Router.load(int8_bundle(tmp_path / "static", task))
    sessions = budget._sessions(opened)
    outputs = [[each.name for each in session.get_outputs()] for session in sessions.values()]
    assert outputs == [[*["logits"], *[PROBABILITIES] * task.sums_to_one]] * 5
    feed = {"input_ids": np.array([[2, 5, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    answers = [session.run([opened._output], feed)[0] for session in sessions.values()]
    for each in answers[1:]:
        np.testing.assert_array_equal(each, answers[0])


def test_rows_of_unlike_graphs_are_said_to_be_unlike():
    result = json.loads(budget.RESULTS.read_text(encoding="utf-8"))
    bundles = result["bundles"]
    alike = [{name: value for name, value in each.items() if name != "sessions"} for each in bundles]
    for each in alike:
        each["settings"] = {budget.OWN_SETTINGS: 1.0, "without mapping the file": 0.5}
    assert budget.UNLIKE not in budget.tables(result | {"bundles": alike})["sessions"]
    unlike = [{**each, "sessions": each["settings"]} for each in alike]
    for each in unlike:
        del each["settings"]
    assert budget.UNLIKE in budget.tables(result | {"bundles": unlike})["sessions"]


def test_products_are_of_the_same_weights():
    made = budget._products(64, 32, budget.np.random.default_rng(0))
    rows = budget.np.ones((3, 64))
    for session, kind in made.values():
        (found,) = session.run(None, {"x": rows.astype(kind)})
        assert found.shape == (3, 32)
