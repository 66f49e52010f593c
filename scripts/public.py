"""Trains both students on a data set folder, its labels as the teacher, and measures them on its test part.

python scripts/public.py FOLDER --out DIR [--seed 0]

FOLDER holds train.jsonl and test.jsonl, optionally validation.jsonl (for calibration and thresholds, never trained on) and
intents.json (name to description). A line is {"text": ..., "intent": ...}, {"text": ..., "intents": [...]} or
{"text": ..., "weights": {...}}; the intent "oos" is out-of-scope. DIR/encoder, DIR/static and DIR/bench.json are written.
A run that was killed goes on where it stopped. test.jsonl is opened once, when training is done.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.benchmark.bench import BenchInputs, run_bench
from distill.benchmark.results import result_as_json
from distill.benchmark.table import print_result
from distill.data import read_gold, read_jsonl, write_json
from distill.errors import DataError, DistillError
from distill.student.train import TrainingData, train_students
from distill.types import OUT_OF_SCOPE_LABEL, Example, GoldQuery, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def main() -> None:
    """Trains, measures, writes bench.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        folder = read_folder(args.folder)
        data = TrainingData(
            name=folder.path.name,
            task=folder.task,
            labels=folder.labels,
            examples=folder.examples,
            intents=folder.intents,
            teacher="human labels",
        )
        bundles = train_students(data, args.out, students=("encoder", "static"), seed=args.seed)
        known = (*folder.labels, OUT_OF_SCOPE_LABEL) if folder.task is Task.SINGLE else folder.labels
        gold = read_gold(folder.path / "test.jsonl", known, folder.task)
        result = run_bench(
            BenchInputs(
                name=folder.path.name,
                task=folder.task,
                labels=folder.labels,
                gold=tuple(gold),
                bundles={name: bundle.path for name, bundle in bundles.items()},
                training=folder.examples,
                provenance={"data_sha256": data.data_sha256, "seed": args.seed},
                seed=args.seed,
            )
        )
        write_json(args.out / "bench.json", result_as_json(result))
        print_result(result)
    except DistillError as error:
        raise SystemExit(f"public.py: {error}") from error


if __name__ == "__main__":
    main()
