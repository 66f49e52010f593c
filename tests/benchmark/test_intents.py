from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from test_metrics import INTENTS, LABELS, answers_of, gold_of, random_case

from distill.benchmark.intents import confusions, intent_figures
from distill.benchmark.metrics import Answers, Gold
from distill.types import GoldQuery, Prediction, Reason, Task


def decided(probabilities, threshold):
    best = probabilities[:, :3].argmax(axis=1)
    scores = probabilities[:, :3].max(axis=1)
    return np.where((probabilities[:, 3] >= scores) | (scores < threshold), 3, best)


def by_intent(figures):
    return {each.intent: each for each in figures}


@pytest.mark.parametrize("seed", range(3))
def test_every_intent_has_scikit_learns_figures_after_the_policy(seed):
    names, probabilities = random_case(seed, 200)
    truth = np.asarray([LABELS.index(name) for name in names])
    found = by_intent(intent_figures("static", Task.SINGLE, answers_of(probabilities, threshold=0.4), gold_of(*names)))
    given = decided(probabilities, 0.4)
    precision, recall, f1, n = precision_recall_fscore_support(truth, given, labels=range(4))
    for column, name in enumerate((*INTENTS, None)):
        each = found[name]
        assert (each.precision, each.recall, each.f1) == pytest.approx((precision[column], recall[column], f1[column]))
        assert (each.n, each.n_answered) == (n[column], (given == column).sum())
        interval = binomtest(int(((truth == column) & (given == column)).sum()), int(n[column])).proportion_ci(
            method="wilson"
        )
        assert each.recall_ci95 == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("seed", range(3))
def test_confusions_are_scikit_learns_matrix_off_its_diagonal(seed):
    names, probabilities = random_case(seed, 200)
    truth = np.asarray([LABELS.index(name) for name in names])
    found = confusions("static", Task.SINGLE, answers_of(probabilities, threshold=0.4), gold_of(*names))
    matrix = confusion_matrix(truth, decided(probabilities, 0.4), labels=range(4))
    shown = (*INTENTS, None)
    expected = {(shown[a], shown[b]): matrix[a, b] for a in range(4) for b in range(4) if a != b and matrix[a, b]}
    assert {(pair["gold"], pair["answer"]): pair["n"] for pair in found} == expected
    assert [pair["n"] for pair in found] == sorted(expected.values(), reverse=True)


def test_an_intent_names_what_it_is_taken_for():
    answers = answers_of([[0.9, 0.1, 0, 0], [0.9, 0.1, 0, 0], [0.1, 0.1, 0.1, 0.7], [0.1, 0.9, 0, 0]])
    found = by_intent(intent_figures("static", Task.SINGLE, answers, gold_of("refund", "refund", "refund", "refund")))
    assert (found["refund"].confused_with, found["refund"].n_confused, found["refund"].recall) == ("cancel", 2, 0.25)
    assert (found["cancel"].n, found["cancel"].precision, found["cancel"].recall) == (0, 0.0, None)
    assert (found[None].n, found[None].n_answered, found[None].n_confused) == (0, 1, 0)


def test_a_failed_answer_is_no_rejection_and_confuses_nothing():
    failed = Prediction(None, 0.0, Reason.LOW_CONFIDENCE, None, labels=LABELS)
    answers = Answers.from_predictions([failed, failed], LABELS, np.asarray([True, True]))
    gold = gold_of("refund", "oos")
    found = by_intent(intent_figures("teacher", Task.SINGLE, answers, gold))
    assert {name: (each.n, each.n_answered, each.recall) for name, each in found.items()} == {
        "refund": (1, 0, 0.0),
        None: (1, 0, 0.0),
    }
    assert confusions("teacher", Task.SINGLE, answers, gold) == []


def test_gold_without_an_oos_label_has_rejections_too():
    gold = Gold.from_queries([GoldQuery("q", {"oos": 1.0}), GoldQuery("q", {"cancel": 1.0})], INTENTS)
    answers = answers_of([[0.4, 0.3, 0.3], [0.9, 0.1, 0]], labels=INTENTS, threshold=0.5)
    found = by_intent(intent_figures("static", Task.SINGLE, answers, gold))
    assert (found[None].recall, found["cancel"].recall) == (1.0, 1.0)


def test_sets_confuse_what_was_missed_with_what_was_given_instead():
    gold = Gold.from_queries(
        [GoldQuery("a", {"cancel": 1.0, "refund": 1.0}), GoldQuery("b", {"cancel": 1.0}), GoldQuery("c", {})], INTENTS
    )
    answers = answers_of([[0.9, 0.1, 0.8], [0.1, 0.1, 0.1], [0.1, 0.9, 0.1]], labels=INTENTS, task=Task.MULTI)
    pairs = {(each["gold"], each["answer"]) for each in confusions("static", Task.MULTI, answers, gold)}
    assert pairs == {("refund", "track"), ("cancel", None), (None, "refund")}
    found = by_intent(intent_figures("static", Task.MULTI, answers, gold))
    expected = precision_recall_fscore_support(gold.targets > 0, answers.chosen, zero_division=0)
    assert [found[name].f1 or 0.0 for name in INTENTS] == pytest.approx(expected[2].tolist())


def test_channels_have_the_error_of_their_weight():
    labels = ("text", "image")
    gold = Gold.from_queries([GoldQuery("a", {"text": 0.7, "image": 0.3}), GoldQuery("b", {"image": 1.0})], labels)
    answers = answers_of([[0.6, 0.4], [0.8, 0.2]], labels=labels, task=Task.WEIGHTS)
    found = by_intent(intent_figures("static", Task.WEIGHTS, answers, gold))
    assert (found["text"].mae, found["text"].bias) == pytest.approx(((0.1 + 0.8) / 2, (-0.1 + 0.8) / 2))
    assert (found["text"].n, found["text"].n_answered, found["image"].confused_with) == (1, 2, "text")
    assert found["image"].bias == pytest.approx(-found["text"].bias)
    (pair,) = confusions("static", Task.WEIGHTS, answers, gold)
    assert (pair["gold"], pair["answer"], pair["n"]) == ("image", "text", 1)


def test_a_channel_of_which_gold_says_nothing_has_no_precision():
    labels = ("text", "image", "sound")
    gold = Gold.from_queries([GoldQuery("a", {"text": 1.0}), GoldQuery("b", {"image": 1.0})], labels)
    answers = answers_of([[0.2, 0.1, 0.7], [0.1, 0.9, 0.0]], labels=labels, task=Task.WEIGHTS)
    sound = by_intent(intent_figures("static", Task.WEIGHTS, answers, gold))["sound"]
    assert (sound.n, sound.n_answered, sound.precision, sound.recall, sound.f1) == (0, 1, None, None, None)
