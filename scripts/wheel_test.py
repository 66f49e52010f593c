"""Builds the wheel, installs it alone into a new environment without the source tree, and routes queries there.

The bundle comes from the tests (``tests/bundles.py``). Run by ``make wheel-test``; needs a package index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
NOT_IN_THE_DEFAULT_INSTALL = ("torch", "transformers", "datasets", "sklearn", "scipy", "openai", "jinja2")
MOST_MB = 240
THERE_BEFORE = ("pip", "setuptools", "_distutils", "distutils-precedence", "pkg_resources")
ANSWERS = {"where is my parcel ?": "track_order", "i want my money back": "refund", "a joke please": None}
PROGRAM = """
import importlib.util
import sys

import distill
from distill import Router

source_tree, bundle, *absent = sys.argv[1:]
assert not distill.__file__.startswith(source_tree), f"imported from the source tree: {distill.__file__}"
for module in absent:
    assert importlib.util.find_spec(module) is None, f"{module} came with the default install"
router = Router.load(bundle)
prediction = router.route("where is my parcel ?")
assert prediction.intent == "track_order", prediction
assert [each.intent for each in router.route_batch(["i want my money back", "a joke please"])] == ["refund", None]
print(f"Router: {prediction}")
"""


class CheckFailedError(Exception):
    """The wheel does not do what it should."""


def main() -> int:
    """Runs every check. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="distill-wheel-") as name:
        try:
            check_all(Path(name).resolve())
        except CheckFailedError as error:
            print(f"wheel test: {error}", file=sys.stderr)
            return 1
    print("the wheel works on its own")
    return 0


def check_all(folder: Path) -> None:
    """Builds, installs and asks, all of it in ``folder``."""
    wheel = build(folder / "wheel")
    check_content(wheel)
    sys.path.insert(0, str(ROOT / "tests"))
    bundle, spec = make_bundle(folder / "bundle"), make_labelled_project(folder / "project")
    scripts = install(wheel, folder / "environment")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    check_route(scripts, bundle, elsewhere)
    program = [scripts / "python", "-c", PROGRAM, ROOT, bundle, *NOT_IN_THE_DEFAULT_INSTALL]
    print(finish(program, elsewhere).stdout.strip())
    check_missing_extra(scripts, spec, elsewhere)


def build(folder: Path) -> Path:
    """The wheel, built from the source tree."""
    print("building the wheel", flush=True)
    finish([sys.executable, "-m", "pip", "wheel", "--quiet", ROOT, "--no-deps", "--wheel-dir", folder], ROOT)
    (wheel,) = folder.glob("*.whl")
    print(f"built {wheel.name}, {wheel.stat().st_size / 1e3:.0f} kB")
    return wheel


def check_content(wheel: Path) -> None:
    """Every file of the package is in the wheel, those that are not Python too, and nothing from outside it."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    package = {path for path in (ROOT / "distill").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT).as_posix() for path in package}
    if packed != expected:
        raise CheckFailedError(
            f"{wheel.name} lacks {sorted(expected - packed)} and holds {sorted(packed - expected)} besides"
        )
    for pattern in ("distill/teacher/prompts/*.txt", "distill/benchmark/templates/*.j2", "distill/py.typed"):
        n_found = sum(Path(name).match(pattern) for name in packed)
        if not n_found:
            raise CheckFailedError(f"{wheel.name} holds no {pattern}")
        print(f"it holds {pattern}: {n_found}")


def make_bundle(folder: Path) -> Path:
    """A tiny bundle, made by the tests' own code."""
    from bundles import build_bundle

    path: Path = build_bundle(folder).path
    return path


def make_labelled_project(folder: Path) -> Path:
    """A project whose queries are labelled, made by the tests' own code; its router.yaml."""
    from project import write_project

    from distill.pipeline import label
    from distill.spec import load_spec

    path: Path = write_project(folder)
    label(load_spec(path), show_progress=False)
    return path


def install(wheel: Path, environment: Path) -> Path:
    """Installs the wheel with its default dependencies, and nothing else; the folder of the new environment's programs."""
    print("installing it into a new environment", flush=True)
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [scripts / "python", "-m", "pip", "--disable-pip-version-check"]
    finish([*pip, "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel], environment)
    listed = finish([*pip, "list", "--format", "freeze"], environment).stdout.split()
    print(f"installed: {' '.join(listed)}")
    check_size(environment)
    return scripts


def check_size(environment: Path) -> None:
    """Weighs what the wheel brought; pip and what came with it were there before."""
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    own = [each for each in packages.iterdir() if not each.name.startswith(THERE_BEFORE)]
    files = [path for each in own for path in (each.rglob("*") if each.is_dir() else (each,)) if path.is_file()]
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    print(f"default install: {size_mb:.0f} MB, at most {MOST_MB} MB")
    if size_mb > MOST_MB:
        raise CheckFailedError(f"the default install weighs {size_mb:.0f} MB, more than {MOST_MB} MB")


def check_route(scripts: Path, bundle: Path, folder: Path) -> None:
    """``distill route`` answers what the bundle knows."""
    output = finish([scripts / "distill", "route", bundle, *ANSWERS], folder).stdout
    print(output.rstrip())
    for line, (query, intent) in zip(output.splitlines(), ANSWERS.items(), strict=True):
        if not line.startswith(f"{intent or '-'} ") or not line.endswith(query):
            raise CheckFailedError(f"expected {intent} for {query!r}, found: {line}")


def check_missing_extra(scripts: Path, spec: Path, folder: Path) -> None:
    """A command that needs an extra says which one, in one line."""
    for command in (["train", spec], ["label", spec, "--teacher-model", "gpt-5-mini"]):
        done = run([scripts / "distill", *command], folder)
        print(f"distill {command[0]}: exit {done.returncode}: {done.stderr.strip()}")
        is_one_line = done.stderr.startswith("distill: ") and done.stderr.count("\n") == 1 and not done.stdout
        if done.returncode != 1 or not is_one_line or "pip install 'distill-router[train]'" not in done.stderr:
            raise CheckFailedError("expected exit 1 and one line that names distill-router[train]")


def run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in ``folder``; nothing in its environment leads to the source tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"PYTHONUTF8": "1"}
    arguments = [str(part) for part in command]
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, check=False, encoding="utf-8", timeout=900
    )


def finish(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """``run``, for a program that must succeed."""
    done = run(command, folder)
    if done.returncode:
        raise CheckFailedError(
            f"{' '.join(map(str, command[:3])).splitlines()[0]} ... ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done


if __name__ == "__main__":
    sys.exit(main())
