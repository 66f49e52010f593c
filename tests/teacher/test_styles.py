"""What queries are to be like: each value as often as another, each pair of them too, and the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations, islice, product
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data import normalise
from distill.teacher.styles import CHANNELS, CROSSED, DIRECTNESS, ECHOES, crossed_styles, deal, language_name


def first(n, seed=0, given=()):
    return list(islice(crossed_styles(random.Random(seed), given), n))  # noqa: S311


def test_what_is_crossed_has_no_common_divisor_so_that_all_pairs_occur():
    assert all(gcd(len(one), len(other)) == 1 for one, other in combinations(CROSSED.values(), 2))


@given(seed=st.integers(0, 1_000), n=st.integers(1, 200))
def test_every_value_comes_as_often_as_another(seed, n):
    for name, values in CROSSED.items():
        times = Counter(values)
        found = Counter(style[name] for style in first(n, seed))
        assert all(n // len(values) * times[each] <= found[each] for each in times)
        assert all(found[each] <= -(-n // len(values)) * times[each] for each in times)


@given(seed=st.integers(0, 1_000))
def test_every_pair_of_values_comes_as_often_as_another(seed):
    for one, other in combinations(CROSSED, 2):
        n = len(CROSSED[one]) * len(CROSSED[other])
        assert Counter((style[one], style[other]) for style in first(n, seed)) == Counter(
            product(CROSSED[one], CROSSED[other])
        )


def test_the_order_is_that_of_the_seed():
    assert first(100, 3) == first(100, 3) != first(100, 4)


def test_length_errors_and_beginning_are_those_of_channel_and_directness():
    for style in first(2_000):
        channel = CHANNELS[style["channel"]]
        assert style["length"] in channel.lengths
        assert style["errors"] in channel.errors
        assert style["beginning"] in (DIRECTNESS[style["directness"]] if channel.has_beginnings else ("",))


def test_speech_recognition_errs_on_what_is_said_and_nowhere_else():
    misheard = {style["channel"] for style in first(200) if "misheard" in style["errors"]}
    assert misheard == {"said to a voice assistant"}
    assert not any("typo" in style["errors"] for style in first(200) if style["channel"] in misheard)


@pytest.mark.parametrize("name", ["channel", "directness"])
def test_what_follows_from_a_style_that_the_user_replaces_is_left_out(name):
    styles = first(200, given={name})
    assert {bool(style["beginning"]) for style in styles} == ({False} if name == "directness" else {True})
    assert any("misheard" in style["errors"] for style in styles) == (name == "directness")


def test_an_echo_of_a_style_is_known_as_one():
    for words in (*DIRECTNESS, *CHANNELS, "begins with 'what'"):
        assert any(f"{normalise(words)} ".startswith(echo) for echo in ECHOES)


@given(seed=st.integers(0, 100), n=st.integers(1, 40))
def test_dealt_values_come_as_often_as_each_other(seed, n):
    found = Counter(islice(deal(random.Random(seed), "abc"), n))  # noqa: S311
    assert max(found.values()) - min(found[each] for each in "abc") <= 1


@pytest.mark.parametrize(
    ("given_", "expected"), [("de", "German"), ("EN", "English"), ("Swiss German", "Swiss German")]
)
def test_a_language_is_named_as_a_small_model_knows_it(given_, expected):
    assert language_name(given_) == expected
