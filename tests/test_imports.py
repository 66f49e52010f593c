from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "openai", "pydantic")
NOT_FOR_ROUTING = (*HEAVY, "huggingface_hub", "typer", "rich", "yaml", "onnx", "asyncio")


def modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules of a new interpreter that ran the code."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return set(json.loads(done.stdout))


def test_routing_a_query_imports_only_the_runtime(tiny_bundle):
    code = (
        "from distill import Router\n"
        "router = Router.load(sys.argv[1])\n"
        "assert router.route('refund').intent == 'refund'\n"
        "assert router.route_batch(['parcel'])[0].intent == 'track_order'"
    )
    modules = modules_after(code, str(tiny_bundle.path))
    assert {"distill", "numpy", "onnxruntime", "tokenizers"} <= modules
    assert modules.isdisjoint(HEAVY)
    assert modules - modules_after("import numpy, onnxruntime, tokenizers") <= {
        *(name for name in modules if name in sys.stdlib_module_names),
        "distill",
        *(
            {"nanotoken", "__mp_main__"} if "nanotoken" in modules else ()
        ),  # the extra [fast], which imports multiprocessing
    }


@pytest.mark.parametrize(("given", "holds"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_onnxruntime_tells_its_maker_nothing_unless_that_was_set_otherwise(tiny_bundle, tmp_path, given, holds):
    """Its official builds would, and write a device id to the home folder; not where they see that they run in CI."""
    code = (
        "import os, sys\n"
        "from distill import Router\n"
        "Router.load(sys.argv[1]).route('refund')\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "PYTHONPATH": os.pathsep.join(sys.path), **given}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle.path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == holds
    if not given:
        assert not list(tmp_path.rglob("*"))


def test_a_cascade_imports_the_runtime_and_the_standard_library(tiny_bundle):
    code = (
        "from distill import Cascade, Router\n"
        "cascade = Cascade(Router.load(sys.argv[1]), lambda text: 'refund')\n"
        "assert cascade.route('unheard words').intent == 'refund'"
    )
    modules = modules_after(code, str(tiny_bundle.path))
    assert modules.isdisjoint({*NOT_FOR_ROUTING} - {"asyncio"})


def test_importing_the_package_imports_no_numpy():
    modules = modules_after("import distill")
    assert modules.isdisjoint({*NOT_FOR_ROUTING, "numpy", "onnxruntime", "tokenizers"})


@pytest.mark.parametrize("module", ["distill.types", "distill.errors", "distill.data", "distill.bundle"])
def test_what_every_stage_shares_is_standard_library_only(module):
    assert modules_after(f"import {module}").isdisjoint({*HEAVY, "numpy", "onnxruntime", "tokenizers"})


def test_the_policy_needs_numpy_only():
    modules = modules_after("import distill.policy")
    assert "numpy" in modules
    assert modules.isdisjoint({*HEAVY, "onnxruntime", "tokenizers"})


def test_what_is_forbidden_can_be_found_where_it_is_imported():
    assert "scipy" in modules_after("import scipy")
