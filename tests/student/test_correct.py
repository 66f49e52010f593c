"""Labels that mislead are put right before students learn them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import make_data, make_texts

from distill import Router
from distill.student import correct
from distill.student.correct import corrected
from distill.student.learn import Part
from distill.student.train import train_students
from distill.types import Task

LABELS = ("greet", "pay", "travel")


def make_part(n=600, share=0.3, seed=0):
    """Texts with a share of the first label turned to the second, and what is right."""
    texts = make_texts(n, seed)
    right = np.asarray([LABELS.index(label) for _, label in texts])
    given = right.copy()
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(right == 0))
    given[rows[: round(share * len(rows))]] = 1
    return Part([text for text, _ in texts], np.eye(3, dtype=np.float32)[given], np.ones(n, np.float32)), right


@pytest.fixture
def misleading(monkeypatch):
    """Whatever labels are there are held to mislead; when they do is tested where that is told."""
    monkeypatch.setattr(correct, "labels_mislead", lambda *_: True)


def test_labels_that_mislead_are_put_right(base_model, tmp_path, misleading, capsys):
    part, right = make_part()
    found = corrected(part, Task.SINGLE, [base_model], 32, tmp_path / "labels", show_progress=False)
    assert np.mean(part.targets.argmax(axis=1) != right) == pytest.approx(0.1)
    assert np.mean(found.targets.argmax(axis=1) != right) < 0.05
    np.testing.assert_allclose(found.targets.sum(axis=1), 1.0, atol=1e-5)
    assert (found.texts, found.weights is part.weights) == (part.texts, True)
    n_changed = np.count_nonzero(found.targets.argmax(axis=1) != part.targets.argmax(axis=1))
    assert f"{n_changed} of 600 are probably wrong" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["right", "few", "many", "cells", "one label", "of no label", "multi", "weights"])
def test_what_does_not_mislead_or_cannot_be_judged_stays(base_model, tmp_path, monkeypatch, capsys, case):
    part, _ = make_part(share=0.0 if case == "right" else 0.3)
    task = {"multi": Task.MULTI, "weights": Task.WEIGHTS}.get(case, Task.SINGLE)
    if case != "right":
        monkeypatch.setattr(correct, "labels_mislead", lambda *_: True)
    if case == "few":
        part = Part(part.texts[:499], part.targets[:499], part.weights[:499])
    if case == "many":
        monkeypatch.setattr(correct, "_MOST", 599)
    if case == "cells":
        monkeypatch.setattr(correct, "_MOST_CELLS", 1_799)
    if case == "one label":
        part = replace(part, targets=np.eye(3, dtype=np.float32)[[0] * 600])
    if case == "of no label":
        part.targets[3] = 0.0
    assert corrected(part, task, [base_model], 32, tmp_path / "labels", show_progress=False) is part
    assert capsys.readouterr().err == ""


def test_an_interrupted_training_goes_on_with_what_was_found(base_model, tmp_path, misleading, monkeypatch):
    part, _ = make_part()
    kept = tmp_path / "kept" / "labels"
    found = corrected(part, Task.SINGLE, [base_model], 32, kept, show_progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(correct, "labels_mislead", lambda *_: pytest.fail("looked at again"))
        again = corrected(part, Task.SINGLE, [base_model], 32, kept, show_progress=False)
    np.testing.assert_array_equal(again.targets, found.targets)
    kept.write_bytes(b"torn")
    again = corrected(part, Task.SINGLE, [base_model], 32, kept, show_progress=False)
    np.testing.assert_array_equal(again.targets, found.targets)


def test_students_learn_what_labels_probably_are(base_model, tmp_path, quick, misleading):
    data = make_data(n=700)
    part, _ = make_part()
    examples = tuple(
        replace(example, target=target, split="train")
        for example, target in zip(data.examples, part.targets, strict=False)
    )
    examples = tuple(replace(example, text=text) for example, text in zip(examples, part.texts, strict=True))
    held_out = tuple(replace(example, split="held_out") for example in data.examples[600:])
    bundles = train_students(
        replace(data, examples=(*examples, *held_out)), tmp_path, base_model=base_model, show_progress=False
    )
    for bundle in bundles.values():
        assert 40 < bundle.manifest.figures["n_corrected"] < 70
        card = (bundle.path / "README.md").read_text("utf-8")
        assert f"but for {bundle.manifest.figures['n_corrected']} of" in card
        assert Router.load(bundle.path).route("hello please hi").top_intent == "greet"
