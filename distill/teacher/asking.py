"""How a teacher is asked: its settings as the ledger knows them, and what one question to it holds."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.data import as_known, ledger_key, sha256_json
from distill.errors import DataError, SpecError, TeacherError
from distill.teacher.answers import FORMS, answer_schema
from distill.teacher.client import DIALECTS, Dialect, Request, characters_of
from distill.teacher.evidence import known_intents
from distill.teacher.functions import redactor
from distill.teacher.likelihood import TOP_LOGPROBS
from distill.teacher.prompt import Messages, in_turn, render, template_text, user_prompt, user_prompt_text
from distill.teacher.retrieve import ByQuery, Excerpt, Retriever

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distill.spec import Spec
    from distill.teacher.ledger import Ledger
    from distill.teacher.retrieve import OpenEmbedder

__all__ = ["Question", "Teacher", "brief", "effort"]


@dataclass(frozen=True, slots=True)
class Question:
    """A text to be labelled, and which of its answers is wanted, from 0."""

    text: str
    sample: int = 0


class Teacher:
    """The teacher's settings as the ledger knows them: model name, prompt, and hash for each dialect.

    Args:
        spec: The router's spec.
        open_embedder: Opens the sentence encoder, which is needed to ask, and for nothing else, where not all that is known fits.
        show_progress: Shows on stderr how that is read.
    """

    def __init__(self, spec: Spec, open_embedder: OpenEmbedder | None = None, *, show_progress: bool = False) -> None:
        self.spec, self.form = spec, FORMS[spec.task]
        self.name = spec.teacher_name
        self.redact = redactor(spec)
        self.prompt_path = spec.folder / spec.teacher.prompt if spec.teacher.prompt else None
        own = user_prompt_text(self.prompt_path) if self.prompt_path else None
        shows_examples = spec.teacher.model is not None and (own is None or "{examples}" in own)
        self.intents = known_intents(spec, with_evidence=shows_examples)
        self.by_query = self._by_query(own)
        named = () if self.by_query.intents else spec.labels
        self.schema = answer_schema(named, spec.task) if self._sends_schema else None
        if spec.teacher.logprobs and spec.teacher.samples > 1:
            self._check_can_turn(own)
        by_query = self.form.label_template_by_query if self.by_query else None
        self.template_name = by_query or self.form.label_template
        self.template = template_text(self.template_name) if own is None else own
        self._open_embedder, self._show_progress = open_embedder, show_progress

    def _check_can_turn(self, own: str | None) -> None:
        differ = "with `logprobs` the `samples` differ by the order of the intents"
        if own is not None and "{intents}" not in own:
            raise SpecError(
                f"{self.prompt_path}: {differ}, and this prompt has no {{intents}}: put it in, or leave `samples` out"
            )
        if self.by_query.intents:
            raise SpecError(
                f"{self.spec.path}: {differ}, and of {len(self.spec.intents)} the nearest to a query are shown, the likeliest first: leave `samples` out"
            )

    def _by_query(self, own: str | None) -> ByQuery:
        """What does not fit, of what the prompt shows."""
        if self.spec.teacher.model is None or self.form.label_template_by_query is None:
            return ByQuery()
        found = ByQuery.of(len(self.spec.intents), len(self.examples))
        if own is None:
            return found
        return ByQuery(found.intents and "{intents}" in own, found.examples and "{examples}" in own)

    @property
    def _sends_schema(self) -> bool:
        wanted = self.spec.teacher.send_schema
        return self.spec.teacher.prompt is None if wanted is None else wanted

    def settings(self, dialect: Dialect) -> dict[str, Any]:
        """What an answer depends on besides the query: in parts, so that a difference can be named."""
        if self.spec.teacher.labels is not None:
            return {"labels": self.spec.teacher.labels.name}
        if self.spec.teacher.callable is not None:
            return {"callable": self.spec.teacher.callable, "intents": self._intents_sha256, **self.form.settings}
        sends_schema = self.schema is not None and dialect.response_format != "text"
        return {
            "template": self.prompt_path.name if self.prompt_path else self.template_name,
            "template_sha256": sha256_json(self.template),
            "intents": self._intents_sha256,
            "response_format": dialect.response_format if sends_schema else "text",
            "temperature": self.spec.teacher.temperature if dialect.temperature else None,
            "answer": sha256_json([self.spec.teacher.answer_path, self.spec.teacher.answer_map]),
            **effort(self.spec, dialect),
            **({"logprobs": TOP_LOGPROBS} if self.spec.teacher.logprobs and dialect.logprobs else {}),
            **({"by_query": self.by_query.settings} if self.by_query else {}),
            **self.form.settings,
        }

    @cached_property
    def _intents_sha256(self) -> str:
        shows_all = not self.by_query.examples
        return sha256_json([[i.name, i.description, list(i.examples) if shows_all else []] for i in self.intents])

    @cached_property
    def intent_hashes(self) -> dict[str, str]:
        """A short hash of each intent's description and examples, as far as an answer depends on them, by name."""
        shows_all = not self.by_query.examples
        return {i.name: sha256_json([i.description, list(i.examples) if shows_all else []])[:8] for i in self.intents}

    @cached_property
    def hashes(self) -> dict[Dialect, str]:
        """``prompt_sha256`` for each dialect in which the recording may have been made."""
        return {dialect: sha256_json(self.settings(dialect)) for dialect in DIALECTS}

    def keys(self, text: str, sample: int = 0) -> list[str]:
        """The ledger keys under which a text's answer may lie, the preferred dialect's first."""
        return [ledger_key(self.name, hash_, text, sample) for hash_ in dict.fromkeys(self.hashes.values())]

    def questions(self, queries: Iterable[str], gold: Iterable[str] = (), *, redacted: bool = False) -> list[Question]:
        """Each sendable text once a sample, the first sample of all of them first; of gold no more than the first.

        Args:
            queries: Texts.
            gold: Texts, which may be among the queries.
            redacted: Whether the texts have passed ``redactor`` already.

        Raises:
            DataError: A text has no UTF-8.
        """
        redact, gold = str if redacted else self.redact, list(gold)
        texts = self.sendable([*queries, *gold], redacted=redacted)
        once = {as_known(redact(text)) for text in gold}
        often = [text for text in texts if as_known(text) not in once] if self.spec.teacher.samples > 1 else []
        more = (Question(text, sample) for sample in range(1, self.spec.teacher.samples) for text in often)
        return [*(Question(text) for text in texts), *more]

    def sendable(self, texts: Iterable[str], *, redacted: bool = False) -> list[str]:
        """Redacted texts, or those that are already, each once, in order; blank ones left out.

        Raises:
            DataError: A text has no UTF-8.
        """
        distinct: dict[str, str] = {}
        for text in texts if redacted else map(self.redact, texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"a query holds half a surrogate pair and cannot be sent: {text!r}") from error
            if text.strip():
                distinct.setdefault(unicodedata.normalize("NFC", text), text)
        return list(distinct.values())

    def messages(self, text: str, excerpt: Excerpt, sample: int = 0) -> Messages:
        """The prompt about one query, with what was found for it; with ``teacher.logprobs`` each sample has an order of its own."""
        out_of_scope = self.spec.out_of_scope_intent
        turn, n = sample if self.spec.teacher.logprobs else 0, len(self.spec.intents)
        intents = (*in_turn(self.intents[:n], turn), *self.intents[n:])
        if self.prompt_path is not None:
            shown = intents
            if excerpt.candidates is not None:
                shown = (*excerpt.candidates, *((out_of_scope,) if out_of_scope else ()))
            return user_prompt(self.prompt_path, self.template, query=text, intents=shown, examples=excerpt.examples)
        return render(
            self.template_name,
            intents=intents,
            out_of_scope=out_of_scope,
            examples=self.form.examples(intents) if excerpt.examples is None else [],
            candidates=excerpt.candidates,
            evidence=excerpt.examples,
            query=text,
        )

    @cached_property
    def examples(self) -> list[tuple[str, Any]]:
        """What is known of the intents, as pairs of text and answer."""
        return self.form.examples(self.intents)

    def excerpt(self, text: str) -> Excerpt:
        """What is shown beside this query alone.

        Raises:
            TeacherError: Vectors are needed, and nothing gives them.
        """
        return self.retriever(text) if self.by_query else Excerpt()

    def typical_characters(self, text: str) -> int:
        """About how long a request is; takes no vectors."""
        first = self.by_query.first(self.spec.intent_list, self.examples)
        return characters_of(self.messages(text, first), self.schema)

    @cached_property
    def retriever(self) -> Retriever:
        """Finds what is shown of what does not fit; the first time, all of it is read."""
        if self._open_embedder is None:
            raise TeacherError(
                f"{self.spec.path}: {len(self.spec.intents)} intents with {len(self.examples)} known examples are too many for one prompt; "
                "the nearest to each query are found by a sentence encoder, which `open_embedder` opens"
            )
        known = self.spec.intent_list, self.examples, self.by_query
        return Retriever(*known, self._open_embedder(), show_progress=self._show_progress)

    def request(self, text: str, excerpt: Excerpt | None = None, sample: int = 0) -> Request:
        """What is asked about a query: beside the excerpt that was found for it, or a new one."""
        settings, excerpt = self.spec.teacher, excerpt or self.excerpt(text)
        limits, shown = (settings.temperature, settings.max_output_tokens), self.shown(excerpt)
        messages = self.messages(text, excerpt, sample)
        return Request(messages, self.schema, *limits, logprobs=settings.logprobs, shown=shown)

    def shown(self, excerpt: Excerpt) -> tuple[str, ...]:
        """What may be answered where a schema is sent that does not say it; otherwise nothing."""
        if self.schema is None or excerpt.candidates is None:
            return ()
        return (*(intent.name for intent in excerpt.candidates), *self.spec.labels[len(self.spec.intents) :])

    def dialect_in(self, ledger: Ledger) -> Dialect:
        """The dialect of the recording, so that a resumed run goes on in it; log-probabilities are always tried, as they may be newly wanted."""
        used = Counter(line.prompt_sha256 for line in ledger.lines if line.scores is not None)
        return replace(max(self.hashes, key=lambda dialect: used[self.hashes[dialect]]), logprobs=True)

    @cached_property
    def plain_hashes(self) -> frozenset[str]:
        """The ``prompt_sha256`` of answers without the log-probabilities that are wanted; none where none are."""
        return frozenset(self.hashes.values()) - {hash_ for dialect, hash_ in self.hashes.items() if dialect.logprobs}


def effort(spec: Spec, dialect: Dialect = DIALECTS[0]) -> dict[str, str | None]:
    """``teacher.reasoning_effort`` among the settings that an answer depends on: None where it is refused; without it nothing, as in older recordings."""
    value = spec.teacher.reasoning_effort
    return {} if value is None else {"reasoning_effort": value if dialect.reasoning_effort else None}


_HASHED = {"template_sha256", "intents", "answer"}


def brief(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they stand in a ledger line: hashes cut short, they are for naming a difference only."""
    return {name: value[:12] if name in _HASHED else value for name, value in settings.items()}
