"""The command line: parses, calls, prints. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import io
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from distill import __version__
from distill.errors import DistillError, GateError, missing_extra
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distill.pipeline import RunPlan
    from distill.spec import Spec
    from distill.types import Prediction

__all__ = ["app", "main"]

_INTERRUPTED = 130
_ANSWER_WIDTH = 24
_LINES_AT_A_TIME = 1024


class _Group(TyperGroup):
    """Turns what a user can cause or mend into one line and exit 1, and Ctrl-C into exit 130."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes ``--debug`` after the command's name too: that is where one adds it to a command that failed."""
        own = args[: args.index("--")] if "--" in args else args
        if "--debug" in own:
            args = ["--debug", *(each for each in own if each != "--debug"), *args[len(own) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("distill: interrupted; everything received is kept, the same command goes on where it stopped")
            raise typer.Exit(_INTERRUPTED) from None
        except (DistillError, ModuleNotFoundError, OSError) as error:
            line = _line_for(error)
            if line is None or ctx.params.get("debug"):
                raise
            say(f"distill: {line}")
            raise typer.Exit(1) from error


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
    help="Turns an LLM prompt that routes queries to intents into a small router, and proves that it is as good.",
)

SpecPath = Annotated[Path, typer.Argument(help="router.yaml, or the folder that holds it.")]
TeacherModel = Annotated[str | None, typer.Option(help="Takes the place of teacher.model.")]
BaseUrl = Annotated[str | None, typer.Option(help="Takes the place of teacher.base_url.")]
Out = Annotated[Path | None, typer.Option(help="Folder for models, bench.json and report.html [models/NAME].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print each answer as one line of JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again, even where nothing has changed.")]

_DEFAULT_SPEC = Path("router.yaml")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del debug, version  # read from the context, and by the callback


def _load(path: Path, teacher_model: str | None = None, base_url: str | None = None) -> Spec:
    from distill.spec import load_spec

    return load_spec(path, teacher_model=teacher_model, base_url=base_url)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_as_json))


def _as_json(value: Any) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)


@app.command()
def synth(
    spec: SpecPath = _DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have a model write queries for each intent: queries.jsonl."""
    from dataclasses import asdict

    from distill import pipeline

    summary = pipeline.synth(_load(spec, teacher_model, base_url), show_progress=not quiet)
    if as_json:
        _print_json(asdict(summary))
        return
    width = max(map(len, summary.wanted))
    for target, wanted in summary.wanted.items():
        dropped = summary.dropped.get(target, 0)
        note = f", {dropped} repeated or unusable left out" if dropped else ""
        typer.echo(f"{target:<{width}}  {summary.got[target]:>5} of {wanted}{note}")
    typer.echo(_spent(summary.n_asked, summary.spent_usd))


@app.command()
def label(
    spec: SpecPath = _DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have the teacher label the queries, and gold for the benchmark: ledger.jsonl."""
    from dataclasses import asdict

    from distill import pipeline

    summary = pipeline.label(_load(spec, teacher_model, base_url), show_progress=not quiet)
    if as_json:
        _print_json(asdict(summary))
        return
    typer.echo(f"{summary.n_texts} queries, {summary.n_recorded} answered before, {summary.n_failed} failed")
    typer.echo(_spent(summary.n_asked, summary.spent_usd))


def _spent(n_asked: int, spent_usd: Any) -> str:
    spent = "unknown (the price or the token counts are not known)" if spent_usd is None else f"{spent_usd:.4f}"
    return f"{n_asked} requests answered in this run; USD spent so far: {spent}"


@app.command()
def train(
    spec: SpecPath = _DEFAULT_SPEC,
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

    loaded = _load(spec, teacher_model, base_url)
    bundles = pipeline.train(loaded, out=out, students=student or None, force=force, show_progress=not quiet)
    if as_json:
        _print_json({name: bundle.manifest.as_dict() | {"path": str(bundle.path)} for name, bundle in bundles.items()})
        return
    for name, bundle in bundles.items():
        typer.echo(f"{name:<8} {bundle.path}  {bundle.size_bytes / 1e6:.1f} MB  {bundle.manifest.bundle_id}")


@app.command()
def bench(
    spec: SpecPath = _DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    price_as: Annotated[
        str | None, typer.Option(help="Show what the teacher's tokens would cost as this model.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when a gate is broken.")] = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure teacher, students and baselines on gold: bench.json."""
    from distill import pipeline
    from distill.benchmark.results import result_as_json
    from distill.benchmark.table import print_result

    loaded = _load(spec, teacher_model, base_url)
    outcome = pipeline.bench(loaded, out=out, price_as=price_as, force=force, show_progress=not quiet)
    if as_json:
        _print_json(result_as_json(outcome.result))
    else:
        print_result(outcome.result)
    broken = pipeline.broken_gates(outcome.result)
    if check and broken:
        raise GateError("; ".join(f"{gate.row} breaks {gate.gate}: {gate.detail}" for gate in broken))


@app.command()
def report(
    spec: SpecPath = _DEFAULT_SPEC,
    out: Out = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the text of queries out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write report.html from bench.json."""
    from distill import pipeline

    path = pipeline.report(_load(spec), out=out, with_text=not no_text)
    if as_json:
        _print_json({"report": str(path)})
    else:
        typer.echo(path)


@app.command()
def run(
    spec: SpecPath = _DEFAULT_SPEC,
    teacher_model: TeacherModel = None,
    base_url: BaseUrl = None,
    out: Out = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the stages, the requests and their price; ask nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """All stages: synth, label, train, bench, report. Does only what is left to do."""
    from distill import pipeline
    from distill.benchmark.results import result_as_json
    from distill.benchmark.table import print_result

    loaded = _load(spec, teacher_model, base_url)
    if dry_run:
        _print_plan(pipeline.plan(loaded, out=out), loaded, as_json=as_json)
        return
    outcome = pipeline.run(loaded, out=out, show_progress=not quiet)
    if as_json:
        stages = [
            {"stage": s.stage, "changed": s.changed, "detail": s.detail, "seconds": round(s.seconds, 1)}
            for s in outcome.stages
        ]
        _print_json({"stages": stages, "result": result_as_json(outcome.result), "report": str(outcome.report)})
        return
    print_result(outcome.result)
    typer.echo(f"\nreport: {outcome.report}")
    if not outcome.changed:
        say("nothing had to be done: every stage is up to date")


def _print_plan(plan: RunPlan, spec: Spec, *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        value = asdict(plan) | {"estimated_usd": plan.estimated_usd}
        if plan.synth is not None:
            del value["synth"]["recorded"]  # texts: they stand in synth.jsonl
        _print_json(value)
        return
    teacher = spec.teacher_name
    if plan.synth is not None:
        _print_stage(
            "synth",
            f"{plan.synth.n_missing} queries to write, about {plan.synth.n_requests} requests",
            plan.synth.estimated_usd,
        )
    else:
        _print_stage("synth", f"not needed: queries come from {spec.queries_path}", 0)
    detail = f"{plan.label.n_missing} of {plan.label.n_texts} queries to label, by {teacher}"
    _print_stage("label", detail, plan.label.estimated_usd)
    _print_stage("train", f"{', '.join(plan.students)} into {plan.out}", 0)
    _print_stage("bench", f"{plan.out / 'bench.json'}", 0)
    _print_stage("report", f"{plan.out / 'report.html'}", 0)
    total = "unknown" if plan.estimated_usd is None else f"about {plan.estimated_usd:.4f}"
    limit = "none" if spec.teacher.max_usd is None else f"{spec.teacher.max_usd}"
    if spec.teacher.max_usd is not None and plan.label.price is None:
        limit += " cannot be kept without a price"
    source = f"; price: {plan.label.price.source}, {plan.label.price.date}" if plan.label.price else ""
    typer.echo(f"USD {total}, limit {limit} (teacher.max_usd){source}. Nothing was asked.")


def _print_stage(stage: str, detail: str, usd: Any) -> None:
    price = "" if usd == 0 else f", USD {'unknown' if usd is None else f'about {usd:.4f}'}"
    typer.echo(f"{stage:<7} {detail}{price}")


@app.command()
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


@app.command()
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
        _print_json(facts)
    else:
        for name, value in facts.items():
            shown = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
            typer.echo(f"{name:<16} {'-' if value in ('', None) else shown}")
    if check is not None and not check.passed:
        raise BundleError(
            f"{bundle}: the self-check fails on this processor: {check.n_label_flips} of {check.n} answers differ, "
            f"{check.n_token_mismatches} are tokenised otherwise, logits differ by up to {check.max_abs_difference:.3g}"
        )


def main() -> None:
    """Entry point of the command ``distill``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # queries hold what no code page of Windows has
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    app()
