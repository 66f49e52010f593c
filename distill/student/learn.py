"""How each student learns: the encoder from labels, the static student from labels and from the encoder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distill.data import atomic_write
from distill.progress import Progress, say
from distill.student.calibrate import fit_temperature
from distill.student.encoder import Encoder, Pooled
from distill.student.probe import linear_probe, most_iterations
from distill.student.processes import is_first_process
from distill.student.static import Static
from distill.student.targets import mixed, stacked
from distill.student.tokens import bundle_tokenizer, encode
from distill.student.trainer import Schedule, TrainingSet, checkpoint_errors, fit, predict
from distill.student.vectors import first_gates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.student.recipe import EncoderRecipe, StaticRecipe
    from distill.student.targets import Targets
    from distill.student.tokens import Ids
    from distill.student.vectors import Lexicon
    from distill.student.weights import BaseModel
    from distill.types import Example, Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["Lesson", "Part", "distilled", "learn_encoder", "learn_static"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Examples as arrays.

    Attributes:
        texts: n texts.
        targets: float32 of shape (n, n_labels).
        weights: float32 of shape (n,).
    """

    texts: list[str]
    targets: Targets
    weights: Array

    @classmethod
    def of(cls, examples: Sequence[Example], n_labels: int) -> Part:
        """Arrays of the examples."""
        return cls(
            [example.text for example in examples],
            stacked([example.target for example in examples], n_labels),
            np.asarray([example.weight for example in examples], np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What both students learn from.

    Attributes:
        task: Picks the loss.
        n_labels: Number of labels.
        training: What is learnt.
        held_out: What the temperature is fitted on; where nothing is, it is 1.
        max_length: Tokens after which a query is cut.
        seed: The same seed gives the same student on the same machine.
        show_progress: Whether to show progress on stderr.
    """

    task: Task
    n_labels: int
    training: Part
    held_out: Part
    max_length: int
    seed: int
    show_progress: bool


def learn_encoder(
    base: BaseModel, lesson: Lesson, recipe: EncoderRecipe, kept: Path, name: str = "encoder"
) -> tuple[Encoder, float]:
    """Fits a head on the pretrained vectors, fine-tunes both, and bakes in the temperature that fits the held-out examples.

    Args:
        base: The pretrained transformer; it is trained in place.
        lesson: What to learn.
        recipe: How.
        kept: Folder for what an interrupted training needs to go on, and for the trained weights; of this data, recipe and seed alone.
        name: For the progress, and of the file of weights.

    Returns:
        The encoder and the temperature.

    Raises:
        StorageError: A checkpoint could not be written.
    """
    torch.manual_seed(lesson.seed)
    encoder = Encoder(base, lesson.n_labels, recipe.dropout)
    tokenizer = bundle_tokenizer(base.tokenizer, lesson.max_length)
    finished, checkpoints = kept / f"{name}.safetensors", kept / name
    if not _restore(encoder, finished):
        training = lesson.training
        ids = encode(tokenizer, training.texts)
        if recipe.probe:
            with Progress(f"probe {name}", len(ids), show=lesson.show_progress) as progress:
                vectors = predict(Pooled(encoder), ids, progress, fast=True)
            passes = most_iterations(*training.targets.shape)
            with Progress(f"fit head of {name}", passes, "passes", show=lesson.show_progress) as progress:
                head = linear_probe(lesson.task, vectors, training.targets, training.weights, progress)
            encoder.start_head(*head)
        schedule = Schedule(
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup=recipe.warmup,
            weight_decay=recipe.weight_decay,
            head_rate=recipe.head_rate,
            mixed_precision=True,
        )
        data = TrainingSet(ids, training.targets, training.weights)
        with Progress(f"train {name}", recipe.epochs * len(data), show=lesson.show_progress) as progress:
            fit(encoder, data, schedule, task=lesson.task, seed=lesson.seed, work=checkpoints, progress=progress)
        if is_first_process():
            _keep(encoder, finished)
            shutil.rmtree(checkpoints, ignore_errors=True)
    return encoder, _calibrate(encoder, encode(tokenizer, lesson.held_out.texts), lesson)


def distilled(training: Part, new_texts: Sequence[str], answers: Targets, label_share: float) -> Part:
    """Training examples whose targets are part label, part the assistants' answer, and new texts with the answer alone.

    Args:
        training: Labelled examples.
        new_texts: Without a label.
        answers: float32 of shape (n + n_new, n_labels): to the training examples first.
        label_share: Share of the label.
    """
    targets = mixed(answers, training.targets, label_share)
    weights = np.concatenate([training.weights, np.full(len(new_texts), training.weights.mean(), np.float32)])
    return Part([*training.texts, *new_texts], targets, weights)


def learn_static(
    base: BaseModel,
    answers: Targets | None,
    new_texts: Sequence[str],
    words: Lexicon,
    lesson: Lesson,
    recipe: StaticRecipe,
    kept: Path,
) -> tuple[Static, float]:
    """Trains a static student on the labels and on what encoders say about the training texts and about augmented ones.

    Args:
        base: For its tokenizer.
        answers: Probabilities, float32 of shape (n + n_new, n_labels): to the training texts first, then to the new ones. None: there is
            no encoder to ask, and the student learns from the labels alone.
        new_texts: Augmented ones.
        words: What the base knew of words before it was trained.
        lesson: What to learn.
        recipe: How.
        kept: Folder for what an interrupted training needs to go on; of this data, recipe and seed alone.

    Returns:
        The student, its temperature baked in, and the temperature.

    Raises:
        StorageError: A checkpoint could not be written.
    """
    tokenizer = bundle_tokenizer(base.tokenizer, lesson.max_length, special_tokens=False)
    texts = [*lesson.training.texts, *new_texts]
    pupil = lesson.training
    if answers is not None:
        pupil = distilled(lesson.training, new_texts, answers, recipe.label_share)
    ids, n_known = encode(tokenizer, texts), len(lesson.training.texts)
    torch.manual_seed(lesson.seed)
    static = Static(
        words.vectors,
        first_gates(ids[:n_known], len(words.vectors)),
        ids[:n_known],
        n_labels=lesson.n_labels,
        width=recipe.width,
        n_buckets=_n_buckets(ids[:n_known], recipe),
        dropout=recipe.dropout,
        bigram_dropout=recipe.bigram_dropout,
    )
    schedule = Schedule(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        threads=1,
    )
    with Progress("train static", recipe.epochs * len(ids), show=lesson.show_progress) as progress:
        data = TrainingSet(ids, pupil.targets, pupil.weights)
        fit(static, data, schedule, task=lesson.task, seed=lesson.seed, work=kept, progress=progress)
    return static, _calibrate(static, encode(tokenizer, lesson.held_out.texts), lesson)


def _n_buckets(ids: Sequence[Ids], recipe: StaticRecipe) -> int:
    """A prime number of buckets that fits the number of distinct bigrams."""
    n_bigrams = len({bigram for text in ids for bigram in zip([-1, *text], [*text, -1], strict=True)})
    candidate = min(max(round(n_bigrams * recipe.buckets_per_bigram), recipe.fewest_buckets), recipe.most_buckets) | 1
    while any(candidate % divisor == 0 for divisor in range(3, int(candidate**0.5) + 1, 2)):
        candidate += 2
    return candidate


def _calibrate(model: Encoder | Static, ids: Sequence[Ids], lesson: Lesson) -> float:
    held_out = lesson.held_out
    temperature = fit_temperature(lesson.task, predict(model, ids), held_out.targets[:], held_out.weights)
    model.bake_temperature(temperature)
    return temperature


def _keep(encoder: Encoder, path: Path) -> None:
    from safetensors.torch import save_file

    with checkpoint_errors(path), atomic_write(path) as partial:
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, str(partial))


def _restore(encoder: Encoder, path: Path) -> bool:
    """Whether the weights at ``path`` could be taken; what cannot be read is as if it were not there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        encoder.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError):
        return False
    say("train: goes on with the encoder that was trained before")
    return True
