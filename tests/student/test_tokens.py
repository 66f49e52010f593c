"""Token ids of texts."""

from __future__ import annotations

import pytest
from tiny import WORDS, word_pieces

from distill.student import tokens
from distill.student.tokens import encode


@pytest.mark.parametrize("n_texts", [0, 2, 5, 6])
def test_ids_of_many_texts_are_those_of_each(monkeypatch, n_texts):
    monkeypatch.setattr(tokens, "_ENCODED_AT_ONCE", 2)
    tokenizer = word_pieces({"unk": "[UNK]"}, [word for words in WORDS.values() for word in words])
    texts = ["hello", "pay bill card", "", "fly", "zebra hi", "hotel ticket"][:n_texts]
    assert encode(tokenizer, texts) == [tokenizer.encode(text).ids for text in texts]
