"""What needs several stages: the stages one by one, the benchmark's inputs, and the whole run.

Each stage is a function that reads and writes plain files and does nothing when its inputs have not changed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.bundle import load_bundle
from distill.data import sha256_json, storage_errors, write_json
from distill.errors import (
    BundleError,
    DataError,
    DistillError,
    MissingExtraError,
    MissingKeyError,
    SpecError,
    TrainingError,
)
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from distill.benchmark.bench import BenchInputs
    from distill.bundle import Bundle
    from distill.combination import Combined
    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.student.train import TrainingData
    from distill.teacher.carry import CarryOptions, CarryPlan, CarrySummary
    from distill.teacher.fallback import TeacherFallback
    from distill.teacher.imported import ImportSummary
    from distill.teacher.label import LabelPlan, LabelSummary
    from distill.teacher.spend import Estimate
    from distill.teacher.synth import SynthesisPlan, SynthesisSummary
    from distill.types import BenchResult, Example, GateVerdict, Label, TokenPrice

__all__ = [
    "BenchOutcome",
    "Due",
    "RunOutcome",
    "RunPlan",
    "StageOutcome",
    "bench",
    "broken_gates",
    "carry",
    "examples",
    "fallback",
    "import_answers",
    "judge_teacher",
    "label",
    "limited",
    "plan",
    "plan_carry",
    "plan_label",
    "plan_synth",
    "report",
    "run",
    "synth",
    "train",
    "trained_on",
]

_MEASURES = 6  # which figures bench takes, and how: a bench.json of before is measured again


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What one stage of a run did.

    Attributes:
        stage: Its name.
        changed: False when there was nothing to do.
        detail: One line for people.
        seconds: How long it took.
    """

    stage: str
    changed: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a whole run did, and what it found."""

    stages: tuple[StageOutcome, ...]
    result: BenchResult
    report: Path

    @property
    def changed(self) -> bool:
        """Whether any stage had something to do."""
        return any(stage.changed for stage in self.stages)


@dataclass(frozen=True, slots=True)
class BenchOutcome:
    """The figures, and whether they were measured just now."""

    result: BenchResult
    path: Path
    changed: bool


class Due(StrEnum):
    """Whether a stage has something to do, as far as can be told before anything is asked."""

    YES = "due"
    """It has."""
    IF_LABELS_CHANGE = "if the labels change"
    """Queries are to be written or labelled first; it has if that brings other labels."""
    NO = "up to date"
    """It has not."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would ask and spend, and which stages have something to do.

    Attributes:
        synth: None where the queries are the user's own.
        label: What is to be labelled, and its price.
        students: Those of the spec.
        out: Folder of bundles and figures.
        train: Whether each student is to be trained.
        bench: Whether the figures are to be measured.
        report: Whether the report is to be written.
    """

    synth: SynthesisPlan | None
    label: LabelPlan
    students: tuple[str, ...]
    out: Path
    train: Mapping[str, Due]
    bench: Due
    report: Due

    @property
    def is_done(self) -> bool:
        """Whether every stage is up to date."""
        writes = self.synth is not None and self.synth.recorded is not None
        stages = {*self.train.values(), self.bench, self.report}
        return not writes and not self.label.n_new and stages == {Due.NO}

    @property
    def estimated_usd(self) -> Decimal | None:
        """Estimated spend, or None when a price is unknown."""
        return self._cost.usd

    @property
    def most_usd(self) -> Decimal | None:
        """The same should each answer of a model that has none recorded be as long as it may; None where each has some, or a price is unknown."""
        return self._cost.most_usd

    @property
    def _cost(self) -> Estimate:
        from distill.teacher.spend import FREE, Estimate

        plans: list[LabelPlan | SynthesisPlan] = [self.label, *([self.synth] if self.synth else [])]
        return sum((Estimate(plan.estimated_usd, plan.most_usd) for plan in plans), FREE)


def synth(spec: Spec, *, measure: bool = False, show_progress: bool = True) -> SynthesisSummary:
    """Has the model write the queries; see ``distill.teacher.synth.synthesise``.

    Args:
        spec: The router's spec.
        measure: Whether to measure how far the queries lie apart in meaning.
        show_progress: Shows progress on stderr.

    Raises:
        SpecError: The spec names the user's own queries; they are not written over.
    """
    from distill.teacher.synth import synthesise

    _check_writes_queries(spec)
    return synthesise(
        spec,
        open_embedder=lambda: _embedder_if_there(spec, show_progress=show_progress),
        measure=measure,
        show_progress=show_progress,
    )


def _check_writes_queries(spec: Spec) -> None:
    if not spec.writes_queries:
        named = f"queries: {spec.queries}" if spec.queries else f"teacher.labels: {spec.teacher.labels}"
        raise SpecError(
            f"{spec.path}: `{named}` names your own queries, which synth does not write over; "
            "take the key out to have queries written"
        )


def plan_synth(spec: Spec) -> SynthesisPlan:
    """What ``synth`` would ask and spend; asks nothing. See ``distill.teacher.synth.plan_synthesis``.

    Raises:
        SpecError: The spec names the user's own queries; they are not written over.
    """
    from distill.teacher.synth import plan_synthesis

    _check_writes_queries(spec)
    return plan_synthesis(spec)


def limited(spec: Spec, max_usd: Decimal | None, *, batch: bool = False) -> Spec:
    """The same spec for one run that may spend no more than ``max_usd``, nor more than ``teacher.max_usd`` leaves.

    Args:
        spec: The router's spec.
        max_usd: None: as it is.
        batch: Whether the run labels in batches, and takes up those in flight.
    """
    from distill.teacher.spend import limited as with_limit

    return with_limit(spec, spec.teacher.model or spec.synth.model, max_usd, batch=batch)


def _embedder_if_there(spec: Spec, *, show_progress: bool) -> Embedder | None:
    """The sentence encoder, or None where its weights or what exports it cannot be had, which is said."""
    try:
        return _embedder(spec, show_progress=show_progress)
    except (MissingExtraError, TrainingError) as error:
        say(
            f"synth: without a sentence encoder only equal queries are left out, and no request names neighbours: {error}"
        )
        return None


def label(
    spec: Spec, *, batch: bool = False, give_up: bool = False, only_gold: bool = False, show_progress: bool = True
) -> LabelSummary:
    """Has the teacher label queries and gold; see ``distill.teacher.label.label``."""
    from distill.teacher.label import check_has_gold
    from distill.teacher.label import label as label_texts

    if only_gold:
        check_has_gold(spec)
    return label_texts(
        spec,
        open_embedder=lambda: _embedder(spec, show_progress=show_progress),
        batch=batch,
        give_up=give_up,
        only_gold=only_gold,
        show_progress=show_progress,
    )


def plan_label(spec: Spec, *, batch: bool = False, only_gold: bool = False) -> LabelPlan:
    """What ``label`` would ask and spend; asks nothing. See ``distill.teacher.label.plan_labels``."""
    from distill.teacher.label import check_has_gold, plan_labels

    if only_gold:
        check_has_gold(spec)
    return plan_labels(spec, batch=batch, only_gold=only_gold)


def judge_teacher(spec: Spec) -> BenchResult:
    """How right the teacher's recorded answers to gold are: a result with the teacher's row alone. Asks nothing, and needs no student.

    Raises:
        DataError: There is no gold, or it was not asked yet.
    """
    from distill.benchmark.bench import BenchInputs, judge_recorded
    from distill.benchmark.cost import CostInputs
    from distill.benchmark.recorded import RecordedTeacher
    from distill.labelled import redacted_gold
    from distill.teacher.label import recorded_labels

    gold = redacted_gold(spec)
    answers = recorded_labels(spec, [query.text for query in gold], redacted=True)
    if not gold or _n_unasked([query.text for query in gold], answers):
        raise DataError(f"{spec.path}: {spec.command('label --gold')} asks about gold first")
    names = _who_answered(spec, answers)
    return judge_recorded(
        BenchInputs(
            name=spec.name,
            task=spec.task,
            labels=spec.labels,
            gold=gold,
            bundles={},
            training=(),
            teacher=RecordedTeacher(answers.values(), spec.labels, spec.task, name=", ".join(names)),
            cost=CostInputs(teacher_price=_price_of(spec, names)),
        )
    )


def carry(
    spec: Spec, options: CarryOptions | None = None, *, out: Path | None = None, show_progress: bool = True
) -> CarrySummary:
    """Keeps what was answered under other intents where it still holds; see ``distill.teacher.carry.carry``."""
    from distill.teacher.carry import carry as carry_over

    return carry_over(
        spec,
        options,
        open_embedder=lambda: _embedder(spec, show_progress=show_progress),
        out=out,
        show_progress=show_progress,
    )


def plan_carry(
    spec: Spec, options: CarryOptions | None = None, *, out: Path | None = None, show_progress: bool = True
) -> CarryPlan:
    """What ``carry`` would do and cost at most; asks nothing. See ``distill.teacher.carry.plan_carry``."""
    from distill.teacher.carry import plan_carry as plan_to_carry

    return plan_to_carry(
        spec,
        options,
        open_embedder=lambda: _embedder(spec, show_progress=show_progress),
        out=out,
        show_progress=show_progress,
    )


def _embedder(spec: Spec, *, show_progress: bool = False) -> Embedder:
    """The sentence encoder, which finds what to show where not all intents or known examples fit into a prompt."""
    from distill.student.embedder import embedder_of

    return embedder_of(spec, show_progress=show_progress)


def import_answers(spec: Spec, path: Path, *, teacher: str | None = None) -> ImportSummary:
    """Takes answers paid for elsewhere into the ledger; see ``distill.teacher.imported.import_answers``."""
    from distill.teacher.imported import import_answers as take

    return take(spec, path, teacher=teacher)


def examples(spec: Spec, *, with_evidence: bool = True, show_notes: bool = True) -> tuple[Example, ...]:
    """The labelled queries as training examples, a stratified tenth of them held out.

    Queries that are also gold (but for case and punctuation), and those without a good answer, are left out.

    Args:
        spec: The router's spec.
        with_evidence: Whether the answers are combined with the known examples, where there are enough; see
            ``distill.combination``. False: as the teacher gave them.
        show_notes: Says on stderr what is left out, and what the known examples changed.

    Raises:
        DataError: There is no query, or none has a label.
    """
    from distill.labelled import labelled_queries

    return labelled_queries(spec, with_evidence=with_evidence, show_notes=show_notes).examples


def trained_on(spec: Spec, bundle: Bundle) -> tuple[tuple[Example, ...], bool]:
    """A spec's examples as they are now, and whether the bundle was made from just these.

    Raises:
        DataError: There is no query, or none has a label.
    """
    labelled = examples(spec, show_notes=False)
    return labelled, _training_data(spec, labelled).data_sha256 == bundle.manifest.data_sha256


def train(
    spec: Spec,
    *,
    out: Path | None = None,
    students: Sequence[str] | None = None,
    force: bool = False,
    show_progress: bool = True,
) -> dict[str, Bundle]:
    """Trains the students on the labels and writes their bundles to ``models/NAME/STUDENT``.

    Does nothing for a student whose bundle was made from the same labels, recipe and seed.

    Args:
        spec: The router's spec.
        out: Folder for the bundles; None is ``models/NAME``.
        students: Which; None takes those of the spec.
        force: Trains even where nothing has changed.
        show_progress: Shows progress on stderr.
    """
    from distill.student.train import train_students

    _keep_out_of_git(spec.output(out), spec.folder)
    return train_students(
        _training_data(spec, examples(spec)),
        spec.output(out),
        students=spec.students if students is None else students,
        base_model=spec.transformer(spec.base_model),
        assistant_model=None if spec.assistant_model is None else spec.transformer(spec.assistant_model),
        seed=spec.seed,
        budget_minutes=spec.budget_minutes,
        force=force,
        show_progress=show_progress,
    )


def _untrained(spec: Spec, folder: Path) -> tuple[str, ...]:
    """The students that ``train`` would train with the labels as they are now."""
    from distill.student.train import untrained_students

    try:
        labelled = examples(spec, show_notes=False)
    except (DataError, TrainingError, MissingExtraError):
        # no query has a label yet, or what reads the known examples is not here
        return spec.students
    return untrained_students(
        _training_data(spec, labelled),
        folder,
        students=spec.students,
        base_model=spec.transformer(spec.base_model),
        assistant_model=None if spec.assistant_model is None else spec.transformer(spec.assistant_model),
        seed=spec.seed,
        budget_minutes=spec.budget_minutes,
    )


def _training_data(spec: Spec, labelled: tuple[Example, ...]) -> TrainingData:
    from distill.student.train import TrainingData

    return TrainingData(
        name=spec.name,
        task=spec.task,
        labels=spec.labels,
        examples=labelled,
        intents=spec.intent_list,
        teacher=spec.teacher_name,
        prompt_sha256=_prompt_sha256(spec, labelled),
    )


def _prompt_sha256(spec: Spec, labelled: tuple[Example, ...]) -> str:
    from distill.teacher.label import recorded_samples

    (samples,) = recorded_samples(spec, [labelled[0].text], redacted=True).values()
    return samples[0].prompt_sha256


def bench(
    spec: Spec, *, out: Path | None = None, price_as: str | None = None, force: bool = False, show_progress: bool = True
) -> BenchOutcome:
    """Measures teacher, students and baselines on gold, and writes bench.json.

    Does nothing when bench.json was measured on the same bundles, gold, answers and settings.

    Args:
        spec: The router's spec.
        out: Folder with the bundles; None is ``models/NAME``.
        price_as: Model whose list price shows what the teacher's tokens would have cost; None takes the spec's.
        force: Measures again even where nothing has changed.
        show_progress: Shows progress on stderr.
    """
    from distill.benchmark.bench import priced_again, run_bench
    from distill.benchmark.results import result_as_json

    folder = spec.output(out)
    path = folder / "bench.json"
    if price_as is not None:
        _check_is_priced(price_as)
    inputs = _bench_inputs(spec, folder, price_as or spec.bench.price_as)
    if not force and (result := _measured(path, inputs)) is not None:
        priced = priced_again(result, inputs)
        if _has_same_cost(result, priced):
            return BenchOutcome(result, path, changed=False)
        result = priced
    else:
        result = run_bench(inputs, show_progress=show_progress)
    write_json(path, result_as_json(result))
    return BenchOutcome(result, path, changed=True)


def _has_same_cost(result: BenchResult, other: BenchResult) -> bool:
    """Whether as much was spent as when it was measured, and is priced as another model's in the same way; a price may have been looked up another day."""
    was, now = ([_undated(each.cost.get(name)) for name in ("priced_as", "spent")] for each in (result, other))
    return was == now


def _keep_out_of_git(folder: Path, project: Path) -> None:
    """Models are large, and figures and report hold what people asked: git leaves the folder alone unless it is told otherwise.

    A folder that holds the project itself, or that held anything before, is not git's to leave out.
    """
    path = folder / ".gitignore"
    is_ours = not folder.exists() or not any(folder.iterdir())
    if is_ours and not project.resolve().is_relative_to(folder.resolve()):
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("*\n", encoding="utf-8")


def _measured(path: Path, inputs: BenchInputs) -> BenchResult | None:
    """What bench.json holds, where it was measured on just these inputs."""
    from distill.benchmark.results import read_result

    try:
        result = read_result(path) if path.exists() else None
    except DataError:  # of another format or torn: measured again
        return None
    is_current = result is not None and result.provenance.get("inputs_sha256") == inputs.provenance["inputs_sha256"]
    return result if is_current else None


def _check_is_priced(model: str) -> None:
    """A name given on the command line is meant for this very run, so that leaving it out would be no answer."""
    from distill.teacher.prices import look_up_price, similar_models

    if look_up_price(model) is None:
        similar = similar_models(model)
        hint = f"; similar names that have one: {', '.join(similar)}" if similar else ""
        raise SpecError(f"--price-as: no list price is known for {model!r}{hint}. Nothing was measured")


def _bench_inputs(spec: Spec, folder: Path, price_as: str | None, *, show_notes: bool = True) -> BenchInputs:
    from distill.benchmark.bench import BenchInputs
    from distill.benchmark.cost import CostInputs
    from distill.benchmark.recorded import RecordedTeacher
    from distill.labelled import labelled_queries, redacted_gold
    from distill.teacher.label import recorded_labels
    from distill.teacher.prices import look_up_price
    from distill.teacher.spend import spend_by_stage

    gold, labelled = redacted_gold(spec), labelled_queries(spec)
    training = labelled.examples
    bundles: dict[str, Bundle] = {student: load_bundle(folder / student) for student in spec.students}
    data_sha256 = _training_data(spec, training).data_sha256
    _check_bundles_are_current(spec, bundles, data_sha256)
    priced_as = look_up_price(price_as) if price_as else None
    if show_notes and price_as and priced_as is None:
        say(f"bench: no list price is known for {price_as!r}, so what it would cost is left out")
    texts = [query.text for query in gold] or [each.text for each in training if each.split == "held_out"]
    answers = recorded_labels(spec, texts, redacted=True)
    names = _who_answered(spec, answers)
    who = ", ".join(names)
    teacher = RecordedTeacher(answers.values(), spec.labels, spec.task, name=who)
    combined = None if labelled.combined is None else _answers_with_evidence(spec, answers, labelled.combined)
    n_unasked = _n_unasked(texts, answers)
    has_human_teacher = bool(gold) and spec.labels_path is not None
    if show_notes:
        _say_why_no_teacher(spec, who if has_human_teacher else None, n_unasked, len(texts))
    limits = {student: spec.gates.limits(student) for student in spec.students}
    inputs = BenchInputs(
        name=spec.name,
        task=spec.task,
        labels=spec.labels,
        gold=gold,
        bundles={name: bundle.path for name, bundle in bundles.items()},
        training=training,
        teacher=None if n_unasked or has_human_teacher else teacher,
        with_evidence=None
        if n_unasked or combined is None
        else RecordedTeacher(combined, spec.labels, spec.task, name=who),
        gates={name: limit.model_dump() for name, limit in limits.items()},
        cost=CostInputs(
            teacher_price=_price_of(spec, names),
            priced_as=priced_as,
            queries_per_month=spec.bench.queries_per_month,
            machine_usd_per_hour=spec.bench.machine_usd_per_hour,
            spent=spend_by_stage(spec),
        ),
        seed=spec.seed,
    )
    return replace(inputs, provenance=_provenance(spec, inputs, bundles, answers, data_sha256))


def _answers_with_evidence(spec: Spec, answers: Mapping[str, Label], both: Combined) -> list[Label]:
    """Answers combined with the known examples as those that the students learnt from were."""
    from distill.labelled import target_of

    targets = {text: target for text, answer in answers.items() if (target := target_of(answer, spec)) is not None}
    return [
        replace(answers[text], scores=dict(zip(spec.labels, target.tolist(), strict=True)))
        for text, target in both(targets).items()
    ]


def _say_why_no_teacher(spec: Spec, human: str | None, n_unasked: int, n_texts: int) -> None:
    if human is not None:
        say(f"bench: no teacher row: the teacher is {human}; the students are measured against gold alone")
    elif n_unasked:
        say(
            f"bench: no teacher row: {n_unasked} of {n_texts} queries were never asked; {spec.command('label')} asks them"
        )


def _n_unasked(texts: Sequence[str], answers: Mapping[str, Label]) -> int:
    """Distinct texts without an answer, good or not; blank ones are not asked."""
    return sum(bool(text.strip()) and text not in answers for text in dict.fromkeys(texts))


def _price_of(spec: Spec, names: Sequence[str]) -> TokenPrice | None:
    """What the answers' tokens cost: by the list where others than the teacher gave them, and router.yaml says no price.

    None where several gave them: their tokens are counted together.
    """
    from distill.teacher.prices import look_up_price, teacher_price

    if len(names) > 1:
        return None
    return teacher_price(spec) if spec.teacher.price or names[0] == spec.teacher_name else look_up_price(names[0])


def _who_answered(spec: Spec, answers: Mapping[str, Label]) -> list[str]:
    """The teacher, or who gave the answers that were imported as its own: latency and tokens are theirs."""
    sources = (answer.extra.get("carried_from") for answer in answers.values())
    names = {
        source.get("teacher", spec.teacher_name) if isinstance(source, dict) else spec.teacher_name
        for source in sources
    }
    return sorted(names) or [spec.teacher_name]


def _check_bundles_are_current(spec: Spec, bundles: Mapping[str, Bundle], data_sha256: str) -> None:
    """Figures of a student that was trained on other labels, or on what is gold now, would mean nothing."""
    for student, bundle in bundles.items():
        if bundle.manifest.data_sha256 != data_sha256:
            raise DataError(
                f"{bundle.path}: {student} was trained before the labels, the intents or gold changed; "
                f"{spec.command('train')} trains it anew"
            )


def _provenance(
    spec: Spec, inputs: BenchInputs, bundles: Mapping[str, Bundle], answers: Mapping[str, Label], data_sha256: str
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "distill": __version__,
        "teacher": spec.teacher_name,
        "prompt_sha256": next((answer.prompt_sha256 for answer in answers.values()), None),
        "bundles": {name: bundle.manifest.bundle_id for name, bundle in bundles.items()},
        "gold_sha256": sha256_json([[query.text, dict(query.target)] for query in inputs.gold]),
        "answers_sha256": sha256_json([[text, dict(answer.scores or {})] for text, answer in answers.items()]),
        "training_sha256": data_sha256,
        "n_training": sum(each.split == "train" for each in inputs.training),
        "n_held_out": sum(each.split == "held_out" for each in inputs.training),
        "seed": spec.seed,
    }
    if n_carried := sum("carried_at" in (answer.extra.get("carried_from") or {}) for answer in answers.values()):
        facts["n_carried_over"] = n_carried
    if inputs.with_evidence is not None:
        facts["with_evidence_sha256"] = sha256_json(
            [[query, inputs.with_evidence.route(query).top_intent] for query in inputs.queries]
        )
    settings = {
        "gates": {name: dict(limits) for name, limits in inputs.gates.items()},
        # what was spent so far, and what the tokens would cost elsewhere, are reckoned from what was measured
        "cost": str(_undated(asdict(replace(inputs.cost, spent=(), priced_as=None)))),
        "measures": _MEASURES,
    }
    return facts | {"inputs_sha256": sha256_json(facts | settings)}


def _undated(cost: Any) -> Any:
    """Cost settings without the day on which a list price was looked up, which is no reason to measure again."""
    if isinstance(cost, dict):
        return {name: _undated(value) for name, value in cost.items() if name != "date"}
    return cost


def report(spec: Spec, *, out: Path | None = None, with_text: bool = True) -> Path:
    """Writes report.html, report.md and the cards of the measured bundles from bench.json; returns the path of the first.

    Args:
        spec: The router's spec.
        out: Folder with bench.json; None is ``models/NAME``.
        with_text: False leaves the text of queries out; report.md never holds it.

    Raises:
        DataError: There is no bench.json yet.
    """
    from distill.benchmark.report import write_report
    from distill.benchmark.results import read_result
    from distill.publish import write_card

    folder = spec.output(out)
    source, path = folder / "bench.json", folder / "report.html"
    if not source.exists():
        raise DataError(f"{source}: does not exist; {spec.command('bench')} writes it")
    result = read_result(source)
    write_report(result, path, with_text=with_text)
    for student in result.provenance.get("bundles", {}):
        try:
            write_card(folder / student, result)
        except BundleError as error:  # the report is there all the same
            say(f"report: no figures in the card of {student}: {error}")
    return path


def fallback(spec: Spec, *, timeout_s: float = 5.0, max_characters: int = 2_000) -> TeacherFallback:
    """The spec's teacher as the fallback of a ``Cascade``; see ``distill.teacher.fallback.TeacherFallback``."""
    from distill.teacher.fallback import TeacherFallback

    return TeacherFallback(
        spec, timeout_s=timeout_s, open_embedder=lambda: _embedder(spec), max_characters=max_characters
    )


def plan(spec: Spec, *, out: Path | None = None) -> RunPlan:
    """What ``run`` would ask and spend, and which stages have something to do; asks nothing."""
    from distill.benchmark.bench import priced_again

    planned, labels = _plan_questions(spec)
    folder = spec.output(out)
    figures, page = folder / "bench.json", folder / "report.html"
    untrained = set(_untrained(spec, folder))
    others = Due.IF_LABELS_CHANGE if _labels_may_change(spec, planned, labels) else Due.NO
    train: dict[str, Due] = {student: Due.YES if student in untrained else others for student in spec.students}
    if untrained or not figures.exists():
        bench = Due.YES
    elif labels.n_new or others is not Due.NO:
        bench = Due.IF_LABELS_CHANGE
    else:
        inputs = _bench_inputs(spec, folder, spec.bench.price_as, show_notes=False)
        measured = _measured(figures, inputs)
        is_current = measured is not None and _has_same_cost(measured, priced_again(measured, inputs))
        bench = Due.NO if is_current else Due.YES
    report = bench if bench is Due.YES or _is_reported(page, figures) else Due.YES
    return RunPlan(planned, labels, spec.students, folder, train, bench, report)


def _plan_questions(spec: Spec) -> tuple[SynthesisPlan | None, LabelPlan]:
    """What synth and label would ask, and what that costs."""
    from distill.teacher.label import plan_labels
    from distill.teacher.synth import plan_synthesis

    planned = plan_synthesis(spec) if spec.writes_queries else None
    labels = (
        plan_labels(spec, recorded=planned.recorded, n_unwritten=planned.n_missing) if planned else plan_labels(spec)
    )
    if not labels.n_missing:  # asking nothing costs nothing, whatever the price is
        labels = replace(labels, estimated_usd=Decimal(0), most_usd=None)
    if planned and not planned.n_missing:
        planned = replace(planned, estimated_usd=Decimal(0), most_usd=None)
    return planned, labels


def _labels_may_change(spec: Spec, planned: SynthesisPlan | None, labels: LabelPlan) -> bool:
    """Whether what synth and label have left to do may bring other labels to train on."""
    from distill.labelled import answers_to_queries

    if planned is not None and planned.recorded is not None:
        return True
    if not labels.n_new or spec.labels_path is not None:
        return bool(labels.n_new)
    n_texts, also_gold, answers = answers_to_queries(spec)  # gold alone may be what is missing: it is not trained on
    n_wanted = (n_texts - len(also_gold)) * labels.n_samples
    return n_wanted > sum(answer.scores is not None for samples in answers.values() for answer in samples)


def run(spec: Spec, *, out: Path | None = None, show_progress: bool = True) -> RunOutcome:
    """All stages: synth (unless the queries are the user's own), label, train, bench, report.

    A run that was cut goes on where it stopped, and one with nothing changed asks nothing and trains nothing.
    """
    _check_can_ask(spec)
    stages: list[StageOutcome] = []

    def note(stage: str, started: float, *, changed: bool, detail: str) -> None:
        stages.append(StageOutcome(stage, changed, detail, time.monotonic() - started))
        if show_progress:
            say(f"{stage}: {detail if changed else f'nothing to do ({detail})'}")

    if spec.writes_queries:
        started = time.monotonic()
        written = synth(spec, show_progress=show_progress)
        detail = f"{sum(written.got.values())} of {sum(written.wanted.values())} queries in {spec.queries_path}"
        note("synth", started, changed=written.changed, detail=detail)
    started = time.monotonic()
    labelled = label(spec, show_progress=show_progress)
    detail = f"{labelled.n_texts - labelled.n_failed} of {labelled.n_texts} queries labelled by {labelled.teacher}"
    note("label", started, changed=labelled.n_asked + labelled.n_read_anew > 0, detail=detail)
    started = time.monotonic()
    before = _bundle_ids(spec, out)
    bundles = train(spec, out=out, show_progress=show_progress)
    after = {student: bundle.manifest.bundle_id for student, bundle in bundles.items()}
    detail = f"{', '.join(bundles)} in {spec.output(out)}"
    note("train", started, changed=before != after, detail=detail)
    started = time.monotonic()
    measured = bench(spec, out=out, show_progress=show_progress)
    note("bench", started, changed=measured.changed, detail=str(measured.path))
    started = time.monotonic()
    path = spec.output(out) / "report.html"
    stale = measured.changed or not _is_reported(path, measured.path)
    if stale:
        report(spec, out=out)
    note("report", started, changed=stale, detail=str(path))
    return RunOutcome(tuple(stages), measured.result, path)


def _check_can_ask(spec: Spec) -> None:
    """What cannot work is found before anything is paid for."""
    from distill.teacher.label import check_can_label, check_none_in_flight

    planned, labels = _plan_questions(spec)
    if labels.n_missing and spec.labels_path is None:
        check_none_in_flight(spec, planned.recorded if planned else None)
        with suppress(
            MissingKeyError
        ):  # synth or label needs the same one first, and says what is missing for the lack of it
            check_can_label(spec)


def _is_reported(page: Path, figures: Path) -> bool:
    """Whether both reports are there and no older than the figures."""
    pages = page, page.with_suffix(".md")
    return all(each.exists() and each.stat().st_mtime_ns >= figures.stat().st_mtime_ns for each in pages)


def _bundle_ids(spec: Spec, out: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for student in spec.students:
        try:
            found[student] = load_bundle(spec.output(out) / student, verify=False).manifest.bundle_id
        except DistillError:
            continue
    return found


def broken_gates(result: BenchResult) -> list[GateVerdict]:
    """The gates that a student does not keep."""
    return [gate for gate in result.gates if gate.passed is False]
