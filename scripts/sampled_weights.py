"""Whether the log-probabilities of one answer are the soft label that many samples would give: a real model, asked both ways.

python scripts/sampled_weights.py router.yaml --out FOLDER [--queries 100] [--samples 10] [--ask] [--base-url URL] [--json FILE]

router.yaml has `teacher.logprobs` and a ledger, of which the first answers count. Some of its queries, drawn by a fixed seed, are asked again
with `teacher.samples` at temperature 1 in place of log-probabilities; spec and answers are kept in FOLDER. Without --ask nothing is asked: what
is recorded there is compared. Where router.yaml has `teacher.samples`, its answers in several orders of the channels are compared too.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from distill import pipeline
from distill.data import read_jsonl, write_json, write_jsonl
from distill.errors import DataError, DistillError
from distill.labelled import target_of
from distill.spec import load_spec
from distill.teacher.label import recorded_samples
from distill.teacher.prompt import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.spec import Spec

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

SEED = 0
DRAWS = 1_000
"""Of the same number of samples from the log-probabilities' shares: what chance alone would show."""


def prepare(spec: Spec, folder: Path, n_queries: int, samples: int) -> Path:
    """Writes the spec that asks by samples, and its queries; the same files each time.

    Raises:
        DataError: The spec has no log-probabilities, or too few queries.
    """
    if not spec.teacher.logprobs:
        raise DataError(f"{spec.path}: has no `teacher.logprobs: true`; there is nothing to compare samples with")
    texts = [str(line["text"]) for _, line in read_jsonl(spec.queries_path)]
    if len(texts) < n_queries:
        raise DataError(f"{spec.queries_path}: holds {len(texts)} queries, not {n_queries}")
    chosen = np.random.default_rng(SEED).choice(len(texts), n_queries, replace=False)
    raw = yaml.safe_load(spec.path.read_text(encoding="utf-8"))
    teacher = {name: value for name, value in raw["teacher"].items() if name != "logprobs"}
    for name in ("prompt", "evidence"):
        if teacher.get(name) is not None:
            teacher[name] = _from(folder, spec.folder / teacher[name])
    own = {"teacher": teacher | {"samples": samples, "temperature": 1.0}, "queries": "queries.jsonl"}
    kept = {name: raw[name] for name in ("task", "intents", "out_of_scope") if name in raw}
    if isinstance(kept["intents"], str):
        kept["intents"] = _from(folder, spec.folder / kept["intents"])
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "queries.jsonl", [{"text": texts[row]} for row in sorted(chosen)])
    path = folder / "router.yaml"
    path.write_text(yaml.safe_dump({"name": f"{spec.name}-samples", **kept, **own}, sort_keys=False), encoding="utf-8")
    return path


def _from(folder: Path, path: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def measure(spec: Spec, path: Path) -> dict[str, Any]:
    """Compares both soft labels of each query.

    Raises:
        DistillError: No query has a label both ways.
    """
    sampled = load_spec(path)
    by_samples = _labels(sampled)
    by_likelihood = _labels(spec.asked_once)
    texts = [text for text in by_samples if text in by_likelihood]
    if not texts:
        raise DataError(f"{path}: no query has a label both ways")
    shares, found = (np.stack([labels[text] for text in texts]) for labels in (by_likelihood, by_samples))
    n_samples = sampled.teacher.samples
    chance = np.random.default_rng(SEED)
    exact = shares.astype(np.float64) / shares.sum(axis=1, keepdims=True, dtype=np.float64)
    drawn = [chance.multinomial(n_samples, exact) / n_samples for _ in range(DRAWS)]
    by_chance = [_distance(each, shares) for each in drawn]
    return {
        "teacher": spec.teacher.model,
        "n_queries": len(texts),
        "n_samples": n_samples,
        "temperature": sampled.teacher.temperature,
        "labels": list(spec.labels),
        "mean_by_likelihood": shares.mean(axis=0).tolist(),
        "mean_by_samples": found.mean(axis=0).tolist(),
        "same_best": float((shares.argmax(axis=1) == found.argmax(axis=1)).mean()),
        "same_best_by_chance": float(
            np.mean([(each.argmax(axis=1) == shares.argmax(axis=1)).mean() for each in drawn])
        ),
        "distance": _distance(found, shares),
        "distance_by_chance": float(np.mean(by_chance)),
        "distance_by_chance_95": np.quantile(by_chance, [0.025, 0.975]).tolist(),
        "one_answer_distance": _distance(np.eye(shares.shape[1])[shares.argmax(axis=1)], found),
        "orders": _orders(spec, by_likelihood),
    }


def _labels(spec: Spec) -> dict[str, Floats]:
    return {example.text: example.target for example in pipeline.examples(spec, show_notes=False)}


def _orders(spec: Spec, texts: Iterable[str]) -> dict[str, Any] | None:
    """How far answers to two orders of the channels lie from each other, the mean over pairs; queries that lack an answer are left out."""
    n = spec.teacher.samples
    recorded = recorded_samples(spec, texts).values() if n > 1 else ()
    answers = [[target for answer in each if (target := target_of(answer, spec)) is not None] for each in recorded]
    whole = [each for each in answers if len(each) == n]
    if not whole:
        return None
    orders = np.stack(whole, axis=1)
    pairs = list(combinations(orders, 2))
    return {
        "n_queries": len(whole),
        "listed": [[intent.name for intent in in_turn(spec.intent_list, sample)] for sample in range(n)],
        "mean_weights": orders.mean(axis=1).tolist(),
        "distance": float(np.mean([_distance(one, other) for one, other in pairs])),
        "same_best": float(np.mean([(one.argmax(axis=1) == other.argmax(axis=1)).mean() for one, other in pairs])),
    }


def _distance(first: Floats, second: Floats) -> float:
    """Half the sum of absolute differences, the share of the weight that lies elsewhere; the mean over queries."""
    return float(np.abs(first - second).sum(axis=1).mean() / 2)


def markdown(found: Mapping[str, Any]) -> str:
    """A table, and what it says."""
    low, high = found["distance_by_chance_95"]
    rows = zip(found["labels"], found["mean_by_likelihood"], found["mean_by_samples"], strict=True)
    lines = [
        "| mean weight | by log-probabilities of one answer | by samples |",
        "| --- | ---: | ---: |",
        *(f"| {label} | {likelihood:.3f} | {samples:.3f} |" for label, likelihood, samples in rows),
        "",
        "| | found | if the samples were drawn from the log-probabilities |",
        "| --- | ---: | ---: |",
        f"| share of the weight that lies elsewhere | {found['distance']:.3f} | {found['distance_by_chance']:.3f} [{low:.3f}, {high:.3f}] |",
        f"| the same weightiest channel | {found['same_best']:.3f} | {found['same_best_by_chance']:.3f} |",
        "",
        (
            f"{found['n_queries']} queries, {found['n_samples']} samples each at temperature {found['temperature']:g}, `{found['teacher']}`. The likeliest channel alone, "
            f"which is what one answer says, lies {found['one_answer_distance']:.3f} from the samples."
        ),
    ]
    if orders := found["orders"]:
        means = zip(orders["listed"], orders["mean_weights"], strict=True)
        lines += [
            "",
            f"| listed in this order, mean weight | {' | '.join(found['labels'])} |",
            f"| --- |{' ---: |' * len(found['labels'])}",
            *(f"| {', '.join(listed)} | {' | '.join(f'{weight:.3f}' for weight in own)} |" for listed, own in means),
            "",
            (
                f"{orders['n_queries']:,} queries, each answered in {len(orders['listed'])} orders of the channels. Between two orders "
                f"{orders['distance']:.3f} of the weight lies elsewhere, and the weightiest channel is the same for {orders['same_best']:.1%}."
            ),
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Asks, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, metavar="router.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument(
        "--ask", action="store_true", help="asks the teacher for samples that are not recorded, at the usual cost"
    )
    parser.add_argument("--base-url", help="takes the place of teacher.base_url, for --ask")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        spec = load_spec(options.spec)
        path = prepare(spec, options.out, options.queries, options.samples)
        if options.ask:
            pipeline.label(load_spec(path, base_url=options.base_url))
        found = measure(spec, path)
        if options.json is not None:
            write_json(options.json, found)
    except DistillError as error:
        sys.exit(f"sampled_weights.py: {error}")
    print(markdown(found))


if __name__ == "__main__":
    main()
