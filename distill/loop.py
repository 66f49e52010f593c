"""One event loop in a thread of its own, for coroutines whose callers have none.

A client keeps its connections open, and each belongs to the event loop that it was opened in. So there is one for the process, which lasts as
long: in a loop for each call the second call would find its connection dead.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["end", "runs_here", "wait_for"]

_T = TypeVar("_T")
_END_S = 0.2
"""How long the end of the program waits for coroutines to be cancelled; one that blocks is left behind."""


def wait_for(work: Awaitable[_T], timeout_s: float | None = None) -> _T:
    """What a coroutine returns or raises. It sees the caller's context variables.

    Args:
        work: The coroutine.
        timeout_s: Seconds after which it is cancelled, as a call of a loop's own is; None: never.

    Raises:
        RuntimeError: It was called in the loop itself, which would wait for itself for ever.
        BaseException: Whatever the coroutine raises.
    """
    if runs_here():
        raise RuntimeError("waiting in an event loop for a coroutine that runs in it; await it")
    loop = _of_process.opened()
    value, error = asyncio.run_coroutine_threadsafe(_outcome(work, timeout_s), loop).result()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def end() -> None:
    """Cancels what is under way, when the program ends."""
    _of_process.end()


def runs_here() -> bool:
    """Whether the caller is in the loop: a coroutine, or what it called."""
    return _of_process.thread is threading.current_thread()


async def _outcome(work: Awaitable[_T], timeout_s: float | None) -> tuple[_T | None, BaseException | None]:
    """Whatever it comes to: an interrupt or an exit that it raises is the caller's, and would end the loop."""
    try:
        return await asyncio.wait_for(work, timeout_s), None
    except BaseException as error:  # noqa: BLE001 - carried over to whoever waits
        return None, error


class _Loop:
    """Opened by the first coroutine, and again in a forked process: the thread stayed in the parent.

    Attributes:
        thread: That it runs in; None before the first coroutine.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left: list[asyncio.AbstractEventLoop] = []

    def opened(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs from now on.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=(loop,), name="distill-coroutines", daemon=True)
                try:
                    thread.start()
                except BaseException:  # the system gives no more threads, or a signal came
                    loop.close()
                    raise
                self.thread, self._loop = thread, loop
            return self._loop

    def hold(self) -> None:
        """Before a fork."""
        self._lock.acquire()

    def let_go(self) -> None:
        """After it, in the parent."""
        self._lock.release()

    def forget(self) -> None:
        """After it, in the child. The parent's loop is kept: to close it here would take the parent's sockets out of what it watches."""
        self._lock = threading.Lock()
        if self._loop is not None:
            self._left.append(self._loop)
            self.thread = self._loop = None

    def end(self) -> None:
        """Cancels what is under way, when the program ends."""
        if self._loop is None:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(_END_S)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """For as long as the process lasts: a task that exits, or stops the loop, ends itself alone."""
    while True:
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_of_process = _Loop()
atexit.register(end)
if hasattr(
    os, "register_at_fork"
):  # no fork amid the opening: the child would close the loop, and its parent's sockets with it
    os.register_at_fork(before=_of_process.hold, after_in_parent=_of_process.let_go, after_in_child=_of_process.forget)
