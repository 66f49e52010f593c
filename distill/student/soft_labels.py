"""What trained encoders say of texts: soft labels for other students, kept in parts, so that a killed training asks little twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import sha256_json
from distill.progress import Progress
from distill.student.calibrate import probabilities
from distill.student.kept import keep_arrays, kept_arrays
from distill.student.processes import is_first_process, wait_for_all
from distill.student.targets import SparseTargets, fits_array, highest, joined, mapped, mean, most_rows
from distill.student.tokens import encode
from distill.student.trainer import predict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

    from distill.student.encoder import Encoder
    from distill.student.targets import Targets
    from distill.types import Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["Assistant", "ask", "mean_answer"]

_MOST_IN_A_PART = 8_192
"""Texts: a minute or two of a large assistant on two cores."""


@dataclass(frozen=True, slots=True, eq=False)
class Assistant:
    """A trained and calibrated encoder that labels for others.

    Attributes:
        encoder: Its model.
        tokenizer: Made by ``bundle_tokenizer``; the vocabulary may be another than the student's.
    """

    encoder: Encoder
    tokenizer: Tokenizer


def ask(assistant: Assistant, texts: Sequence[str], kept: Path, *, show_progress: bool) -> Targets:
    """What an assistant says of texts: logits, float32 of shape (n, n_labels).

    Of many texts over many labels only the highest logits of each text are kept.

    Args:
        assistant: Whom to ask.
        texts: What to ask.
        kept: Folder of this assistant's answers, from which an interrupted training goes on.
        show_progress: Whether to show progress on stderr.

    Raises:
        StorageError: The answers could not be written.
    """
    n_labels = assistant.encoder.head.out_features
    all_labels, step = fits_array(len(texts), n_labels), min(_MOST_IN_A_PART, most_rows(n_labels))
    parts = [texts[start : start + step] for start in range(0, len(texts), step)]
    files = [kept / f"{sha256_json(list(part))[:16]}.safetensors" for part in parts]
    answers = [_kept_answer(file, len(part), n_labels) for file, part in zip(files, parts, strict=True)]
    wait_for_all()  # whoever looks later would find what the first one has just written
    with Progress("ask encoders", len(texts), show=show_progress) as progress:
        if n_known := sum(len(answer) for answer in answers if answer is not None):
            progress.skip(n_known)
        for number, part in enumerate(parts):
            if answers[number] is not None:
                continue
            logits = predict(assistant.encoder, encode(assistant.tokenizer, part), progress, fast=True)
            answers[number] = answer = logits if all_labels else highest(logits)
            if is_first_process():
                keep_arrays(files[number], _as_arrays(answer))
    return joined([answer for answer in answers if answer is not None])


def _as_arrays(answer: Targets) -> dict[str, np.ndarray[Any, Any]]:
    if not isinstance(answer, SparseTargets):
        return {"values": answer}
    shape = len(answer), -1
    return {"columns": answer.matrix.indices.reshape(shape), "values": answer.matrix.data.reshape(shape)}


def _kept_answer(file: Path, n: int, n_labels: int) -> Targets | None:
    """What is kept of so many texts, if just that is."""
    arrays = kept_arrays(file)
    values = arrays.get("values")
    if values is None or len(values) != n:
        return None
    if "columns" in arrays:
        return SparseTargets.of(arrays["columns"], values, n_labels)
    return values if values.shape[1] == n_labels else None


def mean_answer(task: Task, logits: Sequence[Targets], temperature: float) -> Targets:
    """Mean of the assistants' probabilities, float32 of shape (n, n_labels).

    Args:
        task: Picks softmax or sigmoid.
        logits: Of one assistant or more. Labels whose logit was not kept get the probability 0.
        temperature: Softens the answers.
    """
    answers = [mapped(each, lambda values: probabilities(task, values / np.float32(temperature))) for each in logits]
    return mean(answers)
