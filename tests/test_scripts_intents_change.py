"""The program that shows what carrying over saves: from three unknown intents to the figures, without an encoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import project
import pytest
from improvable import ByText
from project import ALL_WORDS, make_texts, write_lines
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import intents_change


class ByMeaning(ByText):
    """Texts with the same intent are nearly alike."""

    def embed(self, texts, on_done=None):
        meant = super().embed([project.answer(text.replace("_", " ")) for text in texts])
        vectors = meant + 0.4 * super().embed(texts)
        return vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(intents_change, "open_embedder", lambda *_: ByMeaning())
    monkeypatch.setattr(sys, "path", [*sys.path])
    lines = [{"text": text, "intent": intent} for text, intent in make_texts(tuple(ALL_WORDS), 30) if intent != "oos"]
    (tmp_path / "shop").mkdir()
    write_lines(tmp_path / "shop" / "train.jsonl", lines)
    (tmp_path / "shop" / "test.jsonl").write_text("never opened", encoding="utf-8")
    yield tmp_path / "shop"
    sys.modules.pop("told_teacher", None)


def run(monkeypatch, folder, *options):
    out = folder.parent / "out"
    monkeypatch.setattr(
        sys,
        "argv",
        ["intents_change.py", *map(str, (folder, "--out", out, "--results", out / "results.json", *options))],
    )
    with threadpool_limits(1):
        intents_change.main()
    (outcome,) = json.loads((out / "results.json").read_text("utf-8")).values()
    return outcome


def test_it_removes_adds_carries_over_and_writes_the_figures(folder, monkeypatch, capsys):
    outcome = run(monkeypatch, folder, "--draws", 1, "--max-share", 0.9)
    (draw,) = outcome["draws"]
    assert len(draw["unknown"]) == 3
    assert [draw[f"n_calls_{each}"] for each in ("removing", "back")] == [0, 0]
    assert [draw[f"n_wrong_{each}"] for each in ("removed", "back")] == [0, 0]
    assert draw["n_of_unknown"] == 3 * 27 - 3 * intents_change.EXAMPLES
    assert 0 < draw["n_found"] <= draw["n_of_unknown"]
    assert draw["n_calls"] < draw["n_queries"]
    figures = outcome["together"]
    assert figures["calls_saved"] == pytest.approx(1 - draw["n_calls"] / draw["n_queries"], abs=1e-4)
    assert figures["label_accuracy_lost"] == pytest.approx(draw["n_wrong_labels"] / draw["n_queries"], abs=1e-4)
    assert draw["n_wrong_labels"] == draw["n_of_unknown"] - draw["n_found"]
    right = draw["n_right"]
    assert right["before"] < right["all again"]
    lost = right["all again"] - right["carried"]
    assert figures["student_accuracy_lost"] == pytest.approx(lost / draw["n_aside"], abs=1e-4)
    assert "calls saved" in capsys.readouterr().out


def test_a_blind_teacher_knows_no_unknown_intent():
    pairs = [(f"{word} {number}", word) for word in ("parcel", "cancel", "refund") for number in range(20)]
    answers = intents_change.blind_answers(pairs, ["refund"], 0)
    assert set(answers.values()) == {"parcel", "cancel"}
    assert all(answers[text] == intent for text, intent in pairs if intent != "refund")


def test_other_data_sets_are_refused(folder, monkeypatch):
    write_lines(folder / "train.jsonl", [{"text": "a", "intents": ["b"]}])
    with pytest.raises(SystemExit, match="one intent a query"):
        run(monkeypatch, folder)
