"""The stages as commands: synth, label, train, bench, report, and run for all of them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.app import (
    DEFAULT_SPEC,
    AsJson,
    BaseUrl,
    Force,
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
from distill.errors import DataError, GateError, TeacherError
from distill.progress import is_first_process, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.pipeline import Due, RunPlan
    from distill.spec import Spec
    from distill.teacher.imported import ImportSummary
    from distill.teacher.label import LabelPlan, LabelSummary
    from distill.teacher.synth import SynthesisPlan
    from distill.types import BenchResult

__all__ = ["add_to"]

Check = Annotated[bool, typer.Option("--check", help="Exit with 1 when a gate is broken.")]


def synth(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    max_usd: MaxUsd = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how much is to be written, and its price; ask nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have a model write queries for each intent: queries.jsonl."""
    from dataclasses import asdict

    from distill import pipeline
    from distill.cli.synthesis import print_queries

    loaded = pipeline.limited(load(spec, teacher_model, base_url), usd(max_usd))
    if dry_run:
        _print_synthesis_plan(pipeline.plan_synth(loaded), loaded, as_json=as_json)
        return
    summary = pipeline.synth(loaded, measure=True, show_progress=not quiet)
    if as_json:
        print_json(asdict(summary))
        return
    print_queries(summary)
    typer.echo(_spent(summary.n_asked, summary.spent_usd))


def _print_synthesis_plan(plan: SynthesisPlan, spec: Spec, *, as_json: bool) -> None:
    if as_json:
        print_json(_synthesis_as_json(plan))
        return
    _print_synthesis(plan)
    if plan.n_missing:
        typer.echo(_total([plan], spec))
        say_why_a_range("synth", plan.most_usd)
        _say_obstacles("synth", [plan])
    else:
        typer.echo("Nothing is to be asked, and nothing was.")


def _synthesis_as_json(plan: SynthesisPlan) -> dict[str, Any]:
    from dataclasses import asdict

    value = asdict(plan)
    del value["recorded"]  # texts: they stand in synth.jsonl
    return value


def _print_synthesis(plan: SynthesisPlan) -> None:
    how = f"{plan.n_missing} queries to write, about {plan.n_requests} requests"
    _print_stage("synth", how, plan.estimated_usd if plan.n_missing else 0, plan.most_usd if plan.n_missing else None)


def label(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--import", help="Take answers paid for elsewhere into the ledger, from this JSONL file; ask nothing."
        ),
    ] = None,
    imported_from: Annotated[
        str | None, typer.Option(help="With --import: who gave them, where their lines do not say it.")
    ] = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Ask by the provider's Batch API: cheaper, answered within a day. Run it again to go on after an interruption.",
        ),
    ] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up",
            help="With --batch: what an ended batch has answered and the provider does not give is counted as failed, and asked again "
            "by the next run.",
        ),
    ] = False,
    only_gold: Annotated[
        bool,
        typer.Option(
            "--gold", help="Ask about gold alone, and print how right the teacher is, before the rest is paid for."
        ),
    ] = False,
    max_usd: MaxUsd = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how much is to be asked, and its price; ask nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have the teacher label the queries, and gold for the benchmark: ledger.jsonl."""
    from dataclasses import asdict

    from distill import pipeline

    loaded = load(spec, teacher_model, base_url)
    if answers is not None:
        if batch or dry_run or only_gold or max_usd is not None:
            raise typer.BadParameter(
                "goes without --batch, --dry-run, --gold and --max-usd: it asks nothing", param_hint="--import"
            )
        _import_answers(loaded, answers, imported_from, as_json=as_json)
        return
    if imported_from is not None:
        raise typer.BadParameter("goes with --import", param_hint="--imported-from")
    if give_up and not batch:
        raise typer.BadParameter("goes with --batch", param_hint="--give-up")
    loaded = pipeline.limited(loaded, usd(max_usd), batch=batch)
    if dry_run:
        plan = pipeline.plan_label(loaded, batch=batch, only_gold=only_gold)
        _print_label_plan(plan, loaded, batch=batch, as_json=as_json)
        return
    summary = pipeline.label(loaded, batch=batch, give_up=give_up, only_gold=only_gold, show_progress=not quiet)
    judged = pipeline.judge_teacher(loaded) if only_gold and summary.n_failed < summary.n_texts else None
    if as_json:
        print_json(asdict(summary) | _judged_as_json(judged))
    else:
        _print_labels(summary, loaded, judged)
    if summary.n_texts and summary.n_failed == summary.n_texts:
        if loaded.labels_path is not None:
            from distill.teacher.imported import why_unlabelled

            raise DataError(why_unlabelled(loaded))
        raise TeacherError(f"no query has a label: every answer failed, {loaded.ledger_path} says why")


def _import_answers(loaded: Spec, answers: Path, imported_from: str | None, *, as_json: bool) -> None:
    from dataclasses import asdict

    from distill import pipeline

    imported = pipeline.import_answers(loaded, answers, teacher=imported_from)
    if as_json:
        print_json(asdict(imported))
    else:
        _print_import(imported, loaded, answers)


def _judged_as_json(judged: BenchResult | None) -> dict[str, Any]:
    from distill.benchmark.results import result_as_json

    return {} if judged is None else {"gold": result_as_json(judged)}


def _print_labels(summary: LabelSummary, loaded: Spec, judged: BenchResult | None) -> None:
    if loaded.labels_path is not None:
        n_unlabelled = f", {summary.n_failed} without a label" if summary.n_failed else ""
        typer.echo(f"{summary.n_texts} queries{n_unlabelled}; {summary.n_asked} labels taken from {loaded.labels_path}")
        return
    typer.echo(f"{summary.n_texts} queries, {summary.n_recorded} answered before, {summary.n_failed} failed")
    typer.echo(_spent(summary.n_asked, summary.spent_usd))
    if judged is not None:
        from distill.benchmark.table import print_teacher

        print_teacher(judged)


def _print_label_plan(plan: LabelPlan, spec: Spec, *, batch: bool, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json(asdict(plan))
        return
    in_flight = f", {plan.n_in_flight} in flight already" if plan.n_in_flight else ""
    how = f"{_labelled(plan)}{in_flight}, by {spec.teacher_name}{' in batches' if batch else ''}"
    _print_stage("label", how, plan.estimated_usd if plan.n_missing else 0, plan.most_usd if plan.n_missing else None)
    if plan.n_missing:
        typer.echo(_total([plan], spec, batch=batch))
        say_why_a_range("label", plan.most_usd)
        _say_obstacles("label", [plan])
        _say_what_logprobs_decide("label", spec)
    else:
        typer.echo("Nothing is to be asked, and nothing was.")


def _print_import(summary: ImportSummary, spec: Spec, file: Path) -> None:
    from distill.teacher.imported import say_contradictions

    whence = ", ".join(f"{count} by {name}" for name, count in summary.teachers.items())
    typer.echo(
        f"{summary.n_answers} answers ({whence}): {summary.n_added} added to {spec.ledger_path}, {summary.n_known} there already"
    )
    if summary.n_kept:
        say(
            f"label: answers of {file} left out: {summary.n_kept}; the ledger has another one that was given later, or that "
            f"`distill audit --relabel` decided, and it stands"
        )
    if summary.n_repeated:
        say(f"label: lines whose text stands again further down: {summary.n_repeated}; the last answer counts")
    say_contradictions(file, summary.contradictions)
    if summary.n_failed:
        say(f"label: lines without an answer or a text, passed over: {summary.n_failed}")
    if summary.n_missing is None:
        say(f"label: there are no queries yet; `queries: FILE` in {spec.path} may name that same file")
    elif summary.n_missing:
        say(f"label: queries without an answer: {summary.n_missing}; {spec.command('label')} asks the teacher")
    if summary.n_elsewhere:
        say(
            f"label: answers to texts that are no queries of {spec.queries_path}, and are not used: {summary.n_elsewhere}"
        )


def _spent(n_asked: int, spent_usd: Any) -> str:
    spent = "unknown (the price or the token counts are not known)" if spent_usd is None else f"{spent_usd:.4f}"
    return f"{n_asked} requests in this run; USD spent so far: {spent}"


def train(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    student: Annotated[list[str] | None, typer.Option(help="Train only this student (may be repeated).")] = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the students on the labels and export them: models/NAME/STUDENT."""
    from distill import pipeline

    loaded = load(spec, teacher_model, base_url)
    bundles = pipeline.train(loaded, out=out, students=student or None, force=force, show_progress=not quiet)
    if not is_first_process():
        return
    if as_json:
        print_json({name: bundle.manifest.as_dict() | {"path": str(bundle.path)} for name, bundle in bundles.items()})
        return
    for name, bundle in bundles.items():
        typer.echo(f"{name:<8} {bundle.path}  {bundle.size_bytes / 1e6:.1f} MB  {bundle.manifest.bundle_id}")


def bench(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    price_as: Annotated[
        str | None, typer.Option(help="Show what the teacher's tokens would cost as this model.")
    ] = None,
    check: Check = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure teacher, students and baselines on gold: bench.json."""
    from distill import pipeline
    from distill.benchmark.results import result_as_json
    from distill.benchmark.table import print_result

    loaded = load(spec, teacher_model, base_url)
    outcome = pipeline.bench(loaded, out=out, price_as=price_as, force=force, show_progress=not quiet)
    if as_json:
        print_json(result_as_json(outcome.result))
    else:
        print_result(outcome.result)
    if check:
        _check_gates(outcome.result, "bench")


def _check_gates(result: BenchResult, command: str) -> None:
    from distill.pipeline import broken_gates

    for gate in result.gates:
        if gate.passed is None:
            say(f"{command}: {gate.row} {gate.gate} {gate.detail}")
    if broken := broken_gates(result):
        raise GateError("; ".join(f"{gate.row} breaks {gate.gate}: {gate.detail}" for gate in broken))


def report(
    spec: SpecPath = DEFAULT_SPEC,
    out: Out = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the text of queries out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write report.html from bench.json, and report.md for pull requests."""
    from distill import pipeline

    path = pipeline.report(load(spec), out=out, with_text=not no_text)
    if as_json:
        print_json({"report": str(path)})
    else:
        typer.echo(path)


def run(
    spec: SpecPath = DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    max_usd: MaxUsd = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is to be done, the requests and their price; ask nothing.")
    ] = False,
    check: Check = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """All stages: synth, label, train, bench, report. Does only what is left to do."""
    from distill import pipeline
    from distill.benchmark.results import result_as_json
    from distill.benchmark.table import print_result

    if dry_run and check:
        raise typer.BadParameter("goes without --dry-run, which measures nothing", param_hint="--check")
    loaded = pipeline.limited(load(spec, teacher_model, base_url), usd(max_usd))
    if dry_run:
        _print_plan(pipeline.plan(loaded, out=out), loaded, as_json=as_json)
        return
    outcome = pipeline.run(loaded, out=out, show_progress=not quiet)
    if as_json:
        stages = [
            {"stage": s.stage, "changed": s.changed, "detail": s.detail, "seconds": round(s.seconds, 1)}
            for s in outcome.stages
        ]
        print_json({"stages": stages, "result": result_as_json(outcome.result), "report": str(outcome.report)})
    else:
        print_result(outcome.result)
        typer.echo(f"\nreport: {outcome.report}")
        if not outcome.changed:
            say("nothing had to be done: every stage is up to date")
    if check:
        _check_gates(outcome.result, "run")


def _print_plan(plan: RunPlan, spec: Spec, *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        value = asdict(plan) | {"estimated_usd": plan.estimated_usd, "most_usd": plan.most_usd}
        if plan.synth is not None:
            value["synth"] = _synthesis_as_json(plan.synth)
        print_json(value)
        return
    teacher = spec.teacher_name
    if plan.synth is not None:
        _print_synthesis(plan.synth)
    else:
        _print_stage("synth", f"not needed: queries come from {spec.queries_path}", 0)
    _print_stage("label", f"{_labelled(plan.label)}, by {teacher}", plan.label.estimated_usd, plan.label.most_usd)
    _print_stage("train", _trained(plan), 0)
    _print_stage("bench", _with_due(f"{plan.out / 'bench.json'}", plan.bench), 0)
    _print_stage("report", _with_due(f"{plan.out / 'report.html'}", plan.report), 0)
    if plan.is_done:
        typer.echo("Nothing is to be done: every stage is up to date. Nothing was asked.")
        return
    plans: list[LabelPlan | SynthesisPlan] = [*([plan.synth] if plan.synth else []), plan.label]
    if not any(each.n_missing for each in plans):
        typer.echo("Nothing is to be asked, and nothing was.")
        return
    typer.echo(_total(plans, spec))
    say_why_a_range("run", plan.most_usd)
    _say_obstacles("run", plans)
    _say_what_logprobs_decide("run", spec)


def _say_obstacles(command: str, plans: Sequence[LabelPlan | SynthesisPlan]) -> None:
    for obstacle in dict.fromkeys(obstacle for plan in plans for obstacle in plan.obstacles):
        say(f"{command}: would stop before anything is asked: {obstacle}")


def _say_what_logprobs_decide(command: str, spec: Spec) -> None:
    """Which models give any is known only once one was asked, and a mixture is nothing without them."""
    if spec.teacher.logprobs and spec.task.is_mixture:
        say(
            f"{command}: the weights are the log-probabilities of {spec.teacher_name}: of a model that gives none, such as one that "
            "reasons, each answer is one channel with all the weight"
        )


def _total(plans: Sequence[LabelPlan | SynthesisPlan], spec: Spec, *, batch: bool = False) -> str:
    """What all of it would cost, beside the limit."""
    from distill.teacher.spend import FREE, Estimate

    asking = [plan for plan in plans if plan.n_missing]
    costs = [Estimate(plan.estimated_usd, plan.most_usd) for plan in asking]
    priced = [cost for cost in costs if cost.usd is not None]
    total, known = sum(costs, FREE), sum(priced, FREE)
    limit = limit_left(spec, known.usd, known.most_usd, is_priced=bool(priced), batch=batch)
    sources = dict.fromkeys(f"{plan.price.source}, {plan.price.date}" for plan in asking if plan.price)
    source = f"; price: {' and '.join(sources)}" if sources else ""
    return f"USD {estimated(total.usd, total.most_usd)}; {limit}{source}. Nothing was asked."


def _labelled(plan: LabelPlan) -> str:
    n_missing, n_texts, n_samples = plan.n_missing, plan.n_texts, plan.n_samples
    n_elsewhere = plan.n_under_other_intents
    elsewhere = f" ({n_elsewhere} answered under other intents: `distill carry` may keep that)" if n_elsewhere else ""
    elsewhere += f" ({plan.n_read_anew} recorded answers to be read anew)" if plan.n_read_anew else ""
    if n_samples == 1:
        return f"{n_missing} of {n_texts} queries to label{elsewhere}"
    return f"{n_missing} answers to ask for {n_texts} queries, {n_samples} each (gold: one){elsewhere}"


def _trained(plan: RunPlan) -> str:
    """The students, together where the same holds for them."""
    parts = []
    for due in dict.fromkeys(plan.train.values()):
        students = [student for student, own in plan.train.items() if own is due]
        parts.append(_with_due(f"{', '.join(students)} into {plan.out}", due))
    return "; ".join(parts)


def _with_due(what: str, due: Due) -> str:
    from distill.pipeline import Due

    return what if due is Due.YES else f"{what}: {due.value}"


def _print_stage(stage: str, detail: str, usd: Any, most_usd: Any = None) -> None:
    price = "" if usd == 0 else f", USD {estimated(usd, most_usd)}"
    typer.echo(f"{stage:<7} {detail}{price}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands, in the order in which ``--help`` lists them."""
    for command in (synth, label, train, bench, report, run):
        app.command()(command)
