from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import build_bundle

from distill.bundle import FORMAT, Bundle, Manifest, load_bundle, seal
from distill.data import sha256_file, sha256_json, write_json
from distill.errors import BundleError, StorageError


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to break."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "static"))


def edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    write_json(folder / "manifest.json", manifest | changes)


def complaint(path: Path, *, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path, verify=verify)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_sealed_bundle_reads_as_it_was_written(tiny_bundle):
    loaded = load_bundle(tiny_bundle.path)
    assert loaded == tiny_bundle
    assert loaded.onnx_path.is_file()
    assert loaded.size_bytes == sum((loaded.path / f).stat().st_size for f in ("onnx/model.onnx", "tokenizer.json"))


def test_the_manifest_holds_the_hash_of_every_file_that_counts(tiny_bundle):
    files = tiny_bundle.manifest.files
    assert set(files) == {
        "config.json",
        "onnx/model.onnx",
        "selfcheck.jsonl",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all(digest == sha256_file(tiny_bundle.path / name) for name, digest in files.items())


def test_the_same_content_gives_the_same_id_whenever_it_is_sealed(tmp_path):
    first = build_bundle(tmp_path / "first")
    again = seal(first.path, replace(first.manifest, created_at="2001-01-01T00:00:00+00:00"))
    other = seal(first.path, replace(first.manifest, seed=1))
    assert again.manifest.bundle_id == first.manifest.bundle_id
    assert other.manifest.bundle_id != first.manifest.bundle_id
    assert len(first.manifest.bundle_id) == 16


def test_an_int8_graph_is_hashed_with_the_fp32_one(folder):
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    sealed = seal(folder, replace(load_bundle(folder).manifest, onnx_file="onnx/model_quantized.onnx"))
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= set(sealed.manifest.files)
    (folder / "onnx/model.onnx").write_bytes(b"other")
    assert "onnx/model.onnx: altered" in complaint(folder)
    assert load_bundle(folder, spare=False).manifest == sealed.manifest
    (folder / "onnx/model_quantized.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"onnx/model_quantized\.onnx: altered"):
        load_bundle(folder, spare=False)


@pytest.mark.parametrize(("verify", "spare"), [(True, False), (False, True), (False, False)])
def test_the_graph_that_does_not_run_may_be_left_out_where_it_is_not_asked_for(folder, verify, spare):
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    sealed = seal(folder, replace(load_bundle(folder).manifest, onnx_file="onnx/model_quantized.onnx"))
    assert sealed.missing == ()
    (folder / "onnx/model.onnx").unlink()
    assert load_bundle(folder, verify=verify, spare=spare).missing == ("onnx/model.onnx",)
    assert "incomplete: onnx/model.onnx is missing" in complaint(folder)
    (folder / "onnx/model_quantized.onnx").unlink()
    with pytest.raises(BundleError, match=r"incomplete: onnx/model_quantized\.onnx is missing"):
        load_bundle(folder, verify=verify, spare=spare)


def test_a_bundle_of_before_base_models_were_named_is_read(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["base_model"]
    del manifest["bundle_id"]
    hashed = {key: value for key, value in manifest.items() if key != "created_at"}
    write_json(folder / "manifest.json", manifest | {"bundle_id": sha256_json(hashed)[:16]})
    assert load_bundle(folder).manifest.base_model == ""


def test_the_model_card_may_be_edited(folder):
    (folder / "README.md").write_text("mine", encoding="utf-8")
    assert load_bundle(folder).manifest.name == "tiny"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "selfcheck.jsonl", "onnx/model.onnx"])
def test_a_bundle_without_one_of_its_files_is_not_sealed(folder, name):
    manifest = load_bundle(folder).manifest
    (folder / "manifest.json").unlink()
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        seal(folder, manifest)
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize("figures", [{"accuracy": float("nan")}, {"accuracy": object()}])
def test_figures_that_json_cannot_hold_are_not_sealed(folder, figures):
    with pytest.raises(BundleError, match="manifest is not valid"):
        seal(folder, replace(load_bundle(folder).manifest, figures=figures))


def test_a_manifest_that_cannot_be_written_is_a_storage_error(folder, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    manifest = load_bundle(folder).manifest
    before = (folder / "manifest.json").read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="No space left"):
        seal(folder, manifest)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_missing_folder_says_where_bundles_come_from(tmp_path):
    message = complaint(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "distill train" in message


def test_a_file_is_not_a_bundle(folder):
    assert "not a bundle but a file" in complaint(folder / "config.json")


def test_a_folder_of_something_else_is_not_a_bundle(tmp_path):
    assert "holds no manifest.json" in complaint(tmp_path)


def test_a_folder_of_two_bundles_names_both(folder):
    shutil.copytree(folder, folder.parent / "encoder")
    message = complaint(folder.parent)
    assert f"holds two bundles: {folder.parent / 'encoder'}, {folder}; give one of them" in message


def test_a_folder_of_one_bundle_names_it(folder):
    assert f"give {folder}" in complaint(folder.parent)


def test_a_bundle_without_a_manifest_is_incomplete(folder):
    (folder / "manifest.json").unlink()
    assert "incomplete: manifest.json is missing" in complaint(folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "selfcheck.jsonl", "onnx/model.onnx"])
def test_a_missing_file_is_named(folder, name, verify):
    (folder / name).unlink()
    assert f"incomplete: {name} is missing" in complaint(folder, verify=verify)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "selfcheck.jsonl", "onnx/model.onnx"])
def test_an_altered_file_is_named(folder, name):
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    assert f"{folder / name}: altered" in complaint(folder)
    assert load_bundle(folder, verify=False).manifest.name == "tiny"


def test_an_altered_manifest_is_noticed(folder):
    edit(folder, policy={"threshold": 0.0, "thresholds": None})
    assert "manifest.json: altered" in complaint(folder)


def test_a_newer_format_is_refused_whatever_else_changed(folder):
    write_json(folder / "manifest.json", {"format": FORMAT + 1, "everything": "else"})
    message = complaint(folder)
    assert f"format {FORMAT + 1} is newer" in message
    assert "pip install --upgrade" in message


def test_a_manifest_of_this_format_with_keys_to_come_and_without_optional_ones_is_read(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for key in ("parent", "figures", "versions", "seed", "teacher"):
        del manifest[key]
    write_json(folder / "manifest.json", manifest | {"new_key": 1})
    loaded = load_bundle(folder, verify=False).manifest
    assert (loaded.parent, loaded.figures, loaded.seed) == (None, {}, 0)


@pytest.mark.parametrize("content", [b"{", b"[]", b'"text"', b"\xff", b"", b"[" * 100_000])
def test_a_manifest_that_is_not_a_json_object_is_damaged(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert "manifest.json: damaged" in complaint(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", None),
        ("format", True),
        ("format", "1"),
        ("name", ""),
        ("student", "teacher"),
        ("task", "several"),
        ("task", []),
        ("labels", ["a"]),
        ("labels", ["a", "a"]),
        ("labels", ["a", 1]),
        ("labels", "ab"),
        ("policy", None),
        ("onnx_file", "../model.onnx"),
        ("onnx_file", []),
        ("max_length", 0),
        ("max_length", "16"),
        ("files", {"../../etc/passwd": "0"}),
        ("files", {"/etc/passwd": "0"}),
        ("files", {"C:\\x": "0"}),
        ("files", {".git/config": "0"}),
        ("files", {"onnx/evil.py": "0"}),
        ("files", []),
        ("files", {}),
        ("figures", []),
        ("figures", {"held_out_ece": [1]}),
        ("figures", {"n_held_out": "many"}),
        ("teacher", 5),
        ("data_sha256", 7),
        ("prompt_sha256", None),
        ("created_at", None),
        ("parent", [1]),
        ("seed", "0"),
        ("versions", {"numpy": 2}),
        ("base_model", None),
    ],
)
def test_a_wrong_value_in_the_manifest_is_named(folder, key, value):
    edit(folder, **{key: value})
    assert f"`{key}`" in complaint(folder, verify=False)


def test_a_label_that_no_file_can_hold_is_named(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    text = json.dumps({**manifest, "labels": ["a", "b\ud800"]})
    (folder / "manifest.json").write_text(text, encoding="ascii")
    assert "`labels`" in complaint(folder, verify=False)


def test_a_manifest_that_is_too_deep_to_be_written_is_damaged(folder):
    manifest = (folder / "manifest.json").read_text(encoding="utf-8").rstrip().removesuffix("}")
    for depth in range(100, 1_000, 10):
        (folder / "manifest.json").write_text(f'{manifest}, "deep": {"[" * depth}{"]" * depth}}}', encoding="utf-8")
        assert "manifest.json: " in complaint(folder)


@pytest.mark.parametrize("key", ["name", "student", "task", "labels", "policy", "onnx_file", "max_length", "files"])
def test_a_missing_key_in_the_manifest_is_named(folder, key):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest[key]
    write_json(folder / "manifest.json", manifest)
    assert f"`{key}` is missing" in complaint(folder)


def test_a_manifest_survives_its_dictionary(tiny_bundle):
    value = json.loads(json.dumps(tiny_bundle.manifest.as_dict()))
    assert Manifest.from_dict(value) == tiny_bundle.manifest
