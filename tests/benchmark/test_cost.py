from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from distill.benchmark.cost import (
    CostInputs,
    TokensPerQuery,
    cost_summary,
    machine_usd_per_1k,
    teacher_usd_per_1k,
    usd_per_month,
)
from distill.types import TokenPrice

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


def test_without_tokens_nothing_is_priced():
    assert cost_summary(CostInputs(priced_as=PRICE), None, {})["priced_as"] is None
