from __future__ import annotations

import io
import sys
from decimal import Decimal

import pytest

from distill import progress
from distill.progress import Progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_results_stay_alone_on_stdout(capsys):
    say("hello")
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "hello\n")


def test_where_stderr_is_closed_results_stay_alone_too(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    say("hello", always=True)
    with Progress("label", 40) as bar:
        bar.advance(40)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_an_earlier_run_did_makes_no_rate(capsys, clock, monkeypatch, is_terminal):
    if is_terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("train", 100) as bar:
        clock[0] += 5
        bar.skip(60)
        clock[0] += 10
        bar.advance(20)
        assert bar._facts() == "2.0 queries/s"
    if not is_terminal:
        assert capsys.readouterr().err.splitlines() == ["train: 80/100 queries, 2.0 queries/s, 10 s left"] * 2


def test_without_a_terminal_a_plain_line_now_and_then(capsys, clock):
    with Progress("label", 40) as bar:
        for _ in range(20):
            clock[0] += 1
            bar.advance(spend_usd=Decimal("0.5"), note="2 failed")
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[0] == "label: 10/40 queries, 1.0 queries/s, USD 0.5000, 2 failed, 30 s left"
    assert lines[-1].startswith("label: 20/40 queries")
    assert len(lines) == 3


def test_what_is_over_at_once_says_nothing(capsys, clock):
    with Progress("label", 2) as bar:
        bar.advance(2)
    with Progress("label", 0):
        pass
    assert capsys.readouterr().err == ""


def test_where_nothing_is_done_no_time_is_left_to_tell(capsys, clock):
    with Progress("label", 3):
        clock[0] += 5
    assert capsys.readouterr().err == "label: 0/3 queries, 0.0 queries/s\n"


def test_silence(capsys, clock):
    with Progress("label", 2, show=False) as bar:
        clock[0] += 60
        bar.advance(2)
    assert capsys.readouterr().err == ""


def test_an_unknown_spend_is_not_shown(capsys, clock):
    with Progress("label", 2) as bar:
        clock[0] += 11
        bar.advance()
    assert "USD" not in capsys.readouterr().err


def test_a_bar_on_a_terminal_whatever_an_intent_is_called(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("synth", 3) as bar:
        bar.advance(3, spend_usd=Decimal("0.25"), note="[/bold] [red")
    assert "3/3" in terminal.getvalue()
    assert "USD 0.2500" in terminal.getvalue()
    assert "[/bold] [red" in terminal.getvalue()


def test_a_bar_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Progress("synth", 3)
    with pytest.raises(RuntimeError), bar:
        raise RuntimeError
    assert bar._bar.finished is False
    assert bar._bar.live.is_started is False
