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


def test_a_server_that_breaks_midway_ends_it_too():
    run = FailuresInARow()
    run.note_good()
    failed(run, 11, of_query=False)
    run.note_good()
    failed(run, 11, of_query=False)
    with pytest.raises(TeacherError, match="12 queries"):
        failed(run, 1, of_query=False)


def test_hopeless_queries_end_none_but_very_many_new_ones_do():
    """As a provider does that says 400 when an account has no credit left."""
    run = FailuresInARow()
    run.note_good()
    failed(run, 1000, of_query=True, failed_before=True)
    failed(run, 99, of_query=True)
    run.note_good()
    failed(run, 99, of_query=True)
    with pytest.raises(TeacherError, match="100 queries"):
        failed(run, 1, of_query=True)
