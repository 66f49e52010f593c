"""A benchmark's result in the terminal (rich) and as Markdown for a README."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from distill.benchmark.display import (
    SPEED_COLUMNS,
    Column,
    accuracy_caption,
    accuracy_columns,
    cascade_prices,
    columns,
    cost_columns,
    cost_lines,
    gate_caption,
    gate_columns,
    headline,
    leakage_caption,
    number,
    score_caption,
    score_columns,
    share,
    speed_captions,
    usd,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from distill.types import BenchResult, BenchRow, GateVerdict

__all__ = ["markdown_table", "print_result"]

_PLAIN_WIDTH = 120
_NAMED_PAIRS = 3
_STYLES = {
    "kept": "bold green",
    "broken": "bold red",
    "not judged": "bold yellow",
    "shown": "green",
    "refuted": "red",
}


def print_result(result: BenchResult, console: Console | None = None) -> None:
    """Prints the tables, the gates and the verdict; to stdout unless given a console."""
    from rich.console import Console

    if console is None:
        width = None if sys.stdout.isatty() else max(_PLAIN_WIDTH, shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns)
        console = Console(width=width)
    for part in _renderables(result):
        console.print(part)


def _renderables(result: BenchResult) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    for wanted, captions in _tables(result):
        if shown := columns(wanted, result.rows):
            parts.append(_table(shown, result.rows))
            parts += [Text(line, style="bold yellow" if line.startswith("WARNING") else "dim") for line in captions]
    parts += [Text(f"  {line}", style="dim") for line in _near_pairs(result)]
    if any(result.cascades.values()):
        parts += [_cascade_table(result), Text(_cascade_caption(result), style="dim")]
    if result.gates:
        parts += [_gate_table(result.gates), Text(gate_caption(result), style="dim")]
    return [*parts, Text(headline(result), style="bold")]


def _tables(result: BenchResult) -> list[tuple[tuple[Column, ...], list[str]]]:
    """Columns and captions of each table of rows, in order."""
    tables = [
        (accuracy_columns(result), [accuracy_caption(result)]),
        (score_columns(result), [score_caption(result)]),
        (SPEED_COLUMNS, speed_captions(result)),
        (cost_columns(result), [*cost_lines(result), leakage_caption(result)]),
    ]
    return [(wanted, [line for line in captions if line]) for wanted, captions in tables]


def _near_pairs(result: BenchResult) -> list[str]:
    """The gold queries that are most like a training query. For the terminal alone: they are text of queries."""
    pairs = result.leakage.pairs[:_NAMED_PAIRS] if result.leakage else ()
    return [f"{pair.similarity:.2f}  {pair.gold!r} is like {pair.training!r}" for pair in pairs if pair.gold]


def _cascade_caption(result: BenchResult) -> str:
    prices = " and ".join(cascade_prices(result))
    cost = f" {prices}: what asking costs for 1,000 queries, the student's machine apart." if prices else ""
    return (
        "A cascade asks the teacher where the student's policy declines (policy: Cascade(router, fallback)), or in place of that where its "
        "confidence is under a number (Cascade(router, fallback, ask_when=(), ask_below=...)). "
        f"drop: the teacher's accuracy_policy minus the cascade's, on what the teacher answered, in points.{cost} "
        "A number picked for looking best here looks better than it is."
    )


def _cascade_table(result: BenchResult) -> RenderableType:
    """Accuracy, latency and price over the share that is asked."""
    table = _empty_table()
    table.add_column("cascade", no_wrap=True)
    prices = cascade_prices(result)
    for title in ("ask_below", "asked", "accuracy_policy", "drop", "p95 ms", *prices):
        table.add_column(title, justify="right")
    for row, points in result.cascades.items():
        for point in points:
            low, high = (100 * bound for bound in point["drop_ci95"])
            cells = [
                point["rule"] if point["rule"] == "policy" else f"{point['ask_below']:.9g}",
                f"{100 * point['share_asked']:.1f} %",
                share(point["accuracy"], point["accuracy_ci95"]),
                f"{100 * point['drop']:+.1f} [{low:+.1f}, {high:+.1f}]",
                number(point["p95_ms"]),
                *(usd(price(point)) for price in prices.values()),
            ]
            table.add_row(row, *cells)
    return table


def _table(shown: list[Column], rows: tuple[BenchRow, ...]) -> RenderableType:
    table = _empty_table()
    table.add_column("", no_wrap=True, style="bold")
    for column in shown:
        table.add_column(column.title, justify="right")
    for row in rows:
        table.add_row(row.name, *(column.cell(row) for column in shown))
    return table


def _gate_table(gates: tuple[GateVerdict, ...]) -> RenderableType:
    from rich.text import Text

    table, shown = _empty_table(), gate_columns(gates)
    for column in shown:
        table.add_column(column.title)
    for gate in gates:
        cells = [column.cell(gate) for column in shown]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    return table


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def markdown_table(result: BenchResult) -> str:
    """The same as Markdown, without the text of queries: a table each, what they were measured on, and the gates."""
    blocks = []
    for wanted, captions in _tables(result):
        if shown := columns(wanted, result.rows):
            cells = [[row.name, *(column.cell(row) for column in shown)] for row in result.rows]
            blocks.append(_markdown(["", *(column.title for column in shown)], cells))
            blocks += captions
    if result.gates:
        shown_gates = gate_columns(result.gates)
        cells = [[column.cell(gate) for column in shown_gates] for gate in result.gates]
        blocks += [_markdown([column.title for column in shown_gates], cells), gate_caption(result)]
    return "\n\n".join([*filter(None, blocks), headline(result)]) + "\n"


def _markdown(titles: list[str], cells: list[list[str]]) -> str:
    """A table whose first column is to the left and whose others are to the right."""
    rule = "|---|" + "---:|" * (len(titles) - 1)
    return "\n".join([f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(line)} |" for line in cells)])
