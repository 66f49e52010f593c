"""Which code a figure was measured with, whether that still makes what was measured, and that one process measured it."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distill
from distill.errors import DistillError
from distill.progress import n_processes

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
INT8_GRAPH_SINCE = "2026-11-26T18:30:47+00:00"
"""When distill/student/quantise.py last changed which graph it makes."""
RECIPE_SINCE = "2026-11-28T01:33:37+00:00"
"""When distill/student/recipe.py last changed its VERSION."""


def older_students(environment: Mapping[str, Any]) -> str:
    """Sentences to stand behind others where what was measured is older than what training makes now; otherwise empty."""
    measured_at = datetime.fromisoformat(environment["measured_at"])
    older = ""
    if measured_at < datetime.fromisoformat(RECIPE_SINCE):
        older += " The students are older than the recipe that trains now."
    if measured_at < datetime.fromisoformat(INT8_GRAPH_SINCE):
        older += " The encoder's figures are older than the int8 graph that training makes now."
    return older


def busy(environment: Mapping[str, Any]) -> str:
    """A sentence to stand behind others where other work ran beside a measurement; otherwise empty."""
    if not environment.get("loaded"):
        return ""
    return f" **The machine was busy with other work ({environment['busy_share']:.0%}): times are too long.**"


def tree_commit() -> str:
    """The commit, with a plus sign where distill/ or scripts/ differ from it; ``unknown`` outside of a checkout, or where another's code runs."""
    if _imported_from() != ROOT / "distill":
        return "unknown"
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "distill", "scripts")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+" if changed else commit


def refuse_other_code() -> None:
    """Goes on where this checkout's own package runs.

    Raises:
        DistillError: Another is imported: what it does would be noted as this checkout's.
    """
    if (imported := _imported_from()) != ROOT / "distill":
        raise DistillError(f"distill is imported from {imported}, not from this checkout; set PYTHONPATH={ROOT}")


def _imported_from() -> Path:
    return Path(distill.__file__).resolve().parent


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
