"""The queries that were written, each once: what is dropped, and why.

    answer → usable? → new to its target, gold and the examples? → no repetition of any target's query → kept

Whether a query repeats one of another intent, or nearly repeats any, is decided once, when its answer comes, and recorded with
it; so a recording gives the same queries again without vectors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from distill.data import normalise
from distill.teacher.styles import ECHOES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from distill.embed import Embedder
    from distill.teacher.writer import Round

__all__ = ["Comparison", "Dropped", "Pool", "Repeat"]

_LONGEST_QUERY = 300


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many of a target's queries were written and left out, by reason.

    Attributes:
        repeated: The same, but for case and punctuation, as one of its own.
        nearly_repeated: Nearly the same as one of its own, by sentence vectors.
        of_another: The same or nearly the same as one of another target.
        known: An example, or gold.
        unusable: Without words, too long, no text, or the request's own words.
    """

    repeated: int = 0
    nearly_repeated: int = 0
    of_another: int = 0
    known: int = 0
    unusable: int = 0

    @property
    def total(self) -> int:
        """For whatever reason."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True, slots=True)
class Repeat:
    """A query that repeats another one, or nearly.

    Attributes:
        position: Of the query in its answer, from 0.
        of: The target of the other one.
        text: The other one.
    """

    position: int
    of: str
    text: str


@dataclass
class Pool:
    """Distinct queries by target, from recorded answers in their targets' order.

    Attributes:
        wanted: How many of each target.
        excluded: Normalised texts that are no queries: examples and gold.
        queries: By target: normalised text to text and round; more than are wanted where the last answer brought them.
    """

    wanted: Mapping[str, int]
    excluded: frozenset[str]
    queries: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    _dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for target in self.wanted:
            self.queries[target], self._dropped[target] = {}, Counter()

    @property
    def dropped(self) -> dict[str, Dropped]:
        """By target, what was left out."""
        return {target: Dropped(**reasons) for target, reasons in self._dropped.items()}

    def fresh(self, round_: Round, texts: Sequence[Any]) -> list[tuple[int, str]]:
        """Position and text of the usable queries of an answer that are new to their target."""
        lines = frozenset(map(normalise, round_.lines))
        judged = (self._judge(round_.target, text, lines) for text in texts)
        return [(position, clean) for position, (clean, _, reason) in enumerate(judged) if reason is None]

    def add(self, round_: Round, texts: Sequence[Any], repeats: Iterable[Repeat] = ()) -> int:
        """Takes the new ones of an answer's queries; how many of the wanted ones they are.

        Args:
            round_: What was asked.
            texts: What was answered.
            repeats: Which of them repeat a query that is kept, of this target or another.
        """
        target, lines = round_.target, frozenset(map(normalise, round_.lines))
        own, before = self.queries[target], self.n_missing(target)
        repeated = {each.position: each.of for each in repeats}
        for position, text in enumerate(texts):
            clean, plain, reason = self._judge(target, text, lines)
            if reason is None and position in repeated:
                reason = "nearly_repeated" if repeated[position] == target else "of_another"
            if reason is None:
                own[plain] = (clean, round_.number)
            else:
                self._dropped[target][reason] += 1
        return before - self.n_missing(target)

    def _judge(self, target: str, text: Any, lines: frozenset[str]) -> tuple[str, str, str | None]:
        """A query without needless white space, normalised, and why it is left out at once."""
        clean = " ".join(text.split()) if isinstance(text, str) else ""
        plain = normalise(clean)
        if not _is_usable(clean, plain, lines):
            return clean, plain, "unusable"
        if plain in self.excluded:
            return clean, plain, "known"
        return clean, plain, "repeated" if plain in self.queries[target] else None

    def is_full(self, target: str) -> bool:
        """Whether there are as many as are wanted."""
        return self.n_missing(target) == 0

    def n_missing(self, target: str) -> int:
        """How many more are wanted."""
        return max(self.wanted[target] - len(self.queries[target]), 0)

    def distinct(self) -> Iterator[tuple[str, str, int]]:
        """Target, text and round of the wanted ones, in the targets' order; of a text that several targets have, the first."""
        seen: set[str] = set()
        for target, wanted in self.wanted.items():
            for plain, (text, round_number) in list(self.queries[target].items())[:wanted]:
                if plain not in seen:
                    seen.add(plain)
                    yield target, text, round_number


def _is_usable(text: str, plain: str, lines: frozenset[str]) -> bool:
    """Whether a query has words, a sane length, UTF-8 (half a surrogate pair has none), and is no echo of the request's lines."""
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in text)
    is_echo = plain in lines or any(plain.startswith(echo) and any(echo in line for line in lines) for echo in ECHOES)
    return bool(plain) and len(text) <= _LONGEST_QUERY and is_unicode and not is_echo


class Comparison:
    """Compares new queries with all that are kept, whatever their target.

    Args:
        pool: What is kept so far.
        embedder: Tells near repetitions; without it only equal ones are found.
        on_done: Is told how many more of the kept ones have a vector, now and then.
    """

    def __init__(self, pool: Pool, embedder: Embedder | None, on_done: Callable[[int], None] | None = None) -> None:
        self._embedder = embedder
        kept = [(target, plain, text) for target, own in pool.queries.items() for plain, (text, _) in own.items()]
        self._by_plain: dict[str, tuple[str, str]] = {}
        self._seen: list[tuple[str, str]] = []
        """Target and text of each vector that was ever added."""
        for target, plain, text in kept:
            self._by_plain.setdefault(plain, (target, text))
        if embedder is not None:
            from distill.embed import Distinct

            self._distinct = Distinct()
            self._nearest([(target, text) for target, _, text in kept], on_done)

    def repeats(self, target: str, fresh: Sequence[tuple[int, str]]) -> list[Repeat]:
        """Which queries of an answer repeat one that is kept, or an earlier one of the answer; the others are kept from now on.

        Args:
            target: Of the answer.
            fresh: Position and text of each query.
        """
        found, others = list[Repeat](), list[tuple[int, str]]()
        for position, text in fresh:
            known = self._by_plain.get(normalise(text))
            if known is None:
                others.append((position, text))
            else:
                found.append(Repeat(position, *known))
        nearest = self._nearest([(target, text) for _, text in others])
        for (position, text), near in zip(others, nearest, strict=True):
            if near is None:
                self._by_plain.setdefault(normalise(text), (target, text))
            else:
                found.append(Repeat(position, *near))
        return sorted(found, key=lambda repeat: repeat.position)

    def _nearest(
        self, queries: list[tuple[str, str]], on_done: Callable[[int], None] | None = None
    ) -> list[tuple[str, str] | None]:
        """What each query nearly repeats, or None."""
        if self._embedder is None or not queries:
            return [None] * len(queries)
        self._seen += queries
        vectors = self._embedder.embed([text for _, text in queries], on_done)
        positions = self._distinct.add(vectors).tolist()
        return [self._seen[position] if position >= 0 else None for position in positions]
