from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, roc_auc_score

from distill.benchmark.metrics import (
    Answers,
    Gold,
    absolute_error,
    f1_figures,
    fidelity_figures,
    gold_figures,
    kl_divergence,
    kl_divergence_of_sets,
    nearest_weights,
    right,
)
from distill.data import read_gold
from distill.errors import DataError
from distill.policy import Policy
from distill.types import GoldQuery, Prediction, Reason, Task

LABELS = ("cancel", "refund", "track", "oos")
INTENTS = LABELS[:-1]


def gold_of(*names):
    return Gold.from_queries([GoldQuery("q", {name: 1.0}) for name in names], LABELS)


def answers_of(probabilities, *, labels=LABELS, task=Task.SINGLE, threshold=0.0, failed=None):
    thresholds = (0.5,) * len(labels) if task is Task.MULTI else None
    policy = Policy(task, labels, threshold, thresholds)
    predictions = policy.decide_batch(np.asarray(probabilities, dtype=np.float32))
    return Answers.from_predictions(predictions, labels, None if failed is None else np.asarray(failed))


def random_case(seed, n=60):
    rng = np.random.default_rng(seed)
    names = [LABELS[position] for position in rng.integers(len(LABELS), size=n)]
    return names, rng.dirichlet(np.ones(len(LABELS)) * 0.7, size=n)


@pytest.mark.parametrize("seed", range(5))
def test_single_figures_are_those_of_scikit_learn(seed):
    names, probabilities = random_case(seed)
    answers = answers_of(probabilities, threshold=0.4)
    figures = gold_figures(Task.SINGLE, answers, gold_of(*names))
    inside = [position for position, name in enumerate(names) if name != "oos"]
    truth = [names[position] for position in inside]
    top = [INTENTS[probabilities[position, :3].argmax()] for position in inside]
    decided = [
        "oos" if row[3] >= row[:3].max() or row[:3].max() < 0.4 else INTENTS[row[:3].argmax()] for row in probabilities
    ]
    outside = [name == "oos" for name in names]
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, top))
    assert figures["accuracy_policy"] == pytest.approx(accuracy_score(names, decided))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, top, average="macro"))
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, top, average="micro"))
    assert figures["oos_auroc"] == pytest.approx(roc_auc_score(outside, probabilities[:, 3]))
    assert figures["coverage"] == pytest.approx(np.mean([name != "oos" for name in decided]))
    assert figures["oos_recall"] == pytest.approx(
        np.mean([name == "oos" for name, is_outside in zip(decided, outside, strict=True) if is_outside])
    )
    low, high = figures["accuracy_policy_ci95"]
    assert low < figures["accuracy_policy"] < high


def test_a_teachers_oos_is_wrong_in_scope_and_right_outside():
    predictions = [Prediction(None, 0.0, Reason.OUT_OF_SCOPE, None, labels=LABELS, probabilities=np.eye(4)[3])] * 2
    figures = gold_figures(Task.SINGLE, Answers.from_predictions(predictions, LABELS), gold_of("refund", "oos"))
    assert (figures["accuracy"], figures["accuracy_policy"], figures["oos_recall"]) == (0.0, 0.5, 1.0)


def test_a_failed_answer_is_wrong_even_where_rejection_would_be_right():
    failed = Prediction(None, 0.0, Reason.LOW_CONFIDENCE, None, labels=LABELS)
    answers = Answers.from_predictions([failed, failed], LABELS, np.asarray([True, True]))
    figures = gold_figures(Task.SINGLE, answers, gold_of("refund", "oos"))
    assert (figures["accuracy"], figures["accuracy_policy"], figures["oos_recall"]) == (0.0, 0.0, 0.0)
    assert figures["coverage"] == 0.0
    assert "oos_auroc" not in figures


def test_without_an_oos_label_a_low_score_speaks_for_out_of_scope():
    labels = INTENTS
    gold = Gold.from_queries([GoldQuery("q", {name: 1.0}) for name in ("cancel", "refund", "oos", "oos")], labels)
    probabilities = [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3], [0.65, 0.2, 0.15]]
    figures = gold_figures(Task.SINGLE, answers_of(probabilities, labels=labels, threshold=0.5), gold)
    scores = [1 - max(row) for row in probabilities]
    assert figures["oos_auroc"] == pytest.approx(roc_auc_score([False, False, True, True], scores))
    assert (figures["accuracy"], figures["accuracy_policy"], figures["oos_recall"]) == (1.0, 0.75, 0.5)


def test_gold_without_out_of_scope_queries_has_no_figure_for_them():
    figures = gold_figures(Task.SINGLE, answers_of([[0.7, 0.1, 0.1, 0.1]]), gold_of("cancel"))
    assert not {"oos_auroc", "oos_auroc_ci95", "oos_recall"} & figures.keys()


def test_columns_follow_the_given_labels_whatever_the_classifiers_order_is():
    own_order = ("oos", "track", "refund", "cancel")
    prediction = Prediction("refund", 0.6, Reason.ACCEPTED, "refund", ("refund",), None, own_order, np.arange(4) / 6)
    answers = Answers.from_predictions([prediction], LABELS)
    assert answers.probabilities[0] == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])
    assert (answers.top[0], answers.intent[0], answers.best[0]) == (1, 1, 0)


def test_a_classifier_with_other_labels_is_refused():
    prediction = Prediction("buy", 1.0, Reason.ACCEPTED, "buy", ("buy",), None, ("buy",), np.ones(1))
    with pytest.raises(DataError, match="buy"):
        Answers.from_predictions([prediction], LABELS)


def test_gold_with_an_unknown_intent_is_refused():
    with pytest.raises(DataError, match=r"'q'.*'buy'"):
        gold_of("buy")


def resampled(score_of, n, *, n_resamples=1000, seed=1):
    """Percentiles of a library's figure over resamples, drawn here."""
    rng = np.random.default_rng(seed)
    return np.percentile([score_of(rng.integers(n, size=n)) for _ in range(n_resamples)], [2.5, 97.5])


def test_the_f1_intervals_are_the_percentiles_of_scikit_learns_f1_over_resamples():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=150)
    given_ = np.where(rng.random(150) < 0.7, truth, rng.integers(4, size=150))
    figures = f1_figures(truth[:, None] == np.arange(4), given_[:, None] == np.arange(4))
    for average in ("macro", "micro"):
        found = figures[f"{average}_f1_ci95"]
        expected = resampled(
            lambda drawn, average=average: f1_score(truth[drawn], given_[drawn], average=average), 150, n_resamples=150
        )
        assert found == pytest.approx(expected, abs=0.025)
        assert found[0] < figures[f"{average}_f1"] < found[1]


def test_what_goes_to_a_label_that_gold_has_nothing_of_is_wrong_by_micro_f1_and_has_no_share_in_macro_f1():
    rng = np.random.default_rng(0)
    truth, chosen = rng.random((60, 4)) < 0.4, rng.random((60, 4)) < 0.4
    truth[:, 3] = False
    figures = f1_figures(truth, chosen)
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, chosen, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth[:, :3], chosen[:, :3], average="macro"))
    assert figures["micro_f1_ci95"][0] < figures["micro_f1"] < figures["micro_f1_ci95"][1]


@pytest.mark.parametrize("n_labels", [1, 3])
def test_gold_of_one_intent_has_that_intents_f1(n_labels):
    truth, chosen = np.zeros((20, n_labels), dtype=bool), np.zeros((20, n_labels), dtype=bool)
    truth[:, 0], chosen[:15, 0] = True, True
    figures = f1_figures(truth, chosen)
    expected = f1_score(truth[:, 0], chosen[:, 0])
    assert (figures["macro_f1"], figures["micro_f1"]) == pytest.approx((expected, expected))
    assert figures["macro_f1_ci95"][0] < expected < figures["macro_f1_ci95"][1]


@pytest.mark.parametrize(("n_labelled", "n_wrong", "is_known"), [(19, 1, False), (20, 1, True), (20, 0, False)])
def test_of_a_few_labelled_queries_and_of_perfect_answers_f1_has_no_interval(n_labelled, n_wrong, is_known):
    truth = np.zeros((300, 3), dtype=bool)
    truth[:n_labelled, 1] = True
    chosen = truth.copy()
    chosen[:n_wrong] = False
    figures = f1_figures(truth, chosen)
    for average in ("macro_f1", "micro_f1"):
        assert figures[average] > 0.9
        assert (figures[f"{average}_ci95"] is not None) == is_known


def test_a_resample_without_an_intent_leaves_it_out():
    truth = np.zeros((40, 2), dtype=bool)
    truth[:, 0], truth[0] = True, [False, True]
    chosen = truth.copy()
    chosen[1] = False
    assert f1_figures(truth, chosen)["macro_f1_ci95"][0] > 0.9


def test_the_auroc_interval_is_the_percentiles_of_scikit_learns_auroc_over_resamples():
    rng = np.random.default_rng(0)
    outside = np.arange(120) < 40
    score = np.round(rng.normal(size=120) + outside, 1)  # with ties
    probabilities = np.zeros((120, 4))
    probabilities[:, 3] = (score - score.min()) / np.ptp(score)
    probabilities[:, 0] = 1 - probabilities[:, 3]
    figures = gold_figures(Task.SINGLE, answers_of(probabilities), gold_of(*np.where(outside, "oos", "cancel")))

    def auroc(drawn):
        kept = np.concatenate([drawn[:40] * 40 // 120, 40 + drawn[40:] * 80 // 120])
        return roc_auc_score(outside[kept], score[kept])

    assert figures["oos_auroc"] == pytest.approx(roc_auc_score(outside, score), abs=1e-6)
    assert figures["oos_auroc_ci95"] == pytest.approx(resampled(auroc, 120, n_resamples=150), abs=0.025)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_queries_have_a_figure_but_no_interval(n):
    truth = np.ones((n, 2), dtype=bool)
    figures = f1_figures(truth, truth)
    assert figures.get("macro_f1") == (1.0 if n else None)
    assert figures.get("macro_f1_ci95") is None


@given(st.integers(0, 10_000))
def test_kl_is_scipys_entropy(seed):
    rng = np.random.default_rng(seed)
    target, predicted = rng.dirichlet(np.ones(5), size=8), rng.dirichlet(np.ones(5) * 5, size=8) * 0.99 + 0.002
    assert kl_divergence(target, predicted) == pytest.approx(entropy(target, predicted, axis=1))
    assert kl_divergence(target, target) == pytest.approx(np.zeros(8), abs=1e-4)


def test_kl_is_clipped_at_a_millionth():
    assert kl_divergence(np.asarray([[1.0, 0.0]]), np.asarray([[0.0, 1.0]])) == pytest.approx([-np.log(1e-6)])


def test_kl_of_sets_adds_up_two_way_distributions():
    target, predicted = np.asarray([[1.0, 0.25]]), np.asarray([[0.8, 0.5]])
    expected = entropy([1, 0], [0.8, 0.2]) + entropy([0.25, 0.75], [0.5, 0.5])
    assert kl_divergence_of_sets(target, predicted) == pytest.approx([expected])


def test_the_absolute_error_is_scikit_learns_over_labels():
    rng = np.random.default_rng(0)
    target, predicted = rng.random((7, 3)), rng.random((7, 3))
    expected = [mean_absolute_error(*pair) for pair in zip(target, predicted, strict=True)]
    assert absolute_error(target, predicted) == pytest.approx(expected)


def test_nearest_weights_asks_for_golds_own_vector():
    gold = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]])
    predicted = np.asarray([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [np.nan, np.nan]])
    assert nearest_weights(predicted, gold).tolist() == [True, False, True, False]


def test_weights_on_another_scale_are_the_same_vector(tmp_path):
    path = tmp_path / "gold.jsonl"
    path.write_text(
        '{"text": "a", "weights": {"v": 0.02, "t": 0.98}}\n{"text": "b", "weights": {"v": 2, "t": 98}}\n', "utf-8"
    )
    gold = Gold.from_queries(read_gold(path), ("v", "t")).targets
    assert len(np.unique(gold, axis=0)) == 2  # one unit in the last place apart
    assert nearest_weights(gold[::-1], gold).tolist() == [True, True]


def test_weights_figures():
    labels = ("text", "image")
    gold = Gold.from_queries([GoldQuery("a", {"text": 0.7, "image": 0.3}), GoldQuery("b", {"image": 1.0})], labels)
    figures = gold_figures(Task.WEIGHTS, answers_of([[0.6, 0.4], [0.7, 0.3]], labels=labels, task=Task.WEIGHTS), gold)
    assert figures["accuracy"] == figures["accuracy_policy"] == 0.5
    assert figures["notes"]["mae"] == pytest.approx((0.1 + 0.1 + 0.7 + 0.7) / 4)
    assert figures["notes"]["mae_policy"] == pytest.approx(figures["notes"]["mae"])
    assert figures["notes"]["kl"] == pytest.approx((entropy([0.7, 0.3], [0.6, 0.4]) - np.log(0.3)) / 2, rel=1e-5)


def test_multi_counts_the_exact_set_and_an_empty_one_is_valid():
    gold = Gold.from_queries([GoldQuery("a", {"cancel": 1.0, "refund": 1.0}), GoldQuery("b", {})], INTENTS)
    answers = answers_of([[0.9, 0.6, 0.1], [0.2, 0.1, 0.3]], labels=INTENTS, task=Task.MULTI)
    figures = gold_figures(Task.MULTI, answers, gold)
    assert figures["accuracy"] == figures["accuracy_policy"] == figures["micro_f1"] == 1.0
    wrong = answers_of([[0.9, 0.4, 0.1], [0.2, 0.1, 0.3]], labels=INTENTS, task=Task.MULTI)
    figures = gold_figures(Task.MULTI, wrong, gold)
    truth, chosen = [[1, 1], [0, 0]], [[1, 0], [0, 0]]
    assert figures["accuracy"] == 0.5
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, chosen, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, chosen, average="macro", zero_division=0))


def test_a_failed_answer_is_not_an_empty_set():
    gold = Gold.from_queries([GoldQuery("a", {})], INTENTS)
    failed = Prediction(None, 0.0, Reason.LOW_CONFIDENCE, None, labels=INTENTS)
    answers = Answers.from_predictions([failed], INTENTS, np.asarray([True]))
    figures = gold_figures(Task.MULTI, answers, gold)
    assert (figures["accuracy"], figures.get("micro_f1")) == (0.0, None)


@pytest.mark.parametrize("task", Task)
def test_fidelity_to_oneself_is_whole(task):
    labels = LABELS if task is Task.SINGLE else INTENTS
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(labels)), size=30) * 0.999 + 0.0002
    answers = answers_of(probabilities, labels=labels, task=task)
    figures = fidelity_figures(task, answers, answers)
    assert figures["fidelity"] == 1.0
    assert figures["fidelity_kl"] == pytest.approx(0.0, abs=1e-3)


def test_fidelity_leaves_out_what_the_teacher_failed_and_takes_oos_as_an_answer():
    teacher = answers_of(np.eye(4)[[3, 0, 1]], failed=[False, False, True])
    student = answers_of([[0.1, 0.1, 0.1, 0.7], [0.1, 0.1, 0.1, 0.7], [0.1, 0.7, 0.1, 0.1]])
    figures = fidelity_figures(Task.SINGLE, student, teacher)
    assert figures["fidelity"] == 0.5
    assert figures["fidelity_kl"] == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2)
    assert figures["fidelity_kl_ci95"] is None


def test_nobody_agrees_with_a_teacher_who_never_answered():
    teacher = answers_of(np.eye(4)[[0]], failed=[True])
    assert fidelity_figures(Task.SINGLE, teacher, teacher) == {}


@pytest.mark.parametrize("task", Task)
def test_what_counts_as_right_is_what_accuracy_policy_counts(task):
    labels = LABELS if task is Task.SINGLE else INTENTS
    rng = np.random.default_rng(3)
    answers = answers_of(rng.dirichlet(np.ones(len(labels)), size=40), labels=labels, task=task, threshold=0.5)
    gold = Gold.from_queries([GoldQuery("q", {labels[i]: 1.0}) for i in rng.integers(len(labels), size=40)], labels)
    assert gold_figures(task, answers, gold)["accuracy_policy"] == pytest.approx(right(task, answers, gold).mean())
