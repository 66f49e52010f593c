"""Labels that mislead, put right before students learn them: a teacher's mistakes are learnt as readily as the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.doubt import labels_mislead, probable_labels
from distill.progress import Progress, say
from distill.student.encoder import Encoder, Pooled
from distill.student.kept import keep_arrays, kept_arrays
from distill.student.processes import add_up, is_first_process, wait_for_all
from distill.student.tokens import bundle_tokenizer, encode
from distill.student.trainer import predict
from distill.student.weights import load_base_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.student.learn import Part
    from distill.types import Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["corrected"]

_FEWEST, _MOST = 500, 50_000
"""Queries between which labels are looked at: fewer tell too little of each other, and every query is compared with every other."""
_MOST_CELLS = 5_000_000
"""Queries times labels up to which they are: what fitting a model to them takes."""


def corrected(
    training: Part, task: Task, models: Sequence[str], max_length: int, kept: Path, *, show_progress: bool
) -> Part:
    """The training part with what its labels probably are, where they mislead; otherwise as it is.

    Only ``single`` is looked at, as vectors of the pretrained transformers see it: whether labels mislead by those of the first alone.

    Args:
        training: What is to be learnt.
        task: What its targets mean.
        models: Pretrained transformers, as local folders or names; the first one is asked first.
        max_length: Tokens after which a query is cut.
        kept: File of the new targets, from which an interrupted training goes on.
        show_progress: Whether to show progress on stderr.

    Raises:
        StorageError: The new targets could not be written.
    """
    targets = training.targets
    if not task.has_one_label or not isinstance(targets, np.ndarray) or not _can_be_judged(targets):
        return training
    found = kept_arrays(kept).get("targets")
    wait_for_all()  # whoever looks later would find what the first one has just written
    if found is None or found.shape != targets.shape:
        found = _put_right(training.texts, targets, models, max_length, show_progress=show_progress)
        if is_first_process():
            keep_arrays(kept, {"targets": found})
    n_changed = int(np.count_nonzero(found.argmax(axis=1) != targets.argmax(axis=1)))
    if not n_changed:
        return training
    say(
        f"train: labels contradict each other: {n_changed:,} of {len(targets):,} are probably wrong, and students learn what they probably are "
        "(`distill audit` lists them)"
    )
    return replace(training, targets=found)


def _can_be_judged(targets: Array) -> bool:
    n_labels_given = len(np.unique(targets.argmax(axis=1)))
    return (
        _FEWEST <= len(targets) <= _MOST
        and targets.size <= _MOST_CELLS
        and n_labels_given > 1
        and bool(targets.any(axis=1).all())
    )


def _put_right(
    texts: Sequence[str], targets: Array, models: Sequence[str], max_length: int, *, show_progress: bool
) -> Array:
    first = _vectors(models[0], texts, max_length, show_progress=show_progress)
    with Progress("look for wrong labels", 1, "looks", show=show_progress) as progress:
        misleads = _by_the_first(lambda: np.asarray([labels_mislead(first, targets)], np.float32), (1,))
        progress.advance()
    if not misleads[0]:
        return targets
    vectors = [first, *(_vectors(each, texts, max_length, show_progress=show_progress) for each in models[1:])]
    with Progress("put labels right", 1, "looks", show=show_progress) as progress:
        probable = _by_the_first(lambda: probable_labels(vectors, targets), targets.shape)
        progress.advance()
    return probable


def _by_the_first(make: Callable[[], Array], shape: tuple[int, ...]) -> Array:
    """What the first of several processes makes, for all of them: a last bit that differs would part their ways."""
    made = make() if is_first_process() else np.zeros(shape, np.float32)
    add_up(made)
    return made


def _vectors(model: str, texts: Sequence[str], max_length: int, *, show_progress: bool) -> Array:
    base = load_base_model(model)
    ids = encode(bundle_tokenizer(base.tokenizer, min(max_length, base.max_length)), texts)
    with Progress("compare queries", len(ids), show=show_progress) as progress:
        return predict(Pooled(Encoder(base, 2, 0.0)), ids, progress, fast=True)
