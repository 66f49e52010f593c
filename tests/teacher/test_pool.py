from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from improvable import ByText

from distill.teacher.pool import Comparison, Dropped, Pool, Repeat, _is_usable
from distill.teacher.writer import Round

WANTED = {"refund": 3, "cancel": 3}


class ByWord(ByText):
    """Texts with the same first word are alike."""

    def embed(self, texts, on_done=None):
        return super().embed([re.split(r"\W", text.lower())[0] for text in texts])


def take(pool, comparison, target, texts, number=0):
    """As an answer that comes in; what was found of it is what is recorded."""
    round_ = Round(target, number, ("a line",))
    repeats = comparison.repeats(target, pool.fresh(round_, texts))
    pool.add(round_, texts, repeats)
    return repeats


def kept(pool):
    return [(target, text) for target, text, _ in pool.distinct()]


def new(embedder=None, excluded=()):
    pool = Pool(WANTED, frozenset(excluded))
    return pool, Comparison(pool, embedder)


def test_a_near_repetition_is_dropped_of_its_own_and_of_another_intent():
    pool, comparison = new(ByWord())
    assert take(pool, comparison, "refund", ["money back", "money, please", "cash"]) == [
        Repeat(1, "refund", "money back")
    ]
    assert take(pool, comparison, "cancel", ["stop it", "cash now", "Stop", "STOP IT"]) == [
        Repeat(1, "refund", "cash"),
        Repeat(2, "cancel", "stop it"),
        Repeat(3, "cancel", "stop it"),
    ]
    assert kept(pool) == [("refund", "money back"), ("refund", "cash"), ("cancel", "stop it")]
    assert pool.dropped["refund"] == Dropped(nearly_repeated=1)
    assert pool.dropped["cancel"] == Dropped(repeated=1, nearly_repeated=1, of_another=1)
    assert pool.dropped["cancel"].total == 3


def test_without_vectors_equal_queries_alone_are_dropped():
    pool, comparison = new(excluded=["known"])
    take(pool, comparison, "refund", ["Money back!", "money, please", "money back", "a line", "Known?", None])
    assert take(pool, comparison, "cancel", ["MONEY BACK", "stop"]) == [Repeat(0, "refund", "Money back!")]
    assert kept(pool) == [("refund", "Money back!"), ("refund", "money, please"), ("cancel", "stop")]
    assert pool.dropped["refund"] == Dropped(repeated=1, known=1, unusable=2)
    assert pool.dropped["cancel"] == Dropped(of_another=1)


def test_what_was_dropped_does_not_come_back_in_the_same_answer():
    pool, comparison = new(ByWord())
    take(pool, comparison, "refund", ["money back"])
    take(pool, comparison, "cancel", ["money", "money", "Money!"])
    assert kept(pool) == [("refund", "money back")]


def test_more_than_is_wanted_is_compared_too_and_not_shown():
    pool, comparison = new(ByWord())
    take(pool, comparison, "refund", ["a 1", "b 1", "c 1", "d 1"])
    assert pool.is_full("refund")
    assert [text for _, text in kept(pool)] == ["a 1", "b 1", "c 1"]
    assert take(pool, comparison, "cancel", ["d 2"]) == [Repeat(0, "refund", "d 1")]


def test_a_comparison_knows_what_was_recorded_before():
    pool, comparison = new(ByWord())
    take(pool, comparison, "refund", ["money back"])
    assert take(pool, Comparison(pool, ByWord()), "cancel", ["money", "stop"]) == [Repeat(0, "refund", "money back")]
    assert take(pool, Comparison(pool, None), "cancel", ["money"]) == []


ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(sorted(WANTED)), st.lists(st.sampled_from(["a", "a 1", "A!", "b", "b 2", "c", "?", "d"]))
    ),
    max_size=8,
)


@given(answers=ANSWERS, with_vectors=st.booleans())
def test_answers_in_the_order_of_their_targets_give_the_same_queries_again(answers, with_vectors):
    """Live, they come as they come, and are compared; from the recording they are taken target by target, without vectors."""
    pool, comparison = new(ByWord() if with_vectors else None)
    recorded = {target: [] for target in WANTED}
    for number, (target, texts) in enumerate(answers):
        recorded[target].append((Round(target, number, ()), texts, take(pool, comparison, target, texts, number)))
    again = Pool(WANTED, frozenset())
    for rounds in recorded.values():
        for round_, texts, repeats in rounds:
            again.add(round_, texts, repeats)
    assert list(again.distinct()) == list(pool.distinct())
    assert again.dropped == pool.dropped
    words = [re.split(r"\W", text)[0].lower() for _, text in kept(again)]
    assert len(set(words)) == len(words) or not with_vectors


def test_an_echo_is_what_this_request_said():
    lines = frozenset({"a command short begins with help"})
    assert not _is_usable("A command to delete", "a command to delete", lines)
    assert _is_usable("A command to delete", "a command to delete", frozenset({"a question"}))
