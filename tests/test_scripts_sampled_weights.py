from __future__ import annotations

import json
import sys

import pytest
from project import TESTS, write_lines

sys.path.append(str(TESTS.parent / "scripts"))
import sampled_weights

from distill.errors import DataError
from distill.spec import load_spec
from distill.teacher.imported import import_answers

SHARES = {"visual": 0.6, "audio": 0.4}
SPEC = """name: tiny
task: weights
intents: {visual: seen, audio: heard}
queries: logs.jsonl
teacher: {model: fake, base_url: 'http://127.0.0.1:9/v1', prompt: prompt.txt, logprobs: true}
"""


@pytest.fixture
def spec(tmp_path):
    """A teacher whose log-probabilities say the same of every query."""
    (tmp_path / "router.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "prompt.txt").write_text("Which one? {query}", encoding="utf-8")
    texts = [f"query {number}" for number in range(20)]
    write_lines(tmp_path / "logs.jsonl", [{"text": text} for text in texts])
    write_lines(tmp_path / "answers.jsonl", [{"text": text, "scores": SHARES} for text in texts])
    spec = load_spec(tmp_path)
    import_answers(spec, tmp_path / "answers.jsonl")
    return spec


def sampled(spec, n_visual, n_samples=10):
    """The spec that asks by samples, of which so many name what is seen, recorded."""
    path = sampled_weights.prepare(spec, spec.folder / "samples", 8, n_samples)
    texts = [json.loads(line)["text"] for line in (path.parent / "queries.jsonl").read_text("utf-8").splitlines()]
    said = ["visual"] * n_visual + ["audio"] * (n_samples - n_visual)
    lines = [
        {"text": text, "sample": sample, "weights": {name: 1}} for text in texts for sample, name in enumerate(said)
    ]
    write_lines(spec.folder / "sampled.jsonl", lines)
    import_answers(load_spec(path), spec.folder / "sampled.jsonl")
    return path


def test_the_spec_asks_the_same_by_samples(spec):
    own = load_spec(sampled_weights.prepare(spec, spec.folder / "samples", 8, 10))
    assert (own.teacher.samples, own.teacher.temperature, own.teacher.logprobs) == (10, 1.0, False)
    assert (own.folder / own.teacher.prompt).resolve() == (spec.folder / "prompt.txt").resolve()
    assert own.intent_list == spec.intent_list
    assert len((own.folder / "queries.jsonl").read_text("utf-8").splitlines()) == 8


@pytest.mark.parametrize(("n_visual", "distance"), [(6, 0.0), (9, 0.3)])
def test_how_far_samples_lie_from_the_log_probabilities(spec, n_visual, distance):
    found = sampled_weights.measure(spec, sampled(spec, n_visual))
    assert (found["n_queries"], found["n_samples"], found["same_best"]) == (8, 10, 1.0)
    assert found["distance"] == pytest.approx(distance, abs=1e-6)
    assert found["mean_by_samples"] == pytest.approx([n_visual / 10, 1 - n_visual / 10])
    # of ten draws at 0.6, half the absolute deviation from six is 0.12 in the mean (binomial)
    assert found["distance_by_chance"] == pytest.approx(0.12, abs=0.01)
    assert f"| visual | 0.600 | {n_visual / 10:.3f} |" in sampled_weights.markdown(found)


def test_files_that_the_spec_names_are_found_from_the_folder_of_the_samples(spec):
    (spec.folder / "intents.json").write_text('{"visual": "seen", "audio": "heard"}', encoding="utf-8")
    text = SPEC.replace("{visual: seen, audio: heard}", "intents.json")
    (spec.folder / "router.yaml").write_text(text, encoding="utf-8")
    made = load_spec(sampled_weights.prepare(load_spec(spec.folder), spec.folder / "deeper" / "samples", 8, 10))
    assert list(made.intents) == ["visual", "audio"]


def test_answers_in_several_orders_are_compared_with_each_other(spec):
    (spec.folder / "router.yaml").write_text(SPEC.replace("logprobs: true", "logprobs: true, samples: 2"), "utf-8")
    (spec.folder / "prompt.txt").write_text("Which one of {intents}? {query}", encoding="utf-8")
    texts = [f"query {number}" for number in range(20)]
    orders = (SHARES, {"visual": 0.2, "audio": 0.8})
    answers = [
        {"text": text, "sample": sample, "scores": scores} for text in texts for sample, scores in enumerate(orders)
    ]
    write_lines(spec.folder / "answers.jsonl", answers)
    spec = load_spec(spec.folder)
    import_answers(spec, spec.folder / "answers.jsonl")
    found = sampled_weights.measure(spec, sampled(spec, 6))
    assert found["distance"] == pytest.approx(0.0, abs=1e-6)
    assert found["orders"] == {
        "n_queries": 20,
        "listed": [["visual", "audio"], ["audio", "visual"]],
        "mean_weights": [pytest.approx([0.6, 0.4]), pytest.approx([0.2, 0.8])],
        "distance": pytest.approx(0.4),
        "same_best": 0.0,
    }
    shown = sampled_weights.markdown(found)
    assert "| audio, visual | 0.200 | 0.800 |" in shown
    assert "20 queries, each answered in 2 orders of the channels. Between two orders 0.400" in shown


def test_what_is_recorded_is_compared_without_asking_for_what_failed(spec, monkeypatch, capsys):
    path = sampled(spec, 6)
    ledger = (path.parent / "ledger.jsonl").read_text("utf-8").splitlines(keepends=True)
    (path.parent / "ledger.jsonl").write_text("".join(ledger[1:]), encoding="utf-8")  # a sample that was never given
    arguments = [str(spec.path), "--out", str(path.parent), "--queries", "8", "--json", str(spec.folder / "found.json")]
    monkeypatch.setattr(sys, "argv", ["sampled_weights.py", *arguments])
    sampled_weights.main()
    assert json.loads((spec.folder / "found.json").read_text("utf-8"))["n_queries"] == 8
    assert capsys.readouterr().out.startswith("| mean weight |")


def test_there_must_be_log_probabilities_and_enough_queries(spec):
    with pytest.raises(DataError, match="holds 20 queries, not 21"):
        sampled_weights.prepare(spec, spec.folder / "samples", 21, 10)
    (spec.folder / "router.yaml").write_text(SPEC.replace(", logprobs: true", ""), encoding="utf-8")
    with pytest.raises(DataError, match=r"has no `teacher\.logprobs: true`"):
        sampled_weights.prepare(load_spec(spec.folder), spec.folder / "samples", 8, 10)
