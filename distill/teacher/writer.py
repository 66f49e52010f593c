"""What the model that writes queries is asked: for each target, requests in a fixed order, crossed over styles and attributes.

Where queries of an intent are known, every other request shows some of them together in place of styles: one kind makes queries
differ, the other keeps them near to what users write.

A request for an intent names the intents that are nearest to it, its rivals, which its queries are not to be taken for. They come
from the recording, and for what was never asked from the vectors of names, descriptions and examples; so a recording replays
without vectors, and goes on with the template that it was begun with.

A request's key depends on all intents. What was written under others is kept all the same where nothing else changed: a query that was
once written for an intent stays one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import normalise, read_jsonl, sha256_json
from distill.errors import DataError, TeacherError
from distill.teacher.answers import FORMS
from distill.teacher.asking import effort
from distill.teacher.client import Request
from distill.teacher.evidence import evidence_by_label
from distill.teacher.prompt import render, template_text
from distill.teacher.styles import (
    FAR_TOPICS,
    OLDER_FAR_TOPICS,
    crossed_styles,
    deal,
    language_name,
    older_styles,
    search_styles,
)
from distill.types import OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from distill.embed import Embedder
    from distill.spec import Spec
    from distill.types import Intent

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Recording = Mapping[str, Mapping[str, Any]]

__all__ = ["Focus", "Round", "Writer", "read_recording"]

_RIVALS = 2
_LEAST_LIKENESS = 0.3
"""How many intents a request names as rivals, and the cosine below which nobody would mix two up."""
_SERVED = 3
"""How many intents a request for queries on other subjects names."""
_ALIKE, _LEAST_ALIKE = 5, 2
"""How many known queries a request shows together, and the fewest that say how users write."""
_COMPARED = 20
"""Of how many known queries, besides its own examples, an intent's vector is the mean."""
_TOKENS_PER_QUERY = 40
_ROUNDS_PER_WANTED_ROUND = 4
_OTHERS = 2
_SHARE_OF_ALL_OTHERS = 0.25
"""``multi``: how many other intents a request mixes in, and how often a query asks for all of them."""
_OLDER_TEMPLATES = ("synth_001", "synth_002")
"""``single``: prompts with no place for rivals and known queries."""
_TEMPLATE_OF_TWO_KINDS = "synth_004"
"""``single``: the prompt that has a place for known queries together."""


@dataclass(frozen=True, slots=True)
class Round:
    """One request: a target, which of its requests it is, and what varies.

    Attributes:
        target: An intent, or ``oos``.
        number: From 0.
        lines: What each query is to be like, one query a line; empty where ``alike`` says it.
        example: One of the target's examples, or empty.
        near: For ``oos``: the intent whose subject the queries share without having it, or empty.
        others: ``multi``: intents that some of the queries have as well.
        rivals: Labels that the queries are not to be taken for; for ``oos``, neighbours of ``near``.
        close: Whether the queries are to come near to the rivals, and not only to differ from them.
        evidence: In place of an example: a query that people labelled, redacted. No recording repeats its text.
        served: For ``oos`` on other subjects: some intents, which say what the assistant is for, and in which language.
        alike: In place of lines: known queries of the target, which the new ones are to be like. No recording repeats their text.
    """

    target: str
    number: int
    lines: tuple[str, ...]
    example: str = ""
    near: str = ""
    others: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    close: bool = False
    evidence: str = ""
    served: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()

    @property
    def line(self) -> dict[str, Any]:
        """What is recorded of it, and makes its key."""
        own = {"target": self.target, "round": self.number, "lines": list(self.lines)}
        own |= {name: list(value) for name in ("others", "rivals", "served") if (value := getattr(self, name))}
        own |= {name: value for name in ("example", "near", "close") if (value := getattr(self, name))}
        own |= {"alike": [sha256_json(text)[:12] for text in self.alike]} if self.alike else {}
        return own | ({"evidence": sha256_json(self.evidence)[:12]} if self.evidence else {})


@dataclass(frozen=True, slots=True)
class Focus:
    """What is written for where labels are mixed up.

    Attributes:
        rivals: By label, those that its queries come near to and are yet not to be taken for.
        known: By label, queries that people labelled, in place of ``teacher.evidence``.
    """

    rivals: Mapping[str, Sequence[str]]
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Writer:
    """The synthesiser's settings, and the requests that follow from them.

    Args:
        spec: The router's spec.
        recording: The good lines of synth.jsonl by key.
        focus: On labels that are mixed up; None: an intent's rivals are its nearest others, once ``compare`` has found them.

    Attributes:
        wanted: By target (an intent or ``oos``; in ``weights`` a kind of queries), how many queries are to be written.
        rivals: As given, or as far as they are recorded or found.
        evidence: By label, the known queries, which requests show in turn, one each or some together.
    """

    def __init__(self, spec: Spec, recording: Recording | None = None, focus: Focus | None = None) -> None:
        self.spec, self.n = spec, spec.synth.per_request
        self.model = spec.synth.model or spec.teacher.model or ""
        if not self.model:
            raise TeacherError(f"{spec.path}: synth needs a model: give synth.model, or `queries:` with your own")
        self.form = FORMS[spec.task]
        self.intents = {intent.name: intent for intent in spec.intent_list}
        self.attributes, kinds = dict(spec.synth.attributes), tuple(self.intents)
        if self.form.takes_kinds and self.attributes:
            kinds = self.attributes.pop(next(iter(self.attributes)))
        if spec.synth.languages:
            self.attributes["language"] = tuple(map(language_name, spec.synth.languages))
        is_crossed = bool(spec.synth.attributes or spec.synth.languages)
        self.templates = self.form.synth_templates_crossed if is_crossed else self.form.synth_templates
        if focus is not None and self.form.synth_templates_close:
            self.templates = self.form.synth_templates_close
        kinds = tuple(kind for kind in kinds if focus is None or kind in focus.rivals)
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
        self._has_given_rivals = focus is not None
        self.evidence: dict[str, tuple[str, ...]] = {}
        if self.template not in _OLDER_TEMPLATES:
            self.evidence = evidence_by_label(spec) if focus is None else _tuples(focus.known)
        self.rivals = {} if focus is None else _tuples(focus.rivals)
        if focus is None:
            self._take_recorded_rivals(lines)

    def _take_recorded_rivals(self, lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            is_own = line.get("teacher") == self.model and line.get("prompt_sha256") == self.settings_sha256
            if is_own and "alike" not in line:
                self.rivals.setdefault(line.get("near") or line["target"], tuple(line.get("rivals", ())))

    @property
    def _names_rivals(self) -> bool:
        """Whether requests hold what older templates had no place for: rivals, and examples of queries that fit none."""
        return self.form.names_rivals and self.template not in _OLDER_TEMPLATES

    @property
    def lacks_rivals(self) -> bool:
        """Whether ``compare`` would find rivals of an intent that was never asked for."""
        return self._names_rivals and not self._has_given_rivals and not self.intents.keys() <= self.rivals.keys()

    def compare(self, embedder: Embedder) -> None:
        """Takes as an intent's rivals the others that are nearest to it by name, description and examples."""
        from distill.embed import nearest

        if not self.lacks_rivals:
            return
        names = list(self.intents)
        vectors = _vectors(embedder, list(self.intents.values()), self.evidence)
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
        if self.spec.synth.languages:
            varied.append({"languages": self.spec.synth.languages})
        if self.evidence and template not in _OLDER_TEMPLATES:
            varied.append({"evidence": sha256_json(self.evidence)})
        if self._has_given_rivals:
            varied.append({name: list(own) for name, own in self.rivals.items()})
        return sha256_json([self.model, self._sha256(template), self.wanted, self.spec.seed, *varied])[:12]

    def key(self, round_: Round) -> str:
        """Under which a request is recorded."""
        return sha256_json([self.model, self.settings_sha256, round_.line])

    # --- what was written under other intents ---

    def basis(self, target: str) -> dict[str, str]:
        """What a line says of its request besides the key: hashes of the settings, intents and prompt apart, and of how its target is described."""
        is_out_of_scope = target == OUT_OF_SCOPE_LABEL and target not in self.intents
        intent = self.spec.out_of_scope_intent if is_out_of_scope else self.intents.get(target)
        described = None if intent is None else [intent.description, list(intent.examples)]
        return {"settings": self._settings_without_intents, "target": sha256_json(described)[:12]}

    @cached_property
    def _settings_without_intents(self) -> str:
        given = {name: list(own) for name, own in self.rivals.items()} if self._has_given_rivals else None
        varied = [list(self.attributes.items()), self.spec.seed, given]
        made_by = [
            self.spec.task.value,
            self.n,
            self.spec.synth.temperature,
            {} if self.spec.synth.model else effort(self.spec),
        ]
        return sha256_json([*made_by, *varied])[:12]

    @cached_property
    def _all_settings_sha256(self) -> set[str]:
        """With each of our own prompts, whichever this spec takes, and for whichever task."""
        of_forms = ((*f.synth_templates, *f.synth_templates_crossed, *f.synth_templates_close) for f in FORMS.values())
        return {self._sha256(template) for own in of_forms for template in own}

    def kept(self, lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
        """Of the lines of a recording those that were written under other intents, and stay what they were, by target.

        Two intents that were merged take turns.
        """
        found: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            target = line.get("target")
            if target in self.wanted and self._is_of_other_intents(line) and self._is_described(line, target):
                found.setdefault(target, []).append(line)
        return {target: sorted(own, key=lambda line: line["round"]) for target, own in found.items()}

    def renamed(
        self, lines: Iterable[Mapping[str, Any]], renames: Mapping[str, str], carried_at: str
    ) -> list[dict[str, Any]]:
        """Lines of a recording under the new names of their targets, as they were described last; they cost nothing."""
        old = [line for line in lines if line.get("target") in renames and self._is_of_other_intents(line)]
        last = {line["target"]: line.get("basis") for line in old}
        return [
            {
                **line,
                "key": sha256_json([line["key"], renames[line["target"]]]),
                "target": renames[line["target"]],
                "basis": self.basis(renames[line["target"]]),
                "latency_ms": None,  # it was paid for once
                "carried_from": {"target": line["target"], "key": line["key"], "carried_at": carried_at},
            }
            for line in old
            if line.get("basis") == last[line["target"]]
        ]

    def _is_of_other_intents(self, line: Mapping[str, Any]) -> bool:
        """Whether a line differs from this spec's own in the intents, and in nothing else that it says."""
        if line.get("teacher") != self.model:
            return False
        if "carried_from" not in line and line.get("prompt_sha256") in self._all_settings_sha256:
            return False
        if "basis" in line:
            return bool(line["basis"]["settings"] == self._settings_without_intents)
        return not self._has_given_rivals and self._has_these_attributes(line["lines"])

    def _has_these_attributes(self, lines: Sequence[str]) -> bool:
        """What a line from before ``basis`` says of the settings: how many queries it asked for, and of which kinds."""
        named = [[f"{name}: {value}" for value in values] for name, values in self.attributes.items() if all(values)]
        return len(lines) == self.n and all(any(each in line for each in own) for line in lines for own in named)

    def _is_described(self, line: Mapping[str, Any], target: str) -> bool:
        return "basis" not in line or line["basis"]["target"] == self.basis(target)["target"]

    # --- requests ---

    def rounds(self, target: str) -> Iterator[Round]:
        """The requests of one target in a fixed order: attributes crossed by a fixed seed."""
        dice = random.Random(f"{self.spec.seed}:{target}")  # noqa: S311 - not for secrets
        most = _ROUNDS_PER_WANTED_ROUND * -(-self.wanted[target] // self.n)
        seeds = self._seeds(target)
        rivals = self.rivals.get(target, ())
        near = list(rivals) if target == OUT_OF_SCOPE_LABEL and rivals else list(self.intents)
        dice.shuffle(near)
        own = {name: deal(dice, values) for name, values in self.attributes.items()}
        own_rivals = [name for name in rivals if name in self.intents]
        others = deal(dice, own_rivals or [name for name in self.intents if name != target])
        crossed, topics = crossed_styles(dice, self.attributes), self._topics(dice)
        alike = self._alike(target)
        for number in range(most):
            if alike and number % 2:
                yield Round(target, number, (), alike=alike[number // 2 % len(alike)])
                continue
            styles = islice(crossed, self.n) if self._names_rivals else self._older_styles(dice)
            lines = [self._line(target, each, own) for each in styles]
            if target == OUT_OF_SCOPE_LABEL:
                yield self._miss(number, lines, near, seeds, topics)
                continue
            also = tuple(dict.fromkeys(next(others) for _ in range(_OTHERS * self.form.mixes_intents)))
            lines = _mixed(dice, lines, also)
            close = self._has_given_rivals and bool(rivals)
            example, evidence = seeds[(number // 2 if alike else number) % len(seeds)]
            yield Round(target, number, tuple(lines), example, "", also, rivals, close, evidence)

    def _seeds(self, target: str) -> list[tuple[str, str]]:
        """What requests show in turn, as example and evidence: nothing, an example of the user's own, a query that people labelled."""
        out_of_scope = self.spec.out_of_scope_intent if target == OUT_OF_SCOPE_LABEL and self._names_rivals else None
        intent = self.intents.get(target, out_of_scope)
        examples = () if intent is None else intent.examples
        evidence = self.evidence.get(target, ())
        return [("", ""), *((text, "") for text in examples), *(("", text) for text in evidence)]

    def _alike(self, target: str) -> list[tuple[str, ...]]:
        """What every other request of an intent shows in place of styles: some known queries together, in turn; empty: it takes styles too.

        What is left over when they are dealt out is not shown here, so that one more known query seldom changes a request that was answered.
        """
        if self.template != _TEMPLATE_OF_TWO_KINDS or target not in self.intents:
            return []
        known = (*self.intents[target].examples, *self.evidence.get(target, ()))
        starts = range(0, max(len(known) - _ALIKE + 1, 1), _ALIKE) if len(known) >= _LEAST_ALIKE else ()
        return [known[start : start + _ALIKE] for start in starts]

    def _topics(self, dice: random.Random) -> Iterator[str]:
        """Subjects that are far from all intents, for ever."""
        if self._names_rivals:
            yield from deal(dice, FAR_TOPICS)
        while True:
            if self.n <= len(OLDER_FAR_TOPICS):
                yield from dice.sample(OLDER_FAR_TOPICS, self.n)
            else:
                yield from dice.choices(OLDER_FAR_TOPICS, k=self.n)

    def _miss(
        self, number: int, lines: list[str], near: list[str], seeds: list[tuple[str, str]], topics: Iterator[str]
    ) -> Round:
        """Queries that fit none: other subjects and near misses in turn; near misses alone where rivals are given."""
        example, evidence = seeds[number // 2 % len(seeds)]
        if self._has_given_rivals or number % 2:
            name = near[(number if self._has_given_rivals else number // 2) % len(near)]
            rivals = tuple(rival for rival in self.rivals.get(name, ()) if rival != OUT_OF_SCOPE_LABEL)
            return Round(OUT_OF_SCOPE_LABEL, number, tuple(lines), example, near=name, rivals=rivals, evidence=evidence)
        about = tuple(f"{line}, about {topic}" for line, topic in zip(lines, islice(topics, self.n), strict=True))
        served = tuple(islice(cycle(near), number, number + min(_SERVED, len(near)))) if self._names_rivals else ()
        return Round(OUT_OF_SCOPE_LABEL, number, about, example, evidence=evidence, served=served)

    def _older_styles(self, dice: random.Random) -> Iterator[dict[str, str]]:
        """What each query of a request is to be like where styles are not crossed."""
        return search_styles(dice, self.n) if self.form.takes_kinds else older_styles(dice, self.n)

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
                example=round_.example or round_.evidence,
                has_languages="language" in self.attributes,
                near=self.intents.get(round_.near),
                others=[self.intents[name] for name in round_.others if name not in round_.rivals],
                rivals=[_named(name, self.intents) for name in round_.rivals],
                served=[_named(name, self.intents) for name in round_.served],
                close=round_.close,
                lines=round_.lines,
                alike=round_.alike,
                n=self.n,
            ),
            schema=self.schema,
            temperature=self.spec.synth.temperature,
            max_output_tokens=max(self.n * _TOKENS_PER_QUERY, self.spec.teacher.max_output_tokens),
        )


def _tuples(by_label: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(own) for name, own in by_label.items()}


def _named(label: str, intents: Mapping[str, Intent]) -> str:
    """A rival, as a prompt names it."""
    if label == OUT_OF_SCOPE_LABEL:
        return "anything that fits no intent"
    description = intents[label].description
    return f"{label}: {description}" if description else label


def _vectors(embedder: Embedder, intents: Sequence[Intent], evidence: Mapping[str, Sequence[str]]) -> Floats:
    """A vector for each intent, the mean over its name with its description and what is known of it: float32 (n, d), rows of length 1."""
    known = {each.name: (*each.examples, *evidence.get(each.name, ())[:_COMPARED]) for each in intents}
    texts = [(f"{normalise(each.name)}: {each.description}", *known[each.name]) for each in intents]
    vectors = embedder.embed([text for own in texts for text in own])
    ends = np.cumsum([len(own) for own in texts])
    means = np.stack([own.mean(axis=0) for own in np.split(vectors, ends[:-1])])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return means


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
