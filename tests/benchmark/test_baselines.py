from __future__ import annotations

import numpy as np
import pytest

from distill.benchmark import baselines
from distill.benchmark.baselines import fit_majority, fit_tfidf
from distill.errors import DataError
from distill.types import Example, Reason, Task

LABELS = ("cancel", "refund", "oos")
WORDS = {"cancel": "please cancel stop my order", "refund": "refund the money back", "oos": "tell a joke song weather"}


def examples_of(n=12, *, labels=LABELS, held_out=0):
    rng = np.random.default_rng(0)
    found = []
    for position, label in enumerate(labels):
        target = np.eye(len(labels), dtype=np.float32)[position]
        for number in range(n):
            text = " ".join(rng.permutation(WORDS[label].split())[:3])
            found.append(Example(text, target, split="held_out" if number < held_out else "train"))
    return found


def test_tfidf_learns_and_answers_one_and_many_alike():
    baseline = fit_tfidf(examples_of(held_out=3), LABELS, Task.SINGLE)
    texts = ["cancel my order", "money back", "a song"]
    batch = baseline.route_batch(texts)
    assert [prediction.intent for prediction in batch] == ["cancel", "refund", None]
    assert batch[2].reason is Reason.OUT_OF_SCOPE
    for text, prediction in zip(texts, batch, strict=True):
        alone = baseline.route(text)
        assert (alone.intent, alone.top_intent) == (prediction.intent, prediction.top_intent)
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
        assert alone.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert baseline.size_mb > 0


@pytest.mark.parametrize("n_labels", [2, 3])
def test_tfidf_gives_the_probabilities_of_scikit_learns_own_model(n_labels):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    labels = LABELS[:n_labels]
    train = examples_of(labels=labels)
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb", sublinear_tf=True),
    )
    oracle = make_pipeline(features, LogisticRegression(C=10.0, max_iter=200))
    oracle.fit([example.text for example in train], [int(example.target.argmax()) for example in train])
    held_out = [Example("stop", train[0].target, split="held_out")]
    predictions = fit_tfidf([*train, *held_out], labels, Task.SINGLE).route_batch(["stop the order", "unheard"])
    found = np.stack([prediction.probabilities for prediction in predictions])
    assert found == pytest.approx(oracle.predict_proba(["stop the order", "unheard"]), abs=2e-3)


def test_many_labels_are_learnt_one_by_one_and_the_notes_say_so(monkeypatch):
    train = [*examples_of(held_out=3), Example("cancel refund", np.asarray([0.7, 0.3, 0], dtype=np.float32))]
    texts = ["cancel my order", "money back", "a song"]
    together = fit_tfidf(train, LABELS, Task.SINGLE)
    monkeypatch.setattr(baselines, "_MOST_PARAMETERS_AT_ONCE", 0)
    one_by_one = fit_tfidf(train, LABELS, Task.SINGLE)
    assert [answer.intent for answer in one_by_one.route_batch(texts)] == ["cancel", "refund", None]
    assert not together.notes
    assert "each of 3 labels" in one_by_one.notes["fit"]


def test_so_many_labels_that_features_are_left_out(monkeypatch):
    monkeypatch.setattr(baselines, "_MOST_PARAMETERS", 3 * 2 * 10)
    assert fit_tfidf(examples_of(), LABELS, Task.SINGLE).probabilities_of.coefficients.shape == (3, 20)
    assert fit_tfidf(examples_of(), LABELS, Task.MULTI).notes == {"fit": "for want of memory over 20 features"}
    for parameters in (3 * 2 * 10_000, 3 * 2 * 100_000):  # a lower limit that nothing reaches, and none
        monkeypatch.setattr(baselines, "_MOST_PARAMETERS", parameters)
        assert not fit_tfidf(examples_of(), LABELS, Task.MULTI).notes


@pytest.mark.parametrize("texts", [("1", "2"), ("👍 👍", "👎"), ("a b", "c d")])
def test_texts_without_a_word_of_two_letters_are_told_apart_too(texts):
    eye = np.eye(2, dtype=np.float32)
    model = fit_tfidf([Example(text, row) for text, row in zip(texts, eye, strict=True)] * 5, ("x", "y"), Task.SINGLE)
    assert [each.top_intent for each in model.route_batch(texts)] == ["x", "y"]


def test_held_out_queries_are_not_trained_on():
    secret = Example("zanzibar", np.eye(3, dtype=np.float32)[1], split="held_out")
    baseline = fit_tfidf([*examples_of(held_out=3), secret], LABELS, Task.SINGLE)
    known, unknown = baseline.route("zanzibar"), baseline.route("quuxfrob")
    assert known.score == pytest.approx(unknown.score, abs=0.1)


def test_soft_labels_pull_both_ways():
    target = np.asarray([0.7, 0.3], dtype=np.float32)
    train = [Example(text, target) for text in ("show me", "show it", "show this", "show that")]
    baseline = fit_tfidf([*train, Example("show", target, split="held_out")], ("text", "image"), Task.WEIGHTS)
    assert baseline.route("show me").weights == pytest.approx({"text": 0.7, "image": 0.3}, abs=0.02)


def test_multi_learns_labels_one_by_one_whatever_is_always_or_never_there():
    labels = ("always", "never", "cancel")
    train = [
        Example(text, np.asarray([1, 0, "cancel" in text], dtype=np.float32))
        for text in ("cancel it", "please cancel", "cancel now", "hello there", "good day", "hi you") * 3
    ]
    baseline = fit_tfidf(train, labels, Task.MULTI)
    assert set(baseline.route("cancel").intents) == {"always", "cancel"}
    assert baseline.route("hello").intents == ("always",)
    assert baseline.route("hello").probabilities[:2].tolist() == [1.0, 0.0]


def test_a_label_that_never_occurs_has_no_probability():
    labels = ("cancel", "refund", "unused")
    train = [Example(text, np.eye(3, dtype=np.float32)[i]) for i, text in ((0, "stop"), (1, "money")) for _ in range(6)]
    assert fit_tfidf(train, labels, Task.SINGLE).route("stop").scores["unused"] == 0.0


def test_many_intents_of_one_query_each_are_learnt_without_a_word():
    labels = tuple(f"intent_{number}" for number in range(30))
    train = [Example(f"word{number} alone", row) for number, row in enumerate(np.eye(30, dtype=np.float32))]
    assert fit_tfidf(train, labels, Task.SINGLE).route("word7 alone").top_intent == "intent_7"


def test_one_label_alone_is_always_answered():
    train = [Example(text, np.asarray([1, 0], dtype=np.float32)) for text in ("stop it", "halt now", "cease then")]
    assert fit_tfidf(train, ("cancel", "refund"), Task.SINGLE).route("anything").score == 1.0


def test_the_majority_class_is_answered_to_everything():
    train = [*examples_of(4), *examples_of(9)[9:18]]
    predictions = fit_majority(train, LABELS, Task.SINGLE).route_batch(["cancel", "joke"])
    assert [prediction.top_intent for prediction in predictions] == ["refund", "refund"]
    assert predictions[0].probabilities.tolist() == predictions[1].probabilities.tolist()


def test_without_queries_there_is_one_clear_line():
    with pytest.raises(DataError, match="no labelled query"):
        fit_tfidf([], LABELS, Task.SINGLE)
