"""Makes the clips, queries and judgements of data/video-search/library; ``--check`` only says whether they are what this makes.

python scripts/make_clip_library.py [FOLDER] [--check]

Reads FOLDER/phrases.yaml and, where it is there, FOLDER/paraphrases.jsonl; writes clips.jsonl, queries.jsonl, judgements.jsonl and the
figures in README.md. The same files come out whenever it runs. How it goes about it stands in that README.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import yaml
from search_fusion import tokens

from distill.data import atomic_write, read_jsonl, text_of
from distill.errors import DataError, DistillError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDER = Path(__file__).resolve().parent.parent / "data" / "video-search" / "library"
SEED = 1
FACETS = {
    "visual": ("action", "subject", "place"),
    "audio": ("sound", "music"),
    "transcription": ("line", "topic"),
    "metadata": ("title", "person", "show", "genre", "when"),
}
"""What each channel tells of a clip. The first of each belongs to a concept, such as rain."""

CONCEPTS = {"action": "visual", "sound": "audio", "line": "said", "title": "title"}
"""Where the phrases of a facet stand in a concept."""

POOLS = {"subject": ("subjects", 5), "place": ("places", 5), "music": ("music", 4), "topic": ("topics", 5)}
"""Where the phrases of a facet stand, and how many of them one show has: they come back in its clips."""

KINDS = {
    ("visual",): 70,
    ("audio",): 60,
    ("transcription",): 70,
    ("metadata",): 60,
    ("visual", "transcription"): 35,
    ("visual", "audio"): 25,
    ("visual", "metadata"): 25,
    ("transcription", "metadata"): 25,
    ("audio", "metadata"): 10,
    ("visual", "audio", "transcription"): 20,
}
"""How many queries refer to a clip through which channels."""

CLIPS_A_SHOW, CLIPS_A_SEASON = 15, 5
SAME_SOUND = 0.2
"""Share of clips in which one hears what one sees."""

LEADING = 0.7
"""Chance that a query through several channels takes a channel's concept, not another of its facets."""

MEANT, NEAR = 3, 1
"""Relevance of the clip that a query was made for, and of the clips near it."""

_KEY_WORDS = 0.5
"""Share of queries that are key words in a row; the others are a sentence with where."""

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")  # fmt: skip
_THIRDS = ("early", "the middle of", "late")
_HEARD = ("{sound}; {music}.", "{music}, then {sound}.", "{sound}, and behind it {music}.")
_SAID = ("{line} {topic}", "{topic} {line}", "{name}, listen. {line} {topic}", "{topic} Ask {name}. {line}", "{line} No, {name}. {topic}")  # fmt: skip
_OPENERS = ("", "", "find ", "show me ", "i am looking for ", "do you have ")
_WHERE = ("the clip where ", "the scene where ", "where ", "the episode where ", "that part where ")
_HEARS = ("the sound of {}", "{} to be heard", "{} in the background", "a soundtrack with {}")
_TELLS = ("talk about how {}", "the news that {}", "a remark that {}", "people discussing that {}")
_HEARS_CLAUSE = ("you hear {}", "{} can be heard", "there is the noise of {}")
_TELLS_CLAUSE = ("somebody says that {}", "they mention that {}", "it comes up that {}", "one tells the other that {}")
_NAMED_AFTER = ("whose title is about ", "with a title along the lines of ", "named after ")

Phrases = dict[str, Any]
Reference = tuple[str, str]
"""A facet, and what it is."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a facet is in a clip.

    Attributes:
        key: Equal in all clips that have the same.
        text: How the clip's text puts it.
        query: How a query puts it.
    """

    key: str
    text: str
    query: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip.

    Attributes:
        texts: By channel.
        values: By facet.
        co_star: The second person of the metadata.
    """

    texts: Mapping[str, str]
    values: Mapping[str, Value]
    co_star: str

    @property
    def references(self) -> frozenset[Reference]:
        """All that a query can say of it."""
        return frozenset({*((facet, value.key) for facet, value in self.values.items()), ("person", self.co_star)})

    @property
    def show(self) -> str:
        """What it is part of."""
        return self.values["show"].key


@dataclass(frozen=True, slots=True)
class Query:
    """A query.

    Attributes:
        text: What is asked.
        channels: Through which it refers to a clip.
        references: What it says of the clip.
        clip: Position of the clip that it was made for.
    """

    text: str
    channels: tuple[str, ...]
    references: frozenset[Reference]
    clip: int


def read_phrases(path: Path) -> Phrases:
    """The phrases.

    Raises:
        DataError: A phrase and what a query says instead share a word.
    """
    phrases: Phrases = yaml.safe_load(path.read_text(encoding="utf-8"))
    lists = {part: phrases[part] for part in ("genres", *(part for part, _ in POOLS.values()))}
    for concept, parts in phrases["concepts"].items():
        lists |= {f"{concept}, {part}": pairs for part, pairs in parts.items()}
    for where, pairs in lists.items():
        for text, query in pairs:
            if shared := set.intersection(*map(set, tokens([text, query]))):
                raise DataError(f"{path}: {where}: {query!r} repeats {', '.join(sorted(shared))} of {text!r}")
    return phrases


def make_clips(phrases: Phrases, chance: random.Random) -> list[Clip]:
    """All clips, in an order that tells nothing."""
    drawn = {facet: _concepts(phrases, chance) for facet in CONCEPTS}
    clips = []
    for number, show in enumerate(phrases["shows"]):
        pools = {facet: chance.sample(phrases[part], size) for facet, (part, size) in POOLS.items()}
        genre, first_year = phrases["genres"][number % len(phrases["genres"])], chance.randint(2008, 2019)
        for place in range(CLIPS_A_SHOW):
            position = number * CLIPS_A_SHOW + place
            concepts = {facet: names[position] for facet, names in drawn.items()}
            if chance.random() < SAME_SOUND:
                concepts["sound"] = concepts["action"]
            values = {
                facet: Value(name, *chance.choice(phrases["concepts"][name][CONCEPTS[facet]]))
                for facet, name in concepts.items()
            }
            values |= {facet: _as_value(*chance.choice(pool)) for facet, pool in pools.items()}
            values |= {"genre": _as_value(*genre), "show": _as_value(show, show)}
            values["when"] = _day(first_year + place // CLIPS_A_SEASON, chance)
            clips.append(_clip(values, phrases["shows"], place, chance))
    chance.shuffle(clips)
    return clips


def _as_value(text: str, query: str) -> Value:
    return Value(text, text, query)


def _concepts(phrases: Phrases, chance: random.Random) -> list[str]:
    """A concept for each clip, show after show: each as often as any other, and none twice in a show."""
    names, wanted = list(phrases["concepts"]), len(phrases["shows"]) * CLIPS_A_SHOW
    return [name for _ in range(0, wanted, len(names)) for name in chance.sample(names, len(names))]


def _day(year: int, chance: random.Random) -> Value:
    month = chance.randrange(len(_MONTHS))
    third = f"{_THIRDS[month // 4]} {year}"
    return Value(third, f"{chance.randint(1, 28)} {_MONTHS[month]} {year}", third)


def _clip(values: dict[str, Value], shows: Mapping[str, Sequence[str]], place: int, chance: random.Random) -> Clip:
    show = values["show"].key
    star, co_star = chance.sample(shows[show], 2)
    stranger = chance.choice([name for other, cast in shows.items() if other != show for name in cast])
    season, episode = 1 + place // CLIPS_A_SEASON, 1 + 2 * (place % CLIPS_A_SEASON) + chance.randint(0, 1)
    text = {facet: value.text for facet, value in values.items()}
    texts = {
        "visual": "{subject} {action} {place}.".format(**text),
        "audio": chance.choice(_HEARD).format(**text),
        "transcription": chance.choice(_SAID).format(**text, name=stranger.split()[0]),
        "metadata": (
            f"{show}, season {season}, episode {episode}: {text['title']}. {_capital(text['genre'])} with {star} and {co_star}. "
            f"First shown on {text['when']}."
        ),
    }
    texts = {channel: _capital(texts[channel]) for channel in FACETS}
    return Clip(texts, values | {"person": _as_value(star, star)}, co_star)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def make_queries(clips: Sequence[Clip], chance: random.Random) -> list[Query]:
    """All queries, no text twice, in an order that tells nothing."""
    references = [clip.references for clip in clips]
    queries: dict[str, Query] = {}
    for channels, wanted in KINDS.items():
        aim = len(queries) + wanted
        for position in chance.sample(range(len(clips)), len(clips)):
            said = _only_its_own(clips[position], channels, references, chance)
            if said is not None:
                text = _ask(clips[position], channels, said, chance)
                own = frozenset((facet, clips[position].values[facet].key) for facet in said)
                queries.setdefault(text, Query(text, channels, own, position))
            if len(queries) == aim:
                break
        else:
            raise DataError(f"there are too few clips for {wanted} queries through {', '.join(channels)}")
    shuffled = list(queries.values())
    chance.shuffle(shuffled)
    return shuffled


def _only_its_own(
    clip: Clip, channels: Sequence[str], references: Sequence[frozenset[Reference]], chance: random.Random
) -> set[str] | None:
    """Facets of these channels, one of each at least, that no other clip has all of; None where there are none."""
    chosen = set()
    for channel in channels:
        first, *others = FACETS[channel]
        leads = len(channels) == 1 or chance.random() < LEADING
        chosen.add(first if leads and channel != "metadata" else chance.choice(others))
    left = [facet for channel in channels for facet in FACETS[channel] if facet not in chosen]
    chance.shuffle(left)
    while sum({(facet, clip.values[facet].key) for facet in chosen} <= other for other in references) > 1:
        if not left:
            return None
        chosen.add(left.pop())
    return chosen


def _ask(clip: Clip, channels: Sequence[str], said: set[str], chance: random.Random) -> str:
    """The query's words: key words in a row, or a sentence with where."""
    query = {facet: clip.values[facet].query for facet in said}
    about = _about(query, chance) if "metadata" in channels else ""
    if channels == ("metadata",):
        return chance.choice(_OPENERS) + about
    seen = " ".join(query[facet] for facet in ("subject", "action", "place") if facet in said)
    if "visual" in channels and "subject" not in said:
        seen = f"{'somebody' if 'action' in said else 'something'} {seen}"
    heard = " and ".join(query[facet] for facet in FACETS["audio"] if facet in said)
    told = " and that ".join(query[facet] for facet in FACETS["transcription"] if facet in said)
    if chance.random() < _KEY_WORDS:
        frames = ((about, ("{}",)), (seen, ("{}",)), (heard, _HEARS), (told, _TELLS))
        return chance.choice(_OPENERS) + ", ".join(chance.choice(frame).format(part) for part, frame in frames if part)
    opener = f"{about} where " if about else chance.choice(_WHERE)
    clauses = ((seen, ("you see {}",)), (heard, _HEARS_CLAUSE), (told, _TELLS_CLAUSE))
    return opener + " and ".join(chance.choice(frame).format(part) for part, frame in clauses if part)


def _about(query: Mapping[str, str], chance: random.Random) -> str:
    """What a query says of the metadata."""
    head = query.get("genre", "" if "show" in query else "an episode")
    parts = [" ".join(part for part in (head, query.get("show")) if part)]
    if "person" in query:
        parts.append(f"with {query['person']}")
    if "title" in query:
        parts.append(f"{chance.choice(_NAMED_AFTER)}{query['title']}")
    if "when" in query:
        parts.append(f"from {query['when']}")
    return " ".join(parts)


def judge(query: Query, clips: Sequence[Clip]) -> dict[int, int]:
    """Relevance by position of the clip: of the one meant, and of those of its show that share half of what the query says.

    What every clip of the show shares does not count.
    """
    said = {reference for reference in query.references if reference[0] not in {"show", "genre"}}
    grades = {query.clip: MEANT}
    for position, clip in enumerate(clips):
        if (
            position != query.clip
            and clip.show == clips[query.clip].show
            and 2 * len(said & clip.references) >= len(said)
        ):
            grades[position] = NEAR
    return grades


def read_paraphrases(path: Path, scripted: Mapping[str, str]) -> dict[str, str]:
    """What a model made of the queries' wording, by id; empty where there is no such file.

    Args:
        path: JSON lines: ``id``, ``scripted`` (the query as this program words it), ``text`` (as the model does); more is for the record.
        scripted: The queries' texts by id.

    Raises:
        DataError: A line is of no query, is blank, or was made of other words than the query has now.
    """
    found: dict[str, str] = {}
    for number, line in read_jsonl(path) if path.exists() else ():
        name, text = line.get("id"), text_of(path, number, line).strip()
        if not isinstance(name, str) or name not in scripted or name in found:
            raise DataError(f'{path}:{number}: "id" must be the id of a query, each once; found {name!r}')
        if line.get("scripted") != scripted[name]:
            raise DataError(
                f'{path}:{number}: "scripted" is not what {name} says now: {scripted[name]!r}; have it paraphrased again'
            )
        if not text:
            raise DataError(f"{path}:{number}: the text is empty")
        found[name] = text
    return found


def _made(folder: Path) -> tuple[list[Clip], list[Query]]:
    chance = random.Random(SEED)  # noqa: S311
    clips = make_clips(read_phrases(folder / "phrases.yaml"), chance)
    return clips, make_queries(clips, chance)


def _by_id(queries: Sequence[Query]) -> dict[str, str]:
    return {f"q{number:03}": query.text for number, query in enumerate(queries, 1)}


def scripted_queries(folder: Path) -> dict[str, str]:
    """The queries as this program words them, by id.

    Raises:
        DataError: The phrases cannot be used.
    """
    return _by_id(_made(folder)[1])


def outputs(folder: Path) -> dict[str, str]:
    """Content of each file by its name.

    Raises:
        DataError: The phrases or the paraphrases cannot be used, or README.md has no place for the figures.
    """
    clips, queries = _made(folder)
    clip_ids = [f"c{number:03}" for number in range(1, len(clips) + 1)]
    scripted = _by_id(queries)
    query_ids = list(scripted)
    asked = scripted | read_paraphrases(folder / "paraphrases.jsonl", scripted)
    grades = [judge(query, clips) for query in queries]
    judgements = (
        {"query_id": name, "clip_id": clip_ids[clip], "relevance": grade}
        for name, of_query in zip(query_ids, grades, strict=True)
        for clip, grade in sorted(of_query.items())
    )
    readme = folder / "README.md"
    marked = re.compile(r"(<!-- figures: generated[^\n]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)
    text = readme.read_text(encoding="utf-8")
    if not marked.search(text):
        raise DataError(f"{readme}: the markers of the figures are missing")
    figures = _figures(
        clips, queries, grades, list(asked.values()), sum(asked[name] != scripted[name] for name in asked)
    )
    return {
        "clips.jsonl": _lines({"id": name, **clip.texts} for name, clip in zip(clip_ids, clips, strict=True)),
        "queries.jsonl": _lines(
            {"id": name, "text": asked[name], "channels": list(query.channels)} for name, query in zip(query_ids, queries, strict=True)
        ),
        "judgements.jsonl": _lines(judgements),
        "README.md": marked.sub(lambda found: f"{found.group(1)}{figures}{found.group(2)}", text),
    }  # fmt: skip


def _lines(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _figures(
    clips: Sequence[Clip],
    queries: Sequence[Query],
    grades: Sequence[Mapping[int, int]],
    asked: Sequence[str],
    n_paraphrased: int,
) -> str:
    """What the README tells of the files."""
    kinds = Counter(query.channels for query in queries)
    near = {
        kind: [len(of) - 1 for query, of in zip(queries, grades, strict=True) if query.channels == kind]
        for kind in kinds
    }
    words = {channel: [set(found) for found in tokens([clip.texts[channel] for clip in clips])] for channel in FACETS}
    wordings = [set(found) for found in tokens(asked)]
    own = sum(
        any(wording & words[channel][query.clip] for channel in query.channels if channel != "metadata")
        for query, wording in zip(queries, wordings, strict=True)
    )
    elsewhere = [
        sum(
            any(wording & words[channel][clip] for channel in FACETS if channel not in query.channels)
            for clip in range(len(clips))
        )
        for query, wording in zip(queries, wordings, strict=True)
    ]
    shared = (
        f"{own} of {len(queries)} queries share a word with their clip's own text in a channel that they refer to, metadata aside. "
        f"In the mean, {fmean(elsewhere):.0f} of the {len(clips)} clips have a word of the query in a channel that it does not refer to.\n"
    )
    return "\n".join(
        [
            f"{len(clips)} clips of {len({clip.show for clip in clips})} shows, {len(queries)} queries, of which a model has reworded {n_paraphrased}.",
            "",
            "| refers through | queries | near clips, mean |",
            "| --- | ---: | ---: |",
            *(f"| {', '.join(kind)} | {kinds[kind]} | {fmean(near[kind]):.1f} |" for kind in KINDS),
            "",
            shared,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the files, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--check", action="store_true", help="only says whether the files are up to date")
    options = parser.parse_args(arguments)
    try:
        for name, content in outputs(options.folder).items():
            path = options.folder / name
            if not options.check:
                with atomic_write(path) as partial:
                    partial.write_text(content, encoding="utf-8", newline="\n")
            elif not path.exists() or path.read_text(encoding="utf-8") != content:
                raise DataError(f"{path} is out of date: run `python scripts/make_clip_library.py`")
    except DistillError as error:
        raise SystemExit(f"make_clip_library.py: {error}") from error


if __name__ == "__main__":
    main()
