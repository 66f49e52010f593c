"""Tiny bundles for tests, made without torch: a tokenizer of a few words and a graph of gather, masked mean and Gemm.

Run as a program it writes the golden predictions anew: ``python tests/bundles.py``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distill.bundle import Bundle, Manifest, seal
from distill.data import write_json, write_jsonl
from distill.policy import Policy
from distill.router import Router
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOLDEN = Path(__file__).parent / "golden"
KEYWORDS: dict[str, tuple[str, ...]] = {
    "track_order": ("parcel", "where", "track", "delivery"),
    "cancel_order": ("cancel", "stop", "order"),
    "refund": ("refund", "money", "back"),
    "oos": ("weather", "joke", "song"),
}
"""What the tiny graph knows: words that speak for a label."""

COMMON_WORDS = ("is", "my", "the", "a", "please", "i", "want", "to", "it", "?")
SELFCHECK_TEXTS = ("where is my parcel ?", "cancel the order", "i want my money back", "a joke please", "unheard words")
GOLDEN_TEXTS = (
    *SELFCHECK_TEXTS,
    "Where is my PARCEL",
    "cancel my order and refund the money",
    "parcel weather",
    "please",
    "",
    "   ",
    "where " * 100,
)


def make_tokenizer(*, special_tokens: bool = True) -> Tokenizer:
    """A BERT tokenizer of whole words; with special tokens it adds [CLS] and [SEP]."""
    words = [word for keywords in KEYWORDS.values() for word in keywords]
    vocabulary = {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *COMMON_WORDS])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special_tokens:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tokenizer


def make_graph(
    tokenizer: Tokenizer, labels: Sequence[str], *, inputs: Sequence[str] = ("input_ids", "attention_mask")
) -> Any:
    """Gather, masked mean, Gemm: the logit of a label grows with the share of its keywords."""
    n_words, n_labels = tokenizer.get_vocab_size(), len(labels)
    table = np.zeros((n_words, n_labels), dtype=np.float32)
    for column, label in enumerate(labels):
        for strength, word in enumerate(KEYWORDS.get(label, ())):
            table[tokenizer.token_to_id(word), column] = 1.0 - 0.1 * strength
    constants = {
        "table": table,
        "weight": np.eye(n_labels, dtype=np.float32) * 8.0,
        "bias": np.linspace(-1.0, -1.2, n_labels, dtype=np.float32),
        "last_axis": np.array([2], dtype=np.int64),
        "tokens_axis": np.array([1], dtype=np.int64),
    }
    mask = "attention_mask" if "attention_mask" in inputs else "ones"
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", [mask], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last_axis"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens_axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens_axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    if "token_type_ids" in inputs:
        nodes.insert(0, helper.make_node("Add", ["input_ids", "token_type_ids"], ["typed_ids"]))
        nodes[1] = helper.make_node("Gather", ["table", "typed_ids"], ["vectors"])
    if mask == "ones":
        nodes.insert(0, helper.make_node("Equal", ["input_ids", "input_ids"], ["ones"]))
    shape = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", n_labels])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def build_bundle(  # noqa: PLR0913 (keywords, each with its default)
    path: Path,
    *,
    task: Task = Task.SINGLE,
    student: str = "static",
    labels: Sequence[str] | None = None,
    policy: Policy | None = None,
    max_length: int = 16,
    special_tokens: bool = True,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
    config: Mapping[str, Any] | None = None,
    data_sha256: str = "",
) -> Bundle:
    """A sealed bundle in the folder ``path``; its answers follow from ``KEYWORDS``."""
    names = tuple(labels or (KEYWORDS if task is Task.SINGLE else [name for name in KEYWORDS if name != "oos"]))
    default = Policy(task, names, thresholds=(0.5,) * len(names)) if task is Task.MULTI else Policy(task, names, 0.4)
    (path / "onnx").mkdir(parents=True)
    tokenizer = make_tokenizer(special_tokens=special_tokens)
    tokenizer.save(str(path / "tokenizer.json"))
    onnx.save(make_graph(tokenizer, names, inputs=inputs), path / "onnx" / "model.onnx")
    write_json(path / "config.json", {"model_type": "bert", "pad_token_id": 0} if config is None else dict(config))
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"})
    manifest = Manifest(
        name="tiny",
        student=student,
        task=task,
        labels=names,
        policy=(policy or default).as_dict(),
        onnx_file="onnx/model.onnx",
        max_length=max_length,
        teacher="nobody",
        data_sha256=data_sha256,
    )
    router = Router(Bundle(path, manifest))
    recorded = ((text, router.tokenise(text)) for text in SELFCHECK_TEXTS)
    write_jsonl(
        path / "selfcheck.jsonl",
        ({"text": text, "input_ids": ids, "logits": router.logits(ids).tolist()} for text, ids in recorded),
    )
    return seal(path, manifest)


def int8_bundle(folder: Path, task: Task = Task.SINGLE) -> Path:
    """A bundle whose table of logits is of int8; mapped where ``distill.outline`` takes it for large."""
    bundle = build_bundle(folder, task=task)
    path = bundle.onnx_path
    model = onnx.load(path)
    table = next(each for each in model.graph.initializer if each.name == "table")
    values = numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array((np.vstack([values] * 3) * 100).astype(np.int8), "table"))
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    gather.output[0] = "stored"
    place = list(model.graph.node).index(gather)
    model.graph.node.insert(place + 1, helper.make_node("Cast", ["stored"], ["vectors"], to=TensorProto.FLOAT))
    onnx.save(model, path)
    return seal(folder, bundle.manifest).path


def golden_predictions(task: Task, folder: Path) -> list[dict[str, Any]]:
    """What the tiny bundle of a task answers to ``GOLDEN_TEXTS``."""
    router = Router.load(build_bundle(folder / task.value, task=task).path)
    return [{"text": text, **router.route(text).as_dict()} for text in GOLDEN_TEXTS]


def main() -> None:
    """Writes the golden predictions."""
    with tempfile.TemporaryDirectory() as folder:
        for task in Task:
            predictions = golden_predictions(task, Path(folder))
            write_json(GOLDEN / f"tiny_{task.value}.json", predictions)
            sys.stdout.write("".join(json.dumps(prediction) + "\n" for prediction in predictions))


if __name__ == "__main__":
    main()
