"""Writes the generated parts of README.md and of pages under docs/ between their markers; ``--check`` only says whether they are up to date.

python scripts/readme.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import audit_table
import budget
import bulk_growth
import demo_pages
import growth_table
import idle_memory
import intents_table
import peers_table
import teacher_evidence
import throughput
import when_not
from provenance import older_students
from pydantic import BaseModel

from distill.benchmark.captions import headline
from distill.benchmark.display import accuracy_in_scope, cascade_columns, number, share
from distill.benchmark.results import read_result
from distill.data import read_jsonl
from distill.errors import DistillError
from distill.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DEMO = ROOT / "data" / "banking-assistant"


def summary() -> str:
    """What the demo comes to, in one small table."""
    result = read_result(DEMO / "results.json")
    lines = ["| | right answers | median time | size, MB |", "|---|---:|---:|---:|"]
    for row in result.rows:
        if row.name in _SUMMARISED:
            right = share(row.accuracy_policy, row.accuracy_policy_ci95)
            lines.append(f"| {_SUMMARISED[row.name]} | {right} | {number(row.p50_ms, ' ms')} | {number(row.size_mb)} |")
    n_intents = len(json.loads((DEMO / "intents.json").read_text(encoding="utf-8")))
    in_scope = ", ".join(
        f"{'the LLM' if row.name == 'teacher' else row.name} {share(accuracy_in_scope(row, result))}"
        for row in result.rows
        if row.name in {"teacher", "encoder", "static"}
    )
    caption = (
        f"{result.n_gold:,} human queries to a bank, {n_intents} intents; {result.n_oos:,} queries fit none of them and must be declined. "
        f"Of the other {result.n_in_scope:,} alone, right are {in_scope}: the more queries of yours fit an intent, the more this counts. "
        "Brackets: 95 % intervals. No human query was trained on. "
        f"{headline(result)}{older_students(result.environment)}"
    )
    return "\n".join([*lines, "", f"{caption}\n"])


_SUMMARISED = {
    "teacher": "the LLM (a small one, run locally)",
    "encoder": "`encoder`, a small transformer",
    "static": "`static`, a table of words",
    "tfidf": "TF-IDF, for comparison",
}


def results() -> str:
    """The table of the demo, from the committed results."""
    return demo_pages.results(DEMO)()


def confirmation() -> str:
    """The demo's students on the gold set aside."""
    result = read_result(DEMO / "confirmation.results.json")
    shown = [row for row in result.rows if row.name in {"teacher", "encoder", "static", "tfidf"}]
    figures = ", ".join(f"{row.name} {row.accuracy_policy:.3f} {_interval(row.accuracy_policy_ci95)}" for row in shown)
    return (
        f"On {result.n_gold:,} other human queries ({result.n_in_scope} in scope, {result.n_oos} out of scope), set aside before anything "
        f"was measured on them, accuracy_policy is: {figures}. {headline(result)} How often they were opened: [results](results/README.md).\n"
    )


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def recording() -> str:
    """Which model answered, and how often, from the recordings themselves."""
    synth = [line for _, line in read_jsonl(DEMO / "synth.jsonl")]
    ledger = [line for _, line in read_jsonl(DEMO / "ledger.jsonl")]
    queries = [line for _, line in read_jsonl(DEMO / "queries.jsonl")]
    targets = Counter(line["intended_intent"] for line in queries)
    n_oos = targets.pop("oos")
    writers = {line["model"] for line in queries if "model" in line}
    teacher = read_result(DEMO / "results.json").provenance["teacher"]
    synth, ledger = (
        [line for line in synth if line["teacher"] in writers],
        [line for line in ledger if line["teacher"] == teacher],
    )
    days = sorted({line["asked_at"][:10] for line in [*synth, *ledger]})
    return (
        f"`{', '.join(sorted(writers | {teacher}))}` wrote {len(queries):,} distinct queries ({sum(targets.values()):,} for the "
        f"{len(targets)} intents, {n_oos:,} meant to fit none) in {len(synth)} requests, and gave {len(ledger):,} answers as the teacher, "
        f"those to both gold sets included ({' to '.join(dict.fromkeys([days[0], days[-1]]))}).\n"
    )


def spec() -> str:
    """The demo's router.yaml as it is."""
    return f"```yaml\n{(DEMO / 'router.yaml').read_text(encoding='utf-8')}```\n"


def keys() -> str:
    """Every key of router.yaml with its default, from the models that check it."""
    lines = ["| key | default | |", "| --- | --- | --- |", *_rows(Spec, "")]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        nested = next((part for part in _models_in(field.annotation)), None)
        default = "" if nested or field.is_required() else f"`{_default(field.get_default(call_default_factory=True))}`"
        yield f"| `{key}` | {'required' if field.is_required() and not prefix else default} | {field.description} |"
        if nested and key not in {"intents", "out_of_scope", "gates.static", "gates.encoder"}:
            yield from _rows(nested, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def _default(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def threads_and_processes() -> str:
    """What threads and processes come to on two cores, and how long an event loop waits."""
    return throughput.table(json.loads((ROOT / "results" / "throughput.json").read_text(encoding="utf-8")))


def cascade() -> str:
    """What the demo's static student comes to with the teacher behind it, by rule of asking."""
    result = read_result(DEMO / "results.json")
    teacher = next(row for row in result.rows if row.name == "teacher")
    _, *columns = cascade_columns(result)
    titles = [column.title for column in columns]
    lines = [f"| asked where | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(titles)}"]
    for point in result.cascades["static"]:
        rule = (
            "the policy declines (the default)"
            if point["rule"] == "policy"
            else f"confidence is under {point['ask_below']:.9g}"
        )
        lines.append(f"| {rule} | {' | '.join(column.cell(point) for column in columns)} |")
    caption = (
        f"The demo's static student, {result.n_gold:,} gold queries; its teacher alone: {share(teacher.accuracy_policy, teacher.accuracy_policy_ci95)}. "
        f"A number picked for looking best here looks better than it is.{older_students(result.environment)}"
    )
    return "\n".join([*lines, "", f"{caption}\n"])


def plain() -> str:
    """The program of docs/bundle.md that runs a bundle without this package."""
    page = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- run: onnxruntime -->\n(```python\n.*?\n```\n)", page, re.DOTALL)
    if not found:
        raise SystemExit("docs/bundle.md: the program that needs onnxruntime alone is missing")
    return found.group(1)


PARTS = {
    "confirmation": confirmation,
    "keys": keys,
    "peers": peers_table.table,
    "plain": plain,
    "recording": recording,
    "results": results,
    "spec": spec,
    "summary": summary,
}
PAGES = {
    README: PARTS,
    when_not.PAGE: when_not.PARTS,
    peers_table.PAGE: {"limits": peers_table.limits, **{name: partial(budget.part, name) for name in budget.PARTS}},
    ROOT / "docs" / "deployment.md": {
        "throughput": threads_and_processes,
        "cascade": cascade,
        "bulk": bulk_growth.page,
    },
    ROOT / "results" / "README.md": {
        "runs": peers_table.runs,
        "idle": idle_memory.page,
        "intents": intents_table.page,
    },
    teacher_evidence.PAGE: {"teacher": teacher_evidence.table},
    **demo_pages.PAGES,
}
WHOLE_PAGES = {audit_table.PAGE: audit_table.page, growth_table.PAGE: growth_table.page}


def generated(text: str, parts: Mapping[str, Callable[[], str]], name: str) -> str:
    """A page with every part made anew.

    Raises:
        SystemExit: A part's markers are missing.
    """
    for part, make in parts.items():
        marked = re.compile(f"(<!-- {part}: generated[^\n]*-->\n).*?(<!-- {part}: end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{name}: the markers of the part {part!r} are missing")
        text = marked.sub(lambda found, make=make: f"{found.group(1)}{make()}{found.group(2)}", text)
    return text


def main() -> None:
    """Writes the pages, or checks them."""
    made: dict[Path, Callable[[str], str]] = {
        path: lambda current, path=path, parts=parts: generated(current, parts, str(path.relative_to(ROOT)))
        for path, parts in PAGES.items()
    }
    made |= {path: lambda _, page=page: page() for path, page in WHOLE_PAGES.items()}
    for path, make in made.items():
        name, current = path.relative_to(ROOT), path.read_text(encoding="utf-8")
        try:
            wanted = make(current)
        except DistillError as error:
            raise SystemExit(f"readme.py: {error}") from error
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted, encoding="utf-8", newline="\n")
        elif wanted != current:
            raise SystemExit(f"{name} is out of date: run `python scripts/readme.py`")


if __name__ == "__main__":
    main()
