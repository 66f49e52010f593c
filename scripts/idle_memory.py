"""What memory costs that was left alone for some seconds: plain pages of this process, and the static student's single calls.

python scripts/idle_memory.py BUNDLE --queries FILE [--json results/idle-memory.json]

The host of a virtual machine may take back or write-protect pages that nobody touches. The next touch then waits for it, and the machine's own system counts
no fault. So: every page of 256 MB is read, after pauses of so many seconds; and the student is asked in blocks of 50 queries with a pause before each, and
other queries for 10 ms after it. Measure on an idle machine: the figures are this machine's, its name is printed. What hangs on no machine is counted
too: pages of the student's table that a query reads, and no other query shortly before it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import time
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from provenance import ROOT, busy, tree_commit

from distill import Router
from distill.benchmark.latency import environment
from distill.data import read_jsonl, write_json
from distill.errors import DataError, DistillError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS = ROOT / "results" / "idle-memory.json"
N_PAGES, PAGE_BYTES = 65_536, 4_096
PAUSES_S = (0, 2, 8)
BLOCK, N_BLOCKS, PASSES = 50, 8, 2
PAUSES_BEFORE_BLOCKS_S = (0, 2)
WARM_UP_S = 0.01
LONG_US = 20.0
OTHERS_BEFORE = (0, 10, 100, 300)


def main() -> None:
    """Measures pages and calls, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="A static student.")
    parser.add_argument("--queries", type=Path, required=True, help="JSON lines with `text`.")
    parser.add_argument("--json", type=Path, help="Also write the figures there.")
    options = parser.parse_args()
    try:
        router = Router.load(options.bundle)
        texts = [line["text"] for _, line in read_jsonl(options.queries) if line["text"].strip()]
        if len(texts) < 2 * BLOCK:
            raise DataError(
                f"{options.queries}: {len(texts)} queries; {2 * BLOCK} are needed, so that each block has others before it"
            )
    except DistillError as error:
        raise SystemExit(f"idle_memory.py: {error}") from error
    random.Random(0).shuffle(texts)  # noqa: S311 - of any kind in each block
    result = {
        "environment": environment(),
        "commit": tree_commit(),
        "bundle_id": router.manifest.bundle_id,
        "tokenizer": router.tokenizer,
        "pages": pages(),
        "calls": calls(router, texts[: BLOCK * N_BLOCKS]),
        "table_pages": table_pages(router.bundle.onnx_path, [router.tokenise(text) for text in texts]),
    }
    if options.json:
        write_json(options.json, result)
    print(table(result))


def pages() -> list[dict[str, float]]:
    """How long a read of each page takes after each pause, in an order drawn anew."""
    memory = mmap.mmap(-1, N_PAGES * PAGE_BYTES)
    for page in range(N_PAGES):
        memory[page * PAGE_BYTES] = 1
    found, chance = [], np.random.default_rng(0)
    for pause_s in PAUSES_S:
        places = (PAGE_BYTES * chance.permutation(N_PAGES)).tolist()
        taken = np.ones(N_PAGES)  # written to, so that none of its own pages is new
        time.sleep(pause_s)
        faults = n_faults()
        for number, place in enumerate(places):
            started = time.perf_counter_ns()
            memory[place]
            taken[number] = time.perf_counter_ns() - started
        found.append({"pause_s": pause_s, **summary(taken / 1e3), "n_faults": n_faults() - faults})
    return found


def calls(router: Router, texts: Sequence[str]) -> list[dict[str, float]]:
    """How long a call takes, without and with a pause before each block."""
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]
    for text in texts:
        router.route(text)
    found = []
    for pause_s in PAUSES_BEFORE_BLOCKS_S:
        taken, faults = [], 0
        for _ in range(PASSES):
            for position, block in enumerate(blocks):
                time.sleep(pause_s)
                others, until = cycle(blocks[position - 1]), time.perf_counter() + WARM_UP_S
                while time.perf_counter() < until:
                    router.route(next(others))
                before = n_faults()
                for text in block:
                    started = time.perf_counter_ns()
                    router.route(text)
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                faults += n_faults() - before
        found.append({"pause_s": pause_s, **summary(np.asarray(taken)), "n_faults": faults})
    return found


def table_pages(graph: Path, queries: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """How many pages of a static student's table a query reads that so many others before it did not; none of another kind of graph.

    A query also reads some of ``places`` and ``factors``, which are small and soon all read.

    Args:
        graph: The onnx file.
        queries: Token ids of each query.
    """
    import onnx

    model = onnx.load(str(graph))
    if not any("rows" in node.output for node in model.graph.node):
        return []
    (table,) = (each for each in model.graph.initializer if each.name == "table")
    begin = graph.read_bytes().index(table.raw_data)  # it is mapped as it lies
    row_bytes = len(table.raw_data) // table.dims[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.INT32, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    read = []
    for query in queries:
        ids = np.asarray([query], np.int64)
        (rows,) = session.run(["rows"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        starts = begin + rows.ravel().astype(np.int64) * row_bytes
        read.append(set((starts // PAGE_BYTES).tolist()) | set(((starts + row_bytes - 1) // PAGE_BYTES).tolist()))
    found = []
    for n_others in OTHERS_BEFORE:
        n_new = [
            len(read[number] - set().union(*read[number - n_others : number])) for number in range(n_others, len(read))
        ]
        if n_new:
            p99 = float(np.percentile(n_new, 99))
            found.append({"n_others": n_others, "n": len(n_new), "mean": mean(n_new), "p99": p99})
    return found


def summary(taken_us: np.ndarray[Any, Any]) -> dict[str, float]:
    """Percentiles, and how many took long."""
    p50, p95, p99 = np.percentile(taken_us, (50, 95, 99)).tolist()
    return {
        "n": len(taken_us),
        "p50_us": p50,
        "p95_us": p95,
        "p99_us": p99,
        "n_long": int((taken_us > LONG_US + p50).sum()),
    }


def n_faults() -> int:
    """Page faults of this process that the system knows of; 0 where it does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt + used.ru_majflt


def page() -> str:
    """The table of results/idle-memory.json."""
    return table(json.loads(RESULTS.read_text(encoding="utf-8")))


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"| what | pause before, s | p50 µs | p95 | p99 | p99 over p50 | over {LONG_US:g} µs more than p50 | faults that the system knows of |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what, key in (("a page is read", "pages"), ("`route`, static", "calls")):
        lines += [
            f"| {what} | {each['pause_s']:g} | {each['p50_us']:,.2f} | {each['p95_us']:,.2f} | {each['p99_us']:,.2f} | {each['p99_us'] / each['p50_us']:.1f} "
            f"| {each['n_long']} of {each['n']:,} | {each['n_faults']} |"
            for each in result[key]
        ]
    machine = result["environment"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['measured_at'][:10]}, commit {result['commit']}; student {result['bundle_id']}, tokenizer {result['tokenizer']}.{busy(machine)}"
    return "\n".join([*lines, "", *_table_of_pages(result["table_pages"]), where, ""])


def _table_of_pages(counts: Sequence[Mapping[str, float]]) -> list[str]:
    if not counts:
        return []
    return [
        "| pages of the table that a query reads first | queries | mean | p99 |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| after {each['n_others']} others | {each['n']:,} | {each['mean']:.1f} | {each['p99']:.0f} |"
            for each in counts
        ),
        "",
    ]


if __name__ == "__main__":
    main()
