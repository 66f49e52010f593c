"""What a ledger line says about the load under which its answer came."""

from __future__ import annotations

from project import ASKED, write_project
from teacher_specs import PRICE

from distill.benchmark.cost import spent_usd
from distill.data import read_labels
from distill.spec import load_spec
from distill.teacher.label import label
from distill.teacher.spend import open_budget, spend_by_stage


def recorded(spec):
    return [line.extra.get("in_flight") for line in read_labels(spec.ledger_path)]


def test_a_line_says_how_many_requests_were_in_flight(tmp_path):
    spec = load_spec(write_project(tmp_path, teacher="{callable: 'project:slow_answer', concurrency: 3}"))
    label(spec, [f"refund {n}" for n in range(9)], show_progress=False)
    assert len(recorded(spec)) == 9
    assert max(recorded(spec)) == 3
    assert min(recorded(spec)) >= 1


def test_alone_there_is_one(tmp_path):
    spec = load_spec(write_project(tmp_path, teacher="{callable: 'project:answer', concurrency: 1}"))
    label(spec, ["refund a", "refund boom", "refund c"], show_progress=False)
    assert recorded(spec) == [1, 1, 1]
    assert "refund boom" in ASKED


def test_spend_is_counted_by_stage_and_a_callable_has_no_price(tmp_path):
    spec = load_spec(write_project(tmp_path))
    assert spend_by_stage(spec) == ()
    label(spec, ["refund a", "refund b"], show_progress=False)
    (stage,) = spend_by_stage(spec)
    assert (stage.stage, stage.n_answers, stage.n_uncounted, stage.usd) == ("label", 2, 2, None)


def test_a_models_line_says_whose_server_it_was_and_its_tokens_are_spent(server, make_spec):
    spec = make_spec(server.base_url, teacher={"concurrency": 4, "price": PRICE})
    label(spec, show_progress=False)
    lines = list(read_labels(spec.ledger_path))
    assert {line.extra["server"] for line in lines} == {"this machine"}
    assert lines[0].extra["in_flight"] == 1  # the first is asked alone
    assert 1 <= max(recorded(spec)) <= 4
    (stage,) = spend_by_stage(spec)
    assert (stage.n_answers, stage.n_uncounted) == (len(lines), 0)
    assert stage.usage.prompt_tokens == sum(line.usage.prompt_tokens for line in lines)
    assert spent_usd([stage]) == open_budget(spec, "fake").known_spend_usd > 0
