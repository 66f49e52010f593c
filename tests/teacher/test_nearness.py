"""How near a text lies to an intent that is sought: against the same in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.teacher.nearness import Nearness, known_of
from distill.types import Intent

NAMES = ("a", "b", "c", "oos")


class ByNumber:
    """A vector of length 1 for each number."""

    def embed(self, texts, on_done=None):
        if not texts:
            return np.zeros((0, 5), np.float32)
        vectors = np.stack([np.random.default_rng(int(text)).normal(size=5) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_plain_words(vectors, labels, loose, known):
    """The gap of each text, one by one."""
    homes = {}
    for name in {name for own in labels for name in own} - {"oos"}:
        mean = sum(vector for vector, own in zip(vectors, labels, strict=True) if name in own)
        homes[name] = mean / np.linalg.norm(mean)
    gaps = []
    for vector, own in zip(vectors, labels, strict=True):
        cosine = {name: float(vector @ home) for name, home in homes.items()}
        mine = [cosine[name] for name in own if name in cosine] or list(cosine.values()) or [-1.0]
        near = [float(vector @ each) for name, texts in known for each in texts if name not in own]
        if set(own) & set(loose):
            near += [value for name, value in cosine.items() if name not in own]
        gaps.append(max([*near, -1.0]) - max(mine))
    return gaps


LABELS = st.lists(st.frozensets(st.sampled_from(NAMES), max_size=2), min_size=1, max_size=12)


@given(LABELS, st.frozensets(st.sampled_from(NAMES), max_size=2), st.lists(st.integers(100, 110), max_size=4))
def test_it_is_what_it_says(labels, loose, known):
    texts = [str(number) for number in range(len(labels))]
    near = Nearness(ByNumber(), texts, labels, loose=loose)
    near.learn("a", [str(number) for number in known])
    near.learn("new", ["200"])
    embed = ByNumber().embed
    expected = in_plain_words(
        embed(texts), labels, loose, [("a", embed([str(number) for number in known])), ("new", embed(["200"]))]
    )
    assert near.gaps == pytest.approx(expected, abs=1e-5)


def test_no_text_and_nothing_known():
    near = Nearness(ByNumber(), ["1", "2"], [{"a"}, {"b"}])
    before = near.gaps
    near.learn("new", [])
    assert (near.gaps == before).all()


def test_what_is_known_of_an_intent():
    assert known_of(Intent("lost_parcel", "It never came", ("gone",))) == ["lost parcel: It never came", "gone"]
    assert known_of(Intent("lost-parcel", "", ())) == ["lost parcel"]
    assert known_of(Intent("oos", "Fits none", ("sing",))) == ["sing"], "nothing is like that description"
