from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from bundles import build_bundle
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from distill.tokenizer import QueryTokenizer, unpacked
from distill.wordpiece import _PLAIN_WORD, _Vocabulary, read_wordpiece

PLAIN = [chr(number) for number in range(0x3000) if chr(number).isprintable() and _PLAIN_WORD.fullmatch(chr(number))]


def tokenizer_of_characters(**options):
    """Every character is a token, at the start of a piece and inside it, so that ids tell how a text was normalised and split."""
    characters = dict.fromkeys([*map(chr, range(0x21, 0x3000)), "[UNK]", "[CLS]"])
    vocabulary = {token: number for number, token in enumerate([*characters, *(f"##{each}" for each in characters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[CLS]"])
    return tokenizer


CLS = tokenizer_of_characters().token_to_id("[CLS]")


def content(tokenizer, *, pretty=False):
    return tokenizer.to_str(pretty=pretty).encode()


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
def test_every_plain_character_is_read_as_the_library_reads_it(lowercase, strip_accents):
    reference = tokenizer_of_characters(lowercase=lowercase, strip_accents=strip_accents)
    known = read_wordpiece(content(reference))
    assert len(PLAIN) > 1_800
    words = [word for each in PLAIN for word in (each, f"a{each}", f"{each}B", f"A{each}{each}b")]
    expected = [encoding.ids for encoding in reference.encode_batch_fast(words, add_special_tokens=False)]
    assert [list(known.ids(word)) for word in words] == expected


UNCASED, CASED = tokenizer_of_characters(), tokenizer_of_characters(lowercase=False)
KNOWN_UNCASED, KNOWN_CASED = read_wordpiece(content(UNCASED)), read_wordpiece(content(CASED))


@given(word=st.text(st.sampled_from(PLAIN), min_size=1, max_size=21))  # of which NFD makes 64 at most
def test_a_plain_word_has_the_ids_that_the_library_gives_it(word):
    for reference, known in ((UNCASED, KNOWN_UNCASED), (CASED, KNOWN_CASED)):
        assert known.ids(word) == tuple(reference.encode(word, add_special_tokens=False).ids)


@pytest.mark.parametrize("word", ["你", "🙂", "ไทย", "a\u00adb", "한국어", "[CLS]", "x[CLS]y", "x" * 65], ids=ascii)
def test_what_only_the_library_knows_is_left_to_it(word):
    known = read_wordpiece(content(tokenizer_of_characters()))
    assert known.ids(word) is None
    assert known.ids("x" * 64) is not None


def test_a_words_length_is_that_of_its_lower_case():
    known = read_wordpiece(content(tokenizer_of_characters(strip_accents=False)))
    assert known.ids("İ" * 32) is not None
    assert known.ids("İ" * 33) is None


@pytest.mark.parametrize("pretty", [True, False])
def test_tokens_are_read_however_they_are_written(pretty):
    tokens = ["[UNK]", '"', "\\", "\\\\", '##"', "##,", ",", "{", "}", "é", "vocab", ":1,", "a\tb", "##b", "x" * 64]
    tokenizer = Tokenizer(models.WordPiece({token: 7 * n for n, token in enumerate(tokens)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    text = content(tokenizer, pretty=pretty)
    for written in (text, json.dumps(json.loads(text)).encode()):  # the second with \u for what is not ASCII
        known = read_wordpiece(written)
        assert [known._vocabulary.number(token) for token in tokens] == [
            tokenizer.token_to_id(token) for token in tokens
        ]
        assert known._vocabulary.number("x" * 65) is known._vocabulary.number("y") is None
        assert known.facts.largest_id == 7 * (len(tokens) - 1)


def test_a_large_vocabulary_is_read_whole():
    tokens = ["[UNK]", *(f"t{number}" for number in range(5_000))]
    file = json.loads(content(tokenizer_of_characters()))
    file["model"]["vocab"], file["added_tokens"] = {token: n for n, token in enumerate(tokens)}, []
    known = read_wordpiece(json.dumps(file).encode())
    assert [known._vocabulary.number(token) for token in tokens] == [*range(5_001)]


def changed(path, value):
    """The file of a tokenizer with one value set."""
    file = json.loads(content(tokenizer_of_characters()))
    *parents, last = path
    place = file
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(file).encode()


TEMPLATE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("normalizer",), None),
        (("normalizer", "type"), "Lowercase"),
        (("normalizer", "lowercase"), 1),
        (("normalizer", "strip_accents"), "yes"),
        (("normalizer", "clean_text"), None),
        (("normalizer", "handle_chinese_chars"), None),
        (("pre_tokenizer",), {"type": "BertPreTokenizer", "more": 1}),
        (("pre_tokenizer",), {"type": "Whitespace"}),
        (("decoder",), {"type": "ByteLevel"}),
        (("post_processor",), {"type": "ByteLevel"}),
        (("post_processor",), TEMPLATE | {"single": [*TEMPLATE["single"], *TEMPLATE["single"]]}),
        (("post_processor",), TEMPLATE | {"single": []}),
        (("post_processor",), TEMPLATE | {"single": [{"Sequence": {"id": "B", "type_id": 0}}]}),
        (
            ("post_processor",),
            TEMPLATE
            | {"single": [{"SpecialToken": {"id": "x"}}, *TEMPLATE["single"]], "special_tokens": {"x": {"ids": "12"}}},
        ),
        (
            ("post_processor",),
            TEMPLATE
            | {
                "single": [{"SpecialToken": {"id": "x"}}, *TEMPLATE["single"]],
                "special_tokens": {"x": {"ids": [2**64]}},
            },
        ),
        (("post_processor",), TEMPLATE | {"pair": []}),
        (("post_processor",), TEMPLATE | {"pair": [{"SpecialToken": {"id": "[X]", "type_id": 0}}, *TEMPLATE["pair"]]}),
        (("version",), "2.0"),
        (("padding",), {"pad_id": 0}),
        (("truncation",), {"max_length": 8}),
        (("model", "vocab"), {"[UNK]": 2**32}),
        (("model", "type"), "WordLevel"),
        (("model", "unk_token"), "[X]"),
        (("model", "unk_token"), None),
        (("model", "max_input_chars_per_word"), 63),
        (("model", "continuing_subword_prefix"), None),
        (("model", "vocab"), {}),
        (("model", "vocab"), {"[UNK]": -1}),
        (("model", "vocab"), {"[UNK]": 1.5}),
        (("model", "vocab"), {"[UNK]": 0, "y" * 65: 1}),
        (("model", "vocab"), {"[UNK]": 0, "a\x00": 1}),
        (("model", "vocab"), {"[UNK]": 0, "\ud800": 1}),
        (("model", "vocab"), {"[UNK]": 10**30}),
        (("added_tokens", 0, "normalized"), True),
        (("added_tokens", 0, "single_word"), True),
        (("added_tokens", 0, "lstrip"), True),
        (("added_tokens", 0, "rstrip"), True),
        (("added_tokens", 0, "content"), "a b"),
        (("added_tokens", 0, "content"), "[NEW]"),
        (("added_tokens", 0, "content"), ""),
        (("added_tokens", 0, "id"), 5),
        (("added_tokens", 0, "id"), "5"),
    ],
    ids=str,
)
def test_a_file_that_says_something_unknown_is_left_to_the_library(path, value):
    assert read_wordpiece(content(tokenizer_of_characters())) is not None
    assert read_wordpiece(changed(path, value)) is None


def test_the_most_hostile_word_is_looked_up_a_bounded_number_of_times(monkeypatch):
    known, asked = read_wordpiece(content(tokenizer_of_characters())), []
    find = type(known._vocabulary).number
    monkeypatch.setattr(type(known._vocabulary), "number", lambda self, token: asked.append(token) or find(self, token))
    assert known.ids("x" * 64) is not None
    assert len(asked) <= 64 * known._vocabulary.longest


def test_a_word_with_a_plain_special_token_in_it_is_left_to_the_library():
    file = json.loads(content(tokenizer_of_characters()))
    file["added_tokens"][0] |= {"content": "q", "id": file["model"]["vocab"]["q"]}
    known = read_wordpiece(json.dumps(file).encode())
    assert known.ids("aqa") is known.ids("é,q") is None
    assert known.ids("aQa") is not None


def test_a_template_around_the_text_is_known():
    special = {"[CLS]": {"id": "[CLS]", "ids": [5, 6], "tokens": ["x", "y"]}}
    around = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        TEMPLATE["single"][0],
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    ]
    written = changed(("post_processor",), TEMPLATE | {"single": around, "special_tokens": special})
    facts = read_wordpiece(written).facts
    assert (facts.ends, facts.n_special) == (([5, 6], [5, 6]), 4)
    assert unpacked(QueryTokenizer(written, 10).encode("a")) == Tokenizer.from_buffer(written).encode("a").ids


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b'{"model": {"type": "WordPiece", "vocab": {"a": 1',
        b'"WordPiece" "vocab"',
        b"[" * 100_000 + b'"WordPiece" "vocab": {"a": 1}',
    ],
)
def test_what_is_no_file_of_a_tokenizer_is_left_to_the_library(written):
    assert read_wordpiece(written) is None


def test_a_token_that_is_named_twice_has_the_number_that_the_library_gives_it():
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "[CLS]": CLS}
    written = changed(("model", "vocab"), vocabulary).replace(b'"b": 2', b'"a": 2')
    known = read_wordpiece(written)
    assert known._vocabulary.number("a") == Tokenizer.from_buffer(written).token_to_id("a") == 2


def test_a_token_that_is_named_twice_far_apart_is_left_to_the_library():
    vocabulary = (
        {"[UNK]": 0, "[CLS]": CLS, "a": 1} | {f"t{number}": number for number in range(2, 1_000)} | {"b": 1_000}
    )
    written = changed(("model", "vocab"), vocabulary)
    assert read_wordpiece(written) is not None
    assert read_wordpiece(written.replace(b'"b": 1000', b'"a": 1000')) is None


def test_who_asks_about_plain_text_opens_neither_tokenizers_nor_openssl(tmp_path):
    path = build_bundle(tmp_path / "static").path
    program = f"""
import sys
sys.modules["nanotoken"] = None
import numpy, onnxruntime
before = set(sys.modules)
from distill import Router
router = Router.load({str(path)!r})
assert router.route("Where is my parcel, please?").intent == "track_order"
assert router.route("caf\\u00e9 parcel").intent == "track_order"
print(sorted({{"tokenizers", "hashlib", "ssl", "asyncio", "shutil", "random"}} & (set(sys.modules) - before)))
assert router.route("\\U0001f642 parcel").intent == "track_order"
print("tokenizers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\nTrue\n", "")


tokens = st.text(st.sampled_from("ab#é你"), min_size=1, max_size=5)


@given(st.sets(tokens, min_size=1), st.text(st.sampled_from("ab#é你"), max_size=12))
def test_the_longest_token_that_a_text_begins_with_is_found(known, text):
    encoded = np.array(sorted(token.encode() for token in known))
    vocabulary = _Vocabulary(encoded, np.arange(len(encoded)), encoded.itemsize)
    beginnings = [token.encode() for token in known if text.startswith(token)]
    longest = max(beginnings, key=len, default=None)
    expected = None if longest is None else (encoded.tolist().index(longest), len(longest))
    assert vocabulary.beginning(text.encode()) == expected
