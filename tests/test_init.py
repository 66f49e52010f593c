"""``distill init``: from what one has to a router.yaml that runs, without writing over anything."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from distill import pipeline
from distill.cli import app
from distill.cli import init as command
from distill.data import read_queries
from distill.init.project import _scalar
from distill.spec import load_spec
from distill.teacher.evidence import known_examples
from distill.types import Task

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather.", "parameters": {}}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder; no key is set."""
    (tmp_path / "shop desk").mkdir()
    monkeypatch.chdir(tmp_path / "shop desk")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def distill(*arguments, answers=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answers)


def made(*arguments):
    """The spec that ``init`` wrote, after ``run --dry-run`` passed on it."""
    done = distill("init", *arguments)
    assert done.exit_code == 0, done.output
    spec_path = done.stdout.splitlines()[0]
    dry = distill("run", spec_path, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "Nothing was asked." in dry.stdout
    return load_spec(spec_path)


def refused(*arguments):
    before = sorted(Path().rglob("*"))
    done = distill("init", *arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert sorted(Path().rglob("*")) == before, "nothing was written"
    (line,) = done.stderr.splitlines()
    return line.removeprefix("distill: ")


def write(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


# --- nothing but intents ---------------------------------------------------------------------------------------------


def test_nothing_at_all_gives_a_spec_to_edit():
    spec = made()
    assert spec.name == "shop-desk"
    assert len(spec.intents) == 3
    assert spec.out_of_scope is True
    assert (spec.teacher.model, float(spec.teacher.max_usd)) == ("gpt-5-mini", 5.0)
    assert "# These three are made up: put yours in their place." in Path("router.yaml").read_text()
    assert sorted(path.name for path in Path().iterdir()) == [".gitignore", "router.yaml"]


def test_intents_given_by_hand():
    spec = made(
        "--intent", "refund: Money back: all of it", "--intent", "cancel", "--name", "my-shop", "--no-out-of-scope"
    )
    assert [(each.name, each.description) for each in spec.intent_list] == [
        ("refund", "Money back: all of it"),
        ("cancel", ""),
    ]
    assert (spec.name, spec.out_of_scope) == ("my-shop", False)
    assert "made up" not in Path("router.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("intents.txt", "refund: Money back\n\ncancel: Stop it\n"),
        ("intents.json", {"refund": "Money back", "cancel": {"description": "Stop it", "examples": ["stop"]}}),
        ("intents.yaml", "refund: Money back\ncancel: {description: Stop it}\n"),
        ("names.json", ["refund", "cancel"]),
    ],
)
def test_intents_of_a_file(name, content):
    spec = made("--from", write(f"given/{name}", content))
    assert list(spec.intents) == ["refund", "cancel"]
    assert spec.intents["cancel"].description == ("" if name == "names.json" else "Stop it")


def test_another_model_at_another_place():
    spec = made("--teacher-model", "qwen", "--base-url", "http://127.0.0.1:8080/v1")
    assert (spec.teacher.model, spec.teacher.base_url, spec.teacher.max_usd) == (
        "qwen",
        "http://127.0.0.1:8080/v1",
        None,
    )
    assert "# price: {" in Path("router.yaml").read_text()


def test_every_commented_key_is_one_that_works():
    made()
    text = Path("router.yaml").read_text()
    write("gold.jsonl", jsonl({"text": "where is it", "intent": "track_order"}))
    wanted = re.sub(r"^( *)# ([a-z_]+: \S)", r"\1\2", text, flags=re.MULTILINE)
    assert wanted.count("\n#") < text.count("\n#")
    write("router.yaml", wanted)
    spec = load_spec("router.yaml")
    assert spec.teacher.base_url
    assert spec.gates.p95_ms == 5.0
    assert spec.gold_path.exists()


def test_the_key_stands_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-4711")
    done = distill("init")
    assert "4711" not in done.output + "".join(path.read_text() for path in Path().iterdir())


# --- examples --------------------------------------------------------------------------------------------------------


def test_a_folder_of_examples():
    write("ex/refund.txt", "my money back\n\n give me: a refund \nmy money back\n")
    write("ex/track order.txt", "- where is it # now\nyes\n")
    write("ex/oos.txt", "who painted it\n")
    write("ex/README.txt", "about these files\n")
    spec = made("--from", "ex")
    assert {name: body.examples for name, body in spec.intents.items()} == {
        "refund": ("my money back", "give me: a refund"),
        "track order": ("- where is it # now", "yes"),
    }
    assert spec.out_of_scope_intent.examples == ("who painted it",)
    assert spec.writes_queries


def test_labels_that_fit_no_intent_where_there_is_to_be_none_are_refused():
    for name in ("refund", "cancel", "oos"):
        write(f"ex/{name}.txt", "".join(f"{name} {n}\n" for n in range(12)))
    said = refused("--from", "ex", "--no-out-of-scope")
    assert said.startswith("ex: 12 of its queries fit no intent (oos), such as 'oos 0'; leave --no-out-of-scope out")


def test_many_examples_are_the_teacher():
    write("ex/refund.txt", "".join(f"refund {n}\n" for n in range(12)))
    write("ex/cancel.txt", "".join(f"cancel {n}\n" for n in range(12)))
    spec = made("--from", "ex")
    assert spec.teacher_name == "human labels (labelled.jsonl)"
    assert len(read_queries(spec.queries_path)) == 24
    assert pipeline.label(spec, show_progress=False).n_failed == 0


def test_many_examples_are_few_where_a_model_is_to_label():
    write("ex/refund.txt", "".join(f"refund {n}\n" for n in range(12)))
    write("ex/cancel.txt", "cancel\n")
    spec = made("--from", "ex", "--teacher-model", "gpt-5-mini")
    assert spec.teacher.model == "gpt-5-mini"
    assert len(spec.intents["refund"].examples) == 10


LABELLED = {
    Task.SINGLE: ({"intent": "refund"}, {"intent": "oos"}),
    Task.MULTI: ({"intents": ["refund", "cancel"]}, {"intents": []}),
    Task.WEIGHTS: ({"weights": {"refund": 3, "cancel": 1}}, {"weights": {"cancel": 1.0}}),
}


@pytest.mark.parametrize("task", Task)
def test_a_data_set_folder(task, tmp_path):
    first, second = LABELLED[task]
    lines = [{"text": f"text {n}", **(first, second)[n % 2]} for n in range(60)]
    write("set/train.jsonl", jsonl(*lines))
    write("set/test.jsonl", jsonl({"text": "gold", **first}))
    write("set/intents.json", {"cancel": "Stop it", "refund": "Money back"})
    spec = made("out", "--from", "set")
    assert spec.task is task
    assert spec.labels == ("cancel", "refund", *(("oos",) if task is Task.SINGLE else ()))
    assert spec.intents["refund"].description == "Money back"
    assert spec.labels_path.resolve() == Path("set/train.jsonl").resolve(), "it is not copied"
    assert spec.gold_path.resolve() == Path("set/test.jsonl").resolve()
    assert pipeline.label(spec, show_progress=False).n_failed == 0


def test_what_is_gold_too_is_no_example():
    write("set/train.jsonl", jsonl(*({"text": f"text {n}", "intent": "ab"[n % 2]} for n in range(6))))
    write("set/test.jsonl", jsonl({"text": "Text 2", "intent": "a"}))
    spec = made("out", "--from", "set", "--teacher-model", "gpt-5-mini")
    assert spec.intents["a"].examples == ("text 0", "text 4")


def test_inside_the_data_set_folder():
    write("train.jsonl", jsonl(*({"text": f"text {n}", "intent": "ab"[n % 2]} for n in range(40))))
    spec = made("--from", ".")
    assert str(spec.teacher.labels) == "train.jsonl"


def test_what_lies_beside_a_data_set_is_said_to_be_unread():
    write("set/train.jsonl", jsonl(*({"text": f"text {n}", "intent": "ab"[n % 2]} for n in range(40))))
    write("set/test.jsonl", jsonl({"text": "gold", "intent": "a"}))
    write("set/notes.md", "about these files")
    assert "not read" not in distill("init", "one", "--from", "set").stderr
    write("set/logs.csv", "text\nwhere\n")
    done = distill("init", "two", "--from", "set")
    assert "40 labelled queries of 2 intents; not read: logs.csv (--from FILE takes one of them too)" in done.stderr


def many_labelled(n=40):
    return [{"text": f"{'ab'[n % 2]} text {n}", "intent": "ab"[n % 2]} for n in range(n)]


@pytest.mark.parametrize("arguments", [[], ["--teacher-model", "gpt-5-nano"]])
def test_labels_beside_logs_are_evidence_for_the_model_that_labels_the_logs(arguments):
    write("set/train.jsonl", jsonl(*many_labelled()))
    write("logs.jsonl", jsonl({"text": "where is it"}))
    done = distill("init", "out", "--from", "set", "--from", "logs.jsonl", *arguments)
    train = Path("set/train.jsonl")
    said = f"init: {train}: these are evidence for the model that labels; what is learnt are the queries of logs.jsonl"
    assert said in done.stderr.splitlines()
    spec = load_spec("out")
    assert (spec.labels_path, spec.evidence_path.resolve()) == (None, train.resolve())
    assert [query.text for query in read_queries(spec.queries_path)] == ["where is it"]
    assert not any(intent.examples for intent in spec.intent_list), "they stand in the evidence"
    assert len(known_examples(spec)) == 40
    assert distill("run", "out", "--dry-run").exit_code == 0


def test_evidence_is_never_gold():
    write("set/train.jsonl", jsonl(*many_labelled()))
    write("set/test.jsonl", jsonl({"text": "A text, 0", "intent": "a"}))
    write("logs.jsonl", jsonl({"text": "where is it"}))
    spec = made("out", "--from", "set", "--from", "logs.jsonl")
    assert str(spec.teacher.evidence) == "labelled.jsonl"
    assert len(known_examples(spec)) == 39


def test_few_labels_beside_logs_stand_in_router_yaml():
    write("train.jsonl", jsonl(*many_labelled(20)))
    write("logs.jsonl", jsonl({"text": "where is it"}))
    spec = made("out", "--from", "train.jsonl", "--from", "logs.jsonl")
    assert (spec.teacher.evidence, spec.teacher.labels) == (None, None)
    assert len(known_examples(spec)) == 20


def test_labels_beside_a_prompt_and_logs_are_said_to_be_unread():
    write("train.jsonl", jsonl(*many_labelled()))
    write("prompt.txt", "Which intent is this?\n- a: one\n- b: other\n{query}\n")
    write("logs.jsonl", jsonl({"text": "where is it"}))
    done = distill("init", "out", "--from", "train.jsonl", "--from", "prompt.txt", "--from", "logs.jsonl")
    assert "init: train.jsonl: these are not read; what is learnt are the queries of logs.jsonl; if" in done.stderr
    assert str(load_spec("out").queries).endswith("logs.jsonl")


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("logs.csv", 'id,message,lang\n1,"where, is\nit",en\n2,stop it,en\n2,stop it,en\n3,,en\n', "message"),
        ("logs.csv", "\ufeffid;Query\n1;where, is\n2;stop it\n", "Query"),
        ("logs.tsv", "when\twhat was said\n10:00\twhere, is\n10:01\tstop it\n", "what was said"),
        ("logs.jsonl", jsonl({"id": "a", "text": "where, is"}, {"id": "b", "text": "stop it"}), "text"),
        (
            "logs.jsonl",
            jsonl({"id": 1, "call": {"said": "where, is"}}, {"id": 2, "call": {"said": "stop it"}}),
            "call.said",
        ),
        ("logs.json", [{"text": "where, is"}, {"text": "stop it"}], "text"),
    ],
)
def test_logs(name, content, column):
    done = distill("init", "out", "--from", write(f"given/{name}", content), "--intent", "a", "--intent", "b")
    assert f"2 queries in the column {column!r}" in done.stderr
    spec = load_spec("out")
    texts = [query.text.replace("\nit", "") for query in read_queries(spec.queries_path)]
    assert texts == ["where, is", "stop it"]
    assert distill("run", "out", "--dry-run").exit_code == 0


def test_a_log_that_is_ready_is_named_not_copied():
    write("logs.jsonl", jsonl({"text": "where is it"}, {"text": "stop it"}))
    assert str(made("--from", "logs.jsonl").queries) == "logs.jsonl"
    assert "logs.jsonl\n" in Path(".gitignore").read_text()
    assert sorted(path.name for path in Path().iterdir()) == [".gitignore", "logs.jsonl", "router.yaml"]


def test_a_name_that_means_more_in_a_gitignore_is_left_out_of_git_all_the_same():
    subprocess.run(["git", "init", "--quiet"], check=True)
    for name in ("logs [1].csv", "#1 !.csv"):
        made("--force", "--from", write(name, "text\nwhere is it\nstop it\n"), "--intent", "a", "--intent", "b")
    found = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "-z"], check=True, capture_output=True, text=True
    )
    assert sorted(line[3:] for line in found.stdout.split("\0") if line) == [".gitignore", "router.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "aside"),
    [
        (
            "a.csv",
            "text,weights\nwhere is it,3.5\nstop it,\n",
            "'weights' left aside: no row has weights by intent there",
        ),
        ("a.csv", 'text,intents\nwhere is it,"a,b"\n', "'intents' left aside: no row has a list of intents there"),
        ("a.jsonl", jsonl({"text": "where is it", "weights": 3}), "'weights' left aside: no row has weights by intent"),
    ],
)
def test_a_column_that_is_named_like_labels_and_holds_none_is_left_aside(name, content, aside):
    done = distill("init", "--from", write(name, content), "--intent", "a", "--intent", "b")
    assert done.exit_code == 0, done.output
    assert aside in done.stderr


def test_labels_that_not_all_rows_have_are_left_aside_and_that_is_said():
    rows = [
        {"text": "where is it", "intent": "find"},
        {"text": "stop it", "intent": ""},
        {"text": "off", "intent": None},
    ]
    write("logs.jsonl", jsonl(*rows))
    done = distill("init", "shop", "--from", "logs.jsonl", "--intent", "a", "--intent", "b")
    aside = "labels in the column 'intent' left aside: 2 of 3 rows have none, the first in line 2"
    assert f"3 queries in the column 'text'; {aside}" in done.stderr
    write("bare.jsonl", jsonl(*({**row, "intent": None} for row in rows)))
    assert "left aside" not in distill("init", "shop2", "--from", "bare.jsonl", "--intent", "a", "--intent", "b").stderr


def test_lines_of_text_are_queries():
    spec = made("--from", write("logs.txt", "where is it\n\nstop it\nwhere is it\n"))
    assert [query.text for query in read_queries(spec.queries_path)] == ["where is it", "stop it"]
    assert str(spec.queries) == "logs.queries.jsonl"


def test_a_line_ends_where_an_editor_ends_it():
    Path("logs.txt").write_bytes("where\u2028is it\r\nstop\x0bit\rgo on\n".encode())
    spec = made("--from", "logs.txt")
    assert [query.text for query in read_queries(spec.queries_path)] == ["where\u2028is it", "stop\x0bit", "go on"]


def test_an_example_of_weights_says_equal_shares_and_no_others():
    weights = [(1, 0), (0.5, 0.5), (0.7, 0.3), (0, 1), (51, 49)]
    lines = [
        {"text": f"query {n}", "weights": {"visual": one, "audio": other}} for n, (one, other) in enumerate(weights)
    ]
    source = write("people.jsonl", jsonl(*lines))
    done = distill("init", "out", "--from", source)
    intents = load_spec("out").intents.items()
    assert {name: body.examples for name, body in intents} == {
        "visual": ("query 0", "query 1", "query 4"),
        "audio": ("query 1", "query 3", "query 4"),
    }
    assert "so queries of other weights are left out of them" in done.stderr


def test_a_text_of_two_intents_is_an_example_of_none():
    write("ex/refund.txt", "money back\nsame text\n")
    write("ex/cancel.txt", "stop it\nsame text\n")
    done = distill("init", "out", "--from", "ex")
    assert {name: body.examples for name, body in load_spec("out").intents.items()} == {
        "cancel": ("stop it",),
        "refund": ("money back",),
    }
    assert "1 text stands under several intents, and can be an example of none" in done.stderr


def test_space_around_labels_is_taken_off():
    done = distill("init", "out", "--from", write("m.csv", "text,intent\nhello there, greet\nhi,greet\nbye now,bye\n"))
    assert [*load_spec("out").intents] == ["greet", "bye"]
    assert "3 labelled queries of 2 intents" in done.stderr


def test_labels_that_differ_by_case_are_named_by_line():
    write("m.csv", "text,intent\nhello there,Greet\nbye now,bye\nhi,greet\n")
    done = distill("init", "out", "--from", "m.csv")
    assert "m.csv:4: the label 'greet' differs from 'Greet' (line 2) by case only; spell them alike" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "n", "words"),
    [
        ("logs.txt", "where\n\nstop\nwhere\n where\n", 2, "2 queries, one a line, 2 repeated left out"),
        ("logs.csv", "text\nwhere\nwhere\n' '\n\n", 1, "1 repeated or blank left out"),
        ("ex/a.txt", "where\nwhere\n\nstop\n", 1, "3 examples of 2 intents, a file each, 1 repeated left out"),
        ("train.jsonl", jsonl({"text": "x", "intent": "a"}, {"text": " ", "intent": "a"}), 1, "1 blank left out"),
    ],
)
def test_what_is_left_out_is_counted(name, content, n, words):
    path = write(name, content)
    write("ex/b.txt", "go on\n")
    source = path.parent if name.startswith("ex/") else path
    done = distill("init", "out", "--from", source, "--intent", "a", "--intent", "b", "--json")
    assert json.loads(done.stdout)["n_left_out"] == n
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert line.startswith(f"init: {source}: ")
    assert line.endswith(words)


def test_the_text_column_is_asked_for_or_an_error():
    path = write("logs.csv", "id,query,message\n1,a b,c d\n")
    line = refused("--from", path)
    assert line == (
        "logs.csv: it is not clear which column holds the queries; --text-column names it (id, query, message)"
    )
    assert "has no column 'nope'; its columns: id, query, message" in refused("--from", path, "--text-column", "nope")
    spec = made("--from", path, "--text-column", "message")
    assert [query.text for query in read_queries(spec.queries_path)] == ["c d"]


def test_a_column_of_labels():
    rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40))
    spec = made("--from", write("rows.csv", f"message,category\n{rows}"), "--label-column", "category")
    assert list(spec.intents) == ["a", "b"]
    assert pipeline.label(spec, show_progress=False).n_failed == 0


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL, {"type": "function", "function": {"name": "send_mail"}}, {"type": "web_search"}],
        [{"type": "function", **TOOL["function"]}, {"type": "function", "name": "send_mail", "description": None}],
        {"model": "m", "tools": [TOOL, {"type": "function", "function": {"name": "send_mail", "description": ""}}]},
        {"functions": [TOOL["function"], {"name": "send_mail"}]},
        {
            "tools": [
                {"name": "get_weather", "description": "Tells the\n weather.", "inputSchema": {}},
                {"name": "send_mail"},
            ]
        },
    ],
    ids=["chat", "responses", "request", "functions", "mcp"],
)
def test_tools_are_intents(tools):
    spec = made("--from", write("tools.json", tools))
    assert [(each.name, each.description) for each in spec.intent_list] == [
        ("get_weather", "Tells the weather."),
        ("send_mail", ""),
    ]


@pytest.mark.timeout(60)
def test_a_thousand_tools():
    names = [f"service_{n // 10}.do-thing_{n}" for n in range(1000)]
    tools = [{"type": "function", "function": {"name": name, "description": f"Does {name}: well."}} for name in names]
    spec = made("--from", write("tools.json", tools))
    assert list(spec.intents) == names
    assert spec.intents[names[-1]].description == f"Does {names[-1]}: well."
    assert spec.synth.per_intent == 20


# --- prompts ---------------------------------------------------------------------------------------------------------

PROMPT = """Route it.

Intents:
- `refund`: Money back
* track_order - where it is
3. **cancel**: stop: all of it
- oos: none of these
Note: be quick.

Query: {query}
"""


def test_a_prompt_and_the_intents_that_it_lists():
    spec = made("--from", write("prompt.txt", PROMPT))
    assert {each.name: each.description for each in spec.intent_list} == {
        "refund": "Money back",
        "track_order": "where it is",
        "cancel": "stop: all of it",
    }
    assert spec.out_of_scope is True
    assert str(spec.teacher.prompt) == "prompt.txt"


def test_the_line_of_the_query_is_no_intent():
    write("prompt.txt", "Pick one.\n- cancel: stop it\n- refund: money\nMessage: {query}")
    assert list(made("--from", "prompt.txt").intents) == ["cancel", "refund"]


def test_a_prompt_of_messages():
    messages = [
        {"role": "system", "content": "- refund: Money\n- cancel: Stop"},
        {"role": "user", "content": "{query}"},
    ]
    spec = made("out", "--from", write("prompt.json", messages))
    assert list(spec.intents) == ["refund", "cancel"]
    assert (spec.folder / spec.teacher.prompt).resolve() == Path("prompt.json").resolve()


def test_a_prompt_beside_logs():
    write("prompt.txt", "Which of refund and cancel? {query}")
    write("logs.txt", "my money\n")
    spec = made("--from", "prompt.txt", "--from", "logs.txt", "--intent", "refund", "--intent", "cancel")
    assert spec.teacher.prompt is not None
    assert not spec.writes_queries


def test_what_the_prompt_answered_is_not_taken_for_human_labels():
    write("prompt.txt", PROMPT)
    answers = [{"text": f"text {n}", "intent": ["refund", "cancel"][n % 2]} for n in range(60)]
    write("answers.jsonl", jsonl(*answers))
    spec = made("--from", "prompt.txt", "--from", "answers.jsonl")
    assert (str(spec.queries), spec.labels_path, str(spec.teacher.prompt)) == ("answers.jsonl", None, "prompt.txt")
    assert spec.intents["refund"].examples == ()
    assert distill("label", ".", "--import", "answers.jsonl").exit_code == 0
    assert pipeline.label(spec, show_progress=False).n_recorded == 60


WITHOUT_A_PLACE = {
    "You are a router.\nPick one of refund and cancel.\n": "1: 'You are a router.' looks like a prompt",
    PROMPT.replace("{query}", ""): "3: 'Intents:' looks like a prompt",
    "Ordne zu.\n- storno: stoppen\n- geld: zur\u00fcck\nNur der Name.\n": "2: '- storno: stoppen' looks like a prompt",
}


@pytest.mark.parametrize("text", WITHOUT_A_PLACE)
def test_a_prompt_without_the_place_of_the_query_is_not_taken_for_queries(text):
    said = refused("--from", write("prompt.txt", text))
    assert said.startswith(
        f"prompt.txt:{WITHOUT_A_PLACE[text]}, but the file holds no {{query}}: write {{query}} where"
    )


def test_queries_that_read_like_an_instruction_now_and_then_are_queries():
    write("logs.txt", "answer with yes or no\n" + "".join(f"where is parcel {n}\n" for n in range(30)))
    spec = made("--from", "logs.txt")
    assert len(read_queries(spec.queries_path)) == 31


def test_intents_may_stand_in_a_list():
    assert made("--from", write("intents.txt", "- refund: Money back\n2. cancel: Stop\n")).intents.keys() == {
        "refund",
        "cancel",
    }


# --- what is wrong ---------------------------------------------------------------------------------------------------

WRONG = {
    "no such file": (None, "no such file or folder"),
    "empty.csv": ("a,b\n", "holds no row"),
    "wrong.jsonl": ('{"text": "a"}\n{"text"\n', "wrong.jsonl:2: not a JSON object"),
    "number.jsonl": ('{"text": "a"}\n{"text": 3}\n', "number.jsonl:2: 'text' must be text, found 3"),
    "wrong.json": ("{", "not JSON"),
    "twice.json": ('{"a": "x", "a": "y", "b": ""}', "`a` stands twice"),
    "number.json": ("3", "expected tools as OpenAI takes them"),
    "bodies.json": ({"a": 3, "b": ""}, "'a' must have a description"),
    "case.json": ([{"name": "Ab"}, {"name": "ab"}], "the intents 'Ab' and 'ab' differ by case only"),
    "oos.json": ([{"name": "oos"}, {"name": "ab"}], "set `out_of_scope: true`"),
    "tools.json": ([TOOL, TOOL], "`get_weather` stands twice; keep one"),
    "nameless.json": ([TOOL, {"description": "x", "function": {}}], "tool 1 (from 0) has no name"),
    "alone.json": ([TOOL], "a router needs at least two intents, found 1"),
    "prompt.txt": ("Pick one for {{ user_input }}.", "write {query} in place of {{ user_input }}"),
    "prompt.json": ([{"role": "user", "content": "hello"}], "holds no {query}"),
    "empty.txt": ("\n \n", "is empty"),
    "router.yaml.yaml": ("name: a\nintents: {a: b, c: d}\nteacher: {model: m}\n", "is a router.yaml already"),
    "latin.csv": (b"text\n\xe9t\xe9\n", "latin.csv:2: not UTF-8"),
    "comma.csv": (
        "text\nwhere is it\nhi, where is it\n",
        "comma.csv:3: expected as many values as the header has (1), found 2",
    ),
    "short.csv": (
        "text;intent\na b;c\nc d\n",
        "short.csv:3: expected as many values as the header has (2), found 1; put a value that holds ';'",
    ),
    "quote.csv": ('text,intent\n"so where is it,a\nstop it,b\na 10" screen,b\n', "quote.csv:2: not CSV: "),
    "open.csv": ('text\nwhere\n"stop\nit\n', "open.csv:3: not CSV: unexpected end of data"),
    "half.json": (b'{"a\\ud800": "b", "c": "d"}', "half.json: holds half a surrogate pair ('\\ud800')"),
    "half.yaml": (b'a: "b\\ud83d"\nc: d\n', "half.yaml: holds half a surrogate pair"),
    "yes.yaml": ("yes: a\nno: b\n", "yes.yaml: the name of an intent must be text, found True; put it in quotes"),
    "date.yaml": ("a: x\nb: 2024-02-30\n", "date.yaml: not YAML: day"),
    "half.jsonl": (jsonl({"text": "x", "intent": "a\ud800"}), "half.jsonl:1: the label holds half a surrogate pair"),
    "blank.csv": ("id,text\n1,\n", "the column 'text' holds no text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_named(name):
    content, named = WRONG[name]
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif content is not None:
        write(name, content)
    assert named in refused("--from", name)


def test_a_folder_of_nothing_known():
    write("things/picture.png", "")
    assert "holds neither train.jsonl nor a text file for each intent" in refused("--from", "things")


def test_two_logs_are_one_too_many():
    write("a.txt", "where\n")
    write("b.txt", "stop\n")
    assert refused("--from", "a.txt", "--from", "b.txt") == "a.txt and b.txt both hold queries; give one of them"


@pytest.mark.parametrize("name", ["a b", "../evil"])
def test_a_name_that_names_no_folder(name):
    assert "`name`: String should match pattern" in refused("--name", name)


def test_nothing_is_written_over_without_force():
    write("router.yaml", "mine")
    assert refused() == "router.yaml exists already; --force writes over what is there"
    Path("router.yaml").unlink()
    write("intents.json", "mine")
    tools = write("given/tools.json", [{"name": f"tool_{n}"} for n in range(30)])
    assert refused("--from", tools) == "intents.json exists already; --force writes over what is there"
    assert Path("intents.json").read_text() == "mine"
    assert len(made("--from", tools, "--force").intents) == 30


def test_a_source_is_never_written_over():
    tools = [{"name": f"tool_{n}", "description": "x", "parameters": {"type": "object"}} for n in range(30)]
    before = Path(write("intents.json", tools)).read_bytes()
    assert refused("--from", "intents.json", "--force") == (
        "intents.json: would be written over, and it is what is read; move it to another folder"
    )
    assert Path("intents.json").read_bytes() == before
    assert not Path("router.yaml").exists()


def test_what_describes_a_data_set_is_not_written_over_but_what_init_wrote_is():
    names = [f"name_{number}" for number in range(30)]
    write("train.jsonl", jsonl(*({"text": f"{name} {n}", "intent": name} for name in names for n in range(4))))
    made("--from", ".")
    made("--from", ".", "--force")
    write("intents.json", {name: {"description": "mine", "examples": ["my own"]} for name in names})
    before = Path("intents.json").read_bytes()
    assert "intents.json: would be written over" in refused("--from", ".", "--force")
    assert Path("intents.json").read_bytes() == before


def test_a_gitignore_keeps_its_ends_of_lines_and_is_read_before_anything_is_written():
    Path(".gitignore").write_bytes(b"mine\r\n")
    made()
    lines = Path(".gitignore").read_bytes().splitlines(keepends=True)
    assert lines[0] == b"mine\r\n"
    assert len(lines) > 3
    assert all(line.endswith(b"\r\n") for line in lines)
    Path("router.yaml").unlink()
    Path(".gitignore").write_bytes("mine".encode("utf-16"))
    assert ".gitignore: cannot be read" in refused()
    assert not Path("router.yaml").exists()


def test_letters_with_marks_in_names_of_files_are_one_character():
    for name, text in (("ru\u0308ckgabe", "a\nb"), ("r\u00fcckgabe", "c"), ("stop", "d\ne")):
        write(f"intents/{name}.txt", text)
    examples = {intent.name: len(intent.examples) for intent in made("--from", "intents").intent_list}
    assert examples == {"r\u00fcckgabe": 3, "stop": 2}


def test_an_emoji_in_json_escapes_is_an_emoji():
    write("intents.yaml", 'a: "hello \\ud83d\\ude00"\nb: second\n')
    assert made("--from", "intents.yaml").intent_list[0].description == "hello 😀"


def test_a_gitignore_that_is_there_only_grows():
    write(".gitignore", "mine\nledger.jsonl")
    made()
    lines = Path(".gitignore").read_text().splitlines()
    assert lines[:2] == ["mine", "ledger.jsonl"]
    assert {"synth.jsonl", "queries.jsonl", "*.jsonl.lock"} <= set(lines)
    assert lines.count("ledger.jsonl") == 1
    before = Path(".gitignore").read_bytes()
    made("--force")
    assert Path(".gitignore").read_bytes() == before


def test_git_ignores_the_ledger_and_the_logs():
    write("logs.jsonl", jsonl({"text": "where is it"}, {"text": "stop it"}))
    made("--from", "logs.jsonl")
    subprocess.run(["git", "init", "--quiet"], check=True)
    own = (
        "ledger.jsonl",
        "ledger.jsonl.lock",
        "spending.jsonl.lock",
        "batches/1a2b.json",
        "synth.jsonl",
        "queries.jsonl",
        "logs.jsonl",
        "models/x/static",
    )
    for name in own:
        assert subprocess.run(["git", "check-ignore", "--quiet", name], check=False).returncode == 0, name
    assert subprocess.run(["git", "check-ignore", "--quiet", "router.yaml"], check=False).returncode == 1


def test_json_says_what_was_written():
    done = distill("init", "out", "--json", "--intent", "a", "--intent", "b")
    shown = json.loads(done.stdout)
    assert (shown["spec"], shown["n_intents"], shown["are_placeholders"]) == (str(Path("out/router.yaml")), 2, False)
    assert all(Path(file).exists() for file in shown["files"])


@given(text=st.text())
def test_any_text_comes_back_from_yaml(text):
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return
    assert yaml.safe_load(f"key: {_scalar(text)}  # comment")["key"] == text
    assert yaml.safe_load(f"{_scalar(text)}: value") == {text: "value"}


# --- asking ----------------------------------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_asked():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", "from distill.cli import main; main()", "init"],
        input=b"", capture_output=True, timeout=100, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert Path("router.yaml").exists()


def test_on_a_terminal_it_asks_for_what_is_not_said(monkeypatch):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    write("logs.csv", "query,message\na b,c d\n")
    answers = "nowhere\nlogs.csv\n\n7\n2\nmy-shop\nrefund: Money back\ncancel\n\nqwen\nn\n"
    done = distill("init", answers=answers)
    assert done.exit_code == 0, done.output
    assert "nowhere: no such file or folder" in done.stderr
    assert "not one of them: 7" in done.stderr
    assert done.stdout.splitlines()[-3:] == ["router.yaml", "logs.queries.jsonl", ".gitignore"]
    spec = load_spec("router.yaml")
    assert (spec.name, spec.teacher.model, spec.out_of_scope) == ("my-shop", "qwen", False)
    assert list(spec.intents) == ["refund", "cancel"]
    assert [query.text for query in read_queries(spec.queries_path)] == ["c d"]


@pytest.mark.parametrize("label", [{"intents": ["refund", "track"]}, {"weights": {"refund": 0.5, "track": 0.5}}])
def test_on_a_terminal_it_asks_nothing_that_the_labels_rule_out(monkeypatch, label):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    path = write("some.jsonl", jsonl(*({"text": f"query {number}", **label} for number in range(4))))
    done = distill("init", "here", "--from", path, "--teacher-model", "gpt-5-mini", answers="\n\n")
    assert done.exit_code == 0, done.output
    assert "May a query fit none" not in done.output


def test_on_a_terminal_it_asks_whether_a_text_is_a_prompt(monkeypatch):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    write("some.txt", "answer with yes or no\nwhere is it\n")
    done = distill("init", "--from", "some.txt", "--intent", "a", "--intent", "b", answers="1\n")
    assert done.exit_code == 1
    assert "What does some.txt hold?" in done.stderr
    assert "write {query} where" in done.stderr.splitlines()[-1]
    done = distill("init", "--from", "some.txt", "--intent", "a", "--intent", "b", answers="2\n\n\n\n")
    assert done.exit_code == 0, done.output
    assert len(read_queries(load_spec("router.yaml").queries_path)) == 2


def test_on_a_terminal_labels_may_be_examples(monkeypatch):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    write("ex/a.txt", "".join(f"a {n}\n" for n in range(20)))
    write("ex/b.txt", "".join(f"b {n}\n" for n in range(20)))
    assert distill("init", "--from", "ex", answers="\nn\n\n\n").exit_code == 0
    assert load_spec("router.yaml").teacher.model == "gpt-5-mini"
    assert distill("init", "--from", "ex", "--force", answers="\ny\n").exit_code == 0
    assert load_spec("router.yaml").labels_path is not None


def test_an_end_of_input_writes_nothing(monkeypatch):
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    done = distill("init", answers="")
    assert done.exit_code == 130
    assert done.stderr.endswith("init: stopped; nothing was written\n")
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_on_a_real_terminal_ctrl_c_writes_nothing():
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-c", "from distill.cli import main; main()", "init"])  # noqa: S606
    shown, patience = b"", time.monotonic() + 90
    while b"File or folder" not in shown and time.monotonic() < patience:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096)
    ended, status = 0, 0
    # again and again: what is typed while the prompt sets the terminal up is thrown away
    while not ended and time.monotonic() < patience:
        os.write(terminal, b"\x03")
        until = time.monotonic() + 3
        while not ended and time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130, shown
    assert list(Path().iterdir()) == []


# --- what stands around it -------------------------------------------------------------------------------------------

ANSWER_AS_JSON = """You are a router for a shop. Pick one intent.

- refund: wants money back
- track_order: where an order is

Important: never make up an intent.

Answer as JSON:
{
  "intent": "refund",
  "confidence": 0.9
}
{"intent": "track_order"}

Message: {query}
"""


@pytest.mark.parametrize("bullet", ["- ", "1. ", ""])
def test_how_the_answer_is_to_look_is_no_intent(bullet):
    spec = made("--from", write("prompt.txt", ANSWER_AS_JSON.replace("- ", bullet)))
    assert list(spec.intents) == ["refund", "track_order"]


def test_intents_may_stand_in_a_prompt_as_json():
    prompt = '{\n  "refund": "wants money back",\n  "track_order": "asks where an order is"\n}\nQuery: {query}\n'
    assert list(made("--from", write("prompt.txt", prompt)).intents) == ["refund", "track_order"]


def labelled_lines(n=12):
    return [
        {"text": f"{word} {number}", "intent": intent}
        for number in range(n)
        for word, intent in (("back", "refund"), ("where", "track"))
    ]


@pytest.mark.parametrize("blank", [{"text": None, "intent": "track"}, {"text": "  ", "intent": "hello"}])
def test_a_file_with_blank_rows_is_not_named_as_it_is(blank):
    spec = made("--from", write("lab.jsonl", jsonl(*labelled_lines(), blank)))
    assert spec.teacher.labels == Path("labelled.jsonl")
    assert sorted(spec.intents) == ["refund", "track"]
    assert pipeline.label(spec).n_texts == 24


def test_a_test_part_may_hold_queries_that_fit_none():
    write("ds/train.jsonl", jsonl(*labelled_lines()))
    write("ds/test.jsonl", jsonl({"text": "who painted it", "intent": "oos"}))
    assert made("--from", "ds").out_of_scope is True


def test_a_test_part_with_another_intent_is_named_at_once():
    write("ds/train.jsonl", jsonl(*labelled_lines()))
    write("ds/test.jsonl", jsonl({"text": "give it back", "intent": "refund"}, {"text": "so long", "intent": "bye"}))
    assert refused("--from", "ds").startswith("ds/test.jsonl:2: the intent 'bye' does not exist")


def test_examples_that_somebody_wrote_stay_whatever_else_is_given():
    intents = {
        "refund": {"description": "Money", "examples": [f"back {n}" for n in range(12)]},
        "track": {"examples": ["where"]},
    }
    write("in.json", intents)
    prompt = write("own.txt", "Pick one of\n{intents}\nlike\n{examples}\nQuery: {query}")
    for more in (
        (),
        ("--from", prompt),
        (
            "--from",
            write("few.jsonl", jsonl(*labelled_lines(14))),
            "--from",
            write("logs.csv", "message\nwhere is it\n"),
        ),
    ):
        done = distill("init", "--from", "in.json", *more, "--force")
        assert done.exit_code == 0, done.output
        spec = load_spec("router.yaml")
        assert (len(spec.intents["refund"].examples), spec.intents["track"].examples[:1]) == (10, ("where",))
        assert "of the examples of refund the first 10 were taken" in done.stderr


@pytest.mark.parametrize("header", ["Text,Intent", "text, intent", " TEXT ,INTENT"])
def test_a_label_column_is_known_however_it_is_written(header):
    rows = "".join(f"{line['text']},{line['intent']}\n" for line in labelled_lines())
    assert sorted(made("--from", write("c.csv", f"{header}\n{rows}")).intents) == ["refund", "track"]


def test_labels_that_come_late_are_seen():
    lines = [{"text": f"log {number}"} for number in range(250)] + labelled_lines(5)
    done = distill("init", "--from", write("late.jsonl", jsonl(*lines)))
    assert "labels in the column 'intent' left aside: 250 of 260 rows have none" in done.stderr


def test_a_column_of_lists_may_be_named_as_the_labels():
    lines = [{"text": f"query {number}", "tags": ["refund", "track"]} for number in range(24)]
    spec = made("--from", write("m.jsonl", jsonl(*lines)), "--label-column", "tags")
    assert (spec.task, sorted(spec.intents)) == (Task.MULTI, ["refund", "track"])


@pytest.mark.parametrize("column", ["name", "type", "role"])
def test_rows_with_a_column_that_tools_have_too_are_rows(column):
    rows = [{"id": 1, column: "Anna", "text": "where is my order"}, {"id": 2, column: "Bob", "text": "i want a refund"}]
    spec = made("--from", write("rows.json", rows), "--intent", "refund", "--intent", "track")
    assert list(spec.intents) == ["refund", "track"]
    assert [query.text for query in read_queries(spec.queries_path)] == ["where is my order", "i want a refund"]


def test_a_label_of_blanks_is_none(tmp_path):
    write("m.csv", "text,intent\nhello,greet\nbye, \n")
    done = distill("init", "out", "--from", "m.csv", "--intent", "a", "--intent", "b", "--label-column", "intent")
    assert done.exit_code == 1
    assert "m.csv:3: has no label in the column 'intent'" in done.stderr


def test_weights_that_name_a_channel_twice_are_an_error():
    write("m.jsonl", jsonl({"text": "x", "weights": {"visual": 0.5, "visual ": 0.5}}))
    done = distill("init", "out", "--from", "m.jsonl")
    assert done.exit_code == 1
    assert "m.jsonl:1: the label {'visual': 0.5, 'visual ': 0.5} names an intent twice" in done.stderr
