from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

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
    found = budget.sessions(tiny_router, texts)
    assert found["as the Router has it"] == 1.0
    assert len(found) == 5


def test_products_are_of_the_same_weights():
    made = budget._products(64, 32, budget.np.random.default_rng(0))
    rows = budget.np.ones((3, 64))
    for session, kind in made.values():
        (found,) = session.run(None, {"x": rows.astype(kind)})
        assert found.shape == (3, 32)
