"""``distill inspect``: what a bundle is, why it answers so, how two differ."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import KEYWORDS, build_bundle
from project import SHOP, distill, fails, write_lines, write_project

from distill import pipeline
from distill.benchmark.results import result_as_json
from distill.bundle import seal
from distill.errors import DataError
from distill.inspection import Neighbours, compare, explain, measured, policy_in_words, read_texts
from distill.policy import Policy
from distill.router import Router
from distill.spec import load_spec
from distill.types import BenchResult, BenchRow, Example, Task

LABELS = tuple(KEYWORDS)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """No router.yaml lies in the working directory."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def shown(*arguments):
    done = distill("inspect", *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def example(text, **scores):
    target = np.asarray([scores.get(name, 0.0) for name in LABELS], np.float32)
    return Example(text, target, split="held_out" if "held" in text else "train")


# --- what it is ------------------------------------------------------------------------------------------------------


def test_it_reads_as_sentences_not_as_json(tiny_bundle):
    text = shown(tiny_bundle.path, "--verify")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != " ")
    assert lines["bundle"] == "tiny, static student, task single"
    assert tiny_bundle.manifest.bundle_id in text
    assert lines["labels"] == "3 intents, and oos for what fits none: track_order, cancel_order, refund"
    assert (
        lines["policy"]
        == "The likeliest intent is the answer, unless oos is likelier or its probability is under 0.400."
    )
    assert lines["self-check"].startswith(
        "passed on this processor: 5 texts, 0 answered otherwise, 0 tokenised otherwise"
    )
    assert "{" not in text


def test_it_names_a_graph_that_was_not_copied(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / "static"))
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    seal(folder, replace(tiny_bundle.manifest, onnx_file="onnx/model_quantized.onnx"))
    assert "not here" not in shown(folder, "--verify")
    (folder / "onnx/model.onnx").unlink()
    text = shown(folder, "--verify")
    assert "onnx/model.onnx is not here; the Router does not need it" in text
    assert "passed on this processor" in text
    assert json.loads(shown(folder, "--verify", "--json"))["missing_files"] == ["onnx/model.onnx"]


def test_long_lists_are_wrapped_and_cut(tmp_path):
    bundle = build_bundle(tmp_path / "static", labels=[f"an_intent_number_{n}" for n in range(200)])
    text = shown(bundle.path)
    assert max(map(len, text.splitlines())) <= 120
    assert "200 intents: an_intent_number_0, " in text
    assert "and 140 more (--json lists them)" in " ".join(text.split())
    assert len(json.loads(shown(bundle.path, "--json"))["labels"]) == 200


def test_figures_of_training_and_of_the_benchmark(tmp_path):
    bundle = build_bundle(tmp_path / "static")
    figures = {"n_train": 3220, "n_held_out": 358, "held_out_agreement": 0.9022, "int8_flips": 2, "int8_flips_of": 1000, "int8_shipped": True}  # fmt: skip
    from dataclasses import replace

    bundle = seal(bundle.path, replace(bundle.manifest, figures=figures))
    assert measured(bundle) is None
    rows = (BenchRow("teacher"), BenchRow("static", accuracy=0.851, p95_ms=0.0406))
    for bundle_id, is_there in ((bundle.manifest.bundle_id, True), ("another", False)):
        result = BenchResult(Task.SINGLE, "tiny", 1, 1, 0, {}, rows, provenance={"bundles": {"static": bundle_id}})
        (tmp_path / "bench.json").write_text(json.dumps(result_as_json(result)), encoding="utf-8")
        text = " ".join(shown(bundle.path).split())
        assert ("benchmark accuracy 0.851, p95_ms 0.0406" in text) == is_there
    assert "agreement with the teacher 0.9022, on 358 queries; 3,220 were trained on" in text
    assert "int8 runs: it answers 2 of 1,000 otherwise than fp32" in text


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(Task.SINGLE, ("a", "oos")), "unless oos is likelier."),
        (Policy(Task.SINGLE, ("a", "oos"), out_of_scope_ratio=0.025), "unless oos is at least 0.025 times as likely."),
        (Policy(Task.SINGLE, ("a", "b")), "The likeliest intent is the answer, always."),
        (Policy(Task.SINGLE, ("a", "b"), 0.25), "unless its probability is under 0.250."),
        (Policy(Task.MULTI, ("a", "b"), thresholds=(0.3, 0.6)), "reaches its own threshold (0.300 to 0.600)"),
        (Policy(Task.MULTI, ("a", "b"), thresholds=(0.5, 0.5)), "reaches 0.500"),
        (Policy(Task.WEIGHTS, ("a", "b")), "nothing is declined"),
    ],
)
def test_a_policy_in_words(policy, words):
    assert words in policy_in_words(policy)


# --- why -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text", "because"),
    [
        (Task.SINGLE, "where is my parcel ?", "track_order at 0.769 reaches the threshold 0.400"),
        (Task.SINGLE, "a joke please", "oos at 0.551 is likelier than track_order at 0.160"),
        (Task.SINGLE, "please", "is under the threshold 0.400"),
        (Task.SINGLE, " ", "there is nothing to route"),
        (Task.MULTI, "parcel parcel", " reaches 0.500"),
        (Task.MULTI, "please", "no intent reaches its threshold; track_order at 0.269 is under 0.500"),
        (Task.WEIGHTS, "where is my parcel", "the probabilities are the weights"),
    ],
)
def test_why_in_words(tiny_bundles, task, text, because):
    explained = explain(Router.load(tiny_bundles[task].path), text)
    assert because in explained.because
    assert [score for _, score in explained.top] == sorted((score for _, score in explained.top), reverse=True)
    assert explained.neighbours is None


def test_a_query_that_fills_the_model_is_said(tiny_router):
    assert explain(tiny_router, "where " * 100).is_cut
    assert not explain(tiny_router, "where").is_cut
    most = tiny_router.manifest.max_length
    fills = next(n for n in range(most + 1) if len(tiny_router.tokenise("where " * n)) == most)
    assert not explain(tiny_router, "where " * fills).is_cut
    assert explain(tiny_router, "where " * (fills + 1)).is_cut
    assert explain(tiny_router, f"where{' ' * 64 * most}is it").is_cut
    assert not explain(tiny_router, " ").is_cut
    assert not explain(tiny_router, "\udcff where").is_cut, "what no UTF-8 holds is read as the router reads it"


def test_the_nearest_training_queries():
    neighbours = Neighbours(
        [
            example("where is my parcel now", track_order=1.0),
            example("a held parcel", track_order=0.75, refund=0.25),
            example("sing a song", oos=1.0),
        ],
        LABELS,
    )
    near = neighbours.nearest("where's my parcel")
    assert [each.text for each in near][:2] == ["where is my parcel now", "a held parcel"]
    assert (near[1].labels, near[1].split) == ({"track_order": 0.75, "refund": 0.25}, "held_out")
    assert 1 >= near[0].similarity > near[1].similarity > 0
    assert neighbours.nearest("sing a song", 1)[0].similarity == pytest.approx(1)
    assert neighbours.nearest("\u4f60\u597d") == ()


@pytest.fixture
def labelled(tmp_path):
    """A labelled project, and a bundle that was made from its labels."""
    spec = load_spec(write_project(tmp_path / "project"))
    pipeline.label(spec, show_progress=False)
    data_sha256 = pipeline._training_data(spec, pipeline.examples(spec)).data_sha256
    return spec, build_bundle(tmp_path / "out" / "static", data_sha256=data_sha256)


def test_a_query_is_explained_from_the_runs_folder(labelled):
    spec, bundle = labelled
    done = distill("inspect", bundle.path, "--query", "where is my parcel ?", "--query", "", "--spec", spec.path)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    first, second = done.stdout.split("\n\n")[:2]
    lines = [line.split() for line in first.splitlines()]
    assert first.splitlines()[0] == "query       where is my parcel ?"
    assert lines[1] == ["answer", "track_order", "(accepted)"]
    assert lines[2][:2] == ["because", "track_order"]
    assert lines[3] == ["scores", "track_order", "0.769"]
    nearest = next(line for line in lines if line[0] == "nearest")
    assert nearest[2].startswith("track_order")
    assert "empty_input" in second
    facts = json.loads(shown(bundle.path, "--query", "where is my parcel ?", "--spec", spec.path, "--json"))
    (why,) = facts["queries"]
    assert why["intent"] == "track_order"
    assert why["neighbours"][0]["labels"] == {"track_order": 1.0}


def test_without_a_spec_the_router_yaml_here_is_taken_if_it_is_this_ones(labelled, monkeypatch):
    spec, bundle = labelled
    done = distill("inspect", bundle.path, "--query", "refund")
    assert "bundles hold no training queries; --spec router.yaml names whose" in done.stderr
    assert "nearest" not in done.stdout
    monkeypatch.chdir(spec.folder)
    done = distill("inspect", bundle.path, "--query", "refund")
    assert (done.stderr, "nearest" in done.stdout) == ("", True)
    Path("router.yaml").write_text(Path("router.yaml").read_text().replace("name: tiny", "name: other"))
    assert "nearest" not in distill("inspect", bundle.path, "--query", "refund").stdout


def test_labels_that_changed_since_are_said(labelled):
    spec, bundle = labelled
    write_lines(spec.queries_path, [{"text": f"refund {n}"} for n in range(5)])
    pipeline.label(spec, show_progress=False)
    done = distill("inspect", bundle.path, "--query", "refund", "--spec", spec.path)
    assert done.stderr == f"inspect: the labels of {spec.path} are others than this bundle was trained on\n"


def test_a_spec_without_labels(tmp_path, tiny_bundle, monkeypatch):
    path = write_project(tmp_path)
    assert "no query has a label" in fails("inspect", tiny_bundle.path, "--query", "refund", "--spec", path)
    monkeypatch.chdir(tmp_path)
    done = distill("inspect", tiny_bundle.path, "--query", "refund")
    assert (done.exit_code, "no training queries to look through" in done.stderr) == (0, True)


# --- two bundles -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stricter(tmp_path):
    """As the tiny bundle, but with a threshold that declines more, and an intent less."""
    labels = [name for name in LABELS if name != "refund"]
    return build_bundle(tmp_path / "stricter", labels=labels, policy=Policy(Task.SINGLE, tuple(labels), 0.99))


def test_a_bundle_does_not_differ_from_itself(tiny_bundle):
    text = shown("--diff", tiny_bundle.path, tiny_bundle.path)
    assert "0 of 5 changed, on the texts of their self-checks" in text
    assert not any(line.startswith(("facts", "labels", "policy", "figures")) for line in text.splitlines())


def test_what_differs_is_named(tiny_bundle, stricter):
    text = shown("--diff", tiny_bundle.path, stricter.path)
    assert "labels      removed refund\n" in text
    assert "is under 0.400.\n            new: The likeliest" in text
    assert "track_order 0.77 -> none (track_order 0." in text
    found = json.loads(shown("--diff", tiny_bundle.path, stricter.path, "--json"))
    assert found["labels"] == {"added": [], "removed": ["refund"]}
    assert [found["policy"][side]["threshold"] for side in ("old", "new")] == [0.4, 0.99]
    assert found["answers"]["n_changed"] == len(found["answers"]["changed"]) > 0
    assert found["answers"]["changed"][0]["old"]["intent"] == "track_order"


def test_ones_own_queries_are_asked(tiny_bundle, stricter, tmp_path):
    write_lines(tmp_path / "queries.jsonl", [{"text": f"where is my parcel {n}"} for n in range(30)])
    text = shown("--diff", tiny_bundle.path, stricter.path, "--queries", tmp_path / "queries.jsonl")
    assert f"30 of 30 changed, on the texts of {tmp_path / 'queries.jsonl'}" in " ".join(text.split())
    assert "and 10 more (--json lists them)" in text
    found = json.loads(
        shown("--diff", tiny_bundle.path, stricter.path, "--queries", tmp_path / "queries.jsonl", "--json")
    )
    assert len(found["answers"]["changed"]) == 30


def test_figures_that_differ(tiny_bundle, tmp_path):
    from dataclasses import replace

    bundle = build_bundle(tmp_path / "other", student="encoder")
    other = seal(bundle.path, replace(bundle.manifest, figures={"held_out_agreement": 0.9}))
    diff = compare(Router.load(tiny_bundle.path), Router.load(other.path))
    assert diff.facts["student"] == ("static", "encoder")
    assert diff.figures["held_out_agreement"] == (None, 0.9)
    assert diff.changes == ()


def test_weights_change_when_they_move(tiny_bundles, tmp_path):
    old = Router.load(tiny_bundles[Task.WEIGHTS].path)
    swapped = build_bundle(tmp_path / "swapped", task=Task.WEIGHTS, labels=[*SHOP[1:], SHOP[0]])
    diff = compare(old, Router.load(swapped.path), ["where is my parcel"])
    assert diff.changes == ()
    other = build_bundle(tmp_path / "other", task=Task.WEIGHTS, labels=[*SHOP[1:], "other"])
    diff = compare(old, Router.load(other.path), ["where is my parcel"])
    assert [change.text for change in diff.changes] == ["where is my parcel"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "\ufeffone\n\n two \none\n"), ("a.jsonl", '{"text": "one"}\n{"text": "two"}\n')]
)
def test_texts_of_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path / name) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "named"), [(b"", "holds no query"), (b"\xff", "cannot be read as UTF-8"), (None, "cannot be read")]
)
def test_a_file_without_texts(tmp_path, content, named):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=named):
        read_texts(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "--diff", "b", "c"],
        ["--diff", "b"],
        ["--diff", "b", "c", "--query", "x"],
        ["--diff", "b", "c", "--verify"],
        ["a", "--queries", "x"],
        ["a", "--spec", "x"],
    ],
)
def test_usage_errors_are_exit_2(arguments):
    done = distill("inspect", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_bundle_without_a_ratio_has_the_policy_that_it_had(tmp_path, monkeypatch):
    new = build_bundle(tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(Policy, "as_dict", lambda policy: {"threshold": policy.threshold, "thresholds": None})
        old = build_bundle(tmp_path / "old")
    assert "out_of_scope_ratio" not in old.manifest.policy
    before, after = Router.load(old.path), Router.load(new.path)
    assert before.policy == after.policy == Policy(Task.SINGLE, tuple(KEYWORDS), 0.4, out_of_scope_ratio=1.0)
    assert compare(before, after).policy is None
