"""The encoder in 8 bits: products with constant matrices as integers, the table of embeddings as rows of int8.

Whatever the processor, it is safe: on x86 without VNNI the products of 8-bit activations and weights are added in pairs with saturation
at 16 bits, so weights keep to 7 of their 8 bits, -63 to 63, and no pair can reach it (2 x 255 x 63 < 2^15).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import NodeProto

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Constants = dict[str, np.ndarray[Any, Any]]

__all__ = ["quantise"]

_MOST_ROWS = 384
"""Of a matrix that share a scale: with more, outliers of the activations cost the others too much."""

_LARGEST_WEIGHT, _LARGEST_ACTIVATION, _LARGEST_INT8, _MIDDLE, _TINY = 63.0, 127.0, 127.0, 128, 1e-12
_MATRIX, _LARGE_TABLE = 2, 1_000


def quantise(source: Path, target: Path) -> None:
    """Writes a copy of a float32 graph with 8-bit products (``MatMulIntegerToFloat``) and embeddings.

    Activations are quantised at run time with a scale for each row and each ``_MOST_ROWS`` of its columns, weights with a scale for each
    column; so a query's logits do not depend on the company it is in. With one scale a tensor, as onnxruntime's ``quantize_dynamic`` has
    it, more answers flip.

    Args:
        source: The float32 graph.
        target: The file to write.

    Raises:
        StorageError: The file could not be written.
    """
    import onnx
    from onnx import helper, numpy_helper

    with storage_errors(target):
        model = onnx.load(str(source))
        graph = model.graph
        matrices = {
            each.name: numpy_helper.to_array(each)
            for each in graph.initializer
            if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) == _MATRIX
        }
        new_nodes: list[NodeProto] = []
        smaller: Constants = {}
        quantised: set[str] = set()
        for node in graph.node:
            matrix = matrices.get(node.input[1] if node.op_type == "MatMul" else node.input[0] if node.input else "")
            if node.op_type == "MatMul" and matrix is not None:
                new_nodes += _product(node, matrix, smaller, quantised)
            elif node.op_type == "Gather" and matrix is not None and len(matrix) >= _LARGE_TABLE:
                new_nodes += _gather(node, matrix, smaller)
            else:
                new_nodes.append(node)
        del graph.node[:]
        graph.node.extend(new_nodes)
        used = {name for node in new_nodes for name in node.input}
        kept = [each for each in graph.initializer if each.name in used]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in smaller.items())])
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        onnx.save(model, str(target))


def _product(node: NodeProto, matrix: Array, constants: Constants, quantised: set[str]) -> Iterator[NodeProto]:
    """Integer products, one for each part of the matrix, and their sum, in the place of a product with a constant matrix.

    Args:
        node: The product.
        matrix: float32 of shape (rows, columns).
        constants: What the graph holds; added to.
        quantised: Activations that are there in 8 bits already, for products share them; added to.
    """
    from onnx import helper

    (activations, weights), (output,) = node.input, node.output
    n_parts = _n_parts(len(matrix))
    parts = [f"{activations}_{number}_of_{n_parts}" for number in range(n_parts)]
    if activations not in quantised:
        quantised.add(activations)
        yield from _quantised_activations(activations, parts, len(matrix), constants)
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
    activations: str, parts: list[str], n_columns: int, constants: Constants
) -> Iterator[NodeProto]:
    """uint8 around 128 for each part of the columns, and the largest magnitude of each of its rows."""
    from onnx import helper

    constants |= {
        "activation_scale": np.asarray(1 / _LARGEST_ACTIVATION, np.float32),
        "activation_middle": np.asarray(_MIDDLE, np.uint8),
        "largest_activation": np.asarray(_LARGEST_ACTIVATION, np.float32),
        "one": np.asarray(1, np.float32),
        "tiny": np.asarray(_TINY, np.float32),
        "last_axis": np.asarray([-1], np.int64),
    }
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
