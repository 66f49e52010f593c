"""Compares teacher and students of a `weights` router with human weights over some of its channels alone.

python scripts/second_gold.py ROUTER.yaml GOLD.jsonl [--models DIR] [--json FILE] [--ask] [--base-url URL]
python scripts/second_gold.py --draw N SOURCE.jsonl GOLD.jsonl

GOLD        JSON lines: "text", "weights" over the channels that people were asked about; the teacher must have answered each text
--ask       has the teacher answer each text `teacher.samples` times, as far as its ledger lacks answers, at the usual cost
--draw      writes such a file: N lines of SOURCE, drawn by a fixed seed, unchanged

What is compared: which of the gold's channels a query needs. An answer's weights on them are scaled to sum to 1; where it gave them nothing,
they are equal. What is not compared: how much an answer gave to other channels, of which the gold says nothing (printed as "elsewhere").
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.benchmark.metrics import kl_divergence, nearest_weights
from distill.benchmark.recorded import RecordedTeacher
from distill.benchmark.statistics import compare_paired, mean_interval, wilson_interval
from distill.data import read_gold, read_jsonl, write_json, write_jsonl
from distill.errors import DataError, DistillError
from distill.router import Router
from distill.spec import load_spec
from distill.teacher.label import label, recorded_labels, recorded_samples
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from distill.spec import Spec
    from distill.types import Classifier, GoldQuery

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One contestant's answers.

    Attributes:
        name: Of the contestant.
        weights: Over the gold's channels, scaled: float64 of shape (n, n_channels).
        elsewhere: Weight on other channels, before: float64 of shape (n,).
    """

    name: str
    weights: Floats
    elsewhere: Floats


def on_channels(name: str, answers: Sequence[Mapping[str, float]], channels: Sequence[str]) -> Row:
    """Answers' weights on some channels, scaled to sum to 1; equal where they got nothing."""
    own = np.asarray([[answer[channel] for channel in channels] for answer in answers], dtype=np.float64)
    total = own.sum(axis=1, keepdims=True)
    equal = np.full_like(own, 1 / len(channels))
    scaled = np.divide(own, total, out=equal, where=total > 0)
    return Row(name, scaled, np.maximum(1 - total[:, 0], 0.0))


def rows_of(spec: Spec, gold: Sequence[GoldQuery], routers: Mapping[str, Router], channels: Sequence[str]) -> list[Row]:
    """The teacher, the students, and what asks nobody: equal weights, each channel alone, and the mean of the gold.

    Raises:
        DataError: The teacher has not answered one of the texts.
    """
    texts = [query.text for query in gold]
    answers = recorded_labels(spec, texts)
    teacher = RecordedTeacher(answers.values(), spec.labels, spec.task)
    redacted = [answers[text].text if text in answers else text for text in texts]
    if missing := int(teacher.failed(redacted).sum()):
        raise DataError(
            f"{spec.ledger_path}: holds no answer to {missing} of {len(texts)} texts; `distill label` of a spec with `gold:` asks them"
        )
    targets = _targets(gold, channels)
    constants = [
        ("equal weights", np.full(len(channels), 1 / len(channels))),
        *((f"all on {channel}", np.eye(len(channels))[at]) for at, channel in enumerate(channels)),
        ("the mean of the people's weights", targets.mean(axis=0)),
    ]
    contestants: list[tuple[str, Classifier, list[str]]] = [("teacher", teacher, redacted)]
    if often := _often(spec, texts):
        contestants.append((often.name, often, redacted))
    contestants += [(student, router, texts) for student, router in routers.items()]
    found = [
        on_channels(name, [dict(answer.weights or {}) for answer in contestant.route_batch(asked)], channels)
        for name, contestant, asked in contestants
    ]
    return [
        *found,
        *(Row(name, np.tile(weights, (len(texts), 1)), np.zeros(len(texts))) for name, weights in constants),
    ]


def _often(spec: Spec, texts: Sequence[str]) -> RecordedTeacher | None:
    """The mean of ``teacher.samples`` answers, which students learn of a query; None where these texts were not asked as often."""
    samples = recorded_samples(spec, texts)
    n = spec.teacher.samples
    n_lacking = sum(sum(answer.scores is not None for answer in each) < n for each in samples.values())
    if n == 1 or n_lacking == len(samples):
        return None
    if n_lacking:
        print(f"{n_lacking} of {len(samples)} texts lack some of {n} answers: their mean has no row", file=sys.stderr)
        return None
    answers = [answer for each in samples.values() for answer in each]
    return RecordedTeacher(answers, spec.labels, spec.task, name=f"teacher, mean of {n}")


def figures(row: Row, gold: Floats, teacher_right: Bools) -> dict[str, Any]:
    """Accuracy (nearest of the gold's distinct weights), KL, MAE, and the paired difference to the teacher."""
    right = nearest_weights(row.weights, gold)
    divergence, error = kl_divergence(gold, row.weights), np.abs(row.weights - gold).mean(axis=1)
    against = compare_paired(right, teacher_right)
    return {
        "name": row.name,
        "accuracy": float(right.mean()),
        "accuracy_ci95": wilson_interval(int(right.sum()), len(right)),
        "kl": float(divergence.mean()),
        "kl_ci95": mean_interval(divergence),
        "mae": float(error.mean()),
        "elsewhere": float(row.elsewhere.mean()),
        "better_than_teacher": -against.drop,
        "better_than_teacher_ci95": tuple(-bound for bound in reversed(against.drop_ci95)),
    }


def _targets(gold: Sequence[GoldQuery], channels: Sequence[str]) -> Floats:
    return np.asarray([[query.target.get(channel, 0.0) for channel in channels] for query in gold])


def measure(spec: Spec, path: Path, models: Path) -> dict[str, Any]:
    """Every contestant against the gold's channels.

    Raises:
        DataError: The gold is not of this spec, or the teacher has not answered one of its texts.
        BundleError: A student cannot be loaded.
    """
    gold = read_gold(path, spec.labels, Task.WEIGHTS)
    named = {channel for query in gold for channel in query.target}
    channels = tuple(label for label in spec.labels if label in named)
    targets = _targets(gold, channels)
    routers = {student: Router.load(models / student) for student in spec.students}
    rows = rows_of(spec, gold, routers, channels)
    teacher_right = nearest_weights(rows[0].weights, targets)
    distinct, counts = np.unique(targets, axis=0, return_counts=True)
    return {
        "channels": channels,
        "n_gold": len(gold),
        "gold": [{"weights": one.tolist(), "n": int(n)} for one, n in zip(distinct, counts, strict=True)],
        "rows": [figures(row, targets, teacher_right) for row in rows],
        "routers": {student: router.manifest.bundle_id for student, router in routers.items()},
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        "| | nearest of the people's weights | KL | MAE | better than the teacher, points | elsewhere |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        low, high = row["accuracy_ci95"]
        worst, best = (100 * bound for bound in row["better_than_teacher_ci95"])
        better = (
            "-" if row["name"] == "teacher" else f"{100 * row['better_than_teacher']:+.1f} [{worst:+.1f}, {best:+.1f}]"
        )
        lines.append(
            f"| {row['name']} | {row['accuracy']:.3f} [{low:.3f}, {high:.3f}] | {row['kl']:.3f} | {row['mae']:.3f} | {better} | {row['elsewhere']:.3f} |"
        )
    kinds = ", ".join(
        f"{kind['n']} of " + "/".join(f"{weight:g}" for weight in kind["weights"]) for kind in found["gold"]
    )
    return "\n".join(
        [
            *lines,
            "",
            f"{found['n_gold']} queries of people; weights over {', '.join(found['channels'])}: {kinds}. Brackets: 95 % intervals.",
        ]
    )


def draw(n: int, source: Path, target: Path) -> None:
    """Writes ``n`` lines of a file, drawn by a fixed seed, in the file's order."""
    lines = [line for _, line in read_jsonl(source)]
    if not 0 < n <= len(lines):
        raise DataError(f"{source}: holds {len(lines)} lines; --draw takes a number from 1 to that, not {n}")
    chosen = np.random.default_rng(SEED).choice(len(lines), n, replace=False)
    write_jsonl(target, [lines[row] for row in sorted(chosen)])


def main() -> None:
    """Prints the figures, or draws a gold file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs=2, type=Path, metavar="PATH")
    parser.add_argument("--draw", type=int, metavar="N")
    parser.add_argument("--models", type=Path, help="folder with the students; without it models/NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--ask", action="store_true")
    parser.add_argument("--base-url", help="takes the place of teacher.base_url, for --ask")
    arguments = parser.parse_args()
    first, second = arguments.paths
    try:
        if arguments.draw is not None:
            draw(arguments.draw, first, second)
            return
        spec = load_spec(first)
        if spec.task is not Task.WEIGHTS:
            raise DataError(f"{first}: is a router of `task: {spec.task.value}`; this compares weights")
        if arguments.ask:
            asked = [query.text for query in read_gold(second, spec.labels, spec.task)]
            label(load_spec(first, base_url=arguments.base_url), asked)
        found = measure(spec, second, spec.output(arguments.models))
    except DistillError as error:
        sys.exit(f"second_gold.py: {error}")
    if arguments.json is not None:
        write_json(arguments.json, found)
    print(markdown(found))


if __name__ == "__main__":
    main()
