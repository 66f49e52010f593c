"""New texts from known ones, for the encoder to label."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence

__all__ = ["Neighbours", "augment", "more_texts", "plain_word", "words_of"]

_DROPOUT = 0.2
_SPLICE_AT = (0.3, 0.7)
_NEIGHBOUR = 0.3
_MORE_NEIGHBOURS = 0.5
_SAME_GROUP, _WITH_NEIGHBOURS = 0.8, 0.7
_JOIN_AT = (0.2, 0.8)
_TAKEN_OVER = 0.25
_MOST_INSERTED = 4
_TRIES = 4
"""For each text that is wanted: most that are made of two short ones are there already."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SIGNS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3"
"""Scripts without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han), and signs in them that belong to the letter before."""

_HAS_UNSPACED, _PIECE = re.compile(f"[{_UNSPACED}]"), re.compile(f"[{_UNSPACED}][{_SIGNS}]*|[^{_UNSPACED}]+")
_JOINT = re.compile(f"(?<=[{_UNSPACED}])\0|\0(?=[{_UNSPACED}])")

_AROUND = string.punctuation + " "

Neighbours = Mapping[str, Sequence[str]]
"""Words that may stand in place of a word, which is in lower case."""


def augment(texts: Sequence[str], times: int, seed: int, neighbours: Neighbours | None = None) -> list[str]:
    """Distinct new texts: words left out, two queries spliced, words swapped, taken from another query or replaced by neighbours.

    The texts need not make sense: they show the student what the encoder thinks between the known queries, and of words
    that no query holds.

    Args:
        texts: What to vary.
        times: New texts for each one, at most.
        seed: The same seed gives the same texts.
        neighbours: Similar words of a word in lower case; a word that is not in it is never replaced.
    """
    chance = random.Random(seed)  # noqa: S311
    split = [words_of(text) for text in texts]
    known = set(texts)
    for words in split:
        for turn in range(times):
            vary, share = _VARIATIONS[turn % len(_VARIATIONS)]
            new = _text_of(_replace_by_neighbours(vary(words, split, chance), neighbours or {}, share, chance))
            if new:
                known.add(new)
    return sorted(known.difference(texts))


def more_texts(
    texts: Sequence[str],
    groups: Sequence[int],
    n: int,
    seed: int,
    neighbours: Neighbours | None = None,
    known: Sequence[str] = (),
) -> list[str]:
    """About ``n`` more distinct texts: half varied as by ``augment``, half made of two texts that mostly are of one group.

    Args:
        texts: What to vary.
        groups: A number for each text; texts of one label have the same.
        n: How many, at most.
        seed: The same seed gives the same texts.
        neighbours: As for ``augment``.
        known: Texts that are there already, and are not given again.
    """
    chance = random.Random(seed)  # noqa: S311
    taken = {*texts, *known}
    half = n // 2
    varied = [text for text in augment(texts, -(-half // max(len(texts), 1)), seed, neighbours) if text not in taken]
    chance.shuffle(varied)
    new = set(varied[:half])
    split = [words_of(text) for text in texts]
    alike: dict[int, list[list[str]]] = {}
    for group, words in zip(groups, split, strict=True):
        alike.setdefault(group, []).append(words)
    for _ in range(_TRIES * n if texts else 0):
        if len(new) >= n:
            break
        place = chance.randrange(len(split))
        other = chance.choice(alike[groups[place]] if chance.random() < _SAME_GROUP else split)
        share = _NEIGHBOUR if chance.random() < _WITH_NEIGHBOURS else 0.0
        text = _text_of(_replace_by_neighbours(_joined(split[place], other, chance), neighbours or {}, share, chance))
        if text and text not in taken:
            new.add(text)
    return sorted(new)


def _joined(words: list[str], other: list[str], chance: random.Random) -> list[str]:
    """The start of one with the end of the other, or some words of the other in place of, or between, those of the one."""
    way = chance.random()
    if way < 0.5:  # noqa: PLR2004
        start, end = (round(chance.uniform(*_JOIN_AT) * len(part)) for part in (words, other))
        return words[:start] + other[end:]
    if way < 0.75:  # noqa: PLR2004
        return [chance.choice(other) if other and chance.random() < _TAKEN_OVER else word for word in words]
    place, start = chance.randrange(len(words) + 1), chance.randrange(len(other) + 1)
    return words[:place] + other[start : start + chance.randint(1, _MOST_INSERTED)] + words[place:]


def _replace_by_neighbours(words: list[str], neighbours: Neighbours, share: float, chance: random.Random) -> list[str]:
    near = (neighbours.get(plain_word(word)) if chance.random() < share else None for word in words)
    return [
        " " * word.startswith(" ") + chance.choice(others) if others else word
        for word, others in zip(words, near, strict=True)
    ]


def words_of(text: str) -> list[str]:
    """What a text is varied by: its words, or its letters where the script has no spaces between words.

    Where a text is of such a script, a space that it has all the same stays in front of the letter after it.
    """
    words = text.split()
    if not _HAS_UNSPACED.search(text):
        return words
    pieces: list[str] = []
    for word in words:
        first, *others = _PIECE.findall(word)
        pieces += [f" {first}" if pieces else first, *others]
    return pieces


def _text_of(words: Sequence[str]) -> str:
    text = "\0".join(words).replace("\0 ", " ")
    return _JOINT.sub("", text).replace("\0", " ").strip()


def plain_word(word: str) -> str:
    """A word without case and without punctuation around it."""
    return word.strip(_AROUND).lower()


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
