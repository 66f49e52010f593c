"""The program for wrong and few labels: the folders that it makes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from project import write_lines

from distill.data import read_jsonl

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
