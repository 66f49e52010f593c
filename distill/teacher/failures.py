"""When failures end a run: a teacher that is broken fails whatever it is asked, a query that it cannot answer fails alone."""

from __future__ import annotations

from dataclasses import dataclass

from distill.errors import TeacherError

__all__ = ["FailuresInARow"]

_MOST = 12
_MOST_OF_QUERIES = 100
"""Of new queries, where others were answered well: so many in a row are no chance, but an account without credit, say."""


@dataclass
class FailuresInARow:
    """Ends a run whose teacher is broken, and none because of queries that it cannot answer.

    What speaks of the teacher counts wherever it comes: no answer in time, a 500. What may speak of the query alone, an answer that
    names no intent or a refusal of what was asked, counts only while nothing has been answered well, as by a wrong
    ``answer_path`` nothing is, or where there are very many; and never for a query that failed in an earlier run too. Otherwise a
    dozen hopeless queries side by side would end every run.
    """

    n: int = 0
    n_of_queries: int = 0
    _any_good: bool = False

    def note_good(self) -> None:
        """Counts from the beginning: the teacher works."""
        self.n, self.n_of_queries, self._any_good = 0, 0, True

    def note(self, error: str, *, of_query: bool, failed_before: bool) -> None:
        """Counts a failure.

        Args:
            error: What went wrong.
            of_query: Whether it may speak of the query alone.
            failed_before: Whether an earlier run asked the same in vain.

        Raises:
            TeacherError: So many failed in a row that the teacher must be broken.
        """
        is_expected = of_query and (self._any_good or failed_before)
        self.n = 0 if is_expected else self.n + 1
        self.n_of_queries += not failed_before
        if self.n >= _MOST or self.n_of_queries >= _MOST_OF_QUERIES:
            raise TeacherError(
                f"{max(self.n, self.n_of_queries)} queries in a row failed, the last one: {error}. Mend the teacher (its server, or `teacher:` in router.yaml) and "
                "run again: answers so far are kept, and queries that failed are asked last"
            )
