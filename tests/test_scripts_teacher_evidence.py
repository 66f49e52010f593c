"""The program that shows what the teacher stage is worth: every condition with a server that knows the shop's words, without training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import project
import pytest
from improvable import ByText, Shop, train_by_number
from project import SHOP, make_texts, write_lines

from distill.errors import DataError
from distill.spec import load_spec
from distill.student import train

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import teacher_evidence


class Writer(Shop):
    """Also writes queries when it is asked without any art, some of them twice."""

    def _profile_normal(self, body, query):
        prompt = body["messages"][0]["content"]
        if not prompt.startswith("Write "):
            return super()._profile_normal(body, query)
        example = prompt.split("For example:\n")[1].splitlines()[0]
        return self.completion(f'1. "{example} now"\n- {example} {len(self.requests)}\n\n{example} now')


@pytest.fixture
def server():
    with Writer() as server:
        yield server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_students", train_by_number)
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    for name, value in {
        "QUERIES": 30,
        "KNOWN_PER_INTENT": 2,
        "TEACHER_GOLD": 9,
        "BUNDLES": tmp_path / "models",
    }.items():
        monkeypatch.setattr(teacher_evidence, name, value)
    monkeypatch.setattr(teacher_evidence, "FOLDERS", tmp_path)
    for name, n, seed in (("train", 30, 0), ("test", 5, 1)):
        lines = [{"text": text, "intent": intent} for text, intent in make_texts(SHOP, n, seed=seed)]
        write_lines(tmp_path / f"{name}.jsonl", lines)
    (tmp_path / "shop").mkdir()
    names = {name: f"about {name}" for name in SHOP if name != "oos"}
    (tmp_path / "shop" / "intents.json").write_text(json.dumps(names))
    return tmp_path / "shop"


def run(folder, server, until=None):
    teacher_evidence.run(folder, folder.parent, server.base_url, "fake", until)
    return json.loads((folder / "results.json").read_text())


def test_every_condition_is_run_once_and_the_table_needs_no_model(folder, server):
    first = run(folder, server, until="naive")
    assert set(first["students"]) == {"known", "naive"}
    for condition in ("known", "naive"):
        ledger = (folder / condition / "ledger.jsonl").read_text()
        assert '"human labels' in ledger
        assert '"fake"' not in ledger
    found, n_requests = run(folder, server), len(server.requests)
    assert set(found["teachers"]) == {"names", "descriptions", "examples", "together"}
    assert set(found["students"]) == set(teacher_evidence.STUDENTS)
    assert {len(outcome["right"]) for outcome in found["teachers"].values()} == {9}
    assert found["teachers"]["names"]["accuracy"] == 1.0
    for condition in ("ours", "real", "human", "naive"):
        assert found["students"][condition]["n_queries"] >= 20
    assert run(folder, server) == found
    older = json.loads(json.dumps(found))
    for condition in ("naive", "ours"):
        older["students"][condition] |= {"recipe": 1, "n_queries": 0}
    (folder / "results.json").write_text(json.dumps(older))
    teacher_evidence.run(folder, None, None, "fake", again=True)  # from the recordings, and the queries that were drawn
    assert json.loads((folder / "results.json").read_text()) == found
    assert len(server.requests) == n_requests
    page = teacher_evidence.table()
    assert "| the teacher, bare names | 1.000 [.701, 1.000] |" in page
    assert page.count("| static |") == len(teacher_evidence.STUDENTS) + 3
    assert "descriptions and all 6 known examples |" in page


def test_without_data_the_queries_must_have_been_drawn(folder):
    with pytest.raises(DataError, match=r"known\.jsonl, .* not there; give DATA"):
        teacher_evidence.run(folder, None, None, "fake")


@pytest.mark.parametrize("name", ["banking", "money-and-travel"])
def test_the_recorded_rounds_are_those_of_the_table(name):
    recorded = Path(teacher_evidence.__file__).resolve().parent.parent / "data" / "teacher-evidence" / name
    improved = json.loads((recorded / "results.json").read_text())["students"].get("improved", {})
    assert improved.get("rounds", []) == teacher_evidence.rounds_of(recorded)


def outcome(n_right, n=1000):
    return {"right": "1" * n_right + "0" * (n - n_right)}


def test_every_aim_is_judged_for_each_student():
    students = {
        "naive": {"recipe": 2, "students": {"static": outcome(850), "encoder": outcome(900)}},
        "ours": {"recipe": 2, "students": {"static": outcome(880), "encoder": outcome(929)}},
        "real": {"recipe": 1, "students": {"static": outcome(945), "encoder": outcome(944)}},
    }
    together = teacher_evidence._bits(outcome(945))
    assert teacher_evidence._aims(students, together, list(range(1000)))[2:] == [
        "| ours, at least 3 points above naive | static | +0.030 | reached |",
        "| ours, at least 3 points above naive | encoder | +0.029 | missed |",
        "| ours, at most 1.5 points under the teacher with known examples | static | -0.065 | missed |",
        "| ours, at most 1.5 points under the teacher with known examples | encoder | -0.016 | missed |",
        "| real, at or above the teacher with known examples | static | +0.000 | reached |",
        "| real, at or above the teacher with known examples | encoder | -0.001 | missed |",
    ]
    students["naive"]["recipe"] = 1
    assert teacher_evidence._aims(students, together, list(range(1000)))[2:4] == [
        "| ours, at least 3 points above naive | static |  | not known: of another recipe |",
        "| ours, at least 3 points above naive | encoder |  | not known: of another recipe |",
    ]


def test_no_aim_is_judged_before_both_sides_of_it_are_measured():
    assert teacher_evidence._aims({"ours": {"students": {"static": outcome(1)}}}, None, []) == []


def test_a_row_says_whether_known_examples_were_retrieved(tmp_path):
    write_lines(tmp_path / "known.jsonl", [{"text": str(number), "intent": "a"} for number in range(225)])
    (tmp_path / "examples").mkdir()
    ledger = tmp_path / "examples" / "ledger.jsonl"
    write_lines(ledger, [{"settings": {"by_query": {"examples": 12}}}])
    assert teacher_evidence._examples_shown(tmp_path) == "retrieved examples, 12 of 225 a query"
    write_lines(ledger, [{"settings": {"template": "label_single_001"}}])
    assert teacher_evidence._examples_shown(tmp_path) == "all 225 known examples"


def test_what_is_drawn_never_overlaps(folder):
    teacher_evidence.prepare(folder, folder.parent, "fake")

    def texts(name):
        return [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]

    assert not set(texts("known")) & set(texts("texts"))
    assert set(texts("teacher-gold")) <= set(texts("gold"))
    assert [project.answer(text) for text in texts("known")].count("refund") == 2


def test_naive_queries_lose_their_numbers_and_repetitions(folder, server):
    run(folder, server, until="naive")
    lines = [json.loads(line)["text"] for line in (folder / "naive" / "written.jsonl").read_text().splitlines()]
    assert len(lines) == len(set(lines))
    assert not [line for line in lines if line.startswith(("1.", "-", '"'))]


def test_the_specs_that_are_there_have_the_budget_of_today():
    """Another one would train other students than those of the results."""
    specs = [load_spec(path) for path in teacher_evidence.FOLDERS.glob("*/*/router.yaml")]
    assert len(specs) == 18
    assert {spec.budget_minutes for spec in specs} == {teacher_evidence.BUDGET_MINUTES}
