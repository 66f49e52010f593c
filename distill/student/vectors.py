"""First vectors and weights of the static student's tokens."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers.decoders import ByteLevel

from distill.student.augment import plain_word, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from distill.student.augment import Neighbours
    from distill.student.tokens import Ids
    from distill.student.weights import BaseModel

__all__ = ["Lexicon", "first_gates", "lexicon", "token_vectors", "word_neighbours"]

_NEIGHBOURS = 10
_WORDS_AT_ONCE = 256
_BYTES_MARK, _PART_MARK = "\u0120", "##"
_WORD_MARKS = (_BYTES_MARK, "\u2581")
"""What stands before a word's first token: in byte-level BPE, in SentencePiece. WordPiece marks the others; a letter of its own may be either."""

_SMOOTHING = 1e-3
"""``a`` of smooth inverse frequency, a / (a + p) (Arora et al., ICLR 2017)."""


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """What the pretrained transformer knows of words, taken before it is trained in place.

    Attributes:
        vectors: float32 of shape (vocabulary, dimension): the tokens' first vectors.
        neighbours: Similar words of each word of the training texts.
    """

    vectors: Tensor
    neighbours: Neighbours


def lexicon(base: BaseModel, texts: Sequence[str], dimension: int) -> Lexicon:
    """Reads a lexicon from a base model that has not been trained yet."""
    return Lexicon(token_vectors(base, dimension), word_neighbours(base, texts))


def token_vectors(base: BaseModel, dimension: int) -> Tensor:
    """The transformer's input embeddings, centred, by principal components.

    What the transformer makes of each token alone (as in model2vec) was tried as well, before and after its training: no better here, and it
    costs a pass over the vocabulary.

    Args:
        base: Before it is trained.
        dimension: Columns of the result, at most the transformer's.

    Returns:
        float32 of shape (vocabulary, dimension), with unit mean square.
    """
    body: Any = base.body
    weights: Tensor = body.get_input_embeddings().weight.detach().float()
    vectors = weights - weights.mean(dim=0)
    _, directions = torch.linalg.eigh(vectors.T @ vectors)
    reduced = vectors @ directions.flip(1)[:, :dimension]
    scaled: Tensor = (reduced / reduced.square().mean().sqrt()).contiguous()
    return scaled


def word_neighbours(base: BaseModel, texts: Sequence[str]) -> dict[str, list[str]]:
    """The words of the vocabulary that the pretrained transformer holds for most alike, for each word of some texts.

    By cosine of the input embeddings. Through texts varied by such words the static student learns what the encoder thinks of
    words that no query holds.

    Args:
        base: Before it is trained.
        texts: Whose words are looked up; words that are no token of their own have no neighbours.

    Returns:
        Up to ten words by word. Words are looked up in lower case; the others are written as the vocabulary has them.
    """
    body: Any = base.body
    weights = body.get_input_embeddings().weight.detach().float()
    ids = _whole_words(base.tokenizer.get_vocab())
    words = list(ids)
    vectors = torch.nn.functional.normalize(weights[list(ids.values())] - weights.mean(dim=0))
    place = {word.lower(): position for position, word in enumerate(words)}
    wanted = sorted({plain for text in texts for word in words_of(text) if (plain := plain_word(word)) in place})
    found: dict[str, list[str]] = {}
    for start in range(0, len(wanted), _WORDS_AT_ONCE):
        chunk = wanted[start : start + _WORDS_AT_ONCE]
        alike = vectors[[place[word] for word in chunk]] @ vectors.T
        nearest = alike.topk(min(_NEIGHBOURS + 1, len(words))).indices.tolist()
        found |= {
            word: [words[other] for other in row if other != place[word]]
            for word, row in zip(chunk, nearest, strict=True)
        }
    return found


def _whole_words(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Words of letters that are one token, and its id: WordPiece has no mark on them, BPE and SentencePiece have.

    Of a word that is there with and without capitals the form with the fewest counts.
    """
    mark = max((_PART_MARK, *_WORD_MARKS), key=lambda each: sum(token.startswith(each) for token in vocabulary))
    mark = "" if mark == _PART_MARK else mark
    read = ByteLevel().decode if mark == _BYTES_MARK else "".join
    tokens = ((read([token]).strip().removeprefix(mark), token) for token in vocabulary if token.startswith(mark))
    forms: dict[str, tuple[str, int]] = {}
    for word, token in sorted(tokens, key=lambda each: (sum(map(str.isupper, each[0])), each)):
        if len(word) > 1 and _is_of_letters(word):
            forms.setdefault(word.lower(), (word, vocabulary[token]))
    return dict(sorted(forms.values()))


def _is_of_letters(word: str) -> bool:
    """Whether it holds letters alone, with the marks that belong to them: Hindi writes vowels so."""
    return word.isalpha() or (word[0].isalpha() and all(unicodedata.category(sign)[0] in "LM" for sign in word))


def first_gates(texts: Sequence[Ids], vocabulary: int) -> Tensor:
    """Weight of each token by how rare it is in the texts: float32 of shape (vocabulary,), 1 for what never occurs."""
    counts: Counter[int] = Counter(token for ids in texts for token in ids)
    frequencies: np.ndarray[Any, Any] = np.zeros(vocabulary)
    total = counts.total()
    for token, count in counts.items():
        frequencies[token] = count / total
    return torch.from_numpy((_SMOOTHING / (_SMOOTHING + frequencies)).astype(np.float32))
