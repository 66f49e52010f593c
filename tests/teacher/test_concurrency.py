"""Stopping several requests at once; what a signal does to a whole process is in test_interruption.py."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from distill.teacher import concurrency


def test_a_second_interrupt_before_the_wait_leaves_nothing_uncounted(monkeypatch):
    """Python raises it wherever the first task happens to be, which is amid what it says where the machine is slow."""
    begun, left = asyncio.Event(), []

    def say(_):
        raise KeyboardInterrupt

    async def work(item):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # as closing a connection takes a step of the loop
            left.append(item)

    async def interrupted():
        task = asyncio.ensure_future(concurrency.for_each(["a", "b"], work, 2))
        await begun.wait()
        task.cancel()
        try:
            await task
        finally:
            assert left == ["a", "b"]

    monkeypatch.setattr(concurrency, "say", say)
    with pytest.raises(KeyboardInterrupt), suppress(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert left == ["a", "b"]
