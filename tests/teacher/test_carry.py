"""Intents that change: what is kept, what is asked again and why, and what it costs."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from teacher_specs import INTENTS, PRICE, TEXTS, ledger_lines, write_queries

from distill.data import label_as_line
from distill.errors import MissingKeyError, SpecError, TeacherError
from distill.spec import load_spec
from distill.teacher import carry as carrying
from distill.teacher.carry import CarryOptions, carry, plan_carry
from distill.teacher.changed import Recorded
from distill.teacher.label import label, plan_labels, recorded_labels, recorded_samples
from distill.teacher.ledger import AppendLog, Ledger
from distill.teacher.spend import spend_by_stage
from distill.teacher.synth import synthesise
from distill.types import Task

WORDS = {"parcel": "track_order", "where": "track_order", "cancel": "cancel_order", "refund": "refund", "weather": "weather",
         "forecast": "weather"}  # fmt: skip
WEATHER = {"description": "The weather forecast", "examples": ["the weather today"]}


class ByWords:
    """Texts lie near each other when they have words in common."""

    def embed(self, texts, on_done=None):
        vectors = np.full((len(texts), 64), 1e-6, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(":", " ").split():
                vectors[row] += np.random.default_rng(zlib.crc32(word.encode())).normal(size=64).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def shop(make_spec, server, monkeypatch):
    """Writes the spec with some intents; the server answers by words, with what the spec knows."""
    known = {}

    def answer(body, query):
        name = next((name for word, name in WORDS.items() if word in query), "oos")
        return server.completion(json.dumps({"intent": known.get(name, "oos")}))

    monkeypatch.setattr(server, "_profile_normal", answer)

    def write(intents=INTENTS, texts=None, *, teacher=(), **keys):
        known.clear()
        known.update({name: name for name in intents})
        known.update({"refund": "money_back"} if "money_back" in intents else {})
        settings = {"price": PRICE, "max_output_tokens": 10, "max_usd": 5, **dict(teacher)}
        return make_spec(server.base_url, texts or TEXTS, teacher=settings, **{"intents": intents, **keys})

    return write


def run(spec, embedder=ByWords, **options):
    return carry(spec, CarryOptions(**options), open_embedder=embedder, show_progress=False)


def labels(spec, texts=TEXTS):
    answers = recorded_labels(spec, texts)
    return {text: max(line.scores, key=line.scores.get) for text, line in answers.items() if line.scores}


def never():
    raise AssertionError("no vectors are needed")


@pytest.mark.parametrize(
    ("task", "scores", "is_unsure"),
    [
        ("single", [0.6, 0.4], True),
        ("single", [0.7, 0.3], False),
        ("multi", [0.95, 0.6, 0.0], True),
        ("multi", [0.95, 0.7, 0.0], False),
        ("multi", [0.95, 0.31, 0.0], True),
        ("weights", [0.5, 0.5], False),
    ],
)
def test_what_a_teacher_was_of_two_minds_about(task, scores, is_unsure):
    assert bool(carrying._is_unsure(np.asarray(scores), Task(task), carrying.SURE_TEACHER)) is is_unsure


def test_a_new_name_costs_nothing(shop, server):
    label(shop(), show_progress=False)
    before, n_asked = ledger_lines(shop()), server.n_requests
    renamed = {("money_back" if name == "refund" else name): body for name, body in INTENTS.items()}
    spec = shop(renamed)
    done = run(spec, never, renames={"refund": "money_back"})
    assert (done.n_carried, done.n_renamed, done.n_calls, done.n_left) == (12, 3, 0, 0)
    assert server.n_requests == n_asked
    lines = ledger_lines(spec)
    assert lines[:12] == before, "what was paid for stays as it was"
    assert {line["text"]: line["carried_from"]["key"] for line in lines[12:]} == {
        old["text"]: old["key"] for old in before
    }
    assert labels(spec)["refund 4"] == "money_back"
    assert plan_labels(spec).n_missing == 0
    assert spend_by_stage(spec)[0].n_answers == 12, "what was carried over was not paid for again"
    assert label(spec, show_progress=False).n_asked == 0
    assert run(spec, never).n_texts == 0, "once is enough"
    assert ledger_lines(spec) == lines


def test_a_carried_answer_keeps_what_is_known_of_it(shop):
    label(shop(), show_progress=False)
    spec = shop(dict(reversed(INTENTS.items())))  # another order is another prompt
    run(spec, never)
    old, new = (
        next(line for line in lines if line["text"] == TEXTS[0])
        for lines in (ledger_lines(spec)[:12], ledger_lines(spec)[12:])
    )
    for name in ("text", "scores", "teacher", "sample", "prompt_tokens", "latency_ms", "asked_at", "server"):
        assert new[name] == old[name]
    assert new["prompt_sha256"] != old["prompt_sha256"]
    assert new["carried_from"] | {"carried_at": ""} == {
        "teacher": "fake", "prompt_sha256": old["prompt_sha256"], "key": old["key"], "carried_at": ""}  # fmt: skip


def test_the_queries_of_an_intent_that_is_gone_are_asked_again_if_wanted(shop, server):
    label(shop(), show_progress=False)
    without = {name: body for name, body in INTENTS.items() if name != "refund"}
    spec = shop(without)
    plan = plan_carry(spec, CarryOptions(ask_removed=True), open_embedder=never, show_progress=False)
    assert (plan.n_texts, plan.n_removed, plan.n_nothing_left, plan.most_calls) == (12, 3, 3, 3)
    assert plan.changes[0].removed == ("refund",)
    assert (plan.estimated_usd > 0, plan.most_usd) == (True, None), "estimated from the answers recorded"
    server.asked.clear()
    done = run(spec, never, ask_removed=True)
    assert set(server.asked) == {text for text in TEXTS if "refund" in text}
    assert (done.n_carried, done.n_calls, done.asked, done.moved) == (9, 3, {"removed": 3}, {"removed": 3})
    assert {labels(spec)[text] for text in server.asked} == {"oos"}


@pytest.mark.parametrize("renames", [{}, {"refund": "oos"}])
def test_an_intent_that_goes_costs_nothing(shop, server, renames):
    label(shop(), show_progress=False)
    spec = shop({"track_order": INTENTS["track_order"], "cancel_order": "Stop an order"})
    n_asked = server.n_requests
    plan = plan_carry(spec, CarryOptions(renames), open_embedder=never, show_progress=False)
    assert (plan.n_removed, plan.n_nothing_left, plan.most_calls) == (0 if renames else 3, 0, 0)
    done = run(spec, never, renames=renames)
    assert (done.n_carried, done.n_removed, done.n_calls, done.n_left) == (12, plan.n_removed, 0, 0)
    assert server.n_requests == n_asked
    assert {labels(spec)[text] for text in TEXTS if "refund" in text} == {"oos"}
    assert plan_labels(spec).n_missing == 0


def test_nothing_is_asked_where_no_call_is_allowed(shop, server):
    label(shop(), show_progress=False)
    spec = shop({"track_order": INTENTS["track_order"], "cancel_order": "Stop an order", "weather": WEATHER})
    n_asked = server.n_requests
    done = run(spec, max_calls=0, ask_removed=True)
    assert (done.n_carried, done.n_left, done.n_calls, done.is_cut) == (9, 3, 0, True)
    assert server.n_requests == n_asked
    assert plan_labels(spec).n_missing == 3


FAR = [f"parcel number {number}" for number in range(60)] + [f"cancel {number} please" for number in range(60)]
NEAR = [f"weather forecast {number}" for number in range(8)]


def test_a_new_intent_is_sought_where_it_lies_near(shop, server):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    assert labels(shop(texts=texts), texts)[NEAR[0]] == "oos"
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    plan = plan_carry(spec, CarryOptions(max_share=0.3), open_embedder=ByWords, show_progress=False)
    assert plan.changes[0].added == ("weather",)
    assert len(NEAR) <= plan.n_near < 30
    assert plan.most_calls == 39
    server.asked.clear()
    done = run(spec, max_share=0.3)
    assert set(NEAR) <= set(server.asked)
    assert done.n_calls == len(server.asked) < 39, "it ends when no answer moves any more"
    assert (done.asked["near"], done.moved["near"]) == (len(server.asked), len(NEAR))
    assert done.n_carried == len(texts) - len(server.asked)
    assert not done.is_cut
    assert labels(spec, texts) == {text: "weather" if text in NEAR else labels(spec, texts)[text] for text in texts}
    assert plan_labels(spec).n_missing == 0


def test_the_share_is_a_limit(shop, server):
    texts = [*FAR[:20], *(f"weather forecast {number}" for number in range(40))]
    label(shop(texts=texts), show_progress=False)
    done = run(shop({**INTENTS, "weather": WEATHER}, texts), max_share=0.25)
    assert (done.n_calls, done.moved["near"], done.is_cut) == (15, 15, True)


def test_what_was_answered_teaches_more_of_the_intent(shop):
    """Texts that share no word with the new intent's description are found through those that were answered with it."""
    texts = [*FAR, *(f"weather {word} {n}" for word in ("rain", "snow") for n in range(3)),
             *(f"rain forecast {n}" for n in range(4))]  # fmt: skip
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": {"description": "weather", "examples": ["weather rain"]}}, texts)
    run(spec, max_share=0.3)
    assert all(name == "weather" for text, name in labels(spec, texts).items() if "rain" in text or "snow" in text)


def test_the_intents_own_queries_are_in_doubt_where_it_is_described_anew(shop, server):
    texts = [*FAR, *(f"refund {number} parcel" for number in range(5))]
    label(shop(texts=texts), show_progress=False)
    anew = {**INTENTS, "cancel_order": "Stop an order, or send it back"}
    spec = shop(anew, texts)
    change = plan_carry(spec, open_embedder=ByWords, show_progress=False).changes[0]
    assert (change.added, change.removed, change.described_anew) == ((), (), ("cancel_order",))
    server.asked.clear()
    done = run(spec)
    assert (done.asked, done.moved, done.n_left) == ({"near": 10}, {"near": 0}, 0), (
        "one part shows that nothing changed"
    )
    assert any("cancel" in text for text in server.asked)


def test_doubted_answers_are_asked_after_the_near_ones(shop, server):
    texts = [*FAR]
    spec = shop(texts=texts)
    label(spec, show_progress=False)
    doubted = set(FAR[5:15])
    lines = [line for line in Ledger(spec.ledger_path).lines if line.text in doubted]
    append(spec, *(replace(line, scores={"track_order": 0.5, "refund": 0.5}) for line in lines))
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    plan = plan_carry(spec, open_embedder=ByWords, show_progress=False)
    assert plan.n_doubted + plan.n_near >= 10
    server.asked.clear()
    done = run(spec, max_share=0.5)
    assert doubted <= set(server.asked)
    assert done.asked["doubted"] + done.asked["near"] == len(server.asked)


def test_a_run_that_was_cut_goes_on(shop, server, monkeypatch):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    ask, n_parts = carrying.label, []

    def once(*arguments, **options):
        if n_parts:
            raise KeyboardInterrupt
        n_parts.append(1)
        return ask(*arguments, **options)

    monkeypatch.setattr(carrying, "label", once)
    server.asked.clear()
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    assert not any("carried_from" in line for line in ledger_lines(spec))
    monkeypatch.setattr(carrying, "label", ask)
    done = run(spec)
    assert max(server.asked.values()) == 1, "nothing is asked twice"
    assert (done.n_left, plan_labels(spec).n_missing) == (0, 0)


def test_a_server_that_is_down_for_a_while_ends_no_search(shop, server, monkeypatch):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    answer, n_refused = server._profile_normal, []

    def down(body, query):
        if len(n_refused) < 10:
            n_refused.append(query)
            return server.completion("what?")
        return answer(body, query)

    monkeypatch.setattr(server, "_profile_normal", down)
    done = run(spec)
    assert done.is_cut
    assert done.n_left == plan_labels(spec).n_missing > 0
    label(spec, show_progress=False)
    assert {labels(spec, texts)[text] for text in NEAR} == {"weather"}


def test_a_server_that_stays_down_is_not_asked_for_all(shop, server, monkeypatch):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    monkeypatch.setattr(server, "_profile_normal", lambda body, query: server.completion("what?"))
    server.asked.clear()
    done = run(spec)
    assert done.is_cut
    assert len(server.asked) == 20
    assert done.n_left == len(server.asked)


def test_a_run_that_goes_on_knows_what_was_answered(shop, monkeypatch):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    label(spec, NEAR[:2], show_progress=False)
    learnt = []
    monkeypatch.setattr(carrying.Nearness, "learn", lambda self, name, more: learnt.append((name, *more)))
    plan_carry(spec, open_embedder=ByWords, show_progress=False)
    assert learnt == [("weather", "weather: The weather forecast", "the weather today", *NEAR[:2])]


def test_texts_are_redacted_once(shop, server, tmp_path):
    (tmp_path / "numbering.py").write_text("def number(text):\n    return f'[user 1] {text}'\n", encoding="utf-8")
    teacher = {"redact": "numbering:number"}
    label(shop(teacher=teacher), show_progress=False)
    spec = shop({name: body for name, body in INTENTS.items() if name != "refund"}, teacher=teacher)
    server.asked.clear()
    done = run(spec, never, ask_removed=True)
    assert set(server.asked) == {f"[user 1] {text}" for text in TEXTS if "refund" in text}
    assert (done.n_calls, done.n_left, plan_labels(spec).n_missing) == (3, 0, 0)


def append(spec, *lines):
    with AppendLog(spec.ledger_path) as log:
        for line in lines:
            log.append(label_as_line(line))


def test_an_answer_that_came_meanwhile_is_left_as_it_is(shop):
    label(shop(), show_progress=False)
    spec = shop(dict(reversed(INTENTS.items())))
    work = Recorded(spec, {})
    label(spec, [TEXTS[0]], show_progress=False)
    assert work.write(work.cases) == 11
    assert "carried_from" not in recorded_labels(spec, TEXTS[:1])[TEXTS[0]].extra


def test_a_query_is_asked_again_where_any_of_its_samples_is_gone(shop):
    teacher = {"samples": 3, "temperature": 1}
    spec = shop(teacher=teacher)
    label(spec, show_progress=False)
    one = next(line for line in Ledger(spec.ledger_path).lines if (line.text, line.sample) == ("cancel 3", 1))
    append(spec, replace(one, scores={"refund": 1.0}))
    spec = shop({name: body for name, body in INTENTS.items() if name != "refund"}, teacher=teacher)
    plan = plan_carry(spec, CarryOptions(ask_removed=True), open_embedder=never, show_progress=False)
    assert (plan.n_nothing_left, plan.most_calls) == (4, 12)
    assert run(spec, never).n_calls == 0
    assert recorded_samples(spec, ["cancel 3"])["cancel 3"][1].scores == {"oos": 1.0}


def test_what_is_no_answer_is_not_carried_over(shop):
    """A failed line, and what ``audit --relabel`` asked, which has settings of its own."""
    spec = shop(texts=TEXTS[:4])
    label(spec, show_progress=False)
    first = Ledger(spec.ledger_path).lines[0]
    stage = {**first.extra["settings"], "stage": "relabel"}
    failed = replace(first, key="f", text=TEXTS[4], scores=None, error="no answer")
    append(spec, failed, replace(first, key="r", text=TEXTS[5], extra={"settings": stage}))
    plan = plan_carry(shop(dict(reversed(INTENTS.items())), TEXTS[:6]), open_embedder=never, show_progress=False)
    assert (plan.n_texts, plan.n_unanswered) == (4, 2)


def test_a_spend_limit_ends_the_search_and_all_else_is_carried_over(shop, server):
    texts = [*FAR, *NEAR]
    label(shop(texts=texts), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts)
    n_asked = server.n_requests
    done = run(spec, max_usd=Decimal("0.002"))
    assert 0 < done.n_calls < 11
    assert (done.is_cut, server.n_requests - n_asked) == (True, done.n_calls)
    assert done.asked == {"near": done.n_calls}
    assert (done.n_carried, done.n_left) == (len(texts) - done.n_calls, 0)
    assert plan_labels(spec).n_missing == 0


def test_a_text_that_got_some_of_its_answers_before_the_limit_keeps_the_others(shop, server):
    texts, teacher = [*FAR, *NEAR], {"samples": 3, "temperature": 1, "concurrency": 1}
    label(shop(texts=texts, teacher=teacher), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, texts, teacher=teacher)
    done = run(spec, max_usd=Decimal("0.005"))
    assert 0 < done.n_calls < 30
    assert (done.n_left, plan_labels(spec).n_missing) == (0, 0)


def test_what_is_left_of_an_intent_that_is_gone_is_not_counted_as_asked(shop):
    label(shop(), show_progress=False)
    done = run(
        shop({name: body for name, body in INTENTS.items() if name != "refund"}),
        never,
        max_usd=Decimal(0),
        ask_removed=True,
    )
    assert (done.asked, done.n_carried, done.n_left, done.is_cut) == ({}, 9, 3, True)


def test_without_out_of_scope_what_else_was_answered_holds_and_the_rest_is_left_to_label(shop, server):
    texts = ["refund 4", "refund 5", "refund 6", "cancel 1", "parcel 1"]
    spec = shop(texts=texts, out_of_scope=False)
    label(spec, show_progress=False)
    soft = next(line for line in Ledger(spec.ledger_path).lines if line.text == "refund 4")
    append(spec, replace(soft, scores={"refund": 0.6, "cancel_order": 0.4}))
    spec = shop({name: body for name, body in INTENTS.items() if name != "refund"}, texts, out_of_scope=False)
    done = run(spec, never)
    assert (done.n_carried, done.n_removed, done.n_calls, done.n_left) == (len(texts) - 2, 1, 0, 2)
    assert labels(spec)["refund 4"] == "cancel_order"


def test_merging_two_intents(shop):
    label(shop(), show_progress=False)
    both = {"track_order": INTENTS["track_order"], "cancel_order": INTENTS["cancel_order"]}
    spec = shop(both)
    done = run(spec, never, renames={"refund": "cancel_order"})
    assert (done.n_calls, done.n_left, done.n_renamed) == (0, 0, 3)
    assert labels(spec)["refund 4"] == "cancel_order"


def test_samples_are_carried_together(shop, server):
    teacher = {"samples": 3, "temperature": 1}
    label(shop(teacher=teacher), show_progress=False)
    spec = shop({name: body for name, body in INTENTS.items() if name != "refund"}, teacher=teacher)
    n_asked = server.n_requests
    options = CarryOptions(ask_removed=True)
    assert plan_carry(spec, options, open_embedder=never, show_progress=False).most_calls == 9
    done = run(spec, never, ask_removed=True)
    assert (done.n_carried, done.n_calls, server.n_requests - n_asked) == (9, 9, 9)
    assert {len(own) for own in recorded_samples(spec, TEXTS).values()} == {3}


def test_gold_is_asked_once(shop, server, tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"text": "refund of gold", "intent": "track_order"}\n', encoding="utf-8")
    teacher = {"samples": 2, "temperature": 1}
    label(shop(teacher=teacher, gold="gold.jsonl"), show_progress=False)
    spec = shop({name: body for name, body in INTENTS.items() if name != "refund"}, teacher=teacher, gold="gold.jsonl")
    server.asked.clear()
    run(spec, never, ask_removed=True)
    assert server.asked == {text: 1 if "gold" in text else 2 for text in ("refund of gold", *TEXTS) if "refund" in text}


def test_in_multi_an_intent_that_is_gone_leaves_the_others(make_spec, server, monkeypatch):
    monkeypatch.setattr(
        server, "_profile_normal", lambda body, query: server.completion('{"intents": ["refund", "cancel_order"]}')
    )
    keys = {"task": "multi", "out_of_scope": False}
    label(make_spec(server.base_url, **keys), show_progress=False)
    left = {name: body for name, body in INTENTS.items() if name != "refund"}
    spec = make_spec(server.base_url, intents=left, **keys)
    assert plan_carry(spec, CarryOptions(ask_removed=True), open_embedder=never, show_progress=False).most_calls == 12
    done = run(spec, never)
    assert (done.n_carried, done.n_removed, done.n_calls) == (12, 12, 0)
    assert {tuple(line.scores) for line in recorded_labels(spec, TEXTS).values()} == {("cancel_order",)}


def test_in_multi_a_new_intent_is_sought_too(make_spec, server, monkeypatch):
    def answer(body, query):
        names = [name for word, name in WORDS.items() if word in query]
        return server.completion(json.dumps({"intents": [name for name in names if f'"{name}"' in json.dumps(body)]}))

    monkeypatch.setattr(server, "_profile_normal", answer)
    texts = [*FAR, *(f"cancel the weather forecast {number}" for number in range(4)), "nothing at all"]
    keys = {"task": "multi", "out_of_scope": False}
    label(make_spec(server.base_url, texts, **keys), show_progress=False)
    spec = make_spec(server.base_url, texts, intents={**INTENTS, "weather": WEATHER}, **keys)
    done = run(spec, max_share=0.3)
    assert (done.moved["near"], done.n_left) == (4, 0)
    assert set(recorded_labels(spec, texts)[texts[-2]].scores) == {"cancel_order", "weather"}


def test_in_weights_the_channel_that_is_gone_had_the_most_or_not(make_spec, server, monkeypatch):
    def answer(body, query):
        most = "refund" if "refund" in query else "track_order"
        return server.completion(json.dumps({"weights": {"cancel_order": 20, "refund": 30, most: 50}}))

    monkeypatch.setattr(server, "_profile_normal", answer)
    keys = {"task": "weights", "out_of_scope": False}
    label(make_spec(server.base_url, ["refund 1", "parcel"], **keys), show_progress=False)
    left = {name: body for name, body in INTENTS.items() if name != "refund"}
    spec = make_spec(server.base_url, ["refund 1", "parcel"], intents=left, **keys)
    asking = CarryOptions(ask_removed=True)
    assert plan_carry(spec, asking, open_embedder=never, show_progress=False).most_calls == 1
    done = run(spec, never)
    assert (done.n_carried, done.n_removed, done.n_calls) == (2, 1, 0)
    assert set(recorded_labels(spec, ["refund 1"])["refund 1"].scores) == {"cancel_order"}
    scores = recorded_labels(spec, ["parcel"])["parcel"].scores
    assert set(scores) == {"cancel_order", "track_order"}
    assert scores["track_order"] / scores["cancel_order"] == pytest.approx(2.5)


def test_twice_in_a_row(shop):
    """Answers of two sets of intents: each is carried over by what changed since its own."""
    spec = shop(texts=TEXTS[:6])
    label(spec, show_progress=False)
    spec = shop({**INTENTS, "refund": "Money given back"})
    label(spec, list(TEXTS[6:]), show_progress=False)
    renamed = {("money_back" if name == "refund" else name): body for name, body in INTENTS.items()}
    spec = shop(renamed)
    plan = plan_carry(spec, CarryOptions(renames={"refund": "money_back"}), open_embedder=ByWords, show_progress=False)
    assert [change.described_anew for change in plan.changes] == [(), ("money_back",)]
    done = run(spec, renames={"refund": "money_back"})
    assert (done.n_texts, done.n_left) == (12, 0)


def test_the_dialect_of_the_recording_is_kept(shop, server, monkeypatch):
    monkeypatch.setattr(server, "profile", "schema-refusing")
    label(shop(), show_progress=False)
    assert {line["settings"]["response_format"] for line in ledger_lines(shop()) if "scores" in line} == {"json_object"}
    spec = shop(dict(reversed(INTENTS.items())))
    run(spec, never)
    carried = [line for line in ledger_lines(spec) if "carried_from" in line]
    assert {line["settings"]["response_format"] for line in carried} == {"json_object"}


def test_a_recording_that_does_not_say_how_intents_were_described(shop):
    spec = shop()
    label(spec, show_progress=False)
    lines = ledger_lines(spec)
    assert [("intents" in line) for line in lines] == [True] + [False] * 11, "said once"
    del lines[0]["intents"]
    spec.ledger_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    spec = shop({**INTENTS, "refund": "Money given back", "weather": WEATHER})
    (change,) = plan_carry(spec, open_embedder=ByWords, show_progress=False).changes
    assert (change.added, change.removed, change.described_anew) == (("weather",), (), ())
    assert not change.says_descriptions
    options = CarryOptions(described_anew=("refund",))
    assert plan_carry(spec, options, open_embedder=ByWords, show_progress=False).changes[0].described_anew == (
        "refund",
    )


def test_a_name_that_looks_changed_is_pointed_out(shop):
    label(shop(), show_progress=False)
    renamed = {("money_back" if name == "refund" else name): body for name, body in INTENTS.items()}
    (change,) = plan_carry(shop(renamed), open_embedder=ByWords, show_progress=False).changes
    assert change.perhaps_renamed == {"refund": "money_back"}


def test_nothing_is_written_before_it_is_said_whether_an_intent_has_another_name(shop, server):
    label(shop(), show_progress=False)
    spec = shop(RENAMED)
    before, n_asked = spec.ledger_path.read_bytes(), server.n_requests
    with pytest.raises(
        SpecError, match=r"--rename refund=money_back\. If .*: --rename refund=oos .*Nothing was written"
    ):
        run(spec)
    assert (spec.ledger_path.read_bytes(), server.n_requests) == (before, n_asked)
    done = run(spec, renames={"refund": "oos"}, max_calls=0)
    assert (done.n_carried, labels(spec)["refund 4"]) == (12, "oos"), "gone indeed"
    assert run(spec).n_texts == 0, "there is nothing left to ask about"


def test_asking_again_about_an_intent_that_seems_to_have_another_name_needs_no_word(shop):
    label(shop(), show_progress=False)
    spec = shop(RENAMED)
    run(spec, ask_removed=True)
    assert labels(spec)["refund 4"] == "money_back"


def test_names_that_are_wrong(shop):
    label(shop(), show_progress=False)
    spec = shop({("money_back" if name == "refund" else name): body for name, body in INTENTS.items()})
    for renames, words in (
        ({"refund": "mony_back"}, "did you mean 'money_back'"),
        ({"cancel_order": "money_back"}, "'cancel_order' is still an intent"),
        ({"refunds": "money_back"}, "did you mean 'refund'"),
    ):
        with pytest.raises(SpecError, match=words):
            run(spec, never, renames=renames)
    with pytest.raises(SpecError, match="--changed refund"):
        run(spec, never, described_anew=("refund",))


def test_what_it_is_not_for(shop, make_spec, tmp_path):
    label(shop(), show_progress=False)
    with pytest.raises(TeacherError, match="sentence encoder"):
        run(shop({**INTENTS, "weather": WEATHER}), None)
    write_queries(tmp_path / "people.jsonl", [])
    (tmp_path / "people.jsonl").write_text('{"text": "a refund", "intent": "refund"}\n', encoding="utf-8")
    people = {"model": None, "base_url": None, "labels": "people.jsonl"}
    spec = make_spec(None, None, teacher=people)
    with pytest.raises(SpecError, match="people's"):
        run(spec, never)


def test_another_teachers_answers_are_not_carried_over(shop):
    label(shop(), show_progress=False)
    spec = load_spec(shop(dict(reversed(INTENTS.items()))).path, teacher_model="another")
    assert run(spec, never).n_texts == 0


TRAVEL = {"flight": "Book a flight", "hotel": "Book a hotel"}
RENAMED = {("money_back" if name == "refund" else name): body for name, body in INTENTS.items()}


@pytest.mark.parametrize(("shared", "says_router"), [({}, True), ({}, False), ({"refund": "Money back"}, True)])
def test_what_another_router_was_answered_beside_the_same_ledger_is_passed_over(shop, shared, says_router):
    spec = shop()
    label(spec, show_progress=False)
    label(shop({**TRAVEL, **shared}, name="travel"), show_progress=False)
    if not says_router:  # as older recordings
        lines = [{name: value for name, value in line.items() if name != "router"} for line in ledger_lines(spec)]
        spec.ledger_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    spec = shop(RENAMED)
    done = run(spec, never, renames={"refund": "money_back"})
    assert (done.n_carried, done.n_renamed, done.n_removed) == (12, 3, 0)
    assert labels(spec)["refund 4"] == "money_back"
    assert plan_labels(shop({**TRAVEL, **shared}, name="travel")).n_missing == 0, "and its own answers stay"


def test_a_router_that_has_another_name_keeps_its_answers(shop):
    label(shop(), show_progress=False)
    spec = shop(RENAMED, name="shop_2")
    assert run(spec, never, renames={"refund": "money_back"}).n_renamed == 3
    assert {line["router"] for line in ledger_lines(spec) if "carried_from" in line} == {"shop_2"}


def test_label_says_that_answers_exist_under_other_intents(shop, capsys):
    label(shop(), show_progress=False)
    spec = shop({**INTENTS, "weather": WEATHER}, [*TEXTS, "something new"])
    assert plan_labels(spec).n_under_other_intents == 12
    assert "other intents" not in capsys.readouterr().err
    label(spec, show_progress=False)
    assert "of 13 queries to be asked, 12 were answered under other intents; `distill carry" in capsys.readouterr().err
    assert plan_labels(spec).n_under_other_intents == 0
    spec = shop({**INTENTS, "weather": "Rain"}, teacher={"base_url": "http://example.invalid/v1"})
    with pytest.raises(MissingKeyError, match=r"with other settings \(intents\); `distill carry .*` keeps what still"):
        label(spec, show_progress=False)


# --- queries that a model wrote --------------------------------------------------------------------------------------


@pytest.fixture
def write_shop(make_spec, server):
    """A project whose queries the server writes."""

    def write(intents=INTENTS):
        synth = {"per_intent": 8, "out_of_scope": 8, "per_request": 4}
        return make_spec(server.base_url, None, intents=intents, synth=synth)

    spec = write()
    synthesise(spec, show_progress=False)
    label(spec, show_progress=False)
    server.requests.clear()
    return write


def test_another_name_is_carried_to_written_queries_and_their_answers_without_a_call(write_shop, server):
    spec = write_shop({("money_back" if name == "refund" else name): body for name, body in INTENTS.items()})
    options = CarryOptions(renames={"refund": "money_back"})
    assert plan_carry(spec, options, open_embedder=never, show_progress=False).n_texts == 32
    done = carry(spec, options, open_embedder=never, show_progress=False)
    assert (done.n_carried, done.n_calls, done.n_left) == (32, 0, 0)
    assert done.n_written > 0
    assert synthesise(spec, show_progress=False).got == {"track_order": 8, "cancel_order": 8, "money_back": 8, "oos": 8}
    assert plan_labels(spec).n_missing == 0
    assert server.n_requests == 0


def test_queries_that_were_written_for_an_intent_that_is_gone_are_not_asked_about(write_shop, server):
    spec = write_shop({name: body for name, body in INTENTS.items() if name != "refund"})
    assert carry(spec, open_embedder=never, show_progress=False).n_texts == 24
    synthesise(spec, show_progress=False)
    assert plan_labels(spec).n_missing == 0
    assert server.n_requests == 0


def test_written_queries_go_to_those_that_fit_none_without_a_call(write_shop, server):
    spec = write_shop({name: body for name, body in INTENTS.items() if name != "refund"})
    n_asked = server.n_requests
    done = run(spec, renames={"refund": "oos"})
    assert (done.n_calls, done.n_left) == (0, 0)
    synthesise(spec, show_progress=False)
    label(spec, show_progress=False)
    assert server.n_requests == n_asked


def test_a_wrong_name_carries_nothing(write_shop):
    spec = write_shop({("money_back" if name == "refund" else name): body for name, body in INTENTS.items()})
    before = spec.synthesis_path.read_bytes()
    with pytest.raises(SpecError, match="did you mean 'money_back'"):
        run(spec, never, renames={"refund": "mony_back"})
    assert spec.synthesis_path.read_bytes() == before
