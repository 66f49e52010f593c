"""data/video-search/router.yaml asks for what the demo needs: enough queries, of every kind, over the library's channels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from distill.data import read_jsonl
from distill.spec import load_spec
from distill.teacher.label import plan_labels, recorded_labels
from distill.teacher.writer import Writer
from distill.types import Task

FOLDER = Path(__file__).resolve().parent.parent / "data" / "video-search"
SPEC = load_spec(FOLDER)


def test_the_channels_are_those_of_the_library():
    (_, clip), *_ = read_jsonl(FOLDER / "library" / "clips.jsonl")
    assert SPEC.task is Task.WEIGHTS
    assert set(SPEC.labels) <= set(clip)


def test_enough_queries_are_asked_for_and_each_kind_is_crossed_with_every_subject():
    writer = Writer(SPEC)
    assert sum(writer.wanted.values()) >= 1_500
    subjects = SPEC.synth.attributes["subject"]
    for kind, wanted in writer.wanted.items():
        lines = [line for round_ in writer.rounds(kind) for line in round_.lines][:wanted]
        found = Counter(each for line in lines for each in subjects if f"subject: {each}, " in line)
        assert found.total() == wanted
        assert set(found) == set(subjects)
        assert max(found.values()) - min(found.values()) <= 1


def test_examples_show_mixtures_and_none_of_them_is_a_query_of_the_library():
    shown = [(text, intent.name) for intent in SPEC.intent_list for text in intent.examples]
    assert any(count > 1 for count in Counter(text for text, _ in shown).values())
    queries = {line["text"] for _, line in read_jsonl(FOLDER / "library" / "queries.jsonl")}
    assert queries.isdisjoint(text for text, _ in shown)


def test_the_recording_answers_all_that_is_asked_for_the_figures():
    plan = plan_labels(SPEC)
    assert plan.n_texts >= 1_500
    assert plan.n_missing == 0
    queries = [line["text"] for _, line in read_jsonl(FOLDER / "library" / "queries.jsonl")]
    answers = recorded_labels(SPEC, queries)
    assert set(queries) == set(answers)
    soft = [answer for answer in answers.values() if answer.scores is not None and max(answer.scores.values()) < 0.9]
    assert soft, "every answer is hard: were log-probabilities read?"
