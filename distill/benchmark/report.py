"""report.html: one self-contained file, written from a benchmark's result alone.

Opens offline, in light and dark, on paper and on a phone. Queries and labels are user text: everything is escaped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

from distill.benchmark.display import (
    ACCURACY_COLUMNS,
    SPEED_COLUMNS,
    accuracy_caption,
    columns,
    cost_lines,
    gate_word,
    headline,
    milliseconds,
    share,
    speed_captions,
    usd,
)
from distill.data import atomic_write
from distill.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.types import BenchResult, BenchRow

__all__ = ["report_html", "write_report"]

_STUDENTS = ("encoder", "static")
_SHOWN_DISAGREEMENTS = 50


@dataclass(frozen=True, slots=True)
class _Bar:
    """A row of a chart: a mark within a range, all in per cent of the chart's width."""

    name: str
    low: float
    mark: float
    high: float
    text: str


def write_report(result: BenchResult, path: Path, *, with_text: bool = True) -> None:
    """Writes the report.

    Args:
        result: What ``run_bench`` found.
        path: The file, such as models/NAME/report.html.
        with_text: False leaves out the text of queries.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    page = report_html(result, with_text=with_text)
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")


def report_html(result: BenchResult, *, with_text: bool = True) -> str:
    """The report as one HTML page. Arguments and errors as ``write_report``."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise missing_extra("jinja2") from error
    templates = Environment(
        loader=PackageLoader("distill.benchmark"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.j2").render(
        result=result,
        headline=headline(result),
        all_kept=bool(result.gates) and all(gate.passed for gate in result.gates),
        cards=[_card(row) for row in result.rows if row.name in ("teacher", *_STUDENTS)],
        accuracy_columns=columns(ACCURACY_COLUMNS, result.rows),
        accuracy_caption=accuracy_caption(result),
        accuracy_bars=_accuracy_bars(result.rows),
        speed_columns=columns(SPEED_COLUMNS, result.rows),
        speed_captions=speed_captions(result),
        latency_bars=_latency_bars(result.rows),
        cost_lines=cost_lines(result),
        gates=[(gate_word(gate), gate) for gate in result.gates],
        confusions=_confusions(result),
        disagreements=_disagreements(result.rows) if with_text else [],
        provenance=_flat({"environment": result.environment, **result.provenance}),
    )


def _card(row: BenchRow) -> dict[str, str]:
    value, interval, what = row.accuracy_policy, row.accuracy_policy_ci95, "accuracy after the policy"
    if value is None:
        value, interval, what = row.fidelity, row.fidelity_ci95, "agreement with the teacher"
    return {
        "name": row.name,
        "figure": "-" if value is None else f"{100 * value:.1f} %",
        "what": what,
        "interval": "" if interval is None else f"95 %: {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %",
        "p50": milliseconds(row.p50_ms),
        "usd_per_1k": usd(row.usd_per_1k),
    }


def _accuracy_bars(rows: Sequence[BenchRow]) -> list[_Bar]:
    """Accuracy after the policy with its interval, from 0 to 1."""
    return [
        _Bar(
            name=row.name,
            low=100 * row.accuracy_policy_ci95[0],
            mark=100 * row.accuracy_policy,
            high=100 * row.accuracy_policy_ci95[1],
            text=share(row.accuracy_policy, row.accuracy_policy_ci95),
        )
        for row in rows
        if row.accuracy_policy is not None and row.accuracy_policy_ci95 is not None
    ]


def _latency_bars(rows: Sequence[BenchRow]) -> list[_Bar]:
    """From p50 to p99 with p95 marked, on a logarithmic scale over whole decades."""
    timed = [(row.name, row.p50_ms, row.p95_ms, row.p99_ms) for row in rows if row.p50_ms and row.p95_ms and row.p99_ms]
    if not timed:
        return []
    least = min(log10(p50) for _, p50, _, _ in timed) // 1
    decades = max(log10(p99) for _, _, _, p99 in timed) // 1 + 1 - least

    def place(latency_ms: float) -> float:
        return 100 * (log10(latency_ms) - least) / decades

    return [
        _Bar(name, place(p50), place(p95), place(p99), f"{milliseconds(p50)} to {milliseconds(p99)}")
        for name, p50, p95, p99 in timed
    ]


def _confusions(result: BenchResult) -> list[tuple[str, list[Any]]]:
    names = dict.fromkeys(confusion["row"] for confusion in result.confusions)
    return [(name, [one for one in result.confusions if one["row"] == name]) for name in names]


def _disagreements(rows: Sequence[BenchRow]) -> list[tuple[str, list[Any]]]:
    return [(row.name, list(found)[:_SHOWN_DISAGREEMENTS]) for row in rows if (found := row.notes.get("disagreements"))]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of dotted names."""
    if isinstance(value, dict):
        return [line for key, entry in value.items() for line in _flat(entry, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(entry) for entry in value))]
    return [(name, value if isinstance(value, str) else json.dumps(value, default=str))]
