from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from distill import ray_cluster


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_to_end_the_program_waits_until_ray_has_started(monkeypatch, number):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    utils = SimpleNamespace(set_sigterm_handler=lambda handler: signal.signal(signal.SIGTERM, handler))
    started = []

    def init(**_):
        utils.set_sigterm_handler(lambda *_: pytest.fail("Ray's own way of ending the program"))
        signal.raise_signal(number)
        started.append(number)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
    try:
        with pytest.raises(KeyboardInterrupt):
            ray_cluster._start(SimpleNamespace(init=init, _private=SimpleNamespace(utils=utils)))
        assert started == [number]
        monkeypatch.setenv("RAY_ADDRESS", "auto")  # to join one may take minutes
        with pytest.raises(KeyboardInterrupt):
            ray_cluster._start(SimpleNamespace(init=init, _private=SimpleNamespace(utils=utils)))
        assert started == [number]
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
