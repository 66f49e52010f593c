"""The report's pictures: what of a benchmark's result is drawn, and how it is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.benchmark.display import milliseconds, number, share, usd
from distill.benchmark.plots import Axis, Bar, Curve, Mark, chart, decades, plane, steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from distill.types import BenchResult, BenchRow, Interval

__all__ = ["Picture", "overview", "trade_offs"]

_TEACHER = "teacher"
_STUDENTS = ("encoder", "static")
_CONSTANT = "majority"  # says the same of every query: nothing to be sure of


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with its title and a caption.

    Attributes:
        title: What it shows.
        drawing: An ``svg`` element; its texts are escaped.
        caption: How it is to be read.
    """

    title: str
    drawing: str
    caption: str


def overview(result: BenchResult) -> list[Picture]:
    """Accuracy, latency and cost of all rows, to stand side by side."""
    found = (_accuracy(result.rows), _latency(result.rows), _cost(result))
    return [picture for picture in found if picture is not None]


def trade_offs(result: BenchResult) -> list[Picture]:
    """What is given for what: cost and accuracy, risk and coverage, asking and accuracy, score and accuracy."""
    found = (_cost_accuracy(result), _risk_coverage(result), _cascade(result), _reliability(result))
    return [picture for picture in found if picture is not None]


def _judged(rows: Sequence[BenchRow]) -> tuple[str, list[tuple[BenchRow, float, Interval | None]]]:
    """What the rows are compared by, and each that has it: against gold where there is gold, else against the teacher."""
    by_gold = [(row, row.accuracy_policy, row.accuracy_policy_ci95) for row in rows if row.accuracy_policy is not None]
    if by_gold:
        return "accuracy_policy", by_gold
    return "fidelity", [(row, row.fidelity, row.fidelity_ci95) for row in rows if row.fidelity is not None]


def _bounds(found: Iterable[tuple[BenchRow, float, Interval | None]]) -> list[float]:
    return [bound for _, value, interval in found for bound in (value, *(interval or ()))]


def _accuracy(rows: Sequence[BenchRow]) -> Picture | None:
    what, found = _judged(rows)
    if not found:
        return None
    bars = [Bar(row.name, share(value, interval), value, interval) for row, value, interval in found]
    drawing = chart(f"Accuracy ({what})", bars, steps(what, _bounds(found), low=0, high=1))
    return Picture("Accuracy", drawing, f"{what}; the line is the 95 % interval. The axis need not start at 0.")


def _latency(rows: Sequence[BenchRow]) -> Picture | None:
    timed = [(row, row.p50_ms, row.p99_ms or row.p50_ms) for row in rows if row.p50_ms]
    if not timed:
        return None
    bars = [Bar(row.name, f"{milliseconds(p50)}, p99 {milliseconds(p99)}", p50, (p50, p99)) for row, p50, p99 in timed]
    axis = decades("ms", [value for _, p50, p99 in timed for value in (p50, p99)])
    return Picture(
        "Latency", chart("Latency", bars, axis), "Milliseconds a query: p50, the line reaches to p99. Logarithmic."
    )


def _prices(result: BenchResult) -> list[tuple[BenchRow, str, float | None]]:
    """Each row, a name, and dollars for 1,000 queries; the teacher a second time at the price of another model."""
    found = []
    for row in result.rows:
        found.append((row, row.name, row.usd_per_1k))
        if row.name == _TEACHER and (as_if := result.cost.get("priced_as")):
            found.append((row, f"{row.name} as {as_if['model']}", as_if["usd_per_1k"]))
    return found


def _cost(result: BenchResult) -> Picture | None:
    prices = _prices(result)
    known = [price for _, _, price in prices if price is not None]
    axis = decades("USD", known, prefix="$") if any(price > 0 for price in known) else None
    bars = [Bar(name, usd(price), None if axis is None else price) for _, name, price in prices]
    if not bars:
        return None
    caption = "USD per 1,000 queries. Logarithmic." if axis else "USD per 1,000 queries: no price is known."
    return Picture("Cost", chart("Cost in USD per 1,000 queries", bars, axis), caption)


def _cost_accuracy(result: BenchResult) -> Picture | None:
    what, found = _judged(result.rows)
    accuracies = {row.name: (value, interval) for row, value, interval in found}
    prices = [(row, name, price) for row, name, price in _prices(result) if row.name in accuracies]
    known = [price for _, _, price in prices if price is not None]
    if not any(price > 0 for price in known):
        return None
    title = "Cost and accuracy"
    x = decades("USD per 1,000 queries", known, prefix="$", unknown=len(known) < len(prices))
    marks = [
        Mark(name, price, *accuracies[row.name], text=f"{name}: {usd(price)}, {share(*accuracies[row.name])}")
        for row, name, price in prices
    ]
    drawing = plane(title, x, steps(what, _bounds(found), low=0, high=1), marks=marks)
    caption = "Up is better, left is cheaper; the lines are 95 % intervals."
    return Picture(title, drawing, f"{caption} Prices that are not known stand apart." if x.unknown else caption)


def _risk_coverage(result: BenchResult) -> Picture | None:
    found = [curve for curve in result.risk_coverage if curve.coverage and curve.row != _CONSTANT]
    if not found:
        return None
    title = "Risk and coverage"
    curves = [Curve(curve.row, tuple(zip(curve.coverage, curve.risk, strict=True))) for curve in found]
    marks = [
        Mark(
            curve.row,
            curve.policy_coverage,
            curve.policy_risk,
            text=f"{curve.row} at its policy: {share(curve.policy_risk)} wrong of {share(curve.policy_coverage)} accepted",
        )
        for curve in found
        if curve.policy_risk is not None
    ]
    heights = [y for curve in curves for _, y in curve.points] + [mark.y for mark in marks]
    x, y = _shares("share answered, surest first"), steps("share of these wrong", [0.0, *heights], low=0, high=1)
    return Picture(
        title,
        plane(title, x, y, curves=curves, marks=marks),
        "Share of wrong answers among the surest; lower is better. The marks stand at the policy's own thresholds.",
    )


def _cascade(result: BenchResult) -> Picture | None:
    if not any(result.cascades.values()):
        return None
    title = "Cascade: student first, teacher where it is not sure"
    curves, marks, heights = [], [], []
    for row, points in result.cascades.items():
        sure = sorted(
            ((point["share_asked"], point["accuracy"]) for point in points if point["rule"] != "policy"),
            key=lambda place: place[0],
        )
        curves += [Curve(row, sure)] if sure else []
        marks += [
            Mark(row, point["share_asked"], point["accuracy"], point["accuracy_ci95"], _asked(row, point))
            for point in points
            if point["rule"] == "policy"
        ]
        heights += [height for _, height in sure]
    heights += [bound for mark in marks for bound in mark.y_range or (mark.y,)]
    for row, height in _limits(result):
        curves.append(Curve(row, ((0.0, height), (1.0, height)), dotted=True))
        heights.append(height)
    x, y = _shares("share of queries that the teacher is asked"), steps("accuracy_policy", heights, low=0, high=1)
    return Picture(
        title,
        plane(title, x, y, curves=curves, marks=marks),
        "The lines ask by confidence. The marks ask where the policy declines, with their 95 % interval. Dotted: the teacher "
        "alone, and under it, if it answered every query, each student's margin. A point picked for looking best here looks better than it is.",
    )


def _asked(row: str, point: Mapping[str, Any]) -> str:
    return f"{row}, asking what the policy declines: {share(point['accuracy'])} at {share(point['share_asked'])} asked"


def _limits(result: BenchResult) -> list[tuple[str, float]]:
    """The teacher's accuracy, and for each student the least that its gate allows."""
    teacher = next((row for row in result.rows if row.name == _TEACHER), None)
    if teacher is None or teacher.accuracy_policy is None:
        return []
    height = teacher.accuracy_policy
    if teacher.n_failed:  # the gates go by what it answered, where it is better
        return [(_TEACHER, height)]
    margins = [(gate.row, height - gate.limit) for gate in result.gates if gate.gate == "accuracy_drop"]
    return [(_TEACHER, height), *((row, least) for row, least in margins if row in result.cascades)]


def _reliability(result: BenchResult) -> Picture | None:
    rows = [row for row in dict.fromkeys(one.row for one in result.reliability) if row in _STUDENTS]
    if not rows:
        return None
    title = "Reliability of the scores"
    found = [one for one in result.reliability if one.row in rows]
    marks = [
        Mark(
            one.row,
            one.score,
            one.accuracy,
            one.accuracy_ci95,
            f"{one.row}: {one.n} answers, score {number(one.score)}",
        )
        for one in found
    ]
    diagonal = Curve("", ((0.0, 0.0), (1.0, 1.0)), dotted=True)
    y = steps("share of these right", [0.0, 1.0])
    return Picture(
        title,
        plane(title, _shares("mean score of a bin"), y, curves=[diagonal], marks=marks),
        "Equally full bins of scores with 95 % intervals. On the diagonal a score of 0.8 is right in 80 of 100 cases.",
    )


def _shares(title: str) -> Axis:
    return steps(title, [0.0, 1.0])
