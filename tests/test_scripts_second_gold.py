from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from bundles import build_bundle
from project import TESTS, write_lines

sys.path.append(str(TESTS.parent / "scripts"))
import second_gold

from distill.router import Router
from distill.spec import load_spec
from distill.teacher.imported import import_answers
from distill.types import Task

SCRIPT = TESTS.parent / "scripts" / "second_gold.py"
CHANNELS = ("track_order", "cancel_order", "refund")


def test_weights_elsewhere_are_left_out():
    answers = [{"a": 0.2, "b": 0.2, "c": 0.6}, {"a": 0.0, "b": 0.0, "c": 1.0}, {"a": 0.75, "b": 0.25, "c": 0.0}]
    row = second_gold.on_channels("any", answers, ("a", "b"))
    assert row.weights.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]]
    np.testing.assert_allclose(row.elsewhere, [0.6, 1.0, 0.0])


@pytest.fixture
def project(tmp_path):
    """A teacher that says what people say but for one of four texts."""
    (tmp_path / "router.yaml").write_text(
        f"name: tiny\ntask: weights\nintents: {{{', '.join(f'{name}: x' for name in CHANNELS)}}}\n"
        "teacher: {model: fake, base_url: 'http://127.0.0.1:9/v1'}\nqueries: logs.jsonl\nstudents: [static]\n",
        encoding="utf-8",
    )
    people = {"where": (1.0, 0.0), "stop": (0.0, 1.0), "both": (0.5, 0.5), "halt": (0.0, 1.0)}
    write_lines(tmp_path / "logs.jsonl", [{"text": "anything"}])
    write_lines(
        tmp_path / "gold.jsonl",
        [{"text": text, "weights": dict(zip(CHANNELS, weights, strict=False))} for text, weights in people.items()],
    )
    said = {**people, "halt": (1.0, 0.0)}
    answers = [
        {"text": text, "weights": {"track_order": 0.5 * w[0], "cancel_order": 0.5 * w[1], "refund": 0.5}}
        for text, w in said.items()
    ]
    write_lines(tmp_path / "answers.jsonl", answers)
    build_bundle(tmp_path / "models" / "static", task=Task.WEIGHTS)
    spec = load_spec(tmp_path / "router.yaml")
    import_answers(spec, tmp_path / "answers.jsonl")
    return tmp_path


def test_the_teacher_is_compared_on_the_gold_channels_alone(project):
    found = second_gold.measure(load_spec(project / "router.yaml"), project / "gold.jsonl", project / "models")
    assert found["channels"] == CHANNELS[:2]
    assert [(kind["weights"], kind["n"]) for kind in found["gold"]] == [([0, 1], 2), ([0.5, 0.5], 1), ([1, 0], 1)]
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        *("teacher", "static", "equal weights", "all on track_order", "all on cancel_order"),
        "the mean of the people's weights",
    ]
    assert rows["all on cancel_order"]["accuracy"] == 0.5
    assert rows["teacher"]["accuracy"] == 0.75
    assert rows["teacher"]["elsewhere"] == 0.5
    assert rows["teacher"]["mae"] == 0.25
    assert rows["equal weights"]["accuracy"] == 0.25
    assert rows["equal weights"]["better_than_teacher"] == -0.5
    assert rows["equal weights"]["kl"] == pytest.approx(0.75 * np.log(2))


def test_the_mean_of_several_answers_has_a_row_where_all_were_given(project):
    path = project / "router.yaml"
    text = path.read_text(encoding="utf-8").replace("9/v1'}", "9/v1', samples: 2, temperature: 1}")
    path.write_text(text, encoding="utf-8")
    texts = ["where", "stop", "both", "halt"]
    lines = [
        {"text": text, "sample": sample, "weights": {name: 1}}
        for text in texts
        for sample, name in enumerate(CHANNELS[:2])
    ]
    write_lines(project / "answers.jsonl", lines[:-1])
    import_answers(load_spec(path), project / "answers.jsonl")

    def rows():
        return second_gold.measure(load_spec(path), project / "gold.jsonl", project / "models")["rows"]

    assert [row["name"] for row in rows()][:3] == ["teacher", "static", "equal weights"]
    write_lines(project / "answers.jsonl", lines)
    import_answers(load_spec(path), project / "answers.jsonl")
    assert [row["name"] for row in rows()][:3] == ["teacher", "teacher, mean of 2", "static"]
    assert rows()[1]["mae"] == pytest.approx(3 / 8)  # 0.5 beside three texts of one channel


def test_asking_has_each_text_answered_as_often_as_the_queries(project, monkeypatch, capsys):
    path = project / "router.yaml"
    text = path.read_text(encoding="utf-8")
    own = "{callable: 'gold_teacher:answer', samples: 2}"
    path.write_text(re.sub(r"teacher: .*", f"teacher: {own}", text), encoding="utf-8")
    (project / "gold_teacher.py").write_text("def answer(text):\n    return 'refund'\n", encoding="utf-8")
    arguments = [str(path), str(project / "gold.jsonl"), "--models", str(project / "models"), "--ask"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    second_gold.main()
    assert "| teacher, mean of 2 |" in capsys.readouterr().out


def test_a_text_that_the_teacher_was_not_asked_is_an_error(project):
    write_lines(project / "more.jsonl", [{"text": "new", "weights": {"track_order": 1.0}}])
    done = subprocess.run(
        [sys.executable, SCRIPT, project / "router.yaml", project / "more.jsonl", "--models", project / "models"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "holds no answer to 1 of 1 texts" in done.stderr


def test_the_command_prints_a_table_and_writes_json(project, monkeypatch, capsys):
    arguments = [str(project / name) for name in ("router.yaml", "gold.jsonl")]
    monkeypatch.setattr(
        sys, "argv", ["x", *arguments, "--models", str(project / "models"), "--json", str(project / "f.json")]
    )
    second_gold.main()
    printed = capsys.readouterr().out
    assert "| teacher | 0.750 [" in printed
    assert "4 queries of people; weights over track_order, cancel_order: 2 of 0/1, 1 of 0.5/0.5, 1 of 1/0." in printed
    written = json.loads((project / "f.json").read_text("utf-8"))
    assert written["n_gold"] == 4
    assert written["routers"] == {"static": Router.load(project / "models" / "static").manifest.bundle_id}


def test_lines_are_drawn_unchanged_and_always_the_same(tmp_path, monkeypatch):
    write_lines(tmp_path / "all.jsonl", [{"text": str(number), "weights": {"a": 1.0}} for number in range(50)])
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["x", "--draw", "7", str(tmp_path / "all.jsonl"), str(tmp_path / name)])
        second_gold.main()
    drawn = [json.loads(line) for line in (tmp_path / "one").read_text("utf-8").splitlines()]
    assert len(drawn) == 7
    assert drawn == sorted(drawn, key=lambda line: int(line["text"]))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("n", ["-5", "0", "51"])
def test_lines_that_are_not_there_cannot_be_drawn(tmp_path, monkeypatch, n):
    write_lines(tmp_path / "all.jsonl", [{"text": str(number), "weights": {"a": 1.0}} for number in range(50)])
    monkeypatch.setattr(sys, "argv", ["x", "--draw", n, str(tmp_path / "all.jsonl"), str(tmp_path / "one")])
    with pytest.raises(SystemExit, match=f"holds 50 lines; --draw takes a number from 1 to that, not {n}"):
        second_gold.main()
