"""The user's own functions: a teacher that is one, and what every query passes before it is sent."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import SpecError
from distill.teacher.scrub import shown_cause, shown_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.spec import Spec

__all__ = ["Called", "call_function", "let_run_at_once", "load_function", "redactor"]


@dataclass(frozen=True, slots=True)
class Called:
    """What a function did with a text.

    Attributes:
        answer: What it returned; None where it failed.
        error: With what it failed.
        latency_ms: How long it took, without waiting for a thread.
    """

    answer: Any
    error: Exception | None
    latency_ms: float


def let_run_at_once(n: int) -> None:
    """Gives the running loop so many threads; of itself it has as many as go with the processors."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(n))


async def call_function(function: Callable[[str], Any], text: str) -> Called:
    """Calls it in a thread."""

    def call() -> Called:
        started = time.perf_counter()
        answer, failed = None, None
        try:
            answer = function(text)
        except Exception as error:  # noqa: BLE001 - the user's own function may raise anything; it is recorded as failed
            failed = error
        return Called(answer, failed, (time.perf_counter() - started) * 1000)

    return await asyncio.to_thread(call)


def load_function(reference: str, spec: Spec) -> Callable[..., Any]:
    """The function behind ``package.module:function``; the module may lie beside router.yaml.

    Raises:
        SpecError: It cannot be imported, or another module of that name was.
    """
    module, _, name = reference.partition(":")
    folder = str(spec.folder.resolve())
    if folder not in sys.path:
        sys.path.append(
            folder
        )  # last, so that it hides nothing; a function may import its neighbours when it is called
    try:
        imported = importlib.import_module(module)
        function = getattr(imported, name)
    except Exception as error:  # noqa: BLE001 - the user's own module may raise anything
        shown = shown_error(error, spec)
        raise SpecError(f"{spec.path}: {reference} cannot be imported ({shown})") from shown_cause(error, spec)
    beside, found = _module_beside(spec, module), getattr(imported, "__file__", None)
    if beside is not None and not (found and _are_the_same(beside, Path(found))):
        raise SpecError(
            f"{spec.path}: {reference} is not that of {beside}: {found or 'a module'} has its name too and was imported first; "
            "rename one of them"
        )
    if not callable(function):
        raise SpecError(f"{spec.path}: {reference} is not a function")
    return function  # type: ignore[no-any-return]


def _module_beside(spec: Spec, module: str) -> Path | None:
    """The file of that module beside router.yaml, if there is one."""
    path = spec.folder.resolve().joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))  # as Python looks for them
    return next((each for each in candidates if each.is_file()), None)


def _are_the_same(one: Path, other: Path) -> bool:
    """Whether two modules' files are one, or copies."""
    try:
        return one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError:  # one that was imported from an archive has no file
        return False


def redactor(spec: Spec) -> Callable[[str], str]:
    """What every text passes before it is sent, stored, trained on or shown: ``teacher.redact``, or nothing.

    Raises:
        SpecError: The function cannot be imported; or, when it is called, it failed or returned no text.
    """
    if spec.teacher.redact is None:
        return str
    function = load_function(spec.teacher.redact, spec)
    where = f"{spec.path}: teacher.redact {spec.teacher.redact}"

    def redact(text: str) -> str:
        try:
            redacted = function(text)
        except Exception as error:  # noqa: BLE001 - the user's own function may raise anything
            cause = shown_cause(error, spec)
            raise SpecError(f"{where} failed on a query ({type(error).__name__}); nothing of it was sent") from cause
        if not isinstance(redacted, str):
            raise SpecError(f"{where} must return a string, found {type(redacted).__name__}")
        return redacted

    return redact
