"""Which failures in a row end a run."""

from __future__ import annotations

import pytest

from distill.errors import TeacherError
from distill.teacher.failures import FailuresInARow


def failed(run, n, *, of_query, failed_before=False):
    for _ in range(n):
        run.note("no", of_query=of_query, failed_before=failed_before)


@pytest.mark.parametrize("of_query", [False, True])
def test_a_teacher_that_answers_nothing_ends_the_run_soon(of_query):
    run = FailuresInARow()
    failed(run, 11, of_query=of_query)
    with pytest.raises(TeacherError, match="12 queries in a row failed, the last one: no"):
        failed(run, 1, of_query=of_query)


@pytest.mark.parametrize(("of_query", "most"), [(False, 12), (True, 100)])
def test_once_something_was_good_hopeless_queries_end_the_run_where_they_are_very_many(of_query, most):
    """A server that breaks midway ends it soon; one that says 400 when an account has no credit left looks like hopeless queries."""
    run = FailuresInARow()
    for _ in range(2):
        run.note_good()
        failed(run, most - 1, of_query=of_query)
    with pytest.raises(TeacherError, match=f"{most} queries"):
        failed(run, 1, of_query=of_query)


def test_queries_that_failed_before_end_none():
    run = FailuresInARow()
    run.note_good()
    failed(run, 1000, of_query=True, failed_before=True)
