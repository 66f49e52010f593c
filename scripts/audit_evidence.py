"""Whether the list of ``distill audit`` holds the labels that are wrong, and what it is worth to put them right.

python scripts/audit_evidence.py FOLDER --out DIR [--seed 0] [--noise 0.15] [--intents 20] [--budget-minutes 0]

Sets a fifth of FOLDER's train.jsonl aside with its labels, turns a share of the other labels to the intent that each is most often
taken for (scripts/harder.py), and has the audit list what it suspects: precision and recall. Then it trains students on the clean labels,
on those with errors, on those with the suspects put right, and on those without the suspects, and measures each on what was set aside.
test.jsonl is never opened. Writes results/audit.json, a part for each set, and results/audit.md from it. Students that were measured on the
same list before stay. A run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from audit_table import RESULTS, table
from harder import make_noisy
from provenance import tree_commit
from sklearn.metrics import average_precision_score

from distill.audit import find_label_errors
from distill.benchmark.latency import processor_name
from distill.benchmark.statistics import paired_difference_interval, wilson_interval
from distill.data import read_jsonl, write_json, write_jsonl
from distill.errors import DataError, DistillError
from distill.progress import Progress, say
from distill.router import Router
from distill.split import stratified_holdout
from distill.student.embedder import open_embedder
from distill.student.recipe import VERSION
from distill.student.train import DEFAULT_BASE_MODEL, STUDENTS, TrainingData, train_students
from distill.types import Example, Task

SET_ASIDE = 0.2
CONDITIONS = ("clean", "with errors", "suspects put right", "without suspects")

Line = dict[str, Any]


def split(folder: Path, target: Path, n_intents: int | None, seed: int) -> tuple[list[Line], list[Line]]:
    """What is audited, also written to ``target/train.jsonl``, and what is set aside.

    Raises:
        DataError: The set is not one of one intent a query.
    """
    lines = [line for _, line in read_jsonl(folder / "train.jsonl")]
    if not all(isinstance(line.get("intent"), str) for line in lines):
        raise DataError(f"{folder}: audit_evidence.py is for data sets with one intent a query")
    names = sorted({line["intent"] for line in lines})
    chosen = set(np.random.default_rng(seed).permutation(names)[:n_intents].tolist())
    lines = [line for line in lines if line["intent"] in chosen]
    kept, aside = stratified_holdout([line["intent"] for line in lines], SET_ASIDE, seed)
    audited = [lines[position] for position in kept]
    target.mkdir(parents=True, exist_ok=True)
    write_jsonl(target / "train.jsonl", audited)
    return audited, [lines[position] for position in aside]


def judge(vectors: np.ndarray[Any, Any], right: list[str], given: list[str], seed: int) -> tuple[Line, list[bool]]:
    """Precision and recall of the list, and which labels it holds."""
    names = sorted(set(right) | set(given))
    truth, labels = np.searchsorted(names, right), np.searchsorted(names, given)
    found, is_wrong = find_label_errors(vectors, labels, len(names), seed=seed), truth != labels
    order = np.argsort(found.margin, kind="stable")
    rankings = {
        "audit": -found.margin,
        "self-confidence alone": -found.self_confidence,
        "neighbours alone": -found.neighbours,
    }
    return {
        "n_labels": len(labels),
        "n_wrong": int(is_wrong.sum()),
        "n_suspected": int(found.is_suspect.sum()),
        "estimated_wrong": round(found.estimated_wrong, 1),
        "precision": _share(is_wrong[found.is_suspect]),
        "precision_ci95": wilson_interval(int(is_wrong[found.is_suspect].sum()), int(found.is_suspect.sum())),
        "recall": _share(found.is_suspect[is_wrong]),
        "recall_ci95": wilson_interval(int(found.is_suspect[is_wrong].sum()), int(is_wrong.sum())),
        "suggested_right": _share((found.suggested == truth)[found.is_suspect & is_wrong]),
        "precision_of_worst": {
            str(n): _share(is_wrong[order[:n]]) for n in (50, 100, 200, 500, 1000) if n <= len(order)
        },
        "where_another_is_likelier": {
            "n": int((found.margin < 0).sum()),
            "precision": _share(is_wrong[found.margin < 0]),
            "recall": _share((found.margin < 0)[is_wrong]),
        },
        "average_precision": {
            name: round(float(average_precision_score(is_wrong, score)), 4) for name, score in rankings.items()
        }
        | {"by chance": _share(is_wrong)},
    }, found.is_suspect.tolist()


def _share(values: np.ndarray[Any, Any]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def labels_of(condition: str, right: list[str], given: list[str], is_suspect: list[bool]) -> list[str | None]:
    """The label of each query in a condition; None where it is left out."""
    ways = {
        "clean": lambda true, _, __: true,
        "with errors": lambda _, label, __: label,
        "suspects put right": lambda true, label, suspected: true if suspected else label,
        "without suspects": lambda _, label, suspected: None if suspected else label,
    }
    return [ways[condition](*each) for each in zip(right, given, is_suspect, strict=True)]


def measure(
    name: str, texts: list[str], labels: list[str | None], aside: list[Line], out: Path, options: argparse.Namespace
) -> dict[str, list[bool]]:
    """Trains students, and tells of each on which of the queries that were set aside it is right."""
    names = tuple(sorted({*(line["intent"] for line in aside), *(label for label in labels if label is not None)}))
    targets = dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))
    examples = tuple(
        Example(text, targets[label]) for text, label in zip(texts, labels, strict=True) if label is not None
    )
    data = TrainingData(name, Task.SINGLE, names, examples, teacher="human labels")
    options_of_training = {"seed": options.seed, "budget_minutes": options.budget_minutes}
    bundles = {  # each for itself, as otherwise the encoder would teach the static student
        student: train_students(data, out / student, students=(student,), **options_of_training)[student]
        for student in options.students
    }
    queries, intents = [line["text"] for line in aside], [line["intent"] for line in aside]
    answers = {student: Router.load(bundle.path).predict_proba(queries) for student, bundle in bundles.items()}
    return {
        student: [names[best] == intent for best, intent in zip(own.argmax(axis=1).tolist(), intents, strict=True)]
        for student, own in answers.items()
    }


def compare(right: dict[str, dict[str, list[bool]]]) -> dict[str, Any]:
    """Accuracy of each student in each condition, and what it gains over training with the errors."""
    figures: dict[str, Any] = {}
    for student in right[CONDITIONS[0]]:
        noisy = np.asarray(right["with errors"][student])
        for condition in CONDITIONS:
            own = np.asarray(right[condition][student])
            only_own, only_noisy = int((own & ~noisy).sum()), int((noisy & ~own).sum())
            figures.setdefault(student, {})[condition] = {
                "n": len(own),
                "accuracy": _share(own),
                "accuracy_ci95": wilson_interval(int(own.sum()), len(own)),
                "gain": round((only_own - only_noisy) / len(own), 4),
                "gain_ci95": paired_difference_interval(only_own, only_noisy, len(own)),
            }
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole experiment on one set."""
    out = options.out / f"{options.folder.resolve().name}-{options.noise:g}"
    audited, aside = split(options.folder, out / "clean", options.intents, options.seed)
    make_noisy(out / "clean", out / "noisy", options.noise, options.seed)
    texts, right = [line["text"] for line in audited], [line["intent"] for line in audited]
    given = [line["intent"] for _, line in read_jsonl(out / "noisy" / "train.jsonl")]
    with Progress("embed", len(texts)) as progress:
        vectors = open_embedder(DEFAULT_BASE_MODEL, options.out / ".distill").embed(texts, progress.advance)
    figures, is_suspect = judge(vectors, right, given, options.seed)
    say(f"audit: precision {figures['precision']}, recall {figures['recall']} on {figures['n_labels']} labels")
    outcome: dict[str, Any] = {
        "set": options.folder.resolve().name,
        "n_intents": len(set(right)),
        "noise": options.noise,
        "seed": options.seed,
        "budget_minutes": options.budget_minutes,
        "list": figures,
    }
    if options.students:
        answers = {}
        for condition in CONDITIONS:
            say(f"students, {condition}")
            labels = labels_of(condition, right, given, is_suspect)
            models = out / "models" / condition.replace(" ", "-")
            answers[condition] = measure(out.name, texts, labels, aside, models, options)
        outcome["students"] = compare(answers)
        outcome["measured"] = dict.fromkeys(outcome["students"], measured_with())
    return outcome


def measured_with() -> dict[str, Any]:
    """With what a figure is measured now."""
    today = datetime.now(UTC).date().isoformat()
    return {"recipe": VERSION, "commit": tree_commit(), "date": today, "processor": processor_name()}


def joined(before: dict[str, Any] | None, outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome, with other students that were measured on the same list before."""
    outcome = json.loads(json.dumps(outcome))  # with lists for tuples, as what was read has them
    if before is None or any(before.get(name) != outcome[name] for name in ("list", "seed", "budget_minutes")):
        return outcome
    parts = {name: before.get(name, {}) | outcome.get(name, {}) for name in ("students", "measured")}
    return outcome | {name: own for name, own in parts.items() if own}


def main() -> None:
    """Runs it on one set and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="the JSON file; the table lies beside it [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.15, help="share of wrong labels [%(default)s]")
    parser.add_argument("--intents", type=int, help="only so many intents, drawn at random; all unless given")
    parser.add_argument("--budget-minutes", type=float, default=0.0, help="for each training [%(default)s]")
    parser.add_argument("--students", nargs="*", default=["encoder"], choices=STUDENTS, help="none: the list alone")
    options = parser.parse_args()
    try:
        outcome = run(options)
        results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
        name = f"{outcome['set']}-{outcome['noise']:g}"
        results[name] = joined(results.get(name), outcome)
        write_json(options.results, results)
        written = table(results)
        options.results.with_suffix(".md").write_text(written, encoding="utf-8")
        print(written)
    except DistillError as error:
        raise SystemExit(f"audit_evidence.py: {error}") from error


if __name__ == "__main__":
    main()
