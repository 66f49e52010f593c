"""The model that words the library's queries anew: what is taken, and that a run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "teacher"))
from fake_server import FakeServer

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import make_clip_library as maker
import reword_queries

SCRIPTED = "find a series with Reg Tully from late 2010"


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("Reg Tully series, end of 2010", True),
        ("a series from the end of 2010", False),
        ("Reg Tully series, end of 20101", False),
        (SCRIPTED.capitalize(), False),
        ("Sure!\nReg Tully 2010", False),
        ("Reg Tully 2010 " * 5, False),
        ("", False),
    ],
)
def test_a_paraphrase_keeps_names_and_numbers(text, is_kept):
    assert reword_queries.kept_whole(SCRIPTED, text) == is_kept


class Echo(FakeServer):
    """Says every query with its names and numbers, and one word more; of one query it says nothing."""

    def respond(self, body, query):
        asked = query.rpartition("Query: ")[2]
        return self.completion("" if asked == self.silent_on else f"{asked} please")


def run(monkeypatch, server, folder):
    arguments = ["reword_queries.py", str(folder), "--base-url", server.base_url, "--model", "echo"]
    monkeypatch.setattr(sys, "argv", arguments)
    reword_queries.main()


def test_what_was_worded_is_taken_by_the_library_and_not_asked_again(tmp_path, monkeypatch):
    for name in ("phrases.yaml", "README.md"):
        shutil.copyfile(maker.FOLDER / name, tmp_path / name)
    scripted = maker.scripted_queries(tmp_path)
    with Echo() as server:
        server.silent_on = scripted["q002"]
        run(monkeypatch, server, tmp_path)
        assert len(server.requests) == len(scripted)
        server.requests.clear()
        run(monkeypatch, server, tmp_path)
        assert len(server.requests) == 1
    queries = [json.loads(line) for line in maker.outputs(tmp_path)["queries.jsonl"].splitlines()]
    assert queries[0]["text"] == f"{scripted['q001']} please"
    assert queries[1]["text"] == scripted["q002"]
