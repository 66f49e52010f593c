from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.bundle import seal
from distill.errors import BundleError
from distill.router import Router
from distill.selfcheck import verify_selfcheck


def breakable(bundle, tmp_path):
    return Path(shutil.copytree(bundle.path, tmp_path / "broken"))


def test_the_selfcheck_of_an_untouched_bundle_passes(tiny_router):
    check = verify_selfcheck(tiny_router)
    assert check.passed
    assert (check.n, check.n_token_mismatches, check.n_label_flips) == (5, 0, 0)
    assert check.max_abs_difference < 1e-5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda line: {"input_ids": [*line["input_ids"], 3]}, "n_token_mismatches"),
        (lambda line: {"logits": line["logits"][::-1]}, "n_label_flips"),
        (lambda line: {"logits": [logit + 0.1 for logit in line["logits"]]}, "max_abs_difference"),
    ],
)
def test_a_selfcheck_that_is_answered_otherwise_fails_and_says_how(tiny_bundle, tmp_path, change, field):
    folder = breakable(tiny_bundle, tmp_path)
    lines = [json.loads(line) for line in (folder / "selfcheck.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[0] |= change(lines[0])
    (folder / "selfcheck.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    check = verify_selfcheck(Router.load(seal(folder, tiny_bundle.manifest).path))
    assert not check.passed
    assert getattr(check, field) > 0.05


def test_a_bundle_that_took_the_place_of_the_routers_is_not_checked_in_its_stead(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    router = Router.load(folder)
    seal(folder, replace(tiny_bundle.manifest, seed=4711))
    with pytest.raises(BundleError, match=r"replaced since it was loaded; load it again$"):
        verify_selfcheck(router)
    assert verify_selfcheck(Router.load(folder)).passed


@pytest.mark.parametrize("ids", [[], [1_000_000], ["a"], [[2], [3]]])
def test_ids_that_no_graph_takes_are_a_bundle_error(tiny_bundle, tmp_path, ids):
    folder = breakable(tiny_bundle, tmp_path)
    line = json.loads((folder / "selfcheck.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (folder / "selfcheck.jsonl").write_text(json.dumps(line | {"input_ids": ids}), encoding="utf-8")
    with pytest.raises(BundleError, match=r"selfcheck\.jsonl: not a self-check: .*input_ids"):
        verify_selfcheck(Router.load(seal(folder, tiny_bundle.manifest).path))


@pytest.mark.parametrize("content", ["nonsense", "{}", '{"text": "a", "input_ids": [2, 3], "logits": [1.0]}'])
def test_a_selfcheck_that_cannot_be_read_is_a_bundle_error(tiny_bundle, tmp_path, content):
    folder = breakable(tiny_bundle, tmp_path)
    (folder / "selfcheck.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"selfcheck\.jsonl"):
        verify_selfcheck(Router.load(seal(folder, tiny_bundle.manifest).path))


def test_a_graph_that_is_not_loaded_is_checked_too(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    seal(folder, replace(tiny_bundle.manifest, onnx_file="onnx/model_quantized.onnx"))
    (folder / "onnx/model.onnx").write_bytes(b"other")
    router = Router.load(folder)
    with pytest.raises(BundleError, match=r"onnx/model\.onnx: altered"):
        verify_selfcheck(router)


def test_a_bundle_of_which_only_the_graph_that_runs_was_copied_passes(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    seal(folder, replace(tiny_bundle.manifest, onnx_file="onnx/model_quantized.onnx"))
    (folder / "onnx/model.onnx").unlink()
    router = Router.load(folder)
    assert router.route("refund").intent == "refund"
    assert verify_selfcheck(router).passed
    (folder / "tokenizer.json").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"tokenizer\.json: altered"):
        verify_selfcheck(router)


def test_an_answer_that_is_no_number_does_not_pass(tiny_router, monkeypatch):
    nowhere = np.full(len(tiny_router.labels), np.nan, dtype=np.float32)
    monkeypatch.setattr(tiny_router, "logits", lambda _: nowhere)
    check = verify_selfcheck(tiny_router)
    assert np.isnan(check.max_abs_difference)
    assert not check.passed


def test_a_logit_too_large_for_a_float_is_a_bundle_error(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    line = json.loads((folder / "selfcheck.jsonl").read_text(encoding="utf-8").splitlines()[0])
    huge = json.dumps(line | {"logits": [10**400, *line["logits"][1:]]})
    (folder / "selfcheck.jsonl").write_text(huge, encoding="utf-8")
    with pytest.raises(BundleError, match=r"selfcheck\.jsonl: not a self-check"):
        verify_selfcheck(Router.load(seal(folder, tiny_bundle.manifest).path))


def test_an_empty_selfcheck_does_not_pass(tiny_bundle, tmp_path):
    folder = breakable(tiny_bundle, tmp_path)
    (folder / "selfcheck.jsonl").write_text("", encoding="utf-8")
    assert not verify_selfcheck(Router.load(seal(folder, tiny_bundle.manifest).path)).passed
