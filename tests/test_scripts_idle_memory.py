from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
from bundles import build_bundle
from project import TESTS, write_lines

from distill.student.export import export_static
from distill.student.static import FoldedStatic

sys.path.append(str(TESTS.parent / "scripts"))
import idle_memory


def test_pages_and_calls_are_measured_with_and_without_pauses(tmp_path, monkeypatch, capsys):
    bundle = build_bundle(tmp_path / "static").path
    for name, value in (
        ("N_PAGES", 16),
        ("PAUSES_S", (0, 0.01)),
        ("PAUSES_BEFORE_BLOCKS_S", (0, 0.01)),
        ("BLOCK", 2),
        ("OTHERS_BEFORE", (0, 1, 9)),
    ):
        monkeypatch.setattr(idle_memory, name, value)
    write_lines(tmp_path / "queries.jsonl", [{"text": f"refund {number}"} for number in range(5)])
    arguments = [str(bundle), "--queries", str(tmp_path / "queries.jsonl"), "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["idle_memory.py", *arguments])
    idle_memory.main()
    result = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [each["pause_s"] for each in result["pages"]] == [each["pause_s"] for each in result["calls"]] == [0, 0.01]
    assert {each["n"] for each in result["pages"]} == {16}
    assert result["table_pages"] == []  # this graph has no table of rows
    assert all(0 < each["p50_us"] <= each["p99_us"] for each in (*result["pages"], *result["calls"]))
    assert capsys.readouterr().out.strip() == idle_memory.table(result).strip()
    monkeypatch.setattr(idle_memory, "RESULTS", tmp_path / "found.json")
    assert "| `route`, static | 0.01 |" in idle_memory.page()


def test_a_block_needs_others_before_it(tmp_path, monkeypatch):
    bundle = build_bundle(tmp_path / "static").path
    write_lines(tmp_path / "queries.jsonl", [{"text": "refund"}] * 99)
    monkeypatch.setattr(sys, "argv", ["idle_memory.py", str(bundle), "--queries", str(tmp_path / "queries.jsonl")])
    with pytest.raises(SystemExit, match="99 queries; 100 are needed"):
        idle_memory.main()


def test_what_is_no_bundle_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["idle_memory.py", str(tmp_path), "--queries", "none.jsonl"])
    with pytest.raises(SystemExit, match=r"idle_memory\.py: "):
        idle_memory.main()


def test_pages_are_those_of_the_rows_that_no_query_before_read(tmp_path, monkeypatch):
    monkeypatch.setattr(idle_memory, "PAGE_BYTES", 16)
    monkeypatch.setattr(idle_memory, "OTHERS_BEFORE", (0, 1, 9))
    folded = FoldedStatic(
        table=np.arange(48, dtype=np.float32).reshape(6, 8),
        places=np.asarray([0, 0, 0, 1, 2, 3, 4, 5], np.int32),  # three buckets, five tokens
        scale=np.ones(8, np.float32),
        shift=np.zeros(8, np.float32),
        head=np.ones((8, 2), np.float32),
        bias=np.zeros(2, np.float32),
        epsilon=1e-5,
        n_buckets=3,
    )
    export_static(folded, tmp_path / "model.onnx", np.int8)
    found = idle_memory.table_pages(tmp_path / "model.onnx", [[0], [3, 4], [1], [1, 2]])
    (table,) = (each for each in onnx.load(tmp_path / "model.onnx").graph.initializer if each.name == "table")
    begin = (tmp_path / "model.onnx").read_bytes().index(table.raw_data)
    read = [
        {(begin + 8 * row + byte) // 16 for row in rows for byte in range(8)}
        for rows in ((0, 1), (0, 4, 5), (0, 2), (0, 2, 3))
    ]
    first, second = [len(each) for each in read], [len(read[number] - read[number - 1]) for number in (1, 2, 3)]
    assert [(each["n_others"], each["n"], each["mean"]) for each in found] == [
        (0, 4, sum(first) / 4),
        (1, 3, sum(second) / 3),
    ]
    assert found[0]["p99"] == pytest.approx(np.percentile(first, 99))
    assert f"| after 1 others | 3 | {sum(second) / 3:.1f} | {max(second)} |" in idle_memory._table_of_pages(found)
