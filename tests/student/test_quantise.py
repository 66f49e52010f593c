"""int8: close to fp32, and safe on processors that saturate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from distill.student import export
from distill.student.export import onnx_logits, quantise


@pytest.fixture(scope="module")
def int8(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model_quantized.onnx"
    quantise(trained / "encoder" / "onnx" / "model.onnx", path)
    return path


def test_close_to_fp32_and_independent_of_the_company(trained, int8):
    ids = [[2, 7, 9, 3], [2, 8, 3], [2, 5, 6, 7, 8, 9, 10, 11, 12, 3]]
    expected = onnx_logits(trained / "encoder" / "onnx" / "model.onnx", ids)
    found = onnx_logits(int8, ids)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(found, np.concatenate([onnx_logits(int8, [each]) for each in ids]), atol=1e-5)


def test_no_pair_of_products_can_saturate(int8):
    graph = onnx.load(int8).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(products) >= 12
    for node in products:
        weights = constants[node.input[1]]
        assert weights.dtype == np.uint8
        assert 2 * int(weights.max()) * 127 < 2**15


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_blocks_give_the_matrix_back(rows):
    matrix = np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)
    weights, scales, zero_points = export._blocks(matrix)
    back = (weights.astype(np.float32) - zero_points.reshape(5, -1, 1)) * scales.reshape(5, -1, 1)
    back = back.reshape(5, -1)
    np.testing.assert_allclose(back[:, :rows].T, matrix, atol=scales.max() / 2 * 1.0001)
    assert not back[:, rows:].any()


def test_large_tables_become_rows_of_int8(tmp_path):
    from onnx import TensorProto, helper

    table = np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32) * np.linspace(0, 9, 2_000)[
        :, None
    ].astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "table",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), source)
    quantise(source, target)
    assert target.stat().st_size < source.stat().st_size / 2
    (rows,) = export._session(target).run(None, {"ids": np.arange(2_000)})
    assert (np.abs(rows - table).max(axis=1) <= np.abs(table).max(axis=1) / 254 + 1e-6).all()
