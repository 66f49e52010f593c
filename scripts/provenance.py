"""Which code a figure was measured with, and that one process measured it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from distill.errors import DistillError
from distill.progress import n_processes

ROOT = Path(__file__).resolve().parent.parent


def tree_commit() -> str:
    """The commit, with a plus sign where distill/ or scripts/ differ from it; ``unknown`` outside of a checkout."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "distill", "scripts")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+" if changed else commit


def refuse_several_processes() -> None:
    """Lets one process go on.

    Raises:
        DistillError: Several were started together, as `accelerate launch` does: each would measure, and note it.
    """
    if n_processes() > 1:
        raise DistillError(
            f"{n_processes()} processes were started together (WORLD_SIZE); that is for `distill train` alone, start one"
        )


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
