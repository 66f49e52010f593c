"""The table of contenders in README.md: this project's students beside other libraries for the same job.

All figures come from one run of scripts/peers.py, kept in results/peers.json, so that speed and accuracy are of the same models; what
nobody measured here from results/published.json, with its source. The limits show one on a busier host beside it,
results/peers-busy.json: what scripts/peers.py wrote there. How busy a host was is told by the others' times.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers_log import RUNS, read_runs
from provenance import busy, older_students
from throughput import HELD_MS, KINDS_OF_TEXTS

from distill.benchmark.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results", ROOT / "docs" / "runtime-budget.md"
PEERS, BUSY = RESULTS / "peers.json", RESULTS / "peers-busy.json"
PUBLISHED = RESULTS / "published.json"
THROUGHPUT, BUDGET = RESULTS / "throughput.json", RESULTS / "runtime-budget.json"
STEPS_OF_START = ("import", "load", "first_answer")
COLUMNS = (
    "accuracy", "out-of-scope AUROC", "p50 µs", "p95 µs", "p99 µs", "p50 µs, new texts", "batches, queries/s", "model MB", "install MB", "first answer ms"
)  # fmt: skip
"""A column without any figure is left out."""

Row = dict[str, Any]


def table() -> str:
    """The rows, and below them what each figure is."""
    run = json.loads(PEERS.read_text(encoding="utf-8"))
    data = run["data"]["name"]
    rows = [_cells(row) for row in sorted(run["rows"], key=lambda row: float(row["p50_ms"]))]
    rows += _published(data)
    titles = [title for title in COLUMNS if any(row.get(title) for row in rows)]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    lines += ["| " + " | ".join([row[""], *(row.get(title, "") for title in titles)]) + " |" for row in rows]
    return "\n".join([*lines, "", _notes(run), ""])


def limits() -> str:
    """What the runtime is to reach beside other libraries, and by how much it misses."""
    run, busy = (json.loads(path.read_text(encoding="utf-8")) for path in (PEERS, BUSY))
    loop = json.loads(THROUGHPUT.read_text(encoding="utf-8"))["bundles"]["encoder"]
    budgets = json.loads(BUDGET.read_text(encoding="utf-8"))["bundles"]
    begun = next(each["start"] for each in budgets if each["student"] == "encoder")
    lines = [f"| | limit | {_when(run)} | {_when(busy)} |", "| --- | ---: | --- | --- |"]
    lines += [_judged(*both) for both in zip(_limits_beside_peers(run), _limits_beside_peers(busy), strict=True)]
    lines += ["", "| | limit | |", "| --- | ---: | --- |", *map(_judged, _limits_alone(begun, loop))]
    source = (
        f"The first table: {_run(run)}, {run['data']['name']}, and beside it one on a busier host, with the code of {busy['commit']}; percentiles are the medians of {run['runs']} runs. "
        f"How busy that host was, by the p50 of all who were asked, over that of the first: {_slower(run, busy)}."
    )
    how = "; ".join(f"{row['name']}: {row['how']}" for row in run["rows"] if not row["bundle_id"])
    notes = [
        f"{source}{older_students(run['environment'])}",
        *filter(None, map(_said_of_new_texts, (run, busy))),
        f"How each was set up: {how}.",
        _who_holds_the_loop(loop),
    ]
    return "\n".join([*lines, *(line for note in notes for line in ("", note)), ""])


def _said_of_new_texts(run: Row) -> str:
    """What a call takes about a text that nobody was asked about before, beside one about a text that all were asked about; empty where it was not timed."""
    rows = [row for row in run["rows"] if "first_p50_ms" in row]
    shown = (f"{row['name']} {1000 * row['first_p50_ms']:,.1f} ({1000 * row['p50_ms']:,.1f})" for row in rows)
    about = "p50 in µs about texts that nobody was asked about before, in brackets the p50 above, about texts that all were asked about once"
    return f"In the run of {run['commit']}, {about}: {', '.join(shown)}." if rows else ""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A figure, and what it is to be at most, or at least.

    Attributes:
        what: Its name and unit.
        measured: The figure; raises KeyError with the name of a contender that it needs and that did not run.
        limit: What it is to reach.
        is_most: Whether it is to be at most that; else at least.
    """

    what: str
    measured: Callable[[], float]
    limit: float
    is_most: bool = True


def _limits_beside_peers(run: Row) -> list[_Limit]:
    """Of one run of scripts/peers.py."""
    rows = {row["name"]: row for row in run["rows"]}

    def over(first: str, second: str) -> float:
        return float(rows[first]["p50_ms"] / rows[second]["p50_ms"])

    def tail(name: str) -> float:
        return float(rows[name]["p99_ms"] / rows[name]["p50_ms"])

    def above_bare(name: str) -> float:
        row = rows[name]
        return float(row["cold_start_ms"] - row["bare_imports_ms"])

    def memory(name: str) -> float:
        return float(rows[name]["serving_rss_mb"])

    def batches_over_single(name: str) -> float:
        return float(rows[name]["queries_per_s"] * rows[name]["p50_ms"] / 1000)

    return [
        _Limit("`static`, p50, µs", lambda: 1000 * rows["static"]["p50_ms"], 35),
        _Limit("`static` with `[fast]`, p50, µs", lambda: 1000 * rows["static [fast]"]["p50_ms"], 22),
        _Limit("`static`, p50 over that of model2vec", lambda: over("static", "model2vec"), 0.35),
        _Limit("`encoder`, p50 over that of semantic-router", lambda: over("encoder", "semantic-router"), 0.125),
        _Limit("`static`, p99 over p50", lambda: tail("static"), 3),
        _Limit("`static` with `[fast]`, p99 over p50", lambda: tail("static [fast]"), 3),
        _Limit("`encoder`, p99 over p50", lambda: tail("encoder"), 3),
        _Limit(
            "`static`, queries a second in batches", lambda: rows["static"]["queries_per_s"], 100_000, is_most=False
        ),
        _Limit("`encoder`, in batches over one by one", lambda: batches_over_single("encoder"), 4, is_most=False),
        _Limit("`static`, memory, MB", lambda: memory("static"), 90),
        _Limit("`static` with `[fast]`, memory, MB", lambda: memory("static [fast]"), 90),
        _Limit("default install, MB", lambda: rows["static"]["install_mb"], 240),
        _Limit("`static`, first answer above bare imports, ms", lambda: above_bare("static"), 250),
        _Limit("`encoder`, first answer above bare imports, ms", lambda: above_bare("encoder"), 250),
    ]


def _limits_alone(begun: Row, loop: Row) -> list[_Limit]:
    """Of the encoder's start above the bare imports of three libraries (scripts/budget.py), and of an event loop beside it (scripts/throughput.py)."""
    start_ms = sum(begun[f"{step}_ms"] for step in STEPS_OF_START) - begun["third_library_ms"]
    return [
        _Limit("`encoder`, the same in the budget above, less tokenizers, ms", lambda: start_ms, 250),
        *(
            _Limit(
                f"`encoder`, longest that `aroute_batch` of 256 {shown_as} keeps the interpreter, ms",
                lambda kind=kind: loop[kind]["p100_ms"],
                HELD_MS,
            )
            for kind, shown_as in KINDS_OF_TEXTS.items()
            if kind in loop
        ),
        _Limit("`encoder`, latest turn of a loop beside it, ms", lambda: loop["late"]["busy"]["p100_ms"], HELD_MS),
    ]


def _judged(limit: _Limit, *again: _Limit) -> str:
    """A line of the table: a limit, and what each run says of it."""
    bound = f"{limit.limit:g}" if limit.is_most else f"at least {limit.limit:,}"
    return f"| {limit.what} | {bound} | {' | '.join(map(_verdict, (limit, *again)))} |"


def _verdict(limit: _Limit) -> str:
    try:
        figure = limit.measured()
    except KeyError as missing:  # who could not run, or was not asked to
        return f"not measured: {missing.args[0]} did not run"
    stands = figure <= limit.limit if limit.is_most else figure >= limit.limit
    shown = f"{figure:.3g}" if limit.is_most else f"{float(f'{figure:.3g}'):,g}"
    return f"{shown}: stands" if stands else f"{shown}: missed, {figure / limit.limit:.2f} times the limit"


def _when(run: Row) -> str:
    return f"{run['environment']['measured_at'][:10]}, {run['commit']}"


def _slower(run: Row, busy: Row) -> str:
    """By which factor each contender's p50 is that of the first run."""
    before = {row["name"]: row["p50_ms"] for row in run["rows"]}
    factors = {row["name"]: row["p50_ms"] / before[row["name"]] for row in busy["rows"] if row["name"] in before}
    return ", ".join(f"{name} {factor:.2f}" for name, factor in sorted(factors.items(), key=lambda pair: pair[1]))


def _who_holds_the_loop(loop: Row) -> str:
    """For how long ``aroute_batch`` keeps the interpreter, and whether a loop's turns come late more often beside it than beside other work or none."""
    late, held = loop["late"], loop["held"]
    shares = {name: each["n_held"] / each["n"] for name, each in late.items()}
    more = {name: _difference(late["busy"], late[name]) for name in ("hashing", "idle")}
    least, most = (100 * more[max(more, key=lambda name: shares[name])][side] for side in (0, 1))
    verdict = "more often than without it" if least > 0 else "not shown to be more often than without it"
    return (
        f"`aroute_batch` is to hold a loop for {HELD_MS:g} ms at most while `encoder` answers 256 queries. By `scripts/throughput.py` ([table](deployment.md#event-loops)) "
        f"it kept the interpreter for {held['p100_ms']:.2f} ms at most, and longer than that limit {held['n_held']} of {held['n']:,} times. When the system then lets the loop's thread have its turn is "
        f"another matter: {100 * shares['busy']:.2f} % of a task's turns come more than {HELD_MS:g} ms late beside it, {100 * shares['hashing']:.2f} % beside a thread that only hashes, "
        f"for as long and as often, and {100 * shares['idle']:.2f} % with nothing else running; {verdict}: between {least:.2f} and {most:.2f} percentage points more than in the worse "
        f"of these two, at 95 % (Newcombe's interval, as if turns did not hang on one another). The latest turn was {late['busy']['p100_ms']:.1f} ms late beside it, "
        f"{late['hashing']['p100_ms']:.1f} beside hashing and {late['idle']['p100_ms']:.1f} with nothing else running."
    )


def _difference(one: Row, other: Row) -> tuple[float, float]:
    """By how much one share of late turns exceeds another: Newcombe's interval, of two Wilson intervals (1998, method 10)."""
    (p, low, high), (q, least, most) = (
        (each["n_held"] / each["n"], *(wilson_interval(each["n_held"], each["n"]) or (0.0, 1.0)))
        for each in (one, other)
    )
    return p - q - math.hypot(p - low, most - q), p - q + math.hypot(high - p, q - least)


def runs() -> str:
    """Every run there was: p50, and how far p99 lies above it. The last is the one that is shown elsewhere."""
    found = [run for run in read_runs(RUNS) if run["rows"]]
    shown = ("static", "static [fast]", "model2vec", "fastText", "TF-IDF + LR")
    lines = [
        f"| commit | set | {' | '.join(f'{name}, p50 | p99 less p50' for name in shown)} | static over model2vec |",
        "| --- | --- |" + " ---: |" * (2 * len(shown) + 1),
    ]
    for run in found:
        rows = run["rows"]
        cells = [
            f"{1000 * rows[name]['p50_ms']:.1f} | {1000 * (rows[name]['p99_ms'] - rows[name]['p50_ms']):.0f}"
            if name in rows
            else " | "
            for name in shown
        ]
        both = (
            f"{rows['static']['p50_ms'] / rows['model2vec']['p50_ms']:.3f}"
            if {"static", "model2vec"} <= rows.keys()
            else ""
        )
        lines.append(f"| {run['commit']} | {run['set']} | {' | '.join(cells)} | {both} |")
    last = found[-1]["rows"]
    by_pass = [
        f"{name} " + ", ".join(f"{1000 * p99:.0f}" for p99 in last[name]["p99_ms_by_run"])
        for name in shown
        if name in last
    ]
    return "\n".join([*lines, "", f"Microseconds. p99 in each pass of the last run: {'; '.join(by_pass)}.", ""])


def _run(run: Row) -> str:
    machine = run["environment"]
    commit = f" ({run['commit']})" if "commit" in run else ""
    return f"one run of `scripts/peers.py`{commit} on {machine['processor']}, one thread, {machine['measured_at'][:10]}"


def _cells(row: Row) -> dict[str, str]:
    figures = (
        _figure(row, "accuracy", "{:.4f}"),
        _figure(row, "oos_auroc", "{:.3f}"),
        *(f"{1000 * row[name]:,.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
        f"{1000 * row['first_p50_ms']:,.0f}" if "first_p50_ms" in row else "",
        _figure(row, "queries_per_s", "{:,.0f}"),
        f"{row['model_mb']:,.1f}",
        f"{row['install_mb']:,.0f}",
        _figure(row, "cold_start_ms", "{:,.0f}"),
    )
    name = f"**{row['name']}**" if row["bundle_id"] else row["name"]
    return {"": name, **dict(zip(COLUMNS, figures, strict=True))}


def _of_new_texts(run: Row) -> str:
    if not any("first_p50_ms" in row for row in run["rows"]):
        return ""
    return "new texts: nobody was asked about them before, only about some hundred others (the other columns: about all of them); "


def _figure(row: Row, name: str, shown: str) -> str:
    return "" if row.get(name) is None else shown.format(row[name])


def _published(data: str) -> Iterator[dict[str, str]]:
    for row in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        if data in row:
            yield {"": f"{row['name']} (published: {row['source']})", COLUMNS[0]: f"{row[data]:.4f}"}


def _notes(run: Row) -> str:
    data = run["data"]
    bundles = {row["name"].removesuffix(" [fast]"): row["bundle_id"] for row in run["rows"] if row["bundle_id"]}
    outside = f", {data['n_oos']:,} of them out of scope" if data["n_oos"] else ""
    not_run = "; ".join(f"{each['name']}: {each['reason']}" for each in run["not_run"])
    return (
        f"{data['name']}, {data['n_test']:,} test queries{outside}. Accuracy: in scope, no rejection. Bold: this project, with the "
        f"bundles {' and '.join(f'{name} {bundle}' for name, bundle in bundles.items())}. All in {_run(run)}; "
        f"{_of_new_texts(run)}first answer: from a program's first line on; bare imports of numpy, onnxruntime and "
        f"tokenizers are {run['bare_imports_ms']:.0f} ms of ours.{older_students(run['environment'])}"
        + (f" Not run: {not_run}." if not_run else "")
        + busy(run["environment"])
    )
