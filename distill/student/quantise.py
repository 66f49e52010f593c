"""The encoder in 8 bits, in two ways; in both the table of embeddings is rows of int8.

``quantise``: products with constant matrices are integer products; three times as fast as float32. ``quantise_in_blocks``: scales are
finer, so fewer answers change; a query by itself takes less time than in float32, one in a batch somewhat more.

Whatever the processor, both are safe: on x86 without VNNI the products of 8-bit activations and weights are added in pairs with
saturation at 16 bits, so weights keep to 7 of their 8 bits and no pair can reach it: with unsigned activations and weights from -63 to 63
2 x 255 x 63 < 2^15, with signed activations and weights from 0 to 128 2 x 127 x 128 < 2^15.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import storage_errors
from distill.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from distill.student.tokens import Ids

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Constants = dict[str, np.ndarray[Any, Any]]

__all__ = ["quantise", "quantise_in_blocks"]

_MOST_APART = 16
"""Columns of wide activations that are multiplied in float32: with them among the others the range would be theirs."""

_BLOCK, _BLOCK_MIDDLE = 32, 64
"""Rows of a matrix that share a scale in ``quantise_in_blocks``, and what stands for 0 there."""

_LARGEST_WEIGHT, _LARGEST_INT8, _STEPS, _TINY = 63.0, 127.0, 255, 1e-12
_MATRIX, _LARGE_TABLE, _LEAST_PEAK = 2, 1_000, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class _Range:
    """How a value inside the graph is multiplied in 8 bits.

    Attributes:
        divisors: What its columns are divided by, float32 of shape (columns,); None: nothing.
        apart: Columns that are multiplied in float32, int64, ascending.
        scale: Step of the others.
        zero: Which of the steps 0 to 255 stands for 0.
    """

    divisors: Array | None
    apart: np.ndarray[Any, np.dtype[np.int64]]
    scale: float
    zero: int


def quantise(source: Path, target: Path, calibration: Sequence[Ids]) -> None:
    """Writes a copy of a float32 graph with 8-bit products (``MatMulIntegerToFloat``) and embeddings.

    Activations have the range that calibration showed, weights a scale for each column; so a query's logits do not depend on the company
    it is in, and quantising is one pass over the activations. What lies beyond a range is cut to its end.

    A few columns of a transformer's activations are ten times as large as the others and would have the range to themselves. They are
    divided, and their rows of the weights multiplied, so that neither is much larger than the rest (Xiao et al. 2022, SmoothQuant). What
    a feed-forward layer's activation function gives is nearly one-sided, and dividing it would waste the range below zero: its largest
    columns are multiplied in float32 instead (Dettmers et al. 2022, LLM.int8()).

    Args:
        source: The float32 graph.
        target: The file to write.
        calibration: Ids of texts, one or more, that show the ranges.

    Raises:
        ExportError: A value inside the graph is not finite.
        StorageError: The file could not be written.
    """
    import onnx

    quantised: set[str] = set()
    with storage_errors(target):
        model = onnx.load(str(source))
        matrices = _matrices(model)
        ranges = _ranges(model, matrices, calibration)
        _take_biases(model, matrices)
        _rewrite(
            model,
            matrices,
            lambda node, matrix, constants: _product(node, matrix, constants, quantised, ranges[node.input[0]]),
        )
        onnx.save(model, str(target))


def quantise_in_blocks(source: Path, target: Path) -> None:
    """Writes a copy of a float32 graph with 8-bit weights in blocks of 32 (``MatMulNBits``) and embeddings of 8 bits.

    Activations are quantised at run time in the same blocks, a row at a time, so that a query's logits do not depend on the company it
    is in, and outliers spoil their block only.

    Args:
        source: The float32 graph.
        target: The file to write.

    Raises:
        StorageError: The file could not be written.
    """
    import onnx

    with storage_errors(target):
        model = onnx.load(str(source))
        _rewrite(model, _matrices(model), _block_product)
        onnx.save(model, str(target))


def _matrices(model: ModelProto) -> dict[str, Array]:
    """The constant float32 matrices of a graph by name."""
    from onnx import TensorProto, numpy_helper

    return {
        each.name: numpy_helper.to_array(each)
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT and len(each.dims) == _MATRIX
    }


def _rewrite(
    model: ModelProto,
    matrices: Mapping[str, Array],
    product: Callable[[NodeProto, Array, Constants], Iterable[NodeProto]],
) -> None:
    """Puts what ``product`` gives in the place of each product with a constant matrix, and int8 rows in that of large tables."""
    from onnx import helper, numpy_helper

    graph = model.graph
    nodes: list[NodeProto] = []
    constants: Constants = {}
    for node in graph.node:
        matrix = matrices.get(_constant(node))
        if matrix is not None and node.op_type == "MatMul":
            nodes += product(node, matrix, constants)
        elif matrix is not None and node.op_type == "Gather" and len(matrix) >= _LARGE_TABLE:
            nodes += _gather(node, matrix, constants)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in constants.items())])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _constant(node: NodeProto) -> str:
    """Name of the input that would be a constant matrix: a product's second, otherwise the first."""
    return node.input[1] if node.op_type == "MatMul" else node.input[0] if node.input else ""


def _ranges(model: ModelProto, matrices: Mapping[str, Array], calibration: Sequence[Ids]) -> dict[str, _Range]:
    """For each value that is multiplied with constant matrices how that is done in 8 bits."""
    weights: dict[str, list[Array]] = {}
    for node in model.graph.node:
        matrix = matrices.get(_constant(node))
        if node.op_type == "MatMul" and matrix is not None:
            weights.setdefault(node.input[0], []).append(matrix)
    extremes = _extremes(model, list(weights), calibration)
    return {name: _range_of(low, high, weights[name]) for name, (low, high) in extremes.items()}


def _range_of(low: Array, high: Array, weights: Sequence[Array]) -> _Range:
    """By the least and the greatest value of each column, (columns,), and the matrices, (columns, outputs), it is multiplied with."""
    peaks = _peaks([low, high])
    apart = np.zeros(0, np.int64)
    divisors = None
    if all(len(matrix) > matrix.shape[1] for matrix in weights):
        n_apart = min(_MOST_APART, len(peaks) // 2)
        apart = np.sort(np.argsort(-peaks, kind="stable")[:n_apart])
        low, high = np.delete(low, apart), np.delete(high, apart)
    else:
        divisors = np.sqrt(peaks / _peaks([matrix.T for matrix in weights]))
        low, high = low / divisors, high / divisors
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ExportError("a value inside the graph is not finite; it cannot be had in 8 bits")
    least, greatest = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    scale = max((greatest - least) / _STEPS, _TINY)
    return _Range(divisors, apart, scale, round(-least / scale))


def _peaks(tables: Sequence[Array]) -> Array:
    """The largest magnitude in each column over all tables, none much smaller than their median.

    A column that calibration never saw large may be so in use: no peak counts for less than a share of the median one.
    """
    peaks: Array = np.max([np.abs(table).reshape(-1, table.shape[-1]).max(axis=0) for table in tables], axis=0)
    return np.maximum(peaks, np.float32(max(_LEAST_PEAK * float(np.median(peaks)), _TINY)))


def _extremes(model: ModelProto, names: Sequence[str], calibration: Sequence[Ids]) -> dict[str, tuple[Array, Array]]:
    """The least and the greatest value of each column, float32 of shape (columns,), of values inside a graph, by their names."""
    import onnx
    import onnxruntime

    if not names:
        return {}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: dict[str, tuple[Array, Array]] = {}
    for ids in filter(len, calibration):
        feed = {"input_ids": np.asarray([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for name, values in zip(names, session.run(names, feed), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return found


def _take_biases(model: ModelProto, matrices: Mapping[str, Array]) -> None:
    """Makes what is added to a product with a constant matrix, where it is a constant vector, the product's third input."""
    graph = model.graph
    lengths = {each.name: each.dims[0] for each in graph.initializer if len(each.dims) == 1}
    given = {each.name for each in graph.output}
    takers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    taken = []
    for node in graph.node:
        after = takers.get(node.output[0], [])
        matrix = matrices.get(_constant(node)) if node.op_type == "MatMul" else None
        if matrix is None or [each.op_type for each in after] != ["Add"] or node.output[0] in given:
            continue
        (add,) = after
        bias = [name for name in add.input if lengths.get(name) == matrix.shape[1]]
        if bias:
            node.input.append(bias[0])
            node.output[0] = add.output[0]
            taken.append(add)
    for add in taken:
        graph.node.remove(add)


def _product(
    node: NodeProto, matrix: Array, constants: Constants, quantised: set[str], how: _Range
) -> Iterator[NodeProto]:
    """An integer product in the place of a product with a constant matrix, and where columns are apart one in float32.

    Args:
        node: The product; its third input, if there is one, is a bias.
        matrix: float32 of shape (rows, columns).
        constants: What the graph holds; added to.
        quantised: Activations that are there in 8 bits already, for products share them; added to.
        how: How the activations are quantised.
    """
    from onnx import helper

    (activations, weights, *bias), (output,) = node.input, node.output
    if activations not in quantised:
        quantised.add(activations)
        yield from _quantised_activations(activations, constants, how)
    name, in_8_bits = f"{weights}_{output}", f"{output}_in_8_bits" if len(how.apart) else output
    rows = matrix if how.divisors is None else matrix * how.divisors[:, None]
    if len(how.apart):
        rows = rows.copy()
        rows[how.apart] = 0
    constants[name], constants[f"{name}_scales"] = _columns(rows)
    yield helper.make_node(
        "MatMulIntegerToFloat",
        [f"{activations}_int8", name, f"{activations}_scale", f"{name}_scales", f"{activations}_zero", "", *bias],
        [in_8_bits],
        domain="com.microsoft",
    )
    if len(how.apart):
        constants[f"{name}_apart"] = matrix[how.apart]
        yield helper.make_node("MatMul", [f"{activations}_apart", f"{name}_apart"], [f"{output}_apart"])
        yield helper.make_node("Add", [in_8_bits, f"{output}_apart"], [output])


def _quantised_activations(activations: str, constants: Constants, how: _Range) -> Iterator[NodeProto]:
    """The divided columns in steps of ``how.scale``, and those that are apart as they are."""
    from onnx import helper

    constants[f"{activations}_scale"] = np.asarray(how.scale, np.float32)
    constants[f"{activations}_zero"] = np.asarray(how.zero, np.uint8)
    divided = activations
    if how.divisors is not None:
        divided = f"{activations}_divided"
        constants[f"{activations}_factors"] = 1 / how.divisors
        yield helper.make_node("Mul", [activations, f"{activations}_factors"], [divided])
    yield helper.make_node(
        "QuantizeLinear", [divided, f"{activations}_scale", f"{activations}_zero"], [f"{activations}_int8"]
    )
    if len(how.apart):
        constants[f"{activations}_columns"] = how.apart
        yield helper.make_node("Gather", [activations, f"{activations}_columns"], [f"{activations}_apart"], axis=-1)


def _columns(matrix: Array) -> tuple[np.ndarray[Any, np.dtype[np.int8]], Array]:
    """Weights as int8 of shape (rows, columns), and a float32 scale for each column."""
    scales = np.maximum(np.abs(matrix).max(axis=0) / _LARGEST_WEIGHT, _TINY).astype(np.float32)
    weights = np.clip(np.rint(matrix / scales), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    return weights.astype(np.int8), scales


def _block_product(node: NodeProto, matrix: Array, constants: Constants) -> list[NodeProto]:
    """``MatMulNBits`` in the place of a product with a constant matrix."""
    from onnx import helper

    parts = [f"{node.input[1]}_{part}" for part in ("blocks", "scales", "zero_points")]
    constants |= dict(zip(parts, _blocks(matrix), strict=True))
    rows, columns = matrix.shape
    inputs, shape = [node.input[0], *parts], {"K": rows, "N": columns, "bits": 8, "block_size": _BLOCK}
    return [
        helper.make_node("MatMulNBits", inputs, list(node.output), domain="com.microsoft", accuracy_level=4, **shape)
    ]


def _blocks(matrix: Array) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Array, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Weights (columns, blocks, 32) as uint8, a float32 scale and a uint8 zero point for each block, of a matrix (rows, columns)."""
    rows, columns = matrix.shape
    n_blocks = -(-rows // _BLOCK)
    padded = np.zeros((columns, n_blocks * _BLOCK), np.float32)
    padded[:, :rows] = matrix.T
    blocks = padded.reshape(columns, n_blocks, _BLOCK)
    scales = np.maximum(np.abs(blocks).max(axis=2) / _BLOCK_MIDDLE, _TINY).astype(np.float32)
    weights = np.rint(blocks / scales[..., None]) + _BLOCK_MIDDLE
    return weights.astype(np.uint8), scales.ravel(), np.full(scales.size, _BLOCK_MIDDLE, np.uint8)


def _gather(node: NodeProto, table: Array, constants: Constants) -> list[NodeProto]:
    """Gathers int8 rows and their scales in the place of float32 rows."""
    from onnx import TensorProto, helper

    (name, indices), (output,) = node.input, node.output
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / _LARGEST_INT8, _TINY).astype(np.float32)
    constants[f"{name}_rows"], constants[f"{name}_scales"] = np.rint(table / scales).astype(np.int8), scales
    return [
        helper.make_node("Gather", [f"{name}_rows", indices], [f"{output}_rows"]),
        helper.make_node("Cast", [f"{output}_rows"], [f"{output}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scales", indices], [f"{output}_scales"]),
        helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output]),
    ]
