"""docs/reading-the-report.md: its commands run, and its names are those of the report, all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from guides import ROOT, blocks, empty_folder, page, run_command
from project import write_lines

from distill import pipeline
from distill.benchmark import display, report
from distill.benchmark.results import read_result
from distill.spec import load_spec
from distill.types import Task

PAGE = page("reading-the-report.md")
COMMANDS = [line for language, _, content in blocks(PAGE) if language == "sh" for line in content.splitlines()]
ROWS = {"teacher", "encoder", "static", "tfidf", "majority"}
DEMO = read_result(ROOT / "data" / "banking-assistant" / "results.json")
TABLES = [display.SPEED_COLUMNS, display.COST_COLUMNS, display.GATE_COLUMNS]
TABLES += [display.accuracy_columns(replace(DEMO, task=task)) for task in Task]
TABLES += [display.score_columns(DEMO)]
COLUMNS = list(dict.fromkeys(column.title for table in TABLES for column in table if column.title))


@pytest.fixture(scope="module")
def shown():
    """Headings of the report, and what stands over its columns. The demo's has all but queries, which are not committed."""
    html = report.report_html(DEMO)
    found = {
        tag: [
            re.sub("<[^>]*>", "", text).strip() for text in re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        ]
        for tag in ("h2", "h3", "th", "summary")
    }
    template = (ROOT / "distill/benchmark/templates/report.html.j2").read_text(encoding="utf-8")
    found["h2"] = [heading for heading in re.findall(r"<h2>(.*?)</h2>", template) if "{" not in heading]
    return found


def first_cells():
    """The names in the first column of the page's tables."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return [name for line in lines for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])]


def quoted():
    """Every name in backquotes on the page that looks like one of the report's."""
    return set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))


def test_every_name_that_a_table_explains_is_in_the_report(shown):
    names = {*COLUMNS, *shown["h3"], *shown["summary"], *report._MARKED_WORDS, *ROWS}
    assert [name for name in first_cells() if name not in names] == []


def test_every_column_of_the_report_is_explained():
    explained = first_cells()
    assert [title for title in COLUMNS if title not in explained] == []


def test_every_picture_and_word_is_explained(shown):
    explained = first_cells()
    pictures = set(shown["h3"]) - ROWS - {"Accuracy", "Latency", "Cost"}  # of these three the sections speak
    provenance = {"Hashes and versions", "Environment", "Prices and assumptions", "Spent on distilling, by stage"}
    assert sorted(pictures - provenance - {*explained}) == []
    assert set(report._MARKED_WORDS) <= {*explained}


def test_every_section_of_the_report_has_one_here(shown):
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [heading for heading in shown["h2"] if heading not in headings] == []


def test_the_other_names_exist_too(shown):
    known = {*COLUMNS, *shown["h3"], *shown["th"], *shown["summary"], *shown["h2"], *report._MARKED_WORDS, *ROWS}
    others = quoted() - known
    code = (  # keys, files, options and columns that name a model
        r"(distill|models|gates|bench|synth|queries|gold|teacher|task)\b.*|.*\.(md|html|json|yaml)|--[\w-]+|as MODEL|ask_(below|when)|unknown|gates:"
        r"|Cascade\(.*\)|what the policy declines|under 0\.\d+"  # the rules of a cascade, as code and as the report names them
    )
    assert sorted(name for name in others if not re.fullmatch(code, name)) == []


@pytest.mark.timeout(300)  # many commands, on a busy machine
def test_the_commands_run(tmp_path, monkeypatch):
    with empty_folder(tmp_path, monkeypatch):
        intents = {"track_order": "Where an order is", "cancel_order": "Stop an order", "refund": "Wants money back"}
        lines = "".join(f"  {name}: {about}\n" for name, about in intents.items())
        Path("router.yaml").write_text(
            f"name: shop\nintents:\n{lines}out_of_scope: true\nteacher: {{model: gpt-5-mini}}\n"
            "queries: logs.jsonl\ngold: gold.jsonl\ngates: {accuracy_drop: 1.0}\n",
            encoding="utf-8",
        )
        texts = {"where is my parcel": "track_order", "stop it": "cancel_order", "money back": "refund", "sing": "oos"}
        write_lines(Path("logs.jsonl"), [{"text": f"{text} {n}"} for text in texts for n in range(3)])
        write_lines(Path("gold.jsonl"), [{"text": text, "intent": intent} for text, intent in texts.items()])
        spec = load_spec("router.yaml")
        pipeline.label(spec, show_progress=False)
        pipeline.train(spec, show_progress=False)
        printed = {line: run_command(line) for line in COMMANDS}
    assert len(printed) == 7
    assert printed["distill report router.yaml"].strip() == str(Path("models/shop/report.html"))
    assert "nearest" in printed['distill inspect models/shop/static --query "where is my parcel" --spec router.yaml']
