"""What is shown of intents and known examples that are too many to stand in every prompt: those nearest to the query.

    query → vector → cosine to the description and to each example of every intent → the likeliest intents, the nearest examples

An intent counts as near as the nearest of what is known of it. What is the query itself, but for case and punctuation, is never shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from distill.data import as_known, sha256_json
from distill.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.types import Intent

    Floats = np.ndarray[Any, np.dtype[np.float32]]

__all__ = [
    "CANDIDATES",
    "EXAMPLES",
    "MOST_EXAMPLES",
    "MOST_INTENTS",
    "ByQuery",
    "Embeds",
    "Excerpt",
    "OpenEmbedder",
    "Retriever",
    "intent_text",
]

MOST_INTENTS = 150
"""Intents that all stand in the prompt, out-of-scope aside; where there are more, ``CANDIDATES`` of them do."""
CANDIDATES = 40
"""Intents that a prompt names where not all fit."""
MOST_EXAMPLES = 100
"""Known examples that all stand in the prompt; where there are more, or not all intents fit, ``EXAMPLES`` of them do."""
EXAMPLES = 12
"""Known examples that a prompt shows where not all fit."""


class Embeds(Protocol):
    """Gives vectors to texts, as ``distill.embed.Embedder`` does."""

    def embed(self, texts: Sequence[str], on_done: Callable[[int], None] | None = None) -> Floats:
        """float32 of shape (n, dimension), rows of length 1."""
        ...


OpenEmbedder = Callable[[], Embeds]
"""Called when vectors are needed and not before: it may have to export a model first."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What one prompt shows of what is known.

    Attributes:
        candidates: The nearest intents, the nearest first; None: all of them stand in the prompt's first part.
        examples: Known queries and what they are labelled, the least alike first; None: likewise.
    """

    candidates: tuple[Intent, ...] | None = None
    examples: tuple[tuple[str, Any], ...] | None = None

    @property
    def ids(self) -> list[str]:
        """What stands for the retrieved examples in a line of the ledger, which does not repeat their texts."""
        return [sha256_json(text)[:12] for text, _ in self.examples or ()]


@dataclass(frozen=True, slots=True)
class ByQuery:
    """Which parts of what is known are too many for every prompt, and so are chosen for each query.

    Attributes:
        intents: Whether intents are.
        examples: Whether known examples are.
    """

    intents: bool = False
    examples: bool = False

    @classmethod
    def of(cls, n_intents: int, n_examples: int) -> ByQuery:
        """What does not fit: where intents are chosen, so are the examples, which name intents."""
        intents = n_intents > MOST_INTENTS
        return cls(intents, bool(n_examples) and (intents or n_examples > MOST_EXAMPLES))

    def __bool__(self) -> bool:
        return self.intents or self.examples

    @property
    def settings(self) -> dict[str, int]:
        """What the prompt's hash covers of it: how many are chosen; not which, and not from how many."""
        return ({"candidates": CANDIDATES} if self.intents else {}) | ({"examples": EXAMPLES} if self.examples else {})

    def first(self, intents: Sequence[Intent], examples: Sequence[tuple[str, Any]]) -> Excerpt:
        """An excerpt as long as one that is chosen: for an estimate, which needs no vectors."""
        return Excerpt(
            tuple(intents[:CANDIDATES]) if self.intents else None,
            tuple(examples[:EXAMPLES]) if self.examples else None,
        )


class Retriever:
    """Finds the intents and the known examples nearest to a query.

    Args:
        intents: Those to choose from, out-of-scope aside.
        examples: Pairs of known query and its intent, or its intents.
        by_query: What is to be found.
        embedder: Gives the vectors.
        show_progress: Shows progress on stderr.
    """

    def __init__(
        self,
        intents: Sequence[Intent],
        examples: Sequence[tuple[str, str | Sequence[str]]],
        by_query: ByQuery,
        embedder: Embeds,
        *,
        show_progress: bool = False,
    ) -> None:
        self._intents, self._examples, self._by_query = tuple(intents), tuple(examples), by_query
        self._embedder = embedder
        self._keys = np.asarray([as_known(text) for text, _ in examples], object)
        column = {intent.name: position for position, intent in enumerate(self._intents)}
        names = [[answer] if isinstance(answer, str) else answer for _, answer in examples]
        pairs = [(row, column[name]) for row, own in enumerate(names) for name in own if name in column]
        self._rows, self._columns = np.asarray(pairs, np.int64).reshape(-1, 2).T
        texts = [
            *(intent_text(intent) for intent in self._intents if by_query.intents),
            *(text for text, _ in examples),
        ]
        with Progress("embed", len(texts), "known texts", show=show_progress) as progress:
            vectors = embedder.embed(texts, progress.advance)
        self._described, self._known = np.split(vectors, [len(texts) - len(self._examples)])

    def __call__(self, text: str) -> Excerpt:
        """What to show beside one query."""
        vector = self._embedder.embed([text])[0]
        cosines = np.where(self._keys == as_known(text), -np.inf, self._known @ vector)
        candidates = None
        if self._by_query.intents:
            nearness = self._described @ vector
            np.maximum.at(nearness, self._columns, cosines[self._rows])
            chosen = np.argsort(-nearness, kind="stable")[:CANDIDATES]
            candidates = tuple(self._intents[each] for each in chosen.tolist())
            # what is shown must be an answer that may be given; an example without any of the intents is out of scope
            cosines[self._rows[~np.isin(self._columns, chosen)]] = -np.inf
        if not self._by_query.examples:
            return Excerpt(candidates)
        order = np.argsort(-cosines, kind="stable")[:EXAMPLES]
        nearest = [self._examples[row] for row in order.tolist() if np.isfinite(cosines[row])]
        return Excerpt(candidates, tuple(nearest[::-1]))


def intent_text(intent: Intent) -> str:
    """Name and description as a sentence encoder is given them."""
    name = intent.name.replace("_", " ").replace("-", " ")
    return f"{name}: {intent.description}" if intent.description else name
