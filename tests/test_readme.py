"""What the README tells a reader to do works as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from bundles import build_bundle
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


def test_the_python_block_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists()


def test_the_confirmation_is_the_demo_but_for_name_and_gold():
    demo, confirmation = (
        yaml.safe_load((ROOT / "data" / "banking-assistant" / name).read_text(encoding="utf-8"))
        for name in ("router.yaml", "confirmation.yaml")
    )
    assert {key for key in demo | confirmation if demo.get(key) != confirmation.get(key)} == {"name", "gold"}
