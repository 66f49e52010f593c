from __future__ import annotations

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from distill.bundle import Manifest
from distill.student.card import model_card
from distill.types import BenchResult, BenchRow, Task

MANIFEST = Manifest(
    name="shop",
    student="static",
    task=Task.SINGLE,
    labels=("track_order", "refund", "oos"),
    policy={"threshold": 0.0, "thresholds": None},
    onnx_file="onnx/model.onnx",
    max_length=256,
    teacher="fake-1",
    data_sha256="ab" * 32,
    versions={"distill": "0.1.0"},
    figures={"held_out_agreement": 0.91234, "int8_flips": 2, "int8_shipped": True},
)
ROW = BenchRow(
    "static", accuracy=0.87654, accuracy_policy=0.9, macro_f1=0.8, micro_f1=0.81, oos_auroc=0.97, oos_recall=0.956
)
BASE = "sentence-transformers/all-MiniLM-L6-v2"


def result_of(*rows, task=Task.SINGLE, n_gold=750):
    return BenchResult(task, "shop", n_gold=n_gold, n_in_scope=n_gold, n_oos=0, environment={}, rows=rows)


def parsed(text):
    """The card as huggingface_hub reads it; an invalid header or model-index raises."""
    card = ModelCard(text)
    assert card.content == text
    return card.data


def evaluation(data):
    return {each.metric_name: (each.metric_type, each.metric_value) for each in data.eval_results}


def test_header_is_valid_and_comes_back_as_it_was_written():
    text = model_card(MANIFEST, BASE, result=result_of(ROW), header={"license": "apache-2.0", "language": ["en"]})
    data = parsed(text)
    assert (data.library_name, data.pipeline_tag, data.base_model) == ("distill", "text-classification", BASE)
    assert (data.license, data.language) == ("apache-2.0", ["en"])
    assert data.metrics == ["accuracy", "f1", "roc_auc"]
    assert text.startswith(
        f"---\n{data.to_yaml(original_order=['library_name', 'pipeline_tag'])}".split("\nbase", 1)[0]
    )


def test_base_model_is_the_manifests_where_none_is_given():
    assert parsed(model_card(replace(MANIFEST, base_model=BASE))).base_model == BASE
    assert parsed(model_card(replace(MANIFEST, base_model="other/model"), BASE)).base_model == BASE
    local = model_card(replace(MANIFEST, base_model="my-encoder"))
    assert parsed(local).base_model is None  # the hub would look for it
    assert "Base model: `my-encoder`." in local


def test_model_index_has_the_figures_on_gold():
    data = parsed(model_card(MANIFEST, BASE, result=result_of(BenchRow("encoder", accuracy=0.1), ROW)))
    assert data.model_name == "shop-static"
    assert evaluation(data) == {
        "accuracy, in scope, nothing declined": ("accuracy", 0.8765),
        "accuracy after the policy, out-of-scope queries included": ("accuracy", 0.9),
        "macro F1, in scope": ("f1", 0.8),
        "AUROC of out-of-scope queries": ("roc_auc", 0.97),
    }
    assert {(each.dataset_type, each.dataset_split) for each in data.eval_results} == {("shop", "test")}
    assert all("750 queries with human labels" in each.dataset_name for each in data.eval_results)


@pytest.mark.parametrize("result", [None, result_of(ROW, n_gold=0), result_of(BenchRow("encoder", accuracy=0.1))])
def test_without_gold_the_model_index_says_whose_labels_it_measures(result):
    data = parsed(model_card(MANIFEST, BASE, result=result))
    assert evaluation(data) == {"agreement with the teacher": ("accuracy", 0.9123)}
    assert {each.dataset_split for each in data.eval_results} == {"validation"}
    assert "labelled by the teacher" in data.eval_results[0].dataset_name


@pytest.mark.parametrize(
    ("task", "row", "metrics"),
    [
        (Task.MULTI, ROW, {"accuracy", "f1"}),
        (
            Task.WEIGHTS,
            BenchRow("static", accuracy=0.5, notes={"mae": 0.1, "kl": 0.2}),
            {"accuracy", "mae", "kl_divergence"},
        ),
    ],
)
def test_other_tasks_have_metrics_of_their_own(task, row, metrics):
    manifest = replace(MANIFEST, task=task, labels=("track_order", "refund"))
    data = parsed(model_card(manifest, BASE, result=result_of(row, task=task)))
    assert {each.metric_type for each in data.eval_results} == metrics


def test_a_bundle_without_figures_has_no_model_index():
    data = parsed(model_card(replace(MANIFEST, figures={}), ""))
    assert data.eval_results is None
    assert "base_model" not in data.to_dict()
    assert "metrics" not in data.to_dict()


def test_limits_teacher_and_terms_are_stated():
    text = model_card(MANIFEST, BASE)
    assert "| teacher | `fake-1` |" in text
    assert "| the teacher's terms of use | not stated; a provider may restrict training" in text
    assert "| licence of this model | not stated |" in text
    assert "It was not measured on gold" in text
    assert "queries are cut at 256 tokens" in text
    stated = model_card(
        MANIFEST, BASE, result=result_of(ROW), header={"license": "mit", "teacher_terms": "any use | see\nexample.org"}
    )
    assert "| the teacher's terms of use | any use / see example.org |" in stated
    assert "| licence of this model | mit |" in stated
    assert "It was not measured on gold" not in stated
    assert "it declined 95.6%" in stated


def test_what_gold_has_nothing_of_was_not_measured():
    result = replace(result_of(ROW), provenance={"labels_not_in_gold": ["refund", "cancel_order"]})
    assert "- It was not measured on `refund`, `cancel_order`: gold has nothing of that." in model_card(
        MANIFEST, BASE, result=result
    )
    assert "not measured on" not in model_card(MANIFEST, BASE, result=result_of(ROW))


@pytest.mark.parametrize("teacher", ["human labels (labelled.jsonl)", ""])
def test_people_are_no_provider(teacher):
    text = model_card(replace(MANIFEST, teacher=teacher), BASE)
    assert "trained on human labels" in text
    assert "It learnt from people's labels" in text
    assert "a provider may restrict" not in text
    assert "labelled by the teacher" not in text
    assert "against the teacher's labels" not in text


def test_limits_fit_the_labels():
    without_oos = replace(MANIFEST, labels=("track_order", "refund"))
    assert "declines only where it is unsure" in model_card(without_oos, BASE)
    assert "`oos` is what fits none" in model_card(MANIFEST, BASE)


def test_how_to_open_it_follows_the_repository():
    assert 'Router.from_pretrained("org/name")' in model_card(MANIFEST, BASE, repository="org/name")
    assert 'Router.load("path/of/this/folder")' in model_card(MANIFEST, BASE)


def test_the_benchmarks_table_stands_in_the_card():
    text = model_card(MANIFEST, BASE, result=result_of(ROW), table="| a | b |\n")
    assert "## Figures\n\n| a | b |\n\n## Held-out figures" in text
    assert "accuracy on gold stands above" in text


def test_names_cannot_break_out_of_the_header_or_of_code():
    manifest = replace(MANIFEST, name="shop: 'x'", teacher="fake`\n---\n# x", labels=("a`b", "c", "oos"))
    text = model_card(manifest, "org/base")
    assert parsed(text).model_name == "shop: 'x'-static"
    assert "`fake' --- # x`" in text
    assert "`a'b`" in text


@pytest.mark.parametrize("task", Task)
def test_where_nothing_was_held_out_the_card_says_so_and_claims_no_calibration(task):
    manifest = replace(MANIFEST, task=task, figures={"n_train": 30, "n_held_out": 0, "temperature": 1.0})
    card = model_card(manifest)
    assert "Nothing was held out: there were too few labelled queries." in card
    for claim in ("not trained on", " is calibrated", "are calibrated", "look a little better"):
        assert claim not in card


@pytest.mark.parametrize(
    ("task", "fitted"),
    [(Task.SINGLE, ("", ", but temperature was")), (Task.MULTI, (", but thresholds were", ", but temperature and thresholds were"))],
)  # fmt: skip
def test_where_too_few_were_held_out_to_calibrate_the_card_claims_what_was_fitted_alone(task, fitted):
    """Of ``single`` no held-out figure goes by a threshold."""
    card = model_card(replace(MANIFEST, task=task, figures={"n_train": 100, "n_held_out": 19, "temperature": 1.0}))
    assert f"not trained on{fitted[0]}" in card
    assert ("fitted on them" in card) == bool(fitted[0])
    assert "is not calibrated" in card
    assert "Probabilities are not calibrated: fewer than 20 queries were held out" in card
    of_no_label = {"n_train": 100, "n_held_out": 45, "n_calibrating": 19, "temperature": 1.0}
    assert "is not calibrated" in model_card(replace(MANIFEST, task=task, figures=of_no_label))
    card = model_card(replace(MANIFEST, task=task, figures={"n_train": 100, "n_held_out": 20, "temperature": 1.1}))
    assert f"not trained on{fitted[1]} fitted on them" in card
    assert "not calibrated" not in card


def test_a_card_of_weights_names_no_thresholds():
    card = model_card(replace(MANIFEST, task=Task.WEIGHTS, figures={"n_held_out": 20, "temperature": 1.1}))
    assert (
        "not trained on, but temperature was fitted on them, so they look a little better than they are; accuracy"
        in card
    )
    card = model_card(replace(MANIFEST, task=Task.WEIGHTS, figures={"n_held_out": 19, "temperature": 1.0}))
    assert "not trained on; accuracy on gold" in card
