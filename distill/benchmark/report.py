"""report.html: one self-contained file, written from a benchmark's result alone. report.md: its tables for a pull request.

Opens offline, in light and dark, on paper and on a phone. Queries and labels are user text: everything is escaped, and
the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.benchmark.captions import (
    JUDGED_BY,
    accuracy_caption,
    cost_lines,
    gate_caption,
    gold_captions,
    headline,
    leakage_caption,
    score_caption,
    speed_captions,
)
from distill.benchmark.display import (
    MISSING,
    SPEED_COLUMNS,
    accuracy_columns,
    cascade_columns,
    columns,
    cost_columns,
    gate_columns,
    gate_word,
    number,
    score_columns,
    share,
    usd,
)
from distill.benchmark.gates import what_would_show
from distill.benchmark.table import cascade_markdown, markdown_table
from distill.data import atomic_write
from distill.errors import missing_extra
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.types import BenchResult, BenchRow, GateVerdict, Interval

__all__ = ["Verdict", "report_html", "report_markdown", "verdicts", "write_report"]

_STUDENTS = ("encoder", "static")
_MARGIN = "accuracy_drop"
_SHOWN, _NOT_SHOWN, _REFUTED = "shown", "not shown", "refuted"
_MARKED_WORDS = ("kept", "broken", "not judged", _SHOWN, _NOT_SHOWN, _REFUTED)
_MOST_DISAGREEMENTS = 50
_MOST_CONFUSIONS = 10
_DECIMALS = 6
_NO_INTENT = "no intent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a student may replace the teacher.

    Attributes:
        word: ``shown``, ``not shown`` or ``refuted``; ``kept``, ``broken`` or ``not judged`` where nothing can be said at 95 %.
        text: One sentence for people.
    """

    word: str
    text: str


@dataclass(frozen=True, slots=True)
class _Cell:
    """Text of a cell; None stands for no intent.

    Attributes:
        key: What the column is sorted by instead of the text; empty for not known.
        is_query: The text may be long.
    """

    text: str | None
    key: str | None = None
    is_query: bool = False


@dataclass(frozen=True, slots=True)
class _Table:
    """A table that can be sorted, and filtered by words and by the choices of its first column."""

    id: str
    title: str
    titles: Sequence[str]
    lines: Sequence[Sequence[_Cell]]
    choices: Sequence[str] = ()


def write_report(result: BenchResult, path: Path, *, with_text: bool = True) -> None:
    """Writes the report as HTML, and as Markdown beside it, which never holds the text of queries.

    Args:
        result: What ``run_bench`` found.
        path: The file, such as models/NAME/report.html; the other is models/NAME/report.md.
        with_text: False leaves out the text of queries.

    Raises:
        MissingExtraError: jinja2 or svg.py is not installed.
        StorageError: A file cannot be written.
    """
    pages = {path: report_html(result, with_text=with_text), path.with_suffix(".md"): report_markdown(result)}
    for file, page in pages.items():
        with atomic_write(file) as partial:
            partial.write_text(page, encoding="utf-8")


def report_markdown(result: BenchResult) -> str:
    """The verdict, the tables and the gates as Markdown, for a pull request."""
    found = "\n".join(f"- {verdict.text}" for verdict in verdicts(result))
    title = f"# {result.name}: may it replace the LLM?"
    return "\n\n".join(filter(None, [title, found, markdown_table(result), cascade_markdown(result)]))


def report_html(result: BenchResult, *, with_text: bool = True) -> str:
    """The report as one HTML page. Arguments and errors as ``write_report``."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        from distill.benchmark import pictures
    except ImportError as error:
        raise missing_extra(error.name or "jinja2") from error
    loader = PackageLoader("distill.benchmark")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sources = (loader.get_source(templates, name)[0] for name in ("report.css", "report.js"))
    style, script = (source.replace("\r\n", "\n") for source in sources)  # browsers hash a page's CRLF as LF
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return templates.get_template("report.html.j2").render(
        result=result,
        style=style,
        script=script,
        script_hash=f"sha256-{digest}",
        overview=pictures.overview(result),
        trade_offs=pictures.trade_offs(result),
        marked_words=_MARKED_WORDS,
        most_disagreements=_MOST_DISAGREEMENTS,
        **_verdict_parts(result),
        **_row_tables(result),
        **_detail_tables(result, with_text=with_text),
        provenance=_provenance(result),
    )


def _verdict_parts(result: BenchResult) -> dict[str, Any]:
    return {
        "verdicts": verdicts(result),
        "headline": headline(result),
        "gate_columns": gate_columns(result.gates),
        "gate_lines": [gate_caption(result)],
    }


def _row_tables(result: BenchResult) -> dict[str, Any]:
    """Columns and captions of the tables with a line for each row."""
    return {
        "accuracy_columns": columns(accuracy_columns(result), result.rows),
        "accuracy_lines": [accuracy_caption(result), *gold_captions(result), leakage_caption(result)],
        "score_columns": columns(score_columns(result), result.rows),
        "score_lines": [score_caption(result)],
        "speed_columns": columns(SPEED_COLUMNS, result.rows),
        "speed_lines": speed_captions(result),
        "cost_columns": columns(cost_columns(result), result.rows),
        "cost_lines": cost_lines(result),
    }


def _detail_tables(result: BenchResult, *, with_text: bool) -> dict[str, Any]:
    return {
        "cascade": _cascade(result),
        "confusions": _confusions(result),
        "per_intent": _per_intent(result),
        "disagreements": _disagreements(result, with_text=with_text),
        "disagreements_order": "Those furthest apart" if result.task is Task.WEIGHTS else "The student's surest",
        "near_pairs": _near_pairs(result, with_text=with_text),
        "spend": _spend(result),
    }


def verdicts(result: BenchResult) -> list[Verdict]:
    """A sentence for each student: may it replace the teacher, at which margin, and how sure that is."""
    students = [row for row in result.rows if row.name in _STUDENTS]
    by = JUDGED_BY[result.task]
    return [_verdict(row, [gate for gate in result.gates if gate.row == row.name], by) for row in students]


def _verdict(row: BenchRow, gates: Sequence[GateVerdict], by: str) -> Verdict:
    margin = next((gate for gate in gates if gate.gate == _MARGIN), None)
    broken = [
        f"it breaks {gate.gate} ({gate.detail})" for gate in gates if gate.gate != _MARGIN and gate.passed is False
    ]
    if margin is None:
        word, text = (
            "not judged",
            f"{row.name}: no margin is set (gates, {_MARGIN}), so nothing is said{_against_teacher(row, by)}",
        )
    elif margin.verdict is None or margin.figure is None:
        word = gate_word(margin)
        text = f"{row.name}: {_MARGIN} is {word}: {margin.detail or 'nothing was measured'}"
    else:
        word, text = (
            margin.verdict,
            f"{_judged(row.name, margin, by)} ({_difference(margin.figure, margin.ci95)}){_more(margin)}",
        )
    return Verdict("broken" if broken and word != _REFUTED else word, f"{'; '.join([text, *broken])}.")


def _judged(student: str, gate: GateVerdict, by: str) -> str:
    margin = f"at a margin of {_in_points(f'{100 * gate.limit:g}')} of {by}"
    if gate.verdict == _SHOWN:
        return f"{student} may replace the teacher {margin}: shown at 95 %"
    if gate.verdict == _REFUTED:
        return f"{student} may not replace the teacher {margin}: refuted at 95 %"
    return f"{student}: not shown at 95 % that it may replace the teacher {margin}"


def _more(gate: GateVerdict) -> str:
    if gate.verdict != _NOT_SHOWN:
        return ""
    return f"; {what_would_show(gate.more_gold, possible=gate.more_would_show)}"


def _difference(drop: float, interval: Interval | None) -> str:
    side = "worse" if drop > 0 else "better"
    text = "as good as the teacher" if drop == 0 else f"{_points(abs(drop))} {side}"
    return text if interval is None else f"{text}, {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def _points(value: float) -> str:
    """A difference, with one decimal as its interval has."""
    return _in_points(f"{100 * value:.1f}".removesuffix(".0"))


def _in_points(points: str) -> str:
    return f"{points} point" if points == "1" else f"{points} points"


def _against_teacher(row: BenchRow, by: str) -> str:
    found = row.notes.get("against_teacher")
    return f" (by {by} {_difference(found['drop'], found['drop_ci95'])} at 95 %)" if found else ""


def _figure(value: float | None, text: str | None = None) -> _Cell:
    """A cell that is sorted by its number."""
    return _Cell(share(value) if text is None else text, "" if value is None else f"{value:g}")


def _count(value: int) -> _Cell:
    return _Cell(f"{value:,}", str(value))


def _confusions(result: BenchResult) -> list[_Table]:
    tables = []
    for index, name in enumerate(dict.fromkeys(pair["row"] for pair in result.confusions)):
        pairs = [pair for pair in result.confusions if pair["row"] == name][:_MOST_CONFUSIONS]
        lines = [(_Cell(pair["gold"]), _Cell(pair["answer"]), _count(pair["n"])) for pair in pairs]
        tables.append(_Table(f"confusions-{index}", name, ("gold", "answer", "queries"), lines))
    return tables


def _per_intent(result: BenchResult) -> _Table:
    found = sorted(result.per_intent, key=lambda one: (one.f1 is None, one.f1))
    has_error = any(one.mae is not None for one in found)
    titles = ["row", "intent", "gold queries", "answers", "precision", "recall", "F1", "most taken for"]
    lines = []
    for one in found:
        taken_for = f"{one.confused_with or _NO_INTENT} ({one.n_confused:,})" if one.n_confused else MISSING
        line = [_Cell(one.row), _Cell(one.intent), _count(one.n), _count(one.n_answered), _figure(one.precision)]
        line += [
            _figure(one.recall, share(one.recall, one.recall_ci95)),
            _figure(one.f1),
            _Cell(taken_for, str(one.n_confused)),
        ]
        errors = [_figure(one.mae, number(one.mae)), _figure(one.bias, number(one.bias and round(one.bias, _DECIMALS)))]
        lines.append([*line, *(errors if has_error else [])])
    titles += ["MAE", "bias"] if has_error else []
    rows = [name for name in dict.fromkeys(row.name for row in result.rows) if any(one.row == name for one in found)]
    return _Table("per-intent", "Each intent", titles, lines, rows)


def _disagreements(result: BenchResult, *, with_text: bool) -> list[_Table]:
    tables: list[_Table] = []
    for row in result.rows:
        found = list(row.notes.get("disagreements") or ())[:_MOST_DISAGREEMENTS]
        if not found:
            continue
        has_gold = bool(result.n_gold)
        titles = ["query"] * with_text + ["gold"] * has_gold + ["teacher", "its score", row.name, "its score"]
        lines = [
            [_Cell(one["text"], is_query=True)] * with_text
            + [_Cell(one["gold"])] * has_gold
            + [_Cell(one["teacher"]), _figure(one.get("teacher_score"))]
            + [_Cell(one["student"]), _figure(one.get("student_score"))]
            for one in found
        ]
        tables.append(_Table(f"disagreements-{len(tables)}", row.name, titles, lines))
    return tables


def _near_pairs(result: BenchResult, *, with_text: bool) -> _Table:
    pairs = [pair for pair in result.leakage.pairs if pair.gold] if result.leakage and with_text else []
    lines = [
        (_figure(pair.similarity), _Cell(pair.gold, is_query=True), _Cell(pair.training, is_query=True))
        for pair in pairs
    ]
    return _Table("near-pairs", "Near pairs", ("similarity", "gold query", "training query"), lines)


def _cascade(result: BenchResult) -> _Table:
    shown = cascade_columns(result)
    lines = [
        (_Cell(row), *(_figure(column.value(point), column.cell(point)) for column in shown))
        for row, points in result.cascades.items()
        for point in points
    ]
    return _Table("cascade", "The cascade's points", ("student", *(column.title for column in shown)), lines)


def _spend(result: BenchResult) -> _Table:
    titles = ["stage", "answers", "without a count", "prompt tokens", "of these cached", "completion tokens", "USD"]
    counted = ("n_answers", "n_uncounted", "prompt_tokens", "cached_tokens", "completion_tokens")
    stages = (result.cost.get("spent") or {}).get("by_stage", ())
    lost = any(stage.get("unanswered_usd") for stage in stages)
    if lost:
        titles.append("USD at most for requests without an answer")
    lines = [
        [
            _Cell(stage["stage"]),
            *(_known_count(stage.get(name)) for name in counted),
            _figure(stage["usd"], usd(stage["usd"])),
            *([_figure(stage["unanswered_usd"], usd(stage["unanswered_usd"]))] if lost else []),
        ]
        for stage in stages
    ]
    return _Table("spend", "Spent on distilling", tuple(titles), lines)


def _known_count(value: int | None) -> _Cell:
    return _Cell("unknown", "") if value is None else _count(value)


def _provenance(result: BenchResult) -> list[tuple[str, list[tuple[str, str]]]]:
    cost = {name: value for name, value in result.cost.items() if name not in {"spent", "break_even"}}
    return [
        ("Hashes and versions", _flat(dict(result.provenance))),
        ("Environment", _flat(dict(result.environment))),
        ("Prices and assumptions", _flat(cost)),
    ]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of dotted names; what is not known is said so."""
    if isinstance(value, dict):
        return [line for key, entry in value.items() for line in _flat(entry, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(entry) for entry in value))]
    if value is None:
        return [(name, "unknown")]
    return [(name, value if isinstance(value, str) else json.dumps(value, default=str))]
