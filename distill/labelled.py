"""What students learn from: the labelled queries as examples, a tenth of them held out, from queries, ledger and gold.

queries.jsonl ─┐ without gold                      combined with the known
ledger.jsonl  ─┴─▶ answers ─▶ mean of the samples ─▶ examples, if there are enough ─▶ examples: train, held out
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.combination import combine_with_evidence
from distill.data import as_known, leaked, read_gold, read_queries
from distill.errors import DataError
from distill.policy import scores_as_target
from distill.progress import say
from distill.split import HELD_OUT_SHARE, stratified_holdout, with_every_label
from distill.teacher.functions import redactor
from distill.teacher.imported import why_unlabelled
from distill.teacher.label import queries_of, recorded_samples
from distill.teacher.rounds import added_queries_path
from distill.types import HOLDS, Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from distill.combination import Combined
    from distill.spec import Spec
    from distill.types import GoldQuery, Label

    Target = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["Labelled", "answers_to_queries", "labelled_queries", "redacted_gold", "target_of"]

_SHOWN_TEXTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """The labelled queries.

    Attributes:
        examples: What is learnt.
        combined: What combined their labels with the known examples; None where they are as the teacher gave them.
    """

    examples: tuple[Example, ...]
    combined: Combined | None


def labelled_queries(spec: Spec, *, with_evidence: bool = True, show_notes: bool = False) -> Labelled:
    """The labelled queries as training examples, a stratified tenth of them held out.

    Args:
        spec: The router's spec.
        with_evidence: Whether the answers are combined with the known examples, where there are enough.
        show_notes: Says on stderr what is left out, and what the known examples changed.

    Raises:
        DataError: There is no query, or none has a label.
    """
    n_texts, also_gold, answers = answers_to_queries(spec)
    if len(also_gold) == n_texts:
        raise DataError(
            f"{spec.queries_path}: every query is also in {spec.gold_path}, and what a router is measured on is not trained on; "
            "take queries out of one of the two"
        )
    targets, both = _targets(spec, answers), None
    if show_notes:
        _say_what_is_left_out(sorted(also_gold), n_texts - len(also_gold) - len(targets))
    added = _added(spec)
    if with_evidence:
        targets, both = _combined(spec, targets, added, show_notes=show_notes)
    own = {text: target for text, target in targets.items() if text not in added}
    chosen = _held_out(spec, own)
    held_out = set(map(as_known, chosen))
    found = (
        Example(text, target, split="held_out" if text in chosen else "train")
        for text, target in targets.items()
        if text not in added or as_known(text) not in held_out  # the same query in other case or punctuation
    )
    return Labelled(tuple(found), both)


def _held_out(spec: Spec, targets: dict[str, Target]) -> set[str]:
    """The texts to hold out. Those that differ in case and punctuation alone stay together: what was learnt would calibrate otherwise."""
    alike: dict[str, list[str]] = {}
    for text in targets:
        alike.setdefault(as_known(text), []).append(text)
    texts = list(alike.values())
    first = [targets[each[0]] for each in texts]
    strata = [int(target.argmax()) if target.any() else None for target in first]
    kept, held_out = stratified_holdout(strata, HELD_OUT_SHARE, spec.seed)
    if not spec.task.sums_to_one:
        kept, held_out = with_every_label(lambda position: first[position] >= HOLDS, kept, held_out)
    return {text for position in held_out for text in texts[position]}


def _targets(spec: Spec, answers: Mapping[str, Sequence[Label]]) -> dict[str, Target]:
    """The teacher's answers as targets, by text.

    Raises:
        DataError: There is none.
    """
    means = ((text, _mean_target(samples, spec)) for text, samples in answers.items())
    targets = _sharing_rows((text, target) for text, target in means if target is not None)
    if not targets:
        if spec.labels_path is not None:
            raise DataError(why_unlabelled(spec))
        raise DataError(f"{spec.ledger_path}: no query has a label; {spec.command('label')} asks the teacher")
    return targets


def _sharing_rows(targets: Iterable[tuple[str, Target]]) -> dict[str, Target]:
    """Targets by text; those of one and the same certain label are one array: 200,000 queries over 10,000 intents would take 8 GB."""
    rows: dict[tuple[int, float], Target] = {}
    shared = {}
    for text, target in targets:
        (columns,) = target.nonzero()
        key = (int(columns[0]), float(target[columns[0]])) if len(columns) == 1 else None
        shared[text] = target if key is None else rows.setdefault(key, target)
    return shared


def _combined(
    spec: Spec, targets: dict[str, Target], added: set[str], *, show_notes: bool
) -> tuple[dict[str, Target], Combined | None]:
    """Targets combined with the known examples, where there are enough, and what combined them: which no query that was added changes."""
    both = combine_with_evidence(spec, targets, without=added, show_progress=show_notes)
    if both is None:
        return targets, None
    combined = both(targets)
    if show_notes:
        n_changed = sum(int(target.argmax() != targets[text].argmax()) for text, target in combined.items())
        say(
            f"train: answers combined with {len(both.known)} known examples (right by estimate: the teacher "
            f"{both.combination.teacher_accuracy:.2f}, the examples {both.combination.evidence_accuracy:.2f}); "
            f"another label is likeliest for {n_changed} of {_queries(len(targets))}"
        )
    return combined, both


def _added(spec: Spec) -> set[str]:
    """What ``improve`` alone added. It is never held out, so that rounds are compared on the same queries."""
    path, redact = added_queries_path(spec), redactor(spec)
    if not path.exists():
        return set()
    own = {redact(query.text) for query in read_queries(spec.queries_path)}
    return {redact(query.text) for query in read_queries(path)} - own


def answers_to_queries(spec: Spec) -> tuple[int, set[str], dict[str, tuple[Label, ...]]]:
    """How many distinct queries there are, which of them are gold too, and what was answered to the others."""
    redact = redactor(spec)
    texts = list(dict.fromkeys(redact(query.text) for query in queries_of(spec)))
    also_gold = set(leaked(texts, redacted_gold(spec)))
    return (
        len(texts),
        also_gold,
        recorded_samples(spec, [text for text in texts if text not in also_gold], redacted=True),
    )


def _say_what_is_left_out(also_gold: list[str], n_unlabelled: int) -> None:
    if also_gold:
        shown = ", ".join(map(repr, also_gold[:_SHOWN_TEXTS]))
        more = f" and {len(also_gold) - _SHOWN_TEXTS} more" if len(also_gold) > _SHOWN_TEXTS else ""
        say(f"train: left out because also gold: {_queries(len(also_gold))} ({shown}{more})")
    if n_unlabelled:
        say(f"train: left out because without a label: {_queries(n_unlabelled)}")


def _queries(n: int) -> str:
    return "1 query" if n == 1 else f"{n} queries"


def _mean_target(samples: Sequence[Label], spec: Spec) -> Target | None:
    """The mean over the samples that are usable: one sample's target is just what it says."""
    targets = [target for sample in samples if (target := target_of(sample, spec)) is not None]
    return np.mean(targets, axis=0, dtype=np.float32) if targets else None


def target_of(answer: Label, spec: Spec) -> Target | None:
    """float32 array of shape (n_labels,), summing to 1 but for ``multi``; None where the answer is no such thing."""
    return scores_as_target(answer.scores, spec.column_of_label, spec.task)


def redacted_gold(spec: Spec) -> tuple[GoldQuery, ...]:
    """Gold as it may be stored and shown: redacted."""
    if spec.gold_path is None:
        return ()
    redact = redactor(spec)
    return tuple(replace(query, text=redact(query.text)) for query in read_gold(spec.gold_path, spec.labels, spec.task))
