"""The command inspect: what a bundle is, why it answered a query so, and how another one differs."""

from __future__ import annotations

import math
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.app import DEFAULT_SPEC, AsJson, load, plain, print_json
from distill.progress import say
from distill.types import OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.inspection import BundleDiff, Explanation, Neighbours
    from distill.router import Router
    from distill.selfcheck import SelfCheck
    from distill.types import BenchRow, Prediction

__all__ = ["add_to"]

_INDENT = 12
_SHOWN_LABELS = 60
_SHOWN_CHANGES = 20


def inspect(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle: models/NAME/STUDENT.")] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", help="Say why this query is answered as it is. May be repeated.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="With --query: the router.yaml it was made from, whose training queries are looked through."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Replay the self-check on this processor.")] = False,
    diff: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Two bundles: what differs between them.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="With --diff: ask both these queries (JSONL, or one a line), not those of their self-checks."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle is: labels, policy, figures, where it came from; or why it answers so, or how two differ."""
    from distill.router import Router

    _check_usage(bundle, query, spec, diff, queries, verify=verify)
    if diff is not None:
        _inspect_two(diff, queries, as_json=as_json)
        return
    router = Router.load(bundle or Path())
    facts: dict[str, Any] = router.manifest.as_dict() | {"missing_files": [*router.bundle.missing]}
    check = _verify(router) if verify else None
    if check is not None:
        facts["selfcheck"] = _check_as_dict(check)
    explained = _explain(router, query, spec) if query else []
    if explained:
        facts["queries"] = [each.as_dict() for each in explained]
    if as_json:
        print_json(facts)
    elif explained:
        for each in explained:
            _print_explanation(each)
    else:
        _print_bundle(router, check)
    if check is not None and not check.passed:
        _fail(router, check)


def _check_usage(
    bundle: Path | None,
    query: list[str] | None,
    spec: Path | None,
    diff: tuple[Path, Path] | None,
    queries: Path | None,
    *,
    verify: bool,
) -> None:
    if (bundle is None) == (diff is None):
        raise typer.BadParameter("give a bundle, or --diff OLD NEW", param_hint="BUNDLE")
    if diff is not None and (query or spec or verify):
        raise typer.BadParameter("goes with a bundle alone: no --query, --spec or --verify", param_hint="--diff")
    if queries is not None and diff is None:
        raise typer.BadParameter("goes with --diff; --query TEXT explains an answer", param_hint="--queries")
    if spec is not None and not query:
        raise typer.BadParameter("goes with --query", param_hint="--spec")


# --- one bundle ------------------------------------------------------------------------------------------------------


def _verify(router: Router) -> SelfCheck:
    from distill.selfcheck import verify_selfcheck

    return verify_selfcheck(router)


def _check_as_dict(check: SelfCheck) -> dict[str, Any]:
    return {
        "n": check.n,
        "n_token_mismatches": check.n_token_mismatches,
        "n_label_flips": check.n_label_flips,
        "max_abs_difference": check.max_abs_difference if math.isfinite(check.max_abs_difference) else None,
        "passed": check.passed,
    }


def _fail(router: Router, check: SelfCheck) -> None:
    from distill.errors import BundleError

    raise BundleError(
        f"{router.bundle.path}: the self-check fails on this processor: {check.n_label_flips} of {check.n} answers differ, "
        f"{check.n_token_mismatches} are tokenised otherwise, logits differ by up to {check.max_abs_difference:.3g}"
    )


def _print_bundle(router: Router, check: SelfCheck | None) -> None:
    from distill.inspection import measured, policy_in_words

    manifest, bundle = router.manifest, router.bundle
    _print("bundle", f"{manifest.name}, {manifest.student} student, task {manifest.task.value}")
    _print("", f"{bundle.path}, id {manifest.bundle_id}, made {manifest.created_at}")
    _print("labels", _labels(manifest.labels, "channels" if manifest.task is Task.WEIGHTS else "intents"))
    _print("policy", policy_in_words(router.policy))
    _print(
        "runs",
        f"{manifest.onnx_file} and tokenizer.json, {bundle.size_bytes / 1e6:.1f} MB; reads {manifest.max_length} tokens",
    )
    if bundle.missing:
        _print("", f"{', '.join(bundle.missing)} is not here; the Router does not need it")
    _print("held out", _held_out(manifest.figures))
    row = measured(bundle)
    if row is not None:
        _print("benchmark", _bench_figures(row))
    _print("teacher", manifest.teacher or "-")
    parent = f"; improves upon {manifest.parent}" if manifest.parent else ""
    _print(
        "made from",
        f"data {_short(manifest.data_sha256)}, prompt {_short(manifest.prompt_sha256)}, recipe {_short(manifest.recipe_sha256)}, seed {manifest.seed}{parent}",
    )
    _print("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items()) or "-")
    if check is not None:
        verdict = "passed" if check.passed else "FAILED"
        _print(
            "self-check",
            f"{verdict} on this processor: {check.n} texts, {check.n_label_flips} answered otherwise, "
            f"{check.n_token_mismatches} tokenised otherwise, logits within {check.max_abs_difference:.2g}",
        )


def _print(title: str, content: str) -> None:
    """A title, and its content wrapped beside it."""
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 120)) - _INDENT
    lines = textwrap.wrap(plain(content), width, break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        typer.echo(f"{title if number == 0 else '':<{_INDENT}}{line}".rstrip())


def _labels(labels: tuple[str, ...], are: str) -> str:
    names = [name for name in labels if name != OUT_OF_SCOPE_LABEL]
    fits_none = f", and {OUT_OF_SCOPE_LABEL} for what fits none" if len(names) < len(labels) else ""
    more = f" and {len(names) - _SHOWN_LABELS:,} more (--json lists them)" if len(names) > _SHOWN_LABELS else ""
    return f"{len(names):,} {are}{fits_none}: {', '.join(names[:_SHOWN_LABELS])}{more}"


def _short(sha256: str) -> str:
    return sha256[:12] or "-"


_HELD_OUT = {
    "held_out_agreement": "agreement with the teacher",
    "held_out_micro_f1": "micro-F1 against the teacher",
    "held_out_ece": "calibration error",
    "held_out_nll": "log loss",
}


def _held_out(figures: Mapping[str, Any]) -> str:
    """What training measured on the queries that it held out, and what became of the smaller graph."""
    shown = [f"{words} {_number(figures[name])}" for name, words in _HELD_OUT.items() if name in figures]
    n_train, n_held_out = figures.get("n_train"), figures.get("n_held_out")
    put_right = f", {_number(figures['n_corrected'])} of their labels put right" if "n_corrected" in figures else ""
    trained_on = f"{_number(n_train)} were trained on{put_right}"
    parts = [f"{', '.join(shown)}, on {_number(n_held_out)} queries; {trained_on}"] if shown else []
    if "int8_flips" in figures:
        runs = "runs" if figures.get("int8_shipped") else "was refused"
        of = _number(figures.get("int8_flips_of"))
        parts.append(f"int8 {runs}: it answers {_number(figures['int8_flips'])} of {of} otherwise than fp32")
    return "; ".join(parts) or "no figures"


def _figures(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in figures.items())


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def _bench_figures(row: BenchRow) -> str:
    names = ("accuracy", "accuracy_policy", "fidelity", "oos_recall", "p50_ms", "p95_ms")
    known = {name: value for name in names if (value := getattr(row, name)) is not None}
    known |= {name: row.notes[name] for name in ("kl", "mae") if name in row.notes}
    return f"{_figures(known)} (bench.json)"


# --- a query ---------------------------------------------------------------------------------------------------------


def _explain(router: Router, texts: list[str], spec_path: Path | None) -> list[Explanation]:
    from distill.inspection import explain

    neighbours = _neighbours(router, spec_path)
    return [explain(router, text, neighbours) for text in texts]


def _neighbours(router: Router, spec_path: Path | None) -> Neighbours | None:
    """Of the training queries of the spec, or of a router.yaml here that has the bundle's name."""
    from distill import pipeline
    from distill.errors import DistillError
    from distill.inspection import Neighbours

    hint = "bundles hold no training queries; --spec router.yaml names whose are looked through"
    if spec_path is None and not DEFAULT_SPEC.exists():
        say(f"inspect: {hint}")
        return None
    try:
        spec = load(spec_path or DEFAULT_SPEC)
        if spec_path is None and spec.name != router.manifest.name:
            say(f"inspect: {hint}")
            return None
        examples, are_current = pipeline.trained_on(spec, router.bundle)
    except DistillError as error:
        if spec_path is not None:
            raise
        say(f"inspect: no training queries to look through: {error}")
        return None
    if not are_current:
        say(f"inspect: the labels of {spec.path} are others than this bundle was trained on")
    return Neighbours(examples, spec.labels)


def _print_explanation(explained: Explanation) -> None:
    prediction = explained.prediction
    _print("query", explained.text)
    _print("answer", f"{_answer(prediction)} ({prediction.reason.value})")
    _print("because", explained.because)
    if explained.is_cut:
        _print("", f"it is long: what lies behind {explained.n_tokens} tokens was not read")
    top = [(plain(name), score) for name, score in explained.top]
    width = max((len(name) for name, _ in top), default=0)
    for number, (name, score) in enumerate(top):
        typer.echo(f"{'scores' if number == 0 else '':<{_INDENT}}{name:<{width}}  {score:.3f}")
    for number, near in enumerate(explained.neighbours or ()):
        label = ", ".join(name if score > 0.995 else f"{name} {score:.2f}" for name, score in near.labels.items())  # noqa: PLR2004
        held_out = ", held out" if near.split == "held_out" else ""
        title = "nearest" if number == 0 else ""
        typer.echo(f"{title:<{_INDENT}}{near.similarity:.2f}  {plain(label) or '-'}{held_out}: {plain(near.text)}")
    if explained.neighbours == ():
        _print("nearest", "no training query has anything in common with it")
    typer.echo()


def _answer(prediction: Prediction) -> str:
    if prediction.weights is not None:
        return ", ".join(f"{name} {weight:.2f}" for name, weight in prediction.weights.items())
    return ", ".join(prediction.intents) or "none"


# --- two bundles -----------------------------------------------------------------------------------------------------


def _inspect_two(paths: tuple[Path, Path], queries: Path | None, *, as_json: bool) -> None:
    from distill.inspection import compare, read_texts
    from distill.router import Router

    old, new = map(Router.load, paths)
    texts = None if queries is None else read_texts(queries)
    found = compare(old, new, texts, "" if queries is None else str(queries))
    if as_json:
        print_json(found.as_dict())
    else:
        _print_diff(found, paths)


def _print_diff(found: BundleDiff, paths: tuple[Path, Path]) -> None:
    for title, path, manifest in zip(("old", "new"), paths, (found.old, found.new), strict=True):
        _print(
            title, f"{path}: {manifest.name}, {manifest.student}, id {manifest.bundle_id}, made {manifest.created_at}"
        )
    _print_pairs("facts", {name: pair for name, pair in found.facts.items() if not name.endswith("sha256")})
    hashes = [name.removesuffix("_sha256") for name in found.facts if name.endswith("sha256")]
    if hashes:
        _print("", f"made from another {', '.join(hashes)}")
    if found.labels_added or found.labels_removed:
        _print("labels", "; ".join(_changed_labels(found)))
    if found.policy:
        _print("policy", f"old: {found.policy[0]}")
        _print("", f"new: {found.policy[1]}")
    _print_pairs("figures", found.figures)
    _print("answers", f"{len(found.changes):,} of {found.n_texts:,} changed, on the texts of {found.source}")
    for change in found.changes[:_SHOWN_CHANGES]:
        typer.echo(f"{'':<{_INDENT}}{plain(f'{_scored(change.old)} -> {_scored(change.new)}: {change.text}')}")
    if len(found.changes) > _SHOWN_CHANGES:
        _print("", f"and {len(found.changes) - _SHOWN_CHANGES:,} more (--json lists them)")


def _changed_labels(found: BundleDiff) -> Iterable[str]:
    if found.labels_added:
        yield f"added {', '.join(found.labels_added)}"
    if found.labels_removed:
        yield f"removed {', '.join(found.labels_removed)}"


def _print_pairs(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    width = max(map(len, pairs), default=0)
    for number, (name, (old, new)) in enumerate(pairs.items()):
        start = f"{title if number == 0 else '':<{_INDENT}}{plain(name):<{width}}"
        typer.echo(f"{start}  {plain(_number(old))} -> {plain(_number(new))}")


def _scored(prediction: Prediction) -> str:
    if prediction.weights is not None or prediction.intents:
        return f"{_answer(prediction)} {prediction.score:.2f}"
    return f"none ({prediction.top_intent} {prediction.score:.2f})"


def add_to(app: typer.Typer) -> None:
    """Adds this command."""
    app.command()(inspect)
