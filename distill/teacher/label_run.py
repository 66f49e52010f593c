"""One labelling run in progress: questions are asked, one by one or in batches, and each answer is recorded as it comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from distill.data import ledger_key
from distill.errors import TeacherError
from distill.progress import Progress, say
from distill.teacher.answers import NotJsonError, UnmatchedError, as_said, function_scores, read_scores
from distill.teacher.asking import Question, Teacher, brief
from distill.teacher.batch import BatchRun, Labelling
from distill.teacher.client import DIALECTS, ChatClient, Dialect, Request, RequestFailedError, unusable
from distill.teacher.concurrency import for_each
from distill.teacher.earlier import described
from distill.teacher.endpoint import is_loopback, server_of
from distill.teacher.failures import FailuresInARow
from distill.teacher.functions import call_function, let_run_at_once, load_function
from distill.teacher.in_flight import Asked, open_batches
from distill.teacher.ledger import AppendLog, Ledger, time_now
from distill.teacher.prices import batch_price, check_limit_is_enforceable
from distill.teacher.retrieve import Excerpt
from distill.teacher.scrub import shown_error
from distill.teacher.sending import Charge
from distill.teacher.spend import cost_line, hold_in_flight
from distill.types import Label, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from distill.teacher.prices import Budget

__all__ = ["LabelRun"]

_TRIES = 3


@dataclass
class LabelRun:
    """What a run knows and has done so far.

    Attributes:
        teacher: Who is asked, and how.
        ledger: What was answered before, and in this run.
        budget: Is asked before each request.
        log: The ledger's file, once it is held.
        progress: What is shown.
        by_batch: Whether batches are asked.
        give_up: As for ``label``.
        show_progress: As for ``label``.
        n_asked: Requests whose answer came.
        n_failed: Those of them that failed.
        unmatched: Answers that name no intent, with their number.
    """

    teacher: Teacher
    ledger: Ledger
    budget: Budget
    log: AppendLog | None = None
    progress: Progress | None = None
    by_batch: bool = False
    give_up: bool = False
    show_progress: bool = True
    n_asked: int = 0
    n_failed: int = 0
    unmatched: Counter[str] = field(default_factory=Counter)
    _in_a_row: FailuresInARow = field(default_factory=FailuresInARow)
    _failed_before: frozenset[Question] = frozenset()
    _n_in_flight: int = 0
    _client: ChatClient | None = field(default=None, repr=False)

    async def ask_all(self, questions: list[Question]) -> None:
        """Asks every question and records each answer as it comes: by callable, by batch, or by single requests, the first alone.

        Those that failed in an earlier run come last: they may be hopeless, and must not keep the others waiting.

        Raises:
            TeacherError: The teacher cannot answer at all.
        """
        if not questions and not (self.by_batch and open_batches(self.teacher.spec)):
            return
        self._failed_before = frozenset(
            each for each in questions if self.ledger.get(self.teacher.keys(each.text, each.sample)) is not None
        )
        questions = sorted(questions, key=self._failed_before.__contains__)
        if self.teacher.spec.teacher.callable is not None:
            let_run_at_once(self.teacher.spec.teacher.concurrency)
            await for_each(questions, self._counted(self._ask_callable), self.teacher.spec.teacher.concurrency)
            return
        dialect = self.teacher.dialect_in(self.ledger)
        settings = self.teacher.spec.teacher
        async with ChatClient(settings, self.teacher.name, self.budget, dialect) as client:
            loopback = is_loopback(settings.base_url)
            check_limit_is_enforceable(self.teacher.spec, self.teacher.name, self.budget.price, loopback=loopback)
            self._client = client
            if self.teacher.by_query:
                await asyncio.to_thread(
                    lambda: self.teacher.retriever
                )  # what cannot be had is found before anything is asked
            if self.by_batch:
                await self._ask_by_batch(client, questions)
                return
            # The first alone: what the server refuses is found out once, and its prefix cache is warm for the rest.
            await for_each(questions[:1], self._counted(self._ask_model), 1)
            await for_each(questions[1:], self._counted(self._ask_model), settings.concurrency)

    async def _ask_by_batch(self, client: ChatClient, questions: list[Question]) -> None:
        """Takes what is in flight first; what it really costs is known then."""
        teacher, price = self.teacher, self.budget.price
        labelling: Labelling[Question] = Labelling(
            self.ledger,
            make=lambda question: self._in_batch(question, client.dialect),
            hashes=teacher.hashes,
            settings={hash_: brief(teacher.settings(dialect)) for dialect, hash_ in teacher.hashes.items()},
            record=self._record,
            facts={"router": teacher.spec.name, "server": server_of(teacher.spec.teacher.base_url)},
        )
        batches: BatchRun[Question] = BatchRun(
            teacher.spec, client, labelling, show_progress=self.show_progress, give_up=self.give_up
        )
        asked = await batches.resume(lambda hash_: {each.key: each for each in self._asked(questions, hash_)})
        self.budget = self.budget.at(batch_price(teacher.spec))
        await batches.run((), self.budget)
        left = [each for each in questions if not asked or asked.isdisjoint(teacher.keys(each.text, each.sample))]
        if left:
            self.budget = client.budget = self.budget.at(price)
            hold_in_flight(teacher.spec, self.budget)  # of other specs beside the same ledger
            n_tried = await self._try_out(left)
            self.budget = self.budget.at(batch_price(teacher.spec))
            await batches.run(left[n_tried:], self.budget)

    def _asked(self, questions: Iterable[Question], hash_: str) -> Iterator[Asked]:
        for each in questions:
            yield Asked(ledger_key(self.teacher.name, hash_, each.text, each.sample), each.text, each.sample)

    async def _try_out(self, questions: list[Question]) -> int:
        """Asks one alone, which finds out what the server refuses, or another where that one cannot be asked; how many it took.

        Raises:
            TeacherError: None of the first can be asked.
        """
        for number, question in enumerate(questions[:_TRIES], 1):
            await for_each([question], self._counted(self._ask_model), 1)
            if self.ledger.lines[-1].latency_ms is not None:
                return number
        raise TeacherError(f"no batch is made, since requests fail: {self.ledger.lines[-1].error}")

    def _in_batch(self, question: Question, dialect: Dialect) -> tuple[Asked, Request]:
        excerpt = self.teacher.excerpt(question.text)
        (asked,) = self._asked([question], self.teacher.hashes[dialect])
        request = self.teacher.request(question.text, excerpt, question.sample)
        return replace(asked, evidence=tuple(excerpt.ids), shown=request.shown), request

    def _record(self, answer: Label, problem: ValueError | None) -> None:
        """Takes an answer out of a batch. However many of them fail, the others are paid for too."""
        if self.log is None:
            raise TeacherError("the ledger is not open")
        self.ledger.write(self.log, answer)
        self.n_asked += 1
        self.n_failed += answer.error is not None
        if problem is not None:
            self._count_unmatched(problem)
        if self.progress is not None:
            self.progress.advance(spend_usd=self.budget.known_spend_usd)

    def _counted(self, ask: Callable[[Question], Awaitable[None]]) -> Callable[[Question], Awaitable[None]]:
        """The same, counted as in flight until its answer is recorded: latency depends on how many there are."""

        async def counted(question: Question) -> None:
            self._n_in_flight += 1
            try:
                await ask(question)
            finally:
                self._n_in_flight -= 1

        return counted

    async def _ask_model(self, question: Question) -> None:
        if self._client is None:
            raise TeacherError("the client is not open")
        # in a thread, so that other answers are not kept waiting while vectors are compared
        excerpt = await asyncio.to_thread(self.teacher.excerpt, question.text) if self.teacher.by_query else Excerpt()
        shown = {"evidence": list(excerpt.ids)} if excerpt.ids else {}
        asked_at = time_now()
        try:
            request = self.teacher.request(question.text, excerpt, question.sample)
            reply = await self._client.ask(request)
        except RequestFailedError as error:
            self._write(question, self._client.dialect, asked_at, None, str(error), error.charge, shown)
            self._finish(question, str(error), of_query=error.of_query)
            return
        said = as_said(reply.content, tokens=reply.tokens, shown=request.shown, cut_off=reply.cut_off)
        try:
            scores = read_scores(
                reply.content, self.teacher.spec, reply.tokens, shown=request.shown, cut_off=reply.cut_off
            )
            error_line = None
        except ValueError as error:
            self._count_unmatched(error)
            scores, error_line = None, unusable(error, reply.usage, cut_off=reply.cut_off)
            if isinstance(error, NotJsonError) and not reply.cut_off and self._ignores_schema(reply.dialect):
                self._write(question, reply.dialect, asked_at, None, error_line, reply.charge, shown)
                say(f"label: {self.teacher.name} ignores the JSON schema ({error}); asking for json_object")
                self._client.dialect = replace(reply.dialect, response_format="json_object")
                await self._ask_model(question)
                return
        self._write(question, reply.dialect, asked_at, scores, error_line, reply.charge, shown | said)
        self._finish(question, error_line, of_query=True)

    def _ignores_schema(self, dialect: Dialect) -> bool:
        """Whether the very first answer in a dialect with a schema shows that the server does not know schemas."""
        sends_schema = self.teacher.schema is not None and dialect.response_format == "json_schema"
        hash_ = self.teacher.hashes[dialect]
        recorded = any(line.prompt_sha256 == hash_ and line.scores is not None for line in self.ledger.lines)
        return sends_schema and self.n_asked == 0 and not recorded

    async def _ask_callable(self, question: Question) -> None:
        function = load_function(str(self.teacher.spec.teacher.callable), self.teacher.spec)
        asked_at, scores, error_line = time_now(), None, None
        called = await call_function(function, question.text)
        if called.error is not None:
            error_line = shown_error(called.error, self.teacher.spec)
        else:
            try:
                scores = function_scores(called.answer, self.teacher.spec.labels, self.teacher.spec.task)
            except (TypeError, ValueError, ArithmeticError) as error:
                self._count_unmatched(error)
                error_line = str(error)
        self._write(question, DIALECTS[0], asked_at, scores, error_line, Charge(latency_ms=called.latency_ms))
        # an error of the function says nothing of whose fault it is: what fails time and again is the query's
        of_query = called.error is None or question in self._failed_before
        self._finish(question, error_line, of_query=of_query)

    def _write(
        self,
        question: Question,
        dialect: Dialect,
        asked_at: str,
        scores: Mapping[str, float] | None,
        error: str | None,
        charge: Charge,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        hash_ = self.teacher.hashes[dialect]
        answer = Label(
            key=ledger_key(self.teacher.name, hash_, question.text, question.sample),
            text=question.text,
            scores=scores,
            error=error,
            teacher=self.teacher.name,
            prompt_sha256=hash_,
            sample=question.sample,
            usage=charge.usage or Usage(),
            latency_ms=None if charge.latency_ms is None else round(charge.latency_ms, 1),
            asked_at=asked_at,
            extra={
                "settings": brief(self.teacher.settings(dialect)),
                "router": self.teacher.spec.name,
                **described(self.teacher, self.ledger.hashes, hash_),
                **more,
                **self._circumstances(),
                **cost_line(self.budget.price, charge),
            },
        )
        if self.log is None:
            raise TeacherError("the ledger is not open")
        self.ledger.write(self.log, answer)
        self.n_asked += 1

    def _circumstances(self) -> dict[str, Any]:
        """What latency depends on: how many requests were in flight, and whose server answered."""
        if self._client is None:
            return {"in_flight": self._n_in_flight}
        return {"in_flight": self._n_in_flight, "server": server_of(self.teacher.spec.teacher.base_url)}

    def _count_unmatched(self, error: Exception) -> None:
        if isinstance(error, UnmatchedError):
            self.unmatched[error.answer] += 1

    def _finish(self, question: Question, error: str | None, *, of_query: bool) -> None:
        """Counts an answer as come; whether a failure may speak of the query alone decides on whether many of them end the run."""
        self.n_failed += error is not None
        if self.progress is not None:
            note = f"{self.n_failed} failed" if self.n_failed else ""
            self.progress.advance(spend_usd=self.budget.known_spend_usd, note=note)
        if error is None:
            self._in_a_row.note_good()
            return
        if self.n_failed == 1:
            say(f"label: a query failed ({error}); going on, failed ones are asked again by the next run")
        self._in_a_row.note(error, of_query=of_query, failed_before=question in self._failed_before)
