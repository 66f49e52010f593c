"""The model card: a by-product of training, never written by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from distill.types import OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.bundle import Manifest

__all__ = ["model_card"]

_WHAT = {
    "encoder": "a fine-tuned transformer encoder with mean pooling and a linear head",
    "static": "token and bigram vectors, summed, with one hidden layer: no attention",
}
_ANSWER = {
    Task.SINGLE: "one intent for a query",
    Task.MULTI: "any number of intents for a query",
    Task.WEIGHTS: "a weight for each channel",
}
_SHOWN_LABELS = 30


def model_card(manifest: Manifest, base_model: str) -> str:
    """README.md of a bundle, with the metadata header that the Hugging Face hub reads.

    Args:
        manifest: Of the bundle; everything in the card comes from it.
        base_model: Name of the pretrained transformer.
    """
    is_hub_name = base_model.count("/") == 1
    header = {
        "library_name": "distill",
        "pipeline_tag": "text-classification",
        "tags": ["intent-classification", "router", "onnx", "knowledge-distillation"],
        **({"base_model": base_model} if is_hub_name else {}),
    }
    activation = "sigmoid" if manifest.task is Task.MULTI else "softmax"
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in header.items()),
        "---",
        "",
        f"# {manifest.name}: {manifest.student} router",
        "",
        (
            f"Gives {_ANSWER[manifest.task]}. It is {_WHAT[manifest.student]}, distilled from "
            f"{_code(manifest.teacher) if manifest.teacher else 'given labels'}. Base model: {_code(base_model)}."
        ),
        "",
        "```python",
        "from distill import Router",
        "",
        'router = Router.load("path/of/this/folder")',
        'router.route("...")',
        "```",
        "",
        (
            f"Without that library: `{manifest.onnx_file}` takes `input_ids` and `attention_mask` (int64) and gives `logits`; "
            f"{activation}(logits) is calibrated. `tokenizer.json` makes the ids; queries are cut at {manifest.max_length} tokens."
        ),
        "",
        "## Labels",
        "",
        _labels(manifest.labels),
        "",
        "## Held-out figures",
        "",
        (
            "Measured against the teacher's labels on queries that were not trained on; accuracy against human labels stands in the "
            "benchmark's `bench.json`."
        ),
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in manifest.figures.items()),
        "",
        (
            f"Seed {manifest.seed}; data `{manifest.data_sha256[:16]}`; recipe `{manifest.recipe_sha256[:16]}`; "
            f"{_versions(manifest.versions)}."
        ),
        "",
    ]
    return "\n".join(lines)


def _labels(labels: tuple[str, ...]) -> str:
    in_scope = [label for label in labels if label != OUT_OF_SCOPE_LABEL]
    shown = ", ".join(_code(label) for label in in_scope[:_SHOWN_LABELS])
    more = f" and {len(in_scope) - _SHOWN_LABELS} more" if len(in_scope) > _SHOWN_LABELS else ""
    out_of_scope = f"; {_code(OUT_OF_SCOPE_LABEL)} is what fits none" if len(in_scope) < len(labels) else ""
    return f"{len(in_scope)} labels: {shown}{more}{out_of_scope}."


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
