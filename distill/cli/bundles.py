"""The command that routes queries with a bundle."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path  # noqa: TC003  # Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, cast

import typer

from distill.cli.app import AsJsonLines, Quiet, nothing_kept, plain
from distill.errors import DataError
from distill.progress import say
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

    from distill.bulk import BulkSummary
    from distill.router import Router
    from distill.types import Prediction

__all__ = ["add_to"]

_ANSWER_WIDTH = 24
_BYTES_AT_A_TIME = 1 << 16
_LIKE_JSON = re.compile(r"""\s*(\{\s*"|\[\s*[{"])""")


class _Engine(StrEnum):
    """Who routes the parts of a file."""

    LOCAL = "local"
    RAY = "ray"


def route(
    bundle: Annotated[Path, typer.Argument(help="A bundle: models/NAME/STUDENT.")],
    queries: Annotated[list[str] | None, typer.Argument(help="Queries; none: one a line from stdin.")] = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="Route a file: .jsonl, .csv or .parquet; needs --output.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the answers go: .jsonl or .parquet.")] = None,
    column: Annotated[str | None, typer.Option(help="Where the queries of a file stand; without it in `text`.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="A column of the file that goes into the output as it is; may be repeated.")
    ] = None,
    engine: Annotated[_Engine, typer.Option(help="Who routes a file: this process, or Ray Data.")] = _Engine.LOCAL,
    top: Annotated[int | None, typer.Option(min=1, help="With --json: so many scores, the best first.")] = None,
    as_json: AsJsonLines = False,
    quiet: Quiet = False,
) -> None:
    """Route queries with a trained student: one line of output for each, in order.

    With --input and --output a whole file. Killed, it goes on where it was; bad lines go to errors.jsonl beside it.
    """
    if source is not None or output is not None or column is not None or keep or engine is not _Engine.LOCAL:
        if source is None or output is None:
            raise typer.BadParameter("--input and --output go together, and --column, --keep and --engine with them")
        if queries or top is not None:
            raise typer.BadParameter("queries and --top do not go with --input")
        from distill.bulk import route_file

        summary = route_file(
            bundle, source, output,
            column="text" if column is None else column, keep=keep or (), engine=engine.value, show_progress=not quiet,
        )  # fmt: skip
        _print_summary(summary, output, as_json=as_json)
        return
    if top is not None and not as_json:
        raise typer.BadParameter("--top goes with --json")
    from distill.router import Router

    router = Router.load(bundle)
    width = _answer_width(router)
    with nothing_kept():
        for texts in [queries] if queries else _lines_of_stdin():
            for text, prediction in zip(texts, router.route_batch(texts), strict=True):
                if as_json:
                    typer.echo(json.dumps({"text": text, **prediction.as_dict(top)}, ensure_ascii=False))
                else:
                    answer = f"{plain(_answer(prediction)):<{width}} {prediction.score:.3f}"
                    typer.echo(f"{answer}  {prediction.reason.value:<14}  {plain(text)}".rstrip())


def _print_summary(summary: BulkSummary, output: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(summary), default=str, ensure_ascii=False))
        return
    typer.echo(f"{summary.n_queries:,} queries routed: {output}")
    if summary.errors is not None:
        n_lines = "1 line holds" if summary.n_errors == 1 else f"{summary.n_errors:,} lines hold"
        typer.echo(f"{n_lines} no query: {output.parent / summary.errors.name}")


def _lines_of_stdin() -> Iterator[list[str]]:
    """The lines of stdin, as many at a time as have come: an answer does not wait for the next query.

    Raises:
        DataError: A line is not UTF-8; those before it were given.
    """
    if sys.stdin is None:
        return
    if sys.stdin.isatty():
        say("one query a line; Ctrl-D ends")
    source = cast("BufferedReader", sys.stdin.buffer)
    number, begun = 0, bytearray()
    while chunk := source.read1(_BYTES_AT_A_TIME):
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = bytes(begun) + whole[0]
            begun.clear()
            yield from _decoded(whole, number)
            number += len(whole)
        begun += rest
    if begun:
        yield from _decoded([bytes(begun)], number)


def _decoded(lines: Sequence[bytes], n_before: int) -> Iterator[list[str]]:
    queries: list[str] = []
    for number, line in enumerate(lines, n_before + 1):
        try:
            query = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield queries
            raise DataError(f"stdin:{number}: not UTF-8; the lines before it were routed") from None
        if number == 1 and _LIKE_JSON.match(query):
            say(
                "stdin:1: looks like JSON, and is routed as the text that it is; --input and --output read a file of JSON lines"
            )
        queries.append(query.rstrip("\r"))
    yield queries


def _answer_width(router: Router) -> int:
    """How long an answer is at most; with several intents a longer one moves what stands behind it."""
    if router.manifest.task is Task.WEIGHTS:
        return len(", ".join(f"{label} 0.00" for label in router.labels))
    return max(_ANSWER_WIDTH, *(len(label) + len("- ()") for label in router.labels))


def _answer(prediction: Prediction) -> str:
    """The decision for people; of a query without an intent, the best one in brackets."""
    if prediction.weights is not None:
        return ", ".join(f"{name} {weight:.2f}" for name, weight in prediction.weights.items())
    if prediction.intents:
        return ", ".join(prediction.intents)
    return f"- ({prediction.top_intent})" if prediction.top_intent else "-"


def add_to(app: typer.Typer) -> None:
    """Adds this command."""
    app.command()(route)
