"""Trains both students on a data set folder, its labels as the teacher, and measures them on its test part.

python scripts/public.py FOLDER --out DIR [--seed 0] [--budget-minutes 60]

FOLDER holds train.jsonl and test.jsonl, optionally validation.jsonl (for calibration and thresholds, never trained on) and
intents.json (name to description). A line is {"text": ..., "intent": ...}, {"text": ..., "intents": [...]} or
{"text": ..., "weights": {...}}; the intent "oos" is out-of-scope, and thresholds are fitted with what validation.jsonl has of it, though train.jsonl
have none. DIR/encoder, DIR/static and DIR/bench.json are written.
A run that was killed goes on where it stopped. test.jsonl is opened once, when training is done, and each opening is noted in
results/openings.jsonl, before it and with the figures. A label that stands there alone counts as wrong, whatever is answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openings
from openings import OPENINGS
from provenance import refuse_other_code, refuse_several_processes, tree_commit

from distill.benchmark.bench import BenchInputs, run_bench
from distill.benchmark.results import read_result, result_as_json
from distill.benchmark.table import print_result
from distill.bundle import ONNX_INT8
from distill.data import read_gold, read_jsonl, sha256_file, write_json
from distill.errors import DataError, DistillError
from distill.progress import say
from distill.student import train as student_train
from distill.student.recipe import DEFAULT_BUDGET_MINUTES, EXPORT_VERSION, VERSION
from distill.student.train import DEFAULT_BASE_MODEL, STUDENTS, TrainingData, train_students, untrained_students
from distill.types import OUT_OF_SCOPE_LABEL, Example, GoldQuery, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.bundle import Bundle
    from distill.types import BenchResult

FIGURES = (
    "accuracy", "accuracy_policy", "coverage", "macro_f1", "micro_f1", "oos_auroc", "oos_recall", "ece", "ece_noise_floor",
    "kl", "mae", "mae_policy", "p50_ms", "p99_ms", "size_mb", "peak_rss_mb",
)  # fmt: skip
"""What an opening is remembered by."""

_FEWEST_LABELS = 2
_WITHOUT = {
    Task.MULTI: "a query that fits none has an empty list of intents",
    Task.WEIGHTS: "weights are shares of what there is",
}
_TASKS = {"intent": Task.SINGLE, "intents": Task.MULTI, "weights": Task.WEIGHTS}


@dataclass(frozen=True)
class Folder:
    """A data set but for its test part."""

    path: Path
    task: Task
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    intents: tuple[Intent, ...]


def read_folder(path: Path) -> Folder:
    """Reads train, validation and intents.

    Raises:
        DataError: A file is missing or wrong.
    """
    train_path, validation_path = path / "train.jsonl", path / "validation.jsonl"
    number, first = next(read_jsonl(train_path), (0, {}))
    if not number:
        raise DataError(f"{train_path}: holds no query")
    task = next((task for key, task in _TASKS.items() if key in first), None)
    if task is None:
        raise DataError(f'{train_path}:{number}: no label; expected "intent", "intents" or "weights" beside "text"')
    train = _read_part(train_path, task)
    descriptions = _descriptions(path / "intents.json")
    if OUT_OF_SCOPE_LABEL in descriptions and task is not Task.SINGLE:
        raise DataError(f"{path / 'intents.json'}: {OUT_OF_SCOPE_LABEL!r} is no name of an intent; {_WITHOUT[task]}")
    taught: set[str] = set().union(*(query.target for query in train))
    if OUT_OF_SCOPE_LABEL not in taught:  # as a label that nobody learns it would only mislead
        descriptions.pop(OUT_OF_SCOPE_LABEL, None)
    names = {*descriptions, *taught}
    if len(names) < _FEWEST_LABELS:
        raise DataError(f"{train_path}: students need two labels or more, found {', '.join(names) or 'none'}")
    if not any(query.target for query in train):
        raise DataError(f"{train_path}: no line has an intent; there is nothing to learn")
    ordered = [*(name for name in descriptions), *sorted(names - set(descriptions))]
    labels = (*(n for n in ordered if n != OUT_OF_SCOPE_LABEL), *(n for n in ordered if n == OUT_OF_SCOPE_LABEL))
    held_out = _read_part(validation_path, task) if validation_path.exists() else []
    fits_none = {OUT_OF_SCOPE_LABEL} if task is Task.SINGLE else set()
    known = [query for query in held_out if (names | fits_none).issuperset(query.target)]
    if len(known) < len(held_out):
        say(
            f"{validation_path}: {len(held_out) - len(known)} lines are left out: their labels stand in no line of train.jsonl"
        )
    return Folder(
        path=path,
        task=task,
        labels=labels,
        examples=(*_examples(train, labels, "train"), *_examples(known, labels, "held_out")),
        intents=tuple(
            Intent(name, descriptions.get(name, name.replace("_", " ")))
            for name in labels
            if name != OUT_OF_SCOPE_LABEL
        ),
    )


def read_test(folder: Folder) -> tuple[list[GoldQuery], tuple[str, ...], tuple[Example, ...]]:
    """The test part, and all labels and the examples with those labels that stand in it alone.

    Raises:
        DataError: The file is missing or wrong.
    """
    gold = _read_part(folder.path / "test.jsonl", folder.task)
    of_policy = {OUT_OF_SCOPE_LABEL} if folder.task is Task.SINGLE else set()
    new = sorted(set().union(*(query.target for query in gold)) - {*folder.labels, *of_policy})
    if not new:
        return gold, folder.labels, folder.examples
    say(
        f"{folder.path / 'test.jsonl'}: students cannot know {', '.join(map(repr, new))}: no line of train.jsonl has it"
    )
    at = len(folder.labels) - (folder.labels[-1] == OUT_OF_SCOPE_LABEL)
    rows = {id(example.target): example.target for example in folder.examples}
    rows = {key: np.insert(row, [at] * len(new), 0.0) for key, row in rows.items()}  # shared as they were
    examples = tuple(replace(example, target=rows[id(example.target)]) for example in folder.examples)
    return gold, (*folder.labels[:at], *new, *folder.labels[at:]), examples


def _read_part(path: Path, task: Task) -> list[GoldQuery]:
    queries = read_gold(path, task=task)
    if task is not Task.SINGLE and any(OUT_OF_SCOPE_LABEL in query.target for query in queries):
        line = next(
            number
            for (number, _), query in zip(read_jsonl(path), queries, strict=True)
            if OUT_OF_SCOPE_LABEL in query.target
        )
        raise DataError(f"{path}:{line}: {OUT_OF_SCOPE_LABEL!r} is no name of an intent; {_WITHOUT[task]}")
    return queries


def _descriptions(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON in UTF-8: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f"{path}: expected an object from name to description")
    return value


def _examples(queries: Sequence[GoldQuery], labels: tuple[str, ...], split: str) -> list[Example]:
    """Queries with the same label share a row: 200,000 over 10,000 intents would take 8 GB.

    What is out of scope is of no label where that is none: thresholds are fitted with it, and no student learns it.
    """
    column = {name: number for number, name in enumerate(labels)}
    rows: dict[tuple[tuple[str, float], ...], np.ndarray[Any, np.dtype[np.float32]]] = {}
    found = []
    for query in queries:
        key = tuple(sorted(query.target.items()))
        if key not in rows:
            rows[key] = np.zeros(len(labels), np.float32)
            known = {column[name]: value for name, value in query.target.items() if name in column}
            rows[key][list(known)] = list(known.values())
        found.append(Example(query.text, rows[key], split=split))
    return found


def measure(
    folder_path: Path, out: Path, *, seed: int = 0, budget_minutes: float = DEFAULT_BUDGET_MINUTES
) -> BenchResult:
    """Trains both students on a data set folder, then opens its test part, once, and measures them.

    A finished run is not repeated: where students and test part are as they were, what stands in ``out/bench.json`` is given back, and
    the test part is not opened again (but for its hash).

    Args:
        folder_path: The data set folder.
        out: Where the bundles, training.json and bench.json go.
        seed: Of the training.
        budget_minutes: What training may take on two cores; dearer steps are left out where they do not fit.

    Raises:
        DistillError: The data cannot be read or trained on, or several processes were started together.
    """
    refuse_several_processes()
    refuse_other_code()
    commit = tree_commit()
    openings.check_writable(OPENINGS)
    folder = read_folder(folder_path)
    if not (folder.path / "test.jsonl").exists():
        raise DataError(f"{folder.path / 'test.jsonl'}: is missing; students are measured on it")
    data = _training_data(folder)
    bundles, training = train(data, out, seed, budget_minutes, commit)
    hashes = part_hashes(folder.path)
    bench_path = out / "bench.json"
    if bench_path.exists():
        done = read_result(bench_path)
        wanted = {"bundles": training["bundles"], "test_sha256": hashes["test_sha256"]}
        if wanted.items() <= done.provenance.items():
            say(f"{bench_path}: measured before; the test part stays shut")
            return done
    gold, labels, examples = read_test(folder)
    facts = {"seed": seed, **hashes, **training}
    opening = {
        "opened_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "set": data.name,
        **{name: fact for name, fact in facts.items() if name != "bundles"},
        "rows": {},
    }
    openings.note(opening, OPENINGS)
    result = run_bench(
        BenchInputs(
            name=data.name,
            task=folder.task,
            labels=labels,
            gold=tuple(gold),
            bundles={name: bundle.path for name, bundle in bundles.items()},
            training=examples,
            provenance={"data_sha256": data.data_sha256, "commit": commit, "opened_at": opening["opened_at"], **facts},
            seed=seed,
        )
    )
    openings.note(opening | figures(result), OPENINGS)
    write_json(bench_path, result_as_json(result))  # last: where it stands, nothing is noted any more
    return result


def on_record(folder_path: Path, out: Path, *, seed: int, budget_minutes: float) -> openings.Opening | None:
    """The last opening of exactly this folder's parts whose students were made as ``measure`` would make them now; None where there is none.

    Args:
        folder_path: The data set folder.
        out: Where students would be trained; nothing is written.
        seed: Of the training.
        budget_minutes: What training may take on two cores.

    Raises:
        DistillError: The folder or the openings cannot be read.
    """
    made: dict[str, Any] = {"seed": seed, "recipe": VERSION, "export": EXPORT_VERSION, "budget_minutes": budget_minutes}
    parts = part_hashes(folder_path)
    if openings.last_measured(OPENINGS, parts, made) is None:
        return None
    assistant = plan(_training_data(read_folder(folder_path)), out, seed, budget_minutes)["assistant"]
    return openings.last_measured(OPENINGS, parts, made | {"assistant": assistant})


def _training_data(folder: Folder) -> TrainingData:
    return TrainingData(
        name=folder.path.resolve().name,
        task=folder.task,
        labels=folder.labels,
        examples=folder.examples,
        intents=folder.intents,
        teacher="human labels",
    )


def part_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each part that a data set folder has."""
    parts = (folder / f"{part}.jsonl" for part in ("train", "validation", "test"))
    return {f"{path.stem}_sha256": sha256_file(path) for path in parts if path.exists()}


def train(
    data: TrainingData, out: Path, seed: int, budget_minutes: float, commit: str
) -> tuple[dict[str, Bundle], dict[str, Any]]:
    """The bundles, and what is known of their training; training.json keeps it, as a later run cannot know.

    Minutes, peak memory, cores and the commit that trained are None where several processes trained, one after another, and memory also where
    an earlier training in this process took more.
    """
    wanted: dict[str, Any] = {"seed": seed, "budget_minutes": budget_minutes}
    untrained = untrained_students(data, out, students=STUDENTS, base_model=DEFAULT_BASE_MODEL, **wanted)
    is_begun = (out / ".work").exists() or untrained != STUDENTS
    peak_before, started = _peak_rss_mb(), time.monotonic()
    bundles = train_students(data, out, students=STUDENTS, **wanted)
    peak, minutes = _peak_rss_mb(), round((time.monotonic() - started) / 60, 1)
    path = out / "training.json"
    made_from = {name: bundle.manifest.bundle_id for name, bundle in bundles.items()}
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_bytes())
        if known["bundles"] == made_from:
            return bundles, known
    known = {
        "bundles": made_from,
        "graphs": {
            name: "int8" if bundle.manifest.onnx_file == ONNX_INT8 else "fp32" for name, bundle in bundles.items()
        },
        "int8": {
            name: {figure: value for figure, value in bundle.manifest.figures.items() if figure.startswith("int8_")}
            for name, bundle in bundles.items()
        },
        "recipe": VERSION,
        "export": EXPORT_VERSION,
        "budget_minutes": budget_minutes,
        **plan(data, out, seed, budget_minutes),
        "train_minutes": None if is_begun else minutes,
        "train_peak_rss_mb": None if is_begun or peak == peak_before else peak,
        "train_cores": None if is_begun else n_cores(),
        "trained_commit": None if is_begun else commit,
    }
    write_json(path, known)
    return bundles, known


def plan(data: TrainingData, out: Path, seed: int, budget_minutes: float) -> dict[str, Any]:
    """What training sets out to do: who besides the labels teaches the students, and how long it reckons to take.

    The assistant is a larger model, so many encoders, or ``none``.
    """
    run = student_train._run(  # noqa: SLF001  # its recipe is nowhere else
        data, out, STUDENTS, DEFAULT_BASE_MODEL, None, seed, budget_minutes, show_progress=False
    )
    n_own = run.encoder_recipe.assistants
    assistant = run.assistant_model if run.encoder_recipe.larger else f"{n_own} encoders" if n_own else "none"
    return {"assistant": assistant, "estimated_minutes": round(run.estimated_minutes(STUDENTS), 1)}


def n_cores() -> int | None:
    """Those that training may use; None where a GPU trains."""
    import torch

    if torch.cuda.is_available():
        return None
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def figures(result: BenchResult) -> dict[str, Any]:
    """What an opening showed."""
    rows = [row for row in result_as_json(result)["rows"] if row["name"] in {"encoder", "static", "tfidf"}]
    return {
        "n_in_scope": result.n_in_scope,
        "n_oos": result.n_oos,
        "processor": result.environment.get("processor"),
        "rows": {row["name"]: {key: row[key] for key in FIGURES if row.get(key) is not None} for row in rows},
    }


def _peak_rss_mb() -> int | None:
    """Peak memory of this process in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)


def main() -> None:
    """Trains, measures, writes bench.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--budget-minutes",
        type=float,
        default=DEFAULT_BUDGET_MINUTES,
        help="what training may take on two cores; dearer steps are left out where they do not fit [%(default)s]",
    )
    args = parser.parse_args()
    try:
        print_result(measure(args.folder, args.out, seed=args.seed, budget_minutes=args.budget_minutes))
    except DistillError as error:
        raise SystemExit(f"public.py: {error}") from error


if __name__ == "__main__":
    main()
