"""What students learn from where there are known examples: both together, from the ledger's raw answers, and worked out once."""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter

import project
import pytest
from improvable import train_by_number
from project import SHOP, make_texts, write_lines, write_project
from words import ByWords

from distill import combination, labelled, pipeline
from distill.audit import audit
from distill.combination import LEAST_EXAMPLES, combines
from distill.data import read_jsonl
from distill.errors import StorageError
from distill.spec import load_spec
from distill.teacher.rounds import added_queries_path

SEEDS = 8


def hasty(text):
    """Takes half of what wants a refund for a track order, and now and then something else; knows what is out of scope."""
    right, chance = project.answer(text), zlib.crc32(text.encode()) % 10
    if right == "oos":
        return right
    if right == "refund" and chance < 5:
        return "track_order"
    return SHOP[(SHOP.index(right) + 1) % len(SHOP)] if chance == 9 else right


@pytest.fixture(autouse=True)
def embedder(monkeypatch):
    """Vectors from words in place of an export; imports of a project folder end with the test."""
    words = ByWords()
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: words)
    monkeypatch.setattr("distill.student.train.train_students", train_by_number)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return words


def make(folder, *, seeds=SEEDS, n=40, combine="true"):
    """A labelled project whose teacher is hasty, and so many known examples an intent."""
    teacher = f"{{callable: 'test_combination:hasty', evidence: seeds.jsonl, combine: {combine}}}"
    path = write_project(folder, n=n, teacher=teacher)
    known = make_texts(SHOP, n + 4 + seeds)
    per_label = n + 4 + seeds
    used = {line["text"] for name in ("logs", "gold") for _, line in read_jsonl(folder / f"{name}.jsonl")}
    chosen = {}
    for start in range(0, len(known), per_label):
        fresh = [(text, name) for text, name in known[start : start + per_label] if text not in used]
        chosen |= dict(fresh[:seeds])
    write_lines(folder / "seeds.jsonl", [{"text": text, "intent": name} for text, name in chosen.items()])
    spec = load_spec(path)
    pipeline.label(spec, show_progress=False)
    return spec


def best(spec, **options):
    labelled = pipeline.examples(spec, show_notes=False, **options)
    return {each.text: spec.labels[int(each.target.argmax())] for each in labelled}


def share_right(labels):
    return sum(name == project.answer(text) for text, name in labels.items()) / len(labels)


def test_both_together_are_righter_than_the_teacher_and_the_ledger_keeps_its_words(tmp_path):
    spec = make(tmp_path)
    before = spec.ledger_path.read_bytes()
    alone, together = best(spec, with_evidence=False), best(spec)
    assert alone == {text: hasty(text) for text in alone}
    assert share_right(alone) < 0.85
    assert share_right(together) > share_right(alone) + 0.05
    assert spec.ledger_path.read_bytes() == before


def test_it_is_said_what_was_combined(tmp_path, capsys):
    spec = make(tmp_path)
    capsys.readouterr()
    pipeline.examples(spec)
    note = next(line for line in capsys.readouterr().err.splitlines() if "combined" in line)
    changed = sum(name != hasty(text) for text, name in best(spec).items())
    assert f"with {SEEDS * 4} known examples" in note
    assert f"likeliest for {changed} of 160 queries" in note


@pytest.mark.parametrize("options", [{"combine": "false"}, {"seeds": LEAST_EXAMPLES - 1}], ids=["off", "too few"])
def test_otherwise_the_answers_are_as_they_were_given_and_no_vector_is_made(tmp_path, embedder, options):
    spec = make(tmp_path, **options)
    assert not combines(spec)
    assert best(spec) == best(spec, with_evidence=False)
    assert embedder.embedded == []


def test_a_query_is_turned_into_a_vector_once(tmp_path, embedder):
    spec = make(tmp_path)
    first = pipeline.examples(spec, show_notes=False)
    embedder.embedded.clear()
    again = pipeline.examples(load_spec(spec.path), show_notes=False)
    assert embedder.embedded == []
    assert [each.target.tolist() for each in again] == [each.target.tolist() for each in first]
    (kept,) = (tmp_path / ".distill").glob("neighbours-*.npz")
    assert not any(each.text.encode() in kept.read_bytes() for each in first)
    for n_left in (1000, 0):
        kept.write_bytes(kept.read_bytes()[:n_left])
        assert [each.target.tolist() for each in pipeline.examples(spec, show_notes=False)] == [
            each.target.tolist() for each in first
        ]


def test_what_cannot_be_kept_is_found_again(tmp_path, embedder, monkeypatch):
    def read_only(path):
        raise StorageError(f"{path}: cannot be written")

    spec = make(tmp_path)
    monkeypatch.setattr(combination, "atomic_write", read_only)
    first = best(spec)
    embedder.embedded.clear()
    assert best(spec) == first
    assert embedder.embedded
    assert not list((tmp_path / ".distill").glob("neighbours-*"))


def test_queries_are_combined_some_at_a_time(tmp_path, embedder, monkeypatch):
    spec = make(tmp_path)
    whole = pipeline.examples(spec, show_notes=False)
    monkeypatch.setattr(combination, "_BATCH", 7)
    for one, other in zip(pipeline.examples(spec, show_notes=False), whole, strict=True):
        assert (one.text, one.target.tolist()) == (other.text, pytest.approx(other.target.tolist(), abs=1e-6))


def test_other_known_examples_are_looked_at_anew_and_the_old_file_goes(tmp_path, embedder):
    spec = make(tmp_path)
    best(spec)
    seeds = [line for _, line in read_jsonl(tmp_path / "seeds.jsonl")]
    write_lines(tmp_path / "seeds.jsonl", seeds[1:])
    embedder.embedded.clear()
    best(spec)
    assert embedder.embedded
    assert len(list((tmp_path / ".distill").glob("neighbours-*.npz"))) == 1


def test_what_improve_added_changes_no_other_label(tmp_path):
    """Otherwise a held-out label could become another while a round is in progress, and its students be compared with nothing."""
    spec = make(tmp_path)

    def own():
        labelled = pipeline.examples(spec, show_notes=False)
        return [(each.text, each.target.tolist(), each.split) for each in labelled if "added" not in each.text]

    before = own()
    added = added_queries_path(spec)
    added.parent.mkdir()
    write_lines(added, [{"text": f"added {number} refund", "round": 1} for number in range(40)])
    pipeline.label(spec, show_progress=False)
    assert len(best(spec)) == len(before) + 40
    assert own() == before


def test_a_query_that_is_a_known_example_has_no_part_of_itself(tmp_path):
    """Else the human label of a seed would decide about the same text among the queries, where it was to be learnt from others."""
    spec = make(tmp_path)
    text, name = next(iter(best(spec).items()))
    other = next(each for each in SHOP if each != name)
    seeds = [line for _, line in read_jsonl(tmp_path / "seeds.jsonl")]
    write_lines(tmp_path / "seeds.jsonl", [*seeds, {"text": text.upper(), "intent": other}])
    assert best(load_spec(spec.path))[text] == name


def test_the_benchmark_has_a_row_for_what_trained_the_student(tmp_path, monkeypatch):
    spec = make(tmp_path)
    pipeline.train(spec, out=tmp_path / "out", show_progress=False)
    combine, fitted = labelled.combine_with_evidence, []
    monkeypatch.setattr(
        labelled, "combine_with_evidence", lambda *given, **keys: fitted.append(1) or combine(*given, **keys)
    )
    inputs = pipeline._bench_inputs(spec, tmp_path / "out", None, show_notes=False)
    teacher, both = (share_right_on_gold(inputs, each) for each in (inputs.teacher, inputs.with_evidence))
    assert both >= teacher
    assert inputs.with_evidence.gives_scores
    assert "with_evidence_sha256" in inputs.provenance
    assert len(fitted) == 1, "what trained the students is worked out once"
    assert pipeline.trained_on(spec, pipeline.load_bundle(tmp_path / "out" / "static"))[1]


def share_right_on_gold(inputs, teacher):
    routed = zip(teacher.route_batch(inputs.queries), inputs.gold, strict=True)
    return sum((each.intent or "oos") == query.intent for each, query in routed) / len(inputs.gold)


def test_without_combining_there_is_no_such_row(tmp_path):
    spec = make(tmp_path, combine="false")
    pipeline.train(spec, out=tmp_path / "out", show_progress=False)
    inputs = pipeline._bench_inputs(spec, tmp_path / "out", None, show_notes=False)
    assert inputs.with_evidence is None
    assert "with_evidence_sha256" not in inputs.provenance


def test_an_audit_looks_at_the_teachers_own_answers(tmp_path):
    spec = make(tmp_path)
    found = audit(spec, show_progress=False)
    given = Counter(map(hasty, best(spec)))
    assert {intent.name: intent.n for intent in found.intents} == given
    assert given != Counter(best(spec).values())
    assert all(suspect.agreement == 1.0 for suspect in found.suspects)


def test_a_line_of_the_ledger_is_what_the_teacher_said(tmp_path):
    spec = make(tmp_path)
    best(spec)
    assert all(
        json.loads(line)["scores"] == {hasty(json.loads(line)["text"]): 1.0}
        for line in spec.ledger_path.read_text().splitlines()
    )
