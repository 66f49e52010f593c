"""router.yaml: what a user writes. Pydantic models, and errors that name the file, the line and a hint."""

from __future__ import annotations

import json
import re
import shlex
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from distill.data import with_whole_characters
from distill.errors import SpecError, missing_extra
from distill.scrub import says_more_than_where
from distill.split import MOST_SEED
from distill.types import HUMAN_LABELS, OUT_OF_SCOPE_LABEL, Intent, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BenchSpec",
    "GateLimits",
    "GatesSpec",
    "PriceSpec",
    "RatesSpec",
    "Spec",
    "SynthSpec",
    "TeacherPriceSpec",
    "TeacherSpec",
    "load_spec",
]

_MINIMUM_INTENTS = 2
_POINTS = 100
"""In a whole."""
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIKE_A_KEY = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{24,}|(?=.*[a-z])(?=.*[0-9])[a-z0-9]{24,}")
"""What a variable's name could be, but is not: some providers' keys are of the same characters."""
_OUT_OF_SCOPE_DESCRIPTION = (
    "Anything else: the query is about something that none of the intents above covers, even if the subject is near."
)


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a key may stand where its variable's name belongs
    )


class RatesSpec(_Strict):
    """USD per million tokens."""

    input_per_mtok: Decimal = Field(ge=0)
    """USD per million tokens of the prompt."""
    cached_input_per_mtok: Decimal | None = Field(default=None, ge=0)
    """The same for tokens that the provider had cached; null: no discount."""
    output_per_mtok: Decimal = Field(ge=0)
    """USD per million tokens of the answer."""


class PriceSpec(RatesSpec):
    """What a model's tokens cost, in USD per million tokens, with where and when that was read."""

    source: str
    """Where the price was read."""
    date: str
    """When it was read."""

    @field_validator("date", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> str:
        return str(value)  # YAML reads 2026-01-31 as a date


class TeacherPriceSpec(PriceSpec):
    """What the teacher's tokens cost, in batches too."""

    batch: RatesSpec | None = None
    """The same three prices in a batch, for `distill label --batch`; null: unknown."""


class TeacherSpec(_Strict):
    """Who labels, and under which limits."""

    model: str | None = Field(default=None, min_length=1)
    """Name of the model, as the endpoint spells it."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint; null: OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; on this machine none is needed."""
    prompt: Path | None = None
    """Your own prompt: a .txt is one user message, a .json a list of messages; {query}, {intents} and {examples} are replaced."""
    send_schema: bool | None = Field(default=None, alias="schema")
    """Whether the JSON schema of the answer is sent; null: with our prompt, not with yours."""
    answer_path: str | None = None
    """Field of a JSON answer that holds the intent (or the list, or the weights), such as `result.intent`."""
    answer_map: dict[str, str | None] = Field(default_factory=dict)
    """Your names of intents, to those of this file; of a number in JSON the text, such as `"3"`; with `task: multi` a name that stands for none, to null."""
    callable: str | None = None
    """`package.module:function` in place of a model: from text to an intent, a list of them (`multi`) or scores; the module may lie beside this file."""
    labels: Path | None = None
    """A file of human labels in place of a model, a JSONL path; without `queries` its texts are the queries."""
    evidence: Path | None = None
    """Queries that people labelled, a JSONL path: known examples beside those of the intents, shown to the teacher. Never gold."""
    combine: bool = True
    """Whether training combines the teacher's answers with the known examples (`task: single`, three an intent in the mean or more)."""
    redact: str | None = None
    """`package.module:function` from text to text: every query passes it before it is sent or stored."""
    max_usd: Decimal | None = Field(default=None, gt=0)
    """Most that may be spent on this file, over all runs; null: no limit."""
    price: TeacherPriceSpec | None = None
    """Your own price; null: the list price of the model at its endpoint, unknown where the list lacks either."""
    concurrency: int = Field(default=4, ge=1, le=256)
    """Requests in flight."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds without an answer, or without more of one, until a request is given up; it is asked again, and a provider may charge for both: the most that it can cost counts towards `max_usd`."""
    max_retries: int = Field(default=4, ge=0, le=20)
    """Retries of a request, with back-off."""
    temperature: float | None = Field(default=0.0, ge=0)
    """Of labelling; null: the server's own."""
    samples: int = Field(default=1, ge=1, le=64)
    """How often each query is asked, gold aside: what is learnt is the mean of the answers. More than one takes a `temperature` above 0, or `logprobs`."""
    logprobs: bool = False
    """Whether what is learnt is how likely each label was, from the log-probabilities of one answer: for endpoints that give them. With it each of `samples` shows the intents in another order, and the mean counts."""
    reasoning_effort: str | None = Field(default=None, pattern=r"^[a-z]+$")
    """How much a reasoning model thinks, such as `minimal` or `low`: it bills that as output. null: the server's own."""
    max_output_tokens: int = Field(default=2048, ge=1)
    """Most tokens of an answer, those of its reasoning included."""

    @model_validator(mode="after")
    def _one_teacher(self) -> TeacherSpec:
        if sum(each is not None for each in (self.model, self.callable, self.labels)) != 1:
            raise ValueError("give either `model` or `callable` or `labels`")
        return self

    @model_validator(mode="after")
    def _evidence_helps_a_teacher(self) -> TeacherSpec:
        if self.evidence is not None and self.labels is not None:
            raise ValueError("`evidence` is for a teacher that is asked; with `labels` leave it out")
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> TeacherSpec:
        if self.samples > 1 and self.labels is not None:
            raise ValueError("`samples` is for a teacher that is asked; with `labels` leave it out")
        if self.samples > 1 and self.model is not None and self.temperature == 0 and not self.logprobs:
            raise ValueError(
                f"{self.samples} `samples` at temperature 0 would all be the same; set `temperature`, such as 0.7"
            )
        return self

    @model_validator(mode="after")
    def _logprobs_of_a_model(self) -> TeacherSpec:
        if self.logprobs and self.model is None:
            raise ValueError("`logprobs` is for a model; with `callable` or `labels` leave it out")
        return self

    @field_validator("base_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        hint = "expected an address such as http://localhost:11434/v1"
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            raise ValueError(hint) from None  # what it says may hold a key
        if not is_usable or not value.isprintable() or " " in value:
            raise ValueError(hint)
        if says_more_than_where(value):
            raise ValueError(
                "takes no user name, password or query: they would be logged with it; the key belongs in the variable that "
                "`teacher.api_key_env` names (what was found is not shown)"
            )
        return value

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, value: str) -> str:
        if not _VARIABLE.fullmatch(value) or _LIKE_A_KEY.fullmatch(value):
            raise ValueError(
                "takes the name of an environment variable, such as OPENAI_API_KEY, and never the key itself, which stands in that variable "
                "alone (what was found is not shown)"
            )
        return value

    @field_validator("callable", "redact")
    @classmethod
    def _module_and_function(cls, value: str | None) -> str | None:
        if value is not None and (value.count(":") != 1 or not all(part.strip() for part in value.split(":"))):
            raise ValueError("expected package.module:function")
        return value


class SynthSpec(_Strict):
    """How many queries are written when there are no real ones."""

    per_intent: int = Field(default=60, ge=1)
    """Queries to write for each intent; with `task: weights`, for each value of the first attribute where there are attributes."""
    out_of_scope: int = Field(default=300, ge=0)
    """Queries to write that fit none: near misses and other subjects; not with `task: weights`."""
    attributes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """What queries are to differ in, name to values, such as `persona: [a student, a tourist]`: each query gets a value of each."""
    languages: tuple[str, ...] = ()
    """Languages to write in, such as `[en, de]`, each query in one of them; none: the language of descriptions and examples."""
    per_request: int = Field(default=10, ge=1, le=50)
    """Queries a request."""
    temperature: float | None = Field(default=1.0, ge=0)
    """Of writing; null: the server's own."""
    model: str | None = Field(default=None, min_length=1)
    """Who writes; null: the teacher."""
    price: PriceSpec | None = None
    """Your own price of `synth.model`; null: as for the teacher's."""

    @model_validator(mode="after")
    def _price_of_its_model(self) -> SynthSpec:
        if self.price is not None and self.model is None:
            raise ValueError("`synth.price` is of `synth.model`; the teacher's is `teacher.price`")
        return self

    @field_validator("attributes")
    @classmethod
    def _usable_attributes(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, values in value.items():
            if not name.strip():
                raise ValueError("an attribute has an empty name")
            if not values:
                raise ValueError(f"the attribute {name!r} has no value; give a list of them")
            if any("\n" in each for each in (name, *values)):
                raise ValueError(f"the attribute {name!r} holds a line break; a value is one line")
        return value

    @field_validator("languages")
    @classmethod
    def _usable_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not each.strip() or "\n" in each for each in value):
            raise ValueError("a language is a code such as de, or a name such as German, on one line")
        return value

    @model_validator(mode="after")
    def _language_is_said_once(self) -> SynthSpec:
        if self.languages and "language" in self.attributes:
            raise ValueError("`languages` and an attribute `language` say the same; keep one of them")
        return self


class GateLimits(_Strict):
    """Limits a student must keep. None: no gate."""

    accuracy_drop: float | None = Field(default=None, ge=0)
    """Most that accuracy_policy may lie under the teacher, 0.01 being a point; null: no gate."""
    p95_ms: float | None = Field(default=None, gt=0)
    """Most that p95 may be, on one thread; null: no gate."""

    @field_validator("accuracy_drop", "p95_ms", mode="before")
    @classmethod
    def _is_no_switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"a limit is a number, found {str(value).lower()}; null lifts it")  # noqa: TRY004 - pydantic's
        return value

    @field_validator("accuracy_drop")
    @classmethod
    def _drop_is_a_share(cls, value: float | None) -> float | None:
        if value is not None and value > 1:
            hint = f"; for {value:g} points write {value / 100:g}" if value <= _POINTS else ""
            raise ValueError(f"a share of the queries, at most 1, found {value:g}{hint}")
        return value


class GatesSpec(GateLimits):
    """Limits for every student, or nested under a student's name."""

    static: GateLimits | None = None
    """Limits of this student alone."""
    encoder: GateLimits | None = None
    """Limits of this student alone."""

    def limits(self, student: str) -> GateLimits:
        """The limits of one student: its own where given (null lifts a common one), the common ones otherwise."""
        own = getattr(self, student, None) or GateLimits()
        return GateLimits(
            accuracy_drop=own.accuracy_drop if "accuracy_drop" in own.model_fields_set else self.accuracy_drop,
            p95_ms=own.p95_ms if "p95_ms" in own.model_fields_set else self.p95_ms,
        )


class BenchSpec(_Strict):
    """What the benchmark's cost figures assume."""

    queries_per_month: int = Field(default=1_000_000, ge=0)
    """For the cost of a month."""
    machine_usd_per_hour: Decimal | None = Field(default=None, ge=0)
    """What the machine costs that the student will run on; null: unknown."""
    price_as: str | None = None
    """A model whose list price shows what the same tokens would have cost."""


class _IntentBody(_Strict):
    description: str = ""
    """What tells it from the others."""
    examples: tuple[str, ...] = ()
    """A few queries of your own writing."""


def _intent_bodies(value: Any) -> Any:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"the intent {name!r} is not text to YAML; put its name in quotes")  # noqa: TRY004 - pydantic's
        return {
            name: {"description": body or ""} if body is None or isinstance(body, str) else body
            for name, body in value.items()
        }
    return value


class Spec(_Strict):
    """One router.yaml, checked. Paths in it are relative to the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folder under models/."""
    task: Task = Task.SINGLE
    """`single`: one intent a query. `multi`: any number of them, none included. `weights`: how much of the answer each should give."""
    intents: dict[str, _IntentBody]
    """A path, or name to description, or name to {description, examples}."""
    out_of_scope: bool | _IntentBody = False
    """Whether a query may fit none; or a mapping with `description` and `examples` of such queries."""
    teacher: TeacherSpec
    """Who labels."""
    queries: Path | None = None
    """Your own queries, a JSONL path; null: they are written by synth."""
    synth: SynthSpec = SynthSpec()
    """How many queries are written."""
    gold: Path | None = None
    """Human labels, a JSONL path; without it bench gives fidelity only."""
    students: tuple[Literal["static", "encoder"], ...] = ("static", "encoder")
    """Which to train."""
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The transformer to start from: a folder, or a name on the Hugging Face hub; the default comes from the extra [offline]."""
    assistant_model: str | None = None
    """A larger transformer that teaches both students, likewise; null: all-mpnet-base-v2 where its weights are here and base_model is the default."""
    gates: GatesSpec = GatesSpec()
    """What a student must keep."""
    bench: BenchSpec = BenchSpec()
    """What the benchmark's cost figures assume."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    """Of everything drawn by chance."""
    budget_minutes: Annotated[float, Field(ge=0)] = 60.0
    """What training may take on two cores, about: encoders that teach the students, and texts made for them, are left out where they do not fit. Reckoned for AVX-512 with bfloat16; without these it takes several times as long."""
    _path: Path = PrivateAttr(default=Path("router.yaml"))

    @field_validator("intents", mode="before")
    @classmethod
    def _bare_descriptions(cls, value: Any) -> Any:
        return _intent_bodies(value)

    @field_validator("intents")
    @classmethod
    def _usable_intents(cls, value: dict[str, _IntentBody]) -> dict[str, _IntentBody]:
        if len(value) < _MINIMUM_INTENTS:
            raise ValueError(f"a router needs at least two intents, found {len(value)}")
        folded: dict[str, str] = {}
        for name in value:
            if not name.strip():
                raise ValueError("an intent has an empty name")
            if _UNSHOWABLE.search(name):
                raise ValueError(f"the intent {name!r} has a line break or another control character; take it out")
            if name != name.strip():
                raise ValueError(f"the intent {name!r} begins or ends with white space")
            if name == OUT_OF_SCOPE_LABEL:
                raise ValueError(f"{name!r} is not an intent of its own: set `out_of_scope: true`")
            if (other := folded.setdefault(name.casefold(), name)) != name:
                raise ValueError(f"the intents {other!r} and {name!r} differ by case only")
        return value

    @field_validator("students")
    @classmethod
    def _distinct_students(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name each student once, and at least one")
        return value

    @model_validator(mode="after")
    def _gates_are_of_students(self) -> Spec:
        for student in ("static", "encoder"):
            if getattr(self.gates, student) is not None and student not in self.students:
                raise ValueError(
                    f"`gates.{student}`: {student} is not among `students` ({', '.join(self.students)}), so nobody would keep it; "
                    "add it there, or take the gate out"
                )
        return self

    @model_validator(mode="after")
    def _out_of_scope_is_for_single(self) -> Spec:
        if self.out_of_scope and not self.task.has_one_label:
            other = "every query has weights" if self.task.is_mixture else "an empty list of intents is a valid answer"
            raise ValueError(f"`out_of_scope` is for `task: single`; with `task: {self.task.value}` {other}")
        return self

    @model_validator(mode="after")
    def _logprobs_of_one_label(self) -> Spec:
        if self.teacher.logprobs and not self.task.sums_to_one:
            raise ValueError("`teacher.logprobs` is for answers that name one label; with `task: multi` take `samples`")
        if self.teacher.logprobs and self.task.is_mixture and self.teacher.prompt is None:
            raise ValueError(
                "`teacher.logprobs` takes a `prompt` of yours that asks for one channel; ours asks for a number for each"
            )
        if self.teacher.logprobs and self.teacher.samples > len(self.intents):
            raise ValueError(
                f"`teacher.samples`: with `logprobs` each begins with another intent, and there are {len(self.intents)}, not {self.teacher.samples}; "
                f"set it to {len(self.intents)} at most"
            )
        return self

    @model_validator(mode="after")
    def _answers_are_labels(self) -> Spec:
        for answer, label in self.teacher.answer_map.items():
            if label is None:
                if self.task.sums_to_one:
                    raise ValueError(f"`teacher.answer_map` turns {answer!r} into null, which is for `task: multi`")
            elif label not in self.labels:
                near = get_close_matches(label, self.labels, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"`teacher.answer_map` turns {answer!r} into {label!r}, which is no intent{hint}")
        return self

    @model_validator(mode="after")
    def _evidence_is_for_intents(self) -> Spec:
        if self.teacher.evidence is not None and self.task.is_mixture:
            raise ValueError("`teacher.evidence` is for `task: single` and `task: multi`")
        return self

    @model_validator(mode="after")
    def _kinds_of_queries_differ(self) -> Spec:
        for name, values in list(self.synth.attributes.items())[: self.task.is_mixture]:
            if (
                len(set(values)) != len(values)
                or not all(value.strip() for value in values)
                or OUT_OF_SCOPE_LABEL in values
            ):
                raise ValueError(
                    f"`synth.attributes`: with `task: weights` queries are written for each value of the first attribute, {name!r}; "
                    f"its values must differ, and none may be empty or {OUT_OF_SCOPE_LABEL!r}"
                )
        return self

    @property
    def path(self) -> Path:
        """The file this came from."""
        return self._path

    @property
    def folder(self) -> Path:
        """Where the file lies; queries.jsonl and ledger.jsonl lie beside it."""
        return self._path.parent

    @property
    def teacher_name(self) -> str:
        """Who labels: the model, ``callable:package.module:function``, or ``human labels (FILE)``."""
        if self.teacher.labels is not None:
            return f"{HUMAN_LABELS} ({self.teacher.labels.name})"
        return self.teacher.model or f"callable:{self.teacher.callable}"

    @property
    def labels_path(self) -> Path | None:
        """The human labels that are the teacher, or None."""
        return self.folder / self.teacher.labels if self.teacher.labels else None

    @property
    def evidence_path(self) -> Path | None:
        """Human-labelled queries that help to label, or None."""
        return self.folder / self.teacher.evidence if self.teacher.evidence else None

    @property
    def writes_queries(self) -> bool:
        """Whether synth writes the queries: there are none of the user's own, labelled or not."""
        return self.queries is None and self.teacher.labels is None

    @property
    def queries_path(self) -> Path:
        """Queries to label: the user's own, or what synth writes."""
        return self.folder / (self.queries or self.teacher.labels or "queries.jsonl")

    @property
    def synthesis_path(self) -> Path:
        """Raw answers of synth, one paid request a line."""
        return self.folder / "synth.jsonl"

    @property
    def ledger_path(self) -> Path:
        """Labels, one paid answer a line."""
        return self.folder / "ledger.jsonl"

    @property
    def gold_path(self) -> Path | None:
        """Human labels, or None."""
        return self.folder / self.gold if self.gold else None

    @property
    def asked_once(self) -> Spec:
        """The same, but every query is asked once, as a caller of the teacher asks it."""
        return self.model_copy(update={"teacher": self.teacher.model_copy(update={"samples": 1})})

    @cached_property
    def intent_list(self) -> tuple[Intent, ...]:
        """The intents in the file's order."""
        return tuple(
            Intent(name=name, description=body.description.strip(), examples=body.examples)
            for name, body in self.intents.items()
        )

    @cached_property
    def out_of_scope_intent(self) -> Intent | None:
        """How ``oos`` is described to a teacher, or None where every query has an intent."""
        if not self.out_of_scope:
            return None
        body = self.out_of_scope if isinstance(self.out_of_scope, _IntentBody) else _IntentBody()
        return Intent(OUT_OF_SCOPE_LABEL, body.description.strip() or _OUT_OF_SCOPE_DESCRIPTION, body.examples)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Label names in logit order; ``oos``, where there is one, is last."""
        return (*self.intents, *((OUT_OF_SCOPE_LABEL,) if self.out_of_scope else ()))

    @cached_property
    def column_of_label(self) -> dict[str, int]:
        """Where each label stands in ``labels``."""
        return {name: column for column, name in enumerate(self.labels)}

    def transformer(self, model: str) -> str:
        """``base_model`` or ``assistant_model`` as it is opened: a folder relative to the file, or a name on the hub."""
        local = self.folder / model
        return str(local) if local.is_dir() else model

    def output(self, out: Path | None = None) -> Path:
        """Where models, bench.json and report.html go."""
        return out if out is not None else Path("models") / self.name

    def command(self, name: str, beside: str = "") -> str:
        """A command of distill on this router.yaml, for messages: between backticks, and quoted for a shell.

        Args:
            name: Of the command, with its options.
            beside: Another router.yaml in the same folder that it is on.
        """
        path = self.path.with_name(beside) if beside else self.path
        return f"`distill {name} {shlex.quote(str(path))}`"


def load_spec(path: str | Path, *, teacher_model: str | None = None, base_url: str | None = None) -> Spec:
    """Reads and checks a router.yaml.

    Args:
        path: The file.
        teacher_model: Takes the place of ``teacher.model`` (and of its price, where that was another model's).
        base_url: Takes the place of ``teacher.base_url``.

    Raises:
        SpecError: The file is missing or wrong; names the line and gives a hint.
        MissingExtraError: PyYAML is not installed.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "router.yaml"
    source = _read_text(path, hint=f"; `distill init {shlex.quote(str(path))}` writes one to start from")
    raw, lines = _parse_yaml(path, source)
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise SpecError(f"{path}:1: expected keys such as `name:` and `intents:`, found {found}")
    intents_file: Path | None = None
    if isinstance(raw.get("intents"), str):
        intents_file = path.parent / raw["intents"]
        raw["intents"] = _read_intents(intents_file, f"{path}:{lines.get(('intents',), 1)}")
    if isinstance(raw.get("teacher"), dict):
        if teacher_model is not None:
            if raw.get("queries") is None:
                raw["queries"] = raw["teacher"].get("labels")
            other = {"callable": None, "labels": None}
            if teacher_model != raw["teacher"].get("model"):
                other["price"] = None
            raw["teacher"] = {**raw["teacher"], "model": teacher_model, **other}
        if base_url is not None:
            raw["teacher"] = {**raw["teacher"], "base_url": base_url}
    try:
        spec = Spec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_explain(error, path, lines, intents_file)) from error
    spec._path = path  # noqa: SLF001
    _check_gold_is_apart(spec, lines)
    return spec


def _check_gold_is_apart(spec: Spec, lines: dict[tuple[Any, ...], int]) -> None:
    """Before anything is paid for: of the queries none would be left to train on."""
    if spec.gold_path is None or spec.gold_path.resolve() != spec.queries_path.resolve():
        return
    if spec.writes_queries:
        raise SpecError(
            f"{spec.path}:{lines.get(('gold',), 1)}: `gold` is {spec.gold_path.name}, which synth writes; give it another name"
        )
    where, key = (("queries",), "queries") if spec.queries else (("teacher", "labels"), "teacher.labels")
    raise SpecError(
        f"{spec.path}:{lines.get(where, 1)}: `{key}` and `gold` are one file, {spec.gold_path.name}; nothing that a router is measured on is "
        "trained on, so nothing would be left to train on: split the file in two"
    )


def _read_text(path: Path, *, hint: str = "") -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except FileNotFoundError as error:
        raise SpecError(f"{path}: does not exist{hint}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL
        raise SpecError(f"{str(path)!r}: is no path ({error})") from error


def _parse_yaml(path: Path, source: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """The value, and the line on which each key stands. PyYAML keeps the last of two equal keys in silence."""
    try:
        import yaml
    except ImportError as error:
        raise missing_extra("yaml") from error
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        lines = dict(_key_lines(root, path)) if root is not None else {}
        return with_whole_characters(yaml.safe_load(source)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SpecError(f"{where}: not YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # a date that does not exist
        raise SpecError(f"{path}: not YAML: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{path}: not YAML: an alias contains itself, or values lie too deep") from error


def _key_lines(node: Any, path: Path, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{path}:{line}: a key must be text")
            if key.value in seen:
                raise SpecError(f"{path}:{line}: `{key.value}` stands here and on line {seen[key.value]}; keep one")
            seen[key.value] = line
            yield (*prefix, key.value), line
            yield from _key_lines(value, path, (*prefix, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*prefix, position), value.start_mark.line + 1
            yield from _key_lines(value, path, (*prefix, position))


def _read_intents(path: Path, named_at: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise SpecError(f"{path}: `{twice}` stands twice; keep one")
        return value

    try:
        source = _read_text(path)
    except SpecError as error:
        raise SpecError(f"{named_at}: `intents`: {error}") from error
    if path.suffix in {".yaml", ".yml"}:
        return _parse_yaml(path, source)[0]
    try:
        return with_whole_characters(json.loads(source, object_pairs_hook=unique))
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: holds half a surrogate pair; mend or remove it") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON: {error}") from error


def _explain(error: ValidationError, path: Path, lines: dict[tuple[Any, ...], int], intents_file: Path | None) -> str:
    # `out_of_scope` may be a boolean or a mapping: of a mapping, what is wrong inside it is said
    problems = [problem for problem in error.errors() if problem["type"] != "bool_type"] or error.errors()
    # a misspelt key comes first: it is why another one is missing
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first, *others = (_problem(each, path, lines, intents_file) for each in problems)
    shown = [each for each in dict.fromkeys(others) if each != first][:_SHOWN_PROBLEMS]
    return "; also ".join([first, *(each.removeprefix(f"{path}:") for each in shown)])


_SHOWN_PROBLEMS = 5


def _problem(problem: Any, path: Path, lines: dict[tuple[Any, ...], int], intents_file: Path | None) -> str:
    location = tuple(part for part in problem["loc"] if part not in {"GatesSpec", "GateLimits", "bool", "_IntentBody"})
    in_intents_file = intents_file is not None and location[:1] == ("intents",)
    known = _named_key(problem["msg"], location, lines)
    while known and known not in lines:
        known = known[:-1]
    where = str(intents_file) if in_intents_file else f"{path}:{lines.get(known, 1)}"
    name = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key `{name}`{_near_key(location)}"
    if problem["type"] == "missing":
        return f"{where}: `{name}` is missing"
    message = re.sub(r" or instance of \w+", "", problem["msg"].removeprefix("Value error, "))
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    if problem["type"] == "string_pattern_mismatch" and location == ("name",):
        message = "takes letters and digits, and after the first also `.`, `_` and `-`"
    if location == ("intents",) and message == "Input should be a mapping":
        message = "should be a mapping: each name with its description, `refund: Wants money back`"
    found = problem.get("input")
    is_shown = isinstance(found, str | int | float | bool | None) and location[-1:] not in {
        ("api_key_env",),
        ("base_url",),
    }
    shown = f" (found {found!r})" if is_shown else ""
    return f"{where}: {f'`{name}`: ' if name else ''}{message}{shown}"


def _named_key(message: str, location: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> tuple[Any, ...]:
    """Of what is wrong between several keys, the first key of the file that the message names; otherwise the place as it is."""
    for name in re.findall(r"`([a-z_.]+)", message):
        parts = tuple(name.split("."))
        for key in (parts, (*location, *parts)):
            if key in lines and key[: len(location)] == location:
                return key
    return location


def _near_key(location: tuple[Any, ...]) -> str:
    models: dict[str, type[BaseModel]] = {
        "teacher": TeacherSpec,
        "synth": SynthSpec,
        "gates": GatesSpec,
        "bench": BenchSpec,
        "price": TeacherPriceSpec if location[0] == "teacher" else PriceSpec,
        "batch": RatesSpec,
        "intents": _IntentBody,
        "out_of_scope": _IntentBody,
    }
    parents = [part for part in location[:-1] if part in models]
    model = models[parents[-1] if location[0] != "intents" else "intents"] if parents else Spec
    keys = [field.alias or name for name, field in model.model_fields.items()]
    near = get_close_matches(str(location[-1]), keys, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known keys: {', '.join(keys)}"
