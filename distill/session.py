"""The ONNX session: how a graph is opened, and the buffers of one query.

The large tables of a static student's file are mapped (``distill.outline``), so that processes share them and only what is
used is in memory.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from distill.errors import BundleError, first_line
from distill.outline import PROBABILITIES, outline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.bundle import Bundle

__all__ = [
    "LOGITS",
    "MOST_BOUND",
    "SLOW_FUSIONS",
    "Binding",
    "check_inputs",
    "new_options",
    "no_bindings",
    "open_session",
    "pick_output",
]

LOGITS = "logits"
MOST_BOUND = 64
"""Tokens up to which a query's buffers are kept for the next of its length: some 3 KB each."""
SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""What ONNX Runtime makes of a sum and a layer norm takes longer on a processor than the two: docs/runtime-budget.md."""
_KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_PROVIDERS = ["CPUExecutionProvider"]
_FOLDER_OF_TABLES = "session.model_external_initializers_file_folder_path"


def open_session(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    """A session of the graph that runs, on the processor.

    Args:
        bundle: Whose graph.
        threads: How many ONNX Runtime may use for one call.

    Raises:
        BundleError: The graph cannot be loaded.
    """
    try:
        is_softmax = bundle.manifest.task.sums_to_one
        return _open_mapped(bundle.onnx_path, threads, is_softmax=is_softmax) or _session(
            str(bundle.onnx_path), new_options(threads)
        )
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise BundleError(f"{bundle.onnx_path}: not a graph that can be loaded: {first_line(error)}") from error


def _open_mapped(path: Path, threads: int, *, is_softmax: bool) -> onnxruntime.InferenceSession | None:
    """A session that maps the large tables of the file, where there are such and ONNX Runtime can; maybe with a softmax."""
    if os.name == "nt":  # a file that is mapped could not be replaced by a newer one
        return None
    try:
        path = path.resolve()  # ONNX Runtime maps no file that a link leads to, as those of the hub's cache are
        graph = outline(path, softmax_of=LOGITS if is_softmax else "")
        if graph is None:
            return None
        options = new_options(threads)
        options.add_session_config_entry(_FOLDER_OF_TABLES, str(path.parent))
        return _session(graph, options)
    except Exception:  # noqa: BLE001 - the usual way says what is wrong, if anything is
        return None


def _session(graph: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=_PROVIDERS,
        disabled_optimizers=SLOW_FUSIONS,
        enable_fallback=0,  # there is none, of which it would print several lines
    )


def new_options(threads: int) -> onnxruntime.SessionOptions:
    """Quiet, and without threads that spin while they wait."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def check_inputs(bundle: Bundle, session: onnxruntime.InferenceSession) -> tuple[str, ...]:
    """Names of the graph's inputs.

    Raises:
        BundleError: One is not known, or ``input_ids`` is missing.
    """
    inputs = tuple(each.name for each in session.get_inputs())
    unknown = [name for name in inputs if name not in _KNOWN_INPUTS]
    if unknown or "input_ids" not in inputs:
        raise BundleError(
            f"{bundle.onnx_path}: the graph's inputs are {', '.join(inputs)}; expected {', '.join(_KNOWN_INPUTS[:2])}"
        )
    return inputs


def pick_output(session: onnxruntime.InferenceSession) -> str:
    """What to ask the graph for: the probabilities that the Router added, otherwise its logits."""
    return PROBABILITIES if PROBABILITIES in [each.name for each in session.get_outputs()] else LOGITS


class Binding:
    """The buffers of a query of one length, known to ONNX Runtime, so that a call makes nothing anew. For one thread at a time.

    Args:
        session: Of which session.
        inputs: Names of the graph's inputs.
        output: Name of what to get.
        shape: Number of tokens and of labels.

    Attributes:
        ids: The input's bytes, int64 ids of shape (n_tokens,), to write to.
        answer: float32 array of shape (n_labels,), overwritten by ``run``.
        run: Asks the graph.
    """

    __slots__ = ("_arrays", "answer", "ids", "run")

    def __init__(
        self, session: onnxruntime.InferenceSession, inputs: Sequence[str], output: str, shape: tuple[int, int]
    ) -> None:
        n_tokens, n_labels = shape
        binding = session.io_binding()
        arrays = {name: np.full((1, n_tokens), name == "attention_mask", dtype=np.int64) for name in inputs}
        answer = np.empty((1, n_labels), dtype=np.float32)
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_output(output, onnxruntime.OrtValue.ortvalue_from_numpy(answer))
        self._arrays = arrays  # ONNX Runtime has their addresses only
        self.ids, self.answer = arrays["input_ids"][0].view(np.uint8).data, answer[0]
        self.run = partial(session.run_with_iobinding, binding)


def no_bindings() -> list[list[Binding]]:
    """For each length the bindings that no thread uses at the moment."""
    return [[] for _ in range(MOST_BOUND + 1)]
