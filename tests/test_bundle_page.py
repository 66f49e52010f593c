"""What docs/bundle.md shows works as it stands, and gives the Router's answers."""

from __future__ import annotations

import json
import shlex

import bundle_page
import pytest
from bundles import build_bundle
from project import distill

from distill.router import Router
from distill.types import Task


def selfcheck(bundle):
    return [json.loads(line) for line in (bundle.path / "selfcheck.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("task", Task)
def test_plain_onnxruntime_gives_the_routers_scores(tiny_bundles, task):
    bundle = tiny_bundles[task]
    router, page = Router.load(bundle.path), bundle_page.run("onnxruntime", bundle.path)
    lines = selfcheck(bundle)
    assert len(lines) >= 5
    for line in lines:
        assert page["scores"](line["text"]) == pytest.approx(router.route(line["text"]).scores, abs=1e-6)


def test_plain_onnxruntime_gives_the_routers_decisions(tiny_bundles):
    bundle = tiny_bundles[Task.SINGLE]
    router, page = Router.load(bundle.path), bundle_page.run("onnxruntime", bundle.path)
    texts = [line["text"] for line in selfcheck(bundle)]
    decisions = [page["route"](text) for text in texts]
    assert decisions == [router.route(text).intent for text in texts]
    assert {None} < {*decisions}  # some are declined, some are not


def test_the_program_is_about_twenty_lines():
    lines = [line for line in bundle_page.block("onnxruntime").splitlines() if line.strip()]
    assert len(lines) <= 25


def test_publish_as_shown(tmp_path, monkeypatch):
    build_bundle(tmp_path / bundle_page.FOLDER)
    monkeypatch.chdir(tmp_path)
    _, *arguments = shlex.split(bundle_page.block("publish"))
    done = distill(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == "hf upload org/name published --delete 'onnx/*'\n"
    assert Router.load("published").route("refund").intent == "refund"
