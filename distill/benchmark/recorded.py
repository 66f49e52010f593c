"""The teacher as a Classifier: its recorded answers, replayed. Nothing is asked, nothing is invented."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from distill.benchmark.cost import TokensPerQuery
from distill.policy import Policy, scores_as_target
from distill.types import Prediction, Reason, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from distill.types import Label, Usage

__all__ = ["RecordedTeacher"]


class RecordedTeacher:
    """A teacher's raw answers, as a caller would get them.

    The best label is the answer; where that is ``oos``, there is no intent and no ``top_intent``. Several samples of a
    query are averaged. A query whose every sample failed, or that was never asked, has failed.

    Args:
        answers: Lines of the ledger, all of one teacher and prompt. The last good line of a key wins.
        labels: All labels, ``oos`` last where there is one.
        task: What a label means.
        name: Name of the model.
    """

    def __init__(
        self,
        answers: Iterable[Label],
        labels: Sequence[str],
        task: Task = Task.SINGLE,
        *,
        name: str = "",
    ) -> None:
        self.labels, self.task = tuple(labels), task
        self._policy = Policy.of_answers(task, self.labels)
        columns = {label: position for position, label in enumerate(self.labels)}
        samples: dict[str, dict[int, tuple[Label, npt.NDArray[np.float32]]]] = {}
        for answer in answers:
            name = name or answer.teacher
            scores = None if answer.error is not None else scores_as_target(answer.scores, columns, task)
            if scores is not None:
                samples.setdefault(_key(answer.text), {})[answer.sample] = (answer, scores)
        self.name = name
        self._answers = {key: [answer for answer, _ in of_text.values()] for key, of_text in samples.items()}
        self._scores: dict[str, npt.NDArray[np.float32]] = {
            key: np.stack([scores for _, scores in of_text.values()]).mean(axis=0) for key, of_text in samples.items()
        }

    @property
    def gives_scores(self) -> bool:
        """Whether any answer says more than its best label: without scores there is nothing to rank or calibrate."""
        return any(0.0 < score < 1.0 for scores in self._scores.values() for score in scores.tolist())

    def failed(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which queries have no answer: bool array of shape (n,)."""
        return np.asarray([_key(text) not in self._scores for text in texts], dtype=np.bool_)

    def route(self, text: str) -> Prediction:
        """The recorded answer for one query."""
        scores = self._scores.get(_key(text))
        if scores is None:
            return Prediction(None, 0.0, Reason.LOW_CONFIDENCE, None, labels=self.labels)
        answer = self._policy.decide(scores)
        return replace(answer, top_intent=None) if answer.reason is Reason.OUT_OF_SCOPE else answer

    def route_batch(self, texts: Sequence[str]) -> list[Prediction]:
        """The recorded answers, in order. ``failed`` tells which of them are none."""
        return [self.route(text) for text in texts]

    def latencies_ms(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Recorded latency of every answer to these queries, with other requests in flight: shape (n_answers,)."""
        recorded = (answer.latency_ms for answer in self._of(texts))
        return np.asarray([latency for latency in recorded if latency is not None], dtype=np.float64)

    def latency_of_each_ms(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Recorded latency of each query, the mean of its samples; NaN where not recorded: shape (n,)."""
        of_each = [self.latencies_ms([text]) for text in texts]
        return np.asarray([latencies.mean() if len(latencies) else np.nan for latencies in of_each])

    def requests_in_flight(self, texts: Sequence[str]) -> tuple[int, int] | None:
        """The fewest and the most requests that were in flight when these answers came; None where not recorded."""
        recorded = [answer.extra.get("in_flight") for answer in self._of(texts) if answer.latency_ms is not None]
        known = [n for n in recorded if isinstance(n, int)]
        return (min(known), max(known)) if known and len(known) == len(recorded) else None

    def servers(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Where these answers came from, as far as it was recorded."""
        return tuple(sorted({str(answer.extra["server"]) for answer in self._of(texts) if "server" in answer.extra}))

    def _of(self, texts: Sequence[str]) -> list[Label]:
        """Every good answer to these queries."""
        return [answer for text in texts for answer in self._answers.get(_key(text), [])]

    def tokens_per_query(self, texts: Sequence[str]) -> TokensPerQuery | None:
        """Mean tokens of these queries, all samples of a query together; None where the server never counted."""
        counted = [
            answers
            for text in texts
            if (answers := self._answers.get(_key(text))) and all(answer.usage.is_counted for answer in answers)
        ]
        if not counted:
            return None

        def mean(of_request: Callable[[Usage], int]) -> Decimal:
            return Decimal(sum(of_request(answer.usage) for answers in counted for answer in answers)) / len(counted)

        return TokensPerQuery(
            prompt=mean(lambda usage: usage.prompt_tokens or 0),
            completion=mean(lambda usage: usage.completion_tokens or 0),
            cached=mean(lambda usage: min(usage.cached_tokens or 0, usage.prompt_tokens or 0)),
            n=len(counted),
        )

    def recorded_between(self, texts: Sequence[str]) -> tuple[str, str] | None:
        """When the first and the last of these answers were given, ISO 8601; None where not recorded."""
        dated = sorted(answer.asked_at for answer in self._of(texts) if answer.asked_at)
        return (dated[0], dated[-1]) if dated else None


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text)
