"""Which runs of scripts/peers.py are counted."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import peers_log
from openings import SHA256

RESULT = {
    "environment": {"measured_at": "2026-01-01T00:00:00+00:00"},
    "rows": [
        {"name": "static", "p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "p50_ms_by_run": [1], "p99_ms_by_run": [3], "more": 0}
    ],
}


def test_a_run_is_noted_before_it_asks_and_again_when_it_is_through(tmp_path):
    path, run = peers_log.begin("abc", "birds", "of birds", tmp_path / "peers.json")
    assert path == tmp_path / "peers-runs.jsonl"
    assert [each["rows"] for each in peers_log.read_runs(path)] == [{}], "a run that is killed is counted"
    peers_log.finish(run, RESULT, path)
    _, killed = peers_log.begin("abc", "birds", "of birds", tmp_path / "peers.json")
    first, second = peers_log.read_runs(path)
    assert (first["set"], first["commit"], first["measured_at"][:4]) == ("birds", "abc", "2026")
    assert list(first["rows"]["static"]) == ["p50_ms", "p95_ms", "p99_ms", "p50_ms_by_run", "p99_ms_by_run"]
    assert second == killed


def test_a_part_of_the_projects_own_is_noted_in_results_whatever_its_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_log, "RUNS", tmp_path / "results.jsonl")
    path, run = peers_log.begin(
        "abc", "mine", SHA256["banking77"]["test_sha256"], tmp_path / "elsewhere" / "peers.json"
    )
    assert (path, run["set"]) == (tmp_path / "results.jsonl", "banking77")


def test_older_runs_have_a_line_each(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"commit": "a", "set": "birds", "rows": {}}\n' * 2, encoding="utf-8")
    assert len(peers_log.read_runs(path)) == 2
