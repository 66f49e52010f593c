"""A tiny project on disk: router.yaml, the user's own queries, gold, and a teacher that is a function in this module."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from bundles import KEYWORDS
from typer.testing import CliRunner

from distill.cli import app

TESTS = Path(__file__).parent
sys.path.append(str(TESTS / "student"))  # for the tiny transformer that its tests are made with
from tiny import WORDS  # noqa: E402

FILLERS = ("the", "a", "my", "please", "now", "is", "it", "to")
ALL_WORDS = {**WORDS, **KEYWORDS}
SHOP = tuple(KEYWORDS)[:-1]
DELAY_S = 0.1
ASKED: list[str] = []
"""What ``answer`` was asked in this process."""


def answer(text):
    """The teacher: the intent whose word stands in the text, ``oos`` where none does, an error where it says boom."""
    ASKED.append(text)
    if "boom" in text:
        raise RuntimeError("boom")
    words = text.lower().split()
    return next((name for name, own in ALL_WORDS.items() if any(word in own for word in words)), "oos")


def without_please(text):
    return " ".join(word for word in text.split() if word != "please")


def slow_answer(text):
    time.sleep(DELAY_S)
    return answer(text)


def undecided_answer(text):
    """No score above 0 where the text says zero: an answer that no target can be made of."""
    return dict.fromkeys(SHOP, 0.0) if "zero" in text else answer(text)


def make_texts(intents, n, seed=0):
    """Distinct texts of five words, ``n`` for each intent and ``n`` that fit none, with their label."""
    chance = random.Random(seed)  # noqa: S311
    found = {}
    for name in (*intents, "oos"):
        own = KEYWORDS["oos"] if name == "oos" else ALL_WORDS[name]
        wanted = len(found) + n
        while len(found) < wanted:
            words = chance.sample(FILLERS, 3) + chance.sample(own, 2)
            chance.shuffle(words)
            found.setdefault(" ".join(words), name)
    return list(found.items())


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


ROUTER_YAML = """\
name: {name}
intents: {intents}
out_of_scope: true
teacher: {teacher}
queries: logs.jsonl
gold: gold.jsonl
gates: {{accuracy_drop: 1.0, p95_ms: 60000}}
"""


def write_project(folder, intents=SHOP, *, n=12, n_gold=4, teacher="{callable: 'project:answer'}", more=""):
    """Writes a project with ``n`` queries and ``n_gold`` gold queries for each label; returns its router.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps({name: f"about {name}" for name in intents})
    spec = ROUTER_YAML.format(name="tiny", intents=described, teacher=teacher)
    (folder / "router.yaml").write_text(spec + more, encoding="utf-8")
    texts = make_texts(intents, n + n_gold)
    gold = [texts[start + i] for start in range(0, len(texts), n + n_gold) for i in range(n_gold)]
    queries = [pair for pair in texts if pair not in gold]
    write_lines(folder / "logs.jsonl", [{"text": text} for text, _ in queries])
    write_lines(folder / "gold.jsonl", [{"text": text, "intent": intent} for text, intent in gold])
    return folder / "router.yaml"


def distill(*arguments, stdin=None):
    """Runs the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def fails(*arguments, stdin=None):
    """The one line on stderr of a command that must end with exit 1, without its ``distill: ``."""
    done = distill(*arguments, stdin=stdin)
    assert done.exit_code == 1, (done.exit_code, done.output, done.exception)
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert all(" left" in progress for progress in before), done.stderr  # a slow machine shows progress first
    assert line.startswith("distill: ")
    return line.removeprefix("distill: ").strip()
