"""Which server is asked, and with which key."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distill.errors import MissingKeyError, SpecError
from distill.scrub import says_more_than_where

if TYPE_CHECKING:
    from distill.spec import TeacherSpec

__all__ = [
    "OPENAI",
    "THIS_MACHINE",
    "api_key",
    "endpoint_of",
    "is_loopback",
    "server_of",
    "shown_endpoint",
]

THIS_MACHINE = "this machine"
"""``server_of`` a loopback address."""

OPENAI = "the client's default"
"""``server_of`` no address at all; recordings say it so."""


def endpoint_of(base_url: str | None) -> str | None:
    """Where is asked: the URL, where there is none that of the environment, as the OpenAI client does; None: OpenAI itself."""
    return base_url or _default_endpoint()


def _default_endpoint() -> str | None:
    url = os.environ.get("OPENAI_BASE_URL") or None
    try:
        says_more = says_more_than_where(url or "")
    except ValueError:
        raise SpecError("the environment variable OPENAI_BASE_URL holds no address") from None  # it may hold a key
    if says_more:
        raise SpecError(
            "the environment variable OPENAI_BASE_URL holds a user name, a password or a query, which would be logged; leave them out: "
            "the key belongs in the variable that teacher.api_key_env names"
        )
    return url


def is_loopback(base_url: str | None) -> bool:
    """Whether asking there is asking this machine."""
    host = urlsplit(endpoint_of(base_url) or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def server_of(base_url: str | None) -> str:
    """Whose server answers, as a line of a recording says it."""
    return THIS_MACHINE if is_loopback(base_url) else urlsplit(endpoint_of(base_url) or "").hostname or OPENAI


def shown_endpoint(base_url: str | None) -> str:
    """Where is asked, for people: without a password or a query, which may hold a key."""
    url = endpoint_of(base_url)
    if url is None:
        return "the provider's API"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def api_key(teacher: TeacherSpec) -> str:
    """The key in the environment; a dummy for a server on this machine that needs none.

    Raises:
        MissingKeyError: There is none, or it is no key.
    """
    key = os.environ.get(teacher.api_key_env, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise MissingKeyError(f"the environment variable {teacher.api_key_env} holds characters that no API key has")
    if key:
        return key
    if is_loopback(teacher.base_url):
        return "no-key"
    raise MissingKeyError(
        f"the environment variable {teacher.api_key_env} is not set; it must hold the API key for "
        f"{shown_endpoint(teacher.base_url)} (another variable: teacher.api_key_env)"
    )
