"""The static student: what is exported is what was trained, whatever the table is stored as."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.errors import ExportError
from distill.student.export import _rows_as_int8, export_static, onnx_logits, parity
from distill.student.static import Static, bigram_buckets
from distill.student.tokens import pad

VOCABULARY, BUCKETS = 50, 61


def make_static(texts):
    torch.manual_seed(0)
    return Static(
        torch.randn(VOCABULARY, 12), torch.rand(VOCABULARY), texts, n_labels=3, width=8, n_buckets=BUCKETS, dropout=0.1
    )


@pytest.fixture
def static():
    model = make_static([[1, 2, 3], [4, 5], [6]])
    with torch.no_grad():
        for table in (model.token_delta, model.gate_delta, model.bigrams):
            table.weight[1:].normal_()
    return model.eval()


def _logits(model, ids):
    with torch.inference_mode():
        return model(*map(torch.from_numpy, pad(ids))).numpy()


@pytest.mark.parametrize(("table", "tolerance"), [(np.float32, 1e-5), (np.int8, 0.2)])
def test_folded_graph_gives_the_modules_logits(static, tmp_path, table, tolerance):
    export_static(static.fold(), tmp_path / "model.onnx", table)
    ids = [[1, 2, 3], [3, 2, 1], [4, 5], [0], [], [49, 48, 47, 46, 45]]
    np.testing.assert_allclose(onnx_logits(tmp_path / "model.onnx", ids), _logits(static, ids), atol=tolerance)


def test_logits_do_not_depend_on_padding(static):
    ids = [[1, 2, 3], [4], [], [7, 8, 9, 10, 11, 12]]
    np.testing.assert_allclose(
        _logits(static, ids), np.concatenate([_logits(static, [each]) for each in ids]), atol=1e-6
    )


def test_order_matters_through_bigrams(static):
    assert np.abs(_logits(static, [[1, 2, 3]]) - _logits(static, [[3, 2, 1]])).max() > 1e-3


def test_bigrams_are_left_out_while_training_only(static):
    ids = [[1, 2, 3]] * 400
    static.dropout.p, static.bigram_dropout = 0.0, 0.5
    answers = _logits(static, ids)
    np.testing.assert_allclose(answers, np.tile(answers[:1], (400, 1)), atol=1e-6)
    seen = _logits(static.train(), ids)
    assert len(np.unique(seen.round(4), axis=0)) > 4


def test_module_hashes_bigrams_as_documented(static):
    ids = [1, 2, 3]
    (seen,) = (slots.tolist() for slots in static.bucket_slot[torch.tensor([bigram_buckets(ids, BUCKETS)])])
    assert all(slot > 0 for slot, bucket in zip(seen, bigram_buckets(ids, BUCKETS), strict=True) if bucket)


def test_temperature_divides_the_logits(static):
    before = _logits(static, [[1, 2]])
    static.bake_temperature(2.5)
    np.testing.assert_allclose(_logits(static, [[1, 2]]) * 2.5, before, rtol=1e-5)


def test_graph_is_small(static, tmp_path):
    export_static(static.fold(), tmp_path / "model.onnx", np.int8)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert len(graph.node) <= 18
    assert sum(node.op_type == "Gather" for node in graph.node) == 3


def test_buckets_that_training_never_saw_take_no_room(static):
    folded = static.fold()
    n_bigrams = len(static.bigrams.weight)
    assert len(folded.table) == n_bigrams + VOCABULARY < BUCKETS + VOCABULARY
    assert folded.table[1:].any(axis=1).all()
    assert not folded.table[0].any()
    assert sorted(set(folded.places.tolist())) == list(range(len(folded.table)))
    assert folded.places[0] == 0  # what is masked


@pytest.mark.parametrize("table", [np.float32, np.int8])
def test_the_order_of_rows_changes_no_bit_of_an_answer(static, tmp_path, table):
    folded, asked = static.fold(), [[1, 2, 3], [4, 5, 6, 7], [49], []]
    assert static._row_order.tolist() != sorted(static._row_order)
    static._row_order = np.arange(len(folded.table))
    export_static(folded, tmp_path / "ordered.onnx", table)
    export_static(static.fold(), tmp_path / "as-trained.onnx", table)
    ordered, as_trained = (onnx_logits(tmp_path / f"{name}.onnx", asked) for name in ("ordered", "as-trained"))
    np.testing.assert_array_equal(ordered, as_trained)


def test_the_most_used_rows_come_first_and_a_rare_token_beside_its_bigrams():
    texts = [[1, 2], [1, 2], [1, 3], [4], [5, 1]]
    static = make_static(texts)
    row_of = dict(zip(static._row_order.tolist(), range(len(static._row_order)), strict=True))

    def token(number):
        return row_of[len(static.bigrams.weight) + number]

    def bigrams(*ids):
        return [row_of[slot] for slot in static.bucket_slot[torch.tensor(bigram_buckets(ids, BUCKETS))].tolist()]

    assert (row_of[0], token(1)) == (0, 1)  # the zeros, and what is used most
    assert token(2) < token(3) < token(4) < token(5) < token(0) < token(6)  # by use, then by number
    for number, own in ((3, bigrams(1, 3)[1:]), (4, bigrams(4)), (5, bigrams(5, 1)[:2])):
        together = sorted([token(number), *own])
        assert together == list(range(together[0], together[0] + 3))


@given(st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), max_size=9))
def test_rows_stand_once_each_by_how_often_training_used_them(texts):
    static = make_static(texts)
    slots = static.bucket_slot.tolist()
    uses = Counter(slots[bucket] for ids in texts if ids for bucket in bigram_buckets(ids, BUCKETS))
    uses.update(len(static.bigrams.weight) + token for ids in texts for token in ids)
    first, *others = static._row_order.tolist()
    assert first == 0
    assert sorted(others) == list(range(1, len(static.bigrams.weight) + VOCABULARY))
    assert [uses[row] for row in others] == sorted((uses[row] for row in others), reverse=True)


def test_int8_rows_are_summed_exactly(static, tmp_path):
    export_static(static.fold(), tmp_path / "model.onnx", np.int8)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("summed", onnx.TensorProto.FLOAT, ["batch_size", 8]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    entries = stored["table"].astype(np.int64) - stored["middle"]
    assert np.abs(entries).max() == 127
    assert stored["table"].dtype == stored["factors"].dtype == np.uint8
    texts = [[1, 2, 3], [49], [7, 8, 9, 10, 11, 12]]
    ids, mask = pad(texts)
    (summed,) = session.run(["summed"], {"input_ids": ids, "attention_mask": mask})
    for row, text in zip(summed, texts, strict=True):
        keys = [*(token + BUCKETS for token in text), *bigram_buckets(text, BUCKETS)]
        rows = stored["places"][keys]
        weighted = entries[rows] * stored["factors"][rows].astype(np.int64)[:, None]
        np.testing.assert_array_equal(row, weighted.sum(axis=0))


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-1e4, 1e4, width=32)))
def test_int8_rows_are_off_by_half_a_step_of_their_own(table):
    entries, factors, unit = _rows_as_int8(table)
    assert entries.dtype == np.int8
    assert 2 * np.abs(entries.astype(int)).max() * int(factors.max()) < 2**15  # no pair of products can saturate
    steps = factors * unit
    assert (np.abs(entries * steps[:, None] - table) <= steps[:, None] * 0.501).all()
    assert (steps <= np.abs(table).max(axis=1) / 127 + 1.001 * unit).all()


def test_parity_refuses_another_models_graph(static, tmp_path):
    export_static(static.fold(), tmp_path / "model.onnx")
    assert parity(static, tmp_path / "model.onnx", VOCABULARY) < 1e-4
    static.bake_temperature(0.5)
    with pytest.raises(ExportError, match="differs from the trained model"):
        parity(static, tmp_path / "model.onnx", VOCABULARY)
