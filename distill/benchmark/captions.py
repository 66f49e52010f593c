"""How a result reads in sentences: what tables were measured on, how they are to be read, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.benchmark.cost import pays_alone_from, spent_uncached_usd
from distill.benchmark.display import (
    NOT_SHOWN,
    TEACHER,
    has_both_scopes,
    number,
    share,
    usd,
)
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.types import BenchResult, BenchRow, GateVerdict

__all__ = [
    "JUDGED_BY",
    "accuracy_caption",
    "cost_lines",
    "gate_caption",
    "gold_captions",
    "headline",
    "leakage_caption",
    "recorded_days",
    "score_caption",
    "speed_captions",
]

_STUDENTS = ("encoder", "static")
_DAYS_PER_MONTH = 365 / 12
_MANY_REPEATED = 0.05
"""Share of gold from which on intervals and verdicts are markedly too sure."""

_MANY_DISTINCT = 0.2
"""Weights for each gold query from which on the nearest of them says little."""
_FEW_DISTINCT = 10
"""Weights of which the nearest says something, however few queries there are."""

_MOST_NAMES = 10


def gate_caption(result: BenchResult) -> str:
    """How the gates' table is to be read; empty where no gate compares with the teacher."""
    compared = [gate for gate in result.gates if gate.verdict]
    if not compared:
        return ""
    text = (
        f"accuracy_drop: teacher's {JUDGED_BY[result.task]} minus the student's, paired on {_paired_on(result)}. Kept or "
        "broken goes by the figure itself; shown (refuted): the whole 95 % interval lies within (beyond) the limit."
    )
    if any(gate.verdict == NOT_SHOWN for gate in compared):
        text += " More gold: how many more queries would show it in four cases of five if the two go on differing as on these."
    return text


def _paired_on(result: BenchResult) -> str:
    """How many gold queries students and teacher were compared on."""
    found = [row.notes["against_teacher"] for row in result.rows if "against_teacher" in row.notes]
    n = max((each["n"] for each in found), default=result.n_gold)
    if n == result.n_gold:
        return f"{n:,} gold queries"
    return f"{n:,} gold queries; the {result.n_gold - n:,} that it failed on are left out"


def accuracy_caption(result: BenchResult) -> str:
    """What the accuracy table was measured on."""
    if not result.n_gold:
        n = result.provenance.get("n_queries", 0)
        fitted = (
            " What was fitted on held-out queries (policy, temperature) was fitted on these, which flatters a little."
            if result.task is Task.MULTI
            else " A temperature, where one was fitted, was fitted on these, which flatters KL a little."
        )
        return f"No gold: only fidelity to the teacher is known, on {n:,} held-out queries.{fitted} Brackets: 95 % intervals."
    scope = f" ({result.n_in_scope:,} in scope, {result.n_oos:,} out of scope)" if result.n_oos else ""
    missing = _not_in_gold(result)
    return f"{result.n_gold:,} gold queries{scope}. {_MEANING[result.task]}{f'{missing} ' if missing else ''}Brackets: 95 % intervals."


def gold_captions(result: BenchResult) -> list[str]:
    """What is wrong with gold itself, a line each."""
    return [line for line in (_repeated_gold(result), _contradicting_gold(result), _nearest_of_few(result)) if line]


def _not_in_gold(result: BenchResult) -> str:
    """Of which labels gold says nothing, in a sentence; empty where it holds them all."""
    names = result.provenance.get("labels_not_in_gold", [])
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"Gold has nothing of {', '.join(names[:_MOST_NAMES])}{more}: what is given to these counts as wrong."


def _repeated_gold(result: BenchResult) -> str:
    """How many gold queries tell nothing new, in a sentence; empty where none is repeated."""
    n = result.provenance.get("n_repeated_gold", 0)
    warning = "WARNING: " if n > _MANY_REPEATED * result.n_gold else ""
    return (
        f"{warning}{n:,} gold queries repeat another one, and every interval takes them for independent." if n else ""
    )


def _contradicting_gold(result: BenchResult) -> str:
    """How many texts nobody can answer rightly every time, in a sentence; empty where there are none."""
    n = result.provenance.get("n_contradicting_gold", 0)
    stands = "1 text stands" if n == 1 else f"{n:,} texts stand"
    return f"WARNING: {stands} in gold with more than one label: nobody can be right about all of them." if n else ""


def _nearest_of_few(result: BenchResult) -> str:
    """Whether the nearest of gold's weights says little, in a sentence; empty where it does not."""
    n = result.provenance.get("n_distinct_weights")
    if n is None:
        return ""
    if n == 1:
        return "WARNING: all gold queries have the same weights, so whatever is answered is nearest to its own: go by KL and MAE."
    if n > max(_MANY_DISTINCT * result.n_gold, _FEW_DISTINCT):
        return (
            f"WARNING: gold has {n:,} different weights, so hardly any answer is nearest to its own: go by KL and MAE."
        )
    return ""


JUDGED_BY = {
    Task.SINGLE: "accuracy_policy",
    Task.MULTI: "share of exact sets",
    Task.WEIGHTS: "share of nearest weights",
}
"""What ``accuracy_policy`` is, by task."""


_MEANING = {
    Task.SINGLE: (
        "accuracy: in scope; a student's best guess, even where its policy declines, while what a teacher declines counts as wrong. "
        "accuracy_policy, by which they are compared: all queries, out-of-scope must be rejected. "
    ),
    Task.MULTI: (
        "exact set (accuracy_policy): every intent of a query and no other. F1: of its intents one by one, over the intents "
        "that occur in gold. fidelity: how often the set is the teacher's. "
    ),
    Task.WEIGHTS: (
        "KL: from gold's weights to the row's, nats; MAE: mean difference of a weight; 0 is best for both. nearest "
        "(accuracy_policy): of the different weights that occur in gold, the query's own are the nearest. fidelity: how "
        "often the weightiest channel is the teacher's. "
    ),
}


def score_caption(result: BenchResult) -> str:
    """What the table of scores shows; empty where no row gives scores."""
    if not any(row.ece is not None or row.aurc is not None for row in result.rows):
        return ""
    scores = "of the scores of every intent" if result.task is Task.MULTI else "of the scores of in-scope queries"
    room = (
        " Scores leave room for out-of-scope, which no in-scope query is: the more they leave, the more ECE is above chance."
        if result.n_oos and result.task is Task.SINGLE
        else ""
    )
    in_scope = "in scope: queries that have an intent and get it. " if has_both_scopes(result) else ""
    return (
        f"{in_scope}coverage: accepted by the policy. AURC: wrong answers among the surest, over all coverages; {_best_aurc(result)}. "
        f"ECE: {scores}, 15 equally full bins; chance: what scores that are exactly right would show on as many queries.{room}"
        " Held-out queries calibrate students' scores, and not those of tfidf."
    )


def _best_aurc(result: BenchResult) -> str:
    """The least AURC that can be: out-of-scope queries, which have no right answer, come last at best."""
    if not result.n_oos or result.task is not Task.SINGLE:
        return "0 is best"
    positions = range(result.n_in_scope + 1, result.n_gold + 1)
    least = sum((position - result.n_in_scope) / position for position in positions) / result.n_gold
    return f"{share(least)} is best, as no answer is right for the {result.n_oos:,} out-of-scope queries"


def leakage_caption(result: BenchResult) -> str:
    """How much of gold was trained on, and what is left without it; empty where it was not looked for."""
    leakage = result.leakage
    if leakage is None:
        return ""
    found = f"{leakage.n_exact:,} gold queries are also training queries"
    near = f"{leakage.n_near:,} nearly ({leakage.method}, from {leakage.threshold:g} on)"
    without = ", ".join(f"{name} {share(value)}" for name, value in leakage.accuracy_policy_without.items())
    rest = f" accuracy_policy without them: {without}." if without else ""
    return f"{'WARNING: ' if leakage.n_exact else ''}{found}, {near}.{rest}"


def speed_captions(result: BenchResult) -> list[str]:
    """On which machine the speed table was measured, and where the teacher's latency comes from."""
    machine = result.environment
    versions = machine.get("versions", {})
    parts = [
        str(machine.get("processor", "unknown processor")),
        f"{machine.get('cores', '?')} cores, one thread used",
        f"Python {machine.get('python', '?')}",
        *(f"{name} {versions[name]}" for name in ("onnxruntime", "tokenizers") if name in versions),
        str(machine.get("measured_at", ""))[:10],
    ]
    spread = " Brackets: the least and the greatest of the rounds." if _has_spread(result) else ""
    lines = [", ".join(filter(None, parts)) + f".{spread}{_tokenizers(result)}"]
    if machine.get("loaded"):
        busy = 100 * max(float(machine.get("busy_share", 1.0)), float(machine.get("busy_share_during", 0.0)))
        lines.append(
            f"WARNING: the machine was busy with other work ({busy:.0f} %): the latencies measured here are too high."
        )
    if (teacher := _teacher(result)) is not None and teacher.latency_n:
        lines.append(_teachers_latency(teacher))
    return lines


def _tokenizers(result: BenchResult) -> str:
    """Which way each student's queries became ids, as far as it was noted: with nanotoken a start takes longer and more memory."""
    found = [f"{row.name} {row.notes['tokenizer']}" for row in result.rows if "tokenizer" in row.notes]
    remembers = any(row.notes.get("tokenizer") == "words" for row in result.rows)
    known = ", which remembers words: these it had all seen, and a new one takes longer" if remembers else ""
    return f" Tokenizer: {', '.join(found)}{known}." if found else ""


def _has_spread(result: BenchResult) -> bool:
    return any("p50_ms_by_round" in row.notes for row in result.rows)


def _teachers_latency(teacher: BenchRow) -> str:
    """Which server answered, under which load, how long a prompt."""
    model = teacher.notes.get("model") or "the teacher"
    # which machine that was, and how quick, no ledger says: it need not be the one of the other rows
    servers = ", ".join(
        name.replace("this machine", "the asking machine") for name in teacher.notes.get("servers") or ()
    )
    in_flight = teacher.notes.get("requests_in_flight")
    load = "an unknown number of" if in_flight is None else _range(in_flight)
    tokens = teacher.notes.get("prompt_tokens")
    prompt = f", prompts of {tokens:,.0f} tokens in the mean" if tokens is not None else ""
    return (
        f"Teacher: {model}{f' on {servers}' if servers else ''}, latency as recorded in the ledger{recorded_days(teacher)}, network and server "
        f"included, with {load} requests in flight{prompt}."
    )


def recorded_days(teacher: BenchRow) -> str:
    """When a teacher answered, to stand behind other words; nothing where that is not known."""
    first, last = (each[:10] for each in teacher.notes.get("recorded_between") or ("", ""))
    if not first:
        return ""
    return f" on {first}" if first == last else f" from {first} to {last}"


def _range(bounds: Any) -> str:
    least, most = (bounds, bounds) if isinstance(bounds, int) else bounds
    return f"{least}" if least == most else f"{least} to {most}"


def cost_lines(result: BenchResult) -> list[str]:
    """Whose price, from where, of which date; what the same tokens would have cost elsewhere; dollars a month."""
    cost = result.cost
    volume = cost.get("queries_per_month")
    lines = []
    if _teacher(result) is not None:
        price = cost.get("teacher_price")
        monthly = cost.get("usd_per_month", {}).get(TEACHER)
        lines.append(
            f"Teacher: {usd(monthly)} for {volume:,} queries a month ({_source(price)})."
            if price
            else "Teacher: its own price is unknown."
        )
    if as_if := cost.get("priced_as"):
        lines.append(
            f"The teacher's tokens at the price of {as_if['model']} ({_source(as_if)}): {usd(as_if['usd_per_1k'])} per "
            f"1,000, {usd(as_if['usd_per_month'])} for {volume:,} queries a month; without the cached prefix's discount "
            f"{usd(as_if['usd_per_1k_uncached'])} per 1,000."
        )
    return [*lines, _students_cost(cost), *_paid_back(cost)]


def _students_cost(cost: Mapping[str, Any]) -> str:
    hourly, machine = cost.get("machine_usd_per_hour"), cost.get("machine") or {}
    if hourly is None:
        return "Students: unknown, as bench.machine_usd_per_hour is not given."
    text = f"Students: one thread, queries one by one, on a machine at {usd(hourly)} an hour, kept busy"
    if not machine:
        return f"{text}."
    busy = ", ".join(f"{name} {100 * part:.3g} %" for name, part in machine["busy_share"].items() if name in _STUDENTS)
    return (
        f"{text}. {cost['queries_per_month']:,} queries a month keep it busy for {busy} of its time; the whole machine is "
        f"{usd(machine['usd_per_month'])} a month."
    )


def _paid_back(cost: Mapping[str, Any]) -> list[str]:
    """What distilling has cost, and after how many queries it has paid."""
    spent, even = cost.get("spent"), cost.get("break_even")
    if spent is None:
        return []
    n_answers = sum(stage["n_answers"] for stage in spent["by_stage"])
    text = f"Spent on distilling: {usd(spent['usd'])} for {n_answers:,} answers"
    if lost := spent.get("unanswered_usd"):
        text += f" (requests without an answer may be billed with {usd(lost)} more, at most)"
    if even is None:
        return [f"{text}; the break-even is unknown."]
    if not even["is_the_teachers_own"]:
        text += f", {usd(even['spent_usd'])} at the price of {even['price_of']}{_uncached(cost)}; a model that reasons bills that besides"
    paid = ", ".join(_after(name, n, even["months"][name]) for name, n in even["queries"].items())
    machine = (
        " on a machine that does other work too"
        if even["machine_is_counted"]
        else ", the student's machine not counted"
    )
    return [f"{text}. Paid back{machine}: {paid}.{_alone(cost)}"]


def _uncached(cost: Mapping[str, Any]) -> str:
    dollars = spent_uncached_usd(cost)
    return "" if dollars is None else f", {usd(dollars)} with no cached prefix"


def _alone(cost: Mapping[str, Any]) -> str:
    volume = pays_alone_from(cost)
    if volume is None:
        return ""
    return f" A machine for the router alone costs less than asking from about {float(f'{volume:.2g}'):,.0f} queries a month on."


def _after(name: str, n_queries: int | None, months: float | None) -> str:
    if n_queries is None:
        return f"{name} never"
    days = "" if months is None else f" ({number(months * _DAYS_PER_MONTH)} days)"
    return f"{name} after {n_queries:,} queries{days}"


def _source(price: dict[str, Any]) -> str:
    return f"{price['source']}, read {price['date']}"


def _teacher(result: BenchResult) -> BenchRow | None:
    return next((row for row in result.rows if row.name == TEACHER), None)


def headline(result: BenchResult) -> str:
    """The verdict in one line: which students keep their gates."""
    students = list(dict.fromkeys(gate.row for gate in result.gates))
    if not students:
        return "No gates are set: the figures stand without a verdict."
    sentences = []
    for student in students:
        gates = [gate for gate in result.gates if gate.row == student]
        broken = [gate.gate for gate in gates if gate.passed is False]
        unknown = [gate.gate for gate in gates if gate.passed is None]
        if broken:
            sentences.append(f"{student} breaks {' and '.join(broken)}")
        elif unknown:
            sentences.append(f"{student} cannot be judged on {' and '.join(unknown)}")
        else:
            doubts = [_doubt(gate) for gate in gates if gate.verdict == NOT_SHOWN]
            sentences.append(f"{student} keeps every gate{', but ' if doubts else ''}{' and '.join(doubts)}")
    return "; ".join(sentences) + "."


def _doubt(gate: GateVerdict) -> str:
    """What a figure within its limit does not show."""
    most = (
        "" if gate.ci95 is None else f": it may be {100 * gate.ci95[1]:.1f} points, the limit is {100 * gate.limit:.3g}"
    )
    return f"{gate.gate} is {NOT_SHOWN} at 95 %{most}"
