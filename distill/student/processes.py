"""Several processes that train one student together, as `accelerate launch` starts them: one for each GPU.

All of them learn, each from its share of a batch, and come to the same weights. The first one alone writes and speaks.
"""

from __future__ import annotations

from distill.progress import is_first_process, n_processes

__all__ = ["is_first_process", "n_processes", "wait_for_all"]


def wait_for_all() -> None:
    """Returns when every process has come here; at once where there is but one."""
    if n_processes() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
