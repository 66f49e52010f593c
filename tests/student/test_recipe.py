"""Hyper-parameters by the size of the data and the budget."""

from __future__ import annotations

import pytest

from distill.spec import Spec
from distill.student.recipe import (
    DEFAULT_BUDGET_MINUTES,
    encoder_fits,
    encoder_minutes,
    encoder_recipe,
    static_minutes,
    static_recipe,
    static_recipe_alone,
)

MINILM, MPNET = 10_616_832, 84_934_656
"""Parameters of all-MiniLM-L6-v2 and all-mpnet-base-v2 without their tables."""


def test_assistants_are_taken_where_they_fit_the_budget():
    counts = [encoder_recipe(9_000, 141_000, MINILM, budget).assistants for budget in (0, 10, 30, 60, 1_000)]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 2


def test_a_larger_transformer_leaves_them_out():
    assert encoder_recipe(9_000, 141_000, MINILM, 60).assistants == 2
    assert encoder_recipe(9_000, 141_000, MPNET, 60).assistants == 0


def test_a_larger_assistant_is_taken_first_where_it_fits():
    assert not encoder_recipe(9_000, 141_000, MINILM, 5, MPNET).larger
    recipe = encoder_recipe(9_000, 141_000, MINILM, 60, MPNET)
    assert recipe.larger
    assert recipe.assistants == 1
    assert recipe.assistant(0).epochs < recipe.epochs
    assert recipe.assistant(0).learning_rate < recipe.learning_rate


def test_the_second_assistant_errs_elsewhere():
    recipe = encoder_recipe(9_000, 141_000, MINILM, 60)
    assert recipe.assistant(0) == recipe
    assert not recipe.assistant(1).probe
    assert recipe.assistant(1).learning_rate > recipe.learning_rate


def test_with_fewest_examples_the_encoder_learns_from_more_texts_where_there_is_time():
    hurried, few = (encoder_recipe(693, 10_395, MINILM, budget, MPNET) for budget in (9, 60))
    assert hurried.larger
    assert few.larger
    assert few.augmentation * 693 + few.more_texts == 40 * 693
    assert few.label_share < hurried.label_share
    assert few.again().learning_rate > hurried.again().learning_rate
    assert encoder_minutes(hurried, 693, 10_395, MINILM, MPNET) <= 9
    assert 9 < encoder_minutes(few, 693, 10_395, MINILM, MPNET) <= 60
    assert few.as_dict()["more_texts"] == 40 * 693 - few.augmentation * 693
    static = [
        static_recipe(693, 10_395, MINILM, budget - encoder_minutes(recipe, 693, 10_395, MINILM, MPNET)).more_texts
        for budget in range(9, 30)
        for recipe in [encoder_recipe(693, 10_395, MINILM, budget, MPNET)]
    ]
    assert static == sorted(static)  # a larger budget makes neither student poorer
    for other in (hurried, encoder_recipe(1_492, 18_502, MINILM, 60, MPNET)):
        assert "more_texts" not in other.as_dict()  # its hash is what it was before there were any


@pytest.mark.parametrize("n_examples", [1, 100, 3_000, 50_000, 1_000_000])
def test_augmented_texts_keep_within_bounds(n_examples):
    augmentation = static_recipe(n_examples).augmentation
    assert 2 <= augmentation <= 20
    assert augmentation == 2 or n_examples * augmentation <= 62_000


def test_more_texts_are_labelled_where_that_fits_what_is_left():
    assert static_recipe(9_000).more_texts == 0
    assert static_recipe(9_000, 141_000, MINILM, 1) == static_recipe(9_000)
    richer = static_recipe(9_000, 141_000, MINILM, 20)
    assert richer.more_texts == 340_000
    assert richer.epochs < static_recipe(9_000).epochs
    few = static_recipe(100, 1_300, MINILM, 20)
    assert few.more_texts == 6_000
    assert few.epochs == 10


def test_fewer_more_texts_where_not_all_fit():
    counts = [static_recipe(15_000, 166_000, MINILM, minutes).more_texts for minutes in (0, 4, 6, 8, 15)]
    assert counts == sorted(counts)
    assert set(counts) == {0, 85_000, 170_000, 340_000}


@pytest.mark.parametrize(
    ("n_examples", "n_tokens"), [(9_003, 146_085), (15_100, 166_536), (1_492, 18_502), (6_205, 99_968)]
)
def test_the_default_budget_has_time_for_all_that_the_measured_sets_can_use(n_examples, n_tokens):
    recipe = encoder_recipe(n_examples, n_tokens, MINILM, DEFAULT_BUDGET_MINUTES, MPNET)
    left = DEFAULT_BUDGET_MINUTES - encoder_minutes(recipe, n_examples, n_tokens, MINILM, MPNET)
    assert recipe.larger
    assert static_recipe(n_examples, n_tokens, MINILM, left).more_texts == min(340_000, 60 * n_examples)


def test_labels_by_the_thousand_are_reckoned_with():
    """``results/growth.md``: 537 seconds for 10,000 intents, 70 for 10, both of 200,000 queries."""
    alone = static_recipe_alone(200_000)
    many, few = (60 * static_minutes(alone, 200_000, 2_400_000, MINILM, n_labels) for n_labels in (10_000, 10))
    assert 0.7 < many / 537 < 1.3
    assert few < many / 5
    assert static_recipe(9_000, 141_000, MINILM, 20, 10_000).more_texts < 340_000


def test_the_spec_has_the_same_default_budget():
    assert Spec.model_fields["budget_minutes"].default == DEFAULT_BUDGET_MINUTES


def test_the_estimate_grows_with_what_is_learnt_and_asked():
    alone, assisted = (encoder_recipe(9_000, 141_000, MINILM, budget) for budget in (0, 60))
    minutes = [encoder_minutes(recipe, 9_000, 141_000, MINILM) for recipe in (alone, assisted)]
    assert 0 < minutes[0] < minutes[1] <= 60
    assert encoder_minutes(assisted, 18_000, 282_000, MINILM) > 1.5 * minutes[1]


def test_the_sets_that_students_are_measured_on_have_time_for_an_encoder():
    for n_examples, tokens in ((9_003, 16), (15_100, 11), (3_220, 11)):
        assert encoder_fits(n_examples, n_examples * tokens, MINILM, 60)
    assert not encoder_fits(200_000, 200_000 * 16, MINILM, 60)
    assert not encoder_fits(9_003, 9_003 * 16, MINILM, 0)


def test_without_an_encoder_the_passes_become_fewer_and_nothing_is_augmented():
    recipes = [static_recipe_alone(n_examples) for n_examples in (1, 1_000, 10_000, 200_000, 10**7)]
    epochs = [recipe.epochs for recipe in recipes]
    assert epochs == sorted(epochs, reverse=True)
    assert all(2 <= each <= 100 for each in epochs)
    assert not any(recipe.augmentation for recipe in recipes)
