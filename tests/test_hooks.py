from __future__ import annotations

import gc
import logging
from functools import partial

import pytest

from distill import hooks
from distill.hooks import notify
from distill.types import Prediction, Reason

ANSWER = Prediction("refund", 0.9, Reason.ACCEPTED, "refund", ("refund",))


def tell(*told, n=3):
    """Tells hooks of the same prediction several times."""
    for _ in range(n):
        assert [*notify(told, ["refund"], [ANSWER], "a bundle", 0.1)] == [1]


def closure(kind):
    def hook(event):
        raise kind("closed")

    return hook


def plain(event, kind):
    raise kind("partial")


class Slotted:
    """A hook that cannot be watched."""

    __slots__ = ("kind",)

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, event):
        raise self.kind("slotted")


MAKERS = pytest.mark.parametrize("make", [closure, lambda kind: partial(plain, kind=kind), Slotted])


@MAKERS
def test_the_failure_of_each_hook_is_logged_once(caplog, make):
    first, second = make(RuntimeError), make(RuntimeError)
    tell(first, second)
    assert [record.exc_info[0] for record in caplog.records] == [RuntimeError] * 2


def test_each_kind_of_error_is_logged_once(caplog):
    kinds = [KeyError, ValueError, KeyError]

    def hook(event):
        raise kinds.pop()

    tell(hook)
    assert {record.exc_info[0] for record in caplog.records} == {KeyError, ValueError}
    assert len(caplog.records) == 2


def test_what_a_hook_raises_shows_no_secret(caplog, monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", "planted4711")
    tell(partial(closure, RuntimeError)(), n=1)
    assert "the hook closure.<locals>.hook failed (RuntimeError: closed)" in caplog.text

    def hook(event):
        raise RuntimeError("refused: key=planted4711")

    tell(hook, n=1)
    assert "planted4711" not in caplog.text
    assert "failed (RuntimeError: refused: key=[key])" in caplog.text


class SpeechlessError(Exception):
    def __str__(self):
        raise ValueError("no words")


def test_an_error_that_cannot_say_what_it_is_breaks_nothing(caplog):
    tell(partial(closure, SpeechlessError)(), n=1)
    assert "failed (SpeechlessError: SpeechlessError)" in caplog.text


def test_a_hook_that_is_gone_is_forgotten(monkeypatch):
    monkeypatch.setattr(logging.getLogger("distill"), "disabled", True)  # a record's traceback would hold the hook
    hook = closure(RuntimeError)
    kind = (id(hook), "RuntimeError")
    tell(hook)
    assert kind in hooks._reported
    del hook
    gc.collect()
    assert kind not in hooks._reported


class AsyncHook:
    async def __call__(self, event):
        raise AssertionError("it is never awaited")


def test_a_hook_that_nothing_awaits_is_said_once(caplog):
    async def hook(event):
        raise AssertionError("it is never awaited")

    def yields(event):
        yield event

    async def yields_later(event):
        yield event

    told = []
    tell(hook, AsyncHook(), yields, yields_later, told.append)  # and no RuntimeWarning
    tell(lambda event: (each for each in (event,)))  # it ran, whatever it returns
    assert [str(record.exc_info[1]) for record in caplog.records] == [
        *["an async hook is never awaited: give a plain function, which may start a task"] * 2,
        *["a hook that yields is never run: give a plain function"] * 2,
    ]
    assert len(told) == 3
