"""int8: close to fp32, and safe on processors that saturate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.errors import ExportError
from distill.student import export
from distill.student import quantise as quantise_module
from distill.student.export import onnx_logits
from distill.student.quantise import quantise, quantise_in_blocks

IDS = [[2, 7, 9, 3], [2, 8, 3], [2, 5, 6, 7, 8, 9, 10, 11, 12, 3]]
KINDS = {"integers": lambda source, target: quantise(source, target, IDS), "blocks": quantise_in_blocks}


@pytest.fixture(scope="module", params=KINDS)
def int8(request, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model_quantized.onnx"
    KINDS[request.param](trained / "encoder" / "onnx" / "model.onnx", path)
    return path


def test_close_to_fp32_and_independent_of_the_company(trained, int8):
    expected = onnx_logits(trained / "encoder" / "onnx" / "model.onnx", IDS)
    found = onnx_logits(int8, IDS)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(found, np.concatenate([onnx_logits(int8, [each]) for each in IDS]), atol=1e-5)


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


def test_no_float32_product_with_a_large_matrix_is_left(int8):
    graph = onnx.load(int8).graph
    matrices = {each.name: each.dims for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    left = [matrices[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices]
    assert all(rows <= 16 for rows, _ in left)


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


def encoder_like(matrices, path, largest=100.0, table=None):
    """A graph from ids and mask to products of the same activations, each with a bias: rows of a table, its first column large.

    Gives the table.
    """
    if table is None:
        table = np.random.default_rng(1).normal(size=(50, len(matrices[0]))).astype(np.float32)
        table[:, 0] *= largest
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x"])]
    constants = {"table": table}
    for number, matrix in enumerate(matrices):
        constants |= {f"m{number}": matrix, f"b{number}": np.arange(matrix.shape[1], dtype=np.float32)}
        nodes.append(helper.make_node("MatMul", ["x", f"m{number}"], [f"p{number}"]))
        nodes.append(helper.make_node("Add", [f"p{number}", f"b{number}"], [f"y{number}"]))
    inputs = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in inputs],
        [
            helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, ["n", "length", matrix.shape[1]])
            for number, matrix in enumerate(matrices)
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return table


def products_of(path, ids):
    session = export._session(path)
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})


@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 5), (7, 7), (384, 384), (384, 1_536), (64, 5), (1_536, 384)])
def test_products_are_close_to_float32_within_the_ranges(tmp_path, n_rows, n_columns):
    chance = np.random.default_rng(n_rows)
    matrices = [chance.normal(size=(n_rows, n_columns)).astype(np.float32) for _ in range(2)]
    table = encoder_like(matrices, tmp_path / "fp32.onnx")
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[*range(50)]])
    ids = np.arange(50)[None]
    for matrix, found in zip(matrices, products_of(tmp_path / "int8.onnx", ids), strict=True):
        product = table[ids] @ matrix
        assert np.abs(found - product - np.arange(n_columns)).mean() < 0.02 * product.std()


@pytest.mark.parametrize("n_columns", [5, 64, 200])
def test_a_large_column_does_not_cost_the_others(tmp_path, n_columns):
    """Whether it is divided (no fewer outputs than columns) or apart."""
    matrix = np.random.default_rng(2).normal(size=(64, n_columns)).astype(np.float32)
    errors = {}
    for largest in (1.0, 100.0):
        table = encoder_like([matrix], tmp_path / "fp32.onnx", largest)
        quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[*range(50)]])
        ids = np.arange(20, 30)[None]
        (found,) = products_of(tmp_path / "int8.onnx", ids)
        errors[largest] = np.abs(found - table[ids] @ matrix - np.arange(n_columns)).mean()
    assert errors[100.0] < 10 * errors[1.0]


def test_what_lies_beyond_a_range_is_cut(tmp_path):
    """No integer wraps around: the product grows up to the range's end and then stays."""
    matrix = np.eye(4, dtype=np.float32)
    rows = np.asarray(
        [[1, -1, 1, -1], [0.5, 0.5, 0.5, 0.5], [100, 100, 100, 100], [-100, -100, -100, -100]], np.float32
    )
    encoder_like([matrix], tmp_path / "fp32.onnx", table=rows)
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[0], [1]])
    (found,) = products_of(tmp_path / "int8.onnx", np.arange(4)[None])
    expected = np.clip(rows, -1, 1)
    np.testing.assert_allclose(found[0] - np.arange(4), expected, atol=0.02)


def test_only_a_vector_for_every_column_is_taken_as_a_bias(tmp_path):
    encoder_like([np.eye(8, dtype=np.float32)], tmp_path / "fp32.onnx")
    model = onnx.load(tmp_path / "fp32.onnx")
    (bias,) = [each for each in model.graph.initializer if each.name == "b0"]
    bias.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "b0"))
    onnx.save(model, tmp_path / "fp32.onnx")
    expected = products_of(tmp_path / "fp32.onnx", np.arange(5)[None])
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[*range(5)]])
    np.testing.assert_allclose(products_of(tmp_path / "int8.onnx", np.arange(5)[None]), expected, atol=2)


def test_a_product_that_is_an_output_keeps_its_name(tmp_path):
    encoder_like([np.eye(8, dtype=np.float32)], tmp_path / "fp32.onnx")
    model = onnx.load(tmp_path / "fp32.onnx")
    model.graph.output.append(helper.make_tensor_value_info("p0", TensorProto.FLOAT, ["n", "length", 8]))
    onnx.save(model, tmp_path / "fp32.onnx")
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[1, 2]])
    assert len(products_of(tmp_path / "int8.onnx", np.arange(5)[None])) == 2


def test_a_large_table_may_feed_a_product(tmp_path):
    table = np.random.default_rng(3).normal(size=(1_500, 8)).astype(np.float32)
    encoder_like([np.eye(8, dtype=np.float32)], tmp_path / "fp32.onnx", table=table)
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[*range(1_500)]])
    (found,) = products_of(tmp_path / "int8.onnx", np.arange(1_500)[None])
    np.testing.assert_allclose(found[0] - np.arange(8), table, atol=0.1)


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    encoder_like([np.eye(4, dtype=np.float32)], tmp_path / "fp32.onnx", table=np.full((3, 4), np.nan, np.float32))
    with pytest.raises(ExportError, match="not finite"):
        quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[], [1]])


def test_biases_are_taken_into_the_products(tmp_path):
    encoder_like([np.eye(8, dtype=np.float32)] * 2, tmp_path / "fp32.onnx")
    quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [[1, 2]])
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    assert "Add" not in {node.op_type for node in nodes}
    assert [node.input[6] for node in nodes if node.op_type == "MatMulIntegerToFloat"] == ["b0", "b1"]
    assert [node.op_type for node in nodes].count("QuantizeLinear") == 1


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
    quantise(source, target, [[1]])
    assert target.stat().st_size < source.stat().st_size / 2
    (rows,) = export._session(target).run(None, {"ids": np.arange(2_000)})
    assert (np.abs(rows - table).max(axis=1) <= np.abs(table).max(axis=1) / 254 + 1e-6).all()
