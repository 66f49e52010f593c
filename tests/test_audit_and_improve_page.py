"""docs/audit-and-improve.md: its commands, in its order, in one project."""

from __future__ import annotations

import sys

import pytest
from guides import blocks, page, run_command
from improvable import PRICED, ByText, Shop, label_from_elsewhere, train_by_number, write_improvable
from threadpoolctl import threadpool_limits

from distill.student import train


@pytest.fixture
def project_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_students", train_by_number)
    monkeypatch.setattr("distill.student.embedder.embedder_of", lambda *_, **__: ByText())
    monkeypatch.setattr(sys, "path", [*sys.path])
    with Shop() as server, threadpool_limits(1):
        path = write_improvable(tmp_path, server.base_url, teacher=f", {PRICED}, max_output_tokens: 16")
        label_from_elsewhere(path)
        monkeypatch.chdir(path.parent)
        yield path.parent


def test_the_commands_run(project_folder):
    lines = [line for _, _, content in blocks(page("audit-and-improve.md")) for line in content.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        assert run_command(line)
    assert (project_folder / "ledger.jsonl").exists()
