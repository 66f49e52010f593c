"""The labels that students learn from: the teacher's answers, combined with the known examples where there are enough of them.

The ledger keeps the raw answers; this is worked out anew from them whenever labels are read. Which known examples are nearest to a
query is kept in ``.distill`` beside router.yaml, so that each query is turned into a vector once.
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import as_known, atomic_write, sha256_json
from distill.embed import nearest
from distill.errors import StorageError
from distill.progress import Progress
from distill.teacher.combine import fit_combination, fit_vote
from distill.teacher.evidence import known_examples

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from distill.spec import Spec
    from distill.teacher.combine import Combination, Vote

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

__all__ = ["LEAST_EXAMPLES", "Combined", "combine_with_evidence", "combines"]

LEAST_EXAMPLES = 3
"""Known examples an intent, in the mean: with fewer, leaving one out says little of what they are worth."""

_VERSION = 1
_NEIGHBOURS = 32
_BATCH = 4096


def combines(spec: Spec) -> bool:
    """Whether the teacher's answers are combined with known examples: there are enough, and nothing speaks against it.

    Raises:
        DataError: ``teacher.evidence`` is wrong, or is gold.
    """
    is_asked = spec.task.has_one_label and spec.teacher.combine and spec.teacher.labels is None
    return is_asked and len(known_examples(spec)) >= LEAST_EXAMPLES * len(spec.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """A teacher's answers and its evidence, taken together.

    Attributes:
        known: Pairs of known query and intent.
        vote: How they vote.
        combination: How reliable teacher and vote are.
    """

    _neighbours: _Neighbours
    known: tuple[tuple[str, str], ...]
    vote: Vote
    combination: Combination

    def __call__(self, targets: Mapping[str, Floats]) -> dict[str, Floats]:
        """The soft label of each query, float32 of shape (n_labels,), by its redacted text."""
        texts = list(targets)
        combined: dict[str, Floats] = {}
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            votes = self._neighbours.votes(batch, self.vote)
            said = np.stack([targets[text] for text in batch])
            combined |= zip(batch, self.combination(said, votes), strict=True)
        return combined


def combine_with_evidence(
    spec: Spec, targets: Mapping[str, Floats], *, without: Collection[str] = (), show_progress: bool = False
) -> Combined | None:
    """Learns from the answers how far teacher and known examples are to be trusted.

    Args:
        spec: The router's spec.
        targets: The teacher's answers by redacted text, float32 of shape (n_labels,), each summing to 1.
        without: Texts from whose answers nothing is learnt.
        show_progress: Shows progress on stderr.

    Returns:
        What combines any answers of the same teacher; None where they are to stay as they are.

    Raises:
        TrainingError: The base model, whose vectors are compared, cannot be had.
        MissingExtraError: A library that exports it is not installed.
    """
    learnt_from = {text: target for text, target in targets.items() if text not in without}
    if not learnt_from or not combines(spec):
        return None
    known = tuple(known_examples(spec))
    neighbours = _Neighbours(spec, known, show_progress=show_progress)
    neighbours.find([*(text for text, _ in known), *targets])  # at once, so that the encoder is opened once
    vote = neighbours.fit()
    if vote is None:
        return None
    votes = neighbours.votes(list(learnt_from), vote)
    combination = fit_combination(np.stack(list(learnt_from.values())), votes, neighbours.covered, vote)
    return None if combination is None else Combined(neighbours, known, vote, combination)


class _Neighbours:
    """Which known examples are nearest to a text, and how near: kept in a file, which holds hashes and no text."""

    def __init__(self, spec: Spec, known: Sequence[tuple[str, str]], *, show_progress: bool) -> None:
        from distill.student.weights import base_model_fingerprint

        self._spec, self._known, self._show_progress = spec, known, show_progress
        position = {name: place for place, name in enumerate(spec.labels)}
        self.covered, self._labels = np.unique([position[name] for _, name in known], return_inverse=True)
        model = base_model_fingerprint(spec.transformer(spec.base_model))
        self._folder = spec.folder / ".distill"
        self._path = self._folder / f"neighbours-{sha256_json([_VERSION, model, list(map(list, known))])[:16]}.npz"
        self._found = self._read()

    def fit(self) -> Vote | None:
        """The vote as the known examples, each left out once, speak for it."""
        rows, cosines = self._nearest([text for text, _ in self._known])
        return fit_vote(cosines, self._labels[rows], self._labels, len(self.covered))

    def votes(self, texts: Sequence[str], vote: Vote) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
        """Shape (n, n_covered)."""
        rows, cosines = self._nearest(texts)
        return vote(cosines, self._labels[rows], len(self.covered))

    def find(self, texts: Sequence[str]) -> list[str]:
        """Finds the neighbours of those texts that have none yet, and gives the key of each text."""
        keys = [sha256_json(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._found}
        if missing:
            self._found |= dict(zip(missing, self._look_up(list(missing.values())), strict=True))
            with suppress(StorageError):  # what cannot be kept is found again
                self._write()
        return keys

    def _nearest(self, texts: Sequence[str]) -> tuple[Integers, Floats]:
        """Known examples and cosines, shape (n, k) each; an example that is the text itself has -inf."""
        found = [self._found[key] for key in self.find(texts)]
        return np.stack([rows for rows, _ in found]), np.stack([cosines for _, cosines in found])

    def _look_up(self, texts: list[str]) -> list[tuple[Integers, Floats]]:
        from distill.student.embedder import embedder_of

        embedder = embedder_of(self._spec, show_progress=self._show_progress)
        by_key = {as_known(text): row for row, (text, _) in enumerate(self._known)}
        with Progress("evidence", len(texts) + len(self._known), show=self._show_progress) as progress:
            known = embedder.embed([text for text, _ in self._known], progress.advance)
            found: list[tuple[Integers, Floats]] = []
            for start in range(0, len(texts), _BATCH):
                batch = texts[start : start + _BATCH]
                rows, cosines = nearest(embedder.embed(batch, progress.advance), known, _NEIGHBOURS + 1)
                itself = np.asarray([by_key.get(as_known(text), -1) for text in batch])
                cosines = np.where(rows == itself[:, None], -np.inf, cosines).astype(np.float32)
                found += zip(rows.astype(np.int32), cosines, strict=True)
        return found

    def _read(self) -> dict[str, tuple[Integers, Floats]]:
        try:
            with self._path.open("rb") as stream, np.load(stream) as kept:
                keys = kept["keys"].tobytes().hex()
                return {
                    keys[start : start + 64]: pair
                    for start, pair in zip(
                        range(0, len(keys), 64), zip(kept["rows"], kept["cosines"], strict=True), strict=True
                    )
                }
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # not there yet, or torn: found again
            return {}

    def _write(self) -> None:
        rows, cosines = (np.stack(each) for each in zip(*self._found.values(), strict=True))
        keys = np.frombuffer(bytes.fromhex("".join(self._found)), np.uint8)
        with atomic_write(self._path) as partial, partial.open("wb") as stream:
            np.savez(stream, keys=keys, rows=rows, cosines=cosines)
        for other in self._folder.glob("neighbours-*.npz"):
            if other != self._path:
                with suppress(OSError):  # an open one on Windows
                    other.unlink(missing_ok=True)
