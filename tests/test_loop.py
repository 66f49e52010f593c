from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextvars import ContextVar

import pytest

from distill import loop


async def where():
    return asyncio.get_running_loop()


def test_all_coroutines_run_in_one_loop():
    assert loop.wait_for(where()) is loop.wait_for(where())


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), SystemExit(3)])
def test_what_a_coroutine_raises_is_its_callers_and_ends_no_loop(error):
    async def fail():
        raise error

    before = loop.wait_for(where())
    with pytest.raises(type(error)):
        loop.wait_for(fail())
    assert loop.wait_for(where()) is before


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "asyncio.get_running_loop().stop()"])
def test_a_task_that_exits_ends_no_loop(end):
    """In a program of its own: in this one it would end every test that comes after."""
    program = f"""
import asyncio
from distill import loop

async def leave():
    {end}

async def ask():
    return await asyncio.gather(leave(), return_exceptions=True)

async def where():
    return asyncio.get_running_loop()

before = loop.wait_for(where())
try:
    loop.wait_for(ask())
except SystemExit:
    pass
assert loop.wait_for(where()) is before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def test_a_coroutine_that_waits_for_another_in_its_own_loop_is_told_so():
    async def wait():
        work = where()
        try:
            loop.wait_for(work)
        finally:
            work.close()

    with pytest.raises(RuntimeError, match="await it"):
        loop.wait_for(wait())
    assert not loop.runs_here()


def test_a_coroutine_sees_its_callers_context():
    request = ContextVar("request", default=None)

    async def seen():
        return request.get()

    request.set("42")
    assert loop.wait_for(seen()) == "42"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_a_loop_of_its_own():
    """In a program of its own: a test run has threads."""
    program = """
import asyncio, os
from distill import loop

async def where():
    return asyncio.get_running_loop()

before = loop.wait_for(where())
child = os.fork()
assert (loop.wait_for(where()) is before) == bool(child)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.wait_for(where()) is before  # it still wakes up
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("slow", ["await asyncio.sleep(60)", "time.sleep(60)"])
def test_a_coroutine_under_way_does_not_hold_up_the_end_of_the_program(slow):
    program = f"""
import asyncio, contextlib, threading, time
from distill import loop

began = threading.Event()

async def hang():
    began.set()
    {slow}

def ask():
    with contextlib.suppress(asyncio.CancelledError):
        loop.wait_for(hang())

threading.Thread(target=ask, daemon=True).start()
began.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
