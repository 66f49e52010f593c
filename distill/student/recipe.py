"""Hyper-parameters of the students. They depend on how many examples and labels there are, never on whose they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EncoderRecipe", "StaticRecipe", "encoder_recipe", "static_recipe"]

VERSION = 4
"""Part of every recipe's hash: raised when the code of a student changes what is learnt."""

_SMALL, _MODERATE, _MEDIUM = 3_000, 6_000, 20_000
"""Numbers of training examples between which the recipes differ."""

_AUGMENTED_TEXTS, _LEAST_AUGMENTATION, _MOST_AUGMENTATION = 60_000, 2, 20
"""How many augmented texts the static student learns from, and bounds of how many that makes for each example."""


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How the encoder is trained.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples a step.
        learning_rate: Peak rate of the body (AdamW; cosine with warm-up); the head's is ``head_rate`` times that.
        head_rate: The head's learning rate over the body's.
        warmup: Share of the steps in which the rate rises.
        weight_decay: Of matrices; biases and norms have none.
        dropout: Before the head.
        label_smoothing: Share of each target that is spread evenly over all labels (``single``).
        max_length: Tokens after which a query is cut.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 1e-4
    head_rate: float = 10.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    label_smoothing: float = 0.0
    max_length: int = 256

    def as_dict(self) -> dict[str, Any]:
        """For the recipe's hash."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True)
class StaticRecipe:
    """How the static student is trained.

    Attributes:
        epochs: Passes over the training examples and the augmented texts.
        batch_size: Examples a step.
        learning_rate: Peak rate (AdamW; cosine with warm-up).
        warmup: Share of the steps in which the rate rises.
        weight_decay: Of the dense layers.
        augmentation: Augmented texts for each training example; the encoder labels them.
        label_share: Share of the teacher's label in the target of a training example; the rest is the encoder's answer.
        assistant_temperature: Softens the encoder's answers.
        dimension: Principal components that are kept of the encoder's token vectors.
        width: Columns of the gather table: the size of the hidden layer.
        buckets_per_bigram: Hash buckets for each distinct bigram of the training examples.
        fewest_buckets: At least so many buckets.
        most_buckets: At most so many buckets.
        dropout: Before the last layer.
        max_length: Tokens after which a query is cut.
    """

    epochs: int
    batch_size: int
    augmentation: int
    learning_rate: float = 1e-2
    warmup: float = 0.1
    weight_decay: float = 0.01
    label_share: float = 0.5
    assistant_temperature: float = 2.0
    dimension: int = 384
    width: int = 384
    buckets_per_bigram: float = 2.0
    fewest_buckets: int = 1_024
    most_buckets: int = 65_536
    dropout: float = 0.1
    max_length: int = 256

    def as_dict(self) -> dict[str, Any]:
        """For the recipe's hash."""
        return {"version": VERSION, **asdict(self)}


def encoder_recipe(n_examples: int) -> EncoderRecipe:
    """The encoder's recipe for so many training examples."""
    if n_examples < _SMALL:
        return EncoderRecipe(epochs=12, batch_size=32)
    return EncoderRecipe(epochs=12 if n_examples < _MEDIUM else 8, batch_size=64)


def static_recipe(n_examples: int) -> StaticRecipe:
    """The static student's recipe for so many training examples: the fewer, the more augmented texts for each."""
    augmentation = min(max(round(_AUGMENTED_TEXTS / max(n_examples, 1)), _LEAST_AUGMENTATION), _MOST_AUGMENTATION)
    return StaticRecipe(epochs=10 if n_examples < _MODERATE else 15, batch_size=256, augmentation=augmentation)
