"""The program for public data sets: its folder, its memory of openings, its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill.bundle import ONNX_FP32, ONNX_INT8
from distill.errors import DataError, DistillError, StorageError
from distill.types import BenchResult, BenchRow, Task

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import openings
import public
import public_table


def write(folder, part, lines):
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_a_folder_tells_its_task_and_labels(tmp_path):
    write(tmp_path, "train", [{"text": "pay it", "intent": "pay"}, {"text": "what?", "intent": "oos"}])
    write(tmp_path, "validation", [{"text": "pay me", "intent": "pay"}])
    (tmp_path / "intents.json").write_text('{"send": "sends money", "pay": "pays a bill"}', encoding="utf-8")
    folder = public.read_folder(tmp_path)
    assert folder.task is Task.SINGLE
    assert folder.labels == ("send", "pay", "oos")
    assert [example.split for example in folder.examples] == ["train", "train", "held_out"]


@pytest.mark.parametrize(
    ("line", "task"),
    [
        ({"text": "a", "intents": ["x", "y"]}, Task.MULTI),
        ({"text": "a", "weights": {"x": 0.5, "y": 0.5}}, Task.WEIGHTS),
    ],
)
def test_other_tasks(tmp_path, line, task):
    write(tmp_path, "train", [line, line | {"text": "b"}])
    assert public.read_folder(tmp_path).task is task


def test_no_label_is_one_clear_line(tmp_path):
    write(tmp_path, "train", [{"text": "a"}])
    with pytest.raises(DataError, match=r"train.jsonl:1: no label"):
        public.read_folder(tmp_path)


PAY, SEND = {"text": "pay it", "intent": "pay"}, {"text": "send it", "intent": "send"}


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([PAY, SEND], [{"text": "a", "intents": ["pay", "send"]}], r'validation.jsonl:1: .* needs "intent"'),
        ([PAY, PAY], [], r"train.jsonl: students need two labels or more, found pay"),
        ([{"text": "a", "intents": []}], [], r"train.jsonl: students need two labels or more, found none"),
        ([{"text": "a", "weights": {"x": 1}}], [], r"train.jsonl: students need two labels or more, found x"),
        ([{"text": "a", "intents": ["x", "oos"]}], [], r"train.jsonl:1: 'oos' is no name of an intent; .* empty list"),
    ],
)
def test_what_students_cannot_learn_is_told_before_they_train(tmp_path, train, validation, message):
    write(tmp_path, "train", train)
    if validation:
        write(tmp_path, "validation", validation)
    with pytest.raises(DataError, match=message):
        public.read_folder(tmp_path)


def test_intents_that_no_line_has_are_not_enough(tmp_path):
    write(tmp_path, "train", [{"text": "a", "intents": []}])
    (tmp_path / "intents.json").write_text('{"x": "one", "y": "two"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"train.jsonl: no line has an intent"):
        public.read_folder(tmp_path)


def test_a_label_of_the_validation_part_alone_is_left_out(tmp_path, capsys):
    write(tmp_path, "train", [PAY, SEND])
    write(tmp_path, "validation", [PAY, {"text": "!", "intent": "pya"}])
    folder = public.read_folder(tmp_path)
    assert folder.labels == ("pay", "send")
    assert [example.split for example in folder.examples] == ["train", "train", "held_out"]
    assert "1 lines are left out" in capsys.readouterr().err


def test_what_is_out_of_scope_in_the_validation_part_alone_is_of_no_label(tmp_path, capsys):
    write(tmp_path, "train", [PAY, SEND])
    write(tmp_path, "validation", [PAY, {"text": "?", "intent": "oos"}])
    folder = public.read_folder(tmp_path)
    assert folder.labels == ("pay", "send")
    assert [(each.split, each.target.tolist()) for each in folder.examples[2:]] == [
        ("held_out", [1, 0]),
        ("held_out", [0, 0]),
    ]
    assert not capsys.readouterr().err


def test_a_label_of_the_test_part_alone_is_a_label_that_no_student_gives(tmp_path, capsys):
    out = {"text": "what?", "intent": "oos"}
    write(tmp_path, "train", [PAY, SEND, out])
    write(tmp_path, "test", [PAY, out, {"text": "?", "intent": "pya"}])
    gold, labels, examples = public.read_test(public.read_folder(tmp_path))
    assert (len(gold), labels) == (3, ("pay", "send", "pya", "oos"))
    assert [example.target.tolist() for example in examples] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert "students cannot know 'pya'" in capsys.readouterr().err


def test_out_of_scope_that_is_described_and_that_no_query_has_is_no_label(tmp_path):
    write(tmp_path, "train", [PAY, SEND])
    (tmp_path / "intents.json").write_text(json.dumps({"pay": "x", "oos": "fits none"}), encoding="utf-8")
    assert public.read_folder(tmp_path).labels == ("pay", "send")
    write(tmp_path, "train", [PAY, SEND, {"text": "?", "intent": "oos"}])
    assert public.read_folder(tmp_path).labels == ("pay", "send", "oos")


def test_where_openings_cannot_be_noted_nothing_is_trained(run):
    run.path.mkdir()
    with pytest.raises(StorageError, match=r"openings\.jsonl: cannot be written"):
        run.measure()
    assert run.trained == 0


def test_what_is_out_of_scope_in_the_test_part_alone_is_left_to_the_policy(tmp_path):
    write(tmp_path, "train", [PAY, SEND])
    write(tmp_path, "test", [PAY, {"text": "?", "intent": "oos"}])
    folder = public.read_folder(tmp_path)
    assert public.read_test(folder)[1:] == (("pay", "send"), folder.examples)


def test_queries_of_a_label_share_a_row(tmp_path):
    write(tmp_path, "train", [PAY, SEND, PAY | {"text": "pay that"}])
    first, second, third = public.read_folder(tmp_path).examples
    assert first.target is third.target
    assert (first.target.tolist(), second.target.tolist()) == ([1, 0], [0, 1])


@pytest.mark.parametrize(
    ("is_larger", "n", "assistant"), [(True, 1, "larger"), (False, 2, "2 encoders"), (False, 0, "none")]
)
def test_the_plan_names_the_assistant_and_reckons_the_minutes(monkeypatch, is_larger, n, assistant):
    recipe = SimpleNamespace(larger=is_larger, assistants=n)
    run = SimpleNamespace(encoder_recipe=recipe, assistant_model="larger", estimated_minutes=lambda _: 12.345)
    monkeypatch.setattr(public.student_train, "_run", lambda *_, **__: run)
    assert public.plan(None, Path(), 0, 60) == {"assistant": assistant, "estimated_minutes": 12.3}


class Run:
    """A folder, and what training and measuring are replaced by."""

    def __init__(self, tmp_path, monkeypatch):
        self.folder, self.out, self.path = tmp_path / "birds", tmp_path / "out", tmp_path / "openings.jsonl"
        self.trained, self.accuracy, self.dies = 0, 0.5, ""
        self.folder.mkdir()
        write(self.folder, "train", [PAY, SEND])
        write(self.folder, "test", [PAY])
        peaks = iter(range(100, 10_000))
        for name, value in {
            "OPENINGS": self.path,
            "tree_commit": lambda: "abc",
            "n_cores": lambda: 3,
            "plan": lambda *_: {"assistant": "none", "estimated_minutes": 12.3},
            "untrained_students": lambda *_, **__: () if (self.out / "encoder").exists() else public.STUDENTS,
            "train_students": self.train,
            "run_bench": self.bench,
            "_peak_rss_mb": lambda: next(peaks),
        }.items():
            monkeypatch.setattr(public, name, value)

    def train(self, data, out, **_):
        if not (out / "encoder").exists():
            (out / ".work").mkdir(parents=True, exist_ok=True)
            if self.dies == "training":
                raise KeyboardInterrupt
            self.trained += 1
            (out / "encoder").mkdir()
            (out / ".work").rmdir()
        if self.dies == "after training":
            raise KeyboardInterrupt
        graphs = {"encoder": ONNX_INT8, "static": ONNX_FP32}
        return {
            name: SimpleNamespace(
                path=out / name,
                manifest=SimpleNamespace(
                    bundle_id=f"{name} 1", onnx_file=graph, figures={"int8_flips": 3, "temperature": 1.0}
                ),
            )
            for name, graph in graphs.items()
        }

    def bench(self, inputs):
        if self.dies == "bench":
            raise KeyboardInterrupt
        rows = [BenchRow(name=name, accuracy=self.accuracy, ece_noise_floor=0.009) for name in ("encoder", "majority")]
        facts = {"environment": {"processor": "one"}, "provenance": inputs.provenance}
        return BenchResult(name="birds", task=Task.SINGLE, n_gold=1, n_in_scope=1, n_oos=0, rows=tuple(rows), **facts)

    def measure(self, dies=""):
        self.dies = dies
        if not dies:
            return public.measure(self.folder, self.out)
        with pytest.raises(KeyboardInterrupt):
            public.measure(self.folder, self.out)
        return None

    @property
    def openings(self):
        return openings.read_openings(self.path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    return Run(tmp_path, monkeypatch)


def test_an_opening_says_what_was_measured_and_how_it_was_made(run):
    run.measure()
    (line,) = run.openings
    assert line["rows"] == {"encoder": {"accuracy": 0.5, "ece_noise_floor": 0.009}}
    assert line["graphs"] == {"encoder": "int8", "static": "fp32"}
    assert line["int8"] == {"encoder": {"int8_flips": 3}, "static": {"int8_flips": 3}}
    assert (line["recipe"], line["budget_minutes"], line["assistant"]) == (public.VERSION, 60.0, "none")
    assert line["estimated_minutes"] == 12.3
    assert (line["train_minutes"], line["train_peak_rss_mb"]) == (0.0, 101)
    assert line["train_cores"] == 3
    assert (line["commit"], line["trained_commit"]) == ("abc", "abc")
    assert {len(line[f"{part}_sha256"]) for part in ("train", "test")} == {64}
    assert len(run.path.read_text("utf-8").splitlines()) == 2  # begun, and measured


def test_what_was_measured_is_not_opened_again_until_the_test_part_changes(run):
    run.measure()
    run.measure()
    assert len(run.openings) == 1
    write(run.folder, "test", [PAY, SEND])
    run.accuracy = 1.0
    earlier = run.path.read_text("utf-8").replace('"opened_at": "', '"opened_at": "0')
    run.path.write_text(earlier, "utf-8")  # both within a second otherwise
    assert run.measure().rows[0].accuracy == 1.0
    assert (run.trained, len(run.openings)) == (1, 2)


def test_what_is_on_record_is_of_the_same_parts_and_made_in_the_same_way(run, monkeypatch):
    def found(seed=0, budget_minutes=60.0):
        return public.on_record(run.folder, run.out, seed=seed, budget_minutes=budget_minutes)

    assert found() is None
    run.measure("bench")
    assert found() is None  # begun, and not measured
    run.measure()
    assert found()["rows"]["encoder"]["accuracy"] == 0.5
    assert found(seed=1) is None
    assert found(budget_minutes=30.0) is None
    for name, value in {
        "plan": lambda *_: {"assistant": "a larger one"},
        "VERSION": public.VERSION + 1,
        "EXPORT_VERSION": public.EXPORT_VERSION + 1,
    }.items():
        with monkeypatch.context() as patched:
            patched.setattr(public, name, value)
            assert found() is None
    write(run.folder, "validation", [PAY])
    assert found() is None


def test_an_opening_is_remembered_though_measuring_was_killed(run):
    run.measure("bench")
    (line,) = run.openings
    assert line["rows"] == {}
    assert openings.last_by_seed([line], "birds") == []
    run.measure()
    assert run.openings[-1]["rows"]
    assert run.openings[-1]["train_peak_rss_mb"] == 101  # of the run that trained


@pytest.mark.parametrize("when", ["training", "after training"])
def test_minutes_and_memory_of_a_training_that_went_on_are_not_known(run, when):
    run.measure(when)
    run.measure()
    assert run.trained == 1
    facts = ("train_minutes", "train_peak_rss_mb", "train_cores", "trained_commit")
    assert [run.openings[0][fact] for fact in facts] == [None] * 4


def test_a_missing_test_part_is_told_before_training_and_a_wrong_one_costs_no_training(run):
    (run.folder / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test.jsonl: is missing"):
        run.measure()
    assert run.trained == 0
    write(run.folder, "test", [{"text": "?"}])
    with pytest.raises(DataError, match=r"test.jsonl:1"):
        run.measure()
    assert (run.trained, run.openings) == (1, [])
    write(run.folder, "test", [PAY])
    run.measure()
    assert (run.trained, len(run.openings)) == (1, 1)


def test_the_test_part_is_not_read_before_training_is_done(run, monkeypatch):
    read = []
    for name in ("read_gold", "read_jsonl", "sha256_file"):
        real = getattr(public, name)
        monkeypatch.setattr(public, name, lambda path, *a, real=real, **k: read.append((path.stem, run.trained)) or real(path, *a, **k))  # fmt: skip
    run.measure()
    assert {trained for stem, trained in read if stem == "test"} == {1}
    assert ("train", 0) in read


def test_one_of_several_processes_opens_nothing(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DistillError, match=r"2 processes were started together \(WORLD_SIZE\)"):
        run.measure()
    assert (run.trained, run.openings) == (0, [])


def test_anybodys_folder_of_a_known_name_is_not_the_projects(tmp_path):
    path = tmp_path / "openings.jsonl"
    known = openings.SHA256["clinc150"]
    lines = [opening(), opening(opened_at="b", **known), opening(opened_at="c", **known | {"train_sha256": "0"})]
    for line in [*lines, opening(opened_at="d", **known | {"test_sha256": "0"}), opening(opened_at="e", set="birds")]:
        openings.note(line, path)
    assert [line["opened_at"] for line in openings.read_openings(path)] == [opening()["opened_at"], "b", "e"]


def test_a_line_that_a_killed_run_tore_is_lost_alone(tmp_path):
    path = tmp_path / "openings.jsonl"
    openings.note(opening(), path)
    with path.open("a", encoding="utf-8") as lines:
        lines.write('{"opened_at": "torn')
    openings.check_writable(path)
    openings.note(opening(opened_at="b"), path)
    openings.note(opening(opened_at="c"), path)
    with pytest.raises(DistillError, match=r":2"):
        openings.read_openings(path)
    kept = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([kept[0], *kept[2:]]) + "\n", "utf-8")
    assert [line["opened_at"] for line in openings.read_openings(path)] == [opening()["opened_at"], "b", "c"]


def test_every_opening_of_a_test_part_counts_under_whatever_name_and_with_whatever_else(tmp_path):
    path = tmp_path / "openings.jsonl"
    known = openings.SHA256["clinc150"]
    lines = [opening(), opening(opened_at="b", **known), opening(opened_at="c", **known | {"train_sha256": "0"})]
    others = [opening(opened_at="d", set="copy", **known), opening(opened_at="e", **known | {"test_sha256": "0"})]
    for line in [*lines, *others, opening(opened_at="d", set="copy", **known), opening(set="birds")]:
        openings.note(line, path)
    assert openings.n_opened(path, "clinc150") == 4
    assert openings.n_opened(path, "banking77") == openings.n_opened(tmp_path / "none.jsonl", "banking77") == 0


def test_a_line_that_names_every_part_is_of_just_these():
    known = {"export": 2, **openings.SHA256["clinc150"]}
    assert openings.is_of_these_parts(opening(**known))
    assert not openings.is_of_these_parts(
        opening(**{part: sha for part, sha in known.items() if part != "validation_sha256"})
    )
    more = {"export": 2, **openings.SHA256["banking77"], "validation_sha256": "0"}
    assert not openings.is_of_these_parts(opening(set="banking77", **more))
    assert openings.is_of_these_parts(opening(set="mine", export=2, train_sha256="0"))


def opening(**changes):
    row = {"accuracy": 0.9, "accuracy_policy": 0.85, "oos_recall": 0.8, "oos_auroc": 0.97, "ece": 0.02, "size_mb": 25.0}
    return {
        "opened_at": "2026-01-01T00:00:00+00:00", "commit": "abc", "set": "clinc150", "seed": 0, "n_in_scope": 900, "n_oos": 100,
        "train_minutes": 20.0, "train_peak_rss_mb": 2000, "processor": "one", "rows": {"encoder": row, "static": row, "tfidf": row},
    } | changes  # fmt: skip


OPENED = dict.fromkeys(openings.SHA256, 0) | {"clinc150": 5}
MADE = {"recipe": 8, "export": 1, "assistant": "big", "budget_minutes": 60.0, "graphs": {"encoder": "int8", "static": "fp32"}}  # fmt: skip


def accuracy_of(table, name="CLINC150"):
    (line,) = [each for each in table.splitlines() if each.startswith(f"| {name} accuracy")]
    return line


def test_the_last_opening_of_a_seed_counts_and_every_one_is_counted():
    worse = opening(rows={name: {**row, "accuracy": 0.1} for name, row in opening()["rows"].items()}, **MADE)
    table = public_table.table([worse, opening(**MADE), opening(seed=1, **MADE)], OPENED)
    assert "0.9000 [0.9000, 0.9000] | 0.0700 short" in accuracy_of(table)
    assert accuracy_of(table).endswith("| 8, older | 2 | 5 |")
    assert "| encoder int8, 25.0; static fp32, 25.0 |" in table


def test_no_mean_is_over_two_recipes_or_over_lines_that_do_not_say(monkeypatch):
    monkeypatch.setattr(public_table, "VERSION", 9)
    unsaid = [opening(), opening(seed=1)]
    table = public_table.table(unsaid, OPENED)
    assert accuracy_of(table).endswith("| not known | 1 | 5 |")
    assert "| clinc150 | 1 | abc |" in table
    assert "| clinc150 | 0 | abc |" not in table
    older = [*unsaid, opening(seed=1, **MADE)]
    assert accuracy_of(public_table.table(older, OPENED)).endswith("| 8, older | 1 | 5 |")
    assert "| 9 | 1 | 5 |" in public_table.table([*older, opening(seed=2, **MADE | {"recipe": 9})], OPENED)


def test_a_limit_that_is_for_three_seeds_says_how_many_there_were():
    good = {name: {**row, "accuracy": 0.98} for name, row in opening()["rows"].items()}
    lines = [opening(set="banking77", seed=seed, rows=good, **MADE) for seed in range(3)]
    for n, verdict in {1: "stands, 1 of 3 seeds", 2: "stands, 2 of 3 seeds", 3: "stands"}.items():
        line = accuracy_of(public_table.table(lines[:n], OPENED), "BANKING77")
        assert [cell.strip() for cell in line.split("|")][4] == verdict
    line = accuracy_of(public_table.table([opening(rows=good, **MADE)], OPENED))
    assert [cell.strip() for cell in line.split("|")][4] == "stands"


def test_what_training_took_stands_beside_its_limits():
    two = {"set": "banking77", "train_cores": 2}
    last = cost_of([opening(train_minutes=70.5, **two)])
    assert "70.5 minutes with seed 0 on one, missed (at most 60 minutes on two cores); 2,000 MB with seed 0 on one, stands (at most 6,000 MB on two cores)." in last  # fmt: skip
    assert ": not known (at most 60 minutes on two cores); 2,000 MB" in cost_of([opening(train_minutes=None, **two)])
    assert ": not known (at most 60 minutes" in cost_of([])
    for cores, said in (({}, "on how many cores is not known"), ({"train_cores": 16}, "on other machines")):
        line = cost_of([opening(set="banking77", train_minutes=10.5, **cores)])
        assert f"10.5 minutes with seed 0 on one, {said} (at most 60 minutes on two cores)" in line


def test_of_several_trainings_the_dearest_counts_and_the_least_is_named():
    made = {"set": "banking77", "train_cores": 2, **MADE}
    several = [
        opening(train_minutes=65.0, **made),
        opening(train_minutes=25.0, seed=1, **made | {"processor": "two"}),
        opening(train_minutes=None, seed=2, **made),
    ]
    said = "65.0 minutes with seed 0 on one (the least: 25.0 with seed 1 on two), missed"
    assert said in cost_of(several)


def cost_of(lines):
    (line,) = [each for each in public_table.table(lines, OPENED).splitlines() if each.startswith("Both students of")]
    return line


def test_what_int8_changed_stands_beside_the_graph():
    measured = {
        "int8_shipped": True,
        "int8_kind": "rows",
        "int8_flips_of": 1_000,
        "int8_rows_flips": 3,
        "int8_rows_cost": 0.001,
    }
    fp32 = {"int8_shipped": False, "int8_flips_of": 1_000, "int8_rows_flips": 30, "int8_rows_cost": 0.03}
    table = public_table.table([opening(int8={"encoder": measured, "static": fp32}, **MADE)], OPENED)
    assert "| encoder int8, 25.0 (3 of 1,000 flip, costs 0.0010); static fp32, 25.0 |" in table
    del measured["int8_rows_cost"]  # nothing was held out
    assert "25.0 (3 of 1,000 flip);" in public_table.table([opening(int8={"encoder": measured}, **MADE)], OPENED)


def test_the_noise_floor_stands_beside_ece():
    measured = opening(rows={name: {**row, "ece_noise_floor": 0.009} for name, row in opening()["rows"].items()})
    assert "| CLINC150 ECE, in scope | 0.018 | 0.0200, by chance 0.0090 |" in public_table.table([measured], OPENED)
    assert "0.0200, by chance: not known |" in public_table.table([opening()], OPENED)


def test_an_opening_that_was_not_measured_is_counted_and_not_shown():
    begun = opening(opened_at="later", rows={})
    line = accuracy_of(public_table.table([opening(), begun], OPENED))
    assert "| 0.970 | 0.9000 |" in line
    assert line.endswith("| 1 | 5 |")


def test_the_page_says_who_else_looked_at_the_test_parts():
    page = public_table.looks(3)
    gold = (public_table.ROOT / "data" / "banking-assistant" / "gold.jsonl").read_text("utf-8").splitlines()
    assert f"all {len(gold)} queries of the demo's gold" in page
    assert "runs so far (`harder.jsonl`): 3." in page


def test_in_scope_accuracy_follows_from_both_figures():
    row = opening()["rows"]["encoder"]
    in_scope = public_table._in_scope(row, opening())
    assert in_scope * 900 + row["oos_recall"] * 100 == pytest.approx(row["accuracy_policy"] * 1000)


def test_what_was_not_run_says_so():
    assert "| BANKING77 accuracy | 0.942 | not run |" in public_table.table([], OPENED)


def harder(**changes):
    parts = {
        "clean": {"encoder": 0.94, "static": 0.93},
        "noisy": {"encoder": 0.935, "static": 0.91},
        "few": {"encoder": 0.85, "static": 0.8, "frozen": 0.83},
    }
    about = {
        "set": "banking77",
        "seed": 0,
        "noise": 0.15,
        "per_intent": 10,
        "budget_minutes": 60.0,
        "commit": "abc",
        "begun_at": "2026-11-26T",
        "processor": "one",
    }
    return about | parts | changes


def test_what_wrong_and_few_labels_cost_stands_beside_its_limit():
    table = public_table.harder_table([harder(noisy={"encoder": 0.1, "static": 0.1}), harder()])  # the last one counts
    assert "| encoder | 0.9400 | 0.9350 | 0.010 | 0.0050 | stands | 0.860 | 0.8500 | 0.0100 short | 0.8300 |" in table
    assert "| static | 0.9300 | 0.9100 | 0.015 | 0.0200 | 0.0050 short |  | 0.8000 |  | 0.8300 |" in table
    assert public_table.harder_table([]).splitlines()[-1] == "Not run yet (`scripts/harder.py`)."


def test_what_of_wrong_and_few_labels_was_not_measured_yet_says_so():
    begun = harder()
    del begun["clean"], begun["noisy"]
    later = begun | {"commit": "later", "few": begun["few"] | {"recipe": 1}}
    expected = public_table.harder_table([harder()])
    assert "| right, wrong, few: abc, 2026-11-26, one, recipe not known |" in expected
    expected = expected.replace(
        "right, wrong, few: abc, 2026-11-26, one, recipe not known |",
        "right, wrong: abc, 2026-11-26, one, recipe not known; few: later, 2026-11-26, one, recipe 1, older |",
    )
    assert public_table.harder_table([harder(), later]) == expected
    newest = begun | {"commit": "newest", "few": begun["few"] | {"recipe": public_table.VERSION}}
    assert "| few: newest, 2026-11-26, one |" in public_table.harder_table([newest])
    clean = {name: value for name, value in harder(commit="later").items() if name not in {"few", "noisy"}}
    assert "| encoder | 0.9400 | not run |" in public_table.harder_table([harder(), clean])
    assert public_table.harder_table([begun | {"commit": "older"}, begun]) == public_table.harder_table([begun])
    table = public_table.harder_table([begun])
    assert "| encoder | not run | not run | 0.010 | not run |  | 0.860 | 0.8500 | 0.0100 short | 0.8300 |" in table


@pytest.mark.parametrize(
    "changes",
    [
        {"set": "mine"},
        {"set": "clinc150"},
        {"test_sha256": "another"},
        {"noise": 0.5},
        {"per_intent": 3},
        {"budget_minutes": 5.0},
    ],
)
def test_lines_that_the_limits_are_not_for_take_nothings_place(changes):
    own, other = harder(), harder(few={"encoder": 0.1, "static": 0.1, "frozen": 0.1}, **changes)
    assert public_table.harder_table([own, other]) == public_table.harder_table([own])


def test_a_mean_is_over_students_that_were_made_alike_with_the_default_budget():
    made = {"recipe": 9, "export": 2, "assistant": "big", "budget_minutes": 60.0}
    first, second = opening(seed=0, opened_at="1", **made), opening(seed=1, opened_at="2", **made)
    others = [
        opening(seed=seed, opened_at=f"0{seed}", **(made | other))
        for seed, other in enumerate([{"recipe": 8}, {"export": 1}, {"assistant": "none"}], start=2)
    ]
    hasty = opening(seed=0, opened_at="3", **(made | {"budget_minutes": 5.0}))
    lines = [*others, first, second, hasty]
    assert openings.last_by_seed(lines, first["set"]) == [first, second]
    assert (
        openings.last_by_seed([first, opening(seed=5, opened_at="4", **(made | {"assistant": "none"}))], first["set"])[
            0
        ]["seed"]
        == 5
    )
