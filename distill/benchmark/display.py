"""How a result reads: columns and sentences, defined once for the terminal, the README and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.types import BenchResult, BenchRow, GateVerdict, Interval

__all__ = [
    "ACCURACY_COLUMNS",
    "MISSING",
    "SPEED_COLUMNS",
    "Column",
    "accuracy_caption",
    "columns",
    "cost_lines",
    "gate_word",
    "headline",
    "milliseconds",
    "number",
    "share",
    "speed_captions",
    "usd",
]

MISSING = "-"
_TEACHER = "teacher"
_LEAST_USD = 0.0001


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title and what stands in a row's cell, ``-`` for nothing."""

    title: str
    cell: Callable[[BenchRow], str]


def share(value: float | None, interval: Interval | None = None) -> str:
    """A share with its interval, such as ``0.913 [.884, .936]``."""
    if value is None:
        return MISSING
    if interval is None:
        return f"{value:.3f}"
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in interval)
    return f"{value:.3f} [{low}, {high}]"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits without an exponent, such as ``1,104`` or ``0.0452``."""
    if value is None:
        return MISSING
    if value == 0:
        return f"0{unit}"
    decimals = max(0, 2 - _exponent(value))
    return f"{value:,.{decimals}f}{unit}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".rsplit("e", 1)[1])


def milliseconds(value: float | None) -> str:
    """A latency, such as ``0.0452 ms``."""
    return number(value, " ms")


def usd(value: float | None) -> str:
    """Dollars; a price that is not known is ``unknown``, never 0."""
    if value is None:
        return "unknown"
    return f"${number(value)}" if value == 0 or value >= _LEAST_USD else f"<${_LEAST_USD:.4f}"


def _note(name: str, show: Callable[[Any], str]) -> Callable[[BenchRow], str]:
    return lambda row: show(row.notes.get(name))


ACCURACY_COLUMNS = (
    Column("accuracy", lambda row: share(row.accuracy, row.accuracy_ci95)),
    Column("accuracy_policy", lambda row: share(row.accuracy_policy, row.accuracy_policy_ci95)),
    Column("fidelity", lambda row: share(row.fidelity, row.fidelity_ci95)),
    Column("OOS AUROC", lambda row: share(row.oos_auroc)),
    Column("OOS recall", lambda row: share(row.oos_recall, row.oos_recall_ci95)),
    Column("KL", _note("kl", number)),
    Column("MAE", _note("mae", number)),
    Column("failed", lambda row: str(row.n_failed) if row.n_failed else MISSING),
)
SPEED_COLUMNS = (
    Column("p50 ms", lambda row: number(row.p50_ms)),
    Column("p95 ms", lambda row: number(row.p95_ms)),
    Column("p99 ms", lambda row: number(row.p99_ms)),
    Column("calls", lambda row: f"{row.latency_n:,}" if row.latency_n else MISSING),
    Column("queries/s", lambda row: f"{row.queries_per_s:,.0f}" if row.queries_per_s else MISSING),
    Column("size MB", lambda row: number(row.size_mb)),
    Column("cold start ms", lambda row: number(row.cold_start_ms)),
    Column("memory MB", lambda row: number(row.peak_rss_mb)),
    Column("USD per 1,000", lambda row: usd(row.usd_per_1k)),
)


def columns(wanted: tuple[Column, ...], rows: tuple[BenchRow, ...]) -> list[Column]:
    """The columns in which at least one row has something to show."""
    return [column for column in wanted if any(column.cell(row) != MISSING for row in rows)]


def accuracy_caption(result: BenchResult) -> str:
    """What the accuracy table was measured on."""
    if not result.n_gold:
        n = result.provenance.get("n_queries", 0)
        return f"No gold: only fidelity to the teacher is known, on {n:,} held-out queries. Brackets: 95 % intervals."
    scope = f" ({result.n_in_scope:,} in scope, {result.n_oos:,} out of scope)" if result.n_oos else ""
    policy = (
        "accuracy: in scope, no rejection. accuracy_policy: all queries, out-of-scope must be rejected. "
        if result.task is Task.SINGLE
        else ""
    )
    leak = result.provenance.get("n_gold_in_training") or 0
    warning = f" WARNING: {leak:,} gold queries are also training queries." if leak else ""
    return f"{result.n_gold:,} gold queries{scope}. {policy}Brackets: 95 % intervals.{warning}"


def speed_captions(result: BenchResult) -> list[str]:
    """On which machine the speed table was measured, and where the teacher's latency comes from."""
    machine = result.environment
    versions = machine.get("versions", {})
    parts = [
        str(machine.get("processor", "unknown processor")),
        f"{machine.get('cores', '?')} cores, one thread used",
        f"Python {machine.get('python', '?')}",
        *(f"{name} {versions[name]}" for name in ("onnxruntime", "tokenizers") if name in versions),
        str(machine.get("measured_at", ""))[:10],
    ]
    lines = [", ".join(filter(None, parts)) + "."]
    if machine.get("loaded"):
        busy = 100 * float(machine.get("busy_share", 1.0))
        lines.append(
            f"WARNING: the machine was busy with other work ({busy:.0f} %): the latencies measured here are too high."
        )
    if (teacher := _teacher(result)) is not None and teacher.latency_n:
        model = teacher.notes.get("model") or "the teacher"
        flight = teacher.notes.get("requests_in_flight")
        load = f"{flight} requests in flight" if flight else "other requests in flight"
        lines.append(f"Teacher: {model}, latency as recorded in the ledger, server included, with {load}.")
    return lines


def cost_lines(result: BenchResult) -> list[str]:
    """Whose price, from where, of which date; what the same tokens would have cost elsewhere; dollars a month."""
    cost = result.cost
    volume = cost.get("queries_per_month")
    lines = []
    if _teacher(result) is not None:
        price = cost.get("teacher_price")
        monthly = cost.get("usd_per_month", {}).get(_TEACHER)
        lines.append(
            f"Teacher: {usd(monthly)} for {volume:,} queries a month ({_source(price)})."
            if price
            else "Teacher: its own price is unknown."
        )
    if as_if := cost.get("priced_as"):
        lines.append(
            f"The teacher's tokens at the price of {as_if['model']} ({_source(as_if)}): {usd(as_if['usd_per_1k'])} per "
            f"1,000, {usd(as_if['usd_per_month'])} for {volume:,} queries a month; without the cached prefix's discount "
            f"{usd(as_if['usd_per_1k_uncached'])} per 1,000."
        )
    machine = cost.get("machine_usd_per_hour")
    lines.append(
        f"Students: a machine at {usd(machine)} an hour, kept busy."
        if machine is not None
        else "Students: unknown, as bench.machine_usd_per_hour is not given."
    )
    return lines


def _source(price: dict[str, Any]) -> str:
    return f"{price['source']}, {price['date']}"


def _teacher(result: BenchResult) -> BenchRow | None:
    return next((row for row in result.rows if row.name == _TEACHER), None)


def gate_word(gate: GateVerdict) -> str:
    """``kept``, ``broken`` or ``not judged``."""
    return {True: "kept", False: "broken", None: "not judged"}[gate.passed]


def headline(result: BenchResult) -> str:
    """The verdict in one line: which students keep their gates."""
    students = list(dict.fromkeys(gate.row for gate in result.gates))
    if not students:
        return "No gates are set: the figures stand without a verdict."
    sentences = []
    for student in students:
        gates = [gate for gate in result.gates if gate.row == student]
        broken = [gate.gate for gate in gates if gate.passed is False]
        unknown = [gate.gate for gate in gates if gate.passed is None]
        if broken:
            sentences.append(f"{student} breaks {' and '.join(broken)}")
        elif unknown:
            sentences.append(f"{student} cannot be judged on {' and '.join(unknown)}")
        else:
            sentences.append(f"{student} keeps every gate")
    return "; ".join(sentences) + "."
