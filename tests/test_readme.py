"""What the README tells a reader to do works as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from bundles import build_bundle
from guides import empty_folder, page, run, run_command
from project import write_lines
from typer.main import get_command

from distill.cli import app
from distill.spec import Spec, load_spec
from distill.types import Task

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for line in [*re.findall(r"^distill .*$", SHELL, re.MULTILINE), *re.findall(r"`(distill \w[^`]*)`", README)]
    }
)
TARGETS = sorted(set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE)))


def test_there_is_something_to_check():
    assert len(COMMANDS) >= 8
    assert len(TARGETS) >= 2


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line):
    _, name, *arguments = shlex.split(line.replace('"..."', "query"))
    command = get_command(app).commands[name]
    with command.make_context(name, arguments) as context:  # a word it does not know is a usage error
        assert context.info_name == name


@pytest.mark.parametrize("target", [first or second for first, second in TARGETS])
def test_every_make_target_exists(target):
    assert re.search(
        rf"^(?:[\w ]+ )?{target}(?: [\w ]+)?:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )


STAGES = ["init", "synth", "label", "train", "bench", "report", "run", "route", "inspect", "publish"]
RUN_ELSEWHERE = {"audit", "carry", "improve"}
"""By the tests of their pages: they need labels that differ, students that learn, or intents that change."""
IN_A_WORKFLOW = re.findall(
    r"^- run: (distill .*)$", "\n".join(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)


@pytest.mark.timeout(300)  # many commands, on a busy machine
def test_every_command_runs(tmp_path, monkeypatch):
    """In the order of the stages, in one folder; NAME is the router's name."""
    lines = [line.split("#")[0].strip().replace("FOLDER", "published") for line in [*COMMANDS, *IN_A_WORKFLOW]]
    lines = [line for line in lines if line.split()[1] not in RUN_ELSEWHERE]
    lines.sort(key=lambda line: (STAGES.index(line.split()[1]), line))
    assert {line.split()[1] for line in lines} == {*STAGES}
    with empty_folder(tmp_path, monkeypatch):
        shutil.copytree(ROOT / "data" / "banking-assistant", Path("data/banking-assistant"))
        for line in lines:
            if not line.startswith("distill init"):
                _write_what_the_table_names()
            assert run_command(line), line
    assert IN_A_WORKFLOW == ["distill run router.yaml --check   # exits with 1, naming gate, figure and limit"]


def _write_what_the_table_names():
    if not Path("answers.jsonl").exists():
        Path("router.yaml").write_text(
            "name: NAME\nintents: {track_order: Where it is, cancel_order: Stop it, refund: Money back}\nout_of_scope: true\n"
            "teacher: {model: gpt-5-mini}\nsynth: {per_intent: 4, out_of_scope: 4}\ngold: gold.jsonl\ngates: {accuracy_drop: 1.0}\n",
            encoding="utf-8",
        )
        write_lines(Path("answers.jsonl"), [{"text": "where is it", "intent": "track_order"}])
        write_lines(Path("gold.jsonl"), [{"text": "money back", "intent": "refund"}, {"text": "sing", "intent": "oos"}])


def test_the_page_about_costs_runs(tmp_path, monkeypatch):
    with empty_folder(tmp_path, monkeypatch):
        _write_what_the_table_names()
        (printed,) = run(page("costs.md")).values()
    assert "Nothing was asked." in printed


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_router_and_the_bundle_without_it_are_shown():
    assert ["Router.load" in block for block in PROGRAMS] == [True, False]


@pytest.mark.parametrize("block", PROGRAMS)
def test_every_python_block_runs(tmp_path, monkeypatch, capsys, block):
    build_bundle(tmp_path / "models" / "banking-assistant" / "static", task=Task.SINGLE)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip()


def test_the_teacher_lines_of_the_table_are_valid(tmp_path):
    shutil.copytree(ROOT / "data" / "banking-assistant", tmp_path / "demo")
    spec = yaml.safe_load((tmp_path / "demo" / "router.yaml").read_text(encoding="utf-8"))
    snippets = re.findall(r"`((?:teacher|queries|gold): [^`]+)`", README)
    assert len(snippets) >= 4
    for snippet in snippets:
        part = yaml.safe_load(snippet.split(",")[0] if "," in snippet and "{" not in snippet else snippet)
        changed = spec | part
        if "teacher" in part and not part["teacher"].keys() & {"callable", "labels"}:
            changed["teacher"] = {"model": "any"} | part["teacher"]
        (tmp_path / "demo" / "router.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        assert isinstance(load_spec(tmp_path / "demo" / "router.yaml"), Spec)


def test_every_page_is_linked():
    linked = set(re.findall(r"\]\(docs/([^)#]+)\)", README))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - linked == set()


def test_every_page_with_commands_has_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    pages = [path for path in (ROOT / "docs").glob("*.md") if "```sh" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 5
    assert [path.name for path in pages if path.name not in tests] == []


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists()


def test_the_confirmation_is_the_demo_but_for_name_and_gold():
    demo, confirmation = (
        yaml.safe_load((ROOT / "data" / "banking-assistant" / name).read_text(encoding="utf-8"))
        for name in ("router.yaml", "confirmation.yaml")
    )
    assert {key for key in demo | confirmation if demo.get(key) != confirmation.get(key)} == {"name", "gold"}
