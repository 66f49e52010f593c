from __future__ import annotations

import json
import sys

from project import TESTS, write_lines

sys.path.append(str(TESTS.parent / "scripts"))
import make_bank_requests

from distill.data import read_gold, read_jsonl
from distill.types import Task


def test_examples_show_every_intent_and_the_rare_ones_first():
    requests = [
        ("card please", ("card",)),
        ("new card", ("new", "card")),
        ("a new card today", ("new", "card", "when")),
        ("card", ("card",)),
    ]
    chosen = make_bank_requests.choose_examples(requests, 1)
    assert chosen == [("a new card today", ("new", "card", "when"))]
    assert make_bank_requests.choose_examples(requests, 2) == [*chosen, ("new card", ("new", "card"))]


def test_logs_have_no_labels_and_examples_are_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(make_bank_requests, "N_LOGS", 20)
    lines = [{"text": f"{name} {number}", "intents": [name]} for number in range(20) for name in ("pin", "card")]
    write_lines(tmp_path / "train.jsonl", lines)
    write_lines(
        tmp_path / "test.jsonl", [{"text": "both", "intents": ["pin", "card"]}, {"text": "neither", "intents": []}]
    )
    ontology = {name: {"description": f"about {name}", "domain": []} for name in ("card", "unused", "pin")}
    (tmp_path / "ontology.json").write_text(json.dumps(ontology), encoding="utf-8")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--out", str(out)])
    make_bank_requests.main()
    logs = [line for _, line in read_jsonl(out / "logs.jsonl")]
    assert len(logs) == 20
    assert all(list(line) == ["text"] for line in logs)
    intents = json.loads((out / "intents.json").read_text(encoding="utf-8"))
    assert list(intents) == ["card", "pin"]
    assert {text for intent in intents.values() for text in intent["examples"]}.isdisjoint(
        line["text"] for line in logs
    )
    assert [query.target for query in read_gold(out / "gold.jsonl", tuple(intents), Task.MULTI)] == [
        {"pin": 1.0, "card": 1.0},
        {},
    ]
