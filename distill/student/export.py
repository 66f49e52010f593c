"""From a trained student to the files of a bundle: ONNX with its gates, tokenizer, configuration, self-check.

Export is not finished until the graph gives what the torch module gives, at more than one shape.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distill.data import atomic_write, storage_errors, write_json, write_jsonl
from distill.errors import ExportError, first_line
from distill.session import SLOW_FUSIONS
from distill.student.quiet import quiet
from distill.student.static import BIGRAM_MULTIPLIER
from distill.student.tokens import batches_of_like_length, encode, pad
from distill.types import OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnx import ModelProto, NodeProto
    from tokenizers import Tokenizer

    from distill.student.encoder import Encoder
    from distill.student.static import FoldedStatic
    from distill.student.tokens import Ids
    from distill.types import Intent

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = [
    "export_encoder",
    "export_static",
    "onnx_logits",
    "parity",
    "selfcheck_texts",
    "write_configuration",
    "write_selfcheck",
]

OPSET = 20
PARITY_ATOL = 1e-3
"""Largest difference in a logit between torch and the graph."""

_IR_VERSION = 10
_PARITY_SHAPES = ((2, 5), (3, 23), (1, 2))
_PREDICT_BATCH = 64
_SELFCHECK_AIM, _SELFCHECK_MOST = 24, 50
_INPUTS = ("input_ids", "attention_mask")
_LARGEST_INT8, _LARGEST_FACTOR, _TINY, _MIDDLE = 127.0, 128.0, 1e-12, 128
"""What int8 entries and the factors of their rows keep to: no pair of products reaches 16 bits' end (2 x 127 x 128 < 2^15)."""


def export_encoder(model: Encoder, path: Path) -> None:
    """Writes the encoder's fp32 graph.

    Args:
        model: Trained; its temperature is baked in.
        path: The onnx file.

    Raises:
        ExportError: torch cannot export this transformer.
        StorageError: The file could not be written.
    """
    model.eval()
    example = (torch.ones(2, 6, dtype=torch.int64), torch.ones(2, 6, dtype=torch.int64))
    batch, length = torch.export.Dim("batch_size"), torch.export.Dim("sequence_length")
    shape = {0: batch, 1: length}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet(), torch.no_grad(), _eager_attention(model):
            program = torch.onnx.export(
                model,
                example,
                input_names=list(_INPUTS),
                output_names=["logits"],
                dynamic_shapes=dict.fromkeys(_INPUTS, shape),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"torch cannot export {type(model.body).__name__} to ONNX: {first_line(error)}") from error
    if program is None:
        raise ExportError(f"torch gave no ONNX graph for {type(model.body).__name__}")
    with storage_errors(path):
        program.save(str(path), external_data=False)


@contextmanager
def _eager_attention(model: Encoder) -> Iterator[None]:
    """Attention in plain operations while exporting; the fused kind would be exported for some shapes only."""
    body: Any = model.body
    if not hasattr(body, "set_attn_implementation"):
        yield
        return
    before = body.config._attn_implementation  # noqa: SLF001
    body.set_attn_implementation("eager")
    try:
        yield
    finally:
        body.set_attn_implementation(before)


def export_static(folded: FoldedStatic, path: Path, table: np.dtype[Any] | type = np.float32) -> None:
    """Writes the static student's graph: hash, gathers, sum, layer norm, GELU, Gemm.

    Args:
        folded: What ``Static.fold`` gives.
        path: The onnx file.
        table: How the table is stored: float32, or int8 (as uint8 around 128) with a factor of 1 to 128 for each row. Such rows are
            multiplied with their factors and summed as integers, which is exact; the rest is float32 whatever it is. The layer norm
            takes the common scale out, so that there is none in the graph.

    Raises:
        StorageError: The file could not be written.
    """
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(path):
        onnx.save(_static_graph(folded, np.dtype(table)), str(path))


def _rows_as_int8(
    table: Array,
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], np.ndarray[Any, np.dtype[np.uint8]], float]:
    """int8 entries, a uint8 factor for each row, and the unit of all: ``table`` is about their product."""
    largest = np.abs(table).max(axis=1)
    unit = max(float(largest.max()) / (_LARGEST_INT8 * _LARGEST_FACTOR), _TINY)
    factors = np.clip(np.ceil(largest / (_LARGEST_INT8 * unit)), 1, _LARGEST_FACTOR)
    entries = np.clip(np.rint(table / (factors * unit)[:, None]), -_LARGEST_INT8, _LARGEST_INT8)
    return entries.astype(np.int8), factors.astype(np.uint8), unit


def _static_graph(folded: FoldedStatic, dtype: np.dtype[Any]) -> ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    unit = 1.0
    stored: dict[str, np.ndarray[Any, Any]] = {"table": folded.table, "length_axis": np.asarray([1], np.int64)}
    if dtype == np.int8:
        entries, factors, unit = _rows_as_int8(folded.table)
        stored = {
            "table": entries.view(np.uint8) ^ _MIDDLE,  # around 128: products of unsigned numbers take less time
            "middle": np.asarray(_MIDDLE, np.uint8),
            "factors": factors,
            "middle_axis": np.asarray([1], np.int64),
        }
    n_labels = folded.head.shape[1]
    constants: dict[str, np.ndarray[Any, Any]] = {
        "n_buckets": np.asarray(folded.n_buckets, np.int64),
        "multiplier": np.asarray(BIGRAM_MULTIPLIER, np.int64),
        "pad_left": np.asarray([0, 1, 0, 0], np.int64),
        "pad_right": np.asarray([0, 0, 0, 1], np.int64),
        "places": folded.places,
        **stored,
        "scale": folded.scale,
        "shift": folded.shift,
        "head": folded.head,
        "bias": folded.bias,
    }
    node = helper.make_node
    nodes = [
        node("Add", ["input_ids", "n_buckets"], ["shifted"]),
        node("Mul", ["shifted", "attention_mask"], ["keys"]),
        node("Pad", ["keys", "pad_left"], ["first"]),
        node("Pad", ["keys", "pad_right"], ["second"]),
        node("Mul", ["first", "multiplier"], ["multiplied"]),
        node("Add", ["multiplied", "second"], ["hashed"]),
        node("Mod", ["hashed", "n_buckets"], ["buckets"]),
        node("Concat", ["keys", "buckets"], ["keys_and_buckets"], axis=1),
        node("Gather", ["places", "keys_and_buckets"], ["rows"]),
        node("Gather", ["table", "rows"], ["vectors"]),
        *(
            _integer_sum()
            if dtype == np.int8
            else [node("ReduceSum", ["vectors", "length_axis"], ["summed"], keepdims=0)]
        ),
        node("LayerNormalization", ["summed", "scale", "shift"], ["normed"], axis=-1, epsilon=folded.epsilon / unit**2),
        node("Gelu", ["normed"], ["hidden"]),
        node("Gemm", ["hidden", "head", "bias"], ["logits"]),
    ]
    dimensions = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "static",
        [helper.make_tensor_value_info(name, TensorProto.INT64, dimensions) for name in _INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", n_labels])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="distill"
    )
    return model


def _integer_sum() -> list[NodeProto]:
    """The rows' factors times the gathered 8-bit rows: their sum over the length, without a float32 copy of every row."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("Gather", ["factors", "rows"], ["row_factors"]),
        helper.make_node("Unsqueeze", ["row_factors", "middle_axis"], ["factor_rows"]),
        helper.make_node("MatMulInteger", ["factor_rows", "vectors", "", "middle"], ["integers"]),
        helper.make_node("Cast", ["integers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["floats", "middle_axis"], ["summed"]),
    ]


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=SLOW_FUSIONS,
    )


def onnx_logits(path: Path, ids: Sequence[Ids]) -> Array:
    """Logits of each text from an onnx file: float32 of shape (n, n_labels)."""
    session = _session(path)
    rows: list[Array] = [np.empty(0, np.float32)] * len(ids)
    for positions, batch in batches_of_like_length(ids, _PREDICT_BATCH):
        (logits,) = session.run(["logits"], dict(zip(_INPUTS, batch, strict=True)))
        for position, row in zip(positions, logits, strict=True):
            rows[position] = row
    return np.stack(rows)


def parity(model: torch.nn.Module, path: Path, vocabulary: int, atol: float = PARITY_ATOL) -> float:
    """The largest difference in a logit between torch and an onnx file, over random ids at several shapes, partly masked.

    Args:
        model: From ids and mask to logits.
        path: The onnx file.
        vocabulary: Ids are drawn below this.
        atol: Allowed difference.

    Raises:
        ExportError: The names, shapes or values differ.
    """
    session = _session(path)
    inputs, outputs = ([each.name for each in side] for side in (session.get_inputs(), session.get_outputs()))
    if inputs != list(_INPUTS) or outputs[:1] != ["logits"]:
        raise ExportError(
            f"{path}: the graph takes {inputs} and gives {outputs}, not input_ids, attention_mask and logits"
        )
    chance = np.random.default_rng(0)
    worst = 0.0
    for n_texts, length in _PARITY_SHAPES:
        lengths = [length, *chance.integers(1, length, n_texts - 1, endpoint=True)]
        batch = pad([chance.integers(vocabulary, size=each).tolist() for each in lengths])
        with torch.inference_mode():
            expected = model.eval()(*map(torch.from_numpy, batch)).float().numpy()
        (logits,) = session.run(["logits"], dict(zip(_INPUTS, batch, strict=True)))
        difference = float(np.abs(logits - expected).max()) if logits.shape == expected.shape else float("inf")
        if not difference <= atol:
            raise ExportError(
                f"{path}: at shape {n_texts} x {length} the graph differs from the trained model by {difference:.2g} "
                f"in a logit (allowed: {atol:g})"
            )
        worst = max(worst, difference)
    return worst


def selfcheck_texts(intents: Sequence[Intent], labels: Sequence[str]) -> list[str]:
    """20 to 50 texts from names, descriptions and made-up strings; never from queries."""
    names = [label.replace("_", " ") for label in labels if label != OUT_OF_SCOPE_LABEL]
    described = [intent.description for intent in intents if intent.description.strip()]
    room = (_SELFCHECK_MOST - len(_MADE_UP)) // 2
    texts = [*_MADE_UP, *names[:room], *described[:room]]
    if len(texts) < _SELFCHECK_AIM:
        texts += [f"{made_up} {name}" for name in names for made_up in _MADE_UP][: _SELFCHECK_AIM - len(texts)]
    return list(dict.fromkeys(texts))


_MADE_UP = (
    "a", "hello", "?!", "1234567890", "the quick brown fox jumps over the lazy dog", "zxqv wbrt", "ÄÖÜ ß é ñ", "你好世界",
    "WHAT DOES THIS DO", "one. two. three. four. five. six. seven.", "🙂", "yes " * 40,
)  # fmt: skip


def write_selfcheck(path: Path, onnx_file: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Writes a line for each text that has tokens: ``text``, ``input_ids``, and ``logits`` as the shipped graph gives them for it alone."""
    session = _session(onnx_file)
    lines = []
    for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
        if not ids or not text.strip():  # a name such as "_": a router declines it before it asks the graph
            continue
        (logits,) = session.run(["logits"], dict(zip(_INPUTS, pad([ids]), strict=True)))
        lines.append({"text": text, "input_ids": ids, "logits": [round(float(value), 5) for value in logits[0]]})
    write_jsonl(path, lines)


_PROBLEM_TYPES = {
    Task.SINGLE: "single_label_classification",
    Task.MULTI: "multi_label_classification",
    Task.WEIGHTS: "single_label_classification",
}


def write_configuration(
    folder: Path, *, config: Mapping[str, Any], labels: Sequence[str], task: Task, tokenizer: Tokenizer, max_length: int
) -> None:
    """Writes config.json, tokenizer.json and tokenizer_config.json as Hugging Face tools expect them.

    Args:
        folder: The bundle.
        config: The transformer's own configuration; only its architecture is kept.
        labels: In logit order.
        task: Picks ``problem_type``.
        tokenizer: Made by ``bundle_tokenizer``.
        max_length: Tokens after which a query is cut.
    """
    dropped = {"_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "id2label", "label2id"}
    write_json(
        folder / "config.json",
        {key: value for key, value in config.items() if key not in dropped}
        | {
            "architectures": ["BertForSequenceClassification"] if config["model_type"] == "bert" else None,
            "id2label": {str(position): label for position, label in enumerate(labels)},
            "label2id": {label: position for position, label in enumerate(labels)},
            "problem_type": _PROBLEM_TYPES[task],
        },
    )
    with atomic_write(folder / "tokenizer.json") as partial:  # its own way of saving raises no OSError
        partial.write_text(tokenizer.to_str(pretty=True), encoding="utf-8", newline="\n")
    content = json.loads(tokenizer.to_str())
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    names = {"pad_token": ("[PAD]", "<pad>"), "unk_token": ("[UNK]", "<unk>"), "cls_token": ("[CLS]", "<s>")}
    names |= {"sep_token": ("[SEP]", "</s>"), "mask_token": ("[MASK]", "<mask>")}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",  # BertTokenizer would add special tokens to a static student's ids
            "model_max_length": max_length,
            "clean_up_tokenization_spaces": False,
            **{key: name for key, candidates in names.items() for name in candidates if name in special},
        },
    )
