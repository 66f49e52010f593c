"""The program that writes docs/api.md: what it lists, and how a docstring comes out."""

from __future__ import annotations

import ast
import importlib
import re
import sys

import pytest
from guides import ROOT

import distill

sys.path.append(str(ROOT / "scripts"))
import api

PACKAGE = api.load("distill", ROOT)
LISTED = {(section.module, name) for section in api.SECTIONS for name in api.names_of(PACKAGE, section)}


def test_every_public_name_is_listed():
    names = {name for _, name in LISTED}
    assert {*distill.__all__} - {"__version__"} - names == set()


@pytest.mark.parametrize("section", api.SECTIONS, ids=lambda section: section.title)
def test_a_section_lists_what_its_module_offers(section):
    offered = {*importlib.import_module(section.module).__all__}
    assert section.left_out <= offered
    assert {*api.names_of(PACKAGE, section)} <= offered


def test_what_the_guides_import_is_listed():
    """But for what is said to be left out."""
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").glob("*.md") if path != api.PAGE)]
    programs = [
        block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    imported = {
        (node.module, alias.name)
        for program in programs
        if "import" in program
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distill")
        for alias in node.names
    }
    assert ("distill", "Router") in imported
    modules = {section.module.removeprefix("distill.") for section in api.SECTIONS}
    names = {name for _, name in LISTED} | modules
    assert {name for module, name in imported if module == "distill"} <= names
    assert {pair for pair in imported if pair[0] != "distill"} <= LISTED


def test_the_page_has_a_heading_for_every_name_and_contents_that_lead_there():
    page = api.page()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    for module, name in LISTED:
        assert f"`{name}`" in headings or module == "distill.errors", name
    anchors = {api._anchor(heading) for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
    assert not re.search(r"^[^`\n]*``(?!`)", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)


MODULE = '''
"""A module."""

from dataclasses import dataclass
from enum import StrEnum

_MOST = 7


class Colour(StrEnum):
    """What it looks like."""

    RED = "red"
    """As a rose."""


@dataclass(frozen=True)
class Thing:
    """A ``thing``.

    Attributes:
        name: Its name,
            on two lines.
    """

    name: str

    @property
    def length(self) -> int:
        """How long it is."""
        return len(self.name)

    def _hidden(self) -> None:
        """Not shown."""


async def fetch(url: str, *, most: int = _MOST, what: "tuple[str, ...] | None" = None, and_much_more: bool = True) -> Thing:
    """Fetches it.

    Args:
        url: Where from.
        most: How many.

    Returns:
        A thing,
        or another.

    Raises:
        ValueError: It is no ``url``.
    """
'''
EXPECTED = """\
### `Colour`

What it looks like.

- `RED` (`'red'`): As a rose.

### `Thing`

```python
Thing(name: str)
```

A `thing`.

Attributes:

- `name`: Its name, on two lines.

#### `Thing.length`

```python
length: int
```

How long it is.

### `fetch`

```python
async fetch(
    url: str,
    *,
    most: int = 7,
    what: tuple[str, ...] | None = None,
    and_much_more: bool = True,
) -> Thing
```

Fetches it.

Arguments:

- `url`: Where from.
- `most`: How many.

Returns:

- A thing, or another.

Raises:

- `ValueError`: It is no `url`.
"""


def rendered(tmp_path, source, names):
    (tmp_path / "shown_package.py").write_text(source, encoding="utf-8")
    module = api.load("shown_package", tmp_path)
    return "\n".join(part for name in names for part in api._described_name(module[name], "###", name))


def test_how_docstrings_come_out(tmp_path):
    assert rendered(tmp_path, MODULE, ["Colour", "Thing", "fetch"]) == EXPECTED


def test_a_section_that_would_be_lost_is_named(tmp_path):
    source = 'def ask():\n    """Asks.\n\n    Yields:\n        int: Numbers.\n    """\n    yield 1\n'
    with pytest.raises(SystemExit, match=r"shown_package\.ask: a docstring has a section 'yields'"):
        rendered(tmp_path, source, ["ask"])


def test_a_page_that_is_out_of_date_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "PAGE", tmp_path / "api.md")
    monkeypatch.setattr(sys, "argv", ["api.py", "--check"])
    with pytest.raises(SystemExit, match=r"docs/api\.md is out of date: run `make docs`"):
        api.main()
    monkeypatch.setattr(sys, "argv", ["api.py"])
    api.main()
    monkeypatch.setattr(sys, "argv", ["api.py", "--check"])
    api.main()
