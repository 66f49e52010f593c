from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from project import TESTS

sys.path.append(str(TESTS.parent / "scripts"))
import growth

from distill.teacher.ledger import Ledger


def line(what, intents, n, **figures):
    usual = {
        "seconds": 60.0,
        "seconds_per_1k": 60_000 / n,
        "size_mb": 20.0,
        "accuracy": 0.9,
        "p50_ms": 0.05,
        "peak_rss_mb": 500,
        "onnx_file": "onnx/model_quantized.onnx",
        "commit": "abc",
        "processor": "Some CPU",
        "measured_at": "2026-01-31T12:00:00+00:00",
    }
    return {"what": what, "intents": intents, "n": n} | usual | figures


def test_no_cell_has_more_intents_than_queries():
    cells = list(growth.cells())
    assert growth.Cell("static", 10_000, 200_000) in cells
    assert growth.Cell("encoder", 1_000, 5_000) in cells
    assert all(cell.n >= cell.intents for cell in cells)
    assert len(cells) == len(set(cells))


def test_what_opening_a_ledger_takes_grows_with_its_answers_and_no_faster(tmp_path):
    """Counted in calls of functions, which no other work on the machine changes."""
    n_calls = []
    for n in (500, 1_000, 2_000):
        folder = tmp_path / str(n)
        folder.mkdir()
        growth.measure_ledger(growth.Cell("ledger", 0, n), folder)
        calls = Counter()
        sys.setprofile(lambda _frame, event, _argument, calls=calls: calls.update([event]))
        try:
            ledger = Ledger(folder / "ledger.jsonl")
        finally:
            sys.setprofile(None)
        assert len(ledger.lines) == n
        n_calls.append(calls["call"] + calls["c_call"])
    assert n_calls[2] - n_calls[1] == pytest.approx(2 * (n_calls[1] - n_calls[0]), rel=0.05)


def test_the_table_says_where_the_static_student_ends():
    page = growth.table(
        [
            line("static", 10, 1_000),
            line("static", 100, 1_000, accuracy=0.5),
            line("static", 10_000, 200_000, p50_ms=1.5, seconds=4_000.0),
            line("encoder", 100, 1_000, accuracy=0.8),
            line("encoder", 100, 5_000, seconds=100.0, onnx_file="onnx/model.onnx"),
            line("encoder", 1_000, 5_000),
        ]
    )
    assert "over 10,000 intents, learnt from 200,000 queries, its p50 is 1.50 ms, over 1: " in page
    assert "200,000 queries over 10,000 intents take more than 60 minutes" in page
    assert (
        "with 10 queries an intent (1,000 over 100) it is at 0.500 from labels alone, the encoder after one pass at 0.800"
        in page
    )
    limit = "encoder: over 100 intents, 50 s and 6 times 10.0 s a thousand queries fit 60 minutes up to about 59,000 queries."
    assert limit in page
    assert page.count("minutes up to about") == 1
    assert "| 10,000 | 200,000 | 4,000 | 0.30 | 0.900 | int8 | 20.0 |" in page
    assert "| 100 | 5,000 | 100 | 12.00 | 0.900 | fp32 | 20.0 |" in page
    assert "(Some CPU, 2026-01-31, abc):" in page


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(60.0, "slower than their number: at most 1.3"), (1_310.0, "faster than their number: at most 43.0")],
)
def test_the_table_says_whether_time_grows_faster_than_what_is_learnt(seconds, words):
    lines = [line("static", 10, n, seconds=taken) for n, taken in ((1_000, 20.0), (10_000, 50.0), (200_000, seconds))]
    page = growth.table([*lines, line("static", 100, 1_000, seconds=21.0)])
    assert f"static: with more queries time grows {words} times as long for 20 times as many, 20 s taken off" in page
    assert (
        "static: too few trainings take much longer than the quickest, 20 s, to say how time grows with more intents"
        in page
    )


@pytest.mark.parametrize(("last", "words"), [(75.0, "4.0 ms for each, then by 6.0 ms, all trainings together: 1.5 times"), (90.0, "4.0 ms for each, then by 12.0 ms, all trainings together: 3.0 times")])  # fmt: skip
def test_of_trainings_that_all_take_about_as_long_the_table_compares_what_one_query_more_takes(last, words):
    sizes = ((1_000, 54.0), (2_500, 60.0), (5_000, last))
    page = growth.table([line("encoder", 10, n, seconds=taken) for n, taken in sizes])
    assert (
        f"encoder: with more queries time grows by {words} as much; with quadratic growth it would be 2.1 times."
        in page
    )
    assert "encoder: too few trainings take much longer than the quickest, 54 s, to say how time grows with more intents" in page  # fmt: skip


@pytest.mark.parametrize("peak_rss_mb", [1_400, 3_300])
def test_the_table_says_whether_memory_grows_faster_than_what_is_learnt(peak_rss_mb):
    sizes = ((100, 1_000), (1_000, 1_100), (10_000, peak_rss_mb))
    lines = [line("static", intents, 10_000, peak_rss_mb=peak) for intents, peak in sizes]
    page = growth.table([line("static", 10, 1_000, peak_rss_mb=1_000), *lines])
    assert "with more intents memory grows" not in page  # a tenth above the least says nothing
    page = growth.table([line("static", 10, 1_000, peak_rss_mb=900), *lines])
    assert "with more queries memory grows" not in page
    larger = (peak_rss_mb - 900) / 200
    assert (
        f"static: with more intents memory grows {'slower' if larger < 10 else 'faster'} than their number: at most {larger:.1f}"
        in page
    )
    assert "900 MB taken off that the least training takes" in page


def test_what_is_there_already_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "RESULTS", tmp_path / "growth.jsonl")
    monkeypatch.setattr(growth, "PAGE", tmp_path / "growth.md")
    monkeypatch.setattr(
        growth, "cells", lambda: iter([growth.Cell("static", 10, 1_000), growth.Cell("static", 100, 1_000)])
    )
    (tmp_path / "growth.jsonl").write_text(json.dumps(line("static", 10, 1_000)) + "\n", encoding="utf-8")
    asked = []
    monkeypatch.setattr(growth, "run", lambda cell: asked.append(cell) or line(cell.what, cell.intents, cell.n))
    monkeypatch.setattr(sys, "argv", ["growth.py"])
    growth.main()
    growth.main()
    assert asked == [growth.Cell("static", 100, 1_000)]
    assert len((tmp_path / "growth.jsonl").read_text("utf-8").splitlines()) == 2
    monkeypatch.setattr(sys, "argv", ["growth.py", "--again"])
    growth.main()
    assert len(asked) == 3
    assert len((tmp_path / "growth.jsonl").read_text("utf-8").splitlines()) == 2
    assert "| 100 | 1,000 |" in (tmp_path / "growth.md").read_text("utf-8")


def test_a_cell_that_fails_ends_the_run(monkeypatch):
    monkeypatch.setattr(growth, "__file__", "/nowhere/growth.py")
    with pytest.raises(SystemExit, match="Cell"):
        growth.run(growth.Cell("static", 10, 1_000))
