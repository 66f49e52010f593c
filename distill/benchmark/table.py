"""A benchmark's result in the terminal (rich) and as Markdown for a README."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from distill.benchmark.display import (
    ACCURACY_COLUMNS,
    SPEED_COLUMNS,
    Column,
    accuracy_caption,
    columns,
    cost_lines,
    gate_word,
    headline,
    speed_captions,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from distill.types import BenchResult, BenchRow

__all__ = ["markdown_table", "print_result"]

_PLAIN_WIDTH = 120
_STYLES = {"kept": "bold green", "broken": "bold red", "not judged": "bold yellow"}


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

    parts: list[RenderableType] = [
        _table(ACCURACY_COLUMNS, result.rows),
        Text(accuracy_caption(result), style="dim"),
        _table(SPEED_COLUMNS, result.rows),
        *(
            Text(line, style="bold yellow" if line.startswith("WARNING") else "dim")
            for line in (*speed_captions(result), *cost_lines(result))
        ),
        Text(),
    ]
    for gate in result.gates:
        word = gate_word(gate)
        parts.append(Text.assemble((f"{word:<10}", _STYLES[word]), f" {gate.row} {gate.gate}: {gate.detail}"))
    return [*parts, Text(headline(result), style="bold")]


def _table(wanted: tuple[Column, ...], rows: tuple[BenchRow, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True, style="bold")
    shown = columns(wanted, rows)
    for column in shown:
        table.add_column(column.title, justify="right")
    for row in rows:
        table.add_row(row.name, *(column.cell(row) for column in shown))
    return table


def markdown_table(result: BenchResult) -> str:
    """The same as Markdown: two tables, what they were measured on and when, and the gates. Ends with a newline."""
    lines = [
        *_markdown(ACCURACY_COLUMNS, result.rows),
        "",
        accuracy_caption(result),
        "",
        *_markdown(SPEED_COLUMNS, result.rows),
        "",
        " ".join(speed_captions(result)),
        "",
        " ".join(cost_lines(result)),
    ]
    if result.gates:
        lines += ["", *(f"- **{gate_word(gate)}**: {gate.row} `{gate.gate}`: {gate.detail}" for gate in result.gates)]
    return "\n".join(lines) + "\n"


def _markdown(wanted: tuple[Column, ...], rows: tuple[BenchRow, ...]) -> list[str]:
    shown = columns(wanted, rows)
    return [
        f"| | {' | '.join(column.title for column in shown)} |",
        f"|---|{'---:|' * len(shown)}",
        *(f"| {row.name} | {' | '.join(column.cell(row) for column in shown)} |" for row in rows),
    ]
