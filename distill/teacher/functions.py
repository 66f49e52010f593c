"""The user's own functions: a teacher that is one, and what every query passes before it is sent."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from distill.errors import SpecError
from distill.teacher.scrub import shown_cause, shown_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.spec import Spec

__all__ = ["load_function", "redactor"]


def load_function(reference: str, spec: Spec) -> Callable[..., Any]:
    """The function behind ``package.module:function``; the module may lie beside router.yaml.

    Raises:
        SpecError: It cannot be imported.
    """
    module, _, name = reference.partition(":")
    folder = str(spec.folder.resolve())
    if folder not in sys.path:
        sys.path.append(
            folder
        )  # last, so that it hides nothing; a function may import its neighbours when it is called
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - the user's own module may raise anything
        shown = shown_error(error, spec)
        raise SpecError(f"{spec.path}: {reference} cannot be imported ({shown})") from shown_cause(error, spec)
    if not callable(function):
        raise SpecError(f"{spec.path}: {reference} is not a function")
    return function  # type: ignore[no-any-return]


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
