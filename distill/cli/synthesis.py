"""What ``synth`` prints: a line for each target, the worst ones alone where there are many."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import typer

from distill.teacher.pool import Dropped

if TYPE_CHECKING:
    from distill.teacher.synth import SynthesisSummary

__all__ = ["print_queries"]

_SHOWN = 20
_WIDEST_NAME = 32
_TITLES = ("got", "same", "near", "other", "known", "unfit", "distinct-2", "distance")
_LEGEND = (
    "left out: the same as one of its own, or near to it; as one of another intent; known as an example or gold; unfit as a query\n"
    "distinct-2: share of distinct pairs of words; distance: mean cosine distance of two queries; more is more varied"
)


def print_queries(summary: SynthesisSummary) -> None:
    """Prints what was written, what was left out and why, and how much the queries differ."""
    targets = list(summary.wanted)
    if len(targets) > _SHOWN:
        targets = sorted(targets, key=lambda target: _worst_first(summary, target))[:_SHOWN]
    names = [_short(target) for target in targets]
    rows = [(name, *_cells(summary, target)) for name, target in zip(names, targets, strict=True)]
    total = [sum(getattr(own, each.name) for own in summary.dropped.values()) for each in fields(Dropped)]
    got, wanted = sum(summary.got.values()), sum(summary.wanted.values())
    rows.append(("all", f"{got}/{wanted}", *map(str, total), "", ""))
    widths = [max(map(len, column)) for column in zip(("", *_TITLES), *rows, strict=True)]
    for first, *cells in (("", *_TITLES), *rows):
        line = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        typer.echo("  ".join(line).rstrip())
    if len(targets) < len(summary.wanted):
        typer.echo(f"the {_SHOWN} of {len(summary.wanted)} that lack most or differ least; --json gives all")
    typer.echo(_LEGEND)


def _worst_first(summary: SynthesisSummary, target: str) -> tuple[float, float]:
    """By the share that is missing, then by how alike the queries are."""
    distance, lexical = summary.mean_distance[target], summary.distinct_2[target]
    return summary.got[target] / summary.wanted[target], (distance if distance is not None else lexical) or 0.0


def _cells(summary: SynthesisSummary, target: str) -> list[str]:
    dropped = summary.dropped[target]
    counts = (str(getattr(dropped, each.name)) for each in fields(dropped))
    shares = (summary.distinct_2[target], summary.mean_distance[target])
    return [
        f"{summary.got[target]}/{summary.wanted[target]}",
        *counts,
        *("" if share is None else f"{share:.2f}" for share in shares),
    ]


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else f"{name[: _WIDEST_NAME - 3]}..."
