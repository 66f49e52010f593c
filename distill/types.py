"""What flows between the stages: frozen dataclasses and enums, standard library only.

    Intent → Query → Label → Example → (student) → bundle → Prediction → BenchRow → BenchResult

Dictionaries appear at the JSON edge only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

__all__ = [
    "HOLDS",
    "HUMAN_LABELS",
    "OUT_OF_SCOPE_LABEL",
    "BenchResult",
    "BenchRow",
    "Classifier",
    "Example",
    "GateVerdict",
    "GoldQuery",
    "Intent",
    "IntentFigures",
    "Interval",
    "Label",
    "Leakage",
    "NearPair",
    "Prediction",
    "Query",
    "Reason",
    "ReliabilityBin",
    "RiskCoverage",
    "StageSpend",
    "Task",
    "TokenPrice",
    "Usage",
]

HOLDS = 0.5
"""``multi``: the score from which on an intent is an answer."""
HUMAN_LABELS = "human labels"
"""How the name of a teacher begins that is a file of human labels."""
OUT_OF_SCOPE_LABEL = "oos"
"""Name of the label for queries that fit no intent. Always the last label where there is one."""


class Task(StrEnum):
    """What a label means. The task picks loss, policy, metric and presentation; other code asks for one of its properties."""

    SINGLE = "single"
    """One intent a query: a distribution over labels."""
    MULTI = "multi"
    """Any number of intents a query, none included: independent probabilities."""
    WEIGHTS = "weights"
    """How much each channel should give to the answer: a target distribution."""

    @property
    def sums_to_one(self) -> bool:
        """Whether a query's scores are shares of one whole. Otherwise each label holds or not by itself, and none may hold."""
        return self is not Task.MULTI

    @property
    def has_one_label(self) -> bool:
        """Whether a query has just one label, so that what fits none needs a label of its own, ``oos``."""
        return self is Task.SINGLE

    @property
    def is_mixture(self) -> bool:
        """Whether the shares are the answer: then a share of a half is no doubt, and which label is the best is not all."""
        return self is Task.WEIGHTS


class Reason(StrEnum):
    """Why a prediction's ``intent`` is what it is."""

    ACCEPTED = "accepted"
    """The policy accepts the top intent."""
    LOW_CONFIDENCE = "low_confidence"
    """The top intent's score is under the policy's threshold."""
    OUT_OF_SCOPE = "out_of_scope"
    """The query fits no intent."""
    EMPTY_INPUT = "empty_input"
    """The query is empty or blank; the model was not asked."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing a query can want."""

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A query to be labelled.

    Attributes:
        id: Unique in its file.
        text: What the user said.
        source: ``synth`` or ``logs``.
        intended_intent: What the synthesiser aimed at. For diagnosis only, never used as a label.
    """

    id: str
    text: str
    source: str = "logs"
    intended_intent: str | None = None


@dataclass(frozen=True, slots=True)
class GoldQuery:
    """A query with its human label. Never trained on, never shown to a teacher as evidence.

    Attributes:
        text: What the user said.
        target: Score for each label, summing to 1 for ``single`` and ``weights``.
    """

    text: str
    target: Mapping[str, float]

    @property
    def intent(self) -> str:
        """The best label."""
        return max(self.target, key=lambda name: self.target[name])


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, as the server counted them. None where the server did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the server said how many tokens a request had."""
        return None not in {self.prompt_tokens, self.completion_tokens}


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a model's tokens cost, in USD per million tokens, with where and when that was read."""

    model: str
    input_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal | None
    output_usd_per_mtok: Decimal
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class StageSpend:
    """What one stage has asked and paid so far, by its recording.

    Attributes:
        stage: ``synth`` or ``label``, or ``label --batch`` for the answers of batches, whose tokens have a price of their own.
        n_answers: Answers that were paid for, failed ones included.
        n_uncounted: Of these, without a count of tokens.
        usage: Tokens of all the others together.
        usd: What they cost; None where the price or the tokens of an answer are not known.
        unanswered_usd: What a provider may bill at most for requests that brought no answer.
    """

    stage: str
    n_answers: int
    n_uncounted: int
    usage: Usage
    usd: Decimal | None
    unanswered_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Label:
    """One answer of a teacher: a line of the ledger.

    Attributes:
        key: SHA-256 of canonical JSON ``[model, prompt_sha256, NFC text, sample]``.
        text: The query.
        scores: Score for each label that got one, or None when the teacher failed.
        error: Why there are no scores, or None.
        teacher: Name of the model or callable.
        prompt_sha256: Hash of template, intents, schema and sampling.
        sample: Which of several samples this is, from 0.
        usage: Tokens.
        latency_ms: From sending the request to having the answer, with other requests in flight.
        asked_at: ISO 8601, UTC.
        extra: Anything else that stands in the line, kept for the record.
    """

    key: str
    text: str
    scores: Mapping[str, float] | None
    error: str | None
    teacher: str
    prompt_sha256: str
    sample: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_ms: float | None = None
    asked_at: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A query to train on.

    Attributes:
        text: The query.
        target: float32 array of shape (n_labels,), in the order of the bundle's labels.
        weight: Weight of this example in the loss.
        split: ``train`` or ``held_out`` (for calibration and thresholds, never trained on).
    """

    text: str
    target: np.ndarray[Any, np.dtype[np.float32]]
    weight: float = 1.0
    split: str = "train"


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a router answers for one query.

    The model's answer (``top_intent``, ``score``) and the policy's (``intent``, ``reason``) are kept apart. Two answers are equal only if
    they are one object; ``as_dict()`` tells whether they say the same.

    Attributes:
        intent: The accepted intent, or None.
        score: Probability of ``top_intent`` over all labels, calibrated; 0.0 for empty input.
        reason: Why ``intent`` is what it is.
        top_intent: The best in-scope label whatever the policy says; None for empty input.
        intents: Every accepted intent (``multi``: any number; otherwise one or none), best first.
        weights: For ``weights``: weight for each channel, summing to 1; otherwise None.
        labels: All labels, in the order of ``probabilities``.
        probabilities: float32 array of shape (n_labels,), or None for empty input.
    """

    intent: str | None
    score: float
    reason: Reason
    top_intent: str | None
    intents: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    labels: Sequence[str] = field(default=(), repr=False)
    probabilities: np.ndarray[Any, np.dtype[np.float32]] | None = field(default=None, repr=False)

    @property
    def scores(self) -> dict[str, float]:
        """Probability of every label (``oos`` included). Built when asked for."""
        if self.probabilities is None:
            return dict.fromkeys(self.labels, 0.0)
        return dict(zip(self.labels, self.probabilities.tolist(), strict=True))

    def as_dict(self, top: int | None = None) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes.

        Args:
            top: How many scores it holds, the best first; None: all, in the order of the labels.
        """
        scores = self.scores
        if top is not None:
            scores = dict(sorted(scores.items(), key=lambda pair: -pair[1])[:top])
        return {
            "intent": self.intent,
            "score": round(self.score, 6),
            "reason": self.reason.value,
            "top_intent": self.top_intent,
            "intents": list(self.intents),
            "weights": dict(self.weights) if self.weights is not None else None,
            "scores": {name: round(score, 6) for name, score in scores.items()},
        }


class Classifier(Protocol):
    """Anything that routes queries: teacher, students and baselines are measured alike because they are all this."""

    def route_batch(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction for each text, in order."""
        ...


Interval = tuple[float, float]
"""Lower and upper bound."""


@dataclass(frozen=True, slots=True)
class BenchRow:
    """The figures of one classifier on gold. None: does not apply, or is not known.

    Intervals are at 95 %: Wilson's for shares, the percentile bootstrap's for the others.

    Attributes:
        name: ``teacher``, ``teacher+evidence``, ``encoder``, ``static``, ``tfidf`` or ``majority``.
        n_failed: Queries without an answer (counted apart, wrong in ``accuracy``).
        accuracy: ``top_intent`` against gold on in-scope gold, no rejection.
        accuracy_policy: On all gold; out-of-scope is right if and only if ``intent`` is None.
        coverage: Share of gold queries with an accepted intent.
        macro_f1: Mean F1 of the intents that occur in gold.
        micro_f1: F1 of all their answers together.
        fidelity: Top-1 agreement with the teacher on the queries it answered.
        fidelity_kl: Mean KL divergence from the teacher's scores to the row's, nats.
        oos_auroc: AUROC of in-scope against out-of-scope by the out-of-scope score.
        oos_recall: Share of out-of-scope gold that the policy rejects.
        aurc: Area under the risk-coverage curve: mean risk over all coverages, 0 is best.
        ece: Expected calibration error of the score on in-scope queries, 15 equal-mass bins; ``multi``: of every label.
        ece_noise_floor: What ``ece`` would be in the mean, by chance alone, if every score were exactly right.
        ece_noise_floor_p95: What it would stay under in 95 of 100 such cases.
        latency_n: Calls behind the three percentiles.
        queries_per_s: At batches of 256, one thread.
        queries_per_s_by_batch: At each batch size, such as ``{"1": 650.0, "32": 900.0, "256": 950.0}``.
        cold_start_ms: A new process until its first answer.
        peak_rss_mb: The most memory that process ever held, MB of 10**6 bytes.
        usd_per_1k: US dollars for a thousand queries, a student's one by one; None where no price is known.
        notes: What one task or kind of row has alone, and how the figures were come by.
    """

    name: str
    n_failed: int = 0
    accuracy: float | None = None
    accuracy_ci95: Interval | None = None
    accuracy_policy: float | None = None
    accuracy_policy_ci95: Interval | None = None
    coverage: float | None = None
    macro_f1: float | None = None
    macro_f1_ci95: Interval | None = None
    micro_f1: float | None = None
    micro_f1_ci95: Interval | None = None
    fidelity: float | None = None
    fidelity_ci95: Interval | None = None
    fidelity_kl: float | None = None
    fidelity_kl_ci95: Interval | None = None
    oos_auroc: float | None = None
    oos_auroc_ci95: Interval | None = None
    oos_recall: float | None = None
    oos_recall_ci95: Interval | None = None
    aurc: float | None = None
    aurc_ci95: Interval | None = None
    ece: float | None = None
    ece_noise_floor: float | None = None
    ece_noise_floor_p95: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    latency_n: int | None = None
    queries_per_s: float | None = None
    queries_per_s_by_batch: Mapping[str, float] = field(default_factory=dict)
    size_mb: float | None = None
    cold_start_ms: float | None = None
    peak_rss_mb: float | None = None
    usd_per_1k: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether one row keeps one gate.

    Attributes:
        row: Name of the row.
        gate: ``accuracy_drop`` or ``p95_ms``.
        limit: What router.yaml allows.
        figure: What was measured; None where it could not be.
        passed: Whether the figure itself is within the limit; None where the gate could not be judged.
        detail: One line for people.
        ci95: Interval of the figure at 95 % (``accuracy_drop``).
        p_value: Whether the two differ at all: exact McNemar, two-sided (``accuracy_drop``).
        verdict: ``shown``, ``not shown`` or ``refuted``: what gold says at 95 % about the limit (``accuracy_drop``).
        more_gold: How many more gold queries would show it in four cases of five, if student and teacher went on differing as they do; None
            where it is shown already, or only millions or no number would (``more_would_show``).
    """

    row: str
    gate: str
    limit: float
    figure: float | None
    passed: bool | None
    detail: str = ""
    ci95: Interval | None = None
    p_value: float | None = None
    verdict: str | None = None
    more_gold: int | None = None

    @property
    def more_would_show(self) -> bool:
        """Whether enough gold would show it, be it millions of queries: what was measured is below the limit."""
        return self.figure is not None and self.figure < self.limit


@dataclass(frozen=True, slots=True)
class IntentFigures:
    """One intent (or channel) of one row on gold, after the policy, as a caller gets it.

    Attributes:
        row: Name of the row.
        intent: The intent; None stands for out-of-scope gold and rejections.
        n: Gold queries of this intent.
        n_answered: Queries that got this answer.
        precision: Share of these that were right; None where there are none.
        recall: Share of its gold queries that got this answer; None where there are none.
        recall_ci95: Wilson's interval.
        f1: Harmonic mean of the two.
        confused_with: What its gold queries were most often taken for; None is a rejection.
        n_confused: How often; 0 where it never was.
        mae: ``weights``: mean absolute error of this channel's weight.
        bias: ``weights``: mean of predicted minus gold weight.
    """

    row: str
    intent: str | None
    n: int
    n_answered: int
    precision: float | None
    recall: float | None
    recall_ci95: Interval | None
    f1: float | None
    confused_with: str | None = None
    n_confused: int = 0
    mae: float | None = None
    bias: float | None = None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One of 15 equally full bins of scores at most (equal scores share one), lowest first: is a score of 0.8 right in 80 of 100 cases?

    Attributes:
        row: Name of the row.
        n: Answers in the bin.
        score: Their mean score.
        accuracy: The share of them that is right.
        accuracy_ci95: Wilson's interval.
    """

    row: str
    n: int
    score: float
    accuracy: float
    accuracy_ci95: Interval


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What is wrong among the surest answers: a curve over how many of them are taken.

    Attributes:
        row: Name of the row.
        coverage: Shares of all gold queries, ascending.
        risk: Share of wrong answers among the surest that many.
        score: Least score among these.
        policy_coverage: Coverage at the bundle's own thresholds.
        policy_risk: Share of wrong answers there; None where nothing is accepted.
    """

    row: str
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    score: tuple[float, ...]
    policy_coverage: float
    policy_risk: float | None


@dataclass(frozen=True, slots=True)
class NearPair:
    """A gold query and the training query most like it.

    Attributes:
        gold: Text of the gold query; empty where texts are left out.
        training: Text of the training query.
        similarity: Cosine, 1 for the same text.
    """

    gold: str
    training: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Leakage:
    """How much of gold stands among the training queries.

    Attributes:
        n_exact: Gold queries that are training queries but for case and punctuation.
        n_near: Others that are nearly one.
        threshold: From which similarity on a pair is near.
        method: What similarity is.
        pairs: The near pairs, most alike first, fifty at most.
        accuracy_policy_without: ``accuracy_policy`` of each row on the gold queries that are neither; empty where all are
            left or none.
    """

    n_exact: int
    n_near: int
    threshold: float
    method: str
    pairs: tuple[NearPair, ...] = ()
    accuracy_policy_without: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What ``bench`` found: the content of bench.json.

    Attributes:
        task: What a label means.
        name: The router's name.
        n_gold: Gold queries, in scope and out of scope.
        n_in_scope: Of these, with an intent.
        n_oos: Of these, without one (``single``).
        environment: The machine and what runs on it.
        rows: The figures of each classifier.
        gates: A verdict for each limit of router.yaml.
        cost: Assumptions, prices with source and date, dollars a month, what distilling cost and when it has paid.
        provenance: Hashes and versions.
        confusions: The pairs of gold and answer that are mixed up most, for teacher and students, after the policy.
        per_intent: Figures of each intent, for teacher and students.
        reliability: Bins of each row that gives scores.
        risk_coverage: A curve for each row that gives scores.
        cascades: Points of the curve of each student with the teacher behind it (``cascade_curve.CascadePoint``), by row.
        leakage: Gold among the training queries; None where it was not looked for.
    """

    task: Task
    name: str
    n_gold: int
    n_in_scope: int
    n_oos: int
    environment: Mapping[str, Any]
    rows: tuple[BenchRow, ...]
    gates: tuple[GateVerdict, ...] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    confusions: tuple[Mapping[str, Any], ...] = ()
    per_intent: tuple[IntentFigures, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    risk_coverage: tuple[RiskCoverage, ...] = ()
    cascades: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    leakage: Leakage | None = None
