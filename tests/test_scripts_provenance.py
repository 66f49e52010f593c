from __future__ import annotations

import sys

import pytest
from project import TESTS

from distill.errors import DistillError
from distill.student.recipe import VERSION

sys.path.append(str(TESTS.parent / "scripts"))
import demo_pages
import provenance


@pytest.mark.parametrize(
    ("measured_at", "n_older"),
    [
        ("2026-11-26T18:30:46+00:00", 2),
        ("2026-11-26T19:00:00+02:00", 2),
        ("2026-11-26T18:30:47+00:00", 1),
        ("2026-11-28T01:33:36+00:00", 1),
        ("2026-11-28T01:33:37+00:00", 0),
    ],
)
def test_figures_of_an_earlier_recipe_or_graph_are_said_to_be_older(measured_at, n_older):
    assert provenance.older_students({"measured_at": measured_at}).count(" older than the ") == n_older


def test_the_recipe_is_as_old_as_the_date_says():
    """Who raises VERSION sets RECIPE_SINCE too."""
    assert VERSION == 12


def test_the_sentence_stands_below_a_demos_tables_as_long_as_they_are_older(monkeypatch):
    part = demo_pages.results(demo_pages.VIDEO)
    monkeypatch.setattr(provenance, "INT8_GRAPH_SINCE", "2999-01-01T00:00:00+00:00")
    assert part().endswith("\n\nThe encoder's figures are older than the int8 graph that training makes now.\n")
    monkeypatch.setattr(provenance, "INT8_GRAPH_SINCE", "2000-01-01T00:00:00+00:00")
    monkeypatch.setattr(provenance, "RECIPE_SINCE", "2000-01-01T00:00:00+00:00")
    assert "older" not in part()


def test_other_code_than_the_checkouts_is_not_taken_for_it(monkeypatch, tmp_path):
    assert provenance.tree_commit() != "unknown"
    provenance.refuse_other_code()
    monkeypatch.setattr(provenance.distill, "__file__", str(tmp_path / "distill" / "__init__.py"))
    with pytest.raises(DistillError, match=f"not from this checkout; set PYTHONPATH={provenance.ROOT}"):
        provenance.refuse_other_code()
    assert provenance.tree_commit() == "unknown"
