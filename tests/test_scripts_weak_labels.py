from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from project import TESTS, write_lines

sys.path.append(str(TESTS.parent / "scripts"))
import weak_labels

from distill.errors import DataError
from distill.spec import load_spec
from distill.teacher.imported import import_answers

PEOPLE = {
    **{f"where is parcel {number}": ["track_order"] for number in range(12)},
    **{f"i want my money back {number}": ["refund"] for number in range(12)},
    **{f"parcel {number} and my money": ["refund", "track_order"] for number in range(6)},
    "good morning": [],
}
WRONG = {"where is parcel 3": ["refund"], "i want my money back 5": ["track_order"], "good morning": ["refund"]}


class ByWords:
    """An encoder that sees whether a text speaks of a parcel, and of money."""

    def embed(self, texts, _on_done=None):
        seen = np.asarray([[0.1, "parcel" in text, "money" in text] for text in texts], np.float32).reshape(-1, 3)
        return seen / np.linalg.norm(seen, axis=1, keepdims=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A teacher that says what people say but for three of the queries, one of which people did not label."""
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByWords())
    (tmp_path / "router.yaml").write_text(
        "name: tiny\ntask: multi\nintents: {track_order: x, refund: y}\n"
        "teacher: {model: fake, base_url: 'http://127.0.0.1:9/v1'}\nqueries: logs.jsonl\n",
        encoding="utf-8",
    )
    said = {**PEOPLE, **WRONG, "unknown": ["refund"]}
    write_lines(tmp_path / "logs.jsonl", [{"text": text} for text in said])
    write_lines(tmp_path / "answers.jsonl", [{"text": text, "intents": names} for text, names in said.items()])
    write_lines(tmp_path / "people.jsonl", [{"text": text, "intents": names} for text, names in PEOPLE.items()])
    import_answers(load_spec(tmp_path / "router.yaml"), tmp_path / "answers.jsonl")
    return tmp_path


def test_what_the_list_holds_and_what_it_is_worth(project, monkeypatch, capsys):
    monkeypatch.setattr(weak_labels, "WORST", 2)
    arguments = [str(project / "router.yaml"), str(project / "people.jsonl"), "--json", str(project / "audit.json")]
    monkeypatch.setattr(sys, "argv", ["weak_labels.py", *arguments])
    weak_labels.main()
    found = json.loads((project / "audit.json").read_text(encoding="utf-8"))
    assert (found["n"], found["n_without_people"]) == (len(PEOPLE), 1)
    assert found["all"] == {"n": len(PEOPLE), "n_wrong": len(WRONG)}
    assert found["worst"] == {"n": min(found["listed"]["n"], 2), "n_wrong": 2}
    assert found["listed"]["n"] + found["not listed"]["n"] == len(PEOPLE)
    assert found["listed"]["n_wrong"] + found["not listed"]["n_wrong"] == len(WRONG)
    figures = found["micro_f1"]
    assert (
        figures["the teacher's labels"] < figures["with what the list suggests"]
    )  # parcels and money, unlike greetings, are seen
    assert figures["the teacher's labels"] < figures["with the list put right by people"] <= 1.0
    assert capsys.readouterr().out.startswith(f"{weak_labels.markdown(found)}\n")


def test_without_a_common_query_there_is_nothing_to_compare(project):
    write_lines(project / "people.jsonl", [{"text": "another", "intents": []}])
    with pytest.raises(DataError, match="holds none of the 32 labelled queries"):
        weak_labels.measure(load_spec(project / "router.yaml"), project / "people.jsonl")


def test_it_is_for_sets_of_intents(project):
    path = project / "router.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("multi", "single"), encoding="utf-8")
    with pytest.raises(DataError, match="is a router of `task: single`; this compares sets of intents"):
        weak_labels.measure(load_spec(path), project / "people.jsonl")
