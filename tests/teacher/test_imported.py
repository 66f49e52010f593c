"""Answers paid for elsewhere, and a file of human labels as the teacher."""

from __future__ import annotations

import contextlib
import json
import re

import project
import pytest
from bundles import build_bundle
from fake_server import FakeServer
from hypothesis import given
from hypothesis import strategies as st
from teacher_specs import INTENTS, PRICE, TEXTS, ledger_lines, write_queries
from typer.testing import CliRunner

from distill import pipeline
from distill.cli import app
from distill.data import ledger_key, read_labels
from distill.errors import DataError, DistillError, LedgerError, SpecError
from distill.spec import Spec, load_spec
from distill.teacher import imported
from distill.teacher.imported import import_answers
from distill.teacher.label import label, plan_labels, recorded_labels
from distill.teacher.ledger import AppendLog
from distill.teacher.relabel import Case, relabel
from distill.types import Task, Usage

UNPAID = "https://example.invalid/v1"
"""Where asking would be an error: no key is set."""


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def answers(tmp_path):
    lines = [{"text": text, "intent": "refund" if "refund" in text else "oos"} for text in TEXTS]
    return write_lines(tmp_path / "answers.jsonl", lines)


def test_what_was_imported_is_not_asked(make_spec, answers):
    spec = make_spec(UNPAID)
    summary = import_answers(spec, answers)
    assert (summary.n_answers, summary.n_added, summary.n_known, summary.n_missing) == (len(TEXTS), len(TEXTS), 0, 0)
    assert label(spec, show_progress=False).n_recorded == len(TEXTS)
    assert plan_labels(spec).n_missing == 0
    assert {text: dict(answer.scores) for text, answer in recorded_labels(spec, TEXTS).items()} == {
        text: {"refund" if "refund" in text else "oos": 1.0} for text in TEXTS
    }


def test_only_the_rest_is_asked(server, make_spec, answers):
    spec = make_spec(server.base_url, [*TEXTS, "a new parcel"])
    assert import_answers(spec, answers).n_missing == 1
    assert label(spec, show_progress=False).n_asked == 1
    assert dict(server.asked) == {"a new parcel": 1}


def test_answers_to_texts_that_are_no_queries_are_counted(make_spec, answers, tmp_path):
    write_lines(tmp_path / "gold.jsonl", [{"text": TEXTS[0], "intent": "refund"}])
    spec = make_spec(UNPAID, TEXTS[1:3], gold="gold.jsonl")
    assert import_answers(spec, answers).n_elsewhere == len(TEXTS) - 3
    spec.queries_path.unlink()
    assert import_answers(spec, answers).n_elsewhere == 0


def test_a_line_has_what_the_contract_names_and_says_where_it_came_from(make_spec, tmp_path):
    spec = make_spec(UNPAID)
    path = write_lines(
        tmp_path / "answers.jsonl",
        [
            {
                "text": "where is it", "scores": {"refund": 0.25, "track_order": 0.75}, "model": "gpt-4o", "latency_ms": 812,
                "usage": {"prompt_tokens": 90, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}},
                "asked_at": "2026-02-01T10:00:00+01:00",
            },
            {"text": "give it back", "intent": " refund ", "prompt_tokens": 7, "completion_tokens": 1},
        ],
    )  # fmt: skip
    summary = import_answers(spec, path, teacher="old prompt")
    assert summary.teachers == {"gpt-4o": 1, "old prompt": 1}
    first, second = ledger_lines(spec)
    for line in (first, second):
        assert line["key"] == ledger_key(line["teacher"], line["prompt_sha256"], line["text"], line["sample"])
        assert line["teacher"] == "fake"
        assert line["carried_from"]["file"] == "answers.jsonl"
    assert first["carried_from"]["teacher"] == "gpt-4o"
    assert first["scores"] == {"refund": 0.25, "track_order": 0.75}
    assert [first[name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")] == [90, 5, 64]
    assert (first["latency_ms"], first["asked_at"]) == (812.0, "2026-02-01T09:00:00.000Z")
    assert second["carried_from"]["teacher"] == "old prompt"
    assert second["scores"] == {"refund": 1.0}
    assert second["asked_at"] == second["carried_from"]["imported_at"]
    assert next(iter(read_labels(spec.ledger_path))).usage.cached_tokens == 64


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 90, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 64}},  # OpenAI's Responses
        {
            "input_tokens": 20,
            "output_tokens": 5,
            "cache_read_input_tokens": 64,
            "cache_creation_input_tokens": 6,
        },  # Anthropic's
    ],
)
def test_tokens_are_counted_however_the_provider_spells_them(make_spec, tmp_path, usage):
    spec = make_spec(UNPAID)
    lines = [
        {"text": "where is it", "intent": "refund", "usage": usage},
        {"text": "b", "intent": "refund", "input_tokens": 3},
    ]
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", lines))
    first, second = (label.usage for label in read_labels(spec.ledger_path))
    assert first == Usage(90, 5, 64)
    assert second == Usage(3, None, None)


def test_what_is_null_beside_the_text_hides_no_usage(make_spec, tmp_path):
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    line = {"text": "where is it", "intent": "refund", "prompt_tokens": None, "cached_tokens": None, "usage": usage}
    spec = make_spec(UNPAID)
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", [line]))
    assert next(iter(read_labels(spec.ledger_path))).usage == Usage(5, 2, None)


def test_importing_twice_adds_nothing(make_spec, answers):
    spec = make_spec(UNPAID)
    import_answers(spec, answers)
    before = spec.ledger_path.read_bytes()
    summary = import_answers(spec, answers)
    assert (summary.n_added, summary.n_known) == (0, len(TEXTS))
    assert spec.ledger_path.read_bytes() == before


def test_a_text_that_stands_twice_has_the_last_answer_and_stays_idempotent(make_spec, tmp_path):
    spec = make_spec(UNPAID, ["caf\u00e9"])
    lines = [{"text": "caf\u00e9", "intent": "oos"}, {"text": "cafe\u0301", "intent": "refund"}]
    path = write_lines(tmp_path / "answers.jsonl", lines)
    summary = import_answers(spec, path)
    assert (summary.n_answers, summary.n_added, summary.n_repeated) == (1, 1, 1)
    assert recorded_labels(spec, ["caf\u00e9"])["caf\u00e9"].scores == {"refund": 1.0}
    assert import_answers(spec, path).n_added == 0


def test_answers_that_contradict_each_other_are_named_with_what_is_taken(make_spec, tmp_path):
    spec = make_spec(UNPAID, ["a", "b", "c"])
    given = [
        {"text": "a", "intent": "refund"},
        {"text": "b", "intent": "refund"},
        {"text": "a", "intent": "oos"},
        {"text": "b", "scores": {"refund": 0.8, "oos": 0.2}},  # less sure, but the same
        {"text": "c", "intent": "refund"},
        {"text": "a", "intent": "track_order"},
        {"text": "c", "intent": "oos"},
        {"text": "c", "intent": "refund"},
        {"text": "c", "intent": "oos", "sample": 1},  # another answer of the same teacher
    ]
    path = write_lines(tmp_path / "answers.jsonl", given)
    done = project.distill("label", spec.path, "--import", path)
    assert done.exit_code == 0, done.output
    assert (
        f"label: {path}: 2 texts have two answers each that contradict each other; the later line is taken\n"
        "  'a' is oos in line 3 and track_order in line 6\n"
        "  'c' is oos in line 7 and refund in line 8\n"
    ) in done.stderr
    assert recorded_labels(spec, ["a"])["a"].scores == {"track_order": 1.0}
    shown = json.loads(project.distill("label", spec.path, "--import", path, "--json").stdout)
    assert [one["line_taken"] for one in shown["contradictions"]] == [6, 8]


def test_of_many_contradictions_some_are_named(make_spec, tmp_path):
    lines = [{"text": str(n), "intent": intent} for intent in ("refund", "oos") for n in range(9)]
    spec = make_spec(UNPAID, ["a"])
    done = project.distill("label", spec.path, "--import", write_lines(tmp_path / "answers.jsonl", lines))
    assert done.stderr.count(" in line ") == 10
    assert "  and 4 more\n" in done.stderr


@pytest.mark.parametrize(
    ("task", "first", "second", "words"),
    [
        ("multi", {"intents": ["refund", "track_order"]}, {"intents": []}, ("refund, track_order", "none")),
        ("multi", {"scores": {"refund": 0.9}}, {"scores": {"refund": 0.6, "track_order": 0.1}}, None),
        ("weights", {"weights": {"refund": 3, "cancel_order": 1}}, {"weights": {"refund": 6, "cancel_order": 2}}, None),
        ("weights", {"weights": {"refund": 1, "cancel_order": 1}}, {"weights": {"cancel_order": 1, "refund": 1}}, None),
        ("weights", {"weights": {"refund": 3, "cancel_order": 1}}, {"weights": {"refund": 1}}, ("refund 0.75, cancel_order 0.25", "refund 1.00")),
    ],
)  # fmt: skip
def test_labels_of_every_task_can_contradict(by_hand, capsys, task, first, second, words):
    spec = by_hand([{"text": "a"} | first, {"text": "a"} | second], task=task)
    label(spec, show_progress=False)
    said = capsys.readouterr().err
    expected = f"  'a' is {words[0]} in line 1 and {words[1]} in line 2\n" if words else ""
    assert said.partition("; the later line is taken\n")[2] == expected


@pytest.mark.parametrize("profile", ["normal", "schema-refusing"])
def test_what_is_imported_later_takes_the_place_of_the_answer_before(make_spec, tmp_path, profile):
    with FakeServer(profile) as fake:
        spec = make_spec(fake.base_url, ["my parcel", "your parcel"])
        label(spec, show_progress=False)
    n_lines = len(ledger_lines(spec))
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "my parcel", "intent": "refund"}])
    assert import_answers(spec, path).n_added == 1
    assert len(ledger_lines(spec)) == n_lines + 1, "the paid answer is kept"
    assert recorded_labels(spec, ["my parcel"])["my parcel"].scores == {"refund": 1.0}
    assert import_answers(spec, path).n_added == 0
    assert recorded_labels(spec, ["your parcel"])["your parcel"].scores == {"track_order": 1.0}


def test_an_import_takes_the_place_of_no_later_answer(server, make_spec, tmp_path):
    spec = make_spec(server.base_url, ["my parcel", "your parcel"])
    label(spec, show_progress=False)
    before = spec.ledger_path.read_bytes()
    lines = [
        {"text": "my parcel", "intent": "refund", "asked_at": "2020-01-31T00:00:00Z"},
        {"text": "your parcel", "intent": "track_order", "asked_at": "2020-01-31T00:00:00Z"},
    ]
    path = write_lines(tmp_path / "answers.jsonl", lines)
    done = project.distill("label", spec.path, "--import", path)
    assert done.stdout.rstrip().endswith(f"0 added to {spec.ledger_path}, 1 there already")
    assert f"answers of {path} left out: 1; the ledger has another one that was given later" in done.stderr
    assert spec.ledger_path.read_bytes() == before
    lines[0]["asked_at"] = "2999-01-31T00:00:00Z"
    assert import_answers(spec, write_lines(path, lines)).n_added == 1
    assert recorded_labels(spec, ["my parcel"])["my parcel"].scores == {"refund": 1.0}


def test_when_an_answer_was_given_that_did_not_say_so_is_not_known(make_spec, tmp_path):
    spec, path = make_spec(UNPAID, ["a"]), tmp_path / "answers.jsonl"
    import_answers(spec, write_lines(path, [{"text": "a", "intent": "refund"}]))
    line = {"text": "a", "intent": "oos", "asked_at": "2020-01-31T00:00:00Z"}
    summary = import_answers(spec, write_lines(path, [line]))
    assert (summary.n_added, summary.n_kept) == (1, 0)


def test_an_import_takes_the_place_of_no_decision(server, make_spec, tmp_path):
    spec = make_spec(server.base_url, ["my parcel"])
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "my parcel", "intent": "refund"}])
    import_answers(spec, path)
    assert relabel(spec, [Case("my parcel")], samples=3, show_progress=False).n_changed == 1
    summary = import_answers(spec, path)
    assert (summary.n_added, summary.n_known, summary.n_kept) == (0, 0, 1)
    assert recorded_labels(spec, ["my parcel"])["my parcel"].scores == {"refund": 0.25, "track_order": 0.75}


def test_a_name_that_was_another_once_does_not_matter_where_a_later_line_answers(make_spec, tmp_path):
    spec = make_spec(UNPAID, ["a", "b"])
    lines = [{"text": "a", "intent": "money"}, {"text": "b", "intent": "oos"}, {"text": "a", "intent": "refund"}]
    path = write_lines(tmp_path / "answers.jsonl", lines)
    summary = import_answers(spec, path)
    assert (summary.n_answers, summary.n_repeated, len(summary.contradictions)) == (2, 1, 1)
    assert recorded_labels(spec, ["a"])["a"].scores == {"refund": 1.0}
    with pytest.raises(DataError, match=r"answers\.jsonl:4: the intent 'money' does not exist"):
        import_answers(spec, write_lines(path, [*lines, {"text": "a", "intent": "money"}]))


def test_all_names_that_are_none_are_named_with_what_maps_them(make_spec, tmp_path):
    spec = make_spec(UNPAID, ["a"])
    lines = [{"text": f"{kind} {n}", "intent": f"kind {kind}"} for kind in range(12) for n in range(12 - kind)]
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "a", "intent": "refund"}, *lines])
    with pytest.raises(DataError) as caught:
        import_answers(spec, path)
    said = str(caught.value)
    assert said.startswith(f"{path}:2: the intent 'kind 0' does not exist")
    assert "the 10 commonest of 12: 'kind 0' 12, 'kind 1' 11, " in said
    assert f"in {spec.path}: teacher: {{answer_map: {{'kind 0': NAME, 'kind 1': NAME, " in said
    assert "kind 10" not in said


@pytest.mark.parametrize("content", ["\ufefftext,intent\na,refund\n", '\n[{"text": "a", "intent": "refund"}]\n'])
def test_what_is_no_jsonl_is_refused_as_such(make_spec, tmp_path, content):
    spec, path = make_spec(UNPAID, ["a"]), tmp_path / "answers.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        DataError, match=r'answers\.csv:\d: import takes JSONL, one {"text": ..., "intent": ...} a line'
    ):
        import_answers(spec, path)


def test_what_was_paid_elsewhere_is_not_spent_here(server, make_spec, tmp_path):
    spec = make_spec(server.base_url, ["a", "b"], teacher={"price": PRICE, "max_usd": 1})
    usage = {"prompt_tokens": 10**9, "completion_tokens": 10**9, "latency_ms": 5}
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", [{"text": "a", "intent": "oos", **usage}]))
    assert float(label(spec, show_progress=False).spent_usd) == pytest.approx(0.0002)


def test_a_ledger_of_another_folder_can_be_imported(server, make_spec, tmp_path):
    spec = make_spec(server.base_url)
    label(spec, show_progress=False)
    spec.ledger_path.rename(tmp_path / "old.jsonl")
    with (tmp_path / "old.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"text": "unlucky", "error": "timed out", "key": "k", "teacher": "fake"}) + "\n")
    other = make_spec(UNPAID, teacher={"model": "another"}, intents={**INTENTS, "refund": "Other words"})
    summary = import_answers(other, tmp_path / "old.jsonl")
    assert (summary.n_added, summary.n_failed, summary.teachers) == (len(TEXTS), 1, {"fake": len(TEXTS)})
    assert label(other, show_progress=False).n_recorded == len(TEXTS)
    carried = {line["carried_from"]["prompt_sha256"] for line in ledger_lines(other)}
    assert carried == {json.loads((tmp_path / "old.jsonl").read_text().splitlines()[0])["prompt_sha256"]}


def test_names_go_through_the_answer_map(make_spec, tmp_path):
    spec = make_spec(UNPAID, ["a"], teacher={"answer_map": {"Money back!": "refund", "other": "oos"}})
    lines = [{"text": "a", "scores": {"Money back!": 0.5, "refund": 0.25, "other": 0.25}}]
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", lines))
    assert recorded_labels(spec, ["a"])["a"].scores == {"refund": 0.75, "oos": 0.25}


def test_several_names_of_one_intent_do_not_count_twice(make_spec, tmp_path):
    names = {"answer_map": {"money_back": "refund", "nothing": None}}
    spec = make_spec(UNPAID, ["a"], teacher=names, task="multi", out_of_scope=False)
    line = {"text": "a", "intents": ["money_back", "refund"]}
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", [line, {"text": "b", "intents": ["nothing"]}]))
    found = recorded_labels(spec, ["a", "b"])
    assert found["a"].scores == {"refund": 1.0}
    assert found["b"].scores == {}


def test_texts_are_redacted_before_they_are_stored(make_spec, tmp_path):
    (tmp_path / "import_redaction.py").write_text("def redact(text):\n    return text.replace('4711', '#')\n")
    spec = make_spec(UNPAID, ["refund 4711"], teacher={"redact": "import_redaction:redact"})
    import_answers(spec, write_lines(tmp_path / "answers.jsonl", [{"text": "refund 4711", "intent": "refund"}]))
    assert "4711" not in spec.ledger_path.read_text()
    assert label(spec, show_progress=False).n_recorded == 1


@pytest.mark.parametrize(
    ("keys", "line", "scores"),
    [
        ({}, {"intent": None}, {"oos": 1.0}),
        ({}, {"intent": None, "scores": {"refund": 0.5, "oos": 0.5}}, {"refund": 0.5, "oos": 0.5}),
        ({"task": "multi", "out_of_scope": False}, {"intent": None}, {}),
        ({"task": "multi", "out_of_scope": False}, {"intents": None}, {}),
        ({"task": "multi", "out_of_scope": False}, {"intent": None, "intents": ["refund"]}, {"refund": 1.0}),
    ],
)
def test_an_intent_that_is_null_fits_none(make_spec, tmp_path, keys, line, scores):
    spec = make_spec(UNPAID, ["a", "b"], **keys)
    failed = {"text": "b", "intent": None, "error": "timed out"}
    summary = import_answers(spec, write_lines(tmp_path / "answers.jsonl", [{"text": "a", **line}, failed]))
    assert (summary.n_added, summary.n_failed, summary.n_missing) == (1, 1, 1)
    (answer,) = recorded_labels(spec, ["a", "b"]).values()
    assert dict(answer.scores) == scores


@pytest.mark.parametrize(
    "line", [{"intent": "refund"}, {"intent": "typo"}, {"intents": None, "intent": "refund"}, {"intent": 5}]
)
def test_in_multi_a_single_intent_is_no_answer_and_not_lost(make_spec, tmp_path, line):
    spec = make_spec(UNPAID, task="multi", out_of_scope=False)
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "a", **line}])
    with pytest.raises(DataError, match=r'answers\.jsonl:1: no answer; `task: multi` takes "intents" or "scores"'):
        import_answers(spec, path)
    assert not spec.ledger_path.exists()


def test_an_intent_that_is_null_is_an_error_where_every_query_has_one(make_spec, tmp_path):
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "a", "intent": "refund"}, {"text": "b", "intent": None}])
    spec = make_spec(UNPAID, out_of_scope=False)
    with pytest.raises(DataError) as caught:
        import_answers(spec, path)
    assert str(caught.value) == (
        f"{path}:2: \"intent\" is null: the intent 'oos' needs `out_of_scope: true` in router.yaml"
    )
    assert not spec.ledger_path.exists()


def test_people_who_gave_no_label_did_not_say_that_none_fits(by_hand):
    with pytest.raises(DataError, match=r"labelled\.jsonl:2: no answer"):
        label(by_hand(labelled(("a", "refund"), ("b", None)), out_of_scope=True), show_progress=False)


WRONG = {
    '{"text": "a", "scores": null}': "no answer; `task: single` takes",
    '{"text": "a"}': 'no answer; `task: single` takes "intent" or "scores" beside "text"',
    '{"text": "a", "intents": ["refund"]}': "no answer; `task: single` takes",
    '{"intent": "refund"}': 'has no "text"; its keys: intent',
    '{"text": "a", "intent": "refnd"}': "the intent 'refnd' does not exist; did you mean 'refund'?",
    '{"text": "a", "intent": "out_of_scope"}': "a query that fits none is 'oos'",
    '{"text": "a", "intent": 3}': '"intent" is the name of an intent, found 3',
    '{"text": "a", "scores": [0.5]}': '"scores" is {name: number}, found [0.5]',
    '{"text": "a", "scores": {"refund": -1}}': "the score of 'refund' must be a number from 0 on, found -1",
    '{"text": "a", "scores": {"refund": true}}': "found True",
    '{"text": "a", "scores": {"refund": NaN}}': "found nan",
    '{"text": "a", "scores": {"refund": 0, "oos": 0}}': 'the numbers in "scores" are all 0',
    '{"text": "a", "scores": {}}': "are all 0",
    '{"text": "a", "intent": "refund", "prompt_tokens": 1.5}': '"prompt_tokens" must be a whole number from 0 on',
    '{"text": "a", "intent": "refund", "usage": 7}': '"usage" is {"prompt_tokens"',
    '{"text": "a", "intent": "refund", "latency_ms": "fast"}': '"latency_ms" must be a number from 0 on',
    '{"text": "a", "intent": "refund", "asked_at": "yesterday"}': '"asked_at" must be a time such as 20',
    '{"text": "a", "intent": "refund", "teacher": 1}': '"teacher" must be text, found 1',
    '{"text": "a", "intent": "refund", "sample": -1}': '"sample" must be a whole number',
    '{"text": "half \\ud83d", "intent": "refund"}': "half a surrogate pair",
    "[1]": "expected a JSON object",
    '{"text": "a", "intent"': "not a JSON object",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_named_and_nothing_is_imported(make_spec, tmp_path, line):
    spec = make_spec(UNPAID)
    path = tmp_path / "answers.jsonl"
    path.write_text('{"text": "good", "intent": "refund"}\n' + line + '\n{"text": "b", "intent": "oos"}\n')
    with pytest.raises(DataError) as caught:
        import_answers(spec, path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert WRONG[line] in str(caught.value)
    assert not spec.ledger_path.exists()


VALUE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["refund", "oos"])
)
JSON = (
    VALUE
    | st.lists(VALUE, max_size=3)
    | st.dictionaries(st.sampled_from(["refund", "oos", "x", "prompt_tokens"]), VALUE)
)


@given(values=st.lists(JSON, min_size=5, max_size=5))
def test_any_line_is_read_or_refused(values):
    raw = {"name": "a", "intents": {"refund": "", "x": ""}, "out_of_scope": True, "teacher": {"model": "m"}}
    spec = Spec.model_validate(raw)
    line = dict(zip(("intent", "scores", "usage", "latency_ms", "asked_at"), values, strict=True))
    with contextlib.suppress(DataError):
        scores = imported._scores("f:1", line, spec, {"refund": "refund", "oos": "oos"})
        assert scores is None or sum(scores.values()) > 0
    for read in (imported._usage, imported._latency_ms, imported._asked_at):
        with contextlib.suppress(DataError):
            json.dumps(read("f:1", line), default=str)


@pytest.mark.parametrize(
    "content", ["", "\n\n", '{"text": " ", "intent": "refund"}\n', '{"text": "a", "error": "x"}\n']
)
def test_a_file_without_an_answer(make_spec, tmp_path, content):
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(DataError, match="holds no answer"):
        import_answers(make_spec(UNPAID), tmp_path / "answers.jsonl")


def test_a_ledger_that_is_being_written_is_left_alone(make_spec, answers):
    spec = make_spec(UNPAID)
    with AppendLog(spec.ledger_path), pytest.raises(LedgerError, match="another process is writing"):
        import_answers(spec, answers)
    assert ledger_lines(spec) == []


def test_without_queries_it_is_not_known_what_is_missing(make_spec, answers):
    assert import_answers(make_spec(UNPAID, None), answers).n_missing is None


def test_the_file_may_be_the_queries_too(make_spec, answers):
    spec = make_spec(UNPAID, None, queries="answers.jsonl")
    import_answers(spec, answers)
    assert label(spec, show_progress=False).n_recorded == len(TEXTS)


# --- human labels as the teacher -------------------------------------------------------------------------------------


@pytest.fixture
def by_hand(tmp_path):
    """A spec whose teacher is a file of human labels."""

    def make(lines, **keys):
        write_lines(tmp_path / "labelled.jsonl", lines)
        raw = {"name": "shop", "intents": INTENTS, "teacher": {"labels": "labelled.jsonl"}, **keys}
        (tmp_path / "router.yaml").write_text(json.dumps(raw), encoding="utf-8")
        return load_spec(tmp_path)

    return make


def labelled(*pairs):
    return [{"text": text, "intent": intent} for text, intent in pairs]


def test_human_labels_need_no_key_no_model_and_no_queries_of_their_own(by_hand):
    spec = by_hand(labelled(("my parcel", "track_order"), ("my money", "refund")))
    assert spec.queries_path == spec.labels_path
    assert plan_labels(spec).n_missing == 2
    assert plan_labels(spec).estimated_usd == 0
    summary = label(spec, show_progress=False)
    assert (summary.n_texts, summary.n_asked, summary.n_failed, summary.spent_usd) == (2, 2, 0, 0)
    assert summary.teacher == "human labels (labelled.jsonl)"
    for line in ledger_lines(spec):
        assert line["key"] == ledger_key(line["teacher"], line["prompt_sha256"], line["text"], line["sample"])
        assert "carried_from" not in line
    assert [example.target.argmax() for example in pipeline.examples(spec)] == [0, 2]
    assert label(spec, show_progress=False).n_asked == 0


def test_a_label_that_was_mended_counts_and_costs_nothing(by_hand):
    label(by_hand(labelled(("my parcel", "refund"), ("my money", "refund"))), show_progress=False)
    spec = by_hand(labelled(("my parcel", "track_order"), ("my money", "refund")))
    assert plan_labels(spec).n_missing == 1
    assert label(spec, show_progress=False).n_asked == 1
    assert recorded_labels(spec, ["my parcel"])["my parcel"].scores == {"track_order": 1.0}


def test_a_label_that_was_taken_out_of_the_file_is_named_with_the_way_to_be_rid_of_it(by_hand, tmp_path, capsys):
    write_queries(tmp_path / "logs.jsonl", ["my parcel", "my money"])
    both = labelled(("my parcel", "track_order"), ("my money", "refund"))
    label(by_hand(both, queries="logs.jsonl"), show_progress=False)
    assert not capsys.readouterr().err
    spec = by_hand(both[:1], queries="logs.jsonl")
    assert label(spec, show_progress=False).n_failed == 0
    said = capsys.readouterr().err
    assert "has no label any more for 1 of the queries, such as 'my money'" in said
    assert "move that file away" in said
    spec.ledger_path.unlink()
    assert label(spec, show_progress=False).n_failed == 1
    assert not capsys.readouterr().err


def test_labels_of_none_of_the_queries_say_so(by_hand, tmp_path):
    write_queries(tmp_path / "logs.jsonl", ["who knows"])
    spec = by_hand(labelled(("my parcel", "track_order")), queries="logs.jsonl")
    done = CliRunner().invoke(app, ["label", str(spec.path)])
    said = rf"{spec.queries_path}: none of its queries has a label in {spec.labels_path}; take `queries` out of"
    assert done.exit_code == 1
    assert said in done.stderr
    with pytest.raises(DataError, match=re.escape(said)):
        pipeline.examples(spec)


def test_labels_that_were_not_copied_yet_are_said_to_be_there(by_hand):
    spec = by_hand(labelled(("my parcel", "track_order"), ("my money", "refund")))
    with pytest.raises(DataError, match=r"holds no label of the queries yet; `distill label .*` copies those of"):
        pipeline.examples(spec)


def test_queries_without_a_human_label_are_counted_not_asked(by_hand, tmp_path):
    write_queries(tmp_path / "logs.jsonl", ["my parcel", "who knows"])
    (tmp_path / "gold.jsonl").write_text('{"text": "gold", "intent": "refund"}\n')
    spec = by_hand(
        labelled(("my parcel", "track_order"), ("not asked", "refund")), queries="logs.jsonl", gold="gold.jsonl"
    )
    summary = label(spec, show_progress=False)
    assert (summary.n_texts, summary.n_asked, summary.n_failed) == (2, 1, 1)
    assert [line["text"] for line in ledger_lines(spec)] == ["my parcel"]


@pytest.mark.parametrize(
    ("task", "line", "target"),
    [
        ("multi", {"text": "a", "intents": ["refund", "track_order"]}, [1, 0, 1]),
        ("multi", {"text": "a", "intents": []}, [0, 0, 0]),
        ("weights", {"text": "a", "weights": {"refund": 3, "cancel_order": 1}}, [0, 0.25, 0.75]),
    ],
)
def test_human_labels_of_every_task(by_hand, task, line, target):
    spec = by_hand([line], task=task)
    assert label(spec, show_progress=False).n_failed == 0
    (example,) = pipeline.examples(spec)
    assert spec.task is Task(task)
    assert example.target.tolist() == pytest.approx(target)


def test_several_intents_have_scores_up_to_one(by_hand):
    with pytest.raises(
        DataError, match=r"labelled\.jsonl:1: the score of 'refund' must be a number from 0 to 1, found 3"
    ):
        label(by_hand([{"text": "a", "scores": {"refund": 3}}], task="multi"), show_progress=False)


def test_synth_leaves_labelled_queries_alone(by_hand):
    with pytest.raises(SpecError, match=r"`teacher\.labels: labelled\.jsonl` names your own queries"):
        pipeline.synth(by_hand(labelled(("a", "refund"))))


def test_another_teacher_labels_the_same_queries(by_hand, tmp_path):
    by_hand(labelled(("my parcel", "refund")))
    spec = load_spec(tmp_path, teacher_model="m")
    assert (spec.teacher_name, spec.labels_path, spec.queries_path) == ("m", None, tmp_path / "labelled.jsonl")
    assert plan_labels(spec).n_missing == 1


def test_a_file_of_labels_that_is_not_there(by_hand):
    spec = by_hand(labelled(("a", "refund")))
    spec.labels_path.unlink()
    with pytest.raises(DataError, match=r"labelled\.jsonl: cannot be read"):
        label(spec, show_progress=False)


def test_bench_says_that_the_teacher_is_human_labels(tmp_path, capsys):
    path = project.write_project(tmp_path, teacher="{labels: labelled.jsonl}")
    gold = {json.loads(line)["text"] for line in (tmp_path / "gold.jsonl").read_text().splitlines()}
    pairs = [pair for pair in project.make_texts(project.SHOP, 12) if pair[0] not in gold]
    write_lines(tmp_path / "labelled.jsonl", labelled(*pairs))
    spec = load_spec(path)
    assert pipeline.plan(spec).estimated_usd == 0
    label(spec, show_progress=False)
    data_sha256 = pipeline._training_data(spec, pipeline.examples(spec)).data_sha256
    for student in spec.students:
        build_bundle(tmp_path / "out" / student, student=student, data_sha256=data_sha256)
    inputs = pipeline._bench_inputs(spec, tmp_path / "out", None)
    assert inputs.teacher is None
    assert inputs.provenance["teacher"] == "human labels (labelled.jsonl)"
    assert "no teacher row: the teacher is human labels (labelled.jsonl)" in capsys.readouterr().err


def test_the_teacher_row_is_of_who_gave_the_answers(make_spec, answers):
    spec = make_spec(UNPAID)
    import_answers(spec, answers, teacher="gpt-4o")
    assert pipeline._who_answered(spec, recorded_labels(spec, TEXTS)) == ["gpt-4o"]
    assert pipeline._who_answered(spec, {}) == ["fake"]


@pytest.mark.parametrize(
    ("names", "has_price"), [(["gpt-4o"], True), (["claude-sonnet-4-5", "gpt-5-mini"], False), (["fake"], False)]
)
def test_tokens_of_several_models_have_no_common_price(make_spec, names, has_price):
    assert (pipeline._price_of(make_spec(UNPAID), names) is not None) is has_price
    priced = make_spec(UNPAID, teacher={"price": PRICE})
    assert (pipeline._price_of(priced, names) is not None) is (len(names) == 1)


def test_answers_that_were_asked_for_again_are_no_labels(make_spec, tmp_path):
    lines = [
        {"text": "my parcel", "intent": "track_order", "teacher": "gpt-4o"},
        {"text": "my parcel", "intent": "refund", "teacher": "gpt-4o", "settings": {"stage": "relabel"}},
    ]
    path = tmp_path / "theirs.jsonl"
    write_lines(path, lines)
    spec = make_spec(UNPAID, ["my parcel"])
    assert import_answers(spec, path).contradictions == ()
    assert recorded_labels(spec, ["my parcel"])["my parcel"].scores["track_order"] == 1


# --- answers that name no intent -------------------------------------------------------------------------------------


def test_unmatched_answers_are_counted_and_the_ten_commonest_named(make_spec, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.txt").write_text("Which? {query}")
    texts = [f"{kind} {number}" for kind in range(11) for number in range(12 - kind)] + ["a refund"]
    with FakeServer() as fake:
        fake.respond = lambda body, query: fake.completion(
            "refund" if "refund" in (said := body["messages"][0]["content"]) else f"Kind {said.split()[1]}."
        )
        spec = make_spec(fake.base_url, texts, teacher={"prompt": "mine.txt", "concurrency": 1})
        monkeypatch.setattr("distill.teacher.failures._MOST", 1000)
        summary = label(spec, show_progress=False)
    assert summary.n_unmatched == summary.n_failed == len(texts) - 1
    assert list(summary.unmatched.items()) == [(f"Kind {kind}.", 12 - kind) for kind in range(10)]
    said = capsys.readouterr().err
    assert f"answers that name no intent: {len(texts) - 1}, the 10 commonest of 11\n      12  'Kind 0.'\n" in said
    assert "answer_map: {'Kind 0.': NAME}" in said
    assert "not JSON" not in said + spec.ledger_path.read_text()


def test_a_run_that_stops_names_them_too(make_spec, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("Which? {query}")
    with FakeServer() as fake:
        fake.respond = lambda body, query: fake.completion("Refunds")
        spec = make_spec(
            fake.base_url, [f"refund {n}" for n in range(20)], teacher={"prompt": "mine.txt", "concurrency": 1}
        )
        with pytest.raises(
            DistillError, match="12 queries in a row failed, the last one: the answer is no intent: 'Refunds'"
        ):
            label(spec, show_progress=False)
    assert "answers that name no intent: 12\n      12  'Refunds'" in capsys.readouterr().err


CALLABLES = {
    "None": "the function must return the name of an intent or {name: score}, found None: does it lack a return?",
    "('refund', 0.9)": "found the tuple ('refund', 0.9); return {'refund': 0.9}",
    "['refund']": "found list: ['refund']",
    "3": "found int: 3",
    "'out_of_scope'": "no intent: 'out_of_scope' (the intent 'out_of_scope' does not exist; a query that fits none is 'oos')",
    "'refnd'": "no intent: 'refnd' (the intent 'refnd' does not exist; did you mean 'refund'?)",
    "{}": "the answer is no intent: '{}'",
    "{'refund': 10 ** 400}": "too large",
}


@pytest.mark.parametrize("answer", CALLABLES)
def test_what_a_function_may_not_return_is_said_with_what_it_should(make_spec, tmp_path, answer):
    module = f"teacher_of_test_{list(CALLABLES).index(answer)}"
    (tmp_path / f"{module}.py").write_text(f"def route(text):\n    return {answer}\n")
    spec = make_spec(None, ["a"], teacher={"model": None, "callable": f"{module}:route"})
    summary = label(spec, show_progress=False)
    (line,) = ledger_lines(spec)
    assert CALLABLES[answer] in line["error"]
    assert summary.n_unmatched == ("no intent" in line["error"])


def test_a_function_is_told_of_names_without_an_answer_map(make_spec, tmp_path, capsys):
    (tmp_path / "teacher_of_other_names.py").write_text("def route(text):\n    return 'Refunds'\n")
    spec = make_spec(None, ["a"], teacher={"model": None, "callable": "teacher_of_other_names:route"})
    label(spec, show_progress=False)
    said = capsys.readouterr().err
    assert "answers that name no intent: 1" in said
    assert "answer_map" not in said


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_took(make_spec, answers):
    spec = make_spec(UNPAID, [*TEXTS, "one more"])
    done = project.distill("label", spec.path, "--import", answers, "--imported-from", "gpt-4o")
    assert done.exit_code == 0, done.output
    n = len(TEXTS)
    assert done.stdout == f"{n} answers ({n} by gpt-4o): {n} added to {spec.ledger_path}, 0 there already\n"
    assert done.stderr == f"label: queries without an answer: 1; `distill label {spec.path}` asks the teacher\n"
    shown = json.loads(project.distill("label", spec.path, "--import", answers, "--json").stdout)
    assert (shown["n_added"], shown["n_known"], shown["n_missing"]) == (0, n, 1)


def test_the_command_names_the_wrong_line(make_spec, tmp_path):
    path = write_lines(tmp_path / "answers.jsonl", [{"text": "a", "intent": "refund"}, {"text": "b", "intent": "nope"}])
    assert project.fails("label", make_spec(UNPAID).path, "--import", path).startswith(f"{path}:2: the intent 'nope'")


def test_who_gave_the_answers_goes_with_an_import(make_spec):
    done = project.distill("label", make_spec(UNPAID).path, "--imported-from", "gpt-4o")
    assert (done.exit_code, done.stdout) == (2, "")


def test_unmatched_answers_stand_in_the_json(server, make_spec, tmp_path):
    (tmp_path / "mine.txt").write_text("Which? {query}")
    server.respond = lambda body, query: server.completion("Refunds")
    spec = make_spec(server.base_url, ["a", "b"], teacher={"prompt": "mine.txt"})
    done = project.distill("label", spec.path, "--json")
    shown = json.loads(done.stdout)
    assert (shown["n_unmatched"], shown["unmatched"]) == (2, {"Refunds": 2})
    assert "answers that name no intent: 2" in done.stderr


def test_labels_of_people_are_taken_not_requested(by_hand):
    spec = by_hand(labelled(("my parcel", "track_order"), ("my money", "refund")))
    done = project.distill("label", spec.path)
    assert done.stdout == f"2 queries; 2 labels taken from {spec.labels_path}\n"
