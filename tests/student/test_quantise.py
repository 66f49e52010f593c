"""int8: close to fp32, and safe on processors that saturate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.student import export
from distill.student import quantise as quantise_module
from distill.student.export import onnx_logits
from distill.student.quantise import quantise, quantise_in_blocks

KINDS = {
    "integers": quantise,
    "divided": lambda source, target: quantise(source, target, [[2, 7, 9, 3], [2, 8, 3]]),
    "blocks": quantise_in_blocks,
}


@pytest.fixture(scope="module", params=KINDS)
def int8(request, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model_quantized.onnx"
    KINDS[request.param](trained / "encoder" / "onnx" / "model.onnx", path)
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
    products = [node for node in graph.node if node.op_type in {"MatMulIntegerToFloat", "MatMulNBits"}]
    assert len(products) >= 12
    for node in products:
        weights = constants[node.input[1]]
        if node.op_type == "MatMulNBits":  # signed activations, unsigned weights
            assert weights.dtype == np.uint8
            assert 2 * 127 * int(weights.max()) < 2**15
        else:
            assert weights.dtype == np.int8
            assert 2 * 255 * int(np.abs(weights).max()) < 2**15


def test_no_float32_product_with_a_matrix_is_left(int8):
    graph = onnx.load(int8).graph
    matrices = {each.name for each in graph.initializer if each.data_type == TensorProto.FLOAT and len(each.dims) == 2}
    assert not [node for node in graph.node if node.op_type == "MatMul" and matrices.intersection(node.input)]


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


def error(rows, matrix, folder, write):
    """The largest error of a product, and of its negative, once it is written."""
    product(matrix, folder / "fp32.onnx")
    write(folder / "fp32.onnx", folder / "int8.onnx")
    found = export._session(folder / "int8.onnx").run(None, {"x": rows})
    return np.max([np.abs(part - sign * rows @ matrix) for sign, part in zip((1, -1), found, strict=True)])


def encoder_like(matrix, path):
    """A graph from ids and mask to two products with the same activations: rows of a table, its first column 100 times the others."""
    product(matrix, path)
    model = onnx.load(path)
    table = np.random.default_rng(1).normal(size=(50, len(matrix))).astype(np.float32)
    table[:, 0] *= 100
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"])
        for name in ("input_ids", "attention_mask")
    )
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    model.graph.node.insert(0, helper.make_node("Gather", ["table", "input_ids"], ["x"]))
    onnx.save(model, path)
    return table


def test_a_large_column_does_not_cost_the_others_where_calibration_showed_it(tmp_path):
    matrix = np.random.default_rng(2).normal(size=(64, 5)).astype(np.float32)
    table = encoder_like(matrix, tmp_path / "fp32.onnx")
    ids = np.arange(20, 30)[None]
    errors = {}
    for name, calibration in {"as it is": [], "divided": [[1, 2, 3], [4, 5]]}.items():
        quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", calibration)
        session = export._session(tmp_path / "int8.onnx")
        found = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        errors[name] = np.abs(found[0] - table[ids] @ matrix).max()
        np.testing.assert_allclose(found[0], -found[1], atol=1e-3)
    assert errors["divided"] < errors["as it is"] / 3


def test_a_column_that_calibration_saw_empty_is_not_blown_up():
    peaks = quantise_module._peaks([np.asarray([[0, 4, 100]], np.float32), np.asarray([[0, -8, 1]], np.float32)])
    np.testing.assert_array_equal(peaks, np.asarray([2, 8, 100], np.float32))
    assert (quantise_module._peaks([np.zeros((1, 3), np.float32)]) > 0).all()


@pytest.mark.parametrize("n_rows", [1, 7, 31, 32, 33, 384, 1_536])
def test_blocks_are_close_to_float32(tmp_path, n_rows):
    chance = np.random.default_rng(n_rows)
    matrix = chance.normal(size=(n_rows, 5)).astype(np.float32) * np.asarray([1, 10, 100, 1e-3, 0], np.float32)
    rows = chance.normal(size=(4, n_rows)).astype(np.float32)
    bound = n_rows * np.abs(rows).max() * np.abs(matrix).max() * (1 / 128 + 1 / 254 + 1 / 128 / 254)
    assert error(rows, matrix, tmp_path, quantise_in_blocks) <= bound * 1.001


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
