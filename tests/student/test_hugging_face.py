"""What is exported is read by transformers' Auto classes and by plain onnxruntime, with the Router's answers."""

from __future__ import annotations

import json

import bundle_page
import numpy as np
import pytest

from distill.router import Router


@pytest.fixture(params=["encoder", "static"])
def folder(trained, request):
    return trained / request.param


@pytest.fixture
def texts(folder):
    lines = [json.loads(line) for line in (folder / "selfcheck.jsonl").read_bytes().splitlines()]
    assert len(lines) >= 20
    return [line["text"] for line in lines]


def test_auto_tokenizer_gives_the_routers_ids(folder, texts):
    router, page = Router.load(folder), bundle_page.run("transformers", folder)
    tokenizer = page["tokenizer"]
    assert [tokenizer(text, truncation=True)["input_ids"] for text in texts] == [
        router.tokenise(text) for text in texts
    ]
    assert tokenizer.model_max_length == router.manifest.max_length
    assert page["ids"]


def test_auto_tokenizer_and_config_lead_to_the_routers_answers(folder, texts):
    router, page = Router.load(folder), bundle_page.run("transformers", folder)
    assert page["labels"] == list(router.labels)
    for text in texts:
        logits = router.logits(page["tokenizer"](text, truncation=True)["input_ids"])
        assert page["config"].id2label[int(np.argmax(logits))] == router.route(text).top_intent


def test_plain_onnxruntime_gives_the_routers_answers(folder, texts):
    router, page = Router.load(folder), bundle_page.run("onnxruntime", folder)
    for text in texts:
        expected = router.route(text)
        assert page["scores"](text) == pytest.approx(expected.scores, abs=1e-5)
        assert page["route"](text) == expected.intent
