"""Hooks: functions of the user's own that are told of every prediction. No logging or metrics library stands behind them.

A hook runs in the thread that routed, before the answer is given: it should be quick. One that raises breaks nothing:
the answer is given, the next hook is called, and the failure is logged, once for each hook and kind of error. A hook is a
plain function. Nothing awaits one that is ``async`` and nothing runs one that yields, so these are logged as failures.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING
from weakref import finalize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distill.types import Prediction

__all__ = ["Hook", "Hooked", "PredictionEvent", "notify"]


@dataclass(frozen=True, slots=True, eq=False)
class PredictionEvent:
    """One decision, as a hook is told of it.

    Attributes:
        text: The query, as it was given. It may hold personal data: think before you store it.
        prediction: The answer.
        bundle_id: Which bundle answered.
        latency_ms: How long the call took that this query was part of.
        batch_size: How many queries that call had; 1 for ``route`` and ``aroute``.
    """

    text: str
    prediction: Prediction
    bundle_id: str
    latency_ms: float
    batch_size: int


Hook = Callable[[PredictionEvent], object]
"""What stands in ``on_prediction``: a plain function. What it returns is of no use."""

_NEVER_RUN = CoroutineType, GeneratorType, AsyncGeneratorType
"""What calling a function gives that has not run yet."""
_reported: set[tuple[int, str]] = set()
"""Which hook, by its identity, and which kind of error."""


class Hooked:
    """What tells hooks of its answers."""

    def __init__(self) -> None:
        self._hooks: list[Hook] = []

    @property
    def on_prediction(self) -> list[Hook]:
        """Whom to tell.

        Raises:
            TypeError: What is to take its place is no list, but a function for instance.
        """
        return self._hooks

    @on_prediction.setter
    def on_prediction(self, hooks: list[Hook]) -> None:
        if not isinstance(hooks, list):
            raise TypeError(f"on_prediction is a list of functions, to which you append yours; found {hooks!r}")
        self._hooks = hooks


def notify(
    hooks: Iterable[Hook], texts: Sequence[str], predictions: Sequence[Prediction], bundle_id: str, latency_ms: float
) -> Iterator[int]:
    """Tells every hook of every prediction of one call, in order, as far as it is iterated over: others may have their turn between two.

    Args:
        hooks: Whom to tell.
        texts: The queries.
        predictions: One for each.
        bundle_id: Which bundle answered.
        latency_ms: How long the call took.

    Yields:
        After each prediction, how many there were.
    """
    told = tuple(hooks)
    for number, (text, prediction) in enumerate(zip(texts, predictions, strict=True), 1):
        event = PredictionEvent(text, prediction, bundle_id, latency_ms, len(texts))
        for hook in told:
            try:
                returned = hook(event)
                if isinstance(returned, _NEVER_RUN):
                    _refuse(hook, returned)
            except Exception as error:  # noqa: BLE001 - a hook is the user's own and may raise anything
                _report(hook, error)
        yield number


def _refuse(hook: Hook, returned: object) -> None:
    if isinstance(returned, CoroutineType):
        returned.close()
        raise TypeError("an async hook is never awaited: give a plain function, which may start a task")
    from inspect import isasyncgenfunction, isgeneratorfunction

    if any(isgeneratorfunction(way) or isasyncgenfunction(way) for way in (hook, type(hook).__call__)):
        raise TypeError("a hook that yields is never run: give a plain function")


def _report(hook: Hook, error: Exception) -> None:
    """Logs a failure the first time only: at a million queries a day a broken hook would fill a disk."""
    kind = (id(hook), type(error).__name__)
    if kind in _reported:
        return
    _reported.add(kind)
    with suppress(TypeError):  # not every object can be watched
        finalize(hook, _reported.discard, kind)  # another hook may have its identity then
    import logging

    from distill.errors import first_line
    from distill.scrub import cause_without_secrets, without_secrets

    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    logging.getLogger("distill").error(
        "the hook %s failed (%s); routing goes on, and the same failure is not reported again",
        name,
        without_secrets(f"{type(error).__name__}: {first_line(error)}"),
        exc_info=cause_without_secrets(error),
    )
