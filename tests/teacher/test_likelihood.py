from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from fake_server import FakeServer
from hypothesis import given
from hypothesis import strategies as st
from teacher_specs import TEXTS, ledger_lines

from distill.errors import SpecError
from distill.teacher.asking import Teacher
from distill.teacher.label import label, recorded_labels, recorded_samples
from distill.teacher.likelihood import Token, label_probabilities, read_tokens
from distill.teacher.retrieve import MOST_INTENTS, Excerpt

NAMES = {"card_arrival": "card_arrival", "card_linking": "card_linking", "top_up": "top_up"}


def tokens_of(*steps):
    """Tokens from (text, probability, {other: probability})."""
    return [Token(text.encode(), p, tuple((o.encode(), q) for o, q in others.items())) for text, p, others in steps]


def test_what_others_were_given_goes_to_the_labels_they_begin():
    tokens = tokens_of(
        ("card", 0.6, {"top": 0.3, "xyz": 0.1}), ("_arrival", 0.5, {"_linking": 0.25, "_payment": 0.25}), ("", 1.0, {})
    )
    found = label_probabilities(tokens, "card_arrival", NAMES)
    # of what could still be a label: card 2/3, top 1/3; then arrival 2/3, linking 1/3
    assert found == pytest.approx({"card_arrival": 4 / 9, "top_up": 1 / 3, "card_linking": 2 / 9}, abs=1e-4)


def test_an_answer_in_json_is_read_where_the_name_stands():
    tokens = tokens_of(
        ('{"', 1.0, {}),
        ("intent", 0.9, {"top": 0.1}),
        ('":', 1.0, {}),
        (' "card', 0.8, {' "top': 0.2, "top": 0.5}),
        ("_arrival", 1.0, {}),
        ('"}', 0.7, {'",': 0.3}),
    )
    assert label_probabilities(tokens, "card_arrival", NAMES) == {"card_arrival": 0.8, "top_up": 0.2}


def test_labels_that_begin_alike_share_what_an_other_token_was_given():
    tokens = tokens_of(("top", 0.5, {"card": 0.5}), ("_up", 1.0, {}))
    assert label_probabilities(tokens, "top_up", NAMES) == {"top_up": 0.5, "card_arrival": 0.25, "card_linking": 0.25}


def test_a_name_that_another_goes_on_from_ends_where_it_ends():
    names = {"card": "card", "card_arrival": "card_arrival"}
    tokens = tokens_of(('"', 1.0, {}), ("card", 0.9, {"cash": 0.1}), ('"', 0.75, {"_arrival": 0.25}))
    assert label_probabilities(tokens, "card", names) == {"card": 0.75, "card_arrival": 0.25}


def test_a_space_before_a_bare_name_is_no_other_answer():
    tokens = tokens_of((" top", 0.6, {"top": 0.2, " card": 0.2}), ("_up", 1.0, {}))
    found = label_probabilities(tokens, "top_up", NAMES)
    assert found == {"top_up": 0.8, "card_arrival": 0.1, "card_linking": 0.1}


def test_spellings_of_one_label_add_up():
    names = NAMES | {"recharge": "top_up"}
    tokens = tokens_of(("top", 0.5, {"re": 0.5}), ("_up", 1.0, {}))
    assert label_probabilities(tokens, "top_up", names) == {"top_up": 1.0}


def test_what_may_come_of_several_labels_is_shared_by_label_not_by_spelling():
    names = NAMES | {"recharge": "top_up", "reload": "top_up", "relink": "card_linking"}
    tokens = tokens_of(("card_arrival", 0.5, {"re": 0.5}))
    found = label_probabilities(tokens, "card_arrival", names)
    assert found == {"card_arrival": 0.5, "top_up": 0.25, "card_linking": 0.25}


def test_a_character_may_be_spread_over_tokens():
    first, second = "é".encode()[:1], "é".encode()[1:]
    tokens = [Token(first, 0.5, (("à".encode()[:1], 0.5),)), Token(second, 0.5, (("à".encode()[1:], 0.5),))]
    # both begin with the same byte, so the first step says nothing
    found = label_probabilities(tokens, "é", {"é": "é", "à": "à"})
    assert found == {"é": 0.5, "à": 0.5}


@pytest.mark.parametrize(
    "answer", ['{"intent": "top_up", "instead_of": "top_up"}', "I think it is top_up", '{"why": "top\\u005fup"}']
)
def test_where_the_name_stands_must_be_plain(answer):
    tokens = tokens_of(*((letter, 0.5, {"c": 0.5}) for letter in answer))
    assert label_probabilities(tokens, "top_up", NAMES) == {"top_up": 1.0}


def test_probabilities_of_nothing_are_no_error():
    tokens = tokens_of(("top", 0.0, {}), ("_up", 0.0, {"x": 0.0}))
    assert label_probabilities(tokens, "top_up", NAMES) == {"top_up": 1.0}


@given(st.data())
def test_with_all_other_tokens_known_they_are_those_of_the_model(data):
    """An oracle: a model over letters that may only write names, each name of two letters, the second free of the first."""
    first = data.draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
    second = data.draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
    p = {letter: each / sum(first) for letter, each in zip("abcd", first, strict=False)}
    q = {letter: each / sum(second) for letter, each in zip("wxyz", second, strict=False)}
    exact = {a + z: x * y for (a, x), (z, y) in itertools.product(p.items(), q.items())}
    told = data.draw(st.sampled_from(sorted(exact)))
    steps = [
        (letter, row[letter], {o: x for o, x in row.items() if o != letter})
        for letter, row in zip(told, (p, q), strict=True)
    ]
    found = label_probabilities(tokens_of(*steps), told, {name: name for name in exact})
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    # those that share the first letter of the answer are exact; the others share their first letter's mass alike
    for name, probability in exact.items():
        first_mass = p[name[0]]
        expected = probability if name[0] == told[0] else first_mass / len(q)
        assert found.get(name, 0.0) == pytest.approx(expected, abs=2e-4)


def as_given(token, its_bytes, **more):
    return SimpleNamespace(token=token, bytes=its_bytes, **more)


def test_tokens_are_read_as_openai_gives_them():
    other = as_given("b", [98], logprob=math.log(0.25))
    same = as_given("a", [97], logprob=math.log(0.75))
    token = as_given("a", None, logprob=math.log(0.75), top_logprobs=[same, other])
    (read,) = read_tokens(SimpleNamespace(logprobs=SimpleNamespace(content=[token])))
    assert read.text == b"a"
    assert read.probability == pytest.approx(0.75)
    assert read.others == ((b"b", pytest.approx(0.25)),)


@pytest.mark.parametrize("logprobs", [None, SimpleNamespace(content=None), {"tokens": ["a"]}, "a"])
def test_other_forms_are_no_tokens(logprobs):
    assert read_tokens(SimpleNamespace(logprobs=logprobs)) == ()


# --- in labelling ----------------------------------------------------------------------------------------------------


def test_soft_labels_come_of_one_answer(make_spec):
    with FakeServer("logprobs") as fake:
        spec = make_spec(fake.base_url, TEXTS[:2], teacher={"logprobs": True})
        label(spec, show_progress=False)
    assert [(body["logprobs"], body["top_logprobs"]) for body in fake.requests] == [(True, 20)] * 2
    assert recorded_labels(spec, TEXTS[:1])[TEXTS[0]].scores == {"track_order": 0.75, "refund": 0.25}
    assert ledger_lines(spec)[0]["settings"]["logprobs"] == 20


def test_without_it_nothing_is_asked_and_the_hash_is_what_it_was(make_spec):
    with FakeServer("logprobs") as fake:
        spec = make_spec(fake.base_url, TEXTS[:1])
        label(spec, show_progress=False)
    assert "logprobs" not in fake.requests[0]
    assert "logprobs" not in ledger_lines(spec)[0]["settings"]


@pytest.mark.parametrize(
    ("profile", "said", "n_requests"),
    [("logprobs-refusing", "refuses logprobs", 3), ("normal", "gives no log-probabilities", 2)],
)
def test_a_server_without_them_is_asked_without_and_says_so_once(make_spec, capsys, profile, said, n_requests):
    with FakeServer(profile) as fake:
        spec = make_spec(fake.base_url, TEXTS[:2], teacher={"logprobs": True})
        assert label(spec, show_progress=False).n_failed == 0
        assert label(spec, show_progress=False).n_asked == 0
    assert len(fake.requests) == n_requests
    assert "logprobs" not in fake.requests[-1]
    assert capsys.readouterr().err.count(said) == 1
    assert all("logprobs" not in line["settings"] for line in ledger_lines(spec))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"task": "multi", "out_of_scope": False}, "task: multi"),
        ({"task": "weights", "out_of_scope": False}, "one channel"),
        ({"teacher": {"samples": 9}}, "begins with another intent, and there are 3, not 9"),
        ({"teacher": {"model": None, "callable": "shop:answer"}}, "for a model"),
    ],
)
def test_where_they_make_no_sense_the_spec_says_so(make_spec, keys, said):
    keys = keys | {"teacher": {"logprobs": True} | keys.get("teacher", {})}
    with pytest.raises(SpecError, match=said):
        make_spec(None, **keys)


def test_samples_begin_with_another_intent_each(make_spec):
    with FakeServer("logprobs") as fake:
        spec = make_spec(fake.base_url, TEXTS[:2], teacher={"logprobs": True, "samples": 3})
        label(spec, show_progress=False)
        assert label(spec, show_progress=False).n_asked == 0
    names = sorted(spec.intents)
    begun = Counter(min(names, key=body["messages"][0]["content"].index) for body in fake.requests)
    assert begun == dict.fromkeys(names, 2)
    assert Counter(line["sample"] for line in ledger_lines(spec)) == {0: 2, 1: 2, 2: 2}
    assert {len(samples) for samples in recorded_samples(spec, TEXTS[:2]).values()} == {3}


def shown_in_turn(teacher, sample):
    """What a prompt of ours lists in a sample: intents, and examples by intent."""
    (_, system), _ = teacher.messages("the query", Excerpt(), sample)
    return re.findall(r"^- (\w+)", system, re.MULTILINE), re.findall(r"example of (\w+)", system)


def test_with_log_probabilities_and_not_without_a_sample_turns_intents_and_examples(make_spec):
    names = ("a", "b", "c")
    intents = {name: {"description": "", "examples": [f"example of {name}"]} for name in names}
    plain = make_spec(None, intents=intents, teacher={"samples": 3, "temperature": 1})
    assert len({tuple(map(tuple, shown_in_turn(Teacher(plain), each))) for each in range(3)}) == 1
    turned = Teacher(make_spec(None, intents=intents, teacher={"samples": 3, "logprobs": True}))
    for sample, order in enumerate(["abc", "cab", "bca"]):
        assert shown_in_turn(turned, sample) == ([*order, "oos"], list(order))


def test_a_shortlist_has_an_order_of_its_own_that_is_not_turned(make_spec):
    intents = {f"intent_{number}": "" for number in range(MOST_INTENTS + 1)}
    assert Teacher(make_spec(None, intents=intents, teacher={"logprobs": True})).by_query.intents
    spec = make_spec(None, intents=intents, teacher={"logprobs": True, "samples": 2})
    with pytest.raises(SpecError, match=r"router.yaml: .* of 151 the nearest to a query are shown"):
        Teacher(spec)


def test_a_batch_turns_them_too(make_spec):
    with FakeServer("logprobs") as fake:
        spec = make_spec(fake.base_url, TEXTS[:3], teacher={"logprobs": True, "samples": 3})
        label(spec, batch=True, show_progress=False)
    names = sorted(spec.intents)
    begun = Counter(min(names, key=body["messages"][0]["content"].index) for body in fake.requests)
    assert begun == dict.fromkeys(names, 3)


def test_newly_wanted_log_probabilities_are_asked_for_and_what_came_before_is_said(make_spec, capsys):
    with FakeServer("logprobs") as fake:
        label(make_spec(fake.base_url, TEXTS[:2]), show_progress=False)
        spec = make_spec(fake.base_url, TEXTS[:3], teacher={"logprobs": True})
        assert label(spec, show_progress=False).n_asked == 1
    assert ["logprobs" in body for body in fake.requests] == [False, False, True]
    assert recorded_labels(spec, TEXTS[2:3])[TEXTS[2]].scores != {"track_order": 1.0}
    assert "2 of 3 answers were given without log-probabilities, and count as they stand" in capsys.readouterr().err


def test_samples_with_a_prompt_that_lists_no_intents_would_all_be_the_same(make_spec, tmp_path):
    (tmp_path / "prompt.txt").write_text("Which one of track_order and refund? {query}")
    spec = make_spec(None, TEXTS[:2], teacher={"logprobs": True, "samples": 2, "prompt": "prompt.txt"})
    with pytest.raises(SpecError, match=r"has no \{intents\}"):
        label(spec, show_progress=False)
    once = make_spec(None, TEXTS[:2], teacher={"logprobs": True, "prompt": "prompt.txt"})
    assert Teacher(once).messages("hello", Excerpt())[0][1] == "Which one of track_order and refund? hello"
