from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from distill.teacher.prompt import examples_of, in_turn, render, user_prompt
from distill.types import Intent

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTENTS = (Intent("a", "First", ("a1", "a2")), Intent("b", "", ("b1",)))


@given(query=TEXT)
def test_a_query_arrives_as_one_json_string_and_nowhere_else(query):
    values = {"intents": INTENTS, "out_of_scope": None, "examples": examples_of(INTENTS)}
    system, user = render("label_single_001", query=query, **values)
    assert system == render("label_single_001", query="", **values)[0]
    assert user[0] == "user"
    assert json.loads(user[1].removeprefix("Query: ")) == query


@given(query=TEXT)
def test_a_query_is_not_looked_into(query):
    ((role, content),) = user_prompt(Path("mine.txt"), "<{query}|{query}>", query=query, intents=INTENTS)
    assert (role, content) == ("user", f"<{query}|{query}>")


@given(n=st.integers(0, 200))
def test_over_as_many_samples_as_intents_each_stands_in_each_place_once(n):
    intents = tuple(Intent(str(number), "") for number in range(n))
    orders = [in_turn(intents, sample) for sample in range(n)]
    assert orders[:1] == [intents][:n]
    assert all(set(place) == set(intents) for place in zip(*orders, strict=True))
    assert in_turn(intents, n) == intents


def test_the_orders_are_those_of_recordings():
    assert ["".join(in_turn(tuple("abcd"), sample)) for sample in range(4)] == ["abcd", "dabc", "cdab", "bcda"]
    assert [in_turn(tuple(range(77)), sample)[0] for sample in range(5)] == [0, 48, 19, 67, 38]


def test_examples_take_turns():
    assert examples_of(INTENTS) == [("a1", "a"), ("b1", "b"), ("a2", "a")]
