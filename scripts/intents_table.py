"""The tables of results/intents_change.json, which scripts/intents_change.py measures; scripts/readme.py writes them to results/README.md."""

from __future__ import annotations

import json
from typing import Any

from provenance import ROOT

RESULTS = ROOT / "results" / "intents_change.json"


def table(outcome: dict[str, Any]) -> str:
    """The figures for people: points are hundredths."""
    lines = [
        "| the three intents | queries | of the three | calls: removed | added back | added as new | then found | wrong labels: removed | back | new |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    counts = (
        "n_queries", "n_of_unknown", "n_calls_removing", "n_calls_back", "n_calls", "n_found", "n_wrong_removed", "n_wrong_back",
        "n_wrong_labels",
    )  # fmt: skip
    lines += [
        f"| {', '.join(draw['unknown'])} | {' | '.join(f'{draw[each]:,}' for each in counts)} |"
        for draw in outcome["draws"]
    ]
    figures = outcome["together"]
    low, high = (100 * bound for bound in figures["student_accuracy_lost_ci95"])
    accuracy = ", ".join(f"{name} {value:.4f}" for name, value in figures["student_accuracy"].items())
    saved, found, lost = (100 * figures[name] for name in ("calls_saved", "found", "label_accuracy_lost"))
    student_lost = 100 * figures["student_accuracy_lost"]
    where = f"{outcome['set']}, {len(outcome['draws'])} draws; commit {outcome['commit']}, {outcome['date']}, {outcome['processor']}."
    labels = f"Added as new: calls saved {saved:.1f} %, their queries found {found:.1f} %, label accuracy lost {lost:.2f} points."
    student = (
        f"Student ({outcome['student']}), accuracy: {accuracy}; lost {student_lost:.2f} points [{low:.2f}, {high:.2f}] "
        "at 95 %, somewhat too narrow: all draws are measured on the same queries that were set aside."
    )
    return "\n".join([where, "", *lines, "", labels, student])


def page() -> str:
    """The tables of all sets and students."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return "\n\n".join(map(table, results.values())) + "\n"
