"""Hyper-parameters of the students. They depend on how many examples and labels there are, never on whose they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = [
    "DEFAULT_BUDGET_MINUTES",
    "EXPORT_VERSION",
    "MAX_LENGTH",
    "MOST_ASSISTANTS",
    "EncoderRecipe",
    "StaticRecipe",
    "encoder_fits",
    "encoder_minutes",
    "encoder_more_texts",
    "encoder_recipe",
    "most_more_texts",
    "static_minutes",
    "static_recipe",
    "static_recipe_alone",
]

VERSION = 12
"""Part of every recipe's hash: raised when the code of a student changes what is learnt."""

EXPORT_VERSION = 4
"""Part of the hash as well: raised when export, quantisation, gate or policy make a bundle of the same student that answers otherwise."""

DEFAULT_BUDGET_MINUTES = 60.0

MAX_LENGTH = 256
"""Tokens after which both students cut a query."""

_FEW, _SMALL, _MODERATE = 1_000, 3_000, 6_000
"""Numbers of training examples between which the recipes differ."""

MOST_ASSISTANTS = 2
"""Of the base model's own kind; a larger transformer takes their place."""

_EPOCHS, _EPOCHS_FOR_FEW = 6, 12
_LARGER_EPOCHS, _LARGER_EPOCHS_FOR_FEW, _LARGER_RATE = 4, 8, 3e-5

_AUGMENTATION_OF_FEW, _MORE_OF_FEW = 20, 20
_EPOCHS_AGAIN_OF_FEW, _RATE_AGAIN_OF_FEW, _LABEL_SHARE_OF_FEW = 2, 2e-4, 0.1
"""What an encoder with fewest examples learns from where there is time, augmented texts of each kind for each example, and how."""

_OPERATIONS, _LEARNING_OVER_LABELLING = 6, 4
"""Floating-point operations of learning are six a token and parameter; labelling takes a third of them, and less memory traffic."""

_OPERATIONS_PER_SECOND, _MEASURED_PARAMETERS, _QUICKER_WHEN_LARGER = 1.5e11, 10.6e6, 0.4
"""Of two cores with AVX-512 and bfloat16, over whole trainings of 38 to 41 minutes, for so many parameters; wider matrices are multiplied
at a higher rate."""

_EXAMPLES_ALONE, _LEAST_EPOCHS_ALONE, _MOST_EPOCHS_ALONE, _LARGE = 200_000, 3, 60, 20_000
"""How many examples, over all passes, a static student sees that has no encoder to ask, bounds of the passes, and from how many training
examples on a step is of more of them: it costs the same for the table of bigrams."""

_AUGMENTED_TEXTS, _LEAST_AUGMENTATION, _MOST_AUGMENTATION = 60_000, 2, 20
"""How many augmented texts the assistants label for the static student, and bounds of how many that makes for each example."""

_MORE_TEXTS, _MOST_MORE = 340_000, 60
"""How many more the encoder labels for it where there is time, and how many that makes for each example at most."""

_EPOCHS_STATIC, _EPOCHS_STATIC_MODERATE, _LEAST_EPOCHS_STATIC = 10, 15, 5
_EXAMPLES_STATIC, _EXAMPLES_STATIC_PER_SECOND = 2_300_000, 8_000
"""How many examples it sees then, over all passes, and how fast it learns from them on two cores."""

_LABELS_STATIC_PER_SECOND = 1.25e7
"""Examples times labels: what many labels cost beside that, as ``scripts/growth.py`` measured it with 10,000."""


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
        max_length: Tokens after which a query is cut.
        probe: Whether the head starts as a linear probe of the pretrained vectors; otherwise it is drawn by chance.
        assistants: Encoders trained before this one, whose mean it learns from. 0: it learns from the labels alone.
        larger: Whether the one assistant is a larger transformer.
        augmentation: Augmented texts for each training example that the assistants label for it.
        more_texts: Augmented texts beyond those, in all, half of them made of two of one label; the assistants label them too.
        label_share: Share of the teacher's label in the target of a training example; the rest is the assistants' answer.
        assistant_temperature: Softens the assistants' answers.
        epochs_again: Passes over training examples and augmented texts, where there are assistants.
        learning_rate_again: Peak rate then.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 5e-5
    head_rate: float = 10.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    max_length: int = MAX_LENGTH
    probe: bool = True
    assistants: int = 0
    larger: bool = False
    augmentation: int = 5
    label_share: float = 0.5
    assistant_temperature: float = 1.0
    epochs_again: int = 2
    learning_rate_again: float = 1e-4
    more_texts: int = 0

    def assistant(self, number: int) -> EncoderRecipe:
        """Of the assistant ``number``: every second one starts from chance and learns faster and longer, and so errs elsewhere.

        A larger one needs fewer passes, at a lower rate.
        """
        if self.larger:
            epochs = _LARGER_EPOCHS if self.epochs == _EPOCHS else _LARGER_EPOCHS_FOR_FEW
            return replace(self, learning_rate=_LARGER_RATE, epochs=epochs)
        if number % 2 == 0:
            return self
        return replace(self, probe=False, learning_rate=2 * self.learning_rate, epochs=round(self.epochs * 5 / 3))

    def again(self) -> EncoderRecipe:
        """Of the encoder that learns from assistants."""
        return replace(self, epochs=self.epochs_again, learning_rate=self.learning_rate_again)

    def as_dict(self) -> dict[str, Any]:
        """For the recipe's hash; without ``more_texts`` where there are none, as before there were any."""
        return {
            "version": VERSION,
            **{name: value for name, value in asdict(self).items() if name != "more_texts" or value},
        }


@dataclass(frozen=True, slots=True)
class StaticRecipe:
    """How the static student is trained.

    Attributes:
        epochs: Passes over the training examples and the augmented texts.
        batch_size: Examples a step.
        learning_rate: Peak rate (AdamW; cosine with warm-up).
        warmup: Share of the steps in which the rate rises.
        weight_decay: Of the dense layers.
        augmentation: Augmented texts for each training example; the assistants and the encoder label them.
        label_share: Share of the teacher's label in the target of a training example; the rest is the mean of the encoders' answers.
        more_texts: Augmented texts beyond those, in all, which the encoder alone labels.
        assistant_temperature: Softens the encoder's answers.
        dimension: Principal components that are kept of the encoder's token vectors.
        width: Columns of the gather table: the size of the hidden layer.
        buckets_per_bigram: Hash buckets for each distinct bigram of the training examples.
        fewest_buckets: At least so many buckets.
        most_buckets: At most so many buckets.
        dropout: Before the last layer.
        bigram_dropout: Share of the bigrams that is left out while training.
    """

    epochs: int
    batch_size: int
    augmentation: int
    learning_rate: float = 3e-2
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
    bigram_dropout: float = 0.8
    more_texts: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For the recipe's hash."""
        return {"version": VERSION, **asdict(self)}


def encoder_recipe(
    n_examples: int, n_tokens: int, n_parameters: int, budget_minutes: float, n_larger: int | None = None
) -> EncoderRecipe:
    """The encoder's recipe: by how many training examples there are, with the best assistants that the budget allows.

    Args:
        n_examples: Training examples.
        n_tokens: In all of them together, special ones included, each cut at ``MAX_LENGTH``.
        n_parameters: Of the transformer, its table of tokens not counted.
        budget_minutes: What training may take on two cores. The estimate takes no account of the machine, so that the same data and
            budget give the same recipe everywhere.
        n_larger: Parameters of a larger transformer that can be the assistant; None: there is none.
    """
    is_small = n_examples < _SMALL
    recipe = EncoderRecipe(
        epochs=_EPOCHS_FOR_FEW if is_small else _EPOCHS,
        batch_size=32 if is_small else 64,
        augmentation=10 if is_small else 5,
        epochs_again=3 if is_small else 2,
    )
    size = n_examples, n_tokens, n_parameters, n_larger
    choices = [replace(recipe, assistants=number) for number in range(MOST_ASSISTANTS, 0, -1)]
    if n_larger is not None:
        assisted = replace(recipe, assistants=1, larger=True)
        if richer := _richer(assisted, n_examples):
            for_static = _minutes_of_more_texts(n_examples, n_tokens, n_parameters)  # they come first
            if _fits(richer, *size, budget_minutes - for_static):
                return richer
        choices.insert(0, assisted)
    return next((choice for choice in choices if _fits(choice, *size, budget_minutes)), recipe)


def _fits(
    recipe: EncoderRecipe, n_examples: int, n_tokens: int, n_parameters: int, n_larger: int | None, minutes: float
) -> bool:
    return encoder_minutes(recipe, n_examples, n_tokens, n_parameters, n_larger) <= minutes


def _minutes_of_more_texts(n_examples: int, n_tokens: int, n_parameters: int) -> float:
    """What the most texts that the encoder labels for the static student cost."""
    recipe = static_recipe(n_examples)
    richest = replace(recipe, more_texts=most_more_texts(n_examples))
    minutes = [static_minutes(each, n_examples, n_tokens, n_parameters) for each in (richest, recipe)]
    return minutes[0] - minutes[1]


def encoder_more_texts(n_examples: int) -> int:
    """How many more texts a larger assistant labels for the encoder where there is time."""
    return _MORE_OF_FEW * n_examples if n_examples < _FEW else 0


def _richer(recipe: EncoderRecipe, n_examples: int) -> EncoderRecipe | None:
    """The recipe with more texts, where examples are so few that it has any."""
    more_texts = encoder_more_texts(n_examples)
    if not more_texts:
        return None
    return replace(
        recipe,
        more_texts=more_texts,
        augmentation=_AUGMENTATION_OF_FEW,
        epochs_again=_EPOCHS_AGAIN_OF_FEW,
        learning_rate_again=_RATE_AGAIN_OF_FEW,
        label_share=_LABEL_SHARE_OF_FEW,
    )


def encoder_minutes(
    recipe: EncoderRecipe, n_examples: int, n_tokens: int, n_parameters: int, n_larger: int | None = None
) -> float:
    """About how long the encoder and its assistants take on two cores, to learn and to label. Arguments as for ``encoder_recipe``."""
    more = recipe.more_texts / max(n_examples, 1)
    pool = max(recipe.augmentation if recipe.assistants else 0, _augmentation(n_examples)) + more
    labelling = (1 + pool) / _LEARNING_OVER_LABELLING
    own = recipe.epochs_again * (1 + recipe.augmentation + more) if recipe.assistants else recipe.epochs
    passes = [(own + labelling, n_parameters)]
    for number in range(recipe.assistants):
        size = n_larger if recipe.larger and n_larger else n_parameters
        passes.append((recipe.assistant(number).epochs + labelling, size))
    return sum(each * _seconds_a_pass(n_tokens, size) for each, size in passes) / 60


def encoder_fits(n_examples: int, n_tokens: int, n_parameters: int, budget_minutes: float) -> bool:
    """Whether one encoder can be trained and asked in this time. Arguments as for ``encoder_recipe``."""
    alone = encoder_recipe(n_examples, n_tokens, n_parameters, 0)
    return encoder_minutes(alone, n_examples, n_tokens, n_parameters) <= budget_minutes


def _seconds_a_pass(n_tokens: int, n_parameters: int) -> float:
    """Of learning from all examples once."""
    rate = _OPERATIONS_PER_SECOND * (n_parameters / _MEASURED_PARAMETERS) ** _QUICKER_WHEN_LARGER
    return float(n_tokens * _OPERATIONS * n_parameters / rate)


def static_recipe(
    n_examples: int, n_tokens: int = 0, n_parameters: int = 0, minutes_left: float = 0.0, n_labels: int = 0
) -> StaticRecipe:
    """The static student's recipe for so many training examples: the fewer, the more augmented texts for each.

    Args:
        n_examples: Training examples.
        n_tokens: In all of them together, special ones included, each cut at ``MAX_LENGTH``.
        n_parameters: Of the encoder that labels for it, its table of tokens not counted.
        minutes_left: What the encoder and its assistants, which come first, leave of the budget: with enough of it, many more
            texts are labelled, or half or a quarter as many.
        n_labels: Number of labels, which cost time where they are thousands.
    """
    augmentation = _augmentation(n_examples)
    epochs = _EPOCHS_STATIC if n_examples < _MODERATE else _EPOCHS_STATIC_MODERATE
    recipe = StaticRecipe(epochs=epochs, batch_size=256, augmentation=augmentation)
    if minutes_left <= 0:
        return recipe
    most = most_more_texts(n_examples)
    for more in (most, most // 2, most // 4):
        n_texts = n_examples * (1 + augmentation) + more
        epochs = min(max(round(_EXAMPLES_STATIC / n_texts), _LEAST_EPOCHS_STATIC), _EPOCHS_STATIC)
        richer = replace(recipe, more_texts=more, epochs=epochs)
        if static_minutes(richer, n_examples, n_tokens, n_parameters, n_labels) <= minutes_left:
            return richer
    return recipe


def most_more_texts(n_examples: int) -> int:
    """How many more texts the encoder labels for the static student where there is time."""
    return min(_MORE_TEXTS, _MOST_MORE * n_examples)


def static_minutes(
    recipe: StaticRecipe, n_examples: int, n_tokens: int = 0, n_parameters: int = 0, n_labels: int = 0
) -> float:
    """About how long the static student takes on two cores: to have more texts labelled, and to learn. Arguments as for ``static_recipe``."""
    seconds_to_label = _seconds_a_pass(n_tokens, n_parameters) / n_examples / _LEARNING_OVER_LABELLING
    n_learnt = (n_examples * (1 + recipe.augmentation) + recipe.more_texts) * recipe.epochs
    seconds_to_learn = n_learnt / _EXAMPLES_STATIC_PER_SECOND + n_learnt * n_labels / _LABELS_STATIC_PER_SECOND
    return (recipe.more_texts * seconds_to_label + seconds_to_learn) / 60


def _augmentation(n_examples: int) -> int:
    return min(max(round(_AUGMENTED_TEXTS / max(n_examples, 1)), _LEAST_AUGMENTATION), _MOST_AUGMENTATION)


def static_recipe_alone(n_examples: int) -> StaticRecipe:
    """The recipe of a static student that learns from labels alone: no encoder could label augmented texts for it."""
    epochs = min(max(round(_EXAMPLES_ALONE / max(n_examples, 1)), _LEAST_EPOCHS_ALONE), _MOST_EPOCHS_ALONE)
    batch_size = 64 if n_examples < _SMALL else 256 if n_examples < _LARGE else 1_024
    return StaticRecipe(epochs=epochs, batch_size=batch_size, augmentation=0)
