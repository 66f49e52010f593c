from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from distill import guard
from distill.guard import Breaker, Budget, FallbackOutcome, Guard, Ticket


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [1000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    return now


def make_guard(max_in_flight=100, failures=3, **budget):
    return Guard(Budget(**budget), Breaker(failures=failures, pause_s=30), max_in_flight)


def call(guarded, *, succeeded=True, usd=None):
    """One whole call; what is said instead where it may not be made."""
    ticket = guarded.enter()
    if isinstance(ticket, Ticket):
        if usd is not None:
            guarded.settle(ticket, Decimal(usd))
        guarded.judge(ticket, succeeded=succeeded)
        guarded.leave(ticket)
        return "made"
    return ticket


def test_calls_are_counted_in_a_window_that_slides(clock):
    guarded = make_guard(max_calls=2, window_s=60)
    assert call(guarded) == "made"
    clock[0] += 40
    assert call(guarded) == "made"
    assert call(guarded) is FallbackOutcome.OVER_BUDGET
    clock[0] += 20  # the first is a minute ago
    assert call(guarded) == "made"
    assert call(guarded) is FallbackOutcome.OVER_BUDGET


def test_dollars_are_counted_at_most_until_it_is_known_what_a_call_cost(clock):
    guarded = make_guard(max_usd=Decimal("1.00"), usd_per_call=Decimal("0.40"), window_s=60)
    assert call(guarded, usd="0.10") == "made"
    assert call(guarded) == "made"  # no reply, so it may have cost 0.40
    assert call(guarded) == "made"
    assert call(guarded) is FallbackOutcome.OVER_BUDGET  # 0.90 are spent, and 0.40 do not fit
    clock[0] += 60
    assert call(guarded) == "made"


def test_a_cost_that_is_known_late_does_not_count_in_another_window(clock):
    guarded = make_guard(max_usd=1, usd_per_call=0.6, window_s=60)
    late = guarded.enter()
    clock[0] += 60
    ticket = guarded.enter()
    assert isinstance(ticket, Ticket)
    guarded.settle(late, Decimal(5))
    guarded.settle(ticket, Decimal("0.1"))
    assert call(guarded) == "made"


def test_failures_in_a_row_open_the_circuit_and_a_trial_closes_it(clock):
    guarded = make_guard()
    for succeeded in (False, False, True, False, False, False):
        assert call(guarded, succeeded=succeeded) == "made"
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN
    clock[0] += 29
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN
    clock[0] += 1
    trial = guarded.enter()
    assert trial.is_trial
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN  # one at a time
    guarded.judge(trial, succeeded=False)
    clock[0] += 29
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN
    clock[0] += 1
    assert call(guarded, succeeded=True) == "made"
    assert call(guarded, succeeded=False) == "made"
    assert call(guarded) == "made"


def test_a_trial_that_nobody_waited_for_proves_nothing(clock):
    guarded = make_guard(failures=1)
    call(guarded, succeeded=False)
    clock[0] += 30
    assert call(guarded, succeeded=None) == "made"
    assert call(guarded) == "made"


def test_failures_of_calls_begun_before_do_not_lengthen_the_pause(clock):
    guarded = make_guard(failures=1)
    first, second = guarded.enter(), guarded.enter()
    guarded.judge(first, succeeded=False)
    clock[0] += 20
    guarded.judge(second, succeeded=False)
    clock[0] += 10
    assert call(guarded) == "made"


def test_only_the_trial_closes_an_open_circuit(clock):
    guarded = make_guard(failures=1)
    first, second = guarded.enter(), guarded.enter()
    guarded.judge(first, succeeded=False)
    guarded.judge(second, succeeded=True)  # begun before it opened
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN
    clock[0] += 30
    assert call(guarded) == "made"
    assert call(guarded) == "made"


def test_no_more_calls_are_in_flight_than_may_be(clock):
    guarded = make_guard(max_in_flight=2)
    first, second = guarded.enter(), guarded.enter()
    assert call(guarded) is FallbackOutcome.BUSY
    guarded.leave(first)
    guarded.leave(first)  # said twice, it is one place
    assert isinstance(guarded.enter(), Ticket)
    assert call(guarded) is FallbackOutcome.BUSY
    guarded.leave(second)
    assert call(guarded) == "made"


def test_what_is_refused_is_not_counted(clock):
    guarded = make_guard(max_in_flight=1, max_calls=2)
    first = guarded.enter()
    for _ in range(5):
        assert call(guarded) is FallbackOutcome.BUSY
    guarded.leave(first)
    assert call(guarded) == "made"


def test_threads_together_keep_to_the_budget():
    guarded = make_guard(max_calls=100, max_usd=1, usd_per_call="0.01")
    start = threading.Barrier(16)

    def work(_):
        start.wait()
        return [call(guarded, usd="0.01") for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(outcome for made in pool.map(work, range(16)) for outcome in made)
    assert outcomes["made"] == 100
    assert outcomes["made"] + outcomes[FallbackOutcome.OVER_BUDGET] + outcomes[FallbackOutcome.BUSY] == 320


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_no_call_of_the_parent_is_in_flight_after_a_fork(clock):
    guarded = make_guard(max_in_flight=1, failures=1, max_usd=3, usd_per_call=1)
    call(guarded, succeeded=False)
    clock[0] += 30
    assert guarded.enter().is_trial
    with guarded._lock:  # as another thread may hold it
        child = os.fork()
        if not child:
            signal.alarm(30)  # rather than wait for the lock for good
            outcomes = [call(guarded), call(guarded)]
            os._exit(0 if outcomes == ["made", FallbackOutcome.OVER_BUDGET] else 1)  # the dollars spent are known
    assert os.waitpid(child, 0)[1] == 0
    assert call(guarded) is FallbackOutcome.CIRCUIT_OPEN  # here the trial goes on


@pytest.mark.parametrize("amount", [0.001, "0.001", Decimal("0.001"), 1])
def test_dollars_may_be_floats(amount):
    assert guard.as_usd("usd", amount) == Decimal(str(amount))
    assert Budget(max_usd=amount, usd_per_call=amount).max_usd == Decimal(str(amount))


@pytest.mark.parametrize("amount", ["much", float("nan"), Decimal("inf"), [1]])
def test_dollars_are_a_number(amount):
    with pytest.raises(ValueError, match="max_usd must be a number of US dollars, found"):
        Budget(max_usd=amount, usd_per_call=1)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"max_calls": 0}, "max_calls must be above 0"),
        ({"max_usd": -1, "usd_per_call": 1}, "max_usd must be above 0"),
        ({"max_usd": 1}, "max_usd needs usd_per_call"),
        ({"max_usd": 1, "usd_per_call": 2}, r"max_usd \(1\) is less than usd_per_call \(2\)"),
        ({"window_s": 0}, "window_s"),
    ],
)
def test_a_budget_that_limits_nothing_is_refused(limits, complaint):
    with pytest.raises(ValueError, match=complaint):
        Budget(**limits)


@pytest.mark.parametrize(
    ("kind", "limits", "complaint"),
    [
        (Budget, {"max_calls": "1000"}, "max_calls must be a whole number, found '1000'"),
        (Budget, {"max_calls": 1.5}, "max_calls must be a whole number, found 1.5"),
        (Budget, {"window_s": "60"}, "window_s must be a number, found '60'"),
        (Budget, {"window_s": Decimal(60)}, r"window_s must be a number, found Decimal\('60'\)"),
        (Breaker, {"failures": "5"}, "failures must be a whole number, found '5'"),
        (Breaker, {"failures": True}, "failures must be a whole number, found True"),
        (Breaker, {"pause_s": None}, "pause_s must be a number, found None"),
    ],
)
def test_what_is_no_number_limits_nothing(kind, limits, complaint):
    with pytest.raises(TypeError, match=complaint):
        kind(**limits)


@pytest.mark.parametrize("setting", [{"failures": 0}, {"pause_s": 0}])
def test_a_breaker_that_breaks_nothing_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Breaker(**setting)
