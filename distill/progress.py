"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Self

from distill.errors import SpecError

if TYPE_CHECKING:
    from decimal import Decimal
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress", "is_first_process", "n_processes", "process_number", "say"]

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_WORTH_A_LINE = 2.0


def n_processes() -> int:
    """How many processes were started together, as `accelerate launch` and torchrun tell them; mostly one."""
    return _number_in("WORLD_SIZE", 1)


def process_number() -> int:
    """Which of them this is, from 0 on."""
    return _number_in("RANK", 0) if n_processes() > 1 else 0


def _number_in(variable: str, otherwise: int) -> int:
    value = os.environ.get(variable) or otherwise
    try:
        return int(value)
    except ValueError:
        raise SpecError(f"the environment variable {variable} is not a number: {value!r}") from None


def is_first_process() -> bool:
    """Whether this is the one of them that writes and speaks."""
    return process_number() == 0


def say(message: str, *, always: bool = False) -> None:
    """Prints one line to stderr; stdout is for results. Of several processes the first speaks, or with ``always`` each."""
    if sys.stderr is None or not (always or is_first_process()):  # print would take stdout for None
        return
    print(message, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """Counts, rate, spend and time left of one step.

    Args:
        description: What is being done, such as ``label``.
        total: How many units there are.
        unit: What is counted, in the plural.
        show: False keeps silent.
    """

    def __init__(self, description: str, total: int, unit: str = "queries", *, show: bool = True) -> None:
        self.description, self.total, self.unit, self.show = description, total, unit, show
        self.done = self._done_before = 0
        self.spend_usd: Decimal | None = None
        self._note = ""
        self._started = self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        if self.show and self.total and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description:<14}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, facts="")
        return self

    def skip(self, units: int) -> None:
        """Counts ``units`` as done by an earlier run: they make neither the rate nor the time left look better."""
        self.done += units
        self._done_before += units
        self._started = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, completed=self.done)

    def advance(self, units: int = 1, *, spend_usd: Decimal | None = None, note: str = "") -> None:
        """Counts ``units`` more as done.

        Args:
            units: How many.
            spend_usd: Spent so far in this step; None leaves the figure as it is.
            note: A short remark, such as the loss.
        """
        self.done += units
        if spend_usd is not None:
            self.spend_usd = spend_usd
        self._note = note or self._note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=units, facts=self._facts())
        elif self.show and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._print_line()

    def _facts(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        facts = [f"{(self.done - self._done_before) / seconds:.1f} {self.unit}/s"]
        if self.spend_usd is not None:
            facts.append(f"USD {self.spend_usd:.4f}")
        if self._note:
            facts.append(self._note)
        return ", ".join(facts)

    def _print_line(self) -> None:
        seconds = time.monotonic() - self._started
        own = self.done - self._done_before
        left = f", {seconds / own * (self.total - self.done):.0f} s left" if own else ""
        say(f"{self.description}: {self.done}/{self.total} {self.unit}, {self._facts()}{left}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.show and self.total and time.monotonic() - self._started >= _SECONDS_WORTH_A_LINE:
            self._print_line()
