from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from bundles import build_bundle
from project import TESTS

sys.path.append(str(TESTS.parent / "scripts"))
import throughput


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """A run over two bundles, processes left out: they are slow to start."""
    for student in ("encoder", "static"):
        build_bundle(tmp_path / "models" / student, student=student)
    monkeypatch.setattr(throughput, "run_processes", lambda *_: 1000.0)
    monkeypatch.setattr(throughput, "CALLS", 3)
    monkeypatch.setattr(throughput, "ROUNDS", 2)
    arguments = [str(tmp_path / "models"), "--seconds", "0.05", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *arguments])
    throughput.main()
    return json.loads((tmp_path / "found.json").read_text("utf-8")), capsys.readouterr().out


def test_threads_and_processes_are_measured_for_every_bundle(measured):
    found, printed = measured
    assert list(found["bundles"]) == ["encoder", "static"]
    for bundle in found["bundles"].values():
        assert list(bundle["queries_per_s"]) == ["1 threads", "2 threads", "1 processes", "2 processes"]
        assert all(rate > 0 for rates in bundle["queries_per_s"].values() for rate in rates)
        assert bundle["tokenizer"] in {"nanotoken", "words", "tokenizers"}
        assert bundle["late"]["busy"]["p50_ms"] <= bundle["late"]["busy"]["p100_ms"]
        assert set(bundle["late"]) == {"idle", "busy", "hashing"}
        assert all(us > 0 for calls in bundle["calls_us"].values() for us in calls)
        assert {len(rounds) for own in bundle["queries_per_s_by_round"].values() for rounds in own} == {2}
    assert "| `static`, 16 queries | " in printed
    assert f"| 2 processes |{' 1,000 [1,000, 1,000] |' * 4}\n" in printed
    assert (
        f"queries, one thread a worker. Tokenizer: `encoder` {found['bundles']['encoder']['tokenizer']}, `static`"
        in printed
    )
    assert printed.strip() == throughput.table(found).strip()


def test_what_a_loop_waits_for_a_processor_is_told_apart():
    turns = [throughput.Turn(0.1, 0.0), throughput.Turn(5.0, 4.5), throughput.Turn(3.0, 0.5)]
    late = throughput._lateness(turns)
    assert (late["p100_ms"], late["n_held"], late["n"]) == (5.0, 2, 3)
    assert late["less_wait"] == {"p100_ms": 2.5, "n_held": 1}
    assert throughput._lateness([throughput.Turn(5.0, None)])["less_wait"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps that account")
def test_a_thread_that_shares_a_processor_waits_for_it(tmp_path):
    """Two processes on one processor: each waits while the other runs."""
    (tmp_path / "spin.py").write_text(
        "import time\nuntil = time.perf_counter() + 30\nwhile time.perf_counter() < until: pass\n"
    )
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    other = subprocess.Popen([sys.executable, str(tmp_path / "spin.py")])
    try:
        with throughput._account_of_this_thread() as waited_ms:
            before, until = waited_ms(), time.perf_counter() + 20
            while waited_ms() == before and time.perf_counter() < until:
                pass
            assert waited_ms() > before
    finally:
        os.sched_setaffinity(0, mine)
        other.kill()
        other.wait()


def test_processes_have_a_router_each(tmp_path):
    bundle = build_bundle(tmp_path / "static").path
    assert throughput.run_processes(bundle, ["refund", "my parcel"], 0.05, 2, in_batches=True) > 0


def test_a_folder_without_bundles_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["throughput.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no bundle"):
        throughput.main()
