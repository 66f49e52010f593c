"""Writes the generated parts of README.md between their markers; ``--check`` only says whether they are up to date.

python scripts/readme.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from distill.benchmark.results import read_result
from distill.benchmark.table import markdown_table
from distill.data import read_jsonl

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DEMO = ROOT / "data" / "banking-assistant"


def results() -> str:
    """The table of the demo, from the committed results."""
    return markdown_table(read_result(DEMO / "results.json"))


def recording() -> str:
    """Which model answered, and how often, from the recordings themselves."""
    synth = [line for _, line in read_jsonl(DEMO / "synth.jsonl")]
    ledger = [line for _, line in read_jsonl(DEMO / "ledger.jsonl")]
    queries = [line for _, line in read_jsonl(DEMO / "queries.jsonl")]
    targets = Counter(line["intended_intent"] for line in queries)
    n_oos = targets.pop("oos")
    writers, labellers = ({line["teacher"] for line in lines} for lines in (synth, ledger))
    days = sorted({line["asked_at"][:10] for line in [*synth, *ledger]})
    return (
        f"`{', '.join(sorted(writers | labellers))}` wrote {len(queries):,} distinct queries ({sum(targets.values()):,} for the "
        f"{len(targets)} intents, {n_oos} meant to fit none) in {len(synth)} requests, and gave {len(ledger):,} answers as the teacher, "
        f"those to gold included ({' to '.join(dict.fromkeys([days[0], days[-1]]))}).\n"
    )


def spec() -> str:
    """The demo's router.yaml as it is."""
    return f"```yaml\n{(DEMO / 'router.yaml').read_text(encoding='utf-8')}```\n"


PARTS = {"results": results, "recording": recording, "spec": spec}


def generated(text: str) -> str:
    """The README with every part made anew.

    Raises:
        SystemExit: A part's markers are missing.
    """
    for name, make in PARTS.items():
        marked = re.compile(f"(<!-- {name}: generated[^\n]*-->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{README.name}: the markers of the part {name!r} are missing")
        text = marked.sub(lambda found, make=make: f"{found.group(1)}{make()}{found.group(2)}", text)
    return text


def main() -> None:
    """Writes README.md, or checks it."""
    current = README.read_text(encoding="utf-8")
    wanted = generated(current)
    if "--check" in sys.argv[1:]:
        if wanted != current:
            raise SystemExit("README.md is out of date: run `python scripts/readme.py`")
    else:
        README.write_text(wanted, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
