"""The exported sentence encoder against torch, and that it is exported once."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from distill.embed import Embedder
from distill.errors import BundleError, MissingExtraError
from distill.student import embedder as module
from distill.student.embedder import open_embedder
from distill.student.tokens import bundle_tokenizer, encode, pad
from distill.student.weights import load_base_model

pytestmark = pytest.mark.timeout(600)  # torch is slow to export on a busy machine

TEXTS = ["hello my friend", "pay the bill now please", "a"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, base_model):
    """Where one encoder was exported to. Shared: not to be changed."""
    cache = tmp_path_factory.mktemp("cache") / ".distill"
    open_embedder(base_model, cache, show_progress=False)
    return cache


def test_the_vectors_are_those_of_the_base_model(cache, base_model):
    base = load_base_model(base_model)
    ids, mask = map(torch.from_numpy, pad(encode(bundle_tokenizer(base.tokenizer, 64), TEXTS)))
    with torch.no_grad():
        states = base.body.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(mean).numpy()
    np.testing.assert_allclose(open_embedder(base_model, cache).embed(TEXTS), expected, atol=1e-4)


def test_it_is_exported_once_and_git_leaves_it_out(cache, base_model, monkeypatch):
    monkeypatch.setattr(module, "load_base_model", lambda _: pytest.fail("exported again"))
    assert isinstance(open_embedder(base_model, cache), Embedder)
    assert (cache / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == [".gitignore", "embedder"]


def test_what_was_left_half_written_is_no_encoder(tmp_path, base_model, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("distill.student.export.export_encoder", killed)
    with pytest.raises(KeyboardInterrupt):
        open_embedder(base_model, tmp_path, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".gitignore"]


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, base_model, monkeypatch):
    def export(*_):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(module, "_export", export)
    with pytest.raises(MissingExtraError, match=r"onnx is not installed; .*\[train\]"):
        open_embedder(base_model, tmp_path, show_progress=False)


def test_a_damaged_one_says_which_folder_to_remove(cache, base_model, tmp_path):
    (folder,) = cache.glob("embedder-*")
    damaged = tmp_path / folder.name
    damaged.mkdir()
    with pytest.raises(BundleError, match=f"{folder.name}.*remove the folder"):
        open_embedder(base_model, tmp_path)


def test_what_killed_exports_left_is_removed_after_a_day(tmp_path, base_model, monkeypatch):
    for name, age_s in (("embedder-old.1.partial", 90_000), ("embedder-young.2.partial", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    monkeypatch.setattr("distill.student.export.export_encoder", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_embedder(base_model, tmp_path, show_progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitignore", "embedder-young.2.partial"]
