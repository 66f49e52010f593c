"""From a query to token ids: exactly those of the library ``tokenizers``, in less time.

``tokenizers`` takes any text and is the reference. Two quicker ways give the same ids for printable text:

- ``words``: BERT's rules never look across a space, so that the ids of a text are those of its words in a row. Words that
  were seen before are looked up, most others are taken apart here (``distill.wordpiece``). Part of the default install.
- ``nanotoken``: the package of that name (the extra ``[fast]``), where it gives the reference's ids for a list of hard texts
  and for the bundle's own self-check. It is quick on words that were never seen before, too.

BERT's rules read white space of other kinds as a space, so that line breaks, tabs and no-break spaces go the quick way too. What neither can do
goes to the reference: other kinds of tokenizers, control characters, surrogates. It is opened when it is first needed.
"""

from __future__ import annotations

import os
import re
from array import array
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from distill.errors import BundleError, first_line
from distill.wordpiece import TokenizerFacts, read_wordpiece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tokenizers import Tokenizer

    from distill.wordpiece import WordPiece

    Ids = list[int]

__all__ = ["HARD_TEXTS", "ID_BYTES", "QueryTokenizer", "packed", "unpacked", "without_surrogates"]

_ID = "q"
ID_BYTES = array(_ID).itemsize
"""Of each id in what ``QueryTokenizer.encode`` gives."""

_MOST_WORDS = 16_384
"""Words that are remembered: some 3 MB. Then all are forgotten and learnt again."""
_MOST_LEARNT, _LONGEST_WORD = 8, 32
"""What one query may teach: so many words, of so many characters. Beyond that the reference is quicker, once it is open."""
_MOST_TAKEN_APART = 512
"""Characters of a query's new words, until the reference is open: the most hostile take a millisecond or two."""
_SPACES = str.maketrans(
    dict.fromkeys("\t\n\r\xa0\u1680\u2028\u2029\u202f\u205f\u3000", " ") | {0x2000 + n: " " for n in range(11)}
)
"""For ``str.translate``: the white space that BERT's normaliser makes a space."""
_RUST_PANIC = "PanicException"
"""Name of the exception that a fault in a compiled extension of Rust raises; its base is BaseException."""
_SPACE = re.compile(r"\s")
_SHORT_TEXT = 99
"""Characters: longer texts are no harder."""

HARD_TEXTS = (
    "", " ", "a", "Hello, World!", "don't  stop -- me.now", "UPPER lower MiXeD", "3.14 1,000 #42 50% $9.99 a@b.c http://x.y/z?q=1&r=2",
    "ÄÖÜ ß é ñ İstanbul ΌΣΟΣ ΑΣ ﬁne ½ Ⅷ", "e\u0301 \u0301a a\u0301\u0327 a\u0327\u0301 n\u0303", "\u1100\u1161\u11a8 한국어 각", "你好世界 日本語のテキスト 㐀𠀀",
    "🙂 👩\u200d👩\u200d👧 🇩🇪 👍🏽 ❤\ufe0f", "नमस्ते ไทย עברית العربية", "a\x00b \x07c\x7f d\x0be\x0cf \x1cg", "tab\there\nnew\r\nline\u2028sep\u0085nel",
    "nb\u00a0sp \u2003em \u3000full\u200bzero\u200dwidth\ufeffbom", "\ufffd \ue000 \U000f0000 \ufdd0 \u0378", "[CLS] [SEP] [MASK] [UNK] [PAD] x[SEP]y [cls] <s> </s> <mask>",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "\u201cquoted\u201d \u2018single\u2019 \u2013 — … « » ¿¡ § ©", "\ud800 lone \udc00 \ud83d\ude42 pair", "x" * 99, "x" * 100, "x" * 101, "y" * 5_000,
    "word " * 600, "?!" * 400, "\u0301" * 50, "unaffable antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "ǅ ǲ ŉ ẞ K Å \u017f",
)  # fmt: skip
"""Where tokenizers differ, if they do."""


_opening = Lock()


def _hold_opening() -> None:
    _opening.acquire()


def _let_go_of_opening() -> None:
    _opening.release()


def _begin_anew() -> None:
    global _opening  # noqa: PLW0603 - a server that forks in C may never have taken the one before
    _opening = Lock()
    for each in list(_nanotokens):
        each.forget()


if hasattr(os, "register_at_fork"):  # a child in which nobody is left to finish an import would wait for it for ever
    os.register_at_fork(before=_hold_opening, after_in_parent=_let_go_of_opening, after_in_child=_begin_anew)


def packed(ids: Iterable[int]) -> bytes:
    """Ids as ``QueryTokenizer.encode`` gives them: int64, one after another, in the machine's order of bytes.

    Args:
        ids: Whole numbers; of ``bytes`` eight would be read as one.

    Raises:
        OverflowError: One is no int64.
        TypeError: One is no whole number.
    """
    return array(_ID, ids).tobytes()


def unpacked(ids: bytes) -> Ids:
    """What ``packed`` was given."""
    return array(_ID, ids).tolist()


class QueryTokenizer:
    """Turns a query into ids, special tokens included, cut at ``max_length``. Threads may share it.

    The ids are bytes, as the graph reads them: what a query's words were remembered as is joined, and nothing is made of it for each id.

    Args:
        content: Of a ``tokenizer.json``; what it says of padding and of cutting does not count.
        max_length: Tokens after which a query is cut, special ones included.
        file: Its path, for messages.
        texts: What nanotoken must give the reference's ids for, besides ``HARD_TEXTS``; None: it is not asked for.

    Attributes:
        name: ``nanotoken``, ``words`` or ``tokenizers``: which way printable text goes.
        n_special: Special tokens that every query gets.
        largest_id: Largest id that a query may have.
        pad_id: The padding's; None where the file has no padding.

    Raises:
        BundleError: ``content`` is no tokenizer.
    """

    def __init__(
        self, content: bytes, max_length: int, *, file: Path | None = None, texts: Iterable[str] | None = None
    ) -> None:
        self._file = file or "tokenizer"
        self._reference = _Reference(content, max_length, self._file)
        nanotoken = None
        if texts is not None:
            nanotoken = _nanotoken(content, max_length, self._reference, chain(HARD_TEXTS, texts))
        wordpiece = None if nanotoken else read_wordpiece(content)
        facts = wordpiece.facts if wordpiece else self._reference.facts
        self.n_special, self.largest_id, self.pad_id = facts.n_special, facts.largest_id, facts.pad_id
        self._has_spaces_alone = facts.cleans
        self.name = "tokenizers"
        self._quickly: Callable[[str], bytes] = self._reference.encode
        if max_length <= self.n_special:
            return
        if nanotoken:
            self.name, self._quickly = "nanotoken", nanotoken.encode
        elif facts.ends:
            self.name, self._quickly = "words", _Words(self._reference, wordpiece, facts.ends, max_length).encode

    @property
    def is_open(self) -> bool:
        """Whether the reference was needed so far."""
        return self._reference.is_open

    def encode(self, text: str) -> bytes:
        """The ids of a text, without padding: int64, one after another, in the machine's order of bytes.

        Raises:
            BundleError: The tokenizer fails on it.
        """
        try:
            if text.isprintable():
                return self._quickly(text)
            if self._has_spaces_alone and (spaced := text.translate(_SPACES)).isprintable():
                return self._quickly(spaced)
            return self._reference.encode(text)
        except BaseException as error:
            if isinstance(error, BundleError) or not _is_fault(error):
                raise
            raise BundleError(f"{self._file}: fails on a text: {first_line(error)}") from error

    def probe(self) -> None:
        """Asks the reference for what is hardest on it, unless it is not open: then the file says nothing that is not known.

        Raises:
            BundleError: It fails.
        """
        for text in HARD_TEXTS if self.is_open else ():
            if len(text) < _SHORT_TEXT:
                self.encode(text)

    def by_reference(self, text: str) -> bytes:
        """The ids as the library gives them."""
        return self._reference.encode(text)


class _Reference:
    """The library's tokenizer, opened when it is first needed: some 40 ms and 14 MB."""

    def __init__(self, content: bytes, max_length: int, file: Path | str) -> None:
        self._content, self._max_length, self._file = content, max_length, file
        self._opened: tuple[Tokenizer, TokenizerFacts] | None = None

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def facts(self) -> TokenizerFacts:
        return (self._opened or self._open())[1]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            BundleError: It cannot be opened.
        """
        return (self._opened or self._open())[0]

    def _open(self) -> tuple[Tokenizer, TokenizerFacts]:
        with _opening:
            if self._opened is None:
                try:
                    self._opened = _open(self._content, self._max_length)
                except BaseException as error:
                    if not _is_fault(error):
                        raise
                    raise BundleError(
                        f"{self._file}: not a tokenizer that tokenizers can open: {first_line(error)}"
                    ) from error
                self._content = b""  # of some kinds many megabytes
            return self._opened

    def encode(self, text: str) -> bytes:
        return packed(self.ids(text))

    def ids(self, text: str) -> Ids:
        try:
            # a batch of one: like encode, but without offsets, and other threads may run meanwhile
            ids: Ids = self.tokenizer.encode_batch_fast([text])[0].ids
        except (TypeError, UnicodeError):
            ids = self.tokenizer.encode_batch_fast([without_surrogates(text)])[0].ids
        return ids


class _Words:
    """Ids of words, remembered. What ``wordpiece`` cannot tell, the reference is asked for."""

    def __init__(
        self, reference: _Reference, wordpiece: WordPiece | None, ends: tuple[Ids, Ids], max_length: int
    ) -> None:
        self._reference, self._wordpiece = reference, wordpiece
        self._first, self._last = map(packed, ends)
        self._room = max_length * ID_BYTES - len(self._last)
        self._known: dict[str, bytes] = {}

    def encode(self, text: str) -> bytes:
        """The ids of a printable text: the only white space in it are spaces."""
        words = text.split()
        found = [*map(self._known.get, words)]
        if None in found and not self._learn(words, found):
            return self._reference.encode(text)
        return b"".join((self._first, *found))[: self._room] + self._last  # type: ignore[arg-type]  # no None is left

    def _learn(self, words: list[str], found: list[bytes | None]) -> bool:
        """Fills the gaps in ``found``, as far as there is room; False where the whole text is to go to the reference."""
        n_bytes = len(self._first)
        n_characters = 0
        new: dict[str, bytes] = {}
        for position, word in enumerate(words):
            ids = found[position]
            if ids is None:
                ids = new.get(word)
            if ids is None:
                n_characters += len(word)
                is_open = self._reference.is_open
                is_too_much = len(new) >= _MOST_LEARNT if is_open else n_characters > _MOST_TAKEN_APART
                ids = None if is_too_much else self._ids(word)
                if ids is None:
                    return False
                new[word] = ids
                if len(new) <= _MOST_LEARNT and len(word) <= _LONGEST_WORD:
                    self._remember(word, ids)
            found[position] = ids
            n_bytes += len(ids)
            if n_bytes >= self._room:
                del found[position + 1 :]
                break
        return True

    def _ids(self, word: str) -> bytes | None:
        """None: the reference is not open, or is quicker."""
        if self._reference.is_open and len(word) > _LONGEST_WORD:
            return None
        ids: Iterable[int] | None = self._wordpiece.ids(word) if self._wordpiece else None
        if ids is None and self._reference.is_open:
            ids = self._reference.tokenizer.encode(word, add_special_tokens=False).ids
        return None if ids is None else packed(ids)

    def _remember(self, word: str, ids: bytes) -> None:
        if len(self._known) >= _MOST_WORDS:
            self._known.clear()
        self._known[word] = ids


def _open(content: bytes, max_length: int) -> tuple[Tokenizer, TokenizerFacts]:
    """The library's tokenizer, without padding, and what is to be known of it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    padding = tokenizer.padding
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    ends = _special_ends(tokenizer) if _words_are_apart(tokenizer) else None
    facts = TokenizerFacts(
        ends=ends,
        n_special=int(tokenizer.num_special_tokens_to_add(is_pair=False)),
        largest_id=_largest_id(tokenizer),
        cleans=ends is not None and bool(tokenizer.normalizer.clean_text),
        pad_id=int(padding["pad_id"]) if padding else None,
    )
    return tokenizer, facts


def _largest_id(tokenizer: Tokenizer) -> int:
    """Counted where the ids leave no gap, as they mostly do: listing a vocabulary takes tens of milliseconds."""
    last = int(tokenizer.get_vocab_size()) - 1
    has_no_gap = last >= 0 and tokenizer.id_to_token(last) is not None and tokenizer.id_to_token(last + 1) is None
    return last if has_no_gap else max(tokenizer.get_vocab().values(), default=0)


def _words_are_apart(tokenizer: Tokenizer) -> bool:
    """Whether a text's ids are those of its words in a row, whatever the words are."""
    from tokenizers.models import WordLevel, WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece | WordLevel)
        and not any(_SPACE.search(token.content) for token in tokenizer.get_added_tokens_decoder().values())
    )


def _special_ends(tokenizer: Tokenizer) -> tuple[Ids, Ids] | None:
    """The special tokens before and after every text, unless they stand elsewhere too."""
    encoding = tokenizer.encode("a")
    ids, is_special = encoding.ids, encoding.special_tokens_mask
    if 0 not in is_special:
        return None
    start, stop = is_special.index(0), len(ids) - is_special[::-1].index(0)
    return None if any(is_special[start:stop]) else (ids[:start], ids[stop:])


def _nanotoken(content: bytes, max_length: int, reference: _Reference, texts: Iterable[str]) -> _Nanotoken | None:
    """The quicker way, where the package is installed and gives the reference's ids for ``texts``."""
    try:
        nanotoken = _Nanotoken(content, max_length, reference)
        same = all(nanotoken.ids(text) == reference.ids(text) for text in texts if text.isprintable())
    except BaseException as error:
        if _is_fault(error):  # it is young, and only a quicker way
            return None
        raise
    return nanotoken if same else None


class _Nanotoken:
    """Ids by the package nanotoken; what it fails at, the reference is asked for.

    Its tokenizer is made anew after a fork: a thread that stayed in the parent may have held a lock of the one before.
    """

    def __init__(self, content: bytes, max_length: int, reference: _Reference) -> None:
        self._content, self._max_length, self._reference = content, max_length, reference
        self._encode = self._made()
        _nanotokens.add(self)

    def _made(self) -> Callable[..., list[Ids]]:
        from nanotoken import WordPieceTokenizer, get_cache_entries, set_cache_entries

        set_cache_entries(
            min(get_cache_entries(), _MOST_WORDS)
        )  # by default a million a thread: new words, numbers say, add up
        encode: Callable[..., list[Ids]] = WordPieceTokenizer.from_json(self._content).encode_batch_list
        return encode

    def forget(self) -> None:
        """Has the next text make the tokenizer anew."""
        self._encode = self._encode_anew

    def _encode_anew(self, *given: Any, **options: Any) -> list[Ids]:
        self._encode = self._made()
        return self._encode(*given, **options)

    def ids(self, text: str) -> Ids:
        return self._encode([text], max_length=self._max_length, truncation_side="right", parallel=False)[0]

    def encode(self, text: str) -> bytes:
        try:
            return packed(self.ids(text))
        except BaseException as error:
            if _is_fault(error):
                return self._reference.encode(text)
            raise


_nanotokens: WeakSet[_Nanotoken] = WeakSet()


def _is_fault(error: BaseException) -> bool:
    """Whether it is an error of what was called; not the user's Ctrl-C. Rust's panics are not an ``Exception``."""
    return isinstance(error, Exception) or type(error).__name__ == _RUST_PANIC


def without_surrogates(text: str) -> str:
    """The text with pairs of surrogates joined and lone ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
