"""The application: what every command shares."""

from __future__ import annotations

import errno
import io
import json
import re
import signal
import sys
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from distill import __version__
from distill.errors import DistillError, missing_extra
from distill.progress import n_processes, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.spec import Spec

__all__ = [
    "DEFAULT_SPEC",
    "AsJson",
    "AsJsonLines",
    "BaseUrl",
    "Force",
    "MaxUsd",
    "Out",
    "Quiet",
    "SpecPath",
    "TeacherModel",
    "app",
    "estimated",
    "limit_left",
    "load",
    "main",
    "nothing_kept",
    "plain",
    "print_json",
    "say_why_a_range",
    "usd",
]

_INTERRUPTED = 130
_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_FOR_SEVERAL_PROCESSES = "train"


class _Group(TyperGroup):
    """Turns what a user can cause or mend into one line and exit 1, and Ctrl-C into exit 130."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes ``--debug`` after the command's name too: that is where one adds it to a command that failed."""
        own = args[: args.index("--")] if "--" in args else args
        if "--debug" in own:
            args = ["--debug", *(each for each in own if each != "--debug"), *args[len(own) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command.

        Raises:
            typer.Exit: With 130 after Ctrl-C, with 1 after an error that a user can cause or mend; what is to be said was said.
            Exception: Anything else, which is a bug, and with ``--debug`` every error, with its traceback.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("distill: interrupted; everything received is kept, the same command goes on where it stopped")
            raise typer.Exit(_INTERRUPTED) from None
        except (DistillError, ModuleNotFoundError, OSError) as error:
            line = _line_for(error)
            if line is None or ctx.params.get("debug"):
                raise
            say(f"distill: {line}", always=True)
            raise typer.Exit(1) from error


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Of what keeps nothing that the same command could go on from, Ctrl-C says so."""
    try:
        yield
    except KeyboardInterrupt:
        say("distill: interrupted")
        raise typer.Exit(_INTERRUPTED) from None


def _line_for(error: DistillError | ModuleNotFoundError | OSError) -> str | None:
    """What a user is told of an error, on one line; None for what is a bug, or no error at all."""
    if isinstance(error, DistillError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        is_ours = not error.name or error.name.split(".")[0] == "distill"
        return None if is_ours else str(missing_extra(str(error.name)))
    if error.errno == errno.EPIPE:  # `| head`: whoever read the output has enough
        return None
    return f"{error.filename or 'the output'}: {error.strerror or error}"


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turns an LLM prompt that routes queries to intents into a small router, and measures whether it is as good.",
)

SpecPath = Annotated[Path, typer.Argument(help="router.yaml, or the folder that holds it.")]
TeacherModel = Annotated[str | None, typer.Option(help="Takes the place of teacher.model.")]
BaseUrl = Annotated[str | None, typer.Option(help="Takes the place of teacher.base_url.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder for models, bench.json and report.html; models/NAME unless given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print each answer as one line of JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
MaxUsd = Annotated[
    float | None,
    typer.Option(min=0.0, help="Most that this run may spend; by default what teacher.max_usd leaves."),
]
Force = Annotated[bool, typer.Option("--force", help="Do it again, even where nothing has changed.")]

DEFAULT_SPEC = Path("router.yaml")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del debug, version  # read from the context, and by the callback
    if n_processes() > 1 and context.invoked_subcommand != _FOR_SEVERAL_PROCESSES:
        raise DistillError(
            f"{n_processes()} processes were started together (WORLD_SIZE); that is for `distill {_FOR_SEVERAL_PROCESSES}` alone, all else would be "
            "done and paid for several times"
        )


def load(path: Path, teacher_model: str | None = None, base_url: str | None = None) -> Spec:
    """Reads a spec, with the options that take the place of its keys."""
    from distill.spec import load_spec

    return load_spec(path, teacher_model=teacher_model, base_url=base_url)


def usd(value: float | None) -> Decimal | None:
    """A sum given on the command line, without the digits that a float adds."""
    return None if value is None else Decimal(str(value))


def estimated(usd: Decimal | float | None, most_usd: Decimal | float | None) -> str:
    """What a plan would cost, for people: about so much, up to so much, or unknown."""
    most = "" if most_usd is None else f", up to {most_usd:.4f}"
    return "unknown" if usd is None else f"about {usd:.4f}{most}"


def limit_left(
    spec: Spec, usd: Decimal | None, most_usd: Decimal | None, *, is_priced: bool, batch: bool = False
) -> str:
    """What the limit leaves to be spent, for people, and whether a plan would stop there.

    Args:
        spec: With the limit.
        usd: What the plan would cost, as far as that is known.
        most_usd: The most that it can cost, where that is more.
        is_priced: Whether anything of it has a price.
        batch: Whether it is asked in batches: its own that are in flight are waited for first.
    """
    from distill.teacher.endpoint import is_loopback
    from distill.teacher.in_flight import open_batches
    from distill.teacher.prices import LIMIT
    from distill.teacher.spend import open_budget

    if spec.teacher.max_usd is None:
        return "no limit is set (--max-usd, teacher.max_usd)"
    if not is_priced:
        if spec.teacher.callable is None and is_loopback(spec.teacher.base_url):
            return f"{LIMIT} does not hold on this machine without a price (teacher.price)"
        return f"{LIMIT} cannot be kept without a price"
    budget = open_budget(spec, spec.teacher.model or spec.synth.model)
    own_usd = sum((each.reserved_usd for each in open_batches(spec)), Decimal(0)) if batch else Decimal(0)
    left = max(spec.teacher.max_usd - budget.committed_usd + own_usd, Decimal(0))
    if usd is not None and usd > left:
        stops = ": it would stop there"
    elif (most_usd is not None and most_usd > left) or (usd is not None and usd > left - own_usd):
        stops = ": it may stop there"
    else:
        stops = ""
    return f"{LIMIT} leaves {left:.4f}{stops}"


def say_why_a_range(command: str, most_usd: Decimal | float | None) -> None:
    """Says on stderr why a plan names the most that it can cost, where it does."""
    if most_usd is not None:
        say(
            f"{command}: a model that reasons bills that as output, up to the most tokens that an answer may have "
            "(teacher.max_output_tokens); how many it takes is known, and estimated from, once it has answered"
        )


def plain(text: str) -> str:
    """A text that is not ours, such as a bundle's label, on one line and without what would steer the terminal."""
    return _CONTROL.sub(" ", text)


def print_json(value: Any) -> None:
    """Prints a result as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_as_json))


def _as_json(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)


def main() -> None:
    """Entry point of the command ``distill``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # queries hold what no code page of Windows has
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell runs it in the background
        signal.signal(signal.SIGTERM, _stop)
    app()


def _stop(*_: object) -> None:
    """A container that is stopped waits, as after Ctrl-C, for answers in flight, which are paid for."""
    signal.raise_signal(signal.SIGINT)
