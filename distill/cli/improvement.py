"""The commands that make labels and queries better: improve and audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    from distill.audit import Audit, Suspect
    from distill.improve import ImprovementPlan, Round, Weakness
    from distill.spec import Spec
    from distill.teacher.relabel import RelabelPlan, RelabelSummary

__all__ = ["add_to"]

_SHOWN = 50
_WIDEST_TEXT = 80


def audit(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Only so many labels, the worst; by default {_SHOWN} are shown, and all are asked."),
    ] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Ask the teacher again about them, beside the nearest known queries.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, max=64, help="With --relabel: new answers to each query.")] = 3,
    max_usd: MaxUsd = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the labels that are probably wrong, and have the teacher look again: ledger.jsonl."""
    from distill import audit as audits

    loaded = load(spec, teacher_model, base_url)
    if max_usd is not None and not relabel:
        raise typer.BadParameter("goes with --relabel", param_hint="--max-usd")
    if relabel:
        audits.check_can_relabel(loaded, max_usd=usd(max_usd))
    found = audits.audit(loaded, show_progress=not quiet)
    summary = None
    if relabel:
        summary = audits.relabel(
            loaded, found, samples=samples, limit=limit, max_usd=usd(max_usd), show_progress=not quiet
        )
    plan = None
    if summary is None and found.suspects and loaded.labels_path is None:
        plan = audits.plan_relabel(loaded, found, samples=samples, limit=limit)
    if as_json:
        print_json(_as_json(found, limit, summary, plan))
        return
    _print_audit(found, _SHOWN if limit is None else limit)
    if summary is not None:
        _print_relabelled(summary, loaded)
    if plan is not None:
        price = estimated(plan.estimated_usd, plan.most_usd)
        say(f"--relabel would ask {plan.n_missing} times about {plan.n_cases} queries, USD {price}; nothing was asked")
        say_why_a_range("audit", plan.most_usd)


def _as_json(
    found: Audit, limit: int | None, summary: RelabelSummary | None, plan: RelabelPlan | None
) -> dict[str, Any]:
    from dataclasses import asdict

    value = asdict(found)
    value["suspects"] = value["suspects"][:limit]
    done = {"relabelled": None if summary is None else asdict(summary)}
    return value | done | {"relabel_plan": None if plan is None else asdict(plan)}


def _print_audit(found: Audit, limit: int) -> None:
    shown = found.suspects[:limit]
    wrong = "" if found.estimated_wrong is None else f"about {found.estimated_wrong} of them wrong; "
    typer.echo(
        f"{found.n_labels} labels looked at, {wrong}{len(found.suspects)} suspected"
        + (f", the {len(shown)} worst shown" if len(shown) < len(found.suspects) else "")
    )
    if found.n_unjudged:
        say(f"audit: labels that no other query has, so that nothing speaks for or against them: {found.n_unjudged}")
    for intent in found.intents:
        own = [suspect for suspect in shown if suspect.listed_under == intent.name]
        if own:
            _print_intent(f"{intent.name}: {intent.n_suspected} of {intent.n}, mostly {intent.mostly}", own)


def _print_intent(title: str, suspects: list[Suspect]) -> None:
    suggested = [_suggested(suspect) for suspect in suspects]
    width = max(len("suggested"), *map(len, suggested))
    typer.echo(f"\n{title}\n  margin  {'suggested':<{width}}  alone  neighbours  teacher  query")
    for suspect, instead in zip(suspects, suggested, strict=True):
        text = suspect.text if len(suspect.text) <= _WIDEST_TEXT else f"{suspect.text[: _WIDEST_TEXT - 3]}..."
        again = "; ".join(f"{count} {answer}" for answer, count in suspect.asked_again.items())
        typer.echo(
            f"  {suspect.margin:>6.2f}  {instead:<{width}}  {suspect.self_confidence:>5.2f}  "
            f"{suspect.neighbours:>10.2f}  {suspect.agreement:>7.2f}  {text!r}{f'  (asked again: {again})' if again else ''}"
        )


def _suggested(suspect: Suspect) -> str:
    """The suggested label; of several names what is to come and go; of weights what they are now, too."""
    from distill.teacher.answers import in_words

    if suspect.missing or suspect.superfluous:
        return " ".join([*(f"+{name}" for name in suspect.missing), *(f"-{name}" for name in suspect.superfluous)])
    instead = in_words(suspect.suggested)
    return instead if isinstance(suspect.label, str) else f"{instead} (now {in_words(suspect.label)})"


def _print_relabelled(summary: RelabelSummary, spec: Spec) -> None:
    spent = "unknown (the price or the token counts are not known)" if summary.usd is None else f"{summary.usd:.4f}"
    typer.echo(
        f"\n{summary.n_cases} queries asked about again: {summary.n_changed} have another label now, {summary.n_confirmed} "
        f"keep theirs, {summary.n_left} wait\n{summary.n_asked} requests in this run; USD spent in it: {spent}"
    )
    if summary.limit_reached:
        say("audit: the spend limit is reached; what was answered is kept, the same command goes on where it stopped")
    if summary.n_failed:
        say(f"audit: answers that failed: {summary.n_failed}; the same command asks again")
    if summary.n_changed:
        say(f"{spec.command('train')} takes what was decided")


def improve(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most; it stops by itself when one gains nothing.")] = 3,
    per_intent: Annotated[
        int,
        typer.Option(
            min=1,
            help="Queries to write in a round for each intent that is mixed up, or each kind of queries (weights).",
        ),
    ] = 20,
    max_usd: MaxUsd = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the next round would do, and its price; ask nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have queries written for what the students mix up, label them, train again: round by round."""
    from dataclasses import asdict

    from distill import improve as rounds_of
    from distill import pipeline

    loaded = load(spec, teacher_model, base_url)
    if dry_run:
        plan = rounds_of.plan_improvement(loaded, out=out, per_intent=per_intent)
        if as_json:
            print_json(asdict(plan))
        else:
            _print_plan(plan, pipeline.limited(loaded, usd(max_usd)))
        return
    done = rounds_of.improve(
        loaded,
        out=out,
        rounds=rounds,
        per_intent=per_intent,
        max_usd=usd(max_usd),
        show_progress=not quiet,
        on_round=None if as_json else _print_round,
    )
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(f"stopped: {done.stopped}")
    if any(each.kept for each in done.rounds):
        say(f"{loaded.command('bench')} measures the new students on gold")


def _print_plan(plan: ImprovementPlan, spec: Spec) -> None:
    from distill.teacher.prices import price_of

    _print_weakness(plan.number, plan.weakness)
    if not plan.labels:
        typer.echo("No pair of labels is mixed up on the held-out queries. Nothing was asked.")
        return
    state = "is in progress: it" if plan.in_progress else "would begin: it"
    price = estimated(plan.estimated_usd, plan.most_usd)
    is_priced = any(model and price_of(spec, model) for model in (spec.teacher.model, spec.synth.model))
    limit = limit_left(spec, plan.estimated_usd, plan.most_usd, is_priced=is_priced)
    typer.echo(
        f"round {plan.number} {state} has {plan.n_queries} queries written and labelled, for {'; '.join(plan.labels)}\n"
        f"about {plan.n_requests} requests are left to be made, USD {price}; {limit}. Nothing was asked."
    )
    say_why_a_range("improve", plan.most_usd)


def _print_weakness(number: int, weakness: Weakness) -> None:
    typer.echo(
        f"round {number}: of {weakness.n_held_out} held-out queries the students disagree with the teacher on "
        f"{weakness.n_disagree}, and are unsure of {weakness.n_unsure} more"
    )
    found = [(" / ".join(each.labels), f"{each.n_wrong:>5.1f} mixed up") for each in weakness.confusions]
    found += [(each.label, f"{each.missed:>5.1f} missed, {each.false:.1f} wrongly given") for each in weakness.labels]
    found += [(each.name, f"{each.disagreement:>5.1f} of {each.n_held_out} wrong") for each in weakness.kinds]
    width = max((len(name) for name, _ in found), default=0)
    for name, told in found:
        typer.echo(f"  {name:<{width}}  {told}")


def _print_round(done: Round) -> None:
    _print_weakness(done.number, done.weakness)
    spent = "unknown" if done.usd is None else f"{done.usd:.4f}"
    typer.echo(
        f"  {done.n_written} queries written, {done.n_repeated} near-repetitions left out, {done.n_added} labelled; "
        f"{done.n_calls} requests answered, USD {spent}"
    )
    for name, before in done.before.items():
        typer.echo(f"  {name:<8} agrees with the teacher on {before:.4f} before, {done.after[name]:.4f} after")
    low, high = (100 * bound for bound in done.gain_ci95)
    verdict = "kept" if done.kept else "not kept: queries and students are as before"
    typer.echo(f"  gain {100 * done.gain:+.2f} points [{low:+.2f}, {high:+.2f}], {verdict}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands, in the order in which ``--help`` lists them."""
    for command in (improve, audit):
        app.command()(command)
