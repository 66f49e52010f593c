"""The program for search over channels: measures, choices, intervals, and what it says of files that are wrong."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import build_bundle
from hypothesis import given
from hypothesis import strategies as st
from project import write_lines
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score
from tiny import make_base_model

from distill.errors import BundleError, DataError
from distill.types import Task

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import search_fusion

CHANNELS = ("track_order", "cancel_order", "refund")
"""The tiny bundle's labels: any names will do for channels."""

WORDS = ("parcel", "cancel", "refund", "zebra", "violin", "harbour", "candle", "ladder")


def library():
    """Clips of which each channel holds a word that other clips hold in other channels."""
    return [
        {"id": f"c{n}", **{channel: f"the {WORDS[(n + shift) % len(WORDS)]}" for shift, channel in enumerate(CHANNELS)}}
        for n in range(len(WORDS))
    ]


def queries():
    return [{"id": f"q{n}", "text": f"{WORDS[n]} please", "extra": 1} for n in range(len(WORDS))]


def judgements():
    return [{"query_id": f"q{n}", "clip_id": f"c{n}", "relevance": 3} for n in range(len(WORDS))] + [
        {"query_id": f"q{n}", "clip_id": f"c{(n + 1) % len(WORDS)}", "relevance": n % 2} for n in range(len(WORDS))
    ]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("channels") / "static", task=Task.WEIGHTS).path


@pytest.fixture
def files(tmp_path):
    write_lines(tmp_path / "clips.jsonl", library())
    write_lines(tmp_path / "queries.jsonl", queries())
    write_lines(tmp_path / "judgements.jsonl", judgements())
    return [tmp_path / name for name in ("clips.jsonl", "queries.jsonl", "judgements.jsonl")]


def fuse(files, bundle, *more):
    """The figures, by BM25 alone unless something else is asked for."""
    arguments = [*map(str, files), "--router", str(bundle), "--scorer", "bm25", *map(str, more)]
    return search_fusion.run(search_fusion.parsed(arguments))


@st.composite
def graded(draw, *, meant=None):
    """Distinct scores and relevances of some clips; ``meant``: how many have the highest relevance."""
    n = draw(st.integers(2, 30))
    scores = np.asarray(draw(st.permutations(range(n))), dtype=np.float64)
    grades = np.asarray(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=np.float64)
    grades[draw(st.lists(st.integers(0, n - 1), min_size=meant or 1, max_size=meant or n, unique=True))] = 3
    return scores, grades


@given(graded())
def test_ndcg_is_that_of_scikit_learn(given):
    scores, grades = given
    ((ndcg, _, _),) = search_fusion.measures(search_fusion.ranking(scores[None]), grades)
    assert ndcg == pytest.approx(ndcg_score(grades[None], scores[None], k=10))


@given(graded(meant=1))
def test_recall_and_reciprocal_rank_of_one_clip_are_those_of_scikit_learn(given):
    scores, grades = given
    ((_, recall, reciprocal_rank),) = search_fusion.measures(search_fusion.ranking(scores[None]), grades)
    assert reciprocal_rank == pytest.approx(label_ranking_average_precision_score(grades[None] == 3, scores[None]))
    n = len(scores)
    in_top = top_k_accuracy_score([grades.argmax()], scores[None], k=5, labels=range(n)) if n > 5 else 1.0
    assert recall == in_top


def test_recall_and_reciprocal_rank_of_several_clips():
    grades = np.asarray([2.0, 0, 0, 1, 0, 0, 2, 0])
    ((_, recall, reciprocal_rank),) = search_fusion.measures(np.asarray([[3, 2, 0, 1, 4, 5, 6, 7]]), grades)
    assert (recall, reciprocal_rank) == (0.5, pytest.approx(1 / 3))


numbers = st.lists(st.integers(-1000, 1000), min_size=2, max_size=20).map(lambda row: np.asarray([row], dtype=float))


@given(numbers, st.floats(0.1, 100), st.floats(-100, 100))
def test_scaled_scores_span_0_to_1_whatever_the_scale_was(scores, factor, offset):
    scaled = search_fusion.normalised(scores)
    assert scaled.min() == 0
    assert scaled.max() == (1 if np.ptp(scores) else 0)
    again = search_fusion.normalised(scores * factor + offset)
    np.testing.assert_allclose(again, scaled, atol=1e-9)


@pytest.mark.parametrize(("n_channels", "n"), [(2, 11 + 1), (3, 66 + 1), (4, 286 + 1)])
def test_the_grid_has_every_weighting_and_equal_weights_first(n_channels, n):
    weights = search_fusion.grid(n_channels)
    assert len(weights) == n
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[0], 1 / n_channels)
    assert {tuple(row) for row in np.eye(n_channels)} <= {tuple(row) for row in weights.tolist()}


def random_scores(seed, n_channels=3, n_queries=12, n_clips=9):
    chance = np.random.default_rng(seed)
    scores = search_fusion.normalised(chance.random((n_channels, n_queries, n_clips)))
    grades = np.zeros((n_queries, n_clips))
    grades[np.arange(n_queries), chance.integers(0, n_clips, n_queries)] = 1
    return scores, grades


@given(st.integers(0, 1000), st.integers(0, 2))
def test_all_weight_on_one_channel_is_that_channel_alone(seed, channel):
    scores, grades = random_scores(seed)
    alone = search_fusion.measured(scores, np.eye(3)[channel], grades)
    expected = [
        search_fusion.measures(search_fusion.ranking(row[None]), grade)[0]
        for row, grade in zip(scores[channel], grades, strict=True)
    ]
    np.testing.assert_array_equal(alone, expected)


@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_only_the_proportion_of_the_weights_counts(seed, factor):
    scores, grades = random_scores(seed)
    weights = np.random.default_rng(seed).random(3)
    expected = search_fusion.measured(scores, weights, grades)
    np.testing.assert_allclose(search_fusion.measured(scores, weights * factor, grades), expected)


@given(st.integers(0, 1000))
def test_no_fixed_weights_beat_the_oracle_on_any_query(seed):
    scores, grades = random_scores(seed)
    found = search_fusion.compare(collection_of(scores, grades), scores, {}).strategies
    for name in (search_fusion.EQUAL, search_fusion.SINGLE, search_fusion.FIXED):
        assert (found[search_fusion.ORACLE].values[:, 0] >= found[name].values[:, 0] - 1e-12).all()


def collection_of(scores, grades):
    clips = tuple(f"c{n}" for n in range(grades.shape[1]))
    asked = tuple(f"q{n}" for n in range(grades.shape[0]))
    return search_fusion.Collection(CHANNELS, clips, ({},) * len(clips), asked, asked, grades)


def test_what_is_chosen_is_chosen_on_the_other_half():
    n_queries, n_clips = 8, 6
    grades = np.zeros((n_queries, n_clips))
    grades[:, 0] = 1
    scores = np.zeros((3, n_queries, n_clips))
    scores[:, :, 1:] = 0.5
    scores[0, :4, 0], scores[2, 4:, 0] = (
        1.0,
        1.0,
    )  # the first channel finds the clips of one half, the last those of the other
    found = search_fusion.compare(collection_of(scores, grades), scores, {}).strategies
    assert found[search_fusion.SINGLE].weights.tolist() == [1, 0, 0]
    assert found[search_fusion.FIXED].weights[0] > found[search_fusion.FIXED].weights[2]
    assert found[search_fusion.SINGLE].values[:, 1].tolist() == [0, 0, 0, 0]
    assert found[search_fusion.ORACLE].values[:, 0].tolist() == [1, 1, 1, 1]


def test_the_order_of_the_files_does_not_matter(files, bundle):
    expected = fuse(files, bundle)
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        random.Random(0).shuffle(lines)  # noqa: S311
        path.write_text("".join(lines), encoding="utf-8")
    found = fuse(files, bundle)
    assert found.pop("sha256") != expected.pop("sha256")
    assert found == expected


def test_clips_that_tie_are_not_in_the_order_of_the_file(files, bundle):
    shuffled = search_fusion.read_collection(*files, CHANNELS).clip_ids
    assert sorted(shuffled) == [clip["id"] for clip in library()]
    assert sorted(shuffled) != list(shuffled)


def test_bm25_finds_the_word_whatever_its_ending_and_nothing_where_there_is_none():
    scores = search_fusion.bm25_scores(["it rains", "trains", "", "raining in rain"], ["rained", "the of", "snow"])
    assert np.flatnonzero(scores[0]).tolist() == [0, 3]
    assert not scores[1:].any()
    assert not search_fusion.bm25_scores(["", "the"], ["rain"]).any()


def test_vectors_of_the_encoder(tmp_path, files, bundle):
    base = str(make_base_model(tmp_path / "base"))
    vectors = search_fusion.sentence_vectors(["hello", "pay the bill", "hello"], base)
    assert set(vectors) == {"hello", "pay the bill"}
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in vectors.values()], 1, atol=1e-5)
    collection = search_fusion.read_collection(*files, CHANNELS)
    both, words, cosines = (
        search_fusion.channel_scores(collection, scorers, base) for scorers in (("bm25", "cosine"), ("bm25",), ("cosine",))
    )  # fmt: skip
    np.testing.assert_allclose(both, (words + cosines) / 2)
    assert cosines.max() == 1
    assert cosines.min() == 0


def teacher_lines(weights):
    return [{"text": query["text"], "weights": dict(zip(CHANNELS, weights, strict=True))} for query in queries()]


def row(found, name):
    return next(row for row in found["rows"] if row["name"] == name)


def test_a_teacher_that_knows_the_channel_finds_every_clip(tmp_path, files, bundle):
    write_lines(tmp_path / "weights.jsonl", teacher_lines((1, 0, 0)))
    found = fuse(files, bundle, "--ledger", tmp_path / "weights.jsonl")
    assert [row["name"] for row in found["rows"]] == [
        "equal weights", "best single channel", "best fixed weights", "teacher", "student static", "oracle",
    ]  # fmt: skip
    assert row(found, "teacher")["mrr"] == row(found, "best single channel")["mrr"] == 1.0
    assert row(found, "teacher")["mean_weights"] == {"track_order": 1, "cancel_order": 0, "refund": 0}
    assert row(found, "equal weights")["mrr"] < 1.0
    assert (found["n_clips"], found["n_chosen_on"], found["n_measured_on"], found["n_left_out"]) == (8, 4, 4, 0)


def test_a_student_like_its_teacher_differs_by_nothing(tmp_path, files, bundle):
    from distill.router import Router

    router = Router.load(bundle)
    lines = [{"text": query["text"], "weights": dict(router.route(query["text"]).weights)} for query in queries()]
    write_lines(tmp_path / "weights.jsonl", lines)
    found = fuse(files, bundle, "--ledger", tmp_path / "weights.jsonl")
    first = found["differences"][0]
    assert (first["name"], first["minus"]) == ("student static", "teacher")
    assert first["ndcg_at_10"] == pytest.approx(0)
    assert first["ndcg_at_10_ci95"] is None, "four queries say nothing of how far it could lie off"
    tables = search_fusion.markdown(found)
    assert "| student static - teacher | +0.000 | +0.000 | +0.000 | no difference shown |" in tables
    assert "aim at least -0.01: reached in the mean; the whole interval is not above it." in tables


def verdict(low, high):
    difference = {"ndcg_at_10": (low + high) / 2, "ndcg_at_10_ci95": (low, high)}
    rows = [
        {"name": "teacher", "minus": "equal weights", **difference},
        {"name": "s", "minus": "teacher", **difference},
    ]
    return list(search_fusion._verdicts(rows))


def test_what_is_said_follows_from_the_interval():
    assert verdict(0.1, 0.2)[0].startswith("The teacher's weights gain over: equal weights. ")
    assert "gain over: nothing. No difference is shown to: equal weights." in verdict(-0.1, 0.2)[0]
    assert (
        "gain over: nothing. They lose to: equal weights. No difference is shown to: none of them."
        in verdict(-0.2, -0.1)[0]
    )
    assert "missed in the mean; the whole interval is not above it" in verdict(-0.2, 0.1)[1]
    assert "reached in the mean; the whole interval is not above it" in verdict(-0.02, 0.1)[1]
    directions = [
        search_fusion._direction({"ndcg_at_10_ci95": interval}) for interval in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))
    ]
    assert directions == ["more", "less", "no difference shown"]


SPEC = """\
name: channels
task: weights
intents: {track_order: seen, cancel_order: heard, refund: said}
teacher: {callable: 'channel_teacher:answer', samples: 2}
queries: queries.jsonl
"""


def test_the_ledger_of_a_spec_is_the_teacher_and_what_failed_is_left_out(tmp_path, files, bundle):
    (tmp_path / "router.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "channel_teacher.py").write_text(
        "def answer(text):\n    return {'track_order': 1.0, 'refund': 3.0 if 'zebra' not in text else 1 / 0}\n",
        encoding="utf-8",
    )
    with pytest.raises(
        DataError, match=r"router.yaml: 8 of 8 queries have no answer of the teacher, the first is 'cancel please'"
    ):
        fuse(files, bundle, "--ledger", tmp_path / "router.yaml")
    fuse(files, bundle, "--ledger", tmp_path / "router.yaml", "--ask")  # what is asked once is recorded
    answers = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert {line["sample"] for line in answers} == {0}
    found = fuse(files, bundle, "--ledger", tmp_path / "router.yaml")
    assert (found["n_queries"], found["n_left_out"]) == (7, 1)
    assert row(found, "teacher")["mean_weights"] == pytest.approx(
        {"track_order": 0.25, "cancel_order": 0, "refund": 0.75}
    )


def test_a_spec_with_other_channels_is_refused(tmp_path, files, bundle):
    (tmp_path / "router.yaml").write_text(SPEC.replace("refund", "smell"), encoding="utf-8")
    with pytest.raises(DataError, match=r"the bundle has weights over track_order, cancel_order, refund"):
        fuse(files, bundle, "--ledger", tmp_path / "router.yaml")


def test_only_bundles_for_weights_over_the_same_channels(tmp_path, files, bundle, tiny_bundles):
    with pytest.raises(BundleError, match="made for `task: multi`; fusion needs `task: weights`"):
        fuse(files, tiny_bundles[Task.MULTI].path)
    other = build_bundle(tmp_path / "other", task=Task.WEIGHTS, labels=("track_order", "refund")).path
    with pytest.raises(BundleError, match="its channels are track_order, refund"):
        fuse(files, bundle, "--router", other)


def test_channels_are_matched_by_name_not_by_place(tmp_path, files, bundle):
    turned = build_bundle(tmp_path / "turned", task=Task.WEIGHTS, labels=CHANNELS[::-1], student="encoder").path
    write_lines(tmp_path / "queries.jsonl", [{"id": f"q{n}", "text": f"{word} parcel"} for n, word in enumerate(WORDS)])
    found = fuse(files, bundle, "--router", turned)
    static, encoder = row(found, "student static"), row(found, "student encoder")
    assert list(static["mean_weights"]) == list(encoder["mean_weights"]) == list(CHANNELS)
    assert max(encoder["mean_weights"], key=encoder["mean_weights"].get) == "track_order"


def changed(lines, position, **changes):
    return [{**line, **changes} if place == position else line for place, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        (0, changed(library(), 2, id=""), r"clips.jsonl:3: \"id\" must be a string, found ''"),
        (0, changed(library(), 2, id="c0"), r"clips.jsonl:3: the id 'c0' stands in line 1 already"),
        (0, changed(library(), 4, refund=None), r"clips.jsonl:5: 'refund' must be a text \(it may be empty\), found None"),
        (0, [], r"clips.jsonl: holds no line"),
        (1, changed(queries(), 1, text=" "), r"queries.jsonl:2: the text is empty"),
        (1, changed(queries(), 1, text=3), r"queries.jsonl:2: \"text\" must be a string, found 3"),
        (1, queries()[:1], r"judgements.jsonl:2: \"query_id\" must be the id of a query, found 'q1'"),
        (2, changed(judgements(), 3, clip_id="x"), r"judgements.jsonl:4: \"clip_id\" must be the id of a clip, found 'x'"),
        (2, changed(judgements(), 3, relevance=-1), r"judgements.jsonl:4: \"relevance\" must be a whole number from 0 on, found -1"),
        (2, changed(judgements(), 3, relevance=True), r"judgements.jsonl:4: .* found True"),
        (2, [*judgements(), judgements()[0]], r"judgements.jsonl:17: 'q0' and 'c0' are judged twice"),
        (2, judgements()[2:8], r"judgements.jsonl: no relevant clip for the query 'q0' \(2 such queries\)"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_line(files, bundle, file, lines, message):
    write_lines(files[file], lines)
    with pytest.raises(DataError, match=message):
        fuse(files, bundle)


def test_too_few_queries_to_halve(files, bundle):
    write_lines(files[1], queries()[:3])
    write_lines(files[2], [line for line in judgements() if line["query_id"] in {"q0", "q1", "q2"}])
    with pytest.raises(DataError, match="3 queries are too few: at least 4 are needed"):
        fuse(files, bundle)


def test_the_command_prints_and_writes(tmp_path, files, bundle, capsys):
    out = ("--json", str(tmp_path / "out" / "fusion.json"), "--markdown", str(tmp_path / "out" / "fusion.md"))
    search_fusion.main([*map(str, files), "--router", str(bundle), "--scorer", "bm25", *out])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("8 clips. 4 queries are measured; 4 others chose")
    written = (tmp_path / "out" / "fusion.md").read_text(encoding="utf-8")
    assert written == f"<!-- Generated by scripts/search_fusion.py. -->\n\n{printed}"
    assert search_fusion.markdown(json.loads((tmp_path / "out" / "fusion.json").read_text(encoding="utf-8"))) == printed
    with pytest.raises(SystemExit, match=r"search_fusion.py: .*none.jsonl: cannot be read"):
        search_fusion.main([str(tmp_path / "none.jsonl"), *map(str, files[1:]), "--router", str(bundle)])


def test_two_bundles_of_one_kind_are_told_apart(tmp_path, files, bundle):
    other = build_bundle(tmp_path / "other", task=Task.WEIGHTS, data_sha256="0").path
    names = [row["name"] for row in fuse(files, bundle, "--router", other)["rows"]]
    assert sum(name.startswith("student static ") for name in names) == 2


def test_a_query_in_which_there_is_nothing_to_read_weighs_all_channels_alike(files, bundle):
    write_lines(files[1], [{"id": f"q{n}", "text": "\u200b"} for n in range(len(WORDS))])
    mean = row(fuse(files, bundle), "student static")["mean_weights"]
    assert list(mean.values()) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("ledger", [(), ("--ledger", "weights.jsonl")])
def test_asking_takes_a_teacher_to_ask(files, bundle, capsys, ledger):
    with pytest.raises(SystemExit):
        fuse(files, bundle, "--ask", *ledger)
    assert "--ask needs --ledger with the router.yaml of the teacher that is to be asked" in capsys.readouterr().err


def test_weights_that_a_file_lacks_are_to_be_given(tmp_path, files, bundle):
    write_lines(tmp_path / "weights.jsonl", teacher_lines((1, 0, 0))[1:])
    with pytest.raises(
        DataError, match=r"1 of 8 queries have no answer of the teacher, the first is .*; give its weights"
    ):
        fuse(files, bundle, "--ledger", tmp_path / "weights.jsonl")
