"""What plans say of the limit, and of what would stop the run."""

from __future__ import annotations

import pytest
from project import distill
from teacher_specs import INTENTS, PRICE, TEXTS

from distill.teacher.label import label
from distill.teacher.synth import plan_synthesis, synthesise

DEAR = PRICE | {"input_per_mtok": 4000}
UNKNOWN = "no price is known for 'nobody-knows-it'; give synth.price"


@pytest.mark.parametrize(
    ("max_usd", "options", "left"),
    [
        (5, [], "leaves 0.1988: it would stop there; price"),
        (None, ["--max-usd", "0.5"], "leaves 0.5000: it would stop there; price"),
        (5, ["--max-usd", "0.5"], "leaves 0.1988: it would stop there; price"),
        (4, [], "leaves 0.0000: it would stop there; price"),
        (50, ["--max-usd", "9"], "leaves 9.0000; price"),
        (None, [], "no limit is set (--max-usd, teacher.max_usd); price"),
    ],
)
def test_a_plan_is_compared_with_what_the_limit_leaves(server, make_spec, max_usd, options, left):
    label(make_spec(server.base_url, teacher={"price": DEAR}), show_progress=False)
    more = [*TEXTS, *(f"more {number}" for number in range(4))]
    spec = make_spec(server.base_url, more, teacher={"price": DEAR, "max_usd": max_usd})
    assert left in distill("label", spec.path, "--dry-run", *options).stdout


@pytest.mark.parametrize("command", ["synth", "run"])
def test_what_would_stop_synth_is_said(make_spec, monkeypatch, command):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    spec = make_spec(texts=None, teacher={"model": "gpt-5-mini", "max_usd": 5}, synth={"model": "nobody-knows-it"})
    assert UNKNOWN in distill(command, spec.path, "--dry-run").stderr
    assert UNKNOWN in distill(command, spec.path).stderr
    monkeypatch.delenv("OPENAI_API_KEY")
    said = distill(command, spec.path, "--dry-run").stderr
    assert said.count("OPENAI_API_KEY is not set") == 1, "synth and label lack the same"


def test_what_was_paid_at_an_unknown_price_would_stop_synth(server, make_spec):
    spec = make_spec(server.base_url, None, teacher={"price": PRICE, "max_usd": 5}, synth={"per_intent": 4})
    assert plan_synthesis(spec).obstacles == ()
    spec.ledger_path.write_text(
        '{"key": "1", "text": "a", "error": "x", "teacher": "another", "prompt_sha256": "0", "sample": 0, "prompt_tokens": 9, '
        '"completion_tokens": 0, "latency_ms": 1, "server": "models.example.org"}\n',
        encoding="utf-8",
    )
    (obstacle,) = plan_synthesis(spec).obstacles
    assert "answers by 'another' were paid for at a price that is not known" in obstacle
    assert obstacle in " ".join(distill("synth", spec.path).stderr.split())
    assert server.n_requests == 0


def test_the_limit_is_kept_where_one_stage_has_a_price(tmp_path, make_spec, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    (tmp_path / "own.py").write_text("def answer(text):\n    return 'refund'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    teacher = {"model": None, "callable": "own:answer", "max_usd": 5}
    for max_usd, left in (
        (5, "leaves 5.0000; price: genai-prices"),
        (0.001, "leaves 0.0010: it would stop there; price"),
    ):
        teacher["max_usd"] = max_usd
        spec = make_spec(texts=None, teacher=teacher, synth={"model": "gpt-5-mini"})
        done = distill("run", spec.path, "--dry-run")
        assert f"USD unknown; the limit of --max-usd or teacher.max_usd {left}" in done.stdout
        assert "would stop before anything" not in done.stderr


def test_carry_says_what_the_limit_leaves(server, make_spec):
    label(make_spec(server.base_url, teacher={"price": DEAR}), show_progress=False)
    left = {name: described for name, described in INTENTS.items() if name != "refund"}
    spec = make_spec(server.base_url, teacher={"price": DEAR}, intents=left)
    planned = distill("carry", spec.path, "--ask-removed", "--dry-run", "--max-usd", "0.001").stdout
    assert (
        "at most 3 requests, USD about 1.9123; the limit of --max-usd or teacher.max_usd leaves 0.0010: it would stop there;"
        in planned
    )
    planned = distill("carry", spec.path, "--ask-removed", "--dry-run").stdout
    assert "at most 3 requests, USD about 1.9123; no limit is set" in planned
    assert "at most 0 requests, USD about 0.0000" in distill("carry", spec.path, "--dry-run").stdout


def test_carry_plans_what_was_written_for_an_intent_with_another_name(server, make_spec):
    keys = {"texts": None, "synth": {"per_intent": 8, "out_of_scope": 8, "per_request": 4}}
    synthesise(make_spec(server.base_url, **keys), show_progress=False)
    renamed = {"money_back" if name == "refund" else name: described for name, described in INTENTS.items()}
    spec = make_spec(server.base_url, **keys, intents=renamed)
    before = spec.synthesis_path.read_bytes()
    for options, verb in ((["--dry-run"], "would stand"), ([], "stand")):
        assert spec.synthesis_path.read_bytes() == before
        done = distill("carry", spec.path, "--rename", "refund=money_back", *options)
        first, *others = done.stdout.splitlines()
        assert first.startswith("2 answers of the model that writes queries")
        assert f" {verb} under another name" in first
        assert others == ["No query has an answer under other intents only."]
    for options in (["--dry-run"], []):
        assert "Nothing " in distill("carry", spec.path, "--rename", "refund=money_back", *options).stdout
