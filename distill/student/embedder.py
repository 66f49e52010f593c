"""The sentence encoder of ``distill.embed``: the base model before training, exported once and kept beside router.yaml."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from distill.data import sha256_json, storage_errors
from distill.embed import GRAPH, TOKENIZER, Embedder
from distill.errors import missing_extra
from distill.progress import Progress
from distill.student.weights import base_model_fingerprint, load_base_model

if TYPE_CHECKING:
    from pathlib import Path

    from distill.spec import Spec

__all__ = ["embedder_of", "open_embedder"]

_FOLDER = ".distill"
_VERSION = 1
_MAX_LENGTH = 256
_SECONDS_A_DAY = 86_400


def embedder_of(spec: Spec, *, show_progress: bool = True) -> Embedder:
    """The sentence encoder of a spec's base model, kept in ``.distill`` beside router.yaml; see ``open_embedder``."""
    return open_embedder(spec.transformer(spec.base_model), spec.folder / _FOLDER, show_progress=show_progress)


def open_embedder(base_model: str, cache: Path, *, show_progress: bool = True) -> Embedder:
    """Opens the sentence encoder of a base model. The first time it is exported, which takes torch and some seconds.

    Args:
        base_model: A local folder, or a name on the Hugging Face hub.
        cache: Where exported encoders are kept, one folder for each; git is told to leave it out.
        show_progress: Whether to show progress on stderr.

    Raises:
        TrainingError: The base model cannot be had.
        ExportError: The exported graph does not give what the base model gives.
        StorageError: Something could not be written.
        MissingExtraError: torch or another library that the export needs is not installed.
    """
    folder = cache / f"embedder-{sha256_json([_VERSION, base_model_fingerprint(base_model)])[:16]}"
    if not folder.is_dir():
        with Progress("export base", 1, "models", show=show_progress) as progress:
            try:
                _export(base_model, folder)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("distill"):
                    raise
                raise missing_extra(error.name) from error
            progress.advance()
    return Embedder(folder)


def _forget_killed(cache: Path) -> None:
    """Removes what exports that were killed have left; one that runs is younger."""
    for path in cache.glob("embedder-*.partial"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _SECONDS_A_DAY:
                shutil.rmtree(path, ignore_errors=True)


def _export(base_model: str, folder: Path) -> None:
    """Writes the folder, which appears when it is whole."""
    from distill.student.encoder import Encoder
    from distill.student.export import export_encoder, parity
    from distill.student.tokens import bundle_tokenizer

    class SentenceEncoder(Encoder):
        forward = Encoder.embed

    base = load_base_model(base_model)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    model = SentenceEncoder(base, 1, 0.0)
    tokenizer = bundle_tokenizer(base.tokenizer, min(_MAX_LENGTH, base.max_length))
    _forget_killed(folder.parent)
    with storage_errors(folder):
        partial.mkdir(parents=True, exist_ok=True)
        (folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    try:
        export_encoder(model, partial / GRAPH)
        parity(model, partial / GRAPH, tokenizer.get_vocab_size())
        with storage_errors(folder):
            (partial / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8", newline="\n")
            if not folder.is_dir():  # another process may have been quicker
                partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
