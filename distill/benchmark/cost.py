"""What a thousand queries cost. Money is Decimal, prices are dated and name their source, an unknown price is None."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.types import TokenPrice

__all__ = [
    "CostInputs",
    "TokensPerQuery",
    "as_number",
    "cost_summary",
    "machine_usd_per_1k",
    "teacher_usd_per_1k",
    "usd_per_month",
]

_MILLION = Decimal(1_000_000)
_THOUSAND = Decimal(1000)


@dataclass(frozen=True, slots=True)
class TokensPerQuery:
    """Mean tokens of a query, all its samples together, as the server counted them.

    Attributes:
        prompt: Prompt tokens, the cached ones included.
        completion: Completion tokens.
        cached: Prompt tokens that the server had cached.
        n: Queries the mean is over.
    """

    prompt: Decimal
    completion: Decimal
    cached: Decimal
    n: int


@dataclass(frozen=True, slots=True)
class CostInputs:
    """What the cost figures assume.

    Attributes:
        teacher_price: The teacher's own price, or None where it is not known.
        priced_as: A named model with a known price: what the same tokens would have cost there.
        queries_per_month: The user's volume.
        machine_usd_per_hour: What the machine that runs the students costs, or None.
    """

    teacher_price: TokenPrice | None = None
    priced_as: TokenPrice | None = None
    queries_per_month: int = 1_000_000
    machine_usd_per_hour: Decimal | None = None


def teacher_usd_per_1k(tokens: TokensPerQuery | None, price: TokenPrice | None) -> Decimal | None:
    """US dollars for a thousand queries of a teacher; None where tokens or price are not known."""
    if tokens is None or price is None:
        return None
    cached_price = price.cached_input_usd_per_mtok
    if cached_price is None:
        cached_price = price.input_usd_per_mtok
    usd_a_query = (
        (tokens.prompt - tokens.cached) * price.input_usd_per_mtok
        + tokens.cached * cached_price
        + tokens.completion * price.output_usd_per_mtok
    ) / _MILLION
    return usd_a_query * _THOUSAND


def machine_usd_per_1k(machine_usd_per_hour: Decimal | None, queries_per_s: float | None) -> Decimal | None:
    """US dollars for a thousand queries of a classifier on a machine that it keeps busy; None where not known."""
    if machine_usd_per_hour is None or not queries_per_s:
        return None
    return machine_usd_per_hour / Decimal(3600) / Decimal(str(queries_per_s)) * _THOUSAND


def usd_per_month(usd_per_1k: Decimal | None, queries_per_month: int) -> Decimal | None:
    """US dollars a month at a volume; None where the price is not known."""
    return None if usd_per_1k is None else usd_per_1k * queries_per_month / _THOUSAND


def cost_summary(
    inputs: CostInputs, tokens: TokensPerQuery | None, usd_per_1k: Mapping[str, Decimal | None]
) -> dict[str, Any]:
    """The ``cost`` part of bench.json: assumptions, prices with source and date, dollars by row and month.

    Args:
        inputs: Prices and volume.
        tokens: The teacher's tokens.
        usd_per_1k: Dollars for a thousand queries by row; None where not known.
    """
    as_if = teacher_usd_per_1k(tokens, inputs.priced_as)
    uncached = teacher_usd_per_1k(None if tokens is None else replace(tokens, cached=Decimal(0)), inputs.priced_as)
    return {
        "queries_per_month": inputs.queries_per_month,
        "machine_usd_per_hour": as_number(inputs.machine_usd_per_hour),
        "teacher_tokens_per_query": None
        if tokens is None
        else {
            "prompt": as_number(tokens.prompt),
            "cached": as_number(tokens.cached),
            "completion": as_number(tokens.completion),
            "n": tokens.n,
        },
        "teacher_price": _price_as_json(inputs.teacher_price),
        "priced_as": None
        if inputs.priced_as is None or as_if is None
        else {
            **(_price_as_json(inputs.priced_as) or {}),
            "usd_per_1k": as_number(as_if),
            "usd_per_1k_uncached": as_number(uncached),
            "usd_per_month": as_number(usd_per_month(as_if, inputs.queries_per_month)),
            "basis": "the teacher's own token counts; another model's tokenizer counts somewhat differently",
        },
        "usd_per_month": {
            name: as_number(usd_per_month(usd, inputs.queries_per_month)) for name, usd in usd_per_1k.items()
        },
    }


def as_number(amount: Decimal | None) -> float | None:
    """A Decimal for JSON, six significant digits."""
    return None if amount is None else float(f"{amount:.6g}")


def _price_as_json(price: TokenPrice | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return {
        "model": price.model,
        "input_usd_per_mtok": as_number(price.input_usd_per_mtok),
        "cached_input_usd_per_mtok": as_number(price.cached_input_usd_per_mtok),
        "output_usd_per_mtok": as_number(price.output_usd_per_mtok),
        "source": price.source,
        "date": price.date,
    }
