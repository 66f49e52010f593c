"""The benchmark: teacher, students and baselines over the same queries, by one harness. Read this file first.

``run_bench`` gathers the rows, asks each for its answers, times each, and puts the figures together. What a figure means
stands in ``metrics``, what a score is worth in ``scores``, how far a figure can be trusted in ``statistics``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.benchmark.baselines import fit_majority, fit_tfidf
from distill.benchmark.cascade_curve import CascadeInputs, cascade_curve
from distill.benchmark.cost import CostInputs, as_number, cost_summary, machine_usd_per_1k, teacher_usd_per_1k
from distill.benchmark.gates import judge_gates
from distill.benchmark.intents import confusions, intent_figures
from distill.benchmark.latency import (
    ROUNDS,
    Latency,
    LoadWatch,
    cold_start,
    environment,
    is_loaded,
    measure_latency,
    measure_throughput,
    one_thread,
)
from distill.benchmark.leakage import find_leakage
from distill.benchmark.metrics import Answers, Gold, fidelity_figures, gold_figures, right
from distill.benchmark.scores import reliability, risk_coverage, score_figures
from distill.benchmark.statistics import compare_paired
from distill.cascade import DECLINED
from distill.data import as_known
from distill.errors import DataError
from distill.policy import confidence, decide_differently
from distill.progress import Progress, say
from distill.router import Router
from distill.types import OUT_OF_SCOPE_LABEL, BenchResult, BenchRow, Prediction, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from distill.benchmark.cost import TokensPerQuery
    from distill.benchmark.recorded import RecordedTeacher
    from distill.benchmark.statistics import Comparison
    from distill.types import Classifier, Example, GoldQuery

__all__ = ["BenchInputs", "judge_recorded", "priced_again", "run_bench"]

_TEACHER = "teacher"
_WITH_EVIDENCE = "teacher+evidence"
_FIGURES_OF_SCORES = ("oos_auroc", "oos_auroc_ci95")
_DISAGREEMENTS = 50
_LEAST_WEIGHT = 0.005
_NAMED_TEXTS = 5


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
        with_evidence: The same combined with what was shown to the teacher, where that is what trained the students.
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
    with_evidence: RecordedTeacher | None = None
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
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What one row answered and how fast: ``speed`` holds fields of ``BenchRow``.

    Attributes:
        gives_scores: Whether its scores say more than which label is best.
        right: bool array of shape (n_gold,): what ``accuracy_policy`` counts as right.
        samples_ms: Latency of each timed or recorded call: float64 array of shape (n_calls,).
    """

    name: str
    predictions: Sequence[Prediction]
    answers: Answers
    right: npt.NDArray[np.bool_]
    samples_ms: npt.NDArray[np.float64]
    speed: Mapping[str, Any]
    notes: Mapping[str, Any]
    usd_per_1k: Decimal | None
    gives_scores: bool = True


def run_bench(inputs: BenchInputs, *, show_progress: bool = True) -> BenchResult:
    """Measures every row on the same queries, on one thread.

    Args:
        inputs: What is measured, on what, and against which limits.
        show_progress: Whether to show progress on stderr. A loaded machine is warned of in any case.

    Raises:
        DataError: There is no query to measure on, or gold, teacher and bundles disagree about the labels.
        BundleError: A bundle cannot be loaded.
    """
    if not inputs.queries:
        raise DataError("nothing to measure on: there is no gold, and no labelled query was held out")
    gold = Gold.from_queries(inputs.gold, inputs.labels)
    machine = environment()
    _say_contradictions(inputs.gold)
    local, busy_share = _measure_local(inputs, gold, show_progress=show_progress)
    machine |= {"busy_share_during": round(busy_share, 3), "loaded": machine["loaded"] or is_loaded(busy_share)}
    _warn_if_loaded(machine)
    measured = [*_measure_recorded(inputs, gold), *local]
    return _result(inputs, measured, gold, environment=machine, **_leakage_and_provenance(inputs, measured))


def judge_recorded(inputs: BenchInputs) -> BenchResult:
    """The teacher's recorded answers against gold, and nothing else: nothing is timed, and no student is needed.

    Args:
        inputs: With gold and a teacher; bundles and training queries are left aside.
    """
    gold = Gold.from_queries(inputs.gold, inputs.labels)
    return _result(inputs, _measure_recorded(inputs, gold), gold, environment={}, provenance=_about_gold(inputs))


def _result(inputs: BenchInputs, measured: Sequence[_Measured], gold: Gold, **facts: Any) -> BenchResult:
    """All figures of the rows; ``facts`` are those that do not come from them."""
    comparisons = _compare(measured, gold)
    rows = tuple(_row(each, inputs, measured, gold, comparisons) for each in measured)
    n_oos = int(gold.out_of_scope.sum()) if inputs.task.has_one_label else 0
    return BenchResult(
        task=inputs.task,
        name=inputs.name,
        n_gold=len(inputs.gold),
        n_in_scope=len(inputs.gold) - n_oos,
        n_oos=n_oos,
        rows=rows,
        gates=judge_gates(inputs.gates, rows, comparisons),
        cost=_cost(inputs, measured),
        **_by_intent_and_score(inputs, measured, gold),
        **facts,
    )


def _warn_if_loaded(machine: Mapping[str, Any]) -> None:
    if machine["loaded"]:
        share = max(machine["busy_share"], machine["busy_share_during"])
        say(
            f"bench: the machine was busy with other work ({100 * share:.0f} %): latencies measured here are too high; "
            "measure again with --force when it is idle"
        )


def _cost(inputs: BenchInputs, measured: Sequence[_Measured]) -> dict[str, Any]:
    tokens = inputs.teacher.tokens_per_query(inputs.queries) if inputs.teacher else None
    rates = {each.name: rate for each in measured if (rate := _one_by_one(each.speed)) is not None}
    usd_per_1k = {each.name: each.usd_per_1k for each in measured}
    return cost_summary(inputs.cost, tokens, usd_per_1k, rates, [each.name for each in measured if _is_student(each)])


def priced_again(result: BenchResult, inputs: BenchInputs) -> BenchResult:
    """The same figures, with the cost reckoned anew: what was spent since, and what the tokens would cost elsewhere.

    Args:
        result: Measured on these very inputs, but for ``cost.spent`` and ``cost.priced_as``.
        inputs: As for ``run_bench``.
    """
    tokens = inputs.teacher.tokens_per_query(inputs.queries) if inputs.teacher else None
    rates = {row.name: row.queries_per_s_by_batch["1"] for row in result.rows if row.queries_per_s_by_batch}
    usd_per_1k = {row.name: None if row.usd_per_1k is None else Decimal(str(row.usd_per_1k)) for row in result.rows}
    return replace(result, cost=cost_summary(inputs.cost, tokens, usd_per_1k, rates, sorted(inputs.bundles)))


def _one_by_one(speed: Mapping[str, Any]) -> float | None:
    """Queries a second where they come one at a time, as they do in production."""
    rate: float | None = speed.get("queries_per_s_by_batch", {}).get("1")
    return rate


def _is_student(each: _Measured) -> bool:
    return each.name in {"encoder", "static"}


def _by_intent_and_score(inputs: BenchInputs, measured: Sequence[_Measured], gold: Gold) -> dict[str, Any]:
    """What is broken down: by intent for teacher and students, by score for every row that gives scores."""
    if not len(gold.intent):
        return {}
    task = inputs.task
    shown = [each for each in measured if each.name in {_TEACHER, _WITH_EVIDENCE} or _is_student(each)]
    scored = [each for each in measured if each.gives_scores]
    curves = (risk_coverage(each.name, task, each.answers, gold) for each in scored)
    return {
        "confusions": tuple(one for each in shown for one in confusions(each.name, task, each.answers, gold)),
        "per_intent": tuple(one for each in shown for one in intent_figures(each.name, task, each.answers, gold)),
        "reliability": tuple(one for each in scored for one in reliability(each.name, task, each.answers, gold)),
        "risk_coverage": tuple(curve for curve in curves if curve is not None),
        "cascades": _cascades(inputs, measured),
    }


def _cascades(inputs: BenchInputs, measured: Sequence[_Measured]) -> dict[str, list[dict[str, Any]]]:
    """Each student with the teacher behind it, by row."""
    teacher = measured[0]
    if teacher.name != _TEACHER or inputs.teacher is None:
        return {}
    teacher_ms = inputs.teacher.latency_of_each_ms(inputs.queries)
    curves = {}
    for student in filter(_is_student, measured):
        curve = cascade_curve(
            CascadeInputs(
                confidence=confidence(student.answers.probabilities, inputs.task, student.answers.chosen).astype(
                    np.float64
                ),
                declined=np.asarray([prediction.reason in DECLINED for prediction in student.predictions]),
                student_right=student.right,
                teacher_right=teacher.right,
                teacher_failed=teacher.answers.failed,
                student_ms=student.samples_ms,
                teacher_ms=teacher_ms,
                teacher_usd_per_1k=teacher.usd_per_1k,
            )
        )
        curves[student.name] = [point.as_dict() for point in curve]
    return curves


def _leakage_and_provenance(inputs: BenchInputs, measured: Sequence[_Measured]) -> dict[str, Any]:
    training = [example.text for example in inputs.training]
    leakage = find_leakage(inputs.gold, training, {each.name: each.right for each in measured})
    return {
        "leakage": leakage,
        "provenance": {
            **inputs.provenance,
            "measured_on": "gold" if inputs.gold else "held-out queries, without human labels",
            "n_queries": len(inputs.queries),
            "n_gold_in_training": leakage.n_exact if leakage else 0,
            **_about_gold(inputs),
        },
    }


def _about_gold(inputs: BenchInputs) -> dict[str, Any]:
    """What gold says nothing of, says twice, and says in two ways."""
    found = {
        "labels_not_in_gold": _not_in_gold(inputs),
        "n_repeated_gold": len(inputs.gold) - len({as_known(query.text) for query in inputs.gold}),
        "n_contradicting_gold": len(_contradicting(inputs.gold)),
    }
    if inputs.task.is_mixture and inputs.gold:
        found["n_distinct_weights"] = len({tuple(sorted(query.target.items())) for query in inputs.gold})
    return found


def _contradicting(gold: Sequence[GoldQuery]) -> list[str]:
    """The texts that gold has with more than one label, as they are spelled first."""
    first: dict[str, GoldQuery] = {}
    known = ((first.setdefault(as_known(query.text), query), query) for query in gold)
    return list(dict.fromkeys(before.text for before, query in known if before.target != query.target))


def _say_contradictions(gold: Sequence[GoldQuery]) -> None:
    if texts := _contradicting(gold):
        shown = ", ".join(map(repr, texts[:_NAMED_TEXTS])) + (", ..." if len(texts) > _NAMED_TEXTS else "")
        say(
            f"bench: gold has {_texts(len(texts))} with more than one label ({shown}); nobody can be right about all of them"
        )


def _texts(n: int) -> str:
    return "1 text" if n == 1 else f"{n:,} texts"


def _not_in_gold(inputs: BenchInputs) -> list[str]:
    """Labels that no gold query has: how well a student knows these was not measured, and what it gives them counts as wrong."""
    known = {name for query in inputs.gold for name, score in query.target.items() if score}
    return [label for label in inputs.labels if label not in known] if inputs.gold else []


def _measure_recorded(inputs: BenchInputs, gold: Gold) -> list[_Measured]:
    """The teacher's rows: everything from the ledger."""
    found = []
    for name, teacher in ((_TEACHER, inputs.teacher), (_WITH_EVIDENCE, inputs.with_evidence)):
        if teacher is None:
            continue
        predictions = teacher.route_batch(inputs.queries)
        answers = Answers.from_predictions(predictions, inputs.labels, teacher.failed(inputs.queries))
        latencies_ms = teacher.latencies_ms(inputs.queries)
        tokens = teacher.tokens_per_query(inputs.queries)
        found.append(
            _Measured(
                name=name,
                predictions=predictions,
                answers=answers,
                right=_right(inputs.task, answers, gold),
                samples_ms=latencies_ms,
                speed=_latency_fields(Latency(latencies_ms[None, :])) if len(latencies_ms) else {},
                notes=_recorded_notes(teacher, inputs.queries, tokens),
                usd_per_1k=teacher_usd_per_1k(tokens, inputs.cost.teacher_price),
                gives_scores=teacher.gives_scores,
            )
        )
    return found


def _recorded_notes(teacher: RecordedTeacher, queries: Sequence[str], tokens: TokensPerQuery | None) -> dict[str, Any]:
    """What the teacher's latency is the latency of."""
    return {
        "model": teacher.name,
        "latency_source": "ledger: network and server included, beside the other requests in flight",
        "servers": teacher.servers(queries),
        "requests_in_flight": teacher.requests_in_flight(queries),
        "prompt_tokens": None if tokens is None else as_number(tokens.prompt),
        "cached_tokens": None if tokens is None else as_number(tokens.cached),
        "completion_tokens": None if tokens is None else as_number(tokens.completion),
        "recorded_between": teacher.recorded_between(queries),
    }


def _right(task: Task, answers: Answers, gold: Gold) -> npt.NDArray[np.bool_]:
    """As ``metrics.right``; without gold nothing is."""
    return right(task, answers, gold) if len(gold.intent) else answers.failed[:0]


def _measure_local(inputs: BenchInputs, gold: Gold, *, show_progress: bool) -> tuple[list[_Measured], float]:
    """The rows that run here, on one thread: answers first, then the clock. And how busy others kept the machine."""
    queries = inputs.queries
    n_rows = len(inputs.bundles) + len(_BASELINES)
    with one_thread(), Progress("bench", n_rows * (ROUNDS + 3), unit="steps", show=show_progress) as progress:
        contestants = []
        for contestant in _contestants(inputs):
            contestants.append(contestant)
            progress.advance(note=f"{contestant.name} ready")
        predictions = {each.name: each.classifier.route_batch(queries) for each in contestants}
        progress.advance(n_rows, note="answered")
        watch = LoadWatch()
        latencies = measure_latency(
            {each.name: each.route for each in contestants},
            queries,
            after_block=lambda name: progress.advance(note=f"{name} timed"),
        )
        busy_share = watch.busy_share()
        measured = []
        for each in contestants:
            measured.append(_measured(each, inputs, gold, predictions[each.name], latencies[each.name]))
            progress.advance(note=f"{each.name} done")
    return measured, busy_share


def _contestants(inputs: BenchInputs) -> Iterator[_Contestant]:
    for name, folder in sorted(inputs.bundles.items()):
        router = Router.load(folder)
        yield _Contestant(name, router, router.route, router.bundle.size_bytes / 1e6, folder)
    for name, fit in _BASELINES.items():
        baseline = fit(inputs.training, inputs.labels, inputs.task, seed=inputs.seed)
        yield _Contestant(name, baseline, baseline.route, baseline.size_mb, notes=baseline.notes)


_BASELINES = {"tfidf": fit_tfidf, "majority": fit_majority}


def _measured(
    contestant: _Contestant, inputs: BenchInputs, gold: Gold, predictions: Sequence[Prediction], latency: Latency
) -> _Measured:
    by_batch = measure_throughput(contestant.route, contestant.classifier.route_batch, inputs.queries)
    speed = _latency_fields(latency) | {
        "queries_per_s": by_batch[max(by_batch)],
        "queries_per_s_by_batch": {str(size): rate for size, rate in by_batch.items()},
        "size_mb": contestant.size_mb,
    }
    notes: dict[str, Any] = {
        "latency_source": "measured: one call at a time, one thread",
        **contestant.notes,
        **{f"p{percent}_ms_by_round": latency.spread(percent) for percent in _PERCENTILES},
    }
    if isinstance(contestant.classifier, Router):
        notes["tokenizer"] = contestant.classifier.tokenizer
    if contestant.bundle is not None:
        start = cold_start(contestant.bundle)
        speed |= {"cold_start_ms": start.cold_start_ms, "peak_rss_mb": start.peak_rss_mb}
        notes["cold_start_ms_range"] = start.range_ms
    answers = Answers.from_predictions(predictions, inputs.labels)
    return _Measured(
        name=contestant.name,
        predictions=predictions,
        answers=answers,
        right=_right(inputs.task, answers, gold),
        samples_ms=latency.samples_ms.ravel(),
        speed=speed,
        notes=notes,
        usd_per_1k=machine_usd_per_1k(inputs.cost.machine_usd_per_hour, _one_by_one(speed)),
    )


_PERCENTILES = (50, 95, 99)


def _latency_fields(latency: Latency) -> dict[str, Any]:
    percentiles = {f"p{percent}_ms": latency.percentile(percent) for percent in _PERCENTILES}
    return percentiles | {"latency_n": latency.n}


def _compare(measured: Sequence[_Measured], gold: Gold) -> dict[str, Comparison]:
    """Every row against the teacher on the gold that it answered, paired; empty without gold, teacher or answers."""
    teacher = measured[0]
    answered = ~teacher.answers.failed
    if not len(gold.intent) or teacher.name != _TEACHER or not answered.any():
        return {}
    return {each.name: compare_paired(each.right, teacher.right, answered) for each in measured[1:]}


def _row(
    each: _Measured,
    inputs: BenchInputs,
    measured: Sequence[_Measured],
    gold: Gold,
    comparisons: Mapping[str, Comparison],
) -> BenchRow:
    figures = gold_figures(inputs.task, each.answers, gold)
    if each.gives_scores:
        figures |= score_figures(inputs.task, each.answers, gold)
    else:
        figures |= dict.fromkeys(_FIGURES_OF_SCORES)
    notes = dict(each.notes) | figures.pop("notes", {})
    teacher = measured[0] if measured[0].name == _TEACHER else None
    if teacher is not None and each is not teacher:
        figures |= fidelity_figures(inputs.task, each.answers, teacher.answers)
    if comparison := comparisons.get(each.name):
        notes["against_teacher"] = {
            "n": comparison.n,
            "n_left_out": comparison.n_left_out,
            "drop": comparison.drop,
            "drop_ci95": comparison.drop_ci95,
            "mcnemar_p": comparison.p_value,
            "only_student_right": comparison.only_student,
            "only_teacher_right": comparison.only_teacher,
        }
    if teacher is not None and _is_student(each):
        notes["disagreements"] = _disagreements(inputs, each, teacher)
    return BenchRow(
        name=each.name,
        n_failed=int(each.answers.failed.sum()),
        usd_per_1k=as_number(each.usd_per_1k),
        notes=notes,
        **figures,
        **each.speed,
    )


def _disagreements(inputs: BenchInputs, student: _Measured, teacher: _Measured) -> list[dict[str, Any]]:
    """Where student and teacher decide differently, the student's surest first; ``weights``: those furthest apart."""
    targets = [_shown_gold(query, inputs.task) for query in inputs.gold]
    gold = targets or [None] * len(inputs.queries)
    failed = teacher.answers.failed.tolist()
    answered = zip(inputs.queries, gold, student.predictions, teacher.predictions, failed, strict=True)
    found: list[dict[str, Any]] = [
        {
            "text": text,
            "gold": target,
            "teacher": _shown(teachers, inputs.task),
            "teacher_score": teachers.score,
            "student": _shown(students, inputs.task),
            "student_score": students.score,
        }
        for text, target, students, teachers, teacher_failed in answered
        if not teacher_failed and decide_differently(students, teachers)
    ]
    apart = student.answers.probabilities - teacher.answers.probabilities
    furthest = dict(zip(inputs.queries, np.abs(apart).max(axis=1).tolist(), strict=True))
    by_distance = inputs.task.is_mixture
    surest = sorted(found, key=lambda one: furthest[one["text"]] if by_distance else one["student_score"], reverse=True)
    return surest[:_DISAGREEMENTS]


def _shown(prediction: Prediction, task: Task) -> str | None:
    """The decision in words; None for no intent."""
    if task is Task.WEIGHTS:
        return _shown_weights(prediction.weights or {})
    return ", ".join(sorted(prediction.intents)) or None


def _shown_gold(query: GoldQuery, task: Task) -> str | None:
    if task is Task.WEIGHTS:
        return _shown_weights(query.target)
    return ", ".join(sorted(name for name in query.target if name != OUT_OF_SCOPE_LABEL)) or None


def _shown_weights(weights: Mapping[str, float]) -> str | None:
    """Weights from a hundredth on, the weightiest first."""
    shown = sorted(weights.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {weight:.2f}" for name, weight in shown if weight >= _LEAST_WEIGHT) or None
