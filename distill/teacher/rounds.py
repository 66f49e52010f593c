"""Where ``improve`` keeps what its rounds had written: the folder ``improve`` beside router.yaml.

improve/queries.jsonl            queries of the rounds that are kept, and of the one in progress; labelled and trained on
improve/round-1/synth.jsonl      raw answers of the writer, one paid request a line
improve/round-1/queries.jsonl    the queries in them
improve/round-1/plan.json        what it was to better
improve/round-1/result.json      what came of it; missing while the round is in progress
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from distill.spec import Spec

__all__ = ["SOURCE", "added_queries_path", "project_folder", "round_folder", "synthesis_paths"]

SOURCE = "improve"
"""``source`` of a query that a round added. Such queries are never held out."""

_FOLDER = "improve"


def added_queries_path(spec: Spec) -> Path:
    """The queries that rounds added; need not exist."""
    return spec.folder / _FOLDER / "queries.jsonl"


def round_folder(spec: Spec, number: int) -> Path:
    """Everything about one round, from 1."""
    return spec.folder / _FOLDER / f"round-{number}"


def project_folder(spec: Spec) -> Path:
    """Where router.yaml lies, also for the spec of a round's writer, which lies in the round's folder."""
    above = spec.folder.parent.parent
    is_round = spec.folder.parent.name == _FOLDER and spec.folder.name.startswith("round-")
    return above if is_round and (above / spec.path.name).is_file() else spec.folder


def synthesis_paths(spec: Spec) -> list[Path]:
    """Every recording of a writer: synth's own, then those of the rounds. Those that exist."""
    folder, name = project_folder(spec), spec.synthesis_path.name
    paths = (folder / name, *sorted(folder.glob(f"{_FOLDER}/round-*/{name}")))
    return [path for path in paths if path.exists()]
