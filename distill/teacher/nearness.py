"""Which labelled texts could belong to an intent that is new or described anew: those nearer to it than to the others with their label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distill.progress import Progress
from distill.teacher.retrieve import intent_text
from distill.types import OUT_OF_SCOPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from distill.teacher.retrieve import Embeds
    from distill.types import Intent

    Floats = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["Nearness", "known_of"]

_AT_ONCE = 64
"""Known texts whose cosines to all others are held at a time."""


class Nearness:
    """How near each of some texts lies to what is known of the intents that are sought.

    Args:
        embedder: Gives the vectors.
        texts: Those that may belong elsewhere.
        labels: What each is labelled.
        loose: Intents whose texts may go wherever else they lie near, since they are described anew.
        show_progress: Shows progress on stderr.
    """

    def __init__(
        self,
        embedder: Embeds,
        texts: Sequence[str],
        labels: Sequence[Collection[str]],
        *,
        loose: Collection[str] = (),
        show_progress: bool = False,
    ) -> None:
        self._embedder, self._labels = embedder, labels
        with Progress("embed", len(texts), show=show_progress) as progress:
            self._vectors = embedder.embed(texts, progress.advance)
        names = sorted({name for own in labels for name in own} - {OUT_OF_SCOPE_LABEL})
        columns = {name: column for column, name in enumerate(names)}
        has = np.zeros((len(labels), len(names)), bool)
        for row, own in enumerate(labels):
            has[row, [columns[name] for name in own if name in columns]] = True
        means = has.T.astype(np.float32) @ self._vectors
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        cosines = self._vectors @ means.T
        # texts that fit no intent have nothing in common: what each of them is nearest to stands for that
        counts = has | ~has.any(axis=1, keepdims=True)
        self._own = np.where(counts, cosines, -1.0).max(axis=1, initial=-1.0)
        is_loose = np.asarray([not set(own).isdisjoint(loose) for own in labels], bool)
        elsewhere = np.where(has, -1.0, cosines).max(axis=1, initial=-1.0)
        self._near = np.where(is_loose, elsewhere, -1.0).astype(np.float32)

    def learn(self, name: str, texts: Sequence[str]) -> None:
        """Takes more texts as known of an intent. They bring nothing that is labelled with it any nearer."""
        has_it = np.asarray([name in own for own in self._labels], bool)
        vectors = self._embedder.embed(texts) if texts else np.zeros((0, 0), np.float32)
        for start in range(0, len(vectors), _AT_ONCE):
            nearest = (self._vectors @ vectors[start : start + _AT_ONCE].T).max(axis=1)
            self._near = np.where(has_it, self._near, np.maximum(self._near, nearest))

    @property
    def gaps(self) -> Floats:
        """By how much a text lies nearer to an intent that is sought than to the mean of its own label: a difference of cosines.

        float32 of shape (n,), above 0 where it does.
        """
        return np.asarray(self._near - self._own, np.float32)


def known_of(intent: Intent) -> list[str]:
    """What is known of an intent before any text is labelled with it. No text is like the description of what fits none."""
    return [*([] if intent.name == OUT_OF_SCOPE_LABEL else [intent_text(intent)]), *intent.examples]
