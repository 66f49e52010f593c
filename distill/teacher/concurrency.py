"""Several requests at once, inside and outside of an event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import SpendLimitError
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

__all__ = ["for_each", "is_stopping", "run_sync"]

_T = TypeVar("_T")
_Item = TypeVar("_Item")


def run_sync(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end, also where an event loop is already running (a notebook's)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[_T] = []
    failure: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
    started, ended = threading.Event(), threading.Event()

    async def announce() -> _T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        started.set()
        return await work

    def run() -> None:
        try:
            outcome.append(asyncio.run(announce()))
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread, whatever it is
            failure.append(error)
        finally:
            started.set()
            ended.set()

    thread = threading.Thread(target=run, name="distill")
    thread.start()
    try:
        ended.wait()  # not join, which an interrupt makes believe that the thread has ended (Python 3.11)
    except BaseException:  # a notebook's interrupt: the thread must not go on with files that its caller closes
        while not ended.is_set():
            with suppress(KeyboardInterrupt):  # a second one leaves what is in flight: the work counts it, and ends
                started.wait()
                for loop, task in running:
                    if task is not None and not loop.is_closed():
                        loop.call_soon_threadsafe(task.cancel)
                ended.wait()
        thread.join()
        raise
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@dataclass(slots=True)
class _Group:
    """Work that is done, and stopped, together."""

    is_stopping: bool = False


_group: ContextVar[_Group | None] = ContextVar("_group", default=None)
"""That of the task."""


def is_stopping() -> bool:
    """Whether the work that the caller is part of is coming to its end early: what is in flight is waited for, and no more."""
    group = _group.get()
    return group is not None and group.is_stopping


async def for_each(items: Iterable[_Item], work: Callable[[_Item], Awaitable[bool | None]], concurrency: int) -> None:
    """Works through items, so many at once. After an error or an interrupt no further request is begun.

    Requests in flight are paid for: their answers are waited for (and so recorded) before the error is raised. A second
    Ctrl-C does not wait. An item that would not fit under the spend limit is tried again when an answer has come: it may have
    cost less than it could.

    Args:
        items: What to work through.
        work: Makes one request for an item; returns True when the item needs another one.
        concurrency: How many requests are in flight at most.
    """
    waiting, group = iter(items), _Group()
    n_in_flight = 0
    settled = asyncio.Event()
    errors: list[BaseException] = []

    async def worker() -> None:
        """Takes items until there are none or another worker failed; asks again for an item as long as ``work`` says so."""
        nonlocal n_in_flight
        for item in waiting:
            needs_another: bool | None = True
            while needs_another:
                if group.is_stopping:
                    return
                n_in_flight += 1
                try:
                    needs_another = await work(item)
                except BaseException as error:
                    n_in_flight -= 1
                    if isinstance(error, SpendLimitError) and n_in_flight and not group.is_stopping:
                        settled.clear()
                        await settled.wait()
                        continue
                    group.is_stopping = True
                    errors.append(error)
                    settled.set()
                    raise
                n_in_flight -= 1
                settled.set()

    token = _group.set(group)
    workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
    _group.reset(token)
    try:
        await asyncio.wait(workers)
    except asyncio.CancelledError:
        group.is_stopping = True
        settled.set()
        await _left_to_end(workers, n_in_flight)
        raise
    await asyncio.gather(*workers, return_exceptions=True)
    if errors:
        raise errors[0]


async def _left_to_end(workers: Sequence[asyncio.Future[None]], n_in_flight: int) -> None:
    """Waits for what is in flight, and no longer than to a second Ctrl-C, which Python raises wherever this task happens to be."""
    try:
        if n_in_flight:
            say(f"stopping: waiting for the answers to {n_in_flight} requests in flight; Ctrl-C again to leave them")
        await asyncio.gather(*workers, return_exceptions=True)
    except KeyboardInterrupt:  # it came before the wait: what is left is counted all the same
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
