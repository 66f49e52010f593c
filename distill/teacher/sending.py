"""Every time that a request goes out. One that brought no answer may be billed all the same, so it counts towards the spend limit.

Whether and when it is sent again is for the openai client to decide; here, below it, is only counted.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from openai import DefaultAsyncHttpxClient

    from distill.teacher.prices import Budget
    from distill.types import Usage

__all__ = ["Charge", "Sending", "http_client"]

_GATEWAY_GAVE_UP = {504, 524}
"""Statuses of a proxy that waited in vain, while the server behind it may have worked on the answer."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request came to, answered or not.

    Attributes:
        usage: The answer's tokens; None where there is none, or they were not counted.
        latency_ms: From sending to having the answer, with other requests in flight; None where there is no answer that was counted.
        unanswered_usd: What a provider may bill at most for the times that it was sent and brought no answer.
    """

    usage: Usage | None = None
    latency_ms: float | None = None
    unanswered_usd: Decimal = Decimal(0)


class Sending:
    """One request's share of the spend limit, however often it is sent. To be used as a context manager.

    Args:
        budget: Is asked before each sending.
        prompt_bytes: Of the request.
        max_output_tokens: Of the request.

    Raises:
        SpendLimitError: Not even the first sending fits; nothing was sent.
    """

    def __init__(self, budget: Budget, prompt_bytes: int, max_output_tokens: int) -> None:
        self._budget, self._size = budget, (prompt_bytes, max_output_tokens)
        self._reserved_usd: Decimal | None = budget.reserve(*self._size)
        self.usage: Usage | None = None
        """What the server counted, once it has."""
        self.unanswered_usd = Decimal(0)
        """What the sendings without an answer can have cost at most."""

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        if self._reserved_usd is not None:
            self._budget.settle(self._reserved_usd, self.usage)

    def begin(self) -> None:
        """Before each sending.

        Raises:
            SpendLimitError: The one before is lost, and another would not fit. The openai client passes it on.
        """
        if self._reserved_usd is None:
            self._reserved_usd = self._budget.reserve(*self._size)

    def lose(self) -> None:
        """The sending brought no answer."""
        if self._reserved_usd is not None:
            self._budget.lose(self._reserved_usd)
            self.unanswered_usd += self._reserved_usd
            self._reserved_usd = None


_current: ContextVar[Sending | None] = ContextVar("_current", default=None)
"""That of the task which asks: openai's client sends in the same one."""


def http_client() -> DefaultAsyncHttpxClient:
    """What openai's client is to send with."""
    import httpx2
    from openai import DefaultAsyncHttpxClient

    class CountingClient(DefaultAsyncHttpxClient):
        """Openai's own, which tells ``Sending`` what becomes of each request."""

        async def send(self, request: httpx2.Request, **keys: Any) -> httpx2.Response:
            sending = _current.get()
            if sending is None:
                return await super().send(request, **keys)
            sending.begin()
            try:
                response = await super().send(request, **keys)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol):
                raise  # it was not sent
            except Exception:
                sending.lose()
                raise
            if response.status_code in _GATEWAY_GAVE_UP:
                sending.lose()
            return response

    return CountingClient()
