"""The runtime: tokenizer, ONNX session and policy. numpy, onnxruntime and, where a query needs it, tokenizers; nothing else.

    text → tokenizer → int64 ids → session → logits → softmax or sigmoid → policy → Prediction

Where the Router maps a graph's tables (``distill.outline``) it adds the softmax to the graph; otherwise numpy does it.

What counts as a query:

- Anything but a ``str`` is a ``QueryError``.
- Empty and blank text, and text of which the tokenizer keeps nothing (control characters, say), is answered without
  asking the model: ``intent`` None, ``score`` 0.0, ``reason`` ``EMPTY_INPUT``.
- Of long text the first ``manifest.max_length`` tokens count. No more than 64 characters for each of these reach the
  tokenizer (after leading white space, of which 100,000 characters are passed over at most), so that a text of megabytes
  costs no more than a page.
- Lone surrogates, which no UTF-8 can hold, are read as U+FFFD.

Threads share a Router: what a query writes to is its own until it is answered, and nothing of it is handed out. It works after ``fork`` and ``spawn`` and pickles by path
(without its hooks). Where an event loop runs, ``aroute`` and ``aroute_batch`` keep it free.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakSet

import numpy as np

from distill.bundle import (
    CONFIG,
    MANIFEST,
    ONNX_FP32,
    ONNX_INT8,
    SELFCHECK,
    TOKENIZER,
    Bundle,
    check_graph,
    is_in_place,
    load_bundle,
    mark_of,
    mark_of_file,
)
from distill.errors import BundleError, DistillError, QueryError, first_line
from distill.hooks import Hooked, notify
from distill.hub import fetch
from distill.policy import Policy
from distill.session import LOGITS, MOST_BOUND, Binding, check_inputs, no_bindings, open_session, pick_output
from distill.tokenizer import ID_BYTES, QueryTokenizer, packed, unpacked
from distill.types import Prediction, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnxruntime

    from distill.bundle import Manifest

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Integers = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["Router"]

T = TypeVar("T")

_CHARACTERS_PER_TOKEN = 64
_MOST_LEADING_SPACE = 100_000
_MOST_THREADS = 1024
_BATCH_SIZES = {"encoder": 16, "static": 48}
_INLINE_QUERIES, _INLINE_CHARACTERS = 16, 800
"""What is answered in an event loop's own thread at most; of new words alone so many characters take one to two milliseconds."""
_KEPT_S, _PAUSE_S = 5e-4, 1e-6
"""For about how long a thread beside an event loop keeps the interpreter to itself."""
_ROWS_DECIDED = 64
_MOST_OPENINGS, _REPLACEMENT_S = 3, 0.01
_MOST_PROBED = 4_096
"""Tokens that a bundle is asked about when it is opened."""
_SIGMOID_FLOOR = np.float32(-80.0)


class Router(Hooked):
    """Routes queries to intents with the student of one bundle.

    Args:
        bundle: What to route with; ``Router.load`` reads and checks one.
        threads: How many threads ONNX Runtime may use for one call. One is fastest for single queries.

    Attributes:
        on_prediction: Functions that are told of every prediction (``distill.hooks.PredictionEvent``); append your own.
            One that raises is logged and breaks nothing. Empty, the list costs nothing.

    Raises:
        BundleError: The tokenizer or the graph cannot be read, or they do not fit the manifest, or were replaced meanwhile.
        TypeError: ``bundle`` is not a ``Bundle``, but a path for instance.
        ValueError: ``threads`` is no whole number from 1 to 1,024.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        if not isinstance(bundle, Bundle):
            raise TypeError(f"Router takes a Bundle, found {_type_name(bundle)}; Router.load opens a folder")
        if not isinstance(threads, int | np.integer) or not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"threads must be a whole number from 1 to {_MOST_THREADS}, found {threads!r}")
        bundle = replace(
            bundle, path=bundle.path.resolve()
        )  # opened again after a fork, wherever that is and a link leads
        manifest = bundle.manifest
        super().__init__()
        self._bundle, self._threads, self._verifies = bundle, threads, True
        self._policy = _read_policy(bundle)
        self._tokenizer, self._pad_id = _read_tokenizer(bundle)
        self._n_special = self._tokenizer.n_special
        if manifest.max_length <= self._n_special:
            raise BundleError(f"{bundle.path}: max_length {manifest.max_length} leaves no room for a query")
        self._max_characters = manifest.max_length * _CHARACTERS_PER_TOKEN
        self._is_softmax = manifest.task.sums_to_one
        self._graph_mark: tuple[int, ...] | None = None  # not known to be that of a verified graph
        self._session = open_session(bundle, threads)
        self._inputs = check_inputs(bundle, self._session)
        self._output = pick_output(self._session)
        self._bound = no_bindings()
        self._label_ones = np.ones(len(manifest.labels), dtype=np.float32)
        self._probe()
        if not is_in_place(bundle):
            raise BundleError(f"{bundle.path}: replaced while it was opened; load it again")
        _routers.add(self)

    @classmethod
    def load(cls, path: str | Path, *, threads: int = 1, verify: bool = True) -> Self:
        """Opens a bundle; anew, where another takes its place meanwhile.

        Args:
            path: The bundle's folder, such as ``models/support-desk/static``.
            threads: How many threads ONNX Runtime may use for one call.
            verify: Whether to compare the files that are read with their SHA-256 first.

        Raises:
            BundleError: The bundle is missing, incomplete, altered, of a newer format, or its parts do not fit.
            TypeError: ``path`` is no path, but None for instance.
            ValueError: As for ``Router``.
        """
        _check_path(path)
        for attempt in range(1, _MOST_OPENINGS + 1):
            found = mark_of(path)
            graphs = {name: mark_of_file(Path(path) / name) for name in (ONNX_FP32, ONNX_INT8)}
            try:
                router = cls(load_bundle(path, verify=verify, spare=False), threads=threads)
                break
            except BundleError:
                if found is None:
                    sleep(_REPLACEMENT_S)
                if attempt == _MOST_OPENINGS or mark_of(path) == found:
                    raise
        router._verifies = verify
        if verify:
            router._graph_mark = graphs[router.manifest.onnx_file]
        return router

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, threads: int = 1, verify: bool = True) -> Self:
        """Opens a bundle from the Hugging Face hub, or a local one.

        Args:
            name: Repository such as ``org/name``, or the path of a folder that exists.
            revision: Branch, tag or commit of the repository; a local folder has none.
            threads: As for ``load``.
            verify: As for ``load``.

        Raises:
            BundleError: It cannot be fetched, or a local folder is asked for a revision, or as for ``load``.
            MissingExtraError: huggingface_hub is not installed.
            TypeError: ``name`` is no name, but None for instance.
            ValueError: As for ``Router``.
        """
        _check_path(name)
        is_local = _is_here(Path(name)) or Path(name).is_absolute()
        if is_local and revision is not None:
            raise BundleError(f"{name}: is here, and has no revision {revision!r}; leave it out, or start elsewhere")
        return cls.load(name if is_local else fetch(name, revision), threads=threads, verify=verify)

    @property
    def bundle(self) -> Bundle:
        """What this router was made from."""
        return self._bundle

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the probabilities."""
        return self._policy.labels

    @property
    def policy(self) -> Policy:
        """The thresholds that decide."""
        return self._policy

    @property
    def tokenizer(self) -> str:
        """Which way queries become ids: ``nanotoken``, ``words`` or ``tokenizers``. The ids are the same."""
        return self._tokenizer.name

    def __repr__(self) -> str:
        return f"Router({str(self._bundle.path)!r}, bundle_id={self.manifest.bundle_id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        known = str(self._bundle.path), self.manifest.bundle_id, self._threads, self._verifies
        return _reopen, (type(self), *known)

    def route(self, text: str) -> Prediction:
        """Routes one query.

        Raises:
            QueryError: ``text`` is not a string.
            BundleError: The first query after a fork finds that the bundle was replaced, or tokenizer or graph fail on the query.
        """
        if not self._hooks:
            return self._route(text)
        started = perf_counter()
        prediction = self._route(text)
        self._notify((text,), (prediction,), started)
        return prediction

    def _route(self, text: str) -> Prediction:
        ids = self._encode(text)
        if len(ids) <= self._n_special * ID_BYTES:
            return self._empty()
        probabilities = self._ask(ids)
        if self._output == LOGITS:
            self._normalise(probabilities)
        return self._policy.decide(probabilities)

    def _normalise(self, logits: Floats) -> None:
        """Makes probabilities of one query's logits, in place, with as few calls as it takes."""
        if not self._is_softmax:
            _sigmoid(logits)
            return
        logits -= logits[logits.argmax()]
        np.exp(logits, out=logits)
        logits /= logits.dot(self._label_ones)

    def route_batch(self, texts: Iterable[str], *, batch_size: int | None = None) -> list[Prediction]:
        """Routes many queries: one prediction for each, in order.

        The queries are sorted by length and padded batch by batch. The answers are those of ``route`` but for float
        noise, which an int8 encoder's rounding makes somewhat larger.

        Args:
            texts: The queries.
            batch_size: Queries in one call of the model; None: 16 for the encoder, 48 for static.

        Raises:
            QueryError: ``texts`` is a string or a mapping, or one of them is no string.
            BundleError: As for ``route``.
            ValueError: ``batch_size`` is no whole number of 1 or more.
        """
        return self._route_batch(_as_list(texts), batch_size)

    def _route_batch(self, texts: list[str], batch_size: int | None, *, pauses: bool = False) -> list[Prediction]:
        """``route_batch``; with ``pauses`` another thread gets the interpreter now and then while Python is at work."""
        started = perf_counter()
        probabilities, is_empty = self._batch(texts, batch_size, pauses=pauses)
        predictions: list[Prediction] = []
        starts = range(0, len(texts), _ROWS_DECIDED)
        for start in _with_pauses(starts) if pauses else starts:
            rows = probabilities[
                start : start + _ROWS_DECIDED
            ].copy()  # a prediction that is kept then keeps few others
            predictions += self._policy.decide_batch(rows)
        for position in np.flatnonzero(is_empty):
            predictions[position] = self._empty()
        if self._hooks:
            self._notify(texts, predictions, started, pauses=pauses)
        return predictions

    def predict_proba(self, texts: Iterable[str], *, batch_size: int | None = None) -> Floats:
        """Calibrated probability of every label for every query, in order; the policy is not applied.

        Empty input, about which nothing is known, has the uniform distribution (``single``, ``weights``) or 0 for
        every label (``multi``).

        Args:
            texts: The queries.
            batch_size: As for ``route_batch``.

        Returns:
            float32 array of shape (n, n_labels). Rows sum to 1 but for ``multi``.

        Raises:
            QueryError: As for ``route_batch``.
            BundleError: As for ``route``.
            ValueError: As for ``route_batch``.
        """
        return self._batch(_as_list(texts), batch_size)[0]

    async def aroute(self, text: str) -> Prediction:
        """``route`` for event loops: in a thread for an encoder, inline for static, where a thread would cost more.

        A very long text goes to a thread too. Hooks are called where the answer is made.

        Raises:
            QueryError: ``text`` is not a string.
            BundleError: As for ``route``.
        """
        if self._is_quick((text,)):
            return self.route(text)
        from asyncio import to_thread

        return await to_thread(self.route, text)

    async def aroute_batch(self, texts: Iterable[str], *, batch_size: int | None = None) -> list[Prediction]:
        """``route_batch`` for event loops: in a thread, but for a few short queries to a static student.

        The thread is in compiled code, where the loop can run, most of the time, and pauses while it is in Python. ``texts``
        are made a list in the loop, so that a generator should have them at hand.

        Raises:
            QueryError: As for ``route_batch``.
            BundleError: As for ``route``.
            ValueError: As for ``route_batch``.
        """
        queries = _as_list(texts)
        if self._is_quick(queries):
            return self._route_batch(queries, batch_size)
        from asyncio import to_thread

        return await to_thread(self._route_batch, queries, batch_size, pauses=True)

    def _is_quick(self, texts: Sequence[str]) -> bool:
        """Whether answering takes less than handing the texts to a thread and back, or little more."""
        return (
            self.manifest.student == "static"
            and not isinstance(self._session, _SessionAfterFork)  # to open one takes long
            and len(texts) <= _INLINE_QUERIES
            and sum(len(text) for text in texts if isinstance(text, str)) <= _INLINE_CHARACTERS
        )

    def tokenise(self, text: str) -> list[int]:
        """Ids of a text as the graph gets them: special tokens included, cut at ``manifest.max_length``, no padding.

        Blank text has no ids.

        Raises:
            QueryError: ``text`` is not a string.
            BundleError: The tokenizer fails on it, or cannot be opened.
        """
        return unpacked(self._encode(text))

    def _encode(self, text: str) -> bytes:
        """``tokenise``, as the tokenizer gives it."""
        if not isinstance(text, str):
            raise QueryError(_not_a_query(text))
        if len(text) > self._max_characters:
            text = text[: _MOST_LEADING_SPACE + self._max_characters].lstrip()[: self._max_characters]
        if not text or text.isspace():
            return b""
        return self._tokenizer.encode(text)

    def logits(self, ids: Sequence[int]) -> Floats:
        """What the graph answers to the ids of one text.

        Args:
            ids: At least one id, at most ``manifest.max_length``.

        Returns:
            float32 array of shape (n_labels,).

        Raises:
            BundleError: As for ``route``; ids that the graph does not take.
            ValueError: There is none, or more than ``manifest.max_length``, or one is below 0.
        """
        listed = [*ids]
        try:
            batch = [packed(listed)]
        except (OverflowError, TypeError) as error:
            raise self._unanswered(len(listed), error) from error
        if not 1 <= len(listed) <= self.manifest.max_length or min(listed) < 0:
            raise ValueError(
                f"ids: expected 1 to {self.manifest.max_length} of 0 or more, found {len(listed)}: {listed[:8]}"
            )
        logits: Floats = self._run_checked(batch, LOGITS)[0]
        return logits

    def decide(self, logits: Floats) -> Prediction:
        """What the policy makes of the graph's answer.

        Args:
            logits: float32 array of shape (n_labels,); left as it is.

        Raises:
            ValueError: It is of another shape.
        """
        if np.shape(logits) != (len(self.labels),):
            raise ValueError(f"logits: expected the shape ({len(self.labels)},), found {np.shape(logits)}")
        rows = logits[None, :].copy()
        return self._policy.decide((_softmax(rows) if self._is_softmax else _sigmoid(rows))[0])

    def _ask(self, ids: bytes) -> Floats:
        """What the graph gives for one query: probabilities if it can, otherwise logits; (n_labels,)."""
        n_tokens = len(ids) // ID_BYTES
        answer: Floats
        if n_tokens > MOST_BOUND:
            answer = self._run_checked([ids])[0]
            return answer
        free = self._bound[n_tokens]
        try:  # taken out and put back in one step each, so that no other thread has it meanwhile
            binding = free.pop()
        except IndexError:
            binding = self._bind(n_tokens)
        binding.ids[:] = ids
        try:
            binding.run()
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise self._unanswered(n_tokens, error) from error
        answer = binding.answer.copy()
        free.append(binding)
        return answer

    def _bind(self, n_tokens: int) -> Binding:
        session = self._session
        if isinstance(session, _SessionAfterFork):
            session = session.opened()
        return Binding(session, self._inputs, self._output, (n_tokens, len(self.labels)))

    def _run_checked(self, batch: Sequence[bytes], output: str | None = None) -> Floats:
        """``_run`` for probabilities if the graph gives them, otherwise logits, or for what is asked.

        Raises:
            BundleError: As for ``route``.
        """
        try:
            return self._run(output or self._output, batch)
        except DistillError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise self._unanswered(max(map(len, batch)) // ID_BYTES, error) from error

    def _unanswered(self, n_tokens: int, error: Exception) -> BundleError:
        return BundleError(
            f"{self._bundle.onnx_path}: the graph fails on a query of {n_tokens} tokens: {first_line(error)}"
        )

    def _run(self, output: str, batch: Sequence[bytes]) -> Floats:
        """What the graph gives for queries, padded: (n, n_labels)."""
        lengths = _lengths(batch)
        is_token = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(is_token.shape, self._pad_id, dtype=np.int64)
        ids[is_token] = np.frombuffer(b"".join(batch), dtype=np.int64)
        feed = {"input_ids": ids}
        if "attention_mask" in self._inputs:
            feed["attention_mask"] = is_token.astype(np.int64)
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        answer: Floats = self._session.run([output], feed)[0]
        return answer

    def _batch(
        self, texts: Sequence[str], batch_size: int | None, *, pauses: bool = False
    ) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Probabilities (n, n_labels), and which texts (n,) are empty input."""
        size = _BATCH_SIZES.get(self.manifest.student, 1) if batch_size is None else batch_size
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"batch_size must be a whole number, 1 or more, found {size!r}")
        _check_texts(texts)
        encoded = map(self._encode, texts)
        ids = [*(_with_pauses(encoded) if pauses else encoded)]
        n_labels = len(self.labels)
        probabilities = np.full((len(ids), n_labels), 1.0 / n_labels if self._is_softmax else 0.0, dtype=np.float32)
        lengths = _lengths(ids)
        is_empty = lengths <= self._n_special
        order = np.argsort(lengths, kind="stable")
        order = order[~is_empty[order]]
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            answer = self._run_checked([ids[row] for row in rows.tolist()])
            if self._output == LOGITS:
                answer = _softmax(answer) if self._is_softmax else _sigmoid(answer)
            probabilities[rows] = answer
        return probabilities, is_empty

    def _empty(self) -> Prediction:
        return Prediction(intent=None, score=0.0, reason=Reason.EMPTY_INPUT, top_intent=None, labels=self.labels)

    def _notify(
        self, texts: Sequence[str], predictions: Sequence[Prediction], started: float, *, pauses: bool = False
    ) -> None:
        latency_ms = (perf_counter() - started) * 1000
        told = notify(self._hooks, texts, predictions, self.manifest.bundle_id, latency_ms)
        for _ in _with_pauses(told) if pauses else told:
            pass

    def _probe(self) -> None:
        """Asks tokenizer and graph for what is hardest on them, so that what does not fit is found when the bundle is opened."""
        self._tokenizer.probe()
        largest, longest = self._tokenizer.largest_id, min(self.manifest.max_length, _MOST_PROBED)
        batches = [[[self._pad_id]], [[largest], [largest] * 2]]
        if self.manifest.student == "static":  # of an encoder this takes as long as loading it
            batches.append([[largest] * longest])
        for batch in batches:
            self._probe_graph(batch)
        self._ask(packed([self._pad_id]))

    def _probe_graph(self, batch: Sequence[list[int]]) -> None:
        path, expected = self._bundle.onnx_path, (len(batch), len(self.labels))
        try:
            logits = self._run(LOGITS, [packed(ids) for ids in batch])
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(
                f"{path}: the graph cannot be run on {len(batch[-1])} tokens of id {batch[-1][0]}, "
                f"which {MANIFEST} and {TOKENIZER} allow: {first_line(error)}"
            ) from error
        if logits.shape != expected:
            raise BundleError(
                f"{path}: the graph gives {logits.shape[-1] if logits.shape else 'no'} logits, "
                f"the manifest has {len(self.labels)} labels"
            )
        if not np.isfinite(logits).all():
            raise BundleError(f"{path}: the graph gives logits that are no finite numbers; train again")


class _SessionAfterFork:
    """Stands for a session whose threads, or the holder of whose locks, stayed in the parent: the first query opens a new one.

    Threads whose first query comes at the same time wait for that one.
    """

    def __init__(self, router: Router) -> None:
        self._router, self._lock = router, Lock()

    def opened(self) -> onnxruntime.InferenceSession:
        """The new session, which from then on is the router's.

        Raises:
            BundleError: The bundle was replaced.
        """
        router = self._router
        with self._lock:
            if router._session is self:  # noqa: SLF001
                check_graph(router._bundle, verify=router._verifies, mark=router._graph_mark)  # noqa: SLF001
                session = open_session(router._bundle, router._threads)  # noqa: SLF001
                if not is_in_place(router._bundle):  # noqa: SLF001
                    raise BundleError(f"{router._bundle.path}: replaced while it was opened; load it again")  # noqa: SLF001
                router._session = session  # noqa: SLF001
            return router._session  # noqa: SLF001

    def run(self, names: list[str], feed: dict[str, Integers]) -> Any:
        return self.opened().run(names, feed)


_routers: WeakSet[Router] = WeakSet()


def _forget_sessions() -> None:
    for router in list(_routers):
        for left in (router._session, router._bound):  # noqa: SLF001
            # never closed, not even when the interpreter ends: closing a session waits for its threads, which stayed in the parent
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))
        router._session, router._bound = _SessionAfterFork(router), no_bindings()  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # threads do not outlive a fork, nor who holds a session's locks at that moment
    os.register_at_fork(after_in_child=_forget_sessions)


def _check_path(path: Any) -> None:
    """Refuses what leads nowhere.

    Raises:
        BundleError: No file can have this name.
        TypeError: It is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a bundle is given by its path, found {_type_name(path)}")
    name = os.fspath(path)
    try:
        os.fsencode(name)
    except UnicodeError:
        name = ""
    if not name or "\0" in name:
        raise BundleError(f"{os.fspath(path)!r}: not the path of a bundle")


def _is_here(path: Path) -> bool:
    """Whether there is something; a name that is too long for a file's is nothing."""
    try:
        return path.exists()
    except OSError:
        return False


def _reopen(kind: type[Router], path: str, bundle_id: str, threads: int, verifies: bool) -> Router:
    router = kind.load(path, threads=threads, verify=verifies)
    if router.manifest.bundle_id != bundle_id:
        raise BundleError(f"{path}: replaced since the router was pickled; load it again")
    return router


def _read_policy(bundle: Bundle) -> Policy:
    manifest = bundle.manifest
    try:
        return Policy.from_dict(manifest.policy, task=manifest.task, labels=manifest.labels)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: the manifest's policy is not usable: {error}") from error


def _read_tokenizer(bundle: Bundle) -> tuple[QueryTokenizer, int]:
    """The tokenizer, without padding, and the padding id."""
    path = bundle.path / TOKENIZER
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {first_line(error)}") from error
    tokenizer = QueryTokenizer(content, bundle.manifest.max_length, file=path, texts=_selfcheck_texts(bundle))
    return tokenizer, _read_pad_id(bundle, tokenizer.pad_id)


def _selfcheck_texts(bundle: Bundle) -> Iterator[str]:
    """Texts of the self-check, as far as it can be read: replaying it tells what is wrong with it."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        for line in (bundle.path / SELFCHECK).read_bytes().splitlines():
            yield json.loads(line)["text"]


def _read_pad_id(bundle: Bundle, of_tokenizer: int | None) -> int:
    """The padding id: config.json's, else the tokenizer's own, else 0."""
    try:
        pad_id = json.loads((bundle.path / CONFIG).read_bytes()).get("pad_token_id")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{bundle.path / CONFIG}: not a model's configuration: {first_line(error)}") from error
    if type(pad_id) is int and pad_id >= 0:
        return pad_id
    return of_tokenizer or 0


def _with_pauses(steps: Iterable[T]) -> Iterator[T]:
    """The same steps; another thread gets the interpreter whenever they have kept it for long enough."""
    until = perf_counter() + _KEPT_S
    for step in steps:
        yield step
        if perf_counter() > until:
            sleep(_PAUSE_S)
            until = perf_counter() + _KEPT_S


def _lengths(batch: Sequence[bytes]) -> Integers:
    """How many ids each has: (n,)."""
    return np.fromiter(map(len, batch), dtype=np.int64, count=len(batch)) // ID_BYTES


def _as_list(texts: Any) -> list[str]:
    if isinstance(texts, str):
        raise QueryError("a batch is a list of queries, not one string; for one query use route, or a list of one")
    if isinstance(texts, bytes | bytearray):
        raise QueryError(_not_a_query(texts))
    if isinstance(texts, Mapping):  # iterating over it would route its keys
        raise QueryError(
            f"a batch is a list of queries, found {_type_name(texts)}; give its values, or the one of its text"
        )
    try:
        queries = iter(texts)
    except TypeError as error:
        raise QueryError(f"a batch is a list of queries, found {_type_name(texts)}") from error
    return list(queries)


def _check_texts(texts: Sequence[Any]) -> None:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise QueryError(f"query {position} of the batch (from 0) is {_type_name(text)}, not a string")


def _not_a_query(value: Any) -> str:
    hint = "; use route_batch for several queries" if isinstance(value, list | tuple | set) else ""
    if isinstance(value, bytes | bytearray):
        hint = "; decode it first: text.decode('utf-8')"
    return f"a query is a string, found {_type_name(value)}{hint}"


def _type_name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _softmax(logits: Floats) -> Floats:
    """Softmax of each row of (n, n_labels), in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def _sigmoid(logits: Floats) -> Floats:
    """The logistic function of every entry, in place, without overflow."""
    np.maximum(logits, _SIGMOID_FLOOR, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    logits += np.float32(1.0)
    return np.reciprocal(logits, out=logits)
