"""Which graph ships: the first that changes few answers and costs next to no right ones."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from distill.bundle import load_bundle
from distill.data import read_jsonl
from distill.policy import Policy
from distill.student import ship
from distill.student.export import write_selfcheck
from distill.types import Task

N_LABELS, N_TEXTS = 3, 1_000
TEXTS = [f"{number}" for number in range(N_TEXTS)]


class Tokenizer:
    """A text is the id of its own number."""

    def encode_batch_fast(self, texts):
        return [SimpleNamespace(ids=[int(text)]) for text in texts]


def graph(path, logits):
    """A graph that gives the row of ``logits`` which the first id names."""
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["input_ids", "first"], ["ids"], axis=1),
                helper.make_node("Gather", ["table", "ids"], ["logits"]),
            ],
            "rows",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", N_LABELS])],
            [
                numpy_helper.from_array(np.asarray(0, np.int64), "first"),
                numpy_helper.from_array(logits.astype(np.float32), "table"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("stands", [False, True])
def test_a_bundle_that_a_killed_swap_moved_aside_comes_back(tiny_bundle, tmp_path, stands):
    staging, target = tmp_path / ".work" / "bundle", tmp_path / tiny_bundle.manifest.student
    ship.put_back(staging, tmp_path)
    shutil.copytree(tiny_bundle.path, staging.with_name("bundle.old"))
    if stands:
        target.mkdir()
    ship.put_back(staging, tmp_path)
    if stands:
        assert not list(target.iterdir())
    else:
        assert load_bundle(target).manifest == tiny_bundle.manifest


def test_a_link_to_a_bundle_is_replaced_and_stops_no_later_training(tiny_bundle, tmp_path):
    elsewhere = shutil.copytree(tiny_bundle.path, tmp_path / "disk")
    target, staging = tmp_path / "static", tmp_path / ".work" / "bundle"
    target.symlink_to(elsewhere)
    for _ in range(2):
        shutil.copytree(tiny_bundle.path, staging)
        ship._swap(staging, target)
        assert load_bundle(target).manifest == tiny_bundle.manifest
        assert not list(staging.parent.iterdir())
    assert load_bundle(elsewhere).manifest == tiny_bundle.manifest, "what it led to is left alone"


def test_a_text_without_tokens_is_left_out_of_the_selfcheck(tiny_bundle, tmp_path):
    bundle, path = tiny_bundle, tmp_path / "selfcheck.jsonl"
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    tokenizer.post_processor = None  # as a static student's
    write_selfcheck(path, bundle.path / bundle.manifest.onnx_file, tokenizer, [" ", "where", "\u200b"])
    assert [line["text"] for _, line in read_jsonl(path)] == ["where"]
    with_special_tokens = tokenizers.Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    number = with_special_tokens.token_to_id("where")
    with_special_tokens.post_processor = tokenizers.processors.TemplateProcessing(
        single="where $A", special_tokens=[("where", number)]
    )
    write_selfcheck(path, bundle.path / bundle.manifest.onnx_file, with_special_tokens, [" ", "where"])
    assert [line["text"] for _, line in read_jsonl(path)] == ["where"]  # a Router has no ids for blank text


def test_a_library_under_another_name_has_no_version(monkeypatch):
    monkeypatch.setattr(ship, "_LIBRARIES", ("numpy", "onnxruntime-of-another-name"))
    assert list(ship._library_versions()) == ["numpy"]


LOGITS = np.tile(np.asarray([4.0, -1.0, -4.0]), (N_TEXTS, 1))


def make_shipment(**other):
    """Held-out queries whose targets are what ``LOGITS`` give."""
    facts = {
        "student": "encoder",
        "task": Task.SINGLE,
        "labels": ("refund", "cancel", "other"),
        "tokenizer": Tokenizer(),
        "seed": 0,
        "held_out_texts": TEXTS,
        "held_out_targets": (LOGITS > 0).astype(np.float32),
    }
    facts |= other
    facts["held_out_weights"] = np.ones(len(facts["held_out_texts"]), np.float32)
    return SimpleNamespace(**facts)


def first_to_pass(tmp_path, changes, *, logits=LOGITS, change=lambda logits: logits[:, ::-1], **facts):
    """Tries graphs that answer otherwise on so many queries, by name."""
    reference = graph(tmp_path / "fp32.onnx", logits)
    shipment = make_shipment(**facts)
    written = []

    def candidate(name, n_changed):
        def write(path):
            changed = logits.copy()
            changed[:n_changed] = change(changed[:n_changed])
            written.append(name)
            graph(path, changed)

        return write

    candidates = {name: candidate(name, n_changed) for name, n_changed in changes.items()}
    _, figures = ship._first_to_pass(candidates, reference, tmp_path / "int8.onnx", shipment)
    assert figures["int8_shipped"] == (tmp_path / "int8.onnx").exists()
    return figures, written


def test_the_quickest_that_passes_ships_and_no_other_is_tried(tmp_path):
    figures, written = first_to_pass(tmp_path, {"quick": 2, "close": 0})
    assert written == ["quick"]
    assert figures == {
        "int8_shipped": True,
        "int8_kind": "quick",
        "int8_flips": 2,
        "int8_flips_of": N_TEXTS,
        "int8_quick_flips": 2,
        "int8_quick_flips_held_out": 2,
        "int8_quick_cost": 0.002,
    }


def test_a_closer_one_is_tried_where_the_quick_one_changes_too_much(tmp_path):
    figures, written = first_to_pass(tmp_path, {"quick": 30, "close": 1})
    assert written == ["quick", "close"]
    assert figures["int8_kind"] == "close"
    assert (figures["int8_quick_flips"], figures["int8_close_flips"], figures["int8_flips"]) == (30, 1, 1)
    assert (figures["int8_quick_cost"], figures["int8_close_cost"]) == (0.03, 0.001)


def test_nothing_ships_where_none_passes(tmp_path):
    figures, _ = first_to_pass(tmp_path, {"quick": 30, "close": 11})
    assert not figures["int8_shipped"]
    assert "int8_kind" not in figures
    assert figures["int8_flips"] == 11


@pytest.mark.parametrize(("right", "ships"), [(0, True), (1, True), (2, True), (3, False)])
def test_changes_that_cost_right_answers_are_refused_sooner(tmp_path, right, ships):
    targets = np.tile(np.asarray([0, 1, 0], np.float32), (N_TEXTS, 1))  # what neither graph answers
    targets[:right] = [1, 0, 0]
    figures, _ = first_to_pass(tmp_path, {"quick": 5}, held_out_targets=targets)
    assert figures["int8_shipped"] == ships
    assert figures["int8_quick_cost"] == right / N_TEXTS


@pytest.mark.parametrize(
    ("facts", "n", "reason"),
    [
        ({}, 30, "changes 30 of 1000 answers (30 of 1000 held-out ones); 1.0% of either may change"),
        ({}, 5, "costs 5 of 1000 held-out queries their right answer; 0.2%, or one, may lose it"),
        ({"task": Task.WEIGHTS, "change": lambda logits: logits * 0.5}, N_TEXTS, "moves 8.4% of a query's weights (8.4% of a held-out one's); 2.0% of either may move"),
    ],
)  # fmt: skip
def test_a_student_that_stays_float32_says_why(tmp_path, capsys, facts, n, reason):
    first_to_pass(tmp_path, {"quick": n}, **facts)
    assert capsys.readouterr().err == f"export encoder: ships in float32, as int8 {reason}\n"
    first_to_pass(tmp_path, {"quick": 0}, **facts)
    assert not capsys.readouterr().err


def doubtful():
    """Logits and targets of which a tenth is out of scope and has a lower score: a threshold lies between."""
    logits, targets = LOGITS.copy(), (LOGITS > 0).astype(np.float32)
    logits[900:] = [1.0, 0.0, 0.0]
    targets[900:] = [0.0, 0.0, 1.0]
    return {"logits": logits, "held_out_targets": targets, "labels": ("refund", "cancel", "oos")}


@pytest.mark.parametrize(("n", "ships"), [(10, True), (11, False)])
def test_an_answer_that_the_policy_declines_is_changed_though_its_top_label_is_not(tmp_path, n, ships):
    figures, _ = first_to_pass(tmp_path, {"unsure": n}, change=lambda _: [1.0, 0.0, 0.0], **doubtful())
    assert (figures["int8_unsure_flips"], figures["int8_unsure_cost"], figures["int8_shipped"]) == (n, 0, ships)


@pytest.mark.parametrize("n", [10, 11])
def test_the_policy_that_the_gate_asked_ships_with_either_graph(tmp_path, n):
    """Fitted anew on int8's own logits it would make other changes than those that were counted."""
    facts = doubtful()
    reference = graph(tmp_path / "fp32.onnx", facts["logits"])
    shipment = make_shipment(held_out_targets=facts["held_out_targets"], labels=facts["labels"])
    changed = facts["logits"].copy()
    changed[:n] = [1.0, 0.0, 0.0]
    changed[n:900] = [2.0, -1.0, -4.0]
    policy, figures = ship._first_to_pass(
        {"unsure": lambda path: graph(path, changed)}, reference, tmp_path / "int8.onnx", shipment
    )
    assert figures["int8_shipped"] == (n == 10)
    assert policy == ship._policy(shipment, facts["logits"].astype(np.float32))
    assert policy != ship._policy(shipment, changed.astype(np.float32))


def test_a_score_that_moves_on_one_side_of_the_threshold_is_no_change(tmp_path):
    figures, _ = first_to_pass(tmp_path, {"surer": 200}, change=lambda _: [5.0, 0.0, 0.0], **doubtful())
    assert figures["int8_surer_flips"] == 0


def test_of_several_intents_one_that_reaches_no_threshold_any_more_is_a_change(tmp_path):
    logits, targets = LOGITS.copy(), (LOGITS > 0).astype(np.float32)
    logits[500:], targets[500:] = (
        [2.0, -1.0, -4.0],
        0.0,
    )  # likelier than not, but never right: the threshold lies over it
    figures, _ = first_to_pass(
        tmp_path, {"unsure": 20}, task=Task.MULTI, logits=logits, held_out_targets=targets, change=lambda _: [1.0, -1.0, -4.0]
    )  # fmt: skip
    assert (figures["int8_unsure_flips"], figures["int8_unsure_cost"]) == (20, 0.02)


@pytest.mark.parametrize(("n", "ships"), [(10, True), (11, False)])
def test_of_several_intents_the_answers_are_those_of_the_fitted_thresholds(tmp_path, n, ships):
    """Both graphs say less than a half of everything, and the thresholds lie far lower; what changes was wrong before."""
    logits, targets = np.tile(np.asarray([-6.0, -9.0, -9.0]), (N_TEXTS, 1)), np.zeros((N_TEXTS, N_LABELS), np.float32)
    logits[:500, 0], targets[:500, 0], targets[:20, 2] = -3.0, 1.0, 1.0
    figures, _ = first_to_pass(
        tmp_path, {"low": n}, task=Task.MULTI, logits=logits, held_out_targets=targets, change=lambda _: [-3.0, -3.0, -9.0]
    )  # fmt: skip
    assert (figures["int8_low_flips"], figures["int8_low_cost"], figures["int8_shipped"]) == (n, 0, ships)


def test_of_weights_each_counts_and_not_the_top_one_alone(tmp_path):
    figures, _ = first_to_pass(
        tmp_path, {"halved": N_TEXTS, "close": N_TEXTS}, task=Task.WEIGHTS, change=lambda logits: logits * 0.5
    )
    assert figures["int8_halved_flips"] == 0
    assert figures["int8_halved_moved"] > 0.05
    assert not figures["int8_shipped"]
    figures, _ = first_to_pass(tmp_path, {"close": N_TEXTS}, task=Task.WEIGHTS, change=lambda logits: logits * 0.95)
    assert 0 < figures["int8_close_moved"] < 0.02
    assert figures["int8_shipped"]


@pytest.mark.parametrize(("n_held_out", "ships"), [(99, True), (100, False)])
def test_what_changes_on_held_out_queries_does_not_hide_among_texts_made_from_them(
    tmp_path, monkeypatch, n_held_out, ships
):
    monkeypatch.setattr(ship, "augment", lambda *_: TEXTS[n_held_out:])
    targets = np.tile(np.asarray([0, 1, 0], np.float32), (n_held_out, 1))  # neither graph is right: nothing is lost
    figures, _ = first_to_pass(tmp_path, {"quick": 2}, held_out_texts=TEXTS[:n_held_out], held_out_targets=targets)
    assert (figures["int8_quick_flips"], figures["int8_quick_flips_held_out"]) == (2, 2)
    assert (figures["int8_flips_of"], figures["int8_shipped"]) == (N_TEXTS, ships)


def test_where_held_out_queries_are_few_texts_of_all_kinds_are_made_from_them():
    few = [f"{letter}{number} is my card" for letter in "abcdefghijklmnopqrstuvwxyz" for number in range(24)]
    texts = ship._gate_texts(make_shipment(held_out_texts=few, calibration_texts=["not asked"]))
    assert texts[: len(few)] == few
    assert len(texts) == ship._TEXTS_FOR_FLIPS
    assert {text[0] for text in texts[len(few) :]} == set("abcdefghijklmnopqrstuvwxyz")


def test_a_held_out_query_that_fits_no_label_is_never_answered_rightly():
    targets = (LOGITS > 0).astype(np.float32)
    targets[: N_TEXTS // 2] = 0
    shipment = make_shipment(held_out_targets=targets)
    assert ship._n_right(LOGITS.argmax(axis=1)[:, None], ship._truth(shipment)) == N_TEXTS - N_TEXTS // 2
    policy = ship._policy(make_shipment(), LOGITS)
    every, fitting = (ship._held_out_figures(each, policy, LOGITS) for each in (make_shipment(), shipment))
    assert fitting == every
    assert fitting["held_out_agreement"] == 1
    assert not ship._held_out_figures(make_shipment(held_out_targets=np.zeros_like(targets)), policy, LOGITS)


def test_of_several_intents_the_held_out_figure_goes_by_the_thresholds():
    targets = (LOGITS > 0).astype(np.float32)
    shipment = make_shipment(task=Task.MULTI, held_out_targets=targets)
    labels = shipment.labels
    for threshold, expected in ((0.5, 1.0), (1e-9, round(2 * targets.sum() / (targets.sum() + targets.size), 4))):
        policy = Policy(Task.MULTI, labels, thresholds=(threshold,) * len(labels))
        assert ship._held_out_figures(shipment, policy, LOGITS)["held_out_micro_f1"] == pytest.approx(
            expected, abs=1e-4
        )


def test_where_none_is_held_out_those_that_set_the_ranges_are_not_asked():
    trained = [f"pay the bill number {number} for me" for number in range(40)]
    texts = ship._gate_texts(make_shipment(held_out_texts=[], calibration_texts=trained))
    assert len(texts) > 300
    assert not set(texts) & set(trained)


@pytest.mark.parametrize("task", Task)
def test_each_task_has_answers_to_compare(tmp_path, task):
    assert first_to_pass(tmp_path, {"same": 0}, task=task)[0]["int8_same_flips"] == 0
    assert first_to_pass(tmp_path, {"other": 40}, task=task)[0]["int8_other_flips"] == 40


def test_few_held_out_queries_are_joined_by_texts_made_from_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ship, "_TEXTS_FOR_FLIPS", 20)
    monkeypatch.setattr(ship, "augment", lambda texts, *_: [str(100 + number) for number, _ in enumerate(texts * 9)])
    monkeypatch.setattr(ship, "encode", lambda _, texts: asked.extend(texts) or [[int(text)] for text in texts])
    reference = graph(tmp_path / "fp32.onnx", LOGITS)
    shipment = make_shipment(tokenizer=None, held_out_texts=TEXTS[:4], held_out_targets=LOGITS[:4])
    _, figures = ship._first_to_pass(
        {"same": lambda path: shutil.copyfile(reference, path)}, reference, tmp_path / "int8.onnx", shipment
    )
    assert (len(asked), figures["int8_flips_of"]) == (20, 20)
