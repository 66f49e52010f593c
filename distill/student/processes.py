"""Several processes that train one student together, as `accelerate launch` starts them: one for each GPU.

All of them learn, each from its share of a batch, and come to the same weights; what encoders are asked they share out, and all get all
the answers. The first one alone writes and speaks.
"""

from __future__ import annotations

import atexit
from datetime import timedelta
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from distill.progress import is_first_process, n_processes, process_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["add_up", "is_first_process", "n_processes", "own_share", "wait_for_all"]

_Item = TypeVar("_Item")

_NUMBERS_AT_A_TIME = 16_000_000
"""That are on their way between processes: 64 MB."""

_LONGEST_WAIT = timedelta(hours=24)
"""For another process: what the first does alone, such as exporting a large encoder, may take longer than torch's ten minutes."""


def wait_for_all() -> None:
    """Returns when every process has come here; at once where there is but one."""
    if n_processes() > 1:
        _state().wait_for_everyone()


def own_share(items: Iterator[_Item]) -> Iterator[_Item]:
    """Those of the items that are this process's: the processes take turns, so that every item has one."""
    return islice(items, process_number(), None, n_processes())


def add_up(values: Array) -> None:
    """Adds to an array, in place, what every other process has in its own; for all of them to call.

    Args:
        values: float32, contiguous, of the same shape everywhere.
    """
    if n_processes() == 1:
        return
    import torch

    device = _state().device
    numbers: Any = torch.from_numpy(values).view(-1)
    for own in numbers.split(_NUMBERS_AT_A_TIME):
        total = own.to(device)
        torch.distributed.all_reduce(total)
        own.copy_(total)


def _state() -> Any:
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)
    _leave_at_exit()
    return state


@cache
def _leave_at_exit() -> None:
    atexit.register(_leave)


def _leave() -> None:
    """Ends the threads that talk to the other processes: one that is still there when the interpreter goes aborts it, with all done."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
