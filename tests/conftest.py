"""Fixtures for every room. Each room adds its own in a conftest.py of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from bundles import build_bundle
from hypothesis import HealthCheck, settings

from distill.router import Router
from distill.types import Task

if TYPE_CHECKING:
    from distill.bundle import Bundle


# the same examples on every machine, however slow it is, and no folder of findings left behind
settings.register_profile(
    "hermetic", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("hermetic")

# a shell that starts the tests in the background has them ignore Ctrl-C, and what they start inherits that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A complete bundle (single, with oos), made without torch. Shared: copy the folder before changing it."""
    return build_bundle(tmp_path_factory.mktemp("tiny") / "static")


@pytest.fixture(scope="session")
def tiny_router(tiny_bundle: Bundle) -> Router:
    return Router.load(tiny_bundle.path)


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Bundle) -> dict[Task, Bundle]:
    """A bundle for every task. Shared: copy the folder before changing it."""
    folder = tmp_path_factory.mktemp("tasks")
    others = {task: build_bundle(folder / task.value, task=task) for task in Task if task is not Task.SINGLE}
    return {Task.SINGLE: tiny_bundle, **others}
