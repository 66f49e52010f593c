"""The program for wrong and few labels: the folders that it makes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import write_lines

from distill.data import read_jsonl
from distill.student import train
from distill.student.train import TrainingData
from distill.types import BenchRow

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import harder

WORDS = {"pay": "pay the bill", "send": "send the bill", "greet": "hello friend"}


@pytest.fixture
def folder(tmp_path):
    lines = [{"text": f"{words} {number}", "intent": intent} for number in range(20) for intent, words in WORDS.items()]
    write_lines(tmp_path / "train.jsonl", lines)
    write_lines(tmp_path / "test.jsonl", lines[:3])
    return tmp_path


def train_of(folder):
    return [line for _, line in read_jsonl(folder / "train.jsonl")]


def test_an_intent_is_turned_to_the_one_it_is_like(folder):
    wrong_for = harder.confusable(train_of(folder))
    assert (wrong_for["pay"], wrong_for["send"]) == ("send", "pay")


def test_a_share_of_the_labels_is_wrong_and_the_test_part_is_as_it_was(folder, tmp_path):
    harder.make_noisy(folder, tmp_path / "noisy", 0.15, seed=0)
    before, after = train_of(folder), train_of(tmp_path / "noisy")
    assert [line["text"] for line in before] == [line["text"] for line in after]
    assert sum(old["intent"] != new["intent"] for old, new in zip(before, after, strict=True)) == 9
    assert (tmp_path / "noisy" / "test.jsonl").read_bytes() == (folder / "test.jsonl").read_bytes()


def test_few_examples_are_as_many_of_each(folder, tmp_path):
    harder.make_few(folder, tmp_path / "few", 4, seed=0)
    assert Counter(line["intent"] for line in train_of(tmp_path / "few")) == dict.fromkeys(WORDS, 4)


def test_what_is_held_out_for_clean_labels_is_held_out_for_others(folder, tmp_path):
    write_lines(folder / "validation.jsonl", train_of(folder)[:3])
    harder.make_few(folder, tmp_path / "few", 4, seed=0)
    assert (tmp_path / "few" / "validation.jsonl").read_bytes() == (folder / "validation.jsonl").read_bytes()
    assert harder.training_part(tmp_path / "few", 0) == train_of(tmp_path / "few")


def test_the_baseline_gets_what_students_train_on(folder):
    examples = harder.read_folder(folder)
    data = TrainingData("few", examples.task, examples.labels, examples.examples)
    trained, _ = train._split(data, 7)
    assert len(trained.texts) < len(examples.examples)
    assert [line["text"] for line in harder.training_part(folder, 7)] == trained.texts


def test_runs_of_two_seeds_do_not_meet_and_name_the_commit_they_began_with(folder, tmp_path, monkeypatch):
    commits = iter("abcd")
    asked = []
    rows = [BenchRow(name=name, accuracy=0.5) for name in ("encoder", "static")]
    monkeypatch.setattr(harder, "RESULTS", tmp_path / "harder.jsonl")
    monkeypatch.setattr(harder, "tree_commit", lambda: next(commits))
    monkeypatch.setattr(harder, "frozen_baseline", lambda *_: next(commits) and 0.4)
    monkeypatch.setattr(harder, "measure", lambda *paths, **_: asked.append(paths) or SimpleNamespace(rows=rows))
    for seed in ("0", "1"):
        monkeypatch.setattr(sys, "argv", ["harder.py", str(folder), "--out", str(tmp_path / "out"), "--seed", seed])
        harder.main()
    assert len({out for _, out in asked}) == 6
    assert [line["commit"] for _, line in read_jsonl(tmp_path / "harder.jsonl")] == ["a", "c"]
