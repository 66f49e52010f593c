from __future__ import annotations

import json
import shlex
import traceback
from decimal import Decimal
from pathlib import Path

import pytest

from distill.errors import SpecError
from distill.spec import load_spec

BASE = "name: shop\nintents: {track: Where it is, refund: Money back}\nteacher: {model: m}\n"


@pytest.fixture
def load(tmp_path):
    def load_text(text: str | bytes, **overrides):
        path = tmp_path / "router.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_spec(path, **overrides)

    return load_text


def test_the_smallest_spec(load, tmp_path):
    spec = load(BASE)
    assert spec.labels == ("track", "refund")
    assert spec.intent_list[0].description == "Where it is"
    assert spec.out_of_scope_intent is None
    assert spec.queries_path == tmp_path / "queries.jsonl"
    assert spec.ledger_path == tmp_path / "ledger.jsonl"
    assert spec.gold_path is None
    assert spec.output() == Path("models/shop")
    assert spec.output(Path("here")) == Path("here")


def test_paths_are_relative_to_the_file_and_a_folder_will_do(load, tmp_path):
    load(BASE + "gold: g/gold.jsonl\nqueries: logs.jsonl\n")
    spec = load_spec(tmp_path)
    assert spec.gold_path == tmp_path / "g" / "gold.jsonl"
    assert spec.queries_path == tmp_path / "logs.jsonl"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("intents.json", '{"b": "Second", "a": {"description": "First", "examples": ["x"]}}'),
        ("intents.yaml", "b: Second\na: {description: First, examples: [x]}\n"),
    ],
)
def test_intents_from_a_file_keep_their_order(load, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    spec = load(f"name: shop\nintents: {name}\nteacher: {{model: m}}\nout_of_scope: true\n")
    assert spec.labels == ("b", "a", "oos")
    assert spec.intent_list[1].examples == ("x",)
    assert spec.out_of_scope_intent.description


def test_out_of_scope_may_have_examples(load):
    spec = load(BASE + "out_of_scope: {examples: [who is it]}\n")
    assert spec.out_of_scope_intent.examples == ("who is it",)
    assert spec.labels[-1] == "oos"


def test_overrides_take_the_place_of_the_teacher(load):
    text = BASE.replace(
        "{model: m}", "{model: m, price: {input_per_mtok: 1, output_per_mtok: 2, source: s, date: 2026-01-31}}"
    )
    assert load(text).teacher.price.date == "2026-01-31"
    spec = load(text, teacher_model="other", base_url="http://localhost:1/v1")
    assert (spec.teacher.model, spec.teacher.price) == ("other", None)
    assert spec.teacher.base_url == "http://localhost:1/v1"
    assert load(BASE.replace("model: m", "callable: 'a:b'"), teacher_model="m").teacher.callable is None


def test_gates_are_common_or_a_students_own(load):
    spec = load(BASE + "gates: {accuracy_drop: 0.02, p95_ms: 9, static: {p95_ms: 1}}\n")
    assert (spec.gates.limits("static").accuracy_drop, spec.gates.limits("static").p95_ms) == (0.02, 1)
    assert spec.gates.limits("encoder").p95_ms == 9


def test_money_is_decimal(load):
    assert load(BASE.replace("model: m", "model: m, max_usd: 0.1")).teacher.max_usd == Decimal("0.1")


def intents(block: str) -> str:
    return f"name: shop\nteacher: {{model: m}}\nintents:\n{block}"


def teacher(block: str) -> str:
    return BASE.replace("{model: m}", f"{{{block}}}")


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        (BASE + "studnets: [static]\n", 4, "unknown key `studnets`; did you mean `students`?"),
        (BASE + "zzz: 1\n", 4, "unknown key `zzz`; known keys: name, task"),
        (teacher("\n  model: m,\n  temprature: 1"), 5, "unknown key `teacher.temprature`; did you mean `temperature`?"),
        (
            BASE + "out_of_scope: {descripton: z}\n",
            4,
            "unknown key `out_of_scope.descripton`; did you mean `description`?",
        ),
        (BASE + "out_of_scope: perhaps\n", 4, "`out_of_scope`: Input should be a valid boolean"),
        (BASE + "gates: {accuracy_drp: 1}\n", 4, "unknown key `gates.accuracy_drp`; did you mean `accuracy_drop`?"),
        (BASE + "gates:\n  static: {p95: 1}\n", 5, "unknown key `gates.static.p95`; did you mean `p95_ms`?"),
        (
            intents("  teacher: {exmples: [a]}\n  b: c\n"),
            4,
            "unknown key `intents.teacher.exmples`; did you mean `examples`?",
        ),
        (intents("  a: b\n"), 3, "`intents`: a router needs at least two intents, found 1"),
        (intents("  a: b\n  c: d\n  a: e\n"), 6, "`a` stands here and on line 4; keep one"),
        (intents("  a: b\n  '': d\n"), 3, "`intents`: an intent has an empty name"),
        (intents("  a: b\n  ' c': d\n"), 3, "`intents`: the intent ' c' begins or ends with white space"),
        (intents('  a: b\n  "c\\nd": e\n'), 3, r"the intent 'c\nd' has a line break or another control character"),
        (BASE + "gates: {accuracy_drop: 2}\n", 4, "at most 1, found 2; for 2 points write 0.02"),
        (BASE + "gates:\n  accuracy_drop: true\n", 5, "a limit is a number, found true; null lifts it"),
        (
            BASE + "students: [static]\ngates: {encoder: {p95_ms: 5}}\n",
            5,
            "`gates.encoder`: encoder is not among `students` (static), so nobody would keep it",
        ),
        (BASE + "queries: g.jsonl\ngold: ./g.jsonl\n", 4, "`queries` and `gold` are one file, g.jsonl"),
        (BASE + "gold: queries.jsonl\n", 4, "`gold` is queries.jsonl, which synth writes"),
        (teacher("labels: g.jsonl") + "gold: g.jsonl\n", 3, "`teacher.labels` and `gold` are one file, g.jsonl"),
        (intents("  a: b\n  A: d\n"), 3, "`intents`: the intents 'a' and 'A' differ by case only"),
        (intents("  a: b\n  oos: d\n"), 3, "`intents`: 'oos' is not an intent of its own: set `out_of_scope: true`"),
        (intents("  yes: b\n  no: d\n"), 3, "`intents`: the intent True is not text to YAML; put its name in quotes"),
        (intents("  a: {examples: abc}\n  b: c\n"), 4, "`intents.a.examples`: Input should be a list (found 'abc')"),
        (BASE + "name: again\n", 4, "`name` stands here and on line 1; keep one"),
        ("- a\n", 1, "expected keys such as `name:` and `intents:`, found list"),
        ("", 1, "expected keys such as `name:` and `intents:`, found nothing"),
        (
            BASE + "gates: {statc: {}}\nsed: 1\n",
            4,
            "unknown key `gates.statc`; did you mean `static`?; also 5: unknown key `sed`; did you mean `seed`?",
        ),
        ("name: [a\nb: c\n", 2, "not YAML"),
        ("? [a, b]\n: c\n", 1, "a key must be text"),
        ("name: shop\nintents: {a: b, c: d}\n", 1, "`teacher` is missing"),
        (BASE.replace("{model: m}", "gpt"), 3, "`teacher`: Input should be a mapping (found 'gpt')"),
        (teacher(""), 3, "`teacher`: give either `model` or `callable`"),
        (teacher("model: m, callable: 'a:b'"), 3, "`teacher`: give either `model` or `callable`"),
        (teacher("model: ''"), 3, "`teacher.model`: String should have at least 1 character"),
        (teacher("callable: nomodule"), 3, "`teacher.callable`: expected package.module:function (found 'nomodule')"),
        (
            teacher("model: m, base_url: 'localhost:80/v1'"),
            3,
            "`teacher.base_url`: expected an address such as http://",
        ),
        (teacher("model: m, base_url: 'http://[::1'"), 3, "`teacher.base_url`: expected an address such as http://"),
        (teacher("model: m, base_url: 'http://h:99999'"), 3, "`teacher.base_url`: expected an address such as http://"),
        (teacher("model: m, max_usd: 0"), 3, "`teacher.max_usd`: Input should be greater than 0 (found 0)"),
        (teacher("model: m, max_usd: .nan"), 3, "`teacher.max_usd`: Input should be a finite number"),
        (teacher("model: m, price: {input_per_mtok: 1}"), 3, "`teacher.price.output_per_mtok` is missing"),
        (
            teacher("model: m, answer_map: {t: trakc}"),
            3,
            "turns 't' into 'trakc', which is no intent; did you mean 'track'?",
        ),
        ("name: a\nintents: {t: x, r: y}\nteacher:\n  model: m\n  samples: 3\n", 5, "set `temperature`, such as 0.7"),
        (
            BASE + "synth: {price: {input_per_mtok: 1, output_per_mtok: 2, source: s, date: d}}\n",
            4,
            "`synth`: `synth.price` is of `synth.model`; the teacher's is `teacher.price`",
        ),
        (BASE + "task: singel\n", 4, "`task`: Input should be 'single', 'multi' or 'weights' (found 'singel')"),
        (BASE + "task: multi\nout_of_scope: true\n", 5, "`out_of_scope` is for `task: single`"),
        (BASE + "students: [static, static]\n", 4, "`students`: name each student once, and at least one"),
        (BASE.replace("shop", "a b", 1), 1, "`name`: takes letters and digits"),
    ],
)
def test_what_is_wrong_names_file_and_line_and_gives_a_hint(load, text, line, named):
    with pytest.raises(SpecError) as caught:
        load(text)
    message = str(caught.value)
    assert f"router.yaml:{line}: " in message
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "key", ["sk-proj-planted4711", "gsk_Planted4711Planted4711Planted", "f3c9planted4711planted47115eed0", "my key", ""]
)
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_shown(load, key):
    with pytest.raises(SpecError) as caught:
        load(teacher(f"model: m, api_key_env: '{key}'"))
    assert "router.yaml:3: `teacher.api_key_env`: takes the name of an environment variable" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))  # what --debug prints
    assert not key or key not in shown


@pytest.mark.parametrize("address", ["api.example.com/v1?api-key={}", "https://h:{}/v1", "https://user:{}/x@h/v1"])
def test_a_key_in_an_address_is_not_shown(load, address):
    planted = "planted4711"
    with pytest.raises(SpecError, match="expected an address such as") as caught:
        load(teacher(f"model: m, base_url: '{address.format(planted)}'"))
    assert planted not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("address", ["https://me:{}@h/v1", "https://{}@h/v1", "https://h/v1?api-key={}"])
def test_an_address_with_a_password_or_a_query_is_refused_and_not_shown(load, address):
    planted = "planted4711"
    with pytest.raises(SpecError, match=r"`teacher\.base_url`: takes no user name, password or query") as caught:
        load(teacher(f"model: m, base_url: '{address.format(planted)}'"))
    assert planted not in "".join(traceback.format_exception(caught.value))


def test_emoji_in_json_escapes_are_whole(load):
    spec = load('name: shop\nintents: {a: "hello \\ud83d\\ude00", b: c}\nteacher: {model: m}\n')
    assert spec.intent_list[0].description == "hello 😀"


@pytest.mark.parametrize(
    "text",
    [
        'name: shop\nintents: {a: "b \\ud83d", c: d}\nteacher: {model: m}\n',
        "name: a\x00b\n",
        "name: shop\nintents: &a {x: *a, y: b}\nteacher: {model: m}\n",
        BASE + "date: 2026-02-30\n",
    ],
)
def test_yaml_that_is_none(load, text):
    with pytest.raises(SpecError, match=r"router\.yaml: not YAML") as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_not_utf8_names_the_line(load):
    with pytest.raises(SpecError, match=r"router\.yaml:2: not UTF-8 \(byte 12\)"):
        load(b"name: shop\n#\xff\n")


def test_a_byte_order_mark_and_crlf_are_read(load):
    assert load(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode()).name == "shop"


def test_commands_in_messages_can_be_copied(tmp_path):
    folder = tmp_path / "it's my router"
    folder.mkdir()
    (folder / "router.yaml").write_text(BASE)
    spec = load_spec(folder)
    for command, name in (
        (spec.command("label --batch"), "router.yaml"),
        (spec.command("label --batch", "a b.yaml"), "a b.yaml"),
    ):
        assert shlex.split(command.strip("`")) == ["distill", "label", "--batch", str(folder / name)]


def test_a_missing_file(tmp_path):
    with pytest.raises(SpecError, match=r"router\.yaml: does not exist; `distill init .*router\.yaml` writes one"):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, r"router\.yaml:2: `intents`: .*intents\.json: does not exist$"),
        ("{", r"intents\.json: not JSON"),
        ('{"a": "half \\ud83d", "b": "y"}', r"intents\.json: holds half a surrogate pair; mend or remove it"),
        ('{"a": "", "b": "", "a": ""}', r"intents\.json: `a` stands twice; keep one"),
        ('{"a": ""}', r"intents\.json: `intents`: a router needs at least two intents, found 1"),
        (
            '{"a": {"exmples": []}, "b": ""}',
            r"intents\.json: unknown key `intents\.a\.exmples`; did you mean `examples`\?",
        ),
        (json.dumps(["a", "b"]), r"intents\.json: `intents`: should be a mapping: each name with its description"),
    ],
)
def test_a_wrong_intents_file_is_named(load, tmp_path, content, named):
    if content is not None:
        (tmp_path / "intents.json").write_text(content)
    with pytest.raises(SpecError, match=named):
        load("name: shop\nintents: intents.json\nteacher: {model: m}\n")


def test_a_path_that_cannot_be_one_is_named(load):
    with pytest.raises(SpecError, match=r"intents.*is no path"):
        load('name: shop\nintents: "intents\\0.json"\nteacher: {model: m}\n')
