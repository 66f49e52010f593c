"""Labelling: a teacher answers each query, blind. What the ledger already holds is never asked again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from distill.data import ledger_key, read_gold, read_queries
from distill.errors import DataError, DistillError, MissingKeyError, SpecError
from distill.progress import Progress, say
from distill.teacher.answers import FORMS
from distill.teacher.asking import Question, Teacher, brief
from distill.teacher.batch import (
    check_batch_limit,
    check_has_batches,
    check_not_in_flight,
    check_settings,
)
from distill.teacher.client import DIALECTS, Dialect, Request
from distill.teacher.concurrency import run_sync
from distill.teacher.earlier import described, earlier_answers
from distill.teacher.endpoint import api_key, is_loopback
from distill.teacher.functions import load_function
from distill.teacher.in_flight import all_open_batches, open_batches
from distill.teacher.label_run import LabelRun
from distill.teacher.ledger import AppendLog, Ledger
from distill.teacher.prices import LIMIT, batch_price, check_limit_is_enforceable, teacher_price
from distill.teacher.rereading import hash_of, read_anew, settings_today
from distill.teacher.rounds import added_queries_path
from distill.teacher.spend import Estimate, estimate, open_budget, spending
from distill.types import OUT_OF_SCOPE_LABEL, Label, TokenPrice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from distill.spec import Spec
    from distill.teacher.retrieve import OpenEmbedder
    from distill.types import Query

__all__ = [
    "LabelPlan",
    "LabelSummary",
    "check_can_label",
    "check_has_gold",
    "check_none_in_flight",
    "label",
    "new_lines",
    "plan_labels",
    "queries_of",
    "recorded_labels",
    "recorded_samples",
    "requester",
    "texts_of",
]

_SHOWN_ANSWERS = 10
_SHOWN_INTENTS = 3


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """What a labelling run did.

    Attributes:
        n_texts: Distinct texts to be labelled, gold included.
        n_recorded: Of these, already answered before this run, all samples of them.
        n_asked: Requests whose answer came in this run.
        n_failed: Texts that lack an answer now; the next run asks them again.
        spent_usd: By every recorded answer, synthesis included; None when a price or the tokens are unknown.
        teacher: Who labels.
        n_unmatched: Answers of this run that name no intent, counted in ``n_failed``.
        unmatched: The ten commonest of these, with their number, the commonest first.
        n_read_anew: Recorded answers that were read by another ``answer_path`` or ``answer_map``, and anew now; nothing was asked for them.
    """

    n_texts: int
    n_recorded: int
    n_asked: int
    n_failed: int
    spent_usd: Decimal | None
    teacher: str
    n_unmatched: int = 0
    unmatched: Mapping[str, int] = field(default_factory=dict)
    n_read_anew: int = 0


def requester(spec: Spec, open_embedder: OpenEmbedder | None = None) -> tuple[Callable[[str], Request], Dialect]:
    """How the teacher's model is asked about one text, which must be redacted, and the dialect of the recording.

    Args:
        spec: The router's spec.
        open_embedder: Opens the sentence encoder; needed to ask where not all intents or known examples fit into a prompt.

    Raises:
        SpecError: The task cannot be asked, or the prompt or the redacting function cannot be read.
    """
    teacher = Teacher(spec, open_embedder)
    return teacher.request, teacher.dialect_in(Ledger(spec.ledger_path))


def queries_of(spec: Spec) -> list[Query]:
    """The queries to be labelled; those that ``improve`` added stand last.

    Raises:
        DataError: The file is missing or wrong, or holds no query.
    """
    if not spec.queries_path.exists():
        named = "queries" if spec.queries else "teacher.labels"
        written = f"{spec.command('synth')} writes it"
        hint = written if spec.writes_queries else f"{spec.path.name} names it as `{named}:`"
        raise DataError(f"{spec.queries_path}: does not exist; {hint}")
    queries = read_queries(spec.queries_path)
    if not queries:
        raise DataError(f"{spec.queries_path}: holds no query")
    return [*queries, *_added_queries(spec)]


def _added_queries(spec: Spec) -> list[Query]:
    added = added_queries_path(spec)
    return read_queries(added) if added.exists() else []


def _check_written_for_this_router(spec: Spec) -> None:
    """Two router.yaml in one folder share queries.jsonl, and whichever ran synth last has its own queries in it.

    Raises:
        DataError: None of the queries that synth wrote is for an intent of this one.
    """
    if not spec.writes_queries or FORMS[spec.task].takes_kinds:  # kinds of queries are no intents
        return
    aims = Counter(query.intended_intent for query in read_queries(spec.queries_path) if query.source == "synth")
    named = [str(name) for name, _ in aims.most_common() if name not in {None, OUT_OF_SCOPE_LABEL}]
    if named and set(named).isdisjoint(spec.labels):
        shown = ", ".join(map(repr, named[:_SHOWN_INTENTS])) + (", ..." if len(named) > _SHOWN_INTENTS else "")
        raise DataError(
            f"{spec.queries_path}: was written for other intents ({shown}), none of which {spec.path.name} has; "
            f"{spec.command('synth')} writes its own. Two routers that write queries need a folder each"
        )


def texts_of(spec: Spec, written: Sequence[str] | None = None) -> list[str]:
    """The texts to be labelled.

    Args:
        spec: The router's spec.
        written: Those that will take the place of queries.jsonl; None: it stays.

    Raises:
        DataError: As for ``queries_of``.
    """
    if written is None:
        return [query.text for query in queries_of(spec)]
    return [*written, *(query.text for query in _added_queries(spec))]


def recorded_labels(spec: Spec, texts: Iterable[str], *, redacted: bool = False) -> dict[str, Label]:
    """The ledger's answers for some texts, good or failed; texts that were never asked are left out.

    Where a text was asked several times, this is its first answer, which a caller of the teacher would get.

    Needs no network and no key.

    Args:
        spec: The router's spec.
        texts: What was asked.
        redacted: Whether the texts have passed ``redactor`` already.

    Returns:
        Answer by text as given.
    """
    return {text: first for text, (first, *_) in _recorded(spec, texts, 1, redacted=redacted).items()}


def recorded_samples(spec: Spec, texts: Iterable[str], *, redacted: bool = False) -> dict[str, tuple[Label, ...]]:
    """As ``recorded_labels``, with every answer of the ``teacher.samples`` that a text was asked for."""
    return _recorded(spec, texts, spec.teacher.samples, redacted=redacted)


def _recorded(spec: Spec, texts: Iterable[str], n: int, *, redacted: bool) -> dict[str, tuple[Label, ...]]:
    teacher, ledger = Teacher(spec), Ledger(spec.ledger_path)
    redact = str if redacted else teacher.redact
    found: dict[str, tuple[Label, ...]] = {}
    for text in texts:
        samples = (ledger.get(teacher.keys(redact(text), sample)) for sample in range(n))
        if answers := tuple(answer for answer in samples if answer is not None):
            found[text] = answers
    return found


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """What labelling would ask.

    Attributes:
        n_texts: Distinct texts to be labelled.
        n_missing: Good answers that the ledger lacks: one for each text, or for each sample of it.
        estimated_usd: For the missing ones, or None when the price is unknown.
        price: What the estimate rests on.
        n_samples: Answers wanted of each query; of a gold query one.
        n_in_flight: Answers that are being asked for in batches already, not counted in ``n_missing``.
        n_under_other_intents: Texts that lack an answer, but have one under other intents, which ``carry`` may keep.
        obstacles: What would stop the run before anything is asked, as things are.
        most_usd: What they cost should each answer be as long as it may, where none by this model is recorded yet: one that reasons bills
            that as output. None where the estimate rests on recorded answers, or the price is unknown.
        n_read_anew: Recorded answers that ``answer_path`` and ``answer_map`` as they are now read otherwise, and nothing is asked for.
    """

    n_texts: int
    n_missing: int
    estimated_usd: Decimal | None
    price: TokenPrice | None
    n_samples: int = 1
    n_in_flight: int = 0
    n_under_other_intents: int = 0
    obstacles: tuple[str, ...] = ()
    most_usd: Decimal | None = None
    n_read_anew: int = 0

    @property
    def n_new(self) -> int:
        """Answers that the ledger will have and lacks, asked for or not."""
        return self.n_missing + self.n_read_anew


_TYPICAL_QUERY = "a query of middling length, such as this"


def plan_labels(
    spec: Spec,
    *,
    texts: Sequence[str] | None = None,
    recorded: Sequence[str] | None = None,
    n_unwritten: int = 0,
    batch: bool = False,
    only_gold: bool = False,
) -> LabelPlan:
    """Counts what is missing from the ledger and estimates its price; asks nothing.

    Args:
        spec: The router's spec.
        texts: The queries that will be asked, and no others; None: all of them, and gold.
        recorded: The queries that will take the place of queries.jsonl; None: it stays.
        n_unwritten: Queries that synth has yet to write, which will be labelled too.
        batch: Whether they will be asked in batches, at the price of these.
        only_gold: Whether gold alone will be asked.
    """
    if batch:
        check_has_batches(spec)
    if spec.labels_path is not None:
        from distill.teacher.imported import plan_human_labels

        return plan_human_labels(spec)
    teacher, ledger = Teacher(spec), Ledger(spec.ledger_path)
    questions = _questions(teacher, texts, written=recorded, only_gold=only_gold)
    missing, anew = _left(teacher, ledger, questions)
    n_all, in_flight = (
        len(missing),
        {asked.key for each in (open_batches(spec) if batch else ()) for asked in each.asked},
    )
    missing = [
        each for each in missing if in_flight.isdisjoint(teacher.keys(each.text, each.sample) if in_flight else ())
    ]
    n_elsewhere = earlier_answers(teacher, ledger).n_texts(missing) if missing else 0
    price, n_samples = batch_price(spec) if batch else teacher_price(spec), spec.teacher.samples
    n_more = n_unwritten * n_samples
    n_missing = len(missing) + n_more
    cost = Estimate(None)
    if price is not None and spec.teacher.callable is None:
        characters = n_more * teacher.typical_characters(_TYPICAL_QUERY)
        characters += sum(teacher.typical_characters(each.text) for each in missing)
        cost = estimate(
            spec,
            teacher.name,
            "label",
            price,
            characters=characters,
            n_requests=n_missing,
            typical_tokens=teacher.form.answer_tokens(spec.labels),
            most_tokens=spec.teacher.max_output_tokens,
            ledger=ledger,
        )
    n_texts, n_in_flight = _n_texts(questions) + n_unwritten, n_all - len(missing)
    checks = _checks(spec, price, ledger, batch=batch) if missing or n_more else []
    if missing and texts is None and recorded is None and not only_gold:
        checks.insert(0, lambda: _check_written_for_this_router(spec))
    if batch:
        checks.append(lambda: check_settings(spec, teacher.name, teacher.hashes.values()))
    else:
        checks.append(lambda: _check_not_asked(teacher, missing))
    obstacles = tuple(_obstacles(checks))
    return LabelPlan(
        n_texts, n_missing, cost.usd, price, n_samples, n_in_flight, n_elsewhere, obstacles, cost.most_usd, len(anew)
    )


def check_none_in_flight(spec: Spec, written: Sequence[str] | None = None) -> None:
    """What is being asked in a batch stops here what would be done, or paid for, before it is found out.

    Args:
        spec: The router's spec.
        written: As for ``texts_of``.

    Raises:
        TeacherError: A batch that asks one of the queries is in flight.
    """
    if all_open_batches(spec):
        teacher = Teacher(spec)
        questions = teacher.questions(texts_of(spec, written), _gold_texts(spec))
        _check_not_asked(teacher, _missing(teacher, Ledger(spec.ledger_path), questions))


def _check_not_asked(teacher: Teacher, missing: Sequence[Question]) -> None:
    def keys() -> Iterator[str]:
        """Of each question, also as a batch has it whose answers can be read anew."""
        today = settings_today(teacher)
        own = (each for each in all_open_batches(teacher.spec) if each.teacher == teacher.name)
        hashes = {each.prompt_sha256 for each in own if hash_of(each.settings, today) is not None}
        for each in missing:
            yield from teacher.keys(each.text, each.sample)
            yield from (ledger_key(teacher.name, hash_, each.text, each.sample) for hash_ in hashes)

    check_not_in_flight(teacher.spec, keys)


def check_can_label(spec: Spec) -> None:
    """What would stop labelling before anything is asked stops here what would be done, or paid for, before it.

    Raises:
        SpecError: The function that labels cannot be imported; or the spend limit cannot be kept, as no price is known.
        MissingKeyError: There is no key.
    """
    for check in _checks(spec, teacher_price(spec), None, batch=False):
        check()


def _checks(spec: Spec, price: TokenPrice | None, ledger: Ledger | None, *, batch: bool) -> list[Callable[[], object]]:
    """Each raises what would stop labelling before anything is asked."""
    teacher = spec.teacher
    checks: list[Callable[[], object]] = []
    if teacher.callable is not None:
        reference = teacher.callable
        checks.append(lambda: load_function(reference, spec))
    if teacher.model is not None:
        name = teacher.model
        checks.append(lambda: api_key(teacher))
        if batch:
            checks.append(lambda: check_batch_limit(spec))
        elif not is_loopback(teacher.base_url):
            checks.append(lambda: check_limit_is_enforceable(spec, name, price, loopback=False))
        if teacher.max_usd is not None:
            checks.append(lambda: open_budget(spec, name, ledger).check_limit())
    return checks


def _obstacles(checks: Iterable[Callable[[], object]]) -> Iterator[str]:
    """What the checks that fail say."""
    for check in checks:
        try:
            check()
        except DistillError as error:
            yield str(error)


def _questions(
    teacher: Teacher,
    texts: Sequence[str] | None,
    *,
    written: Sequence[str] | None = None,
    only_gold: bool = False,
    redacted: bool = False,
) -> list[Question]:
    """About the texts, as often as the spec says; without any about all queries, and once about each of gold."""
    if texts is not None:
        return teacher.questions(texts, redacted=redacted)
    return teacher.questions([] if only_gold else texts_of(teacher.spec, written), _gold_texts(teacher.spec))


def check_has_gold(spec: Spec) -> None:
    """What a teacher is judged by is there, and it is a teacher that is judged.

    Raises:
        DataError: There is no gold.
        SpecError: The labels are people's.
    """
    if spec.labels_path is not None:
        raise SpecError(f"{spec.path}: the labels are people's (`labels:`): no teacher is asked, so none can be judged")
    if spec.gold_path is None or not _gold_texts(spec):
        raise DataError(
            f"{spec.path}: there is no gold to ask about; `gold:` names a file of queries that people labelled"
        )


def _gold_texts(spec: Spec) -> list[str]:
    return [query.text for query in read_gold(spec.gold_path, spec.labels, spec.task)] if spec.gold_path else []


def _missing(teacher: Teacher, ledger: Ledger, questions: Iterable[Question]) -> list[Question]:
    """The questions without a good answer, in order."""
    answers = ((question, ledger.get(teacher.keys(question.text, question.sample))) for question in questions)
    return [question for question, answer in answers if answer is None or answer.scores is None]


def label(
    spec: Spec,
    texts: list[str] | None = None,
    *,
    redacted: bool = False,
    open_embedder: OpenEmbedder | None = None,
    batch: bool = False,
    give_up: bool = False,
    only_gold: bool = False,
    show_progress: bool = True,
) -> LabelSummary:
    """Asks the teacher for every text that the ledger holds no good answer for, and records each answer as it arrives.

    Can be called where an event loop is running. No client is built, and no key asked for, when nothing is missing.

    Args:
        spec: The router's spec.
        texts: What to label, ``teacher.samples`` times each; None takes the queries, and once each the gold queries.
        redacted: Whether the given texts have passed ``redactor`` already.
        open_embedder: Opens the sentence encoder; called where not all intents or known examples fit into a prompt and something is
            to be asked.
        batch: Asks in batches, which are answered within a day; see ``distill.teacher.batch``.
        give_up: Counts as failed what an ended batch has answered and the provider does not give; otherwise that is waited for.
        only_gold: Asks about gold alone, before the rest is paid for.
        show_progress: Prints counts, rate, spend and time left to stderr.

    Raises:
        TeacherError: The teacher cannot answer at all, or ``teacher.max_usd`` is reached. Every answer received is kept.
        DataError: A data file is wrong, synth wrote the queries for another router, or the ledger is being written by another process.
    """
    if batch:
        check_has_batches(spec)
        check_batch_limit(spec)
    if spec.labels_path is not None:
        from distill.teacher.imported import take_human_labels

        return take_human_labels(spec, texts)
    teacher = Teacher(spec, open_embedder, show_progress=show_progress)
    questions = _questions(teacher, texts, only_gold=only_gold, redacted=redacted)
    are_all = texts is None and not only_gold
    ledger = Ledger(spec.ledger_path)
    run = LabelRun(teacher, ledger, open_budget(spec, spec.teacher.model, ledger))
    missing, anew = _left(teacher, ledger, questions)
    if missing and are_all:
        _check_written_for_this_router(spec)
    if missing and not batch:
        _check_not_asked(teacher, missing)
    if missing or anew or (batch and open_batches(spec)):
        try:
            with AppendLog(spec.ledger_path) as log, spending(spec, spec.teacher.model):
                if not ledger.is_as_read:  # until the file was ours, another process may have written to it
                    ledger = Ledger(spec.ledger_path)
                run = LabelRun(teacher, ledger, open_budget(spec, spec.teacher.model, ledger), log)
                run.by_batch, run.give_up, run.show_progress = batch, give_up, show_progress
                missing, anew = _left(teacher, run.ledger, questions)
                for line in chain.from_iterable(anew.values()):
                    run.ledger.write(log, line)
                _say_what_is_read_anew(len(anew))
                if texts is None:
                    _say_what_may_be_kept(teacher, run.ledger, missing)
                    _say_what_is_not_limited(spec, missing)
                with Progress("label", len(missing), show=show_progress) as run.progress:
                    run_sync(run.ask_all(missing))
        except MissingKeyError as error:
            raise MissingKeyError(f"{error}. {_why_missing(teacher, run.ledger, missing, questions)}") from None
        finally:
            _say_unmatched(spec, run.unmatched)
    _say_what_is_plain(teacher, run.ledger, questions)
    n_texts = _n_texts(questions)
    return LabelSummary(
        n_texts=n_texts,
        n_recorded=n_texts - _n_texts(missing),
        n_asked=run.n_asked,
        n_failed=_n_texts(_missing(teacher, run.ledger, missing)),
        spent_usd=run.budget.known_spend_usd,
        teacher=teacher.name,
        n_unmatched=run.unmatched.total(),
        unmatched=dict(run.unmatched.most_common(_SHOWN_ANSWERS)),
        n_read_anew=len(anew),
    )


def _say_what_is_read_anew(n: int) -> None:
    if n:
        say(
            f"label: {n} recorded answers read anew, by answer_path, answer_map and the prompt's name as they are now; nothing was asked for them"
        )


def _left(
    teacher: Teacher, ledger: Ledger, questions: Iterable[Question]
) -> tuple[list[Question], dict[Question, list[Label]]]:
    """The questions that are to be asked, and the answers to others that are to be read anew."""
    anew = read_anew(teacher, ledger, questions)
    missing = _missing(teacher, ledger, questions)
    return [each for each in missing if each not in anew], anew


def _n_texts(questions: Iterable[Question]) -> int:
    return len({question.text for question in questions})


def _say_what_is_plain(teacher: Teacher, ledger: Ledger, questions: Sequence[Question]) -> None:
    if teacher.plain_hashes.isdisjoint(ledger.hashes):
        return
    answers = [ledger.get(teacher.keys(each.text, each.sample)) for each in questions]
    good = [answer for answer in answers if answer is not None and answer.scores is not None]
    if n_plain := sum(answer.prompt_sha256 in teacher.plain_hashes for answer in good):
        say(f"label: {n_plain} of {len(good)} answers were given without log-probabilities, and count as they stand")


def _say_what_may_be_kept(teacher: Teacher, ledger: Ledger, missing: Sequence[Question]) -> None:
    n_elsewhere = earlier_answers(teacher, ledger).n_texts(missing) if missing else 0
    if n_elsewhere:
        say(
            f"label: of {_n_texts(missing)} queries to be asked, {n_elsewhere} were answered under other intents; "
            f"{teacher.spec.command('carry --dry-run')} shows which of these answers may be kept"
        )
        _say_what_is_stale(teacher.spec)


def _say_what_is_not_limited(spec: Spec, missing: Sequence[Question]) -> None:
    """A limit that cannot be kept must not look as if it were; that of a model stops the run instead."""
    if missing and spec.teacher.callable is not None and spec.teacher.max_usd is not None:
        say(f"label: {LIMIT} does not hold here: what {spec.teacher.callable} spends is not known")


def _say_what_is_stale(spec: Spec) -> None:
    """Queries that were written for an intent that is gone are asked as long as they stand in queries.jsonl, and trained on."""
    from distill.teacher.synth import is_recorded, plan_synthesis

    if is_recorded(spec) and plan_synthesis(spec).recorded is not None:
        say(
            f"label: {spec.queries_path.name} still holds what was written for the intents as they were; "
            f"{spec.command('synth')} brings it up to date, `distill run` does so first"
        )


def _say_unmatched(spec: Spec, unmatched: Counter[str]) -> None:
    """Answers that name no intent, or none that the query's candidates hold, the commonest first: one line each."""
    if not_shown := {name: count for name, count in unmatched.most_common() if name in spec.labels}:
        named = ", ".join(f"{name!r} {count}" for name, count in list(not_shown.items())[:_SHOWN_ANSWERS])
        say(
            f"label: answers that name an intent which was not among the query's candidates: {named}; such a query is asked again"
        )
    unmatched = Counter({name: count for name, count in unmatched.items() if name not in not_shown})
    if not unmatched:
        return
    shown = unmatched.most_common(_SHOWN_ANSWERS)
    more = "" if len(unmatched) == len(shown) else f", the {len(shown)} commonest of {len(unmatched)}"
    say(f"label: answers that name no intent: {unmatched.total()}{more}")
    for answer, count in shown:
        say(f"  {count:>6}  {answer!r}")
    if spec.teacher.callable is None:
        say(f"  to give them one, in {spec.path}: teacher: {{answer_map: {{{shown[0][0]!r}: NAME}}}}")


def new_lines(spec: Spec, ledger: Ledger, given: Iterable[Label]) -> list[Label]:
    """Given answers as lines of this spec's teacher; those that the ledger holds already are left out.

    Args:
        spec: The router's spec.
        ledger: Its ledger.
        given: Answers with text, scores and sample; key, teacher and hash are filled in here. The texts are redacted.
    """
    teacher = Teacher(spec)
    settings = {hash_: brief(teacher.settings(dialect)) for dialect, hash_ in teacher.hashes.items()}
    usual, lines = teacher.hashes[teacher.dialect_in(ledger)], []
    begun = set(ledger.hashes)
    for answer in given:
        known = ledger.get(ledger_key(teacher.name, hash_, answer.text, answer.sample) for hash_ in settings)
        if known is not None and known.scores == answer.scores:
            continue
        hash_ = usual if known is None else known.prompt_sha256  # under the same key, so that the last one wins
        key = ledger_key(teacher.name, hash_, answer.text, answer.sample)
        own = {"settings": settings[hash_], "router": spec.name}
        extra = {**own, **described(teacher, begun, hash_), **answer.extra}
        begun.add(hash_)
        lines.append(replace(answer, key=key, teacher=teacher.name, prompt_sha256=hash_, extra=extra))
    return lines


def _why_missing(teacher: Teacher, ledger: Ledger, missing: Iterable[Question], questions: Iterable[Question]) -> str:
    """Which setting differs from the recording."""
    start = f"{_n_texts(missing)} of {_n_texts(questions)} queries have no answer in {ledger.path}"
    good = [line for line in ledger.lines if line.scores is not None]
    if not good:
        return f"{start}, which holds none yet"
    latest = good[-1]
    if latest.teacher != teacher.name:
        return f"{start}: it was recorded with the teacher {latest.teacher!r}, this is {teacher.name!r}"
    recorded = latest.extra.get("settings")
    if latest.prompt_sha256 not in teacher.hashes.values() and isinstance(recorded, dict):
        differing = min((_differing(teacher.settings(dialect), recorded) for dialect in DIALECTS), key=len)
        hint = f"; {teacher.spec.command('carry')} keeps what still holds" if "intents" in differing else ""
        return f"{start}: it was recorded with other settings ({', '.join(differing) or 'prompt'}){hint}"
    return f"{start}: they are new"


def _differing(settings: dict[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    current = brief(settings)
    return [name for name in current if current[name] != recorded.get(name)]
