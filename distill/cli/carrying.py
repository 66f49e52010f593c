"""The command for intents that changed: carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.app import (
    DEFAULT_SPEC,
    AsJson,
    BaseUrl,
    MaxUsd,
    Out,
    Quiet,
    SpecPath,
    TeacherModel,
    estimated,
    limit_left,
    load,
    print_json,
    say_why_a_range,
    usd,
)
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.spec import Spec
    from distill.teacher.carry import CarryPlan, CarrySummary
    from distill.teacher.changed import IntentChange

__all__ = ["add_to"]


def carry(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="An intent has another name now, or is one with another (may be repeated).",
        ),
    ] = None,
    ask_removed: Annotated[
        bool,
        typer.Option(
            "--ask-removed",
            help="Ask again about queries whose intent is gone. Otherwise they fit none now (oos), or keep what else was answered.",
        ),
    ] = False,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INTENT",
            help="An intent is described anew: needed only where the recording does not say it (may be repeated).",
        ),
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the queries to ask again at most in the search for those of new intents; by default 0.2, or twice "
            "the share of these intents where that is more.",
        ),
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Requests at most, all in all; 0 asks nothing.")] = None,
    max_usd: MaxUsd = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be kept and asked again, and its price; ask nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Keep the answers that still hold when intents were added, renamed, removed or described anew: ledger.jsonl."""
    from dataclasses import asdict

    from distill import pipeline
    from distill.teacher.carry import CarryOptions

    loaded = load(spec, teacher_model, base_url)
    options = CarryOptions(
        renames=_renames(rename or []),
        described_anew=tuple(changed or ()),
        ask_removed=ask_removed,
        max_share=max_share,
        max_calls=max_calls,
        max_usd=usd(max_usd),
    )
    if dry_run:
        plan = pipeline.plan_carry(loaded, options, out=out, show_progress=not quiet)
        if as_json:
            print_json(asdict(plan))
        else:
            _print_plan(plan, pipeline.limited(loaded, options.max_usd), ask_removed=ask_removed)
        return
    summary = pipeline.carry(loaded, options, out=out, show_progress=not quiet)
    if as_json:
        print_json(asdict(summary))
    else:
        _print_summary(summary, loaded)


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new):
            raise typer.BadParameter(f"{pair!r} is not OLD=NEW", param_hint="--rename")
        found[old] = new
    return found


def _print_changes(changes: Sequence[IntentChange]) -> None:
    for change in changes:
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("new", change.added),
                ("gone", change.removed),
                ("renamed", [f"{old} to {new}" for old, new in change.renamed.items()]),
                ("described anew", change.described_anew),
            )
            if names
        ]
        typer.echo("; ".join(parts) or "no intent is new, gone or known to be described anew")
        for old, new in change.perhaps_renamed.items():
            say(f"carry: {new} is described as {old} was; if that is its new name: --rename {old}={new}")
        if change.other_settings:
            say(f"carry: what else differs from the recording: {', '.join(change.other_settings)}")
        if not change.says_descriptions:
            say(
                "carry: the recording does not say how intents were described; --changed INTENT names one that is described anew"
            )


def _print_plan(plan: CarryPlan, spec: Spec, *, ask_removed: bool) -> None:
    if plan.n_written:
        typer.echo(f"{plan.n_written} answers of the model that writes queries would stand under another name")
    if not plan.n_texts:
        nothing = "" if plan.n_written else " Nothing is to be carried over."
        typer.echo(f"No query has an answer under other intents only.{nothing}")
        return
    _print_changes(plan.changes)
    typer.echo(
        f"{plan.n_texts} queries were answered under other intents; renamed in {plan.n_renamed}; the intent is gone in {plan.n_removed}"
    )
    if plan.n_removed:
        typer.echo(f"  {_of_removed(plan, spec, ask_removed=ask_removed)}")
    if any(change.sought for change in plan.changes):
        typer.echo(
            f"in doubt: {plan.n_near} nearer to a new or newly described intent than to the others with their label, and "
            f"{plan.n_doubted} more that teacher or student doubt; they are asked the nearest first, until hardly any moves"
        )
    price = estimated(plan.estimated_usd, plan.most_usd)
    limit = limit_left(spec, plan.estimated_usd, plan.most_usd, is_priced=plan.estimated_usd is not None)
    typer.echo(
        f"at most {plan.most_calls} requests, USD {price}; {limit}; all else is carried over. Nothing was asked."
    )
    say_why_a_range("carry", plan.most_usd)
    _say_unanswered(plan.n_unanswered, spec)


def _of_removed(plan: CarryPlan, spec: Spec, *, ask_removed: bool) -> str:
    """What becomes of the queries whose intent is gone."""
    n_kept = plan.n_removed - plan.n_nothing_left
    if ask_removed:
        return f"to be asked again: {plan.n_nothing_left}"
    if spec.out_of_scope_intent is not None:
        return f"{n_kept} fit none of the others now (oos); --ask-removed asks about them, --rename OLD=NEW gives them to another"
    return (
        f"{n_kept} keep what else was answered, of {plan.n_nothing_left} nothing is left; --ask-removed asks about all of them, "
        "--rename OLD=NEW gives them to another"
    )


def _print_summary(summary: CarrySummary, spec: Spec) -> None:
    if summary.n_written:
        typer.echo(f"{summary.n_written} answers of the model that writes queries stand under another name now")
    if not summary.n_texts:
        nothing = "" if summary.n_written else " Nothing was carried over."
        typer.echo(f"No query has an answer under other intents only.{nothing}")
        return
    _print_changes(summary.changes)
    gone = f", {summary.n_removed} whose intent is gone" if summary.n_removed else ""
    typer.echo(
        f"{summary.n_texts} queries were answered under other intents: {summary.n_carried} carried over, "
        f"{summary.n_renamed} of them under another name{gone}; {sum(summary.asked.values())} asked again"
    )
    for reason, what in _REASONS.items():
        if summary.asked.get(reason):
            typer.echo(f"  {summary.asked[reason]:>6} {what}; {summary.moved.get(reason, 0)} have another label now")
    spent = (
        "unknown (the price or the token counts are not known)"
        if summary.spent_usd is None
        else f"{summary.spent_usd:.4f}"
    )
    typer.echo(f"{summary.n_calls} requests in this run; USD spent so far: {spent}")
    if summary.is_cut:
        say(
            "carry: a limit (--max-share, --max-calls or the spend limit), or requests that failed, left queries in doubt unasked; what was carried over stands, "
            "`distill audit --relabel` asks about labels again"
        )
    if summary.n_left:
        say(f"carry: queries that lack an answer now: {summary.n_left}; {spec.command('label')} asks about them")
    _say_unanswered(summary.n_unanswered, spec)


_REASONS = {
    "removed": "whose intent is gone",
    "near": "near a new or newly described intent",
    "doubted": "that teacher or student doubted",
}


def _say_unanswered(n_unanswered: int, spec: Spec) -> None:
    if n_unanswered:
        say(f"carry: queries that were never answered: {n_unanswered}; {spec.command('label')} asks about them")


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(carry)
