"""docs/ways-in.md: every command on the page runs, in order, over the files that the page shows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from guides import empty_folder, page, run

from distill.combination import LEAST_EXAMPLES
from distill.teacher import batch, carry
from distill.teacher.retrieve import CANDIDATES, EXAMPLES, MOST_EXAMPLES, MOST_INTENTS

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
        "A few labelled queries beside a model",
        "In batches, for less",
        "Intents that change",
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
    printed = run(SECTIONS["Real queries"])
    assert quick.n_requests == 8 + 4 + 1, "what was answered before is not asked again"
    assert "4 of 4 queries to label" in printed["distill label desk/router.yaml --gold --dry-run"]
    judged = printed["distill label desk/router.yaml --gold"]
    assert "4 queries, 0 answered before, 0 failed" in judged
    assert "4 gold queries (3 in scope, 1 out of scope)" in " ".join(judged.split())
    assert "sk-not-a-key" not in "".join(path.read_text() for path in Path("desk").iterdir())


def test_a_few_labelled_queries_are_shown_to_the_model(quick):
    run(SECTIONS["A few labelled queries beside a model"])
    assert quick.n_requests == 3
    assert all("has it left the warehouse" in body["messages"][0]["content"] for body in quick.requests)


def test_in_batches(quick, monkeypatch):
    monkeypatch.setattr(batch, "FIRST_PAUSE_S", 0.001)
    printed = run(SECTIONS["In batches, for less"])
    assert "provider openai, batch" in printed["distill label patient.yaml --batch --dry-run"]
    assert "4 queries, 0 answered before, 0 failed" in printed["distill label patient.yaml --batch"]
    assert [each["request_counts"]["total"] for each in quick.batches.batches.values()] == [3]
    assert f"{batch.MOST_REQUESTS:,} requests or {batch.MOST_BYTES // 10**6} MB" in " ".join(PAGE.split())


def test_intents_that_change(quick, monkeypatch):
    words = {"parcel": "track_order", "come": "track_order", "cancel": "cancel_order", "stop": "cancel_order",
             "refund": "refund", "lost": "lost_parcel"}  # fmt: skip

    def answer(body, query):
        names = json.dumps(body["response_format"])
        known = [name for word, name in words.items() if word in query and f'"{name}"' in names]
        return quick.completion(json.dumps({"intent": ["oos", *known][-1]}))

    monkeypatch.setattr(quick, "_profile_normal", answer)
    first, plan, dry, last = run(SECTIONS["Intents that change"]).values()
    assert "7 queries, 0 answered before, 0 failed" in first
    assert "7 of 7 queries to label (7 answered under other intents: `distill carry` may keep that)" in plan
    assert "new: lost_parcel; gone: refund; renamed: track_order to order_status" in dry
    assert "the intent is gone in 1\n  1 fit none of the others now (oos)" in dry
    assert "at most 4 requests" in dry
    assert "3 carried over, 1 of them under another name; 4 asked again" in last
    section = " ".join(SECTIONS["Intents that change"].split())
    assert f"less than {100 * carry.LEAST_YIELD:.0f} % of a part" in section
    assert f"in that search ({carry.SHARE}, or twice" in section
    assert f"has less than {carry.SURE_TEACHER}) and those" in section
    assert f"unsure of (less than {carry.SURE_STUDENT})" in section


def test_the_numbers_of_the_page_are_those_of_the_code():
    section = " ".join(SECTIONS["A few labelled queries beside a model"].split())
    assert f"Up to {MOST_EXAMPLES} known examples" in section
    assert f"the {EXAMPLES} nearest to the query" in section
    assert f"Up to {MOST_INTENTS} intents" in section
    assert f"the {CANDIDATES} nearest are" in section
    assert f"from {('one', 'two', 'three', 'four', 'five')[LEAST_EXAMPLES - 1]} known examples an intent" in section


def test_a_prompt_and_answers_already_paid_for(quick):
    printed = run(SECTIONS["A prompt in production, and answers already paid for"])
    assert quick.n_requests == 0, "what was imported is not asked"
    assert "8 queries, 8 answered before, 0 failed" in printed["distill label support/router.yaml"]
    assert "8 answers (8 by gpt-4o): 8 added" in "".join(printed.values())


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
