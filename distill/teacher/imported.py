"""Answers that no request of ours brought: paid for elsewhere, or given by people. They go into the ledger like any other.

A line of such a file: ``{"text": ..., "intent" | "intents" | "weights" | "scores": ...}``, and where they are known ``teacher``,
``sample``, ``prompt_tokens``, ``completion_tokens``, ``cached_tokens`` (or OpenAI's ``usage``), ``latency_ms`` and ``asked_at``.
So a ledger is one too. ``"intent": null`` is out of scope, or none of several intents.
"""

from __future__ import annotations

import sys
import unicodedata
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from distill.data import read_gold, read_jsonl, read_queries, text_of, unknown_label
from distill.errors import DataError
from distill.progress import say
from distill.teacher.answers import FORMS, Names, in_words, label_names
from distill.teacher.asking import Teacher
from distill.teacher.functions import redactor
from distill.teacher.label import LabelPlan, LabelSummary, new_lines, recorded_labels, texts_of
from distill.teacher.ledger import AppendLog, Ledger, as_time, time_now
from distill.teacher.rereading import is_asked_again, is_decision
from distill.types import OUT_OF_SCOPE_LABEL, Label, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from distill.spec import Spec

__all__ = [
    "Contradiction",
    "ImportSummary",
    "import_answers",
    "plan_human_labels",
    "say_contradictions",
    "take_human_labels",
    "why_unlabelled",
]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A text that a file answers in two ways.

    Attributes:
        text: Redacted.
        line: The last line of the file with another answer than the one that is taken.
        answer: That answer, in words.
        line_taken: The line that counts: the last one with this text.
        answer_taken: Its answer, in words.
    """

    text: str
    line: int
    answer: str
    line_taken: int
    answer_taken: str

    def __str__(self) -> str:
        return f"{_shown(self.text)} is {self.answer} in line {self.line} and {self.answer_taken} in line {self.line_taken}"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did.

    Attributes:
        n_answers: Answers in the file: one for each text (and sample).
        n_added: Of these, written to the ledger.
        n_known: Of these, in the ledger already.
        n_repeated: Lines whose text stands again further down: the last one counts.
        n_failed: Lines that hold an error, or a blank text, and no answer: passed over.
        teachers: Who gave the answers, with their number.
        n_missing: Queries that still have no answer; None where there are no queries yet.
        contradictions: Of the repeated lines, those that another answer takes the place of.
        n_elsewhere: Texts that are neither queries nor gold: nothing is learnt from their answers. 0 where there are no queries yet.
        n_kept: Of the answers, those that were left out: the ledger has another one which was given later, or a decision of
            ``audit --relabel``.
    """

    n_answers: int
    n_added: int
    n_known: int
    n_repeated: int
    n_failed: int
    teachers: Mapping[str, int] = field(default_factory=dict)
    n_missing: int | None = None
    contradictions: tuple[Contradiction, ...] = ()
    n_elsewhere: int = 0
    n_kept: int = 0


@dataclass(frozen=True, slots=True)
class _Given:
    """The answers of a file, and what was passed over."""

    answers: list[Label]
    n_repeated: int
    n_failed: int
    contradictions: tuple[Contradiction, ...]


def import_answers(spec: Spec, path: Path, *, teacher: str | None = None) -> ImportSummary:
    """Takes answers that were paid for elsewhere into the ledger, as answers of the spec's teacher.

    They count from then on: nothing is asked for these texts. An answer that the ledger holds already is not written
    again; another answer to the same text takes the place of the one before, but not of one that was given later, nor of a decision of
    ``audit --relabel``. ``carried_from`` says where a line came from.

    Args:
        spec: The router's spec.
        path: JSONL; see the top of this module.
        teacher: Who gave the answers of lines that do not say it; None: the spec's teacher.

    Raises:
        DataError: A line is wrong (names file and line; nothing is imported then), or the ledger is being written to.
    """
    _check_is_jsonl(path, spec.task)
    given = _read(path, spec, null_fits_none=True)
    now = time_now()
    answers = [_carried(answer, path.name, teacher or spec.teacher_name, now) for answer in given.answers]
    n_added, n_kept = _write(spec, answers, also_later=False)
    return ImportSummary(
        n_answers=len(answers),
        n_added=n_added,
        n_known=len(answers) - n_added - n_kept,
        n_repeated=given.n_repeated,
        n_failed=given.n_failed,
        teachers=dict(Counter(answer.extra["carried_from"]["teacher"] for answer in answers).most_common()),
        n_missing=_n_missing(spec),
        contradictions=given.contradictions,
        n_elsewhere=_n_elsewhere(spec, answers),
        n_kept=n_kept,
    )


def _n_elsewhere(spec: Spec, answers: Iterable[Label]) -> int:
    if not spec.queries_path.exists():
        return 0
    gold = read_gold(spec.gold_path) if spec.gold_path is not None and spec.gold_path.exists() else []
    known = {*_wanted(spec, texts_of(spec)), *_wanted(spec, (query.text for query in gold))}
    return len({unicodedata.normalize("NFC", answer.text) for answer in answers} - known)


def _carried(answer: Label, file: str, teacher: str, now: str) -> Label:
    source = {"file": file, "teacher": answer.teacher or teacher, "imported_at": now}
    if answer.prompt_sha256:
        source["prompt_sha256"] = answer.prompt_sha256
    return replace(answer, asked_at=answer.asked_at or now, extra={**answer.extra, "carried_from": source})


def _stands(known: Label | None, answer: Label) -> bool:
    """Whether the ledger has another answer than an imported one, which was decided, or given later."""
    if known is None or known.scores is None or known.scores == answer.scores:
        return False
    source = known.extra.get("carried_from")
    says_when = not isinstance(source, Mapping) or source.get("imported_at") != known.asked_at
    return is_decision(known) or (says_when and known.asked_at > answer.asked_at)


def _write(spec: Spec, answers: Iterable[Label], *, also_later: bool = True) -> tuple[int, int]:
    """Writes what the ledger lacks, which is not touched where it lacks nothing.

    Args:
        spec: The router's spec.
        answers: What to write.
        also_later: Whether an answer takes the place of a decision too, and of one that was given later.

    Returns:
        How many lines were written, and how many were not, as the ledger's own stand.
    """
    answers = list(answers)
    new, n_kept = _new(spec, Ledger(spec.ledger_path), answers, also_later=also_later)
    if not new:
        return 0, n_kept
    with AppendLog(spec.ledger_path) as log:
        ledger = Ledger(spec.ledger_path)  # read again: until the file was ours, another process may have written
        new, n_kept = _new(spec, ledger, answers, also_later=also_later)
        for line in new:
            ledger.write(log, line)
    return len(new), n_kept


def _new(spec: Spec, ledger: Ledger, answers: Sequence[Label], *, also_later: bool) -> tuple[list[Label], int]:
    """What is to be written, and how many answers the ledger's own stand against."""
    if also_later:
        return new_lines(spec, ledger, answers), 0
    teacher = Teacher(spec)
    wanted = [each for each in answers if not _stands(ledger.get(teacher.keys(each.text, each.sample)), each)]
    return new_lines(spec, ledger, wanted), len(answers) - len(wanted)


def _n_missing(spec: Spec) -> int | None:
    if not spec.queries_path.exists():
        return None
    texts = [query.text for query in read_queries(spec.queries_path)]
    answered = sum(answer.scores is not None for answer in recorded_labels(spec, texts).values())
    return len(texts) - answered


def take_human_labels(spec: Spec, texts: Iterable[str] | None = None) -> LabelSummary:
    """``label`` where the teacher is a file of human labels: they are copied into the ledger. Costs nothing.

    Args:
        spec: The router's spec, with ``teacher.labels``.
        texts: What to label; None takes the queries. Gold is not among them: people labelled it already.

    Raises:
        DataError: A line is wrong, or the ledger is being written to.
    """
    wanted = _wanted(spec, texts)
    given = _human_labels(spec, show_notes=True)
    before = recorded_labels(spec, wanted, redacted=True)
    _say_what_is_not_in_the_file_any_more(spec, before, given)
    n_written, _ = _write(spec, (answer for text, answer in given.items() if text in wanted))
    answered = recorded_labels(spec, wanted, redacted=True)
    return LabelSummary(
        n_texts=len(wanted),
        n_recorded=len(before),
        n_asked=n_written,
        n_failed=len(wanted) - len(answered),
        spent_usd=Decimal(0),
        teacher=spec.teacher_name,
    )


def _say_what_is_not_in_the_file_any_more(
    spec: Spec, recorded: Mapping[str, Label], given: Mapping[str, Label]
) -> None:
    left = [text for text, answer in recorded.items() if text not in given and "carried_from" not in answer.extra]
    if left:
        say(
            f"label: {spec.labels_path} has no label any more for {len(left)} of the queries, such as {left[0]!r}: the one in "
            f"{spec.ledger_path.name} still counts; move that file away and run again, and the labels that are left are copied anew"
        )


def why_unlabelled(spec: Spec) -> str:
    """What to say where none of the queries has a human label in the ledger.

    Raises:
        DataError: A line of the labels is wrong.
    """
    if not _human_labels(spec).keys().isdisjoint(_wanted(spec, None)):
        return f"{spec.ledger_path}: holds no label of the queries yet; {spec.command('label')} copies those of {spec.labels_path}"
    return (
        f"{spec.queries_path}: none of its queries has a label in {spec.labels_path}; take `queries` out of {spec.path} to train on "
        "the queries that are labelled there, or label some of these"
    )


def plan_human_labels(spec: Spec) -> LabelPlan:
    """What ``take_human_labels`` would copy: how many queries have a label that the ledger lacks. Copies nothing.

    Raises:
        DataError: A line of the labels is wrong.
    """
    wanted = _wanted(spec, None)
    given = _human_labels(spec)
    lines = new_lines(spec, Ledger(spec.ledger_path), (answer for text, answer in given.items() if text in wanted))
    return LabelPlan(len(wanted), len(lines), Decimal(0), None)


def _wanted(spec: Spec, texts: Iterable[str] | None) -> dict[str, None]:
    """Redacted texts in NFC, each once."""
    if texts is None:
        texts = [query.text for query in read_queries(spec.queries_path)]
    redact = redactor(spec)
    redacted = (unicodedata.normalize("NFC", redact(text)) for text in texts)
    return dict.fromkeys(text for text in redacted if text.strip())


def _human_labels(spec: Spec, *, show_notes: bool = False) -> dict[str, Label]:
    """Human labels by redacted text in NFC."""
    if spec.labels_path is None:
        raise DataError(f"{spec.path}: teacher.labels is not set")
    now = time_now()
    given = _read(spec.labels_path, spec)
    if show_notes and given.n_repeated:
        say(f"label: {spec.labels_path} repeats {given.n_repeated} of its texts; the last label of each counts")
    if show_notes:
        say_contradictions(spec.labels_path, given.contradictions)
    return {
        unicodedata.normalize("NFC", answer.text): replace(
            answer, sample=0, usage=Usage(), latency_ms=None, asked_at=answer.asked_at or now, extra={}
        )
        for answer in given.answers
    }


_NAMED_CONTRADICTIONS = 5


def say_contradictions(path: Path, found: Sequence[Contradiction]) -> None:
    """Names texts that a file answers in two ways, some of them by line; nothing where there are none."""
    if not found:
        return
    several = "1 text has two answers" if len(found) == 1 else f"{len(found)} texts have two answers each"
    say(f"label: {path}: {several} that contradict each other; the later line is taken")
    for contradiction in found[:_NAMED_CONTRADICTIONS]:
        say(f"  {contradiction}")
    if len(found) > _NAMED_CONTRADICTIONS:
        say(f"  and {len(found) - _NAMED_CONTRADICTIONS} more")


_KEPT = ("server", "in_flight")
"""What a ledger says about how an answer was given, besides what every line has."""


def _read(path: Path, spec: Spec, *, null_fits_none: bool = False) -> _Given:
    """Every answer of a file, the last one of each text and sample; keys and hashes are empty still.

    Names are looked at in the last answer of each alone: in a ledger, those before may name intents that had other names then.

    Args:
        path: The file.
        spec: The router's spec.
        null_fits_none: Whether ``"intent": null`` is an answer. Of a model it is one; of people it may be a query not labelled yet.
    """
    names, redact = label_names(spec), redactor(spec)
    answers: dict[tuple[str, int], Label] = {}
    lines: dict[tuple[str, int], list[tuple[int, str]]] = {}
    unknown: dict[tuple[str, int], _UnknownNamesError] = {}
    n_failed = 0
    for number, line in read_jsonl(path):
        if is_asked_again(line):  # its decision, where there is one, is a line of its own
            continue
        where = f"{path}:{number}"
        text = redact(text_of(path, number, line))
        sample = _count(where, line, "sample") or 0
        position = unicodedata.normalize("NFC", text), sample
        try:
            scores = _scores(where, _without_null(where, line, spec) if null_fits_none else line, spec, names)
        except _UnknownNamesError as error:
            lines.setdefault(position, []).append((number, ", ".join(map(repr, error.names))))
            unknown[position] = error
            continue
        if scores is None or not text.strip():
            n_failed += 1
            continue
        unknown.pop(position, None)
        lines.setdefault(position, []).append((number, _in_words(scores, spec.task)))
        answers[position] = Label(
            key="",
            text=text,
            scores=scores,
            error=None,
            teacher=_word(where, line, "teacher") or _word(where, line, "model"),
            prompt_sha256=_word(where, line, "prompt_sha256"),
            sample=sample,
            usage=_usage(where, line),
            latency_ms=_latency_ms(where, line),
            asked_at=_asked_at(where, line),
            extra={name: line[name] for name in _KEPT if name in line},
        )
    if unknown:
        raise DataError(_of_unknown(spec, list(unknown.values())))
    if not answers:
        raise DataError(f"{path}: holds no answer")
    n_repeated = sum(map(len, lines.values())) - len(lines)
    found = (_contradiction(answers[position].text, given) for position, given in lines.items())
    return _Given(list(answers.values()), n_repeated, n_failed, tuple(each for each in found if each))


class _UnknownNamesError(DataError):
    """An answer names what is no label."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


_NAMED_UNKNOWN = 10


def _of_unknown(spec: Spec, found: Sequence[_UnknownNamesError]) -> str:
    """What to say of all answers that name what is no label, the first one first: how common each name is, and what maps it."""
    counts = Counter(name for error in found for name in error.names)
    shown = counts.most_common(_NAMED_UNKNOWN)
    commonest = f", the {len(shown)} commonest of {len(counts)}" if len(counts) > len(shown) else ""
    named = ", ".join(f"{_shown(name)} {count}" for name, count in shown)
    mapped = ", ".join(f"{_shown(name)}: NAME" for name, _ in shown)
    return (
        f"{found[0]} (names that are none, with their number{commonest}: {named}; to give each the name of a label, in {spec.path}: "
        f"teacher: {{answer_map: {{{mapped}}}}})"
    )


def _check_is_jsonl(path: Path, task: Task) -> None:
    """Raises ``DataError`` where the first line is nothing like a JSON object, as in a CSV file."""
    try:
        with path.open("rb") as stream:
            lines = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
            number, first = next(lines, (1, b"{"))
    except OSError:
        return  # reading it says why
    if not first.removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
        raise DataError(
            f'{path}:{number}: import takes JSONL, one {{"text": ..., "{FORMS[task].key}": ...}} a line; this is not a JSON object: '
            f"{_shown(first.decode(errors='replace').strip())}"
        )


def _contradiction(text: str, given: Sequence[tuple[int, str]]) -> Contradiction | None:
    """From line and answer of every line with this text, in order."""
    *before, (line_taken, taken) = given
    other = next(((line, answer) for line, answer in reversed(before) if answer != taken), None)
    return None if other is None else Contradiction(text, *other, line_taken, taken)


def _in_words(scores: Mapping[str, float], task: Task) -> str:
    """What an answer says: two that are equal in words do not contradict each other, however sure they are."""
    answer = FORMS[task].answer(scores)
    return in_words(answer if isinstance(answer, str | Mapping) else sorted(answer))


def _answer_keys(task: Task) -> tuple[str, str]:
    """Where an answer may stand, what says most first."""
    return "scores", FORMS[task].key


def _scores(where: str, line: Mapping[str, Any], spec: Spec, names: Names) -> dict[str, float] | None:
    """Score by label; None where the line says that there was no answer.

    Raises:
        DataError: The line is wrong.
        _UnknownNamesError: It names what is no label, a ``DataError`` too.
    """
    keys = _answer_keys(spec.task)
    key = next((key for key in keys if line.get(key) is not None), None)
    if key is None:
        if line.get("error") is not None:
            return None
        wanted = " or ".join(f'"{key}"' for key in reversed(keys))
        raise DataError(f'{where}: no answer; `task: {spec.task.value}` takes {wanted} beside "text"')
    match line[key]:
        case str(name) if key == "intent":
            numbers: dict[str, Any] = {name: 1.0}
        case list(named) if key == "intents" and all(isinstance(name, str) for name in named):
            numbers = dict.fromkeys(named, 1.0)
        case dict(scored) if key in {"scores", "weights"}:
            numbers = scored
        case other:
            raise DataError(f'{where}: "{key}" is {_EXPECTED[key]}, found {_shown(other)}')
    if unknown := [name.strip() for name in numbers if name.strip() not in names]:
        raise _UnknownNamesError(f"{where}: {unknown_label(unknown[0], spec.labels, spec.task)}", unknown)
    scores: dict[str, float] = {}
    for name, number in numbers.items():
        label = names[name.strip()]
        if label is None:
            continue
        total = scores.get(label, 0.0) + _score(where, name, number, spec.task)
        scores[label] = min(total, FORMS[spec.task].highest)  # several of the user's names may stand for one label
    if not FORMS[spec.task].may_be_empty and not any(scores.values()):
        raise DataError(f'{where}: the numbers in "{key}" are all 0')
    return scores


def _without_null(where: str, line: Mapping[str, Any], spec: Spec) -> Mapping[str, Any]:
    """The line with what its null stands for: scores of ``oos`` alone, or no intents; as it is where it says anything else.

    Raises:
        DataError: A null where every query has an intent.
    """
    if any(line.get(key) is not None for key in ("error", *_answer_keys(spec.task))):
        return line
    nulls = {key: line[key] for key in ("intent", "intents") if key in line}
    if any(value is not None for value in nulls.values()):  # the label of another task: no answer, and no null
        return line
    if FORMS[spec.task].may_be_empty and nulls:
        return {**line, "intents": []}
    if not spec.task.has_one_label or "intent" not in line:
        return line
    if spec.out_of_scope_intent is None:
        raise DataError(f'{where}: "intent" is null: {unknown_label(OUT_OF_SCOPE_LABEL, spec.labels)}')
    return {**line, "scores": {OUT_OF_SCOPE_LABEL: 1.0}}


_EXPECTED = {
    "intent": "the name of an intent",
    "intents": "a list of names",
    "scores": "{name: number}",
    "weights": "{name: number}",
}


def _score(where: str, name: str, number: Any, task: Task) -> float:
    most = FORMS[task].highest
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
        upper = "to 1" if most == 1.0 else "on"
        raise DataError(f"{where}: the score of {name!r} must be a number from 0 {upper}, found {_shown(number)}")
    return float(number)


def _usage(where: str, line: Mapping[str, Any]) -> Usage:
    """Tokens, beside the text as in a ledger or under ``usage`` as OpenAI's two interfaces or Anthropic's give them."""
    nested = line.get("usage")
    if nested is None:
        nested = {}
    if not isinstance(nested, dict):
        raise DataError(
            f'{where}: "usage" is {{"prompt_tokens": ..., "completion_tokens": ...}}, found {_shown(nested)}'
        )
    details = nested.get("prompt_tokens_details", nested.get("input_tokens_details"))
    sources = (details if isinstance(details, dict) else {}, nested, line)
    counts = {name: value for each in sources for name, value in each.items() if value is not None}
    if "prompt_tokens" in counts or "completion_tokens" in counts:
        return Usage(*(_count(where, counts, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")))
    prompt, answer, cached = (
        _count(where, counts, name) for name in ("input_tokens", "output_tokens", "cached_tokens")
    )
    read, written = (_count(where, counts, f"cache_{each}_input_tokens") for each in ("read", "creation"))
    if prompt is not None:  # Anthropic counts what its cache holds apart
        prompt += (read or 0) + (written or 0)
    return Usage(prompt, answer, cached if read is None else read)


def _count(where: str, line: Mapping[str, Any], name: str) -> int | None:
    value = line.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise DataError(f'{where}: "{name}" must be a whole number from 0 on, found {_shown(value)}')
    return value


def _latency_ms(where: str, line: Mapping[str, Any]) -> float | None:
    value = line.get("latency_ms")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise DataError(f'{where}: "latency_ms" must be a number from 0 on, found {_shown(value)}')
    return float(value)


def _asked_at(where: str, line: Mapping[str, Any]) -> str:
    """ISO 8601 in UTC; empty where the line does not say it. A time without a zone is taken as UTC."""
    value = _word(where, line, "asked_at")
    if not value:
        return ""
    try:
        when = datetime.fromisoformat(value)
        return as_time(when if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise DataError(f'{where}: "asked_at" must be a time such as {time_now()}, found {_shown(value)}') from error


def _word(where: str, line: Mapping[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str | None):
        raise DataError(f'{where}: "{name}" must be text, found {_shown(value)}')
    return value or ""


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."  # noqa: PLR2004
