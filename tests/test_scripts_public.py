"""The program for public data sets: its folder, its memory of openings, its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distill.errors import DataError
from distill.types import Task

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import public
import public_table


def write(folder, part, lines):
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_a_folder_tells_its_task_and_labels(tmp_path):
    write(tmp_path, "train", [{"text": "pay it", "intent": "pay"}, {"text": "what?", "intent": "oos"}])
    write(tmp_path, "validation", [{"text": "pay me", "intent": "pay"}])
    (tmp_path / "intents.json").write_text('{"send": "sends money", "pay": "pays a bill"}', encoding="utf-8")
    folder = public.read_folder(tmp_path)
    assert folder.task is Task.SINGLE
    assert folder.labels == ("send", "pay", "oos")
    assert [example.split for example in folder.examples] == ["train", "train", "held_out"]


@pytest.mark.parametrize(
    ("line", "task"),
    [({"text": "a", "intents": []}, Task.MULTI), ({"text": "a", "weights": {"x": 0.5, "y": 0.5}}, Task.WEIGHTS)],
)
def test_other_tasks(tmp_path, line, task):
    write(tmp_path, "train", [line, line | {"text": "b"}])
    assert public.read_folder(tmp_path).task is task


def test_no_label_is_one_clear_line(tmp_path):
    write(tmp_path, "train", [{"text": "a"}])
    with pytest.raises(DataError, match=r"train.jsonl:1: no label"):
        public.read_folder(tmp_path)


def opening(**changes):
    row = {"accuracy": 0.9, "accuracy_policy": 0.85, "oos_recall": 0.8, "oos_auroc": 0.97, "ece": 0.02}
    return {
        "opened_at": "2026-01-01T00:00:00+00:00", "commit": "abc", "set": "clinc150", "seed": 0, "n_in_scope": 900, "n_oos": 100,
        "train_minutes": 20.0, "train_peak_rss_mb": 2000, "processor": "one", "rows": {"encoder": row, "static": row, "tfidf": row},
    } | changes  # fmt: skip


def test_the_last_opening_of_a_seed_counts_and_every_one_is_counted():
    worse = opening(rows={name: {**row, "accuracy": 0.1} for name, row in opening()["rows"].items()})
    table = public_table.table([worse, opening(), opening(seed=1)])
    (line,) = [each for each in table.splitlines() if each.startswith("| CLINC150 accuracy")]
    assert "0.9000 [0.9000, 0.9000] | 0.0700 short" in line
    assert line.endswith("| 2 | 3 |")


def test_in_scope_accuracy_follows_from_both_figures():
    row = opening()["rows"]["encoder"]
    in_scope = public_table._in_scope(row, opening())
    assert in_scope * 900 + row["oos_recall"] * 100 == pytest.approx(row["accuracy_policy"] * 1000)


def test_what_was_not_run_says_so():
    assert "| BANKING77 accuracy | 0.942 | not run |" in public_table.table([])


def harder(**changes):
    parts = {
        "clean": {"encoder": 0.94, "static": 0.93},
        "noisy": {"encoder": 0.935, "static": 0.91},
        "few": {"encoder": 0.85, "static": 0.8, "frozen": 0.83},
    }
    about = {
        "set": "banking77",
        "seed": 0,
        "noise": 0.15,
        "per_intent": 10,
        "commit": "abc",
        "measured_at": "2026-11-26T",
    }
    return about | parts | changes


def test_what_wrong_and_few_labels_cost_stands_beside_its_limit():
    table = public_table.harder_table([harder(noisy={"encoder": 0.1, "static": 0.1}), harder()])  # the last one counts
    assert "| encoder | 0.9400 | 0.9350 | 0.010 | 0.0050 | stands | 0.860 | 0.8500 | 0.0100 short | 0.8300 |" in table
    assert "| static | 0.9300 | 0.9100 | 0.015 | 0.0200 | 0.0050 short |  | 0.8000 |  | 0.8300 |" in table
    assert public_table.harder_table([]) == ""
