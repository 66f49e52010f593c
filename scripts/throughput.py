"""Queries a second of threads that share a Router and of processes that each have one, and how long an event loop waits.

python scripts/throughput.py models/banking-assistant [--queries gold.jsonl] [--seconds 3] [--json results/throughput.json]

Every bundle in the folder is measured, one query at a time and in batches of 256, with one worker and with two, in five rounds in which
each has its turn; the median counts. Then an event loop asks for batches of 256 and notes how late a task comes that wants to run every millisecond, likewise in
rounds, in turns with nothing else to do and with a thread that only hashes; and for how long at a time ``aroute_batch`` keeps the interpreter, or the loop's
thread, to itself, the same with the default install about texts that are harder on it. Last, what it costs to hand queries to a thread and back. Measure on an idle machine: the
numbers are this machine's, its name is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import multiprocessing
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from provenance import busy, older_students, tree_commit

from distill import Router
from distill import router as router_module
from distill.benchmark.latency import environment
from distill.bundle import MANIFEST, SELFCHECK
from distill.data import read_jsonl, write_json
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence

BATCH = 256
WORKERS = (1, 2)
ROUNDS = 5
HANDED_OVER = (1, 16)
"""Queries of one call that is timed in the loop's own thread, and in another."""
CALLS = 500
TICK_S, SETTLING_S = 0.001, 0.05
HELD_MS = 2.0
KINDS_OF_TEXTS = {"held": "queries", "held_new": "queries with three new words each", "held_long": "texts of 200 words"}
"""What ``aroute_batch`` is asked about while it is timed for how long it keeps the interpreter; all but the first without nanotoken."""
NEW_WORDS, LONG_WORDS = 3, 200
HASHED_BYTES = 500_000
"""Under a millisecond: so a thread hashes for about as long as it is told."""


def main() -> None:
    """Measures every bundle, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="A folder of bundles: models/NAME.")
    parser.add_argument("--queries", type=Path, help="JSON lines with `text` [the bundle's self-check].")
    parser.add_argument("--seconds", type=float, default=3.0, help="For each figure in each round.")
    parser.add_argument("--json", type=Path, help="Also write the figures there.")
    options = parser.parse_args()
    bundles = sorted(path.parent for path in options.folder.glob(f"*/{MANIFEST}"))
    if not bundles:
        sys.exit(f"{options.folder}: holds no bundle")
    result: dict[str, Any] = {"environment": environment(), "commit": tree_commit(), "bundles": {}}
    for bundle in bundles:
        texts = [line["text"] for _, line in read_jsonl(options.queries or bundle / SELFCHECK)]
        result["bundles"][bundle.name] = measured(bundle, [text for text in texts if text.strip()], options.seconds)
    if options.json:
        write_json(options.json, result)
    print(table(result))


def measured(bundle: Path, texts: Sequence[str], seconds: float) -> dict[str, Any]:
    """The figures of one bundle."""
    ways = [
        (f"{n_workers} {name}", in_batches, run, n_workers)
        for name, run in (("threads", run_threads), ("processes", run_processes))
        for n_workers in WORKERS
        for in_batches in (False, True)
    ]
    by_round: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name, *_ in ways}
    for number in range(ROUNDS):
        say(f"{bundle.name}: round {number + 1} of {ROUNDS}")
        for name, in_batches, run, n_workers in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
            by_round[name][in_batches].append(run(bundle, texts, seconds, n_workers, in_batches))
    router = Router.load(bundle)
    late = asyncio.run(late_ms(router, batch_of(texts), seconds))
    held = {"held": asyncio.run(held_ms(router, lambda: batch_of(texts), ROUNDS * seconds))}
    with patch.dict(sys.modules, {"nanotoken": None}):
        default = Router.load(bundle)
    for kind, batch in (("held_new", partial(with_new_words, texts)), ("held_long", partial(long_texts, texts))):
        held[kind] = asyncio.run(held_ms(default, batch, ROUNDS * seconds))
    return {
        "bundle_id": router.manifest.bundle_id,
        "n_queries": len(texts),
        "tokenizer": router.tokenizer,
        "queries_per_s": {name: [float(np.median(each)) for each in own] for name, own in by_round.items()},
        "queries_per_s_by_round": by_round,
        "late": {what: _spread(found) for what, found in late.items()},
        **{kind: _spread(found) for kind, found in held.items()},
        "calls_us": {str(n): asyncio.run(inline_and_in_thread_us(router, texts, n)) for n in HANDED_OVER},
    }


def _spread(found_ms: Sequence[float]) -> dict[str, float]:
    return {
        **{f"p{percent}_ms": float(np.percentile(found_ms, percent)) for percent in (50, 99, 100)},
        "n_held": sum(ms > HELD_MS for ms in found_ms),
        "n": len(found_ms),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    names = list(result["bundles"])
    columns = [f"`{name}`, {how}" for name in names for how in ("one by one", f"batches of {BATCH}")]
    lines = [f"| queries a second | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for workers in next(iter(result["bundles"].values()))["queries_per_s"]:
        shown = (cell for name in names for cell in _rates(result["bundles"][name], workers))
        lines.append(f"| {workers} | {' | '.join(shown)} |")
    lines += [
        "",
        f"| a task that wants to run every millisecond is late by, ms | p50 | p99 | most | over {HELD_MS:g} ms |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        for what, shown_as in (
            ("idle", "nothing else runs"),
            ("busy", f"one batch of {BATCH} after another by `aroute_batch`"),
            ("hashing", "SHA-256 for as long, handed to a thread as often"),
        ):
            lines.append(f"| `{name}`, {shown_as} | {_cells(result['bundles'][name]['late'][what])} |")
    lines += [
        "",
        f"| `aroute_batch` of {BATCH} keeps the interpreter at a time for, ms | p50 | p99 | most | over {HELD_MS:g} ms |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| `{name}`, {shown_as} | {_cells(result['bundles'][name][kind])} |"
            for name in names
            for kind, shown_as in KINDS_OF_TEXTS.items()
            if kind in result["bundles"][name]
        ),
    ]
    lines += _calls(result["bundles"])
    machine = result["environment"]
    n_queries = " and ".join(dict.fromkeys(f"{result['bundles'][name]['n_queries']:,}" for name in names))
    how = (
        f"Queries a second: medians of {ROUNDS} rounds, in brackets the least and the most; late turns: of all rounds; calls: medians of {CALLS}, "
        "each after a turn in the other thread, so its caches are cold. "
    )
    where = (
        f"{how}{machine['processor']}, {machine['cores']} cores, {machine['measured_at'][:10]}; {n_queries} queries, one thread a worker."
        f"{_tokenizers(result['bundles'])}{older_students(machine)}{busy(machine)}"
    )
    return "\n".join([*lines, "", where, ""])


def _cells(spread: Mapping[str, float]) -> str:
    figures = " | ".join(f"{spread[f'p{percent}_ms']:.2f}" for percent in (50, 99, 100))
    return f"{figures} | {spread['n_held']} of {spread['n']:,}"


def _calls(bundles: Mapping[str, Any]) -> list[str]:
    """What it costs to hand queries to a thread and back."""
    lines = ["", "| p50 µs of a call | in the loop's thread | in another, waited for |", "| --- | ---: | ---: |"]
    for name, bundle in bundles.items():
        for n, (inline, in_thread) in bundle["calls_us"].items():
            queries = "a query" if n == "1" else f"{n} queries"
            lines.append(f"| `{name}`, {queries} | {inline:,.0f} | {in_thread:,.0f} |")
    return lines


def _rates(bundle: Mapping[str, Any], workers: str) -> list[str]:
    """One by one and in batches: the median, and the least and the most of the rounds."""
    medians = bundle["queries_per_s"][workers]
    rounds = bundle["queries_per_s_by_round"][workers]
    return [f"{rate:,.0f} [{min(own):,.0f}, {max(own):,.0f}]" for rate, own in zip(medians, rounds, strict=True)]


def _tokenizers(bundles: Mapping[str, Any]) -> str:
    found = ", ".join(f"`{name}` {each['tokenizer']}" for name, each in bundles.items())
    made = ", ".join(f"`{name}` {each['bundle_id']}" for name, each in bundles.items())
    return f" Tokenizer: {found}. Bundles: {made}."


def batch_of(texts: Sequence[str]) -> list[str]:
    """So many queries, repeated where there are fewer."""
    return [texts[number % len(texts)] for number in range(BATCH)]


def with_new_words(texts: Sequence[str]) -> list[str]:
    """So many queries, with words behind each that nobody has seen before, as order numbers and names are."""
    words = (secrets.token_hex(3) for _ in range(BATCH * NEW_WORDS))
    return [" ".join([text, *itertools.islice(words, NEW_WORDS)]) for text in batch_of(texts)]


def long_texts(texts: Sequence[str]) -> list[str]:
    """So many texts of 200 words, those of the queries in a row."""
    words = itertools.cycle(word for text in texts for word in text.split())
    return [" ".join(itertools.islice(words, LONG_WORDS)) for _ in range(BATCH)]


def count(router: Router, texts: Sequence[str], seconds: float, in_batches: bool) -> int:
    """How many queries one worker answers in that time."""
    ends, n_done = time.perf_counter() + seconds, 0
    batch = batch_of(texts)
    while time.perf_counter() < ends:
        if in_batches:
            router.route_batch(batch)
            n_done += BATCH
        else:
            for text in texts:
                router.route(text)
            n_done += len(texts)
    return n_done


def run_threads(bundle: Path, texts: Sequence[str], seconds: float, n_workers: int, in_batches: bool) -> float:
    """Queries a second of threads that share one router."""
    router, start = Router.load(bundle), threading.Barrier(n_workers)
    router.route_batch(texts)

    def work(_: int) -> float:
        start.wait()
        return rate(router, texts, seconds, in_batches)

    with ThreadPoolExecutor(n_workers) as pool:
        return sum(pool.map(work, range(n_workers)))


def rate(router: Router, texts: Sequence[str], seconds: float, in_batches: bool) -> float:
    """Queries a second of one worker, by its own clock."""
    started = time.perf_counter()
    return count(router, texts, seconds, in_batches) / (time.perf_counter() - started)


def run_processes(bundle: Path, texts: Sequence[str], seconds: float, n_workers: int, in_batches: bool) -> float:
    """Queries a second of processes with a router each."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(n_workers), context.Queue()
    arguments = (str(bundle), list(texts), seconds, in_batches, start, results)
    workers = [context.Process(target=work_in_process, args=arguments, daemon=True) for _ in range(n_workers)]
    for worker in workers:
        worker.start()
    rates = [results.get(timeout=60 + 10 * seconds) for _ in workers]
    for worker in workers:
        worker.join()
    return float(sum(rates))


def work_in_process(bundle: str, texts: list[str], seconds: float, in_batches: bool, start: Any, results: Any) -> None:
    """One process's share: it begins when all have loaded."""
    router = Router.load(bundle)
    router.route_batch(texts)
    start.wait()
    results.put(rate(router, texts, seconds, in_batches))


async def late_ms(router: Router, batch: list[str], seconds: float) -> dict[str, list[float]]:
    """How late a task comes that wants to run every millisecond: with nothing else to do, beside batches, and beside another thread.

    The last is for comparison: hashlib lets go of the interpreter for as long as it computes, and is handed over as often as a batch is, so what is
    late there is the system's doing.
    """
    late: list[float] = []

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append((time.perf_counter() - started - TICK_S) * 1000)

    async def keep(work: Callable[[], Awaitable[Any]]) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await work()

    await router.aroute_batch(batch)
    started = time.perf_counter()
    await router.aroute_batch(batch)
    as_long_s = time.perf_counter() - started
    beside: dict[str, Callable[[], Awaitable[Any]]] = {
        "idle": lambda: asyncio.sleep(seconds),
        "busy": lambda: keep(lambda: router.aroute_batch(batch)),
        "hashing": lambda: keep(lambda: asyncio.to_thread(_hash_for, as_long_s)),
    }
    found: dict[str, list[float]] = {name: [] for name in beside}
    ticking = asyncio.create_task(tick())
    for _ in range(ROUNDS):
        for name, work in beside.items():
            await asyncio.sleep(SETTLING_S)  # what the other work leaves late is its own
            late.clear()
            await work()
            found[name] += late
    ticking.cancel()
    return found


async def held_ms(router: Router, batch: Callable[[], list[str]], seconds: float) -> list[float]:
    """For how long at a time ``aroute_batch`` of what ``batch`` gives keeps the interpreter, beside a task that wants to run every millisecond.

    Its thread lets go of the interpreter when the graph runs and when it pauses; a time is from one of these to the next, by the wall clock. What it does in the
    loop's own thread is timed from one ``await`` to the next.
    """
    found: list[float] = []

    async def tick() -> None:
        while True:  # noqa: ASYNC110 - it is a task that wants its turn
            await asyncio.sleep(TICK_S)

    await router.aroute_batch(batch())
    ticking = asyncio.create_task(tick())
    until = time.perf_counter() + seconds
    with _times_in_python(router, found):
        while time.perf_counter() < until:
            await _Steps(router.aroute_batch(batch()), found)
    ticking.cancel()
    return found


@contextmanager
def _times_in_python(router: Router, found: list[float]) -> Iterator[None]:
    """Adds the milliseconds between two times at which a batch's thread lets go of the interpreter."""
    since = threading.local()
    session, route_batch = router._session, router._route_batch  # noqa: SLF001 - what lets go is in there

    def lets_go(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        found.append((time.perf_counter() - since.started) * 1000)
        try:
            return work(*arguments, **options)
        finally:
            since.started = time.perf_counter()

    def from_start_to_end(*arguments: Any, **options: Any) -> Any:
        since.started = time.perf_counter()
        try:
            return route_batch(*arguments, **options)
        finally:
            found.append((time.perf_counter() - since.started) * 1000)

    with (
        patch.object(router, "_session", SimpleNamespace(run=partial(lets_go, session.run))),
        patch.object(router, "_route_batch", from_start_to_end),
        patch.object(router_module, "sleep", partial(lets_go, time.sleep)),
    ):
        yield


class _Steps:
    """Awaits a coroutine, and adds the milliseconds of each of its steps."""

    def __init__(self, work: Coroutine[Any, Any, Any], found: list[float]) -> None:
        self._work, self._found = work, found

    def __await__(self) -> Generator[Any, None, None]:
        while True:
            started = time.perf_counter()
            try:
                awaited = self._work.send(None)
            except StopIteration:
                return
            finally:
                self._found.append((time.perf_counter() - started) * 1000)
            yield awaited


async def inline_and_in_thread_us(router: Router, texts: Sequence[str], n: int) -> tuple[float, float]:
    """Median microseconds of a call with ``n`` queries: in this thread, and handed to another and waited for; in turns."""
    inline: list[float] = []
    in_thread: list[float] = []
    for number in range(CALLS):
        queries = [texts[(number * n + offset) % len(texts)] for offset in range(n)]
        route = partial(router.route, queries[0]) if n == 1 else partial(router.route_batch, queries)
        started = time.perf_counter()
        route()
        ended = time.perf_counter()
        await asyncio.to_thread(route)
        in_thread.append((time.perf_counter() - ended) * 1e6)
        inline.append((ended - started) * 1e6)
    return float(np.median(inline)), float(np.median(in_thread))


def _hash_for(seconds: float) -> None:
    content, until = bytes(HASHED_BYTES), time.perf_counter() + seconds
    while time.perf_counter() < until:
        hashlib.sha256(content)


if __name__ == "__main__":
    main()
