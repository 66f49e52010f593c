"""How much memory `distill route --input` takes, and how fast it is, over the number of lines, by the kinds of file that go in and come out.

python scripts/bulk_growth.py models/banking-assistant/static [--queries gold.jsonl] [--json results/bulk.json]

Files of 10,000, 100,000 and 1,000,000 lines are made of the queries, each with a number behind it; each is routed by a process of its own,
whose peak of memory is the system's count. Measure on an idle machine: the rates are this machine's, its name is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance import ROOT, busy, older_students, tree_commit

from distill.benchmark.latency import environment
from distill.bundle import SELFCHECK, load_bundle
from distill.data import read_jsonl, write_json
from distill.errors import DistillError
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULTS = ROOT / "results" / "bulk.json"
LINES = (10_000, 100_000, 1_000_000)
WAYS = ((".jsonl", ".jsonl"), (".jsonl", ".parquet"), (".csv", ".jsonl"), (".parquet", ".parquet"))
"""Kinds of file: input and output."""
_ROUTE = """
import sys, time
from pathlib import Path
from distill.bulk import route_file
started = time.perf_counter()
found = route_file(*map(Path, sys.argv[1:4]), show_progress=False)
seconds = time.perf_counter() - started
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(found.n_queries, seconds, int(peak.split()[1]) * 1024 / 1e6)
"""


def main() -> None:
    """Measures every size of every kind, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--queries", type=Path, help="JSON lines with `text` [the bundle's self-check].")
    parser.add_argument("--json", type=Path, help="Also write the figures there.")
    options = parser.parse_args()
    try:
        bundle = load_bundle(options.bundle)
        texts = [
            line["text"] for _, line in read_jsonl(options.queries or bundle.path / SELFCHECK) if line["text"].strip()
        ]
    except DistillError as error:
        raise SystemExit(f"bulk_growth.py: {error}") from error
    result = {
        "environment": environment(),
        "commit": tree_commit(),
        "bundle_id": bundle.manifest.bundle_id,
        "student": bundle.manifest.student,
        "runs": [run for way in WAYS for run in measured(bundle.path, texts, *way)],
    }
    if options.json:
        write_json(options.json, result)
    print(table(result))


def measured(bundle: Path, texts: Sequence[str], kind: str, output_kind: str) -> Iterator[dict[str, Any]]:
    """The figures of one kind of input and of output, size after size."""
    for n_lines in LINES:
        say(f"bulk: {n_lines:,} lines, {kind} to {output_kind}")
        with tempfile.TemporaryDirectory(prefix="bulk-") as folder:
            source = Path(folder) / f"queries{kind}"
            write_queries(source, texts, n_lines)
            output = Path(folder) / f"answers{output_kind}"
            command = [sys.executable, "-c", _ROUTE, bundle, source, output]
            n_queries, seconds, peak_rss_mb = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.split()
            yield {
                "kind": kind,
                "output_kind": output_kind,
                "n_lines": int(n_queries),
                "file_mb": round(source.stat().st_size / 1e6, 1),
                "seconds": round(float(seconds), 4),
                "peak_rss_mb": round(float(peak_rss_mb)),
            }


def write_queries(path: Path, texts: Sequence[str], n_lines: int) -> None:
    """A file of so many different queries."""
    queries = (f"{text} {number}" for number, text in enumerate(islice(cycle(texts), n_lines)))
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": list(queries)}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            writer = csv.writer(stream)
            writer.writerow(["text"])
            writer.writerows([query] for query in queries)
        else:
            stream.writelines(json.dumps({"text": query}) + "\n" for query in queries)


def page() -> str:
    """The table of results/bulk.json."""
    return table(json.loads(RESULTS.read_text(encoding="utf-8")))


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| input | output | lines | file, MB | seconds | lines a second | peak memory, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in result["runs"]:
        rate = run["n_lines"] / run["seconds"] if run["seconds"] else 0.0
        lines.append(
            f"| `{run['kind']}` | `{run['output_kind']}` | {run['n_lines']:,} | {run['file_mb']:,.1f} | {run['seconds']:,.1f} | {float(f'{rate:.2g}'):,.0f} | {run['peak_rss_mb']:,} |"
        )
    machine = result["environment"]
    where = f"`{result['student']}` {result['bundle_id']}, {machine['processor']}, {machine['measured_at'][:10]}, commit {result['commit']}.{busy(machine)}{older_students(machine)}"
    return "\n".join([*lines, "", where, ""])


if __name__ == "__main__":
    main()
