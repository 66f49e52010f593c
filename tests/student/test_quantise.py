"""int8: close to fp32, and safe on processors that saturate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.student import export
from distill.student import quantise as quantise_module
from distill.student.export import onnx_logits
from distill.student.quantise import quantise


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
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) >= 12
    for node in products:
        weights = constants[node.input[1]]
        assert weights.dtype == np.int8
        assert 2 * 255 * int(np.abs(weights).max()) < 2**15


def product(matrix, path):
    """A graph of two products with the same activations."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], [f"y{name}"]) for name in ("a", "b")],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(matrix)])],
        [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, ["n", matrix.shape[1]]) for name in ("a", "b")],
        [numpy_helper.from_array(matrix, "a"), numpy_helper.from_array(-matrix, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("n_rows", [1, 7, 384, 385, 389, 768, 1_536])
def test_products_are_close_to_float32_whatever_the_scale_of_a_row(tmp_path, n_rows):
    chance = np.random.default_rng(n_rows)
    matrix = chance.normal(size=(n_rows, 5)).astype(np.float32) * np.asarray([1, 10, 100, 1e-3, 0], np.float32)
    rows = chance.normal(size=(4, n_rows)).astype(np.float32) * np.asarray([[1], [1e3], [1e-3], [0]], np.float32)
    product(matrix, tmp_path / "fp32.onnx")
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    found = export._session(tmp_path / "int8.onnx").run(None, {"x": rows})
    # each factor is off by half a step of at most 1/63 (weights) or 1/127 (activations) of its largest
    bound = (
        n_rows * np.abs(rows).max(axis=1)[:, None] * np.abs(matrix).max(axis=0) * (1 / 126 + 1 / 254 + 1 / 126 / 254)
    )
    for sign, part in zip((1, -1), found, strict=True):
        assert (np.abs(part - sign * rows @ matrix) <= bound * 1.001).all()


@pytest.mark.parametrize(
    ("n_rows", "n_parts"), [(1, 1), (384, 1), (385, 1), (390, 2), (768, 2), (1_536, 4), (3_072, 8)]
)
def test_parts_are_of_like_size(n_rows, n_parts):
    assert quantise_module._n_parts(n_rows) == n_parts


def test_large_tables_become_rows_of_int8(tmp_path):
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
