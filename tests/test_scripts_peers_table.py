"""The README's table of contenders: whose figure comes from where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import peers_log
import peers_table

ROW = {
    "accuracy": 0.5, "oos_auroc": None, "p50_ms": 0.1, "p95_ms": 0.15, "p99_ms": 0.2, "how": "by the book", "model_mb": 1.0, "install_mb": 50.0,
    "cold_start_ms": 300.0, "bundle_id": None,
}  # fmt: skip


@pytest.fixture
def results(tmp_path, monkeypatch):
    run = {
        "data": {"name": "birds", "n_test": 10, "n_oos": 2},
        "commit": "older",
        "environment": {"processor": "Abacus", "measured_at": "2026-01-02T00:00:00+00:00"},
        "rows": [
            {**ROW, "name": "slow peer", "p50_ms": 9.0},
            {**ROW, "name": "static", "bundle_id": "b1", "accuracy": 0.1},
        ],
        "bare_imports_ms": 80.0,
        "not_run": [{"name": "absent", "reason": "no wheel"}],
    }
    published = [
        {"name": "giant", "birds": 0.99, "source": "a paper"},
        {"name": "unrelated", "fish": 0.5, "source": "none"},
    ]
    for name, text in (
        ("PEERS", json.dumps(run)),
        ("BUSY", json.dumps(run)),
        ("PUBLISHED", json.dumps(published)),
        ("BUDGET", ""),
        ("THROUGHPUT", ""),
    ):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        monkeypatch.setattr(peers_table, name, path)
    return tmp_path


def test_rows_by_speed_and_all_figures_from_the_run(results):
    lines = peers_table.table().splitlines()
    assert lines[2].startswith("| **static** | 0.1000 | 100 | 150 | 200 |")  # of the bundle that was timed
    assert lines[3].startswith("| slow peer | 0.5000 |")
    assert lines[4].startswith("| giant (published: a paper) | 0.9900 |")
    assert "unrelated" not in peers_table.table()


def test_the_note_names_bundles_machine_and_what_was_not_run(results):
    note = peers_table.table().splitlines()[-1]
    for part in (
        "birds, 10 test queries, 2 of them out of scope",
        "with the bundles static b1.",
        "Abacus",
        "absent: no wheel",
        "The encoder's figures are older",
    ):
        assert part in note


def late(**n_held):
    """What scripts/throughput.py says of a loop, by how often of 1,000 times it was held."""
    n_held = {"idle": 2, "busy": 2, "hashing": 3} | n_held
    return {name: {"p100_ms": 5.0, "n_held": n, "n": 1000} for name, n in n_held.items()}


@pytest.mark.parametrize(
    ("n_busy", "words"),
    [
        (2, "running; not shown to be more often than without it: between -0."),
        (4, "running; not shown to be more often than without it: between -0."),
        (40, "running; more often than without it: between 2."),
    ],
)
def test_the_loops_turns_are_late_beside_what_makes_them_late_more_often_than_the_rest(n_busy, words):
    loop = {"late": late(busy=n_busy), "held": {"p100_ms": 2.5, "n_held": 3, "n": 1000}}
    said = peers_table._who_holds_the_loop(loop)
    assert words in said
    assert "it kept the interpreter for 2.50 ms at most, and longer than that limit 3 of 1,000 times" in said


def test_the_interval_of_two_shares_is_newcombes():
    low, high = peers_table._difference({"n_held": 56, "n": 70}, {"n_held": 48, "n": 80})
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)  # Newcombe (1998), table II, method 10, case (a)


def test_limits_say_what_stands_and_by_how_much_the_rest_is_missed(results):
    run = json.loads((results / "PEERS").read_text("utf-8"))
    own = {
        **ROW,
        "p50_ms": 0.03,
        "p99_ms": 0.06,
        "serving_rss_mb": 99.0,
        "bare_imports_ms": 80.0,
        "queries_per_s": 66_660.0,
    }
    names = ("static", "static [fast]", "encoder", "model2vec", "semantic-router")
    run["rows"] = [{**own, "name": name} for name in names]
    run["rows"][4]["p50_ms"] = 0.3
    (results / "PEERS").write_text(json.dumps(run | {"runs": 5}), "utf-8")
    start = {"import_ms": 40.0, "load_ms": 220.0, "first_answer_ms": 20.0, "third_library_ms": 20.0, "peak_mb": 1.0}
    budget = {"bundles": [{"student": "static", "start": {}}, {"student": "encoder", "start": start}]}
    (results / "BUDGET").write_text(json.dumps(budget), "utf-8")
    loop = {"late": late(), "held": {"p100_ms": 1.5, "n_held": 0, "n": 1000}}
    (results / "THROUGHPUT").write_text(json.dumps({"bundles": {"encoder": loop}}), "utf-8")
    for row in run["rows"]:
        row |= {"p50_ms": 2 * row["p50_ms"], "serving_rss_mb": 45.0}
    del run["rows"][3]
    (results / "BUSY").write_text(json.dumps(run | {"commit": "newer"}), "utf-8")
    lines = peers_table.limits().splitlines()
    assert lines[0] == "| | limit | 2026-01-02, older | 2026-01-02, newer |"
    assert "| `static`, p50, µs | 35 | 30: stands | 60: missed, 1.71 times the limit |" in lines
    assert (
        "| `static`, p50 over that of model2vec | 0.35 | 1: missed, 2.86 times the limit | not measured: model2vec did not run |"
        in lines
    )
    assert "| `encoder`, p50 over that of semantic-router | 0.125 | 0.1: stands | 0.1: stands |" in lines
    assert "| `static`, first answer above bare imports, ms | 250 | 220: stands | 220: stands |" in lines
    assert "| `static`, memory, MB | 90 | 99: missed, 1.10 times the limit | 45: stands |" in lines
    rate = "66,700: missed, 0.67 times the limit"
    assert f"| `static`, queries a second in batches | at least 100,000 | {rate} | {rate} |" in lines
    over = "2: missed, 0.50 times the limit"
    assert any(line.startswith(f"| `encoder`, in batches over one by one | at least 4 | {over} | 4") for line in lines)
    own_start = "`encoder`, the same in the budget above, less tokenizers, ms"
    assert f"| {own_start} | 250 | 260: missed, 1.04 times the limit |" in lines
    assert (
        "| `encoder`, longest that `aroute_batch` of 256 queries keeps the interpreter, ms | 2 | 1.5: stands |" in lines
    )
    assert "| `encoder`, latest turn of a loop beside it, ms | 2 | 5: missed, 2.50 times the limit |" in lines
    assert any("over that of the first: static 2.00, static [fast] 2.00, " in line for line in lines)
    assert any(line.startswith("How each was set up: ") and "model2vec: by the book" in line for line in lines)
    assert "0.20 % of a task's turns come more than 2 ms late beside it, 0.30 % beside a thread" in lines[-1]


def test_calls_about_new_texts_are_told_beside_the_others_where_they_were_timed():
    known = {**ROW, "name": "static", "p50_ms": 0.02}
    assert peers_table._said_of_new_texts({"commit": "c", "rows": [known]}) == ""
    run = {"commit": "c", "rows": [{**known, "first_p50_ms": 0.03}]}
    assert peers_table._said_of_new_texts(run).endswith("about once: static 30.0 (20.0).")


def test_every_run_that_was_logged_is_shown(tmp_path, monkeypatch):
    path = tmp_path / "peers-runs.jsonl"
    for n, commit in enumerate(("first", "second"), start=1):
        row = {
            **ROW,
            "p50_ms": 0.01 * n,
            "p99_ms": 0.03 * n,
            "p50_ms_by_run": [0.01],
            "p99_ms_by_run": [0.02, 0.03 * n],
        }
        names = ("static", "static [fast]", "model2vec", "fastText", "TF-IDF + LR", "another")
        result = {"environment": {"measured_at": "2026-01-01"}, "rows": [{**row, "name": name} for name in names]}
        peers_log.finish({"run": commit, "commit": commit, "set": "birds"}, result, path)
    peers_log.begin("killed", "birds", "of birds", tmp_path / "peers.json")
    monkeypatch.setattr(peers_table, "RUNS", path)
    lines = peers_table.runs().splitlines()
    assert lines[2] == f"| first | birds {'| 10.0 | 20 ' * 5}| 1.000 |"
    assert lines[3] == f"| second | birds {'| 20.0 | 40 ' * 5}| 1.000 |"
    assert "p99 in each pass of the last run: static 20, 60;" in lines[-1]
