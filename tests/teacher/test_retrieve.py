"""What is shown of intents and examples that are too many: bounded, nearest, and never the query itself."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.teacher.retrieve import CANDIDATES, EXAMPLES, MOST_EXAMPLES, MOST_INTENTS, ByQuery, Excerpt, Retriever
from distill.types import Intent

sys.path.append(str(Path(__file__).parents[1]))
from words import ByWords

BOTH = ByQuery(intents=True, examples=True)
WORDS = [f"word{number}" for number in range(40)]


def intents_named(n):
    return tuple(Intent(f"intent_{number}", f"about w{number} and x{number}") for number in range(n))


@pytest.mark.parametrize(
    ("n_intents", "n_examples", "expected"),
    [
        (MOST_INTENTS, MOST_EXAMPLES, ByQuery()),
        (MOST_INTENTS, MOST_EXAMPLES + 1, ByQuery(examples=True)),
        (MOST_INTENTS + 1, 0, ByQuery(intents=True)),
        (MOST_INTENTS + 1, 1, BOTH),
    ],
)
def test_what_fits_stands_in_every_prompt(n_intents, n_examples, expected):
    assert ByQuery.of(n_intents, n_examples) == expected
    assert bool(expected) == (n_intents > MOST_INTENTS or n_examples > MOST_EXAMPLES)


def test_the_settings_say_how_many_are_chosen_and_not_from_how_many():
    assert BOTH.settings == {"candidates": CANDIDATES, "examples": EXAMPLES}
    assert ByQuery(examples=True).settings == {"examples": EXAMPLES}
    assert ByQuery().settings == {}


def test_an_intent_is_as_near_as_the_nearest_of_what_is_known_of_it():
    intents = intents_named(300)
    examples = [("completely different phrase", "intent_250"), ("another thing", "intent_251")]
    retriever = Retriever(intents, examples, BOTH, ByWords())
    assert retriever("tell me about w7 and x7 please").candidates[0].name == "intent_7"
    found = retriever("a completely different phrase indeed")
    assert found.candidates[0].name == "intent_250"
    assert found.examples[-1] == examples[0], "the nearest stands last, beside the query"


def test_an_example_that_is_the_query_is_not_shown_and_says_nothing():
    intents = intents_named(300)
    examples = [("Purple elephants dance!", "intent_299"), ("something else", "intent_1")]
    found = Retriever(intents, examples, BOTH, ByWords())("purple elephants dance")
    assert "intent_299" not in {intent.name for intent in found.candidates}
    assert "Purple elephants dance!" not in {text for text, _ in found.examples}


@given(st.integers(0, 1_000))
def test_an_excerpt_is_bounded_and_every_example_in_it_is_an_answer_that_may_be_given(seed):
    chance = random.Random(seed)  # noqa: S311
    intents = intents_named(chance.randint(1, 90))
    names = [intent.name for intent in intents]
    examples = [
        (" ".join(chance.sample(WORDS, 4)), chance.choice([[chance.choice(names)], chance.sample(names, 1), []]))
        for _ in range(chance.randint(0, 30))
    ]
    examples = list(dict(examples).items())
    found = Retriever(intents, examples, BOTH, ByWords())(" ".join(chance.sample(WORDS, 3)))
    assert len(found.candidates) == min(len(intents), CANDIDATES)
    assert len(found.examples) <= EXAMPLES
    shown = {intent.name for intent in found.candidates}
    assert all(shown.issuperset(answer) for _, answer in found.examples)
    assert len(set(found.ids)) == len(found.examples)


def test_an_out_of_scope_example_may_be_shown_beside_any_candidates():
    found = Retriever(intents_named(200), [("sing me a song", "oos")], BOTH, ByWords())("sing a song for me")
    assert found.examples == (("sing me a song", "oos"),)


def test_where_the_intents_fit_only_examples_are_chosen():
    intents = intents_named(3)
    examples = [(f"{WORDS[number]} {WORDS[number + 1]}", "intent_0") for number in range(39)]
    found = Retriever(intents, examples, ByQuery(examples=True), ByWords())("word20 word21")
    assert found.candidates is None
    assert len(found.examples) == EXAMPLES
    assert {text for text, _ in found.examples[-2:]} == {"word19 word20", "word21 word22"}


def test_an_estimate_is_as_long_as_an_excerpt():
    intents, examples = intents_named(200), [(word, "intent_0") for word in WORDS]
    assert ByQuery().first(intents, examples) == Excerpt()
    typical = BOTH.first(intents, examples)
    assert (len(typical.candidates), len(typical.examples)) == (CANDIDATES, EXAMPLES)
