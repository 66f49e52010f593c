from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest
from fake_server import FakeServer, query_of
from improvable import ByText
from scipy.spatial.distance import pdist
from teacher_specs import INTENTS, PRICE

from distill.data import normalise, read_jsonl, read_queries
from distill.errors import DataError, MissingKeyError, SpecError, SpendLimitError, TeacherError
from distill.teacher.answers import FORMS
from distill.teacher.spend import spend_by_stage
from distill.teacher.synth import carry_synthesis, plan_synthesis, synthesise
from distill.teacher.writer import Writer
from distill.types import Task

SYNTH = {"per_intent": 10, "out_of_scope": 12, "per_request": 4}


@pytest.fixture
def make_synth_spec(make_spec):
    def make(base_url=None, **keys):
        return make_spec(base_url, None, **{"synth": SYNTH, **keys})

    return make


def written(spec):
    return [line for _, line in read_jsonl(spec.queries_path)]


def test_it_writes_what_is_asked_for(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    summary = synthesise(spec, show_progress=False)
    assert summary.changed
    assert summary.got == summary.wanted == {**dict.fromkeys(INTENTS, 10), "oos": 12}
    lines = written(spec)
    assert Counter(line["intended_intent"] for line in lines) == summary.got
    assert len({normalise(line["text"]) for line in lines}) == len({line["id"] for line in lines}) == 42
    assert {query.source for query in read_queries(spec.queries_path)} == {"synth"}
    assert summary.n_asked == server.n_requests == len(list(read_jsonl(spec.synthesis_path)))


def test_a_second_run_does_nothing(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    synthesise(spec, show_progress=False)
    n_requests, before = server.n_requests, spec.queries_path.read_bytes()
    summary = synthesise(spec, show_progress=False)
    assert (summary.changed, summary.n_asked, server.n_requests) == (False, 0, n_requests)
    assert spec.queries_path.read_bytes() == before


def test_a_replay_gives_the_same_bytes_without_key_and_openai(server, make_synth_spec, monkeypatch):
    spec = make_synth_spec(server.base_url)
    synthesise(spec, show_progress=False)
    live = spec.queries_path.read_bytes()
    spec.queries_path.unlink()
    monkeypatch.setitem(sys.modules, "openai", None)
    spec = make_synth_spec(None, teacher={"max_usd": 5})
    summary = synthesise(spec, show_progress=False)
    assert (summary.changed, summary.n_asked) == (True, 0)
    assert spec.queries_path.read_bytes() == live
    assert plan_synthesis(spec).n_missing == 0


def test_a_replay_gives_the_same_bytes_after_failures_that_were_asked_again(make_synth_spec):
    with FakeServer("broken-on-odd") as fake:
        spec = make_synth_spec(
            fake.base_url, synth=SYNTH | {"per_intent": 20}, teacher={"concurrency": 1, "max_usd": 1}
        )
        spec.synthesis_path.write_text('{"torn')
        fake.profile = "broken"
        with pytest.raises(TeacherError, match="8 requests in a row failed"):
            synthesise(spec, show_progress=False)
        assert not spec.queries_path.exists()
        fake.profile = "broken-on-odd"
        synthesise(spec, show_progress=False)
        live = spec.queries_path.read_bytes()
    spec.queries_path.unlink()
    assert synthesise(make_synth_spec(None, synth=SYNTH | {"per_intent": 20}), show_progress=False).n_asked == 0
    assert spec.queries_path.read_bytes() == live


def test_the_order_of_answers_does_not_matter(make_synth_spec):
    results = []
    for concurrency in (1, 4):
        with FakeServer(delay_s=0.01) as fake:
            spec = make_synth_spec(fake.base_url, teacher={"concurrency": concurrency})
            synthesise(spec, show_progress=False)
        results.append(spec.queries_path.read_bytes())
        spec.queries_path.unlink()
        spec.synthesis_path.unlink()
    assert results[0] == results[1]


@pytest.mark.parametrize("n_fine", [1, 4])
def test_a_run_that_was_cut_goes_on_and_pays_nothing_twice(make_synth_spec, n_fine):
    with FakeServer() as fake:
        spec = make_synth_spec(fake.base_url, teacher={"concurrency": 1})
        fine = fake.respond
        fake.respond = lambda body, query: fine(body, query) if fake.n_requests <= n_fine else (401, {}, {})
        with pytest.raises(TeacherError, match="was refused"):
            synthesise(spec, show_progress=False)
        assert len(list(read_jsonl(spec.synthesis_path))) == n_fine
        paid = {query_of(body) for body in fake.requests[:n_fine]}
        with spec.synthesis_path.open("a") as stream:
            stream.write('{"key": "torn by kill -9')
        fake.respond, cut = fine, fake.n_requests
        synthesise(spec, show_progress=False)
        assert not paid & {query_of(body) for body in fake.requests[cut:]}
    assert len(written(spec)) == 42


def test_nothing_that_is_known_is_written(make_synth_spec, tmp_path):
    """Examples, gold, repetitions, too long ones, what is no text, and echoes of the request are left out."""
    (tmp_path / "gold.jsonl").write_text('{"text": "A gold query!", "intent": "refund"}\n')
    bad = [
        "a GOLD  query",
        "Where is it?",
        "same",
        "Same!",
        "x" * 301,
        7,
        None,
        "half \ud83d",
        "?!",
        "begins with 'what'",
    ]
    with FakeServer() as fake:
        fine = fake.respond

        def respond(body, query):
            _, reply, _ = fine(body, query)
            queries = json.loads(reply["choices"][0]["message"]["content"])["queries"]
            return fake.completion(json.dumps({"queries": [*bad, *queries]}))

        fake.respond = respond
        spec = make_synth_spec(fake.base_url, gold="gold.jsonl")
        summary = synthesise(spec, show_progress=False)
    texts = [line["text"] for line in written(spec)]
    assert texts.count("same") == 1
    assert not {"a GOLD query", "Where is it?", "Same!", "?!", "half \ud83d", "begins with 'what'"} & set(texts)
    assert max(map(len, texts)) <= 300
    for dropped in summary.dropped.values():
        assert min(dropped.known, dropped.repeated + dropped.of_another, dropped.unusable) > 0
    assert "gold query" not in json.dumps(fake.requests)


def test_evidence_is_never_written_as_a_query(make_synth_spec, tmp_path):
    (tmp_path / "known.jsonl").write_text('{"text": "same", "intent": "refund"}\n')
    with FakeServer() as fake:
        fine = fake.respond

        def respond(body, query):
            _, reply, _ = fine(body, query)
            queries = json.loads(reply["choices"][0]["message"]["content"])["queries"]
            return fake.completion(json.dumps({"queries": ["Same!", *queries]}))

        fake.respond = respond
        spec = make_synth_spec(fake.base_url, teacher={"evidence": "known.jsonl"})
        summary = synthesise(spec, show_progress=False)
        assert any('For instance: "same"' in body["messages"][-1]["content"] for body in fake.requests)
    assert "Same!" not in {line["text"] for line in written(spec)}
    assert all(dropped.known for dropped in summary.dropped.values())
    assert '"same"' not in spec.synthesis_path.read_text().casefold().replace('"same!"', "")


def test_lines_changed_by_hand_stay(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    synthesise(spec, show_progress=False)
    lines = spec.queries_path.read_text().splitlines()[5:]
    edited = "\n".join([*lines, '{"text": "my own line"}']) + "\n"
    spec.queries_path.write_text(edited)
    assert not synthesise(spec, show_progress=False).changed
    assert spec.queries_path.read_text() == edited
    changed = make_synth_spec(server.base_url, synth=SYNTH | {"per_intent": 11})
    assert synthesise(changed, show_progress=False).changed
    assert written(changed)[-1] == {"text": "my own line"}


def test_a_line_by_hand_without_a_text_is_named_before_anything_is_asked(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    synthesise(spec, show_progress=False)
    with spec.queries_path.open("a") as lines:
        lines.write('{"query": "by hand"}\n')
    n_requests, more = server.n_requests, make_synth_spec(server.base_url, synth=SYNTH | {"per_intent": 30})
    for act in (plan_synthesis, lambda spec: synthesise(spec, show_progress=False)):
        with pytest.raises(DataError, match=r"queries\.jsonl:\d+: .*text"):
            act(more)
    assert server.n_requests == n_requests


def test_a_users_own_queries_are_never_overwritten(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    spec.queries_path.write_text('{"text": "mine"}\n')
    with pytest.raises(DataError, match="was not written by synth"):
        synthesise(spec, show_progress=False)
    assert spec.queries_path.read_text() == '{"text": "mine"}\n'
    with pytest.raises(DataError, match=r"logs\.jsonl: does not exist; router\.yaml names it"):
        synthesise(make_synth_spec(server.base_url, queries="logs.jsonl"), show_progress=False)
    assert server.n_requests == 0


@pytest.mark.parametrize("profile", ["reasoning", "schema-refusing", "detail-refusing"])
def test_servers_with_dialects_of_their_own(make_synth_spec, profile):
    with FakeServer(profile) as fake:
        spec = make_synth_spec(fake.base_url)
        assert synthesise(spec, show_progress=False).got["refund"] == 10
    assert len(written(spec)) == 42


def test_an_answer_that_was_cut_off_gives_its_whole_queries(make_synth_spec):
    with FakeServer() as fake:
        answers = iter(range(10_000))
        fake.respond = lambda *_: fake.completion(
            f'{{"queries": ["one {next(answers)}", "with a \\"quote\\" {next(answers)}", "a \\x bad one", "cut o',
            "length",
        )
        spec = make_synth_spec(fake.base_url)
        synthesise(spec, show_progress=False)
    texts = [line["text"] for line in written(spec)]
    assert {"one 0", 'with a "quote" 1'} <= set(texts)
    assert not any("cut o" in text or "bad" in text for text in texts)


def test_a_query_may_stand_in_an_object_of_its_own(make_synth_spec):
    with FakeServer() as fake:
        answers = iter(range(10_000))
        fake.respond = lambda *_: fake.completion(
            json.dumps([{"n": 1, "query": f"one {next(answers)}"}, {"text": f"other {next(answers)}", "why": "so"}, 3])
        )
        spec = make_synth_spec(fake.base_url)
        synthesise(spec, show_progress=False)
    assert all(line["text"].startswith("one ") for line in written(spec))


def test_answers_without_a_text_end_the_run_and_say_what_to_mend(make_synth_spec):
    with FakeServer() as fake:
        fake.respond = lambda *_: fake.completion(json.dumps({"queries": [{"a": "x", "b": "y"}]}))
        spec = make_synth_spec(fake.base_url, teacher={"concurrency": 1})
        with pytest.raises(TeacherError, match=r"8 requests in a row failed, .*no list of queries.*Mend the teacher"):
            synthesise(spec, show_progress=False)
        assert fake.n_requests == 8


def test_a_writer_that_thinks_too_long_is_told_by_the_setting(make_synth_spec):
    with FakeServer() as fake:
        fake.respond = lambda *_: fake.completion("", "length")
        spec = make_synth_spec(fake.base_url)
        with pytest.raises(TeacherError, match=r"cut off after \d+ tokens \(teacher.max_output_tokens\)"):
            synthesise(spec, show_progress=False)


def test_it_runs_inside_a_running_event_loop(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)

    async def notebook():
        return synthesise(spec, show_progress=False)

    assert asyncio.run(notebook()).n_asked > 0


def test_the_spend_limit_is_kept_and_what_is_written_stays(server, make_synth_spec):
    teacher = {"price": PRICE, "max_usd": "0.006", "concurrency": 2, "max_output_tokens": 100}
    spec = make_synth_spec(server.base_url, teacher=teacher)
    with pytest.raises(SpendLimitError, match="Everything answered is kept") as caught:
        synthesise(spec, show_progress=False)
    n_missing, n_wanted = map(int, re.search(r"synth.jsonl lacks (\d+) of (\d+) queries; queries.jsonl is", str(caught.value)).groups())  # fmt: skip
    assert 0 < n_missing < n_wanted
    lines = [line for _, line in read_jsonl(spec.synthesis_path)]
    n_paid, rounds = len(lines), {}
    for line in lines:
        rounds.setdefault(line["target"], []).append(line["round"])
    assert all(sorted(own) == list(range(len(own))) for own in rounds.values()), "a request that waited is not left out"
    assert 0 < n_paid == server.n_requests
    assert n_paid * Decimal("0.0002") <= Decimal("0.006")
    spec = make_synth_spec(server.base_url, teacher=teacher | {"max_usd": 1})
    assert synthesise(spec, show_progress=False).spent_usd == server.n_requests * Decimal("0.0002")
    assert len({json.dumps(body["messages"]) for body in server.requests}) == server.n_requests


def test_a_limit_without_a_known_price_is_refused_before_any_call(make_synth_spec, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    spec = make_synth_spec(
        "https://example.invalid/v1", teacher={"max_usd": 1}, synth=SYNTH | {"model": "nobody-knows-it"}
    )
    with pytest.raises(SpecError, match="no price is known for 'nobody-knows-it'"):
        synthesise(spec, show_progress=False)


@pytest.mark.parametrize(
    ("teacher", "intents", "named"),
    [
        ({"model": "other"}, INTENTS, "recorded by 'fake'"),
        ({}, INTENTS | {"refund": "Money"}, "recorded with other intents or settings of synth"),
    ],
)
def test_without_a_key_the_error_says_what_differs(server, make_synth_spec, teacher, intents, named):
    with pytest.raises(MissingKeyError, match="lacks 42 queries by 'fake'; it holds none yet"):
        synthesise(make_synth_spec(None), show_progress=False)
    spec = make_synth_spec(server.base_url)
    synthesise(spec, show_progress=False)
    with pytest.raises(MissingKeyError, match=f"OPENAI_API_KEY is not set.*{named}"):
        synthesise(make_synth_spec(None, teacher=teacher, intents=intents), show_progress=False)
    assert len(written(spec)) == 42, "what was there stays"


def test_a_callable_cannot_write_queries(make_synth_spec):
    with pytest.raises(TeacherError, match=r"synth needs a model: give synth\.model"):
        synthesise(make_synth_spec(None, teacher={"model": None, "callable": "a:b"}), show_progress=False)


def test_a_damaged_recording_names_its_line(make_synth_spec):
    spec = make_synth_spec(None)
    spec.synthesis_path.write_text('{"key": "a", "queries": []}\n{"queries": []}\n')
    with pytest.raises(DataError, match=r"synth\.jsonl:2: not a line of a synthesis recording"):
        synthesise(spec, show_progress=False)


def test_the_plan_counts_and_prices_without_asking(server, make_synth_spec):
    plan = plan_synthesis(make_synth_spec(server.base_url, teacher={"price": PRICE}))
    assert plan.n_missing == 42
    assert plan.n_requests >= 42 / 4
    assert plan.estimated_usd > 0
    assert server.n_requests == 0


def test_the_plan_reckons_with_the_longer_requests(make_synth_spec, tmp_path):
    lines = [{"text": f"parcel {number}", "intent": "track_order"} for number in range(5)]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = make_synth_spec("http://127.0.0.1:9/v1", teacher={"price": PRICE, "evidence": "known.jsonl"})
    before, writer = plan_synthesis(spec), Writer(spec)
    for target in writer.wanted:
        first = next(writer.rounds(target))
        line = {**first.line, "key": writer.key(first), "queries": [f"{target} query"], "teacher": writer.model}
        with spec.synthesis_path.open("a") as stream:
            stream.write(json.dumps(line | {"prompt_sha256": writer.settings_sha256}) + "\n")
    after = plan_synthesis(spec)
    assert after.n_missing == before.n_missing - 4
    a_request = [float(each.estimated_usd) / each.n_requests for each in (before, after)]
    assert a_request[1] == pytest.approx(a_request[0], rel=0.1)


# --- attributes, several intents, weights ----------------------------------------------------------------------------

PERSONAS, LANGUAGES = ["a student", "a tourist", "a nurse"], ["English", "German"]
MULTI = {"task": "multi", "out_of_scope": False}
CHANNELS = {"visual": "What is seen", "audio": "What is heard"}
KINDS = ["a scene", "a line of dialogue", "a song"]


def recorded(spec):
    return [line for _, line in read_jsonl(spec.synthesis_path)]


def prompts(server):
    return [body["messages"][-1]["content"] for body in server.requests]


def test_every_query_gets_a_value_of_every_attribute_and_each_value_as_often_as_another(server, make_synth_spec):
    attributes = {"persona": PERSONAS, "language": LANGUAGES}
    spec = make_synth_spec(server.base_url, synth={**SYNTH, "per_intent": 12, "attributes": attributes})
    synthesise(spec, show_progress=False)
    of_one = [line for round_ in recorded(spec) if round_["target"] == "refund" for line in round_["lines"]]
    for name, values in attributes.items():
        found = Counter(line.partition(f"{name}: ")[2].partition(",")[0] for line in of_one)
        assert set(found) == set(values)
        assert max(found.values()) - min(found.values()) <= 1
    assert len({line.partition("persona: ")[2] for line in of_one}) == 6, "they are crossed"


def test_an_attribute_of_a_style_of_ours_takes_its_place(server, make_synth_spec):
    attributes = {"beginning": [""], "length": ["one word"]}
    spec = make_synth_spec(server.base_url, synth={**SYNTH, "attributes": attributes})
    synthesise(spec, show_progress=False)
    lines = [line for round_ in recorded(spec) for line in round_["lines"]]
    assert not any("begins with" in line or "short" in line for line in lines)
    assert all("length: one word" in line for line in lines)


def test_attributes_replay_and_a_change_of_them_writes_anew(server, make_synth_spec):
    def with_attributes(base_url, personas):
        return make_synth_spec(base_url, synth={**SYNTH, "attributes": {"persona": personas}})

    spec = with_attributes(server.base_url, PERSONAS)
    synthesise(spec, show_progress=False)
    live = spec.queries_path.read_bytes()
    spec.queries_path.unlink()
    assert synthesise(with_attributes(None, PERSONAS), show_progress=False).n_asked == 0
    assert spec.queries_path.read_bytes() == live
    changed = with_attributes(server.base_url, PERSONAS[:2])
    assert plan_synthesis(changed).n_missing > 0
    assert synthesise(changed, show_progress=False).changed
    assert spec.queries_path.read_bytes() != live


def test_what_was_recorded_without_attributes_is_found_when_they_are_taken_out(server, make_synth_spec):
    synthesise(make_synth_spec(server.base_url), show_progress=False)
    n_requests = server.n_requests
    crossed = make_synth_spec(server.base_url, synth={**SYNTH, "attributes": {"persona": PERSONAS}})
    synthesise(crossed, show_progress=False)
    assert len(recorded(crossed)) == server.n_requests > n_requests
    assert synthesise(make_synth_spec(None), show_progress=False).n_asked == 0


def test_multi_mixes_intents_and_writes_queries_that_fit_none(server, make_synth_spec):
    spec = make_synth_spec(server.base_url, **MULTI)
    summary = synthesise(spec, show_progress=False)
    assert summary.got == {**dict.fromkeys(INTENTS, 10), "oos": 12}
    rounds = {target: [line for line in recorded(spec) if line["target"] == target] for target in summary.got}
    for target in INTENTS:
        asked = {other for line in rounds[target] for other in line["others"]}
        assert asked == set(INTENTS) - {target}
        for line in rounds[target]:
            mixed = ["and asks for" in each for each in line["lines"]]
            assert mixed == [False, True, False, True]
    assert all("others" not in line for line in rounds["oos"])
    (prompt,) = {
        each
        for each in prompts(server)
        if each.startswith("Intent: refund")
        and "Stop an order" in each
        and "1. " + rounds["refund"][0]["lines"][0] in each
    }
    assert "Some of the queries ask for this too:\n- " in prompt


def test_weights_are_written_for_each_channel_where_there_are_no_attributes(server, make_synth_spec):
    spec = make_synth_spec(server.base_url, task="weights", out_of_scope=False, intents=CHANNELS)
    assert synthesise(spec, show_progress=False).got == dict.fromkeys(CHANNELS, 10)
    system = server.requests[0]["messages"][0]["content"]
    assert "- visual: What is seen\n- audio: What is heard" in system
    assert any("found mostly under audio (What is heard)" in prompt for prompt in prompts(server))
    assert not any("begins with" in prompt for prompt in prompts(server))


def test_weights_are_written_for_each_value_of_the_first_attribute(server, make_synth_spec):
    synth = {**SYNTH, "attributes": {"about": KINDS, "subject": ["cooking", "sport"]}}
    spec = make_synth_spec(server.base_url, task="weights", out_of_scope=False, intents=CHANNELS, synth=synth)
    summary = synthesise(spec, show_progress=False)
    assert summary.got == summary.wanted == dict.fromkeys(KINDS, 10)
    assert {line["intended_intent"] for line in written(spec)} == set(KINDS)
    for kind in KINDS:
        (first, *_) = [prompt for prompt in prompts(server) if f"who look for something by {kind}," in prompt]
        assert "subject: cooking" in first
        lines = re.findall(r"^\d+\. (.*)$", first, flags=re.MULTILINE)
        assert all(line.startswith(f"by {kind}, subject: ") for line in lines)
    assert synthesise(spec, show_progress=False).changed is False


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"persona": []}, "'persona' has no value"),
        ({" ": ["x"]}, "empty name"),
        ({"persona": "a student"}, r"synth\.attributes\.persona`: Input should be a list"),
        ({"persona": [1990]}, "valid string"),
        ({"persona": ["two\nlines"]}, "line break"),
        (["persona"], "a mapping"),
    ],
)
def test_attributes_that_are_none(make_synth_spec, attributes, named):
    with pytest.raises(SpecError, match=named) as caught:
        make_synth_spec(None, synth={**SYNTH, "attributes": attributes})
    assert "router.yaml:1: " in str(caught.value)


@pytest.mark.parametrize("values", [["a scene", "a scene"], ["a scene", " "], ["oos", "a scene"]])
def test_kinds_of_queries_must_differ(make_synth_spec, values):
    with pytest.raises(SpecError, match="each value of the first attribute, 'about'"):
        make_synth_spec(
            None, task="weights", out_of_scope=False, intents=CHANNELS, synth={"attributes": {"about": values}}
        )
    synth = {"attributes": {"tone": ["", "kind", "kind"]}}
    assert make_synth_spec(None, synth=synth).synth.attributes["tone"] == ("", "kind", "kind")


def test_a_model_that_repeats_the_lines_has_written_nothing(server, make_synth_spec):
    server.respond = lambda body, query: server.completion(
        json.dumps({"queries": [f"{line}!" for line in re.findall(r"^\d+\. (.*)$", query, flags=re.MULTILINE)]})
    )
    synth = {**SYNTH, "attributes": {"persona": PERSONAS}}
    summary = synthesise(make_synth_spec(server.base_url, synth=synth, out_of_scope=False), show_progress=False)
    assert set(summary.got.values()) == {0}
    assert all(summary.dropped[target].unusable for target in summary.wanted)


def test_what_is_to_be_written_stands_in_the_last_message_after_one_that_was_answered(server, make_synth_spec):
    for task, attributes in (("single", {"persona": PERSONAS}), ("multi", {}), ("weights", {})):
        server.requests.clear()
        synth = {**SYNTH, "attributes": attributes}
        spec = make_synth_spec(server.base_url, task=task, out_of_scope=False, synth=synth)
        spec.queries_path.unlink(missing_ok=True)
        synthesise(spec, show_progress=False)
        for body in server.requests:
            assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
            wanted, given = (message["content"] for message in body["messages"][1:3])
            assert len(json.loads(given)["queries"]) == len(re.findall(r"^\d+\. ", wanted, flags=re.MULTILINE)) == 3
        assert len({json.dumps(body["messages"][:3]) for body in server.requests}) == 1


# --- near repetitions, and what the summary says ---------------------------------------------------------------------


class ByPart(ByText):
    """Texts are alike when so many parts of their lines are: the fake server writes lines back with a number."""

    def __init__(self, n_parts):
        self.n_parts = n_parts

    def embed(self, texts, on_done=None):
        lines = [text.partition(" ")[2].partition(" ")[2] for text in texts]
        return super().embed([",".join(line.split(",")[: self.n_parts]) for line in lines])


def kinds(spec, n_parts):
    """What ``ByPart`` tells apart, of each query in queries.jsonl."""
    return [",".join(line["text"].split(" ", 2)[2].split(",")[:n_parts]) for line in written(spec)]


def test_near_repetitions_are_dropped_across_intents_and_others_written_in_their_place(server, make_synth_spec):
    settings = {"concurrency": 1}  # what repeats what depends on the order of the answers
    few = {"beginning": [""]}  # of the rest, directness and length come first in a line
    synth = {"per_intent": 3, "out_of_scope": 1, "per_request": 4, "attributes": few}
    spec = make_synth_spec(server.base_url, teacher=settings, synth=synth)
    summary = synthesise(spec, open_embedder=lambda: ByPart(2), show_progress=False)
    assert summary.got == summary.wanted
    found = kinds(spec, 2)
    assert len(set(found)) == len(found) == 10
    assert any(dropped.nearly_repeated for dropped in summary.dropped.values())
    assert any(dropped.of_another for dropped in summary.dropped.values())
    n_dropped = sum(dropped.total for dropped in summary.dropped.values())
    assert n_dropped == sum(len(line["repeats"]) for line in recorded(spec))
    assert sum(len(line["queries"]) for line in recorded(spec)) >= 10 + n_dropped


def test_a_replay_drops_the_same_without_vectors_and_asks_nothing(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    first = synthesise(spec, open_embedder=lambda: ByPart(3), show_progress=False)
    live, n_requests = spec.queries_path.read_bytes(), server.n_requests
    for open_embedder in (None, lambda: None, lambda: pytest.fail("opened")):
        spec.queries_path.unlink()
        again = synthesise(make_synth_spec(None), open_embedder=open_embedder, show_progress=False)
        assert (again.n_asked, again.dropped, again.changed) == (0, first.dropped, True)
        assert spec.queries_path.read_bytes() == live
    assert server.n_requests == n_requests
    more = make_synth_spec(server.base_url, synth=SYNTH | {"per_intent": 12})
    synthesise(more, open_embedder=lambda: ByPart(3), show_progress=False)
    found = kinds(more, 3)
    assert len(set(found)) == len(found) == 48, "what is asked later is compared with what was recorded"


def test_where_nothing_new_comes_the_requests_have_an_end(server, make_synth_spec):
    summary = synthesise(make_synth_spec(server.base_url), open_embedder=lambda: ByPart(0), show_progress=False)
    assert sorted(summary.got.values()) == [0, 0, 0, 1]
    assert summary.n_asked == server.n_requests == 3 * 4 * 3 + 4 * 3


def test_a_run_that_was_cut_compares_with_what_came_before_and_pays_nothing_twice(make_synth_spec):
    with FakeServer() as fake:
        spec = make_synth_spec(fake.base_url, teacher={"concurrency": 1})
        fine = fake.respond
        fake.respond = lambda body, query: fine(body, query) if fake.n_requests <= 6 else (401, {}, {})
        with pytest.raises(TeacherError, match="was refused"):
            synthesise(spec, open_embedder=lambda: ByPart(3), show_progress=False)
        paid, cut = {query_of(body) for body in fake.requests[:6]}, fake.n_requests
        fake.respond = fine
        synthesise(spec, open_embedder=lambda: ByPart(3), show_progress=False)
        assert not paid & {query_of(body) for body in fake.requests[cut:]}
    found = kinds(spec, 3)
    assert len(set(found)) == len(found) == 42


def test_what_was_recorded_before_there_were_rivals_replays_and_goes_on_with_its_template(
    server, make_synth_spec, monkeypatch
):
    older = replace(FORMS[Task.SINGLE], synth_templates=("synth_001",), names_rivals=False)
    with monkeypatch.context() as patch:
        patch.setattr("distill.teacher.writer.FORMS", {Task.SINGLE: older})
        spec = make_synth_spec(server.base_url)
        synthesise(spec, show_progress=False)
    lines = [{name: value for name, value in line.items() if name != "repeats"} for line in recorded(spec)]
    spec.synthesis_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    live, n_requests = spec.queries_path.read_bytes(), server.n_requests
    assert not synthesise(make_synth_spec(None), show_progress=False).changed
    spec.queries_path.unlink()
    assert synthesise(make_synth_spec(None), show_progress=False).n_asked == 0
    assert spec.queries_path.read_bytes() == live
    more = make_synth_spec(server.base_url, synth=SYNTH | {"per_intent": 16})
    synthesise(more, open_embedder=ByText, show_progress=False)
    assert n_requests < server.n_requests <= n_requests + 6
    assert {line["prompt_sha256"] for line in recorded(more)} == {lines[0]["prompt_sha256"]}
    assert not any("rivals" in line for line in recorded(more))


def test_requests_name_the_nearest_intents(server, make_synth_spec):
    class Alike(ByText):
        def embed(self, texts, on_done=None):
            about_orders = ["order" in text or text == "where is it" for text in texts]
            return super().embed(
                ["an order" if is_one else text for is_one, text in zip(about_orders, texts, strict=True)]
            )

    spec = make_synth_spec(server.base_url)
    synthesise(spec, open_embedder=Alike, show_progress=False)
    rivals = {line["target"]: line.get("rivals") for line in recorded(spec)}
    assert rivals["track_order"][0] == "cancel_order"
    assert rivals["cancel_order"][0] == "track_order"
    (prompt, *_) = [each for each in prompts(server) if each.startswith("Intent: cancel_order")]
    assert "Not to be taken for:\n- track_order: Where an order is\n" in prompt


def test_no_vectors_are_made_before_it_is_known_that_the_model_can_be_asked(make_synth_spec, monkeypatch):
    def opened():
        pytest.fail("opened")

    with pytest.raises(MissingKeyError):
        synthesise(make_synth_spec(None), open_embedder=opened, show_progress=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    spec = make_synth_spec(
        "https://example.invalid/v1", teacher={"max_usd": 1}, synth=SYNTH | {"model": "nobody-knows-it"}
    )
    with pytest.raises(SpecError, match="no price is known"):
        synthesise(spec, open_embedder=opened, show_progress=False)


def test_the_summary_tells_how_varied_the_queries_are(server, make_synth_spec):
    spec = make_synth_spec(server.base_url)
    first = synthesise(spec, open_embedder=lambda: ByPart(2), show_progress=False)
    assert set(first.mean_distance.values()) == {None}, "not measured"
    again = synthesise(spec, open_embedder=lambda: ByPart(2), measure=True, show_progress=False)
    assert (again.changed, again.dropped, again.distinct_2) == (False, first.dropped, first.distinct_2)
    for target in again.wanted:
        texts = [line["text"] for line in written(spec) if line["intended_intent"] == target]
        expected = pdist(ByPart(2).embed(texts), "cosine").mean()
        assert again.mean_distance[target] == pytest.approx(expected, abs=1e-4)
        assert 0 < again.distinct_2[target] <= 1


# --- intents that change ---------------------------------------------------------------------------------------------

NEW = {"lost_parcel": {"description": "A parcel never came", "examples": []}}
WITHOUT = {name: body for name, body in INTENTS.items() if name != "refund"}
RENAMED = {("money_back" if name == "refund" else name): body for name, body in INTENTS.items()}


@pytest.fixture(params=["now", "before basis"])
def synthesised(request, server, make_synth_spec):
    """Writes the queries of a project; the recording says what its requests depend on, or is from before it did."""

    def write(**keys):
        spec = make_synth_spec(server.base_url, **keys)
        synthesise(spec, show_progress=False)
        if request.param == "before basis":
            lines = [
                json.dumps({name: value for name, value in line.items() if name != "basis"}) for line in recorded(spec)
            ]
            spec.synthesis_path.write_text("".join(f"{line}\n" for line in lines))
        server.requests.clear()
        return {line["text"]: line["intended_intent"] for line in written(spec)}

    return write


def texts_by_target(spec):
    return {line["text"]: line["intended_intent"] for line in written(spec)}


def test_for_an_intent_that_is_new_alone_queries_are_written(synthesised, server, make_synth_spec):
    before = synthesised()
    spec = make_synth_spec(server.base_url, intents=INTENTS | NEW)
    assert plan_synthesis(spec).n_missing == 10
    summary = synthesise(spec, open_embedder=ByText, show_progress=False)
    assert summary.got == {**dict.fromkeys(INTENTS | NEW, 10), "oos": 12}
    assert {line["target"] for line in recorded(spec)[-summary.n_asked :]} == {"lost_parcel"}
    assert all("Intent: lost_parcel" in prompt for prompt in prompts(server))
    assert before.items() <= texts_by_target(spec).items()
    live = spec.queries_path.read_bytes()
    spec.queries_path.unlink()
    assert synthesise(make_synth_spec(None, intents=INTENTS | NEW), show_progress=False).n_asked == 0
    assert spec.queries_path.read_bytes() == live


def test_an_intent_that_goes_takes_its_queries_with_it_and_nothing_is_asked(synthesised, make_synth_spec):
    before = synthesised()
    spec = make_synth_spec(None, intents=WITHOUT)
    assert synthesise(spec, show_progress=False).n_asked == 0
    assert texts_by_target(spec) == {text: name for text, name in before.items() if name != "refund"}
    assert synthesise(make_synth_spec(None), show_progress=False).n_asked == 0, "and it may come back"
    assert texts_by_target(spec) == before


def test_another_name_is_carried_to_what_was_written(synthesised, make_synth_spec):
    before = synthesised()
    spec = make_synth_spec(None, intents=RENAMED)
    assert plan_synthesis(spec).n_missing == 10
    assert plan_synthesis(spec, renames={"refund": "money_back"}).n_missing == 0
    n_lines, spent = len(recorded(spec)), spend_by_stage(spec)
    n_carried = carry_synthesis(spec, {"refund": "money_back"})
    assert n_carried == len(recorded(spec)) - n_lines == sum(line["target"] == "refund" for line in recorded(spec))
    assert spend_by_stage(spec) == spent, "what was carried over was not paid for again"
    assert carry_synthesis(spec, {"refund": "money_back"}) == 0, "once is enough"
    assert synthesise(spec, show_progress=False).n_asked == 0
    assert texts_by_target(spec) == {text: "money_back" if name == "refund" else name for text, name in before.items()}


def test_intents_that_are_merged_share_the_queries(synthesised, make_synth_spec):
    before = synthesised()
    spec = make_synth_spec(None, intents=WITHOUT)
    carry_synthesis(spec, {"refund": "cancel_order"})
    assert synthesise(spec, show_progress=False).n_asked == 0
    whose = Counter(before[text] for text, name in texts_by_target(spec).items() if name == "cancel_order")
    assert whose.total() == 10
    assert min(whose.values()) >= 3
    assert set(whose) == {"cancel_order", "refund"}


def test_an_intent_that_is_described_anew_is_written_for_alone(server, make_synth_spec):
    synthesise(make_synth_spec(server.base_url), show_progress=False)
    server.requests.clear()
    anew = make_synth_spec(server.base_url, intents=INTENTS | {"refund": "Money that is sent back"})
    synthesise(anew, show_progress=False)
    assert all("Intent: refund: Money that is sent back" in prompt for prompt in prompts(server))
    server.requests.clear()
    synthesise(make_synth_spec(server.base_url), show_progress=False)
    assert server.n_requests == 0, "what was written for it before is found again"


@pytest.mark.parametrize(
    "keys",
    [{"synth": {**SYNTH, "temperature": 0.3}}, {"seed": 7}, {"synth": {**SYNTH, "per_request": 5}}, {"teacher": {"model": "other"}}],
)  # fmt: skip
def test_other_settings_write_anew_whether_intents_changed_or_not(server, make_synth_spec, keys):
    synthesise(make_synth_spec(server.base_url), show_progress=False)
    for intents in (INTENTS, INTENTS | NEW):
        assert plan_synthesis(make_synth_spec(None, intents=intents, **keys)).n_missing == 10 * len(intents) + 12


def test_what_an_intent_lacks_is_written_and_what_cannot_be_is_not_asked_without_end(server, make_synth_spec):
    synthesise(make_synth_spec(server.base_url), show_progress=False)
    more = make_synth_spec(None, intents=INTENTS | NEW, synth=SYNTH | {"per_intent": 15})
    n_there = Counter(line["target"] for line in recorded(more) for _ in line["queries"])
    assert plan_synthesis(more).n_missing == 15 + sum(max(15 - n_there[name], 0) for name in INTENTS)
    lines = [line | {"queries": ["always the same"]} if line["target"] == "refund" else line for line in recorded(more)]
    refunds = [line for line in lines if line["target"] == "refund"]
    lines += [refunds[0] | {"key": f"{number}", "round": number} for number in range(len(refunds), 4 * 3)]
    more.synthesis_path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert plan_synthesis(make_synth_spec(None, intents=INTENTS | NEW)).n_missing == 10


def test_kinds_keep_their_queries_where_a_channel_is_new(server, make_synth_spec):
    keys = {"task": "weights", "out_of_scope": False, "synth": {**SYNTH, "attributes": {"about": KINDS}}}
    spec = make_synth_spec(server.base_url, intents=CHANNELS, **keys)
    synthesise(spec, show_progress=False)
    spec = make_synth_spec(None, intents=CHANNELS | {"text": "What is read"}, **keys)
    assert plan_synthesis(spec).n_missing == 0
