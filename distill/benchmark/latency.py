"""How long an answer takes, on one thread, and on which machine that was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distill.types import Prediction

__all__ = [
    "BATCH_SIZES",
    "ROUNDS",
    "ColdStart",
    "Latency",
    "LoadWatch",
    "cold_start",
    "environment",
    "instruction_sets",
    "is_loaded",
    "measure_latency",
    "measure_throughput",
    "one_thread",
    "peak_rss_bytes",
    "processor_name",
]

ROUNDS = 5
WARM_UP_CALLS = 50
MAX_TEXTS = 400
BATCH_SIZES = (1, 32, 256)
"""Queries given at once when throughput is measured."""
_THROUGHPUT_REPEATS = 3
_COLD_STARTS = 3
_COLD_START_TIMEOUT_S = 120.0
_BUSY_SHARE = 0.2
_INSTRUCTION_SETS = {
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
}  # fmt: skip
_VERSIONS = ("distill-router", "numpy", "onnxruntime", "tokenizers", "nanotoken", "scikit-learn", "scipy")


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """Times of single calls.

    Attributes:
        samples_ms: float64 array of shape (rounds, calls a round).
    """

    samples_ms: npt.NDArray[np.float64]

    @property
    def n(self) -> int:
        """How many calls were timed."""
        return int(self.samples_ms.size)

    def percentile(self, percent: float) -> float:
        """A percentile over all calls, ms."""
        return float(np.percentile(self.samples_ms, percent))

    def spread(self, percent: float) -> tuple[float, float]:
        """The least and the greatest of the rounds' own percentiles, ms."""
        by_round = np.percentile(self.samples_ms, percent, axis=1)
        return float(by_round.min()), float(by_round.max())


def measure_latency(
    routes: Mapping[str, Callable[[str], Prediction]],
    texts: Sequence[str],
    *,
    rounds: int = ROUNDS,
    warm_up_calls: int = WARM_UP_CALLS,
    after_block: Callable[[str], None] = lambda _name: None,
) -> dict[str, Latency]:
    """Times ``route`` for every text, one call after another, the rows taking turns in every round.

    Args:
        routes: ``route`` of each row.
        texts: The queries; of more than 400, 400 are taken evenly.
        rounds: How often each row gets all the texts.
        warm_up_calls: Calls before the first that counts.
        after_block: Told the row after each of its turns.

    Returns:
        Latency by row.
    """
    texts = [texts[int(position)] for position in np.linspace(0, len(texts) - 1, min(len(texts), MAX_TEXTS))]
    for route in routes.values():
        for call in range(warm_up_calls):
            route(texts[call % len(texts)])
    samples_ms = {name: np.empty((rounds, len(texts))) for name in routes}
    for turn in range(rounds):
        for name, route in routes.items():
            samples_ms[name][turn] = [_time_ms(route, text) for text in texts]
            after_block(name)
    return {name: Latency(samples) for name, samples in samples_ms.items()}


def _time_ms(route: Callable[[str], Prediction], text: str) -> float:
    started = time.perf_counter_ns()
    route(text)
    return (time.perf_counter_ns() - started) / 1e6


def measure_throughput(
    route: Callable[[str], Prediction],
    route_batch: Callable[[Sequence[str]], list[Prediction]],
    texts: Sequence[str],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> dict[int, float]:
    """Queries a second at each batch size: the median of three times, the sizes taking turns.

    Args:
        route: What is timed where queries come one by one.
        route_batch: What is timed otherwise.
        texts: The queries; they are taken again from the first until the largest batch is full.
        batch_sizes: How many queries are given at once.
    """
    filled = [text for text, _ in zip(cycle(texts), range(max(batch_sizes)), strict=False)]
    seconds: dict[int, list[float]] = {size: [] for size in batch_sizes}
    for _ in range(_THROUGHPUT_REPEATS):
        for size in batch_sizes:
            batches = [filled[start : start + size] for start in range(0, len(filled), size)]
            started = time.perf_counter()
            for batch in batches:
                if size == 1:
                    route(batch[0])
                else:
                    route_batch(batch)
            seconds[size].append(time.perf_counter() - started)
    return {size: len(filled) / max(float(np.median(times)), 1e-9) for size, times in seconds.items()}


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A new process until its first answer.

    Attributes:
        cold_start_ms: From the first line that a new interpreter runs: import distill, load the bundle, one answer.
            The median of three, with the files in the page cache; the interpreter's own start is not in it.
        peak_rss_mb: The most memory that process ever held, MB of 10**6 bytes.
        range_ms: The least and the greatest of the three.
    """

    cold_start_ms: float
    peak_rss_mb: float | None
    range_ms: tuple[float, float] | None = None


_COLD_START_PROGRAM = """
import time
started = time.perf_counter()
import json, sys
from distill import Router
Router.load(sys.argv[1]).route("where is my parcel?")
elapsed_ms = (time.perf_counter() - started) * 1000
from distill.benchmark.latency import peak_rss_bytes
print(json.dumps([elapsed_ms, peak_rss_bytes()]))
"""


def cold_start(bundle: Path) -> ColdStart:
    """Loads a bundle in new processes and asks it one query.

    Raises:
        BundleError: The new process could not.
    """
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    found = []
    for _ in range(_COLD_STARTS):
        try:
            process = subprocess.run(  # noqa: S603
                [sys.executable, "-c", _COLD_START_PROGRAM, str(bundle)],
                capture_output=True,
                check=False,
                text=True,
                encoding="utf-8",
                errors="replace",  # what goes wrong may be said in the locale's own encoding
                timeout=_COLD_START_TIMEOUT_S,
                env={**os.environ, "PYTHONPATH": search_path},
            )
        except subprocess.TimeoutExpired as error:
            message = f"{bundle}: was not loaded in a new process within {_COLD_START_TIMEOUT_S:g} s"
            raise BundleError(message) from error
        if process.returncode:
            reason = process.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise BundleError(f"{bundle}: could not be loaded in a new process: {reason[0]}")
        found.append(json.loads(process.stdout))
    times_ms = [elapsed_ms for elapsed_ms, _ in found]
    peaks = [peak for _, peak in found if peak is not None]
    return ColdStart(
        cold_start_ms=float(np.median(times_ms)),
        peak_rss_mb=max(peaks) / 1e6 if peaks else None,
        range_ms=(min(times_ms), max(times_ms)),
    )


def peak_rss_bytes() -> int | None:
    """The most memory that this process ever held, in bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be the parent's on Linux: it survives fork and exec
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None
    try:
        import resource
    except ImportError:
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def one_thread() -> Any:
    """A context in which numpy's and scikit-learn's native libraries keep to one thread."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


class LoadWatch:
    """How much of the machine other work took since this was made."""

    def __init__(self) -> None:
        self._busy_s, self._total_s, self._own_s = self._times()

    @staticmethod
    def _times() -> tuple[float, float, float]:
        """Seconds of all processors busy, in all, and used by this process."""
        import psutil

        times = psutil.cpu_times()
        total = (
            sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        )  # in user and nice already
        return total - times.idle - getattr(times, "iowait", 0.0), total, time.process_time()

    def busy_share(self) -> float:
        """Share of all processors' time that went to other processes: from 0 to 1."""
        busy_s, total_s, own_s = self._times()
        others_s = busy_s - self._busy_s - (own_s - self._own_s)
        return min(1.0, max(0.0, others_s / max(total_s - self._total_s, 1e-9)))


def is_loaded(busy_share: float) -> bool:
    """Whether latencies measured beside so much other work are not to be trusted."""
    return busy_share > _BUSY_SHARE


def environment() -> dict[str, Any]:
    """The machine and what runs on it, as ``environment`` in bench.json. Looks for a second at how busy it is."""
    import psutil

    cores = os.cpu_count() or 1
    busy_share = psutil.cpu_percent(interval=1.0) / 100
    return {
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _VERSIONS if (version := _version(name))},
        "threads": 1,
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
        "busy_share": round(busy_share, 3),
        "loaded": is_loaded(busy_share),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def processor_name() -> str:
    """The processor's name as its maker gives it, as well as the system tells."""
    if name := _cpuinfo().get("model name"):
        return name
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, check=False, text=True)  # noqa: S603
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def instruction_sets() -> list[str]:
    """Those of the processor's instruction sets that matter to small models; empty where the system does not tell."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return sorted(flags & _INSTRUCTION_SETS)
