"""docs/several-intents-and-weights.md: its commands run, its Python too, and what it says of specs and answers holds."""

from __future__ import annotations

import re

import pytest
import yaml
from bundles import build_bundle
from guides import blocks, empty_folder, page, run
from project import distill, fails

from distill.bundle import load_bundle
from distill.data import read_jsonl
from distill.spec import Spec, SynthSpec, TeacherSpec, load_spec
from distill.student import train
from distill.teacher.answers import read_scores
from distill.types import Task

PAGE = page("several-intents-and-weights.md")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


@pytest.fixture
def quick(tmp_path, monkeypatch):
    with empty_folder(tmp_path, monkeypatch) as fake:
        monkeypatch.setattr(train, "train_students", bundles_of_the_task)
        yield fake


def bundles_of_the_task(data, out, *, students, **_):
    for student in students:
        build_bundle(out / student, student=student, task=data.task, labels=data.labels, data_sha256=data.data_sha256)
    return {student: load_bundle(out / student) for student in students}


def python_of(section):
    return next(content for language, _, content in blocks(section) if language == "python")


def test_several_intents(quick, capsys):
    printed = run(SECTIONS["Several intents"])
    assert quick.n_requests > 0
    assert "24 of 24 queries to label" not in printed["distill run desk/router.yaml --dry-run"]
    targets = {line["intended_intent"] for _, line in read_jsonl(load_spec("desk").queries_path)}
    assert targets == {"track_order", "cancel_order", "refund", "oos"}
    exec(compile(python_of(SECTIONS["Several intents"]), "page", "exec"), {})  # noqa: S102
    assert "refund" in capsys.readouterr().out


def test_weights(quick, capsys):
    printed = run(SECTIONS["Weights"])
    routed = next(shown for command, shown in printed.items() if command.startswith("distill route"))
    assert re.match(r"visual 0\.\d\d, audio 0\.\d\d, transcription 0\.\d\d, metadata 0\.\d\d ", routed)
    exec(compile(python_of(SECTIONS["Weights"]), "page", "exec"), {})  # noqa: S102
    assert 0 < float(capsys.readouterr().out) < 1


@pytest.mark.parametrize("section", ["Which queries are written", "Soft labels"])
def test_the_keys_shown_are_valid(section):
    shown = [yaml.safe_load(content) for language, _, content in blocks(SECTIONS[section]) if language == "yaml"]
    assert shown
    for keys in shown:
        for name, value in keys.items():
            {"synth": SynthSpec, "teacher": TeacherSpec}[name].model_validate(value)


@pytest.mark.parametrize("task", ["multi", "weights"])
def test_the_answers_shown_are_read(task):
    (cells,) = re.findall(rf"^\| `{task}` \| (.*) \|$", SECTIONS["A prompt of your own"], re.MULTILINE)
    intents = ["refund", "cancel_order", "visual", "audio"]
    raw = {"name": "a", "task": task, "intents": dict.fromkeys(intents, ""), "teacher": {"model": "m", "prompt": "p"}}
    spec = Spec.model_validate(raw)
    shown = [answer for answer in re.findall(r"`([^`]+)`", cells) if "..." not in answer]
    assert len(shown) >= 2
    for answer in shown:
        assert read_scores(answer, spec)


@pytest.mark.parametrize(("task", "is_said"), [("weights", True), ("single", False)])
@pytest.mark.parametrize("command", ["label", "run"])
def test_a_mixture_by_log_probabilities_is_said_to_stand_and_fall_with_them(tmp_path, task, is_said, command):
    (tmp_path / "prompt.txt").write_text("Which one? {query}", encoding="utf-8")
    (tmp_path / "logs.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "router.yaml").write_text(
        f"name: a\ntask: {task}\nintents: {{x: one, y: two}}\nqueries: logs.jsonl\n"
        "teacher: {model: m, base_url: 'http://127.0.0.1:9/v1', prompt: prompt.txt, logprobs: true}\n",
        encoding="utf-8",
    )
    done = distill(command, tmp_path, "--dry-run", "--teacher-model", "another")
    assert done.exit_code == 0, done.output
    said = f"{command}: the weights are the log-probabilities of another: of a model that gives none"
    assert (said in done.stderr) == is_said


# --- init --task -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", Task)
def test_init_drafts_a_project_of_each_task(tmp_path, task):
    done = distill("init", tmp_path, "--task", task.value)
    assert done.exit_code == 0, done.output
    spec = load_spec(tmp_path)
    assert spec.task is task
    assert spec.out_of_scope is (task is Task.SINGLE)
    assert distill("run", tmp_path, "--dry-run", "--out", tmp_path / "out").exit_code == 0
    text = (tmp_path / "router.yaml").read_text(encoding="utf-8")
    for commented in re.findall(r"^# (synth: \{.*\})$", text, re.MULTILINE):
        SynthSpec.model_validate(yaml.safe_load(commented)["synth"])


def test_init_takes_the_task_from_labels_and_refuses_another(tmp_path):
    source = tmp_path / "train.jsonl"
    source.write_text('{"text": "a", "intents": ["x", "y"]}\n{"text": "b", "intents": []}\n', encoding="utf-8")
    assert distill("init", tmp_path / "one", "--from", source).exit_code == 0
    assert load_spec(tmp_path / "one").task is Task.MULTI
    said = fails("init", tmp_path / "two", "--from", source, "--task", "weights")
    assert said == f"{source}: its labels are for `task: multi`, not weights"
    assert not (tmp_path / "two").exists()


def test_init_says_that_out_of_scope_is_for_single(tmp_path):
    said = fails("init", tmp_path, "--task", "multi", "--out-of-scope")
    assert "`out_of_scope` is for `task: single`" in said
    assert "router.yaml" not in {path.name for path in tmp_path.iterdir()}
