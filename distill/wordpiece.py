"""BERT's rules in Python, for words of Latin, Greek and Cyrillic letters and of signs: who asks about nothing else never opens the library ``tokenizers``.

To import it and to read a vocabulary with it takes 14 MB, and a good part of a start. Here the vocabulary is one sorted array. Whatever is not
plain (other scripts, most emoji, control characters) is left to the library, and so is every tokenizer whose file says anything that is not known here.

The rules are those of ``BertNormalizer``, ``BertPreTokenizer`` and ``WordPiece`` in ``tokenizers``, which are BERT's (Devlin et al., 2019: ``tokenization.py``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any
from unicodedata import category, normalize

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TokenizerFacts", "WordPiece", "read_wordpiece"]

_LARGEST_ID = 2**32 - 1
_LONGEST_WORD, _LONGEST_TOKEN = 64, 64
"""Characters of a word that is looked up here, and bytes of a token: the array of tokens is as wide as the longest."""
_PLAIN_WORD = re.compile("[!-~\u00a1-\u00ac\u00ae-\u052f\u1e00-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\u2bff]+")
"""What Python's version of Unicode and the library's read alike."""
_SPACE = re.compile(r"\s")
_MEMBERS = re.compile(rb'(?:\s*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:\s*+\d++\s*+,?+){1,256}+')
"""Some of an object's members whose values are numbers."""
_TRUNCATION = {"direction", "max_length", "strategy", "stride"}
_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
"""How a token is added that is looked for in a text as it stands."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What is to be known of a tokenizer besides the ids of words.

    Attributes:
        ends: Ids before and after every text, if a text's others are those of its words in a row; otherwise None.
        n_special: How many special tokens every text gets.
        largest_id: Of all tokens.
        cleans: Whether other white space is read as a space.
        pad_id: The padding's, where there is one.
    """

    ends: tuple[list[int], list[int]] | None
    n_special: int
    largest_id: int
    cleans: bool
    pad_id: int | None


@dataclass(frozen=True)
class _Vocabulary:
    """Tokens, UTF-8, in order, and the number of each."""

    tokens: np.ndarray[Any, np.dtype[np.bytes_]]
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    longest: int

    def number(self, token: str) -> int | None:
        wanted = token.encode()
        if len(wanted) > self.longest:  # numpy would make all tokens as wide
            return None
        place = self.tokens.searchsorted(wanted)
        is_there = place < len(self.tokens) and self.tokens[place] == wanted
        return int(self.numbers[place]) if is_there else None

    def beginning(self, text: bytes) -> tuple[int, int] | None:
        """Number and length of the longest token that a text begins with; None: with none.

        Tokens that it begins with stand before it in the order, and the last before it shares the most with it: if that is none of
        them, they are in what the two share.
        """
        text = text[: self.longest]
        while text:
            place = int(self.tokens.searchsorted(text, "right")) - 1
            before: bytes = self.tokens[place] if place >= 0 else b""
            if not before:
                return None
            if text.startswith(before):
                return int(self.numbers[place]), len(before)
            text = text[: next(n for n, (one, other) in enumerate(zip(text, before, strict=False)) if one != other)]
        return None


@dataclass(frozen=True)
class WordPiece:
    """A tokenizer like BERT's.

    Attributes:
        facts: What its file says.
    """

    facts: TokenizerFacts
    _vocabulary: _Vocabulary
    _unknown: int
    _prefix: str
    _added: tuple[str, ...]
    _added_are_words: bool
    _lowers: bool
    _strips: bool

    def ids(self, word: str) -> tuple[int, ...] | None:
        """The ids of a printable text without white space; None: only the library can tell."""
        if len(word) > _LONGEST_WORD:
            return None
        if word.isascii() and word.isalnum() and not self._added_are_words:
            return tuple(self._ids_of_piece(word.lower() if self._lowers else word))
        if not _PLAIN_WORD.fullmatch(word) or any(added in word for added in self._added):
            return None
        normal = self._normalised(word)
        if len(normal) > _LONGEST_WORD:  # of one letter some lower cases are two
            return None
        return tuple(chain.from_iterable(map(self._ids_of_piece, _pieces(normal))))

    def _normalised(self, word: str) -> str:
        if word.isascii():
            return word.lower() if self._lowers else word
        if self._strips:
            word = "".join(each for each in normalize("NFD", word) if category(each) != "Mn")
        # each for itself: the last sigma of a word is like any other
        return "".join(map(str.lower, word)) if self._lowers else word

    def _ids_of_piece(self, piece: str) -> list[int]:
        """The longest token that a piece begins with, then of the rest; of what has an unknown part all is unknown."""
        ids: list[int] = []
        rest, prefix = piece.encode(), b""
        while rest:
            found = self._vocabulary.beginning(prefix + rest)
            if found is None or found[1] <= len(prefix):
                return [self._unknown]
            ids.append(found[0])
            rest, prefix = rest[found[1] - len(prefix) :], self._prefix.encode()
        return ids


def _pieces(word: str) -> list[str]:
    """A word's punctuation apart, each sign for itself."""
    if word.isalnum():
        return [word]
    pieces: list[str] = []
    for is_sign, group in groupby(word, _is_punctuation):
        characters = [*group]
        pieces += characters if is_sign else ["".join(characters)]
    return pieces


def _is_punctuation(character: str) -> bool:
    """As BERT has it: of ASCII all but letters and digits."""
    return not character.isalnum() if character.isascii() else category(character).startswith("P")


def read_wordpiece(content: bytes) -> WordPiece | None:
    """What a ``tokenizer.json`` says; None where only the library can tell what it means, or whether it is one."""
    if (
        b'"WordPiece"' not in content or b"\\u0000" in content
    ):  # other kinds may be megabytes long; numpy cuts zeros off
        return None
    try:
        start = content.index(b"{", content.index(b'"vocab"'))
        vocabulary, end = _read_vocabulary(content, start + 1)
        return _read(json.loads(b"%b{%b" % (content[:start], content[end:])), vocabulary)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        return None


def _read_vocabulary(content: bytes, start: int) -> tuple[_Vocabulary, int]:
    """The members of an object, and where they end. In parts: all at once, as Python's objects, would leave holes of megabytes in the process's memory."""
    tokens, numbers = [], []
    while found := _MEMBERS.match(content, start):
        members = json.loads(b"{%b}" % found.group().rstrip(b" \t\r\n,"))
        encoded = [token.encode() for token in members]
        _expect(max(map(len, encoded)) <= _LONGEST_TOKEN)
        tokens.append(np.array(encoded))
        numbers.append(np.fromiter(members.values(), np.int64))
        start = found.end()
    all_tokens = np.concatenate(tokens)
    order = all_tokens.argsort()
    vocabulary = _Vocabulary(all_tokens[order], np.concatenate(numbers)[order], all_tokens.itemsize)
    _expect(
        bool((vocabulary.tokens[1:] != vocabulary.tokens[:-1]).all()) and int(vocabulary.numbers.max()) <= _LARGEST_ID
    )
    return vocabulary, start


def _read(file: dict[str, Any], vocabulary: _Vocabulary) -> WordPiece:
    """Of a file whose vocabulary is taken out."""
    model, normalizer = file["model"], file["normalizer"]
    strips = normalizer["strip_accents"]
    _expect(file["version"] == "1.0" and file["pre_tokenizer"] == {"type": "BertPreTokenizer"})
    _expect(normalizer["type"] == "BertNormalizer")
    _flag(normalizer["handle_chinese_chars"])  # none of which is plain
    _expect(file["padding"] is None and (file["truncation"] is None or file["truncation"].keys() == _TRUNCATION))
    _expect(file["decoder"] is None or file["decoder"]["type"] == "WordPiece")
    _expect(model["type"] == "WordPiece" and model["vocab"] == {})
    _expect(model["max_input_chars_per_word"] >= _LONGEST_WORD and isinstance(model["continuing_subword_prefix"], str))
    for token in file["added_tokens"]:  # the library gives one that the vocabulary lacks a number of its own
        _expect(token | _ADDED == token and bool(token["content"]) and not _SPACE.search(token["content"]))
        _expect(vocabulary.number(token["content"]) == token["id"])
    added = tuple(token["content"] for token in file["added_tokens"])
    unknown = vocabulary.number(model["unk_token"])
    if unknown is None:
        raise ValueError("no token for what is unknown")
    ends = _ends(file["post_processor"])
    facts = TokenizerFacts(
        ends=ends,
        n_special=sum(map(len, ends)),
        largest_id=int(vocabulary.numbers.max()),
        cleans=_flag(normalizer["clean_text"]),
        pad_id=None,
    )
    return WordPiece(
        facts=facts,
        _vocabulary=vocabulary,
        _unknown=unknown,
        _prefix=model["continuing_subword_prefix"],
        _added=added,
        _added_are_words=any(map(str.isalnum, added)),
        _lowers=_flag(normalizer["lowercase"]),
        _strips=_flag(normalizer["lowercase"] if strips is None else strips),
    )


def _ends(post_processor: Mapping[str, Any] | None) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and after the text, which stands there once."""
    if post_processor is None:
        return [], []
    _expect(post_processor["type"] == "TemplateProcessing")
    single, pair = (
        [_special_ids(part, post_processor["special_tokens"]) for part in post_processor[template]]
        for template in ("single", "pair")
    )
    _expect(
        single.count(None) == 1
        and post_processor["single"][single.index(None)]["Sequence"]["id"] == "A"
        and pair.count(None) > 0
    )
    place = single.index(None)
    return [*chain(*filter(None, single[:place]))], [*chain(*filter(None, single[place + 1 :]))]


def _special_ids(part: Mapping[str, Any], special_tokens: Mapping[str, Any]) -> list[int] | None:
    """Of a part of a template; None: the text, or in a pair one of the two."""
    if "SpecialToken" in part:
        ids = list(special_tokens[part["SpecialToken"]["id"]]["ids"])
        _expect(all(type(number) is int and 0 <= number <= _LARGEST_ID for number in ids))
        return ids
    _expect(part["Sequence"]["id"] in ("A", "B"))
    return None


def _flag(value: Any) -> bool:
    _expect(isinstance(value, bool))
    return bool(value)


def _expect(is_known: bool) -> None:
    """Raises ``ValueError`` where a file says something else than what is known here."""
    if not is_known:
        raise ValueError("not of the kind that is known here")
