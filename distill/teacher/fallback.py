"""The teacher as the fallback of a ``Cascade``: asked one live query at a time, in the prompt that it labelled with.

Nothing is recorded, and ``teacher.max_usd``, which is for making a router, does not limit it: a ``Budget`` does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from distill.cascade import FallbackReply
from distill.errors import SpecError, TeacherError
from distill.teacher.answers import function_scores, read_scores
from distill.teacher.client import ChatClient, RequestFailedError
from distill.teacher.functions import load_function, redactor
from distill.teacher.label import requester
from distill.teacher.prices import Budget, cost_usd, teacher_price
from distill.teacher.scrub import shown_cause, shown_error
from distill.tokenizer import without_surrogates
from distill.types import Usage

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from decimal import Decimal

    from distill.spec import Spec
    from distill.teacher.client import Reply, Request
    from distill.teacher.retrieve import OpenEmbedder

__all__ = ["TeacherFallback"]

_T = TypeVar("_T")
_BYTES_A_CHARACTER = 4


class TeacherFallback:
    """Asks the teacher of a spec, a model or a callable. Threads share one.

    The connection is held by a thread with an event loop of its own, which every caller's request goes through.

    Args:
        spec: The router's spec; queries pass ``teacher.redact`` before they are sent.
        timeout_s: Seconds until a request is given up; it is not sent again. Give ``Cascade`` the same.
        open_embedder: Opens the sentence encoder; needed where not all intents or known examples fit into a prompt.
        max_characters: Of a redacted query; what is longer is cut, so that a call has a price that it does not exceed by much.

    Raises:
        SpecError: The spec's teacher cannot be asked.
        MissingKeyError: The key's variable is not set, and the endpoint is not on this machine.
        TeacherError: A sentence encoder is needed, and there is no ``open_embedder``.
        DistillError: Whatever ``open_embedder`` raises.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        timeout_s: float = 5.0,
        open_embedder: OpenEmbedder | None = None,
        max_characters: int = 2_000,
    ) -> None:
        if spec.teacher.callable is None and spec.teacher.model is None:
            raise SpecError(
                f"{spec.path}: a cascade needs a teacher that can be asked: teacher.model or teacher.callable"
            )
        self._spec, self._price = spec, teacher_price(spec)
        self._function = None if spec.teacher.callable is None else load_function(spec.teacher.callable, spec)
        self._redact = redactor(spec)
        self._settings = spec.teacher.model_copy(update={"timeout_s": timeout_s, "max_retries": 0})
        self._max_characters = max_characters
        self._line: _Line | None = None
        self._lock = threading.Lock()
        _fallbacks.add(self)
        if self._function is None:
            self._request, self._dialect = requester(spec, open_embedder)
            self._request("x")  # a sentence encoder that is needed is opened now, not while the first query waits
            self._open()

    @property
    def usd_per_call(self) -> Decimal | None:
        """What a query of ``max_characters`` can cost at most, as ``Budget.usd_per_call`` wants it; None where no price is known."""
        if self._price is None or self._function is not None:
            return None
        longest = self._request("x" * self._max_characters * _BYTES_A_CHARACTER)
        return cost_usd(self._price, Usage(longest.prompt_bytes, self._settings.max_output_tokens))

    def __call__(self, text: str) -> FallbackReply:
        """The teacher's answer to one query, and what it cost.

        Where it names no intent or is no answer, though it was paid for, the answer is the error that says so.

        Raises:
            TeacherError: The request failed, or the callable raised an error.
        """
        text = self._redact(without_surrogates(text))[: self._max_characters]  # as the router reads it
        if self._function is not None:
            try:
                answer = self._function(text)
            except Exception as error:  # noqa: BLE001 - the user's own function may raise anything
                raise TeacherError(shown_error(error, self._spec)) from shown_cause(error, self._spec)
            try:
                return FallbackReply(function_scores(answer, self._spec.labels, self._spec.task))
            except (TypeError, ValueError, ArithmeticError) as error:
                return FallbackReply(error)
        request = self._request(text)
        try:
            reply = self._ask(request)
        except RequestFailedError as error:
            if error.usage is None:
                raise
            return FallbackReply(error, self._cost_usd(error.usage))
        try:
            scores = read_scores(reply.content, self._spec, reply.tokens, shown=request.shown, cut_off=reply.cut_off)
        except ValueError as error:
            return FallbackReply(error, self._cost_usd(reply.usage))
        return FallbackReply(scores, self._cost_usd(reply.usage))

    def _cost_usd(self, usage: Usage) -> Decimal | None:
        return cost_usd(self._price, usage) if self._price is not None and usage.is_counted else None

    def _ask(self, request: Request) -> Reply:
        while True:
            try:
                return self._open().ask(request)
            except _LineClosedError:  # by another thread, since it was opened
                continue

    def close(self) -> None:
        """Closes the connection when the calls that are being made have ended; the next call opens it again."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def _open(self) -> _Line:
        """The line to the server; a process that was forked opens its own."""
        with self._lock:
            if self._line is None or self._line.pid != os.getpid():
                uncounted = Budget(None, None)  # a cascade counts what its calls cost, or can cost
                self._line = _Line(ChatClient(self._settings, self._spec.teacher_name, uncounted, self._dialect))
            return self._line


_fallbacks: WeakSet[TeacherFallback] = WeakSet()


def _renew_locks() -> None:
    for fallback in list(_fallbacks):
        fallback._lock = threading.Lock()  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # who held a lock at that moment stayed in the parent
    os.register_at_fork(after_in_child=_renew_locks)


class _LineClosedError(Exception):
    """Nothing was sent."""


class _Line:
    """A client, and the thread and the event loop that it lives in."""

    def __init__(self, client: ChatClient) -> None:
        self.pid = os.getpid()
        self._lock, self._is_closed = threading.Lock(), False
        self._client, self._loop = client, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distill-teacher", daemon=True)
        self._thread.start()
        self._timeout_s = client.teacher.timeout_s
        try:
            self._run(client.__aenter__())
        except BaseException:
            self.close()  # or its thread would wait for ever
            raise

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        with self._lock:
            if self._is_closed:
                work.close()
                raise _LineClosedError
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def ask(self, request: Request) -> Reply:
        """The reply.

        Raises:
            TeacherError: The request failed, or took too long, also with a server that sends white space to keep the line open.
        """
        try:
            return self._run(self._ask_in_time(request))
        except TimeoutError:
            raise RequestFailedError(f"no answer within {self._timeout_s:g} s") from None

    async def _ask_in_time(self, request: Request) -> Reply:
        return await asyncio.wait_for(self._client.ask(request), self._timeout_s)

    def close(self) -> None:
        if self.pid != os.getpid():  # its thread stayed in the parent process
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Waits for the calls that are being made, none of which takes longer than its time limit; then hangs up."""
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        await self._client.__aexit__(None, None, None)
