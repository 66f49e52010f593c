"""Runs what the guides show: their files and commands in an empty folder, with a server on loopback in OpenAI's place."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path

from bundles import build_bundle
from improvable import ByText
from project import TESTS, distill

from distill.benchmark import bench
from distill.benchmark.latency import ColdStart
from distill.bundle import load_bundle
from distill.init import draft
from distill.student import train
from distill.teacher import endpoint

sys.path.append(str(TESTS / "teacher"))
from fake_server import FakeServer

ROOT = TESTS.parent
MACHINE = {"processor": "Some CPU", "cores": 2, "python": "3.11", "versions": {}, "threads": 1, "busy_share": 0.0,
           "loaded": False, "measured_at": "2026-02-01T00:00:00+00:00"}  # fmt: skip


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(section):
    """Language, file and content of each fenced block."""
    return re.findall(r"```(\w+)(?: (\S+))?\n(.*?)```", section, re.DOTALL)


def train_nothing(data, out, *, students, **_):
    """Takes the place of training: bundles that know the shop's words."""
    for student in students:
        if not (out / student).exists():
            build_bundle(out / student, student=student, data_sha256=data.data_sha256)
    return {student: load_bundle(out / student) for student in students}


@contextmanager
def empty_folder(tmp_path, monkeypatch):
    """No training, few queries to write, and OpenAI's place taken by the server that this gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train_students", train_nothing)
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    monkeypatch.setattr(bench, "cold_start", lambda _: ColdStart(1.0, 2.0))
    monkeypatch.setattr(bench, "environment", lambda: dict(MACHINE))
    monkeypatch.setattr(sys.modules[draft.__module__], "_PER_INTENT", 4)
    monkeypatch.setattr(sys.modules[draft.__module__], "_OUT_OF_SCOPE", 4)
    with FakeServer() as fake:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        monkeypatch.setattr(endpoint, "_default_endpoint", lambda: None)
        yield fake


def run(section):
    """Writes the section's files and runs its commands; what they printed, by command."""
    printed = {}
    for language, file, content in blocks(section):
        if file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(content, encoding="utf-8")
        for line in content.splitlines() if language == "sh" else ():
            if not line.startswith("export "):
                printed[line] = run_command(line)
    return printed


def run_command(line):
    """What a command prints; it must end with exit 0."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "cat":
        added, arrow, file = arguments
        assert arrow == ">>"
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(Path(added).read_text("utf-8"))
        return ""
    if program == "echo":
        added, arrow, file = arguments
        assert arrow == ">>"
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(f"{added}\n")
        return ""
    if program == "python":
        runpy.run_path(arguments[0])
        return ""
    assert program == "distill"
    done = distill(*arguments)
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done.stdout + done.stderr
