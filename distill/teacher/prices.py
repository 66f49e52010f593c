"""What tokens cost, and the spend limit. Money is Decimal; a price that is not known is None, never 0."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from distill.errors import SpecError, SpendLimitError, UnknownSpendError, missing_extra
from distill.progress import say
from distill.teacher.endpoint import OPENAI, endpoint_of, is_loopback, server_of
from distill.types import TokenPrice, Usage

if TYPE_CHECKING:
    from distill.spec import RatesSpec, Spec

__all__ = [
    "LIMIT",
    "NO_LIMIT",
    "Budget",
    "batch_price",
    "check_limit_is_enforceable",
    "cost_usd",
    "endpoint_price",
    "estimated_usd",
    "look_up_price",
    "price_of",
    "similar_models",
    "teacher_price",
]

LIMIT = "the limit of --max-usd or teacher.max_usd"
"""As messages name it: where it is kept, nothing tells which of the two has set it."""
NO_LIMIT = "go without a limit (no --max-usd, and teacher.max_usd: null)"
_PER_MILLION = Decimal(1_000_000)


def look_up_price(model: str) -> TokenPrice | None:
    """The list price of a model known by name (from the package genai-prices), whoever serves it, or None.

    Args:
        model: Name as its maker spells it, such as ``gpt-5-mini``.

    Raises:
        MissingExtraError: genai-prices is not installed.
    """
    found = _found(model, None, None)
    return None if found is None else _list_price(found, "")


def endpoint_price(model: str, base_url: str | None, *, in_batch: bool = False) -> TokenPrice | None:
    """The list price of a model at the provider that is asked; None where the list does not have this endpoint, or not this model there.

    Args:
        model: Name as the endpoint spells it.
        base_url: The endpoint; None: the OpenAI client's own. One on this machine has no list price.
        in_batch: Whether the price in a batch is wanted: None where the list names none.

    Raises:
        MissingExtraError: genai-prices is not installed.
    """
    url = endpoint_of(base_url)
    found = None if is_loopback(url) else _found(model, "openai" if url is None else None, url, in_batch=in_batch)
    if found is None:
        return None
    if not in_batch:
        return _list_price(found, "")
    now = datetime.now(UTC)
    variants = (variant for variant in found.model.price_variants or () if variant.when == _IN_BATCH)
    if not any(variant.constraint is None or variant.constraint.active(now) for variant in variants):
        return None  # then the price found is the ordinary one
    return _list_price(found, ", batch")


_IN_BATCH = {"processing": "batch"}


def _found(model: str, provider_id: str | None, url: str | None, *, in_batch: bool = False) -> Any:
    """What the list has, or None."""
    try:
        from genai_prices import Usage as PricedUsage
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as error:
        raise missing_extra("genai_prices") from error
    usage, now = PricedUsage(input_tokens=1, output_tokens=1), datetime.now(UTC)
    try:
        return get_snapshot().calc(usage, model, provider_id, url, now, _IN_BATCH if in_batch else None)
    except LookupError:
        return None


def _list_price(found: Any, suffix: str) -> TokenPrice | None:
    from genai_prices import __version__

    price = found.model_price
    if price.input_mtok is None or price.output_mtok is None:
        return None
    return TokenPrice(
        model=found.model.id,
        input_usd_per_mtok=_base(price.input_mtok),
        cached_input_usd_per_mtok=None if price.cache_read_mtok is None else _base(price.cache_read_mtok),
        output_usd_per_mtok=_base(price.output_mtok),
        source=f"genai-prices {__version__}, provider {found.provider.id}{suffix}",
        date=datetime.now(UTC).date().isoformat(),
    )


def similar_models(model: str, n: int = 3) -> list[str]:
    """Other names in the price list that resemble one, the likest first; at most ``n``."""
    from genai_prices.data_snapshot import get_snapshot

    known = {each.id for provider in get_snapshot().providers for each in provider.models}
    return get_close_matches(model, sorted(known - {model}), n)


def _base(price: Any) -> Decimal:
    """The price of short prompts, where a provider asks more for very long ones."""
    return Decimal(getattr(price, "base", price))


def teacher_price(spec: Spec) -> TokenPrice | None:
    """The price in router.yaml, or the list price of the teacher's model at its endpoint; None when neither is known."""
    own, model = spec.teacher.price, spec.teacher.model
    if own is not None:
        return _own_price(model or spec.teacher.callable or "", own, own.source, own.date)
    return endpoint_price(model, spec.teacher.base_url) if model else None


def _own_price(model: str, rates: RatesSpec, source: str, date: str) -> TokenPrice:
    return TokenPrice(model, rates.input_per_mtok, rates.cached_input_per_mtok, rates.output_per_mtok, source, date)


def batch_price(spec: Spec, model: str | None = None) -> TokenPrice | None:
    """What a model's tokens cost in a batch: ``teacher.price.batch``, or the list's own batch price; None when neither is known.

    Half of the ordinary price is never assumed: not every provider gives it.

    Args:
        spec: The router's spec.
        model: None: the teacher, whose price alone ``teacher.price`` is.
    """
    own, model = spec.teacher.price if model in {None, spec.teacher.model} else None, model or spec.teacher.model
    if own is not None:
        rates = own.batch
        return None if rates is None else _own_price(model or "", rates, f"{own.source}, batch", own.date)
    return endpoint_price(model, spec.teacher.base_url, in_batch=True) if model else None


def price_of(spec: Spec, model: str) -> TokenPrice | None:
    """The price of the teacher's model or of ``synth.model`` (router.yaml's own where given), or of another one."""
    if model == spec.teacher.model:
        return teacher_price(spec)
    if model == spec.synth.model and (own := spec.synth.price) is not None:
        return _own_price(model, own, own.source, own.date)
    return endpoint_price(model, spec.teacher.base_url)


def cost_usd(price: TokenPrice, usage: Usage) -> Decimal:
    """What one request cost. Tokens that the server did not count are taken as none."""
    prompt = usage.prompt_tokens or 0
    cached = min(usage.cached_tokens or 0, prompt) if price.cached_input_usd_per_mtok is not None else 0
    fresh = prompt - cached
    total = (
        fresh * price.input_usd_per_mtok
        + cached * (price.cached_input_usd_per_mtok or Decimal(0))
        + (usage.completion_tokens or 0) * price.output_usd_per_mtok
    )
    return total / _PER_MILLION


_CHARACTERS_PER_TOKEN = 4


def estimated_usd(price: TokenPrice, characters: int, answer_tokens: float) -> Decimal:
    """What requests will cost, about.

    Args:
        price: Of the model.
        characters: Of all their prompts; four of them are taken for a token, as in English.
        answer_tokens: Of all the answers.
    """
    return cost_usd(price, Usage(characters // _CHARACTERS_PER_TOKEN, round(answer_tokens)))


class Budget:
    """Keeps spend under ``teacher.max_usd``: a request is sent only if its dearest outcome still fits.

    Spend is what the server counted. What a request without an answer may be billed counts towards the limit alone.

    Args:
        price: None when unknown; then nothing is counted.
        limit_usd: None for no limit.
        spent_usd: What earlier runs spent, by the recordings.
    """

    def __init__(self, price: TokenPrice | None, limit_usd: Decimal | None, spent_usd: Decimal = Decimal(0)) -> None:
        self.price, self.limit_usd, self.spent_usd = price, limit_usd, spent_usd
        self._reserved_usd = self.unanswered_usd = Decimal(0)
        self._is_counted = self._is_priced = True
        self._unpriced: dict[str, None] = {}

    @property
    def known_past_usd(self) -> Decimal | None:
        """What was counted, or None when the price or the tokens of one of these answers are unknown."""
        return self.spent_usd if self._is_counted and self._is_priced else None

    @property
    def known_spend_usd(self) -> Decimal | None:
        """Spent so far, or None when the price or the tokens of an answer are unknown."""
        return None if self.price is None else self.known_past_usd

    @property
    def committed_usd(self) -> Decimal:
        """Spent so far, set aside, and what requests without an answer may be billed."""
        return self.spent_usd + self._reserved_usd + self.unanswered_usd

    def at(self, price: TokenPrice | None) -> Budget:
        """The same limit and the same spend, for requests at another price. What is reserved stays behind."""
        other = Budget(price, self.limit_usd, self.spent_usd)
        other._is_counted, other._is_priced = self._is_counted, self._is_priced and self.price is not None
        other._unpriced, other.unanswered_usd = self._unpriced, self.unanswered_usd
        return other

    def count_unpriced(self, model: str, *, is_billed: bool = True) -> None:
        """Counts an answer that was paid for at a price which is not known: from then on spend is unknown.

        Args:
            model: Who answered.
            is_billed: Whether somebody sends a bill for it, so that no limit can be kept any more; a server of one's own does not.
        """
        self._is_priced = False
        if is_billed:
            self._unpriced[model] = None

    def check_limit(self) -> None:
        """A limit that cannot be kept must not look as if it were.

        Raises:
            UnknownSpendError: There is one, and what was spent before is not known.
        """
        if self.price is None or self.limit_usd is None:
            return
        if not self._is_counted:
            raise UnknownSpendError(
                f"{LIMIT} cannot be kept: the server does not say how many tokens it used. "
                f"Everything answered is kept; {NO_LIMIT} and run again"
            )
        if self._unpriced:
            raise UnknownSpendError(
                f"{LIMIT} cannot be kept: answers by {', '.join(map(repr, self._unpriced))} were paid for at a price that is not known. Give "
                f"teacher.price where that is the teacher, with `batch` for the Batch API, or {NO_LIMIT}"
            )

    def hold(self, usd: Decimal, *, is_spent: bool = True) -> None:
        """Sets aside what requests of an earlier run can cost at most; give the sum to ``settle``.

        Args:
            usd: The sum.
            is_spent: They were sent, so that no limit helps any more.

        Raises:
            SpendLimitError: They were not sent, and would not fit under the limit.
        """
        if is_spent:
            self._reserved_usd += usd
        else:
            self._reserve(usd)

    def count(self, usage: Usage, price: TokenPrice | None = None) -> None:
        """Counts an answer that was paid for.

        Args:
            usage: Its tokens.
            price: Of its model, where that is not the budget's own.
        """
        price = price or self.price
        if price is None:
            return
        self._is_counted = self._is_counted and usage.is_counted
        self.spent_usd += cost_usd(price, usage)

    def reserve(self, prompt_bytes: int, max_output_tokens: int) -> Decimal:
        """Sets aside what a request can cost at most (a token is at least a byte); give the sum to ``settle``.

        Raises:
            SpendLimitError: It would not fit under the limit any more, or that cannot be kept.
        """
        if self.price is None:
            return Decimal(0)
        self.check_limit()
        return self._reserve(cost_usd(self.price, Usage(prompt_bytes, max_output_tokens)))

    def _reserve(self, dearest: Decimal) -> Decimal:
        if self.limit_usd is not None and self.committed_usd + dearest > self.limit_usd:
            more = f", what is in flight can cost {self._reserved_usd:.4f} more" if self._reserved_usd else ""
            if self.unanswered_usd:
                more += f", requests without an answer may be billed up to {self.unanswered_usd:.4f}"
            more += "," if more else ""
            raise SpendLimitError(
                f"the spend limit is reached: USD {self.spent_usd:.4f} of {self.limit_usd} are spent{more} and "
                f"the next request could exceed it. Everything answered is kept; raise teacher.max_usd, or --max-usd, and run again"
            )
        self._reserved_usd += dearest
        return dearest

    def lose(self, reserved_usd: Decimal) -> None:
        """A request was sent and brought no answer: what was set aside for it counts towards the limit from now on."""
        self._reserved_usd -= reserved_usd
        self.unanswered_usd += reserved_usd

    def settle(self, reserved_usd: Decimal, usage: Usage | None) -> None:
        """Replaces a reservation by what the request really cost."""
        self._reserved_usd -= reserved_usd
        if usage is not None:
            self.count(usage)


def check_limit_is_enforceable(spec: Spec, model: str, price: TokenPrice | None, *, loopback: bool) -> None:
    """A limit that cannot be kept must not look as if it were.

    Raises:
        SpecError: There is a limit, but no price is known for the model of a paid endpoint.
    """
    if spec.teacher.max_usd is None or price is not None:
        return
    is_teacher, server = model == spec.teacher.model, server_of(spec.teacher.base_url)
    if loopback:
        advice = f"; {'teacher' if is_teacher else 'synth'}.price would change that"
        say(f"no price is known for {model!r} on this machine, so {LIMIT} does not hold for it{advice}")
        return
    similar = similar_models(model)
    at = "" if server == OPENAI else f" at {server}"
    meant = f" (similar names that have one: {', '.join(similar)})" if similar else ""
    own = "teacher.price" if is_teacher else "synth.price"
    raise SpecError(
        f"{spec.path}: {LIMIT} cannot be kept: no price is known for {model!r}{at}{meant}; give {own} (USD per million tokens, with source "
        f"and date), or {NO_LIMIT}"
    )
