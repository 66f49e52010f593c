"""The generated parts of docs/when-not-to-use.md; scripts/readme.py writes them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from openings import Opening, last_by_seed, read_openings

from distill.benchmark.display import number, usd
from distill.benchmark.gates import what_would_show
from distill.benchmark.results import read_result
from distill.benchmark.statistics import NonInferiority
from distill.student.recipe import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.types import BenchResult, BenchRow, GateVerdict

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "data" / "banking-assistant"
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "when-not-to-use.md"

_DAYS_PER_MONTH = 365 / 12
_DAYS_PER_YEAR = 365
_QUERIES_PER_DAY = (10, 100, 1_000, 10_000, 100_000)
_OWN_TIME_USD = 500
_SHOWN = ("tfidf", "static", "encoder")
_SETS = {"banking77": "BANKING77, human labels", "clinc150": "CLINC150, human labels"}


def break_even() -> str:
    """What asking costs, and after how long distilling is paid back, by queries a day."""
    cost = _demo().cost
    price, spent = cost["priced_as"], cost["spent"]["priced_as_usd"]
    per_query = price["usd_per_1k"] / 1_000
    head = [
        "queries a day",
        "asking, a month",
        "with no cached prefix",
        "answers paid back after",
        f"{usd(_OWN_TIME_USD)} of work after",
    ]
    lines = [
        [
            f"{n:,}",
            usd(n * _DAYS_PER_MONTH * per_query),
            usd(n * _DAYS_PER_MONTH * price["usd_per_1k_uncached"] / 1_000),
            _time(spent / per_query / n),
            _time((spent + _OWN_TIME_USD) / per_query / n),
        ]
        for n in _QUERIES_PER_DAY
    ]
    tokens = cost["teacher_tokens_per_query"]
    return (
        f"{_table(head, lines)}\n\n"
        f"The demo's prompt ({tokens['prompt']:,.0f} tokens in the mean) at the price of {price['model']} ({price['source']}, read {price['date']}): "
        f"{usd(price['usd_per_1k'])} per 1,000 queries. Distilling took {_n_answers():,} answers, those to {_n_gold():,} gold queries included, {usd(spent)} at that price. "
        "What counts as cached is what the demo's own server reused; a provider caches long prompts alone, and for a while: with few queries a day "
        "the second column is nearer. The student's machine is not counted.\n"
    )


def latency() -> str:
    """The teacher's latency beside the students'."""
    rows = _rows(_demo())
    students = ", ".join(f"{name} {number(rows[name].p50_ms)} ms" for name in ("encoder", "static"))
    return (
        f"In the demo half of the answers came within {number(rows['teacher'].p50_ms)} ms from the LLM ({rows['teacher'].notes['model']}, "
        f"a small one, run locally); {students}, one query at a time.\n"
    )


def baselines() -> str:
    """TF-IDF beside the students, on public data and on the demo."""
    lines = [_public_line(name, title) for name, title in _SETS.items()]
    for file, title in (
        ("results", "demo, queries written by an LLM"),
        ("confirmation.results", "demo, gold set aside"),
    ):
        rows = _rows(read_result(DEMO / f"{file}.json"))
        lines.append([title, "accuracy_policy", *_compared([rows[name].accuracy_policy or 0.0 for name in _SHOWN])])
    oos = [fmean(opening["rows"][name]["oos_auroc"] for opening in _openings("clinc150")) for name in _SHOWN]
    lines.append([_SETS["clinc150"], "out-of-scope AUROC", *_compared(oos)])
    head = ["", "figure", "TF-IDF", "static", "encoder", "static, points above TF-IDF"]
    return (
        _table(head, lines)
        + f"\n\n{_trained_as()} How often [test parts](../results/public.md) and [gold](../results/README.md#gold-was-opened-more-than-once) were opened.\n"
    )


def _public_line(name: str, title: str) -> list[str]:
    openings = _openings(name)
    values = [fmean(opening["rows"][row]["accuracy"] for opening in openings) for row in _SHOWN]
    return [title, "accuracy", *_compared(values)]


def _trained_as() -> str:
    """Of which seeds and which recipe the public rows' students are."""
    sets = [
        f"{title.partition(',')[0]} is of seed {', '.join(str(opening['seed']) for opening in openings)} and "
        + (
            f"recipe {openings[0]['recipe']}"
            if "recipe" in openings[0]
            else "an older recipe, which its line does not name"
        )
        for name, title in _SETS.items()
        if (openings := _openings(name))
    ]
    return f"{'; '.join(sets)}; training's recipe now is {VERSION}."


def _compared(values: Sequence[float]) -> list[str]:
    tfidf, static, _ = values
    return [*(f"{value:.3f}" for value in values), f"{100 * (static - tfidf):+.1f}"]


def published() -> str:
    """What others have published."""
    entries = json.loads((RESULTS / "alternatives.json").read_text(encoding="utf-8"))
    lines = [
        [
            each["what"],
            each["figure"],
            f"{each['value']:g}",
            f"published: [{each['source']}]({each['url']})",
        ]
        for each in entries
    ]
    return _table(["", "figure", "", ""], lines) + "\n"


def retraining() -> str:
    """What a change of intents takes."""
    cost = _demo().cost
    stages = {stage["stage"]: stage["n_answers"] for stage in cost["spent"]["by_stage"]}
    asked = " and ".join(f"{n:,} answers to {stage}" for stage, n in stages.items())
    price = f"{usd(cost['spent']['priced_as_usd'])} at the price of {cost['priced_as']['model']}"
    trained = [
        f"{opening['train_minutes']:.0f} minutes of training for {title.partition(',')[0]}, seed {opening['seed']} ({opening['processor']})"
        for name, title in _SETS.items()
        for opening in _openings(name)
        if opening["train_minutes"] is not None
    ]
    return f"{'; '.join([f'{asked}, those to {_n_gold():,} gold queries included, {price}', *trained])}.\n"


def gold() -> str:
    """What the demo's gold shows, and how much more it would take."""
    result = _demo()
    lines = [
        f"{gate.row}: {100 * abs(gate.figure):.1f} points {'under' if gate.figure > 0 else 'above'} the teacher, {100 * low:+.1f} to {100 * high:+.1f} at 95 %; "
        f"at most {100 * gate.limit:g} points: {gate.verdict}{_more(gate)}"
        for gate in result.gates
        if gate.figure is not None and gate.ci95 is not None
        for low, high in (gate.ci95,)
    ]
    return f"With {result.n_gold:,} gold queries:\n\n" + "".join(f"- {line}\n" for line in lines)


def _more(gate: GateVerdict) -> str:
    is_open = gate.verdict == NonInferiority.NOT_SHOWN
    return f"; {what_would_show(gate.more_gold, possible=gate.more_would_show)}" if is_open else ""


def _time(days: float) -> str:
    """A span of time in the unit that it is thought of in."""
    if days < 1:
        return f"{number(24 * days)} hours"
    if days < _DAYS_PER_YEAR:
        return f"{number(days)} days"
    return f"{number(days / _DAYS_PER_YEAR)} years"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def _demo() -> BenchResult:
    return read_result(DEMO / "results.json")


def _n_answers() -> int:
    return sum(stage["n_answers"] for stage in _demo().cost["spent"]["by_stage"])


def _n_gold() -> int:
    """Gold queries that the demo's teacher answered: also those set aside."""
    return _demo().n_gold + read_result(DEMO / "confirmation.results.json").n_gold


def _rows(result: BenchResult) -> dict[str, BenchRow]:
    return {row.name: row for row in result.rows}


def _openings(name: str) -> list[Opening]:
    return last_by_seed(read_openings(RESULTS / "openings.jsonl"), name)


PARTS = {
    "baselines": baselines,
    "break-even": break_even,
    "gold": gold,
    "latency": latency,
    "published": published,
    "retraining": retraining,
}
