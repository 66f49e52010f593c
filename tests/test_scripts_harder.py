"""The program for wrong and few labels: the folders that it makes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from project import write_lines

from distill.data import read_jsonl
from distill.errors import DataError
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


def test_the_baseline_learns_from_all_of_the_few_and_is_judged_in_scope(folder, monkeypatch):
    """Three intents and ``oos``, each a corner of a square; ``oos`` is likeliest for a query to ``greet``, which is judged without it."""
    corners = {"pay": (4.0, 0.0), "send": (0.0, 4.0), "greet": (-4.0, 0.0), "oos": (0.0, -4.0)}
    train = [{"text": f"{intent} {number}", "intent": intent} for intent in corners for number in range(3)]
    write_lines(folder / "train.jsonl", train)
    queries = {"pay": "pay", "send": "send", "greet like oos": "greet", "pay like send": "pay", "oos": "oos"}
    write_lines(folder / "test.jsonl", [{"text": text, "intent": intent} for text, intent in queries.items()])
    places = corners | {"greet like oos": (-3.0, -3.5), "pay like send": (0.0, 3.0)}
    seen = []

    def vectors(_, texts):
        seen.append(len(texts))
        return np.asarray([places.get(text) or corners[text.split()[0]] for text in texts])

    for name in ("load_base_model", "bundle_tokenizer", "Encoder", "Pooled"):
        monkeypatch.setattr(harder, name, lambda *_: SimpleNamespace(tokenizer=None, max_length=8))
    monkeypatch.setattr(harder, "encode", lambda _, texts: texts)
    monkeypatch.setattr(harder, "predict", vectors)
    assert harder.frozen_baseline(folder) == 0.75
    assert seen == [12, 5]


def result(rows):
    return SimpleNamespace(rows=rows, provenance={"commit": "then", "recipe": 9}, environment={"processor": "one"})


def test_runs_of_two_seeds_do_not_meet_and_name_the_commit_they_began_with(folder, tmp_path, monkeypatch):
    commits = iter("abcd")
    asked = []
    rows = [BenchRow(name=name, accuracy=0.5) for name in ("encoder", "static")]
    monkeypatch.setattr(harder, "RESULTS", tmp_path / "harder.jsonl")
    monkeypatch.setattr(harder, "tree_commit", lambda: next(commits))
    monkeypatch.setattr(harder, "frozen_baseline", lambda *_: next(commits) and 0.4)
    monkeypatch.setattr(harder, "measure", lambda *paths, **_: asked.append(paths) or result(rows))
    for seed in ("0", "1"):
        monkeypatch.setattr(sys, "argv", ["harder.py", str(folder), "--out", str(tmp_path / "out"), "--seed", seed])
        harder.main()
    assert len({out for _, out in asked}) == 6
    assert [out.name.split("-seed")[0] for _, out in asked[:3]] == [
        f"{folder.name}-10-an-intent",
        folder.name,
        f"{folder.name}-noise-0.15",
    ]
    assert [line["commit"] for _, line in read_jsonl(tmp_path / "harder.jsonl")] == ["a", "c"]


def test_what_was_measured_of_a_run_that_was_stopped_stays(folder, tmp_path, monkeypatch):
    results, rows = tmp_path / "harder.jsonl", [BenchRow(name=name, accuracy=0.5) for name in ("encoder", "static")]
    write_lines(results, [{"set": "earlier"}])

    def measure(measured, _, **__):
        if measured == folder:
            raise DataError("stopped")
        write_lines(results, [{"set": "earlier"}, {"set": "meanwhile"}])
        return result(rows)

    for name, value in {"RESULTS": results, "frozen_baseline": lambda _: 0.4, "measure": measure}.items():
        monkeypatch.setattr(harder, name, value)
    monkeypatch.setattr(sys, "argv", ["harder.py", str(folder), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="stopped"):
        harder.main()
    *others, line = (line for _, line in read_jsonl(results))
    assert others == [{"set": "earlier"}, {"set": "meanwhile"}]
    made = {
        "commit": "then",
        "recipe": 9,
        "processor": "one",
    }  # of what was measured, not of the run that found it done
    assert line["few"] == {"encoder": 0.5, "static": 0.5, "frozen": 0.4, **made}
    assert line["commit"] != "then"
    assert "clean" not in line


def test_what_is_on_record_is_not_measured_again_unless_asked(folder, tmp_path, monkeypatch, capsys):
    known = {"commit": "long ago", "opened_at": "2026-01-02T03:04:05", "recipe": 9, "export": 3, "assistant": "a model"}
    known |= {"processor": "another", "rows": {"encoder": {"accuracy": 0.9}, "static": {"accuracy": 0.8}, "tfidf": {}}}
    rows, measured = [BenchRow(name=name, accuracy=0.5) for name in ("encoder", "static")], []
    for name, value in {
        "RESULTS": tmp_path / "harder.jsonl",
        "frozen_baseline": lambda _: 0.4,
        "on_record": lambda path, *_, **__: known if path == folder else None,
        "measure": lambda path, *_, **__: measured.append(path) or result(rows),
    }.items():
        monkeypatch.setattr(harder, name, value)
    monkeypatch.setattr(sys, "argv", ["harder.py", str(folder), "--out", str(tmp_path / "out")])
    harder.main()
    assert len(measured) == 2
    assert folder not in measured
    assert "measured on 2026-01-02, and on record; --again measures it anew" in capsys.readouterr().err
    ((_, line),) = read_jsonl(tmp_path / "harder.jsonl")
    del known["rows"]
    assert line["clean"] == {"encoder": 0.9, "static": 0.8, **known}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--again"])
    harder.main()
    assert measured[2:][1] == folder


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--noise", "-0.1"], "'-0.1' is no share above 0 and below 1"),
        (["--noise", "much"], "'much' is no share"),
        (["--per-intent", "0"], "'0' is no whole number of 1 or more"),
    ],
)
def test_shares_and_numbers_that_make_no_sense_are_refused(folder, tmp_path, monkeypatch, capsys, option, message):
    monkeypatch.setattr(sys, "argv", ["harder.py", str(folder), "--out", str(tmp_path / "out"), *option])
    with pytest.raises(SystemExit):
        harder.main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_intent_with_one_query_is_named(folder, tmp_path):
    lines = [
        {"text": "pay it", "intent": "pay"},
        {"text": "pay them", "intent": "pay"},
        {"text": "lonely me", "intent": "alone"},
    ]
    write_lines(folder / "train.jsonl", lines)
    with pytest.raises(DataError, match="the intent 'alone' has one query"):
        harder.make_noisy(folder, tmp_path / "noisy", 0.15, seed=0)
    write_lines(folder / "train.jsonl", [*lines, {"text": "lonely you", "intent": "alone"}])
    harder.make_noisy(folder, tmp_path / "noisy", 0.5, seed=0)
    assert len(train_of(tmp_path / "noisy")) == 4


def test_a_part_that_the_folder_has_no_more_goes_from_the_copy(folder, tmp_path):
    (folder / "intents.json").write_text("{}", "utf-8")
    harder.make_few(folder, tmp_path / "few", 2, seed=0)
    assert (tmp_path / "few" / "intents.json").exists()
    (folder / "intents.json").unlink()
    harder.make_few(folder, tmp_path / "few", 2, seed=0)
    assert not (tmp_path / "few" / "intents.json").exists()
