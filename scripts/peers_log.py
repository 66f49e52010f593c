"""Runs of scripts/peers.py, each of which asks the whole test part: a line when it begins, another in its place when it is through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from openings import SHA256, note
from provenance import ROOT

from distill.data import read_jsonl
from distill.teacher.ledger import time_now

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RUNS = ROOT / "results" / "peers-runs.jsonl"

_KEPT = ("p50_ms", "p95_ms", "p99_ms", "p50_ms_by_run", "p99_ms_by_run")

Run = dict[str, Any]


def begin(commit: str, set_name: str, test_sha256: str, beside: Path) -> tuple[Path, Run]:
    """Notes that a test part is about to be asked.

    Args:
        commit: With which code.
        set_name: Name of the folder.
        test_sha256: Of its test part. One of the project's own is noted in ``results``.
        beside: Where the run's figures go; others are noted beside them.

    Returns:
        Where it was noted, and what.

    Raises:
        StorageError: It cannot be written.
    """
    own = next((name for name, parts in SHA256.items() if parts["test_sha256"] == test_sha256), None)
    path = beside.with_name(f"{beside.stem}-runs.jsonl") if own is None else RUNS
    run = {
        "run": uuid4().hex,
        "commit": commit,
        "begun_at": time_now(),
        "set": own or set_name,
        "test_sha256": test_sha256,
        "rows": {},
    }
    note(run, path)
    return path, run


def finish(run: Run, result: Mapping[str, Any], path: Path) -> None:
    """Notes what came of it, so that no run is shown without the others.

    Raises:
        StorageError: It cannot be written.
    """
    rows = {row["name"]: {key: row[key] for key in _KEPT} for row in result["rows"]}
    note(run | {"measured_at": result["environment"]["measured_at"], "rows": rows}, path)


def read_runs(path: Path) -> list[Run]:
    """Every run, in order; ``rows`` is empty where one was killed. Older lines have one each, and no name for it."""
    found: dict[str, Run] = {}
    for number, line in read_jsonl(path):
        found[line.get("run") or str(number)] = line
    return list(found.values())
