from __future__ import annotations

import numpy as np
import pytest
from teacher_specs import INTENTS

from distill.data import sha256_json
from distill.teacher.writer import Writer

WORDS = ("order", "money", "where")


class ByShared:
    """Vectors of the words in a text: two intents are alike as far as they share some."""

    def embed(self, texts, on_done=None):
        rows = np.asarray([[word in text.lower() for word in WORDS] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def writer(make_spec):
    writer = Writer(make_spec(None, None, synth={"per_request": 4}))
    writer.compare(ByShared())
    return writer


def prompt(writer, round_):
    return writer.request(round_).messages[-1][1]


def test_the_nearest_others_are_named_and_those_far_away_are_not(writer):
    assert writer.rivals == {"track_order": ("cancel_order",), "cancel_order": ("track_order",), "refund": ()}
    first, second = [next(writer.rounds(target)) for target in ("track_order", "refund")]
    assert "\n\nNot to be taken for:\n- cancel_order: Stop an order\n\n" in prompt(writer, first)
    assert first.line["rivals"] == ["cancel_order"]
    assert "Not to be taken for" not in prompt(writer, second)
    assert "rivals" not in second.line


def test_a_near_miss_is_neither_its_subject_nor_that_ones_neighbours(writer):
    rounds = list(writer.rounds("oos"))
    (of_order, *_) = (each for each in rounds if each.near == "track_order")
    named = "Subject: the same as in track_order (Where an order is), but another request than that: "
    assert prompt(writer, of_order).startswith(named)
    assert "\n\nNot to be taken for:\n- cancel_order: Stop an order\n\nWrite 4 queries, all" in prompt(writer, of_order)
    assert {each.near for each in rounds} == {"", *INTENTS}
    assert all("Not to be taken for" not in prompt(writer, each) for each in rounds if not each.near)


def test_examples_of_queries_that_fit_none_are_shown_in_turn(make_spec):
    examples = ["sing a song", "who are you"]
    writer = Writer(make_spec(None, None, out_of_scope={"examples": examples}))
    rounds = list(writer.rounds("oos"))
    assert {each.example for each in rounds} == {"", *examples}
    shown = [each for each in rounds if each.example == "sing a song"]
    assert {bool(each.near) for each in shown} == {True, False}
    assert all('For instance: "sing a song"\n\nWrite ' in prompt(writer, each) for each in shown)


def test_rivals_that_are_given_are_come_near_to(make_spec):
    rivals = {"refund": ["track_order", "oos"], "oos": ["refund"]}
    writer = Writer(make_spec(None, None), rivals=rivals)
    assert not writer.lacks_rivals
    sent = prompt(writer, next(writer.rounds("refund")))
    assert "Not to be taken for:\n- track_order: Where an order is\n- anything that fits no intent\n" in sent
    assert "close to what they are not to be taken for and yet clearly asking for that" in sent
    assert {each.near for each in writer.rounds("oos")} == {"refund"}
    assert "and yet clearly asking" not in prompt(writer, next(writer.rounds("cancel_order")))
    assert Writer(make_spec(None, None)).run_sha256 != writer.run_sha256


def test_rivals_are_taken_from_the_recording_before_vectors(writer, make_spec):
    spec = make_spec(None, None, synth={"per_request": 4})
    rounds = [next(writer.rounds("track_order")), next(each for each in writer.rounds("oos") if each.near == "refund")]
    recording = {
        writer.key(each): {**each.line, "teacher": "fake", "prompt_sha256": writer.settings_sha256} for each in rounds
    }
    again = Writer(spec, recording)
    assert again.rivals == {"track_order": ("cancel_order",), "refund": ()}
    assert again.key(next(again.rounds("track_order"))) == writer.key(rounds[0])
    assert again.lacks_rivals
    again.compare(ByShared())
    assert again.rivals == writer.rivals
    assert not again.lacks_rivals


@pytest.mark.parametrize(("attributes", "older"), [({}, "synth_001"), ({"persona": ["a student"]}, "synth_002")])
def test_a_recording_goes_on_with_the_template_it_was_begun_with(make_spec, attributes, older):
    spec = make_spec(None, None, synth={"attributes": attributes})
    new = Writer(spec)
    assert new.template == "synth_003"
    line = {"target": "refund", "teacher": "fake", "prompt_sha256": new._sha256(older)}
    old = Writer(spec, {"key": line})
    assert old.template == older
    old.compare(ByShared())
    assert not any("rivals" in each.line for each in old.rounds("track_order"))
    assert {old.run_sha256, new.run_sha256} == old.all_run_sha256 == new.all_run_sha256


PINNED = {
    "single": ({"synth": {"per_intent": 20, "out_of_scope": 40}}, "synth_001", "a6b9f765ac85d999"),
    "crossed": ({"synth": {"attributes": {"persona": ["a student", "a nurse"]}}}, "synth_002", "1f787ca0495984de"),
    "multi": ({"task": "multi", "out_of_scope": False}, "synth_multi_001", "e0bf58d44037d21e"),
    "weights": (
        {
            "task": "weights",
            "out_of_scope": False,
            "synth": {"attributes": {"about": ["a scene", "a song"], "length": [""], "subject": ["cats", "dogs"]}},
        },
        "synth_weights_001",
        "eb5834a12d670331",
    ),
}


@pytest.mark.parametrize("task", PINNED)
def test_requests_are_as_they_were_when_recordings_were_made(make_spec, task):
    """Their keys and words: with another one, what was paid for would not be found again."""
    keys, template, expected = PINNED[task]
    spec = make_spec(None, None, **keys)
    sha256 = Writer(spec)._sha256(template)
    writer = Writer(spec, {"key": {"target": "refund", "teacher": "fake", "prompt_sha256": sha256}})
    sent = [[writer.key(each), writer.request(each).messages] for name in writer.wanted for each in writer.rounds(name)]
    assert sha256_json(sent)[:16] == expected
