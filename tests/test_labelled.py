"""What an answer of the ledger is as a target of training."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import write_project

from distill.errors import DataError
from distill.labelled import _held_out, labelled_queries, target_of
from distill.spec import load_spec
from distill.types import Label, Task


def says(scores):
    return Label(key="k", text="t", scores=scores, error=None, teacher="own", prompt_sha256="p")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return load_spec(write_project(tmp_path_factory.mktemp("labelled")))


@given(power=st.integers(-300, 300), odds=st.integers(1, 9))
def test_only_the_ratio_of_scores_counts_however_small_or_large_they_are(spec, power, odds):
    one, other, *_ = spec.labels
    target = target_of(says({one: 10.0**power, other: odds * 10.0**power}), spec)
    assert target.sum() == pytest.approx(1)
    assert target[:2] == pytest.approx([1 / (1 + odds), odds / (1 + odds)], rel=1e-5)


@pytest.mark.parametrize("scores", [None, {}, {"refund": 0.0}, {"refund": math.nan}, {"refund": -1.0}, {"gone": 1.0}])
def test_what_says_nothing_is_no_target(spec, scores):
    assert target_of(says(scores), spec) is None


def test_where_every_query_is_gold_too_both_files_are_named(tmp_path):
    spec = load_spec(write_project(tmp_path))
    gold = [json.loads(line) for line in spec.gold_path.read_text("utf-8").splitlines()]
    spec.queries_path.write_text("".join(json.dumps({"text": line["text"]}) + "\n" for line in gold), "utf-8")
    with pytest.raises(DataError, match=f"{spec.queries_path}: every query is also in {spec.gold_path}"):
        labelled_queries(spec)


@pytest.mark.parametrize("seed", range(5))
def test_what_differs_in_case_and_punctuation_alone_is_held_out_together(seed):
    rows = np.eye(2, dtype=np.float32)
    queries = [f"query number {number}" for number in range(40)]
    variants = {text: rows[number % 2] for number, each in enumerate(queries) for text in (each, f"{each.upper()}!")}
    found = _held_out(SimpleNamespace(task=Task.SINGLE, seed=seed), variants)
    alone = _held_out(SimpleNamespace(task=Task.SINGLE, seed=seed), {each: variants[each] for each in queries})
    assert len(alone) == 4
    assert found == alone | {f"{each.upper()}!" for each in alone}


def test_the_only_query_of_one_of_several_labels_is_never_held_out():
    often, seldom = np.array([1, 0, 0], np.float32), np.array([1, 0, 1], np.float32)
    targets = {f"query number {number}": seldom if number == 7 else often for number in range(30)}
    found = [_held_out(SimpleNamespace(task=Task.MULTI, seed=seed), targets) for seed in range(40)]
    assert all(found)
    assert not any("query number 7" in each for each in found)
