"""The encoder in 8 bits, in two ways; in both the table of embeddings is rows of int8.

``quantise``: products with constant matrices are integer products; twice as fast as float32. ``quantise_in_blocks``: scales are
finer, so fewer answers change; a query by itself takes less time than in float32, one in a batch somewhat more.

Whatever the processor, both are safe: on x86 without VNNI the products of 8-bit activations and weights are added in pairs with
saturation at 16 bits, so weights keep to 7 of their 8 bits and no pair can reach it: with unsigned activations and weights from -63 to 63
2 x 255 x 63 < 2^15, with signed activations and weights from 0 to 128 2 x 127 x 128 < 2^15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from distill.student.tokens import Ids

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Constants = dict[str, np.ndarray[Any, Any]]

__all__ = ["quantise", "quantise_in_blocks"]

_MOST_ROWS = 384
"""Of a matrix that share a scale: with more, outliers of the activations cost the others too much."""

_BLOCK, _BLOCK_MIDDLE = 32, 64
"""Rows of a matrix that share a scale in ``quantise_in_blocks``, and what stands for 0 there."""

_LARGEST_WEIGHT, _LARGEST_ACTIVATION, _LARGEST_INT8, _MIDDLE, _TINY = 63.0, 127.0, 127.0, 128, 1e-12
_MATRIX, _LARGE_TABLE, _LEAST_PEAK = 2, 1_000, 0.25


def quantise(source: Path, target: Path, calibration: Sequence[Ids] = ()) -> None:
    """Writes a copy of a float32 graph with 8-bit products (``MatMulIntegerToFloat``) and embeddings.

    Activations are quantised at run time with a scale for each row and each ``_MOST_ROWS`` of its columns, weights with a scale for each
    column; so a query's logits do not depend on the company it is in. With one scale a tensor, as onnxruntime's ``quantize_dynamic`` has
    it, more answers flip.

    A few columns of a transformer's activations are ten times as large as the others and would have the range to themselves. They are
    divided, and their rows of the weights multiplied, so that neither is much larger than the rest (Xiao et al. 2022, SmoothQuant).

    Args:
        source: The float32 graph.
        target: The file to write.
        calibration: Ids of texts that show how large each column gets; none: columns stay as they are.

    Raises:
        StorageError: The file could not be written.
    """
    import onnx

    quantised: set[str] = set()
    with storage_errors(target):
        model = onnx.load(str(source))
        matrices = _matrices(model)
        divisors = _divisors(model, matrices, calibration) if calibration else {}
        _rewrite(
            model,
            matrices,
            lambda node, matrix, constants: _product(node, matrix, constants, quantised, divisors.get(node.input[0])),
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


def _divisors(model: ModelProto, matrices: Mapping[str, Array], calibration: Sequence[Ids]) -> dict[str, Array]:
    """For each activation what its columns are divided by: the root of their peak over the peak of their weights.

    A column that calibration never saw large may be so in use: no peak counts for less than a share of the median one.
    """
    weights: dict[str, list[Array]] = {}
    for node in model.graph.node:
        matrix = matrices.get(_constant(node))
        if node.op_type == "MatMul" and matrix is not None:
            weights.setdefault(node.input[0], []).append(matrix)
    return {
        name: np.sqrt(_peaks([activations]) / _peaks([matrix.T for matrix in weights[name]]))
        for name, activations in _activations(model, list(weights), calibration)
    }


def _peaks(tables: Sequence[Array]) -> Array:
    """The largest magnitude in each column over all tables, none much smaller than their median."""
    peaks: Array = np.max([np.abs(table).max(axis=0) for table in tables], axis=0)
    return np.maximum(peaks, np.float32(max(_LEAST_PEAK * float(np.median(peaks)), _TINY)))


def _activations(model: ModelProto, names: Sequence[str], calibration: Sequence[Ids]) -> Iterator[tuple[str, Array]]:
    """Name and largest magnitudes, float32 of shape (n_texts, columns), of values inside a graph."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for ids in calibration:
        feed = {"input_ids": np.asarray([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for name, values in zip(names, session.run(names, feed), strict=True):
            rows[name].append(np.abs(values).reshape(-1, values.shape[-1]).max(axis=0))
    return ((name, np.stack(found)) for name, found in rows.items())


def _product(
    node: NodeProto, matrix: Array, constants: Constants, quantised: set[str], divisors: Array | None
) -> Iterator[NodeProto]:
    """Integer products, one for each part of the matrix, and their sum, in the place of a product with a constant matrix.

    Args:
        node: The product.
        matrix: float32 of shape (rows, columns).
        constants: What the graph holds; added to.
        quantised: Activations that are there in 8 bits already, for products share them; added to.
        divisors: What the activations' columns are divided by, (rows,); None: nothing.
    """
    from onnx import helper

    (activations, weights), (output,) = node.input, node.output
    n_parts = _n_parts(len(matrix))
    parts = [f"{activations}_{number}_of_{n_parts}" for number in range(n_parts)]
    if activations not in quantised:
        quantised.add(activations)
        yield from _quantised_activations(activations, parts, len(matrix), constants, divisors)
    if divisors is not None:
        matrix = matrix * divisors[:, None]
    sums = [f"{output}_{number}" for number in range(n_parts)] if n_parts > 1 else [output]
    for part, total, rows in zip(parts, sums, np.split(matrix, n_parts), strict=True):
        name = f"{weights}_{total}"
        constants[name], constants[f"{name}_scales"] = _columns(rows)
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [f"{part}_int8", name, "activation_scale", f"{name}_scales", "activation_middle"],
            [f"{total}_unscaled"],
            domain="com.microsoft",
        )
        yield helper.make_node("Mul", [f"{total}_unscaled", f"{part}_largest"], [total])
    if n_parts > 1:
        yield helper.make_node("Sum", sums, [output])


def _n_parts(n_rows: int) -> int:
    """As few parts of like size as keep to ``_MOST_ROWS``; one where there are none but small ones."""
    least = -(-n_rows // _MOST_ROWS)
    return next((n for n in range(least, 2 * least + 1) if n_rows % n == 0), 1)


def _quantised_activations(
    activations: str, parts: list[str], n_columns: int, constants: Constants, divisors: Array | None
) -> Iterator[NodeProto]:
    """uint8 around 128 for each part of the divided columns, and the largest magnitude of each of its rows."""
    from onnx import helper

    constants |= {
        "activation_scale": np.asarray(1 / _LARGEST_ACTIVATION, np.float32),
        "activation_middle": np.asarray(_MIDDLE, np.uint8),
        "largest_activation": np.asarray(_LARGEST_ACTIVATION, np.float32),
        "one": np.asarray(1, np.float32),
        "tiny": np.asarray(_TINY, np.float32),
        "last_axis": np.asarray([-1], np.int64),
    }
    if divisors is not None:
        constants[f"{activations}_factors"] = 1 / divisors
        yield helper.make_node("Mul", [activations, f"{activations}_factors"], [f"{activations}_divided"])
        activations = f"{activations}_divided"
    if len(parts) > 1:
        sizes = f"sizes_{n_columns}"
        constants[sizes] = np.full(len(parts), n_columns // len(parts), np.int64)
        yield helper.make_node("Split", [activations, sizes], parts, axis=-1)
    else:
        yield helper.make_node("Identity", [activations], parts)
    for part in parts:
        yield helper.make_node("Abs", [part], [f"{part}_abs"])
        yield helper.make_node("ReduceMax", [f"{part}_abs", "last_axis"], [f"{part}_max"], keepdims=1)
        yield helper.make_node("Max", [f"{part}_max", "tiny"], [f"{part}_largest"])
        yield helper.make_node("Div", ["largest_activation", f"{part}_largest"], [f"{part}_factor"])
        yield helper.make_node("Mul", [part, f"{part}_factor"], [f"{part}_scaled"])
        yield helper.make_node("QuantizeLinear", [f"{part}_scaled", "one", "activation_middle"], [f"{part}_int8"])


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
        helper.make_node("Gather", [f"{name}_rows", indices], [f"{output}_int8"]),
        helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scales", indices], [f"{output}_scales"]),
        helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output]),
    ]
