"""The commands audit and improve: what they print where, and one clear line for whatever a user gets wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import project
import pytest
from improvable import PRICED, WEAK, ByText, Shop, label_from_elsewhere, train_by_number, write_improvable
from project import distill, fails, write_lines, write_project
from threadpoolctl import threadpool_limits

from distill import pipeline
from distill.audit import audit
from distill.data import read_jsonl
from distill.spec import load_spec
from distill.student import train


class ByMeaning(ByText):
    """Texts with the same intent are nearly alike."""

    def embed(self, texts, on_done=None):
        meant = super().embed([project.answer(text) for text in texts])
        vectors = meant + 0.2 * super().embed(texts)
        return vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No training and no export; imports of a project folder end with the test."""
    monkeypatch.setattr(train, "train_students", train_by_number)
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with threadpool_limits(1):
        yield


@pytest.fixture
def server():
    with Shop() as server:
        yield server


WRONG, FOUND = 4, 3
"""Labels that are wrong, and how many of them confident learning finds among so few."""


@pytest.fixture
def noisy(tmp_path, server, monkeypatch):
    """A project of the server's model with wrong labels from elsewhere."""
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByMeaning())
    path = write_improvable(tmp_path / "project", server.base_url, n=16, teacher=f", {PRICED}, max_output_tokens: 16")
    texts = [line["text"] for _, line in read_jsonl(path.parent / "logs.jsonl")]
    right = {text: project.answer(text) for text in texts}
    wrong = {text for text, name in right.items() if name == WEAK and texts.index(text) % 2}
    wrong = set(sorted(wrong)[:WRONG])
    write_lines(
        path.parent / "answers.jsonl",
        [{"text": text, "intent": "oos" if text in wrong else name} for text, name in right.items()],
    )
    assert distill("label", path, "--import", path.parent / "answers.jsonl").exit_code == 0
    server.requests.clear()
    found = {suspect.text for suspect in audit(load_spec(path), show_progress=False).suspects}
    assert found <= wrong
    assert len(found) == FOUND
    return path, found


@pytest.fixture
def weak(tmp_path, server):
    """A labelled project whose students do not know ``WEAK``."""
    path = write_improvable(tmp_path / "project", server.base_url, teacher=f", {PRICED}")
    label_from_elsewhere(path)
    return path


def test_audit_prints_a_table_by_intent_and_asks_nothing(noisy, server):
    path, found = noisy
    done = distill("audit", path, "--quiet")
    assert done.exit_code == 0, done.output
    first, *rest = done.stdout.splitlines()
    assert first == f"64 labels looked at, about {FOUND} of them wrong; {FOUND} suspected"
    assert rest[:2] == ["", f"oos: {FOUND} of 20, mostly {WEAK}"]
    assert {re.search(r"'(.*)'", line).group(1) for line in rest[3:]} == found
    assert re.fullmatch(
        rf"--relabel would ask 9 times about {FOUND} queries, USD about 0\.\d{{4}}, up to 0\.\d{{4}}; nothing was asked\n"
        r"audit: a model that reasons .*\n",
        done.stderr,
    )
    assert server.n_requests == 0


def test_the_limit_shows_the_worst(noisy):
    done = distill("audit", noisy[0], "--limit", 1)
    assert f"{FOUND} suspected, the 1 worst shown" in done.stdout
    assert len(re.findall(r"^ +-\d", done.stdout, re.MULTILINE)) == 1
    assert len(json.loads(distill("audit", noisy[0], "--limit", 1, "--json").stdout)["suspects"]) == 1


def test_audit_json_is_one_document(noisy):
    value = json.loads(distill("audit", noisy[0], "--json").stdout)
    assert {suspect["text"] for suspect in value["suspects"]} == noisy[1]
    assert value["relabelled"] is None
    assert (value["relabel_plan"]["n_cases"], value["relabel_plan"]["n_missing"]) == (FOUND, 9)
    assert value["intents"][0]["name"] == "oos"


def test_relabel_asks_again_and_train_takes_it(noisy, server):
    path, found = noisy
    done = distill("audit", path, "--relabel", "--max-usd", 1, "--samples", 2, "--quiet")
    assert done.exit_code == 0, done.output
    assert f"{FOUND} queries asked about again: {FOUND} have another label now, 0 keep theirs, 0 wait" in done.stdout
    assert f"{2 * FOUND} requests in this run; USD spent in it: 0.0012" in done.stdout
    assert f"`distill train {path}` takes what was decided" in done.stderr
    assert server.n_requests == 2 * FOUND
    spec = load_spec(path)
    labels = {each.text: spec.labels[int(each.target.argmax())] for each in pipeline.examples(spec, show_notes=False)}
    assert {labels[text] for text in found} == {WEAK}
    assert json.loads(distill("audit", path, "--relabel", "--json").stdout)["relabelled"]["n_asked"] == 0


def test_relabel_within_the_limit(noisy, server):
    done = distill("audit", noisy[0], "--relabel", "--max-usd", 0.0001)
    assert done.exit_code == 0
    assert f"{FOUND} wait" in done.stdout
    assert "the spend limit is reached; what was answered is kept" in done.stderr
    assert server.n_requests == 0


def test_what_audit_is_not_given(tmp_path, noisy):
    assert distill("audit", noisy[0], "--max-usd", 1).exit_code == 2
    assert "no query has a label" in fails("audit", write_project(tmp_path / "unlabelled"))
    path = write_project(tmp_path / "human", n=16, teacher="{labels: answers.jsonl}")
    (path.parent / "answers.jsonl").write_bytes((noisy[0].parent / "answers.jsonl").read_bytes())
    assert distill("label", path).exit_code == 0
    done = distill("audit", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "the labels are people's" in fails("audit", path, "--relabel", "--quiet")


def test_relabel_says_what_could_not_be_asked_before_it_looks_at_labels(tmp_path, noisy, monkeypatch):
    path, _ = noisy
    text = path.read_text("utf-8")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr("distill.audit.audit", lambda *_, **__: pytest.fail("labels were looked at"))
        path.write_text(re.sub(r"base_url: '[^']*'", "base_url: 'https://example.invalid/v1'", text), encoding="utf-8")
        assert "OPENAI_API_KEY is not set" in fails("audit", path, "--relabel", "--quiet")
        patch.setenv("OPENAI_API_KEY", "sk-1")
        path.write_text(path.read_text("utf-8").replace(PRICED, "timeout_s: 9"), encoding="utf-8")
        assert "no price is known for 'fake'" in fails("audit", path, "--relabel", "--quiet", "--max-usd", 1)
    path.write_text(text, encoding="utf-8")
    assert distill("audit", path, "--relabel", "--quiet").exit_code == 0
    path.write_text(re.sub(r"base_url: '[^']*'", "base_url: 'https://example.invalid/v1'", text), encoding="utf-8")
    done = distill("audit", path, "--relabel", "--quiet")
    assert done.exit_code == 0, "what is recorded needs no key"


SHOWN = {
    "multi": ("intents", r"^ +-\d\.\d\d  [+-]\w+( [+-]\w+)* +\d\.\d\d +\d\.\d\d +1\.00  '"),
    "weights": (
        "weights",
        r"^ +-\d\.\d\d  \w+ \d\.\d\d(, \w+ \d\.\d\d)* \(now \w+ 1\.00\) +\d\.\d\d +\d\.\d\d +1\.00  '",
    ),
}


@pytest.mark.parametrize("task", SHOWN)
def test_audit_shows_what_is_doubted_of_other_tasks(tmp_path, monkeypatch, task):
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByMeaning())
    field, row = SHOWN[task]
    path = write_project(tmp_path / "project", n=30)
    folder = path.parent
    path.write_text(
        f"name: tiny\ntask: {task}\nintents: {{track_order: '', cancel_order: '', refund: '', oos_like: ''}}\n"
        "teacher: {callable: 'project:answer'}\nqueries: logs.jsonl\n",
        encoding="utf-8",
    )
    texts = [line["text"] for _, line in read_jsonl(folder / "logs.jsonl")]
    right = {text: project.answer(text).replace("oos", "oos_like") for text in texts}
    wrong = [text for text, name in right.items() if name == WEAK][:6]
    given = right | dict.fromkeys(wrong, "track_order")
    said = {text: [name] if field == "intents" else {name: 1} for text, name in given.items()}
    write_lines(folder / "answers.jsonl", [{"text": text, field: answer} for text, answer in said.items()])
    assert distill("label", path, "--import", folder / "answers.jsonl").exit_code == 0
    done = distill("audit", path, "--quiet")
    assert done.exit_code == 0, done.output
    assert re.match(r"120 labels looked at, \d+ suspected", done.stdout), done.stdout
    rows = [line for line in done.stdout.splitlines() if re.match(r"^ +-?\d", line)]
    assert len(rows) >= 2
    assert all(re.match(row, line) for line in rows), done.stdout
    assert any("refund" in line.partition("'")[0] for line in rows)
    value = json.loads(distill("audit", path, "--json").stdout)
    worst = value["suspects"][0]
    assert worst["text"] in wrong
    assert worst["label"] == (
        ["track_order"] if field == "intents" else {**dict.fromkeys(right.values(), 0), "track_order": 1}
    )
    assert set(worst["missing"]) <= {WEAK}
    assert set(worst["superfluous"]) <= {"track_order"}
    assert bool(worst["missing"] or worst["superfluous"]) is (field == "intents")
    done = distill("audit", path, "--relabel", "--samples", 1, "--quiet")
    assert done.exit_code == 0, done.output
    assert "asked about again" in done.stdout


def test_improve_reports_each_round_and_stops_by_itself(weak, server):
    done = distill("improve", weak, "--per-intent", 10, "--out", "out", "--quiet")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "round 1: of 16 held-out queries the students disagree with the teacher on 4, and are unsure of"
    )
    assert any(WEAK in line and line.endswith("mixed up") for line in lines)
    assert re.search(
        rf"^  \d+ queries written, \d+ near-repetitions left out, \d+ labelled; {server.n_requests} requests answered, USD 0\.",
        done.stdout,
        re.MULTILINE,
    )
    assert "  static   agrees with the teacher on 0.7500 before, 1.0000 after" in lines
    assert re.search(r"^  gain \+25\.00 points \[\+\d+\.\d+, \+\d+\.\d+\], kept$", done.stdout, re.MULTILINE)
    assert lines[-1] == "stopped: the students mix up no pair of labels on the held-out queries"
    assert done.stderr == f"`distill bench {weak}` measures the new students on gold\n"
    assert sorted(path.name for path in Path("out").iterdir()) == [".gitignore", "encoder", "static"]


def test_improve_json_is_one_document(weak):
    value = json.loads(distill("improve", weak, "--rounds", 1, "--out", "out", "--json", "--quiet").stdout)
    assert value["stopped"] == "1 round is done"
    assert value["rounds"][0]["kept"] is True
    assert value["rounds"][0]["usd"] > 0


def test_improve_dry_run_asks_nothing(weak, server):
    assert "`distill train" in fails("improve", weak, "--dry-run", "--out", "out")
    assert distill("train", weak, "--out", "out", "--quiet").exit_code == 0
    done = distill("improve", weak, "--dry-run", "--out", "out", "--per-intent", 5)
    assert done.exit_code == 0, done.output
    assert re.search(
        r"^round 1 would begin: it has \d+ queries written and labelled, for .*refund", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^about \d+ requests are left to be made, USD about 0\.\d{4}, up to 0\.\d{4}; no limit is set \(.*\)\. Nothing was asked\.$",
        done.stdout,
        re.MULTILINE,
    )
    limited = distill("improve", weak, "--dry-run", "--out", "out", "--max-usd", 0.001)
    assert "; the limit of --max-usd or teacher.max_usd leaves 0.0010: it would stop there. Nothing" in limited.stdout
    value = json.loads(distill("improve", weak, "--dry-run", "--out", "out", "--json").stdout)
    assert (value["number"], value["in_progress"]) == (1, False)
    assert server.n_requests == 0


def test_improve_within_the_limit(weak, server):
    done = distill("improve", weak, "--max-usd", 0.001, "--out", "out", "--quiet")
    assert (done.exit_code, done.stdout) == (
        0,
        "stopped: the spend limit is reached; the same command goes on with this round\n",
    )
    assert server.n_requests == 0


def test_improve_that_finds_nothing(weak, monkeypatch):
    monkeypatch.setattr(
        train, "train_students", lambda data, out, **options: train_by_number(data, out, **options | {"enough": 0})
    )
    assert distill("train", weak, "--out", "out", "--quiet").exit_code == 0
    assert "No pair of labels is mixed up" in distill("improve", weak, "--dry-run", "--out", "out").stdout
    done = distill("improve", weak, "--out", "out", "--quiet")
    assert (done.stdout, done.stderr) == (
        "stopped: the students mix up no pair of labels on the held-out queries\n",
        "",
    )
