"""Every time that a request goes out. One that brought no answer may be billed all the same, so it counts towards the spend limit.

Whether and when it is sent again is for the openai client to decide; here, below it, is only counted.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from distill.errors import SpendLimitError, TeacherError
from distill.teacher.concurrency import is_stopping

if TYPE_CHECKING:
    from types import TracebackType

    from openai import DefaultAsyncHttpxClient

    from distill.teacher.prices import Budget
    from distill.types import Usage

__all__ = ["Charge", "NotSentAgainError", "Sending", "http_client"]

_GAVE_UP = {408, 504, 524}
"""Statuses of a server or a proxy that waited in vain, while the model may have worked on the answer; Azure says that it bills the first."""


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


class NotSentAgainError(TeacherError):
    """A request may not be sent another time; says why."""


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
        self._is_sent = False
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
            NotSentAgainError: The run is being stopped, or the one before is lost and another would not fit. The openai client passes
                it on.
        """
        if self._is_sent and is_stopping():
            raise NotSentAgainError("not sent again: the run is being stopped")
        self._is_sent = True
        if self._reserved_usd is None:
            try:
                self._reserved_usd = self._budget.reserve(*self._size)
            except SpendLimitError as error:
                raise NotSentAgainError(f"no answer came, and it is not sent again: {error}") from None

    def lose(self) -> None:
        """The sending brought no answer, or one that was paid for and says not how much."""
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
            except (
                httpx2.ConnectError,
                httpx2.ConnectTimeout,
                httpx2.PoolTimeout,
                httpx2.ProxyError,
                httpx2.UnsupportedProtocol,
                httpx2.LocalProtocolError,
                httpx2.TooManyRedirects,
            ):
                raise  # it was not sent, or not to a model
            except BaseException:  # a second Ctrl-C too
                sending.lose()
                raise
            if response.status_code in _GAVE_UP:
                sending.lose()
            return response

    return CountingClient()
