"""How much students lose when labels are wrong, and when there are few.

python scripts/harder.py FOLDER --out DIR [--seed 0] [--noise 0.15] [--per-intent 10] [--again]

Makes two data set folders from FOLDER under DIR, named after FOLDER, what is hard in them, and the seed: one in which a share of the training
labels is turned to the intent that it is most readily taken for, and one with some examples an intent; measures students on both and on FOLDER itself as scripts/public.py does, and
prints what they lose, beside the pretrained vectors with a logistic regression on the same few examples. The few examples come first, as they
take least time. What was measured already is not measured again, so that test.jsonl is opened no more often than need be: a folder whose bench.json DIR/models
holds, and one that results/openings.jsonl has with these very parts, seed and budget, and the present recipe (--again measures this anew). results/harder.jsonl gets a line, which
grows with each folder, and of each part what its students were made by; scripts/public_table.py makes a table of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from provenance import ROOT, refuse_several_processes, tree_commit
from public import measure, on_record, part_hashes, read_folder
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from distill.benchmark.latency import processor_name
from distill.data import read_jsonl, write_jsonl
from distill.errors import DataError, DistillError
from distill.progress import say
from distill.student.encoder import Encoder, Pooled
from distill.student.recipe import DEFAULT_BUDGET_MINUTES
from distill.student.tokens import bundle_tokenizer, encode
from distill.student.train import DEFAULT_BASE_MODEL, STUDENTS
from distill.student.trainer import predict
from distill.student.weights import load_base_model
from distill.types import OUT_OF_SCOPE_LABEL, Task

Line = dict[str, Any]
RESULTS = ROOT / "results" / "harder.jsonl"

_FEWEST = 2
_MADE = ("commit", "opened_at", "recipe", "export", "assistant")
"""What a part's students are known by."""


def confusable(lines: list[Line]) -> dict[str, str]:
    """For each intent the other one that a TF-IDF classifier, asked about queries it has not seen, gives the most probability in the mean.

    Args:
        lines: Two or more of each intent.
    """
    texts, intents = [line["text"] for line in lines], [line["intent"] for line in lines]
    names, counts = np.unique(intents, return_counts=True)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    scores = cross_val_predict(
        LogisticRegression(C=10, max_iter=300), vectors, intents, cv=min(3, counts.min()), method="predict_proba"
    )
    truth = np.searchsorted(names, intents)
    means = np.stack([scores[truth == number].mean(axis=0) for number in range(len(names))])
    np.fill_diagonal(means, -1.0)
    return {str(name): str(names[means[number].argmax()]) for number, name in enumerate(names)}


def make_noisy(folder: Path, target: Path, share: float, seed: int) -> None:
    """A copy in which ``share`` of the training labels is wrong."""
    lines = [line for _, line in read_jsonl(folder / "train.jsonl")]
    n_queries = Counter(line["intent"] for line in lines)
    if alone := [intent for intent, number in n_queries.items() if number < _FEWEST]:
        raise DataError(
            f"{folder / 'train.jsonl'}: the intent {alone[0]!r} has one query; to find what it is taken for takes two"
        )
    wrong_for = confusable(lines)
    chosen = np.random.default_rng(seed).permutation(len(lines))[: round(share * len(lines))]
    for position in chosen:
        lines[position] = lines[position] | {"intent": wrong_for[lines[position]["intent"]]}
    _write(folder, target, lines)


def make_few(folder: Path, target: Path, per_intent: int, seed: int) -> None:
    """A copy with ``per_intent`` training examples of each intent, drawn at random."""
    lines = [line for _, line in read_jsonl(folder / "train.jsonl")]
    order = np.random.default_rng(seed).permutation(len(lines))
    taken: dict[str, int] = {}
    few: list[Line] = []
    for position in order:
        intent = lines[position]["intent"]
        if taken.get(intent, 0) < per_intent:
            taken[intent] = taken.get(intent, 0) + 1
            few.append(lines[position])
    _write(folder, target, few)


def _write(folder: Path, target: Path, lines: list[Line]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    write_jsonl(target / "train.jsonl", lines)
    for name in ("validation.jsonl", "test.jsonl", "intents.json"):
        (target / name).unlink(missing_ok=True)
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / name)


def frozen_baseline(folder: Path) -> float:
    """In-scope accuracy of a logistic regression on the pretrained vectors, fitted on all of train: the best intent but ``oos``."""
    base = load_base_model(DEFAULT_BASE_MODEL)
    tokenizer = bundle_tokenizer(base.tokenizer, base.max_length)
    pooled = Pooled(Encoder(base, 2, 0.0))
    parts = [[line for _, line in read_jsonl(folder / f"{part}.jsonl")] for part in ("train", "test")]
    train, test = (predict(pooled, encode(tokenizer, [line["text"] for line in part])) for part in parts)
    given, truth = (np.asarray([line["intent"] for line in part]) for part in parts)
    model = LogisticRegression(C=10, max_iter=1000).fit(train, given)
    intents = model.classes_ != OUT_OF_SCOPE_LABEL
    best = model.classes_[intents][model.predict_proba(test)[:, intents].argmax(axis=1)]
    return float((best == truth)[truth != OUT_OF_SCOPE_LABEL].mean())


def accuracies(folder: Path, out: Path, seed: int, budget_minutes: float, *, again: bool) -> Line:
    """What both students reach in scope, and what they are known by: as it is on record, unless ``again``, or else measured."""
    known = None if again else on_record(folder, out, seed=seed, budget_minutes=budget_minutes)
    if known is not None:
        say(f"{folder}: measured on {known['opened_at'][:10]}, and on record; --again measures it anew")
        found = {name: known["rows"][name]["accuracy"] for name in STUDENTS}
        return found | {name: known[name] for name in (*_MADE, "processor")}
    result = measure(folder, out, seed=seed, budget_minutes=budget_minutes)
    found = {row.name: row.accuracy for row in result.rows if row.name in STUDENTS}
    found |= {name: result.provenance[name] for name in _MADE if name in result.provenance}
    return found | {"processor": result.environment.get("processor")}


def note(line: Line) -> None:
    """Adds a run's line to the results, or puts it in the place of what it was before; other runs may add theirs meanwhile."""
    from filelock import FileLock

    run = ("begun_at", "set", "seed", "noise", "per_intent", "budget_minutes")
    with FileLock(RESULTS.with_suffix(".lock")):
        found = [each for _, each in read_jsonl(RESULTS)] if RESULTS.exists() else []
        others = [each for each in found if any(each.get(name) != line[name] for name in run)]
        write_jsonl(RESULTS, [*others, line])


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no share above 0 and below 1")


def _whole(text: str) -> int:
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")


def main() -> None:
    """Makes the folders, measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--noise", type=_share, default=0.15, help="share of wrong labels, above 0 and below 1 [%(default)s]"
    )
    parser.add_argument("--per-intent", type=_whole, default=10, help="examples an intent [%(default)s]")
    parser.add_argument("--budget-minutes", type=float, default=DEFAULT_BUDGET_MINUTES)
    parser.add_argument("--again", action="store_true", help="measure also what results/openings.jsonl has already")
    args = parser.parse_args()
    try:
        refuse_several_processes()
        commit = tree_commit()
        if read_folder(args.folder).task is not Task.SINGLE:
            raise DataError(f"{args.folder}: harder.py is for data sets with one intent a query")
        name = args.folder.resolve().name
        noisy = args.out / f"{name}-noise-{args.noise:g}-seed-{args.seed}"
        few = args.out / f"{name}-{args.per_intent}-an-intent-seed-{args.seed}"
        make_noisy(args.folder, noisy, args.noise, args.seed)
        make_few(args.folder, few, args.per_intent, args.seed)
        line = {
            "begun_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit,
            "processor": processor_name(),
            "set": name,
            **part_hashes(args.folder),
            "budget_minutes": args.budget_minutes,
            "seed": args.seed,
            "noise": args.noise,
            "per_intent": args.per_intent,
        }
        for part, folder in {"few": few, "clean": args.folder, "noisy": noisy}.items():
            out = args.out / "models" / (f"{name}-seed-{args.seed}" if part == "clean" else folder.name)
            line[part] = accuracies(folder, out, args.seed, args.budget_minutes, again=args.again)
            if part == "few":
                line[part]["frozen"] = frozen_baseline(few)
            note(line)
        print(json.dumps(line))
    except DistillError as error:
        raise SystemExit(f"harder.py: {error}") from error


if __name__ == "__main__":
    main()
