"""The whole line for several intents and for weights: queries written and labelled by a server, tiny students, figures, report, routes."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "teacher"))
from fake_server import FakeServer
from improvable import ByText
from project import distill
from tiny import ENCODER_RECIPE, STATIC_RECIPE, WORDS, make_base_model

from distill import Router, pipeline
from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.bundle import load_bundle
from distill.data import read_jsonl
from distill.spec import load_spec
from distill.student import train
from distill.student.card import model_card
from distill.types import Task

pytestmark = pytest.mark.timeout(600)

TASKS = ("multi", "weights")
N_GOLD = 12


class WordServer(FakeServer):
    """Writes queries of the words that the tiny students know, and labels by them."""

    def respond(self, body, query):
        instructions = body["messages"][0]["content"]
        if instructions.startswith("You write queries"):
            return self.completion(json.dumps({"queries": [self._write(line) for line in _lines(query)]}))
        found = named_in(query)
        if '"weights": {' in instructions:
            return self.completion(json.dumps({"weights": weights_of(found)}))
        return self.completion(json.dumps({"intents": found}))

    def _write(self, line):
        chance = np.random.default_rng(sum(map(ord, line)) + self.n_requests)
        names = [name for name in WORDS if chance.random() < 0.5]
        words = [str(chance.choice(WORDS[name])) for name in names] + ["the", "please", "now", "it", "a"]
        chance.shuffle(words)
        return " ".join(words[: 4 + len(names)])


def _lines(prompt):
    return [line for line in prompt.splitlines() if line[:1].isdigit()]


def named_in(text):
    words = text.split()
    return [name for name, own in WORDS.items() if any(word in own for word in words)]


def weights_of(names):
    return {name: (60 if name == names[0] else 30) if name in names else 1 for name in WORDS}


def gold_of(task):
    """Half of the lines are of one label, a quarter of two, and a quarter (multi) of none."""
    names, lines = list(WORDS), []
    for number in range(N_GOLD):
        chosen = [names[number % 3], names[(number + 1) % 3]][: (1, 2, 1, 0 if task == "multi" else 1)[number % 4]]
        text = " ".join(["my", *(WORDS[name][number % 4] for name in chosen), "is", str(number)])
        if task == "multi":
            lines.append({"text": text, "intents": chosen})
        else:
            lines.append({"text": text, "weights": {name: 1 / len(chosen) for name in chosen}})
    return lines


class Line:
    """A project that the whole line ran over once. Not to be changed by tests."""

    def __init__(self, folder, task):
        self.task = Task(task)
        base = make_base_model(folder / "tiny-bert")
        self.folder, self.out = folder / "project", folder / "out"
        self.folder.mkdir()
        gold = "".join(json.dumps(line) + "\n" for line in gold_of(task))
        (self.folder / "gold.jsonl").write_text(gold, encoding="utf-8")
        self.raw = {
            "name": f"tiny-{task}",
            "task": task,
            "intents": {
                name: {"description": f"about {name}", "examples": [words[0]]} for name, words in WORDS.items()
            },
            "teacher": {"model": "fake", "samples": 2, "temperature": 0.7, "concurrency": 8},
            "synth": {"per_intent": 30, "out_of_scope": 30, "attributes": {"about": ["a thing", "a place", "a day"]}},
            "gold": "gold.jsonl",
            "gates": {"accuracy_drop": 1.0, "p95_ms": 60000},
            "base_model": f"../{base.name}",
        }
        self.spec_path = self.folder / "router.yaml"
        self.spec_path.write_text(json.dumps(self.raw), encoding="utf-8")

    def spec(self, base_url=None):
        return load_spec(self.spec_path, base_url=base_url)


@pytest.fixture(scope="module", params=TASKS)
def line(request, tmp_path_factory):
    import torch

    torch.set_num_threads(1)
    line = Line(tmp_path_factory.mktemp(request.param), request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "encoder_recipe", lambda *_: replace(ENCODER_RECIPE, epochs=4))
        patch.setattr(train, "static_recipe", lambda *_: STATIC_RECIPE)
        patch.setattr(bench, "cold_start", lambda _: ColdStart(123.4, 56.7))
        patch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
        with WordServer() as line.server:
            line.planned = pipeline.plan(line.spec(line.server.base_url), out=line.out)
            line.first = pipeline.run(line.spec(line.server.base_url), out=line.out, show_progress=False)
            line.n_requests = line.server.n_requests
            line.second = pipeline.run(line.spec(line.server.base_url), out=line.out, show_progress=False)
            assert line.server.n_requests == line.n_requests
        yield line


def rows_of(line):
    return {row.name: row for row in line.first.result.rows}


def test_every_stage_ran_and_a_second_run_asks_nothing(line):
    assert [stage.stage for stage in line.first.stages] == ["synth", "label", "train", "bench", "report"]
    assert all(stage.changed for stage in line.first.stages)
    assert not line.second.changed


def test_the_dry_run_counts_what_is_to_be_written_and_each_sample_of_it(line):
    n_wanted = 3 * 30 + (30 if line.task is Task.MULTI else 0)
    assert line.planned.synth.n_missing == n_wanted
    assert line.planned.label.n_missing == 2 * n_wanted + N_GOLD
    assert line.planned.label.n_samples == 2


def test_each_query_was_asked_twice_and_gold_once(line):
    ledger = [answer for _, answer in read_jsonl(line.spec().ledger_path)]
    gold = {query["text"] for _, query in read_jsonl(line.spec().gold_path)}
    asked = {sample: {a["text"] for a in ledger if a["sample"] == sample} for sample in (0, 1)}
    assert asked[0] - gold == asked[1]
    assert gold <= asked[0]
    assert len(ledger) == len(asked[0]) + len(asked[1])


def test_what_was_learnt_is_what_the_teacher_said(line):
    for example in pipeline.examples(line.spec(), show_notes=False):
        named = named_in(example.text)
        if line.task is Task.MULTI:
            assert example.target.tolist() == [name in named for name in WORDS]
        else:
            assert example.target.sum() == pytest.approx(1.0)
            wanted = np.asarray(list(weights_of(named).values()))
            np.testing.assert_allclose(example.target, wanted / wanted.sum(), rtol=1e-5)


def test_the_figures_are_those_of_the_task(line):
    rows = rows_of(line)
    assert list(rows) == ["teacher", "encoder", "static", "tfidf", "majority"]
    assert rows["teacher"].n_failed == 0
    for name, row in rows.items():
        assert row.accuracy == row.accuracy_policy
        assert 0 <= row.accuracy <= 1
        assert (row.fidelity is None) == (name == "teacher")
        assert ("kl" in row.notes) == ("mae" in row.notes) == ("mae_policy" in row.notes) == (line.task is Task.WEIGHTS)
        assert (row.micro_f1 is None) == (row.macro_f1 is None) == (line.task is Task.WEIGHTS)
    assert rows["tfidf"].fidelity >= rows["majority"].fidelity
    if line.task is Task.MULTI:
        assert rows["teacher"].accuracy == rows["teacher"].micro_f1 == 1.0
    else:
        assert rows["teacher"].accuracy == 1.0
        assert rows["teacher"].notes["mae"] < rows["majority"].notes["mae"]
    assert all(gate.passed for gate in line.first.result.gates)


def test_the_report_speaks_of_the_task(line):
    page = line.first.report.read_text("utf-8")
    short = line.first.report.with_suffix(".md").read_text("utf-8")
    if line.task is Task.MULTI:
        assert "|  | exact set | micro-F1 | macro-F1 | fidelity |" in short
        assert "every intent of a query and no other" in page
        assert "teacher&#39;s share of exact sets minus" in page
    else:
        assert "|  | KL | MAE | nearest | fidelity |" in short
        assert "coverage" not in short
        assert "Those furthest apart first" in page
        found = rows_of(line)["static"].notes["disagreements"]
        assert all(", ".join(sorted(WORDS)) != one["teacher"] for one in found)
        assert any(re.fullmatch(r"(\w+ \d\.\d\d(, )?)+", one["teacher"]) for one in found)


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_the_router_answers(line, student):
    router = Router.load(line.out / student)
    several, nothing = router.route_batch(["pay the bill and fly by train", ""])
    if line.task is Task.MULTI:
        assert several.weights is None
        assert set(several.intents) == {
            n for n, limit in zip(WORDS, router.policy.thresholds, strict=True) if several.scores[n] >= limit
        }
        assert several.intent == (several.intents[0] if several.intents else None)
    else:
        assert list(several.weights) == list(WORDS)
        assert sum(several.weights.values()) == pytest.approx(1.0, abs=1e-6)
        assert several.intent == max(several.weights, key=several.weights.get)
    assert (nothing.intents, nothing.weights) == ((), None)


def test_the_command_line_shows_it(line):
    texts = ["pay the bill", "hello"]
    done = distill("route", line.out / "static", *texts)
    columns = {shown.index(text) for shown, text in zip(done.stdout.splitlines(), texts, strict=True)}
    if line.task is Task.WEIGHTS:
        assert re.match(r"greet 0\.\d\d, pay 0\.\d\d, travel 0\.\d\d ", done.stdout)
        assert len(columns) == 1
    shown = json.loads(distill("route", line.out / "static", "pay the bill", "--json").stdout)
    assert (shown["weights"] is None) == (line.task is Task.MULTI)
    shown = distill("inspect", line.out / "static", "--query", "pay the bill", "--spec", line.spec_path).stdout
    assert "nearest" in shown
    assert f"task {line.task.value}" in distill("inspect", line.out / "static").stdout


def test_the_model_card_says_what_an_answer_is(line):
    card = model_card(load_bundle(line.out / "static").manifest, "", result=line.first.result)
    if line.task is Task.MULTI:
        assert 'router.route("...").intents' in card
        assert "sigmoid(logits)" in card
        assert "micro F1" in card
    else:
        assert 'router.route("...").weights' in card
        assert "softmax(logits) are the weights" in card
        assert "mean absolute error of a weight" in card


def test_more_samples_ask_for_the_rest_alone(line, tmp_path):
    import shutil

    shutil.copytree(line.folder, tmp_path / "project")
    raw = {**line.raw, "teacher": {**line.raw["teacher"], "samples": 3}}
    (tmp_path / "project" / "router.yaml").write_text(json.dumps(raw), encoding="utf-8")
    spec = load_spec(tmp_path / "project")
    n_queries = len(list(read_jsonl(spec.queries_path)))
    assert pipeline.plan(spec, out=line.out).label.n_missing == n_queries
