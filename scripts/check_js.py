"""Asks bundles in transformers.js, offline, and compares its answers with the Router's. Needs node and npm.

python scripts/check_js.py [BUNDLE ...]

Without bundles, tiny ones are made by the tests' own code: both students, each kind of label, each graph that a bundle holds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.bundle import ONNX_FP32, ONNX_INT8, SELFCHECK, Bundle, load_bundle
from distill.data import read_jsonl, write_json
from distill.errors import DistillError
from distill.router import Router
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "scripts" / "check_js"
GRAPHS = {ONNX_FP32: "fp32", ONNX_INT8: "q8"}
"""transformers.js' names for the files of a bundle."""
TOLERANCES = {ONNX_FP32: 1e-3, ONNX_INT8: 2e-2}
"""Largest difference in a probability: two builds of ONNX Runtime add in another order; int8 then rounds some activations to the next step."""


def cases(bundles: Sequence[Bundle]) -> Iterator[dict[str, Any]]:
    """What the Router answers to each bundle's self-check, with each of its graphs."""
    for bundle in bundles:
        texts = [line["text"] for _, line in read_jsonl(bundle.path / SELFCHECK)]
        for onnx_file, dtype in GRAPHS.items():
            if not (bundle.path / onnx_file).is_file():
                continue
            router = Router(Bundle(bundle.path, replace(bundle.manifest, onnx_file=onnx_file)))
            predictions = [router.route(text) for text in texts]
            yield {
                "folder": str(bundle.path.absolute()),
                "name": f"{bundle.manifest.name} {bundle.manifest.student} ({bundle.manifest.task.value})",
                "dtype": dtype,
                "tolerance": TOLERANCES[onnx_file],
                "max_length": bundle.manifest.max_length,
                "queries": [
                    {"text": text, "input_ids": router.tokenise(text), "scores": prediction.scores}
                    for text, prediction in zip(texts, predictions, strict=True)
                    if prediction.probabilities is not None
                ],
            }


def tiny_bundles(folder: Path) -> list[Bundle]:
    """Both students, every task and two families of transformers, trained in seconds on made-up words."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "student")]
    import torch
    from tiny import ENCODER_RECIPE, STATIC_RECIPE, make_base_model, make_data

    from distill.student import ship, train

    torch.set_num_threads(1)
    ship.MOST_FLIPS = 1.0  # int8 is to be compared with int8, however much it changes of so tiny a model
    train.encoder_recipe = lambda *_, **__: ENCODER_RECIPE
    train.static_recipe = lambda *_, **__: STATIC_RECIPE
    bases = {kind: str(make_base_model(folder / kind, kind)) for kind in ("bert", "roberta")}
    wanted = [
        ("bert", Task.SINGLE, ("encoder", "static")),
        ("bert", Task.MULTI, ("static",)),
        ("bert", Task.WEIGHTS, ("static",)),
        ("roberta", Task.SINGLE, ("encoder",)),
    ]
    made: list[Bundle] = []
    for kind, task, students in wanted:
        data = replace(make_data(task=task), name=f"tiny-{kind}")
        out = folder / f"{kind}-{task.value}"
        trained = train.train_students(data, out, students=students, base_model=bases[kind], show_progress=False)
        made += trained.values()
    return made


def install() -> None:
    """``npm ci``, where what package-lock.json says is not there yet."""
    lock, installed = PROGRAM / "package-lock.json", PROGRAM / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        print("npm ci", file=sys.stderr, flush=True)
        subprocess.run([_program("npm"), "ci"], cwd=PROGRAM, check=True, stdout=sys.stderr)


def _program(name: str) -> str:
    """Where a program lies; on Windows npm is a .cmd."""
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"check_js.py: {name} is not there; install Node.js 20 or later")
    return found


def main() -> int:
    """Makes the cases, asks transformers.js. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    given = parser.parse_args().bundles
    install()
    with tempfile.TemporaryDirectory(prefix="distill-js-") as name:
        folder = Path(name)
        try:
            bundles = [load_bundle(path) for path in given] or tiny_bundles(folder)
            write_json(folder / "cases.json", list(cases(bundles)))
        except DistillError as error:
            raise SystemExit(f"check_js.py: {error}") from error
        return subprocess.run(
            [_program("node"), "check.mjs", str(folder / "cases.json")], cwd=PROGRAM, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
