"""The program that shows what an audit finds: from planted errors to both files, without training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import project
import pytest
from improvable import ByText, train_by_number
from project import SHOP, make_texts, write_lines
from threadpoolctl import threadpool_limits

from distill.data import read_jsonl

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import audit_evidence


class ByMeaning(ByText):
    """Texts with the same intent are nearly alike."""

    def embed(self, texts, on_done=None):
        meant = super().embed([project.answer(text) for text in texts])
        vectors = meant + 0.4 * super().embed(texts)
        return vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_evidence, "open_embedder", lambda *_: ByMeaning())
    monkeypatch.setattr(audit_evidence, "train_students", train_by_number)
    lines = [{"text": text, "intent": intent} for text, intent in make_texts(SHOP, 30) if intent != "oos"]
    (tmp_path / "shop").mkdir()
    write_lines(tmp_path / "shop" / "train.jsonl", lines)
    (tmp_path / "shop" / "test.jsonl").write_text("never opened", encoding="utf-8")
    return tmp_path / "shop"


def run(monkeypatch, folder, *options):
    out = folder.parent / "out"
    arguments = ["audit_evidence.py", folder, "--out", out, "--results", out / "audit.json", *options]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with threadpool_limits(1):
        audit_evidence.main()
    return json.loads((out / "audit.json").read_text("utf-8")), (out / "audit.md").read_text("utf-8")


def test_students_of_the_same_list_are_joined_and_of_another_replaced():
    before = {
        "list": {"ci95": [0, 1]},
        "seed": 0,
        "budget_minutes": 0,
        "students": {"encoder": 1},
        "measured": {"encoder": "old"},
    }
    after = {
        "list": {"ci95": (0, 1)},
        "seed": 0,
        "budget_minutes": 0,
        "students": {"static": 2},
        "measured": {"static": "new"},
    }
    found = audit_evidence.joined(before, after)
    assert (found["students"], found["measured"]) == ({"encoder": 1, "static": 2}, {"encoder": "old", "static": "new"})
    assert audit_evidence.joined(before, after | {"list": 2}) == after | {"list": 2}
    assert audit_evidence.joined(None, before) == before


def test_it_plants_finds_trains_and_writes_both_files(folder, monkeypatch):
    results, page = run(monkeypatch, folder, "--noise", 0.15)
    (result,) = results.values()
    own = result["list"]
    assert (own["n_labels"], own["n_wrong"]) == (72, 11)
    assert own["precision"] > 0.8
    assert own["recall"] > 0.5
    assert own["average_precision"]["audit"] > own["average_precision"]["by chance"]
    for student in result["students"].values():
        assert set(student) == set(audit_evidence.CONDITIONS)
        assert student["with errors"]["gain"] == 0
        assert all(each["n"] == 18 for each in student.values())
    assert "| shop, 15% | encoder | suspects put right |" in page
    assert page.count("shop, 15%") == 1 + len(audit_evidence.CONDITIONS)


def test_the_queries_that_are_set_aside_are_not_audited(folder, tmp_path):
    audited, aside = audit_evidence.split(folder, tmp_path / "clean", None, 0)
    assert not {line["text"] for line in audited} & {line["text"] for line in aside}
    assert len(audited) + len(aside) == 90
    assert [line for _, line in read_jsonl(tmp_path / "clean" / "train.jsonl")] == audited


def test_sets_are_added_to_one_file(folder, monkeypatch):
    run(monkeypatch, folder, "--students")
    results, page = run(monkeypatch, folder, "--students", "--noise", 0.1)
    assert list(results) == ["shop-0.15", "shop-0.1"]
    assert "students" not in results["shop-0.1"]
    assert page.count("| shop, ") == 2


def test_the_conditions_differ_in_the_suspects_alone():
    right, given, suspected = ["a", "a", "b", "b"], ["a", "b", "b", "a"], [False, True, True, False]
    assert [audit_evidence.labels_of(name, right, given, suspected) for name in audit_evidence.CONDITIONS] == [
        ["a", "a", "b", "b"],
        ["a", "b", "b", "a"],
        ["a", "a", "b", "a"],
        ["a", None, None, "a"],
    ]


def test_other_data_sets_are_refused(folder, monkeypatch):
    write_lines(folder / "train.jsonl", [{"text": "a", "intents": ["b"]}])
    with pytest.raises(SystemExit, match="one intent a query"):
        run(monkeypatch, folder)
