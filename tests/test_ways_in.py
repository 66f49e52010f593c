"""docs/ways-in.md: every command on the page runs, in order, over the files that the page shows."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from bundles import build_bundle
from project import TESTS, distill

from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.bundle import load_bundle
from distill.init import draft
from distill.student import train

sys.path.append(str(TESTS / "teacher"))
from fake_server import FakeServer

PAGE = (TESTS.parent / "docs" / "ways-in.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
MACHINE = {"processor": "Some CPU", "cores": 2, "python": "3.11", "versions": {}, "threads": 1, "busy_share": 0.0,
           "loaded": False, "measured_at": "2026-02-01T00:00:00+00:00"}  # fmt: skip


def blocks(section):
    """Language, file and content of each fenced block."""
    return re.findall(r"```(\w+)(?: (\S+))?\n(.*?)```", section, re.DOTALL)


def train_nothing(data, out, *, students, **_):
    """Takes the place of training: bundles that know the shop's words."""
    for student in students:
        if not (out / student).exists():
            build_bundle(out / student, student=student, data_sha256=data.data_sha256)
    return {student: load_bundle(out / student) for student in students}


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """An empty folder, no training, few queries to write, and OpenAI's place taken by a server on loopback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train_students", train_nothing)
    monkeypatch.setattr(bench, "cold_start", lambda _: ColdStart(1.0, 2.0))
    monkeypatch.setattr(bench, "environment", lambda: dict(MACHINE))
    monkeypatch.setattr(sys.modules[draft.__module__], "_PER_INTENT", 4)
    monkeypatch.setattr(sys.modules[draft.__module__], "_OUT_OF_SCOPE", 4)
    with FakeServer() as fake:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        yield fake


def run(section):
    """Writes the section's files and runs its commands; what they printed, by command."""
    printed = {}
    for language, file, content in blocks(section):
        if file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(content, encoding="utf-8")
        for line in content.splitlines() if language == "sh" else ():
            if line.startswith("export "):
                continue
            program, *arguments = shlex.split(line)
            assert program == "distill"
            done = distill(*arguments)
            assert done.exit_code == 0, (line, done.output, done.exception)
            printed[line] = done.stdout + done.stderr
    return printed


def test_every_block_with_a_command_is_run():
    """A section is run as a whole, so that it is enough that each one is named below."""
    with_commands = {name for name, section in SECTIONS.items() if "```sh" in section}
    assert with_commands == {
        "Nothing but intents",
        "Real queries",
        "A prompt in production, and answers already paid for",
        "Other teachers",
        "Looking at what came out",
    }


def test_nothing_but_intents(quick):
    printed = run(SECTIONS["Nothing but intents"])
    assert "Nothing was asked." in printed["distill run shop/router.yaml --dry-run"]
    assert quick.n_requests > 0
    assert printed['distill route models/shop/static "where is my parcel"'].startswith("track_order")


def test_real_queries(quick):
    run(SECTIONS["Real queries"])
    assert quick.n_requests == 8
    assert "sk-not-a-key" not in "".join(path.read_text() for path in Path("desk").iterdir())


def test_a_prompt_and_answers_already_paid_for(quick):
    printed = run(SECTIONS["A prompt in production, and answers already paid for"])
    assert quick.n_requests == 0, "what was imported is not asked"
    assert "8 queries, 8 answered before, 0 failed" in printed["distill label support/router.yaml"]
    assert "8 answers (8 by gpt-4o, in production): 8 added" in "".join(printed.values())


def test_other_teachers_and_what_came_out(quick):
    printed = run(SECTIONS["Other teachers"])
    assert quick.n_requests == 0
    assert "7 labels taken from train.jsonl" in printed["distill label people.yaml"]
    printed = run(SECTIONS["Looking at what came out"])
    first, second, third = printed.values()
    assert "passed on this processor" in first
    assert "nearest     1.00  track_order" in second
    assert "0 of 7 changed, on the texts of train.jsonl" in third


def test_what_stands_in_the_table_parses():
    from typer.main import get_command

    for line in re.findall(r"`(distill [^`]+)`", PAGE):
        if " ..." in line or len(line.split()) > 2:
            _, name, *arguments = shlex.split(line.replace(" ...", ""))
            with get_command(__import__("distill.cli").cli.app).commands[name].make_context(name, arguments) as context:
                assert context.info_name == name
