"""Fixtures of the teacher room: a server on loopback, and specs that lead to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fake_server import FakeServer
from teacher_specs import INTENTS, TEXTS, write_queries

from distill.spec import Spec, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_proxies_and_no_key(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server():
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., Spec]:
    """Writes router.yaml (JSON is YAML) and queries.jsonl, and loads them."""

    def make(base_url: str | None = None, texts: Any = TEXTS, *, teacher: Any = (), **keys: Any) -> Spec:
        settings = {"model": "fake", "base_url": base_url, "max_retries": 0, "timeout_s": 20, **dict(teacher)}
        raw = {"name": "shop", "intents": INTENTS, "out_of_scope": True, "teacher": settings, **keys}
        (tmp_path / "router.yaml").write_text(json.dumps(raw), encoding="utf-8")
        if texts is not None:
            write_queries(tmp_path / "queries.jsonl", texts)
        return load_spec(tmp_path / "router.yaml")

    return make
