"""Known examples: the intents' own and those of ``teacher.evidence``; gold is never among them."""

from __future__ import annotations

import json

import pytest

from distill.errors import DataError, SpecError
from distill.teacher.evidence import known_examples, known_intents

SEEDS = [
    {"text": "has it left the warehouse", "intent": "track_order"},
    {"text": "money back please", "intent": "refund"},
    {"text": "who won the match", "intent": "oos"},
]
GOLD = [{"text": "gold parcel", "intent": "track_order"}]


def lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


@pytest.fixture
def with_seeds(make_spec, tmp_path):
    def make(seeds=SEEDS, gold=GOLD, **teacher):
        lines(tmp_path / "seeds.jsonl", seeds)
        lines(tmp_path / "gold.jsonl", gold)
        return make_spec(teacher={"evidence": "seeds.jsonl", **teacher}, gold="gold.jsonl")

    return make


def test_the_own_examples_stand_first_then_the_evidence(with_seeds):
    examples = {intent.name: intent.examples for intent in known_intents(with_seeds())}
    assert examples["track_order"] == ("where is it", "has it left the warehouse")
    assert (examples["cancel_order"], examples["oos"]) == ((), ("who won the match",))
    assert ("money back please", "refund") in known_examples(with_seeds())


def test_without_evidence_the_intents_are_as_they_are(make_spec):
    spec = make_spec()
    assert known_intents(spec) == (*spec.intent_list, spec.out_of_scope_intent)
    assert known_examples(spec) == [("where is it", "track_order")]


def test_evidence_that_is_gold_is_an_error(with_seeds, make_spec):
    with pytest.raises(DataError, match=r"query 2, 'Gold, parcel'.*gold.jsonl too"):
        known_intents(with_seeds([SEEDS[0], {"text": "Gold, parcel", "intent": "refund"}]))
    spec = make_spec(teacher={"evidence": "gold.jsonl"}, gold="gold.jsonl")
    with pytest.raises(DataError, match="is `gold:` too"):
        known_intents(spec)


def test_an_own_example_that_is_gold_is_an_error(with_seeds):
    spec = with_seeds(gold=[{"text": "Where is it?", "intent": "refund"}])
    with pytest.raises(
        DataError, match=r"'where is it', an example of 'track_order', is in .*gold\.jsonl too; take it out"
    ):
        known_intents(spec, with_evidence=False)


def test_what_stands_under_two_intents_speaks_for_neither(with_seeds):
    spec = with_seeds([*SEEDS, {"text": "Where is it", "intent": "refund"}])
    assert "where is it" not in {text.casefold() for text, _ in known_examples(spec)}


def test_emoji_are_queries_of_their_own(with_seeds):
    spec = with_seeds(
        [{"text": "👍", "intent": "refund"}, {"text": "👎", "intent": "cancel_order"}], [{"text": "❤️", "intent": "oos"}]
    )
    assert {("👍", "refund"), ("👎", "cancel_order")} <= set(known_examples(spec))
    with pytest.raises(DataError, match=r"'👍', is in .*gold\.jsonl too"):
        known_intents(with_seeds([{"text": "👍", "intent": "refund"}], [{"text": "👍!", "intent": "oos"}]))


def test_evidence_is_redacted(with_seeds, tmp_path):
    (tmp_path / "hide_numbers.py").write_text("def hide(text):\n    return text.replace('4711', '#')\n")
    spec = with_seeds([{"text": "order 4711", "intent": "track_order"}], redact="hide_numbers:hide")
    assert dict(known_examples(spec))["order #"] == "track_order"


def test_what_is_gold_once_it_is_redacted_is_an_error(with_seeds, tmp_path):
    (tmp_path / "hide_orders.py").write_text("import re\ndef hide(text):\n    return re.sub(r'[0-9]+', 'N', text)\n")
    gold = [{"text": "where is order 77", "intent": "track_order"}]
    spec = with_seeds([{"text": "Where is order 12?", "intent": "track_order"}], gold, redact="hide_orders:hide")
    with pytest.raises(DataError, match=r"query 1, 'Where is order N\?', is in .*gold\.jsonl too"):
        known_intents(spec)


def test_an_unknown_intent_names_file_and_line(with_seeds):
    with pytest.raises(DataError, match=r"seeds.jsonl:1.*refnud"):
        known_intents(with_seeds([{"text": "x", "intent": "refnud"}]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task": "weights", "out_of_scope": False, "teacher": {"evidence": "seeds.jsonl"}}, "is for `task: single`"),
        ({"teacher": {"evidence": "seeds.jsonl", "model": None, "labels": "l.jsonl"}}, "with `labels` leave it out"),
    ],
)
def test_evidence_where_it_has_no_place_is_an_error(make_spec, keys, message):
    with pytest.raises(SpecError, match=message):
        make_spec(**keys)
