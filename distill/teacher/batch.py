"""Labelling by OpenAI's Batch API: asked together, answered in any order within a day, at the price of batches.

    questions → TOKEN.requests.jsonl → uploaded file → batch, polled → output file and error file → ledger

The folder ``batches`` beside the ledger says which of these steps each batch has come to, and what was asked in it; each step is
written down before the next. A run that finds a batch there goes on with it, so nothing is uploaded or paid for twice; and a batch that was
created but not written down is found again at the provider, by its input file or its metadata.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from distill.data import atomic_write, storage_errors, write_json
from distill.errors import SpecError, SpendLimitError, TeacherError
from distill.progress import say
from distill.teacher.answers import as_said, read_scores
from distill.teacher.client import RequestFailedError, unusable
from distill.teacher.endpoint import is_loopback
from distill.teacher.in_flight import (
    Asked,
    Batch,
    all_open_batches,
    batches_folder,
    open_batches,
    requests_path,
    state_path,
)
from distill.teacher.ledger import as_time
from distill.teacher.prices import LIMIT, NO_LIMIT, batch_price, cost_usd, teacher_price
from distill.teacher.sending import Charge
from distill.teacher.spend import cost_line, hold_in_flight
from distill.types import Label, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from openai import AsyncOpenAI
    from openai.types import Batch as RemoteBatch

    from distill.spec import Spec
    from distill.teacher.client import ChatClient, Dialect, Request
    from distill.teacher.ledger import Ledger
    from distill.teacher.prices import Budget

__all__ = [
    "BatchRun",
    "Labelling",
    "check_batch_limit",
    "check_has_batches",
    "check_not_in_flight",
    "check_settings",
]

_Question = TypeVar("_Question")

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""What the API takes in one file."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
"""Between two looks at the batches in flight."""

_ENDPOINT: Final = "/v1/chat/completions"
_KEPT_S = 30 * 24 * 3600  # the provider deletes the files of a batch after 30 days
_TRANSFER_S = 600.0
_FAILED_LOOKS = 10
_ENDED = {"completed", "expired", "cancelled", "failed"}
_SECONDS_BETWEEN_LINES = 300.0


def check_not_in_flight(spec: Spec, keys: Callable[[], Iterable[str]]) -> None:
    """What is being asked in a batch is paid for: it is not asked one by one too.

    Args:
        spec: The router's spec.
        keys: Ledger keys of what is about to be asked.

    Raises:
        TeacherError: A batch that asks one of them is in flight.
    """
    batches = all_open_batches(spec)
    wanted = set(keys()) if batches else set()
    for batch in batches:
        n_asked = sum(asked.key in wanted for asked in batch.asked)
        if n_asked:
            raise TeacherError(
                f"{n_asked} of these queries are being asked in batch {batch.batch_id or batch.token}; "
                f"{spec.command('label --batch', batch.spec)} takes its answers, with `answer_path` and `answer_map` as they were, and then nothing is paid twice (to give it up: delete {state_path(spec, batch)})"
            )


def check_settings(spec: Spec, model: str, hashes: Container[str]) -> None:
    """Answers of a batch that was asked with other settings would not be found again.

    Args:
        spec: The router's spec.
        model: The teacher, as it is now.
        hashes: ``prompt_sha256`` of every dialect, as they are now.

    Raises:
        TeacherError: Such a batch is in flight.
    """
    for batch in open_batches(spec):
        if batch.teacher != model or batch.prompt_sha256 not in hashes:
            raise TeacherError(
                f"batch {batch.batch_id or batch.token} asked {batch.teacher!r} with other settings (prompt, intents, answers or sampling) "
                f"than {spec.path} has now; put them back to take its answers, or delete {state_path(spec, batch)} to give it up"
            )


def check_has_batches(spec: Spec) -> None:
    """Whether a teacher can be asked in batches, as far as its spec tells.

    Raises:
        SpecError: It is no model.
    """
    if spec.teacher.model is None:
        raise SpecError(f"{spec.path}: batches are for a model that is asked over an API (teacher.model)")


def check_batch_limit(spec: Spec) -> None:
    """A limit that cannot be kept must not look as if it were.

    Raises:
        SpecError: ``teacher.max_usd`` is set, and the price of batches is not known.
    """
    if spec.teacher.max_usd is None or batch_price(spec) is not None:
        return
    if not is_loopback(spec.teacher.base_url) or teacher_price(spec) is not None:
        raise SpecError(
            f"{spec.path}: {LIMIT} cannot be kept: no price in batches is known for {spec.teacher.model!r}; give teacher.price "
            f"with `batch: {{input_per_mtok, output_per_mtok}}` (USD per million tokens), or {NO_LIMIT}"
        )


@dataclass(frozen=True, slots=True)
class Labelling(Generic[_Question]):
    """What a batch has to know of a labelling run.

    Attributes:
        ledger: Tells which answers of a batch are recorded already.
        make: A question as it stands in the ledger, and the request, in the client's dialect; called in another thread.
        hashes: ``prompt_sha256`` of every dialect.
        settings: What each of these hashes stands for, as in a ledger line.
        record: Takes each answer, and what was wrong with it.
        facts: Further facts for every line of the ledger.
    """

    ledger: Ledger
    make: Callable[[_Question], tuple[Asked, Request]]
    hashes: Mapping[Dialect, str]
    settings: Mapping[str, Mapping[str, Any]]
    record: Callable[[Label, ValueError | None], None]
    facts: Mapping[str, Any]


class _AnswersMissingError(RequestFailedError):
    """The files of an ended batch hold fewer answers than it says it gave."""


class BatchRun(Generic[_Question]):
    """One run of ``label --batch``: takes up what is in flight, then asks what is left.

    Args:
        spec: The router's spec.
        client: An open client.
        labelling: The run that it is part of.
        show_progress: Says on stderr how far the batches are.
        give_up: Counts as failed what an ended batch has answered and its files do not hold.
    """

    def __init__(
        self,
        spec: Spec,
        client: ChatClient,
        labelling: Labelling[_Question],
        *,
        show_progress: bool = True,
        give_up: bool = False,
    ) -> None:
        self._spec, self._client, self._labelling, self._show_progress = spec, client, labelling, show_progress
        self._give_up = give_up
        self._in_flight: list[Batch] = []
        self._uncreated: list[Batch] = []
        self._questions: dict[str, list[_Question]] = {}
        self._shown: dict[str, tuple[str, float]] = {}
        self._most_requests, self._is_queue_full = MOST_REQUESTS, False
        self._failed_looks: Counter[str] = Counter()

    # --- taking up what is in flight --------------------------------------------------------------------------------

    async def resume(self, missing: Callable[[str], Mapping[str, Asked]]) -> set[str]:
        """Takes up every batch in flight, also one that is known to the provider alone.

        Args:
            missing: Everything that the ledger lacks, by its key in the dialect with this ``prompt_sha256``.

        Returns:
            The keys of what is being asked.

        Raises:
            TeacherError: The provider has no batches, or one in flight was asked with other settings.
        """
        check_settings(self._spec, self._client.model, self._labelling.settings)
        for batch in open_batches(self._spec):
            located = await self._located(batch)
            if located is None:
                self._forget(batch)
            else:
                (self._in_flight if located.batch_id else self._uncreated).append(located)
        await self._adopt(missing)
        return self._keys()

    def _keys(self) -> set[str]:
        return {each.key for batch in (*self._in_flight, *self._uncreated) for each in batch.asked}

    async def _located(self, batch: Batch) -> Batch | None:
        """The batch with what the provider knows of it; None where it was never uploaded and cannot be any more."""
        if batch.input_file_id is None:
            name = batch.filename
            batch = replace(batch, input_file_id=await self._client.call(lambda api: _file_called(api, name)))
            if batch.input_file_id is None and not requests_path(self._spec, batch).exists():
                return None
            self._save(batch)
        if batch.batch_id is None and batch.input_file_id is not None:
            remote = await self._client.call(self._recent, not_found=self._no_batches)
            found = next((each for each in remote if each.input_file_id == batch.input_file_id), None)
            if found is not None:
                batch = replace(batch, batch_id=found.id)
                self._save(batch)
        return batch

    async def _adopt(self, missing: Callable[[str], Mapping[str, Asked]]) -> None:
        """Takes up batches of this teacher that were created without being written down here."""
        known = {batch.batch_id for batch in self._in_flight}
        known |= {line.extra.get("batch") for line in self._labelling.ledger.lines}
        for remote in await self._client.call(self._recent, not_found=self._no_batches):
            hash_ = str((remote.metadata or {}).get("distill"))
            if hash_ not in self._labelling.settings or remote.id in known or remote.status == "failed":
                continue
            lines = await self._lines(remote.input_file_id)
            in_flight, wanted = self._keys(), missing(hash_)
            keys = dict.fromkeys(str(line.get("custom_id")) for line in lines)
            asked = tuple(wanted[key] for key in keys if key in wanted and key not in in_flight)
            if asked:
                token = f"found-{sha256(remote.id.encode()).hexdigest()[:16]}"
                reserved_usd = sum((self._dearest_usd(line) for line in lines), Decimal(0))
                batch = self._new(token, hash_, reserved_usd, asked)
                batch = replace(batch, input_file_id=remote.input_file_id, batch_id=remote.id)
                self._save(batch)
                self._forget_of_specs_that_are_gone(remote.id)
                self._in_flight.append(batch)
                say(f"label: batch {remote.id} was created before and asks {len(asked)} of these queries; taking it up")

    def _forget_of_specs_that_are_gone(self, batch_id: str) -> None:
        """What was written down of a batch for a router.yaml that has another name now: its sum would be held twice, and for good."""
        for batch in all_open_batches(self._spec):
            if batch.batch_id == batch_id and not self._spec.path.with_name(batch.spec).exists():
                with suppress(FileNotFoundError):
                    state_path(self._spec, batch).unlink()

    def _new(self, token: str, prompt_sha256: str, reserved_usd: Decimal, asked: tuple[Asked, ...]) -> Batch:
        spec, settings = self._spec.path.name, self._labelling.settings[prompt_sha256]
        return Batch(token, spec, self._client.model, prompt_sha256, settings, reserved_usd, asked)

    def _dearest_usd(self, line: Mapping[str, Any]) -> Decimal:
        """What a request in an input file can cost at most."""
        price, body = batch_price(self._spec), line.get("body") or {}
        n_output = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return Decimal(0) if price is None else cost_usd(price, Usage(len(json.dumps(body)), n_output))

    async def _recent(self, api: AsyncOpenAI) -> list[RemoteBatch]:
        """Batches whose files the provider still has, the latest first."""
        found: list[RemoteBatch] = []
        async for batch in api.batches.list(limit=100):
            if batch.created_at < time.time() - _KEPT_S:
                break
            found.append(batch)
        return found

    @property
    def _no_batches(self) -> str:
        return f"the endpoint in {self._spec.path} has no Batch API (404); label without --batch"

    # --- asking -----------------------------------------------------------------------------------------------------

    async def run(self, questions: Iterable[_Question], budget: Budget) -> None:
        """Asks in as many batches as it takes, and waits until each answer of all that is in flight is recorded.

        Args:
            questions: What is to be asked besides what is in flight; may be none.
            budget: At the price of batches. Is asked before each batch is created.

        Raises:
            TeacherError: A batch failed or was cancelled. Every answer received is recorded.
            SpendLimitError: What is left could exceed the spend limit.
        """
        waiting, pause_s = deque(questions), FIRST_PAUSE_S
        hold_in_flight(self._spec, budget, without={batch.token for batch in self._uncreated})
        try:
            while waiting or self._in_flight or self._uncreated:
                await self._ask(waiting, budget)
                for batch in list(self._in_flight):
                    waiting.extendleft(reversed(await self._look_at(batch, budget)))
                if self._in_flight:
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
        except asyncio.CancelledError:
            say(f"label: {self._how_to_go_on()}")
            raise
        except RequestFailedError as error:
            raise TeacherError(f"{error}; {self._how_to_go_on()}") from None

    async def _ask(self, waiting: deque[_Question], budget: Budget) -> None:
        """Creates batches of what waits, as far as the spend limit and the provider let them be."""
        while (waiting or self._uncreated) and not (self._is_queue_full and self._in_flight):
            try:
                if self._uncreated:
                    budget.hold(self._uncreated[0].reserved_usd, is_spent=False)
                else:
                    self._uncreated.append(await asyncio.to_thread(self._next_batch, waiting, budget))
            except SpendLimitError:
                if self._in_flight:  # when it ends there may be room: it hardly costs the most that it can
                    return
                raise
            self._in_flight.append(await self._start(self._uncreated[0]))
            del self._uncreated[0]

    def _next_batch(self, waiting: deque[_Question], budget: Budget) -> Batch:
        """Takes as much as one batch may hold from what waits, and writes it down.

        Raises:
            SpendLimitError: Not even one request fits under the limit.
        """
        asked: list[Asked] = []
        lines: list[bytes] = []
        taken: list[_Question] = []
        n_bytes, reserved_usd = 0, Decimal(0)
        while waiting and len(asked) < self._most_requests:
            each, request = self._labelling.make(waiting[0])
            body = {"custom_id": each.key, "method": "POST", "url": _ENDPOINT, "body": self._client.body(request)}
            line = json.dumps(body, ensure_ascii=False).encode() + b"\n"
            if asked and n_bytes + len(line) > MOST_BYTES:
                break
            try:
                reserved_usd += budget.reserve(request.prompt_bytes, request.max_output_tokens)
            except SpendLimitError:
                if not asked:
                    raise
                say(
                    f"label: teacher.max_usd {budget.limit_usd} leaves room for {len(asked)} requests of {len(asked) + len(waiting)}, should "
                    "each cost the most that it can; the others wait for what these cost"
                )
                break
            n_bytes += len(line)
            asked.append(each)
            lines.append(line)
            taken.append(waiting.popleft())
        content = b"".join(lines)
        hash_ = self._labelling.hashes[self._client.dialect]
        token = sha256(content).hexdigest()[:16]
        batch = self._new(token, hash_, reserved_usd, tuple(asked))
        path = requests_path(self._spec, batch)
        with storage_errors(path):
            path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_bytes(content)
        self._save(batch)
        self._questions[token] = taken
        return batch

    async def _start(self, batch: Batch) -> Batch:
        """Uploads and creates a batch, as far as that has not been done."""
        requests = requests_path(self._spec, batch)
        if batch.input_file_id is None:
            name, content = batch.filename, requests.read_bytes()
            batch = replace(batch, input_file_id=await self._client.call(lambda api: _upload(api, name, content)))
            self._save(batch)
        requests.unlink(missing_ok=True)
        if batch.batch_id is None:
            file_id, metadata = str(batch.input_file_id), {"distill": batch.prompt_sha256, "router": self._spec.name}
            created = await self._client.call(lambda api: _create(api, file_id, metadata), not_found=self._no_batches)
            batch = replace(batch, batch_id=created)
            self._save(batch)
            say(f"label: batch {batch.batch_id} created, {len(batch.asked)} requests")
        return batch

    def _save(self, batch: Batch) -> None:
        write_json(state_path(self._spec, batch), asdict(batch) | {"reserved_usd": str(batch.reserved_usd)})

    def _forget(self, batch: Batch) -> None:
        """Every answer is recorded, or there will be none."""
        requests_path(self._spec, batch).unlink(missing_ok=True)
        state_path(self._spec, batch).unlink(missing_ok=True)
        if not any(batches_folder(self._spec).iterdir()):
            batches_folder(self._spec).rmdir()

    # --- waiting, and what came of it -------------------------------------------------------------------------------

    async def _look_at(self, batch: Batch, budget: Budget) -> list[_Question]:
        """Looks how far a batch is, and records its answers when it has ended. Returns what is to be asked again."""
        batch_id = str(batch.batch_id)
        unknown = (
            f"batch {batch_id} is not known to the endpoint (404): are base_url and the key those that it was created with? "
            f"To give it up, delete {state_path(self._spec, batch)}"
        )
        try:
            remote = await self._client.call(lambda api: api.batches.retrieve(batch_id), not_found=unknown)
            self._show(batch_id, remote)
            if remote.status in _ENDED and remote.status != "failed":
                await self._take_answers(batch, remote, budget)
            del self._failed_looks[batch.token]
        except RequestFailedError as error:
            self._count_failed_look(batch, error)
            return []
        if remote.status not in _ENDED:
            return []
        self._in_flight.remove(batch)
        self._forget(batch)
        budget.settle(batch.reserved_usd, None)
        questions = self._questions.pop(batch.token, [])
        if remote.status == "failed":
            return self._smaller(batch, remote, questions)
        self._is_queue_full = False
        if remote.status == "cancelled":
            raise TeacherError(
                f"batch {batch_id} was cancelled; the answers it had are recorded, {self._spec.command('label --batch')} asks the "
                f"others again{self._also_in_flight()}"
            )
        return []

    def _count_failed_look(self, batch: Batch, error: RequestFailedError) -> None:
        self._failed_looks[batch.token] += 1
        if self._failed_looks[batch.token] == 1:
            unseen = "" if isinstance(error, _AnswersMissingError) else "cannot see how far a batch is: "
            say(f"label: {unseen}{error}; looking again")
        if self._failed_looks[batch.token] >= _FAILED_LOOKS:
            raise TeacherError(f"{error}; {self._how_to_go_on()}")

    def _smaller(self, batch: Batch, remote: RemoteBatch, questions: list[_Question]) -> list[_Question]:
        """What a failed batch asked, where smaller batches, or waiting for others, may help.

        Raises:
            TeacherError: They cannot.
        """
        errors = (remote.errors and remote.errors.data) or []
        is_too_much = any(error.code == "token_limit_exceeded" for error in errors)
        if is_too_much and (self._in_flight or len(questions) > 1) and questions:
            self._is_queue_full = True
            if not self._in_flight:
                self._most_requests = len(questions) // 2
            say(
                f"label: batch {batch.batch_id} is more than the provider lets wait in its queue; asking it "
                f"{'when another has ended' if self._in_flight else f'{self._most_requests} requests at a time'}"
            )
            return questions
        shown = [
            f"{error.message or error.code}{f' (line {error.line})' if error.line is not None else ''}"
            for error in errors
        ]
        raise TeacherError(
            self._client.scrub(
                f"batch {batch.batch_id} failed: {'; '.join(shown[:3]) or 'the provider does not say why'}"
            )
            + f". Nothing in it was asked; {self._spec.command('label --batch')} tries again{self._also_in_flight()}"
        )

    async def _take_answers(self, batch: Batch, remote: RemoteBatch, budget: Budget) -> None:
        """Records every answer of a batch that has ended, and what was not answered as failed.

        Raises:
            RequestFailedError: Its files hold fewer answers than it gave, which are paid for. Those that they hold are recorded.
        """
        left = {each.key: each for each in batch.asked}
        for known in self._recorded(remote.id):
            left.pop(known.key, None)
        received: set[str] = set()
        for file_id in (remote.output_file_id, remote.error_file_id):
            for line in await self._lines(file_id):
                custom_id = str(line.get("custom_id"))
                if _is_answered(line):
                    received.add(custom_id)
                if (asked := left.pop(custom_id, None)) is not None:
                    self._take(batch, remote, asked, line, budget)
        n_answered = remote.request_counts.completed if remote.request_counts else 0
        if left and n_answered > len(received) and not self._give_up:
            raise _AnswersMissingError(
                f"batch {remote.id} ({remote.status}) has answered {n_answered} requests, and its files hold {len(received)} of these "
                "answers; --give-up counts the others as failed, to be asked and paid for again"
            )
        for asked in left.values():
            self._take(
                batch,
                remote,
                asked,
                {"error": {"code": f"batch_{remote.status}", "message": "it has no answer"}},
                budget,
            )
        failures = [line.error for line in self._recorded(remote.id) if line.error is not None]
        if failures:
            say(
                f"label: {len(failures)} of {len(batch.asked)} requests in batch {remote.id} ({remote.status}) have no good answer, the first: "
                f"{failures[0]}; the next run asks them again"
            )

    def _recorded(self, batch_id: str) -> list[Label]:
        """What the ledger holds of a batch."""
        return [line for line in self._labelling.ledger.lines if line.extra.get("batch") == batch_id]

    def _take(self, batch: Batch, remote: RemoteBatch, asked: Asked, line: Mapping[str, Any], budget: Budget) -> None:
        """Records one answer, good or not."""
        usage, scores, problem, error, said = Usage(), None, None, None, {}
        try:
            content, usage, cut_off, tokens = self._client.read(_completion(line))
        except RequestFailedError as failed:
            error = self._client.scrub(str(failed))
            if failed.usage is not None:
                usage = failed.usage
                budget.count(usage)
        else:
            budget.count(usage)
            try:
                scores = read_scores(content, self._spec, tokens, shown=asked.shown, cut_off=cut_off)
            except ValueError as wrong:
                problem, error = wrong, unusable(wrong, usage, cut_off=cut_off)
            said = as_said(content, tokens=tokens, shown=asked.shown, cut_off=cut_off)
        created = datetime.fromtimestamp(remote.created_at, UTC)
        shown = {"evidence": list(asked.evidence)} if asked.evidence else {}
        label = Label(
            key=asked.key,
            text=asked.text,
            scores=scores,
            error=error,
            teacher=batch.teacher,
            prompt_sha256=batch.prompt_sha256,
            sample=asked.sample,
            usage=usage,
            asked_at=as_time(created),
            extra={
                "settings": batch.settings,
                **shown,
                **said,
                "batch": remote.id,
                **self._labelling.facts,
                **cost_line(budget.price, Charge(usage)),
            },
        )
        self._labelling.record(label, problem)

    async def _lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a file at the provider: none where it was deleted. What is no JSON object is passed over."""
        content = None if file_id is None else await self._client.call(lambda api: _content(api, file_id))
        return [line for raw in (content or b"").splitlines() if isinstance(line := _parsed(raw), dict)]

    # --- for people -------------------------------------------------------------------------------------------------

    def _show(self, batch_id: str, remote: RemoteBatch) -> None:
        """Says how far a batch is: when its status changes, and now and then."""
        status, since = self._shown.get(batch_id, ("", 0.0))
        now = time.monotonic()
        if not self._show_progress or (status == remote.status and now - since < _SECONDS_BETWEEN_LINES):
            return
        self._shown[batch_id] = (remote.status, now)
        counts = remote.request_counts
        done = f", {counts.completed} of {counts.total} answered, {counts.failed} failed" if counts else ""
        say(f"label: batch {batch_id}: {remote.status}{done}")

    def _how_to_go_on(self) -> str:
        created = [f"{each.batch_id} ({len(each.asked)} requests)" for each in self._in_flight if each.batch_id]
        if not created:
            return f"no batch is in flight; {self._spec.command('label --batch')} goes on"
        return (
            f"in flight, and going on at the provider: batch {', '.join(created)}; {self._spec.command('label --batch')} "
            "takes the answers, and nothing is asked twice"
        )

    def _also_in_flight(self) -> str:
        return f" ({self._how_to_go_on()})" if self._in_flight else ""


async def _file_called(api: AsyncOpenAI, name: str) -> str | None:
    async for file in api.files.list(purpose="batch"):
        if file.filename == name:
            return file.id
    return None


async def _content(api: AsyncOpenAI, file_id: str) -> bytes | None:
    from openai import NotFoundError

    try:
        return (await api.files.content(file_id, timeout=_TRANSFER_S)).content
    except NotFoundError:
        return None


async def _upload(api: AsyncOpenAI, name: str, content: bytes) -> str:
    return (await api.files.create(file=(name, content), purpose="batch", timeout=_TRANSFER_S)).id


async def _create(api: AsyncOpenAI, input_file_id: str, metadata: dict[str, str]) -> str:
    # Not sent again by the client: should the reply get lost, the next run looks for the batch before it creates another.
    once = api.with_options(max_retries=0)
    created = await once.batches.create(
        input_file_id=input_file_id, endpoint=_ENDPOINT, completion_window="24h", metadata=metadata
    )
    return created.id


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _is_answered(line: Mapping[str, Any]) -> bool:
    """Whether a line of an output file is of a request that was answered, and so paid for."""
    response = line.get("response")
    return isinstance(response, dict) and response.get("status_code") == 200 and not line.get("error")  # noqa: PLR2004


def _completion(line: Mapping[str, Any]) -> Any:
    """The chat completion in a line of an output file.

    Raises:
        RequestFailedError: The line has an error instead.
    """
    from openai.types.chat import ChatCompletion

    error, response = line.get("error"), line.get("response")
    status, body = (response.get("status_code"), response.get("body")) if isinstance(response, dict) else (None, None)
    if _is_answered(line) and isinstance(body, dict):
        return ChatCompletion.construct(**body)
    said = error or (body.get("error") if isinstance(body, dict) else body)
    if isinstance(said, dict):
        said = ": ".join(str(said[part]) for part in ("code", "message") if said.get(part))
    raise RequestFailedError(
        f"the server answered {status}: {said}" if status else f"not answered: {said or 'no reason given'}"
    )
