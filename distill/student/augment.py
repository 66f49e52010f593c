"""New texts from known ones, for the encoder to label."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["augment"]

_DROPOUT = 0.2
_SPLICE_AT = (0.3, 0.7)


def augment(texts: Sequence[str], times: int, seed: int) -> list[str]:
    """Distinct new texts: words left out, two queries spliced, words swapped or taken from another query.

    The texts need not make sense: they show the student what the encoder thinks between the known queries.

    Args:
        texts: What to vary.
        times: New texts for each one, at most.
        seed: The same seed gives the same texts.
    """
    chance = random.Random(seed)  # noqa: S311
    split = [text.split() for text in texts]
    known = set(texts)
    for words in split:
        for turn in range(times):
            new = " ".join(_VARIATIONS[turn % len(_VARIATIONS)](words, split, chance))
            if new:
                known.add(new)
    return sorted(known.difference(texts))


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


_VARIATIONS = (_drop, _splice, _replace, _swap)
