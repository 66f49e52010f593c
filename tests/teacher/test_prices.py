from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import SpecError, SpendLimitError
from distill.spec import Spec, SynthSpec
from distill.teacher.endpoint import OPENAI, THIS_MACHINE, is_loopback, server_of
from distill.teacher.prices import Budget, check_limit_is_enforceable, cost_usd, look_up_price, price_of, teacher_price
from distill.types import TokenPrice, Usage

PRICE = TokenPrice("m", Decimal("2.5"), Decimal("0.25"), Decimal(10), "made up", "2026-01-31")
COUNT = st.integers(0, 10_000)


def spec(**teacher):
    return Spec.model_validate({"name": "a", "intents": {"x": "", "y": ""}, "teacher": {"model": "m", **teacher}})


def test_cached_tokens_cost_less():
    assert cost_usd(PRICE, Usage(1_000_000, 0)) == Decimal("2.5")
    assert cost_usd(PRICE, Usage(1_000_000, 0, 1_000_000)) == Decimal("0.25")
    assert cost_usd(PRICE, Usage(1000, 100, 400)) == Decimal("0.0026")


def test_without_a_cached_price_every_token_is_fresh():
    price = TokenPrice("m", Decimal(1), None, Decimal(1), "made up", "2026-01-31")
    assert cost_usd(price, Usage(1_000_000, 0, 500_000)) == 1


@given(prompt=COUNT, completion=COUNT, cached=COUNT)
def test_a_cost_is_never_negative_nor_above_the_uncached_one(prompt, completion, cached):
    assert 0 <= cost_usd(PRICE, Usage(prompt, completion, cached)) <= cost_usd(PRICE, Usage(prompt, completion))


@given(
    requests=st.lists(st.tuples(COUNT, COUNT, st.floats(0, 1), st.booleans()), max_size=30),
    limit=st.decimals("0.001", "0.1", places=4),
)
def test_whatever_the_order_of_answers_the_limit_is_never_passed(requests, limit):
    budget, in_flight = Budget(PRICE, limit), []
    for prompt, completion, share, settles in requests:
        try:
            in_flight.append((budget.reserve(prompt, completion), Usage(int(prompt * share), int(completion * share))))
        except SpendLimitError:
            assert budget.spent_usd + cost_usd(PRICE, Usage(prompt, completion)) + budget._reserved_usd > limit
        if settles and in_flight:
            budget.settle(*in_flight.pop())
        assert budget.spent_usd <= limit
    for reserved, usage in in_flight:
        budget.settle(reserved, usage)
    assert budget.spent_usd <= limit
    assert budget._reserved_usd == 0


def test_a_failed_request_gives_its_reservation_back():
    budget = Budget(PRICE, Decimal("0.01"))
    for _ in range(5):
        budget.settle(budget.reserve(1000, 500), None)
    assert budget.known_spend_usd == 0


def test_unknown_stays_unknown():
    budget = Budget(None, Decimal(1))
    budget.settle(budget.reserve(10**9, 10**9), Usage(10**9, 10**9))
    assert budget.known_spend_usd is None
    uncounted = Budget(PRICE, None)
    uncounted.settle(uncounted.reserve(10, 10), Usage(10, None))
    assert uncounted.known_spend_usd is None
    assert look_up_price("no-such-model-4711") is None
    assert teacher_price(spec()) is None


def test_list_prices_are_dated_decimals():
    price = look_up_price("gpt-5-mini")
    assert isinstance(price.input_usd_per_mtok, Decimal)
    assert price.input_usd_per_mtok < price.output_usd_per_mtok
    assert price.source.startswith("genai-prices ")
    assert price.date


def test_ones_own_price_goes_before_the_list_and_is_the_teachers_only():
    own = {"input_per_mtok": 1, "output_per_mtok": 2, "source": "contract", "date": "2026-01-31"}
    assert teacher_price(spec(model="gpt-5-mini", price=own)).source == "contract"
    assert price_of(spec(price=own), "m").source == "contract"
    assert price_of(spec(price=own), "gpt-5-mini").source.startswith("genai-prices")


def test_whoever_writes_has_a_price_of_its_own():
    own = {"input_per_mtok": 1, "output_per_mtok": 2, "source": "contract", "date": "2026-01-31"}
    priced = spec(max_usd=1)
    priced = priced.model_copy(update={"synth": SynthSpec.model_validate({"model": "my-writer", "price": own})})
    assert price_of(priced, "my-writer").output_usd_per_mtok == 2
    assert price_of(priced, "m") is None
    check_limit_is_enforceable(priced, "my-writer", price_of(priced, "my-writer"), loopback=False)


def test_a_limit_needs_a_price_unless_the_server_is_ones_own():
    check_limit_is_enforceable(spec(max_usd=1), "m", PRICE, loopback=False)
    check_limit_is_enforceable(spec(max_usd=1), "m", None, loopback=True)
    check_limit_is_enforceable(spec(), "m", None, loopback=False)
    with pytest.raises(SpecError, match=r"teacher\.max_usd cannot be kept"):
        check_limit_is_enforceable(spec(max_usd=1), "m", None, loopback=False)


def test_what_is_said_of_a_limit_that_cannot_be_kept_fits_who_is_asked_and_where(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://llm.corp.example/v1")
    start = "the limit of --max-usd or teacher.max_usd cannot be kept: no price is known"
    no_limit = r"or go without a limit \(no --max-usd, and teacher.max_usd: null\)$"
    with pytest.raises(
        SpecError, match=rf"{start} for 'm' at llm\.corp\.example.*; give teacher\.price .*, {no_limit}"
    ):
        check_limit_is_enforceable(spec(max_usd=1), "m", None, loopback=False)
    with pytest.raises(SpecError, match=rf"; give synth\.price .*, {no_limit}"):
        check_limit_is_enforceable(spec(max_usd=1), "another", None, loopback=False)
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(SpecError, match=rf"{start} for 'm'( \(similar.*\))?; "):  # at the API itself
        check_limit_is_enforceable(spec(max_usd=1), "m", None, loopback=False)


def test_a_server_of_ones_own_that_the_limit_does_not_hold_for_is_said(capsys):
    for model, whose in (("m", "teacher"), ("another", "synth")):
        check_limit_is_enforceable(spec(max_usd=1), model, None, loopback=True)
        assert capsys.readouterr().err.endswith(f"does not hold for it; {whose}.price would change that\n")


@pytest.mark.parametrize(
    ("model", "base_url", "provider"),
    [
        ("gpt-5-mini", None, "openai"),
        ("gpt-5-mini", "https://api.openai.com/v1", "openai"),
        ("gpt-5-mini", "https://shop.openai.azure.com/openai/v1/", "azure"),
        ("gpt-oss-120b", "https://api.cerebras.ai/v1", "cerebras"),
        ("openai/gpt-5-mini", "https://openrouter.ai/api/v1", "openrouter"),
        ("llama-3.3-70b-versatile", "https://api.groq.com/openai/v1", "groq"),
        ("gpt-5-mini", "https://models.example.org/v1", None),
        ("gpt-5-mini", "https://api.groq.com/openai/v1", None),
        ("claude-sonnet-4-5", None, None),
    ],
)
def test_the_list_price_is_that_of_the_endpoint(model, base_url, provider):
    settings = spec(model=model, base_url=base_url)
    for price in (teacher_price(settings), price_of(spec(base_url=base_url), model)):
        assert (price and price.source.rpartition(" ")[2]) == provider


def test_the_openai_clients_own_variable_names_the_endpoint_too(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.cerebras.ai/v1")
    assert teacher_price(spec(model="gpt-oss-120b")).source.endswith("provider cerebras")
    assert (server_of(None), is_loopback(None)) == ("api.cerebras.ai", False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")
    assert teacher_price(spec(model="gpt-5-mini")) is None
    assert (server_of(None), is_loopback(None)) == (THIS_MACHINE, True)
    assert server_of("https://api.groq.com/openai/v1") == "api.groq.com"  # the spec's comes first
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert (server_of(None), is_loopback(None)) == (OPENAI, False)


def test_ones_own_price_needs_no_endpoint_in_the_list_and_names_need_none_at_all():
    own = {"input_per_mtok": 1, "output_per_mtok": 2, "source": "contract", "date": "2026-01-31"}
    assert teacher_price(spec(base_url="https://models.example.org/v1", price=own)).source == "contract"
    assert look_up_price("claude-sonnet-4-5") is not None
    elsewhere = spec(model="gpt-5-mini", base_url="https://models.example.org/v1", max_usd=1)
    with pytest.raises(SpecError, match=r"no price is known for 'gpt-5-mini' at models\.example\.org "):
        check_limit_is_enforceable(elsewhere, "gpt-5-mini", None, loopback=False)


def test_a_server_on_this_machine_has_no_list_price():
    assert teacher_price(spec(model="gpt-5-mini")) is not None
    assert teacher_price(spec(model="gpt-5-mini", base_url="http://127.0.0.1:8080/v1")) is None
    assert price_of(spec(model="a", base_url="http://localhost:1/v1"), "gpt-5-mini") is None
