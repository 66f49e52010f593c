from __future__ import annotations

import pytest
from shop import make_inputs

from distill.benchmark import bench
from distill.benchmark.bench import run_bench
from distill.benchmark.latency import ColdStart

MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "python": "3.11",
    "versions": {"onnxruntime": "1.2"},
    "threads": 1,
    "busy_share": 0.0,
    "loaded": False,
    "measured_at": "2026-02-01T00:00:00+00:00",
}


class Idle:
    def busy_share(self):
        return 0.0


@pytest.fixture(scope="session")
def quick():
    """No second of looking at the machine, and no new processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "cold_start", lambda _: ColdStart(123.4, 56.7))
        patch.setattr(bench, "environment", lambda: dict(MACHINE))
        patch.setattr(bench, "LoadWatch", Idle)
        yield


@pytest.fixture(scope="session")
def result(tiny_bundles, quick):
    return run_bench(make_inputs(tiny_bundles), show_progress=False)
