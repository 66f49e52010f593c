from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data import label_as_line, ledger_key, read_labels
from distill.errors import LedgerError, StorageError
from distill.teacher.ledger import AppendLog, Ledger
from distill.types import Label, Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.none() | st.integers(0, 10**6)
SCORES = st.dictionaries(st.text(string.ascii_lowercase, min_size=1), st.floats(0, 1), min_size=1, max_size=3)
LABELS = st.builds(
    Label,
    key=st.text(string.hexdigits, min_size=1, max_size=8),
    text=TEXT,
    scores=st.none() | SCORES,
    error=st.none() | TEXT,
    teacher=TEXT,
    prompt_sha256=TEXT,
    sample=st.integers(0, 5),
    usage=st.builds(Usage, COUNT, COUNT, COUNT),
    latency_ms=st.none() | st.floats(0, 1e6),
    asked_at=TEXT,
    extra=st.dictionaries(st.sampled_from(["settings", "carried_from", "evidence"]), TEXT),
)


def answer(key: str, scores: dict[str, float] | None = None, **parts: str) -> Label:
    return Label(key, parts.get("text", key), scores, None if scores else "failed", "m", "p")


@given(labels=st.lists(LABELS, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    with AppendLog(path) as log:
        for label in labels:
            ledger.write(log, label)
    assert list(read_labels(path)) == labels == Ledger(path).lines
    assert path.exists() == bool(labels)


@given(
    labels=st.lists(LABELS, min_size=1, max_size=3), cut=st.integers(0, 2000), newline=st.sampled_from([b"\n", b"\r\n"])
)
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_can_be_gone_on_with(tmp_path_factory, labels, cut, newline):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    whole = [json.dumps(label_as_line(label)).encode() + newline for label in labels]
    content = b"".join(whole)
    cut = min(cut, len(content))
    path.write_bytes(content[:cut])
    ends = [len(b"".join(whole[: n + 1])) - len(newline) for n in range(len(labels))]
    kept = [label for label, end in zip(labels, ends, strict=True) if end <= cut]
    assert list(read_labels(path)) == kept
    with AppendLog(path) as log:
        log.append(label_as_line(labels[0]))
    assert list(read_labels(path)) == [*kept, labels[0]]


def test_the_last_good_line_of_a_key_wins_and_a_failed_one_hides_nothing(tmp_path):
    ledger = Ledger(tmp_path / "none.jsonl")
    for label in (answer("a"), answer("a", {"x": 1.0}), answer("a", {"y": 1.0}), answer("a"), answer("b")):
        ledger.add(label)
    assert ledger.get(["a"]).scores == {"y": 1.0}
    assert ledger.get(["b", "a"]).scores == {"y": 1.0}, "good before failed"
    assert ledger.get(["b"]).error == "failed"
    assert ledger.get(["c"]) is None


@pytest.mark.parametrize(
    "line",
    [
        b"not json", b"{}", b"[]", b"\xff", b'{"key": 1, "text": "", "teacher": "", "prompt_sha256": ""}',
        b'{"key": "a", "text": "", "teacher": "", "prompt_sha256": "", "scores": ["x"]}',
        b'{"key": "a", "text": "", "teacher": "", "prompt_sha256": "", "prompt_tokens": "many"}', b"[" * 100_000,
        b'{"key": "a", "text": "", "teacher": "", "prompt_sha256": "", "prompt_tokens": Infinity}',
        b'{"key": "a", "text": "", "teacher": "", "prompt_sha256": "", "scores": {"x": 1' + b"0" * 400 + b"}}",
    ],
)  # fmt: skip
def test_a_damaged_line_names_its_place(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(json.dumps(label_as_line(answer("a"))).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:3: not a ledger line"):
        Ledger(path)


def test_an_empty_ledger_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"")
    assert Ledger(path).lines == []
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(label_as_line(answer("a"))).encode() + b"\r\n")
    assert [label.key for label in Ledger(path).lines] == ["a"]


def test_a_log_without_a_line_leaves_no_file(tmp_path):
    with AppendLog(tmp_path / "a" / "log.jsonl"):
        pass
    assert not (tmp_path / "a" / "log.jsonl").exists()


def test_a_closed_log_takes_nothing(tmp_path):
    with AppendLog(tmp_path / "log.jsonl") as log:
        log.append({"a": 1})
    with pytest.raises(LedgerError, match="not open"):
        log.append({"a": 2})
    assert (tmp_path / "log.jsonl").read_text() == '{"a": 1}\n'


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"), AppendLog(tmp_path / "file" / "log.jsonl"):
        pass


def test_a_key_is_the_documented_hash():
    import hashlib

    expected = hashlib.sha256('["m","p","café",0]'.encode()).hexdigest()
    assert ledger_key("m", "p", "cafe\u0301") == expected


def test_what_lines_have_in_common_is_held_once(tmp_path):
    path = tmp_path / "ledger.jsonl"
    extra = {"settings": {"template": "a", "temperature": 0.0}, "in_flight": 4, "evidence": ["a", "b"]}
    label = Label("a", "a", {"x": 1.0}, None, "m" * 3, "p" * 3, usage=Usage(1, 2, 3), extra=extra)
    lines = [json.dumps(label_as_line(label) | {"key": str(number)}) for number in range(3)]
    lines.append(json.dumps(label_as_line(label) | {"evidence": None, "key": "3"}))
    path.write_text("\n".join(lines) + "\n")
    first, *others, last = read_labels(path)
    for other in (*others, last):
        assert other.extra["settings"] == first.extra["settings"]
        for name in ("teacher", "prompt_sha256", "usage", "scores"):
            assert getattr(other, name) is getattr(first, name)
        assert other.extra["settings"] is first.extra["settings"]
    assert first.extra["evidence"] == ["a", "b"]
    assert last.extra["evidence"] is None


def test_values_that_are_equal_but_of_other_types_stay_apart(tmp_path):
    path = tmp_path / "ledger.jsonl"
    values = [True, 1, 1.0, {"n": True}, {"n": 1}, {"n": {"n": 0}}, {"n": {"n": False}}]
    lines = [json.dumps(label_as_line(answer(str(number))) | {"extra": value}) for number, value in enumerate(values)]
    path.write_text("\n".join(lines) + "\n")
    assert [json.dumps(label.extra["extra"]) for label in read_labels(path)] == [json.dumps(value) for value in values]


HOLD = """
import sys, time
from pathlib import Path
from distill.teacher.ledger import AppendLog
with AppendLog(Path(sys.argv[1])) as log:
    log.append({"held": True})
    print("held", flush=True)
    time.sleep(60)
"""


def start(program, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with start(HOLD, path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match="another process is writing to it"), AppendLog(path):
            pass
        process.kill()
    with AppendLog(path) as log:  # a lock does not outlive who held it
        log.append({"held": False})
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [{"held": True}, {"held": False}]


FILL = """
import json, resource, sys
from pathlib import Path
from distill.errors import StorageError
from distill.teacher.ledger import AppendLog
path, most = Path(sys.argv[1]), int(sys.argv[2])
before = resource.getrlimit(resource.RLIMIT_FSIZE)
failed = []
with AppendLog(path) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    for number in range(8):
        try:
            log.append({"number": number, "text": "x" * 40})
        except StorageError as error:
            failed.append(str(error))
            if "room" in sys.argv:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
print(json.dumps(failed))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
@pytest.mark.parametrize("room", ["room", "none"])
def test_a_file_that_takes_half_a_line_loses_none_before_and_none_after_it(tmp_path, room):
    """A real short write: the file takes three lines and part of the fourth; then there is room again, or there is none."""
    path = tmp_path / "ledger.jsonl"
    with start(FILL, path, 3 * 66 + 20, room) as process:
        failed = json.loads(process.communicate(timeout=60)[0])
    assert failed
    assert all("cannot be written" in message for message in failed)
    with AppendLog(path) as log:
        log.append({"number": 8})
    numbers = [json.loads(line)["number"] for line in path.read_bytes().splitlines()]
    assert numbers == sorted(set(numbers)), "each once, in order"
    assert numbers[:3] == [0, 1, 2]
    assert numbers[-1] == 8
    if room == "room":
        assert set(numbers) >= {4, 5, 6, 7}, "what was written when there was room again is whole"
