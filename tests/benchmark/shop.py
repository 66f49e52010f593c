"""A small shop to measure: gold, labels, and a teacher with one wrong and one failed answer."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from distill.benchmark.bench import BenchInputs
from distill.benchmark.cost import CostInputs
from distill.benchmark.recorded import RecordedTeacher
from distill.types import Example, GoldQuery, Label, Task, TokenPrice, Usage

TEXTS = {
    "track_order": ("where is my parcel", "track delivery", "where is the delivery", "track my parcel please"),
    "cancel_order": ("cancel the order", "stop it", "please cancel", "i want to cancel it"),
    "refund": ("i want my money back", "refund please", "money back", "a refund to my money"),
    "oos": ("a joke please", "weather", "a song", "the weather joke"),
}
PRICE = TokenPrice("big-model", Decimal("0.25"), Decimal("0.025"), Decimal(2), "the maker's page", "2026-01-31")


def names_of(task):
    return tuple(name for name in TEXTS if task is Task.SINGLE or name != "oos")


def answer(text, name, **changes):
    fields = {"key": text, "text": text, "scores": {name: 1.0}, "error": None, "teacher": "some-model"}
    fields |= {"prompt_sha256": "p", "usage": Usage(100, 5, 40), "latency_ms": 900.0, "extra": {"in_flight": 2}}
    return Label(**fields | {"asked_at": "2026-02-01T00:00:00Z"} | changes)


def make_inputs(bundles, task=Task.SINGLE, **changes):
    """Gold, labels and a teacher that is right but for one wrong and one failed answer."""
    labels = names_of(task)
    pairs = [(text, name) for name in labels for text in TEXTS[name]]
    training = [
        Example(f"{text} {word}", np.eye(len(labels), dtype=np.float32)[labels.index(name)], split=split)
        for text, name in pairs
        for word, split in (("now", "train"), ("today", "train"), ("again", "held_out"))
    ]
    answers = [answer(text, name) for text, name in pairs] + [
        answer(example.text, labels[int(example.target.argmax())]) for example in training
    ]
    answers[0] = answer(pairs[0][0], labels[1])
    answers[1] = answer(pairs[1][0], None, scores=None, error="500")
    fields = {
        "name": "shop",
        "task": task,
        "labels": labels,
        "gold": tuple(GoldQuery(text, {name: 1.0}) for text, name in pairs),
        "bundles": {"static": bundles[task].path},
        "training": tuple(training),
        "teacher": RecordedTeacher(answers, labels, task),
        "gates": {"static": {"accuracy_drop": 0.01, "p95_ms": 1000.0}},
        "cost": CostInputs(priced_as=PRICE, machine_usd_per_hour=Decimal("0.36")),
        "provenance": {"data_sha256": "d" * 64},
    }
    return BenchInputs(**fields | changes)
