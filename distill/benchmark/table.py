"""A benchmark's result in the terminal (rich) and as Markdown for a README."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from distill.benchmark.captions import (
    accuracy_caption,
    cost_lines,
    gate_caption,
    gold_captions,
    headline,
    leakage_caption,
    score_caption,
    speed_captions,
)
from distill.benchmark.display import (
    COST_COLUMNS,
    SPEED_COLUMNS,
    Column,
    accuracy_columns,
    cascade_columns,
    cascade_prices,
    columns,
    cost_columns,
    gate_columns,
    score_columns,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from distill.types import BenchResult, BenchRow, GateVerdict

__all__ = ["cascade_markdown", "markdown_table", "print_result", "print_teacher"]

_PLAIN_WIDTH = 120
_NAMED_PAIRS = 3
_SHOWN_CONFUSIONS = 10
_STYLES = {
    "kept": "bold green",
    "broken": "bold red",
    "not judged": "bold yellow",
    "shown": "green",
    "refuted": "red",
}


def print_result(result: BenchResult, console: Console | None = None) -> None:
    """Prints the tables, the gates and the verdict; to stdout unless given a console."""
    console = console or _stdout()
    for part in _renderables(result):
        console.print(part)


def print_teacher(result: BenchResult) -> None:
    """Prints how right the teacher alone is, and what it mixes up most, to stdout."""
    from rich.text import Text

    console = _stdout()
    shown = columns((*accuracy_columns(result), *SPEED_COLUMNS, *COST_COLUMNS), result.rows)
    console.print(_table(shown, result.rows))
    for line in _captions([accuracy_caption(result), *gold_captions(result)]):
        console.print(line)
    mixed_up = sorted(result.confusions, key=lambda each: -each["n"])[:_SHOWN_CONFUSIONS]
    if mixed_up:
        console.print(Text("mixed up most, gold and answer:"))
    for each in mixed_up:
        console.print(Text(f"  {each['n']:>4}  {each['gold'] or 'none'}: {each['answer'] or 'none'}"))


def _stdout() -> Console:
    from rich.console import Console

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(
        width=None if is_terminal else max(_PLAIN_WIDTH, shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns)
    )


def _renderables(result: BenchResult) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    for wanted, captions in _tables(result):
        if shown := columns(wanted, result.rows):
            parts.append(_table(shown, result.rows))
            parts += _captions(captions)
    parts += [Text(f"  {line}", style="dim") for line in _near_pairs(result)]
    if any(result.cascades.values()):
        parts += [_cascade_table(result), Text(_cascade_caption(result), style="dim")]
    if result.gates:
        parts += [_gate_table(result.gates), Text(gate_caption(result), style="dim")]
    return [*parts, Text(headline(result), style="bold")]


def _captions(lines: list[str]) -> list[Text]:
    from rich.text import Text

    return [Text(line, style="bold yellow" if line.startswith("WARNING") else "dim") for line in lines]


def _tables(result: BenchResult) -> list[tuple[tuple[Column, ...], list[str]]]:
    """Columns and captions of each table of rows, in order."""
    tables = [
        (accuracy_columns(result), [accuracy_caption(result), *gold_captions(result)]),
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
        f"drop in points: the teacher's accuracy_policy minus the cascade's, on what the teacher answered.{cost} "
        "A number picked for looking best here looks better than it is."
    )


def _cascade_table(result: BenchResult) -> RenderableType:
    table, shown = _empty_table(), cascade_columns(result)
    table.add_column("cascade", no_wrap=True)
    for column in shown:
        table.add_column(column.title, justify="right")
    for row, points in result.cascades.items():
        for point in points:
            table.add_row(row, *(column.cell(point) for column in shown))
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
            blocks += [line.replace("<", "&lt;") for line in captions]  # of names of intents
    if result.gates:
        shown_gates = gate_columns(result.gates)
        cells = [[column.cell(gate) for column in shown_gates] for gate in result.gates]
        blocks += [_markdown([column.title for column in shown_gates], cells), gate_caption(result)]
    return "\n\n".join([*filter(None, blocks), headline(result)]) + "\n"


def cascade_markdown(result: BenchResult) -> str:
    """The cascades' points as Markdown; empty where there are none."""
    shown = cascade_columns(result)
    cells = [
        [row, *(column.cell(point) for column in shown)] for row, points in result.cascades.items() for point in points
    ]
    if not cells:
        return ""
    table = _markdown(["cascade", *(column.title for column in shown)], cells)
    return f"{table}\n\n{_cascade_caption(result)}\n"


def _markdown(titles: list[str], cells: list[list[str]]) -> str:
    """A table whose first column is to the left and whose others are to the right."""
    rule = "|---|" + "---:|" * (len(titles) - 1)
    return "\n".join([f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(line)} |" for line in cells)])
