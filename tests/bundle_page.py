"""The programs on docs/bundle.md, to be run by tests."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "bundle.md").read_text(encoding="utf-8")
FOLDER = "models/banking-assistant/static"
"""The bundle that the page's programs open."""


def block(name):
    """The program that the page marks with a name."""
    (found,) = re.findall(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return found


def run(name, bundle_path):
    """What a Python program of the page defines, once it ran on a bundle."""
    program = block(name)
    assert FOLDER in program
    defined = {}
    exec(compile(program.replace(FOLDER, str(bundle_path)), "docs/bundle.md", "exec"), defined)  # noqa: S102
    return defined
