"""What `distill carry` saves when intents are removed and added, and what it costs in accuracy.

python scripts/intents_change.py FOLDER --out DIR [--seed 0] [--draws 3] [--texts N] [--student tfidf|static]

Every query of FOLDER's train.jsonl is labelled by a teacher that has the right labels. Three intents, drawn by seed, are removed and added
back: calls, and labels that differ then. Then once more as if the three had never been known: the teacher gives their queries to the one
among the others that they look most like (TF-IDF with logistic regression), they are added, each with five examples, and `distill carry`
runs. Compared with labelling everything again, which would give the right labels alone: calls saved, labels that are wrong, and the
accuracy of a student on a tenth of train.jsonl that was set aside. test.jsonl is never opened. Writes results/intents_change.json, a part
for each set and student, of which scripts/readme.py makes the table, and prints that part's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from intents_table import RESULTS, table
from provenance import tree_commit

from distill.benchmark.baselines import fit_tfidf
from distill.benchmark.latency import processor_name
from distill.benchmark.statistics import paired_difference_interval
from distill.data import read_jsonl, write_json, write_jsonl
from distill.errors import DataError, DistillError
from distill.progress import say
from distill.spec import load_spec
from distill.split import HELD_OUT_SHARE, stratified_holdout
from distill.student.embedder import open_embedder
from distill.student.train import DEFAULT_BASE_MODEL, TrainingData, train_students
from distill.teacher.carry import CarryOptions, carry
from distill.teacher.label import label, recorded_labels
from distill.types import OUT_OF_SCOPE_LABEL, Example, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distill.spec import Spec

Pair = tuple[str, str]

UNKNOWN, EXAMPLES = 3, 5
_TEACHER = "told_teacher"


class Remembering:
    """A sentence encoder that reads each text once, so that several draws take little longer than one."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self._known: dict[str, Any] = {}

    def embed(self, texts: Sequence[str], on_done: Any = None) -> Any:
        """As ``distill.embed.Embedder.embed``."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        self._known |= zip(new, self._embedder.embed(new, on_done), strict=True)
        return np.stack([self._known[text] for text in texts])


def read(folder: Path, n_texts: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Queries with their intent, each text once, and a tenth of them that is set aside.

    Raises:
        DataError: The set is not one of one intent a query.
    """
    lines = [line for _, line in read_jsonl(folder / "train.jsonl")]
    if not all(isinstance(line.get("intent"), str) for line in lines):
        raise DataError(f"{folder}: intents_change.py is for data sets with one intent a query")
    pairs = list({line["text"].strip(): line["intent"] for line in lines}.items())
    chosen = sorted(np.random.default_rng(seed).permutation(len(pairs))[: n_texts or None].tolist())
    pairs = [pairs[position] for position in chosen]
    kept, aside = stratified_holdout([intent for _, intent in pairs], HELD_OUT_SHARE, seed)
    return [pairs[position] for position in kept], [pairs[position] for position in aside]


def examples_of(names: Sequence[str], pairs: Sequence[Pair], seed: int) -> dict[str, list[str]]:
    """A few queries of each intent, drawn by seed."""
    chance = np.random.default_rng(seed)
    own = {name: [text for text, intent in pairs if intent == name] for name in names}
    return {name: chance.permutation(texts)[:EXAMPLES].tolist() for name, texts in own.items()}


def spec_with(folder: Path, intents: dict[str, list[str]], *, out_of_scope: bool = False) -> Spec:
    """A project of the told teacher with some intents, each with its examples, and with ``oos`` for queries that fit none."""
    described = {name: {"description": "", "examples": examples} for name, examples in intents.items()}
    raw = {
        "name": "intents-change",
        "intents": described,
        "out_of_scope": out_of_scope,
        "teacher": {"callable": f"{_TEACHER}:answer", "combine": False},
        "queries": "logs.jsonl",
    }
    write_json(folder / "router.yaml", raw)  # JSON is YAML
    return load_spec(folder / "router.yaml")


def blind_answers(pairs: Sequence[Pair], unknown: Sequence[str], seed: int) -> dict[str, str]:
    """What a teacher says that does not know some intents: the one that a query looks most like, of those that it knows."""
    known = [pair for pair in pairs if pair[1] not in unknown]
    others = [text for text, intent in pairs if intent in unknown]
    names = sorted({intent for _, intent in known})
    model = fit_tfidf(as_examples(known, names), names, Task.SINGLE, seed=seed)
    guessed = model.probabilities_of(others).argmax(axis=1).tolist() if others else []
    return dict(known) | {text: names[best] for text, best in zip(others, guessed, strict=True)}


def as_examples(pairs: Sequence[Pair], names: Sequence[str]) -> tuple[Example, ...]:
    """Labelled queries to train on."""
    targets = dict(zip(names, np.eye(len(names), dtype=np.float32), strict=True))
    return tuple(Example(text, targets[intent]) for text, intent in pairs)


def right_on(pairs: Sequence[Pair], aside: Sequence[Pair], student: str, out: Path, seed: int) -> np.ndarray[Any, Any]:
    """On which of the queries that were set aside a student is right that was trained on some labels."""
    names = sorted({intent for _, intent in aside} | {intent for _, intent in pairs})
    examples, texts = as_examples(pairs, names), [text for text, _ in aside]
    if student == "tfidf":
        probabilities = fit_tfidf(examples, names, Task.SINGLE, seed=seed).probabilities_of(texts)
    else:
        from distill.router import Router

        data = TrainingData("intents-change", Task.SINGLE, tuple(names), examples, teacher="human labels")
        bundles = train_students(data, out, students=(student,), seed=seed, budget_minutes=0)
        probabilities = Router.load(bundles[student].path).predict_proba(texts)
    return np.asarray(
        [names[best] == intent for best, (_, intent) in zip(probabilities.argmax(axis=1), aside, strict=True)]
    )


def removed_and_back(
    folder: Path, names: Sequence[str], unknown: Sequence[str], gold: dict[str, str]
) -> dict[str, int]:
    """Calls for removing some intents and for adding them back as they were, and labels that are not as they should be."""
    told = importlib.import_module(_TEACHER)
    told.ANSWERS = gold
    whole = {name: list[str]() for name in names}
    label(spec_with(folder, whole, out_of_scope=True), show_progress=False)
    without = spec_with(folder, {name: [] for name in names if name not in unknown}, out_of_scope=True)
    removing = carry(without, show_progress=False)
    labels = _labels(without, gold)
    wrong = sum(labels[text] != (OUT_OF_SCOPE_LABEL if intent in unknown else intent) for text, intent in gold.items())
    back = spec_with(folder, whole, out_of_scope=True)
    carrying, labelling = carry(back, show_progress=False), label(back, show_progress=False)
    return {
        "n_calls_removing": removing.n_calls,
        "n_wrong_removed": wrong,
        "n_calls_back": carrying.n_calls + labelling.n_asked,
        "n_wrong_back": sum(name != gold[text] for text, name in _labels(back, gold).items()),
    }


def _labels(spec: Spec, texts: Iterable[str]) -> dict[str, str]:
    lines = recorded_labels(spec, list(texts))
    return {text: max(line.scores, key=line.scores.__getitem__) for text, line in lines.items()}


def one_draw(options: argparse.Namespace, embedder: Remembering, seed: int) -> dict[str, Any]:
    """Removes three intents and adds them back, adds them as new ones, and compares with labelling all again."""
    pairs, aside = read(options.folder, options.texts, options.seed)
    names = sorted({intent for _, intent in pairs})
    unknown = np.random.default_rng(seed).permutation(names)[:UNKNOWN].tolist()
    shown = examples_of(unknown, pairs, seed)
    given = {text for own in shown.values() for text in own}
    gold = {text: intent for text, intent in pairs if text not in given}
    folder = options.out / f"draw-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledger.jsonl").unlink(missing_ok=True)
    write_jsonl(folder / "logs.jsonl", ({"text": text} for text in gold))

    changed = removed_and_back(folder, names, unknown, gold)
    (folder / "ledger.jsonl").unlink()  # from here on as if they had never been known
    told = importlib.import_module(_TEACHER)
    told.ANSWERS = blind_answers(list(gold.items()), unknown, seed)
    blind = dict(told.ANSWERS)
    label(spec_with(folder, {name: [] for name in names if name not in unknown}), show_progress=False)
    told.ANSWERS = gold
    spec = spec_with(folder, {name: shown.get(name, []) for name in names})
    done = carry(spec, CarryOptions(max_share=options.max_share), open_embedder=lambda: embedder, show_progress=False)
    carried = _labels(spec, gold)

    right = {
        name: right_on(list(labels.items()), aside, options.student, folder / "models" / name, seed)
        for name, labels in (("before", blind), ("carried", carried), ("all again", gold))
    }
    n_unknown = sum(intent in unknown for intent in gold.values())
    found = sum(carried[text] == intent for text, intent in gold.items() if intent in unknown)
    return {
        "seed": seed,
        "unknown": unknown,
        "n_queries": len(gold),
        **changed,
        "n_of_unknown": n_unknown,
        "n_calls": done.n_calls,
        "n_found": found,
        "n_wrong_labels": sum(carried[text] != intent for text, intent in gold.items()),
        "is_cut": done.is_cut,
        "n_aside": len(aside),
        "n_right": {name: int(own.sum()) for name, own in right.items()},
        "only_carried": int((right["carried"] & ~right["all again"]).sum()),
        "only_all_again": int((right["all again"] & ~right["carried"]).sum()),
    }


def together(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several draws as one."""
    total = {key: sum(draw[key] for draw in draws) for key in draws[0] if isinstance(draws[0][key], int)}
    n = total["n_aside"]
    accuracy = {name: round(sum(draw["n_right"][name] for draw in draws) / n, 4) for name in draws[0]["n_right"]}
    return {
        "calls_saved": round(1 - total["n_calls"] / total["n_queries"], 4),
        "found": round(total["n_found"] / total["n_of_unknown"], 4),
        "label_accuracy_lost": round(total["n_wrong_labels"] / total["n_queries"], 4),
        "student_accuracy": accuracy,
        "student_accuracy_lost": round((total["only_all_again"] - total["only_carried"]) / n, 4),
        # every draw is measured on the same queries that were set aside, so this is somewhat too narrow
        "student_accuracy_lost_ci95": paired_difference_interval(total["only_all_again"], total["only_carried"], n),
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Data set folder with train.jsonl.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the projects and the figures.")
    parser.add_argument(
        "--seed", type=int, default=0, help="Of the split; the draws take this seed and those after it."
    )
    parser.add_argument("--draws", type=int, default=3, help="How often three intents are drawn.")
    parser.add_argument("--texts", type=int, default=0, help="Take only so many texts, drawn by seed; 0: all.")
    parser.add_argument("--max-share", type=float, default=None, help="As for `distill carry`.")
    parser.add_argument(
        "--student",
        choices=["tfidf", "static"],
        default="tfidf",
        help="Whose accuracy is compared; static learns from labels alone.",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="The JSON file [%(default)s].")
    options = parser.parse_args()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{_TEACHER}.py").write_text(
            "ANSWERS = {}\n\n\ndef answer(text):\n    return ANSWERS[text]\n", encoding="utf-8"
        )
        sys.path.append(str(options.out.resolve()))
        embedder = Remembering(open_embedder(DEFAULT_BASE_MODEL, options.out / ".distill"))
        draws = []
        for seed in range(options.seed, options.seed + options.draws):
            draws.append(one_draw(options, embedder, seed))
            say(f"draw {seed}: {draws[-1]}")
    except DistillError as error:
        sys.exit(f"intents_change: {error}")
    outcome = {
        "commit": tree_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor_name(),
        "set": options.folder.resolve().name,
        "student": options.student,
        "max_share": options.max_share,
        "draws": draws,
        "together": together(draws),
    }
    results = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
    results[f"{outcome['set']}, {outcome['student']}"] = outcome
    write_json(options.results, results)
    print(table(outcome))


if __name__ == "__main__":
    main()
