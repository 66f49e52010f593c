"""Trains both students on a data set folder, its labels as the teacher, and measures them on its test part.

python scripts/public.py FOLDER --out DIR [--seed 0] [--budget-minutes 40]

FOLDER holds train.jsonl and test.jsonl, optionally validation.jsonl (for calibration and thresholds, never trained on) and
intents.json (name to description). A line is {"text": ..., "intent": ...}, {"text": ..., "intents": [...]} or
{"text": ..., "weights": {...}}; the intent "oos" is out-of-scope. DIR/encoder, DIR/static and DIR/bench.json are written.
A run that was killed goes on where it stopped. test.jsonl is opened once, when training is done, and each opening is noted in
results/openings.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from provenance import tree_commit

from distill.benchmark.bench import BenchInputs, run_bench
from distill.benchmark.results import read_result, result_as_json
from distill.benchmark.table import print_result
from distill.data import read_gold, read_jsonl, write_json
from distill.errors import DataError, DistillError
from distill.progress import say
from distill.student.recipe import DEFAULT_BUDGET_MINUTES
from distill.student.train import TrainingData, train_students
from distill.types import OUT_OF_SCOPE_LABEL, Example, GoldQuery, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.types import BenchResult

ROOT = Path(__file__).resolve().parent.parent
OPENINGS = ROOT / "results" / "openings.jsonl"
FIGURES = (
    "accuracy", "accuracy_policy", "coverage", "macro_f1", "micro_f1", "oos_auroc", "oos_recall", "ece",
    "kl", "mae", "mae_policy", "p50_ms", "p99_ms", "size_mb", "peak_rss_mb",
)  # fmt: skip
"""What an opening is remembered by."""

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
    _, first = next(read_jsonl(train_path), (0, {}))
    task = next((task for key, task in _TASKS.items() if key in first), None)
    if task is None:
        raise DataError(f'{train_path}:1: no label; expected "intent", "intents" or "weights" beside "text"')
    train = read_gold(train_path, task=task)
    descriptions = _descriptions(path / "intents.json")
    names = set(descriptions).union(*(query.target for query in train))
    ordered = [*(name for name in descriptions), *sorted(names - set(descriptions))]
    labels = (*(n for n in ordered if n != OUT_OF_SCOPE_LABEL), *(n for n in ordered if n == OUT_OF_SCOPE_LABEL))
    held_out = read_gold(validation_path, labels) if validation_path.exists() else []
    return Folder(
        path=path,
        task=task,
        labels=labels,
        examples=(*_examples(train, labels, "train"), *_examples(held_out, labels, "held_out")),
        intents=tuple(
            Intent(name, descriptions.get(name, name.replace("_", " ")))
            for name in labels
            if name != OUT_OF_SCOPE_LABEL
        ),
    )


def _descriptions(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON in UTF-8: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f"{path}: expected an object from name to description")
    return value


def _examples(queries: Sequence[GoldQuery], labels: tuple[str, ...], split: str) -> list[Example]:
    return [
        Example(query.text, np.asarray([query.target.get(name, 0.0) for name in labels], np.float32), split=split)
        for query in queries
    ]


def measure(
    folder_path: Path, out: Path, *, seed: int = 0, budget_minutes: float = DEFAULT_BUDGET_MINUTES
) -> BenchResult:
    """Trains both students on a data set folder, then opens its test part, once, and measures them.

    A finished run is not repeated: what stands in ``out/bench.json`` is given back, and the test part is not opened again.

    Args:
        folder_path: The data set folder.
        out: Where the bundles and bench.json go.
        seed: Of the training.
        budget_minutes: What training may take on two cores; dearer steps are left out where they do not fit.

    Raises:
        DistillError: The data cannot be read or trained on.
    """
    folder = read_folder(folder_path)
    data = TrainingData(
        name=folder.path.resolve().name,
        task=folder.task,
        labels=folder.labels,
        examples=folder.examples,
        intents=folder.intents,
        teacher="human labels",
    )
    commit, was_begun = tree_commit(), (out / ".work").exists()
    started = time.monotonic()
    bundles = train_students(data, out, students=("encoder", "static"), seed=seed, budget_minutes=budget_minutes)
    minutes = None if was_begun else round((time.monotonic() - started) / 60, 1)
    bench_path = out / "bench.json"
    made_from = {name: bundle.manifest.bundle_id for name, bundle in bundles.items()}
    if bench_path.exists() and (done := read_result(bench_path)).provenance.get("bundles") == made_from:
        say(f"{bench_path}: measured before; the test part stays shut")
        return done
    known = (*folder.labels, OUT_OF_SCOPE_LABEL) if folder.task is Task.SINGLE else folder.labels
    gold = read_gold(folder.path / "test.jsonl", known, folder.task)
    result = run_bench(
        BenchInputs(
            name=data.name,
            task=folder.task,
            labels=folder.labels,
            gold=tuple(gold),
            bundles={name: bundle.path for name, bundle in bundles.items()},
            training=folder.examples,
            provenance={
                "bundles": made_from,
                "data_sha256": data.data_sha256,
                "seed": seed,
                "train_minutes": minutes,  # of a run that went on where another stopped, not known
                "train_peak_rss_mb": _peak_rss_mb(),
            },
            seed=seed,
        )
    )
    write_json(bench_path, result_as_json(result))
    note_opening(data.name, seed, commit, result)
    return result


def note_opening(name: str, seed: int, commit: str, result: BenchResult) -> None:
    """Appends to results/openings.jsonl that the test part of a set was opened, and what it showed."""
    rows = [row for row in result_as_json(result)["rows"] if row["name"] in {"encoder", "static", "tfidf"}]
    line = {
        "opened_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "set": name,
        "seed": seed,
        "n_in_scope": result.n_in_scope,
        "n_oos": result.n_oos,
        "train_minutes": result.provenance["train_minutes"],
        "train_peak_rss_mb": result.provenance["train_peak_rss_mb"],
        "processor": result.environment.get("processor"),
        "rows": {row["name"]: {key: row[key] for key in FIGURES if row.get(key) is not None} for row in rows},
    }
    OPENINGS.parent.mkdir(exist_ok=True)
    with OPENINGS.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


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
