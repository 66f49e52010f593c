"""Whether routed weights help a search over several channels, and whether the student's help as much as the teacher's.

python scripts/search_fusion.py LIBRARY QUERIES JUDGEMENTS --router BUNDLE [--router BUNDLE] [--ledger router.yaml | WEIGHTS.jsonl]
                                [--ask] [--base-url URL] [--scorer both] [--json FILE] [--markdown FILE]

LIBRARY     JSON lines, a clip each: "id", and a text for each channel of the bundle ("visual", "audio", ...; may be empty)
QUERIES     JSON lines: "id", "text"; other keys are ignored
JUDGEMENTS  JSON lines: "query_id", "clip_id", "relevance" (a whole number from 0 on); a pair that is not there has 0

Every channel gives every clip a score: the mean of BM25 (bm25s: Lucene's variant, k1 1.5, b 0.75, English stemmer and stop words) and of
the cosine of an encoder that was not trained for it (all-MiniLM-L6-v2, mean of the tokens). Both are scaled before, for each channel and
query, to 0 for the lowest and 1 for the highest clip (min-max; all 0 where no clip stands out). A strategy gives the channels weights, and
the clips are ranked by the weighted sum. Ties are broken by a hash of the clip's id, so the order of the files does not matter.

Half of the queries, drawn by a hash of their ids, choose the best single channel and the best fixed weights (by NDCG@10, on a grid of
step 0.1 with equal weights); the other half measures every strategy. The oracle takes for each query the weights of the grid that are best
for it: no router can know them. NDCG@10 takes the relevance as the gain; Recall@5 and MRR count the clips of the query's highest relevance.
Intervals are the bootstrap's at 95 %, over queries; differences are paired. Queries whose teacher failed are left out for all, and counted.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.benchmark.statistics import mean_interval
from distill.data import atomic_write, read_gold, read_jsonl, sha256_file, text_of, write_json
from distill.errors import BundleError, DataError, DistillError, MissingExtraError
from distill.router import Router
from distill.student.weights import DEFAULT_BASE_MODEL
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MEASURES = ("NDCG@10", "Recall@5", "MRR")
SCORERS = ("bm25", "cosine")
AIM = -0.01
"""Of the student's NDCG@10 minus the teacher's."""

_DEPTH, _RECALL_DEPTH = 10, 5
_STEPS = 10
_FEWEST_QUERIES = 4
_DECIMALS = 9
"""To which fused scores are rounded: what differs by less is a tie, whatever the order of the sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Clips, queries and judgements.

    Attributes:
        channels: Names of the channels.
        clip_ids: In the order in which ties are broken.
        clips: Texts of each clip by channel.
        query_ids: In the order of a hash.
        queries: Their texts.
        grades: Relevance: float64 of shape (n_queries, n_clips).
    """

    channels: tuple[str, ...]
    clip_ids: tuple[str, ...]
    clips: tuple[Mapping[str, str], ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    grades: Floats

    def only(self, kept: npt.NDArray[np.bool_]) -> Collection:
        """The same clips with some of the queries: bool array of shape (n_queries,)."""
        positions = np.flatnonzero(kept)
        return Collection(
            self.channels,
            self.clip_ids,
            self.clips,
            tuple(self.query_ids[position] for position in positions),
            tuple(self.queries[position] for position in positions),
            self.grades[positions],
        )


def read_collection(library: Path, queries: Path, judgements: Path, channels: Sequence[str]) -> Collection:
    """Reads the three files.

    Raises:
        DataError: A file is missing or wrong: names the line.
    """
    clips = _by_id(library, dict(read_jsonl(library)))
    for number, line in clips.values():
        for channel in channels:
            if not isinstance(line.get(channel), str):
                raise DataError(
                    f"{library}:{number}: {channel!r} must be a text (it may be empty), found {line.get(channel)!r}"
                )
    asked = _by_id(queries, dict(read_jsonl(queries)))
    texts = {name: text_of(queries, number, line) for name, (number, line) in asked.items()}
    for name, text in texts.items():
        if not text.strip():
            raise DataError(f"{queries}:{asked[name][0]}: the text is empty")
    clip_ids, query_ids = (sorted(names, key=_hash) for names in (clips, texts))
    grades = _read_grades(judgements, query_ids, clip_ids)
    return Collection(
        tuple(channels),
        tuple(clip_ids),
        tuple(clips[name][1] for name in clip_ids),
        tuple(query_ids),
        tuple(texts[name] for name in query_ids),
        grades,
    )


def _by_id(path: Path, lines: Mapping[int, dict[str, Any]]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Line number and line by id, in the file's order."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, line in lines.items():
        name = line.get("id")
        if not isinstance(name, str) or not name:
            raise DataError(f'{path}:{number}: "id" must be a string, found {name!r}')
        if name in found:
            raise DataError(f"{path}:{number}: the id {name!r} stands in line {found[name][0]} already")
        found[name] = (number, line)
    if not found:
        raise DataError(f"{path}: holds no line")
    return found


def _read_grades(path: Path, query_ids: Sequence[str], clip_ids: Sequence[str]) -> Floats:
    rows, columns = ({name: place for place, name in enumerate(names)} for names in (query_ids, clip_ids))
    grades = np.full((len(rows), len(columns)), np.nan)
    for number, line in read_jsonl(path):
        for key, known in (("query_id", rows), ("clip_id", columns)):
            if not isinstance(line.get(key), str) or line[key] not in known:
                raise DataError(f'{path}:{number}: "{key}" must be the id of a {key[:-3]}, found {line.get(key)!r}')
        grade = line.get("relevance")
        if isinstance(grade, bool) or not isinstance(grade, int) or grade < 0:
            raise DataError(f'{path}:{number}: "relevance" must be a whole number from 0 on, found {grade!r}')
        place = rows[line["query_id"]], columns[line["clip_id"]]
        if not np.isnan(grades[place]):
            raise DataError(f"{path}:{number}: {line['query_id']!r} and {line['clip_id']!r} are judged twice")
        grades[place] = grade
    judged: Floats = np.nan_to_num(grades, nan=0.0)
    without = [name for name, best in zip(query_ids, judged.max(axis=1), strict=True) if best <= 0]
    if without:
        raise DataError(f"{path}: no relevant clip for the query {min(without)!r} ({len(without)} such queries)")
    return judged


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def tokens(texts: Sequence[str]) -> list[list[str]]:
    """What BM25 sees of each text: stems of its words without the stop words (bm25s, PyStemmer)."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed: it is a development tool, see `make setup`") from error
    stemmer = Stemmer.Stemmer("english")
    found: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords="en_plus", stemmer=stemmer, return_ids=False, show_progress=False
    )
    return found


def bm25_scores(documents: Sequence[str], queries: Sequence[str]) -> Floats:
    """BM25 of each document for each query: shape (n_queries, n_documents); 0 where they share no word."""
    import bm25s

    words = tokens(documents)
    scores = np.zeros((len(queries), len(documents)))
    if not any(words):
        return scores
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    for row, asked in enumerate(tokens(queries)):
        if asked:
            scores[row] = index.get_scores(asked)
    return scores


def sentence_vectors(texts: Iterable[str], base_model: str) -> dict[str, npt.NDArray[np.float32]]:
    """Vector of length 1 of each distinct text, by a pretrained encoder as it is.

    Raises:
        TrainingError: The encoder cannot be found.
    """
    from distill.student.encoder import Encoder, Pooled
    from distill.student.tokens import bundle_tokenizer, encode
    from distill.student.trainer import predict
    from distill.student.weights import load_base_model

    distinct = sorted(set(texts))
    base = load_base_model(base_model)
    tokenizer = bundle_tokenizer(base.tokenizer, base.max_length)
    vectors = predict(Pooled(Encoder(base, 2, 0.0)), encode(tokenizer, distinct))
    return dict(zip(distinct, vectors, strict=True))


def normalised(scores: Floats) -> Floats:
    """Min-max for each query: 0 for its lowest and 1 for its highest document; 0 for all where they are equal."""
    low, high = scores.min(axis=-1, keepdims=True), scores.max(axis=-1, keepdims=True)
    scaled: Floats = (scores - low) / np.where(high > low, high - low, 1.0)
    return scaled


def channel_scores(collection: Collection, scorers: Sequence[str], base_model: str = DEFAULT_BASE_MODEL) -> Floats:
    """The score of each clip in each channel for each query, from 0 to 1: shape (n_channels, n_queries, n_clips)."""
    texts = {channel: [clip[channel] for clip in collection.clips] for channel in collection.channels}
    summed = np.zeros((len(texts), len(collection.queries), len(collection.clips)))
    if "bm25" in scorers:
        summed += [normalised(bm25_scores(documents, collection.queries)) for documents in texts.values()]
    if "cosine" in scorers:
        vectors = sentence_vectors(itertools.chain(collection.queries, *texts.values()), base_model)
        asked = np.stack([vectors[query] for query in collection.queries])
        for channel, documents in enumerate(texts.values()):
            cosines = asked @ np.stack([vectors[document] for document in documents]).T
            summed[channel] += normalised(cosines.astype(np.float64).round(6))
    return summed / len(scorers)


def grid(n_channels: int, steps: int = _STEPS) -> Floats:
    """Every weighting by multiples of 1 / ``steps``, and equal weights; those near equal weights first: shape (n, n_channels)."""
    bars = itertools.combinations(range(steps + n_channels - 1), n_channels - 1)
    edges = np.asarray([(-1, *bar, steps + n_channels - 1) for bar in bars])
    equal = np.full((1, n_channels), 1 / n_channels)
    weights = np.concatenate([equal, (np.diff(edges, axis=1) - 1) / steps])
    return weights[np.argsort(np.abs(weights - equal).sum(axis=1).round(_DECIMALS), kind="stable")]


def ranking(fused: Floats) -> npt.NDArray[np.int64]:
    """Positions of the clips from the best on, along the last axis; equal scores keep the clips' order."""
    return np.argsort(-fused.round(_DECIMALS), axis=-1, kind="stable")


def measures(ranked: npt.NDArray[np.int64], grades: Floats) -> Floats:
    """NDCG@10, Recall@5 and MRR of rankings of one query.

    The gain is the relevance itself, discounted by log2(rank + 1), as in trec_eval and scikit-learn (Järvelin and Kekäläinen, 2002).

    Args:
        ranked: Positions from the best on: shape (n_rankings, n_clips).
        grades: Relevance of each clip: shape (n_clips,).

    Returns:
        Shape (n_rankings, 3).
    """
    discounts = 1 / np.log2(np.arange(2, len(grades) + 2))
    discounts[_DEPTH:] = 0.0
    ndcg = grades[ranked] @ discounts / (np.sort(grades)[::-1] @ discounts)
    meant = (grades == grades.max())[ranked]
    recall = meant[:, :_RECALL_DEPTH].sum(axis=1) / meant[0].sum()
    return np.stack([ndcg, recall, 1 / (meant.argmax(axis=1) + 1)], axis=1)


def measured(scores: Floats, weights: Floats, grades: Floats) -> Floats:
    """The measures of each query: shape (n_queries, 3).

    Args:
        scores: Shape (n_channels, n_queries, n_clips).
        weights: Of the channels: shape (n_channels,), or (n_queries, n_channels).
        grades: Shape (n_queries, n_clips).
    """
    of_each = np.broadcast_to(weights, (scores.shape[1], scores.shape[0]))
    ranked = ranking(np.einsum("cqn,qc->qn", scores, of_each))
    return np.concatenate([measures(row[None], grade) for row, grade in zip(ranked, grades, strict=True)])


def measured_on_grid(scores: Floats, grades: Floats, weights: Floats) -> Iterator[Floats]:
    """For each query the measures of every weighting: shape (n_weightings, 3)."""
    for query, grade in enumerate(grades):
        yield measures(ranking(weights @ scores[:, query]), grade)


@dataclass(frozen=True, slots=True, eq=False)
class Strategy:
    """A way to weigh the channels, and how it does.

    Attributes:
        name: For people.
        weights: Of the channels: shape (n_channels,) where they are the same for every query, else (n_queries, n_channels).
        values: Measures of each measured query: shape (n_queries, 3).
    """

    name: str
    weights: Floats
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What was found.

    Attributes:
        strategies: Each measured on the same queries.
        differences: Pairs of names, of which the first minus the second is told.
        channels: Names of the channels.
        facts: What the figures rest on.
    """

    strategies: Mapping[str, Strategy]
    differences: tuple[tuple[str, str], ...]
    channels: tuple[str, ...]
    facts: Mapping[str, Any]


EQUAL, SINGLE, FIXED, TEACHER, ORACLE = (
    "equal weights",
    "best single channel",
    "best fixed weights",
    "teacher",
    "oracle",
)


def compare(collection: Collection, scores: Floats, routed: Mapping[str, Floats]) -> Result:
    """Chooses on one half of the queries, and measures every strategy on the other.

    Args:
        collection: Queries are in the order of a hash: the first half chooses.
        scores: ``channel_scores``.
        routed: Weights by name of router: shape (n_queries, n_channels).

    Raises:
        DataError: There are too few queries to halve.
    """
    n = len(collection.queries)
    if n < _FEWEST_QUERIES:
        raise DataError(
            f"{n} queries are too few: at least {_FEWEST_QUERIES} are needed, half of them to choose weights"
        )
    chosen_on = n // 2
    grades, n_channels = collection.grades, len(collection.channels)
    weightings = grid(n_channels)
    chosen = sum(values[:, 0] for values in measured_on_grid(scores[:, :chosen_on], grades[:chosen_on], weightings))
    is_single = weightings.max(axis=1) == 1.0
    tested, tested_grades = scores[:, chosen_on:], grades[chosen_on:]
    best = [weightings[values[:, 0].argmax()] for values in measured_on_grid(tested, tested_grades, weightings)]
    weights = {
        EQUAL: np.full(n_channels, 1 / n_channels),
        SINGLE: weightings[np.where(is_single, chosen, -1.0).argmax()],
        FIXED: weightings[np.argmax(chosen)],
        **{name: of_each[chosen_on:] for name, of_each in routed.items()},
        ORACLE: np.stack(best),
    }
    strategies = {
        name: Strategy(name, given, measured(tested, given, tested_grades)) for name, given in weights.items()
    }
    against = [(name, other) for name in routed for other in (EQUAL, SINGLE, FIXED)]
    students = [(name, TEACHER) for name in routed if name != TEACHER and TEACHER in routed]
    facts = {"n_clips": len(collection.clips), "n_queries": n, "n_chosen_on": chosen_on, "n_measured_on": n - chosen_on}
    return Result(strategies, (*students, *against), collection.channels, facts)


def load_router(path: Path) -> Router:
    """A router that gives weights.

    Raises:
        BundleError: It cannot be loaded, or was not made for weights.
    """
    router = Router.load(path)
    if router.manifest.task is not Task.WEIGHTS:
        raise BundleError(f"{path}: made for `task: {router.manifest.task.value}`; fusion needs `task: weights`")
    return router


def student_weights(router: Router, texts: Sequence[str]) -> Floats:
    """The router's weights, in its labels' order: shape (n_queries, n_channels). Equal ones where there is nothing to read in a text."""
    equal = dict.fromkeys(router.labels, 1 / len(router.labels))
    given = [prediction.weights or equal for prediction in router.route_batch(texts)]
    return np.asarray([[row[channel] for channel in router.labels] for row in given])


def teacher_weights(path: Path, texts: Sequence[str], channels: Sequence[str]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The teacher's weights, from the ledger of a router.yaml or from a JSONL of ``text`` and ``weights``.

    Returns:
        Weights of shape (n_queries, n_channels), and for which queries the teacher failed: there they are equal.

    Raises:
        DataError: A query was never asked, or a line is wrong.
        SpecError: router.yaml is wrong or has other channels.
    """
    of_text = _listed(path, channels) if path.suffix == ".jsonl" else _recorded(path, texts, channels)
    answers = [of_text.get(unicodedata.normalize("NFC", text), ()) for text in texts]
    unasked = [text for text, answer in zip(texts, answers, strict=True) if answer == ()]
    if unasked:
        advice = "give its weights" if path.suffix == ".jsonl" else "--ask has them labelled"
        raise DataError(
            f"{path}: {len(unasked)} of {len(texts)} queries have no answer of the teacher, the first is {min(unasked)!r}; {advice}"
        )
    failed = np.asarray([answer is None for answer in answers])
    equal = {channel: 1 / len(channels) for channel in channels}
    rows = [[(answer or equal).get(channel, 0.0) for channel in channels] for answer in answers]
    return np.asarray(rows), failed


def _ask(path: Path, base_url: str | None, texts: Sequence[str]) -> None:
    """Has the teacher of a router.yaml answer what its ledger lacks."""
    from distill.spec import load_spec
    from distill.teacher.label import label

    label(load_spec(path, base_url=base_url).asked_once, list(texts))


def _listed(path: Path, channels: Sequence[str]) -> dict[str, Mapping[str, float] | None]:
    gold = read_gold(path, channels, Task.WEIGHTS)
    return {unicodedata.normalize("NFC", query.text): query.target for query in gold}


def _recorded(path: Path, texts: Sequence[str], channels: Sequence[str]) -> dict[str, Mapping[str, float] | None]:
    """Weights by text, None where every answer failed; texts that were never asked are left out."""
    from distill.benchmark.recorded import RecordedTeacher
    from distill.spec import load_spec
    from distill.teacher.label import recorded_labels

    spec = load_spec(path)
    if spec.task is not Task.WEIGHTS or set(spec.labels) != set(channels):
        raise DataError(
            f"{path}: `task: {spec.task.value}` with {', '.join(spec.labels)}; the bundle has weights over {', '.join(channels)}"
        )
    answers = recorded_labels(spec, texts)
    teacher = RecordedTeacher(answers.values(), spec.labels, spec.task)
    return {unicodedata.normalize("NFC", text): teacher.route(answer.text).weights for text, answer in answers.items()}


def as_json(result: Result) -> dict[str, Any]:
    """Content of the JSON file."""
    return {
        "format": 1,
        **result.facts,
        "channels": list(result.channels),
        "rows": [
            {
                "name": strategy.name,
                "weights": dict(zip(result.channels, strategy.weights.tolist(), strict=True)) if strategy.weights.ndim == 1 else None,
                "mean_weights": dict(zip(result.channels, np.atleast_2d(strategy.weights).mean(axis=0).tolist(), strict=True)),
                **_figures(strategy.values),
            }
            for strategy in result.strategies.values()
        ],
        "differences": [
            {"name": first, "minus": second, **_figures(result.strategies[first].values - result.strategies[second].values)}
            for first, second in result.differences
        ],
    }  # fmt: skip


def _figures(values: Floats) -> dict[str, Any]:
    """Mean and interval of each measure."""
    keys = ("ndcg_at_10", "recall_at_5", "mrr")
    return {
        name: figure
        for key, column in zip(keys, values.T, strict=True)
        for name, figure in ((key, float(column.mean())), (f"{key}_ci95", mean_interval(column)))
    }


def markdown(shown: Mapping[str, Any]) -> str:
    """Tables and verdicts, from the content of the JSON file."""
    about = (
        f"{shown['n_clips']:,} clips. {shown['n_measured_on']:,} queries are measured; {shown['n_chosen_on']:,} others chose the single channel and "
        f"the fixed weights; {shown['n_left_out']:,} are left out, because the teacher failed on them. Score of a channel: "
        f"{' and '.join(shown['scorers'])}, min-max for each channel and query. The oracle takes for each query the weights that are best for it, which no router can know. Recall@5 and "
        "MRR count the clips of a query's highest relevance. In brackets: the bootstrap's interval at 95 %."
    )
    lines = [
        about,
        "",
        f"| weights | {' / '.join(shown['channels'])}, mean | {' | '.join(MEASURES)} |",
        "| --- | --- | ---: | ---: | ---: |",
        *(f"| {row['name']} | {_weights(row['mean_weights'])} | {_cells(row)} |" for row in shown["rows"]),
    ]
    if shown["differences"]:
        lines += [
            "",
            f"| difference, paired | {' | '.join(MEASURES)} | by NDCG@10 |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        lines += [
            f"| {row['name']} - {row['minus']} | {_cells(row, sign='+')} | {_direction(row)} |"
            for row in shown["differences"]
        ]
        lines += ["", *(f"- {verdict}" for verdict in _verdicts(shown["differences"]))]
    return "\n".join([*lines, ""])


def _weights(weights: Mapping[str, float]) -> str:
    return " / ".join(f"{weight:.2f}" for weight in weights.values())


def _cells(row: Mapping[str, Any], sign: str = "") -> str:
    keys = ("ndcg_at_10", "recall_at_5", "mrr")
    return " | ".join(_cell(row[key], row[f"{key}_ci95"], sign) for key in keys)


def _cell(figure: float, interval: Sequence[float] | None, sign: str) -> str:
    bounds = "" if interval is None else f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
    return f"{figure:{sign}.3f}{bounds}"


def _bounds(row: Mapping[str, Any]) -> Sequence[float]:
    """Of a difference by NDCG@10; of a few queries nothing is known."""
    interval: Sequence[float] | None = row["ndcg_at_10_ci95"]
    return (-1.0, 1.0) if interval is None else interval


def _direction(row: Mapping[str, Any]) -> str:
    low, high = _bounds(row)
    if low > 0:
        return "more"
    return "less" if high < 0 else "no difference shown"


def _verdicts(differences: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the teacher gains, and whether each student is near enough to it."""
    gains = [row for row in differences if row["name"] == TEACHER]
    if gains:
        more = [row["minus"] for row in gains if _bounds(row)[0] > 0]
        less = [row["minus"] for row in gains if _bounds(row)[1] < 0]
        open_ = [row["minus"] for row in gains if row["minus"] not in {*more, *less}]
        lost = f" They lose to: {', '.join(less)}." if less else ""
        yield f"The teacher's weights gain over: {', '.join(more) or 'nothing'}.{lost} No difference is shown to: {', '.join(open_) or 'none of them'}."
    for row in differences:
        if row["minus"] == TEACHER:
            low = _bounds(row)[0]
            yield (
                f"{row['name']} - teacher, aim at least {AIM}: {'reached' if row['ndcg_at_10'] >= AIM else 'missed'} in the mean; "
                f"the whole interval is {'above' if low >= AIM else 'not above'} it."
            )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("judgements", type=Path)
    parser.add_argument(
        "--router", type=Path, action="append", required=True, help="a bundle; may be given more than once"
    )
    parser.add_argument(
        "--ledger", type=Path, help="the teacher: router.yaml beside its ledger, or JSONL of text and weights"
    )
    parser.add_argument(
        "--ask", action="store_true", help="asks the teacher about queries that the ledger lacks, at the usual cost"
    )
    parser.add_argument("--base-url", help="takes the place of teacher.base_url, for --ask")
    parser.add_argument("--scorer", choices=("both", *SCORERS), default="both", help="of a clip's text [%(default)s]")
    parser.add_argument("--base-model", default=DEFAULT_BASE_MODEL, help="encoder of the cosine [%(default)s]")
    parser.add_argument("--json", type=Path, help="also writes every figure there")
    parser.add_argument("--markdown", type=Path, help="also writes the tables there")
    options = parser.parse_args(arguments)
    if options.ask and (options.ledger is None or options.ledger.suffix == ".jsonl"):
        parser.error("--ask needs --ledger with the router.yaml of the teacher that is to be asked")
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Reads, scores and compares.

    Returns:
        Content of the JSON file.

    Raises:
        DistillError: Whatever is wrong with what was given.
    """
    routers = [load_router(path) for path in options.router]
    channels = routers[0].labels
    for path, router in zip(options.router, routers, strict=True):
        if set(router.labels) != set(channels):
            raise BundleError(
                f"{path}: its channels are {', '.join(router.labels)}; {options.router[0]} has {', '.join(channels)}"
            )
    collection = read_collection(options.library, options.queries, options.judgements, channels)
    n_left_out = 0
    routed: dict[str, Floats] = {}
    if options.ledger is not None:
        if options.ask:
            _ask(options.ledger, options.base_url, collection.queries)
        weights, failed = teacher_weights(options.ledger, collection.queries, channels)
        collection, routed[TEACHER], n_left_out = collection.only(~failed), weights[~failed], int(failed.sum())
    names = _student_names(routers)
    for name, router in zip(names, routers, strict=True):
        order = [router.labels.index(channel) for channel in channels]
        routed[name] = student_weights(router, collection.queries)[:, order]
    scorers = SCORERS if options.scorer == "both" else (options.scorer,)
    result = compare(collection, channel_scores(collection, scorers, options.base_model), routed)
    files = {"library": options.library, "queries": options.queries, "judgements": options.judgements}
    return as_json(result) | {
        "n_left_out": n_left_out,
        "scorers": list(scorers),
        "base_model": options.base_model if "cosine" in scorers else None,
        "routers": {name: router.manifest.bundle_id for name, router in zip(names, routers, strict=True)},
        "sha256": {name: sha256_file(path) for name, path in files.items()},
    }


def _student_names(routers: Sequence[Router]) -> list[str]:
    """``student static``, with the bundle's id where two are of one kind."""
    kinds = Counter(router.manifest.student for router in routers)
    return [
        f"student {router.manifest.student}" + (f" {router.manifest.bundle_id}" if kinds[router.manifest.student] > 1 else "")
        for router in routers
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares, prints, and writes the files that are asked for."""
    options = parsed(arguments)
    try:
        shown = run(options)
        tables = markdown(shown)
        if options.json is not None:
            write_json(options.json, shown)
        if options.markdown is not None:
            with atomic_write(options.markdown) as partial:
                partial.write_text(
                    f"<!-- Generated by scripts/search_fusion.py. -->\n\n{tables}", encoding="utf-8", newline="\n"
                )
    except DistillError as error:
        raise SystemExit(f"search_fusion.py: {error}") from error
    sys.stdout.write(tables)


if __name__ == "__main__":
    main()
