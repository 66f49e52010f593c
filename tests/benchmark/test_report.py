from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from jinja2 import PackageLoader
from shop import make_inputs

from distill.benchmark import pictures
from distill.benchmark.bench import run_bench
from distill.benchmark.report import report_html, report_markdown, verdicts, write_report
from distill.benchmark.results import result_as_json, result_from_json
from distill.errors import StorageError
from distill.types import GateVerdict, IntentFigures, Leakage, NearPair, Task

SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """Collects tags and text, and holds that every tag is closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self.open, self.scripts = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, wanted):
        return [value for name, value in self.attributes if name == wanted]


def gate(verdict, **changes):
    fields = {"row": "static", "gate": "accuracy_drop", "limit": 0.02, "figure": 0.005, "passed": True}
    fields |= {"detail": "how it was", "ci95": (-0.004, 0.014), "verdict": verdict}
    return GateVerdict(**fields | changes)


def sentence(result, *gates):
    [verdict] = verdicts(replace(result, gates=gates))
    return verdict.word, verdict.text


def test_the_verdict_comes_first_and_everything_is_there(result):
    page = Page(report_html(result))
    [verdict] = verdicts(result)
    assert page.text.index(verdict.text) < page.text.index("Accuracy")
    for words in ("teacher", "tfidf", "majority", "accuracy_policy", "p99", "USD per 1,000", "big-model", "Some CPU"):
        assert words in page.text
    for words in ("size MB", "cold start ms", "memory MB", "AURC", "McNemar p", "Each intent", "The cascade's points"):
        assert words in page.text
    assert "data_sha256 " + "d" * 64 in page.text
    assert "track_order cancel_order 1" in page.text


@pytest.mark.parametrize("task", list(Task))
def test_every_task_has_its_pictures_and_each_says_what_it_shows(tiny_bundles, quick, task):
    page = Page(report_html(run_bench(make_inputs(tiny_bundles, task), show_progress=False)))
    assert page.values("role").count("img") == page.tags.count("svg") >= 4
    shown = page.values("aria-label")
    assert any(label.startswith("Accuracy (accuracy_policy): teacher ") for label in shown)
    assert any(re.match(r"Latency: .*static .* ms", label) for label in shown)
    assert any(label.startswith("Cost in USD per 1,000 queries: teacher unknown") for label in shown)


def test_a_shown_verdict_says_yes_and_at_which_margin(result):
    assert sentence(result, gate("shown")) == (
        "shown",
        "static may replace the teacher at a margin of 2 points of accuracy_policy: shown at 95 % (0.5 points worse, -0.4 to +1.4).",
    )


def test_a_refuted_verdict_says_no(result):
    found = gate("refuted", figure=0.06, ci95=(0.04, 0.08), passed=False, limit=0.01)
    assert sentence(result, found) == (
        "refuted",
        "static may not replace the teacher at a margin of 1 point of accuracy_policy: refuted at 95 % (6 points worse, +4.0 to +8.0).",
    )


def test_what_is_not_shown_says_how_much_gold_would_show_it(result):
    word, text = sentence(result, gate("not shown", more_gold=1234, figure=-0.003, ci95=(-0.026, 0.021)))
    assert word == "not shown"
    assert text == (
        "static: not shown at 95 % that it may replace the teacher at a margin of 2 points of accuracy_policy "
        "(0.3 points better, -2.6 to +2.1); about 1,200 more gold queries would show it in four cases of five if the two go on differing as they do."
    )
    assert "; no number of gold queries would show it if" in sentence(result, gate("not shown", figure=0.02))[1]
    assert (
        "; only millions of gold queries would show it in four cases of five if"
        in sentence(result, gate("not shown", figure=0.0199))[1]
    )


def test_a_student_that_is_too_slow_is_not_let_off(result):
    slow = GateVerdict("static", "p95_ms", 1.0, 2.0, passed=False, detail="p95 2 ms, limit 1 ms")
    word, text = sentence(result, gate("shown"), slow)
    assert word == "broken"
    assert text.endswith("; it breaks p95_ms (p95 2 ms, limit 1 ms).")


def test_without_a_margin_nothing_is_claimed(result):
    word, text = sentence(result)
    assert word == "not judged"
    assert text.startswith("static: no margin is set (gates, accuracy_drop)")
    old = gate(None, ci95=None)
    assert sentence(result, old) == ("kept", "static: accuracy_drop is kept: how it was.")


def test_it_needs_nothing_from_outside(result):
    page = Page(report_html(result))
    assert page.tags.count("script") == 1
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onclick", "action", "style"} & {name for name, _ in page.attributes}
    assert "http" not in report_html(result).replace("http-equiv", "")
    assert "url(" not in report_html(result)


def test_no_script_but_its_own_may_run(result):
    page = Page(report_html(result))
    [script] = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [value for value in page.values("content") if value.startswith("default-src")]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_script_may_run_though_its_file_has_windows_ends_of_lines(result, monkeypatch):
    as_it_is = report_html(result)
    read = PackageLoader.get_source

    def get_source(*arguments):
        source, *others = read(*arguments)
        return source.replace("\n", "\r\n"), *others

    monkeypatch.setattr(PackageLoader, "get_source", get_source)
    assert report_html(result) == as_it_is


def hostile(result):
    """The same with a script in every place for text."""
    row_names = [SCRIPT, *(row.name for row in result.rows[1:])]
    line = dict.fromkeys(("text", "gold", "teacher", "student"), SCRIPT) | {"student_score": 0.5, "teacher_score": 0.7}
    rows = tuple(
        replace(row, name=name, notes={**row.notes, "model": SCRIPT, "disagreements": [line]})
        for row, name in zip(result.rows, row_names, strict=True)
    )
    figures = IntentFigures(SCRIPT, SCRIPT, 5, 4, 0.5, 0.4, (0.1, 0.8), 0.44, SCRIPT, 2)
    price = {**result.cost["priced_as"], "model": SCRIPT, "source": SCRIPT}
    stage = {"stage": SCRIPT, "n_answers": 1, "n_uncounted": 0, "prompt_tokens": 1, "usd": None}
    spent = {"usd": None, "priced_as_usd": None, "by_stage": [stage]}
    return replace(
        result,
        name=SCRIPT,
        rows=(*rows, replace(rows[0], name="teacher")),
        gates=tuple(replace(gate, detail=SCRIPT, row=SCRIPT) for gate in result.gates),
        confusions=({"row": SCRIPT, "gold": SCRIPT, "answer": SCRIPT, "n": 1},),
        provenance={SCRIPT: SCRIPT},
        environment={SCRIPT: SCRIPT},
        cost={**result.cost, "priced_as": price, "spent": spent, "break_even": None},
        per_intent=(figures,),
        reliability=tuple(replace(one, row=SCRIPT) for one in result.reliability),
        risk_coverage=tuple(replace(one, row=SCRIPT) for one in result.risk_coverage),
        cascades={SCRIPT: next(iter(result.cascades.values()))},
        leakage=Leakage(0, 1, 0.9, SCRIPT, (NearPair(SCRIPT, SCRIPT, 0.95),)),
    )


def test_script_in_queries_labels_answers_and_names_is_text(result):
    html = report_html(hostile(result))
    page = Page(html)
    assert html.count("<script") == 1
    assert "alert" not in page.scripts[0]
    assert page.text.count(SCRIPT) > 30
    assert sum(SCRIPT in label for label in page.values("aria-label")) >= 4


def test_text_can_be_left_out_and_the_answers_stay(result):
    texts = {line["text"] for row in result.rows for line in row.notes.get("disagreements", ())}
    texts |= {pair.gold for pair in result.leakage.pairs} | {pair.training for pair in result.leakage.pairs}
    assert texts
    with_text, without = (Page(report_html(result, with_text=shown)) for shown in (True, False))
    assert all(text in with_text.text for text in texts)
    cells = {word.strip() for word in without.words}
    assert not texts & cells
    assert "Where student and teacher disagree" in without.text


def test_at_most_fifty_disagreements_are_shown(result):
    line = result.rows[1].notes["disagreements"][0]
    lines = [{**line, "text": f"query number {index}."} for index in range(60)]
    rows = (result.rows[0], replace(result.rows[1], notes={"disagreements": lines}))
    page = Page(report_html(replace(result, rows=rows)))
    assert "static: 50 shown" in page.text
    assert "query number 49." in page.text
    assert "query number 50." not in page.text


def test_it_is_the_same_from_bench_json(result):
    again = result_from_json(result_as_json(result))
    assert Page(report_html(again)).tags == Page(report_html(result)).tags


def test_prices_that_are_not_known_are_never_nothing(result):
    rows = tuple(replace(row, usd_per_1k=None) for row in result.rows)
    cost = {"queries_per_month": 1000}
    page = Page(report_html(replace(result, rows=rows, cost=cost, cascades={})))
    assert "Cost in USD per 1,000 queries: teacher unknown; static unknown" in " ".join(page.values("aria-label"))
    assert "no price is known" in page.text
    assert "$0" not in page.text


def test_the_cascade_is_priced_as_another_model_where_one_was_named(result):
    point = {**result.cascades["static"][0], "share_asked": 0.125, "asking_usd_per_1k": None}
    as_if = {"model": "other", "usd_per_1k": 0.4, "usd_per_1k_uncached": 0.8, "usd_per_month": 1.0}
    cost = {"queries_per_month": 1000, "priced_as": as_if | {"source": "a page", "date": "2026-01-31"}}
    text = Page(report_html(replace(result, cost=cost, cascades={"static": [point]}))).text
    found = " ".join(text[text.index("The cascade's points") :].split())
    assert re.search(r"p95 ms as other static .* \$0\.0500", found)


def test_a_bare_result_has_a_report_too(result):
    row = replace(result.rows[0], p50_ms=None, notes={})
    bare = replace(result, n_gold=0, gates=(), confusions=(), rows=(row,), per_intent=(), reliability=())
    bare = replace(bare, risk_coverage=(), cascades={}, leakage=None, cost={})
    assert "No gates are set" in Page(report_html(bare)).text


def test_the_pull_requests_page_has_the_verdict_the_tables_and_the_gates_and_no_query(result):
    page = report_markdown(result)
    [verdict] = verdicts(result)
    assert page.startswith("# shop: may it replace the LLM?\n\n- static")
    assert page.index(verdict.text) < page.index("accuracy_policy |")
    assert "| static accuracy_drop |" in page
    assert "cold start ms" in page
    assert "| static | what the policy declines |" in page
    assert not any(line["text"] in page for line in result.rows[1].notes["disagreements"])


def test_both_are_written_whole_as_utf8(result, tmp_path):
    path = tmp_path / "models" / "report.html"
    write_report(result, path)
    assert path.read_text(encoding="utf-8") == report_html(result)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == report_markdown(result)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["report.html", "report.md"]


def test_where_nothing_can_be_written_there_is_one_clear_line(result, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(result, tmp_path / "file" / "report.html")


def test_margins_are_drawn_where_the_gates_go_by_what_the_picture_shows(result):
    teacher, *others = result.rows
    whole = replace(result, rows=(replace(teacher, n_failed=0), *others))
    assert teacher.n_failed == 1
    assert [name for name, _ in pictures._limits(result)] == ["teacher"]
    assert dict(pictures._limits(whole))["static"] == teacher.accuracy_policy - whole.gates[0].limit
