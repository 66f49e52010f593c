"""Where the runtime's time and memory go, step by step; and what its ways of doing things are worth beside others.

python scripts/budget.py BUNDLE ... [--queries FILE] [--out results/runtime-budget.json]

One thread. What is compared is asked in turns, so that other programs disturb all alike; time in batches is the thread's own
processor time. Measure on an idle machine all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from provenance import busy, older_students, tree_commit

from distill import Router
from distill import outline as outlines
from distill import session as onnx_session
from distill.benchmark.latency import environment
from distill.bundle import TOKENIZER
from distill.data import read_queries, write_json
from distill.errors import DataError, DistillError
from distill.tokenizer import QueryTokenizer, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "runtime-budget.json"
PARTS = ("machine", "budget", "sessions", "products")
"""Of the page, made from the results."""
QUERIES = ROOT / "data" / "banking-assistant" / "gold.jsonl"
MOST_QUERIES, ROUNDS, BATCHES, STARTS = 512, 5, (1, 8, 16, 48, 128), 5
OWN_SETTINGS = "as the Router has it"
"""Beside it stands another session like it: what the two differ by is noise."""
MATRICES, ROWS, BLOCK = ((384, 384), (384, 1536), (1536, 384)), (1, 12, 384), 32
START = """
import json, sys, time
def memory(key):
    try:
        lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    except OSError:
        return None
    return int(lines[key].split()[0]) * 1024 / 1e6
import numpy, onnxruntime
imported = memory("VmRSS")
started = time.perf_counter()
from distill import Router
imported_router = time.perf_counter()
router = Router.load(sys.argv[1])
loaded = time.perf_counter()
router.route("where is my parcel?")
answered = time.perf_counter()
print(json.dumps({
    "import_ms": (imported_router - started) * 1e3, "load_ms": (loaded - imported_router) * 1e3, "first_answer_ms": (answered - loaded) * 1e3,
    "libraries_mb": imported, "resident_mb": memory("VmRSS"), "peak_mb": memory("VmHWM"),
}))
"""


THIRD_LIBRARY = """
import numpy, onnxruntime, time
started = time.perf_counter()
import tokenizers
print((time.perf_counter() - started) * 1e3)
"""


_CHANCE = random.Random(0)  # noqa: S311


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], int]) -> dict[str, list[float]]:
    """Microseconds of every call, each called once a round, in an order drawn anew: the first finds the caches filled by others."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in _CHANCE.sample(list(calls.items()), len(calls)):
            started = clock()
            call()
            taken[name].append((clock() - started) / 1e3)
    return taken


def steps(opened: Router, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Median and 5th percentile of each step of one query, in microseconds.

    To tokenise is timed as ``route`` does it; ``Router.tokenise`` makes a list of the ids besides. Where the default install, which has no
    nanotoken, remembers words, also with all of them known and with none.
    """
    taken = defaultdict(list)
    content = (opened.bundle.path / TOKENIZER).read_bytes()
    knowing, new = (QueryTokenizer(content, opened.manifest.max_length) for _ in range(2))
    words = getattr(new._quickly, "__self__", None)  # noqa: SLF001

    def tokenise_new_words(text: str) -> None:
        words._known.clear()  # type: ignore[union-attr]  # noqa: SLF001
        new.encode(text)

    for text in texts if new.name == "words" else ():
        knowing.encode(text)
    for text in [*texts] * ROUNDS:
        ids = opened._encode(text)  # noqa: SLF001
        answered = opened._ask(ids)  # noqa: SLF001
        calls = {
            "route": lambda text=text: opened.route(text),
            "tokenise": lambda text=text: opened._encode(text),  # noqa: SLF001
            **(
                {
                    "tokenise, default install": lambda text=text: knowing.encode(text),
                    "tokenise, default install, words never seen before": lambda text=text: tokenise_new_words(text),
                }
                if new.name == "words"
                else {}
            ),
            "tokenise, by the library tokenizers": lambda text=text: opened._tokenizer.by_reference(text),  # noqa: SLF001
            "graph, its inputs included": lambda ids=ids: opened._ask(ids),  # noqa: SLF001
            "policy, Prediction": lambda answered=answered: opened.policy.decide(answered),
        }
        for name, values in in_turns(calls, 1, time.perf_counter_ns).items():
            taken[name] += values
    return {name: {"p50": median(values), "p5": float(np.percentile(values, 5))} for name, values in taken.items()}


def batches(opened: Router, texts: Sequence[str]) -> dict[str, float]:
    """Microseconds of processor time a query at each batch size that there are texts for."""
    sizes = [size for size in BATCHES if size <= len(texts)]
    calls = {str(size): lambda size=size: opened.route_batch(texts, batch_size=size) for size in sizes}
    return {name: median(each) / len(texts) for name, each in in_turns(calls, ROUNDS, time.thread_time_ns).items()}


def settings(opened: Router, texts: Sequence[str]) -> dict[str, float]:
    """Other settings of ONNX Runtime: median of the graph's time for one query, as a share of what the Router's own takes.

    All run the Router's graph, its softmax included, and are asked as the Router asks: by buffers that stay.
    """
    sessions, bound = _sessions(opened), {}
    taken = defaultdict(list)
    for text in texts:
        ids = opened.tokenise(text)
        if len(ids) not in bound:
            ends = (opened._inputs, opened._output, (len(ids), len(opened.labels)))  # noqa: SLF001
            bound[len(ids)] = {name: onnx_session.Binding(each, *ends) for name, each in sessions.items()}
        for each in bound[len(ids)].values():
            each.ids[:] = packed(ids)
        calls = {name: each.run for name, each in bound[len(ids)].items()}
        for name, values in in_turns(calls, 2, time.perf_counter_ns).items():
            taken[name] += values
    own = median(taken[OWN_SETTINGS])
    return {name: median(values) / own for name, values in taken.items()}


def _sessions(opened: Router) -> dict[str, Any]:
    """The Router's own session, and others in each of which one setting differs."""
    path = opened.bundle.onnx_path.resolve()
    softmax_of = onnx_session.LOGITS if opened._output == outlines.PROBABILITIES else ""  # noqa: SLF001
    whole = path.read_bytes() + (outlines._softmax(softmax_of) if softmax_of else b"")  # noqa: SLF001
    mapped = None if os.name == "nt" else outlines.outline(path, softmax_of=softmax_of)

    def session(graph: bytes, *, without: Sequence[str] = onnx_session.SLOW_FUSIONS, **changes: bool) -> Any:
        options = onnx_session.new_options(1)
        options.add_session_config_entry(onnx_session._FOLDER_OF_TABLES, str(path.parent))  # noqa: SLF001
        for name, value in changes.items():
            setattr(options, name, value)
        return onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=[*without]
        )

    graph = mapped or whole
    return {
        OWN_SETTINGS: opened._session,  # noqa: SLF001
        "the same once more": session(graph),
        "without mapping the file": session(whole),
        "with SkipLayerNormFusion": session(graph, without=()),
        "without memory patterns": session(graph, enable_mem_pattern=False),
        "without the memory arena": session(graph, enable_cpu_mem_arena=False),
    }


def start(bundle: Path) -> dict[str, float | None]:
    """A new process: milliseconds over the bare imports of the two libraries that it always needs, and its memory in MB, None where the system does not say; medians."""
    command = [sys.executable, "-c", START, str(bundle)]
    runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(STARTS)]
    third = [
        float(subprocess.run([sys.executable, "-c", THIRD_LIBRARY], capture_output=True, check=True).stdout)
        for _ in runs
    ]
    medians = {key: None if first is None else median(run[key] for run in runs) for key, first in runs[0].items()}
    return {**medians, "third_library_ms": median(third)}


def products() -> list[dict[str, Any]]:
    """How many thousand million multiplications a second ONNX Runtime's products with constant matrices do, by rows and kind."""
    chance, rows = np.random.default_rng(0), []
    for n_rows in ROWS:
        rates = defaultdict(list)
        for height, width in MATRICES:
            floats = chance.standard_normal((n_rows, height)).astype(np.float32)
            calls = {}
            for name, (session, kind) in _products(height, width, chance).items():
                given = floats if kind == np.float32 else chance.integers(0, 255, (n_rows, height)).astype(kind)
                calls[name] = lambda session=session, given=given: session.run(None, {"x": given})
            for name, values in in_turns(calls, 30, time.thread_time_ns).items():
                rates[name].append(n_rows * height * width / np.percentile(values, 20) / 1e3)
        rows.append({"rows": n_rows, **{name: float(np.mean(values)) for name, values in rates.items()}})
    return rows


def _products(height: int, width: int, chance: np.random.Generator) -> dict[str, tuple[Any, type]]:
    whole = chance.integers(-63, 63, (height, width)).astype(np.int8)
    n_blocks = height // BLOCK
    blocks = chance.integers(0, 128, (width, n_blocks, BLOCK)).astype(np.uint8)
    scales, middle = np.full(width * n_blocks, 0.01, np.float32), np.full(width * n_blocks, 64, np.uint8)
    kept = {"domain": "com.microsoft", "K": height, "N": width, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    made = {
        "MatMul, float32": ("MatMul", {"w": whole.astype(np.float32)}, {}, np.float32),
        "MatMulNBits, 8 bits": ("MatMulNBits", {"w": blocks, "s": scales, "z": middle}, kept, np.float32),
        "MatMulInteger, int8": ("MatMulInteger", {"w": whole}, {}, np.uint8),
    }
    return {name: (_session(*each, height, width), each[3]) for name, each in made.items()}


def _session(
    kind: str, weights: Mapping[str, Any], extra: Mapping[str, Any], given: type, height: int, width: int
) -> Any:
    types = (
        helper.np_dtype_to_tensor_dtype(np.dtype(given)),
        TensorProto.FLOAT if given == np.float32 else TensorProto.INT32,
    )
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *weights], ["y"], **extra)],
        "product",
        [helper.make_tensor_value_info("x", types[0], ["n", height])],
        [helper.make_tensor_value_info("y", types[1], ["n", width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnx_session.new_options(1)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measured(bundles: Sequence[Path], queries: Path) -> dict[str, Any]:
    """All of it.

    Raises:
        DistillError: A bundle or the queries cannot be read, or there is no query.
    """
    texts = [query.text for query in read_queries(queries)][:MOST_QUERIES]
    if not texts:
        raise DataError(f"{queries}: holds no query; give JSON lines with `text`")
    found = []
    for path in bundles:
        opened = Router.load(path)
        opened.route_batch(texts)
        fewer = texts if opened.manifest.student == "static" else texts[: max(*BATCHES, len(texts) // 8)]
        found.append(
            {
                "student": opened.manifest.student,
                "bundle_id": opened.manifest.bundle_id,
                "n_labels": len(opened.labels),
                "size_mb": opened.bundle.size_bytes / 1e6,
                "mean_tokens": float(np.mean([len(opened.tokenise(text)) for text in texts])),
                "tokenizer": opened.tokenizer,
                "steps_us": steps(opened, fewer),
                "batches_us": batches(opened, fewer),
                "settings": settings(opened, fewer),
                "start": start(path),
            }
        )
    of = {"n_queries": len(texts), "queries": _shown_path(queries)}
    return {"environment": environment(), "commit": tree_commit(), **of, "bundles": found, "products": products()}


def _shown_path(path: Path) -> str:
    absolute = path.resolve()
    return absolute.relative_to(ROOT).as_posix() if absolute.is_relative_to(ROOT) else path.name


# --- the page ----------------------------------------------------------------------------------------------------------


def part(name: str) -> str:
    """A generated part of the page."""
    return tables(json.loads(RESULTS.read_text(encoding="utf-8")))[name]


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Each generated part of the page, by name."""
    parts = {"budget": [_budget(each) for each in result["bundles"]], "sessions": _settings(result["bundles"])}
    rows = result["products"]
    parts["products"] = _table(list(rows[0]), ([f"{value:,.0f}" for value in row.values()] for row in rows))
    where = result["environment"]
    parts["machine"] = [
        f"{where['processor']}, one thread, onnxruntime {where['versions']['onnxruntime']}, {result['n_queries']} queries of `{result['queries']}`.{_of(result)}{older_students(where)}{busy(where)}"
    ]
    return {name: "\n".join(lines) + "\n" for name, lines in parts.items()}


def _of(result: Mapping[str, Any]) -> str:
    """Which bundles, and with which code."""
    bundles = " and ".join(f"`{each['student']}` {each['bundle_id']}" for each in result["bundles"])
    return f" Bundles: {bundles}; commit {result['commit']}."


def _budget(bundle: Mapping[str, Any]) -> str:
    begun = bundle["start"]
    title = f"**{bundle['student']}**: {bundle['n_labels']} labels, {bundle['size_mb']:.0f} MB, {bundle['mean_tokens']:.1f} tokens in the mean, tokenizer `{bundle['tokenizer']}`\n"
    lines = _table(
        ["one query", "p50 µs", "5th percentile"],
        ([name, f"{each['p50']:,.1f}", f"{each['p5']:,.1f}"] for name, each in bundle["steps_us"].items()),
    )
    lines += ["", *_table(["batches of", "processor µs a query", "queries a second"], ([size, f"{us:,.1f}", f"{1e6 / us:,.0f}"] for size, us in bundle["batches_us"].items()))]  # fmt: skip
    lines += ["", *_table(["a new process", ""], _start_rows(begun))]
    return "\n".join([title, *lines, ""])


def _settings(bundles: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["", *(each["student"] for each in bundles)]
    names = bundles[0]["settings"]
    return _table(head, ([name, *(f"{each['settings'][name]:.2f}" for each in bundles)] for name in names))


def _start_rows(begun: Mapping[str, float | None]) -> list[list[str]]:
    names = {
        "import_ms": "import, over the bare imports of numpy and onnxruntime",
        "load_ms": "load, tokenizers included where it is needed",
        "first_answer_ms": "first answer",
        "third_library_ms": "the bare import of tokenizers, beside these",
        "libraries_mb": "memory with the two libraries alone",
        "resident_mb": "memory after the first answer",
        "peak_mb": "most memory until then",
    }
    return [[name, _with_unit(begun[key], key.rsplit("_", 1)[1].replace("mb", "MB"))] for key, name in names.items()]


def _with_unit(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:,.1f} {unit}"


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def main() -> None:
    """Measures, and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundles", type=Path, nargs="+", help="Folders of bundles, the static student's first.")
    parser.add_argument("--queries", type=Path, default=QUERIES, help="JSON lines with `text`.")
    parser.add_argument("--out", type=Path, help="Also write the figures there, as JSON.")
    options = parser.parse_args()
    try:
        result = measured(options.bundles, options.queries)
    except DistillError as error:
        raise SystemExit(f"budget.py: {error}") from error
    print("\n".join(tables(result).values()))
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
