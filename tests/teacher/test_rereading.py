"""Recorded answers under another `answer_map` or `answer_path`: what decides, and where it came from."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest
from teacher_specs import ledger_lines

from distill.data import label_as_line, read_labels
from distill.teacher.answers import SAID
from distill.teacher.carry import CarryOptions, plan_carry
from distill.teacher.imported import import_answers
from distill.teacher.label import label, plan_labels, recorded_labels
from distill.teacher.ledger import AppendLog, Ledger
from distill.teacher.relabel import _first_answers

MAP = {"GELD": "refund"}


@pytest.fixture
def mapped(server, make_spec, tmp_path):
    """Writes the spec with a prompt of its own and some `answer_map`; the server says GELD to everything."""
    (tmp_path / "mine.txt").write_text("{intents}: {query}", encoding="utf-8")
    server.respond = lambda *_: server.completion("GELD")

    def write(answer_map=MAP, texts=("hello",), *, teacher=(), **keys):
        own = {"prompt": "mine.txt", "answer_map": answer_map, **dict(teacher)}
        return make_spec(server.base_url, list(texts), teacher=own, **keys)

    return write


def imported(spec, intent, **options):
    path = spec.folder / "answers.jsonl"
    path.write_text(json.dumps({"text": "hello", "intent": intent}) + "\n", encoding="utf-8")
    return import_answers(spec, path, **options)


def scores_of(spec, text="hello"):
    return recorded_labels(spec, [text])[text].scores


def test_a_correction_that_was_imported_stays_and_says_where_it_came_from(mapped, server):
    label(mapped(), show_progress=False)
    imported(mapped(), "track_order", teacher="gpt-4o")
    more = mapped(MAP | {"WO": "track_order"})
    assert (plan_labels(more).n_missing, plan_labels(more).n_read_anew) == (0, 1)
    label(more, show_progress=False)
    assert (scores_of(more), server.n_requests) == ({"track_order": 1.0}, 1)
    source = ledger_lines(more)[-1]["carried_from"]
    assert (source["file"], source["teacher"]) == ("answers.jsonl", "gpt-4o")


@pytest.mark.parametrize("other", [{"answer_path": "final"}, {"answer_map": {"WO": "track_order"}}])
def test_what_was_imported_is_not_asked_again(mapped, server, other):
    imported(mapped({}), "refund")
    spec = mapped({}, teacher=other)
    label(spec, show_progress=False)
    assert (scores_of(spec), server.n_requests) == ({"refund": 1.0}, 0)


def test_it_is_the_same_text_however_its_accents_are_written(mapped, server):
    text = "où est mon colis"
    label(mapped(texts=[unicodedata.normalize("NFD", text)]), show_progress=False)
    spec = mapped(MAP | {"WO": "track_order"}, [text])
    assert (plan_labels(spec).n_missing, plan_labels(spec).n_read_anew) == (0, 1)


def test_carry_leaves_to_label_what_can_be_read_anew(mapped, server):
    """An answer under today's intents, read by another map, is nearer to the truth than one under others."""
    label(mapped(), show_progress=False)
    fewer = {"track_order": {"description": "Where an order is"}, "refund": {"description": "Money back"}}
    server.respond = lambda *_: server.completion("WO")
    label(mapped({"WO": "track_order"}, intents=fewer), show_progress=False)
    spec = mapped({"WO": "track_order", "GELD": "refund"}, intents=fewer)
    assert plan_carry(spec, CarryOptions(), show_progress=False).n_texts == 0
    label(spec, show_progress=False)
    assert (scores_of(spec), server.n_requests) == ({"track_order": 1.0}, 2)


def test_of_several_answers_the_last_good_one_counts(mapped, server):
    label(mapped({}), show_progress=False)  # GELD names nothing yet
    server.respond = lambda *_: server.completion("refund")
    label(mapped({}), show_progress=False)
    spec = mapped({"GELD": "track_order"})
    label(spec, show_progress=False)
    assert (scores_of(spec), server.n_requests) == ({"refund": 1.0}, 2)


def test_a_correction_stays_when_the_map_is_put_back(mapped, server):
    label(mapped(), show_progress=False)
    more = mapped(MAP | {"WO": "track_order"})
    label(more, show_progress=False)
    imported(more, "track_order")
    label(mapped(), show_progress=False)
    assert (scores_of(mapped()), server.n_requests) == ({"track_order": 1.0}, 1)
    assert plan_labels(mapped()).n_read_anew == plan_labels(more).n_read_anew == 0


def test_a_request_that_failed_since_hides_nothing(mapped, server):
    label(mapped({}), show_progress=False)
    server.respond = lambda *_: (500, {"error": {"message": "no"}}, {})
    label(mapped({}), show_progress=False)
    spec = mapped()
    assert (plan_labels(spec).n_missing, plan_labels(spec).n_read_anew) == (0, 1)
    label(spec, show_progress=False)
    assert scores_of(spec) == {"refund": 1.0}


def test_before_a_decision_stands_what_it_was_decided_from(mapped):
    """`audit --relabel` takes the mean of the first answers and the new ones, and so has to find the first."""
    label(mapped(), show_progress=False)
    spec = mapped()
    (first,) = read_labels(spec.ledger_path)
    decided = replace(first, scores={"track_order": 0.75, "refund": 0.25}, latency_ms=None)
    extra = {name: value for name, value in first.extra.items() if name != SAID} | {"carried_from": {"answers": 4}}
    with AppendLog(spec.ledger_path) as log:
        log.append(label_as_line(replace(decided, extra=extra)))
    more = mapped(MAP | {"WO": "track_order"})
    label(more, show_progress=False)
    assert scores_of(more) == {"track_order": 0.75, "refund": 0.25}
    ledger = Ledger(more.ledger_path)
    answer = recorded_labels(more, ["hello"])["hello"]
    assert [line.scores for line in _first_answers(more, ledger, {answer.key}).values()] == [{"refund": 1.0}]
    assert label(more, show_progress=False).n_read_anew == 0


def test_another_name_of_the_prompts_file_asks_nothing(server, make_spec, tmp_path):
    (tmp_path / "mine.txt").write_text("{intents}: {query}", encoding="utf-8")
    label(make_spec(server.base_url, ["refund"], teacher={"prompt": "mine.txt"}), show_progress=False)
    (tmp_path / "mine.txt").rename(tmp_path / "yours.txt")
    spec = make_spec(server.base_url, ["refund"], teacher={"prompt": "yours.txt"})
    assert (plan_labels(spec).n_missing, plan_labels(spec).n_read_anew) == (0, 1)
    label(spec, show_progress=False)
    assert (scores_of(spec, "refund"), server.n_requests) == (ledger_lines(spec)[0]["scores"], 1)
    (tmp_path / "yours.txt").write_text("Pick one of {intents}: {query}", encoding="utf-8")
    assert plan_labels(spec).n_missing == 1
