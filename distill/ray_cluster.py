"""Ray, for as long as it is needed: a local one, or the cluster that RAY_ADDRESS names. Ctrl-C and SIGTERM stay what they are to the caller."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from distill.errors import StorageError, first_line, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["import_ray", "running_ray"]

_ADDRESS = "RAY_ADDRESS"
_HOST_AND_PORT = re.compile(r"(ray://)?(?P<host>[^:/]+):(?P<port>\d+)")
_ANSWERS_WITHIN_S = 10.0
_ENDING = (signal.SIGINT, signal.SIGTERM)
_LOG_LEVELS = {"RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def import_ray() -> Any:
    """Ray, with its data library.

    Raises:
        MissingExtraError: It is not installed.
    """
    for name, level in _LOG_LEVELS.items():  # Ray reads them when it is imported
        os.environ.setdefault(name, level)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("ray") from error
    return ray


@contextmanager
def running_ray() -> Iterator[Any]:
    """Ray, started where it does not run; then it ends with the block.

    Raises:
        MissingExtraError: It is not installed.
        StorageError: It does not start, or nobody answers at its address.
    """
    ray = import_ray()
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            _start(ray)
        yield ray
    finally:
        if is_ours:
            ray.shutdown()


@contextmanager
def _own_sigterm(ray: Any) -> Iterator[None]:
    """Ray has no way of its own of ending the program when it is told to."""
    utils = ray._private.utils  # noqa: SLF001 - Ray offers no other way
    as_it_was = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = as_it_was


@contextmanager
def _signals_later() -> Iterator[None]:
    """What is to end the program does so afterwards: an exception amid the forks of a Ray that starts would leave locks that nobody lets go of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _start(ray: Any) -> None:
    """Starts Ray, or joins the one that RAY_ADDRESS names.

    Raises:
        StorageError: It does not start, or nobody answers there.
    """
    address = os.environ.get(_ADDRESS, "")
    try:
        if found := _HOST_AND_PORT.fullmatch(address):  # Ray itself would try for minutes
            with socket.create_connection((found["host"], int(found["port"])), _ANSWERS_WITHIN_S):
                pass
        with _own_sigterm(ray), nullcontext() if address else _signals_later():  # to join one forks nothing
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        where = f" ({_ADDRESS} is {address!r})" if address else ""
        raise StorageError(f"Ray does not start{where}: {first_line(error)}") from error
