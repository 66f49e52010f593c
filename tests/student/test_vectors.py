from __future__ import annotations

import pytest
from tiny import make_base_model

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


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"pay": 3, "##ing": 4, "[CLS]": 0, "x": 5, "7up": 6}, {"pay": 3}),
        ({"\u0120pay": 3, "pay": 7, "\u0120Pay": 8, "<s>": 0}, {"pay": 3}),
        ({"\u2581pay": 3, "ing": 4}, {"pay": 3}),
    ],
)
def test_whole_words_are_found_in_each_kind_of_vocabulary(vocabulary, words):
    assert _whole_words(vocabulary) == words


def test_words_are_replaced_by_their_neighbours_alone():
    new = augment(["pay the Bill"], 60, 0, {"bill": ["invoice", "debt"]})
    brought = {word for text in new for word in text.split()} - {"pay", "the", "Bill"}
    assert brought == {"invoice", "debt"}
