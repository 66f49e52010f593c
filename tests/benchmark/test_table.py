from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from distill.benchmark.captions import gold_captions, headline
from distill.benchmark.display import MISSING, accuracy_in_scope, milliseconds, number, share, usd
from distill.benchmark.report import report_html
from distill.benchmark.scores import area_under_risk_coverage
from distill.benchmark.table import cascade_markdown, markdown_table, print_result
from distill.types import BenchRow, GateVerdict, Leakage, NearPair


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


def test_what_gold_has_nothing_of_is_said(result):
    names = [f"intent_{number}" for number in range(12)]
    lacking = replace(result, provenance={**result.provenance, "labels_not_in_gold": names})
    said = f"Gold has nothing of {', '.join(names[:10])} and 2 more: what is given to these counts as wrong."
    assert said in " ".join(printed(lacking).split())
    assert "Gold has nothing of" not in printed(result)


def test_gold_that_repeats_itself_is_said_and_much_of_it_is_a_warning(result):
    for n, start in ((1, "WARNING: 1 gold"), (0, "")):
        repeated = replace(result, provenance={**result.provenance, "n_repeated_gold": n})
        said = " ".join(printed(repeated).split())
        assert ("gold queries repeat another one, and every interval takes them for independent." in said) == bool(n)
        assert start in said
    many = replace(result, n_gold=1000, provenance={**result.provenance, "n_repeated_gold": 1})
    assert "WARNING: 1 gold" not in " ".join(printed(many).split())


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"n_contradicting_gold": 2}, "WARNING: 2 texts stand in gold with more than one label"),
        ({"n_repeated_gold": 13}, "WARNING: 13 gold queries repeat another one"),
        ({"n_distinct_weights": 1}, "WARNING: all gold queries have the same weights"),
        ({"n_distinct_weights": 30}, "WARNING: gold has 30 different weights"),
    ],
)
def test_what_is_wrong_with_gold_is_a_warning_of_its_own(result, provenance, words):
    wrong = replace(result, n_gold=33, provenance={**result.provenance, **provenance})
    assert [line[: len(words)] for line in gold_captions(wrong)] == [words]
    assert f'<p class="warning">{words}' in report_html(wrong)
    assert f"\n\n{words}" in markdown_table(wrong)
    assert words in " ".join(printed(wrong).split())


def test_nothing_is_wrong_with_usual_gold(result):
    usual = {"n_contradicting_gold": 0, "n_repeated_gold": 0, "n_distinct_weights": 5}
    assert gold_captions(replace(result, n_gold=33, provenance={**result.provenance, **usual})) == []


def test_names_of_intents_are_no_markup_in_markdown(result):
    lacking = replace(result, provenance={**result.provenance, "labels_not_in_gold": ["<details>"]})
    assert "Gold has nothing of &lt;details>:" in markdown_table(lacking)


def test_failed_answers_are_not_among_the_queries_that_were_compared_on(result):
    paired = {"n": result.n_gold - 3, "drop": 0.0, "drop_ci95": (-0.1, 0.1)}
    rows = tuple(replace(row, notes={"against_teacher": paired}) for row in result.rows)
    few = replace(result, rows=rows, gates=(gate("shown"),))
    said = " ".join(printed(few).split())
    assert f"paired on {result.n_gold - 3} gold queries; the 3 that it failed on are left out." in said


def test_the_best_that_the_surest_answers_can_be_is_said(result):
    perfect = area_under_risk_coverage(np.arange(result.n_gold, 0, -1.0), np.arange(result.n_gold) < result.n_in_scope)
    assert f"{perfect:.3f} is best, as no answer is right for the {result.n_oos} out-of-scope" in " ".join(
        printed(result).split()
    )


def test_the_terminal_shows_every_row_gate_and_what_was_measured(result):
    text = printed(result)
    for words in ("teacher", "static", "tfidf", "majority", "accuracy_policy", "OOS AUROC", "p99", "USD per 1,000"):
        assert words in text
    assert "16 gold queries (12 in scope, 4 out of scope)" in text
    assert "Some CPU, 2 cores, one thread used" in text
    assert "with 2 requests in flight, prompts of 100 tokens in the mean" in " ".join(text.split())
    assert "big-model (the maker's page, read 2026-01-31)" in text
    assert "kept" in text
    assert text.rstrip().endswith("the limit is 1.")
    assert "static keeps every gate, but accuracy_drop is not shown at 95 %: it may be " in text


def test_an_interval_is_not_taken_for_markup(result):
    row = next(row for row in result.rows if row.name == "static")
    assert share(row.accuracy_policy, row.accuracy_policy_ci95) in printed(result, 160)


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
    pair = NearPair("what's due", "what is due", 0.97)
    leaked = Leakage(3, 1, 0.9, "cosine", (pair,), {"static": 0.75})
    text = " ".join(printed(replace(result, leakage=leaked)).split())
    assert "WARNING: 3 gold queries are also training queries, 1 nearly (cosine, from 0.9 on)." in text
    assert "accuracy_policy without them: static 0.750." in text
    assert "0.97 \"what's due\" is like 'what is due'" in text
    assert "WARNING" not in printed(replace(result, leakage=replace(leaked, n_exact=0)))


def test_markdown_names_no_query(result):
    assert result.leakage.pairs
    assert not any(pair.gold in markdown_table(result) for pair in result.leakage.pairs)


def test_without_gold_the_table_says_so(result):
    rows = tuple(BenchRow(row.name, fidelity=row.fidelity, fidelity_ci95=row.fidelity_ci95) for row in result.rows)
    bare = replace(result, n_gold=0, rows=rows, provenance={"n_queries": 16}, leakage=None, cascades={}, gates=())
    text = printed(bare)
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
    assert sum(line.startswith("| static |") for line in tables) == 4
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    assert "Some CPU" in text
    assert "2026-02-01" in text
    assert "| static accuracy_drop | -6.67 points | 1 point | kept |" in text
    assert text.endswith("\n")


def test_calibration_stands_beside_what_chance_would_show(result):
    row = next(row for row in result.rows if row.name == "static")
    assert f"{row.ece:.3f} (chance {row.ece_noise_floor:.3f})" in printed(result, 160)


def test_a_percentile_stands_beside_its_spread_over_the_rounds(result):
    static = BenchRow("static", p50_ms=1.5, latency_n=9, notes={"p50_ms_by_round": (1.25, 1.625)})
    assert "1.50 [1.25, 1.62]" in printed(replace(result, rows=(static,)))


def test_the_tokenizer_is_named_where_it_was_noted(result):
    rows = (
        BenchRow("encoder", p50_ms=1.0, notes={"tokenizer": "nanotoken"}),
        BenchRow("static", p50_ms=1.0, notes={"tokenizer": "words"}),
        BenchRow("tfidf", p50_ms=1.0),
    )
    for text in (printed(replace(result, rows=rows)), markdown_table(replace(result, rows=rows))):
        assert (
            "Tokenizer: encoder nanotoken, static words, which remembers words: these it had all seen, and a new one takes longer."
            in " ".join(text.split())
        )
    assert "Tokenizer" not in markdown_table(replace(result, rows=rows[2:]))


def test_throughput_stands_at_each_batch_size(result):
    static = BenchRow("static", queries_per_s_by_batch={"1": 800.0, "32": 1100.0, "256": 1234.5})
    for words in ("800", "1,100", "1,234", "by 32", "by 256"):
        assert words in printed(replace(result, rows=(static,)))


@pytest.mark.parametrize(
    ("in_flight", "words"),
    [
        (None, "with an unknown number of requests in flight"),
        ((1, 4), "with 1 to 4 requests in flight"),
        (4, "with 4 requests in flight"),
    ],
    ids=["unknown", "a range", "an older file"],
)
def test_the_teachers_latency_says_how_it_came_by_it(result, in_flight, words):
    between = ("2026-01-30T23:00:00Z", "2026-01-31T01:00:00Z")
    notes = {
        "model": "big",
        "servers": ("this machine",),
        "requests_in_flight": in_flight,
        "recorded_between": between,
    }
    teacher = BenchRow("teacher", p50_ms=900.0, latency_n=15, notes=notes)
    text = " ".join(printed(replace(result, rows=(teacher,))).split())
    assert (
        "Teacher: big on the asking machine, latency as recorded in the ledger from 2026-01-30 to 2026-01-31, network"
        in text
    )
    assert words in text


def gate(verdict, more_gold=None, passed=True, limit=0.03):
    return GateVerdict("static", "accuracy_drop", limit, 0.02, passed, "", (-0.001, 0.041), 0.0004, verdict, more_gold)


@pytest.mark.parametrize(
    ("verdict", "more_gold", "words"),
    [
        ("shown", None, ["shown", "-0.1 to +4.1"]),
        ("refuted", None, ["refuted"]),
        ("not shown", 1234, ["not shown", "about 1,200"]),
        ("not shown", None, ["not shown", "millions"]),
    ],
)
def test_the_verdict_at_95_per_cent_stands_beside_the_gate(result, verdict, more_gold, words):
    one = replace(result, gates=(gate(verdict, more_gold),))
    for text in (printed(one), markdown_table(one)):
        assert "2 points" in text
        assert "<0.001" in text
        assert all(word in text for word in words)
    assert ("More gold" in printed(one)) == (verdict == "not shown")


def test_no_number_shows_what_gold_speaks_against(result):
    one = replace(result, gates=(gate("not shown", limit=0.02),))
    assert "no number would" in printed(one)
    assert "no number would" in markdown_table(one)


def test_the_cascade_shows_accuracy_and_what_it_costs_over_the_share_asked(result):
    rules = ["policy", *["confidence"] * (len(result.cascades["static"]) - 1)]
    assert [point["rule"] for point in result.cascades["static"]] == rules
    point = {
        "rule": "confidence", "ask_below": 0.4567, "share_asked": 0.125, "accuracy": 0.9, "accuracy_ci95": (0.85, 0.95),
        "drop": 0.01, "drop_ci95": (-0.005, 0.025), "p95_ms": 812.0, "asking_usd_per_1k": None,
    }  # fmt: skip
    result = replace(result, cost={**result.cost, "priced_as": None})
    text = printed(replace(result, cascades={"static": [point]}))
    for words in ("0.4567", "12.5 %", "0.900 [.850, .950]", "+1.0 [-0.5, +2.5]", "812"):
        assert words in text
    assert "what asking costs" not in text
    text = printed(replace(result, cascades={"static": [point, point | {"asking_usd_per_1k": 0.1234}]}))
    assert ("$0.123" in text, "unknown" in text) == (True, True)
    assert "USD per 1,000: what asking costs for 1,000 queries, the student's machine apart." in " ".join(text.split())


def test_the_cascade_is_priced_as_another_model_where_one_was_named(result):
    point = next(point for point in result.cascades["static"] if point["n_asked"])
    cost = {"queries_per_month": 1, "priced_as": {**PRICED, "usd_per_1k": 0.4}}
    point = {**point, "share_asked": 0.125, "asking_usd_per_1k": None}
    text = printed(replace(result, cost=cost, cascades={"static": [point]}), 160)
    lines = text[text.index("cascade") : text.index("gate ")].splitlines()
    assert lines[0].rstrip().endswith(" as gpt-5-mini")
    assert lines[2].split()[-1] == "$0.0500"
    assert "USD per 1,000" not in " ".join(lines)
    assert "as gpt-5-mini: what asking costs for 1,000 queries" in " ".join(" ".join(lines).split())


def test_the_cascade_stands_in_markdown_as_in_the_terminal(result):
    points = result.cascades["static"]
    table, caption = cascade_markdown(result).split("\n\n")
    titles, rule, *lines = table.splitlines()
    assert titles.startswith("| cascade | asks | asked | accuracy_policy | drop in points |")
    assert rule.count("|") == titles.count("|")
    assert len(lines) == len(points)
    assert lines[0].startswith("| static | what the policy declines |")
    assert f"| under {points[1]['ask_below']:.9g} |" in lines[1]
    assert "drop in points:" in caption
    assert cascade_markdown(replace(result, cascades={"static": []})) == ""


PRICED = {
    "model": "gpt-5-mini", "source": "a page", "date": "2026-01-31", "usd_per_1k_uncached": 0.8, "usd_per_month": 1.0,
}  # fmt: skip


COST = {
    "queries_per_month": 1_000_000,
    "teacher_price": {"source": "a page", "date": "2026-01-31"},
    "usd_per_month": {"teacher": 286.0},
    "machine_usd_per_hour": 0.36,
    "machine": {"usd_per_month": 262.8, "busy_share": {"static": 0.0123, "tfidf": 0.5}},
    "spent": {"usd": 9.5, "by_stage": [{"n_answers": 1000}, {"n_answers": 500}]},
    "break_even": {
        "is_the_teachers_own": True, "machine_is_counted": True, "spent_usd": 9.5, "price_of": "big",
        "queries": {"static": 33_000, "encoder": None}, "months": {"static": 0.033, "encoder": None},
    },
}  # fmt: skip


def test_cost_says_what_was_spent_and_when_it_is_paid_back(result):
    text = " ".join(printed(replace(result, cost=COST)).split())
    assert "1,000,000 queries a month keep it busy for static 1.23 % of its time; the whole machine is $263" in text
    assert "Spent on distilling: $9.50 for 1,500 answers." in text
    assert (
        "Paid back on a machine that does other work too: static after 33,000 queries (1.00 days), encoder never."
        in text
    )
    assert "A machine for the router alone costs less than asking from about 920,000 queries a month on." in text


def test_cost_at_another_models_price_says_so(result):
    even = COST["break_even"] | {"is_the_teachers_own": False, "machine_is_counted": False}
    cost = COST | {"break_even": even, "spent": COST["spent"] | {"usd": None}}
    text = " ".join(printed(replace(result, cost=cost)).split())
    assert "unknown for 1,500 answers, $9.50 at the price of big; a model that reasons bills that besides." in text
    assert "Paid back, the student's machine not counted: static" in text


def test_cost_says_what_the_same_tokens_cost_where_nothing_is_cached(result):
    price = {
        "model": "big", "source": "a page", "date": "2026-01-31", "input_usd_per_mtok": 1.0, "cached_input_usd_per_mtok": 0.1,
        "output_usd_per_mtok": 10.0, "usd_per_1k": 0.02, "usd_per_1k_uncached": 0.2, "usd_per_month": 20.0,
    }  # fmt: skip
    stages = [
        {"n_answers": 1000, "prompt_tokens": 2_000_000, "cached_tokens": 1_000_000, "completion_tokens": 100_000},
        {"n_answers": 500, "prompt_tokens": 500_000, "cached_tokens": 0, "completion_tokens": 0},
    ]
    even = COST["break_even"] | {"is_the_teachers_own": False}
    cost = COST | {"priced_as": price, "break_even": even, "spent": {"usd": None, "by_stage": stages}}
    text = " ".join(printed(replace(result, cost=cost)).split())
    assert "$9.50 at the price of big, $3.50 with no cached prefix; a model that reasons" in text
    assert "costs less than asking from about 13,000,000 queries a month on" in text


def test_of_queries_with_an_intent_it_says_how_many_get_it(result):
    text = markdown_table(result)
    assert "| in scope | coverage |" in text
    for row in result.rows:
        if row.oos_recall is not None:
            n_right = accuracy_in_scope(row, result) * result.n_in_scope
            assert n_right == pytest.approx(
                row.accuracy_policy * result.n_gold - row.oos_recall * result.n_oos, abs=0.01
            )
    teacher = result.rows[0]
    assert accuracy_in_scope(teacher, result) == pytest.approx(teacher.accuracy)  # which has no guess beside its answer
    assert "| in scope |" not in markdown_table(replace(result, n_oos=0))


def test_what_may_be_billed_without_an_answer_is_told_beside_what_was_spent(result):
    spent = COST["spent"] | {"unanswered_usd": 0.25}
    text = " ".join(printed(replace(result, cost=COST | {"spent": spent})).split())
    assert "$9.50 for 1,500 answers (requests without an answer may be billed with $0.250 more, at most)." in text


def test_an_older_result_is_shown(result):
    cost = {name: COST[name] for name in ("queries_per_month", "teacher_price", "usd_per_month")}
    bare = replace(
        result, cost=cost, per_intent=(), reliability=(), risk_coverage=(), cascades={}, leakage=None, gates=()
    )
    assert "Students: unknown" in printed(bare)
    assert "unknown" in markdown_table(bare)
