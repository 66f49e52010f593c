"""docs/ways-in.md: every command on the page runs, in order, over the files that the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from guides import empty_folder, page, run

PAGE = page("ways-in.md")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


@pytest.fixture
def quick(tmp_path, monkeypatch):
    with empty_folder(tmp_path, monkeypatch) as fake:
        yield fake


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
