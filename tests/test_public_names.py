"""``__all__`` of every module: sorted, importable, and complete."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import distill
from distill.cli.app import app

ROOT = Path(distill.__file__).parent
MODULES = sorted(
    {"distill", *(module.name for module in pkgutil.walk_packages([str(ROOT)], "distill."))} - {"distill.__main__"}
)
WITHOUT_NAMES = {"distill.teacher", "distill.student", "distill.benchmark"}


def source_of(module):
    return Path(importlib.util.find_spec(module).origin).read_text("utf-8")


def commands_of(module):
    """Functions that are commands of the command line: Typer knows them, nobody imports them."""
    callbacks = (command.callback for command in app.registered_commands)
    return {each.__name__ for each in callbacks if each.__module__ == module}


def defined(module):
    """Functions and classes of a module that have no leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {
        each.name
        for each in ast.parse(source_of(module)).body
        if isinstance(each, kinds) and not each.name.startswith("_")
    } - commands_of(module)


def imported_elsewhere(module):
    """Names that other modules of distill take from this one, for type checking too."""
    return {
        alias.name
        for other in MODULES
        if other != module
        for node in ast.walk(ast.parse(source_of(other)))
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
        if f"{module}.{alias.name}" not in MODULES and not alias.name.startswith("__")
    }


def test_there_are_modules_of_every_room():
    assert {"distill.router", "distill.teacher.label", "distill.student.train", "distill.benchmark.bench"} <= {*MODULES}
    assert len(MODULES) > 30


@pytest.mark.parametrize("module", [name for name in MODULES if name not in WITHOUT_NAMES])
def test_all_is_sorted_and_importable(module):
    names = importlib.import_module(module).__all__
    # as ruff sorts it: constants, then classes, then the rest
    assert names == sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(importlib.import_module(module), name), name


@pytest.mark.parametrize("module", [name for name in MODULES if name not in WITHOUT_NAMES | {"distill"}])
def test_all_is_complete(module):
    names = {*importlib.import_module(module).__all__}
    assert defined(module) - names == set()
    assert imported_elsewhere(module) - names == set()


@pytest.mark.parametrize("module", sorted(WITHOUT_NAMES))
def test_a_room_itself_has_no_names(module):
    assert [type(node) for node in ast.parse(source_of(module)).body] == [ast.Expr]
