"""Asking the teacher again about labels that are doubted: several answers each, beside the nearest known queries.

It is told what labelling tells it: all intents and known examples, or the nearest to the query where they are many. What is known of
the query itself is never shown.

Each answer that was paid for is a line of the ledger, under a prompt hash of its own. What follows from them, the mean of all answers
to a query, the first ones and the new, is written under the key of the query's label as an answer that was carried over: the last good
line of a key wins, so training takes it, and the first answer stays above it. It depends on the answers alone: to decide
once more changes nothing.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.data import as_known, ledger_key, sha256_json
from distill.errors import SpecError, SpendLimitError, TeacherError, UnknownSpendError
from distill.progress import Progress
from distill.teacher.answers import FORMS, Answer, function_scores, in_words, read_scores
from distill.teacher.asking import Teacher, brief, effort
from distill.teacher.changed import best, mean
from distill.teacher.client import DIALECTS, ChatClient, Dialect, Request, RequestFailedError, characters_of, unusable
from distill.teacher.concurrency import for_each, run_sync
from distill.teacher.endpoint import is_loopback, server_of
from distill.teacher.failures import FailuresInARow
from distill.teacher.functions import call_function, let_run_at_once, load_function
from distill.teacher.label import check_can_label, new_lines, recorded_samples, requester
from distill.teacher.ledger import AppendLog, Ledger, time_now
from distill.teacher.prices import check_limit_is_enforceable, teacher_price
from distill.teacher.prompt import Messages, render, template_text
from distill.teacher.rereading import ASKED_AGAIN, is_asked_again, is_decision
from distill.teacher.retrieve import Excerpt
from distill.teacher.scrub import shown_error
from distill.teacher.sending import Charge
from distill.teacher.spend import cost_line, estimate, limited, open_budget, spending
from distill.types import Label, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from distill.spec import Spec
    from distill.teacher.prices import Budget
    from distill.teacher.retrieve import OpenEmbedder

__all__ = [
    "SAMPLES",
    "Case",
    "RelabelPlan",
    "RelabelSummary",
    "check_can_relabel",
    "plan_relabel",
    "relabel",
    "votes_of",
]

SAMPLES = 3
"""New answers to each query."""

_TEMPERATURE = 0.7
"""Where labelling has 0: answers that cannot differ say nothing of how sure they are."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query whose label is doubted.

    Attributes:
        text: Redacted.
        evidence: Other queries and what they are labelled, redacted, the least alike first.
    """

    text: str
    evidence: tuple[tuple[str, Answer], ...] = ()


@dataclass(frozen=True, slots=True)
class RelabelPlan:
    """What asking again would ask.

    Attributes:
        n_cases: Queries.
        n_missing: Good answers that the ledger lacks.
        estimated_usd: For these, or None when the price is unknown.
        most_usd: The same should each be as long as it may, where the model has given no answer yet.
    """

    n_cases: int
    n_missing: int
    estimated_usd: Decimal | None
    most_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class RelabelSummary:
    """What asking again did.

    Attributes:
        n_cases: Queries that were to be asked about.
        n_asked: Requests whose answer came in this run.
        n_failed: Of these, without an answer.
        n_confirmed: Queries whose label stays as it is, or the likeliest.
        n_changed: Queries that have another label now; of weights, another strongest one.
        n_left: Queries that still lack answers: the limit was reached, or they failed.
        usd: Spent in this run; None when the price or the tokens are unknown.
        limit_reached: Whether the spend limit ended it.
    """

    n_cases: int
    n_asked: int
    n_failed: int
    n_confirmed: int
    n_changed: int
    n_left: int
    usd: Decimal | None
    limit_reached: bool


class _Again:
    """How the teacher is asked again, as the ledger knows it: name, prompt, and hash for each dialect."""

    def __init__(
        self, spec: Spec, samples: int, open_embedder: OpenEmbedder | None = None, *, show_progress: bool = False
    ) -> None:
        if spec.labels_path is not None:
            raise SpecError(
                f"{spec.path}: the labels are people's ({spec.labels_path}), whom nobody asks again here; correct them by hand"
            )
        self.spec, self.samples, self.name = spec, samples, spec.teacher_name
        self.teacher = Teacher(spec, open_embedder, show_progress=show_progress)
        self.form, self.schema, self.prompt_path = self.teacher.form, self.teacher.schema, self.teacher.prompt_path
        by_query = self.form.relabel_template_by_query if self.teacher.by_query else None
        self.template_name = by_query or self.form.relabel_template
        self.template = self.teacher.template if self.prompt_path else template_text(self.template_name)
        self.temperature = spec.teacher.temperature or (_TEMPERATURE if spec.teacher.temperature == 0 else None)

    def settings(self, dialect: Dialect) -> dict[str, Any]:
        """What an answer depends on besides the query and its evidence."""
        by_query = self.teacher.by_query
        shown = [[i.name, i.description, [] if by_query.examples else list(i.examples)] for i in self.teacher.intents]
        intents = sha256_json(shown)
        if self.spec.teacher.callable is not None:
            callable_ = self.spec.teacher.callable
            return {"stage": ASKED_AGAIN, "callable": callable_, "intents": intents, **self.form.settings}
        sends_schema = self.schema is not None and dialect.response_format != "text"
        return {
            "stage": ASKED_AGAIN,
            "template": self.prompt_path.name if self.prompt_path else self.template_name,
            "template_sha256": sha256_json(self.template),
            "intents": intents,
            "response_format": dialect.response_format if sends_schema else "text",
            "temperature": self.temperature if dialect.temperature else None,
            "answer": sha256_json([self.spec.teacher.answer_path, self.spec.teacher.answer_map]),
            **effort(self.spec, dialect),
            **({"by_query": by_query.settings} if by_query else {}),
            **self.form.settings,
        }

    @cached_property
    def hashes(self) -> dict[Dialect, str]:
        return {dialect: sha256_json(self.settings(dialect)) for dialect in DIALECTS}

    def answers(self, ledger: Ledger, text: str) -> list[Label | None]:
        """The recorded answer to each sample, good or failed; None where there is none."""
        return [self.answer(ledger, text, sample) for sample in range(self.samples)]

    def answer(self, ledger: Ledger, text: str, sample: int) -> Label | None:
        """The recorded answer to one sample, good or failed; None where there is none."""
        return ledger.get(ledger_key(self.name, hash_, text, sample) for hash_ in dict.fromkeys(self.hashes.values()))

    def missing(self, ledger: Ledger, cases: Iterable[Case]) -> list[tuple[Case, int]]:
        """Cases and samples without a good answer: one case after the other."""
        return [
            (case, sample)
            for case in cases
            for sample, answer in enumerate(self.answers(ledger, case.text))
            if answer is None or answer.scores is None
        ]

    def excerpt(self, case: Case) -> Excerpt:
        """What is shown beside this query alone: intents that its evidence names may be answered too."""
        found = self.teacher.excerpt(case.text)
        if found.candidates is None:
            return found
        evident = {name for _, answer in case.evidence for name in ([answer] if isinstance(answer, str) else answer)}
        evident -= {each.name for each in found.candidates}
        also = (each for each in self.spec.intent_list if each.name in evident)
        return replace(found, candidates=(*found.candidates, *also))

    def messages(self, case: Case, excerpt: Excerpt) -> Messages:
        """The prompt about one doubtful label, beside the queries nearest to it."""
        if self.prompt_path is not None:
            examples = self._examples_beside(case) if excerpt.examples is None else excerpt.examples
            return self.teacher.messages(case.text, replace(excerpt, examples=examples))
        known = {text for text, _ in excerpt.examples or ()}
        return render(
            self.template_name,
            intents=self.teacher.intents,
            out_of_scope=self.spec.out_of_scope_intent,
            examples=self._examples_beside(case) if excerpt.examples is None else [],
            candidates=excerpt.candidates,
            known=excerpt.examples,
            evidence=[pair for pair in _others(case.evidence, case.text) if pair[0] not in known],
            query=case.text,
        )

    def _examples_beside(self, case: Case) -> tuple[tuple[str, Any], ...]:
        return _others(self.teacher.examples, case.text)

    def typical_characters(self, case: Case) -> int:
        """About how long a request is; takes no vectors."""
        first = self.teacher.by_query.first(self.spec.intent_list, self.teacher.examples)
        return characters_of(self.messages(case, first), self.schema)

    def request(self, case: Case, excerpt: Excerpt) -> Request:
        limits, shown = (self.temperature, self.spec.teacher.max_output_tokens), self.teacher.shown(excerpt)
        return Request(self.messages(case, excerpt), self.schema, *limits, shown=shown)


def _others(examples: Iterable[tuple[str, Any]], text: str) -> tuple[tuple[str, Any], ...]:
    """Those that are not the query itself, but for case and punctuation: it is not told its own answer."""
    return tuple(pair for pair in examples if as_known(pair[0]) != as_known(text))


def plan_relabel(spec: Spec, cases: Sequence[Case], *, samples: int = SAMPLES) -> RelabelPlan:
    """Counts the answers that are missing and estimates their price; asks nothing.

    Raises:
        SpecError: The labels are people's.
    """
    again = _Again(spec, samples)
    missing = again.missing(Ledger(spec.ledger_path), cases)
    cost = estimate(
        spec,
        again.name,
        "label",
        None if spec.teacher.callable is not None else teacher_price(spec),
        characters=sum(again.typical_characters(case) for case, _ in missing),
        n_requests=len(missing),
        typical_tokens=again.form.answer_tokens(spec.labels),
        most_tokens=spec.teacher.max_output_tokens,
    )
    return RelabelPlan(len(cases), len(missing), cost.usd, cost.most_usd)


def check_can_relabel(spec: Spec, *, max_usd: Decimal | None = None) -> None:
    """What would stop asking again before anything is asked stops here what would be done before it.

    A recording of such answers may hold all that is to be asked: then only asking itself tells.

    Args:
        spec: The router's spec.
        max_usd: As for ``relabel``.

    Raises:
        SpecError: The labels are people's; or the limit cannot be kept, as no price is known.
        TeacherError: The teacher cannot answer at all.
    """
    again = _Again(spec, SAMPLES)
    if Ledger(spec.ledger_path).hashes.isdisjoint(again.hashes.values()):
        check_can_label(limited(spec, spec.teacher.model, max_usd))


def votes_of(spec: Spec, texts: Iterable[str]) -> dict[str, dict[str, int]]:
    """What was answered when the teacher was asked again, for those of some redacted texts it was: how often each answer.

    Answers that name an intent that is none any more are left out.
    """
    wanted = {unicodedata.normalize("NFC", text): text for text in texts}
    last = {
        line.key: line
        for line in Ledger(spec.ledger_path).lines
        if _is_answer(line, spec)
        and line.teacher == spec.teacher_name
        and is_asked_again(line.extra)
        and _nfc(line) in wanted
        and {name for name, score in (line.scores or {}).items() if score}.issubset(spec.labels)
    }
    votes: dict[str, Counter[str]] = {}
    for line in last.values():
        said = in_words(FORMS[spec.task].answer(_in_order(line.scores or {}, spec)))
        votes.setdefault(wanted[_nfc(line)], Counter())[said] += 1
    return {text: dict(counts.most_common()) for text, counts in votes.items()}


def _nfc(line: Label) -> str:
    return unicodedata.normalize("NFC", line.text)


def _in_order(scores: Mapping[str, float], spec: Spec) -> dict[str, float]:
    return {name: scores[name] for name in spec.labels if name in scores}


def relabel(
    spec: Spec,
    cases: Sequence[Case],
    *,
    samples: int = SAMPLES,
    max_usd: Decimal | None = None,
    open_embedder: OpenEmbedder | None = None,
    show_progress: bool = True,
) -> RelabelSummary:
    """Asks the teacher again about some queries, in order, and records each answer as it arrives, then what follows from them.

    What was answered before is not asked again. Can be called where an event loop is running.

    Args:
        spec: The router's spec.
        cases: Queries that have a label, the most doubtful first.
        samples: New answers to each.
        max_usd: Most that this run may spend; None: what ``teacher.max_usd`` leaves. Checked before each request.
        open_embedder: Opens the sentence encoder; called where not all intents or known examples fit into a prompt and something is
            to be asked.
        show_progress: Shows progress on stderr.

    Raises:
        SpecError: The labels are people's; or the limit cannot be kept, as no price is known.
        TeacherError: The teacher cannot answer at all. Every answer received is kept.
        LedgerError: Another process is writing to the ledger.
    """
    with AppendLog(spec.ledger_path) as log, spending(spec, spec.teacher.model):
        # read when the file is ours: until then, another process may have written to it
        spec = limited(spec, spec.teacher.model, max_usd)
        again = _Again(spec, samples, open_embedder, show_progress=show_progress)
        ledger, budget = Ledger(spec.ledger_path), open_budget(spec, spec.teacher.model)
        run, spent_before = _Run(again, ledger, budget, log), budget.spent_usd
        missing = again.missing(ledger, cases)
        try:
            with Progress("ask again", len(missing), "answers", show=show_progress) as run.progress:
                run_sync(run.ask_all(missing))
        except UnknownSpendError:
            raise
        except SpendLimitError:
            run.limit_reached = True
        complete = [case for case in cases if _is_complete(again.answers(ledger, case.text))]
        n_changed = _decide(again, ledger, log, complete)
    return RelabelSummary(
        n_cases=len(cases),
        n_asked=run.n_asked,
        n_failed=run.n_failed,
        n_confirmed=len(complete) - n_changed,
        n_changed=n_changed,
        n_left=len(cases) - len(complete),
        usd=None if budget.known_spend_usd is None else budget.spent_usd - spent_before,
        limit_reached=run.limit_reached,
    )


def _is_complete(answers: Sequence[Label | None]) -> bool:
    return all(answer is not None and answer.scores is not None for answer in answers)


@dataclass
class _Run:
    """Asking in progress."""

    again: _Again
    ledger: Ledger
    budget: Budget
    log: AppendLog
    progress: Progress | None = None
    n_asked: int = 0
    n_failed: int = 0
    limit_reached: bool = False
    _in_a_row: FailuresInARow = field(default_factory=FailuresInARow)
    _failed_before: frozenset[tuple[str, int]] = frozenset()
    _client: ChatClient | None = field(default=None, repr=False)

    async def ask_all(self, questions: Sequence[tuple[Case, int]]) -> None:
        """Asks every question, a case and the number of its new sample, and records each answer as it comes.

        Those that failed in an earlier run come last, as when labelling.

        Raises:
            TeacherError: The teacher cannot answer at all.
        """
        if not questions:
            return
        places = ((case.text, sample) for case, sample in questions)
        self._failed_before = frozenset(each for each in places if self.again.answer(self.ledger, *each) is not None)
        questions = sorted(questions, key=self._has_failed_before)
        spec = self.again.spec
        if spec.teacher.callable is not None:
            let_run_at_once(spec.teacher.concurrency)
            await for_each(questions, self._ask_function, spec.teacher.concurrency)
            return
        _, dialect = requester(spec)
        async with ChatClient(spec.teacher, self.again.name, self.budget, dialect) as self._client:
            loopback = is_loopback(spec.teacher.base_url)
            check_limit_is_enforceable(spec, self.again.name, self.budget.price, loopback=loopback)
            if self.again.teacher.by_query:
                await asyncio.to_thread(lambda: self.again.teacher.retriever)  # before anything is asked
            await for_each(questions[:1], self._ask_model, 1)  # what the server refuses is found out once
            await for_each(questions[1:], self._ask_model, spec.teacher.concurrency)

    def _has_failed_before(self, question: tuple[Case, int]) -> bool:
        case, sample = question
        return (case.text, sample) in self._failed_before

    async def _ask_model(self, question: tuple[Case, int]) -> None:
        if self._client is None:
            raise TeacherError("the client is not open")
        case, sample = question
        # in a thread, so that other answers are not kept waiting while vectors are compared
        excerpt = await asyncio.to_thread(self.again.excerpt, case) if self.again.teacher.by_query else Excerpt()
        question = replace(case, evidence=(*case.evidence, *(excerpt.examples or ()))), sample
        asked_at = time_now()
        try:
            request = self.again.request(case, excerpt)
            reply = await self._client.ask(request)
        except RequestFailedError as error:
            self._write(question, self._client.dialect, asked_at, None, str(error), error.charge)
            self._finish(question, str(error), of_query=error.of_query)
            return
        scores, problem = None, None
        try:
            scores = read_scores(reply.content, self.again.spec, shown=request.shown, cut_off=reply.cut_off)
        except ValueError as error:
            problem = unusable(error, reply.usage, cut_off=reply.cut_off)
        self._write(question, reply.dialect, asked_at, scores, problem, reply.charge)
        self._finish(question, problem, of_query=True)

    async def _ask_function(self, question: tuple[Case, int]) -> None:
        spec = self.again.spec
        function = load_function(str(spec.teacher.callable), spec)
        asked_at, scores, problem = time_now(), None, None
        called = await call_function(function, question[0].text)
        if called.error is not None:
            problem = shown_error(called.error, spec)
        else:
            try:
                scores = function_scores(called.answer, spec.labels, spec.task)
            except (TypeError, ValueError, ArithmeticError) as error:
                problem = str(error)
        self._write(question, DIALECTS[0], asked_at, scores, problem, Charge(latency_ms=called.latency_ms))
        of_query = called.error is None or self._has_failed_before(question)  # as when labelling
        self._finish(question, problem, of_query=of_query)

    def _write(
        self,
        question: tuple[Case, int],
        dialect: Dialect,
        asked_at: str,
        scores: Mapping[str, float] | None,
        error: str | None,
        charge: Charge,
    ) -> None:
        (case, sample), hash_ = question, self.again.hashes[dialect]
        self.ledger.write(
            self.log,
            Label(
                key=ledger_key(self.again.name, hash_, case.text, sample),
                text=case.text,
                scores=scores,
                error=error,
                teacher=self.again.name,
                prompt_sha256=hash_,
                sample=sample,
                usage=charge.usage or Usage(),
                latency_ms=None if charge.latency_ms is None else round(charge.latency_ms, 1),
                asked_at=asked_at,
                extra={
                    "settings": brief(self.again.settings(dialect)),
                    "evidence": [sha256_json(text)[:12] for text, _ in case.evidence],
                    **({"server": server_of(self.again.spec.teacher.base_url)} if self._client is not None else {}),
                    **cost_line(self.budget.price, charge),
                },
            ),
        )
        self.n_asked += 1

    def _finish(self, question: tuple[Case, int], error: str | None, *, of_query: bool) -> None:
        """Counts an answer as come, as when labelling."""
        self.n_failed += error is not None
        if self.progress is not None:
            self.progress.advance(spend_usd=self.budget.known_spend_usd)
        if error is None:
            self._in_a_row.note_good()
        else:
            self._in_a_row.note(error, of_query=of_query, failed_before=self._has_failed_before(question))


# --- deciding --------------------------------------------------------------------------------------------------------


def _decide(again: _Again, ledger: Ledger, log: AppendLog, cases: Sequence[Case]) -> int:
    """Writes what follows from all answers to each query; how many have another label now."""
    recorded = recorded_samples(again.spec, [case.text for case in cases], redacted=True)
    first = _first_answers(again.spec, ledger, {sample.key for samples in recorded.values() for sample in samples})
    decisions, n_changed = [], 0
    for case in cases:
        samples = recorded.get(case.text, ())
        before = [first[sample.key] for sample in samples if sample.key in first]
        if not before:  # it was never labelled: there is nothing to take the place of
            continue
        new = [answer for answer in again.answers(ledger, case.text) if answer is not None]
        scores = _mean([*before, *new], again.spec)
        n_changed += best(scores, again.spec.task) != best(_mean(before, again.spec), again.spec.task)
        now = time_now()
        source = {"teacher": again.name, "answers": [answer.key for answer in (*before, *new)], "decided_at": now}
        decisions += [
            Label(
                key="",
                text=case.text,
                scores=scores,
                error=None,
                teacher=again.name,
                prompt_sha256="",
                sample=sample.sample,
                asked_at=now,
                extra={"carried_from": source},
            )
            for sample in samples
        ]
    for line in new_lines(again.spec, ledger, decisions):
        ledger.write(log, line)
    return n_changed


def _first_answers(spec: Spec, ledger: Ledger, keys: set[str]) -> dict[str, Label]:
    """The last good line of each key that is an answer, and not what followed from several."""
    return {
        line.key: line for line in ledger.lines if line.key in keys and _is_answer(line, spec) and not is_decision(line)
    }


def _is_answer(line: Label, spec: Spec) -> bool:
    """Whether it says something; in ``multi`` that no intent is meant is an answer too."""
    return line.scores is not None and (FORMS[spec.task].may_be_empty or any(line.scores.values()))


def _mean(answers: Sequence[Label], spec: Spec) -> dict[str, float]:
    """The mean of answers, each scaled to a sum of 1 but for ``multi``; labels of which none speaks are left out."""
    means = mean([answer.scores or {} for answer in answers], spec.task)
    return {name: round(score, 6) for name, score in means.items() if score}
