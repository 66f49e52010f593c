"""data/bank-requests: the recording answers all that its demo asks."""

from __future__ import annotations

from pathlib import Path

from distill.data import read_gold, read_jsonl
from distill.spec import load_spec
from distill.teacher.label import plan_labels
from distill.types import Task

FOLDER = Path(__file__).resolve().parent.parent / "data" / "bank-requests"
SPEC = load_spec(FOLDER)


def test_the_recording_answers_logs_and_gold():
    plan = plan_labels(SPEC)
    assert (plan.n_texts, plan.n_missing) == (810, 0)


def test_gold_is_not_shown():
    gold = {query.text for query in read_gold(FOLDER / "gold.jsonl", SPEC.labels, Task.MULTI)}
    shown = {text for intent in SPEC.intent_list for text in intent.examples}
    logs = {line["text"] for _, line in read_jsonl(FOLDER / "logs.jsonl")}
    assert gold.isdisjoint(shown)
    assert len(gold & logs) <= 1  # NLU++ has that request twice; the benchmark says so
