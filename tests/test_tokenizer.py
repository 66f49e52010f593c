from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bundles import build_bundle, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

import distill.tokenizer
from distill.errors import BundleError
from distill.router import Router
from distill.tokenizer import HARD_TEXTS, QueryTokenizer, _open, packed, unpacked
from distill.wordpiece import read_wordpiece

MAX_LENGTH = 24
LETTERS = "abcdeilnorstuxyz019"
WORDS = ("where", "is", "parcel", "Refund", "don't", "un##", "über", "naïve", "ΑΣ", "你", "好", "ß", "İ", "é", "[", "]", "?", ".", "'")  # fmt: skip
SPACES = "\t\n\r\u00a0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece(*, lowercase=True, strip_accents=None, ends=True, added=(), max_word=100, clean_text=True, whole=False):
    """A BERT tokenizer with a small vocabulary: some words, and letters inside and at the start of a word."""
    pieces = dict.fromkeys([*SPECIAL, *WORDS, *(word.lower() for word in WORDS), *LETTERS, *LETTERS.upper()])
    pieces |= dict.fromkeys(
        [f"##{letter}" for letter in LETTERS] + ["##ing", "##s", "##cel", "##'", "i\u0307", "##i", "##\u0307"]
    )
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=max_word)  # noqa: S106
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]") if whole else model)  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, clean_text=clean_text
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if ends:
        numbers = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=numbers)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(added))
    return tokenizer


KINDS = {
    "uncased": {},
    "cased": {"lowercase": False},
    "cased, accents stripped": {"lowercase": False, "strip_accents": True},
    "accents kept": {"strip_accents": False},
    "no special tokens": {"ends": False},
    "short words": {"max_word": 5},
    "a plain word added": {"added": ["parc"]},
    "added to what is normalised": {"added": [AddedToken("refund", normalized=True, single_word=True)]},
    "added with room": {"added": [AddedToken("<x>", lstrip=True, rstrip=True)]},
    "white space kept": {"clean_text": False},
    "whole words": {"whole": True},
    "added and plain when normalised": {
        "added": [AddedToken("pärc", normalized=True), AddedToken("\u212a9", normalized=True)]
    },
}


def content(tokenizer):
    return tokenizer.to_str().encode()


def reference(tokenizer, text):
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return tokenizer.encode(joined).ids


def ids_of(tokenizer, text):
    return unpacked(tokenizer.encode(text))


pieces = st.one_of(
    st.sampled_from([*WORDS, *SPECIAL, *HARD_TEXTS, "İ" * 33, "İ" * 51, "<x>", "parc", "k9", " "]),
    st.text(st.characters(), max_size=8),  # surrogates included
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    st.text(LETTERS, max_size=8),
    st.text(SPACES, max_size=2),
    st.text(st.sampled_from("\u0301\u0327a \u1100\u1161\u11a8Σ\u03c3ςİßK"), max_size=6),
)
texts = st.lists(pieces, max_size=12).map("".join) | st.lists(pieces, max_size=12).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@given(asked=st.lists(texts, min_size=1, max_size=4))
def test_any_text_gets_the_ids_of_the_reference(kind, asked):
    quick, plain = QueryTokenizer(content(wordpiece(**KINDS[kind])), MAX_LENGTH), wordpiece(**KINDS[kind])
    plain.enable_truncation(MAX_LENGTH)
    assert quick.name == "words"
    for text in [*asked, *asked]:  # what was learnt and what is remembered
        assert ids_of(quick, text) == reference(plain, text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [3, 4, 7, 500])
def test_hard_texts_get_the_ids_of_the_reference(kind, max_length):
    quick, plain = QueryTokenizer(content(wordpiece(**KINDS[kind])), max_length), wordpiece(**KINDS[kind])
    plain.enable_truncation(max_length)
    for text in HARD_TEXTS * 2:
        assert ids_of(quick, text) == reference(plain, text)


def test_a_word_of_the_vocabulary_that_the_model_finds_too_long_stays_unknown():
    quick = QueryTokenizer(content(wordpiece(max_word=5)), MAX_LENGTH)
    assert ids_of(quick, "parcel where") == reference(wordpiece(max_word=5), "parcel where")
    assert ids_of(quick, "parcel") != ids_of(QueryTokenizer(content(wordpiece()), MAX_LENGTH), "parcel")


def test_words_are_remembered(monkeypatch):
    quick = QueryTokenizer(content(wordpiece()), MAX_LENGTH)
    first = ids_of(quick, "where is my parcel?")
    monkeypatch.setattr(quick._quickly.__self__, "_ids", None)  # asked about nothing more
    assert ids_of(quick, "where is my parcel?") == first
    assert ids_of(quick, "parcel?  is   my") == reference(wordpiece(), "parcel?  is   my")


def test_every_white_space_goes_the_quick_way(monkeypatch):
    quick = QueryTokenizer(content(wordpiece()), MAX_LENGTH)
    text = "\r\nwhere" + "".join(f"{space}parcel" for space in SPACES) + "\n"
    monkeypatch.setattr(quick._reference, "encode", None)
    assert ids_of(quick, text) == reference(wordpiece(), text)


def test_one_query_teaches_few_and_short_words_only():
    quick = QueryTokenizer(content(wordpiece()), 200)
    known = quick._quickly.__self__._known
    many = " ".join(f"a{number}" for number in range(20))
    for n_known in (8, 16, 20, 20):
        assert ids_of(quick, many) == reference(wordpiece(), many)
        assert len(known) == n_known
    long = "b" * 33
    assert ids_of(quick, long) == reference(wordpiece(), long)
    assert long not in known


@pytest.mark.parametrize("ends", [True, False])
def test_the_reference_stays_shut_until_something_needs_it(ends):
    quick, plain = QueryTokenizer(content(wordpiece(ends=ends)), MAX_LENGTH), wordpiece(ends=ends)
    plain.enable_truncation(MAX_LENGTH)
    quick.probe()
    asked = [
        "",
        "where is my parcel?",
        "naïve ΑΣ über\n",
        "x " * 40,
        "y" * 64,
        " ".join(f"e{number}" for number in range(150)),
    ]
    assert [ids_of(quick, text) for text in asked] == [reference(plain, text) for text in asked]
    assert not quick.is_open


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_file_says_is_what_the_library_says(kind):
    left_to_the_library = {
        "short words",
        "whole words",
        "a plain word added",
        "added to what is normalised",
        "added with room",
        "added and plain when normalised",
    }
    written = content(wordpiece(**KINDS[kind]))
    known = read_wordpiece(written)
    assert (known is None) is (kind in left_to_the_library)
    assert known is None or known.facts == _open(written, MAX_LENGTH)[1]


def test_who_comes_while_the_reference_is_opened_waits_for_it(monkeypatch):
    quick, plain, opened = QueryTokenizer(content(wordpiece()), MAX_LENGTH), wordpiece(), []
    monkeypatch.setattr(
        distill.tokenizer, "_open", lambda *given: opened.append(given) or time.sleep(0.1) or _open(*given)
    )
    start = threading.Barrier(8)

    def work(_):
        start.wait()
        return ids_of(quick, "你好")

    with ThreadPoolExecutor(8) as pool:
        assert all(found == reference(plain, "你好") for found in pool.map(work, range(8)))
    assert len(opened) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_until_the_reference_is_open():
    assert distill.tokenizer._opening.acquire()
    threading.Timer(0.2, distill.tokenizer._opening.release).start()
    child = os.fork()
    if child == 0:
        os._exit(distill.tokenizer._opening.locked())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not distill.tokenizer._opening.locked()


def test_a_reference_that_cannot_be_opened_is_an_error_of_the_bundle(monkeypatch):
    quick = QueryTokenizer(content(wordpiece()), MAX_LENGTH, file=Path("x/tokenizer.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert ids_of(quick, "parcel") == reference(wordpiece(), "parcel")
    with pytest.raises(BundleError, match=r"x/tokenizer\.json: not a tokenizer that tokenizers can open: .*tokenizers"):
        ids_of(quick, "你好")


@pytest.mark.parametrize(
    "text",
    ["你好", "🙂", "a\x00b", "parcel [SEP]", "y" * 65, " ".join(f"e{number}" for number in range(200))],
    ids=["Chinese", "emoji", "control", "special token", "long word", "many new words"],
)
def test_the_reference_is_opened_for_what_is_not_plain(text):
    quick, plain = QueryTokenizer(content(wordpiece()), 500), wordpiece()
    assert ids_of(quick, text) == reference(plain, text)
    assert quick.is_open
    assert ids_of(quick, "where is é parcel") == reference(plain, "where is é parcel")


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(distill.tokenizer, "_MOST_WORDS", 5)
    quick = QueryTokenizer(content(wordpiece()), MAX_LENGTH)
    for number in range(50):
        assert ids_of(quick, f"x{number} parcel") == reference(wordpiece(), f"x{number} parcel")
        assert len(quick._quickly.__self__._known) <= 5


def test_a_new_word_counts_once_however_often_it_stands_in_a_query():
    quick = QueryTokenizer(content(wordpiece()), 500)
    text = "parcelparcelparcel " * 60
    assert ids_of(quick, text) == reference(wordpiece(), text)
    assert not quick.is_open


def test_threads_share_what_is_remembered(monkeypatch):
    monkeypatch.setattr(distill.tokenizer, "_MOST_WORDS", 20)
    quick, plain = QueryTokenizer(content(wordpiece()), MAX_LENGTH), wordpiece()
    asked = [f"where is my {a}{b}?" for a in "abcde" for b in "xyz01"]
    expected = [reference(plain, text) for text in asked]
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        turned = asked[number:] + asked[:number]
        found = [ids_of(quick, text) for text in turned]
        return found[len(asked) - number :] + found[: len(asked) - number]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(work, range(8)))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packed_ids_are_what_a_graph_reads(ids):
    assert packed(ids) == np.asarray(ids, np.int64).tobytes()
    assert unpacked(packed(ids)) == ids


def changed(**parts):
    tokenizer = wordpiece()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        changed(normalizer=normalizers.NFKC()),
        changed(normalizer=normalizers.Sequence([normalizers.BertNormalizer()])),
        changed(pre_tokenizer=pre_tokenizers.ByteLevel()),
        changed(pre_tokenizer=pre_tokenizers.Metaspace()),
        wordpiece(added=["new york"]),
        changed(
            post_processor=processors.TemplateProcessing(
                single="[CLS] $A [SEP] $A", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
            )
        ),
        Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])),
    ],
    ids=["NFKC", "a sequence", "bytes", "metaspace", "added over a space", "twice the text", "BPE"],
)
def test_other_tokenizers_are_left_as_they_are(tokenizer):
    quick = QueryTokenizer(content(tokenizer), MAX_LENGTH)
    assert quick.name == "tokenizers"
    for text in ("ab ab", "where is New York?", "new york", ""):
        assert ids_of(quick, text) == tokenizer.encode(text).ids


# --- nanotoken -------------------------------------------------------------------------------------------------------


class PanicException(BaseException):  # what a fault in compiled Rust is called
    pass


class FakeNanotoken:
    """Stands for nanotoken: encodes with ``tokenizers``, but for what a test wants otherwise."""

    def __init__(self, tokenizer):
        self.tokenizer, self.asked, self.wrong, self.bounds = tokenizer, [], {}, []

    def encode_batch_list(self, given, *, max_length, truncation_side, parallel):
        assert (truncation_side, parallel) == ("right", False)
        (text,) = given
        self.asked.append(text)
        answer = self.wrong.get(text)
        if isinstance(answer, BaseException):
            raise answer
        self.tokenizer.enable_truncation(max_length)
        return [answer or self.tokenizer.encode(text).ids]


@pytest.fixture
def fake(monkeypatch):
    nanotoken = FakeNanotoken(make_tokenizer())
    module = ModuleType("nanotoken")
    module.WordPieceTokenizer = ModuleType("WordPieceTokenizer")
    module.WordPieceTokenizer.from_json = lambda _: nanotoken
    module.get_cache_entries, module.set_cache_entries = lambda: 1_000_000, nanotoken.bounds.append
    monkeypatch.setitem(sys.modules, "nanotoken", module)
    return nanotoken


def test_what_nanotoken_remembers_is_bounded(fake, tiny_bundle):
    Router.load(tiny_bundle.path)
    assert fake.bounds == [distill.tokenizer._MOST_WORDS]


def test_the_real_nanotoken_remembers_no_more_words_than_we_do(tiny_bundle):
    nanotoken = pytest.importorskip("nanotoken")
    Router.load(tiny_bundle.path)
    assert nanotoken.get_cache_entries() <= distill.tokenizer._MOST_WORDS


def test_nanotoken_is_used_where_it_gives_the_same_ids(fake, tiny_bundle):
    router = Router.load(tiny_bundle.path)
    assert router.tokenizer == "nanotoken"
    assert {"", "where is my parcel ?", "x" * 100} <= set(fake.asked)  # hard texts and the self-check
    fake.asked.clear()
    assert router.route("Where is my parcel?").intent == "track_order"
    assert router.route("refund\nplease").intent == "refund"  # read as a space
    assert router.route("refund\x07 please").intent == "refund"  # not printable: not asked of it
    assert fake.asked == ["Where is my parcel?", "refund please"]


@pytest.mark.parametrize("text", ["where is my parcel ?", "Hello, World!"])
@pytest.mark.parametrize("answer", [[2, 3], ValueError(), PanicException()], ids=["other ids", "an error", "a panic"])
def test_nanotoken_that_differs_is_not_used(fake, tiny_bundle, text, answer):
    fake.wrong[text] = answer
    router = Router.load(tiny_bundle.path)
    assert router.tokenizer == "words"
    assert router.tokenise(text) == make_tokenizer().encode(text).ids


def test_what_nanotoken_fails_at_goes_to_the_reference(fake, tiny_bundle):
    router = Router.load(tiny_bundle.path)
    for error in (ValueError(), PanicException()):
        fake.wrong["refund"] = error
        assert router.route("refund").intent == "refund"
    fake.wrong["refund"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        router.route("refund")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_nanotoken_of_its_own(fake, tiny_bundle):
    router = Router.load(tiny_bundle.path)
    made = FakeNanotoken(make_tokenizer())
    fake.wrong["refund"] = AssertionError("a lock that a thread of the parent holds")
    sys.modules["nanotoken"].WordPieceTokenizer.from_json = lambda _: made
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answers = [router.route("refund").intent for _ in range(2)]
            code = int((answers, made.asked) != (["refund"] * 2, ["refund"] * 2))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("name", "max_length", "texts"),
    [("words", MAX_LENGTH, None), ("tokenizers", 2, None), ("nanotoken", MAX_LENGTH, ())],
)
def test_a_tokenizer_that_is_dropped_is_freed_at_once(fake, name, max_length, texts):
    quick = QueryTokenizer(content(make_tokenizer()), max_length, texts=texts)
    assert quick.name == name
    assert quick.encode("parcel \N{PARTY POPPER}")
    assert quick.is_open
    freed = []
    weakref.finalize(quick._reference, freed.append, name)
    gc.disable()
    try:
        del quick
        assert freed == [name]
    finally:
        gc.enable()


def test_without_nanotoken_the_words_are_remembered(monkeypatch, tiny_bundle):
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    assert Router.load(tiny_bundle.path).tokenizer == "words"


def test_nanotoken_that_refuses_the_tokenizer_is_not_used(fake, tiny_bundle):
    def refuse(_):
        raise ValueError("unsupported")

    sys.modules["nanotoken"].WordPieceTokenizer.from_json = refuse
    assert Router.load(tiny_bundle.path).tokenizer == "words"


@pytest.mark.parametrize("special_tokens", [True, False])
@given(asked=texts)
def test_the_real_nanotoken_gives_the_ids_of_the_reference(special_tokens, asked):
    pytest.importorskip("nanotoken")
    tokenizer = wordpiece(ends=special_tokens)
    tokenizer.enable_truncation(MAX_LENGTH)
    quick = QueryTokenizer(content(tokenizer), MAX_LENGTH, texts=())
    assert quick.name == "nanotoken"
    assert ids_of(quick, asked) == reference(tokenizer, asked)


def test_answers_are_the_same_with_and_without(fake, tmp_path, monkeypatch):
    path = build_bundle(tmp_path / "static").path
    asked = ["where is my parcel?", "Refund, please!", "", "a joke\nplease", "\ud800 cancel"]
    with_it = Router.load(path)
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    without = Router.load(path)
    assert (with_it.tokenizer, without.tokenizer) == ("nanotoken", "words")
    assert [p.as_dict() for p in map(with_it.route, asked)] == [p.as_dict() for p in map(without.route, asked)]
