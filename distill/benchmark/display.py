"""How a result reads: numbers and columns, defined once for the terminal, the README and the report. The sentences stand in ``captions``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distill.types import BenchResult, BenchRow, GateVerdict, Interval

__all__ = [
    "COST_COLUMNS",
    "GATE_COLUMNS",
    "MISSING",
    "NOT_SHOWN",
    "SPEED_COLUMNS",
    "TEACHER",
    "CascadeColumn",
    "Column",
    "GateColumn",
    "accuracy_columns",
    "accuracy_in_scope",
    "cascade_columns",
    "cascade_prices",
    "columns",
    "cost_columns",
    "gate_columns",
    "gate_word",
    "has_both_scopes",
    "milliseconds",
    "number",
    "score_columns",
    "share",
    "usd",
]

MISSING = "-"
TEACHER = "teacher"
"""Name of its row."""
NOT_SHOWN = "not shown"
"""A gate's verdict where the interval reaches past the limit."""
_LEAST_USD = 0.0001
_LEAST_P = 0.001


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


def number(value: float | None, unit: str = "", interval: Interval | None = None) -> str:
    """Three significant digits without an exponent, such as ``1,104`` or ``0.0452 [0.0440, 0.0471]``."""
    if interval is not None and value is not None:
        low, high = (number(bound) for bound in interval)
        return f"{number(value)} [{low}, {high}]{unit}"
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


def _note(name: str) -> Callable[[BenchRow], str]:
    return lambda row: number(row.notes.get(name), interval=row.notes.get(f"{name}_ci95"))


def _with_spread(percent: int) -> Callable[[BenchRow], str]:
    """A percentile with the least and the greatest that a round of calls gave."""
    return lambda row: number(getattr(row, f"p{percent}_ms"), interval=row.notes.get(f"p{percent}_ms_by_round"))


def _per_second(batch_size: int) -> Callable[[BenchRow], str]:
    def cell(row: BenchRow) -> str:
        rate = row.queries_per_s_by_batch.get(str(batch_size))
        return f"{rate:,.0f}" if rate else MISSING

    return cell


def _calibration(row: BenchRow) -> str:
    if row.ece is None or row.ece_noise_floor is None:
        return share(row.ece)
    return f"{row.ece:.3f} (chance {row.ece_noise_floor:.3f})"


_AGAINST_GOLD = {
    Task.SINGLE: (
        Column("accuracy", lambda row: share(row.accuracy, row.accuracy_ci95)),
        Column("accuracy_policy", lambda row: share(row.accuracy_policy, row.accuracy_policy_ci95)),
        Column("macro-F1", lambda row: share(row.macro_f1)),
        Column("micro-F1", lambda row: share(row.micro_f1)),
    ),
    Task.MULTI: (
        Column("exact set", lambda row: share(row.accuracy_policy, row.accuracy_policy_ci95)),
        Column("micro-F1", lambda row: share(row.micro_f1, row.micro_f1_ci95)),
        Column("macro-F1", lambda row: share(row.macro_f1, row.macro_f1_ci95)),
    ),
    Task.WEIGHTS: (
        Column("KL", _note("kl")),
        Column("MAE", _note("mae_policy")),
        Column("nearest", lambda row: share(row.accuracy_policy, row.accuracy_policy_ci95)),
    ),
}
_AGAINST_TEACHER = (
    Column("fidelity", lambda row: share(row.fidelity, row.fidelity_ci95)),
    Column("KL to teacher", lambda row: number(row.fidelity_kl)),
    Column("failed", lambda row: str(row.n_failed) if row.n_failed else MISSING),
)
_SCORE_COLUMNS = (
    Column("coverage", lambda row: share(row.coverage)),
    Column("OOS AUROC", lambda row: share(row.oos_auroc, row.oos_auroc_ci95)),
    Column("OOS recall", lambda row: share(row.oos_recall, row.oos_recall_ci95)),
    Column("AURC", lambda row: share(row.aurc, row.aurc_ci95)),
    Column("ECE", _calibration),
)
SPEED_COLUMNS = (
    Column("p50 ms", _with_spread(50)),
    Column("p95 ms", _with_spread(95)),
    Column("p99 ms", _with_spread(99)),
    Column("calls", lambda row: f"{row.latency_n:,}" if row.latency_n else MISSING),
)
COST_COLUMNS = (
    Column("queries/s: by 1", _per_second(1)),
    Column("by 32", _per_second(32)),
    Column("by 256", _per_second(256)),
    Column("size MB", lambda row: number(row.size_mb)),
    Column("cold start ms", lambda row: number(row.cold_start_ms, interval=row.notes.get("cold_start_ms_range"))),
    Column("memory MB", lambda row: number(row.peak_rss_mb)),
    Column("USD per 1,000", lambda row: usd(row.usd_per_1k)),
)


def accuracy_columns(result: BenchResult) -> tuple[Column, ...]:
    """What is measured against gold, which depends on the task, and against the teacher."""
    return (*_AGAINST_GOLD[result.task], *_AGAINST_TEACHER)


def accuracy_in_scope(row: BenchRow, result: BenchResult) -> float | None:
    """How often a query that has an intent gets it, after the policy (``single``): what is left of ``accuracy_policy`` without out-of-scope queries."""
    if row.accuracy_policy is None or row.oos_recall is None:
        return None
    n_right = round(row.accuracy_policy * result.n_gold) - round(row.oos_recall * result.n_oos)
    return n_right / result.n_in_scope


def score_columns(result: BenchResult) -> tuple[Column, ...]:
    """What scores and policy are worth; ``weights`` are no scores, and none is declined."""
    if result.task is Task.WEIGHTS:
        return ()
    in_scope = Column("in scope", lambda row: share(accuracy_in_scope(row, result)))
    return (in_scope, *_SCORE_COLUMNS) if has_both_scopes(result) else _SCORE_COLUMNS


def has_both_scopes(result: BenchResult) -> bool:
    """Whether there are queries with an intent and queries without one."""
    return result.task is Task.SINGLE and result.n_oos > 0 and result.n_in_scope > 0


def cost_columns(result: BenchResult) -> tuple[Column, ...]:
    """``COST_COLUMNS``, and what the teacher's tokens would cost as another model where one was named."""
    as_if = result.cost.get("priced_as")
    if not as_if:
        return COST_COLUMNS
    price = f"{usd(as_if['usd_per_1k'])}, uncached {usd(as_if['usd_per_1k_uncached'])}"
    return (*COST_COLUMNS, Column(f"as {as_if['model']}", lambda row: price if row.name == TEACHER else MISSING))


def cascade_prices(result: BenchResult) -> dict[str, Callable[[Mapping[str, Any]], float | None]]:
    """Columns of what a cascade's asking costs: title, and US dollars for a thousand queries at a point of ``result.cascades``.

    The teacher's own price where it is known, and another model's where one was named.
    """
    prices: dict[str, Callable[[Mapping[str, Any]], float | None]] = {}
    if any(point["asking_usd_per_1k"] for points in result.cascades.values() for point in points):
        prices["USD per 1,000"] = lambda point: point["asking_usd_per_1k"]
    if as_if := result.cost.get("priced_as"):
        prices[f"as {as_if['model']}"] = lambda point: point["share_asked"] * as_if["usd_per_1k"]
    return prices


@dataclass(frozen=True, slots=True)
class CascadeColumn:
    """A column of the cascades' table: its title, what stands in a point's cell, and the number that it is sorted by."""

    title: str
    cell: Callable[[Mapping[str, Any]], str]
    value: Callable[[Mapping[str, Any]], float | None] = lambda _: None


def _rule(point: Mapping[str, Any]) -> str:
    return "what the policy declines" if point["rule"] == "policy" else f"under {point['ask_below']:.9g}"


def _drop(point: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in point["drop_ci95"])
    return f"{100 * point['drop']:+.1f} [{low:+.1f}, {high:+.1f}]"


def cascade_columns(result: BenchResult) -> list[CascadeColumn]:
    """What is known of a point of ``result.cascades``: accuracy, latency and price over the share that is asked."""
    return [
        CascadeColumn("asks", _rule),
        CascadeColumn("asked", lambda point: f"{100 * point['share_asked']:.1f} %", lambda point: point["share_asked"]),
        CascadeColumn(
            "accuracy_policy",
            lambda point: share(point["accuracy"], point["accuracy_ci95"]),
            lambda point: point["accuracy"],
        ),
        CascadeColumn("drop in points", _drop, lambda point: point["drop"]),
        CascadeColumn("p95 ms", lambda point: number(point["p95_ms"]), lambda point: point["p95_ms"]),
        *(
            CascadeColumn(title, lambda point, price=price: usd(price(point)), price)  # type: ignore[misc]
            for title, price in cascade_prices(result).items()
        ),
    ]


def gate_word(gate: GateVerdict) -> str:
    """``kept``, ``broken`` or ``not judged``."""
    return {True: "kept", False: "broken", None: "not judged"}[gate.passed]


@dataclass(frozen=True, slots=True)
class GateColumn:
    """A column of the gates' table: its title and what stands in a gate's cell."""

    title: str
    cell: Callable[[GateVerdict], str]


def _in_gates_unit(gate: GateVerdict, value: float | None) -> str:
    if value is None:
        return MISSING
    if gate.gate == "p95_ms":
        return number(value, " ms")
    points = f"{100 * value:.3g}"
    return f"{points} point" if points == "1" else f"{points} points"


def _gate_interval(gate: GateVerdict) -> str:
    return MISSING if gate.ci95 is None else "{:+.1f} to {:+.1f}".format(*(100 * bound for bound in gate.ci95))


def _p_value(gate: GateVerdict) -> str:
    if gate.p_value is None:
        return MISSING
    return f"<{_LEAST_P}" if gate.p_value < _LEAST_P else f"{gate.p_value:.3f}"


def _more_gold(gate: GateVerdict) -> str:
    if gate.verdict != NOT_SHOWN:
        return MISSING
    if gate.more_gold is None:
        return "millions" if gate.more_would_show else "no number would"
    return f"about {float(f'{gate.more_gold:.2g}'):,.0f}"


GATE_COLUMNS = (
    GateColumn("gate", lambda gate: f"{gate.row} {gate.gate}"),
    GateColumn("figure", lambda gate: _in_gates_unit(gate, gate.figure)),
    GateColumn("limit", lambda gate: _in_gates_unit(gate, gate.limit)),
    GateColumn("", gate_word),
    GateColumn("95 % interval", _gate_interval),
    GateColumn("McNemar p", _p_value),
    GateColumn("at 95 %", lambda gate: gate.verdict or MISSING),
    GateColumn("more gold", _more_gold),
)


def gate_columns(gates: tuple[GateVerdict, ...]) -> list[GateColumn]:
    """The columns in which at least one gate has something to show."""
    return [column for column in GATE_COLUMNS if any(column.cell(gate) != MISSING for gate in gates)]


def columns(wanted: tuple[Column, ...], rows: tuple[BenchRow, ...]) -> list[Column]:
    """The columns in which at least one row has something to show."""
    return [column for column in wanted if any(column.cell(row) != MISSING for row in rows)]
