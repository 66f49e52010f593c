"""How the students grow: training time, size, accuracy and latency over numbers of intents and of queries.

python scripts/growth.py [--only static|encoder|ledger] [--again] [--table]

Queries are made up, the same ones every time: an intent is a pair of groups of like words, a query holds a word of each of the two, often one of
a third group after "not", and filler. The static student learns from labels alone, the encoder for one pass. Each cell runs in a
process of its own and adds a line to results/growth.jsonl; a run that was killed goes on with the cells that are missing there, and --again measures those that are there too.
results/growth.md is made from these lines; --table makes it anew and runs nothing. A whole run takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from growth_table import PAGE, QUERIES, RESULTS, table
from provenance import tree_commit

from distill import Router
from distill.benchmark.latency import measure_latency, one_thread, processor_name
from distill.data import label_as_line, ledger_key, read_jsonl, write_jsonl
from distill.progress import say
from distill.student import train
from distill.student.recipe import EncoderRecipe
from distill.student.train import DEFAULT_BASE_MODEL, TrainingData
from distill.student.vectors import word_neighbours
from distill.student.weights import load_base_model
from distill.types import Example, Label, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

INTENTS = (10, 100, 1_000, 10_000)
ANSWERS = (10_000, 100_000, 1_000_000)
HELD_OUT, TEST = 2_000, 2_000
"""Queries besides those to learn from: for temperature and thresholds, and to measure accuracy on."""

FILLER, RARE = 150, 6_000
GROUP, LONGEST = 4, 7
NOT_SHARE = 0.4


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Attributes:
        what: ``static``, ``encoder`` or ``ledger``.
        intents: Number of intents; 0 for the ledger.
        n: Queries to learn from, or answers in the ledger.
    """

    what: str
    intents: int
    n: int

    def is_in(self, line: dict[str, Any]) -> bool:
        """Whether a line of the results is of this cell."""
        return (self.what, self.intents, self.n) == (line["what"], line["intents"], line["n"])


def cells() -> Iterator[Cell]:
    """All of them, small ones first. Fewer queries than intents teach nothing about most of these."""
    for n in ANSWERS:
        yield Cell("ledger", 0, n)
    for what, sizes in QUERIES.items():
        for n, intents in itertools.product(sizes, INTENTS):
            if n >= intents:
                yield Cell(what, intents, n)


class Language:
    """Words of the base model in groups of like ones, and what each intent is called by.

    Args:
        n_intents: Number of intents.
    """

    def __init__(self, n_intents: int) -> None:
        chance = random.Random(0)  # noqa: S311
        base = load_base_model(DEFAULT_BASE_MODEL)
        numbers = base.tokenizer.get_vocab()
        words = sorted(
            (word for word in numbers if word.isalpha() and word.islower() and len(word) > 1), key=numbers.__getitem__
        )
        self.filler, common = words[:FILLER], words[FILLER:RARE]
        n_groups = next(number for number in itertools.count(4) if number * (number - 1) // 2 >= 2 * n_intents)
        near = word_neighbours(base, [" ".join(chance.sample(common, len(common)))])
        self.groups: list[list[str]] = []
        taken: set[str] = set(self.filler)
        for word in chance.sample(common, len(common)):
            group = [each for each in (word, *near.get(word, ())) if each not in taken][:GROUP]
            if len(group) == GROUP and len(self.groups) < n_groups:
                self.groups.append(group)
                taken.update(group)
        self.intents = chance.sample(list(itertools.combinations(range(len(self.groups)), 2)), n_intents)

    def query(self, intent: int, chance: random.Random) -> str:
        """A made-up query of an intent."""
        words = chance.choices(self.filler, k=chance.randrange(2, LONGEST))
        for group in self.intents[intent]:
            words.insert(chance.randrange(len(words) + 1), chance.choice(self.groups[group]))
        if chance.random() < NOT_SHARE:
            words += ["not", chance.choice(chance.choice(self.groups))]
        return " ".join(words)


def made(n_intents: int, n: int) -> tuple[TrainingData, list[tuple[str, int]]]:
    """Distinct queries, as many of each intent as of any other: what is learnt, and what is measured on."""
    language, chance = Language(n_intents), random.Random(1)  # noqa: S311
    found: dict[str, int] = {}
    for intent in itertools.cycle(range(n_intents)):
        if len(found) == n + HELD_OUT + TEST:
            break
        found.setdefault(language.query(intent, chance), intent)
    queries = list(found.items())
    rows = np.eye(n_intents, dtype=np.float32)  # examples of an intent share a row of it
    examples = [Example(text, rows[intent]) for text, intent in queries[:n]]
    examples += [Example(text, rows[intent], split="held_out") for text, intent in queries[n : n + HELD_OUT]]
    labels = tuple(f"intent_{number}" for number in range(n_intents))
    return TrainingData("growth", Task.SINGLE, labels, tuple(examples)), queries[n + HELD_OUT :]


def measure_student(cell: Cell, folder: Path) -> dict[str, Any]:
    """Trains a student and measures its bundle."""
    data, test = made(cell.intents, cell.n)
    once = EncoderRecipe(epochs=1, batch_size=64)
    started = time.perf_counter()
    with patch.object(train, "encoder_recipe", lambda *_: once):
        (bundle,) = train.train_students(data, folder, students=(cell.what,), budget_minutes=0).values()
    seconds = time.perf_counter() - started
    router = Router.load(bundle.path)
    texts = [text for text, _ in test]
    with one_thread():
        answers = router.route_batch(texts)
        p50_ms = measure_latency({cell.what: router.route}, texts)[cell.what].percentile(50)
    right = [answer.top_intent == data.labels[intent] for answer, (_, intent) in zip(answers, test, strict=True)]
    return {
        "seconds": round(seconds, 1),
        "seconds_per_1k": round(1000 * seconds / cell.n, 3),
        "size_mb": round(bundle.size_bytes / 1e6, 1),
        "accuracy": round(float(np.mean(right)), 4),
        "p50_ms": round(p50_ms, 4),
        "onnx_file": bundle.manifest.onnx_file,
    }


def measure_ledger(cell: Cell, folder: Path) -> dict[str, Any]:
    """Writes so many answers, and opens the file as ``label`` does."""
    from distill.teacher.ledger import Ledger

    path = folder / "ledger.jsonl"
    prompt_sha256, teacher = "0" * 64, "a-teacher-of-usual-name"
    settings = {
        "template": "label_single_001",
        "intents": "0" * 12,
        "response_format": "json_schema",
        "temperature": 0.0,
    }
    with path.open("w", encoding="utf-8") as lines:
        for number in range(cell.n):
            text = f"how do i move some of my money between accounts number {number} please"
            label = Label(
                ledger_key(teacher, prompt_sha256, text),
                text,
                {f"intent_{number % 150}": 1.0},
                None,
                teacher,
                prompt_sha256,
                usage=Usage(1_000 + number % 100, 7, 900),
                latency_ms=number / 10,
                asked_at="2026-01-31T12:00:00.000Z",
                extra={"settings": settings, "in_flight": 4, "server": "this machine"},
            )
            lines.write(json.dumps(label_as_line(label), ensure_ascii=False) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    ledger = Ledger(path)
    seconds = time.perf_counter() - started
    held_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    return {
        "seconds": round(seconds, 2),
        "seconds_per_1k": round(1000 * seconds / len(ledger.lines), 4),
        "size_mb": round(path.stat().st_size / 1e6, 1),
        "held_mb": round(held_mb, 1),
    }


def measure(cell: Cell) -> dict[str, Any]:
    """The line of a cell."""
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        figures = (measure_ledger if cell.what == "ledger" else measure_student)(cell, Path(folder))
    return {
        **asdict(cell),
        **figures,
        "cpu_seconds": round(time.process_time(), 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "commit": tree_commit(),
    }


def run(cell: Cell) -> dict[str, Any]:
    """Measures a cell in a process of its own, so that its peak of memory is its own.

    Raises:
        SystemExit: The process failed.
    """
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"growth.py: {cell} ended with {done.returncode}")
    line: dict[str, Any] = json.loads(done.stdout)
    return line


def main() -> None:
    """Measures what is missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("static", "encoder", "ledger"), help="Leave the other cells out.")
    parser.add_argument("--again", action="store_true", help="Measure what is there already too.")
    parser.add_argument("--table", action="store_true", help="Write the table from the results that are there.")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measure(Cell(**json.loads(options.cell)))))
        return
    lines = [line for _, line in read_jsonl(RESULTS)] if RESULTS.exists() else []
    wanted = [cell for cell in cells() if options.only in {None, cell.what} and not options.table]
    missing = [cell for cell in wanted if options.again or not any(cell.is_in(line) for line in lines)]
    for number, cell in enumerate(missing, 1):
        say(f"growth: {cell.what}, {cell.intents:,} intents, {cell.n:,} queries ({number} of {len(missing)})")
        line = run(cell)
        say(f"growth: {line['seconds']:,.0f} s")
        lines = [each for each in lines if not cell.is_in(each)] + [line]
        write_jsonl(RESULTS, lines)
    PAGE.write_text(table(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
