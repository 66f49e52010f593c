from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.spec import Spec
from distill.teacher.answers import NotJsonError, UnmatchedError, answer_schema, parse_json, read_scores
from distill.types import Task

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def spec(**teacher):
    return Spec.model_validate(
        {"name": "a", "intents": {"x": "", "y": ""}, "out_of_scope": True, "teacher": {"model": "m", **teacher}}
    )


@given(value=JSON)
def test_json_is_read(value):
    assert parse_json(json.dumps(value)) == value


@given(value=st.dictionaries(st.text(), JSON, min_size=1), before=st.text("abc ,.\n"), after=st.text("abc ,.\n"))
def test_json_in_prose_is_read(value, before, after):
    assert parse_json(f"{before}```json\n{json.dumps(value)}\n```{after}") == value


@given(content=st.text())
def test_any_answer_gives_a_known_label_or_a_value_error(content):
    try:
        scores = read_scores(content, spec())
    except ValueError:
        return
    assert set(scores) <= {"x", "y", "oos"}


@pytest.mark.parametrize(
    "content", ["", "  ", "[" * 100_000, "{" * 100_000, "null", "3", '"x"', "x", "{}", '{"intent": ["x"]}']
)
def test_nothing_is_guessed(content):
    with pytest.raises(ValueError):
        read_scores(content, spec())


def test_prose_is_told_from_a_wrong_intent():
    with pytest.raises(NotJsonError):
        read_scores("the user wants x", spec())
    with pytest.raises(ValueError, match="no intent: 'z'") as caught:
        read_scores('{"intent": "z"}', spec())
    assert not isinstance(caught.value, NotJsonError)


def test_a_prompt_of_ones_own_may_answer_with_the_bare_name():
    assert read_scores(" x\n", spec(prompt="mine.txt")) == {"x": 1.0}
    assert read_scores("ex", spec(prompt="mine.txt", answer_map={"ex": "x"})) == {"x": 1.0}


@pytest.mark.parametrize(
    ("path", "content"),
    [("result.name", '{"result": {"name": "y"}}'), ("0.label", '[{"label": " y "}]'), ("intent", '{"intent": "y"}')],
)
def test_a_path_picks_the_field(path, content):
    assert read_scores(content, spec(answer_path=path)) == {"y": 1.0}


@pytest.mark.parametrize("task", [Task.SINGLE, Task.MULTI])
def test_a_schema_without_labels_takes_any_name(task):
    schema = answer_schema((), task)
    assert "enum" not in json.dumps(schema)
    assert schema["required"] == list(schema["properties"])
    assert schema["properties"].get("intents", {}).get("maxItems") in {None, 20}


def test_the_schema_is_strict():
    schema = answer_schema(["x", "y"])
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    assert schema["properties"]["intent"]["enum"] == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("Refund, please.", "Refund, please."),
        ("I think [1]", "I think [1]"),
        ("42", "42"),
        ('"z"', '"z"'),
        ("x\ny", "x y"),
    ],
)
def test_a_prompt_of_ones_own_did_not_ask_for_json(content, answer):
    with pytest.raises(UnmatchedError, match="no intent") as caught:
        read_scores(content, spec(prompt="mine.txt"))
    assert caught.value.answer == answer
    assert "JSON" not in str(caught.value)


def test_a_prompt_of_ones_own_that_asked_for_json_is_told_of_it():
    for asked in ({"answer_path": "label"}, {"schema": True}):
        with pytest.raises(NotJsonError):
            read_scores("the user wants x", spec(prompt="mine.txt", **asked))
    with pytest.raises(ValueError, match=r"no field 'intent'.*teacher\.answer_path names the field"):
        read_scores('{"label": "x"}', spec(prompt="mine.txt"))
    assert read_scores('"x"', spec(prompt="mine.txt")) == {"x": 1.0}


@pytest.mark.parametrize("content", ['{"intent": null}', '```json\n{"intent": null}\n```'])
def test_null_is_what_fits_no_intent(content):
    assert read_scores(content, spec()) == {"oos": 1.0}
    with pytest.raises(UnmatchedError, match="no intent: 'null'"):
        read_scores(content, spec().model_copy(update={"out_of_scope": False}))


@pytest.mark.parametrize("value", [3, True, None])
def test_what_is_no_text_has_the_name_that_the_map_gives_to_it_as_it_stands_in_json(value):
    content = json.dumps({"intent": value})
    assert read_scores(content, spec(answer_map={json.dumps(value): "x"})) == {"x": 1.0}
    if value is not None:
        with pytest.raises(UnmatchedError) as caught:
            read_scores(content, spec())
        assert caught.value.answer == json.dumps(value)  # which is what the advice puts into the map


def test_numbers_may_stand_for_several_intents():
    several = {"name": "a", "intents": {"x": "", "y": ""}, "task": "multi"}
    teacher = {"model": "m", "answer_map": {"1": "x", "2": "y"}}
    assert read_scores('{"intents": [2, 1]}', Spec.model_validate({**several, "teacher": teacher})) == {"y": 1, "x": 1}


@pytest.mark.parametrize(
    "content",
    ["<think>x or y? {surely} x</think>\n\ny", '\n<think>{"intent": "x"}?</think>{"intent": "y"}', "<think></think>y"],
)
def test_thoughts_before_an_answer_are_no_part_of_it(content):
    assert read_scores(content, spec(prompt="mine.txt")) == {"y": 1.0}


def test_thoughts_that_do_not_end_are_no_answer():
    with pytest.raises(ValueError, match="the answer is empty"):
        read_scores('<think>it may be {"intent": "x"}', spec())


@pytest.mark.parametrize(
    ("content", "is_whole"),
    [
        ('{"intent": "x"}', True),
        ('```json\n{"intent": "x"}\n    ', True),
        ('{"intent": "x"} as it', True),
        ('It may be {"intent": "x"}, or rather', False),
        ('{"intent": "x', False),
        ("y", True),
        ("x", False),
        ("x, y", False),
    ],
)
def test_of_an_answer_that_was_cut_off_only_what_could_not_have_gone_on_counts(content, is_whole):
    own = spec(prompt="mine.txt", answer_map={"x and more": "y"})
    if is_whole:
        assert read_scores(content, own, cut_off=True) == read_scores(content, own)
    else:
        with pytest.raises(ValueError, match="the answer is not whole"):
            read_scores(content, own, cut_off=True)


def test_names_that_were_cut_off_may_lack_one():
    several = {"name": "a", "intents": {"x": "", "y": ""}, "task": "multi"}
    own = Spec.model_validate({**several, "teacher": {"model": "m", "prompt": "mine.txt"}})
    assert read_scores("x, y", own) == {"x": 1, "y": 1}
    for content in ("x, y", "x"):
        with pytest.raises(ValueError, match="not whole"):
            read_scores(content, own, cut_off=True)
