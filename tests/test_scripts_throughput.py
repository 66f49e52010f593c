from __future__ import annotations

import asyncio
import json
import sys
import time
from types import SimpleNamespace

import pytest
from bundles import build_bundle
from project import TESTS

from distill import Router

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
        for kind in throughput.KINDS_OF_TEXTS:
            assert 0 < bundle[kind]["p50_ms"] <= bundle[kind]["p100_ms"]
        assert all(us > 0 for calls in bundle["calls_us"].values() for us in calls)
        assert {len(rounds) for own in bundle["queries_per_s_by_round"].values() for rounds in own} == {2}
    assert "| `static`, 16 queries | " in printed
    assert f"| 2 processes |{' 1,000 [1,000, 1,000] |' * 4}\n" in printed
    assert (
        f"queries, one thread a worker. Tokenizer: `encoder` {found['bundles']['encoder']['tokenizer']}, `static`"
        in printed
    )
    assert printed.strip() == throughput.table(found).strip()


def test_times_in_python_leave_out_the_graph(tmp_path, monkeypatch):
    router, found = Router.load(build_bundle(tmp_path / "encoder").path), []
    run, decide = router._session.run, router._policy.decide_batch

    def slow_run(*arguments):
        time.sleep(1.0)
        return run(*arguments)

    def slow_decide(rows):
        time.sleep(0.05)
        return decide(rows)

    monkeypatch.setattr(router, "_session", SimpleNamespace(run=slow_run))
    monkeypatch.setattr(router, "_policy", SimpleNamespace(labels=router.labels, decide_batch=slow_decide))
    with throughput._times_in_python(router, found):
        asyncio.run(router.aroute_batch(["refund"] * 20))
    assert 50 < max(found) < 1000
    assert router._session.run is slow_run


def test_processes_have_a_router_each(tmp_path):
    bundle = build_bundle(tmp_path / "static").path
    assert throughput.run_processes(bundle, ["refund", "my parcel"], 0.05, 2, in_batches=True) > 0


def test_a_folder_without_bundles_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["throughput.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no bundle"):
        throughput.main()


def test_texts_that_are_hard_on_the_default_install_are_new_or_long():
    asked = ["where is my parcel", "refund"]
    new = [throughput.with_new_words(asked) for _ in range(2)]
    assert [text.startswith(asked[number % 2]) for batch in new for number, text in enumerate(batch)] == [True] * 512
    words = [text.split()[-3:] for batch in new for text in batch]
    assert len({word for three in words for word in three}) > 0.9 * 3 * 512
    long = throughput.long_texts(asked)
    assert [len(text.split()) for text in long] == [200] * 256
    assert long[0].startswith("where is my parcel refund where")
