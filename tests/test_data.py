from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data import (
    atomic_write,
    canonical_json,
    csv_delimiter,
    csv_fields_up_to,
    leaked,
    ledger_key,
    normalise,
    read_gold,
    read_jsonl,
    read_queries,
    remove_folder,
    sha256_bytes,
    sha256_file,
    swap_folder,
    unknown_label,
    write_json,
    write_jsonl,
)
from distill.errors import DataError, StorageError
from distill.types import GoldQuery, Task

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LINES = st.lists(st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT), max_size=5)


@pytest.fixture
def write(tmp_path):
    def write_bytes(content: bytes | str):
        path = tmp_path / "file.jsonl"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_bytes


@given(lines=LINES)
def test_lines_are_read_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("data") / "lines.jsonl"
    write_jsonl(path, lines)
    assert [line for _, line in read_jsonl(path)] == lines
    assert path.read_bytes().count(b"\n") == len(lines)


def test_byte_order_mark_crlf_and_blank_lines(write):
    path = write(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\xe2\x80\xa8"}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "\u2028"})]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"{", "not a JSON object"),
        (b"[1]", "expected a JSON object .* found list"),
        (b"\xff", r"not UTF-8 \(byte 0\)"),
        (b"[" * 100_000, "not a JSON object"),
    ],
)
def test_a_broken_line_names_file_and_line(write, line, named):
    with pytest.raises(DataError, match=rf"file\.jsonl:3: {named}"):
        list(read_jsonl(write(b'{"a": 1}\n\n' + line + b"\n")))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_a_torn_last_line_is_passed_over_where_asked_for_and_only_there(write):
    torn = b'{"a": 1}\n{"a": 2, "b'
    assert len(list(read_jsonl(write(torn), skip_torn=True))) == 1
    assert len(list(read_jsonl(write(b'{"a": 1}\n{"a": 2}'), skip_torn=True))) == 2
    for content in (torn + b"\n", b'{"a"\n{"a": 2}\n'):
        with pytest.raises(DataError):
            list(read_jsonl(write(content), skip_torn=True))
    with pytest.raises(DataError):
        list(read_jsonl(write(torn)))


def test_queries_keep_the_first_of_equal_texts(write):
    path = write('{"text": "caf\u00e9", "id": "x"}\n{"text": " "}\n{"text": "cafe\u0301"}\n{"text": "b", "other": 1}\n')
    assert [(query.id, query.text, query.source) for query in read_queries(path)] == [
        ("x", "caf\u00e9", "logs"),
        ("4", "b", "logs"),
    ]


@pytest.mark.parametrize("line", ["{}", '{"text": 5}', '{"text": null}', '{"text": "\\ud83d"}'])
def test_a_query_without_a_usable_text(write, line):
    with pytest.raises(DataError, match=r"file\.jsonl:1: .*text"):
        read_queries(write(line))


def test_gold_of_every_task(write):
    path = write(
        '{"text": "a", "intent": "x"}\n{"text": "b", "intents": ["x", "y"]}\n{"text": "c", "intents": []}\n'
        '{"text": "d", "weights": {"x": 3, "y": 1}}\n'
    )
    assert [dict(query.target) for query in read_gold(path)] == [
        {"x": 1.0},
        {"x": 1.0, "y": 1.0},
        {},
        {"x": 0.75, "y": 0.25},
    ]


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ('"intent": "trakc"', "the intent 'trakc' does not exist; did you mean 'track'"),
        ('"intent": "zzz"', "the intent 'zzz' does not exist; it is none of the 2 labels"),
        ('"intent": "oos"', "the intent 'oos' needs `out_of_scope: true`"),
        ('"intent": 5', 'no label; expected "intent": name beside "text", found "intent": 5'),
        ('"weights": null', 'no label; expected "weights": {name: weight} beside "text", found "weights": null'),
        ('"intent": ["track"]', "no label"),
        ('"intents": [["track"]]', "no label"),
        ('"intents": "track"', "no label"),
        (
            '"label": "track"',
            'no label; expected "intent": name or "intents": \\[names\\] or "weights": .* found none of them',
        ),
        ('"weights": {"track": "much"}', "the weight of 'track' must be a number"),
        ('"weights": {"track": -1}', "the weight of 'track' must be a number"),
        ('"weights": {"track": NaN}', "the weight of 'track' must be a number"),
        ('"weights": {"track": 0}', "the weights are all 0"),
    ],
)
def test_a_gold_label_that_is_none(write, label, named):
    with pytest.raises(DataError, match=rf"file\.jsonl:2: {named}"):
        read_gold(write(f'{{"text": "a", "intent": "track"}}\n{{"text": "b", {label}}}\n'), ["track", "refund"])


def test_a_label_of_another_task_beside_ours_is_not_read(write):
    path = write('{"text": "a", "intent": "x", "intents": ["x", "y"], "weights": {"x": 1, "y": 3}}\n')
    found = {task: dict(read_gold(path, ["x", "y"], task)[0].target) for task in Task}
    assert found == {Task.SINGLE: {"x": 1.0}, Task.MULTI: {"x": 1.0, "y": 1.0}, Task.WEIGHTS: {"x": 0.25, "y": 0.75}}


def test_weights_of_any_size_become_shares(write):
    path = write(
        '{"text": "a", "weights": {"x": 1e308, "y": 1e308, "z": -0.0}}\n{"text": "b", "weights": {"x": 5e-324}}\n'
    )
    first, second = (dict(query.target) for query in read_gold(path))
    assert (str(first), second) == ("{'x': 0.5, 'y': 0.5, 'z': 0.0}", {"x": 1.0})


def test_a_weight_beyond_any_number_is_named(write):
    with pytest.raises(DataError, match=r":1: the weight of 'y' must be a number from 0 on"):
        read_gold(write('{"text": "a", "weights": {"x": 0.5, "y": 1' + 400 * "0" + "}}\n"))


def test_gold_without_a_query(write):
    with pytest.raises(DataError, match="holds no query"):
        read_gold(write("\n"))


@given(text=TEXT)
def test_normalising_twice_changes_nothing_and_case_and_marks_do_not_count(text):
    plain = normalise(text)
    assert normalise(plain) == plain
    assert normalise(f"  {text}?! ") == plain
    assert "  " not in plain


@pytest.mark.parametrize("texts", [("कि", "का"), ("ไม่", "ไม้"), ("né", "ne")])
def test_signs_that_belong_to_a_letter_count(texts):
    assert normalise(texts[0]) != normalise(texts[1])


def test_of_emoji_nothing_is_left_but_they_are_known_apart():
    assert normalise("👍") == normalise("❤\ufe0f!") == ""
    gold = [GoldQuery("👎", {"x": 1.0}), GoldQuery("❤\ufe0f", {"x": 1.0}), GoldQuery("!", {"x": 1.0})]
    assert leaked(["👍", "👎 !", "❤", "?"], gold) == ["👎 !", "❤", "?"]


def test_leaked_texts_are_named():
    gold = [GoldQuery("Where is my parcel?", {"x": 1.0})]
    assert leaked(["where is MY parcel", "where is my parcel now"], gold) == ["where is MY parcel"]


@given(model=TEXT, prompt=TEXT, text=TEXT, sample=st.integers(0, 9))
def test_a_ledger_key_depends_on_each_part_and_not_on_the_unicode_form(model, prompt, text, sample):
    key = ledger_key(model, prompt, text, sample)
    assert len(key) == 64
    assert ledger_key(model, prompt, unicodedata.normalize("NFD", text), sample) == key
    others = {
        ledger_key(model + "x", prompt, text, sample), ledger_key(model, prompt + "x", text, sample),
        ledger_key(model, prompt, text + "x", sample), ledger_key(model, prompt, text, sample + 1),
    }  # fmt: skip
    assert len(others | {key}) == 5


@given(value=st.dictionaries(TEXT, st.integers()))
def test_canonical_json_does_not_depend_on_the_order(value):
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)
    assert json.loads(canonical_json(value)) == value


def test_two_who_write_at_once_use_two_files_though_their_process_ids_are_one(tmp_path):
    with atomic_write(tmp_path / "x.json") as one, atomic_write(tmp_path / "x.json") as other:
        assert one != other
        one.write_text("one", encoding="utf-8")
        other.write_text("other", encoding="utf-8")
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_written_anew_keeps_its_rights(tmp_path, mode):
    path = tmp_path / "x.json"
    write_json(path, 1)
    path.chmod(mode)
    write_json(path, 2)
    assert (path.stat().st_mode & 0o777, path.read_text(encoding="utf-8")) == (mode, "2\n")
    with atomic_write(path) as partial:
        partial.write_text("3", encoding="utf-8")
        assert partial.stat().st_mode & 0o777 == 0o600  # while it is written, too


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    assert before.endswith(b"}\n")

    def write_half():
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208 - names are what is compared
    assert sha256_file(path) == sha256_bytes(before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(path, {"a": 1})
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    finally:
        os.close(reader)
    assert path.is_fifo()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_a_stream_that_is_a_file_is_written_to(tmp_path):
    link, redirected = tmp_path / "stdout", tmp_path / "redirected.json"
    with redirected.open("w") as stream:
        link.symlink_to(f"/proc/self/fd/{stream.fileno()}")
        write_json(link, {"a": 1})
        assert link.is_symlink()
    assert json.loads(redirected.read_text()) == {"a": 1}


def test_a_link_to_a_file_stays_one(tmp_path):
    (tmp_path / "store").mkdir()
    link, kept = tmp_path / "queries.jsonl", tmp_path / "store" / "kept.jsonl"
    link.symlink_to(kept)
    for value in ({"a": 1}, {"a": 2}):  # first it leads nowhere yet
        write_json(link, value)
        assert link.is_symlink()
        assert json.loads(kept.read_text()) == value
    assert [path.name for path in kept.parent.iterdir()] == ["kept.jsonl"]


def test_a_folder_is_removed_and_of_a_link_the_link_alone(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    (folder / "in it").mkdir(parents=True)
    link.symlink_to(folder)
    remove_folder(link)
    assert (link.is_symlink(), folder.is_dir()) == (False, True)
    remove_folder(folder)
    remove_folder(folder)
    assert not folder.exists()


def test_a_folder_that_cannot_be_swapped_leaves_the_old_one_in_its_place(tmp_path):
    new, target, aside = tmp_path / "new", tmp_path / "target", tmp_path / "aside"
    for folder in (target, aside):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    with pytest.raises(StorageError):
        swap_folder(new, target, aside)  # there is no new one
    assert (target / "file").read_text() == "target"
    assert not aside.exists()
    new.mkdir()
    swap_folder(new, target, aside)
    assert (list(target.iterdir()), (aside / "file").read_text()) == ([], "target")


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"a\.json: cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(StorageError, match=r"aaa: cannot be written"):
        write_json(tmp_path / ("a" * 5000), {})


@pytest.mark.parametrize(
    ("task", "label"), [(Task.SINGLE, {"intents": []}), (Task.MULTI, {"intent": "a"}), (Task.WEIGHTS, {"intent": "a"})]
)
def test_gold_of_another_task_is_refused(write, task, label):
    path = write(json.dumps({"text": "x", **label}))
    with pytest.raises(DataError, match=f"{path.name}:1: `task: {task.value}` needs"):
        read_gold(path, ["a"], task)


def test_the_limit_of_csv_fields_is_put_back_even_after_an_error():
    before = csv.field_size_limit()
    with suppress(KeyError), csv_fields_up_to(before + 1):
        assert csv.field_size_limit() == before + 1
        raise KeyError
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name", ["oos", "none"])
@pytest.mark.parametrize(
    ("task", "advice"),
    [
        (Task.MULTI, "has an empty list of intents"),
        (Task.WEIGHTS, "the channel '{}' does not exist; it is none of the 2 labels there are"),
    ],
)
def test_a_name_for_no_intent_is_explained_by_the_task(name, task, advice):
    said = unknown_label(name, ("visual", "audio"), task)
    assert advice.format(name) in said
    assert "out_of_scope" not in said


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 600_000], ids=len)
@pytest.mark.parametrize("how", ["loaded", "comes with nanotoken", "left out"])
def test_sha256_is_the_same_with_openssl_and_without(monkeypatch, tmp_path, how, content):
    expected = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr("distill.data._is_nanotoken_installed", lambda: how == "comes with nanotoken")
    if how != "loaded":
        monkeypatch.delitem(sys.modules, "hashlib")
    (tmp_path / "file").write_bytes(content)
    assert sha256_bytes(content) == sha256_file(tmp_path / "file") == expected
    assert ("hashlib" in sys.modules) is (how != "left out")


def test_sha256_needs_none_of_pythons_own_modules(monkeypatch):
    monkeypatch.setattr("distill.data._is_nanotoken_installed", lambda: False)
    monkeypatch.delitem(sys.modules, "hashlib")
    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, None)
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("text,intent", ","), ('"text","one (a|b|c|d)"', ","), ("a;b", ";"), ("a\tb", "\t"), ("text", ",")],
)
def test_what_stands_in_quotes_parts_no_columns(header, delimiter):
    assert csv_delimiter(header) == delimiter
