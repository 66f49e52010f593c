"""What `distill synth` prints."""

from __future__ import annotations

import json
import re

import pytest
from guides import page
from improvable import ByText, FakeServer
from project import distill, write_project

from distill.cli.synthesis import print_queries
from distill.data import read_jsonl
from distill.embed import NEAR_DUPLICATE
from distill.errors import TrainingError
from distill.teacher import writer
from distill.teacher.pool import Dropped
from distill.teacher.synth import SynthesisSummary


def summary(n, lacking=(), alike=()):
    names = [f"intent_{number:03}" for number in range(n)]
    return SynthesisSummary(
        wanted=dict.fromkeys(names, 60),
        got={name: 60 - (name in lacking) for name in names},
        dropped={name: Dropped(1, 2, 3, 4, 5) for name in names},
        distinct_2=dict.fromkeys(names, 0.75),
        mean_distance={name: 0.2 if name in alike else 0.8 for name in names},
        changed=True,
        n_asked=1,
        n_failed=0,
        last_failure=None,
        n_missing=0,
        spent_usd=None,
    )


def rows(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_row_for_each_target_in_their_order(capsys):
    print_queries(summary(20, lacking=["intent_007"]))
    titles, *lines = rows(capsys)
    assert titles == ["got", "same", "near", "other", "known", "unfit", "distinct-2", "distance"]
    assert [line[0] for line in lines[:20]] == [f"intent_{number:03}" for number in range(20)]
    assert lines[7] == ["intent_007", "59/60", "1", "2", "3", "4", "5", "0.75", "0.80"]
    assert lines[20] == ["all", "1199/1200", "20", "40", "60", "80", "100"]


def test_of_very_many_the_worst_twenty_are_shown(capsys):
    print_queries(summary(150, lacking=["intent_149", "intent_003"], alike=["intent_120"]))
    _, *lines = rows(capsys)
    assert [line[0] for line in lines[:3]] == ["intent_003", "intent_149", "intent_120"]
    assert lines[20][:2] == ["all", "8998/9000"]
    assert " ".join(lines[21]) == "the 20 of 150 that lack most or differ least; --json gives all"


def test_a_long_name_and_figures_that_are_unknown_keep_the_table_narrow(capsys):
    long = "a" * 60
    one = SynthesisSummary(
        {long: 1}, {long: 1}, {long: Dropped()}, {long: None}, {long: None}, True, 1, 0, None, 0, None
    )
    print_queries(one)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["a" * 29 + "...", "1/1", "0", "0", "0", "0", "0"]
    assert max(map(len, printed[:3])) <= 100


def test_the_page_names_the_limits_as_they_are():
    text = " ".join(page("ways-in.md").split())
    assert f"cosine of sentence vectors from {NEAR_DUPLICATE} on" in text
    assert (writer._RIVALS, writer._ROUNDS_PER_WANTED_ROUND) == (2, 4)
    assert "names up to two intents that are near its own" in text
    assert "up to four times the requests" in text


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A project whose queries a server wrote."""
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    with FakeServer() as fake:
        path = write_project(
            tmp_path,
            teacher=f"{{model: fake, base_url: '{fake.base_url}', max_retries: 0}}",
            more="synth: {per_intent: 4, out_of_scope: 4, per_request: 4}\n",
        )
        path.write_text(path.read_text("utf-8").replace("queries: logs.jsonl\n", ""), encoding="utf-8")
        assert distill("synth", path, "--quiet").exit_code == 0
        yield path


def test_a_second_time_the_same_figures_are_shown_and_nothing_is_asked(written):
    first, second = (json.loads(distill("synth", written, "--json").stdout) for _ in range(2))
    assert first == second
    assert (first["changed"], first["n_asked"]) == (False, 0)
    assert set(first["dropped"]) == set(first["wanted"]) == set(first["mean_distance"])
    assert all(0.5 < distance <= 1.5 for distance in first["mean_distance"].values())


def test_without_weights_it_is_said_once_and_queries_are_written(written, monkeypatch):
    def none_there(*_, **__):
        raise TrainingError("no weights, here is how to get them")

    monkeypatch.setattr("distill.student.embedder.embedder_of", none_there)
    for name in ("queries.jsonl", "synth.jsonl"):
        (written.parent / name).unlink()
    done = distill("synth", written)
    assert done.exit_code == 0
    assert done.stderr.count("no weights, here is how to get them") == 1
    assert "only equal queries are left out" in done.stderr
    assert len(list(read_jsonl(written.parent / "queries.jsonl"))) == 16
    lines = [line for _, line in read_jsonl(written.parent / "synth.jsonl")]
    assert not any("rivals" in line for line in lines)


def test_requests_that_failed_are_said_and_how_what_they_lack_is_asked_for(written):
    for name in ("queries.jsonl", "synth.jsonl"):
        (written.parent / name).unlink()
    with FakeServer() as fake:
        text = written.read_text("utf-8")
        written.write_text(re.sub("base_url: '[^']*'", f"base_url: '{fake.base_url}'", text), encoding="utf-8")
        fine = fake.respond
        fake.respond = lambda body, query: (
            fake.completion("I would rather not") if query.startswith("Intent: refund") else fine(body, query)
        )
        done = distill("synth", written, "--quiet")
        assert done.exit_code == 0
        queries = written.parent / "queries.jsonl"
        first, second = done.stderr.splitlines()
        assert first.startswith("synth: requests that failed: 4 of ")
        assert first.endswith(": the answer holds no list of queries: 'I would rather not'")
        assert second == (
            f"synth: queries that {queries} lacks for it: 4; to have only these asked for, remove it and run `distill synth {written}` again"
        )
        fake.respond, n_before = fine, fake.n_requests
        queries.unlink()
        summary = json.loads(distill("synth", written, "--json", "--quiet").stdout)
        assert (len(list(read_jsonl(queries))), summary["n_failed"], summary["n_missing"]) == (16, 0, 0)
        assert 0 < fake.n_requests - n_before < n_before


PRICE = "price: {input_per_mtok: 1000, output_per_mtok: 1000, source: the maker, date: 2026-01-31}"


def priced(path, more=""):
    """The same project with a price, and nothing written or labelled yet."""
    text = path.read_text("utf-8").replace("max_retries: 0", f"max_retries: 0, max_output_tokens: 64, {PRICE}{more}")
    path.write_text(text, encoding="utf-8")
    for name in ("queries.jsonl", "synth.jsonl"):
        (path.parent / name).unlink()
    return path


def test_a_dry_run_says_what_is_to_be_written_and_its_price(written):
    path = priced(written, ", max_usd: 5")
    done = distill("synth", path, "--dry-run")
    first, last = done.stdout.splitlines()
    assert first.startswith("synth   16 queries to write, about 6 requests, USD about ")
    assert "; the limit of --max-usd or teacher.max_usd leaves 5.0000; price" in last
    assert last.endswith("price: the maker, 2026-01-31. Nothing was asked.")
    assert not (path.parent / "synth.jsonl").exists()
    value = json.loads(distill("synth", path, "--dry-run", "--json").stdout)
    assert (value["n_missing"], value["n_requests"]) == (16, 6)
    assert "recorded" not in value


def test_a_dry_run_of_what_is_written_asks_for_nothing(written):
    assert distill("synth", written, "--dry-run").stdout.endswith("Nothing is to be asked, and nothing was.\n")


def test_a_dry_run_of_ones_own_queries_is_an_error(tmp_path):
    done = distill("synth", write_project(tmp_path), "--dry-run")
    assert done.exit_code == 1
    assert "names your own queries" in done.stderr


@pytest.mark.parametrize("command", ["synth", "label", "run"])
def test_a_run_may_be_limited_by_itself(written, command):
    path = priced(written)
    if command == "label":
        assert distill("synth", path, "--quiet").exit_code == 0
    done = distill(command, path, "--max-usd", "0.000001")
    assert done.exit_code == 1
    assert "the spend limit is reached" in done.stderr
    assert not (path.parent / "ledger.jsonl").exists()
    planned = distill(command, path, "--max-usd", "0.000001", "--dry-run").stdout
    assert "it would stop there" in planned


def test_the_limit_of_a_run_is_not_above_that_of_the_file(written):
    path = priced(written, ", max_usd: 0.000001")
    assert "the spend limit is reached" in distill("synth", path, "--max-usd", "5").stderr


def test_an_import_spends_nothing_that_could_be_limited(written):
    done = distill("label", written, "--import", written.parent / "queries.jsonl", "--max-usd", "1")
    assert done.exit_code == 2
