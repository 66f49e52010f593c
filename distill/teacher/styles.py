"""What each query of a request is to be like: our own styles, balanced and drawn by a fixed seed.

Styles of the newest prompt are crossed: each has its values in an order drawn once, and query number i takes value i modulo their
number. These numbers have no common divisor, so every value comes as often as any other, and so does every pair of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Container, Iterator, Sequence

__all__ = [
    "CHANNELS",
    "CROSSED",
    "DIRECTNESS",
    "ECHOES",
    "FAR_TOPICS",
    "OLDER_FAR_TOPICS",
    "Channel",
    "crossed_styles",
    "deal",
    "language_name",
    "older_styles",
    "search_styles",
]

ECHOES = (
    "begins with ", "a fragment ", "a command ", "fragment without ", "asks a question", "states the need", "only describes the ",
    "typed into a ", "written in an e mail", "said to a voice ",
)  # fmt: skip
"""How a style looks when a weak model repeats it in place of a query (normalised)."""

_LENGTHS = ("very short", "short", "short", "of middle length", "of middle length", "long")

_QUESTIONS = (
    "begins with 'can you'", "begins with 'what'", "begins with 'how'", "begins with 'is there'", "begins with 'when'",
    "begins with 'where'", "begins with 'why'", "begins with 'do i'", "begins with 'could'", "begins with 'are'",
    "begins with 'which'", "begins with 'does'", "begins with 'who'", "begins with 'would'",
)  # fmt: skip
_NEEDS = (
    "begins with 'i need'", "a command", "begins with 'tell me'", "begins with 'i want'", "begins with 'please'",
    "begins with 'i would like'", "begins with 'let me'", "begins with 'show' or 'give'", "begins with 'help'", "begins with 'hey'",
    "begins with 'for'", "begins with the main thing it is about",
)  # fmt: skip
_SITUATIONS = (
    "begins with 'my'", "begins with 'i'", "begins with 'the'", "begins with 'there'", "begins with 'since'", "begins with 'hi'",
    "a fragment without a verb", "begins with the main thing it is about",
)  # fmt: skip
DIRECTNESS = {"asks a question": _QUESTIONS, "states the need": _NEEDS, "only describes the situation": _SITUATIONS}
"""How directly a query says what it wants, and how such a one begins."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where queries come in, and what that does to them.

    Attributes:
        lengths: How long they are there.
        errors: What goes wrong on the way; mostly nothing.
        has_beginnings: Whether they are sentences, which begin in one way or another.
    """

    lengths: tuple[str, ...]
    errors: tuple[str, ...]
    has_beginnings: bool = True


CHANNELS = {
    "typed into a chat": Channel(_LENGTHS, ("", "", "with a typo", "in lower case without punctuation")),
    "written in an e-mail": Channel(("of middle length", "of middle length", "long"), ("", "", "with a typo")),
    "said to a voice assistant": Channel(
        ("short", "short", "of middle length", "long"),
        (
            "in lower case without punctuation",
            "as speech recognition writes it: in lower case, without punctuation, a word misheard",
        ),
    ),
    "typed into a search box": Channel(
        ("a few keywords", "very short", "short"), ("", "", "with a typo"), has_beginnings=False
    ),
}
_PERSONAS = (
    "", "", "by a teenager", "by an older person", "by somebody new to the subject", "by somebody who knows the technical terms",
    "by somebody who is still learning the language",
)  # fmt: skip
_REGISTERS = ("", "", "casual", "polite", "curt")
_DETAILS = (
    "", "", "", "", "with a name", "with a number or an amount", "with a day, month or time", "with a reason",
    "about one particular kind of thing", "with what was tried before", "with something that does not matter for it",
)  # fmt: skip
CROSSED = {
    "directness": tuple(DIRECTNESS), "channel": tuple(CHANNELS), "persona": _PERSONAS, "register": _REGISTERS, "detail": _DETAILS,
}  # fmt: skip
"""The styles that are crossed with each other; beginning, length and errors follow from directness and channel."""

FAR_TOPICS = (
    # the 17 subjects of news, IPTC Media Topics
    "arts, culture and entertainment", "conflict and war", "crime and law", "disasters and accidents", "economy, business and finance",
    "education", "the environment", "health", "human interest", "work and jobs", "lifestyle and leisure", "politics and government",
    "religion", "science and technology", "society", "sport", "the weather",
    # and of everyday life
    "cooking and recipes", "travel and transport", "house, garden and repairs", "animals and plants", "family and friends",
    "mathematics and units", "words, spelling and translation", "history", "geography: places, rivers, capitals",
    "computers and programming", "games and puzzles", "the calendar and reminders", "small talk with the assistant",
)  # fmt: skip
"""Subjects of queries that fit no intent: all there are, so that none of them is nearer to one router than to another."""


_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "nb": "Norwegian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(language: str) -> str:
    """A language as a small model knows it: the English name of its ISO 639-1 code, or what was given."""
    return _LANGUAGES.get(language.strip().casefold(), language)


def crossed_styles(dice: random.Random, given: Container[str]) -> Iterator[dict[str, str]]:
    """For ever, what one query is to be like, by the names under which the user's attributes may say it instead.

    Args:
        dice: Draws the orders.
        given: What the user's attributes say: what follows from such a style is left out too.
    """
    orders = {name: dice.sample(values, len(values)) for name, values in CROSSED.items()}
    beginnings = {name: deal(dice, values) for name, values in DIRECTNESS.items()}
    channels = {name: (each, deal(dice, each.lengths), deal(dice, each.errors)) for name, each in CHANNELS.items()}
    usual = next(iter(CHANNELS))
    for row in zip(*map(cycle, orders.values()), strict=True):
        own = dict(zip(orders, row, strict=True))
        channel, lengths, errors = channels[usual if "channel" in given else own["channel"]]
        begins = channel.has_beginnings and "directness" not in given
        yield {
            "beginning": next(beginnings[own["directness"]]) if begins else "",
            "directness": own["directness"],
            "length": next(lengths),
            "channel": own["channel"],
            "persona": own["persona"],
            "register": own["register"],
            "errors": next(errors),
            "detail": own["detail"],
        }


# --- older prompts: their words and the order in which they are drawn make the keys of recordings, and stay as they are ---------

_OLDER_BEGINNINGS = (
    "begins with 'can you'", "begins with 'what'", "begins with 'i need'", "a command", "begins with 'how'",
    "begins with 'is there'", "begins with 'tell me'", "begins with 'i want'", "begins with 'my'", "begins with 'please'",
    "begins with 'when'", "begins with 'where'", "begins with 'why'", "begins with 'do i'", "begins with 'could'",
    "begins with 'i would like'", "begins with 'let me'", "begins with 'i'", "a fragment without a verb", "begins with 'hey'",
    "begins with 'are'", "begins with 'which'", "begins with 'show' or 'give'", "begins with 'help'", "begins with 'does'",
    "begins with 'who'", "begins with 'would'", "begins with the main thing it is about", "begins with 'for'",
)  # fmt: skip
_OLDER_DETAILS = (
    "", "", "", "with a company's or bank's name", "with an amount or a number", "with a day, month or time",
    "with a reason", "about one particular kind of thing", "casual", "polite", "in a hurry", "with a typo",
)  # fmt: skip
_SHAPES = (
    "a few keywords", "a few keywords", "a phrase", "a phrase", "a question", "a command such as 'find' or 'show me'",
    "a whole sentence", "half remembered, as if asking a friend",
)  # fmt: skip

OLDER_FAR_TOPICS = (
    "the weather", "cooking and recipes", "flights and hotels", "a car: its parts, fuel and upkeep", "sports results",
    "films, series and actors", "music and bands", "history", "geography: places, rivers, capitals", "animals and plants",
    "health and exercise", "mathematics and units", "physics and chemistry", "words and spelling", "technology and phones",
    "shopping and prices of goods", "shares and companies", "jobs and salaries", "school and homework", "the law and politics",
    "house, garden and repairs", "cleaning and stains", "games and puzzles", "famous people", "news of today",
    "the calendar and reminders", "small talk with the assistant", "opinions and advice on life", "restaurants nearby",
    "public transport and traffic", "books and writers", "fashion and clothes", "languages and translation", "space and planets",
    "insurance and taxes", "gifts and parties", "holidays and customs", "children and family", "computers and programming",
    "customer service, opening hours and contacts",
)  # fmt: skip


def older_styles(dice: random.Random, n: int) -> Iterator[dict[str, str]]:
    """What each query of one request is to be like, for prompts that know of no channel."""
    beginnings: list[str] = []
    while len(beginnings) < n:  # they differ while they last
        beginnings += dice.sample(_OLDER_BEGINNINGS, min(len(_OLDER_BEGINNINGS), n - len(beginnings)))
    for beginning in beginnings:
        yield {"beginning": beginning, "length": dice.choice(_LENGTHS), "detail": dice.choice(_OLDER_DETAILS)}


def search_styles(dice: random.Random, n: int) -> Iterator[dict[str, str]]:
    """What each query of one request to a search is to be like, which ``weights`` are for."""
    shapes = deal(dice, _SHAPES)
    for _ in range(n):
        yield {"shape": next(shapes), "length": dice.choice(_LENGTHS)}


def deal(dice: random.Random, values: Sequence[str]) -> Iterator[str]:
    """The values for ever, shuffled each time they have all been dealt: as often one as another."""
    while values:
        yield from dice.sample(values, len(values))
