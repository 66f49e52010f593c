"""What an answer of the ledger is as a target of training."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import write_project

from distill.labelled import target_of
from distill.spec import load_spec
from distill.types import Label


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
