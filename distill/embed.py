"""Sentence vectors: which texts say nearly the same, and which known ones are nearest. numpy, onnxruntime and tokenizers.

    text → tokenizer → ids → graph of the base model with mean pooling → vector of length 1

The graph is the pretrained encoder before any training, so a vector knows nothing of labels. ``distill.student.embedder`` exports
it. Products of vectors are cosines; they are taken block by block, so that memory stays linear in the number of texts.
"""

from __future__ import annotations

import ctypes
import os
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from distill.errors import BundleError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Integers = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["GRAPH", "NEAR_DUPLICATE", "TOKENIZER", "Distinct", "Embedder", "near_duplicates", "nearest"]

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"

NEAR_DUPLICATE = 0.95
"""Cosine from which on two queries say the same in nearly the same words."""

_BATCH = 64
_LONGEST = 16_384
"""Characters of a text that are looked at: far more than the tokens that count."""
_ROWS, _COLUMNS = 512, 16_384
"""Of the blocks of cosines: 32 MB each."""


class Embedder:
    """Gives vectors to texts.

    Args:
        folder: Holds ``model.onnx`` (``input_ids`` and ``attention_mask``, int64 of shape (batch, length), to float32 of shape
            (batch, dimension)) and ``tokenizer.json``, which cuts long texts.
        threads: How many threads ONNX Runtime may use; 0: as many as there are cores.

    Raises:
        BundleError: One of the two is missing or cannot be read.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self.folder, self._threads = folder, threads
        self._open()
        self.dimension = int(self._session.get_outputs()[0].shape[1])
        _embedders.add(self)

    def _open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
            self._session = onnxruntime.InferenceSession(
                str(self.folder / GRAPH), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # neither library's errors have a common base but Exception
            raise BundleError(
                f"{self.folder}: not a sentence encoder: {first_line(error)}; remove the folder to have it made anew"
            ) from error
        self._tokenizer.no_padding()
        self._pid = os.getpid()

    def embed(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Floats:
        """A vector for each text, in order.

        Args:
            texts: Any number.
            on_done: Is told how many more texts are done, now and then.

        Returns:
            float32 of shape (n, dimension). Rows have length 1, but for texts of which the tokenizer keeps nothing: these are 0.
        """
        if self._pid != os.getpid():  # threads do not outlive a fork, nor who holds a session's locks at that moment
            self._open()
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        # half a surrogate pair has no UTF-8
        cut = [text[:_LONGEST].encode("utf-8", "replace").decode() for text in texts]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cut)]
        lengths = np.fromiter(map(len, ids), np.int64, count=len(ids))
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._ask([ids[row] for row in rows], lengths[rows])
            if on_done is not None:
                on_done(len(rows))
        vectors[lengths == 0] = 0.0
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors

    def _ask(self, batch: Sequence[Sequence[int]], lengths: Integers) -> Floats:
        is_token = np.arange(max(int(lengths.max()), 1)) < lengths[:, None]
        input_ids = np.zeros(is_token.shape, np.int64)
        input_ids[is_token] = np.fromiter(chain.from_iterable(batch), np.int64, count=int(lengths.sum()))
        feed = {"input_ids": input_ids, "attention_mask": is_token.astype(np.int64)}
        vectors: Floats = self._session.run(None, feed)[0]
        return vectors


_embedders: WeakSet[Embedder] = WeakSet()


def _leave_sessions() -> None:
    for embedder in list(_embedders):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(embedder._session))  # noqa: SLF001  # closing it waits for its threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sessions)


def nearest(queries: Floats, known: Floats, k: int) -> tuple[Integers, Floats]:
    """The known vectors with the highest cosine to each query, the nearest first.

    Takes time in proportion to n times m, and memory to n times k.

    Args:
        queries: float32 of shape (n, d), rows of length 1.
        known: float32 of shape (m, d), rows of length 1.
        k: How many; fewer where there are not as many.

    Returns:
        Rows of ``known``, int64, and their cosines, float32, both of shape (n, min(k, m)), nearest first.
    """
    k = max(min(k, len(known)), 0)
    positions, cosines = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    if not k:
        return positions, cosines
    for start in range(0, len(queries), _ROWS):
        rows = queries[start : start + _ROWS]
        best, where = np.full((len(rows), k), -np.inf, np.float32), np.zeros((len(rows), k), np.int64)
        for first in range(0, len(known), _COLUMNS):
            block = rows @ known[first : first + _COLUMNS].T
            own = np.argpartition(-block, min(k, block.shape[1]) - 1, axis=1)[:, :k]
            best = np.concatenate([best, np.take_along_axis(block, own, axis=1)], axis=1)
            where = np.concatenate([where, first + own], axis=1)
            order = np.lexsort((where, -best), axis=1)[:, :k]
            best, where = np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)
        positions[start : start + _ROWS], cosines[start : start + _ROWS] = where, best
    return positions, cosines


class Distinct:
    """Takes vectors in order and tells which repeat an earlier one; a repetition is dropped, so chains do not form.

    Args:
        threshold: Cosine from which on a vector repeats another.
    """

    def __init__(self, threshold: float = NEAR_DUPLICATE) -> None:
        self.threshold = threshold
        self._kept = np.empty((0, 0), np.float32)
        self._positions = np.empty(0, np.int64)
        self._n_kept = self._n_seen = 0

    def add(self, vectors: Floats) -> Integers:
        """Takes more vectors.

        Args:
            vectors: float32 of shape (n, d), rows of length 1.

        Returns:
            int64 of shape (n,): -1 for a vector that is kept; for one to be dropped, the position of the kept one most like it,
            counted over all that were ever added.
        """
        repeats = np.full(len(vectors), -1, np.int64)
        for start in range(0, len(vectors), _ROWS):
            rows = vectors[start : start + _ROWS]
            cosines, positions = self._best(rows)
            among = rows @ rows.T
            for row in range(len(rows)):
                if cosines[row] >= self.threshold:
                    repeats[start + row] = positions[row]
                    continue
                # kept: those after it that are most like it so far may repeat it
                later = slice(row + 1, None)
                better = among[row, later] > cosines[later]
                cosines[later][better] = among[row, later][better]
                positions[later][better] = self._n_seen + row
            self._keep(rows, repeats[start : start + len(rows)] < 0)
            self._n_seen += len(rows)
        return repeats

    def _best(self, rows: Floats) -> tuple[Floats, Integers]:
        """The highest cosine to a kept vector, and the position of that one: each of shape (rows,)."""
        cosines, positions = np.full(len(rows), -np.inf, np.float32), np.full(len(rows), -1, np.int64)
        for first in range(0, self._n_kept, _COLUMNS):
            block = rows @ self._kept[first : min(first + _COLUMNS, self._n_kept)].T
            column = block.argmax(axis=1)
            cosine = np.take_along_axis(block, column[:, None], axis=1)[:, 0]
            better = cosine > cosines
            cosines[better], positions[better] = cosine[better], self._positions[first + column[better]]
        return cosines, positions

    def _keep(self, rows: Floats, is_kept: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        n_kept = self._n_kept + int(is_kept.sum())
        if n_kept > len(self._kept):  # half as many again, so that adding one by one stays linear
            grown = np.empty((max(n_kept, len(self._kept) * 3 // 2), rows.shape[1]), np.float32)
            numbers = np.empty(len(grown), np.int64)
            grown[: self._n_kept] = self._kept[: self._n_kept] if self._n_kept else 0
            numbers[: self._n_kept] = self._positions[: self._n_kept]
            self._kept, self._positions = grown, numbers
        self._kept[self._n_kept : n_kept] = rows[is_kept]
        self._positions[self._n_kept : n_kept] = self._n_seen + np.flatnonzero(is_kept)
        self._n_kept = n_kept


def near_duplicates(vectors: Floats, threshold: float = NEAR_DUPLICATE) -> Integers:
    """Which vectors of a list repeat an earlier one that stays: the later of two goes.

    Args:
        vectors: float32 of shape (n, d), rows of length 1.
        threshold: Cosine from which on a vector repeats another.

    Returns:
        int64 of shape (n,): -1 for a vector that stays, else the position of the one most like it among those that stay.
    """
    return Distinct(threshold).add(vectors)
