"""The command init: what one has becomes a router.yaml that runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.app import DEFAULT_SPEC, AsJson, print_json
from distill.progress import say
from distill.types import Intent, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.init import Options, Source

__all__ = ["add_to"]

_INTERRUPTED = 130


def init(
    spec: Annotated[Path, typer.Argument(help="The router.yaml to write, or the folder for it.")] = DEFAULT_SPEC,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="What you have: a folder with a text file of examples for each intent, or with a train.jsonl; logs (.csv, "
            ".tsv, .jsonl, .txt); OpenAI tools (.json); a prompt with {query} in it (.txt, .json). May be repeated.",
        ),
    ] = None,
    intent: Annotated[
        list[str] | None, typer.Option("--intent", help="An intent as NAME or 'NAME: DESCRIPTION'. May be repeated.")
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            help="One intent a query, several, or weights over channels; without it as the labels have it, or one."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the router; without it the folder's.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Where the queries of a table stand.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Where its human labels stand; without it in `intent`.")
    ] = None,
    out_of_scope: Annotated[
        bool | None, typer.Option("--out-of-scope/--no-out-of-scope", help="Whether a query may fit no intent.")
    ] = None,
    teacher_model: Annotated[str | None, typer.Option(help="The model that labels; without it gpt-5-mini.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Its endpoint, if not OpenAI's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a router.yaml to start from, out of what you have. Asks for the rest on a terminal."""
    from distill.errors import StorageError
    from distill.init import Options, draft, read_source, write_project

    path = spec if spec.suffix in {".yaml", ".yml"} and not spec.is_dir() else spec / DEFAULT_SPEC
    if path.exists() and not force:  # said before anything is asked
        raise StorageError(f"{path} exists already; --force writes over what is there")
    asks = not as_json and _is_terminal()
    options = Options(name, task, tuple(map(_intent, intent or ())), out_of_scope, teacher_model, base_url)
    try:
        wanted = sources or (_ask_sources() if asks and not intent else [])
        found = [
            read_source(each, text_column=text_column, label_column=label_column, choose=_choose if asks else None)
            for each in wanted
        ]
        if asks:
            options = _ask_rest(path.parent, options, found)
    except typer.Abort:
        say("\ninit: stopped; nothing was written")
        raise typer.Exit(_INTERRUPTED) from None
    made = draft(path.parent, found, options)
    written = write_project(path, made, force=force, sources=found)
    for note in made.notes:
        say(f"init: {note}")
    if as_json:
        print_json(
            {
                "spec": str(written.spec),
                "files": list(map(str, written.files)),
                "name": made.name,
                "task": made.task.value,
                "n_intents": len(made.intents),
                "are_placeholders": made.are_placeholders,
                "n_left_out": sum(source.n_left_out for source in found),
                "notes": list(made.notes),
            }
        )
        return
    for file in written.files:
        typer.echo(file)
    say(f"next: distill run {shlex.quote(str(written.spec))} --dry-run    # what it would ask, and the price")


def _intent(given: str) -> Intent:
    head, _, description = given.partition(":")
    return Intent(head.strip(), " ".join(description.split()))


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _ask(question: str, default: str = "") -> str:
    return str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()


def _choose(question: str, choices: Sequence[str]) -> str:
    say(question)
    for number, choice in enumerate(choices, 1):
        say(f"  {number}  {choice}")
    while True:
        answer = _ask("Number or name", "1")
        if answer in choices:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]
        say(f"not one of them: {answer}")


def _ask_sources() -> list[Path]:
    say(
        "What do you have? Examples (a folder with a text file for each intent), logs, OpenAI tools, a prompt: its path."
    )
    say("An empty line: nothing more.")
    sources: list[Path] = []
    while answer := _ask("File or folder"):
        path = Path(answer).expanduser()
        if path.exists():
            sources.append(path)
        else:
            say(f"{path}: no such file or folder")
    return sources


def _ask_rest(folder: Path, options: Options, found: Sequence[Source]) -> Options:
    """Asks for what neither the options nor the sources say."""
    from dataclasses import replace

    from distill.init.draft import DEFAULT_MODEL, name_of

    if options.name is None:
        options = replace(options, name=_ask("Name of the router", name_of(folder)))
    if not options.intents and not any(source.intents for source in found):
        options = replace(options, intents=_ask_intents())
    has_prompt = any(source.prompt for source in found)
    has_others = has_prompt or any(source.queries for source in found)  # which a model is to label
    if any(source.labelled for source in found) and options.teacher_model is None and not has_others:
        teaches = typer.confirm(
            "Are the labels good enough to learn from as they are (no: a model labels)?", default=True, err=True
        )
        options = replace(options, labels_teach=teaches)
    if options.teacher_model is None and not options.labels_teach:
        options = replace(options, teacher_model=_ask("Model that labels", DEFAULT_MODEL))
    task = options.task or next((source.task for source in found if source.labelled), Task.SINGLE)
    if options.out_of_scope is None and task is Task.SINGLE and not options.labels_teach:
        options = replace(
            options, out_of_scope=typer.confirm("May a query fit none of the intents?", default=True, err=True)
        )
    return options


def _ask_intents() -> tuple[Intent, ...]:
    say("The intents, a line each: NAME: what it is for. An empty line: no more (without any, three made-up ones).")
    intents: list[Intent] = []
    while answer := _ask("Intent"):
        intents.append(_intent(answer))
    return tuple(intents)


def add_to(app: typer.Typer) -> None:
    """Adds this command."""
    app.command()(init)
