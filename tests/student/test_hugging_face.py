"""Any encoder in, and out again: what is exported is read by transformers' Auto classes and by plain onnxruntime, with the Router's answers."""

from __future__ import annotations

import json

import bundle_page
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from tiny import byte_pairs, keep_weights, make_base_model, make_data, make_texts, pieces_of_any_script, word_pieces

from distill.errors import StorageError
from distill.router import Router
from distill.student.encoder import Encoder
from distill.student.export import onnx_logits, write_configuration
from distill.student.ship import MOST_FLIPS
from distill.student.tokens import bundle_tokenizer, encode, pad
from distill.student.train import train_students
from distill.student.weights import load_base_model
from distill.types import Task


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


PAD_IDS = {"bert": 0, "mpnet": 1, "roberta": 1, "modernbert": 0}
MANY_SCRIPTS = {
    "greet": ["привет", "こんにちは", "مرحبا", "grüezi"],
    "pay": ["счёт", "支払い", "فاتورة", "begleichen"],
    "travel": ["поезд", "切符", "قطار", "straßenbahn"],
}
MANY_FILLERS = ["и", "это", "は", "من", "bitte", "çok", "да", "ok"]


def torch_logits(kept, base, n_labels, temperature, ids):
    """What the trained module says of each text alone, its temperature applied by hand."""
    encoder = Encoder(base, n_labels, dropout=0.0).eval()
    encoder.load_state_dict(load_file(kept))
    with torch.inference_mode():
        return np.concatenate([encoder(*map(torch.from_numpy, pad([each]))).numpy() for each in ids]) / temperature


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [("bert", word_pieces), ("mpnet", word_pieces), ("roberta", byte_pairs), ("modernbert", byte_pairs)],
)
def test_any_encoder_is_trained_exported_and_answers_as_torch_does(tmp_path, quick, monkeypatch, data, kind, pieces):
    folder = str(make_base_model(tmp_path / kind, kind, pieces=pieces))
    base = load_base_model(folder)
    assert base.config.get("pad_token_id", 0) == PAD_IDS[kind]
    out, kept = tmp_path / "out", tmp_path / "kept.safetensors"
    keep_weights(monkeypatch, kept)
    bundle = train_students(data, out, base_model=folder, students=("encoder",), show_progress=False)["encoder"]
    figures, router = bundle.manifest.figures, Router.load(bundle.path)
    assert json.loads((bundle.path / "config.json").read_text("utf-8"))["model_type"] == kind
    assert figures["held_out_agreement"] >= 0.6

    texts = [text for text, _ in make_texts(60, seed=9)] + ["hi", "never seen: 1234 ?!", "please " * 60]
    ids = encode(bundle_tokenizer(base.tokenizer, router.manifest.max_length), texts)
    assert [router.tokenise(text) for text in texts] == ids
    expected = torch_logits(kept, base, len(data.labels), figures["temperature"], ids)
    fp32 = onnx_logits(bundle.path / "onnx" / "model.onnx", ids)  # in batches, padded
    np.testing.assert_allclose(fp32, expected, rtol=2e-3, atol=2e-3)

    flips = figures["int8_flips"] / figures["int8_flips_of"]
    assert (
        figures["int8_shipped"] == (flips <= MOST_FLIPS) == (router.manifest.onnx_file == "onnx/model_quantized.onnx")
    )
    found = router.predict_proba(texts)
    np.testing.assert_allclose(found, softmax(expected, axis=1), atol=0.1 if figures["int8_shipped"] else 2e-3)
    sure = np.ptp(np.sort(expected, axis=1)[:, -2:], axis=1) > 0.2
    assert sure.mean() > 0.8
    tops = [router.labels.index(answer.top_intent) for answer in router.route_batch(texts)]
    np.testing.assert_array_equal(np.asarray(tops)[sure], expected.argmax(axis=1)[sure])


def test_queries_in_any_script(tmp_path, quick):
    words = [*(word for group in MANY_SCRIPTS.values() for word in group), *MANY_FILLERS]
    base = make_base_model(tmp_path / "tiny-xlm", "xlm-roberta", words=words, pieces=pieces_of_any_script)
    language = {"words_of": MANY_SCRIPTS, "fillers": MANY_FILLERS}
    data = make_data(**language)
    bundles = train_students(data, tmp_path / "out", base_model=str(base), show_progress=False)
    texts = make_texts(60, seed=9, **language)
    for student, bundle in bundles.items():
        answers = Router.load(bundle.path).route_batch([text for text, _ in texts])
        right = [answer.top_intent == intent for answer, (_, intent) in zip(answers, texts, strict=True)]
        assert np.mean(right) >= 0.85, student


def test_a_tokenizer_is_written_as_its_library_does_or_one_clear_line_says_why_not(tmp_path, base_model):
    base = load_base_model(base_model)
    tokenizer = bundle_tokenizer(base.tokenizer, 16)
    parts = {"config": base.config, "labels": ("a", "b"), "task": Task.SINGLE, "tokenizer": tokenizer, "max_length": 16}
    write_configuration(tmp_path, **parts)
    tokenizer.save(str(tmp_path / "its own.json"))
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "its own.json").read_bytes()
    (tmp_path / "taken" / "tokenizer.json" / "something").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"tokenizer\.json: cannot be written"):
        write_configuration(tmp_path / "taken", **parts)
