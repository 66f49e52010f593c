"""New texts from known ones, for the encoder to label."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence

__all__ = ["Neighbours", "augment", "plain_word"]

_DROPOUT = 0.2
_SPLICE_AT = (0.3, 0.7)
_NEIGHBOUR = 0.3
_MORE_NEIGHBOURS = 0.5

Neighbours = Mapping[str, Sequence[str]]
"""Words that may stand in place of a word (lower case)."""


def augment(texts: Sequence[str], times: int, seed: int, neighbours: Neighbours | None = None) -> list[str]:
    """Distinct new texts: words left out, two queries spliced, words swapped, taken from another query or replaced by neighbours.

    The texts need not make sense: they show the student what the encoder thinks between the known queries, and of words
    that no query holds.

    Args:
        texts: What to vary.
        times: New texts for each one, at most.
        seed: The same seed gives the same texts.
        neighbours: Similar words of a word, in lower case; a word that is not in it is never replaced.
    """
    chance = random.Random(seed)  # noqa: S311
    split = [text.split() for text in texts]
    known = set(texts)
    for words in split:
        for turn in range(times):
            vary, share = _VARIATIONS[turn % len(_VARIATIONS)]
            new = " ".join(_replace_by_neighbours(vary(words, split, chance), neighbours or {}, share, chance))
            if new:
                known.add(new)
    return sorted(known.difference(texts))


def _replace_by_neighbours(words: list[str], neighbours: Neighbours, share: float, chance: random.Random) -> list[str]:
    near = (neighbours.get(plain_word(word)) if chance.random() < share else None for word in words)
    return [chance.choice(others) if others else word for word, others in zip(words, near, strict=True)]


def plain_word(word: str) -> str:
    """A word without case and without punctuation around it."""
    return word.strip(string.punctuation).lower()


def _keep(words: list[str], _split: list[list[str]], _chance: random.Random) -> list[str]:
    return words


def _drop(words: list[str], _split: list[list[str]], chance: random.Random) -> list[str]:
    kept = [word for word in words if chance.random() >= _DROPOUT]
    return kept or [chance.choice(words)] if words else []


def _splice(words: list[str], split: list[list[str]], chance: random.Random) -> list[str]:
    other = chance.choice(split)
    start, end = (round(chance.uniform(*_SPLICE_AT) * len(part)) for part in (words, other))
    return words[:start] + other[end:] if chance.random() < 0.5 else other[:end] + words[start:]  # noqa: PLR2004


def _replace(words: list[str], split: list[list[str]], chance: random.Random) -> list[str]:
    other = chance.choice(split)
    return [chance.choice(other) if other and chance.random() < _DROPOUT else word for word in words]


def _swap(words: list[str], split: list[list[str]], chance: random.Random) -> list[str]:
    swapped = _drop(words, split, chance)
    if len(swapped) > 1:
        place = chance.randrange(len(swapped) - 1)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    return swapped


_VARIATIONS = (
    (_drop, _NEIGHBOUR),
    (_splice, _NEIGHBOUR),
    (_replace, _NEIGHBOUR),
    (_swap, _NEIGHBOUR),
    (_keep, _NEIGHBOUR),
    (_keep, _MORE_NEIGHBOURS),
)
"""How a text is varied, and which share of its words is then replaced by neighbours."""
