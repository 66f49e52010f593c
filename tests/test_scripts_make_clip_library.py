"""The made-up clip library: what is committed is what the script writes, and keeps what its README promises."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from project import write_lines

from distill.errors import DataError

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
import make_clip_library as maker
import search_fusion


@pytest.fixture(scope="module")
def made():
    return maker.outputs(maker.FOLDER)


def lines(made, name):
    return [json.loads(line) for line in made[name].splitlines()]


@pytest.fixture
def folder(tmp_path):
    for name in ("phrases.yaml", "README.md"):
        shutil.copyfile(maker.FOLDER / name, tmp_path / name)
    return tmp_path


def test_the_committed_files_are_what_the_script_writes(made):
    for name, content in made.items():
        assert (maker.FOLDER / name).read_text(encoding="utf-8") == content, f"{name}: run scripts/make_clip_library.py"


def test_there_are_enough_and_search_can_read_them(made):
    collection = search_fusion.read_collection(
        *(maker.FOLDER / f"{name}.jsonl" for name in ("clips", "queries", "judgements")), tuple(maker.FACETS)
    )
    assert len(collection.clips) >= 300
    assert len(collection.queries) >= 200
    assert ((collection.grades == maker.MEANT).sum(axis=1) == 1).all()
    assert set(collection.grades.flat) == {0, maker.NEAR, maker.MEANT}
    assert all(text.strip() for clip in collection.clips for text in clip.values())


def test_queries_are_distinct_and_of_the_kinds_that_were_planned(made):
    queries = lines(made, "queries.jsonl")
    assert len({query["text"] for query in queries}) == len(queries)
    assert Counter(tuple(query["channels"]) for query in queries) == maker.KINDS
    assert not any("{" in query["text"] or "  " in query["text"] for query in queries)


def test_a_query_fits_one_clip_alone_and_near_clips_are_of_its_show():
    chance = maker.random.Random(0)
    clips = maker.make_clips(maker.read_phrases(maker.FOLDER / "phrases.yaml"), chance)
    for query in maker.make_queries(clips, chance):
        assert [place for place, clip in enumerate(clips) if query.references <= clip.references] == [query.clip]
        assert {facet for facet, _ in query.references} <= {f for name in query.channels for f in maker.FACETS[name]}
        grades = maker.judge(query, clips)
        assert grades.pop(query.clip) == maker.MEANT
        assert all(clips[place].show == clips[query.clip].show for place in grades)


def test_concepts_are_spread_evenly_and_channels_tell_different_things():
    clips = maker.make_clips(maker.read_phrases(maker.FOLDER / "phrases.yaml"), maker.random.Random(0))
    for facet in ("action", "line", "title"):
        counts = Counter(clip.values[facet].key for clip in clips)
        assert len(set(counts.values())) == 1
    same = sum(clip.values["action"].key == clip.values["line"].key for clip in clips)
    assert same < len(clips) / 10


def test_in_the_first_pair_the_text_holds_the_concept_in_the_second_the_query():
    concepts = yaml.safe_load((maker.FOLDER / "phrases.yaml").read_text(encoding="utf-8"))["concepts"]
    for concept, parts in concepts.items():
        ((word,),) = search_fusion.tokens([concept])
        for pairs in parts.values():
            held = [[word in found for found in search_fusion.tokens(pair)] for pair in pairs]
            assert held == [[True, False], [False, True]], (concept, pairs)


def test_a_phrase_that_repeats_the_text_is_an_error(folder):
    phrases = (folder / "phrases.yaml").read_text(encoding="utf-8")
    (folder / "phrases.yaml").write_text(phrases.replace('"mournful strings"', '"slow cellos"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"phrases.yaml: music: 'slow cellos' repeats cello, slow of 'a slow cello'"):
        maker.outputs(folder)


def test_a_model_may_reword_queries(folder, made):
    first, second, *_ = lines(maker.outputs(folder), "queries.jsonl")
    reworded = {"id": first["id"], "scripted": first["text"], "text": "in other words ", "model": "m"}
    write_lines(folder / "paraphrases.jsonl", [reworded])
    again = maker.outputs(folder)
    assert lines(again, "queries.jsonl")[:2] == [first | {"text": "in other words"}, second]
    assert "of which a model has reworded 1." in again["README.md"]
    assert again["judgements.jsonl"] == made["judgements.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "q999"}, r"paraphrases.jsonl:2: \"id\" must be the id of a query, each once; found 'q999'"),
        ({"id": "q001"}, r"paraphrases.jsonl:2: \"id\" must be .* found 'q001'"),
        ({"scripted": "old words"}, r"paraphrases.jsonl:2: \"scripted\" is not what q002 says now"),
        ({"text": " "}, r"paraphrases.jsonl:2: the text is empty"),
        ({"text": None}, r"paraphrases.jsonl:2: \"text\" must be a string"),
    ],
)
def test_a_wrong_paraphrase_is_one_clear_line(tmp_path, changes, message):
    says = {"q001": "first", "q002": "second"}
    good = [{"id": name, "scripted": text, "text": "other"} for name, text in says.items()]
    write_lines(tmp_path / "paraphrases.jsonl", [good[0], good[1] | changes])
    with pytest.raises(DataError, match=message):
        maker.read_paraphrases(tmp_path / "paraphrases.jsonl", says)


def test_the_command_writes_and_checks(folder, made):
    maker.main([str(folder)])
    assert (folder / "clips.jsonl").read_text(encoding="utf-8") == made["clips.jsonl"]
    maker.main([str(folder), "--check"])
    (folder / "judgements.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"judgements.jsonl is out of date"):
        maker.main([str(folder), "--check"])
