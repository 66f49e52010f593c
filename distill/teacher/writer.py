"""What the model that writes queries is asked: for each target, requests in a fixed order, crossed over styles and attributes.

A request for an intent names the intents that are nearest to it, its rivals, which its queries are not to be taken for. They come
from the recording, and for what was never asked from the vectors of names, descriptions and examples; so a recording replays
without vectors, and goes on with the template that it was begun with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import normalise, read_jsonl, sha256_json
from distill.errors import DataError, TeacherError
from distill.teacher.answers import FORMS
from distill.teacher.asking import effort
from distill.teacher.client import Request
from distill.teacher.prompt import render, template_text
from distill.types import OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.types import Intent

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Recording = Mapping[str, Mapping[str, Any]]

__all__ = ["Round", "Writer", "read_recording"]

_RIVALS = 2
_LEAST_LIKENESS = 0.3
"""How many intents a request names as rivals, and the cosine below which nobody would mix two up."""
_TOKENS_PER_QUERY = 40
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
class Round:
    """One request: a target, which of its requests it is, and what varies.

    Attributes:
        target: An intent, or ``oos``.
        number: From 0.
        lines: What each query is to be like, one query a line.
        example: One of the target's examples, or empty.
        near: For ``oos``: the intent whose subject the queries share without having it, or empty.
        others: ``multi``: intents that some of the queries have as well.
        rivals: Labels that the queries are not to be taken for; for ``oos``, neighbours of ``near``.
        close: Whether the queries are to come near to the rivals, and not only to differ from them.
    """

    target: str
    number: int
    lines: tuple[str, ...]
    example: str = ""
    near: str = ""
    others: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    close: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """What is recorded of it, and makes its key."""
        own = {"target": self.target, "round": self.number, "lines": list(self.lines)}
        own |= {name: list(value) for name in ("others", "rivals") if (value := getattr(self, name))}
        return own | {name: value for name in ("example", "near", "close") if (value := getattr(self, name))}


class Writer:
    """The synthesiser's settings, and the requests that follow from them.

    Args:
        spec: The router's spec.
        recording: The good lines of synth.jsonl by key.
        rivals: By label, those that its queries come near to and are yet not to be taken for; None: each intent's nearest others,
            once ``compare`` has found them.

    Attributes:
        wanted: By target (an intent or ``oos``; in ``weights`` a kind of queries), how many queries are to be written.
        rivals: As given, or as far as they are recorded or found.
    """

    def __init__(
        self, spec: Spec, recording: Recording | None = None, rivals: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.spec, self.n = spec, spec.synth.per_request
        self.model = spec.synth.model or spec.teacher.model or ""
        if not self.model:
            raise TeacherError(f"{spec.path}: synth needs a model: give synth.model, or `queries:` with your own")
        self.form = FORMS[spec.task]
        self.intents = {intent.name: intent for intent in spec.intent_list}
        self.attributes, kinds = dict(spec.synth.attributes), tuple(self.intents)
        self.templates = self.form.synth_templates_crossed if self.attributes else self.form.synth_templates
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
        lines = () if recording is None else tuple(recording.values())
        recorded = {line.get("prompt_sha256") for line in lines}
        self.template = next((each for each in self.templates if self._sha256(each) in recorded), self.templates[0])
        self._has_given_rivals = rivals is not None
        self.rivals = {} if rivals is None else {name: tuple(own) for name, own in rivals.items()}
        if rivals is None:
            self._take_recorded_rivals(lines)

    def _take_recorded_rivals(self, lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            if line.get("teacher") == self.model and line.get("prompt_sha256") == self.settings_sha256:
                self.rivals.setdefault(line.get("near") or line["target"], tuple(line.get("rivals", ())))

    @property
    def _is_newest(self) -> bool:
        """Whether requests hold what older templates had no place for: rivals, and examples of queries that fit none."""
        return self.form.names_rivals and self.template == self.templates[0]

    @property
    def lacks_rivals(self) -> bool:
        """Whether ``compare`` would find rivals of an intent that was never asked for."""
        return self._is_newest and not self._has_given_rivals and not self.intents.keys() <= self.rivals.keys()

    def compare(self, embedder: Embedder) -> None:
        """Takes as an intent's rivals the others that are nearest to it by name, description and examples."""
        from distill.embed import nearest

        if not self.lacks_rivals:
            return
        names = list(self.intents)
        vectors = _vectors(embedder, list(self.intents.values()))
        for row, (positions, cosines) in enumerate(zip(*nearest(vectors, vectors, _RIVALS + 1), strict=True)):
            near = zip(positions.tolist(), cosines.tolist(), strict=True)
            others = [names[position] for position, cosine in near if position != row and cosine >= _LEAST_LIKENESS]
            self.rivals.setdefault(names[row], tuple(others[:_RIVALS]))

    @cached_property
    def settings_sha256(self) -> str:
        """Hash of what every request of this spec depends on; a request's key adds what varies."""
        return self._sha256(self.template)

    def _sha256(self, template: str) -> str:
        intents = [[i.name, i.description, list(i.examples)] for i in self.spec.intent_list]
        oos = self.spec.out_of_scope_intent
        return sha256_json(
            {
                "template": template_text(template),
                "intents": intents,
                "out_of_scope": None if oos is None else [oos.description, list(oos.examples)],
                "n": self.n,
                "temperature": self.spec.synth.temperature,
                "schema": self.schema,
                **({} if self.spec.synth.model else effort(self.spec)),
            }
        )

    @cached_property
    def run_sha256(self) -> str:
        """Names the whole synthesis in the lines of queries.jsonl."""
        return self._run_sha256(self.template)

    @property
    def all_run_sha256(self) -> set[str]:
        """The same for every template: queries.jsonl may have been written with an older one."""
        return {self._run_sha256(template) for template in self.templates}

    def _run_sha256(self, template: str) -> str:
        varied: list[Any] = [list(self.spec.synth.attributes.items())] if self.spec.synth.attributes else []
        if self._has_given_rivals:
            varied.append({name: list(own) for name, own in self.rivals.items()})
        return sha256_json([self.model, self._sha256(template), self.wanted, self.spec.seed, *varied])[:12]

    def key(self, round_: Round) -> str:
        """Under which a request is recorded."""
        return sha256_json([self.model, self.settings_sha256, round_.line])

    def rounds(self, target: str) -> Iterator[Round]:
        """The requests of one target in a fixed order: attributes crossed by a fixed seed."""
        dice = random.Random(f"{self.spec.seed}:{target}")  # noqa: S311 - not for secrets
        most = _ROUNDS_PER_WANTED_ROUND * -(-self.wanted[target] // self.n)
        examples = ("", *self._examples(target))
        rivals = self.rivals.get(target, ())
        near = list(rivals) if target == OUT_OF_SCOPE_LABEL and rivals else list(self.intents)
        dice.shuffle(near)
        own = {name: _deal(dice, values) for name, values in self.attributes.items()}
        others = _deal(dice, [name for name in self.intents if name != target])
        for number in range(most):
            lines = [self._line(target, styles, own) for styles in self._styles(dice)]
            if target == OUT_OF_SCOPE_LABEL:
                yield self._miss(dice, number, lines, near, examples)
                continue
            also = tuple(dict.fromkeys(next(others) for _ in range(_OTHERS * self.form.mixes_intents)))
            lines = _mixed(dice, lines, also)
            example = examples[number % len(examples)]
            close = self._has_given_rivals and bool(rivals)
            yield Round(target, number, tuple(lines), example=example, others=also, rivals=rivals, close=close)

    def _examples(self, target: str) -> tuple[str, ...]:
        """The user's own, which requests show in turn."""
        if target in self.intents:
            return self.intents[target].examples
        out_of_scope = self.spec.out_of_scope_intent if target == OUT_OF_SCOPE_LABEL and self._is_newest else None
        return out_of_scope.examples if out_of_scope is not None else ()

    def _miss(
        self, dice: random.Random, number: int, lines: list[str], near: list[str], examples: tuple[str, ...]
    ) -> Round:
        """Queries that fit none: other subjects and near misses in turn; near misses alone where rivals are given."""
        example = examples[number // 2 % len(examples)]
        if self._has_given_rivals or number % 2:
            name = near[(number if self._has_given_rivals else number // 2) % len(near)]
            rivals = tuple(rival for rival in self.rivals.get(name, ()) if rival != OUT_OF_SCOPE_LABEL)
            return Round(OUT_OF_SCOPE_LABEL, number, tuple(lines), example, near=name, rivals=rivals)
        topics = dice.sample(_FAR_TOPICS, self.n) if self.n <= len(_FAR_TOPICS) else dice.choices(_FAR_TOPICS, k=self.n)
        about = (f"{line}, about {topic}" for line, topic in zip(lines, topics, strict=True))
        return Round(OUT_OF_SCOPE_LABEL, number, tuple(about), example)

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

    def request(self, round_: Round) -> Request:
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
                rivals=[_named(name, self.intents) for name in round_.rivals],
                close=round_.close,
                lines=round_.lines,
            ),
            schema=self.schema,
            temperature=self.spec.synth.temperature,
            max_output_tokens=max(self.n * _TOKENS_PER_QUERY, self.spec.teacher.max_output_tokens),
        )


def _named(label: str, intents: Mapping[str, Intent]) -> str:
    """A rival, as a prompt names it."""
    if label == OUT_OF_SCOPE_LABEL:
        return "anything that fits no intent"
    description = intents[label].description
    return f"{label}: {description}" if description else label


def _vectors(embedder: Embedder, intents: Sequence[Intent]) -> Floats:
    """A vector for each intent, the mean over its name with its description and its examples: float32 (n, d), rows of length 1."""
    texts = [(f"{normalise(each.name)}: {each.description}", *each.examples) for each in intents]
    vectors = embedder.embed([text for own in texts for text in own])
    ends = np.cumsum([len(own) for own in texts])
    means = np.stack([own.mean(axis=0) for own in np.split(vectors, ends[:-1])])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return means


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


def read_recording(spec: Spec) -> dict[str, dict[str, Any]]:
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
