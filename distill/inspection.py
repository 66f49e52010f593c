"""What a bundle is, why it answered a query as it did, and what another bundle answers otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.bundle import SELFCHECK, TOKENIZER
from distill.data import read_jsonl, read_queries
from distill.errors import DataError, DistillError, missing_extra
from distill.policy import decide_differently
from distill.tokenizer import without_surrogates
from distill.types import OUT_OF_SCOPE_LABEL, Reason, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from distill.bundle import Bundle, Manifest
    from distill.policy import Policy
    from distill.router import Router
    from distill.types import BenchRow, Example, Prediction

__all__ = [
    "AnswerChange",
    "BundleDiff",
    "Explanation",
    "Neighbour",
    "Neighbours",
    "compare",
    "explain",
    "measured",
    "policy_in_words",
    "read_texts",
    "reason_in_words",
]

_TOP_SCORES = 5
_NEIGHBOURS = 5
_LEAST_SCORE = 0.005


# --- what it is ------------------------------------------------------------------------------------------------------


def policy_in_words(policy: Policy) -> str:
    """When a bundle answers, and when it declines: one sentence."""
    if policy.task is Task.WEIGHTS:
        return "The probabilities are the weights; nothing is declined."
    if policy.thresholds is not None:
        low, high = min(policy.thresholds), max(policy.thresholds)
        own = f"{low:.3f}" if low == high else f"its own threshold ({low:.3f} to {high:.3f})"
        return f"Every intent that reaches {own} belongs to the answer; none may."
    sentence = "The likeliest intent is the answer"
    likely = (
        "likelier" if policy.out_of_scope_ratio == 1 else f"at least {policy.out_of_scope_ratio:.3g} times as likely"
    )
    declined = [f"{OUT_OF_SCOPE_LABEL} is {likely}"] if policy.labels[-1] == OUT_OF_SCOPE_LABEL else []
    if policy.threshold > 0:
        declined.append(f"its probability is under {policy.threshold:.3f}")
    return f"{sentence}, unless {' or '.join(declined)}." if declined else f"{sentence}, always."


def measured(bundle: Bundle) -> BenchRow | None:
    """The bundle's row of the bench.json that lies beside its folder; None where that measured another bundle."""
    from distill.benchmark.results import read_result

    try:
        result = read_result(bundle.path.resolve().parent / "bench.json")
    except DistillError:
        return None
    student = bundle.manifest.student
    if result.provenance.get("bundles", {}).get(student) != bundle.manifest.bundle_id:
        return None
    return next((row for row in result.rows if row.name == student), None)


# --- why a query was answered so -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training query that is near another query.

    Attributes:
        text: The training query.
        labels: Score of each label that the teacher gave it, the best first.
        similarity: From 0 to 1.
        split: ``train`` or ``held_out``.
    """

    text: str
    labels: Mapping[str, float]
    similarity: float
    split: str


class Neighbours:
    """Finds the training queries that share most with a query: words, parts of words, the rare ones counting most.

    That is TF-IDF over character n-grams inside words (scikit-learn's), compared by cosine: what a reader would call alike,
    whatever the student makes of it.

    Args:
        examples: What was trained on; at least one.
        labels: Names in the order of the examples' targets.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(self, examples: Sequence[Example], labels: Sequence[str]) -> None:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError as error:
            raise missing_extra("sklearn") from error
        self.examples, self.labels = tuple(examples), tuple(labels)
        self._vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
        self._vectors = self._vectorizer.fit_transform([example.text for example in self.examples])

    def nearest(self, text: str, n: int = _NEIGHBOURS) -> tuple[Neighbour, ...]:
        """The ``n`` nearest, the nearest first; those with nothing in common are left out."""
        similarities = (self._vectors @ self._vectorizer.transform([text]).T).toarray()[:, 0]
        best = np.argsort(-similarities, kind="stable")[:n]
        return tuple(self._neighbour(row, float(similarities[row])) for row in best.tolist() if similarities[row] > 0)

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        example = self.examples[row]
        scores = sorted(zip(self.labels, example.target.tolist(), strict=True), key=lambda pair: -pair[1])
        shown = {name: score for name, score in scores if score >= _LEAST_SCORE}
        return Neighbour(example.text, shown, min(similarity, 1.0), example.split)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a query was answered so.

    Attributes:
        text: The query.
        prediction: The answer.
        because: What the policy went by, in words.
        top: Pairs of label and probability, the likeliest first.
        n_tokens: Tokens that the model saw, special ones included.
        is_cut: Whether the query was too long to be read whole.
        neighbours: The nearest training queries; None where there are none to look at.
    """

    text: str
    prediction: Prediction
    because: str
    top: tuple[tuple[str, float], ...]
    n_tokens: int
    is_cut: bool
    neighbours: tuple[Neighbour, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes."""
        return {
            "text": self.text,
            **self.prediction.as_dict(),
            "because": self.because,
            "n_tokens": self.n_tokens,
            "is_cut": self.is_cut,
            "neighbours": None
            if self.neighbours is None
            else [
                {
                    "text": each.text,
                    "labels": dict(each.labels),
                    "similarity": round(each.similarity, 4),
                    "split": each.split,
                }
                for each in self.neighbours
            ],
        }


def explain(router: Router, text: str, neighbours: Neighbours | None = None) -> Explanation:
    """Routes a query and says why the answer is what it is.

    Args:
        router: The bundle's router.
        text: The query.
        neighbours: Of the bundle's training queries, where they are at hand: a bundle holds none.
    """
    prediction = router.route(text)
    n_tokens = len(router.tokenise(text))
    scores = sorted(prediction.scores.items(), key=lambda pair: -pair[1])
    return Explanation(
        text=text,
        prediction=prediction,
        because=reason_in_words(prediction, router.policy),
        top=tuple(scores[:_TOP_SCORES]) if prediction.probabilities is not None else (),
        n_tokens=n_tokens,
        is_cut=0 < n_tokens < _n_tokens_of_all(router.bundle, text),
        neighbours=None if neighbours is None or prediction.probabilities is None else neighbours.nearest(text),
    )


def _n_tokens_of_all(bundle: Bundle, text: str) -> int:
    """How many tokens a query has if none is cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle.path / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(without_surrogates(text)).ids)


def reason_in_words(prediction: Prediction, policy: Policy) -> str:
    """What the policy went by when it made of the scores what it made of them."""
    if prediction.reason is Reason.EMPTY_INPUT:
        return "there is nothing to route: the model was not asked"
    if policy.task is Task.WEIGHTS:
        return "the probabilities are the weights"
    if policy.thresholds is not None:
        return _thresholds_in_words(prediction, policy.thresholds)
    top, score = prediction.top_intent, f"{prediction.score:.3f}"
    if prediction.reason is Reason.OUT_OF_SCOPE:
        beyond = (
            "is likelier than"
            if policy.out_of_scope_ratio == 1
            else f"is at least {policy.out_of_scope_ratio:.3g} times as likely as"
        )
        return f"{OUT_OF_SCOPE_LABEL} at {prediction.scores[OUT_OF_SCOPE_LABEL]:.3f} {beyond} {top} at {score}"
    if prediction.reason is Reason.LOW_CONFIDENCE:
        return f"{top} at {score} is under the threshold {policy.threshold:.3f}"
    limit = (
        f"at {score} reaches the threshold {policy.threshold:.3f}"
        if policy.threshold > 0
        else f"is likeliest at {score}"
    )
    return f"{top} {limit}"


def _thresholds_in_words(prediction: Prediction, thresholds: Sequence[float]) -> str:
    limits = dict(zip(prediction.labels, thresholds, strict=True))
    scores = prediction.scores
    if not prediction.intents:
        top = str(prediction.top_intent)
        return f"no intent reaches its threshold; {top} at {scores[top]:.3f} is under {limits[top]:.3f}"
    return ", ".join(f"{name} at {scores[name]:.3f} reaches {limits[name]:.3f}" for name in prediction.intents)


# --- two bundles -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """A query that two bundles answer differently."""

    text: str
    old: Prediction
    new: Prediction


@dataclass(frozen=True, slots=True)
class BundleDiff:
    """How two bundles differ.

    Attributes:
        old: Manifest of the one.
        new: Manifest of the other.
        facts: What they are and where they came from: pairs of old and new, where these differ.
        labels_added: In the new one alone.
        labels_removed: In the old one alone.
        policy: Old and new, in words, where these differ.
        figures: Held-out figures that differ: pairs of old and new; None where one has no such figure.
        source: Where the texts came from.
        n_texts: How many were asked.
        changes: Those with another answer.
    """

    old: Manifest
    new: Manifest
    facts: Mapping[str, tuple[Any, Any]]
    labels_added: tuple[str, ...]
    labels_removed: tuple[str, ...]
    policy: tuple[str, str] | None
    figures: Mapping[str, tuple[Any, Any]]
    source: str
    n_texts: int
    changes: tuple[AnswerChange, ...]

    def as_dict(self) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes."""
        return {
            "old": self.old.bundle_id,
            "new": self.new.bundle_id,
            "facts": {name: list(pair) for name, pair in self.facts.items()},
            "labels": {"added": list(self.labels_added), "removed": list(self.labels_removed)},
            "policy": {"old": dict(self.old.policy), "new": dict(self.new.policy)},
            "figures": {name: list(pair) for name, pair in self.figures.items()},
            "answers": {
                "source": self.source,
                "n": self.n_texts,
                "n_changed": len(self.changes),
                "changed": [
                    {"text": each.text, "old": _answer(each.old), "new": _answer(each.new)} for each in self.changes
                ],
            },
        }


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {name: value for name, value in prediction.as_dict().items() if name != "scores"}


_FACTS = (
    "name",
    "student",
    "task",
    "onnx_file",
    "max_length",
    "teacher",
    "prompt_sha256",
    "data_sha256",
    "recipe_sha256",
    "seed",
)


def compare(old: Router, new: Router, texts: Sequence[str] | None = None, source: str = "") -> BundleDiff:
    """What differs between two bundles, and the texts that they answer differently.

    Args:
        old: The one.
        new: The other.
        texts: What both are asked; None takes the texts of their self-checks.
        source: Where the texts came from.
    """
    if texts is None:
        texts = list(dict.fromkeys([*_selfcheck_texts(old.bundle), *_selfcheck_texts(new.bundle)]))
        source = "their self-checks"
    before, after = old.manifest, new.manifest
    answers = zip(texts, old.route_batch(texts), new.route_batch(texts), strict=True)
    words = policy_in_words(old.policy), policy_in_words(new.policy)
    return BundleDiff(
        old=before,
        new=after,
        facts=_differing(
            {name: getattr(before, name) for name in _FACTS}, {name: getattr(after, name) for name in _FACTS}
        ),
        labels_added=tuple(name for name in after.labels if name not in before.labels),
        labels_removed=tuple(name for name in before.labels if name not in after.labels),
        policy=words if old.policy.as_dict() != new.policy.as_dict() or before.task != after.task else None,
        figures=_differing(_all_figures(old.bundle), _all_figures(new.bundle)),
        source=source,
        n_texts=len(texts),
        changes=tuple(AnswerChange(text, was, now) for text, was, now in answers if decide_differently(was, now)),
    )


def _selfcheck_texts(bundle: Bundle) -> list[str]:
    return [str(line.get("text")) for _, line in read_jsonl(bundle.path / SELFCHECK)]


_BENCH_FIGURES = ("accuracy", "accuracy_policy", "fidelity", "coverage", "oos_recall", "ece", "p50_ms", "p95_ms")


def _all_figures(bundle: Bundle) -> dict[str, Any]:
    row = measured(bundle)
    bench = {} if row is None else {f"bench {name}": getattr(row, name) for name in _BENCH_FIGURES}
    size = {"size_mb": round(bundle.size_bytes / 1e6, 2)}
    return {**bundle.manifest.figures, **size, **{name: value for name, value in bench.items() if value is not None}}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def read_texts(path: Path) -> list[str]:
    """The queries of a file: JSONL with ``text``, or one a line.

    Raises:
        DataError: The file cannot be read, or holds no query.
    """
    if path.suffix.lower() in {".jsonl", ".ndjson", ".json"}:
        texts = [query.text for query in read_queries(path)]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
        texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise DataError(f"{path}: holds no query")
    return texts
