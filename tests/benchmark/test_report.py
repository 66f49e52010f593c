from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from distill.benchmark.report import report_html, write_report
from distill.benchmark.results import result_as_json, result_from_json
from distill.errors import StorageError

SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects tags and text, and holds that every tag is closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_verdict_comes_first_and_everything_is_there(result):
    page = Page(report_html(result))
    assert page.text.index("static keeps every gate.") < page.text.index("Accuracy")
    for words in ("teacher", "tfidf", "majority", "accuracy_policy", "p99", "USD per 1,000", "big-model", "Some CPU"):
        assert words in page.text
    assert "data_sha256 " + "d" * 64 in page.text
    assert "track_order cancel_order 1" in page.text


def test_it_needs_nothing_from_outside(result):
    page = Page(report_html(result))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onclick", "action"} & {name for name, _ in page.attributes}
    assert "http" not in report_html(result).replace("http-equiv", "")
    assert "url(" not in report_html(result)


def test_script_in_queries_labels_and_names_is_text(result):
    rows = tuple(
        replace(row, notes={**row.notes, "model": SCRIPT, "disagreements": [hostile]})
        for hostile in [dict.fromkeys(("text", "gold", "teacher", "student"), SCRIPT) | {"student_score": 0.5}]
        for row in result.rows
    )
    gates = tuple(replace(gate, detail=SCRIPT, row=SCRIPT) for gate in result.gates)
    confusions = ({"row": SCRIPT, "gold": SCRIPT, "answer": SCRIPT, "n": 1},)
    provenance = {SCRIPT: SCRIPT}
    hostile = replace(
        result,
        name=SCRIPT,
        rows=rows,
        gates=gates,
        confusions=confusions,
        provenance=provenance,
        environment=provenance,
    )
    html = report_html(hostile)
    assert "<script" not in html
    assert Page(html).text.count(SCRIPT) > 10


def test_text_can_be_left_out(result):
    text = result.rows[1].notes["disagreements"][0]["text"]
    assert text in report_html(result)
    assert text not in report_html(result, with_text=False)


def test_it_is_the_same_from_bench_json(result):
    again = result_from_json(result_as_json(result))
    assert Page(report_html(again)).tags == Page(report_html(result)).tags


def test_bars_stay_inside_their_tracks(result):
    styles = [value for name, value in Page(report_html(result)).attributes if name == "style"]
    assert styles
    for style in styles:
        parts = [float(part.split(":")[1].rstrip("%")) for part in style.split(";")]
        assert all(part >= 0 for part in parts)
        assert sum(parts) <= 100.01


def test_a_bare_result_has_a_report_too(result):
    bare = replace(result, n_gold=0, gates=(), confusions=(), rows=(replace(result.rows[0], p50_ms=None, notes={}),))
    assert "No gates are set" in Page(report_html(bare)).text


def test_it_is_written_whole_as_utf8(result, tmp_path):
    path = tmp_path / "models" / "report.html"
    write_report(result, path)
    assert path.read_text(encoding="utf-8") == report_html(result)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_where_nothing_can_be_written_there_is_one_clear_line(result, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(result, tmp_path / "file" / "report.html")
