"""Synthesis: queries written by a model, intent by intent, in many styles; and near misses that fit no intent.

Every raw answer is a line of synth.jsonl, written as it arrives; queries.jsonl follows from these lines alone. So a run
that was cut goes on where it stopped, and a recorded one replays without a model and without vectors.

    writer (what is asked) → client → synth.jsonl → pool (each query once) → queries.jsonl

Where intents change, what was written for the others stays: the model is asked only where an intent has fewer queries than are wanted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from distill.data import normalise, read_gold, read_jsonl, read_queries, write_jsonl
from distill.errors import DataError, DistillError, MissingKeyError, SpendLimitError, TeacherError
from distill.progress import Progress, say
from distill.teacher.answers import parse_json, without_thoughts
from distill.teacher.client import DIALECTS, ChatClient, Dialect, RequestFailedError, unusable
from distill.teacher.concurrency import for_each, run_sync
from distill.teacher.diversity import distinct_2, mean_distance
from distill.teacher.endpoint import api_key, is_loopback, server_of
from distill.teacher.ledger import AppendLog, time_now
from distill.teacher.pool import Comparison, Dropped, Pool, Repeat
from distill.teacher.prices import check_limit_is_enforceable, price_of
from distill.teacher.prompt import examples_of
from distill.teacher.spend import cost_line, estimate, open_budget, spending
from distill.teacher.writer import Focus, Round, Writer, read_recording
from distill.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.teacher.sending import Charge
    from distill.types import TokenPrice

__all__ = [
    "SynthesisPlan",
    "SynthesisSummary",
    "carry_synthesis",
    "check_can_write",
    "is_recorded",
    "n_to_carry",
    "plan_synthesis",
    "synthesise",
]

_FAILURES_IN_A_ROW = 8

OpenEmbedder = Callable[[], "Embedder | None"]
"""Gives the sentence encoder, or None where there is none."""


@dataclass(frozen=True, slots=True)
class SynthesisSummary:
    """What synthesis did, by target (an intent, or ``oos``).

    Attributes:
        wanted: Queries that router.yaml asks for.
        got: Distinct queries that stand in queries.jsonl.
        dropped: Written, but left out; why.
        distinct_2: Lexical diversity: share of pairs of words in a row that are distinct; None where there is no pair.
        mean_distance: Diversity in meaning: mean cosine distance between two queries; None where it was not measured.
        changed: Whether queries.jsonl was written.
        n_asked: Requests that were answered, or failed, in this run.
        n_failed: Those of them that failed.
        last_failure: Why the last one of them did; None where none failed.
        n_missing: Queries that are lacking because requests failed, where this run wrote queries.jsonl.
        spent_usd: By every recorded answer, labels included; None when a price or the tokens are unknown.
    """

    wanted: dict[str, int]
    got: dict[str, int]
    dropped: dict[str, Dropped]
    distinct_2: dict[str, float | None]
    mean_distance: dict[str, float | None]
    changed: bool
    n_asked: int
    n_failed: int
    last_failure: str | None
    n_missing: int
    spent_usd: Decimal | None


def synthesise(
    spec: Spec,
    *,
    focus: Focus | None = None,
    open_embedder: OpenEmbedder | None = None,
    measure: bool = False,
    show_progress: bool = True,
) -> SynthesisSummary:
    """Has a model write the queries that router.yaml asks for, and writes queries.jsonl.

    Does nothing when queries.jsonl was made with the same settings (lines removed or added by hand stay so). What
    synth.jsonl already holds is not asked again. Can be called where an event loop is running.

    Args:
        spec: The router's spec.
        focus: On labels that are mixed up; None: each request names the intents nearest to its own.
        open_embedder: Gives the sentence encoder, which finds near repetitions and each intent's nearest others; it is called when
            something is to be asked or measured. None, or one that gives None: equal queries alone are left out.
        measure: Whether to measure how far the queries lie apart in meaning.
        show_progress: Shows progress on stderr.

    Raises:
        TeacherError: The model cannot answer at all, or ``teacher.max_usd`` is reached. Every answer received is kept.
        DataError: queries.jsonl is the user's own, or a file is wrong.
    """
    embedder = _Once(open_embedder)
    run = _Run(spec, focus)
    changed, asked = not _is_current(spec, run.writer), run
    if changed:
        by_hand = _lines_added_by_hand(spec)
        if run.left:
            asked = _ask_for_the_rest(run, focus, embedder, show_progress=show_progress)
            run = _Run(spec, focus)  # from the recording alone, so that a replay gives the very same
        write_jsonl(spec.queries_path, [*run.query_lines(), *by_hand])
        _say_what_failed(asked, n_missing=run.n_missing)
    texts = _texts(spec, run.writer)
    return SynthesisSummary(
        wanted=run.writer.wanted,
        got={target: len(own) for target, own in texts.items()},
        dropped=run.pool.dropped,
        distinct_2={target: _rounded(distinct_2(own)) for target, own in texts.items()},
        mean_distance=_mean_distances(texts, embedder if measure else _Once(None), show_progress=show_progress),
        changed=changed,
        n_asked=asked.n_asked,
        n_failed=asked.n_failed,
        last_failure=asked.last_failure,
        n_missing=run.n_missing if changed else 0,
        spent_usd=open_budget(spec, run.writer.model).known_spend_usd,
    )


def _say_what_failed(asked: _Run, *, n_missing: int) -> None:
    """Whoever called: what is labelled and trained on next lacks it."""
    if not asked.n_failed:
        return
    say(f"synth: requests that failed: {asked.n_failed} of {asked.n_asked}, the last one: {asked.last_failure}")
    if n_missing:
        spec = asked.writer.spec
        say(
            f"synth: queries that {spec.queries_path} lacks for it: {n_missing}; to have only these asked for, remove it and run "
            f"{spec.command('synth')} again"
        )


class _Once:
    """Opens the sentence encoder when it is first needed, and once."""

    def __init__(self, open_embedder: OpenEmbedder | None) -> None:
        self._open = open_embedder
        self._found: Embedder | None = None

    def get(self) -> Embedder | None:
        """The encoder, or None."""
        if self._open is not None:
            self._found, self._open = self._open(), None
        return self._found


def _texts(spec: Spec, writer: Writer) -> dict[str, list[str]]:
    """The queries in queries.jsonl by target."""
    texts: dict[str, list[str]] = {target: [] for target in writer.wanted}
    for _, line in read_jsonl(spec.queries_path):
        target, text = line.get("intended_intent"), line.get("text")
        if isinstance(target, str) and target in texts and isinstance(text, str):
            texts[target].append(text)
    return texts


def _mean_distances(
    texts: Mapping[str, Sequence[str]], embedder: _Once, *, show_progress: bool
) -> dict[str, float | None]:
    encoder = embedder.get()
    if encoder is None:
        return dict.fromkeys(texts)
    with Progress("compare", sum(map(len, texts.values())), show=show_progress) as progress:
        vectors = {target: encoder.embed(own, progress.advance) for target, own in texts.items()}
    return {target: _rounded(mean_distance(own)) for target, own in vectors.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _ask_for_the_rest(run: _Run, focus: Focus | None, embedder: _Once, *, show_progress: bool) -> _Run:
    """Has the model write what the recording lacks; what was asked, and how it went."""
    writer = run.writer
    path = writer.spec.synthesis_path
    try:
        with AppendLog(path) as log, spending(writer.spec, writer.model):
            client = _client(writer)
            # read again: until the file was ours, another process may have written to it
            run = _Run(writer.spec, focus, embedder=embedder.get())
            n_kept = sum(map(len, run.pool.queries.values()))
            with Progress("compare", n_kept, show=show_progress) as progress:
                comparison = Comparison(run.pool, embedder.get(), progress.advance)
            with Progress("synth", run.n_missing, show=show_progress) as progress:
                run_sync(run.ask_all(client, comparison, log, progress))
    except MissingKeyError as error:
        raise MissingKeyError(
            f"{error}. {path} lacks {run.n_missing} queries by {writer.model!r}; {_recorded_by(writer)}"
        ) from None
    except SpendLimitError as error:
        raise type(error)(
            f"{error}. {path} lacks {run.n_missing} of {sum(writer.wanted.values())} queries; {writer.spec.queries_path.name} is written once all are there"
        ) from None
    return run


def check_can_write(spec: Spec) -> None:
    """What would stop synthesis before anything is asked stops here what would be done before it.

    Raises:
        TeacherError: There is no model or no key, or what was spent before is not known, so that the limit cannot be kept.
        SpecError: The spend limit cannot be kept, as no price is known.
    """
    _check_can_write(Writer(spec))


def _check_can_write(writer: Writer) -> None:
    spec = writer.spec
    api_key(spec.teacher)
    if spec.teacher.max_usd is None:
        return
    budget = open_budget(spec, writer.model)
    if not is_loopback(spec.teacher.base_url):
        check_limit_is_enforceable(spec, writer.model, budget.price, loopback=False)
    budget.check_limit()


def _obstacles(writer: Writer) -> tuple[str, ...]:
    """What would stop synthesis before anything is asked."""
    try:
        _check_can_write(writer)
    except DistillError as error:
        return (str(error),)
    return ()


def _client(writer: Writer) -> ChatClient:
    """Who is asked. That it can be, and that the spend limit can be kept, is known before anything takes time."""
    spec, budget = writer.spec, open_budget(writer.spec, writer.model)
    client = ChatClient(spec.teacher, writer.model, budget, DIALECTS[0])
    check_limit_is_enforceable(spec, writer.model, budget.price, loopback=is_loopback(spec.teacher.base_url))
    return client


def _recorded_by(writer: Writer) -> str:
    """Which setting differs from the recording."""
    lines = read_recording(writer.spec).values()
    models = sorted({str(line.get("teacher")) for line in lines})
    if not models:
        return "it holds none yet"
    if writer.model not in models:
        return f"it was recorded by {', '.join(map(repr, models))}"
    if all(line.get("prompt_sha256") != writer.settings_sha256 for line in lines):
        return "it was recorded with other intents or settings of synth"
    return "the rest was not written yet"


@dataclass(frozen=True, slots=True)
class SynthesisPlan:
    """What synthesis would ask.

    Attributes:
        n_missing: Queries that are not written yet.
        n_requests: About how many requests that takes.
        estimated_usd: Their estimated price, or None when the price is unknown.
        recorded: The queries that are there already and will stand in queries.jsonl; None where that file is up to date.
        price: What the estimate rests on.
        most_usd: What they cost should each answer be as long as it may, where none by this model is recorded yet.
        obstacles: What would stop the run before anything is asked, as things are.
    """

    n_missing: int
    n_requests: int
    estimated_usd: Decimal | None
    recorded: tuple[str, ...] | None = field(default=None, repr=False)
    price: TokenPrice | None = None
    most_usd: Decimal | None = None
    obstacles: tuple[str, ...] = ()


_TOKENS_PER_WRITTEN_QUERY = 16
_SHARE_OF_NEW_QUERIES = 0.75
_KINDS_OF_REQUESTS = 2
"""In turn: those with styles are longer than those with known queries."""


def plan_synthesis(
    spec: Spec, *, focus: Focus | None = None, renames: Mapping[str, str] | None = None
) -> SynthesisPlan:
    """Counts the queries that are still to be written and estimates their price; asks nothing.

    Args:
        spec: The router's spec.
        focus: As for ``synthesise``.
        renames: New names of intents by their old ones, as if ``carry_synthesis`` had carried them over.
    """
    run = _Run(spec, focus, renames=renames)
    writer = run.writer
    price = price_of(spec, writer.model)
    if _is_current(spec, writer):
        return SynthesisPlan(0, 0, None if price is None else Decimal(0), price=price)
    n_missing = run.n_missing
    n_requests = round(n_missing / (writer.n * _SHARE_OF_NEW_QUERIES) + 0.5) if n_missing else 0
    rounds = next(iter(run.left.values()), [])
    requests = [writer.request(each) for each in rounds[:_KINDS_OF_REQUESTS]]
    longest = max((each.characters for each in requests), default=0)
    cost = estimate(
        spec,
        writer.model,
        "synth",
        price,
        characters=n_requests * longest,
        n_requests=n_requests,
        typical_tokens=writer.n * _TOKENS_PER_WRITTEN_QUERY,
        most_tokens=requests[0].max_output_tokens if requests else 0,
    )
    by_hand = (str(line["text"]) for line in _lines_added_by_hand(spec))
    recorded = (*(text for _, text, _ in run.pool.distinct()), *by_hand)
    obstacles = _obstacles(writer) if n_missing else ()
    return SynthesisPlan(n_missing, n_requests, cost.usd, recorded, price, cost.most_usd, obstacles)


def is_recorded(spec: Spec) -> bool:
    """Whether there is a recording that says which queries there are."""
    return spec.writes_queries and spec.synthesis_path.exists() and bool(spec.synth.model or spec.teacher.model)


def carry_synthesis(spec: Spec, renames: Mapping[str, str]) -> int:
    """Brings what was written for renamed intents under their new names, in synth.jsonl; how many answers those are. Asks nothing.

    Args:
        spec: The router's spec, with the intents as they are now.
        renames: New name by old name.

    Raises:
        DataError: The recording is wrong, or another process is writing to it.
    """
    if not n_to_carry(spec, renames):
        return 0
    with AppendLog(spec.synthesis_path) as log:
        new = _to_carry(spec, renames)
        for line in new:
            log.append(line)
    return len(new)


def n_to_carry(spec: Spec, renames: Mapping[str, str]) -> int:
    """How many answers ``carry_synthesis`` would bring under new names. Arguments as there."""
    return len(_to_carry(spec, renames))


def _to_carry(spec: Spec, renames: Mapping[str, str]) -> list[dict[str, Any]]:
    if not renames or not is_recorded(spec):
        return []
    recording = read_recording(spec)
    return _renamed(Writer(spec, recording), recording, renames)


def _renamed(
    writer: Writer, recording: Mapping[str, Mapping[str, Any]], renames: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Answers under the new names of their targets, but for those that the recording holds already."""
    lines = writer.renamed(recording.values(), renames, time_now())
    return [line for line in lines if line["key"] not in recording]


def _is_current(spec: Spec, writer: Writer) -> bool:
    if not spec.queries_path.exists():
        if spec.queries is not None:
            raise DataError(f"{spec.queries_path}: does not exist; router.yaml names it as `queries:`")
        return False
    made_by = {_made_by(line) for _, line in read_jsonl(spec.queries_path)}
    if made_by and made_by <= {None}:
        raise DataError(
            f"{spec.queries_path}: was not written by synth; name it in router.yaml as `queries:` to label it"
        )
    return not writer.all_run_sha256.isdisjoint(made_by)


def _made_by(line: dict[str, Any]) -> str | None:
    """Which synthesis wrote a line of queries.jsonl; None for one that was added by hand."""
    made_by = line.get("synth")
    return made_by if isinstance(made_by, str) else None


def _lines_added_by_hand(spec: Spec) -> list[dict[str, Any]]:
    if not spec.queries_path.exists():
        return []
    read_queries(spec.queries_path)  # names the line where one is wrong
    return [line for _, line in read_jsonl(spec.queries_path) if _made_by(line) is None]


class _Run:
    """One synthesis: what the recording gives, and what is left to be asked.

    Attributes:
        writer: The requests, as far as they are known without vectors.
        pool: The queries so far.
        left: By target that lacks queries: the requests that were never answered, in order.
        n_asked: Requests that were answered, or failed, in this run.
        n_failed: Those of them that failed.
        last_failure: Why the last one of them did.
    """

    def __init__(
        self,
        spec: Spec,
        focus: Focus | None = None,
        *,
        embedder: Embedder | None = None,
        renames: Mapping[str, str] | None = None,
    ) -> None:
        self.recording = read_recording(spec)
        self.writer = Writer(spec, self.recording, focus)
        carried = _renamed(self.writer, self.recording, renames or {})
        self._kept = self.writer.kept([*self.recording.values(), *carried])
        if embedder is not None:
            self.writer.compare(embedder)
        self.pool = Pool(self.writer.wanted, frozenset(_excluded(self.writer)))
        self.n_asked = self.n_failed = 0
        self.last_failure: str | None = None
        self._failures_in_a_row = 0
        replayed = {target: self._replay(target) for target in self.writer.wanted}
        self.left = {target: rounds for target, rounds in replayed.items() if rounds and not self.pool.is_full(target)}

    @property
    def n_missing(self) -> int:
        """Queries that are not written yet and can be."""
        return sum(self.pool.n_missing(target) for target in self.left)

    def _replay(self, target: str) -> list[Round]:
        """Takes the recorded requests of one target in order, then what is kept of other intents; returns those that are left to ask."""
        missing = []
        for round_ in self.writer.rounds(target):
            if self.pool.is_full(target):
                break
            line = self.recording.get(self.writer.key(round_))
            if line is None:
                missing.append(round_)
            else:
                self.pool.add(round_, line["queries"], _repeats_in(line))
        kept = self._kept.get(target, ()) if missing else ()
        for each in kept:
            if self.pool.is_full(target):
                break
            self.pool.add(Round(target, each["round"], tuple(each["lines"])), each["queries"], _repeats_in(each))
        return missing[: max(len(missing) - len(kept), 0)]  # not without end: so many were asked already

    async def ask_all(self, client: ChatClient, comparison: Comparison, log: AppendLog, progress: Progress) -> None:
        """Asks for the rest, several targets at once, each one's requests in order."""
        if not self.left:
            return
        self._client, self._comparison, self._log, self._progress = client, comparison, log, progress
        waiting: dict[str, Iterator[Round]] = {target: iter(rounds) for target, rounds in self.left.items()}
        async with client:

            async def ask_next(target: str) -> bool:
                round_ = next(waiting[target], None)
                if round_ is None or self.pool.is_full(target):
                    return False
                try:
                    await self._ask(round_)
                except SpendLimitError:  # it is tried again where an answer in flight leaves room for it
                    waiting[target] = chain([round_], waiting[target])
                    raise
                return True

            await for_each(self.left, ask_next, self.writer.spec.teacher.concurrency)

    async def _ask(self, round_: Round) -> None:
        line: dict[str, Any] = {
            "key": self.writer.key(round_),
            **round_.line,
            "basis": self.writer.basis(round_.target),
        }
        asked_at = time_now()
        try:
            reply = await self._client.ask(self.writer.request(round_))
        except RequestFailedError as error:
            failed = {**line, "error": str(error)}
            self._record(failed, self._client.dialect, error.charge, asked_at)
            return
        repeats: list[Repeat] = []
        try:
            line["queries"] = _queries_in(reply.content)
        except ValueError as error:
            line["error"] = unusable(error, reply.usage, cut_off=reply.cut_off)
        else:
            repeats = self._comparison.repeats(round_.target, self.pool.fresh(round_, line["queries"]))
            line["repeats"] = [asdict(repeat) for repeat in repeats]
        self._record(line, reply.dialect, reply.charge, asked_at)
        new = self.pool.add(round_, line.get("queries", []), repeats)
        self._progress.advance(new, spend_usd=self._client.budget.known_spend_usd, note=round_.target)

    def _record(self, line: dict[str, Any], dialect: Dialect, charge: Charge, asked_at: str) -> None:
        usage = charge.usage or Usage()
        line |= {
            "teacher": self.writer.model,
            "prompt_sha256": self.writer.settings_sha256,
            "response_format": dialect.response_format,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "latency_ms": None if charge.latency_ms is None else round(charge.latency_ms, 1),
            "asked_at": asked_at,
            "server": server_of(self.writer.spec.teacher.base_url),
            **cost_line(self._client.budget.price, charge),
        }
        self._log.append(line)
        self.n_asked += 1
        if "error" not in line:
            self._failures_in_a_row = 0
            return
        self.n_failed += 1
        self.last_failure = str(line["error"])
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise TeacherError(
                f"{self._failures_in_a_row} requests in a row failed, the last one: {self.last_failure}. Mend the teacher (its server, or "
                "`synth:` and `teacher:` in router.yaml) and run again: what was written so far is kept"
            )

    def query_lines(self) -> Iterator[dict[str, Any]]:
        """The lines of queries.jsonl, target by target in the order they were written."""
        made_by, positions = self.writer.run_sha256, Counter[str]()
        for target, text, round_number in self.pool.distinct():
            yield {
                "id": f"{target}-{positions[target]:04d}",
                "text": text,
                "source": "synth",
                "intended_intent": target,
                "round": round_number,
                "model": self.writer.model,
                "synth": made_by,
            }
            positions[target] += 1


def _excluded(writer: Writer) -> Iterator[str]:
    """Examples, evidence that is shown, and gold, normalised: never training queries."""
    spec = writer.spec
    intents = (*spec.intent_list, *((spec.out_of_scope_intent,) if spec.out_of_scope_intent else ()))
    yield from (normalise(text) for text, _ in examples_of(intents))
    yield from (normalise(text) for known in writer.evidence.values() for text in known)
    if spec.gold_path is not None:
        yield from (normalise(query.text) for query in read_gold(spec.gold_path, spec.labels, spec.task))


def _repeats_in(line: Mapping[str, Any]) -> list[Repeat]:
    """What was found to repeat another query when a recorded answer came."""
    return [Repeat(**each) for each in line.get("repeats", ())]


def _queries_in(content: str) -> list[Any]:
    """The queries of an answer, which may be the only text of an object each; of one that was cut off, those that are whole.

    Raises:
        ValueError: There is none.
    """
    content = without_thoughts(content)
    try:
        value = parse_json(content)
        queries = value["queries"] if isinstance(value, dict) else value
    except (ValueError, KeyError):
        queries = []
        for text in re.findall(r'"((?:[^"\\]|\\.)+)"\s*[,\]]', content):
            with suppress(ValueError):
                queries.append(json.loads(f'"{text}"', strict=False))
    found = [_text_of(query) for query in queries] if isinstance(queries, list) else []
    if not any(isinstance(query, str) for query in found):
        raise ValueError(f"the answer holds no list of queries: {content[:80]!r}")
    return found


def _text_of(query: Any) -> Any:
    """The query in an object that has one text, otherwise what stands there."""
    texts = [value for value in query.values() if isinstance(value, str)] if isinstance(query, dict) else []
    return texts[0] if len(texts) == 1 else query
