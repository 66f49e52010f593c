"""Synthesis: queries written by a model, intent by intent, in many styles; and near misses that fit no intent.

Every raw answer is a line of synth.jsonl, written as it arrives; queries.jsonl follows from these lines alone. So a run
that was cut goes on where it stopped, and a recorded one replays without a model.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.data import normalise, read_gold, read_jsonl, sha256_json, write_jsonl
from distill.errors import DataError, MissingKeyError, TeacherError
from distill.progress import Progress
from distill.teacher.answers import FORMS, parse_json
from distill.teacher.client import (
    DIALECTS,
    ChatClient,
    Dialect,
    Reply,
    Request,
    RequestFailedError,
    for_each,
    is_loopback,
    run_sync,
)
from distill.teacher.ledger import AppendLog
from distill.teacher.prices import check_limit_is_enforceable, cost_usd, price_of
from distill.teacher.prompt import examples_of, render, template_text
from distill.teacher.spend import open_budget
from distill.types import OUT_OF_SCOPE_LABEL, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distill.spec import Spec

__all__ = ["SynthesisPlan", "SynthesisSummary", "plan_synthesis", "synthesise"]

_FAILURES_IN_A_ROW = 8
_TOKENS_PER_QUERY = 40
_LONGEST_QUERY = 300
_ROUNDS_PER_WANTED_ROUND = 4
_OTHERS = 2
_SHARE_OF_ALL_OTHERS = 0.25
"""``multi``: how many other intents a request mixes in, and how often a query asks for all of them."""

_BEGINNINGS = (
    "begins with 'can you'", "begins with 'what'", "begins with 'i need'", "a command", "begins with 'how'",
    "begins with 'is there'", "begins with 'tell me'", "begins with 'i want'", "begins with 'my'", "begins with 'please'",
    "begins with 'when'", "begins with 'where'", "begins with 'why'", "begins with 'do i'", "begins with 'could'",
    "begins with 'i would like'", "begins with 'let me'", "begins with 'i'", "a fragment without a verb", "begins with 'hey'",
    "begins with 'are'", "begins with 'which'", "begins with 'show' or 'give'", "begins with 'help'", "begins with 'does'",
    "begins with 'who'", "begins with 'would'", "begins with the main thing it is about", "begins with 'for'",
)  # fmt: skip
_ECHOES = ("begins with ", "a fragment ", "a command ", "fragment without ")
"""How an attribute looks when a weak model repeats it in place of a query (normalised)."""
_LENGTHS = ("very short", "short", "short", "of middle length", "of middle length", "long")
_SHAPES = (
    "a few keywords", "a few keywords", "a phrase", "a phrase", "a question", "a command such as 'find' or 'show me'",
    "a whole sentence", "half remembered, as if asking a friend",
)  # fmt: skip
"""Of queries to a search, which ``weights`` are for."""
_DETAILS = (
    "", "", "", "with a company's or bank's name", "with an amount or a number", "with a day, month or time",
    "with a reason", "about one particular kind of thing", "casual", "polite", "in a hurry", "with a typo",
)  # fmt: skip

_FAR_TOPICS = (
    "the weather", "cooking and recipes", "flights and hotels", "a car: its parts, fuel and upkeep", "sports results",
    "films, series and actors", "music and bands", "history", "geography: places, rivers, capitals", "animals and plants",
    "health and exercise", "mathematics and units", "physics and chemistry", "words and spelling", "technology and phones",
    "shopping and prices of goods", "shares and companies", "jobs and salaries", "school and homework", "the law and politics",
    "house, garden and repairs", "cleaning and stains", "games and puzzles", "famous people", "news of today",
    "the calendar and reminders", "small talk with the assistant", "opinions and advice on life", "restaurants nearby",
    "public transport and traffic", "books and writers", "fashion and clothes", "languages and translation", "space and planets",
    "insurance and taxes", "gifts and parties", "holidays and customs", "children and family", "computers and programming",
    "customer service, opening hours and contacts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SynthesisSummary:
    """What synthesis did, by target (an intent, or ``oos``).

    Attributes:
        wanted: Queries that router.yaml asks for.
        got: Distinct queries that stand in queries.jsonl.
        dropped: Written, but left out because they repeat another query, an example or gold, or are unusable.
        changed: Whether queries.jsonl was written.
        n_asked: Requests whose answer came in this run.
        spent_usd: By every recorded answer, labels included; None when a price or the tokens are unknown.
    """

    wanted: dict[str, int]
    got: dict[str, int]
    dropped: dict[str, int]
    changed: bool
    n_asked: int
    spent_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class _Round:
    """One request: a target, which of its requests it is, and what varies.

    Attributes:
        target: An intent, or ``oos``.
        number: From 0.
        lines: What each query is to be like, one query a line.
        example: One of the intent's examples, or empty.
        near: For ``oos``: the intent whose subject the queries share without having it, or empty.
        others: ``multi``: intents that some of the queries have as well.
    """

    target: str
    number: int
    lines: tuple[str, ...]
    example: str = ""
    near: str = ""
    others: tuple[str, ...] = ()

    @property
    def line(self) -> dict[str, Any]:
        own = {"target": self.target, "round": self.number, "lines": list(self.lines)}
        if self.others:
            own["others"] = list(self.others)
        return own | {name: value for name in ("example", "near") if (value := getattr(self, name))}


class _Writer:
    """The synthesiser's settings, and the requests that follow from them."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.n = spec, spec.synth.per_request
        self.model = spec.synth.model or spec.teacher.model or ""
        if not self.model:
            raise TeacherError(f"{spec.path}: synth needs a model: give synth.model, or `queries:` with your own")
        self.form = FORMS[spec.task]
        self.intents = {intent.name: intent for intent in spec.intent_list}
        self.attributes, kinds = dict(spec.synth.attributes), tuple(self.intents)
        self.template = self.form.synth_template_crossed if self.attributes else self.form.synth_template
        if self.form.takes_kinds and self.attributes:
            kinds = self.attributes.pop(next(iter(self.attributes)))
        self.wanted = dict.fromkeys(kinds, spec.synth.per_intent)
        if (spec.out_of_scope or self.form.may_be_empty) and spec.synth.out_of_scope:
            self.wanted[OUT_OF_SCOPE_LABEL] = spec.synth.out_of_scope
        self.schema = {
            "type": "object",
            "properties": {
                "queries": {"type": "array", "items": {"type": "string"}, "minItems": self.n, "maxItems": self.n}
            },
            "required": ["queries"],
            "additionalProperties": False,
        }

    @cached_property
    def settings_sha256(self) -> str:
        """Hash of what every request of this spec depends on; a request's key adds what varies."""
        intents = [[i.name, i.description, list(i.examples)] for i in self.spec.intent_list]
        oos = self.spec.out_of_scope_intent
        return sha256_json(
            {
                "template": template_text(self.template),
                "intents": intents,
                "out_of_scope": None if oos is None else [oos.description, list(oos.examples)],
                "n": self.n,
                "temperature": self.spec.synth.temperature,
                "schema": self.schema,
            }
        )

    def key(self, round_: _Round) -> str:
        return sha256_json([self.model, self.settings_sha256, round_.line])

    def rounds(self, target: str) -> Iterator[_Round]:
        """The requests of one target in a fixed order: attributes crossed by a fixed seed."""
        dice = random.Random(f"{self.spec.seed}:{target}")  # noqa: S311 - not for secrets
        most = _ROUNDS_PER_WANTED_ROUND * -(-self.wanted[target] // self.n)
        examples = ("", *self.intents[target].examples) if target in self.intents else ("",)
        near = list(self.intents)
        dice.shuffle(near)
        own = {name: _deal(dice, values) for name, values in self.attributes.items()}
        others = _deal(dice, [name for name in self.intents if name != target])
        for number in range(most):
            lines = [self._line(target, styles, own) for styles in self._styles(dice)]
            if target != OUT_OF_SCOPE_LABEL:
                also = tuple(dict.fromkeys(next(others) for _ in range(_OTHERS * self.form.mixes_intents)))
                lines = _mixed(dice, lines, also)
                yield _Round(target, number, tuple(lines), example=examples[number % len(examples)], others=also)
            elif number % 2:
                yield _Round(target, number, tuple(lines), near=near[number // 2 % len(near)])
            else:
                topics = (
                    dice.sample(_FAR_TOPICS, self.n)
                    if self.n <= len(_FAR_TOPICS)
                    else dice.choices(_FAR_TOPICS, k=self.n)
                )
                about = (f"{line}, about {topic}" for line, topic in zip(lines, topics, strict=True))
                yield _Round(target, number, tuple(about))

    def _styles(self, dice: random.Random) -> Iterator[dict[str, str]]:
        """What each query of a request is like, by the names under which the user's attributes may say it instead."""
        if self.form.takes_kinds:
            shapes = _deal(dice, _SHAPES)
            for _ in range(self.n):
                yield {"shape": next(shapes), "length": dice.choice(_LENGTHS)}
            return
        beginnings: list[str] = []
        while len(beginnings) < self.n:  # they differ while they last
            beginnings += dice.sample(_BEGINNINGS, min(len(_BEGINNINGS), self.n - len(beginnings)))
        for beginning in beginnings:
            yield {"beginning": beginning, "length": dice.choice(_LENGTHS), "detail": dice.choice(_DETAILS)}

    def _line(self, target: str, styles: dict[str, str], own: dict[str, Iterator[str]]) -> str:
        """One query's line: our own styles in bare words, the user's attributes with their names.

        A kind of queries stands in each line, before its attributes: said once for all lines, a small model forgets it.
        """
        given = {name: next(values) for name, values in own.items()}
        ours = [words for name, words in styles.items() if name not in given]
        named = [f"{name}: {words}" for name, words in given.items() if words]
        parts = (
            [f"by {target}", *named, *ours] if self.form.takes_kinds and target not in self.intents else [*ours, *named]
        )
        return ", ".join(filter(None, parts))

    def request(self, round_: _Round) -> Request:
        """What is sent for a round."""
        return Request(
            messages=render(
                self.template,
                intent=self.intents.get(round_.target),
                kind=round_.target,
                channels=tuple(self.intents.values()),
                example=round_.example,
                near=self.intents.get(round_.near),
                others=[self.intents[name] for name in round_.others],
                lines=round_.lines,
            ),
            schema=self.schema,
            temperature=self.spec.synth.temperature,
            max_output_tokens=max(self.n * _TOKENS_PER_QUERY, self.spec.teacher.max_output_tokens),
        )


def _deal(dice: random.Random, values: Sequence[str]) -> Iterator[str]:
    """The values for ever, shuffled each time they have all been dealt: as often one as another."""
    while values:
        yield from dice.sample(values, len(values))


def _mixed(dice: random.Random, lines: list[str], others: tuple[str, ...]) -> list[str]:
    """Has half of the lines ask for one more intent, and now and then for two."""
    if not others:
        return lines
    mixed = []
    for number, line in enumerate(lines):
        wanted = dice.sample(others, len(others) if dice.random() < _SHARE_OF_ALL_OTHERS else 1)
        mixed.append(f"{line}, and asks for {' and '.join(wanted)} too" if number % 2 else line)
    return mixed


def _read_recording(spec: Spec) -> dict[str, dict[str, Any]]:
    """Good lines of synth.jsonl by key."""
    path = spec.synthesis_path
    if not path.exists():
        return {}
    lines: dict[str, dict[str, Any]] = {}
    for number, line in read_jsonl(path, skip_torn=True):
        if not isinstance(line.get("key"), str) or not isinstance(line.get("queries", []), list):
            raise DataError(f"{path}:{number}: not a line of a synthesis recording; remove it to go on")
        if "queries" in line:
            lines[line["key"]] = line
    return lines


def _is_usable(text: str, plain: str, lines: frozenset[str]) -> bool:
    """Whether a query has words, a sane length, UTF-8 (half a surrogate pair has none), and is no echo of the request's lines."""
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in text)
    is_echo = plain in lines or plain.startswith(_ECHOES)
    return bool(plain) and len(text) <= _LONGEST_QUERY and is_unicode and not is_echo


@dataclass
class _Pool:
    """Distinct queries by target. Targets do not see each other, so that a replay gives what the live run gave."""

    wanted: dict[str, int]
    excluded: frozenset[str]
    queries: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, round_: _Round, texts: list[Any]) -> int:
        """Takes the new ones among ``texts``; how many there were."""
        own = self.queries.setdefault(round_.target, {})
        before, lines = len(own), frozenset(map(normalise, round_.lines))
        for text in texts:
            clean = " ".join(text.split()) if isinstance(text, str) else ""
            plain = normalise(clean)
            if not _is_usable(clean, plain, lines) or plain in own or plain in self.excluded:
                self.dropped[round_.target] += 1
            elif len(own) < self.wanted[round_.target]:
                own[plain] = (clean, round_.number)
        return len(own) - before

    def is_full(self, target: str) -> bool:
        return self.n_missing(target) == 0

    def n_missing(self, target: str) -> int:
        return self.wanted[target] - len(self.queries.get(target, ()))

    def distinct(self) -> Iterator[tuple[str, str, int]]:
        """Target, text and round, in the targets' order; a text that several targets brought stands with the first."""
        seen: set[str] = set()
        for target in self.wanted:
            for plain, (text, round_number) in self.queries.get(target, {}).items():
                if plain not in seen:
                    seen.add(plain)
                    yield target, text, round_number


def synthesise(spec: Spec, *, show_progress: bool = True) -> SynthesisSummary:
    """Has a model write the queries that router.yaml asks for, and writes queries.jsonl.

    Does nothing when queries.jsonl was made with the same settings (lines removed or added by hand stay so). What
    synth.jsonl already holds is not asked again. Can be called where an event loop is running.

    Raises:
        TeacherError: The model cannot answer at all, or ``teacher.max_usd`` is reached. Every answer received is kept.
        DataError: queries.jsonl is the user's own, or a file is wrong.
    """
    writer = _Writer(spec)
    changed, n_asked, dropped = not _is_current(spec, writer), 0, dict[str, int]()
    if changed:
        run = _Run(writer)
        if run.left:
            n_asked = _ask_for_the_rest(writer, run, show_progress=show_progress)
            run = _Run(writer)  # from the recording alone, so that a replay gives the very same
        write_jsonl(spec.queries_path, [*run.query_lines(), *_lines_added_by_hand(spec)])
        dropped = dict(run.pool.dropped)
    return SynthesisSummary(
        wanted=writer.wanted,
        got=_counts(spec, writer),
        dropped=dropped,
        changed=changed,
        n_asked=n_asked,
        spent_usd=open_budget(spec, writer.model).known_spend_usd,
    )


def _ask_for_the_rest(writer: _Writer, run: _Run, *, show_progress: bool) -> int:
    """Has the model write what the recording lacks; how many requests that took."""
    path = writer.spec.synthesis_path
    try:
        with AppendLog(path) as log:
            run = _Run(writer)  # read again: until the file was ours, another process may have written to it
            with Progress("synth", run.n_missing, show=show_progress) as progress:
                run_sync(run.ask_all(log, progress))
    except MissingKeyError as error:
        raise MissingKeyError(
            f"{error}. {path} lacks {run.n_missing} queries by {writer.model!r}; {_recorded_by(writer)}"
        ) from None
    return run.n_asked


def _recorded_by(writer: _Writer) -> str:
    """Which setting differs from the recording."""
    lines = _read_recording(writer.spec).values()
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
        recorded: The queries that are written already and will stand in queries.jsonl; None where that file is up to date.
    """

    n_missing: int
    n_requests: int
    estimated_usd: Decimal | None
    recorded: tuple[str, ...] | None = field(default=None, repr=False)


_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_WRITTEN_QUERY = 16
_SHARE_OF_NEW_QUERIES = 0.75


def plan_synthesis(spec: Spec) -> SynthesisPlan:
    """Counts the queries that are still to be written and estimates their price; asks nothing."""
    writer = _Writer(spec)
    price = price_of(spec, writer.model)
    if _is_current(spec, writer):
        return SynthesisPlan(0, 0, None if price is None else Decimal(0))
    run = _Run(writer)
    n_missing = run.n_missing
    n_requests = round(n_missing / (writer.n * _SHARE_OF_NEW_QUERIES) + 0.5) if n_missing else 0
    estimate = None
    if price is not None:
        rounds = next(iter(run.left.values()), None)
        characters = sum(len(content) for _, content in writer.request(rounds[0]).messages) if rounds else 0
        written = n_requests * writer.n * _TOKENS_PER_WRITTEN_QUERY
        estimate = cost_usd(price, Usage(n_requests * characters // _CHARACTERS_PER_TOKEN, written))
    return SynthesisPlan(n_missing, n_requests, estimate, tuple(text for _, text, _ in run.pool.distinct()))


def _counts(spec: Spec, writer: _Writer) -> dict[str, int]:
    targets = Counter(str(line.get("intended_intent")) for _, line in read_jsonl(spec.queries_path))
    return {target: targets[target] for target in writer.wanted}


def _run_sha256(writer: _Writer) -> str:
    crossed = [list(writer.spec.synth.attributes.items())] if writer.spec.synth.attributes else []
    return sha256_json([writer.model, writer.settings_sha256, writer.wanted, writer.spec.seed, *crossed])[:12]


def _is_current(spec: Spec, writer: _Writer) -> bool:
    if not spec.queries_path.exists():
        if spec.queries is not None:
            raise DataError(f"{spec.queries_path}: does not exist; router.yaml names it as `queries:`")
        return False
    made_by = {_made_by(line) for _, line in read_jsonl(spec.queries_path)}
    if made_by and made_by <= {None}:
        raise DataError(
            f"{spec.queries_path}: was not written by synth; name it in router.yaml as `queries:` to label it"
        )
    return _run_sha256(writer) in made_by


def _made_by(line: dict[str, Any]) -> str | None:
    """Which synthesis wrote a line of queries.jsonl; None for one that was added by hand."""
    made_by = line.get("synth")
    return made_by if isinstance(made_by, str) else None


def _lines_added_by_hand(spec: Spec) -> list[dict[str, Any]]:
    if not spec.queries_path.exists():
        return []
    return [line for _, line in read_jsonl(spec.queries_path) if _made_by(line) is None]


class _Run:
    """One synthesis: what the recording gives, and what is left to be asked.

    Attributes:
        pool: The queries so far.
        left: By target that lacks queries: the requests that were never answered, in order.
        n_asked: Requests whose answer came in this run.
    """

    def __init__(self, writer: _Writer) -> None:
        self.writer, self.recording = writer, _read_recording(writer.spec)
        self.pool = _Pool(writer.wanted, frozenset(_excluded(writer.spec)))
        self.n_asked = 0
        self._failures_in_a_row = 0
        replayed = {target: self._replay(target) for target in writer.wanted}
        self.left = {target: rounds for target, rounds in replayed.items() if rounds and not self.pool.is_full(target)}

    @property
    def n_missing(self) -> int:
        """Queries that are not written yet and can be."""
        return sum(self.pool.n_missing(target) for target in self.left)

    def _replay(self, target: str) -> list[_Round]:
        """Takes the recorded requests of one target in order; returns those that were never answered."""
        missing = []
        for round_ in self.writer.rounds(target):
            if self.pool.is_full(target):
                break
            line = self.recording.get(self.writer.key(round_))
            if line is None:
                missing.append(round_)
            else:
                self.pool.add(round_, line["queries"])
        return missing

    async def ask_all(self, log: AppendLog, progress: Progress) -> None:
        """Asks for the rest, several targets at once, each one's requests in order."""
        if not self.left:
            return
        self._log, self._progress, spec = log, progress, self.writer.spec
        self._budget = open_budget(spec, self.writer.model)
        waiting = {target: iter(rounds) for target, rounds in self.left.items()}
        async with ChatClient(spec.teacher, self.writer.model, self._budget, DIALECTS[0]) as client:
            loopback = is_loopback(spec.teacher.base_url)
            check_limit_is_enforceable(spec, self.writer.model, self._budget.price, loopback=loopback)

            async def ask_next(target: str) -> bool:
                round_ = next(waiting[target], None)
                if round_ is None or self.pool.is_full(target):
                    return False
                await self._ask(client, round_)
                return True

            await for_each(self.left, ask_next, spec.teacher.concurrency)

    async def _ask(self, client: ChatClient, round_: _Round) -> None:
        line: dict[str, Any] = {"key": self.writer.key(round_), **round_.line}
        asked_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            reply = await client.ask(self.writer.request(round_))
        except RequestFailedError as error:
            self._record({**line, "error": str(error)}, client.dialect, None, asked_at)
            return
        try:
            line["queries"] = _queries_in(reply.content)
        except ValueError as error:
            line["error"] = str(error)
        self._record(line, reply.dialect, reply, asked_at)
        new = self.pool.add(round_, line.get("queries", []))
        self._progress.advance(new, spend_usd=self._budget.known_spend_usd, note=round_.target)

    def _record(self, line: dict[str, Any], dialect: Dialect, reply: Reply | None, asked_at: str) -> None:
        usage = reply.usage if reply else Usage()
        line |= {
            "teacher": self.writer.model,
            "prompt_sha256": self.writer.settings_sha256,
            "response_format": dialect.response_format,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "latency_ms": round(reply.latency_ms, 1) if reply else None,
            "asked_at": asked_at,
        }
        self._log.append(line)
        self.n_asked += 1
        self._failures_in_a_row = self._failures_in_a_row + 1 if "error" in line else 0
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise TeacherError(f"{self._failures_in_a_row} requests in a row failed, the last one: {line['error']}")

    def query_lines(self) -> Iterator[dict[str, Any]]:
        """The lines of queries.jsonl, target by target in the order they were written."""
        made_by, positions = _run_sha256(self.writer), Counter[str]()
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


def _excluded(spec: Spec) -> Iterator[str]:
    """Examples and gold, normalised: never training queries."""
    intents = (*spec.intent_list, *((spec.out_of_scope_intent,) if spec.out_of_scope_intent else ()))
    yield from (normalise(text) for text, _ in examples_of(intents))
    if spec.gold_path is not None:
        yield from (normalise(query.text) for query in read_gold(spec.gold_path, spec.labels, spec.task))


def _queries_in(content: str) -> list[Any]:
    """The queries of an answer; of one that was cut off, those that are whole.

    Raises:
        ValueError: There is none.
    """
    try:
        value = parse_json(content)
        queries = value["queries"] if isinstance(value, dict) else value
    except (ValueError, KeyError):
        queries = []
        for text in re.findall(r'"((?:[^"\\]|\\.)+)"\s*[,\]]', content):
            with suppress(ValueError):
                queries.append(json.loads(f'"{text}"', strict=False))
    if not isinstance(queries, list) or not queries:
        raise ValueError(f"the answer holds no list of queries: {content[:80]!r}")
    return queries
