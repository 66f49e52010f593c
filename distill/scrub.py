"""Keeps secrets out of messages: servers echo what they were sent, and a user's own function may say what it was called with."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cause_without_secrets", "says_more_than_where", "without_key", "without_secrets"]

_NAME_OF_A_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_LEAST_LENGTH = 8
_MOST_SHOWN = 300


def without_secrets(message: str, *keys: str) -> str:
    """A message on one line, cut where it is long, without what is secret.

    Args:
        message: What a server or a function said.
        keys: Secrets besides the values of 8 characters or more of environment variables whose name holds KEY, TOKEN, SECRET or PASSWORD.
    """
    for secret in _secrets(*keys):
        message = message.replace(secret, "[key]")
    message = " ".join(message.split())
    return message if len(message) <= _MOST_SHOWN else f"{message[:_MOST_SHOWN]}..."


def _secrets(*keys: str) -> list[str]:
    """What is not to be shown, also as it stands in a URL, in JSON and on one line; the longest first, as one may hold another."""
    named = (value.strip() for name, value in os.environ.items() if _NAME_OF_A_SECRET.search(name))
    return _written({*keys, *(value for value in named if len(value) >= _LEAST_LENGTH)})


def _written(secrets: Iterable[str]) -> list[str]:
    found = set(filter(None, secrets))
    written = {
        form
        for secret in found
        for form in (quote(secret, safe="", errors="surrogatepass"), json.dumps(secret)[1:-1], " ".join(secret.split()))
    }
    return sorted(filter(None, found | written), key=len, reverse=True)


def without_key(content: str, key: str) -> str:
    """What a model answered, without the key where the server echoes it.

    Args:
        content: The answer.
        key: What it was asked with; one of fewer than 8 characters is no secret, and might stand in any word.
    """
    if len(key) < _LEAST_LENGTH:
        return content
    for form in _written([key]):
        content = content.replace(form, "[key]")
    return content


def cause_without_secrets(error: Exception, *keys: str) -> Exception | None:
    """The same error as the cause of another, or None where its traceback would show a secret; ``keys`` as above."""
    from traceback import format_exception

    shown = "".join(format_exception(error))
    return None if any(secret in shown for secret in _secrets(*keys)) else error


def says_more_than_where(address: str) -> bool:
    """Whether an address holds a user's name, a password or a query: libraries log it whole.

    Raises:
        ValueError: It is no address.
    """
    parts = urlsplit(address)
    return "@" in parts.netloc or bool(parts.query)
