"""Sentence vectors, against brute force: the nearest, and which repeat an earlier one."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from bundles import KEYWORDS, make_graph, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from distill import embed
from distill.embed import Distinct, Embedder, near_duplicates, nearest
from distill.errors import BundleError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sentence encoder that knows the shop's words: a graph of gather, masked mean and Gemm."""
    folder = tmp_path_factory.mktemp("embedder")
    tokenizer = make_tokenizer(special_tokens=False)
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(16)
    tokenizer.save(str(folder / embed.TOKENIZER))
    onnx.save(make_graph(tokenizer, list(KEYWORDS)), folder / embed.GRAPH)
    return folder


@pytest.fixture(scope="module")
def embedder(folder):
    return Embedder(folder, threads=1)


def unit_vectors(n, dimension=3, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def small_blocks(monkeypatch):
    monkeypatch.setattr(embed, "_ROWS", 3)
    monkeypatch.setattr(embed, "_COLUMNS", 4)


def test_a_vector_is_float32_of_length_1_whatever_the_company(embedder):
    texts = ["where is my parcel ?", "refund", "cancel the order please", "refund the money please it is my money"] * 40
    together = embedder.embed(texts)
    assert together.dtype == np.float32
    assert together.shape == (160, embedder.dimension) == (160, len(KEYWORDS))
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed([text]) for text in texts[:4]])
    np.testing.assert_allclose(together[:4], alone, atol=1e-6)


def test_no_texts_have_no_vectors_and_progress_counts_all(embedder):
    assert embedder.embed([]).shape == (0, embedder.dimension)
    done = []
    embedder.embed(["refund"] * 130, done.append)
    assert sum(done) == 130


def test_odd_texts_have_vectors_too(embedder):
    vectors = embedder.embed(["", "   ", "half a pair \ud83d", "refund " * 100_000, "refund"])
    assert np.isfinite(vectors).all()
    assert not vectors[:2].any()
    np.testing.assert_allclose(vectors[3], vectors[4], atol=1e-6)


def test_what_is_no_encoder_is_named(tmp_path, folder):
    with pytest.raises(BundleError, match="not a sentence encoder"):
        Embedder(tmp_path)
    (tmp_path / embed.TOKENIZER).write_bytes((folder / embed.TOKENIZER).read_bytes())
    (tmp_path / embed.GRAPH).write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"not a sentence encoder.*remove the folder"):
        Embedder(tmp_path)


@given(n=st.integers(0, 13), m=st.integers(0, 13), k=st.integers(0, 6), seed=st.integers(0, 5))
def test_the_nearest_are_those_of_brute_force(n, m, k, seed):
    queries, known = unit_vectors(n, seed=seed), unit_vectors(m, seed=seed + 100)
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        positions, cosines = nearest(queries, known, k)
    assert positions.shape == cosines.shape == (n, min(k, m))
    expected = np.argsort(-(queries @ known.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ known.T, expected, axis=1), atol=1e-6)


def test_of_equally_near_ones_the_first_stands_first(monkeypatch):
    small_blocks(monkeypatch)
    known = np.tile(unit_vectors(1), (10, 1))
    assert nearest(known[:1], known, 10)[0].tolist() == [[*range(10)]]


def brute_force(vectors, threshold):
    kept, repeats = [], []
    for row, vector in enumerate(vectors):
        cosines = [float(vector @ vectors[other]) for other in kept]
        if cosines and max(cosines) >= threshold:
            repeats.append(kept[int(np.argmax(cosines))])
        else:
            repeats.append(-1)
            kept.append(row)
    return repeats


@given(n=st.integers(0, 40), seed=st.integers(0, 20), cut=st.integers(0, 40))
def test_near_duplicates_are_those_of_brute_force_in_one_go_or_in_two(n, seed, cut):
    vectors = unit_vectors(n, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        found = near_duplicates(vectors, 0.9)
        distinct = Distinct(0.9)
        in_two = [*distinct.add(vectors[:cut]), *distinct.add(vectors[cut:])]
    assert found.tolist() == in_two == brute_force(vectors, 0.9)


def test_the_later_one_goes_and_chains_do_not_form():
    """b is like a, c is like b alone: b goes, so c stays."""
    a, b, c = (np.asarray([np.cos(angle), np.sin(angle)], np.float32) for angle in (0.0, 0.2, 0.4))
    assert near_duplicates(np.stack([a, b, c, a]), float(np.cos(0.25))).tolist() == [-1, 0, -1, 0]


def test_memory_stays_linear(monkeypatch):
    """No block is larger than rows times columns, however many texts there are."""
    small_blocks(monkeypatch)
    shapes = []

    class Watched(np.ndarray):
        def __matmul__(self, other):
            product = np.asarray(self) @ np.asarray(other)
            shapes.append(product.shape)
            return product

    vectors = unit_vectors(50)
    nearest(vectors.view(Watched), vectors, 2)
    assert max(rows * columns for rows, columns in shapes) <= 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_opens_a_session_of_its_own(folder):
    embedder = Embedder(folder, threads=2)
    expected, session = embedder.embed(["where is my parcel"]), embedder._session
    child = os.fork()
    if not child:
        is_as_before = False
        try:
            is_as_before = np.array_equal(embedder.embed(["where is my parcel"]), expected)
        finally:
            os._exit(0 if is_as_before and embedder._session is not session else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert embedder._session is session
