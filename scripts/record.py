"""Keeps the figures of a run beside its recording, without the text of queries.

bench.json becomes results.json, or, of a spec that is not called router.yaml, NAME.results.json.

python scripts/record.py data/banking-assistant/router.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

from distill.benchmark.results import read_result, result_as_json
from distill.data import write_json
from distill.spec import load_spec


def main() -> None:
    """Writes the results beside the spec that is given."""
    spec = load_spec(Path(sys.argv[1]))
    result = read_result(spec.output() / "bench.json")
    target = spec.folder / ("results.json" if spec.path.name == "router.yaml" else f"{spec.path.stem}.results.json")
    write_json(target, result_as_json(result, with_text=False))
    print(target)


if __name__ == "__main__":
    main()
