"""Whether a fallback may be asked: a budget, a circuit breaker, and how many calls are in flight. Threads share one.

A closed circuit lets calls through. Failures in a row open it: nothing is asked for a while. Then one call is let through
as a trial; its success closes the circuit, its failure opens it again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker", "Budget", "FallbackOutcome", "Guard", "Ticket", "as_usd", "check_limit"]


def as_usd(name: str, amount: Decimal | float | str) -> Decimal:
    """An amount of money; a float is taken as it is written, not as the binary fraction beside it.

    Args:
        name: What the error calls the amount.
        amount: US dollars.

    Raises:
        ValueError: It is no finite number.
    """
    try:
        usd = amount if isinstance(amount, Decimal) else Decimal(str(amount))
    except InvalidOperation:
        usd = Decimal("nan")
    if not usd.is_finite():
        raise ValueError(f"{name} must be a number of US dollars, found {amount!r}")
    return usd


def check_limit(name: str, limit: Any, *, is_whole: bool = False) -> None:
    """Refuses what is no limit: a text of an environment variable, for instance.

    Args:
        name: What the error calls the limit.
        limit: A number above 0.
        is_whole: Whether it has to be a whole one.

    Raises:
        TypeError: It is no number of the kind.
        ValueError: It is not above 0.
    """
    is_number = isinstance(limit, Integral if is_whole else Real) and not isinstance(limit, bool)
    if not is_number:
        raise TypeError(f"{name} must be a {'whole ' if is_whole else ''}number, found {limit!r}")
    if not limit > 0:
        raise ValueError(f"{name} must be above 0, found {limit}")


class FallbackOutcome(StrEnum):
    """What became of asking the fallback. All but ``ANSWERED`` leave the student's own answer as it is."""

    NOT_ASKED = "not_asked"
    """The student's answer is good enough by the cascade's rule, or the query is empty."""
    ANSWERED = "answered"
    """The answer is the fallback's."""
    TIMED_OUT = "timed_out"
    """No answer came in time."""
    FAILED = "failed"
    """It raised, or what it answered is no answer."""
    OVER_BUDGET = "over_budget"
    """It was not asked: the budget of the time window is used up."""
    CIRCUIT_OPEN = "circuit_open"
    """It was not asked: it failed several times in a row a short while ago."""
    BUSY = "busy"
    """It was not asked: as many calls as may be are in flight. A query of a batch waits for a place first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that may be asked of a fallback in any stretch of time of a given length.

    Attributes:
        max_calls: Calls; None is no limit.
        max_usd: US dollars, as a Decimal, a float or a string; None is no limit. A call is made only if ``usd_per_call``
            still fits, which is therefore no more than this.
        usd_per_call: Most that one call can cost. Counted for each call, until its reply says what it cost
            (``FallbackReply``); it stays counted where no reply comes.
        window_s: Length of the time window, seconds.

    Raises:
        TypeError: A limit is no number, or ``max_calls`` no whole one.
        ValueError: A limit is not above 0, or ``max_usd`` is given without ``usd_per_call``, or with one that never fits.
    """

    max_calls: int | None = None
    max_usd: Decimal | None = None
    usd_per_call: Decimal | None = None
    window_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("max_usd", "usd_per_call"):
            amount = getattr(self, name)
            if amount is None:
                continue
            object.__setattr__(self, name, as_usd(name, amount))
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, found {amount}")
        if self.max_calls is not None:
            check_limit("max_calls", self.max_calls, is_whole=True)
        check_limit("window_s", self.window_s)
        if self.max_usd is not None and self.usd_per_call is None:
            raise ValueError("max_usd needs usd_per_call: what a call costs at most is not known before it is made")
        if self.max_usd is not None and self.usd_per_call is not None and self.usd_per_call > self.max_usd:
            raise ValueError(
                f"max_usd ({self.max_usd}) is less than usd_per_call ({self.usd_per_call}): no call would ever be made"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a fallback that fails is left alone.

    Attributes:
        failures: Failures in a row, a timeout being one, after which it is not asked.
        pause_s: For how many seconds; then one call is let through as a trial.

    Raises:
        TypeError: One of them is no number, or ``failures`` no whole one.
        ValueError: One of them is not above 0.
    """

    failures: int = 5
    pause_s: float = 30.0

    def __post_init__(self) -> None:
        check_limit("failures", self.failures, is_whole=True)
        check_limit("pause_s", self.pause_s)


@dataclass(slots=True, eq=False)
class Ticket:
    """The right to make one call.

    Attributes:
        started: When it was given, by the monotonic clock.
        usd: What is counted for the call.
        is_trial: Whether it shows that the circuit may be closed again.
        is_counted: Whether the call is in the budget's window still.
    """

    started: float
    usd: Decimal
    is_trial: bool
    is_counted: bool = True


@dataclass(slots=True, eq=False)
class _Waiter:
    """A query that waits for a place. Places are given in the order of coming.

    Attributes:
        wake: Called from any thread, with the guard's lock held: it is worth trying again.
    """

    wake: Callable[[], object]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Guard:
    """Gives tickets, and remembers how the calls went.

    After a fork the child has a guard of its own: it knows of the calls before, and none is in flight there.

    Attributes:
        budget: Calls and dollars in a time window.
        breaker: When to stop asking.
        max_in_flight: Most calls at a time; one whose caller has given up counts until it ends.
    """

    budget: Budget
    breaker: Breaker
    max_in_flight: int
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Of a kind that its holder may take again: the garbage collector may end a call in any thread, which is judged then."""
    _counted: deque[Ticket] = field(default_factory=deque, repr=False)
    _spent_usd: Decimal = Decimal(0)
    _in_flight: set[Ticket] = field(default_factory=set, repr=False)
    _waiting: deque[_Waiter] = field(default_factory=deque, repr=False)
    _n_failures: int = 0
    _open_until: float | None = None
    _is_on_trial: bool = False

    def __post_init__(self) -> None:
        _guards.add(self)

    def enter(self) -> Ticket | FallbackOutcome:
        """A ticket, or why there is none. Every ticket is to be judged once, and left once its call has ended."""
        with self._lock:
            return self._enter()

    def wait(self, until: float, is_over: Callable[[], bool]) -> Ticket | FallbackOutcome:
        """As ``enter``; where all places are taken it waits for its turn.

        Args:
            until: A time by the monotonic clock.
            is_over: Whether nobody wants the place any more; asked again after ``look_again``.
        """
        asleep = (
            threading.Lock()
        )  # not an Event, which has a lock of its own: the garbage collector may wake in any thread
        asleep.acquire()

        def wake() -> None:
            if asleep.locked():
                asleep.release()

        waiter = _Waiter(wake)
        try:
            while (found := self._enter_in_turn(waiter)) is FallbackOutcome.BUSY and not is_over():
                if not asleep.acquire(timeout=max(until - time.monotonic(), 0.0)):
                    break
        finally:
            self._give_up(waiter)
        return found

    async def await_place(self, until: float) -> Ticket | FallbackOutcome:
        """``wait`` for event loops."""
        own_loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            try:
                own_loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # the loop is closed, and whoever waited in it is gone
                self._give_up(waiter)

        waiter = _Waiter(wake)
        try:
            while (found := self._enter_in_turn(waiter)) is FallbackOutcome.BUSY:
                try:  # not wait_for, which Python 3.11 lets swallow a cancellation
                    async with asyncio.timeout(until - time.monotonic()):
                        await woken.wait()
                except TimeoutError:
                    break
                woken.clear()
        finally:
            self._give_up(waiter)
        return found

    def look_again(self) -> None:
        """Wakes all who wait: what some of them wait for may be over."""
        with self._lock:
            for waiter in list(self._waiting):  # one whose event loop is closed gives up when it is woken
                waiter.wake()

    def _enter_in_turn(self, waiter: _Waiter) -> Ticket | FallbackOutcome:
        """As ``enter``; who finds all places taken waits from then on, and is to give up in the end."""
        with self._lock:
            is_behind = bool(self._waiting) and self._waiting[0] is not waiter
            found = FallbackOutcome.BUSY if is_behind else self._enter()
            if found is not FallbackOutcome.BUSY:
                self._give_up(waiter)
            elif waiter not in self._waiting:
                self._waiting.append(waiter)
            return found

    def _give_up(self, waiter: _Waiter) -> None:
        """Waits no more; nothing where it does not."""
        with self._lock:
            with suppress(ValueError):
                self._waiting.remove(waiter)
            self._wake_first()

    def _wake_first(self) -> None:
        """Where there is a place, or nothing to wait for."""
        if self._waiting and (len(self._in_flight) < self.max_in_flight or self._open_until is not None):
            self._waiting[0].wake()

    def _enter(self) -> Ticket | FallbackOutcome:
        now = time.monotonic()
        is_trial = self._open_until is not None
        if is_trial and (self._is_on_trial or now < (self._open_until or 0.0)):
            return FallbackOutcome.CIRCUIT_OPEN
        if len(self._in_flight) >= self.max_in_flight:
            return FallbackOutcome.BUSY
        self._forget_before(now - self.budget.window_s)
        if not self._fits():
            return FallbackOutcome.OVER_BUDGET
        ticket = Ticket(now, self.budget.usd_per_call or Decimal(0), is_trial)
        self._in_flight.add(ticket)
        self._is_on_trial = is_trial
        if self.budget.max_calls is not None or self.budget.max_usd is not None:
            self._counted.append(ticket)
            self._spent_usd += ticket.usd
        return ticket

    def _forget_before(self, start: float) -> None:
        while self._counted and self._counted[0].started <= start:
            ticket = self._counted.popleft()
            ticket.is_counted = False
            self._spent_usd -= ticket.usd

    def _fits(self) -> bool:
        budget = self.budget
        if budget.max_calls is not None and len(self._counted) >= budget.max_calls:
            return False
        return budget.max_usd is None or self._spent_usd + (budget.usd_per_call or 0) <= budget.max_usd

    def settle(self, ticket: Ticket, usd: Decimal) -> None:
        """Counts what a call really cost in place of what it could have cost."""
        with self._lock:
            if ticket.is_counted:
                self._spent_usd += usd - ticket.usd
            ticket.usd = usd

    def judge(self, ticket: Ticket, *, succeeded: bool | None) -> None:
        """Counts a success or a failure; None where the caller went away before either."""
        with self._lock:
            if ticket.is_trial:
                self._is_on_trial = False
            if succeeded:
                if ticket.is_trial or self._open_until is None:  # a call from before the circuit opened shows nothing
                    self._n_failures, self._open_until = 0, None
            elif succeeded is False:
                self._n_failures += 1
                if ticket.is_trial or (self._open_until is None and self._n_failures >= self.breaker.failures):
                    self._open_until = time.monotonic() + self.breaker.pause_s
                    self._wake_first()

    def leave(self, ticket: Ticket) -> None:
        """Frees the place of a call that has ended; once, however often it is said."""
        with self._lock:
            self._in_flight.discard(ticket)
            self._wake_first()

    def forget_calls_in_flight(self) -> None:
        """For a forked child: the threads whose calls are in flight, one of which may hold the lock, are the parent's."""
        self._lock = threading.RLock()
        self._in_flight, self._waiting, self._is_on_trial = set(), deque(), False
        self._spent_usd = sum((ticket.usd for ticket in self._counted), Decimal(0))


_guards: WeakSet[Guard] = WeakSet()


def _forget_calls_in_flight() -> None:
    for guard in list(_guards):
        guard.forget_calls_in_flight()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_calls_in_flight)
