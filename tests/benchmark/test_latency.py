from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest

from distill.benchmark import latency
from distill.benchmark.latency import (
    Latency,
    LoadWatch,
    cold_start,
    environment,
    is_loaded,
    measure_latency,
    measure_throughput,
    one_thread,
)
from distill.errors import BundleError


def test_percentiles_are_numpys_over_all_calls_and_the_spread_is_over_rounds():
    samples = np.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = Latency(samples)
    assert (found.n, found.percentile(50), found.spread(50)) == (6, 3.5, (2.0, 5.0))
    assert found.percentile(95) == pytest.approx(np.percentile([1, 2, 3, 4, 5, 6], 95))


def test_rows_take_turns_and_every_call_is_counted():
    calls = []
    routes = {name: (lambda text, name=name: calls.append((name, text))) for name in ("a", "b")}
    turns = []
    found = measure_latency(routes, ["x", "y"], rounds=3, warm_up_calls=3, after_block=turns.append)
    warm_up, timed = calls[:6], calls[6:]
    assert warm_up == [("a", text) for text in "xyx"] + [("b", text) for text in "xyx"]
    assert timed == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")] * 3
    assert turns == ["a", "b"] * 3
    assert found["a"].samples_ms.shape == (3, 2)


def test_what_is_measured_is_milliseconds():
    found = measure_latency({"slow": lambda _: time.sleep(0.01)}, ["x"] * 5, rounds=2, warm_up_calls=0)
    assert 10 <= found["slow"].percentile(50) < 100


def test_of_many_texts_some_are_taken_evenly():
    seen = []
    measure_latency({"a": seen.append}, [str(n) for n in range(4000)], rounds=1, warm_up_calls=0)
    assert (len(seen), seen[0], seen[-1]) == (latency.MAX_TEXTS, "0", "3999")
    assert len(set(seen)) == latency.MAX_TEXTS


def test_throughput_is_queries_a_second_at_each_batch_size():
    found = measure_throughput(lambda _: time.sleep(0.01), lambda _: time.sleep(0.01), ["x"] * 3, batch_sizes=(1, 4))
    assert 10 <= found[1] <= 100
    assert 40 <= found[4] <= 400
    assert found[4] > 2 * found[1]


def test_every_batch_is_full_and_the_sizes_take_turns():
    seen = []
    measure_throughput(pytest.fail, seen.append, ["a", "b", "c"], batch_sizes=(2, 4))
    assert seen == [["a", "b"], ["c", "a"], ["a", "b", "c", "a"]] * 3


def test_queries_that_come_one_by_one_are_routed_as_a_service_routes_them():
    seen = []
    measure_throughput(seen.append, pytest.fail, ["a", "b"], batch_sizes=(1,))
    assert seen == ["a"] * 3
    measure_throughput(seen.append, lambda texts: None, ["a", "b"], batch_sizes=(1, 2))
    assert seen[3:] == ["a", "b"] * 3


def test_the_sizes_are_one_thirty_two_and_two_hundred_and_fifty_six():
    assert list(measure_throughput(lambda text: None, lambda texts: None, ["x"])) == [1, 32, 256]


class CpuTimes(NamedTuple):
    user: float
    system: float
    idle: float


def test_other_work_is_what_this_process_did_not_do(monkeypatch):
    import psutil

    times = iter([CpuTimes(user=20.0, system=0.0, idle=100.0), CpuTimes(user=27.0, system=3.0, idle=104.0)])
    own = iter([5.0, 11.0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(latency.time, "process_time", lambda: next(own))
    watch = LoadWatch()  # 14 seconds go by, 10 of them busy, 6 with this process
    assert watch.busy_share() == pytest.approx(4 / 14)


def test_the_load_is_a_share_on_the_real_machine_too():
    watch = LoadWatch()
    sum(range(200_000))
    assert 0.0 <= watch.busy_share() <= 1.0


@pytest.mark.parametrize(("busy_share", "loaded"), [(0.0, False), (0.19, False), (0.21, True)])
def test_a_fifth_of_the_machine_is_too_much(busy_share, loaded):
    assert is_loaded(busy_share) == loaded


def test_a_new_process_answers_and_tells_time_and_memory(tiny_bundle, monkeypatch):
    monkeypatch.setattr(latency, "_COLD_STARTS", 1)
    found = cold_start(tiny_bundle.path)
    assert found.cold_start_ms > 1
    assert found.range_ms == (found.cold_start_ms, found.cold_start_ms)
    assert 5 < found.peak_rss_mb < 1000


def test_a_bundle_that_a_new_process_cannot_load_is_one_clear_line(tmp_path):
    with pytest.raises(BundleError, match=r"new process: .*no such folder") as caught:
        cold_start(tmp_path / "gone")
    assert "\n" not in str(caught.value)


def test_what_goes_wrong_in_another_encoding_is_said_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(
        latency, "_COLD_START_PROGRAM", r"import sys; sys.stderr.buffer.write(b'nicht m\xf6glich'); exit(1)"
    )
    with pytest.raises(BundleError, match="new process: nicht m\ufffdglich"):
        cold_start(tmp_path)


def test_a_process_that_takes_too_long_is_one_clear_line(tiny_bundle, monkeypatch):
    monkeypatch.setattr(latency, "_COLD_START_TIMEOUT_S", 0.001)
    with pytest.raises(BundleError, match=r"not loaded in a new process within 0\.001 s"):
        cold_start(tiny_bundle.path)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's memory shows through on Linux alone")
def test_peak_memory_is_that_of_the_process_itself_and_not_of_its_parent():
    program = (
        "import subprocess, sys; ballast = bytearray(b'x') * 250_000_000;"
        "print(subprocess.run([sys.executable, '-c', sys.argv[1]], capture_output=True, text=True).stdout)"
    )
    inner = "from distill.benchmark.latency import peak_rss_bytes; print(peak_rss_bytes())"
    search_path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    outer = subprocess.run(
        [sys.executable, "-c", program, inner], capture_output=True, check=True, text=True, env=search_path
    )
    assert 1e6 < int(outer.stdout) < 150e6


def test_the_environment_is_recorded_as_json(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 3.0)
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["processor"]
    assert found["threads"] == 1
    assert found["versions"].keys() >= {"numpy", "onnxruntime", "tokenizers"}
    assert ("nanotoken" in found["versions"]) == (find_spec("nanotoken") is not None)
    assert found["measured_at"].endswith("+00:00")
    assert (found["busy_share"], found["loaded"]) == (0.03, False)


def test_a_busy_machine_is_told_of(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 60.0)
    assert environment()["loaded"]


def test_native_libraries_keep_to_one_thread():
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info()} <= {1}
