"""Bundles of the Hugging Face hub: which files of a repository are fetched, and when nobody need be asked."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill.bundle import CONFIG, MANIFEST, ONNX_FP32, ONNX_INT8, SELFCHECK, TOKENIZER
from distill.errors import BundleError, first_line, missing_extra
from distill.scrub import cause_without_secrets, without_secrets

__all__ = ["fetch"]

_SUFFIXES = (".json", ".jsonl")
_FILES = [*(f"*{suffix}" for suffix in _SUFFIXES), "README.md"]
_COMMIT = re.compile("[0-9a-f]{40}")


def fetch(name: str, revision: str | None) -> Path:
    """The folder of a repository's bundle: what the Router reads of it, and its card.

    Of a commit that was fetched whole nobody is asked again.

    Args:
        name: Repository, such as ``org/name``.
        revision: Branch, tag or commit; None is the main branch.

    Raises:
        BundleError: It cannot be fetched, or holds no bundle. No message holds a token.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub") from error

    def download(revision: str | None, *patterns: str, local_files_only: bool = False) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), local_files_only=local_files_only
            )
        )

    if revision is not None and _COMMIT.fullmatch(revision):  # what a commit holds stays as it is
        with suppress(Exception):
            folder = download(revision, MANIFEST, local_files_only=True)
            if _is_whole(folder):
                return folder
    try:
        folder = download(revision, MANIFEST)
        is_bundle = (folder / MANIFEST).exists()
        if is_bundle and not _is_whole(folder):  # of the same commit, which the folder is named after
            folder = download(folder.name, *_FILES, _graph_of(folder))
    except Exception as error:  # noqa: BLE001  # the hub's errors, and those of the network, have no common base but Exception
        token = huggingface_hub.get_token() or ""  # which may be echoed; it stands in a file where no variable holds it
        raise BundleError(
            f"{name}: neither a folder here nor fetched from the Hugging Face hub ({without_secrets(first_line(error), token)})"
        ) from cause_without_secrets(error, token)
    if not is_bundle:
        raise BundleError(f"{name}: a repository without {MANIFEST}, so no bundle; `distill publish` lays one out")
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether all that is read is there, so that nobody need be asked for it."""
    files = _manifest_part(folder, "files")
    small = [name for name in files if str(name).endswith(_SUFFIXES)] if isinstance(files, dict) else []
    return all((folder / file).exists() for file in (MANIFEST, TOKENIZER, CONFIG, SELFCHECK, _graph_of(folder), *small))


def _graph_of(folder: Path) -> str:
    """The graph that runs, by the manifest; where that names none, the usual one: opening the bundle tells what is wrong."""
    named = _manifest_part(folder, "onnx_file")
    return ONNX_INT8 if named == ONNX_INT8 else ONNX_FP32  # never what it says: it becomes a pattern of files to fetch


def _manifest_part(folder: Path, name: str) -> Any:
    """Of a manifest that nobody has checked; None where it has no such part."""
    try:
        return json.loads((folder / MANIFEST).read_bytes())[name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
