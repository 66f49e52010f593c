"""What the teacher room's tests label: a small shop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from distill.spec import Spec

INTENTS = {
    "track_order": {"description": "Where an order is", "examples": ["where is it"]},
    "cancel_order": "Stop an order",
    "refund": "Money back",
}
TEXTS = (
    "where is my parcel", "cancel it please", "i want a refund", "what is the weather", "parcel 2", "cancel 3", "refund 4",
    "sing a song", "has my parcel left", "cancel my order now", "refund my money", "tell a joke",
)  # fmt: skip
PRICE = {"input_per_mtok": 1, "output_per_mtok": 10, "source": "made up", "date": "2026-01-31"}
"""A request of 100 tokens in and 10 out costs USD 0.0002."""


def write_queries(path: Path, texts: Any) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def ledger_lines(spec: Spec) -> list[dict[str, Any]]:
    if not spec.ledger_path.exists():
        return []
    return [json.loads(line) for line in spec.ledger_path.read_text(encoding="utf-8").splitlines()]
