from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import COMMON_WORDS, KEYWORDS, build_bundle
from hypothesis import given
from hypothesis import strategies as st
from project import distill, fails

from distill import Router, bulk, bulk_files, progress
from distill.bulk import BulkSummary, route_file
from distill.bulk_files import csv_rows, limits, parquet
from distill.errors import BundleError, DataError, MissingExtraError, StorageError
from distill.types import Task

TEXT = bulk_files.Columns("text")
WORDS = [*COMMON_WORDS, *(word for words in KEYWORDS.values() for word in words)]
MALFORMED = {
    b"{": "not a JSON object",
    b"[1, 2]": "expected a JSON object, found list",
    b'"refund"': "expected a JSON object, found str",
    b"{}": 'has no "text"; its keys: none',
    b'{"query": "refund", "\\ud83d\\n": 1}': "has no \"text\"; its keys: 'query', '\\ud83d\\n'; --column says where the queries stand",
    b'{"' + b"long" * 999 + b'": 1}': "longlon; --column",
    b'{"text": null}': '"text" must be a string, found none',
    b'{"text": 3}': '"text" must be a string, found int',
    b'{"text": "\\ud83d"}': "half a surrogate pair",
    b'{"text": "\xff"}': "not UTF-8",
    b"[" * 100_000: "not a JSON object",
}


def make_texts(n, seed=0):
    chance = random.Random(seed)  # noqa: S311
    return [" ".join(chance.choices(WORDS, k=chance.randint(0, 12))) for _ in range(n)]


def write_texts(path, texts):
    """Writes an input of any format."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("id", "text"), *enumerate(texts)])
    elif path.suffix == ".parquet":
        pq.write_table(
            pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())}), path, row_group_size=70
        )
    else:
        lines = (json.dumps({"id": number, "text": text}, ensure_ascii=False) for number, text in enumerate(texts))
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_rows(path):
    """The rows of an output of either format."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_in(folder):
    return sorted(file.name for file in folder.iterdir())


WITH_PIPES = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
SOURCES = pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])


@SOURCES
@pytest.mark.parametrize("output_suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("n", [0, 1, 100, 250])
def test_every_query_is_answered_in_order_as_the_router_answers(tiny_bundle, tmp_path, suffix, output_suffix, n):
    texts = make_texts(n)
    source, output = write_texts(tmp_path / f"queries{suffix}", texts), tmp_path / "out" / f"answers{output_suffix}"
    summary = route_file(tiny_bundle.path, source, output, lines_per_part=100)
    assert summary == BulkSummary(n, 0, 0, output, None)
    rows = read_rows(output)
    first = 2 if suffix == ".csv" else 1  # the header is a line too
    assert [row["line"] for row in rows] == list(range(first, first + n))
    assert [row["text"] for row in rows] == texts
    router = Router.load(tiny_bundle.path)
    for row, prediction in zip(rows, map(router.route, texts), strict=True):
        assert (row["intent"], row["reason"], row["top_intent"]) == (
            prediction.intent, prediction.reason.value, prediction.top_intent,
        )  # fmt: skip
        assert row["score"] == pytest.approx(prediction.score, abs=1e-5)
    assert files_in(output.parent) == [output.name]  # nothing else is left


@FORMATS
def test_intents_and_weights(tiny_bundles, tmp_path, suffix):
    texts = ["parcel refund", "please", ""]
    source = write_texts(tmp_path / "queries.jsonl", texts)
    output = tmp_path / f"answers{suffix}"
    for task, key in ((Task.MULTI, "intents"), (Task.WEIGHTS, "weights")):
        route_file(tiny_bundles[task].path, source, output, lines_per_part=2)
        alone = Router.load(tiny_bundles[task].path).route_batch(texts)
        for row, prediction in zip(read_rows(output), alone, strict=True):
            if task is Task.MULTI:
                assert row[key] == [*prediction.intents]
            elif prediction.weights is None:
                assert row[key] is None
            else:
                assert dict(row[key]) == pytest.approx(prediction.weights, abs=1e-5)


@pytest.mark.parametrize("content", [b"", b"\n", b'\n{"text": "refund"}\n'])
def test_a_byte_order_mark_alone_is_a_blank_line(tiny_bundle, tmp_path, content):
    source, output = tmp_path / "queries.jsonl", tmp_path / "answers.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + content)
    assert route_file(tiny_bundle.path, source, output).n_errors == 0
    assert [(row["line"], row["intent"]) for row in read_rows(output)] == [(2, "refund")] * (b"refund" in content)


def test_a_column_with_a_dot_is_not_one_of_a_struct(tiny_bundle, tmp_path):
    source, output = tmp_path / "queries.parquet", tmp_path / "answers.jsonl"
    pq.write_table(pa.table({"a": [{"b": "parcel"}], "a.b": ["refund"]}), source)
    route_file(tiny_bundle.path, source, output, column="a.b")
    assert [row["text"] for row in read_rows(output)] == ["refund"]


def read_csv(path, lines_per_part):
    parts = bulk_files.Csv().plan(path, lines_per_part, TEXT).parts
    return parts, [line for part in parts for line in bulk_files.Csv().read(path, part, TEXT)]


@pytest.mark.parametrize("lines_per_part", [7, 10_000])
def test_quotes_that_are_never_closed_cost_a_limited_time(tmp_path, monkeypatch, lines_per_part):
    monkeypatch.setattr(limits, "LONGEST_LINE", 1 << 15)
    monkeypatch.setattr(limits, "LONGEST_OF_SEVERAL_LINES", 1 << 8)
    n_read, whole_lines = 0, csv_rows.whole_lines

    def counted(stream):
        nonlocal n_read
        for raw in whole_lines(stream):
            n_read += len(raw)
            yield raw

    monkeypatch.setattr(csv_rows, "whole_lines", counted)
    path = tmp_path / "queries.csv"
    path.write_text("id,text\n" + '5",",\n' * 2_000, encoding="utf-8")
    parts, lines = read_csv(path, lines_per_part)
    assert [line.number for line in lines] == list(range(2, 2_002))
    assert all("a quote may not be closed" in line.error or "unexpected end" in line.error for line in lines)
    size, n_passes = path.stat().st_size, 2
    dear, long, short = (1 << 15) + 4 * size, 2_000 * (1 << 8), (len(parts) + 1) * 20
    assert n_read < n_passes * 1.2 * (dear + long + size + short)
    assert len(parts) == (286 if lines_per_part == 7 else 1)


@pytest.mark.parametrize("lines_per_part", [1, 10_000])
def test_rows_of_several_lines_stay_long_beside_a_few_unclosed_quotes(tmp_path, lines_per_part):
    path, long = tmp_path / "queries.csv", "refund\n" * 2_000
    rows = [f'"{long}"' if number % 10 == 5 else "parcel" for number in range(40)]
    rows[20] = '"never closed'
    path.write_text("text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    _, lines = read_csv(path, lines_per_part)
    assert [line.text for line in lines if line.text is not None and len(line.text) > 100] == [long] * 4
    assert [line.raw for line in lines if line.error] == ['"never closed']


@pytest.mark.parametrize("options", [{"column": ""}, {"keep": ["id", ""]}])
def test_a_name_that_is_empty_is_refused(tiny_bundle, tmp_path, options):
    source = write_texts(tmp_path / "queries.jsonl", ["refund"])
    with pytest.raises(DataError, match="a column's name is empty"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", **options)
    name, value = ("--column", "") if "column" in options else ("--keep", "")
    done = distill("route", tiny_bundle.path, "--input", source, "--output", tmp_path / "answers.jsonl", name, value)
    assert (done.exit_code, "a column's name is empty" in done.stderr) == (1, True)
    with pytest.raises(TypeError, match=r"(column|keep): expected .*, found \[?5"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", **dict.fromkeys(options, 5))


def test_a_line_that_is_cut_off_speaks_of_no_second_line(tiny_bundle, tmp_path):
    source = tmp_path / "queries.jsonl"
    source.write_text('{"text": "refund"}\n{"text": "ref\n[\n', encoding="utf-8")
    route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl")
    assert all("line 2" not in row["error"] for row in read_rows(tmp_path / "errors.jsonl"))


def test_malformed_lines_are_said_counted_and_kept(tiny_bundle, tmp_path, capsys):
    good = [b'{"text": "refund"}', b"", b'{"text": ""}', b"   ", b'\t{"text": "parcel"}\r']
    source, output = tmp_path / "queries.jsonl", tmp_path / "answers.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join([*good, *MALFORMED, b'{"text": "cancel"}']))
    summary = route_file(tiny_bundle.path, source, output, lines_per_part=3)
    assert summary == BulkSummary(4, len(MALFORMED), 0, output, tmp_path / "errors.jsonl")
    last = len(good) + len(MALFORMED) + 1
    assert [(row["line"], row["intent"]) for row in read_rows(output)] == [
        (1, "refund"), (3, None), (5, "track_order"), (last, "cancel_order"),
    ]  # fmt: skip
    errors = read_rows(tmp_path / "errors.jsonl")
    assert [error["line"] for error in errors] == list(range(6, 6 + len(MALFORMED)))
    for error, (raw, reason) in zip(errors, MALFORMED.items(), strict=True):
        assert reason in error["error"]
        assert error["raw"] == raw.decode("utf-8", "replace")[:10_000]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"route: {source}:6: not a JSON object")
    assert said.endswith("such lines go to errors.jsonl")


def test_a_run_without_a_malformed_line_leaves_no_errors_of_the_run_before(tiny_bundle, tmp_path):
    source, output = tmp_path / "queries.jsonl", tmp_path / "answers.jsonl"
    source.write_text('{"text": "refund"}\n{', encoding="utf-8")
    assert route_file(tiny_bundle.path, source, output).n_errors == 1
    source.write_text('{"text": "refund"}\n', encoding="utf-8")
    assert route_file(tiny_bundle.path, source, output).errors is None
    assert files_in(tmp_path) == ["answers.jsonl", "queries.jsonl"]


def test_the_errors_of_another_output_stay(tiny_bundle, tmp_path):
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text('{"text": "refund"}\n{', encoding="utf-8")
    good.write_text('{"text": "refund"}\n', encoding="utf-8")
    one, two, errors = (tmp_path / name for name in ("one.jsonl", "two.jsonl", "errors.jsonl"))
    assert route_file(tiny_bundle.path, bad, one).errors == errors
    first = errors.read_bytes()
    assert [row["output"] for row in read_rows(errors)] == ["one.jsonl"]
    assert route_file(tiny_bundle.path, good, two).errors is None
    assert errors.read_bytes() == first
    beside = tmp_path / "two.jsonl.errors.jsonl"
    assert route_file(tiny_bundle.path, bad, two).errors == beside
    assert [row["output"] for row in read_rows(beside)] == ["two.jsonl"]
    assert errors.read_bytes() == first
    assert route_file(tiny_bundle.path, good, one).errors is None
    assert files_in(tmp_path) == ["bad.jsonl", "good.jsonl", "one.jsonl", "two.jsonl", "two.jsonl.errors.jsonl"]
    assert route_file(tiny_bundle.path, bad, two).errors == errors  # its place is free, and the old one goes
    assert files_in(tmp_path) == ["bad.jsonl", "errors.jsonl", "good.jsonl", "one.jsonl", "two.jsonl"]


def test_the_errors_of_a_run_that_ends_at_the_same_time_stay(tiny_bundle, tmp_path, monkeypatch):
    bad, errors = tmp_path / "bad.jsonl", tmp_path / "errors.jsonl"
    bad.write_text('{"text": "refund"}\n{', encoding="utf-8")
    flush = bulk._flush

    def flush_while_another_ends(path):
        flush(path)
        if path.name == "errors.jsonl" and not errors.exists():
            errors.write_text('{"of": "another"}\n', encoding="utf-8")

    monkeypatch.setattr(bulk, "_flush", flush_while_another_ends)
    summary = route_file(tiny_bundle.path, bad, tmp_path / "one.jsonl")
    assert summary.errors == tmp_path / "one.jsonl.errors.jsonl"
    assert [row["output"] for row in read_rows(summary.errors)] == ["one.jsonl"]
    assert errors.read_text(encoding="utf-8") == '{"of": "another"}\n'


def test_a_disk_that_knows_no_links_will_do(tiny_bundle, tmp_path, monkeypatch):
    bad, errors = tmp_path / "bad.jsonl", tmp_path / "errors.jsonl"
    bad.write_text('{"text": "refund"}\n{', encoding="utf-8")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bulk.os, "link", refuse)
    assert route_file(tiny_bundle.path, bad, tmp_path / "one.jsonl").errors == errors
    assert route_file(tiny_bundle.path, bad, tmp_path / "two.jsonl").errors == tmp_path / "two.jsonl.errors.jsonl"
    assert [row["output"] for row in read_rows(errors)] == ["one.jsonl"]


@pytest.mark.parametrize("content", ["{\n[1]\n", "id;text\n1\n2;3;4\n"])
def test_a_file_in_which_no_line_holds_a_query_is_an_error(tiny_bundle, tmp_path, content):
    source = tmp_path / ("queries.csv" if "id" in content else "queries.jsonl")
    source.write_text(content, encoding="utf-8")
    output = tmp_path / "answers.jsonl"
    output.write_text("old", encoding="utf-8")
    done = distill("route", tiny_bundle.path, "--input", source, "--output", output, "-q")
    assert (done.exit_code, done.stdout) == (1, "")
    first, last = done.stderr.splitlines()
    assert first.startswith(f"route: {source}:{2 if 'id' in content else 1}: ")
    assert last == f"distill: {source}: no line holds a query: {tmp_path / 'errors.jsonl'} says for each why"
    assert len(read_rows(tmp_path / "errors.jsonl")) == 2
    assert output.read_text(encoding="utf-8") == "old"
    assert files_in(tmp_path) == ["answers.jsonl", "errors.jsonl", source.name]


@SOURCES
def test_a_file_without_a_line_makes_an_output_without_a_row(tiny_bundle, tmp_path, suffix):
    source = write_texts(tmp_path / f"queries{suffix}", [])
    if suffix != ".parquet":
        with source.open("a", encoding="utf-8") as stream:
            stream.write("\n  \n")
    assert route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl").n_queries == 0
    assert read_rows(tmp_path / "answers.jsonl") == []


def test_a_null_in_a_table_is_malformed(tiny_bundle, tmp_path):
    table = pa.table({"text": pa.array(["refund", None, "parcel"], pa.large_string())})
    pq.write_table(table, tmp_path / "queries.parquet")
    summary = route_file(tiny_bundle.path, tmp_path / "queries.parquet", tmp_path / "answers.parquet")
    assert (summary.n_queries, summary.n_errors) == (2, 1)
    assert [row["line"] for row in read_rows(tmp_path / "answers.parquet")] == [1, 3]
    assert read_rows(tmp_path / "errors.jsonl") == [
        {"output": "answers.parquet", "line": 2, "error": '"text" is null', "raw": "null"}
    ]


def test_a_table_may_hold_its_texts_as_a_dictionary(tiny_bundle, tmp_path):
    source, output = tmp_path / "queries.parquet", tmp_path / "answers.jsonl"
    texts = ["refund", "parcel", None, "refund", "cancel", "parcel", "refund"]
    pq.write_table(pa.table({"text": pa.array(texts).dictionary_encode()}), source, row_group_size=3)
    assert pa.types.is_dictionary(pq.read_schema(source).field("text").type)
    assert route_file(tiny_bundle.path, source, output, lines_per_part=2).n_errors == 1
    rows = [(line, text) for line, text in enumerate(texts, 1) if text is not None]
    assert [(row["line"], row["text"]) for row in read_rows(output)] == rows


def test_a_line_too_long_for_memory_is_malformed_and_the_next_is_not(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LONGEST_LINE", 64)
    source = tmp_path / "queries.jsonl"
    lines = [{"text": "refund"}, {"text": "x" * 500}, {"text": "y" * 51}, {"text": "parcel"}, {"text": "z" * 99}]
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", lines_per_part=2)
    assert [row["line"] for row in read_rows(tmp_path / "answers.jsonl")] == [1, 3, 4]
    errors = read_rows(tmp_path / "errors.jsonl")
    assert [(error["line"], error["error"]) for error in errors] == [(n, "longer than 64 bytes") for n in (2, 5)]


def test_a_part_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_PART", 100)
    source = write_texts(tmp_path / "queries.jsonl", ["x" * 80] * 3 + ["y"] * 20)
    parts = bulk_files.JsonLines().plan(source, 1000, TEXT).parts
    assert [part.n_lines for part in parts][:3] == [1, 1, 1]
    assert sum(part.n_lines for part in parts) == 23


@SOURCES
def test_memory_does_not_grow_with_the_input(tiny_bundle, tmp_path, suffix):
    output = tmp_path / ("answers.parquet" if suffix == ".parquet" else "answers.jsonl")

    def peak(n):
        source = write_texts(tmp_path / f"queries{suffix}", make_texts(n))
        tracemalloc.start()
        route_file(tiny_bundle.path, source, output, lines_per_part=500)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(500)
    assert peak(8000) < 1.3 * peak(1500)


def test_a_large_row_group_is_not_read_at_once(tmp_path):
    source = tmp_path / "queries.parquet"
    texts = [f"{number:06} {'x' * 500}" for number in range(40_000)]
    pq.write_table(pa.table({"text": texts}), source, compression="none", use_dictionary=False)
    assert pq.ParquetFile(source).num_row_groups == 1
    script = (
        "import sys; from pathlib import Path; import pyarrow as pa; from distill.bulk_files import Columns, Parquet\n"
        "source = Path(sys.argv[1])\n"
        "parts = Parquet().plan(source, 8192, Columns('text')).parts\n"
        "print(sum(len(list(Parquet().read(source, part, Columns('text')))) for part in parts), pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    n_lines, most_bytes = map(int, done.stdout.split())
    assert n_lines == 40_000
    assert most_bytes < source.stat().st_size / 2


def test_long_texts_are_read_a_few_at_a_time(tmp_path):
    source = tmp_path / "queries.parquet"
    texts = [f"{number:06} {'x' * 100_000}" for number in range(600)]
    pq.write_table(pa.table({"text": texts}), source, compression="none", use_dictionary=False, write_batch_size=16)
    script = (
        "import sys; from pathlib import Path; import pyarrow as pa; from distill.bulk_files import Columns, Parquet\n"
        "source = Path(sys.argv[1])\n"
        "parts = Parquet().plan(source, 8192, Columns('text')).parts\n"
        "print(sum(1 for part in parts[:2] for _ in Parquet().read(source, part, Columns('text'))), pa.default_memory_pool().max_memory())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, source], capture_output=True, text=True, check=True, env=environment
    )
    n_lines, most_bytes = map(int, done.stdout.split())
    assert 200 < n_lines < 400
    assert most_bytes < source.stat().st_size


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_two_columns_of_one_name_are_one_clear_error(tiny_bundle, tmp_path, suffix):
    source = tmp_path / f"queries{suffix}"
    table = pa.Table.from_arrays([pa.array(["refund"]), pa.array(["parcel"])], names=["text", "text"])
    if suffix == ".csv":
        source.write_text("text,text\nrefund,parcel\n", encoding="utf-8")
    else:
        pq.write_table(table, source)
    with pytest.raises(DataError, match="has 2 columns `text`"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_input_that_is_changed_meanwhile_makes_no_output(tiny_bundle, tmp_path, monkeypatch, suffix):
    source, output = tmp_path / f"queries{suffix}", tmp_path / "answers.jsonl"
    write_texts(source, make_texts(40))
    routed = bulk.PartRouter.route

    def changing(self, part):
        if part.number == 1:
            write_texts(source, ["two\nlines"] * 60)
        return routed(self, part)

    with monkeypatch.context() as patched:
        patched.setattr(bulk.PartRouter, "route", changing)
        with pytest.raises(DataError, match="was changed while it was routed; run it again"):
            route_file(tiny_bundle.path, source, output, lines_per_part=10)
    assert not output.exists()
    assert route_file(tiny_bundle.path, source, output, lines_per_part=10).n_queries == 60


def test_lines_that_are_added_while_it_is_planned_are_not_lost(tiny_bundle, tmp_path, monkeypatch):
    source, output = write_texts(tmp_path / "queries.jsonl", make_texts(15)), tmp_path / "answers.jsonl"
    planned = bulk_files.JsonLines.plan

    def growing(self, *given):
        parts = planned(self, *given)
        with source.open("a", encoding="utf-8") as stream:
            stream.write('{"text": "refund"}\n')
        return parts

    with monkeypatch.context() as patched:
        patched.setattr(bulk_files.JsonLines, "plan", growing)
        with pytest.raises(DataError, match="was changed"):
            route_file(tiny_bundle.path, source, output, lines_per_part=10)
    assert route_file(tiny_bundle.path, source, output, lines_per_part=10).n_queries == 16


def test_a_job_that_a_power_cut_left_empty_is_begun_anew(tiny_bundle, tmp_path, capsys):
    source, output = write_texts(tmp_path / "queries.jsonl", make_texts(15)), tmp_path / "answers.jsonl"
    parts = tmp_path / "answers.jsonl.parts"
    parts.mkdir()
    (parts / "job.json").write_bytes(b"\0" * 100)
    (parts / "000000.jsonl").write_text("half a li", encoding="utf-8")
    assert route_file(tiny_bundle.path, source, output).n_queries == 15
    assert "beginning anew: job.json in answers.jsonl.parts cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_a_row_of_parquet_that_is_not_utf8_costs_one_line(tiny_bundle, tmp_path, kind):
    values = [b"refund", b"caf\xe9", b"parcel" if kind == "dictionary" else None, b"parcel"]
    of_bytes, of_text = (pa.binary(), pa.string()) if kind == "string" else (pa.large_binary(), pa.large_string())
    column = pa.array(values, of_bytes)
    texts = pa.Array.from_buffers(of_text, len(column), column.buffers())
    if kind == "dictionary":
        texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 3], pa.int32()), texts)
    pq.write_table(pa.table({"text": texts}), tmp_path / "queries.parquet")
    summary = route_file(tiny_bundle.path, tmp_path / "queries.parquet", tmp_path / "answers.jsonl")
    assert [(row["line"], row["text"]) for row in read_rows(tmp_path / "answers.jsonl")] == [
        (1, "refund"),
        (4, "parcel"),
    ]
    errors = read_rows(summary.errors)
    assert [(row["line"], row["error"]) for row in errors] == [(2, "not UTF-8"), (3, '"text" is null')]


def test_a_damaged_parquet_file_is_named(tiny_bundle, tmp_path):
    source = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"text": [f"refund {number}" for number in range(2000)]}), source)
    content = bytearray(source.read_bytes())
    content[60:400] = bytes(340)
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"queries\.parquet: damaged"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl")


def test_a_part_of_parquet_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_PART", 1000)
    pq.write_table(
        pa.table({"id": range(50), "text": [f"{number} {'x' * 100}" for number in range(50)]}), tmp_path / "a.parquet"
    )
    parts = bulk_files.Parquet().plan(tmp_path / "a.parquet", 1000, TEXT).parts
    assert 5 <= len(parts) <= 10
    assert sum(part.n_lines for part in parts) == 50


def test_a_text_of_parquet_that_occurs_again_counts_again(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_PART", 1000)
    pq.write_table(pa.table({"text": ["x" * 100, None] * 50}), tmp_path / "a.parquet")
    parts = bulk_files.Parquet().plan(tmp_path / "a.parquet", 1000, TEXT).parts
    assert [part.n_lines for part in parts] == [20] * 5


@given(sizes=st.lists(st.integers(0, 12), max_size=40), lines_per_part=st.integers(1, 9))
def test_parts_of_parquet_hold_every_row_once_and_no_more_than_they_may(tmp_path_factory, sizes, lines_per_part):
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    texts = ["x" * 10 * size or None for size in sizes]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BYTES_PER_PART", 200)
        patch.setattr(limits, "ROWS_AT_A_TIME", 3)
        parts = bulk_files.Parquet().plan(path, lines_per_part, TEXT).parts
        read = [[line.text for line in bulk_files.Parquet().read(path, part, TEXT)] for part in parts]
    assert [text for part in read for text in part] == texts
    assert [part.n_lines for part in parts] == [*map(len, read)]
    for rows in read:
        assert len(rows) == 1 or (len(rows) <= lines_per_part and sum(len(text or "") for text in rows) <= 200)


def test_parts_in_a_row_are_read_on_and_others_from_where_they_begin(tmp_path, monkeypatch):
    path, texts = tmp_path / "a.parquet", [f"query {number}" for number in range(100)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=30)
    source, opened = bulk_files.source_of(path), []
    parts = source.plan(path, 7, TEXT).parts
    as_it_is = parquet._open_parquet
    monkeypatch.setattr(parquet, "_open_parquet", lambda path: opened.append(path) or as_it_is(path))
    assert [line.text for part in parts for line in source.read(path, part, TEXT)] == texts
    assert len(opened) == 1
    for part in reversed(parts):
        read = [line.text for line in source.read(path, part, TEXT)]
        assert read == texts[part.start : part.start + part.n_lines]
    assert len(opened) == len(parts) + 1


# --- CSV, and other columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines_per_part", [1, 2, 100])
def test_a_row_of_a_csv_has_the_line_on_which_it_begins(tiny_bundle, tmp_path, lines_per_part):
    source, output = tmp_path / "queries.csv", tmp_path / "answers.jsonl"
    rows = [
        '"id;\n1";"say ""text"""',
        '1;"refund,\nplease"',
        "",
        '2;5" parcel',
        "3;",
        "   ",
        '4;"cancel\r\n\r\nit"',
        "5;ünï",
    ]
    source.write_bytes(("\ufeff" + "\r\n".join(rows)).encode())
    summary = route_file(tiny_bundle.path, source, output, column='say "text"', lines_per_part=lines_per_part)
    assert (summary.n_queries, summary.errors) == (5, None)
    assert [(row["line"], row["text"]) for row in read_rows(output)] == [
        (3, "refund,\nplease"), (6, '5" parcel'), (7, ""), (9, "cancel\r\n\r\nit"), (12, "ünï"),
    ]  # fmt: skip


@pytest.mark.parametrize(("suffix", "is_said"), [(".csv", True), (".jsonl", False), (".parquet", False)])
def test_a_long_csv_is_said_to_be_read_first(tiny_bundle, tmp_path, monkeypatch, capsys, suffix, is_said):
    monkeypatch.setattr(bulk, "_LONG_TO_READ", 1)
    source = write_texts(tmp_path / f"queries{suffix}", ["refund"])
    route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl")
    assert (f"route: reading queries{suffix} once" in capsys.readouterr().err) is is_said


@pytest.mark.parametrize("lines_per_part", [1, 2, 100])
def test_malformed_rows_of_a_csv_cost_one_line_each(tiny_bundle, tmp_path, lines_per_part, capsys):
    rows = {
        b"refund,1": None,
        b"refund, please,1": "expected as many values as the header has (2), found 3",
        b"parcel": "found 1",
        b'"cancel" it,1': "not CSV",
        b"refund \xff,1": "not UTF-8 (byte 7)",
        b'"never closed,1': "not CSV",
        b"parcel,1": None,
        b'"cancel,1': "not CSV",
        b'"refund",1': None,
    }
    source, output = tmp_path / "queries.csv", tmp_path / "answers.jsonl"
    source.write_bytes(b"\n".join([b"text,n", *rows]))
    route_file(tiny_bundle.path, source, output, lines_per_part=lines_per_part)
    numbered = list(enumerate(rows.items(), 2))
    expected = [(number, raw.split(b",")[0].decode().strip('"')) for number, (raw, reason) in numbered if not reason]
    assert [(row["line"], row["text"]) for row in read_rows(output)] == expected
    malformed = [(number, raw, reason) for number, (raw, reason) in numbered if reason]
    for error, (number, raw, reason) in zip(read_rows(tmp_path / "errors.jsonl"), malformed, strict=True):
        assert (error["line"], error["raw"]) == (number, raw.decode("utf-8", "replace"))
        assert reason in error["error"]
    assert "queries.csv:3: expected as many" in capsys.readouterr().err


def test_a_row_too_long_for_memory_is_malformed_and_the_next_is_not(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LONGEST_LINE", 64)
    source = tmp_path / "queries.csv"
    source.write_text('text,n\n"refund,1\n' + "parcel,1\n" * 20 + f"{'x' * 99},1\ncancel,1\n", encoding="utf-8")
    summary = route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", lines_per_part=3)
    assert (summary.n_queries, summary.n_errors) == (21, 2)
    errors = read_rows(tmp_path / "errors.jsonl")
    assert [error["line"] for error in errors] == [2, 23]
    assert all("a row of 64 bytes or more" in error["error"] for error in errors)


@given(
    table=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=6), st.text(' ,;"\r\n\tax', max_size=9)), max_size=12),
    lines_per_part=st.integers(1, 5), delimiter=st.sampled_from(",;\t|"),
)  # fmt: skip
def test_whatever_a_csv_holds_comes_back(tmp_path_factory, table, lines_per_part, delimiter):
    path = tmp_path_factory.mktemp("csv") / "queries.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "text"), *table])
    source = bulk_files.Csv()
    parts = source.plan(path, lines_per_part, TEXT).parts
    lines = [line for part in parts for line in source.read(path, part, TEXT)]
    assert [line.text for line in lines] == [text for _, text in table]
    assert sum(part.n_lines for part in parts) == path.read_bytes().count(b"\n") - 1


def test_the_limit_of_the_csv_module_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit()
    path = write_texts(tmp_path / "queries.csv", ["x" * (before + 1), "refund"])
    source = bulk_files.Csv()
    (part,) = source.plan(path, 100, TEXT).parts
    lines = source.read(path, part, TEXT)
    assert len(next(lines).text) == before + 1
    assert csv.field_size_limit() == before
    assert next(lines).text == "refund"
    assert csv.field_size_limit() == before


@SOURCES
def test_the_queries_may_stand_in_another_column(tiny_bundle, tmp_path, suffix):
    source, output = tmp_path / f"queries{suffix}", tmp_path / "answers.jsonl"
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": ["no"], "asked": ["refund"]}), source)
    else:
        lines = {".csv": "text,asked\nno,refund\n", ".jsonl": '{"text": "no", "asked": "refund"}\n'}
        source.write_text(lines[suffix], encoding="utf-8")
    done = distill("route", tiny_bundle.path, "--input", source, "--output", output, "--column", "asked", "-q")
    assert done.exit_code == 0, done.output
    assert [row["text"] for row in read_rows(output)] == ["refund"]


# --- columns that are kept -------------------------------------------------------------------------------------------

KEPT = {"id": [7, 2**53 + 1, None], "who": ["ünï", "", None], "paid": [True, None, False], "usd": [0.5, 1e300, None]}
QUERIES = ["refund", "parcel, please", "cancel"]


def write_kept(path):
    """A file of three queries with other columns; what a value is depends on what the format knows."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": QUERIES, **KEPT}), path)
    else:
        rows = [dict(zip(["text", *KEPT], row, strict=True)) for row in zip(QUERIES, *KEPT.values(), strict=True)]
        with path.open("w", encoding="utf-8", newline="") as stream:
            if path.suffix == ".csv":
                writer = csv.DictWriter(stream, ["text", *KEPT])
                writer.writeheader()
                writer.writerows(rows)
            else:
                stream.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def expected_of(suffix, output_suffix):
    """What is to come out: JSON and Parquet keep their values; CSV has texts only; what is no text comes from JSON into a table as JSON."""
    if suffix == ".csv":
        return {name: ["" if value is None else str(value) for value in values] for name, values in KEPT.items()}
    if suffix == ".jsonl" and output_suffix == ".parquet":
        return {
            name: [value if isinstance(value, str | None) else json.dumps(value) for value in values]
            for name, values in KEPT.items()
        }
    return KEPT


@SOURCES
@pytest.mark.parametrize("output_suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("lines_per_part", [1, 100])
def test_columns_go_into_the_output_as_they_are(tiny_bundle, tmp_path, suffix, output_suffix, lines_per_part):
    source, output = write_kept(tmp_path / f"queries{suffix}"), tmp_path / f"answers{output_suffix}"
    route_file(tiny_bundle.path, source, output, keep=["usd", "id", "who", "paid", "id"], lines_per_part=lines_per_part)
    rows = read_rows(output)
    assert list(rows[0]) == ["line", "usd", "id", "who", "paid", "text", "intent", "score", "reason", "top_intent"]
    assert [row["text"] for row in rows] == QUERIES
    assert {name: [row[name] for row in rows] for name in KEPT} == expected_of(suffix, output_suffix)
    if suffix == output_suffix == ".parquet":
        kinds, before = pq.read_schema(output), pq.read_schema(source)
        assert [kinds.field(name).type for name in KEPT] == [before.field(name).type for name in KEPT]


@SOURCES
def test_the_column_of_the_queries_can_be_kept_under_its_name(tiny_bundle, tmp_path, suffix):
    source, output = write_kept(tmp_path / f"queries{suffix}"), tmp_path / "answers.jsonl"
    route_file(tiny_bundle.path, source, output, column="who", keep=["who"])
    rows = read_rows(output)
    assert rows[0]["who"] == rows[0]["text"] == "ünï"


def test_a_category_is_kept_as_its_values(tiny_bundle, tmp_path):
    source = tmp_path / "queries.parquet"
    pq.write_table(
        pa.table({"text": QUERIES, "kind": pa.array(["a", None, "a"]).dictionary_encode()}),
        source,
    )
    for output in (tmp_path / "answers.jsonl", tmp_path / "answers.parquet"):
        route_file(tiny_bundle.path, source, output, keep=["kind"])
        assert [row["kind"] for row in read_rows(output)] == ["a", None, "a"]


def test_any_json_is_kept_and_what_a_line_lacks_is_null(tiny_bundle, tmp_path):
    values = [{"of": ["ünï", 1.0, None]}, [], "3", 3]
    source = tmp_path / "queries.jsonl"
    lines = [*({"text": "refund", "id": value} for value in values), {"text": "refund"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", keep=["id"])
    assert [row["id"] for row in read_rows(tmp_path / "answers.jsonl")] == [*values, None]
    route_file(tiny_bundle.path, source, tmp_path / "answers.parquet", keep=["id"])
    expected = ['{"of": ["ünï", 1.0, null]}', "[]", "3", "3", None]
    assert [row["id"] for row in read_rows(tmp_path / "answers.parquet")] == expected


def test_json_that_only_python_reads_is_kept_as_json(tiny_bundle, tmp_path):
    source = tmp_path / "queries.jsonl"
    values = ['{"of": [NaN, 1e999, 1]}', "-Infinity", '["\\ud83d", "ü"]', '"\\ud83d"']
    source.write_text("".join(f'{{"text": "refund", "id": {value}}}\n' for value in values), encoding="utf-8")
    assert route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", keep=["id"]).n_errors == 0
    expected = [{"of": [None, None, 1]}, None, ["?", "ü"], "?"]
    assert [row["id"] for row in read_rows(tmp_path / "answers.jsonl")] == expected
    route_file(tiny_bundle.path, source, tmp_path / "answers.parquet", keep=["id"])
    in_table = [row["id"] for row in read_rows(tmp_path / "answers.parquet")]
    assert in_table == ['{"of": [null, null, 1]}', None, '["?", "ü"]', "?"]


def test_a_value_that_is_nested_too_deeply_costs_one_line(tiny_bundle, tmp_path):
    source, depths = (
        tmp_path / "queries.jsonl",
        (*range(900, 1000), 100_000),
    )  # what is read may be too deep to be written
    lines = (f'{{"text": "refund", "id": {"[" * depth}{"]" * depth}}}\n{{"text": "parcel"}}\n' for depth in depths)
    source.write_text("".join(lines), encoding="utf-8")
    for output in (tmp_path / "answers.jsonl", tmp_path / "answers.parquet"):
        summary = route_file(tiny_bundle.path, source, output, keep=["id"])
        assert summary.n_queries + summary.n_errors == 2 * len(depths)
        assert len(depths) <= summary.n_queries == len(read_rows(output)) < 2 * len(depths)


def test_what_is_not_finite_is_null_in_json(tiny_bundle, tmp_path):
    source = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"text": QUERIES, "usd": [float("nan"), float("inf"), 0.5]}), source)
    route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", keep=["usd"])
    assert [row["usd"] for row in read_rows(tmp_path / "answers.jsonl")] == [None, None, 0.5]
    route_file(tiny_bundle.path, source, tmp_path / "answers.parquet", keep=["usd"])
    assert str([row["usd"] for row in read_rows(tmp_path / "answers.parquet")]) == "[nan, inf, 0.5]"


def test_what_is_not_utf8_in_a_kept_column_is_replaced(tiny_bundle, tmp_path):
    source, output = tmp_path / "queries.parquet", tmp_path / "answers.jsonl"
    broken = pa.array([b"a", b"caf\xe9", b"b"], pa.binary())
    ids = pa.Array.from_buffers(pa.string(), len(broken), broken.buffers())
    pq.write_table(pa.table({"text": QUERIES, "id": ids}), source)
    assert route_file(tiny_bundle.path, source, output, keep=["id"]).n_errors == 0
    assert [row["id"] for row in read_rows(output)] == ["a", "caf\ufffd", "b"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_a_table_lacks_is_named_before_anything_is_written(tiny_bundle, tmp_path, suffix):
    source, output = write_kept(tmp_path / f"queries{suffix}"), tmp_path / "answers" / "answers.jsonl"
    line = fails("route", tiny_bundle.path, "--input", source, "--output", output, "--keep", "id", "--keep", "idd")
    assert line == (
        f"{source}: has no column 'idd'; it has 'text', 'id', 'who', 'paid', 'usd'; --keep names what goes into the output"
    )
    assert not output.parent.exists()


def test_a_key_that_no_line_has_is_said(tiny_bundle, tmp_path, capsys):
    source, output = write_kept(tmp_path / "queries.jsonl"), tmp_path / "answers.jsonl"
    route_file(tiny_bundle.path, source, output, keep=["id", "idd"])
    assert "route: none of the first lines has idd; where a line lacks" in capsys.readouterr().err
    assert [row["idd"] for row in read_rows(output)] == [None] * 3


@SOURCES
def test_a_name_that_the_output_has_is_refused(tiny_bundles, tmp_path, suffix):
    source = write_kept(tmp_path / f"queries{suffix}")
    for task, names in ((Task.SINGLE, ("line", "intent")), (Task.MULTI, ("intents",)), (Task.WEIGHTS, ("weights",))):
        for name in names:
            with pytest.raises(
                DataError, match=rf"the column `{name}` cannot be kept: the answers have one of that name"
            ):
                route_file(tiny_bundles[task].path, source, tmp_path / "answers.jsonl", keep=[name])
    with pytest.raises(TypeError, match=r"keep: expected a list of names, found 'id'"):
        route_file(tiny_bundles[Task.SINGLE].path, source, tmp_path / "answers.jsonl", keep="id")


def test_another_tasks_column_may_be_kept_and_so_may_the_text(tiny_bundle, tmp_path):
    source = tmp_path / "queries.jsonl"
    source.write_text('{"text": "refund", "weights": 3}\n', encoding="utf-8")
    for output, kept in ((tmp_path / "answers.jsonl", 3), (tmp_path / "answers.parquet", "3")):
        route_file(tiny_bundle.path, source, output, keep=["weights", "text"])
        (row,) = read_rows(output)
        assert (row["weights"], row["text"]) == (kept, "refund")


def test_a_column_without_a_value_is_kept(tiny_bundle, tmp_path):
    pq.write_table(pa.table({"text": ["refund"], "id": pa.nulls(1)}), tmp_path / "queries.parquet")
    for output in (tmp_path / "answers.jsonl", tmp_path / "answers.parquet"):
        route_file(tiny_bundle.path, tmp_path / "queries.parquet", output, keep=["id"])
        assert [row["id"] for row in read_rows(output)] == [None]


def test_dates_times_and_decimals_are_kept_as_text(tiny_bundle, tmp_path):
    source = tmp_path / "queries.parquet"
    at = pa.array([0, None], pa.timestamp("ns", tz="UTC"))
    days = pa.array([0, 1], pa.date32()).dictionary_encode()
    pq.write_table(
        pa.table(
            {
                "text": ["refund", "parcel"],
                "at": at,
                "day": days,
                "usd": pa.array(["1.50", None]).cast(pa.decimal128(5, 2)),
            }
        ),
        source,
    )
    for output in (tmp_path / "answers.jsonl", tmp_path / "answers.parquet"):
        route_file(tiny_bundle.path, source, output, keep=["at", "day", "usd"])
        rows = [(row["at"], row["day"], row["usd"]) for row in read_rows(output)]
        assert rows == [("1970-01-01 00:00:00.000000000Z", "1970-01-01", "1.50"), (None, "1970-01-02", None)]


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [b"a"]], ids=["list", "struct", "bytes"])
def test_a_column_of_another_type_is_named(tiny_bundle, tmp_path, values):
    source = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"text": ["refund"], "of": values}), source)
    with pytest.raises(DataError, match=r"the column `of` holds .*, which cannot be kept: text, numbers, booleans"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.parquet", keep=["of"])


@SOURCES
def test_a_name_that_arrow_uses_itself_can_be_kept(tiny_bundle, tmp_path, suffix):
    source = tmp_path / f"queries{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": ["refund"], "__filename": ["a.log"]}), source)
    else:
        lines = {".csv": "text,__filename\nrefund,a.log\n", ".jsonl": '{"text": "refund", "__filename": "a.log"}\n'}
        source.write_text(lines[suffix], encoding="utf-8")
    route_file(tiny_bundle.path, source, tmp_path / "answers.parquet", keep=["__filename"])
    with pq.ParquetFile(tmp_path / "answers.parquet") as table:  # `read_table` knows no such name
        assert table.read().column("__filename").to_pylist() == ["a.log"]


def test_a_run_that_was_cut_before_columns_could_be_kept_goes_on(cut):
    job = cut[2].with_name("answers.jsonl.parts") / "job.json"
    before = json.loads(job.read_bytes())
    del before["keep"]
    job.write_text(json.dumps(before), encoding="utf-8")
    assert route_file(*cut, lines_per_part=10).n_resumed == 20


def test_long_kept_texts_make_parts_shorter(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_PART", 1000)
    pq.write_table(pa.table({"text": ["refund"] * 50, "body": ["x" * 100] * 50}), tmp_path / "a.parquet")
    assert len(bulk_files.Parquet().plan(tmp_path / "a.parquet", 1000, TEXT).parts) == 1
    assert len(bulk_files.Parquet().plan(tmp_path / "a.parquet", 1000, bulk_files.Columns("text", ("body",))).parts) > 4


def test_long_texts_that_come_late_make_parts_shorter(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_PART", 100_000)
    monkeypatch.setattr(limits, "ROWS_AT_A_TIME", 64)
    pq.write_table(pa.table({"text": ["x"] * 600 + ["x" * 1000] * 600}), tmp_path / "a.parquet")
    assert len(bulk_files.Parquet().plan(tmp_path / "a.parquet", 10_000, TEXT).parts) > 5


# --- killed, and run again -------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from distill.bulk import route_file
bundle, source, output = map(Path, sys.argv[1:])
route_file(bundle, source, output, lines_per_part=50)
"""


def run_until_killed(arguments, parts, n_whole):
    """Starts a run, and kills it as soon as it has that many parts."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 60
    while process.poll() is None and len(list(parts.glob("0*[0-9].json"))) < n_whole:
        assert time.monotonic() < patience
        time.sleep(0.002)
    process.kill()
    return process.wait()


@FORMATS
def test_after_kill_9_the_same_run_ends_with_the_same_output(tiny_bundle, tmp_path, suffix, capsys):
    texts = make_texts(6000)
    source = write_texts(tmp_path / "queries.jsonl", texts)
    with source.open("a", encoding="utf-8") as stream:
        stream.write("{\n" + '{"text": "refund"}')
    whole, output = tmp_path / "whole" / f"answers{suffix}", tmp_path / "killed" / f"answers{suffix}"
    route_file(tiny_bundle.path, source, whole, lines_per_part=50)
    parts = output.with_name(f"answers{suffix}.parts")
    for n_whole in (1, 40):
        assert run_until_killed((tiny_bundle.path, source, output), parts, n_whole) == -signal.SIGKILL
        assert not output.exists()
    assert (parts / "distill.lock").exists()  # which holds nobody up
    n_done = sum(json.loads(mark.read_bytes())["n_lines"] for mark in parts.glob("0*[0-9].json"))
    capsys.readouterr()
    summary = route_file(tiny_bundle.path, source, output, lines_per_part=50)
    assert f"going on where it stopped: {n_done:,} lines are done" in capsys.readouterr().err
    assert 2000 <= n_done == summary.n_resumed < 6002
    assert (summary.n_queries, summary.n_errors) == (6001, 1)
    assert read_rows(output) == read_rows(whole)
    assert files_in(output.parent) == files_in(whole.parent) == [f"answers{suffix}", "errors.jsonl"]


@pytest.fixture
def cut(tiny_bundle, tmp_path, monkeypatch):
    """A run that was cut after two of six parts, the last of which is a line without a query: bundle, input, output."""
    source, output = write_texts(tmp_path / "queries.jsonl", make_texts(50)), tmp_path / "answers.jsonl"
    with source.open("a", encoding="utf-8") as stream:
        stream.write("{")
    route = bulk.PartRouter.route

    def route_two(self, part):
        if part.number == 2:
            raise KeyboardInterrupt
        return route(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(bulk.PartRouter, "route", route_two)
        with pytest.raises(KeyboardInterrupt):
            route_file(tiny_bundle.path, source, output, lines_per_part=10)
    return tiny_bundle.path, source, output


def test_what_is_whole_is_not_routed_again(cut, monkeypatch):
    routed = []
    route = bulk.PartRouter.route
    monkeypatch.setattr(bulk.PartRouter, "route", lambda self, part: routed.append(part.number) or route(self, part))
    summary = route_file(*cut, lines_per_part=10)
    assert (routed, summary.n_resumed, summary.n_queries) == ([2, 3, 4, 5], 20, 50)


@pytest.mark.parametrize("start", [7, None])
def test_a_part_that_was_cut_elsewhere_is_done_anew(cut, start):
    """By a version that cut the input into other parts, one of which may have as many lines."""
    mark = cut[2].with_name("answers.jsonl.parts") / "000001.json"
    value = json.loads(mark.read_bytes()) | {"start": start}
    mark.write_text(json.dumps({key: each for key, each in value.items() if each is not None}), encoding="utf-8")
    assert route_file(*cut, lines_per_part=10).n_resumed == 10
    assert [row["line"] for row in read_rows(cut[2])] == [*range(1, 51)]


def test_progress_counts_what_earlier_runs_did(cut, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_WORTH_A_LINE", 0)
    route_file(*cut, lines_per_part=10)
    assert "route: 51/51 lines, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("000001.jsonl", b""), ("000001.errors.jsonl", None), ("000001.json", b"\0" * 90),
        ("000001.json", b'{"n_lines": 10, "n_queries": 10, "n_errors": 0}'), ("000001.json", b"3"),
    ],
    ids=["emptied", "gone", "zeros", "no sizes", "no object"],
)  # fmt: skip
def test_a_part_that_does_not_fit_its_mark_is_done_anew(cut, name, content):
    _, _, output = cut
    damaged = output.with_name("answers.jsonl.parts") / name
    damaged.unlink() if content is None else damaged.write_bytes(content)
    summary = route_file(*cut, lines_per_part=10)
    assert (summary.n_queries, summary.n_errors, summary.n_resumed) == (50, 1, 10)
    assert [row["line"] for row in read_rows(output)] == list(range(1, 51))


def test_a_part_that_is_changed_before_it_is_joined_is_an_error_and_then_done_anew(cut, monkeypatch):
    _, _, output = cut
    route = bulk.PartRouter.route

    def route_and_lose(self, part):
        counts = route(self, part)
        (output.with_name("answers.jsonl.parts") / "000003.jsonl").write_bytes(b"")
        return counts

    with monkeypatch.context() as patch:
        patch.setattr(bulk.PartRouter, "route", route_and_lose)
        with pytest.raises(DataError, match=r"000003\.jsonl: was changed since it was written; run it again"):
            route_file(*cut, lines_per_part=10)
    assert not output.exists()
    route_file(*cut, lines_per_part=10)
    assert len(read_rows(output)) == 50


def test_a_part_is_on_the_disk_before_its_mark_and_the_output_before_its_parts_go(cut, monkeypatch):
    _, _, output = cut
    parts, flushed = output.with_name("answers.jsonl.parts"), []
    fsync = os.fsync

    def note(descriptor):
        fsync(descriptor)
        flushed.append((os.fstat(descriptor).st_ino, (parts / "000002.json").exists()))

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(bulk, "_remove", lambda _: None)
    route_file(*cut, lines_per_part=10)
    assert {(path.stat().st_ino, False) for path in (parts / "000002.jsonl", parts / "000002.errors.jsonl")} <= {
        *flushed
    }
    assert (output.stat().st_ino, True) in flushed


@pytest.mark.parametrize("change", ["input", "column", "keep", "bundle", "lines_per_part"])
def test_parts_of_something_else_are_not_taken(cut, tmp_path, capsys, change):
    bundle, source, output = cut
    lines_per_part, column, keep = 10, "text", ()
    if change == "input":
        write_texts(source, ["refund"] * 50)
    elif change == "column":
        column = "id"
    elif change == "keep":
        keep = ("id",)
    elif change == "bundle":
        bundle = build_bundle(tmp_path / "other", max_length=8).path
    else:
        lines_per_part = 7
    if column == "id":  # ids are no texts
        with pytest.raises(DataError, match="no line holds a query"):
            route_file(bundle, source, output, column=column, lines_per_part=lines_per_part)
    else:
        summary = route_file(bundle, source, output, column=column, keep=keep, lines_per_part=lines_per_part)
        assert (summary.n_resumed, len(read_rows(output))) == (0, 50)
    assert "beginning anew" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["all", "some", "none"])
def test_a_run_cut_while_it_tidied_up_can_be_run_again(cut, monkeypatch, left):
    remove = bulk._remove

    def cut_short(folder):
        files = sorted(file for file in folder.iterdir() if file.name != "job.json")
        for file in files[: {"all": 0, "some": 3, "none": len(files)}[left]]:
            file.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "_remove", cut_short)
    with pytest.raises(KeyboardInterrupt):
        route_file(*cut, lines_per_part=10)
    first = read_rows(cut[2])
    monkeypatch.setattr(bulk, "_remove", remove)
    route_file(*cut, lines_per_part=10)
    assert read_rows(cut[2]) == first
    assert len(first) == 50


def test_an_old_output_stands_until_the_new_one_is_whole(cut):
    _, _, output = cut
    output.write_text("old", encoding="utf-8")
    output.with_name("answers.jsonl.parts").joinpath("000004.jsonl.123.partial").write_text("torn", encoding="utf-8")
    route_file(*cut, lines_per_part=10)
    assert len(read_rows(output)) == 50
    assert not output.with_name("answers.jsonl.parts").exists()


def test_of_two_runs_to_one_output_the_second_is_refused(tiny_bundle, tmp_path, monkeypatch):
    source, output = write_texts(tmp_path / "queries.jsonl", make_texts(30)), tmp_path / "out" / "answers.jsonl"
    route = bulk.PartRouter.route
    refused = []

    def route_beside_another(self, part):
        with pytest.raises(DataError, match=r"answers\.jsonl: another run is writing it"):
            route_file(tiny_bundle.path, source, output, lines_per_part=10)
        refused.append(part.number)
        return route(self, part)

    monkeypatch.setattr(bulk.PartRouter, "route", route_beside_another)
    assert route_file(tiny_bundle.path, source, output, lines_per_part=10).n_queries == 30
    assert refused == [0, 1, 2]
    assert files_in(output.parent) == ["answers.jsonl"]


# --- what stands in the way ------------------------------------------------------------------------------------------


def test_other_peoples_files_are_not_touched(tiny_bundle, tmp_path):
    source = tmp_path / "queries.jsonl"
    source.write_text('{"text": "refund"}\n{', encoding="utf-8")
    output = tmp_path / "out" / "answers.jsonl"
    theirs, beside = output.with_name("errors.jsonl"), output.with_name("answers.jsonl.errors.jsonl")
    theirs.parent.mkdir()
    for content in (
        '{"message": "of another program"}\n',
        '{"line": 1, "error": "of whom?", "raw": ""}\n',
        "[" * 99_999,
        "",
    ):
        theirs.write_text(content, encoding="utf-8")
        assert route_file(tiny_bundle.path, source, output).errors == beside
        assert theirs.read_text(encoding="utf-8") == content
    beside.write_text("theirs too", encoding="utf-8")
    with pytest.raises(DataError, match=r"answers\.jsonl\.errors\.jsonl: stands where"):
        route_file(tiny_bundle.path, source, output)
    assert beside.read_text(encoding="utf-8") == "theirs too"
    beside.unlink()
    parts = output.with_name("answers.jsonl.parts")
    parts.mkdir()
    (parts / "thesis.txt").write_text("theirs", encoding="utf-8")
    route_file(tiny_bundle.path, source, output)
    assert files_in(parts) == ["thesis.txt"]
    (parts / "000000.jsonl").write_text("theirs", encoding="utf-8")
    with pytest.raises(DataError, match="none of ours"):
        route_file(tiny_bundle.path, source, output)
    assert files_in(parts) == ["000000.jsonl", "thesis.txt"]
    (parts / "000000.jsonl").unlink()
    (parts / "job.json").write_text('{"of": "another program"}', encoding="utf-8")
    with pytest.raises(DataError, match="none of ours"):
        route_file(tiny_bundle.path, source, output)
    assert files_in(parts) == ["job.json", "thesis.txt"]
    for left in ("", "[" * 99_999):  # a run's, of which a power cut left this
        (parts / "job.json").write_text(left, encoding="utf-8")
        route_file(tiny_bundle.path, source, output)
        assert files_in(parts) == ["thesis.txt"]
        parts.joinpath("000000.json").touch()


def test_an_output_that_cannot_be_put_in_its_place_is_named(tiny_bundle, tmp_path, monkeypatch):
    source, output = write_texts(tmp_path / "queries.jsonl", ["refund"]), tmp_path / "answers.jsonl"
    replace = Path.replace

    def refuse(self, target):
        if target == output:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(StorageError, match=r"answers\.jsonl: cannot be written \(Permission denied\)$"):
            route_file(tiny_bundle.path, source, output)
    assert route_file(tiny_bundle.path, source, output).n_resumed == 1


@pytest.mark.parametrize(
    "way",
    ["sub/../queries.jsonl", "missing/../queries.jsonl", "symlink.jsonl", "hardlink.jsonl", "folder/queries.jsonl"],
)
def test_the_input_is_not_overwritten_whatever_it_is_called(tiny_bundle, tmp_path, way):
    source = write_texts(tmp_path / "queries.jsonl", ["refund"])
    (tmp_path / "sub").mkdir()
    (tmp_path / "symlink.jsonl").symlink_to(source)
    (tmp_path / "hardlink.jsonl").hardlink_to(source)
    (tmp_path / "folder").symlink_to(tmp_path)
    before = source.read_bytes()
    for taken, output in ((source, tmp_path / way), (tmp_path / way, source)):
        with pytest.raises(DataError, match="is the input"):
            route_file(tiny_bundle.path, taken, output)
    assert source.read_bytes() == before


def test_an_output_that_is_a_link_is_refused(tiny_bundle, tmp_path):
    source, link = write_texts(tmp_path / "queries.jsonl", ["refund"]), tmp_path / "answers.jsonl"
    link.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(DataError, match=r"answers\.jsonl: is a link.*give the file that it leads to"):
        route_file(tiny_bundle.path, source, link)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, link.name}


def test_an_output_that_is_replaced_stays_as_private_as_it_was(tiny_bundle, tmp_path):
    source = write_texts(tmp_path / "queries.jsonl", ["refund"])
    source.write_text(source.read_text("utf-8") + "nonsense\n", encoding="utf-8")
    output, report = tmp_path / "answers.jsonl", tmp_path / "errors.jsonl"
    route_file(tiny_bundle.path, source, output)
    for path in (output, report):
        path.chmod(0o600)
    route_file(tiny_bundle.path, source, output)
    assert [path.stat().st_mode & 0o777 for path in (output, report)] == [0o600, 0o600]


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_nobody_else_reads_the_queries_of_a_run_that_was_cut(cut):
    folder = cut[2].with_name(f"{cut[2].name}.parts")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_time_of_a_zone_that_nobody_knows_is_one_clear_line(tiny_bundle, tmp_path):
    source = tmp_path / "queries.parquet"
    asked_at = pa.array([0], pa.timestamp("us", tz="Mars/Phobos"))
    pq.write_table(pa.table({"text": ["refund"], "asked_at": asked_at}), source)
    with pytest.raises(DataError, match=r"the column `asked_at` \(timestamp.*cannot be kept: .*Phobos"):
        route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", keep=["asked_at"])
    assert list(tmp_path.iterdir()) == [source]


def test_an_input_that_is_a_link_has_the_format_that_its_own_name_says(tiny_bundle, tmp_path):
    write_texts(tmp_path / "queries.jsonl", ["refund"]).rename(tmp_path / "content")
    (tmp_path / "queries.jsonl").symlink_to(tmp_path / "content")
    assert route_file(tiny_bundle.path, tmp_path / "queries.jsonl", tmp_path / "answers.jsonl").n_queries == 1


@pytest.mark.parametrize(
    ("source", "output", "complaint"),
    [
        ("queries.xlsx", "answers.jsonl", "queries.xlsx: expected a file that ends in .jsonl, .csv or .parquet"),
        ("queries.jsonl", "answers.csv", "answers.csv: expected a file that ends in .jsonl or .parquet"),
        ("queries.jsonl", "answers", "answers: expected a file"),
        ("other.csv", "answers.jsonl", "other.csv: has no column 'text'; it has 'query', 'n'; --column says where"),
        ("empty.csv", "answers.jsonl", "empty.csv: has no column 'text'; it has none; --column"),
        ("latin.csv", "answers.jsonl", "latin.csv:1: not UTF-8 (byte 5)"),
        ("missing.csv", "answers.jsonl", "missing.csv: cannot be read"),
        ("queries.jsonl", "queries.jsonl", "is the input"),
        ("queries.jsonl", "folder.jsonl", "folder.jsonl: is a folder; give a file"),
        pytest.param("queries.jsonl", "pipe.jsonl", "pipe.jsonl: is a device or a pipe", marks=WITH_PIPES),
        pytest.param("pipe.jsonl", "answers.jsonl", "pipe.jsonl: is a device or a pipe, which", marks=WITH_PIPES),
        ("queries.jsonl", "errors.jsonl", "stands where the lines without a query go"),
        ("errors.jsonl", "answers.jsonl", "stands where the lines without a query go"),
        ("a.jsonl.errors.jsonl", "a.jsonl", "stands where the lines without a query go"),
        ("missing.jsonl", "answers.jsonl", "missing.jsonl: cannot be read"),
        ("missing.parquet", "answers.jsonl", "missing.parquet: cannot be read"),
        ("torn.parquet", "answers.jsonl", "torn.parquet: not a Parquet file"),
        ("other.parquet", "answers.jsonl", "has no column 'text'; it has 'query', 'n'; --column says where"),
        ("numbers.parquet", "answers.jsonl", "the column `text` must hold text, found int64"),
        ("categories.parquet", "answers.jsonl", "the column `text` must hold text, found int64"),
    ],
)
def test_what_cannot_be_routed_is_one_line(tiny_bundle, tmp_path, source, output, complaint):
    write_texts(tmp_path / "queries.jsonl", ["refund"])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"query": ["refund"], "n": [1]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"text": pa.array([1]).dictionary_encode()}), tmp_path / "categories.parquet")
    (tmp_path / "other.csv").write_text("query;n\nrefund;1\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("text;Ä\nrefund;1\n".encode("latin-1"))
    (tmp_path / "folder.jsonl").mkdir()
    if "pipe.jsonl" in {source, output}:
        os.mkfifo(tmp_path / "pipe.jsonl")
    before = files_in(tmp_path)
    line = fails("route", tiny_bundle.path, "--input", tmp_path / source, "--output", tmp_path / output)
    assert complaint in line
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("which", ["source", "output", "column"])
def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(tiny_bundle, tmp_path, which):
    names = {"source": "queries.jsonl", "output": "answers.jsonl", "column": "text"}
    names[which] = os.fsdecode(b"caf\xe9" + names[which].encode())
    write_texts(tmp_path / names["source"], ["refund"])
    before = files_in(tmp_path)
    with pytest.raises(DataError, match="is not UTF-8"):
        route_file(tiny_bundle.path, tmp_path / names["source"], tmp_path / names["output"], column=names["column"])
    assert files_in(tmp_path) == before


def test_paths_may_be_strings_and_other_arguments_are_checked(tiny_bundle, tmp_path):
    source, output = str(tmp_path / "queries.jsonl"), str(tmp_path / "answers.jsonl")
    write_texts(Path(source), ["refund"])
    with pytest.raises(ValueError, match="engine: expected local or ray, found 'dask'"):
        route_file(tiny_bundle.path, source, output, engine="dask")
    with pytest.raises(ValueError, match="lines_per_part must be a whole number, 1 or more, found 0"):
        route_file(tiny_bundle.path, source, output, lines_per_part=0)
    with pytest.raises(DataError, match="cannot be read"):
        route_file(tiny_bundle.path, "x" * 300 + ".csv", output)
    assert route_file(str(tiny_bundle.path), source, output, show_progress=False).n_queries == 1


def test_what_cannot_be_removed_of_old_parts_is_named(cut):
    bundle, source, output = cut
    folder = output.with_name(f"{output.name}.parts")
    (folder / "000009.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"000009\.jsonl: cannot be written"):
        route_file(bundle, source, output, lines_per_part=7)


@pytest.mark.parametrize("fault", ["no bundle", "an altered bundle", "no Ray"])
def test_a_start_that_fails_reads_nothing_and_leaves_nothing(tmp_path, monkeypatch, fault):
    source, bundle = write_texts(tmp_path / "queries.jsonl", ["refund"]), tmp_path / "bundle"
    if fault != "no bundle":
        graph = build_bundle(bundle).onnx_path
    if fault == "an altered bundle":
        graph.write_bytes(graph.read_bytes()[:-1])
    if fault == "no Ray":
        monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(bulk_files.JsonLines, "plan", None)
    before = files_in(tmp_path)
    with pytest.raises(MissingExtraError if fault == "no Ray" else BundleError):
        route_file(bundle, source, tmp_path / "out" / "answers.jsonl", engine="ray" if fault == "no Ray" else "local")
    assert files_in(tmp_path) == before


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(tiny_bundle, tmp_path):
    source = write_texts(tmp_path / "queries.jsonl", make_texts(1200))
    with source.open("a", encoding="utf-8") as stream:
        stream.write("{\n")
    output = tmp_path / "answers.parquet"
    done = distill("route", tiny_bundle.path, "--input", source, "--output", output)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"1,200 queries routed: {output}",
        f"1 line holds no query: {tmp_path / 'errors.jsonl'}",
    ]
    assert "queries.jsonl:1201: not a JSON object" in done.stderr
    assert len(read_rows(output)) == 1200
    done = distill("route", tiny_bundle.path, "--input", source, "--output", output, "--json", "-q")
    assert json.loads(done.stdout) == {
        "n_queries": 1200, "n_errors": 1, "n_resumed": 0, "output": str(output), "errors": str(tmp_path / "errors.jsonl"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "a.jsonl"], ["--output", "a.jsonl"], ["--engine", "ray"], ["refund", "--column", "a"], ["refund", "--keep", "a"],
        ["refund", "--input", "a.jsonl", "--output", "b.jsonl"], ["--top", "1", "--input", "a.jsonl", "--output", "b.jsonl"],
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_a_usage_error(tiny_bundle, arguments):
    done = distill("route", tiny_bundle.path, *arguments)
    assert done.exit_code == 2
    assert "--input" in done.stderr


@pytest.mark.parametrize(("module", "extra", "arguments"), [
    ("pyarrow", "parquet", ["--output", "answers.parquet"]),
    ("ray", "ray", ["--output", "answers.jsonl", "--engine", "ray"]),
])  # fmt: skip
def test_a_missing_extra_is_named(tiny_bundle, tmp_path, monkeypatch, module, extra, arguments):
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "queries.jsonl", ["refund"])
    monkeypatch.setitem(sys.modules, module, None)
    line = fails("route", tiny_bundle.path, "--input", "queries.jsonl", *arguments)
    assert line.startswith(f"{module} is not installed")
    assert f"[{extra}]" in line


# --- Ray -------------------------------------------------------------------------------------------------------------


def test_a_worker_on_ray_routes_with_the_bundle_that_the_run_began_with(tiny_bundle, tmp_path):
    source = write_texts(tmp_path / "queries.jsonl", ["refund"])
    job = bulk._Job(tiny_bundle.path, source, tmp_path / "answers.jsonl", TEXT)
    answers = bulk_files.Answers(tiny_bundle.manifest.task)
    part = {name: [value] for name, value in asdict(bulk_files.Part(0, 0, 1, 1)).items()}
    done = bulk._RayWorker(job, answers, "another")(part)
    assert done["error"] == ["BundleError"]
    assert "the bundle was replaced while it routed; run the command again" in done["message"][0]
    job.folder.mkdir()
    assert bulk._RayWorker(job, answers, tiny_bundle.manifest.bundle_id)(part)["n_lines"] == [1]


@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:99999"])
def test_an_address_at_which_no_ray_answers_is_one_clear_line(tiny_bundle, tmp_path, monkeypatch, address):
    pytest.importorskip("ray.data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
        monkeypatch.setenv("RAY_ADDRESS", address)
        source = write_texts(tmp_path / "queries.jsonl", ["refund"])
        with pytest.raises(StorageError, match=f"^Ray does not start \\(RAY_ADDRESS is '{address}'\\): .+"):
            route_file(tiny_bundle.path, source, tmp_path / "answers.jsonl", engine="ray")


@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("ray")  # a cluster takes every core: not two at once
def test_ray_goes_on_and_gives_the_same_files(cut, tmp_path, monkeypatch):
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    bundle, source, output = cut
    in_the_way = output.with_name("answers.jsonl.parts") / "000003.jsonl"
    in_the_way.mkdir()
    with pytest.raises(StorageError, match=r"000003\.jsonl: cannot be written"):  # as the worker says it
        route_file(bundle, source, output, engine="ray", lines_per_part=10)
    in_the_way.rmdir()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
    try:
        summary = route_file(bundle, source, output, engine="ray", lines_per_part=10)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (summary.n_queries, summary.n_errors) == (50, 1)
    assert summary.n_resumed >= 20
    here = tmp_path / "here" / output.name
    route_file(bundle, source, here, lines_per_part=10)
    for name in (output.name, "errors.jsonl"):
        assert output.with_name(name).read_bytes() == here.with_name(name).read_bytes()
