"""The generated parts of the pages of the demos of `weights` and `multi`; scripts/readme.py writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sampled_weights
import search_fusion
import second_gold
import weak_labels
from provenance import older_students

from distill.benchmark.captions import recorded_days
from distill.benchmark.display import number, usd
from distill.benchmark.results import read_result
from distill.benchmark.table import markdown_table
from distill.data import read_jsonl

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.types import BenchResult

DATA = Path(__file__).resolve().parent.parent / "data"
VIDEO, REQUESTS = DATA / "video-search", DATA / "bank-requests"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def results(folder: Path) -> Callable[[], str]:
    """The tables of a demo, from its committed results."""

    def part() -> str:
        result = read_result(folder / "results.json")
        older = older_students(result.environment).strip()
        return markdown_table(result) + (f"\n{older}\n" if older else "")

    return part


def _recording(folder: Path) -> Callable[[], str]:
    """Which model answered, and how often, from the recording itself."""

    def part() -> str:
        ledger = [line for _, line in read_jsonl(folder / "ledger.jsonl")]
        days = sorted({line["asked_at"][:10] for line in ledger})
        texts = {line["text"] for line in ledger}
        teachers = ", ".join(f"`{name}`" for name in sorted({line["teacher"] for line in ledger}))
        failed = sum("error" in line for line in ledger)
        lines = []
        if (folder / "synth.jsonl").exists():
            queries = [line for _, line in read_jsonl(folder / "queries.jsonl")]
            requests = [line for _, line in read_jsonl(folder / "synth.jsonl")]
            writers = ", ".join(f"`{name}`" for name in sorted({line["teacher"] for line in requests}))
            lines.append(f"{writers} wrote {len(queries):,} distinct queries in {len(requests):,} requests. ")
        lines.append(
            f"{teachers} gave {len(ledger):,} answers to {len(texts):,} texts, gold included, {failed:,} of them failed "
            f"({' to '.join(dict.fromkeys([days[0], days[-1]]))}).\n"
        )
        return "".join(lines)

    return part


def published() -> str:
    """The published case beside ours: latency and cost."""
    theirs, ours = _json(VIDEO / "published.json"), read_result(VIDEO / "results.json")
    rows = {row.name: row for row in ours.rows}
    teacher = rows["teacher"]
    lines = [
        "| | teacher, ms | student, ms | the teacher takes ... times as long | cost of a query against the teacher's |",
        "|---|---:|---:|---:|---:|",
        (
            f"| published | {number(theirs['teacher_ms'])} | {number(theirs['student_ms'])} | "
            f"{theirs['teacher_ms'] / theirs['student_ms']:.1f} | {theirs['cost_saved']:.0%} less |"
        ),
    ]
    for name in ("encoder", "static"):
        row = rows[name]
        lines.append(
            f"| here, `{name}` | {number(teacher.p50_ms)} | {number(row.p50_ms)} | {_times(teacher.p50_ms, row.p50_ms)} | {_cost(ours, name)} |"
        )
    machine = ours.environment
    return "\n".join(
        [
            *lines,
            "",
            (
                f"Published: {theirs['what']} ({theirs['source']}); the machines are not named, nor whether it is a mean or a median. "
                f"Here: medians on {machine['processor']}, {machine['cores']} cores, {machine['measured_at'][:10]}; the students on one thread, the teacher "
                f"`{teacher.notes['model']}` as recorded{recorded_days(teacher)}, on a processor that the record does not name, "
                f"so that the ratios are rough.{_assumptions(ours)}\n"
            ),
        ]
    )


def _times(slow_ms: float | None, fast_ms: float | None) -> str:
    return "-" if not slow_ms or not fast_ms else f"{float(f'{slow_ms / fast_ms:.2g}'):,.0f}"


def _cost(result: BenchResult, student: str) -> str:
    row = next(row for row in result.rows if row.name == student)
    priced = result.cost.get("priced_as")
    if row.usd_per_1k is None or not priced:
        return "unknown"
    return f"{1 - row.usd_per_1k / priced['usd_per_1k']:.3%} less"


def _assumptions(result: BenchResult) -> str:
    priced, hourly = result.cost.get("priced_as"), result.cost.get("machine_usd_per_hour")
    if not priced or hourly is None:
        return ""
    return (
        f" Cost: the teacher's tokens at the price of {priced['model']} ({priced['source']}, read {priced['date']}), {usd(priced['usd_per_1k'])} per 1,000 "
        f"queries; the students on a machine of {usd(hourly)} an hour that they keep busy, which nobody's queries do: an idle machine is paid for too."
    )


def people() -> str:
    """Teacher and students against people's words on two channels."""
    found = _json(VIDEO / "second_gold.json")
    return second_gold.markdown(found) + f"{_other_students(found)}\n"


def fusion() -> str:
    """What routed weights are worth to a search."""
    found = _json(VIDEO / "fusion.json")
    return search_fusion.markdown(found) + _other_students(found)


def samples() -> str:
    """The log-probabilities of one answer beside many samples."""
    return sampled_weights.markdown(_json(VIDEO / "samples.json"))


def other_scores() -> str:
    """The same by one kind of score alone: what decides whether routing helps."""
    lines = ["| NDCG@10 | BM25 and cosine | BM25 alone | cosine alone |", "| --- | ---: | ---: | ---: |"]
    found = [_json(VIDEO / name) for name in ("fusion.json", "fusion-bm25.json", "fusion-cosine.json")]
    rows = [{row["name"]: row["ndcg_at_10"] for row in each["rows"]} for each in found]
    lines += [f"| {name} | {' | '.join(f'{each[name]:.3f}' for each in rows)} |" for name in rows[0]]
    differences = [{(row["name"], row["minus"]): row for row in each["differences"]} for each in found]
    for first, second in differences[0]:
        if "teacher" in {first, second}:
            cells = (_signed(each[first, second]) for each in differences)
            lines.append(f"| {first} - {second} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""]) + "".join(dict.fromkeys(map(_other_students, found)))


def _other_students(found: dict[str, Any]) -> str:
    """A paragraph to stand behind a table whose students are not those of the demo's results; otherwise empty."""
    measured = set(read_result(VIDEO / "results.json").provenance["bundles"].values())
    if set(found["routers"].values()) == measured:
        return ""
    return "\n**The students here are not those of the results above: trained before or after them.**\n"


def _signed(row: dict[str, Any]) -> str:
    low, high = row["ndcg_at_10_ci95"]
    return f"{row['ndcg_at_10']:+.3f} [{low:+.3f}, {high:+.3f}]"


def audited() -> str:
    """The list of doubtful labels beside people's labels."""
    return weak_labels.markdown(_json(REQUESTS / "audit.json"))


PAGES = {
    VIDEO / "README.md": {
        "recording": _recording(VIDEO),
        "results": results(VIDEO),
        "published": published,
        "people": people,
        "fusion": fusion,
        "scores": other_scores,
        "samples": samples,
    },
    REQUESTS / "README.md": {"recording": _recording(REQUESTS), "results": results(REQUESTS), "audit": audited},
}
