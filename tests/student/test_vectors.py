from __future__ import annotations

import pytest
from tiny import make_base_model, pieces_of_any_script

from distill.student.augment import augment
from distill.student.vectors import _whole_words, word_neighbours
from distill.student.weights import load_base_model

TEXTS = ["Pay the bill, please!", "zzz unknownword"]


def test_neighbours_are_other_words_of_the_vocabulary_and_the_nearest_come_first(tmp_path):
    base = load_base_model(str(make_base_model(tmp_path / "base")))
    found = word_neighbours(base, TEXTS)
    assert set(found) == {"pay", "the", "bill", "please"}
    weights = base.body.get_input_embeddings().weight.detach()
    weights = weights - weights.mean(dim=0)
    vocabulary = base.tokenizer.get_vocab()

    def alike(a, b):
        return float(
            weights[vocabulary[a]]
            @ weights[vocabulary[b]]
            / weights[vocabulary[a]].norm()
            / weights[vocabulary[b]].norm()
        )

    for word, others in found.items():
        assert word not in others
        likeness = [alike(word, other) for other in others]
        assert likeness == sorted(likeness, reverse=True)
        rest = [w for w in _whole_words(vocabulary) if w != word and w not in others]
        assert all(alike(word, other) <= likeness[-1] + 1e-6 for other in rest)


def test_a_word_with_a_capital_has_neighbours_that_are_written_as_the_vocabulary_has_them(tmp_path):
    words = ["Rechnung", "Konto", "فاتورة", "حساب", "zahlen"]
    base = load_base_model(str(make_base_model(tmp_path / "base", "roberta", words=words, pieces=pieces_of_any_script)))
    found = word_neighbours(base, ["Rechnung zahlen!", "فاتورة"])
    assert set(found) == {"rechnung", "zahlen", "فاتورة"}
    for word, others in found.items():
        assert sorted([*others, next(each for each in words if each.lower() == word)]) == sorted(words)
    assert {"Konto", "zahlen", "حساب"} <= set(augment(["Rechnung"], 60, 0, found))


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"pay": 3, "##ing": 4, "[CLS]": 0, "x": 5, "7up": 6}, {"pay": 3}),
        ({"pay": 3, "bill": 5, "##ing": 4, "\u0120": 6}, {"pay": 3, "bill": 5}),
        ({"\u0120pay": 3, "pay": 7, "\u0120Pay": 8, "<s>": 0}, {"pay": 3}),
        ({"\u2581pay": 3, "ing": 4}, {"pay": 3}),
        ({"Rechnung": 3, "RECHNUNG": 4, "Pay": 5, "pay": 6}, {"Rechnung": 3, "pay": 6}),
        ({"\u2581حسبة": 3, "\u2581账单": 4, "\u2581हिंदी": 5, "\u258112": 6}, {"حسبة": 3, "账单": 4, "हिंदी": 5}),
        ({"\u0120\u00c3\u00bcber": 3, "\u0120\u00d9\u0127": 4, "\u0120pay": 5}, {"über": 3, "pay": 5}),
    ],
)
def test_whole_words_are_found_in_each_kind_of_vocabulary(vocabulary, words):
    assert _whole_words(vocabulary) == words


def test_words_are_replaced_by_their_neighbours_alone():
    new = augment(["pay the Bill"], 60, 0, {"bill": ["invoice", "debt"]})
    brought = {word for text in new for word in text.split()} - {"pay", "the", "Bill"}
    assert brought == {"invoice", "debt"}
