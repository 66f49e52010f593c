"""Makes the data of the demo of several intents: descriptions, logs without labels, and gold, from NLU++'s banking domain.

python scripts/make_bank_requests.py NLUPP_FOLDER [--out data/bank-requests]

The folder has ``train.jsonl``, ``test.jsonl`` and ``ontology.json``. What is drawn is drawn by a fixed seed, and nothing of test but gold.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.data import read_jsonl, write_json, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Sequence

    Request = tuple[str, tuple[str, ...]]

ROOT = Path(__file__).resolve().parent.parent
N_LOGS, N_EXAMPLES, SEED = 400, 2, 0


def read_requests(path: Path) -> list[Request]:
    """Text and intents of each line."""
    return [(line["text"], tuple(line["intents"])) for _, line in read_jsonl(path)]


def choose_examples(requests: Sequence[Request], n: int = N_EXAMPLES) -> list[Request]:
    """The fewest requests, roughly, that show each intent ``n`` times: rare intents first, then the shortest request."""
    frequency = Counter(name for _, names in requests for name in names)
    shown: Counter[str] = Counter()
    chosen: list[Request] = []
    for intent, _ in sorted(frequency.items(), key=lambda pair: (pair[1], pair[0])):
        candidates = sorted((len(text), text, names) for text, names in requests if intent in names)
        for _, text, names in candidates:
            if shown[intent] >= n:
                break
            if (text, names) not in chosen:
                chosen.append((text, names))
                shown.update(names)
    return chosen


def main() -> None:
    """Writes intents.json, logs.jsonl and gold.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "bank-requests")
    arguments = parser.parse_args()
    train, test = (read_requests(arguments.folder / f"{part}.jsonl") for part in ("train", "test"))
    order = np.random.default_rng(SEED).permutation(len(train))
    logs, others = [train[row] for row in order[:N_LOGS]], [train[row] for row in order[N_LOGS:]]
    examples = choose_examples(others)
    ontology = json.loads((arguments.folder / "ontology.json").read_text(encoding="utf-8"))
    in_use = sorted({name for _, names in [*train, *test] for name in names}, key=list(ontology).index)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(
        arguments.out / "intents.json",
        {
            name: {
                "description": ontology[name]["description"],
                "examples": [text for text, names in examples if name in names],
            }
            for name in in_use
        },
    )
    write_jsonl(arguments.out / "logs.jsonl", [{"text": text} for text, _ in logs])
    write_jsonl(arguments.out / "gold.jsonl", [{"text": text, "intents": list(names)} for text, names in test])
    print(
        f"{len(in_use)} intents, {len(examples)} examples, {len(logs)} logs, {len(test)} gold queries in {arguments.out}"
    )


if __name__ == "__main__":
    main()
