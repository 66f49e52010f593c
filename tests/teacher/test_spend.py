"""What was spent, by the recordings."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from teacher_specs import INTENTS, PRICE, TEXTS, ledger_lines, write_queries

from distill import pipeline
from distill.benchmark.cost import spent_usd
from distill.data import label_as_line, read_jsonl, read_labels
from distill.errors import DataError, LedgerError, SpendLimitError
from distill.spec import load_spec
from distill.teacher.label import label, plan_labels
from distill.teacher.ledger import AppendLog
from distill.teacher.relabel import Case, relabel
from distill.teacher.rounds import added_queries_path
from distill.teacher.spend import limited, open_budget, spend_by_stage, spending
from distill.teacher.synth import plan_synthesis, synthesise
from distill.types import Usage

ONE = Decimal("0.0002")
"""What an answer costs at PRICE."""
DATA = Path(__file__).parents[2] / "data"
CLOUD = "https://api.openai.com/v1"


def ask(spec):
    return label(spec, show_progress=False)


def append(spec, *lines):
    """Adds answers like the first one of the ledger."""
    first = next(read_labels(spec.ledger_path))
    with AppendLog(spec.ledger_path) as log:
        for number, changes in enumerate(lines):
            log.append(label_as_line(replace(first, key=f"{number:064}", **changes)))


def test_another_model_does_not_begin_the_limit_anew(server, make_spec):
    names, teacher = ("one", "two", "three"), {"price": PRICE, "max_usd": "0.004", "max_output_tokens": 10}
    for number, name in enumerate(names):
        spec = make_spec(server.base_url, TEXTS, teacher=teacher | {"model": name, "concurrency": 1})
        if number == 0:
            assert ask(spec).spent_usd == len(TEXTS) * ONE
        else:
            with pytest.raises(SpendLimitError, match=r"spend limit is reached"):
                ask(spec)
    assert open_budget(spec, "three").known_spend_usd == server.n_requests * ONE <= Decimal("0.004")
    (stage,) = spend_by_stage(spec)
    assert (stage.n_answers, spent_usd([stage])) == (server.n_requests, server.n_requests * ONE)


def test_a_line_says_what_it_cost_and_a_later_price_does_not_alter_that(server, make_spec):
    ask(spec := make_spec(server.base_url, teacher={"price": PRICE}))
    assert {Decimal(line["usd"]) for line in ledger_lines(spec)} == {ONE}
    dearer = make_spec(server.base_url, teacher={"price": PRICE | {"output_per_mtok": 1000}})
    assert open_budget(dearer, "fake").known_spend_usd == len(TEXTS) * ONE
    assert limited(dearer, "fake", Decimal(1)).teacher.max_usd == 1 + len(TEXTS) * ONE


def test_a_line_without_its_cost_is_priced_by_the_name_of_its_model(server, make_spec):
    spec = make_spec(server.base_url, ["a"], teacher={"price": PRICE})
    ask(spec)
    usage = Usage(1_000_000, 0)
    append(
        spec,
        {"teacher": "fake", "usage": usage, "extra": {}},
        {"teacher": "gpt-5-mini", "usage": usage, "extra": {"server": "api.openai.com"}},
        {"teacher": "gpt-5-mini", "usage": usage, "extra": {"server": "the client's default"}},
        {"teacher": "gpt-oss-120b", "usage": usage, "extra": {"server": "api.cerebras.ai"}},
    )
    assert open_budget(spec, "fake").known_spend_usd == ONE + 1 + 2 * Decimal("0.25") + Decimal("0.35")


@pytest.mark.parametrize("command", ["label", "plan"])
def test_answers_at_an_unknown_price_leave_spend_unknown_and_no_limit_can_be_kept(server, make_spec, command):
    ask(spec := make_spec(server.base_url, ["a"], teacher={"price": PRICE, "max_usd": 5}))
    append(spec, {"teacher": "nobody-knows-it", "extra": {"server": "models.example.org"}})
    assert open_budget(spec, "fake").known_spend_usd is None
    assert spent_usd(spend_by_stage(spec)) is None
    write_queries(spec.queries_path, ["a", "b"])
    refusal = "the limit of --max-usd or teacher.max_usd cannot be kept: answers by 'nobody-knows-it' were paid for at a price that is not known"
    if command == "plan":
        (obstacle,) = plan_labels(spec).obstacles
        assert obstacle.startswith(refusal)
        return
    n_requests = server.n_requests
    with pytest.raises(SpendLimitError, match=refusal):
        ask(spec)
    assert server.n_requests == n_requests
    assert ask(make_spec(server.base_url, ["a", "b"], teacher={"price": PRICE})).spent_usd is None


@pytest.mark.parametrize("extra", [{"server": "this machine"}, {}])
def test_what_a_server_of_ones_own_answered_is_of_unknown_price_and_stops_no_limit(server, make_spec, extra):
    ask(spec := make_spec(server.base_url, ["a"], teacher={"price": PRICE, "max_usd": 5}))
    append(spec, {"teacher": "a-model-of-ones-own", "extra": extra})
    write_queries(spec.queries_path, ["a", "b"])
    assert ask(spec).spent_usd is None
    assert len(ledger_lines(spec)) == 3
    assert open_budget(spec, "fake").spent_usd == 2 * ONE


def test_a_writer_of_unknown_price_is_not_left_out_of_what_was_spent(server, make_spec):
    keys = {"synth": {"per_intent": 2, "out_of_scope": 2, "model": "writer-x"}}
    spec = make_spec(server.base_url, None, teacher={"price": PRICE}, **keys)
    assert synthesise(spec, show_progress=False).spent_usd is None
    assert ask(spec).spent_usd is None
    by_stage = {stage.stage: stage.usd for stage in spend_by_stage(spec)}
    assert by_stage["synth"] is None
    assert by_stage["label"] > 0


def test_a_writers_line_says_whose_server_it_was_and_what_it_cost(server, make_spec):
    synthesise(spec := make_spec(server.base_url, None, teacher={"price": PRICE}), show_progress=False)
    lines = [line for _, line in read_jsonl(spec.synthesis_path)]
    assert {(line["server"], Decimal(line["usd"])) for line in lines} == {("this machine", ONE)}


def test_two_stages_do_not_spend_at_once(server, make_spec, tmp_path):
    spec = make_spec(server.base_url, None, teacher={"price": PRICE, "max_usd": 5})
    with (
        spending(spec, "fake"),
        pytest.raises(LedgerError, match=r"another process is asking a model for this project"),
    ):
        synthesise(spec, show_progress=False)
    synthesise(spec, show_progress=False)
    n_requests = server.n_requests
    with (
        spending(spec, "fake"),
        pytest.raises(LedgerError, match=r"another process is asking a model for this project"),
    ):
        ask(spec)
    assert server.n_requests == n_requests
    assert ask(spec).n_failed == 0
    with spending(spec, "fake"):
        assert ask(spec).n_asked == 0, "where nothing is missing nothing is spent"


def test_the_rounds_of_improve_and_audit_hold_the_same_project(make_spec):
    spec = make_spec(CLOUD, teacher={"price": PRICE})
    writer = spec.model_copy()
    writer._path = spec.folder / "improve" / "round-1" / "router.yaml"
    with spending(spec, "fake"):
        for other in (lambda: spending(writer, "fake"), lambda: spending(spec, "another")):
            with pytest.raises(LedgerError), other():
                pass
        with spending(spec, None):
            pass
        with pytest.raises(LedgerError):
            relabel(spec, [Case("refund me", ())], show_progress=False)


def test_a_rounds_writer_counts_what_the_whole_project_spent(server, make_spec):
    ask(spec := make_spec(server.base_url, teacher={"price": PRICE}))
    writer = spec.model_copy()
    writer._path = spec.folder / "improve" / "round-1" / "router.yaml"
    assert open_budget(writer, "fake").spent_usd == open_budget(spec, "fake").spent_usd == len(TEXTS) * ONE


@pytest.mark.parametrize("usd", ["much", -1, "NaN", [1]])
def test_a_cost_that_is_no_amount_is_an_error(server, make_spec, usd):
    ask(spec := make_spec(server.base_url, ["a"]))
    append(spec, {"extra": {"usd": usd}})
    with pytest.raises(DataError, match=r"ledger\.jsonl: the `usd` of an answer is no amount"):
        open_budget(spec, "fake")


def test_the_teachers_own_price_stays_where_it_is_named_again(make_spec):
    spec = make_spec(CLOUD, teacher={"price": PRICE})
    assert load_spec(spec.path, teacher_model="fake").teacher.price == spec.teacher.price
    assert load_spec(spec.path, teacher_model="another").teacher.price is None


@pytest.mark.parametrize("demo", ["banking-assistant", "bank-requests", "video-search"])
def test_another_teacher_can_be_asked_under_the_limit_where_a_demo_was_recorded(demo):
    """The recordings do not say what they cost, and the older ones not whose server answered: it was a local one."""
    spec = load_spec(DATA / demo, teacher_model="gpt-5-mini")
    budget = open_budget(spec, "gpt-5-mini")
    budget.check_limit()
    assert (budget.spent_usd, budget.known_spend_usd) == (0, None)


def test_a_dry_run_goes_by_the_answers_recorded_and_before_the_first_says_up_to(server, make_spec):
    server.usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 600}  # it reasons: 500 tokens
    teacher = {"price": PRICE | {"input_per_mtok": 0}, "max_output_tokens": 2000}
    spec = make_spec(server.base_url, teacher=teacher)
    before = plan_labels(spec)
    assert before.estimated_usd < Decimal("0.01") < before.most_usd == len(TEXTS) * 2000 * Decimal("0.00001")
    ask(make_spec(server.base_url, TEXTS[:2], teacher=teacher))
    after = plan_labels(make_spec(server.base_url, teacher=teacher))
    assert (after.estimated_usd, after.most_usd) == ((len(TEXTS) - 2) * 500 * Decimal("0.00001"), None)
    other = plan_labels(make_spec(server.base_url, teacher=teacher | {"model": "another"}))
    assert (other.estimated_usd, other.most_usd) == (before.estimated_usd, before.most_usd)
    assert plan_labels(make_spec(server.base_url)).most_usd is None


def test_the_writers_plan_says_up_to_as_well(server, make_spec):
    teacher = {"price": PRICE | {"input_per_mtok": 0}, "max_output_tokens": 2000}
    synth = {"per_intent": 4, "out_of_scope": 0, "per_request": 4}
    spec = make_spec(server.base_url, None, teacher=teacher, synth=synth)
    before = plan_synthesis(spec)
    assert before.most_usd == before.n_requests * 2000 * Decimal("0.00001") > before.estimated_usd
    whole = pipeline.plan(spec)
    assert whole.most_usd == before.most_usd + whole.label.most_usd
    server.usage = {"prompt_tokens": 100, "completion_tokens": 500, "total_tokens": 600}
    synthesise(spec, show_progress=False)
    spec = make_spec(server.base_url, None, teacher=teacher, synth=synth | {"per_intent": 8})
    after = plan_synthesis(spec)
    assert (after.estimated_usd, after.most_usd) == (after.n_requests * 500 * Decimal("0.00001"), None)


def test_what_a_server_here_answered_costs_nothing_at_the_price_of_another(server, make_spec):
    ask(make_spec(server.base_url))
    cloud = make_spec("https://models.example.org/v1", teacher={"price": PRICE, "max_usd": 1})
    budget = open_budget(cloud, "fake")
    budget.check_limit()
    assert (budget.spent_usd, budget.known_spend_usd) == (0, None)


def test_a_plan_counts_what_rounds_added_where_the_queries_are_written_anew(server, make_spec):
    synth = {"per_intent": 4, "out_of_scope": 0, "per_request": 4}
    spec = make_spec(server.base_url, None, synth=synth)
    synthesise(spec, show_progress=False)
    added = added_queries_path(spec)
    added.parent.mkdir()
    write_queries(added, [f"refund added {number}" for number in range(30)])
    ask(spec)
    spec = make_spec(server.base_url, None, synth=synth, intents=INTENTS | {"weather": "The weather"})
    whole = pipeline.plan(spec).label
    synthesise(spec, show_progress=False)
    assert whole.n_missing == plan_labels(spec).n_missing >= 30


def test_a_project_in_a_folder_that_is_named_like_a_round_counts_its_own_ledger(server, make_spec, tmp_path):
    ask(spec := make_spec(server.base_url, ["refund"], teacher={"price": PRICE}))
    folder = tmp_path / "elsewhere" / "improve" / "round-1"
    folder.mkdir(parents=True)
    for path in (spec.path, spec.ledger_path, spec.queries_path):
        (folder / path.name).write_bytes(path.read_bytes())
    assert open_budget(load_spec(folder), "fake").known_spend_usd == ONE
