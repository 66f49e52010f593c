from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
from fake_server import FakeServer
from teacher_specs import PRICE, ledger_lines

from distill.errors import LedgerError, SpendLimitError, StorageError, TeacherError
from distill.teacher import ledger as ledger_module
from distill.teacher import spend
from distill.teacher.concurrency import for_each, run_sync
from distill.teacher.label import label
from distill.teacher.ledger import AppendLog
from distill.teacher.spend import open_budget

PROGRAM = Path(__file__).with_name("label_program.py")
TEXTS = [f"parcel {number}" for number in range(40)]
CONCURRENCY = 3


def start(spec) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(spec.path)], env=environment, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.005)


def good(spec) -> list[str]:
    """The texts that the ledger holds, its torn last line left out."""
    if not spec.ledger_path.exists():
        return []
    lines = spec.ledger_path.read_bytes().split(b"\n")[:-1]
    return [line.decode().split('"text": "')[1].split('"')[0] for line in lines]


@pytest.mark.parametrize("n_answered", [1, 7, 25])
def test_kill_9_loses_no_answer_and_pays_nothing_twice(make_spec, n_answered):
    with FakeServer(delay_s=0.01) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"concurrency": CONCURRENCY})
        with start(spec) as process:
            wait_for(lambda: fake.answered.total() >= n_answered)
            process.kill()
        kept, asked = good(spec), fake.asked.copy()
        assert asked.total() - len(kept) <= CONCURRENCY, "only what was in flight may be missing"
        summary = label(spec, show_progress=False)
        assert summary.n_recorded == len(kept)
        assert all(fake.asked[text] == 1 for text in kept), "an answer that was received is never asked for again"
        assert fake.asked.total() - len(TEXTS) <= CONCURRENCY
    assert sorted(good(spec)) == sorted(TEXTS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize("n_answered", [0, 5, 20])
def test_ctrl_c_waits_for_what_is_in_flight_so_nothing_is_paid_twice(make_spec, n_answered):
    with FakeServer(delay_s=0.05) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"concurrency": CONCURRENCY})
        with start(spec) as process:
            wait_for(lambda: fake.answered.total() >= n_answered and fake.n_in_flight > 0)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in shown
        assert "in flight; Ctrl-C again to leave them" in shown
        assert sorted(good(spec)) == sorted(fake.asked)
        assert len(good(spec)) < len(TEXTS)
        label(spec, show_progress=False)
        assert dict(fake.asked) == dict.fromkeys(TEXTS, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_a_container_that_is_stopped_waits_for_what_is_in_flight(make_spec):
    with FakeServer(delay_s=0.05) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"concurrency": CONCURRENCY})
        with subprocess.Popen(
            [sys.executable, "-m", "distill", "label", str(spec.path)],
            env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_for(lambda: fake.answered.total() >= 5 and fake.n_in_flight > 0)
            process.send_signal(signal.SIGTERM)
            _, shown = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "the same command goes on where it stopped" in shown
        assert sorted(good(spec)) == sorted(fake.asked)
        assert len(good(spec)) < len(TEXTS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize(("n_interrupts", "timeout_s"), [(1, 2), (2, 60)])
def test_after_ctrl_c_nothing_is_sent_again_and_what_may_be_billed_is_written_down(make_spec, n_interrupts, timeout_s):
    with FakeServer(delay_s=30) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"price": PRICE, "timeout_s": timeout_s, "max_retries": 3})
        with start(spec) as process:
            wait_for(lambda: fake.n_in_flight > 0)
            shown = ""
            for _ in range(n_interrupts):
                process.send_signal(signal.SIGINT)
                while "stopping: " not in shown:  # otherwise two signals may arrive as one
                    shown += process.stderr.readline()
            shown += process.communicate(timeout=30)[1]
        assert process.returncode == 130
        assert "Traceback" not in shown
        assert fake.n_requests == 1
    (line,) = ledger_lines(spec)
    assert open_budget(spec, "fake").unanswered_usd == Decimal(line["unanswered_usd"]) > 0
    assert f"with USD {Decimal(line['unanswered_usd']):.4f} at most" in shown


def label_in_a_notebook(spec, interrupt):
    """Labels where an event loop runs, until it is interrupted; no thread is left."""

    async def notebook():
        with pytest.raises(KeyboardInterrupt):
            label(spec, show_progress=False)

    loop = asyncio.new_event_loop()  # asyncio.run would take the signal
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        loop.run_until_complete(notebook())
    finally:
        watcher.join()
        loop.close()
    assert not any(thread.name == "distill" for thread in threading.enumerate())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_an_interrupted_notebook_leaves_no_thread_behind(make_spec):
    with FakeServer(delay_s=0.3) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"concurrency": CONCURRENCY})

        def interrupt():
            wait_for(lambda: fake.answered.total() >= 2 and fake.n_in_flight > 0)
            os.kill(os.getpid(), signal.SIGINT)

        label_in_a_notebook(spec, interrupt)
        assert sorted(good(spec)) == sorted(fake.asked)
        assert len(fake.asked) < len(TEXTS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_a_notebook_that_is_interrupted_twice_counts_what_it_leaves(make_spec):
    with FakeServer(delay_s=30) as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"price": PRICE, "concurrency": CONCURRENCY})

        def interrupt():
            wait_for(lambda: fake.n_in_flight > 0)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # otherwise two signals may arrive as one
            os.kill(os.getpid(), signal.SIGINT)

        label_in_a_notebook(spec, interrupt)
    assert len(ledger_lines(spec)) == fake.n_requests == 1
    assert open_budget(spec, "fake").unanswered_usd > 0


def test_an_error_waits_for_what_is_in_flight():
    begun, ended = [], []

    async def work(item):
        begun.append(item)
        await asyncio.sleep(0.01 if item == 1 else 0.05)
        if item == 1:
            raise LedgerError("broken")
        ended.append(item)

    with pytest.raises(LedgerError, match="broken"):
        run_sync(for_each(range(10), work, 3))
    assert begun == [0, 1, 2]
    assert ended == [0, 2]


def test_an_item_that_needs_several_requests_stops_between_them():
    rounds = []

    async def work(item):
        rounds.append(item)
        if len(rounds) == 5:
            raise LedgerError("broken")
        return True

    with pytest.raises(LedgerError):
        run_sync(for_each("ab", work, 2))
    assert len(rounds) == 5


def test_a_full_disk_is_one_clear_line_and_loses_no_line(make_spec, monkeypatch):
    """The disk takes ten lines and half of the next."""
    real_write_of, n_written = ledger_module._encode, []

    def write_until_full(line):
        n_written.append(line)
        return real_write_of(line)

    class FullDisk:
        def __init__(self, stream):
            self.stream = stream

        def write(self, content):
            if len(n_written) > 10:
                self.stream.write(content[: len(content) // 2])
                self.stream.flush()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.stream.write(content)

        def __getattr__(self, name):
            return getattr(self.stream, name)

    real_enter = AppendLog.__enter__

    def enter(log):
        real_enter(log)
        log._stream = FullDisk(log._stream)
        return log

    with FakeServer() as fake:
        spec = make_spec(fake.base_url, TEXTS, teacher={"concurrency": 1})
        with monkeypatch.context() as full:
            full.setattr(ledger_module, "_encode", write_until_full)
            full.setattr(AppendLog, "__enter__", enter)
            with pytest.raises(StorageError, match=r"ledger\.jsonl: cannot be written \(No space left on device\)"):
                label(spec, show_progress=False)
        assert len(good(spec)) == 10
        assert not spec.ledger_path.read_bytes().endswith(b"\n"), "the torn line lies there"
        label(spec, show_progress=False)
        assert sorted(line["text"] for line in ledger_lines(spec)) == sorted(TEXTS)
        assert fake.asked.total() == len(TEXTS) + 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_full_device(tmp_path):
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    log = AppendLog(tmp_path / "ledger.jsonl")
    with pytest.raises(StorageError, match="No space left"), log:
        log.append({"key": "a"})


def test_links_to_one_file_have_one_writer_and_stay(tmp_path):
    shared = tmp_path / "shared.jsonl"
    shared.touch()
    links = [tmp_path / name for name in ("one.jsonl", "other.jsonl")]
    for link in links:
        link.symlink_to(shared)
    first, second = map(AppendLog, links)
    with first, pytest.raises(LedgerError, match="another process is writing to it"), second:
        pass
    assert all(link.is_symlink() for link in links)
    assert shared.exists()


def test_a_second_writer_is_refused(server, make_spec):
    spec = make_spec(server.base_url)
    with AppendLog(spec.ledger_path), pytest.raises(LedgerError, match="another process is writing to it"):
        label(spec, show_progress=False)
    assert server.n_requests == 0
    assert label(spec, show_progress=False).n_failed == 0


def test_a_large_ledger_is_read_once(server, make_spec, monkeypatch):
    label(make_spec(server.base_url, TEXTS), show_progress=False)
    real, n_reads = ledger_module.read_labels, []

    def counted(path):
        n_reads.append(path)
        return real(path)

    for module in (ledger_module, spend):
        monkeypatch.setattr(module, "read_labels", counted)
    assert label(make_spec(server.base_url, [*TEXTS, "refund 5"]), show_progress=False).n_asked == 1
    assert len(n_reads) == 1


def test_what_another_process_wrote_meanwhile_is_not_asked_again(server, make_spec, monkeypatch):
    spec = make_spec(server.base_url)
    real_enter, others = AppendLog.__enter__, []

    def enter(log):
        if not others:
            others.append(True)
            label(spec, show_progress=False)  # another process, between our reading and our lock
        return real_enter(log)

    monkeypatch.setattr(AppendLog, "__enter__", enter)
    assert label(spec, show_progress=False).n_asked == 0
    assert set(server.asked.values()) == {1}


class Purse:
    """Room for so many requests at once, as a spend limit leaves it; each gives its own back when it is answered."""

    def __init__(self, room):
        self.room, self.begun, self.answered, self.tried = room, [], [], 0

    async def ask(self, item, *, fails_at=None):
        self.tried += 1
        await asyncio.sleep(0)  # what is nearest to a query is looked up
        if not self.room:
            raise SpendLimitError("no room")
        self.room -= 1
        self.begun.append(item)
        await asyncio.sleep(0.01)
        self.room += 1
        if item == fails_at:
            raise TeacherError("the key is refused")
        self.answered.append(item)


def test_what_does_not_fit_beside_others_is_asked_when_one_is_answered():
    purse = Purse(2)
    run_sync(for_each(range(12), purse.ask, 6))
    assert sorted(purse.answered) == list(range(12))
    assert purse.tried <= 12 * 6, "those that wait do not wake each other"


def test_what_does_not_fit_alone_ends_it():
    with pytest.raises(SpendLimitError, match="no room"):
        run_sync(for_each(range(12), Purse(0).ask, 6))


def test_after_an_error_nothing_that_waited_is_begun():
    purse = Purse(2)
    with pytest.raises(TeacherError, match="refused"):
        run_sync(for_each(range(12), lambda item: purse.ask(item, fails_at=0), 6))
    assert (purse.begun, purse.answered) == ([0, 1], [1])


def test_after_an_interrupt_nothing_that_waited_is_begun(capsys):
    purse = Purse(2)

    async def interrupted():
        work = asyncio.ensure_future(for_each(range(12), purse.ask, 6))
        await asyncio.sleep(0.005)
        work.cancel()
        await work

    with pytest.raises(asyncio.CancelledError):
        run_sync(interrupted())
    assert purse.begun == purse.answered == [0, 1]
    assert "waiting for the answers to 2 requests in flight" in capsys.readouterr().err
