"""How much the wheel's default install weighs, and of what it is made."""

from __future__ import annotations

import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))
import wheel_test  # noqa: E402

NOT_FOR_ROUTING = {"torch", "transformers", "datasets", "scikit-learn", "scipy", "pandas", "openai", "jinja2", "onnx"}


def pulled_in(requirements):
    """Distributions that a list of requirements brings, by name: each with its own, and so on."""
    found, waiting = {}, [(Requirement(line), "") for line in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = str(canonicalize_name(requirement.name))
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                found[name] = metadata.distribution(name)
                waiting += [(Requirement(line), wanted) for line in found[name].requires or ()]
    return found


def size_mb(distribution):
    """Size of the files that it installed, compiled modules included, MB of 10**6 bytes."""
    paths = [distribution.locate_file(file) for file in distribution.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


@pytest.fixture(scope="module")
def sizes_mb():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = sum(path.stat().st_size for path in (ROOT / "distill").rglob("*") if path.is_file()) / 1e6
    return {project["name"]: own} | {
        name: size_mb(each) for name, each in sorted(pulled_in(project["dependencies"]).items())
    }


def test_the_default_install_stays_small(sizes_mb):
    total = sum(sizes_mb.values())
    listed = "\n".join(f"{size:8.2f} MB  {name}" for name, size in sorted(sizes_mb.items(), key=lambda item: -item[1]))
    print(f"\n{listed}\n{total:8.2f} MB  together, of {wheel_test.MOST_MB}")  # noqa: T201  # pytest -s shows it
    assert total <= wheel_test.MOST_MB, listed


def test_it_is_what_routing_and_the_command_line_need(sizes_mb):
    assert {"numpy", "onnxruntime", "tokenizers", "typer", "rich"} <= sizes_mb.keys()
    assert NOT_FOR_ROUTING.isdisjoint(sizes_mb)
    assert len(sizes_mb) < 40


def test_every_part_was_found_and_weighed(sizes_mb):
    assert all(size > 0 for size in sizes_mb.values())
    assert sizes_mb["onnxruntime"] > 20
    assert sizes_mb["numpy"] > 10


def test_what_the_wheel_brings_is_weighed(tmp_path, monkeypatch, capsys):
    venv.create(tmp_path / "environment", with_pip=False)
    (packages,) = {path.resolve() for path in (tmp_path / "environment").glob("[Ll]ib*/**/site-packages")}
    (packages / "pip").mkdir()
    (packages / "pip" / "big.py").write_bytes(bytes(3_000_000))
    (packages / "own").mkdir()
    (packages / "own" / "model.bin").write_bytes(bytes(2_000_000))
    wheel_test.check_size(tmp_path / "environment")
    assert "default install: 2 MB" in capsys.readouterr().out
    monkeypatch.setattr(wheel_test, "MOST_MB", 1)
    with pytest.raises(wheel_test.CheckFailedError, match="weighs 2 MB"):
        wheel_test.check_size(tmp_path / "environment")
