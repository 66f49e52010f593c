"""What was spent: every paid answer of all recordings counts towards ``teacher.max_usd``, whoever gave it.

A line says what it cost, as ``usd``, where that was known when the answer came. A line without is priced by the name of its model.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Any

from distill.data import read_jsonl, read_labels, storage_errors
from distill.errors import DataError, LedgerError
from distill.teacher.endpoint import OPENAI, THIS_MACHINE, server_of
from distill.teacher.in_flight import all_open_batches
from distill.teacher.prices import Budget, batch_price, cost_usd, estimated_usd, price_of
from distill.teacher.rounds import project_folder, synthesis_paths
from distill.types import StageSpend, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from pathlib import Path

    from distill.spec import Spec
    from distill.teacher.ledger import Ledger
    from distill.teacher.sending import Charge
    from distill.types import Label, TokenPrice

__all__ = [
    "FREE",
    "Estimate",
    "PaidAnswer",
    "cost_line",
    "estimate",
    "hold_in_flight",
    "is_paid",
    "limited",
    "open_budget",
    "paid_answers",
    "paid_labels",
    "paid_requests",
    "spend_by_stage",
    "spending",
    "spent_usd_on",
]


@dataclass(frozen=True, slots=True)
class PaidAnswer:
    """One answer in a recording that was paid for.

    Attributes:
        stage: ``synth``, ``label`` or ``label --batch``.
        model: Who answered.
        usage: Its tokens.
        server: Whose server it was, as ``server_of`` names it; None where the line does not say.
        usd: What it cost; None where the line does not say.
    """

    stage: str
    model: str
    usage: Usage
    server: str | None = None
    usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request in a recording: its answer, where one was paid for, and what it may be billed for sendings without one."""

    stage: str
    answer: PaidAnswer | None
    unanswered_usd: Decimal


_BATCH = "label --batch"

_ENDPOINTS = {THIS_MACHINE: "http://localhost", OPENAI: "https://api.openai.com/v1"}
"""Of servers that have no host in their name."""


@contextmanager
def spending(spec: Spec, model: str | None) -> Iterator[None]:
    """Holds the whole project while a model is asked: of two at once, each would spend what ``teacher.max_usd`` leaves.

    What was spent is to be read inside.

    Args:
        spec: The router's spec.
        model: Who is asked; None for a callable, which spends nothing that is counted.

    Raises:
        LedgerError: Another process holds it.
    """
    if model is None:
        yield
        return
    from filelock import FileLock, Timeout

    folder = project_folder(spec)
    lock = FileLock(folder / "spending.jsonl.lock", timeout=0)
    with storage_errors(folder):
        try:
            lock.acquire()
        except Timeout as error:
            raise LedgerError(
                f"{folder}: another process is asking a model for this project, and both count towards one teacher.max_usd; wait until it ends"
            ) from error
    try:
        yield
    finally:
        lock.release()


def cost_line(price: TokenPrice | None, charge: Charge) -> dict[str, str]:
    """What a request cost, for its line in a recording.

    Args:
        price: Of the model.
        charge: What it came to.

    Returns:
        ``usd`` of the answer, where price and tokens are known, and ``unanswered_usd``, where that is more than nothing.
    """
    lost = {"unanswered_usd": f"{charge.unanswered_usd:f}"} if charge.unanswered_usd else {}
    if price is None or charge.usage is None or not charge.usage.is_counted:
        return lost
    return {"usd": f"{cost_usd(price, charge.usage):f}", **lost}


def open_budget(spec: Spec, model: str | None, ledger: Ledger | None = None) -> Budget:
    """The spend limit, less what the recordings say was spent already, on whichever model, and what batches in flight can cost at most.

    Args:
        spec: The router's spec.
        model: Who is about to be asked; None for a callable, which has no price.
        ledger: The spec's, where it was read already.
    """
    if model is None:
        return Budget(None, None)
    budget = Budget(price_of(spec, model), spec.teacher.max_usd)
    _count(spec, _answers_of(_asked(spec, ledger), budget), budget)
    hold_in_flight(spec, budget)
    return budget


def hold_in_flight(spec: Spec, budget: Budget, *, without: Container[str] = ()) -> None:
    """Sets aside what batches in flight can cost at most.

    Args:
        spec: The router's spec.
        budget: Of which.
        without: Tokens of batches that are not to be counted.
    """
    for batch in all_open_batches(spec):
        if batch.token not in without:
            budget.hold(batch.reserved_usd)


def spent_usd_on(spec: Spec, answers: Iterable[PaidAnswer]) -> Decimal | None:
    """What some answers cost; None when the price or the tokens of one are not known."""
    budget = Budget(None, None)
    _count(spec, answers, budget)
    return budget.known_past_usd


def _answers_of(asked: Iterable[_Asked], budget: Budget) -> Iterator[PaidAnswer]:
    """The answers to requests, while the budget counts what those without one may be billed."""
    for request in asked:
        budget.unanswered_usd += request.unanswered_usd
        if request.answer is not None:
            yield request.answer


def _count(spec: Spec, answers: Iterable[PaidAnswer], budget: Budget) -> None:
    price_then = _past_prices(spec)
    for answer in answers:
        if answer.usd is not None:
            budget.spent_usd += answer.usd
        elif (price := price_then(answer.model, answer.server, answer.stage == _BATCH)) is not None:
            budget.count(answer.usage, price)
        else:  # a server of one's own sends no bill, unless its tokens have a price; older lines do not say whose it was
            has_price = price_then(answer.model, answer.server, False) is not None
            budget.count_unpriced(answer.model, is_billed=has_price or answer.server not in {None, THIS_MACHINE})


def _past_prices(spec: Spec) -> Callable[[str, str | None, bool], TokenPrice | None]:
    """From model, server and whether it was a batch to the price, of answers whose lines do not say what they cost."""

    @cache
    def price_then(model: str, server: str | None, in_batch: bool) -> TokenPrice | None:
        settings = spec.teacher
        if server is not None and server != server_of(settings.base_url):
            there = _ENDPOINTS.get(server, f"https://{server}")
            settings = settings.model_copy(update={"base_url": there, "price": None})
        asked = spec.model_copy(update={"teacher": settings})
        return batch_price(asked, model) if in_batch else price_of(asked, model)

    return price_then


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests would cost.

    Attributes:
        usd: About; None when a price is unknown.
        most_usd: Should each answer of a model that has given none before be as long as it may; None where each has, or ``usd`` is None.
    """

    usd: Decimal | None
    most_usd: Decimal | None = None

    def __add__(self, other: Estimate) -> Estimate:
        """Both together."""
        if self.usd is None or other.usd is None:
            return Estimate(None)
        usd = self.usd + other.usd
        if self.most_usd is None and other.most_usd is None:
            return Estimate(usd)
        return Estimate(usd, (self.most_usd or self.usd) + (other.most_usd or other.usd))


FREE = Estimate(Decimal(0))


def estimate(  # noqa: PLR0913  # what a price is made of
    spec: Spec,
    model: str,
    stage: str,
    price: TokenPrice | None,
    *,
    characters: int,
    n_requests: int,
    typical_tokens: float,
    most_tokens: int,
    ledger: Ledger | None = None,
) -> Estimate:
    """What requests to a model would cost, by its recorded answers, where there are any.

    Args:
        spec: The router's spec.
        model: Who would answer.
        stage: ``synth`` or ``label``.
        price: The model's; None: it is not known.
        characters: Of all prompts.
        n_requests: How many.
        typical_tokens: Of an answer, without any reasoning; counts where no answer of the model is recorded.
        most_tokens: That an answer may have.
        ledger: The spec's, where it was read already.
    """
    if not n_requests:
        return FREE
    if price is None:
        return Estimate(None)
    measured = _answer_tokens(spec, model, stage, ledger)
    usd = estimated_usd(price, characters, n_requests * (typical_tokens if measured is None else measured))
    return Estimate(usd, estimated_usd(price, characters, n_requests * most_tokens) if measured is None else None)


def _answer_tokens(spec: Spec, model: str, stage: str, ledger: Ledger | None) -> float | None:
    """Mean tokens of this model's recorded answers, reasoning included, those of batches too; None where none was counted."""
    counts = [
        answer.usage.completion_tokens
        for answer in paid_answers(spec, ledger)
        if answer.model == model and answer.stage.startswith(stage)
    ]
    counted = [count for count in counts if count is not None]
    return sum(counted) / len(counted) if counted else None


def limited(spec: Spec, model: str | None, max_usd: Decimal | None, *, batch: bool = False) -> Spec:
    """The same spec with a ``teacher.max_usd`` that leaves no more than ``max_usd`` to be spent from now on.

    Args:
        spec: The router's spec.
        model: Who is about to be asked; None for a callable, which has no price.
        max_usd: None: as it is.
        batch: Whether batches in flight are taken up: what their answers cost is then spent by this run.
    """
    if max_usd is None:
        return spec
    budget = open_budget(spec, model)
    gone_usd = budget.spent_usd + budget.unanswered_usd if batch else budget.committed_usd
    limit = gone_usd + max_usd
    if spec.teacher.max_usd is not None:
        limit = min(limit, spec.teacher.max_usd)
    return spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"max_usd": limit})})


def spend_by_stage(spec: Spec) -> tuple[StageSpend, ...]:
    """What synth and label have asked so far, of whichever model, each as far as it has asked anything."""
    answered: dict[str, list[PaidAnswer]] = {}
    unanswered_usd: defaultdict[str, Decimal] = defaultdict(Decimal)
    for request in _asked(spec):
        answers = answered.setdefault(request.stage, [])
        if request.answer is not None:
            answers.append(request.answer)
        unanswered_usd[request.stage] += request.unanswered_usd
    found = []
    for stage, answers in answered.items():
        counted = [answer.usage for answer in answers if answer.usage.is_counted]
        total = Usage(
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in counted),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counted),
            cached_tokens=sum(min(usage.cached_tokens or 0, usage.prompt_tokens or 0) for usage in counted),
        )
        n_uncounted = len(answers) - len(counted)
        found.append(
            StageSpend(stage, len(answers), n_uncounted, total, spent_usd_on(spec, answers), unanswered_usd[stage])
        )
    return tuple(found)


def is_paid(label: Label) -> bool:
    """Whether a line of the ledger was paid for here: it has an answer, good or not, and was not carried over."""
    if "carried_from" in label.extra:
        return False
    if "batch" not in label.extra:
        return label.latency_ms is not None
    return label.scores is not None or label.usage.prompt_tokens is not None


def paid_answers(spec: Spec, ledger: Ledger | None = None) -> Iterator[PaidAnswer]:
    """Every answer in the recordings that was paid for, failed ones included, carried-over ones not."""
    return (request.answer for request in _asked(spec, ledger) if request.answer is not None)


def paid_requests(path: Path) -> Iterator[PaidAnswer]:
    """Those in a writer's recording."""
    return (request.answer for request in _written(path) if request.answer is not None)


def _asked(spec: Spec, ledger: Ledger | None = None) -> Iterator[_Asked]:
    """Every request in the recordings that was or may be billed."""
    for path in synthesis_paths(spec):
        yield from _written(path)
    yield from _labelled(spec, ledger=ledger)


def _written(path: Path) -> Iterator[_Asked]:
    for _, line in read_jsonl(path, skip_torn=True):
        if "carried_from" in line:
            continue
        answer = None
        if line.get("latency_ms") is not None:
            usage = Usage(line.get("prompt_tokens"), line.get("completion_tokens"), line.get("cached_tokens"))
            answer = PaidAnswer("synth", str(line.get("teacher")), usage, *_cost_of(line, path))
        unanswered_usd = _amount(line, "unanswered_usd", path)
        if answer is not None or unanswered_usd:
            yield _Asked("synth", answer, unanswered_usd or Decimal(0))


def paid_labels(
    spec: Spec, texts: Container[str] | None = None, *, ledger: Ledger | None = None
) -> Iterator[PaidAnswer]:
    """Those in the ledger, or in one that was read already; of some texts, where these are given."""
    return (request.answer for request in _labelled(spec, texts, ledger=ledger) if request.answer is not None)


def _labelled(spec: Spec, texts: Container[str] | None = None, *, ledger: Ledger | None = None) -> Iterator[_Asked]:
    path = project_folder(spec) / spec.ledger_path.name
    for label in read_labels(path) if ledger is None else ledger.lines:
        if "carried_from" in label.extra or (texts is not None and label.text not in texts):
            continue
        stage = _BATCH if "batch" in label.extra else "label"
        answer = None
        if is_paid(label):
            answer = PaidAnswer(stage, label.teacher, label.usage, *_cost_of(label.extra, path))
        unanswered_usd = _amount(label.extra, "unanswered_usd", path)
        if answer is not None or unanswered_usd:
            yield _Asked(stage, answer, unanswered_usd or Decimal(0))


def _cost_of(line: Mapping[str, Any], path: Path) -> tuple[str | None, Decimal | None]:
    """Whose server answered, and what that cost, as far as a line says so.

    Raises:
        DataError: What stands there is no amount.
    """
    server = line.get("server")
    return None if server is None else str(server), _amount(line, "usd", path)


def _amount(line: Mapping[str, Any], name: str, path: Path) -> Decimal | None:
    """US dollars in a line.

    Raises:
        DataError: What stands there is no amount.
    """
    usd = line.get(name)
    try:
        amount = None if usd is None else Decimal(str(usd))
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount is not None and not (amount.is_finite() and amount >= 0):
        raise DataError(f"{path}: the `{name}` of an answer is no amount: {usd!r}; take the key out of its line")
    return amount
