"""What a user's own function raised, without the teacher's key and other secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from distill.scrub import cause_without_secrets, without_secrets

if TYPE_CHECKING:
    from distill.spec import Spec

__all__ = ["shown_cause", "shown_error"]


def shown_error(error: Exception, spec: Spec) -> str:
    """What a user's own function raised, on one line without secrets."""
    return without_secrets(f"{type(error).__name__}: {error}", _key(spec))


def shown_cause(error: Exception, spec: Spec) -> Exception | None:
    """The same error as the cause of another, or None where its traceback would show a secret."""
    return cause_without_secrets(error, _key(spec))


def _key(spec: Spec) -> str:
    return os.environ.get(spec.teacher.api_key_env, "").strip()
