"""What a thousand queries cost. Money is Decimal, prices are dated and name their source, an unknown price is None."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.types import StageSpend, TokenPrice

__all__ = [
    "HOURS_PER_MONTH",
    "CostInputs",
    "TokensPerQuery",
    "as_number",
    "break_even_queries",
    "cost_summary",
    "machine_usd_per_1k",
    "pays_alone_from",
    "spent_uncached_usd",
    "spent_usd",
    "teacher_usd_per_1k",
    "usd_per_month",
]

_MILLION = Decimal(1_000_000)
_THOUSAND = Decimal(1000)
HOURS_PER_MONTH = 730


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
        spent: What distilling has asked and paid so far.
    """

    teacher_price: TokenPrice | None = None
    priced_as: TokenPrice | None = None
    queries_per_month: int = 1_000_000
    machine_usd_per_hour: Decimal | None = None
    spent: tuple[StageSpend, ...] = ()


def teacher_usd_per_1k(tokens: TokensPerQuery | None, price: TokenPrice | None) -> Decimal | None:
    """US dollars for a thousand queries of a teacher; None where tokens or price are not known."""
    if tokens is None or price is None:
        return None
    return _usd(tokens.prompt, tokens.cached, tokens.completion, price) * _THOUSAND


def _usd(
    prompt: Decimal | int | None, cached: Decimal | int | None, completion: Decimal | int | None, price: TokenPrice
) -> Decimal:
    """US dollars for so many tokens, the cached ones being among those of the prompt."""
    cached_price = price.cached_input_usd_per_mtok
    if cached_price is None:
        cached_price = price.input_usd_per_mtok
    prompt, cached, completion = (Decimal(n or 0) for n in (prompt, cached, completion))
    fresh = (prompt - cached) * price.input_usd_per_mtok
    return (fresh + cached * cached_price + completion * price.output_usd_per_mtok) / _MILLION


def machine_usd_per_1k(machine_usd_per_hour: Decimal | None, queries_per_s: float | None) -> Decimal | None:
    """US dollars for a thousand queries of a classifier on a machine that it keeps busy; None where not known.

    One thread is counted as the whole machine: more of them would make a query cheaper.
    """
    if machine_usd_per_hour is None or not queries_per_s:
        return None
    return machine_usd_per_hour / Decimal(3600) / Decimal(str(queries_per_s)) * _THOUSAND


def usd_per_month(usd_per_1k: Decimal | None, queries_per_month: int) -> Decimal | None:
    """US dollars a month at a volume; None where the price is not known."""
    return None if usd_per_1k is None else usd_per_1k * queries_per_month / _THOUSAND


def spent_usd(spent: Sequence[StageSpend], price: TokenPrice | None = None) -> Decimal | None:
    """What distilling has cost so far; None where a price, or the tokens of an answer, are not known.

    Args:
        spent: What each stage asked.
        price: Of the same tokens elsewhere; None takes what was paid.
    """
    total = Decimal(0)
    for stage in spent:
        usd, usage = stage.usd, stage.usage
        if price is not None:
            usd = _usd(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, price)
        if usd is None or stage.n_uncounted:
            return None
        total += usd
    return total if spent else None


def break_even_queries(
    spent: Decimal | None, teacher_usd_per_1k: Decimal | None, student_usd_per_1k: Decimal
) -> int | None:
    """After how many queries the student has paid for itself; None where that is not known, or never.

    Args:
        spent: US dollars that distilling has cost.
        teacher_usd_per_1k: US dollars for a thousand queries of the teacher.
        student_usd_per_1k: The same of the student.
    """
    if spent is None or teacher_usd_per_1k is None or teacher_usd_per_1k <= student_usd_per_1k:
        return None
    return ceil(spent / (teacher_usd_per_1k - student_usd_per_1k) * _THOUSAND)


def cost_summary(
    inputs: CostInputs,
    tokens: TokensPerQuery | None,
    usd_per_1k: Mapping[str, Decimal | None],
    queries_per_s: Mapping[str, float] | None = None,
    students: Sequence[str] = (),
) -> dict[str, Any]:
    """The ``cost`` part of bench.json: assumptions, prices with source and date, dollars by row and month.

    Args:
        inputs: Prices and volume.
        tokens: The teacher's tokens.
        usd_per_1k: Dollars for a thousand queries by row; None where not known.
        queries_per_s: One by one, for each row that runs on the user's machine.
        students: Rows that distilling has made, for the break-even.
    """
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
        "priced_as": _what_if(inputs, tokens),
        "usd_per_month": {
            name: as_number(usd_per_month(usd, inputs.queries_per_month)) for name, usd in usd_per_1k.items()
        },
        "machine": _machine(inputs, queries_per_s or {}),
        "spent": _spent(inputs),
        "break_even": _break_even(inputs, tokens, {name: usd_per_1k[name] for name in students}),
    }


def _what_if(inputs: CostInputs, tokens: TokensPerQuery | None) -> dict[str, Any] | None:
    """What the teacher's tokens would cost at another model's price."""
    usd = teacher_usd_per_1k(tokens, inputs.priced_as)
    if tokens is None or usd is None:
        return None
    uncached = teacher_usd_per_1k(replace(tokens, cached=Decimal(0)), inputs.priced_as)
    return {
        **(_price_as_json(inputs.priced_as) or {}),
        "usd_per_1k": as_number(usd),
        "usd_per_1k_uncached": as_number(uncached),
        "usd_per_month": as_number(usd_per_month(usd, inputs.queries_per_month)),
        "basis": "the teacher's own token counts; another model's tokenizer counts somewhat differently",
    }


def _machine(inputs: CostInputs, queries_per_s: Mapping[str, float]) -> dict[str, Any] | None:
    """A whole machine for a month, and how much of it each row would keep busy at the user's volume."""
    if inputs.machine_usd_per_hour is None:
        return None
    seconds = 3600 * HOURS_PER_MONTH
    return {
        "hours_per_month": HOURS_PER_MONTH,
        "usd_per_month": as_number(inputs.machine_usd_per_hour * HOURS_PER_MONTH),
        "busy_share": {name: inputs.queries_per_month / (rate * seconds) for name, rate in queries_per_s.items()},
    }


def _spent(inputs: CostInputs) -> dict[str, Any] | None:
    if not inputs.spent:
        return None
    return {
        "usd": as_number(spent_usd(inputs.spent)),
        "priced_as_usd": as_number(spent_usd(inputs.spent, inputs.priced_as) if inputs.priced_as else None),
        "unanswered_usd": as_number(sum((stage.unanswered_usd for stage in inputs.spent), Decimal(0))),
        "by_stage": [
            {
                "stage": stage.stage,
                "n_answers": stage.n_answers,
                "n_uncounted": stage.n_uncounted,
                "prompt_tokens": stage.usage.prompt_tokens,
                "cached_tokens": stage.usage.cached_tokens,
                "completion_tokens": stage.usage.completion_tokens,
                "usd": as_number(spent_usd([stage])),
                "unanswered_usd": as_number(stage.unanswered_usd),
            }
            for stage in inputs.spent
        ],
    }


def _break_even(
    inputs: CostInputs, tokens: TokensPerQuery | None, students_usd_per_1k: Mapping[str, Decimal | None]
) -> dict[str, Any] | None:
    """At the teacher's own price, or where that is not known at that of ``priced_as``: queries and months by student."""
    price = inputs.teacher_price or inputs.priced_as
    spent = spent_usd(inputs.spent, None if inputs.teacher_price else inputs.priced_as)
    teacher = teacher_usd_per_1k(tokens, price)
    if price is None or spent is None or teacher is None:
        return None
    queries = {name: break_even_queries(spent, teacher, usd or Decimal(0)) for name, usd in students_usd_per_1k.items()}
    return {
        "price_of": price.model,
        "is_the_teachers_own": inputs.teacher_price is not None,
        "spent_usd": as_number(spent),
        "machine_is_counted": inputs.machine_usd_per_hour is not None,
        "queries": queries,
        "months": {
            name: None if n is None or not inputs.queries_per_month else n / inputs.queries_per_month
            for name, n in queries.items()
        },
    }


def spent_uncached_usd(cost: Mapping[str, Any]) -> float | None:
    """What distilling would have cost at the price of ``priced_as`` had no prompt been cached, which depends on the server; None where none was.

    Args:
        cost: The ``cost`` part of bench.json.
    """
    price, stages = cost.get("priced_as") or {}, (cost.get("spent") or {}).get("by_stage", [])
    if price.get("cached_input_usd_per_mtok") is None or not any(stage.get("cached_tokens") for stage in stages):
        return None
    million_usd = sum(
        stage["prompt_tokens"] * price["input_usd_per_mtok"] + stage["completion_tokens"] * price["output_usd_per_mtok"]
        for stage in stages
    )
    return float(million_usd / 1e6)


def pays_alone_from(cost: Mapping[str, Any]) -> float | None:
    """From how many queries a month on a machine for the student alone costs less than asking; None where that is not known.

    Args:
        cost: The ``cost`` part of bench.json.
    """
    machine, even = cost.get("machine") or {}, cost.get("break_even") or {}
    is_own = even.get("is_the_teachers_own", False)
    monthly = (
        cost.get("usd_per_month", {}).get("teacher") if is_own else (cost.get("priced_as") or {}).get("usd_per_month")
    )
    return float(machine["usd_per_month"] / monthly * cost["queries_per_month"]) if machine and monthly else None


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
