"""Several processes that train together, on processors: as `accelerate launch` starts one for each GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny import WORDS, make_base_model

from distill import Router
from distill.progress import is_first_process, n_processes, say

pytestmark = pytest.mark.timeout(300)  # new processes are slow to start on a busy machine

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
"""What `accelerate launch` calls where there are GPUs; for processors alone it starts one process, whatever it is told."""


BAG = """
import json, os, sys
from pathlib import Path

import numpy as np
import torch
from distill.progress import Progress
from distill.student.trainer import Schedule, TrainingSet, fit, predict
from distill.types import Task


class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.rows = torch.nn.Embedding(20, 2), []

    def forward(self, input_ids, attention_mask):
        self.rows.append(len(input_ids))
        return (self.table(input_ids) * attention_mask.unsqueeze(-1)).sum(1)

    def head_parameters(self):
        return []
"""

FIT = """
chance = np.random.default_rng(0)
ids = [chance.integers(20, size=4).tolist() for _ in range(64)]
data = TrainingSet(ids, np.eye(2, dtype=np.float32)[chance.integers(2, size=64)], np.ones(64, np.float32))
schedule = Schedule(epochs=3, batch_size=16, learning_rate=0.05, warmup=0.1, weight_decay=0.0)
out, model = Path(sys.argv[1]), Bag()
start = model.table.weight.tolist()
with Progress("x", 192, show=False) as progress:
    fit(model, data, schedule, task=Task.SINGLE, seed=0, work=out / "work", progress=progress)
rank = os.environ.get("RANK", "alone")
(out / f"{rank}.json").write_text(json.dumps([model.rows, model.table.weight.tolist(), start]))
"""


ASK = """
ids = [[number % 20] * (1 + number % 7) for number in range(300)]
out, model = Path(sys.argv[1]), Bag()
with Progress("x", len(ids), show=False) as progress:
    answers = predict(model, ids, progress, fast=True)
few = predict(model, ids[:100]).tolist()
rank = os.environ.get("RANK", "alone")
(out / f"{rank}.json").write_text(json.dumps([model.rows, progress.done, answers.tolist(), few]))
"""

CORRECT = """
import json, os, sys
from pathlib import Path

import numpy as np
from distill.student import correct
from distill.student.learn import Part
from distill.types import Task

rank, out = os.environ.get("RANK", "alone"), Path(sys.argv[1])
texts = [f"{word} {other} {number}" for number in range(60) for word in ("pay", "fly", "hi") for other in ("bill", "hotel", "morning")]
targets = np.eye(3, dtype=np.float32)[np.arange(len(texts)) % 3]
correct.labels_mislead = lambda *_: rank != "1"  # as the last bit of a vector may have it
correct.probable_labels = lambda _, given: np.roll(given, 1, axis=1) if rank != "1" else given
part = Part(texts, targets, np.ones(len(texts), np.float32))
models = [str(out / "tiny-bert")] * 2
found = correct.corrected(part, Task.SINGLE, models, 32, out / "labels", show_progress=False)
(out / f"{rank}.json").write_text(json.dumps(found.targets.tolist()))
"""


LEAVE = """
import atexit, os, sys
from pathlib import Path
import torch
from distill.student.processes import wait_for_all

mark = Path(sys.argv[1]) / os.environ["RANK"]
atexit.register(lambda: mark.write_text(str(torch.distributed.is_initialized())))  # the first that is told comes last
wait_for_all()
assert torch.distributed.is_initialized()
"""


def test_processes_leave_their_group_before_the_interpreter_goes(tmp_path):
    script = tmp_path / "leave.py"
    script.write_text(LEAVE, encoding="utf-8")
    run(*LAUNCH, script, tmp_path, OMP_NUM_THREADS="1")
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["False", "False"]


@pytest.fixture
def spec_path(tmp_path):
    """A project whose teacher is a file of labels, which are in the ledger already."""
    make_base_model(tmp_path / "tiny-bert")
    lines = [
        {"text": f"{word} {other} {number}", "intent": intent}
        for intent, words in WORDS.items()
        for word in words
        for other in words
        for number in range(2)
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    raw = {"name": "tiny", "intents": dict.fromkeys(WORDS, "x"), "teacher": {"labels": "labels.jsonl"}}
    raw |= {"base_model": "tiny-bert", "budget_minutes": 0}
    (tmp_path / "router.yaml").write_text(json.dumps(raw), encoding="utf-8")
    run("-m", "distill", "label", tmp_path / "router.yaml", "--quiet")
    return tmp_path / "router.yaml"


def run(*arguments, is_fine=True, **variables):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )
    assert (done.returncode == 0) == is_fine, done.stderr
    return done


def test_two_processes_train_one_router_together(spec_path, tmp_path):
    out = tmp_path / "out"
    done = run(*LAUNCH, "--module", "distill", "train", spec_path, "--out", out, "--quiet", OMP_NUM_THREADS="1")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["static", "encoder"]  # said once
    assert {path.name for path in out.iterdir()} == {".gitignore", "static", "encoder"}
    for student in ("static", "encoder"):
        router = Router.load(out / student)
        found = [router.route(f"{words[0]} {words[1]} 0").top_intent for words in WORDS.values()]
        assert found == list(WORDS)
    again = run("-m", "distill", "train", spec_path, "--out", out)  # what several have made, one takes for made
    assert again.stdout == done.stdout
    assert "train encoder" not in again.stderr


def test_each_of_two_processes_learns_half_of_every_batch_and_ends_with_the_same_weights(tmp_path):
    script = tmp_path / "fit.py"
    script.write_text(BAG + FIT, encoding="utf-8")
    run(*LAUNCH, script, tmp_path, OMP_NUM_THREADS="1")
    run(script, tmp_path, OMP_NUM_THREADS="1")
    (rows, weights, start), *others = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in ("alone", "0", "1")
    )
    assert rows == [16] * 12
    assert [seen for seen, _, _ in others] == [[8] * 12] * 2
    assert others[0][1] == others[1][1]
    moved = [np.ravel(each) - np.ravel(start) for each in (others[0][1], weights)]
    assert np.corrcoef(moved)[0, 1] > 0.8  # batches are others, but of the same examples that one process learns


def test_two_processes_share_out_what_they_ask_and_both_get_all_answers(tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(BAG + ASK, encoding="utf-8")
    run(*LAUNCH, script, tmp_path, OMP_NUM_THREADS="1")
    run(script, tmp_path, OMP_NUM_THREADS="1")
    alone, first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in ("alone", "0", "1"))
    assert alone[0] == [128, 128, 44, 100]
    assert [first[0], second[0]] == [[128, 44, 100], [128, 100]]  # fewer than a batch for each: all ask all
    assert [first[1], second[1]] == [300, 256]
    assert alone[2:] == first[2:] == second[2:]


@pytest.mark.parametrize("command", ["label", "run", "bench"])
def test_nothing_but_training_is_done_several_times(spec_path, command):
    done = run("-m", "distill", command, spec_path, is_fine=False, WORLD_SIZE="2", RANK="1")
    assert "2 processes were started together (WORLD_SIZE); that is for `distill train` alone" in done.stderr


@pytest.mark.parametrize(
    ("variables", "n", "is_first"),
    [({}, 1, True), ({"WORLD_SIZE": "1", "RANK": "0"}, 1, True), ({"WORLD_SIZE": "4", "RANK": "0"}, 4, True), ({"WORLD_SIZE": "4", "RANK": "3"}, 4, False)],
)  # fmt: skip
def test_the_first_of_several_processes_speaks(monkeypatch, capsys, variables, n, is_first):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (n_processes(), is_first_process()) == (n, is_first)
    say("a note")
    say("an error", always=True)
    assert capsys.readouterr().err.splitlines() == [*(["a note"] if is_first else []), "an error"]


@pytest.mark.parametrize(("command", "variable"), [("label", "WORLD_SIZE"), ("train", "WORLD_SIZE"), ("train", "RANK")])
def test_a_number_of_processes_that_is_none_is_one_clear_line(spec_path, command, variable):
    given = {"WORLD_SIZE": "2", variable: "abc"}
    done = run("-m", "distill", command, spec_path, is_fine=False, **given)
    assert done.stderr == f"distill: the environment variable {variable} is not a number: 'abc'\n"


def test_two_processes_learn_the_labels_that_the_first_one_has_put_right(tmp_path):
    make_base_model(tmp_path / "tiny-bert")
    script = tmp_path / "correct.py"
    script.write_text(CORRECT, encoding="utf-8")
    run(*LAUNCH, script, tmp_path, OMP_NUM_THREADS="1")
    (tmp_path / "labels").unlink()
    run(script, tmp_path, OMP_NUM_THREADS="1")
    alone, first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in ("alone", "0", "1"))
    assert alone == first == second
    assert alone[0] == [0.0, 1.0, 0.0]
