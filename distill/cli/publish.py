"""The command that lays out a model repository."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # Typer reads the annotations
from typing import Annotated

import typer

from distill.cli.app import AsJson, plain, print_json
from distill.progress import say

__all__ = ["add_to"]

_STATED = {"license": "a licence", "teacher_terms": "the teacher's terms of use"}


def publish(
    bundle: Annotated[Path, typer.Argument(help="A bundle: models/NAME/STUDENT.")],
    to: Annotated[Path, typer.Option(help="Folder to write: not there yet, or an earlier copy.")],
    name: Annotated[str | None, typer.Option(help="Where it will be uploaded: org/name.")] = None,
    bench: Annotated[
        Path | None, typer.Option(help="The bench.json that measured the bundle; by default the one beside its folder.")
    ] = None,
    model_license: Annotated[
        str | None, typer.Option("--license", help="Licence of the model, as the hub spells it: apache-2.0, other, ...")
    ] = None,
    teacher_terms: Annotated[
        str | None,
        typer.Option(help="The teacher's terms of use: a link, or what they say of training on its answers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lay a bundle out as a model repository with its card; prints the command that uploads it."""
    from distill.publish import publish as lay_out

    repository = lay_out(bundle, to, name=name, bench=bench, license_name=model_license, teacher_terms=teacher_terms)
    if as_json:
        print_json(
            {
                "folder": str(repository.path),
                "files": list(repository.files),
                "bench": None if repository.bench is None else str(repository.bench),
                "upload": repository.upload_command,
            }
        )
        return
    size_mb = sum((repository.path / file).stat().st_size for file in repository.files) / 1e6
    say(f"{repository.path}: {len(repository.files)} files, {size_mb:.1f} MB; nothing was uploaded")
    if repository.bench is None:
        say("the card has held-out figures only: no bench.json measured this bundle")
    for key in repository.not_stated:
        say(f"the card does not state {_STATED[key]}; --{key.replace('_', '-')} does")
    typer.echo(plain(repository.upload_command))


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(publish)
