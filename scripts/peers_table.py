"""The table of contenders in README.md: this project's students beside other libraries for the same job.

Latency, sizes and the other libraries' accuracy come from one run of scripts/peers.py, kept in results/peers.json; the students' own
accuracy from results/openings.jsonl, to which scripts/public.py adds a line whenever it opens a test part; what nobody measured here
from results/published.json, with its source.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from openings import last_by_seed, read_openings
from provenance import older_graph
from throughput import HELD_MS

from distill.benchmark.statistics import wilson_interval
from distill.data import read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results", ROOT / "docs" / "runtime-budget.md"
PEERS, RUNS = RESULTS / "peers.json", RESULTS / "peers-runs.jsonl"
OPENINGS, PUBLISHED = RESULTS / "openings.jsonl", RESULTS / "published.json"
THROUGHPUT, BUDGET = RESULTS / "throughput.json", RESULTS / "runtime-budget.json"
STEPS_OF_START = ("import", "load", "first_answer")
COLUMNS = ("accuracy", "out-of-scope AUROC", "p50 µs", "p99 µs", "model MB", "install MB", "first answer ms")
"""A column without any figure is left out."""

Row = dict[str, Any]


def table() -> str:
    """The rows, and below them what each figure is.

    Empty accuracy of a student: scripts/public.py has not opened that set yet.
    """
    run = json.loads(PEERS.read_text(encoding="utf-8"))
    data = run["data"]["name"]
    opened = last_by_seed(read_openings(OPENINGS), data)
    rows = [_cells(row, opened) for row in sorted(run["rows"], key=lambda row: float(row["p50_ms"]))]
    rows += _published(data)
    titles = [title for title in COLUMNS if any(row.get(title) for row in rows)]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    lines += ["| " + " | ".join([row[""], *(row.get(title, "") for title in titles)]) + " |" for row in rows]
    return "\n".join([*lines, "", _notes(run, opened), ""])


def limits() -> str:
    """What the runtime is to reach beside other libraries, and by how much it misses."""
    run = json.loads(PEERS.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in run["rows"]}
    static, fast, encoder = rows["static"], rows["static [fast]"], rows["encoder"]
    late = json.loads(THROUGHPUT.read_text(encoding="utf-8"))["bundles"]["encoder"]["late"]
    budgets = json.loads(BUDGET.read_text(encoding="utf-8"))["bundles"]
    begun = next(each["start"] for each in budgets if each["student"] == "encoder")
    measured = [
        ("`static`, p50, µs", 1000 * static["p50_ms"], 35),
        ("`static` with `[fast]`, p50, µs", 1000 * fast["p50_ms"], 22),
        ("`static`, p50 over that of model2vec", static["p50_ms"] / rows["model2vec"]["p50_ms"], 0.35),
        ("`encoder`, p50 over that of semantic-router", encoder["p50_ms"] / rows["semantic-router"]["p50_ms"], 0.125),
        ("`static`, p99 over p50", static["p99_ms"] / static["p50_ms"], 3),
        ("`static` with `[fast]`, p99 over p50", fast["p99_ms"] / fast["p50_ms"], 3),
        ("`encoder`, p99 over p50", encoder["p99_ms"] / encoder["p50_ms"], 3),
        ("`static`, first answer above bare imports, ms", static["cold_start_ms"] - run["bare_imports_ms"], 250),
        ("`encoder`, first answer above bare imports, ms", encoder["cold_start_ms"] - run["bare_imports_ms"], 250),
        ("`encoder`, the same in the budget above, ms", sum(begun[f"{step}_ms"] for step in STEPS_OF_START), 250),
        ("`encoder`, longest that a loop waits beside batches of 256, ms", late["busy"]["p100_ms"], HELD_MS),
        ("`static`, memory, MB", static["peak_rss_mb"], 90),
        ("`static` with `[fast]`, memory, MB", fast["peak_rss_mb"], 90),
        ("default install, MB", static["install_mb"], 240),
    ]
    at_least = [
        ("`static`, queries a second in batches", static["queries_per_s"], 100_000),
        ("`encoder`, in batches over one by one", encoder["queries_per_s"] * encoder["p50_ms"] / 1000, 4),
    ]
    lines = ["| | measured | limit | |", "| --- | ---: | ---: | --- |"]
    for what, figure, limit in measured:
        verdict = "stands" if figure <= limit else f"missed: {figure / limit:.2f} times the limit"
        lines.append(f"| {what} | {figure:.3g} | {limit:g} | {verdict} |")
    for what, figure, limit in at_least:
        verdict = "stands" if figure >= limit else f"missed: {figure / limit:.2f} times the limit"
        lines.append(f"| {what} | {float(f'{figure:.3g}'):,g} | at least {limit:,} | {verdict} |")
    source = f"But for the budget's start and the loop, from {_run(run)}, {run['data']['name']}; percentiles are the medians of {run['runs']} runs."
    return "\n".join([*lines, "", f"{source}{older_graph(run['environment'])}", "", _who_holds_the_loop(late), ""])


def _who_holds_the_loop(late: Mapping[str, Row]) -> str:
    """Whether a loop waits more often beside ``aroute_batch`` than beside other work or none."""
    shares = {name: each["n_held"] / each["n"] for name, each in late.items()}
    least, _ = wilson_interval(late["busy"]["n_held"], late["busy"]["n"]) or (0.0, 1.0)
    verdict = (
        "more often than without it, so the limit is missed by `aroute_batch`"
        if least > max(shares["hashing"], shares["idle"])
        else "no more often than without it: what is over the limit is the machine's doing, as far as this can tell"
    )
    return (
        f"`aroute_batch` is to hold a loop for {HELD_MS:g} ms at most while `encoder` answers 256 queries. By `scripts/throughput.py` ([table](deployment.md#event-loops)) "
        f"a task of the loop is later than that {100 * shares['busy']:.2f} % of the time beside it, {100 * shares['hashing']:.2f} % beside a thread "
        f"that only hashes and {100 * shares['idle']:.2f} % with nothing else running; {verdict}."
    )


def runs() -> str:
    """Every run there was: p50, and how far p99 lies above it. The last is the one that is shown elsewhere."""
    found = [line for _, line in read_jsonl(RUNS)]
    shown = ("static", "static [fast]", "model2vec", "fastText", "TF-IDF + LR")
    lines = [
        f"| commit | {' | '.join(f'{name}, p50 | p99 less p50' for name in shown)} | static over model2vec |",
        "| --- |" + " ---: |" * (2 * len(shown) + 1),
    ]
    for run in found:
        rows = [run["rows"][name] for name in shown]
        cells = [f"{1000 * row['p50_ms']:.1f} | {1000 * (row['p99_ms'] - row['p50_ms']):.0f}" for row in rows]
        lines.append(f"| {run['commit']} | {' | '.join(cells)} | {rows[0]['p50_ms'] / rows[2]['p50_ms']:.3f} |")
    by_pass = [
        f"{name} " + ", ".join(f"{1000 * p99:.0f}" for p99 in found[-1]["rows"][name]["p99_ms_by_run"])
        for name in shown
    ]
    return "\n".join([*lines, "", f"Microseconds. p99 in each pass of the last run: {'; '.join(by_pass)}.", ""])


def _run(run: Row) -> str:
    machine = run["environment"]
    commit = f" ({run['commit']})" if "commit" in run else ""
    return f"one run of `scripts/peers.py`{commit} on {machine['processor']}, one thread, {machine['measured_at'][:10]}"


def _cells(row: Row, opened: Sequence[Row]) -> dict[str, str]:
    student = row["name"].removesuffix(" [fast]")
    mine = [line["rows"][student] for line in opened] if row["bundle_id"] else [row]
    figures = (
        _mean(mine, "accuracy", "{:.4f}"),
        _mean(mine, "oos_auroc", "{:.3f}"),
        *(f"{1000 * row[name]:,.0f}" for name in ("p50_ms", "p99_ms")),
        f"{row['model_mb']:,.1f}",
        f"{row['install_mb']:,.0f}",
        _mean([row], "cold_start_ms", "{:,.0f}"),
    )
    name = f"**{row['name']}**" if row["bundle_id"] else row["name"]
    return {"": name, **dict(zip(COLUMNS, figures, strict=True))}


def _mean(rows: Sequence[Row], name: str, shown: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return shown.format(fmean(values)) if values else ""


def _published(data: str) -> Iterator[dict[str, str]]:
    for row in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        if data in row:
            yield {"": f"{row['name']} (published: {row['source']})", COLUMNS[0]: f"{row[data]:.4f}"}


def _notes(run: Row, opened: Sequence[Row]) -> str:
    data = run["data"]
    commits = ", ".join(
        f"seed {line['seed']}: {line['commit']}, {line['opened_at'][:10]}"
        for line in sorted(opened, key=lambda line: int(line["seed"]))
    )
    outside = f", {data['n_oos']:,} of them out of scope" if data["n_oos"] else ""
    not_run = "; ".join(f"{each['name']}: {each['reason']}" for each in run["not_run"])
    return (
        f"{data['name']}, {data['n_test']:,} test queries{outside}. Accuracy: in scope, no rejection. Bold: this project, accuracy as "
        f"`scripts/public.py` measured it ({commits or 'not opened yet'}). The rest: {_run(run)}; "
        f"from the first line of a program to the first answer: bare imports of numpy, onnxruntime and "
        f"tokenizers are {run['bare_imports_ms']:.0f} ms of ours.{older_graph(run['environment'])}"
        + (f" Not run: {not_run}." if not_run else "")
    )
