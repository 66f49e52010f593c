"""scripts/check_js.py: what it asks transformers.js for is what the Router answers, and a difference is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.router import Router
from distill.types import Task

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.append(str(SCRIPTS))
import check_js  # noqa: E402

LOCK = (check_js.PROGRAM / "package-lock.json").read_text(encoding="utf-8")


def test_a_case_holds_the_routers_answers(tiny_bundles):
    bundle = tiny_bundles[Task.SINGLE]
    (case,) = check_js.cases([bundle])
    router = Router.load(bundle.path)
    assert (case["folder"], case["dtype"]) == (str(bundle.path), "fp32")
    assert len(case["queries"]) >= 5
    for query in case["queries"]:
        assert query["scores"] == router.route(query["text"]).scores
        assert query["input_ids"] == router.tokenise(query["text"])


def test_both_graphs_are_asked(tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle.path, tmp_path / "static")
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    assert [case["dtype"] for case in check_js.cases([check_js.load_bundle(folder)])] == ["fp32", "q8"]


def test_the_lock_names_no_registry_and_pins_everything():
    packages = json.loads(LOCK)["packages"]
    assert "resolved" not in LOCK
    assert packages["node_modules/@huggingface/transformers"]["version"] in LOCK
    assert all("integrity" in each for name, each in packages.items() if name)


@pytest.mark.skipif(
    not (check_js.PROGRAM / "node_modules" / "@huggingface").is_dir() or shutil.which("node") is None,
    reason="make check-js has not been run here",
)
@pytest.mark.parametrize(("change", "code"), [(0.0, 0), (0.01, 1)])
def test_a_difference_is_found(tiny_bundle, tmp_path, change, code):
    folder = shutil.copytree(tiny_bundle.path, tmp_path / "static")
    labels = dict(enumerate(tiny_bundle.manifest.labels))
    config = {
        "model_type": "bert",
        "pad_token_id": 0,
        "id2label": labels,
        "problem_type": "single_label_classification",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    cases = [case | {"folder": str(folder)} for case in check_js.cases([tiny_bundle])]
    cases[0]["queries"].pop()  # unheard words, for which transformers.js has no id in a vocabulary of this kind
    for query in cases[0]["queries"]:
        query["scores"] = {label: score + change for label, score in query["scores"].items()}
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    done = subprocess.run(
        ["node", "check.mjs", str(tmp_path / "cases.json")],
        cwd=check_js.PROGRAM,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("WRONG" in done.stdout) == bool(code)
