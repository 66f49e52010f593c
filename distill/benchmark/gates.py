"""Gates: the limits of router.yaml, each with a verdict and a line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.benchmark.statistics import NonInferiority, judge_drop, queries_needed
from distill.types import GateVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distill.benchmark.statistics import Comparison
    from distill.types import BenchRow

__all__ = ["judge_gates", "what_would_show"]

_ONE_POINT = 0.01
_ROUNDING = 1e-9


def judge_gates(
    limits: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[BenchRow],
    comparisons: Mapping[str, Comparison],
) -> tuple[GateVerdict, ...]:
    """One verdict for each limit.

    A gate is kept when the figure itself is within its limit; for ``accuracy_drop`` the verdict also says whether that
    is shown, not shown or refuted at 95 %, and how many more gold queries would show it.

    Args:
        limits: Limits by row and gate; None is no limit.
        rows: The measured rows; a limit for another row has no verdict.
        comparisons: Rows against the teacher.
    """
    verdicts = []
    for row in rows:
        for gate, limit in limits.get(row.name, {}).items():
            if limit is not None:
                verdicts.append(_JUDGES[gate](row, limit, comparisons.get(row.name)))
    return tuple(verdicts)


def _judge_accuracy_drop(row: BenchRow, limit: float, comparison: Comparison | None) -> GateVerdict:
    if comparison is None:
        detail = "cannot be judged: it takes gold queries and the teacher's answers to them"
        return GateVerdict(row.name, "accuracy_drop", limit, None, None, detail)
    drop, (low, high) = comparison.drop, comparison.drop_ci95
    place = "below" if drop > 0 else "above"
    found = "level with the teacher" if drop == 0 else f"{100 * abs(drop):.1f} points {place} the teacher"
    verdict = judge_drop(comparison, limit)
    needed = queries_needed(comparison, limit) if verdict is NonInferiority.NOT_SHOWN else None
    more_gold = None if needed is None else max(1, needed - comparison.n)
    left_out = f" ({comparison.n_left_out} more got no answer of the teacher)" if comparison.n_left_out else ""
    detail = (
        f"{found} on {comparison.n} gold queries{left_out}, limit {100 * limit:g} (drop {100 * low:+.1f} to {100 * high:+.1f} at 95 %); "
        f"at most {100 * limit:g} point{'s' if limit != _ONE_POINT else ''} worse: {verdict.value} at 95 %"
    )
    if verdict is NonInferiority.NOT_SHOWN:
        detail += f"; {what_would_show(more_gold, possible=drop < limit)}"
    return GateVerdict(
        row=row.name,
        gate="accuracy_drop",
        limit=limit,
        figure=drop,
        passed=drop <= limit + _ROUNDING,
        detail=detail,
        ci95=comparison.drop_ci95,
        p_value=comparison.p_value,
        verdict=verdict.value,
        more_gold=more_gold,
    )


def what_would_show(more_gold: int | None, *, possible: bool) -> str:
    """How many more gold queries would show that a gate is kept, how surely, and under which assumption.

    Args:
        more_gold: As ``GateVerdict`` has it.
        possible: Whether any number would.
    """
    would = "would show it in four cases of five if the two go on differing as they do"
    if more_gold is not None:
        return f"about {float(f'{more_gold:.2g}'):,.0f} more gold queries {would}"
    if possible:
        return f"only millions of gold queries {would}"
    return "no number of gold queries would show it if the two go on differing as they do"


def _judge_p95_ms(row: BenchRow, limit: float, _comparison: Comparison | None) -> GateVerdict:
    if row.p95_ms is None:
        return GateVerdict(row.name, "p95_ms", limit, None, None, "cannot be judged: no latency was measured")
    detail = f"p95 {row.p95_ms:.3g} ms over {row.latency_n:,} calls on one thread, limit {limit:g} ms"
    return GateVerdict(row.name, "p95_ms", limit, row.p95_ms, row.p95_ms <= limit, detail)


_JUDGES: dict[str, Callable[[BenchRow, float, Comparison | None], GateVerdict]] = {
    "accuracy_drop": _judge_accuracy_drop,
    "p95_ms": _judge_p95_ms,
}
