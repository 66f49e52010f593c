"""The benchmark: teacher, students and baselines over the same queries, by one harness. Read this file first.

``run_bench`` gathers the rows, asks each for its answers, times each, and puts the figures together. What a figure means
stands in ``metrics``, how far it can be trusted in ``statistics``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.benchmark.baselines import fit_majority, fit_tfidf
from distill.benchmark.cost import CostInputs, as_number, cost_summary, machine_usd_per_1k, teacher_usd_per_1k
from distill.benchmark.gates import judge_gates
from distill.benchmark.latency import (
    ROUNDS,
    Latency,
    cold_start,
    environment,
    measure_latency,
    measure_throughput,
    one_thread,
)
from distill.benchmark.metrics import NO_INTENT, Answers, Gold, fidelity_figures, gold_figures, right
from distill.benchmark.statistics import compare_paired
from distill.data import leaked
from distill.errors import DataError
from distill.progress import Progress
from distill.router import Router
from distill.types import OUT_OF_SCOPE_LABEL, BenchResult, BenchRow, Prediction, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from distill.benchmark.recorded import RecordedTeacher
    from distill.benchmark.statistics import Comparison
    from distill.types import Classifier, Example, GoldQuery

__all__ = ["BenchInputs", "run_bench"]

_TEACHER = "teacher"
_STUDENTS = ("encoder", "static")
_FIGURES_OF_SCORES = ("oos_auroc", "ece")
_WORST_PAIRS = 8
_DISAGREEMENTS = 50


@dataclass(frozen=True, slots=True)
class BenchInputs:
    """What is measured, on what, and against which limits.

    Attributes:
        name: The router's name.
        task: What a label means.
        labels: All labels; ``oos``, where there is one, is last.
        gold: Human-labelled queries. Empty: fidelity alone is measured, on the held-out examples.
        bundles: Folder of each student, by row name.
        training: Labelled queries that the baselines are fitted on, held-out ones included.
        teacher: The teacher's recorded answers, or None.
        gates: Limits by row and gate; None is no limit.
        cost: Prices and volume.
        provenance: Hashes, versions and the like, passed on as they are.
        seed: Of the baselines' split.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    gold: tuple[GoldQuery, ...]
    bundles: Mapping[str, Path]
    training: tuple[Example, ...]
    teacher: RecordedTeacher | None = None
    gates: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    cost: CostInputs = field(default_factory=CostInputs)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def queries(self) -> tuple[str, ...]:
        """What every row is asked: gold, or without gold the held-out queries."""
        return tuple(query.text for query in self.gold) or tuple(e.text for e in self.training if e.split != "train")


@dataclass(frozen=True, slots=True, eq=False)
class _Contestant:
    """A classifier that runs here, and so is timed here: a student or a baseline."""

    name: str
    classifier: Classifier
    route: Callable[[str], Prediction]
    size_mb: float
    bundle: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What one row answered and how fast: ``speed`` holds fields of ``BenchRow``."""

    name: str
    predictions: Sequence[Prediction]
    answers: Answers
    speed: Mapping[str, Any]
    notes: Mapping[str, Any]
    usd_per_1k: Decimal | None


def run_bench(inputs: BenchInputs, *, show_progress: bool = True) -> BenchResult:
    """Measures every row on the same queries, on one thread.

    Args:
        inputs: What is measured, on what, and against which limits.
        show_progress: Whether to show progress on stderr.

    Raises:
        DataError: There is no query to measure on, or gold, teacher and bundles disagree about the labels.
        BundleError: A bundle cannot be loaded.
    """
    if not inputs.queries:
        raise DataError("nothing to measure on: there is no gold, and no labelled query was held out")
    gold = Gold.from_queries(inputs.gold, inputs.labels)
    machine = environment()
    measured = _measure_teacher(inputs) + _measure_local(inputs, show_progress=show_progress)
    comparisons = _compare(inputs.task, measured, gold)
    rows = tuple(_row(each, inputs, measured, gold, comparisons) for each in measured)
    tokens = inputs.teacher.tokens_per_query(inputs.queries) if inputs.teacher else None
    n_oos = int(gold.out_of_scope.sum()) if inputs.task is Task.SINGLE else 0
    return BenchResult(
        task=inputs.task,
        name=inputs.name,
        n_gold=len(inputs.gold),
        n_in_scope=len(inputs.gold) - n_oos,
        n_oos=n_oos,
        environment=machine,
        rows=rows,
        gates=judge_gates(inputs.gates, rows, comparisons),
        cost=cost_summary(inputs.cost, tokens, {each.name: each.usd_per_1k for each in measured}),
        provenance={**inputs.provenance, **_measured_on(inputs)},
        confusions=_confusions(measured, gold) if inputs.task is Task.SINGLE else (),
    )


def _measured_on(inputs: BenchInputs) -> dict[str, Any]:
    return {
        "measured_on": "gold" if inputs.gold else "held-out queries, without human labels",
        "n_queries": len(inputs.queries),
        "n_gold_in_training": len(leaked((example.text for example in inputs.training), inputs.gold)),
    }


def _measure_teacher(inputs: BenchInputs) -> list[_Measured]:
    """The teacher's row: everything from the ledger."""
    teacher = inputs.teacher
    if teacher is None:
        return []
    predictions = teacher.route_batch(inputs.queries)
    latencies_ms = teacher.latencies_ms(inputs.queries)
    speed = _latency_fields(Latency(latencies_ms[None, :])) if len(latencies_ms) else {}
    notes = {
        "model": teacher.name,
        "latency_source": "ledger: with other requests in flight, network and server included",
        "requests_in_flight": teacher.requests_in_flight,
        "recorded_between": teacher.recorded_between(inputs.queries),
    }
    answers = Answers.from_predictions(predictions, inputs.labels, teacher.failed(inputs.queries))
    tokens = teacher.tokens_per_query(inputs.queries)
    usd_per_1k = teacher_usd_per_1k(tokens, inputs.cost.teacher_price)
    return [_Measured(_TEACHER, predictions, answers, speed, notes, usd_per_1k)]


def _measure_local(inputs: BenchInputs, *, show_progress: bool) -> list[_Measured]:
    """The rows that run here, on one thread: answers first, then the clock."""
    queries = inputs.queries
    n_rows = len(inputs.bundles) + len(_BASELINES)
    with one_thread(), Progress("bench", n_rows * (ROUNDS + 3), unit="steps", show=show_progress) as progress:
        contestants = []
        for contestant in _contestants(inputs):
            contestants.append(contestant)
            progress.advance(note=f"{contestant.name} ready")
        predictions = {each.name: each.classifier.route_batch(queries) for each in contestants}
        progress.advance(n_rows, note="answered")
        latencies = measure_latency(
            {each.name: each.route for each in contestants},
            queries,
            after_block=lambda name: progress.advance(note=f"{name} timed"),
        )
        measured = []
        for each in contestants:
            speed = _latency_fields(latencies[each.name]) | _other_speed_fields(each, queries)
            measured.append(_measured(each, inputs, predictions[each.name], speed, latencies[each.name]))
            progress.advance(note=f"{each.name} done")
    return measured


def _contestants(inputs: BenchInputs) -> Iterator[_Contestant]:
    for name, folder in sorted(inputs.bundles.items()):
        router = Router.load(folder)
        yield _Contestant(name, router, router.route, router.bundle.size_bytes / 1e6, folder)
    for name, fit in _BASELINES.items():
        baseline = fit(inputs.training, inputs.labels, inputs.task, seed=inputs.seed)
        yield _Contestant(name, baseline, baseline.route, baseline.size_mb)


_BASELINES = {"tfidf": fit_tfidf, "majority": fit_majority}


def _measured(
    contestant: _Contestant,
    inputs: BenchInputs,
    predictions: Sequence[Prediction],
    speed: dict[str, Any],
    latency: Latency,
) -> _Measured:
    notes = {
        "latency_source": "measured: one call at a time, one thread",
        **{f"p{percent}_ms_by_round": latency.spread(percent) for percent in (50, 99)},
    }
    answers = Answers.from_predictions(predictions, inputs.labels)
    usd_per_1k = machine_usd_per_1k(inputs.cost.machine_usd_per_hour, speed["queries_per_s"])
    return _Measured(contestant.name, predictions, answers, speed, notes, usd_per_1k)


def _latency_fields(latency: Latency) -> dict[str, Any]:
    percentiles = {f"p{percent}_ms": latency.percentile(percent) for percent in (50, 95, 99)}
    return percentiles | {"latency_n": latency.n}


def _other_speed_fields(contestant: _Contestant, queries: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "queries_per_s": measure_throughput(contestant.classifier.route_batch, queries),
        "size_mb": contestant.size_mb,
    }
    if contestant.bundle is not None:
        start = cold_start(contestant.bundle)
        fields |= {"cold_start_ms": start.cold_start_ms, "peak_rss_mb": start.peak_rss_mb}
    return fields


def _compare(task: Task, measured: Sequence[_Measured], gold: Gold) -> dict[str, Comparison]:
    """Every row against the teacher on gold, paired; empty without gold or teacher."""
    if not len(gold.intent) or measured[0].name != _TEACHER:
        return {}
    teacher_right = right(task, measured[0].answers, gold)
    return {each.name: compare_paired(right(task, each.answers, gold), teacher_right) for each in measured[1:]}


def _row(
    each: _Measured,
    inputs: BenchInputs,
    measured: Sequence[_Measured],
    gold: Gold,
    comparisons: Mapping[str, Comparison],
) -> BenchRow:
    figures = gold_figures(inputs.task, each.answers, gold)
    if each.name == _TEACHER and inputs.teacher is not None and not inputs.teacher.gives_scores:
        figures |= dict.fromkeys(_FIGURES_OF_SCORES)
    notes = dict(each.notes) | figures.pop("notes", {})
    if measured[0].name == _TEACHER and each.name != _TEACHER:
        figures |= fidelity_figures(inputs.task, each.answers, measured[0].answers)
    if comparison := comparisons.get(each.name):
        notes["against_teacher"] = {
            "drop": comparison.drop,
            "drop_ci95": comparison.drop_ci95,
            "mcnemar_p": comparison.p_value,
            "only_student_right": comparison.only_student,
            "only_teacher_right": comparison.only_teacher,
        }
    if each.name in _STUDENTS and measured[0].name == _TEACHER:
        notes["disagreements"] = _disagreements(inputs, each, measured[0])
    return BenchRow(
        name=each.name,
        n_failed=int(each.answers.failed.sum()),
        usd_per_1k=as_number(each.usd_per_1k),
        notes=notes,
        **figures,
        **each.speed,
    )


def _disagreements(inputs: BenchInputs, student: _Measured, teacher: _Measured) -> list[dict[str, Any]]:
    """Where student and teacher decide differently, the student's surest first."""
    targets = [_shown_gold(query, inputs.task) for query in inputs.gold]
    gold = targets or [None] * len(inputs.queries)
    failed = teacher.answers.failed.tolist()
    triples = zip(inputs.queries, gold, student.predictions, teacher.predictions, failed, strict=True)
    found: list[dict[str, Any]] = [
        {
            "text": text,
            "gold": target,
            "teacher": _shown(teachers, inputs.task),
            "teacher_score": teachers.score,
            "student": _shown(students, inputs.task),
            "student_score": students.score,
        }
        for text, target, students, teachers, teacher_failed in triples
        if not teacher_failed and _shown(students, inputs.task) != _shown(teachers, inputs.task)
    ]
    return sorted(found, key=lambda one: one["student_score"], reverse=True)[:_DISAGREEMENTS]


def _shown(prediction: Prediction, task: Task) -> str | None:
    """The decision in words; None for no intent."""
    return ", ".join(sorted(prediction.intents)) or None if task is Task.MULTI else prediction.intent


def _shown_gold(query: GoldQuery, task: Task) -> str | None:
    if task is Task.MULTI:
        return ", ".join(sorted(query.target)) or None
    return None if query.intent == OUT_OF_SCOPE_LABEL else query.intent


def _confusions(measured: Sequence[_Measured], gold: Gold) -> tuple[dict[str, Any], ...]:
    """The pairs of gold and decision that are mixed up most, for the teacher and each student."""
    names: dict[int, str | None] = {NO_INTENT: None, **dict(enumerate(gold.labels))}
    found: list[dict[str, Any]] = []
    for each in measured:
        if each.name in {_TEACHER, *_STUDENTS}:
            answered = ~each.answers.failed[: len(gold.intent)]
            decided = each.answers.intent[: len(gold.intent)]
            pairs = zip(gold.intent[answered].tolist(), decided[answered].tolist(), strict=True)
            worst = Counter((truth, answer) for truth, answer in pairs if truth != answer).most_common(_WORST_PAIRS)
            found += [
                {"row": each.name, "gold": names[truth], "answer": names[answer], "n": n}
                for (truth, answer), n in worst
            ]
    return tuple(found)
