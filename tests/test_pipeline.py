"""The whole line on a tiny project: real training of tiny students, then what a second run does, and what is left out."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import fields, replace

import project
import pytest
from project import WORDS, distill, make_texts, write_lines, write_project
from tiny import ENCODER_RECIPE, STATIC_RECIPE, make_base_model

from distill import Router, labelled, pipeline
from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.benchmark.results import read_result
from distill.bundle import load_bundle
from distill.data import read_jsonl
from distill.errors import BundleError, DataError, SpecError
from distill.labelled import redacted_gold
from distill.selfcheck import verify_selfcheck
from distill.spec import load_spec
from distill.student import train
from distill.teacher.rounds import added_queries_path
from distill.types import BenchRow

pytestmark = pytest.mark.timeout(600)

CONTRACT = {
    "name", "accuracy", "accuracy_ci95", "accuracy_policy", "accuracy_policy_ci95", "coverage", "n_failed", "macro_f1",
    "micro_f1", "fidelity", "oos_auroc", "oos_recall", "ece", "p50_ms", "p95_ms", "p99_ms", "queries_per_s", "size_mb",
    "cold_start_ms", "peak_rss_mb", "usd_per_1k",
}  # fmt: skip


class Line:
    """One project that the whole line ran over once: where it lies and what it said. Not to be changed by tests."""

    def __init__(self, folder):
        import torch

        torch.set_num_threads(1)
        base = make_base_model(folder / "tiny-bert")
        more = f"base_model: ../{base.name}\nbench: {{machine_usd_per_hour: 0.5}}\n"
        self.spec_path = write_project(folder / "project", tuple(WORDS), n=16, n_gold=5, more=more)
        self.out = folder / "out"
        self.also_gold = next(line["text"] for _, line in read_jsonl(self.spec.gold_path))
        logs = self.spec.queries_path
        queries = [line for _, line in read_jsonl(logs)]
        self.n_queries = len(queries)
        write_lines(logs, [*queries, {"text": f"{self.also_gold.upper()}?!"}, {"text": "boom"}])

    @property
    def spec(self):
        return load_spec(self.spec_path)

    def run(self):
        return pipeline.run(self.spec, out=self.out)


@pytest.fixture(scope="module")
def patches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "encoder_recipe", lambda *_: replace(ENCODER_RECIPE, epochs=4))
        patch.setattr(train, "static_recipe", lambda *_: STATIC_RECIPE)
        patch.setattr(bench, "cold_start", lambda _: ColdStart(123.4, 56.7))
        yield


@pytest.fixture(scope="module")
def line(tmp_path_factory, patches):
    line = Line(tmp_path_factory.mktemp("line"))
    with pytest.MonkeyPatch.context() as patch:
        said = []
        for module in (pipeline, labelled):
            patch.setattr(module, "say", said.append)
        line.first, line.said_first = asyncio.run(_inside_a_loop(line)), list(said)
    return line


async def _inside_a_loop(line):
    """As a notebook calls it."""
    return line.run()


def copy_of(line, folder):
    """The line's project and its models where a test may change them."""
    shutil.copytree(line.spec.folder, folder / "project")
    shutil.copytree(line.out, folder / "out")
    shutil.copytree(line.spec.folder.parent / "tiny-bert", folder / "tiny-bert")
    return load_spec(folder / "project" / "router.yaml"), folder / "out"


def test_every_stage_had_something_to_do(line):
    assert [(stage.stage, stage.changed) for stage in line.first.stages] == [
        ("label", True),
        ("train", True),
        ("bench", True),
        ("report", True),
    ]
    assert line.first.changed
    n_gold = len(list(read_jsonl(line.spec.gold_path)))
    n_texts = line.n_queries + 2 + n_gold
    assert line.first.stages[0].detail.startswith(f"{n_texts - 1} of {n_texts} queries labelled")


def test_what_is_left_out_is_said_once(line):
    notes = [said for said in line.said_first if "left out" in said]
    assert notes == [
        f"train: left out because also gold: 1 query ({f'{line.also_gold.upper()}?!'!r})",
        "train: left out because without a label: 1 query",
    ]


def test_gold_and_failed_answers_are_not_trained_on(line):
    texts = {example.text for example in pipeline.examples(line.spec, show_notes=False)}
    gold = {query["text"] for _, query in read_jsonl(line.spec.gold_path)}
    assert len(texts) == line.n_queries
    assert not texts & {*gold, f"{line.also_gold.upper()}?!", "boom"}
    assert read_result(line.out / "bench.json").provenance["n_gold_in_training"] == 0


def test_a_tenth_of_each_label_is_held_out(line):
    labelled = pipeline.examples(line.spec, show_notes=False)
    held_out = [int(example.target.argmax()) for example in labelled if example.split == "held_out"]
    assert len(held_out) == pytest.approx(len(labelled) / 10, abs=len(line.spec.labels))
    assert set(held_out) == set(range(len(line.spec.labels)))


def test_figures_name_what_was_trained_on_as_the_bundles_do(line):
    facts = read_result(line.out / "bench.json").provenance
    bundles = [load_bundle(line.out / student) for student in line.spec.students]
    assert {bundle.manifest.data_sha256 for bundle in bundles} == {facts["training_sha256"]}


def test_a_folder_that_holds_the_project_is_not_left_out_of_git(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    for folder, is_left_out in ((project, False), (tmp_path, False), (project / "out", True), (tmp_path / "out", True)):
        pipeline._keep_out_of_git(folder, project)
        assert (folder / ".gitignore").exists() == is_left_out


def test_a_folder_that_holds_anything_else_is_not_left_out_of_git(tmp_path):
    service, empty = tmp_path / "service", tmp_path / "empty"
    for folder in (service, empty):
        folder.mkdir()
    (service / "app.py").write_text("")
    for folder, is_left_out in ((service, False), (empty, True)):
        pipeline._keep_out_of_git(folder, tmp_path / "project")
        assert (folder / ".gitignore").exists() == is_left_out


def test_queries_of_a_certain_label_share_a_row(line):
    rows = {}
    for example in pipeline.examples(line.spec, show_notes=False):
        assert example.target is rows.setdefault(int(example.target.argmax()), example.target)
    assert len(rows) == len(line.spec.labels)


@pytest.mark.parametrize("student", ["encoder", "static"])
def test_bundles_are_whole_and_pass_their_self_check(line, student):
    bundle = load_bundle(line.out / student)
    assert bundle.manifest.labels == (*WORDS, "oos")
    assert bundle.manifest.teacher == "callable:project:answer"
    router = Router.load(bundle.path)
    assert verify_selfcheck(router).passed
    assert router.route("please pay the bill now").top_intent in WORDS


def test_bench_json_has_the_keys_of_the_contract(line):
    value = json.loads((line.out / "bench.json").read_text("utf-8"))
    assert set(value) >= {"format", "task", "n_gold", "n_in_scope", "n_oos", "environment", "rows"}
    assert (value["format"], value["task"]) == (1, "single")
    assert (value["n_gold"], value["n_in_scope"], value["n_oos"]) == (20, 15, 5)
    assert [row["name"] for row in value["rows"]] == ["teacher", "encoder", "static", "tfidf", "majority"]
    for row in value["rows"]:
        assert set(row) >= CONTRACT
    assert {field.name for field in fields(BenchRow)} - {"notes"} >= CONTRACT


def test_figures_of_the_line_are_what_the_teacher_makes_them(line):
    rows = {row.name: row for row in line.first.result.rows}
    assert rows["teacher"].accuracy == rows["teacher"].accuracy_policy == 1.0
    assert rows["teacher"].fidelity is None
    assert rows["majority"].accuracy_policy == 0.25
    for name in ("encoder", "static"):
        assert rows[name].accuracy_policy == pytest.approx(rows[name].fidelity)
        assert rows[name].n_failed == 0
        assert rows[name].usd_per_1k > 0
        assert 0 < rows[name].p50_ms <= rows[name].p95_ms <= rows[name].p99_ms
    assert rows["teacher"].usd_per_1k is None


def test_every_gate_of_every_student_has_a_verdict(line):
    assert {(gate.row, gate.gate, gate.passed) for gate in line.first.result.gates} == {
        (student, gate, True) for student in ("encoder", "static") for gate in ("accuracy_drop", "p95_ms")
    }
    assert pipeline.broken_gates(line.first.result) == []


def test_report_is_written(line):
    assert line.first.report == line.out / "report.html"
    page = line.first.report.read_text("utf-8")
    assert (line.out / ".gitignore").read_text("utf-8") == "*\n"
    for student in ("encoder", "static"):
        assert f"| {student} | " in (line.out / student / "README.md").read_text("utf-8"), (
            "the card has the figures too"
        )
    assert page.startswith("<!doctype html>")
    assert "encoder" in page


def test_labelling_again_asks_only_what_failed(line):
    project.ASKED.clear()
    assert line.run().stages[0].changed
    assert project.ASKED == ["boom"]


def test_a_second_run_changes_nothing_and_says_so(line, tmp_path):
    queries = [query for _, query in read_jsonl(line.spec.queries_path) if query["text"] != "boom"]
    kept = line.spec.queries_path.read_bytes()
    write_lines(line.spec.queries_path, queries)
    try:
        before = {path: path.stat().st_mtime_ns for path in line.out.rglob("*") if path.is_file()}
        project.ASKED.clear()
        done = distill("run", line.spec_path, "--out", line.out)
        assert done.exit_code == 0, done.output
        assert done.stderr.splitlines()[-1] == "nothing had to be done: every stage is up to date"
        for stage in ("label", "train", "bench", "report"):
            assert f"{stage}: nothing to do (" in done.stderr
        assert project.ASKED == []
        assert {path: path.stat().st_mtime_ns for path in line.out.rglob("*") if path.is_file()} == before
    finally:
        line.spec.queries_path.write_bytes(kept)


def test_a_plan_says_what_a_run_would_do(line, tmp_path):
    spec, out = copy_of(line, tmp_path)
    plan = pipeline.plan(spec, out=out)
    assert {*plan.train.values(), plan.bench, plan.report} == {"if the labels change"}, "boom is asked again"
    write_lines(spec.queries_path, [query for _, query in read_jsonl(spec.queries_path) if query["text"] != "boom"])
    assert pipeline.plan(spec, out=out).is_done
    assert not pipeline.run(spec, out=out, show_progress=False).changed
    longer = spec.path.read_text("utf-8") + "seed: 1\n"
    spec.path.write_text(longer, encoding="utf-8")
    plan = pipeline.plan(load_spec(spec.path), out=out)
    assert {*plan.train.values(), plan.bench, plan.report} == {"due"}


def test_run_writes_a_report_that_is_older_than_its_figures_anew(line, tmp_path):
    spec, out = copy_of(line, tmp_path)
    write_lines(spec.queries_path, [query for _, query in read_jsonl(spec.queries_path) if query["text"] != "boom"])
    assert not pipeline.run(spec, out=out, show_progress=False).changed
    figures, page = out / "bench.json", out / "report.html"
    os.utime(page, ns=(0, figures.stat().st_mtime_ns - 1))
    stages = {stage.stage: stage.changed for stage in pipeline.run(spec, out=out, show_progress=False).stages}
    assert not stages["bench"]
    assert stages["report"]
    assert page.stat().st_mtime_ns >= figures.stat().st_mtime_ns


def test_what_failed_and_is_asked_again_counts_as_spent_and_measures_nothing(line, tmp_path, monkeypatch):
    spec, out = copy_of(line, tmp_path)
    monkeypatch.setattr(bench, "run_bench", lambda *_, **__: pytest.fail("measured again"))
    stages = {stage.stage: stage.changed for stage in pipeline.run(spec, out=out, show_progress=False).stages}
    assert stages == {"label": True, "train": False, "bench": True, "report": True}, "boom is asked again"


def test_bench_measures_again_when_a_setting_changes(line):
    kept = (line.out / "bench.json").read_bytes()
    spec = load_spec(line.spec_path)
    changed = spec.model_copy(update={"gates": spec.gates.model_copy(update={"accuracy_drop": 0.0})})
    changed._path = spec.path
    try:
        outcome = pipeline.bench(changed, out=line.out, show_progress=False)
        assert outcome.changed
        assert {gate.limit for gate in outcome.result.gates if gate.gate == "accuracy_drop"} == {0.0}
        assert not pipeline.bench(changed, out=line.out, show_progress=False).changed
        assert pipeline.bench(changed, out=line.out, force=True, show_progress=False).changed
    finally:
        (line.out / "bench.json").write_bytes(kept)


def test_bench_measures_again_where_its_file_is_torn(line):
    path = line.out / "bench.json"
    kept = path.read_bytes()
    path.write_bytes(kept[:100])
    try:
        assert pipeline.bench(line.spec, out=line.out, show_progress=False).changed
        assert read_result(path).n_gold == 20
    finally:
        path.write_bytes(kept)


def test_held_out_queries_stand_in_for_gold(line, tmp_path):
    spec, out = copy_of(line, tmp_path)
    queries = [query for _, query in read_jsonl(spec.queries_path)]
    write_lines(spec.queries_path, [query for query in queries if query["text"] != f"{line.also_gold.upper()}?!"])
    text = spec.path.read_text("utf-8").replace("gold: gold.jsonl\n", "")
    spec.path.write_text(text, encoding="utf-8")
    result = pipeline.bench(load_spec(spec.path), out=out, show_progress=False).result
    assert result.n_gold == 0
    assert "without human labels" in result.provenance["measured_on"]
    rows = {row.name: row for row in result.rows}
    assert rows["encoder"].accuracy is rows["encoder"].accuracy_policy is None
    assert 0 <= rows["encoder"].fidelity <= 1
    assert {gate.passed for gate in result.gates if gate.gate == "accuracy_drop"} == {None}


def test_bench_names_the_bundle_that_is_missing(line, tmp_path):
    with pytest.raises(BundleError, match=r"static: no such folder; `distill train` makes bundles"):
        pipeline.bench(line.spec, out=tmp_path, show_progress=False)


def test_examples_need_an_answer(tmp_path):
    spec = load_spec(write_project(tmp_path))
    with pytest.raises(DataError, match=r"ledger\.jsonl: no query has a label; `distill label .*router\.yaml`"):
        pipeline.examples(spec)


def test_examples_need_a_query(tmp_path):
    spec = load_spec(write_project(tmp_path))
    spec.queries_path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"logs\.jsonl: holds no query"):
        pipeline.examples(spec)


def test_an_answer_without_a_score_above_zero_is_not_trained_on(tmp_path):
    spec = load_spec(write_project(tmp_path, teacher="{callable: 'project:undecided_answer'}"))
    with spec.queries_path.open("a", encoding="utf-8") as stream:
        stream.write('{"text": "zero"}\n')
    pipeline.label(spec, show_progress=False)
    labelled = pipeline.examples(spec)
    assert "zero" not in {example.text for example in labelled}
    assert all(example.target.sum() == pytest.approx(1.0) for example in labelled)


def test_many_leaked_queries_are_counted_and_some_named(tmp_path, capsys):
    spec = load_spec(write_project(tmp_path, n_gold=2))
    with spec.queries_path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": query["text"].title()}) + "\n" for _, query in read_jsonl(spec.gold_path))
    pipeline.label(spec, show_progress=False)
    labelled = pipeline.examples(spec)
    assert len(labelled) == len(make_texts(project.SHOP, 12))
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("train: left out because also gold: 8 queries (")
    assert note.endswith(" and 3 more)")


def test_synth_does_not_write_over_the_users_own_queries(tmp_path):
    spec = load_spec(write_project(tmp_path))
    with pytest.raises(SpecError, match=r"`queries: logs\.jsonl` names your own queries"):
        pipeline.synth(spec)


@pytest.mark.parametrize("file", ["logs.jsonl", "gold.jsonl"])
def test_plan_counts_what_the_ledger_lacks(tmp_path, file):
    spec = load_spec(write_project(tmp_path, n=10, n_gold=3))
    assert pipeline.plan(spec).label.n_missing == 4 * 13
    pipeline.label(spec, show_progress=False)
    done = pipeline.plan(spec, out=tmp_path / "out")
    assert (done.label.n_missing, done.estimated_usd, done.synth, done.out) == (0, 0.0, None, tmp_path / "out")
    new = {"text": "where is it", "intent": "track_order"}
    with (tmp_path / file).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(new) + "\n")
    assert pipeline.plan(spec).label.n_missing == 1


def test_plan_gives_a_price_where_one_is_known(tmp_path):
    price = "{input_per_mtok: 1, output_per_mtok: 2, source: the maker, date: 2026-01-31}"
    teacher = f"{{model: some-model, price: {price}}}"
    planned = pipeline.plan(load_spec(write_project(tmp_path / "priced", teacher=teacher)))
    assert planned.label.price.source == "the maker"
    assert 0 < planned.estimated_usd < 1
    unknown = pipeline.plan(load_spec(write_project(tmp_path / "unknown", teacher="{model: a-model-nobody-sells}")))
    assert unknown.estimated_usd is None


def test_bench_refuses_students_that_were_trained_on_what_is_gold_now(line, tmp_path):
    spec, out = copy_of(line, tmp_path)
    trained_on = pipeline.examples(spec, show_notes=False)[0]
    gold = [query for _, query in read_jsonl(spec.gold_path)]
    write_lines(spec.gold_path, [*gold, {"text": trained_on.text, "intent": gold[0]["intent"]}])
    with pytest.raises(DataError, match="was trained before the labels, the intents or gold changed"):
        pipeline.bench(spec, out=out, show_progress=False)


def test_gold_that_was_never_asked_gives_no_teacher_row_and_no_verdict(line, tmp_path, capsys):
    spec, out = copy_of(line, tmp_path)
    gold = [query for _, query in read_jsonl(spec.gold_path)]
    write_lines(spec.gold_path, [*gold, {"text": "never seen words", "intent": "oos"}])
    result = pipeline.bench(spec, out=out, show_progress=False).result
    assert "teacher" not in [row.name for row in result.rows]
    assert [gate.passed for gate in result.gates if gate.gate == "accuracy_drop"] == [None, None]
    assert "1 of " in capsys.readouterr().err


def test_a_redacted_word_is_nowhere_in_training_and_gold(tmp_path):
    path = write_project(tmp_path, teacher="{callable: 'project:answer', redact: 'project:without_please'}")
    spec = load_spec(path)
    pipeline.label(spec, show_progress=False)
    texts = [example.text for example in pipeline.examples(spec)] + [query.text for query in redacted_gold(spec)]
    assert "please" in spec.queries_path.read_text(encoding="utf-8")
    assert not [text for text in texts if "please" in text]
    assert "please" not in spec.ledger_path.read_text(encoding="utf-8")


def test_an_added_query_that_is_redacted_to_an_own_one_moves_no_query(tmp_path):
    spec = load_spec(write_project(tmp_path, teacher="{callable: 'project:answer', redact: 'project:without_please'}"))
    pipeline.label(spec, show_progress=False)
    splits = {example.text: example.split for example in pipeline.examples(spec)}
    held_out = [text for text, split in splits.items() if split == "held_out"]
    added_queries_path(spec).parent.mkdir()
    write_lines(added_queries_path(spec), [{"text": f"{text} please"} for text in held_out])
    assert {example.text: example.split for example in pipeline.examples(spec)} == splits


def test_an_added_query_whose_twin_in_another_case_is_held_out_is_not_learnt(tmp_path):
    spec = load_spec(write_project(tmp_path))
    pipeline.label(spec, show_progress=False)
    splits = {example.text: example.split for example in pipeline.examples(spec)}
    added_queries_path(spec).parent.mkdir()
    write_lines(added_queries_path(spec), [{"text": f"{text.upper()}!"} for text in splits])
    pipeline.label(spec, show_progress=False)
    found = {example.text: example.split for example in pipeline.examples(spec, show_notes=False)}
    for text, split in splits.items():
        assert found[text] == split
        assert found.get(f"{text.upper()}!") == (None if split == "held_out" else "train")


def test_a_run_checks_gold_before_anything_is_asked(tmp_path):
    spec = load_spec(write_project(tmp_path))
    spec.gold_path.unlink()
    before = len(project.ASKED)
    with pytest.raises(DataError, match="cannot be read"):
        pipeline.run(spec, out=tmp_path / "out", show_progress=False)
    assert len(project.ASKED) == before


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("callable: 'nowhere:answer'", "nowhere:answer cannot be imported"),
        ("model: a-model-nobody-sells", "no price is known for 'a-model-nobody-sells'"),
    ],
)
def test_a_run_that_could_not_label_has_no_query_written(tmp_path, monkeypatch, teacher, message):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setattr(pipeline, "synth", lambda *_, **__: pytest.fail("queries were paid for"))
    path = write_project(tmp_path, teacher=f"{{{teacher}, max_usd: 1}}")
    text = path.read_text("utf-8").replace("queries: logs.jsonl\n", "synth: {model: gpt-5-mini}\n")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        pipeline.run(load_spec(path), out=tmp_path / "out", show_progress=False)


def test_plan_of_another_teacher_counts_what_it_would_write_not_what_another_wrote(tmp_path):
    path = write_project(tmp_path, teacher="{model: any, max_usd: null}")
    text = path.read_text("utf-8").replace("queries: logs.jsonl\n", "synth: {per_intent: 5, out_of_scope: 10}\n")
    path.write_text(text, encoding="utf-8")
    (tmp_path / "logs.jsonl").rename(tmp_path / "queries.jsonl")
    lines = [query | {"synth": "of another model"} for _, query in read_jsonl(tmp_path / "queries.jsonl")]
    write_lines(tmp_path / "queries.jsonl", lines)
    spec = load_spec(path)
    planned = pipeline.plan(spec)
    n_gold = len(list(read_jsonl(spec.gold_path)))
    n_written = 5 * len(spec.intents) + 10
    assert planned.synth.n_missing == n_written
    assert planned.label.n_missing == planned.label.n_texts == n_written + n_gold
