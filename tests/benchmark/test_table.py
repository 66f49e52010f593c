from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from distill.benchmark.display import MISSING, headline, milliseconds, number, share, usd
from distill.benchmark.table import markdown_table, print_result
from distill.types import BenchRow, GateVerdict


def printed(result, width=120):
    console = Console(file=StringIO(), width=width)
    print_result(result, console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1104.3, "1,104"),
        (98.76, "98.8"),
        (1.7166, "1.72"),
        (0.04517, "0.0452"),
        (12345678, "12,345,678"),
    ],
)
def test_a_number_has_three_significant_digits_and_no_exponent(value, text):
    assert number(value) == text


def test_cells():
    assert milliseconds(0.0452) == "0.0452 ms"
    assert share(0.9134, (0.88449, 1.0)) == "0.913 [.884, 1.000]"
    assert share(None, None) == MISSING
    assert (usd(None), usd(0.0), usd(0.00000078), usd(0.0578)) == ("unknown", "$0", "<$0.0001", "$0.0578")


def test_the_terminal_shows_every_row_gate_and_what_was_measured(result):
    text = printed(result)
    for words in ("teacher", "static", "tfidf", "majority", "accuracy_policy", "OOS AUROC", "p99", "USD per 1,000"):
        assert words in text
    assert "16 gold queries (12 in scope, 4 out of scope)" in text
    assert "Some CPU, 2 cores, one thread used" in text
    assert "2 requests in flight" in text
    assert "big-model (the maker's page, 2026-01-31)" in text
    assert "kept" in text
    assert text.rstrip().endswith("static keeps every gate.")


def test_an_interval_is_not_taken_for_markup(result):
    row = next(row for row in result.rows if row.name == "static")
    assert share(row.accuracy_policy, row.accuracy_policy_ci95) in printed(result)


@pytest.mark.parametrize("width", [40, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(result, width):
    assert max(len(line) for line in printed(result, width).splitlines()) <= width


def test_without_a_terminal_it_is_plain_text_in_full_width(result, capsys):
    print_result(result)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "accuracy_policy" in text


def test_a_loaded_machine_is_warned_of(result):
    loaded = replace(result, environment={**result.environment, "loaded": True, "busy_share": 0.73})
    assert "WARNING: the machine was busy with other work (73 %)" in printed(loaded)
    assert "WARNING" not in printed(result)


def test_gold_in_training_is_warned_of(result):
    assert "3 gold queries are also training queries" in printed(replace(result, provenance={"n_gold_in_training": 3}))


def test_without_gold_the_table_says_so(result):
    rows = tuple(BenchRow(row.name, fidelity=row.fidelity, fidelity_ci95=row.fidelity_ci95) for row in result.rows)
    text = printed(replace(result, n_gold=0, rows=rows, provenance={"n_queries": 16}))
    assert "No gold: only fidelity to the teacher is known, on 16 held-out queries" in text
    assert "accuracy_policy" not in text


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (True, "static keeps every gate."),
        (False, "static breaks p95_ms."),
        (None, "static cannot be judged on p95_ms."),
    ],
)
def test_the_headline_is_the_verdict(result, passed, words):
    gates = (GateVerdict("static", "p95_ms", 1.0, None, passed),)
    assert headline(replace(result, gates=gates)) == words


def test_without_gates_there_is_no_verdict(result):
    assert headline(replace(result, gates=())).startswith("No gates are set")


def test_markdown_tables_are_whole(result):
    text = markdown_table(result)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(line.startswith("| static |") for line in tables) == 2
    for line, before in zip(tables[1:], tables, strict=False):
        if before.split("|")[1].strip() and line.split("|")[1].strip():
            assert line.count("|") == before.count("|")
    assert "Some CPU" in text
    assert "2026-02-01" in text
    assert "**kept**: static `accuracy_drop`" in text
    assert text.endswith("\n")
