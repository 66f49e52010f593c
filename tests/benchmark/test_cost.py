from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from distill.benchmark.cost import (
    CostInputs,
    TokensPerQuery,
    break_even_queries,
    cost_summary,
    machine_usd_per_1k,
    spent_usd,
    teacher_usd_per_1k,
    usd_per_month,
)
from distill.types import StageSpend, TokenPrice, Usage

PRICE = TokenPrice("big", Decimal("2.00"), Decimal("0.50"), Decimal("8.00"), "the maker's page", "2026-01-31")
TOKENS = TokensPerQuery(prompt=Decimal(1000), completion=Decimal(10), cached=Decimal(800), n=7)


def test_cached_tokens_have_their_own_price():
    assert teacher_usd_per_1k(TOKENS, PRICE) == Decimal("0.88")


def test_without_a_cached_price_every_prompt_token_costs_the_same():
    assert teacher_usd_per_1k(TOKENS, replace(PRICE, cached_input_usd_per_mtok=None)) == Decimal("2.08")


@pytest.mark.parametrize(("tokens", "price"), [(None, PRICE), (TOKENS, None)])
def test_what_is_not_known_is_none_and_never_zero(tokens, price):
    assert teacher_usd_per_1k(tokens, price) is None
    assert usd_per_month(None, 1_000_000) is None


def test_a_machine_is_shared_by_the_queries_it_answers():
    assert machine_usd_per_1k(Decimal("0.36"), 100.0) == Decimal("0.001")
    assert machine_usd_per_1k(None, 100.0) is None
    assert machine_usd_per_1k(Decimal("0.36"), None) is None


def test_a_month_costs_its_thousands():
    assert usd_per_month(Decimal("0.88"), 250_000) == Decimal(220)


def test_the_summary_names_model_source_and_date_of_a_price_that_is_not_the_teachers():
    inputs = CostInputs(priced_as=PRICE, queries_per_month=2000)
    summary = cost_summary(inputs, TOKENS, {"teacher": None, "static": Decimal("0.001")})
    assert summary["teacher_price"] is None
    assert summary["usd_per_month"] == {"teacher": None, "static": 0.002}
    priced = summary["priced_as"]
    assert (priced["model"], priced["source"], priced["date"]) == ("big", "the maker's page", "2026-01-31")
    assert (priced["usd_per_1k"], priced["usd_per_1k_uncached"], priced["usd_per_month"]) == (0.88, 2.08, 1.76)
    assert json.loads(json.dumps(summary)) == summary


def stage(name="label", n_uncounted=0, usd=Decimal("1.8")):
    return StageSpend(name, 900, n_uncounted, Usage(1_000_000, 50_000, 400_000), usd)


def test_spend_is_what_every_stage_paid_or_its_tokens_at_another_price():
    assert spent_usd([stage(), stage("synth", usd=Decimal("0.4"))]) == Decimal("2.2")
    assert spent_usd([stage()], PRICE) == Decimal("0.6") * 2 + Decimal("0.4") / 2 + Decimal("0.05") * 8
    elsewhere = TokenPrice("other", Decimal(1), None, Decimal(2), "a page", "2026-01-01")
    assert spent_usd([stage()], elsewhere) == Decimal(1) + Decimal("0.1")


@pytest.mark.parametrize("spent", [[], [stage(usd=None)], [stage(), stage(n_uncounted=1)]])
def test_spend_that_is_not_known_is_none(spent):
    assert spent_usd(spent) is None


def test_the_break_even_is_where_the_saving_has_paid_for_the_distilling():
    assert break_even_queries(Decimal(9), Decimal("0.88"), Decimal("0.28")) == 15_000
    assert break_even_queries(Decimal("9.0001"), Decimal("0.88"), Decimal("0.28")) == 15_001
    assert break_even_queries(Decimal(9), Decimal("0.28"), Decimal("0.28")) is None
    assert break_even_queries(None, Decimal(1), Decimal(0)) is None
    assert break_even_queries(Decimal(9), None, Decimal(0)) is None


def summary_of(students=("static",), **changes):
    inputs = CostInputs(**{"teacher_price": PRICE, "queries_per_month": 30_000, "spent": (stage(),)} | changes)
    usd = {"teacher": Decimal("0.88"), "static": machine_usd_per_1k(inputs.machine_usd_per_hour, 1000.0)}
    return cost_summary(inputs, TOKENS, usd, {"static": 1000.0}, students)


def test_the_summary_says_when_it_has_paid():
    even = summary_of()["break_even"]
    assert even["queries"] == {"static": 2046}  # 1.8 USD at 0.88 a thousand
    assert even["months"]["static"] == pytest.approx(2046 / 30_000)
    assert (even["spent_usd"], even["price_of"], even["is_the_teachers_own"]) == (1.8, "big", True)
    assert not even["machine_is_counted"]


def test_the_machine_makes_the_break_even_later_or_never():
    counted = summary_of(machine_usd_per_hour=Decimal(36))["break_even"]
    assert counted["machine_is_counted"]
    assert counted["queries"]["static"] == 2069  # 1.8 USD at 0.87 a thousand
    never = summary_of(machine_usd_per_hour=Decimal(10_000))["break_even"]
    assert (never["queries"], never["months"]) == ({"static": None}, {"static": None})


def test_an_unknown_price_leaves_the_break_even_to_the_what_if_or_unknown():
    inputs = {"teacher_price": None, "spent": (stage(usd=None),)}
    assert summary_of(**inputs)["break_even"] is None
    what_if = summary_of(**inputs, priced_as=PRICE)
    assert (what_if["spent"]["usd"], what_if["spent"]["priced_as_usd"]) == (None, 1.8)
    assert (what_if["break_even"]["is_the_teachers_own"], what_if["break_even"]["queries"]["static"]) == (False, 2046)


def test_the_spend_is_told_stage_by_stage():
    (found,) = summary_of()["spent"]["by_stage"]
    assert found == {
        "stage": "label", "n_answers": 900, "n_uncounted": 0, "prompt_tokens": 1_000_000, "cached_tokens": 400_000,
        "completion_tokens": 50_000, "usd": 1.8, "unanswered_usd": 0,
    }  # fmt: skip
    assert summary_of(spent=())["spent"] is None


def test_what_may_be_billed_without_an_answer_is_not_spent():
    lost = replace(stage(), unanswered_usd=Decimal("0.5"))
    spent = summary_of(spent=(stage(), lost))["spent"]
    assert (spent["usd"], spent["unanswered_usd"]) == (3.6, 0.5)
    assert summary_of()["spent"]["unanswered_usd"] == 0


def test_a_whole_machine_costs_its_month_however_little_it_does():
    machine = summary_of(machine_usd_per_hour=Decimal("0.36"))["machine"]
    assert machine["usd_per_month"] == pytest.approx(0.36 * 730)
    assert machine["busy_share"] == {"static": pytest.approx(30_000 / (1000 * 3600 * 730))}
    assert summary_of()["machine"] is None


def test_a_month_without_queries_never_pays():
    assert summary_of(queries_per_month=0)["break_even"]["months"] == {"static": None}


def test_without_tokens_nothing_is_priced():
    assert cost_summary(CostInputs(priced_as=PRICE), None, {})["priced_as"] is None
