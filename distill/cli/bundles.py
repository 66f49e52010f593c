"""Commands on a bundle: route, inspect."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path  # noqa: TC003  # Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.app import AsJson, AsJsonLines, print_json
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distill.types import Prediction

__all__ = ["add_to"]

_ANSWER_WIDTH = 24
_LINES_AT_A_TIME = 1024


def route(
    bundle: Annotated[Path, typer.Argument(help="A bundle: models/NAME/STUDENT.")],
    queries: Annotated[list[str] | None, typer.Argument(help="Queries; none: one a line from stdin.")] = None,
    as_json: AsJsonLines = False,
) -> None:
    """Route queries with a trained student: one line of output for each, in order."""
    from distill.router import Router

    router = Router.load(bundle)
    width = max(_ANSWER_WIDTH, *(len(label) + len("- ()") for label in router.labels))
    for texts in [queries] if queries else _lines_of_stdin():
        for text, prediction in zip(texts, router.route_batch(texts), strict=True):
            if as_json:
                typer.echo(json.dumps({"text": text, **prediction.as_dict()}, ensure_ascii=False))
            else:
                answer = f"{_answer(prediction):<{width}} {prediction.score:.3f}"
                typer.echo(f"{answer}  {prediction.reason.value:<14}  {text}".rstrip())


def _lines_of_stdin() -> Iterable[list[str]]:
    """The lines of stdin, many at a time; from a terminal one by one, as they are typed."""
    from itertools import islice

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if is_terminal:
        say("one query a line; Ctrl-D ends")
    source = iter(sys.stdin or ())
    while lines := list(islice(source, 1 if is_terminal else _LINES_AT_A_TIME)):
        yield [line.rstrip("\r\n") for line in lines]


def _answer(prediction: Prediction) -> str:
    """The decision for people; of a query without an intent, the best one in brackets."""
    if prediction.weights is not None:
        return ", ".join(f"{name} {weight:.2f}" for name, weight in prediction.weights.items())
    if prediction.intents:
        return ", ".join(prediction.intents)
    return f"- ({prediction.top_intent})" if prediction.top_intent else "-"


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle: models/NAME/STUDENT.")],
    verify: Annotated[bool, typer.Option("--verify", help="Replay the self-check on this processor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle is: labels, policy, figures, where it came from."""
    from distill.errors import BundleError
    from distill.router import Router, verify_selfcheck

    router = Router.load(bundle)
    facts: dict[str, Any] = router.manifest.as_dict()
    check = verify_selfcheck(router) if verify else None
    if check is not None:
        facts["selfcheck"] = {
            "n": check.n,
            "n_token_mismatches": check.n_token_mismatches,
            "n_label_flips": check.n_label_flips,
            "max_abs_difference": check.max_abs_difference,
            "passed": check.passed,
        }
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            shown = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
            typer.echo(f"{name:<16} {'-' if value in ('', None) else shown}")
    if check is not None and not check.passed:
        raise BundleError(
            f"{bundle}: the self-check fails on this processor: {check.n_label_flips} of {check.n} answers differ, "
            f"{check.n_token_mismatches} are tokenised otherwise, logits differ by up to {check.max_abs_difference:.3g}"
        )


def add_to(app: typer.Typer) -> None:
    """Adds these commands, in the order in which ``--help`` lists them."""
    for command in (route, inspect):
        app.command()(command)
