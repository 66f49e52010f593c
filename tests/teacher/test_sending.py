"""What may be billed though no answer came."""

from __future__ import annotations

from decimal import Decimal

import pytest
from fake_server import FakeServer
from teacher_specs import PRICE, TEXTS, ledger_lines, write_queries

from distill.benchmark.cost import spent_usd
from distill.errors import SpendLimitError, TeacherError
from distill.teacher.label import label
from distill.teacher.relabel import Case, relabel
from distill.teacher.spend import limited, open_budget, spend_by_stage
from distill.teacher.synth import synthesise

ONE = Decimal("0.0002")
"""What an answer costs at PRICE."""
SLOW = {"price": PRICE, "timeout_s": 1.5, "max_output_tokens": 10, "concurrency": 1}


def ask(spec):
    return label(spec, show_progress=False)


@pytest.mark.parametrize(
    "server",
    [
        {"delay_s": 30, "n_slow": 1},
        {"profile": "hangs-up-once"},
        {"profile": "gateway-once"},
        {"profile": "timing-out-once"},
    ],
)
def test_a_request_that_was_sent_twice_counts_twice_towards_the_limit_and_once_as_spent(make_spec, capsys, server):
    with FakeServer(**server) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 1})
        assert ask(spec).spent_usd == ONE
        assert fake.n_requests == 2
    (line,) = ledger_lines(spec)
    lost = Decimal(line["unanswered_usd"])
    assert (line["scores"], Decimal(line["usd"]), lost > ONE) == ({"refund": 1.0}, ONE, True)
    budget = open_budget(spec, "fake")
    assert (budget.known_spend_usd, budget.committed_usd) == (ONE, ONE + lost)
    (stage,) = spend_by_stage(spec)
    assert (stage.n_answers, spent_usd([stage]), stage.unanswered_usd) == (1, ONE, lost)
    assert f"may be billed all the same, with USD {lost:.4f} at most" in capsys.readouterr().err


@pytest.mark.parametrize("server", [{"profile": "limited-once"}, {"profile": "schema-refusing"}])
def test_a_server_that_answers_with_an_error_bills_nothing(make_spec, server):
    with FakeServer(**server) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 1})
        assert ask(spec).spent_usd == ONE
        assert fake.n_requests == 2
    assert "unanswered_usd" not in ledger_lines(spec)[0]
    assert open_budget(spec, "fake").committed_usd == ONE


@pytest.mark.parametrize("profile", ["filtering", "broken-body"])
def test_what_may_be_billed_and_says_not_how_much_counts_too(make_spec, profile):
    with FakeServer(profile) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 1})
        assert ask(spec).n_failed == 1
        assert fake.n_requests == 1
    assert open_budget(spec, "fake").unanswered_usd > 0


def test_redirects_in_a_circle_reach_no_model(make_spec):
    with FakeServer("going-round") as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 1})
        with pytest.raises(TeacherError, match="cannot be reached"):
            ask(spec)
    assert not ledger_lines(spec)


def test_a_server_that_always_hangs_up_ends_the_run_after_what_was_in_flight(make_spec):
    with FakeServer("hangs-up") as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher=SLOW | {"max_retries": 1, "concurrency": 2})
        with pytest.raises(TeacherError, match="cannot be reached"):
            ask(spec)
        assert fake.n_requests == 2 * len(ledger_lines(spec)) <= 4
    assert open_budget(spec, "fake").unanswered_usd > 0


def test_nothing_is_billed_where_no_connection_was_made(make_spec):
    with FakeServer() as fake:
        address = fake.base_url
    spec = make_spec(address, ["refund"], teacher=SLOW | {"max_retries": 1})
    with pytest.raises(TeacherError, match="cannot be reached"):
        ask(spec)
    assert not ledger_lines(spec)


def test_it_is_not_sent_again_where_that_could_exceed_the_limit(make_spec):
    with FakeServer(delay_s=30) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 0})
        assert ask(spec).n_failed == 1
        dearest = Decimal(ledger_lines(spec)[0]["unanswered_usd"])
    with FakeServer(delay_s=30) as fake:
        limit = {"max_retries": 4, "max_usd": str(dearest * Decimal("2.5"))}
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | limit)
        assert ask(spec).n_failed == 1
        assert fake.n_requests == 1, "the first run's request counts too"
        _, failed = ledger_lines(spec)
        assert failed["error"].startswith(
            "no answer came, and it is not sent again: the spend limit is reached: USD 0.0000"
        )
        assert Decimal(failed["unanswered_usd"]) == dearest
        with pytest.raises(SpendLimitError, match=r"requests without an answer may be billed up to 0\.00"):
            ask(spec)
        assert fake.n_requests == 1


@pytest.mark.parametrize("batch", [False, True])
def test_a_limit_for_one_run_is_not_used_up_by_what_was_lost_before(make_spec, batch):
    with FakeServer(delay_s=30) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"max_retries": 0})
        ask(spec)
        lost = open_budget(spec, "fake").unanswered_usd
    assert limited(spec, "fake", Decimal(1), batch=batch).teacher.max_usd == 1 + lost


@pytest.mark.parametrize("texts", [["refund"], ["refund", "parcel"]])
def test_a_key_that_is_refused_after_a_lost_request_ends_the_run_with_a_line(make_spec, texts):
    """Such an error ends a run without one; what may be billed must not go with it."""
    fake = FakeServer("unauthorised", delay_s=30, n_slow=1)
    with fake:
        spec = make_spec(fake.base_url, texts, teacher=SLOW | {"max_retries": 1})
        with pytest.raises(TeacherError, match="was refused"):
            ask(spec)
        assert fake.n_requests == 2, "the next query is not sent"
    (line,) = ledger_lines(spec)
    assert "was refused" in line["error"]
    assert open_budget(spec, "fake").unanswered_usd == Decimal(line["unanswered_usd"]) > 0


def test_writing_and_asking_again_keep_count_too(make_spec):
    with FakeServer(delay_s=30, n_slow=1) as fake:
        keys = {"synth": {"per_intent": 2, "out_of_scope": 2}}
        spec = make_spec(fake.base_url, None, teacher=SLOW | {"max_retries": 1, "max_output_tokens": 99}, **keys)
        synthesise(spec, show_progress=False)
        (synth,) = spend_by_stage(spec)
        assert synth.unanswered_usd > 0
        write_queries(spec.queries_path, ["refund"])
        ask(spec)
        fake.n_slow = fake.n_requests + 1
        relabel(spec, [Case("refund", ())], samples=1, show_progress=False)
    by_stage = {stage.stage: stage.unanswered_usd for stage in spend_by_stage(spec)}
    assert by_stage["synth"] == synth.unanswered_usd
    assert by_stage["label"] > 0
    assert open_budget(spec, "fake").unanswered_usd == sum(by_stage.values())


def test_a_server_of_ones_own_without_a_price_bills_nothing(make_spec, capsys):
    with FakeServer(delay_s=30, n_slow=1) as fake:
        spec = make_spec(fake.base_url, ["refund"], teacher=SLOW | {"price": None, "max_retries": 1})
        assert ask(spec).n_failed == 0
    assert "unanswered_usd" not in ledger_lines(spec)[0]
    assert "billed" not in capsys.readouterr().err
