"""Openings of test parts, a line each in results/openings.jsonl; a later line about the same opening takes the place of an earlier one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from provenance import ROOT

from distill.data import read_jsonl, storage_errors
from distill.student.recipe import DEFAULT_BUDGET_MINUTES

if TYPE_CHECKING:
    from pathlib import Path

OPENINGS = ROOT / "results" / "openings.jsonl"
SHA256 = {
    "banking77": {
        "train_sha256": "b56548f7110bab96f0afeb9500cee71e67c7e06ddaec05dabf823e475e8912a1",
        "test_sha256": "b3d36362758db868bcef281a0ab8291de6243cc4709b3ac12bfe5cb9828799ba",
    },
    "clinc150": {
        "train_sha256": "4b88a412b2944231db7b1df2d9c65e9ac04cae534f5ae83c4704fabf53dc5fa8",
        "validation_sha256": "46350042f250f54d0995d1f0f87ac7560e498722fbcf6b66a0594820687598e1",
        "test_sha256": "be5d0771d62296873f3729a1d27fe73d4726bd921bb54783f2903ae6a544d321",
    },
    "nlupp-banking": {
        "train_sha256": "ada05619f2cbdeeadfa8a78bf78e42442d353524ca733997d078ffaa17e10ece",
        "test_sha256": "7fc4fd42a0ee6a1da6b7b345b9e29111405f5bb3e0e23fb88a7406fd1e85c7b1",
    },
    "tvr-modality": {
        "train_sha256": "eb382e81d433e1f435cb4becba65b15719fe498019441ab39476810e6a9d78ad",
        "test_sha256": "f450c0aecdac59b140d276d391b285fb876ecd2e8e27d1b9420abccbc8c55144",
    },
}
"""Of the parts that the project's figures are of: a folder of the same name may be anybody's."""

_NOT_KNOWN = (0, 0, "")

Opening = dict[str, Any]


def check_writable(path: Path) -> None:
    """Returns where ``note`` can be expected to write.

    Raises:
        StorageError: It cannot.
    """
    _append("", path)


def note(line: Opening, path: Path) -> None:
    """Appends what is known of an opening so far; ``rows`` is empty until it was measured.

    Raises:
        StorageError: It cannot be written.
    """
    _append(json.dumps(line) + "\n", path)


def _append(text: str, path: Path) -> None:
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        with path.open("a+b") as lines:
            if lines.seek(0, os.SEEK_END) and text:
                lines.seek(-1, os.SEEK_END)
                if lines.read(1) != b"\n":  # a killed run's line: it alone is lost, and reading names it
                    lines.write(b"\n")
            lines.write(text.encode())


def read_openings(path: Path) -> list[Opening]:
    """Every opening, in order; of the sets in ``SHA256`` only those of these very parts.

    The first lines have no hashes; they are the project's own.

    Raises:
        DataError: The file cannot be read.
    """
    return [line for line in _every(path) if is_of_these_parts(line)]


def _every(path: Path) -> list[Opening]:
    if not path.exists():
        return []
    return list({(line["set"], line["seed"], line["opened_at"]): line for _, line in read_jsonl(path)}.values())


def last_measured(path: Path, parts: dict[str, str], facts: dict[str, Any]) -> Opening | None:
    """The last opening that was measured of exactly these parts (name of a hash to hash) and of which these facts are true.

    Raises:
        DataError: The file cannot be read.
    """
    for line in reversed(_every(path)):
        named = {part: sha256 for part, sha256 in line.items() if part.endswith("_sha256")}
        if line["rows"] and named == parts and facts.items() <= line.items():
            return line
    return None


def is_of_these_parts(line: Opening) -> bool:
    """Whether what a line says of its data does not speak against its being of the parts in ``SHA256``, where its set is one of these.

    Older lines do not name every part that their folder has.
    """
    known = SHA256.get(line["set"], {})
    named = {part: sha256 for part, sha256 in line.items() if part.endswith("_sha256")}
    names_all = "export" in line or ("noise" in line and named)
    return not known or (named == known if names_all else named.items() <= known.items())


def n_opened(path: Path, name: str) -> int:
    """How often the test part of a set in ``SHA256`` was opened, whatever the folder was called and whatever it was trained on.

    Raises:
        DataError: The file cannot be read.
    """
    test_sha256 = SHA256[name]["test_sha256"]
    return sum(
        line["test_sha256"] == test_sha256 if "test_sha256" in line else line["set"] == name for line in _every(path)
    )


def last_by_seed(openings: list[Opening], name: str) -> list[Opening]:
    """The last opening of a set for each seed that was measured with the default budget.

    Seeds are comparable where their students were made alike: of several recipes, exports and assistants those of the newest line count.
    Lines that do not say their recipe cannot be compared: of these only the newest counts.
    """
    measured = [
        line
        for line in openings
        if line["set"] == name
        and line["rows"]
        and line.get("budget_minutes", DEFAULT_BUDGET_MINUTES) == DEFAULT_BUDGET_MINUTES
    ]
    newest = max(map(_made_by, measured), default=None)
    if newest == _NOT_KNOWN:
        return measured[-1:]
    if newest is not None:
        newest = _made_by(next(line for line in reversed(measured) if _made_by(line)[:2] == newest[:2]))
    return list({line["seed"]: line for line in measured if _made_by(line) == newest}.values())


def _made_by(line: Opening) -> tuple[int, int, str]:
    """Recipe, export and assistant: ``_NOT_KNOWN`` of lines that do not say."""
    recipe, export, nobody = _NOT_KNOWN
    return line.get("recipe", recipe), line.get("export", export), line.get("assistant", nobody)
