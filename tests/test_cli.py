"""The command line: what it prints where, with which exit code, and one clear line for whatever a user gets wrong."""

from __future__ import annotations

import errno
import importlib.abc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import project
import pytest
from bundles import build_bundle
from project import SHOP, TESTS, distill, fails, write_lines, write_project
from typer.testing import CliRunner

from distill import __version__, pipeline
from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.benchmark.results import read_result, result_as_json
from distill.bundle import load_bundle, seal
from distill.cli import app
from distill.data import read_jsonl
from distill.errors import DistillError, StorageError, TrainingError
from distill.spec import load_spec
from distill.student import train
from distill.types import Task

MACHINE = {"processor": "Some CPU", "cores": 2, "python": "3.11", "versions": {}, "threads": 1, "busy_share": 0.0,
           "loaded": False, "measured_at": "2026-02-01T00:00:00+00:00"}  # fmt: skip
PATIENCE_S = 240
pytestmark = pytest.mark.timeout(300)  # new processes are slow to start on a busy machine

UNREACHABLE = "{model: m, base_url: 'http://127.0.0.1:1/v1', max_retries: 0}"
PAID = "{model: some-model, api_key_env: A_KEY_THAT_NOBODY_SETS}"
STAGES = ("synth", "label", "train", "bench", "report", "run")
ON_LINUX = pytest.mark.skipif(sys.platform == "win32", reason="signals and permissions of POSIX")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Commands write under the working directory where no --out is given; imports of a project folder end with the test."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def train_nothing(data, out, *, students, **_):
    """Takes the place of training: sealed bundles that know the shop's words, made anew when the data is another."""
    for student in students:
        if (out / student).exists() and load_bundle(out / student).manifest.data_sha256 != data.data_sha256:
            shutil.rmtree(out / student)
        if not (out / student).exists():
            build_bundle(out / student, student=student, data_sha256=data.data_sha256)
    return {student: load_bundle(out / student) for student in students}


def made_from_other_data(data, out, *, students, **_):
    """Takes the place of asking which students that would train."""
    return tuple(
        student
        for student in students
        if not (out / student).exists() or load_bundle(out / student).manifest.data_sha256 != data.data_sha256
    )


@pytest.fixture
def quick(monkeypatch):
    """No training, no look at the machine, no new processes."""
    monkeypatch.setattr(train, "train_students", train_nothing)
    monkeypatch.setattr(train, "untrained_students", made_from_other_data)
    monkeypatch.setattr(bench, "cold_start", lambda _: ColdStart(123.4, 56.7))
    monkeypatch.setattr(bench, "environment", lambda: dict(MACHINE))
    monkeypatch.setattr(bench.LoadWatch, "busy_share", lambda _: 0.0)


@pytest.fixture
def spec_path(tmp_path):
    return write_project(tmp_path / "project")


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A project over which ``run`` went, and its --out. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_students", train_nothing)
        patch.setattr(bench, "cold_start", lambda _: ColdStart(123.4, 56.7))
        patch.setattr(bench, "environment", lambda: dict(MACHINE))
        patch.setattr(bench.LoadWatch, "busy_share", lambda _: 0.0)
        path = write_project(folder / "project")
        pipeline.run(load_spec(path), out=folder / "out", show_progress=False)
    return path, folder / "out"


@pytest.fixture
def finished(tmp_path, done_once, quick):
    """A copy of it that a test may change."""
    for folder in (done_once[0].parent, done_once[1]):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / "project" / "router.yaml", tmp_path / "out"


def program(*arguments, **options):
    """A new process that runs the command line."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        **options.pop("env", {}),
    }
    command = [sys.executable, "-c", "from distill.cli import main; main()", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, encoding="utf-8", **pipes | options)


# --- what is printed where -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_version_is_the_packages():
    shown = distill("--help")
    assert shown.exit_code == 0
    for command in (*STAGES, "route", "inspect"):
        assert command in shown.stdout
        assert distill(command, "--help").exit_code == 0
    assert distill("--version").stdout == f"{__version__}\n"


def test_run_prints_the_table_on_stdout_and_progress_on_stderr(spec_path, tmp_path, quick):
    done = distill("run", spec_path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for row in ("teacher", "encoder", "static", "tfidf", "majority"):
        assert re.search(rf"^ *{row} +\d", done.stdout, re.MULTILINE)
    assert "kept" in done.stdout
    assert done.stdout.endswith(f"\nreport: {tmp_path / 'out' / 'report.html'}\n")
    stages = [line.partition(":")[0] for line in done.stderr.splitlines() if " left" not in line]  # no progress
    assert stages == ["label", "train", "bench", "report"]


def test_a_second_run_says_that_nothing_had_to_be_done(finished):
    done = distill("run", finished[0], "--out", finished[1])
    assert done.exit_code == 0
    assert done.stderr.endswith("nothing had to be done: every stage is up to date\n")


def test_models_go_under_the_working_directory(spec_path, quick):
    assert distill("run", spec_path, "--quiet").exit_code == 0
    assert sorted(path.name for path in Path("models/tiny").iterdir()) == [
        ".gitignore",
        "bench.json",
        "encoder",
        "report.html",
        "report.md",
        "static",
    ]


@pytest.mark.parametrize(
    "command", ["label", "train", "bench", "report", "run", "run --dry-run", "inspect", "inspect --verify"]
)
def test_json_is_one_document_and_nothing_else_on_stdout(finished, command):
    spec_path, out = finished
    name, *options = command.split()
    if name == "inspect":
        arguments = [name, out / "static", *options]
    else:
        arguments = [name, spec_path, *options, *([] if name == "label" else ["--out", out])]
    done = distill(*arguments, "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    assert value
    expected = {
        "label": lambda: (value["n_texts"], value["n_asked"], value["n_failed"]) == (64, 0, 0),
        "train": lambda: {*value} == {"static", "encoder"} and value["static"]["path"] == str(out / "static"),
        "bench": lambda: value == json.loads((out / "bench.json").read_text("utf-8")),
        "report": lambda: value == {"report": str(out / "report.html")},
        "run": lambda: (
            [stage["changed"] for stage in value["stages"]] == [False] * 4 and value["result"]["format"] == 1
        ),
        "run --dry-run": lambda: value["label"]["n_missing"] == 0 and value["estimated_usd"] == 0,
        "inspect": lambda: value["labels"] == [*SHOP, "oos"] and "selfcheck" not in value,
        "inspect --verify": lambda: value["selfcheck"]["passed"] is True,
    }
    assert expected[command](), value


def test_synth_json(tmp_path, monkeypatch):
    """From a recording: the model is not asked, so no server is needed."""
    spec_path = write_project(
        tmp_path, teacher=UNREACHABLE, more="synth: {per_intent: 2, out_of_scope: 0, per_request: 2}\n"
    )
    spec_path.write_text(spec_path.read_text("utf-8").replace("queries: logs.jsonl\n", ""), encoding="utf-8")
    from distill.teacher.writer import Writer

    made_by = Writer(load_spec(spec_path)).run_sha256
    written = [{"text": f"{name} {i}", "intended_intent": name, "synth": made_by} for name in SHOP for i in range(2)]
    write_lines(tmp_path / "queries.jsonl", written)

    def none_there(*_, **__):
        raise TrainingError("no weights")

    monkeypatch.setattr("distill.student.embedder.embedder_of", none_there)
    done = distill("synth", spec_path, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["got"] == dict.fromkeys(SHOP, 2)
    assert [line for line in done.stderr.splitlines() if "no weights" in line] == done.stderr.splitlines()[:1]
    plain = distill("synth", spec_path).stdout.splitlines()
    assert plain[0].split()[:3] == ["got", "same", "near"]
    assert plain[1].split() == ["track_order", "2/2", "0", "0", "0", "0", "0", "0.75"]
    assert plain[-1].startswith("0 requests in this run; USD spent so far: ")


def test_label_says_what_it_did(spec_path):
    first, second = distill("label", spec_path), distill("label", spec_path)
    assert first.stdout.startswith("64 queries, 0 answered before, 0 failed\n64 requests in this run; USD spent")
    assert second.stdout.startswith("64 queries, 64 answered before, 0 failed\n0 requests in this run; USD spent")


def test_dry_run_prints_the_stages_and_asks_nothing(spec_path):
    project.ASKED.clear()
    done = distill("run", spec_path, "--dry-run")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "synth",
        "label",
        "train",
        "bench",
        "report",
        "USD",
    ]
    assert "64 of 64 queries to label, by callable:project:answer" in done.stdout
    assert done.stdout.endswith("Nothing was asked.\n")
    assert project.ASKED == []
    assert not (spec_path.parent / "ledger.jsonl").exists()
    assert not Path("models").exists()


def test_dry_run_needs_no_key_and_names_the_prices_source(tmp_path):
    price = "{input_per_mtok: 1, output_per_mtok: 2, source: the maker, date: 2026-01-31}"
    spec_path = write_project(tmp_path, teacher=PAID.replace("}", f", price: {price}, max_usd: 3.5}}"))
    last = distill("run", spec_path, "--dry-run").stdout.splitlines()[-1]
    assert re.fullmatch(
        r"USD about 0\.\d+, up to 0\.\d+; the limit of --max-usd or teacher\.max_usd leaves 3\.5000; price: the maker, 2026-01-31\. Nothing was asked\.",
        last,
    )


def test_dry_run_says_that_the_limit_is_below_the_estimate(tmp_path):
    price = "{input_per_mtok: 1000000, output_per_mtok: 2, source: the maker, date: 2026-01-31}"
    spec_path = write_project(tmp_path, teacher=PAID.replace("}", f", price: {price}, max_usd: 3.5}}"))
    last = distill("run", spec_path, "--dry-run").stdout.splitlines()[-1]
    assert "teacher.max_usd leaves 3.5000: it would stop there; price" in last


def test_dry_run_says_that_every_stage_is_up_to_date(finished):
    spec_path, out = finished
    before = {path: path.stat().st_mtime_ns for path in [*out.rglob("*"), *spec_path.parent.rglob("*")]}
    done = distill("run", spec_path, "--out", out, "--dry-run")
    assert done.stdout.splitlines()[1:] == [
        "label   0 of 64 queries to label, by callable:project:answer",
        f"train   static, encoder into {out}: up to date",
        f"bench   {out / 'bench.json'}: up to date",
        f"report  {out / 'report.html'}: up to date",
        "Nothing is to be done: every stage is up to date. Nothing was asked.",
    ]
    assert done.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shown = json.loads(distill("run", spec_path, "--out", out, "--dry-run", "--json").stdout)
    assert (shown["train"], shown["bench"], shown["report"]) == (
        {"static": "up to date", "encoder": "up to date"},
        "up to date",
        "up to date",
    )


NEW_QUERY = '{"text": "where is it", "intent": "track_order"}\n'
IF_LABELS_CHANGE = "if the labels change"


def _adds(name):
    def add(folder, out):
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write(NEW_QUERY)

    return add


def _sets_another_gate(folder, out):
    path = folder / "router.yaml"
    path.write_text(path.read_text("utf-8").replace("p95_ms: 60000", "p95_ms: 50000"), encoding="utf-8")


CHANGES = {
    "a query": (_adds("logs.jsonl"), [IF_LABELS_CHANGE] * 4),
    "a gold query": (_adds("gold.jsonl"), ["up to date", "up to date", IF_LABELS_CHANGE, IF_LABELS_CHANGE]),
    "a gate": (_sets_another_gate, ["up to date", "up to date", "due", "due"]),
    "a bundle": (lambda _, out: shutil.rmtree(out / "static"), ["due", "up to date", "due", "due"]),
    "the figures": (lambda _, out: (out / "bench.json").unlink(), ["up to date", "up to date", "due", "due"]),
    "a report": (lambda _, out: (out / "report.md").unlink(), ["up to date", "up to date", "up to date", "due"]),
    "the ledger": (lambda folder, _: (folder / "ledger.jsonl").unlink(), ["due", "due", "due", "due"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_dry_run_says_which_stages_have_something_to_do(finished, change):
    spec_path, out = finished
    make_change, due = CHANGES[change]
    make_change(spec_path.parent, out)
    plan = pipeline.plan(load_spec(spec_path), out=out)
    assert [plan.train["static"], plan.train["encoder"], plan.bench, plan.report] == due
    assert not plan.is_done
    assert (IF_LABELS_CHANGE in distill("run", spec_path, "--out", out, "--dry-run").stdout) == (
        IF_LABELS_CHANGE in due
    )
    run = pipeline.run(load_spec(spec_path), out=out, show_progress=False)
    changed = {stage.stage: stage.changed for stage in run.stages}
    if due[0] != "due":  # trained anew from the same labels, a student may be the same as before
        assert [changed["train"], changed["bench"], changed["report"]] == [one != "up to date" for one in due[1:]]


@pytest.mark.parametrize("command", ["bench", "run"])
def test_check_names_the_gate_that_is_broken(finished, command):
    spec_path, out = finished
    assert distill(command, spec_path, "--out", out, "--check").exit_code == 0
    text = spec_path.read_text("utf-8").replace("p95_ms: 60000", "p95_ms: 0.000001")
    spec_path.write_text(text, encoding="utf-8")
    unchecked = distill(command, spec_path, "--out", out, "--quiet")
    assert (unchecked.exit_code, unchecked.stderr) == (0, "")
    checked = distill(command, spec_path, "--out", out, "--check", "--quiet", "--json")
    assert checked.exit_code == 1
    shown = json.loads(checked.stdout)
    gates = (shown if command == "bench" else shown["result"])["gates"]
    assert [gate["passed"] for gate in gates if gate["gate"] == "p95_ms"] == [False, False]
    (line,) = checked.stderr.splitlines()
    assert line.startswith("distill: encoder breaks p95_ms: p95 ")
    assert "limit 1e-06 ms; static breaks p95_ms" in line


def test_a_dry_run_has_nothing_to_check(finished):
    done = distill("run", finished[0], "--dry-run", "--check")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "goes without --dry-run" in " ".join(done.stderr.split())


def test_bench_check_says_which_gate_could_not_be_judged(finished):
    spec_path, out = finished
    with (spec_path.parent / "gold.jsonl").open("a", encoding="utf-8") as gold:
        gold.write('{"text": "never asked", "intent": "oos"}\n')
    checked = distill("bench", spec_path, "--out", out, "--check", "--quiet")
    assert checked.exit_code == 0
    judged = [line for line in checked.stderr.splitlines() if "cannot be judged" in line]
    assert [line.split(" cannot")[0] for line in judged] == [
        "bench: encoder accuracy_drop",
        "bench: static accuracy_drop",
    ]


def count_tokens(ledger: Path) -> list[dict]:
    """As if the server had counted them."""
    lines = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    write_lines(ledger, [{**line, "prompt_tokens": 1000, "completion_tokens": 10} for line in lines])
    return lines


def test_the_tokens_are_priced_as_another_model(finished):
    spec_path, out = finished
    lines = count_tokens(spec_path.parent / "ledger.jsonl")
    done = distill("bench", spec_path, "--out", out, "--price-as", "gpt-5-mini", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert "at the price of gpt-5-mini (genai-prices " in text
    assert f"Spent on distilling: unknown for {len(lines)} answers, $" in text
    assert "Paid back, the student's machine not counted: encoder after " in text


def test_a_model_without_a_list_price_is_refused_before_anything_is_measured(finished):
    before = (finished[1] / "bench.json").read_bytes()
    done = distill("bench", finished[0], "--out", finished[1], "--price-as", "gpt-5-minni", "--quiet")
    assert done.exit_code == 1
    assert (
        "--price-as: no list price is known for 'gpt-5-minni'; similar names that have one: gpt-5-mini" in done.stderr
    )
    assert (finished[1] / "bench.json").read_bytes() == before


def test_label_gold_says_how_right_the_teacher_is(finished):
    done = distill("label", finished[0], "--gold", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    n_gold = len(list(read_jsonl(finished[0].parent / "gold.jsonl")))
    assert f"{n_gold} queries, {n_gold} answered before, 0 failed" in text
    assert "teacher" in text
    assert "static" not in text
    value = json.loads(distill("label", finished[0], "--gold", "--json").stdout)
    assert [row["name"] for row in value["gold"]["rows"]] == ["teacher"]
    done = distill("label", finished[0], "--gold", "--import", "answers.jsonl")
    assert done.exit_code == 2


def test_what_was_spent_since_is_said_without_measuring_again(finished, monkeypatch):
    spec_path, out = finished
    ledger = spec_path.parent / "ledger.jsonl"
    assert distill("bench", spec_path, "--out", out, "--quiet").exit_code == 0
    monkeypatch.setattr("distill.benchmark.bench.run_bench", lambda *_, **__: pytest.fail("measured again"))

    def n_answers():
        return sum(each["n_answers"] for each in read_result(out / "bench.json").cost["spent"]["by_stage"])

    n_before = n_answers()
    lines = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    write_lines(ledger, [*lines, lines[-1] | {"key": "0" * 64, "text": "an answer that was thrown away"}])
    assert json.loads(distill("run", spec_path, "--out", out, "--dry-run", "--json").stdout)["bench"] == "due"
    assert distill("bench", spec_path, "--out", out, "--quiet").exit_code == 0
    assert n_answers() == n_before + 1
    assert json.loads(distill("run", spec_path, "--out", out, "--dry-run", "--json").stdout)["bench"] != "due"


def test_another_price_measures_nothing_again(finished, monkeypatch):
    spec_path, out = finished
    count_tokens(spec_path.parent / "ledger.jsonl")
    assert distill("bench", spec_path, "--out", out, "--quiet").exit_code == 0
    before = read_result(out / "bench.json")
    monkeypatch.setattr("distill.benchmark.bench.run_bench", lambda *_, **__: pytest.fail("measured again"))
    assert distill("bench", spec_path, "--out", out, "--price-as", "gpt-5-mini", "--quiet").exit_code == 0
    after = read_result(out / "bench.json")
    assert after.rows == before.rows
    assert after.cost["priced_as"] != before.cost["priced_as"]


def test_report_leaves_texts_out_where_asked(finished):
    spec_path, out = finished
    result = read_result(out / "bench.json")
    rows = tuple(
        replace(row, notes={"disagreements": [{"text": "a secret", "gold": None, "teacher": None, "teacher_score": 1,
                                               "student": "refund", "student_score": 1}]})
        if row.name == "static" else row
        for row in result.rows
    )  # fmt: skip
    (out / "bench.json").write_text(json.dumps(result_as_json(replace(result, rows=rows))), encoding="utf-8")
    assert distill("report", spec_path, "--out", out).stdout == f"{out / 'report.html'}\n"
    assert "a secret" in (out / "report.html").read_text("utf-8")
    assert distill("report", spec_path, "--out", out, "--no-text").exit_code == 0
    assert "a secret" not in (out / "report.html").read_text("utf-8")


def test_train_one_student(spec_path, tmp_path, quick):
    assert distill("label", spec_path).exit_code == 0
    done = distill("train", spec_path, "--student", "static", "--out", tmp_path / "out")
    (line,) = done.stdout.splitlines()
    assert re.fullmatch(r"static +\S+static +\d\.\d MB +[0-9a-f]{16}", line)
    assert not (tmp_path / "out" / "encoder").exists()


# --- route and inspect -----------------------------------------------------------------------------------------------


def test_route_from_arguments(tiny_bundle):
    done = distill("route", tiny_bundle.path, "where is my parcel ?", "a joke please", "")
    assert done.exit_code == 0
    assert [re.sub(r"\s+", " ", line) for line in done.stdout.splitlines()] == [
        "track_order 0.769 accepted where is my parcel ?",
        "- (track_order) 0.160 out_of_scope a joke please",
        "- 0.000 empty_input",
    ]
    assert done.stderr == ""


def test_no_text_of_a_bundle_steers_the_terminal(tmp_path):
    hostile = ("track\x1b[2J\nfake line", "cancel\x9b2J", "refund", "oos")
    made = build_bundle(tmp_path / "static", labels=hostile)
    texts = {"teacher": "t\x1b[2J", "name": "n\x07", "versions": {"v\x1b": "1\x1b"}, "figures": {"f\x1b": "x\x1b"}}
    bundle = seal(Path(made.path), replace(made.manifest, **texts))
    plainer = seal(Path(shutil.copytree(made.path, tmp_path / "other")), made.manifest)
    for command in (
        ("route", bundle.path, "where is it"),
        ("inspect", bundle.path),
        ("inspect", bundle.path, "--query", "where is it"),
        ("inspect", "--diff", plainer.path, bundle.path),
        ("publish", bundle.path, "--to", tmp_path / "out"),
    ):
        done = distill(*command)
        assert done.exit_code == 0, done.output
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
        assert "\nfake line" not in done.stdout


def test_route_prints_a_line_for_a_query_of_several_lines(tiny_bundle):
    done = distill("route", tiny_bundle.path, "where is\nmy\t\x1b[2Jparcel\u2028 ?", "refund")
    assert [line.split("accepted")[1].strip() for line in done.stdout.splitlines()] == [
        "where is my [2Jparcel ?",
        "refund",
    ]
    done = distill("route", tiny_bundle.path, "--json", "where is\nmy parcel")
    assert json.loads(done.stdout)["text"] == "where is\nmy parcel"


def test_json_on_stdin_is_text_and_the_command_says_so(tiny_bundle):
    done = distill("route", tiny_bundle.path, stdin='{"text": "refund"}\nrefund\n')
    assert len(done.stdout.splitlines()) == 2
    assert "stdin:1: looks like JSON, and is routed as the text that it is; --input" in done.stderr
    assert "JSON" not in distill("route", tiny_bundle.path, stdin="refund {now}\n").stderr


@ON_LINUX
def test_ctrl_c_amid_stdin_promises_nothing(tiny_bundle):
    process = program("route", tiny_bundle.path, stdin=subprocess.PIPE)
    process.stdin.write("refund please\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("refund ")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (130, "distill: interrupted\n")


def test_route_from_stdin_answers_every_line_in_order(tiny_bundle):
    stdin = "\ufeffrefund please\r\n\n   \nwhere is my parcel\nünïcödé 🙂"
    lines = distill("route", tiny_bundle.path, "--json", stdin=stdin).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [each["text"] for each in answers] == ["refund please", "", "   ", "where is my parcel", "ünïcödé 🙂"]
    assert [each["reason"] for each in answers[1:3]] == ["empty_input", "empty_input"]
    assert [answers[0]["intent"], answers[3]["intent"]] == ["refund", "track_order"]


def test_route_shows_so_many_scores_the_best_first(tiny_bundle):
    def scores(*arguments):
        done = distill("route", tiny_bundle.path, "where is my parcel", "", "--json", *arguments)
        return [json.loads(line)["scores"] for line in done.stdout.splitlines()]

    everything, nothing = scores()
    assert list(everything) == [*SHOP, "oos"]
    best, none = scores("--top", 2)
    assert list(best.items()) == sorted(everything.items(), key=lambda pair: -pair[1])[:2]
    assert len(none) == 2
    assert scores("--top", 99) == [everything, nothing]
    for wrong in (["--top", 2], ["--json", "--top", 0]):
        done = distill("route", tiny_bundle.path, "refund", *wrong)
        assert (done.exit_code, done.stdout) == (2, "")


def test_route_many_lines(tiny_bundle, monkeypatch):
    monkeypatch.setattr("distill.cli.bundles._BYTES_AT_A_TIME", 7)
    done = distill("route", tiny_bundle.path, stdin="".join(f"refund {i}\n" for i in range(30)))
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [str(i) for i in range(30)]


def test_route_nothing(tiny_bundle):
    done = distill("route", tiny_bundle.path, stdin="")
    assert (done.exit_code, done.stdout) == (0, "")


def test_route_shows_every_intent_and_every_weight(tiny_bundles):
    multi = distill("route", tiny_bundles[Task.MULTI].path, "parcel cancel refund", "please")
    first, second = multi.stdout.splitlines()
    assert second.startswith("- (") or second.split()[0] in SHOP
    weights = distill("route", tiny_bundles[Task.WEIGHTS].path, "where is my parcel")
    assert re.match(r"track_order 0\.\d\d, cancel_order 0\.\d\d, refund 0\.\d\d ", weights.stdout)
    assert first.split("  ")[0].split(", ")[0] in SHOP


def test_a_self_check_that_fails_is_exit_1(tmp_path):
    from distill.bundle import seal

    bundle = build_bundle(tmp_path / "static")
    lines = [line for _, line in read_jsonl(bundle.path / "selfcheck.jsonl")]
    write_lines(bundle.path / "selfcheck.jsonl", [line | {"logits": line["logits"][::-1]} for line in lines])
    seal(bundle.path, bundle.manifest)
    assert distill("inspect", bundle.path).exit_code == 0
    done = distill("inspect", bundle.path, "--verify", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["selfcheck"]["passed"] is False
    assert done.stderr.startswith(f"distill: {bundle.path}: the self-check fails on this processor: ")


# --- terminals, pipes, signals ---------------------------------------------------------------------------------------


def test_without_a_terminal_progress_is_plain_lines(tmp_path):
    spec_path = write_project(tmp_path, n=3, n_gold=1)
    for env in ({}, {"NO_COLOR": "1"}):
        (tmp_path / "ledger.jsonl").unlink(missing_ok=True)
        process = program("run", spec_path, "--dry-run", env=env)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
        assert "\x1b" not in stdout + stderr
        process = program("label", spec_path, env=env)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
        assert "\x1b" not in stdout + stderr
        assert "16 requests in this run" in stdout


def test_results_in_a_pipe_hold_no_escapes(done_once):
    process = program("bench", done_once[0], "--out", done_once[1], env={"NO_COLOR": "1", "TERM": "xterm-256color"})
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert "\x1b" not in stdout + stderr
    assert "majority" in stdout


def test_label_fails_when_nothing_got_a_label(tmp_path):
    spec_path = write_project(tmp_path, n=3, teacher="{callable: 'useless:answer'}")
    for name in ("logs", "gold"):
        lines = (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:3]), encoding="utf-8")  # so that it is no outage
    (tmp_path / "useless.py").write_text("def answer(text):\n    return 'zz'\n", encoding="utf-8")
    done = distill("label", spec_path, "--quiet")
    assert done.exit_code == 1
    assert "failed" in done.stdout, done.stderr
    assert "distill: no query has a label: every answer failed, " in done.stderr


@ON_LINUX
def test_an_answer_does_not_wait_for_the_next_query(tiny_bundle):
    process = program("route", tiny_bundle.path, stdin=subprocess.PIPE)
    for query in ("where is my parcel", "refund please"):
        process.stdin.write(f"{query}\n")
        process.stdin.flush()
        assert query in process.stdout.readline()
    process.stdin.write("no end of line")
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert "no end of line" in stdout
    assert (process.returncode, stderr) == (0, "")


@ON_LINUX
def test_a_closed_pipe_is_no_traceback(tiny_bundle, tmp_path):
    queries = tmp_path / "queries.txt"
    queries.write_text("where is my parcel\n" * 20_000, encoding="utf-8")
    with queries.open(encoding="utf-8") as stdin:
        process = program("route", tiny_bundle.path, stdin=stdin)
        first = process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=PATIENCE_S) == 1
    assert first.startswith("track_order")
    assert stderr == ""


@ON_LINUX
def test_ctrl_c_ends_with_130_says_how_to_go_on_and_keeps_the_answers(tmp_path, monkeypatch):
    spec_path = write_project(tmp_path, n=30, teacher="{callable: 'project:slow_answer', concurrency: 2}")
    ledger = tmp_path / "ledger.jsonl"
    process = program("label", spec_path)
    patience = time.monotonic() + PATIENCE_S
    while not (ledger.exists() and ledger.read_bytes().count(b"\n") >= 4):
        assert time.monotonic() < patience, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == (
        "distill: interrupted; everything received is kept, the same command goes on where it stopped"
    )
    kept = {line["text"] for _, line in read_jsonl(ledger)}
    assert 4 <= len(kept) < 4 * 34
    project.ASKED.clear()
    monkeypatch.setattr(project, "DELAY_S", 0.0)
    done = distill("label", spec_path, "--quiet")
    assert done.exit_code == 0, done.output
    assert f"{len(kept)} answered before" in done.stdout
    assert not kept & {*project.ASKED}


def test_ctrl_c_in_any_command_is_130(spec_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupt)
    done = distill("run", spec_path)
    assert done.exit_code == 130
    assert done.stderr.startswith("distill: interrupted; ")


@ON_LINUX
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_line(tiny_bundle):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        process = program("route", tiny_bundle.path, "refund", stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert stderr.splitlines()[0] == "distill: the output: No space left on device"
    assert "Traceback" not in stderr


def test_what_the_output_cannot_hold_is_escaped(tiny_bundle):
    process = program("route", tiny_bundle.path, "--json", b"refund \xff".decode("utf-8", "surrogateescape"),
                      env={"PYTHONIOENCODING": "ascii"})  # fmt: skip
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["intent"] == "refund"


# --- what a user can get wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no-such-command"], "no-such-command"),
        (["run", "--no-such-option"], "--no-such-option"),
        (["route"], "bundle"),
        (["run", "a", "b"], "b"),
    ],
)
def test_usage_errors_are_exit_2(arguments, named):
    done = distill(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


SPEC_ERRORS = {
    "unknown key": ("name: tiny", "naem: tiny", ["router.yaml:1: unknown key `naem`", "did you mean `name`?"]),
    "misspelt nested key": ("concurrency: 1", "concurency: 1", ["router.yaml:4", "did you mean `concurrency`?"]),
    "missing key": ("name: tiny", "seed: 1", ["`name` is missing"]),
    "one intent": (r"intents: .*", "intents: {refund: money}", ["router.yaml:2", "at least two intents, found 1"]),
    "no intent": (r"intents: .*", "intents: {}", ["at least two intents, found 0"]),
    "duplicate": (r"intents: .*", "intents: {refund: a, refund: b}", ["router.yaml:2", "`refund` stands here and on line 2"]),
    "differs by case": (r"intents: .*", "intents: {refund: a, Refund: b}", ["differ by case only"]),
    "empty name": (r"intents: .*", "intents: {refund: a, '': b}", ["router.yaml:2", "an intent has an empty name"]),
    "oos as an intent": (r"intents: .*", "intents: {refund: a, oos: b}", ["router.yaml:2", "`out_of_scope: true`"]),
    "not YAML": ("name: tiny", "name: [tiny", ["router.yaml:", "not YAML"]),
    "not a mapping": (r"(?s).*", "- a\n- b\n", ["router.yaml:1: expected keys"]),
    "empty file": (r"(?s).*", "", ["router.yaml:1: expected keys"]),
    "two teachers": ("concurrency: 1", "model: m", ["give either `model` or `callable`"]),
    "no teacher": (r"teacher: .*", "", ["`teacher` is missing"]),
    "student twice": (r"queries: logs.jsonl", "students: [static, static]", ["name each student once"]),
    "no such student": (r"queries: logs.jsonl", "students: [tiny]", ["router.yaml:5", "'tiny'"]),
    "limit below zero": (r"concurrency: 1", "max_usd: -1", ["router.yaml:4", "greater than 0"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SPEC_ERRORS)
def test_a_wrong_spec_names_the_line(tmp_path, case):
    pattern, text, named = SPEC_ERRORS[case]
    path = write_project(tmp_path, teacher="{callable: 'project:answer', concurrency: 1}")
    source = path.read_text("utf-8")
    changed = re.sub(pattern, text, source, count=1)
    assert changed != source
    path.write_text(changed, encoding="utf-8")
    for command in ("label", "run"):
        line = fails(command, path)
        for part in named:
            assert part in line


@pytest.mark.parametrize("command", STAGES)
def test_a_missing_spec(command, tmp_path):
    assert fails(command, tmp_path / "router.yaml").endswith("router.yaml` writes one to start from")


def test_the_default_spec_is_router_yaml_here():
    assert fails("run").startswith("router.yaml: does not exist; `distill init router.yaml` writes one")


def test_a_spec_that_is_not_utf8(tmp_path):
    path = write_project(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"about refund", b"about r\xe9fund"))
    assert "router.yaml:2: not UTF-8" in fails("run", path)


DATA_ERRORS = {
    "broken line": ("logs.jsonl", b'{"text": "a"}\n{"text": \n', ["logs.jsonl:2: not a JSON object"]),
    "not an object": ("logs.jsonl", b'{"text": "a"}\n"b"\n', ["logs.jsonl:2", "found str"]),
    "no text": ("logs.jsonl", b'{"query": "a"}\n', ['logs.jsonl:1: has no "text"; its keys: query']),
    "text is a number": ("logs.jsonl", b'{"text": 1}\n', ['logs.jsonl:1: "text" must be a string, found 1']),
    "queries not UTF-8": ("logs.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', ["logs.jsonl:2: not UTF-8"]),
    "broken gold": ("gold.jsonl", b'{"text": "a", "intent": "refund"}\n{]\n', ["gold.jsonl:2: not a JSON object"]),
    "gold intent": ("gold.jsonl", b'{"text": "a", "intent": "refnd"}\n', ["gold.jsonl:1", "did you mean 'refund'?"]),
    "gold without": ("gold.jsonl", b'{"text": "a"}\n', ['gold.jsonl:1: `task: single` needs "intent"']),
    "gold not UTF-8": ("gold.jsonl", b'{"text": "\xe9", "intent": "refund"}\n', ["gold.jsonl:1: not UTF-8"]),
    "empty gold": ("gold.jsonl", b"", ["gold.jsonl: holds no query"]),
    "ledger": ("ledger.jsonl", b'{"key": "a"}\n{"key": 1}\n', ["ledger.jsonl:1", "remove it to go on"]),
    "ledger not JSON": ("ledger.jsonl", b"nonsense\n{}\n", ["ledger.jsonl:1", "remove it to go on"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_ERRORS)
def test_a_wrong_data_file_names_the_line_and_is_left_alone(spec_path, case):
    name, content, named = DATA_ERRORS[case]
    (spec_path.parent / name).write_bytes(content)
    for arguments in (["label"], ["run"], ["run", "--dry-run"]):
        line = fails(arguments[0], spec_path, *arguments[1:])
        for part in named:
            assert part in line
    assert (spec_path.parent / name).read_bytes() == content


@pytest.mark.parametrize("name", ["logs.jsonl", "gold.jsonl"])
def test_a_data_file_that_is_missing_is_named(spec_path, name):
    (spec_path.parent / name).unlink()
    for command in ("label", "train", "bench", "run"):
        assert name in fails(command, spec_path)


def test_no_queries_at_all(spec_path, quick):
    (spec_path.parent / "logs.jsonl").write_text("\n", encoding="utf-8")
    for command in ("label", "train"):  # label does not ask about gold either
        assert fails(command, spec_path).endswith("logs.jsonl: holds no query")


@pytest.mark.parametrize("command", ["train", "bench"])
def test_no_label_yet(spec_path, command):
    assert re.search(
        r"ledger\.jsonl: no query has a label; `distill label \S+router\.yaml` asks", fails(command, spec_path)
    )


def test_no_figures_yet(spec_path):
    assert "`distill bench " in fails("report", spec_path)


def test_no_bundles_yet(spec_path):
    assert distill("label", spec_path).exit_code == 0
    assert "`distill train`" in fails("bench", spec_path)


def test_synth_leaves_the_users_own_queries_alone(spec_path):
    before = (spec_path.parent / "logs.jsonl").read_bytes()
    assert "`queries: logs.jsonl` names your own queries" in fails("synth", spec_path)
    assert (spec_path.parent / "logs.jsonl").read_bytes() == before


def test_a_key_that_is_not_set_is_named(tmp_path):
    spec_path = write_project(tmp_path, teacher=PAID)
    line = fails("label", spec_path)
    assert "the environment variable A_KEY_THAT_NOBODY_SETS is not set" in line
    assert "64 of 64 queries have no answer" in line
    assert not (tmp_path / "ledger.jsonl").exists()


def test_what_differs_from_the_recording_is_named(tmp_path):
    spec_path = write_project(tmp_path)
    assert distill("label", spec_path).exit_code == 0
    recorded = (tmp_path / "ledger.jsonl").read_bytes()
    line = fails("label", spec_path, "--teacher-model", "gpt-5-mini")
    assert "OPENAI_API_KEY" in line or "recorded with the teacher" in line
    assert (tmp_path / "ledger.jsonl").read_bytes() == recorded


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_a_line_of_stdin_that_is_not_utf8_ends_it(tmp_path):
    bundle = build_bundle(tmp_path / "static", task=Task.SINGLE).path
    command = [sys.executable, "-c", "from distill.cli import main; main()", "route", str(bundle)]
    done = subprocess.run(command, input=b"hello\n\xff\nlater\n", capture_output=True, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.decode().startswith("distill: stdin:2: not UTF-8")


def test_a_server_that_cannot_be_reached(tmp_path):
    assert "http://127.0.0.1:1/v1: cannot be reached" in fails("label", write_project(tmp_path, teacher=UNREACHABLE))


TEACHER_ERRORS = {
    "prompt missing": ("{model: m, prompt: prompt.txt}", ["prompt.txt", "teacher.prompt does not exist"]),
    "prompt without query": ("{model: m, prompt: router.yaml}", ["router.yaml", "{query}"]),
    "no such module": ("{callable: 'no_such_module:answer'}", ["no_such_module:answer cannot be imported"]),
    "no such function": ("{callable: 'project:nothing'}", ["project:nothing cannot be imported"]),
    "not a function": ("{callable: 'project:SHOP'}", ["project:SHOP is not a function"]),
    "not a reference": ("{callable: project.answer}", ["router.yaml:4", "expected package.module:function"]),
    "redact": ("{callable: 'project:answer', redact: 'project:nothing'}", ["project:nothing cannot be imported"]),
    "limit cannot be kept": (
        "{model: a-model-nobody-sells, base_url: 'http://192.0.2.1/v1', api_key_env: A_KEY, max_usd: 5, timeout_s: 0.1}",
        ["teacher.max_usd cannot be kept", "'a-model-nobody-sells'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEACHER_ERRORS)
def test_a_wrong_teacher(tmp_path, monkeypatch, case):
    monkeypatch.setenv("A_KEY", "no-key")
    teacher, named = TEACHER_ERRORS[case]
    line = fails("label", write_project(tmp_path, teacher=teacher))
    for part in named:
        assert part in line


def test_a_teacher_may_lie_beside_router_yaml(tmp_path):
    (tmp_path / "a_teacher_of_ours.py").write_text("def answer(text):\n    return 'refund'\n", encoding="utf-8")
    done = distill("label", write_project(tmp_path, teacher="{callable: 'a_teacher_of_ours:answer'}"))
    assert done.exit_code == 0, done.output
    sys.modules.pop("a_teacher_of_ours")


def test_that_a_functions_spend_has_no_limit_is_said_once(tmp_path):
    path = write_project(tmp_path)
    assert "max_usd" not in distill("label", write_project(tmp_path / "without"), "--quiet").stderr
    done = distill("label", path, "--max-usd", "0.01", "--quiet")
    assert done.exit_code == 0, done.output
    said = "the limit of --max-usd or teacher.max_usd does not hold here: what project:answer spends is not known"
    assert done.stderr.count(said) == 1
    assert said not in distill("label", path, "--max-usd", "0.01", "--quiet").stderr, "nothing is asked any more"


def test_a_teacher_that_always_fails_stops_the_run(tmp_path):
    spec_path = write_project(tmp_path, teacher="{callable: 'project:answer', concurrency: 1}")
    write_lines(tmp_path / "logs.jsonl", [{"text": f"boom {i}"} for i in range(40)])
    done = distill("label", spec_path, "--quiet")
    assert done.exit_code == 1
    assert re.search(
        r"^distill: \d+ queries in a row failed, the last one: RuntimeError: boom", done.stderr, re.MULTILINE
    )


def test_a_student_that_does_not_exist(spec_path):
    assert distill("label", spec_path).exit_code == 0
    assert fails("train", spec_path, "--student", "statik").startswith("there is no student 'statik'")


def damage(bundle, case):
    """Breaks a bundle; returns what the message must name."""
    if case == "missing":
        shutil.rmtree(bundle)
        return ["no such folder"]
    if case == "incomplete":
        (bundle / "tokenizer.json").unlink()
        return ["incomplete: tokenizer.json is missing"]
    if case == "no manifest":
        (bundle / "manifest.json").unlink()
        return ["incomplete: manifest.json is missing"]
    if case == "newer":
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8")) | {"format": 99}
        (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return ["format 99 is newer than this version reads", "pip install --upgrade"]
    if case == "altered":
        with (bundle / "onnx" / "model.onnx").open("ab") as stream:
            stream.write(b"\0")
        return ["onnx/model.onnx: altered since it was sealed"]
    (bundle / "manifest.json").write_bytes(b"{")
    return ["manifest.json: damaged: not JSON"]


@pytest.mark.parametrize("case", ["missing", "incomplete", "no manifest", "newer", "altered", "torn manifest"])
def test_a_bundle_that_is_not_whole(finished, case):
    spec_path, out = finished
    named = damage(out / "static", case)
    for arguments in (
        ["route", out / "static", "hello"],
        ["inspect", out / "static"],
        ["bench", spec_path, "--out", out],
    ):
        line = fails(*arguments)
        for part in named:
            assert part in line.replace("\\", "/")


def test_a_folder_of_two_bundles_names_both(done_once):
    line = fails("route", done_once[1], "hello")
    assert f"holds two bundles: {done_once[1] / 'encoder'}, {done_once[1] / 'static'}; give one of them" in line


class Blocker(importlib.abc.MetaPathFinder):
    """Makes a module look as if it were not installed."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("module", "command", "teacher"),
    [
        ("openai", "label", UNREACHABLE),
        ("genai_prices", "label", "{model: m, max_retries: 0}"),
        ("yaml", "label", UNREACHABLE),
        ("torch", "train", None),
        ("transformers", "train", None),
        ("sklearn", "bench", None),
        ("jinja2", "report", None),
    ],
)
def test_a_missing_extra_is_named(tmp_path, done_once, monkeypatch, module, command, teacher):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocker(module), *sys.meta_path])
    if module in {"torch", "transformers"}:  # found by its spec, not by importing it
        real = train.importlib.util.find_spec
        monkeypatch.setattr(
            train.importlib.util, "find_spec", lambda name, *rest: None if name == module else real(name, *rest)
        )
    spec_path = done_once[0] if teacher is None else write_project(tmp_path, teacher=teacher)
    extra = [] if command == "label" else ["--out", done_once[1] if command == "report" else tmp_path / "out"]
    line = fails(command, spec_path, *extra)
    assert line == f"{module} is not installed; this step needs it: pip install 'distill-router[train]'"


def test_a_full_disk_while_labelling(spec_path, monkeypatch):
    from distill.teacher import ledger

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger, "_encode", full)
    assert fails("label", spec_path).endswith("ledger.jsonl: cannot be written (No space left on device)")


def test_a_full_disk_while_writing_the_figures(finished, monkeypatch):
    spec_path, out = finished
    before = (out / "bench.json").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    done = distill("bench", spec_path, "--out", out, "--force", "--quiet")
    assert done.exit_code == 1
    assert done.stderr == f"distill: {out / 'bench.json'}: cannot be written (No space left on device)\n"
    assert (out / "bench.json").read_bytes() == before


def test_a_place_that_cannot_be_written_to(finished, tmp_path):
    spec_path, _ = finished
    (tmp_path / "a-file").write_text("", encoding="utf-8")
    out = tmp_path / "a-file" / "out"
    assert str(out) in fails("bench", spec_path, "--out", out)
    shutil.copytree(tmp_path / "out", tmp_path / "out2")
    (tmp_path / "out2" / "report.html").unlink()
    (tmp_path / "out2" / "report.html").mkdir()
    (tmp_path / "out2" / "report.html" / "x").write_text("", encoding="utf-8")
    assert "report.html: cannot be written" in fails("report", spec_path, "--out", tmp_path / "out2")


def test_any_error_of_the_system_is_one_line(spec_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/some/file")

    monkeypatch.setattr(pipeline, "label", denied)
    assert fails("label", spec_path) == "/some/file: Permission denied"


def test_a_message_of_several_lines_is_printed_on_one(spec_path, monkeypatch):
    def several(*_, **__):
        raise StorageError("one\n  two\n")

    monkeypatch.setattr(pipeline, "label", several)
    assert fails("label", spec_path) == "one two"


@pytest.mark.parametrize("arguments", [["--debug", "run"], ["run", "--debug"], ["run", "x.yaml", "--debug"]])
def test_debug_shows_the_traceback(arguments):
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, DistillError)
    process = program(*arguments)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "Traceback" in stderr
    assert "SpecError" in stderr


def test_debug_after_two_dashes_is_a_query(tiny_bundle):
    done = distill("route", tiny_bundle.path, "--", "--debug")
    assert done.exit_code == 0
    assert done.stdout.rstrip().endswith("--debug")


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ModuleNotFoundError("No module named 'distill.x'", name="distill.x")]
)
def test_a_bug_keeps_its_traceback(spec_path, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "label", broken)
    assert distill("label", spec_path).exception is error
