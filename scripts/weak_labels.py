"""Whether `distill audit` finds the labels that a real teacher got wrong: its list beside what people say of the same queries.

python scripts/weak_labels.py router.yaml PEOPLE.jsonl [--json FILE]

router.yaml is of `task: multi` and its queries are labelled; PEOPLE.jsonl holds the same queries with people's "intents", such as the
train.jsonl that the logs were drawn from. Queries that people did not label are left out, and counted. Nothing is asked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import pipeline
from distill.audit import audit
from distill.benchmark.statistics import wilson_interval
from distill.data import read_gold, write_json
from distill.errors import DataError, DistillError
from distill.spec import load_spec
from distill.teacher.functions import redactor
from distill.types import HOLDS, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.spec import Spec

    Bools = np.ndarray[Any, np.dtype[np.bool_]]

WORST = 50
"""How many of the list somebody reads first."""


def measure(spec: Spec, people: Path, *, show_progress: bool = True) -> dict[str, Any]:
    """What the list holds, and what its suggestions are worth.

    Raises:
        DataError: It is another task, people labelled none of the queries, or a file is wrong.
    """
    from sklearn.metrics import f1_score

    if spec.task is not Task.MULTI:
        raise DataError(f"{spec.path}: is a router of `task: {spec.task.value}`; this compares sets of intents")
    redact = redactor(spec)
    truth_of = {redact(query.text): query.target for query in read_gold(people, spec.labels, spec.task)}
    examples = pipeline.examples(spec, with_evidence=False, show_notes=False)
    labelled = {example.text: example.target >= HOLDS for example in examples if example.text in truth_of}
    if not labelled:
        raise DataError(f"{people}: holds none of the {len(examples)} labelled queries of {spec.path}")
    texts = list(labelled)
    row_of = {text: row for row, text in enumerate(texts)}
    given = np.stack([labelled[text] for text in texts])
    truth = _sets((truth_of[text] for text in texts), spec.labels)
    wrong = (given != truth).any(axis=1)
    suspects = [suspect for suspect in audit(spec, show_progress=show_progress).suspects if suspect.text in row_of]
    listed = np.asarray([row_of[suspect.text] for suspect in suspects], dtype=np.int64)
    suggested, put_right = given.copy(), given.copy()
    suggested[listed] = _sets((dict.fromkeys(suspect.suggested, 1.0) for suspect in suspects), spec.labels)
    put_right[listed] = truth[listed]
    return {
        "n": len(texts),
        "n_without_people": len(examples) - len(texts),
        "all": _share(wrong),
        "listed": _share(wrong[listed]),
        "worst": _share(wrong[listed[:WORST]]),
        "not listed": _share(np.delete(wrong, listed)),
        "micro_f1": {
            "the teacher's labels": float(f1_score(truth, given, average="micro", zero_division=0)),
            "with what the list suggests": float(f1_score(truth, suggested, average="micro", zero_division=0)),
            "with the list put right by people": float(f1_score(truth, put_right, average="micro", zero_division=0)),
        },
    }


def _sets(targets: Iterable[Mapping[str, float]], labels: tuple[str, ...]) -> Bools:
    return np.asarray([[target.get(name, 0.0) > 0 for name in labels] for target in targets]).reshape(-1, len(labels))


def _share(wrong: Bools) -> dict[str, int]:
    return {"n": len(wrong), "n_wrong": int(wrong.sum())}


def markdown(found: Mapping[str, Any]) -> str:
    """Two tables."""
    parts = {
        "all": "all",
        "listed": "listed by `distill audit`",
        "worst": f"the {found['worst']['n']} worst of these",
        "not listed": "not listed",
    }
    lines = ["| queries | | sets that differ from people's |", "| --- | ---: | ---: |"]
    lines += [f"| {title} | {found[part]['n']} | {_wrong(**found[part])} |" for part, title in parts.items()]
    lines += ["", "| labels | micro-F1 against people's |", "| --- | ---: |"]
    lines += [f"| {title} | {figure:.3f} |" for title, figure in found["micro_f1"].items()]
    return "\n".join([*lines, ""])


def _wrong(n: int, n_wrong: int) -> str:
    if not n:
        return "-"
    low, high = wilson_interval(n_wrong, n)
    return f"{n_wrong} ({n_wrong / n:.3f} [{low:.3f}, {high:.3f}])"


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, metavar="router.yaml")
    parser.add_argument("people", type=Path, metavar="PEOPLE.jsonl")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        found = measure(load_spec(arguments.spec), arguments.people)
        if arguments.json is not None:
            write_json(arguments.json, found)
    except DistillError as error:
        sys.exit(f"weak_labels.py: {error}")
    print(markdown(found))


if __name__ == "__main__":
    main()
