"""The cascade: the student answers, and somebody better is asked where the student's policy says so.

    text → Router → sure enough? → yes: the student's answer
                                 → no:  fallback (a teacher, a larger student, any callable) → its answer
                                        and where it gives none in time: the student's answer, and why

The fallback can be slow, dear or down. So a call has a time limit, calls have a budget, and a circuit breaker leaves a
fallback alone that fails. Whatever error it raises, ``route`` answers; only what ends a program (``KeyboardInterrupt``,
``SystemExit``) passes.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from inspect import isawaitable, iscoroutinefunction
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import loop
from distill.guard import Breaker, Budget, FallbackOutcome, Guard, Ticket, as_usd, check_limit
from distill.hooks import Hooked, notify
from distill.policy import Policy, confidence_of
from distill.scrub import without_secrets
from distill.types import OUT_OF_SCOPE_LABEL, Prediction, Reason, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from distill.router import Router

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

__all__ = [
    "DECLINED",
    "Breaker",
    "Budget",
    "Cascade",
    "CascadePrediction",
    "Fallback",
    "FallbackOutcome",
    "FallbackReply",
]

DECLINED = frozenset({Reason.LOW_CONFIDENCE, Reason.OUT_OF_SCOPE})
"""The reasons for which a policy declines a query that is not empty."""

_IN_ITS_OWN_LOOP = "an async fallback called route, which would wait for the event loop that both run in; await aroute"
_GIVEN_UP_S = 0.1
"""After who asked has given up, a coroutine is cancelled."""
_END_S = 0.5
"""How long the end of the program waits for calls; one that hangs is left behind."""
_THREAD = "distill-fallback"
_QUERIES_A_TURN = 64
"""Answers that are made before other tasks of the event loop have their turn."""


@dataclass(frozen=True, slots=True)
class FallbackReply:
    """An answer with what it cost.

    Attributes:
        answer: As a fallback may return it, or an exception: what was paid for is no answer.
        usd: What the call cost, US dollars, as a Decimal, a float or a string; None where not known.

    Raises:
        ValueError: ``usd`` is no number, or less than 0.
    """

    answer: Any
    usd: Decimal | None = None

    def __post_init__(self) -> None:
        if self.usd is None:
            return
        usd = as_usd("usd", self.usd)
        if usd < 0:
            raise ValueError(f"usd must be 0 or more, found {self.usd}")
        object.__setattr__(self, "usd", usd)


Fallback = Callable[[str], Any] | Callable[[str], Awaitable[Any]]
"""What is asked: a function or a coroutine function from text to an intent's name (``oos`` or None: fits none), to a
mapping of names to scores (shares, divided by their sum: ``{"refund": 0.3}`` alone is a score of 1; ``multi``: probabilities), to a list of names (``multi``), to a ``Prediction`` (the ``route`` of a larger student or of another
cascade), or to a ``FallbackReply`` around one of these."""

_UNASKED = frozenset(
    {FallbackOutcome.NOT_ASKED, FallbackOutcome.OVER_BUDGET, FallbackOutcome.CIRCUIT_OPEN, FallbackOutcome.BUSY}
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CascadePrediction(Prediction):
    """What a cascade answers: a prediction, and where it comes from.

    Where the fallback answered, ``intent``, ``score`` and the rest are the fallback's; a name without a score counts as a
    score of 1, which is not calibrated. Otherwise all of them are the student's, unchanged.

    Attributes:
        student: What the student answered.
        fallback: What became of asking the fallback.
        error: Why it failed, on one line; None where it did not.
        usd: What asking cost, where the fallback says so.
    """

    student: Prediction
    fallback: FallbackOutcome
    error: str | None = None
    usd: Decimal | None = None

    def as_dict(self, top: int | None = None) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes.

        Args:
            top: How many scores it holds, the best first; None: all, in the order of the labels.
        """
        return {
            **Prediction.as_dict(self, top),
            "fallback": self.fallback.value,
            "error": self.error,
            "usd": None if self.usd is None else float(self.usd),
        }


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a call came to: an answer, or why there is none, and what it cost either way."""

    answer: Prediction | BaseException
    usd: Decimal | None = None


class Cascade(Hooked):
    """A router that asks a fallback where its student is not sure. Threads share one, as they do a Router.

    A call whose caller has given up goes on in its thread and keeps its place among ``max_in_flight`` until it ends, so
    a fallback should have a time limit of its own. A coroutine function is awaited in the caller's event loop by
    ``aroute``; ``route`` runs it in a loop that all of them share and that lasts as long as the process, so that a client keeps its
    connections. It is cancelled when its time is up. A client's connections belong to one loop: use one by ``route`` or by ``aroute``. What
    blocks in a coroutine (``time.sleep``, a client that is not async) holds up all others there; give a plain function for that.

    Args:
        router: The student.
        fallback: Whom to ask; see ``Fallback``.
        ask_when: For which reasons of the policy it is asked, or their names. ``EMPTY_INPUT`` is never one.
        ask_below: It is also asked where the student's ``confidence`` is under this, from 0 to 1, whatever the policy says. For
            ``multi`` that is how likely the least sure label was rightly accepted or left out.
        timeout_s: How long a caller waits for it, seconds.
        budget: Most that may be asked in a time window; None is no limit.
        breaker: When a fallback that fails is left alone; None is the default ``Breaker``.
        max_in_flight: Most calls at a time; a query over it keeps the student's answer, and one of a batch waits for a place first.

    Attributes:
        on_prediction: Functions that are told of every answer of the cascade, as those of ``Router`` are.

    Raises:
        TypeError: The fallback cannot be called, or another part is of the wrong kind.
        ValueError: A limit is not above 0, or ``ask_below`` is no probability, or ``ask_when`` names no reason.
    """

    def __init__(
        self,
        router: Router,
        fallback: Fallback,
        *,
        ask_when: Collection[Reason | str] = DECLINED,
        ask_below: float = 0.0,
        timeout_s: float = 5.0,
        budget: Budget | None = None,
        breaker: Breaker | None = None,
        max_in_flight: int = 32,
    ) -> None:
        _check_callable(fallback)
        _check_kinds(router, budget, breaker)
        check_limit("timeout_s", timeout_s)
        check_limit("max_in_flight", max_in_flight, is_whole=True)
        if timeout_s > threading.TIMEOUT_MAX:
            raise ValueError(f"timeout_s ({timeout_s}) must be {threading.TIMEOUT_MAX:.0f} at most")
        if not 0.0 <= ask_below <= 1.0:
            raise ValueError(f"ask_below must be from 0 to 1, found {ask_below}")
        self.router, self.fallback = router, fallback
        self.ask_when, self.ask_below = _reasons(ask_when) - {Reason.EMPTY_INPUT}, ask_below
        self.timeout_s = timeout_s
        super().__init__()
        self._guard = Guard(budget or Budget(), breaker or Breaker(), max_in_flight)
        self._is_async = iscoroutinefunction(fallback) or iscoroutinefunction(type(fallback).__call__)
        self._policy = Policy.of_answers(router.manifest.task, router.labels)

    def __repr__(self) -> str:
        return f"Cascade({self.router!r}, {self.fallback!r})"

    def should_ask(self, student: Prediction) -> bool:
        """Whether the rule sends this answer of the student to the fallback."""
        if student.reason in self.ask_when:
            return True
        if not self.ask_below:
            return False
        sure = confidence_of(student, self._policy.task)
        return sure is not None and sure < self.ask_below

    def route(self, text: str) -> CascadePrediction:
        """Routes one query; takes ``timeout_s`` at most where the fallback is asked.

        Raises:
            QueryError: ``text`` is not a string.
            BundleError: As for ``Router.route``.
        """
        started = perf_counter()
        prediction = self._consult(text, self.router.route(text))
        self._tell((text,), (prediction,), started)
        return prediction

    async def aroute(self, text: str) -> CascadePrediction:
        """``route`` for event loops: the loop runs on while the fallback answers.

        Raises:
            QueryError: ``text`` is not a string.
            BundleError: As for ``Router.route``.
        """
        started = perf_counter()
        prediction = await self._aconsult(text, await self.router.aroute(text))
        self._tell((text,), (prediction,), started)
        return prediction

    def route_batch(self, texts: Iterable[str], *, batch_size: int | None = None) -> list[CascadePrediction]:
        """Routes many queries: one prediction for each, in order. The fallback is asked ``max_in_flight`` at a time.

        Where others ask it too, a query waits for a place for ``timeout_s`` at most; after one that waited in vain the next do not, until there is
        a place again.

        Args:
            texts: The queries.
            batch_size: As for ``Router.route_batch``.

        Raises:
            QueryError: As for ``Router.route_batch``.
            BundleError: As for ``Router.route``.
            ValueError: As for ``Router.route_batch``.
        """
        started, queries = perf_counter(), _listed(texts)
        students = self.router.route_batch(queries, batch_size=batch_size)
        predictions = [self._keep(student, FallbackOutcome.NOT_ASKED) for student in students]
        asked = [position for position, student in enumerate(students) if self.should_ask(student)]
        if asked:
            patience = _Patience(self._guard)
            callers = [copy_context() for _ in asked]  # one for each: none can be entered twice at a time
            with _pool(min(self._guard.max_in_flight, len(asked)), patience) as pool:
                answers = pool.map(
                    lambda caller, position: caller.run(
                        self._consult_or_end, queries[position], students[position], patience
                    ),
                    callers,
                    asked,
                )
                for position, answer in zip(asked, answers, strict=True):
                    predictions[position] = answer
        self._tell(queries, predictions, started)
        return predictions

    async def aroute_batch(self, texts: Iterable[str], *, batch_size: int | None = None) -> list[CascadePrediction]:
        """``route_batch`` for event loops: other tasks have their turn while the answers are made.

        Raises:
            QueryError: As for ``Router.route_batch``.
            BundleError: As for ``Router.route``.
            ValueError: As for ``Router.route_batch``.
        """
        started, queries = perf_counter(), _listed(texts)
        students = await self.router.aroute_batch(queries, batch_size=batch_size)
        predictions: list[CascadePrediction] = []
        asked: list[int] = []
        for position, student in enumerate(students):
            predictions.append(self._keep(student, FallbackOutcome.NOT_ASKED))
            if self.should_ask(student):
                asked.append(position)
            if len(predictions) % _QUERIES_A_TURN == 0:
                await asyncio.sleep(0)
        left, patience = iter(asked), _Patience(self._guard)

        async def consult() -> None:
            for position in left:
                predictions[position] = await self._aconsult(queries[position], students[position], patience)
                await asyncio.sleep(0)  # a query that is not asked after all, over budget say, waits for nothing

        workers = [asyncio.ensure_future(consult()) for _ in range(min(self._guard.max_in_flight, len(asked)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:  # where one raised, the others would go on asking, and paying
                worker.cancel()
        for number in self._notify(queries, predictions, started):
            if number % _QUERIES_A_TURN == 0:
                await asyncio.sleep(0)
        return predictions

    def _consult(self, text: str, student: Prediction, patience: _Patience | None = None) -> CascadePrediction:
        if not self.should_ask(student):
            return self._keep(student, FallbackOutcome.NOT_ASKED)
        if self._is_async and loop.runs_here():
            return self._keep(student, FallbackOutcome.FAILED, _IN_ITS_OWN_LOOP)
        ticket = self._guard.enter() if patience is None else self._place(patience)
        if isinstance(ticket, FallbackOutcome):
            return self._keep(student, ticket)
        try:
            call = self._start(text, ticket)
            awaited: list[Future[Any]] = [call] if patience is None else [call, patience.end]
            wait(awaited, self.timeout_s, FIRST_COMPLETED)
        except BaseException:
            self._guard.judge(ticket, succeeded=None)
            raise
        if patience and patience.end.done():  # nobody waits for the answer any more
            self._guard.judge(ticket, succeeded=None)
            return self._keep(student, FallbackOutcome.TIMED_OUT)
        return self._conclude(call, student, ticket, is_late=not call.done())

    def _place(self, patience: _Patience) -> Ticket | FallbackOutcome:
        """A place for a query of a batch; none once the batch is broken off, be it while this one waited."""
        if patience.end.done():
            return FallbackOutcome.BUSY
        ticket = patience.after(self._guard.wait(patience.until(self.timeout_s), patience.end.done))
        if patience.end.done() and not isinstance(ticket, FallbackOutcome):
            self._guard.judge(ticket, succeeded=None)
            self._guard.leave(ticket)
            return FallbackOutcome.BUSY
        return ticket

    def _consult_or_end(self, text: str, student: Prediction, patience: _Patience) -> CascadePrediction:
        """``_consult`` for a query of a batch, whose others are not asked about after an error."""
        try:
            return self._consult(text, student, patience)
        except BaseException:
            patience.break_off()
            raise

    async def _aconsult(self, text: str, student: Prediction, patience: _Patience | None = None) -> CascadePrediction:
        if not self.should_ask(student):
            return self._keep(student, FallbackOutcome.NOT_ASKED)
        ticket = (
            self._guard.enter()
            if patience is None
            else patience.after(await self._guard.await_place(patience.until(self.timeout_s)))
        )
        if isinstance(ticket, FallbackOutcome):
            return self._keep(student, ticket)
        call: asyncio.Future[_Outcome] | None = None
        try:
            call = (
                asyncio.ensure_future(self._await(text, ticket))
                if self._is_async
                else asyncio.wrap_future(self._start(text, ticket))
            )
            call.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, though nobody waits
            if self._is_async:
                call.add_done_callback(lambda _: self._guard.leave(ticket))  # one that is cancelled before it begins
            await asyncio.wait((call,), timeout=self.timeout_s)
        except BaseException:
            self._guard.judge(ticket, succeeded=None)
            if call is not None:
                with suppress(RuntimeError):  # its event loop is closed
                    call.cancel()
            raise
        is_late = not call.done()
        if is_late:
            call.cancel()
        return self._conclude(call, student, ticket, is_late=is_late)

    async def _await(self, text: str, ticket: Ticket) -> _Outcome:
        try:
            return self._read(await self.fallback(text), ticket)
        finally:  # here, as a loop that ends with its call under way runs no callbacks
            self._guard.leave(ticket)

    def _start(self, text: str, ticket: Ticket) -> Future[_Outcome]:
        """Asks in a thread of its own: one that hangs then holds up neither the others nor the end of the program."""
        call: Future[_Outcome] = Future()
        call.set_running_or_notify_cancel()

        def work() -> None:
            """Asks, and frees the place among those in flight before the outcome is known: who waits for it may ask again at once."""
            try:
                answer = self.fallback(text)
                outcome = self._read(
                    loop.wait_for(answer, self.timeout_s + _GIVEN_UP_S) if isawaitable(answer) else answer, ticket
                )
            except StopIteration as error:  # an event loop's future takes no such error
                self._guard.leave(ticket)
                call.set_exception(RuntimeError(f"the fallback raised {_said(error)}"))
            except BaseException as error:  # noqa: BLE001 - carried over to whoever waits
                self._guard.leave(ticket)
                call.set_exception(error)
            else:
                self._guard.leave(ticket)
                call.set_result(outcome)

        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(target=copy_context().run, args=(work,), name=_THREAD, daemon=True)
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._guard.leave(ticket)
            call.set_exception(error)
        except BaseException:  # a signal's, while it was started
            if thread is None or thread.ident is None:
                self._guard.leave(ticket)
            raise
        return call

    def _read(self, answer: Any, ticket: Ticket) -> _Outcome:
        usd = None
        if isinstance(answer, FallbackReply):
            answer, usd = answer.answer, answer.usd
        if usd is None and isinstance(answer, CascadePrediction):
            usd = Decimal(0) if answer.fallback in _UNASKED else answer.usd
        if usd is not None:
            self._guard.settle(ticket, usd)
        try:
            return _Outcome(_read_answer(answer, self._policy), usd)
        except Exception as error:  # noqa: BLE001 - an answer may be anything, and is paid for all the same
            return _Outcome(error, usd)

    def _conclude(
        self, call: Future[Any] | asyncio.Future[Any], student: Prediction, ticket: Ticket, *, is_late: bool
    ) -> CascadePrediction:
        """The fallback's answer, or the student's and why."""
        outcome = None if is_late else _outcome(call)
        self._guard.judge(ticket, succeeded=outcome is not None and isinstance(outcome.answer, Prediction))
        if outcome is None:
            return self._keep(student, FallbackOutcome.TIMED_OUT, f"no answer within {self.timeout_s:g} s")
        if isinstance(outcome.answer, Prediction):
            return _cascaded(outcome.answer, student, FallbackOutcome.ANSWERED, usd=outcome.usd)
        if isinstance(outcome.answer, KeyboardInterrupt | SystemExit):
            raise outcome.answer
        # a server may echo its key, and answers are logged
        return self._keep(student, FallbackOutcome.FAILED, without_secrets(_said(outcome.answer)), outcome.usd)

    def _keep(
        self, student: Prediction, outcome: FallbackOutcome, error: str | None = None, usd: Decimal | None = None
    ) -> CascadePrediction:
        return _cascaded(student, student, outcome, error, usd)

    def _tell(self, texts: Sequence[str], predictions: Sequence[Prediction], started: float) -> None:
        for _ in self._notify(texts, predictions, started):
            pass

    def _notify(self, texts: Sequence[str], predictions: Sequence[Prediction], started: float) -> Iterator[int]:
        """Tells the hooks, as far as it is iterated over."""
        if not self._hooks:
            return iter(())
        latency_ms = (perf_counter() - started) * 1000
        return notify(self._hooks, texts, predictions, self.router.manifest.bundle_id, latency_ms)


class _Patience:
    """A batch's: once a query waited for a place in vain, the next do not wait, until one has a place.

    Attributes:
        end: Done when the batch is broken off, and its calls need be waited for no more.
    """

    __slots__ = ("_guard", "_is_out", "end")

    def __init__(self, guard: Guard) -> None:
        self._guard, self._is_out = guard, False
        self.end: Future[None] = Future()

    def break_off(self) -> None:
        """Has nobody ask any more, or wait."""
        with suppress(InvalidStateError):
            self.end.set_result(None)
        self._guard.look_again()

    def until(self, timeout_s: float) -> float:
        """When a query that comes now waits no more, by the monotonic clock."""
        return monotonic() + (0.0 if self._is_out else timeout_s)

    def after(self, found: Ticket | FallbackOutcome) -> Ticket | FallbackOutcome:
        """What a query found, remembered."""
        self._is_out = found is FallbackOutcome.BUSY
        return found


@contextmanager
def _pool(n_threads: int, patience: _Patience) -> Iterator[ThreadPoolExecutor]:
    """Threads for a batch. One that is broken off, as by Ctrl-C, waits for none of its calls, and asks no more."""
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield pool
    except BaseException:
        patience.break_off()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _wait_for_calls() -> None:
    """When the program ends: a thread that comes back from compiled code while the interpreter is taken down would abort the process."""
    loop.end()
    until = monotonic() + _END_S
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(until - monotonic(), 0.0))


atexit.register(_wait_for_calls)


def _check_callable(fallback: Any) -> None:
    if not callable(fallback):
        hint = "; give its `route`" if hasattr(fallback, "route") else ""
        raise TypeError(f"a fallback is called with a query, found {type(fallback).__name__}{hint}")


def _check_kinds(router: Any, budget: Any, breaker: Any) -> None:
    if not callable(getattr(router, "route_batch", None)):
        raise TypeError(f"a cascade takes a Router, found {type(router).__name__}; Router.load opens a folder")
    for name, value, kind in (("budget", budget, Budget), ("breaker", breaker, Breaker)):
        if not isinstance(value, kind | None):
            raise TypeError(f"{name} is a {kind.__name__} or None, found {value!r}")


def _reasons(ask_when: Collection[Reason | str]) -> frozenset[Reason]:
    if not isinstance(ask_when, Iterable):
        raise TypeError(f"ask_when names reasons, found {ask_when!r}; there are {', '.join(sorted(Reason))}")
    names = [ask_when] if isinstance(ask_when, str) else [*ask_when]
    unknown = [name for name in names if name not in set(Reason)]
    if unknown:
        raise ValueError(f"ask_when: {unknown[0]!r} is no reason; there are {', '.join(sorted(Reason))}")
    return frozenset(map(Reason, names))


def _listed(texts: Any) -> list[str]:
    """The queries as a list; what is none is left to the router, which refuses it."""
    return (
        list(texts)
        if isinstance(texts, Iterable) and not isinstance(texts, str | bytes | bytearray | Mapping)
        else texts
    )


def _outcome(call: Future[_Outcome] | asyncio.Future[_Outcome]) -> _Outcome:
    """Of a call that is done."""
    if call.cancelled():
        return _Outcome(asyncio.CancelledError())
    error = call.exception()
    return call.result() if error is None else _Outcome(error)


_PREDICTION_FIELDS = tuple(each.name for each in fields(Prediction))


def _cascaded(
    prediction: Prediction,
    student: Prediction,
    outcome: FallbackOutcome,
    error: str | None = None,
    usd: Decimal | None = None,
) -> CascadePrediction:
    own = {name: getattr(prediction, name) for name in _PREDICTION_FIELDS}
    return CascadePrediction(**own, student=student, fallback=outcome, error=error, usd=usd)


def _read_answer(answer: Any, policy: Policy) -> Prediction:
    """A fallback's answer as a prediction.

    Raises:
        ValueError: It is no answer; nothing is guessed.
        Exception: It is this exception.
    """
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, Prediction):
        named = (*answer.intents, *(each for each in (answer.intent, answer.top_intent) if each is not None))
        _check_names(named, policy.labels)
        return answer if answer.intents or answer.intent is None else replace(answer, intents=(answer.intent,))
    scores = _as_scores(answer, policy.task)
    is_apart = OUT_OF_SCOPE_LABEL not in policy.labels and not policy.task.is_mixture  # of shares none is outside
    outside = scores.pop(OUT_OF_SCOPE_LABEL, 0.0) if is_apart else 0.0
    _check_names(scores, policy.labels)
    if not all(0.0 <= score < math.inf for score in (*scores.values(), outside)):
        raise ValueError("the scores must be numbers from 0 on")
    if not policy.task.sums_to_one and any(score > 1.0 for score in (*scores.values(), outside)):
        raise ValueError("the scores must be probabilities, from 0 to 1")
    numbers = np.asarray([scores.get(name, 0.0) for name in policy.labels])
    if policy.task.sums_to_one:
        most = max(numbers.max(), outside)
        numbers, outside = numbers / (most or 1.0), outside / (most or 1.0)  # first by the largest: a sum may overflow
    vector = numbers.astype(np.float32)
    if policy.task.has_one_label and outside and outside >= vector.max():
        return Prediction(None, 0.0, Reason.OUT_OF_SCOPE, None, labels=policy.labels)
    if policy.task.sums_to_one:
        if not vector.any():
            raise ValueError("every score is 0")
        vector /= vector.sum() + (outside if policy.task.has_one_label else 0.0)
    prediction = policy.decide(vector)
    return prediction if prediction.score else replace(prediction, top_intent=None)  # then no label is the best


def _as_scores(answer: Any, task: Task) -> dict[str, float]:
    match answer:
        case None if not task.is_mixture:
            return {OUT_OF_SCOPE_LABEL: 1.0} if task.has_one_label else {}
        case str():
            return {answer: 1.0}
        case Mapping():
            return {name: float(score) for name, score in answer.items()}
        case list() | tuple() | set() | frozenset() if not task.sums_to_one:
            return dict.fromkeys(answer, 1.0)
    raise ValueError(f"the answer is {type(answer).__name__}, not an intent's name or scores")


def _check_names(names: Iterable[str], labels: Sequence[str]) -> None:
    known = frozenset(labels)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"the answer is no intent: {unknown[0]!r}")


def _said(error: BaseException) -> str:
    """Its class and message; the class alone where the message cannot be had."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - anybody's class, which may fail at its own message
        return name
