"""What was recorded is found again, whatever was added since: prompts, hashes and the order of requests are as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distill.spec import load_spec
from distill.teacher.label import plan_labels
from distill.teacher.synth import synthesise

DEMO = Path(__file__).resolve().parents[2] / "data" / "banking-assistant"


@pytest.mark.parametrize("spec", ["router.yaml", "confirmation.yaml"])
def test_every_label_of_the_demo_is_found(spec):
    assert plan_labels(load_spec(DEMO / spec)).n_missing == 0


def test_every_query_of_the_demo_is_written_again(tmp_path):
    for name in ("router.yaml", "intents.json", "gold.jsonl", "synth.jsonl"):
        shutil.copy(DEMO / name, tmp_path / name)
    assert synthesise(load_spec(tmp_path), show_progress=False).n_asked == 0
    assert (tmp_path / "queries.jsonl").read_bytes() == (DEMO / "queries.jsonl").read_bytes()
