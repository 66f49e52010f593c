from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from teacher_specs import INTENTS

from distill.data import sha256_json
from distill.errors import DataError, SpecError
from distill.teacher.styles import CHANNELS, DIRECTNESS
from distill.teacher.writer import Focus, Writer

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
    writer = Writer(make_spec(None, None), focus=Focus(rivals))
    assert not writer.lacks_rivals
    sent = prompt(writer, next(writer.rounds("refund")))
    assert "Not to be taken for:\n- track_order: Where an order is\n- anything that fits no intent\n" in sent
    assert "close to what they are not to be taken for and yet clearly asking for that" in sent
    assert {each.near for each in writer.rounds("oos")} == {"refund"}
    assert Writer(make_spec(None, None)).run_sha256 != writer.run_sha256


def test_nothing_is_written_for_an_intent_that_is_not_mixed_up(make_spec):
    assert set(Writer(make_spec(None, None)).wanted) == {"track_order", "cancel_order", "refund", "oos"}
    mixed_up = Focus({"refund": ["oos"], "oos": ["refund"]})
    assert set(Writer(make_spec(None, None), focus=mixed_up).wanted) == {"refund", "oos"}


def test_known_queries_of_labels_that_are_mixed_up_are_shown_too(make_spec):
    known = {"refund": ["money back", "give it back", "i was charged twice"], "oos": ["sing to me"]}
    writer = Writer(make_spec(None, None), focus=Focus({"refund": ["track_order"], "oos": ["refund"]}, known))
    first, second, third, fourth, *_ = writer.rounds("refund")
    assert (first.evidence, third.evidence) == ("", "money back")
    assert second.alike == fourth.alike == tuple(known["refund"])
    assert "Not to be taken for:" in prompt(writer, third)
    assert {each.evidence for each in writer.rounds("oos")} == {"", "sing to me"}
    assert writer.run_sha256 != Writer(make_spec(None, None), focus=Focus(writer.rivals)).run_sha256


def test_with_several_intents_a_query_rivals_are_come_near_to_and_asked_for_too(make_spec):
    keys = {"task": "multi", "out_of_scope": False}
    rivals = {"refund": ["track_order", "oos"], "cancel_order": ["oos"], "oos": ["refund"]}
    writer = Writer(make_spec(None, None, **keys), focus=Focus(rivals))
    rounds = list(writer.rounds("refund"))
    sent = prompt(writer, rounds[0])
    assert sent.startswith(
        "Intent: refund: Money back\n\nEasily mixed up with:\n- track_order: Where an order is\n- anything"
    )
    assert "\n\nWrite 10 queries with the intent refund, all about" in sent
    assert "a query asks for something else too only where its line says so:\n1. " in sent
    assert "Some of the queries ask for this too" not in sent  # the rival that they mix in is described already
    lines = [line for each in rounds for line in each.lines]
    assert sum("and asks for track_order too" in line for line in lines) == len(lines) / 2
    assert not any("cancel_order" in line for line in lines)
    of_none = prompt(writer, next(writer.rounds("cancel_order")))  # a rival that cannot be asked for too: others are
    assert "Some of the queries ask for this too:\n- " in of_none
    assert {each.near for each in writer.rounds("oos")} == {"refund"}
    assert Writer(make_spec(None, None, **keys)).template == "synth_multi_001"


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


@pytest.mark.parametrize(
    ("attributes", "newest", "older"),
    [({}, "synth_004", "synth_001"), ({"persona": ["a student"]}, "synth_003", "synth_002")],
)
def test_a_recording_goes_on_with_the_template_it_was_begun_with(make_spec, attributes, newest, older):
    spec = make_spec(None, None, synth={"attributes": attributes})
    new = Writer(spec)
    assert new.template == newest
    line = {"target": "refund", "teacher": "fake", "prompt_sha256": new._sha256(older)}
    old = Writer(spec, {"key": line})
    assert old.template == older
    old.compare(ByShared())
    assert not any("rivals" in each.line for each in old.rounds("track_order"))
    assert {old.run_sha256, new.run_sha256} <= old.all_run_sha256
    assert old.all_run_sha256 == new.all_run_sha256


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


# --- styles of the newest prompt -------------------------------------------------------------------------------------


def test_lines_cross_what_users_differ_in(make_spec):
    writer = Writer(make_spec(None, None))
    lines = [line for round_ in writer.rounds("refund") for line in round_.lines][:60]
    parts = [set(line.split(", ")) for line in lines]
    for words in (*DIRECTNESS, *CHANNELS):
        n_values = len(DIRECTNESS) if words in DIRECTNESS else len(CHANNELS)
        assert sum(words in own for own in parts) == 60 // n_values
    for some in ("by a teenager", "polite", "with a typo", "with a reason", "a word misheard", "very short"):
        assert any(some in own for own in parts)
    assert Counter(lines).most_common(1)[0][1] == 1
    assert lines == [line for round_ in Writer(make_spec(None, None)).rounds("refund") for line in round_.lines][:60]


@pytest.mark.parametrize("target", ["refund", "oos"])
def test_no_words_of_one_trade_stand_in_a_prompt(make_spec, target):
    writer = Writer(make_spec(None, None))
    sent = " ".join(prompt(writer, each) for each in writer.rounds(target))
    assert not re.search(r"bank|opening hours|fees|customer service|insurance|shares", sent)


def test_other_subjects_are_told_apart_from_what_the_assistant_is_for(make_spec):
    writer = Writer(make_spec(None, None, synth={"per_request": 4}))
    far = [each for each in writer.rounds("oos") if not each.near]
    assert {name for each in far for name in each.served} == set(INTENTS)
    sent = prompt(writer, far[0])
    assert sent.startswith(
        "The assistant is for requests such as these; write none of them, but in their language:\n- "
    )
    assert "- track_order: Where an order is\n" in sent
    subjects = [line.rpartition(", about ")[2] for each in far for line in each.lines]
    assert max(Counter(subjects).values()) - min(Counter(subjects).values()) <= 1


# --- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["single", "multi", "weights"])
def test_each_query_gets_a_language_and_each_language_as_many(make_spec, task):
    keys = {"task": task, "out_of_scope": task == "single"}
    spec = make_spec(None, None, synth={"languages": ["en", "Swiss German"]}, **keys)
    writer = Writer(spec)
    for target in writer.wanted:
        lines = [line for round_ in writer.rounds(target) for line in round_.lines]
        found = Counter(re.search(r"language: (English|Swiss German)", line)[1] for line in lines)
        assert found["English"] == found["Swiss German"] == len(lines) / 2
    assert writer.run_sha256 != Writer(make_spec(None, None, **keys)).run_sha256


def test_the_prompt_names_a_language_only_where_there_are_some(make_spec):
    def sent(**synth):
        writer = Writer(make_spec(None, None, synth=synth))
        return "\n".join(content for _, content in writer.request(next(writer.rounds("refund"))).messages)

    plain, several = sent(), sent(languages=["de"])
    assert "language:" not in plain
    assert "Write in the language in which intents are described" in plain
    assert "Each query is in the language that its line names" in several
    assert several.count("language: German") == 10
    assert "language: Spanish" in several, "the example shows what is meant"


@pytest.mark.parametrize(
    ("synth", "named"),
    [
        ({"languages": ["de"], "attributes": {"language": ["English"]}}, "keep one of them"),
        ({"languages": [" "]}, "a code such as de"),
        ({"languages": [False]}, "valid string"),
        ({"languages": "de"}, "Input should be a list"),
    ],
)
def test_languages_that_are_none(make_spec, synth, named):
    with pytest.raises(SpecError, match=named):
        make_spec(None, None, synth=synth)


# --- evidence --------------------------------------------------------------------------------------------------------

KNOWN = [
    *({"text": f"has parcel {number} left", "intent": "track_order"} for number in range(50)),
    {"text": "Where is it?", "intent": "track_order"},
    {"text": "sing a song", "intent": "oos"},
]


@pytest.fixture
def with_evidence(make_spec, tmp_path):
    def make(known=KNOWN, **keys):
        (tmp_path / "known.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known), encoding="utf-8")
        return make_spec(None, None, teacher={"evidence": "known.jsonl"}, **keys)

    return make


def test_known_queries_are_shown_in_turn_one_a_request(with_evidence):
    writer = Writer(with_evidence())
    rounds = list(writer.rounds("track_order"))
    styled = [each for each in rounds if each.lines]
    assert [styled[0].example, styled[1].example, styled[1].evidence] == ["", "where is it", ""]
    assert [each.evidence for each in styled[2:5]] == [f"has parcel {number} left" for number in range(3)]
    for each in styled:
        assert sum(text["text"] in prompt(writer, each) for text in KNOWN) == bool(each.evidence)
    assert 'For instance: "has parcel 0 left"\n' in prompt(writer, styled[2])
    assert "sing a song" in {each.evidence for each in writer.rounds("oos")}
    assert not any(each.evidence for each in writer.rounds("refund"))


def test_every_other_request_shows_known_queries_together_and_no_style(with_evidence):
    writer = Writer(with_evidence())
    rounds = list(writer.rounds("track_order"))
    alike = [each for each in rounds if each.alike]
    assert [each.number % 2 for each in alike] == [1] * len(alike)
    assert len(alike) == len(rounds) // 2
    known = ["where is it", *(f"has parcel {number} left" for number in range(50))]
    assert [text for each in alike for text in each.alike][:50] == known[:50]
    assert writer.request(alike[0]).messages == (
        (
            "system",
            (
                "You write queries as real people type or say them to an assistant: natural, and in the words of the user. "
                'Answer with JSON: {"queries": ["...", "..."]}.'
            ),
        ),
        (
            "user",
            "Intent: track_order: Where an order is\n\nUsers sent these queries with this intent:\n"
            + "".join(f'- "{text}"\n' for text in known[:5])
            + "\nWrite 10 more queries with the intent track_order, as such users would write them and in their language, "
            "all about different things and in different words.",
        ),
    )
    assert "parcel" not in json.dumps(alike[0].line)
    assert alike[0].line["alike"] == [sha256_json(text)[:12] for text in known[:5]]


@pytest.mark.parametrize(
    ("n_known", "shown"),
    [(1, []), (2, [(0, 2)]), (5, [(0, 5)]), (9, [(0, 5)]), (10, [(0, 5), (5, 10)]), (14, [(0, 5), (5, 10)])],
)
def test_known_queries_are_shown_five_together_as_soon_as_there_are_five_more(with_evidence, n_known, shown):
    known = [{"text": f"money {number}", "intent": "refund"} for number in range(n_known)]
    writer = Writer(with_evidence(known))
    alike = [each.alike for each in writer.rounds("refund") if each.alike]
    texts = [tuple(f"money {number}" for number in range(*each)) for each in shown]
    assert alike[: len(texts)] == texts
    assert set(alike) == set(texts)


@pytest.mark.parametrize(
    ("known", "keys", "focus"),
    [
        (KNOWN[:1], {}, None),  # and another intent has none
        (KNOWN, {"synth": {"attributes": {"mood": ["sad"]}}}, None),
        (KNOWN, {"synth": {"languages": ["de"]}}, None),
        (KNOWN, {}, Focus({"refund": ("track_order",)})),
        (
            [{**line, "intent": None, "intents": ["refund"]} for line in KNOWN[:9]],
            {"task": "multi", "out_of_scope": False},
            None,
        ),
    ],
)
def test_requests_that_take_styles_alone(with_evidence, known, keys, focus):
    known = [{name: value for name, value in line.items() if value} for line in known]
    writer = Writer(with_evidence(known, **keys), None, focus)
    assert all(each.lines and not each.alike for target in ("refund", "oos") for each in writer.rounds(target))


def test_rivals_are_not_taken_from_a_request_that_names_none(with_evidence):
    spec = with_evidence()
    writer = Writer(spec)
    writer.rivals = {"track_order": ("refund",)}
    styled, alike = list(writer.rounds("track_order"))[:2]
    made_by = {"teacher": writer.model, "prompt_sha256": writer.settings_sha256}
    recorded = {number: {**each.line, **made_by} for number, each in enumerate((alike, styled))}
    assert Writer(spec, recorded).rivals == {"track_order": ("refund",)}


def test_a_recording_of_styles_alone_goes_on_with_them(with_evidence):
    spec = with_evidence()
    recorded = {"key": {"target": "refund", "teacher": "fake", "prompt_sha256": Writer(spec)._sha256("synth_003")}}
    writer = Writer(spec, recorded)
    rounds = list(writer.rounds("track_order"))
    assert not any(each.alike for each in rounds)
    assert [each.evidence for each in rounds[2:5]] == [f"has parcel {number} left" for number in range(3)]


def test_a_recording_does_not_repeat_a_known_query(with_evidence):
    writer = Writer(with_evidence())
    (shown, other) = [each for each in writer.rounds("track_order") if each.evidence][:2]
    assert shown.line["evidence"] == sha256_json("has parcel 0 left")[:12]
    assert "parcel" not in json.dumps(shown.line)
    assert writer.key(shown) != writer.key(other)


def test_one_more_known_query_leaves_requests_as_they_were(with_evidence):
    before, after = (
        Writer(with_evidence(known)) for known in (KNOWN, [*KNOWN, {"text": "is it lost", "intent": "track_order"}])
    )
    keys = [[writer.key(each) for each in writer.rounds("track_order")] for writer in (before, after)]
    assert keys[0][:20] == keys[1][:20]
    assert before.run_sha256 != after.run_sha256


def test_known_queries_say_what_an_intent_is_near_to(with_evidence):
    writer = Writer(with_evidence([{"text": "money for the order", "intent": "refund"}]))
    writer.compare(ByShared())
    assert writer.rivals["refund"] == ("cancel_order",)


def test_what_was_recorded_without_evidence_goes_on_without(with_evidence):
    spec = with_evidence()
    recorded = {"key": {"target": "refund", "teacher": "fake", "prompt_sha256": Writer(spec)._sha256("synth_001")}}
    writer = Writer(spec, recorded)
    assert writer.evidence == {}
    assert not any("evidence" in each.line for each in writer.rounds("track_order"))


def test_multi_shows_known_queries_too(with_evidence):
    known = [{"text": "where is it and give me money", "intents": ["track_order", "refund"]}]
    writer = Writer(with_evidence(known, task="multi", out_of_scope=False))
    assert {each.evidence for each in writer.rounds("refund")} == {"", known[0]["text"]}


def test_gold_among_the_known_queries_is_an_error(with_evidence, tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"text": "Has parcel 3 left?", "intent": "track_order"}\n')
    with pytest.raises(DataError, match=r"is in .*gold\.jsonl too"):
        Writer(with_evidence(gold="gold.jsonl"))
