"""The model card: a by-product of training and measuring, never written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import DISTRIBUTION, missing_extra
from distill.student.calibrate import FEWEST_EXAMPLES
from distill.types import HUMAN_LABELS, OUT_OF_SCOPE_LABEL, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from huggingface_hub import EvalResult

    from distill.bundle import Manifest
    from distill.types import BenchResult, BenchRow

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
_ATTRIBUTE = {
    Task.SINGLE: "intent  # None: declined",
    Task.MULTI: "intents  # the likeliest first; none may fit",
    Task.WEIGHTS: "weights  # by channel, summing to 1",
}
_ACTIVATION = {
    Task.SINGLE: "softmax(logits) is {how}calibrated",
    Task.MULTI: "sigmoid(logits) is {how}calibrated, each label by itself",
    Task.WEIGHTS: "softmax(logits) are the weights",
}
_NOT_HELD_OUT = (
    "Nothing was held out: there were too few labelled queries. So the temperature is 1 and no threshold was fitted."
)
_NOT_CALIBRATED = (
    f"Probabilities are not calibrated: fewer than {FEWEST_EXAMPLES} queries were held out to calibrate them on."
)
_CALIBRATED = "Probabilities are calibrated on held-out queries that the teacher labelled: they say what the teacher would have said."
_OF_THE_SCORES = {
    Task.SINGLE: _CALIBRATED,
    Task.MULTI: _CALIBRATED,
    Task.WEIGHTS: "The weights are what the teacher would have given: whether these find more has to be measured on the search itself.",
}
_TASK_TYPE = "text-classification"
_HEADER_FIRST = ("library_name", "pipeline_tag", "tags", "base_model", "license", "metrics", "model_name")
_NOT_STATED = "not stated"
_SHOWN_LABELS = 30
_GOLD_METRICS = {
    Task.SINGLE: (
        ("accuracy", "accuracy", "accuracy, in scope, nothing declined"),
        ("accuracy_policy", "accuracy", "accuracy after the policy, out-of-scope queries included"),
        ("macro_f1", "f1", "macro F1, in scope"),
        ("oos_auroc", "roc_auc", "AUROC of out-of-scope queries"),
    ),
    Task.MULTI: (
        ("accuracy", "accuracy", "accuracy of the exact set"),
        ("micro_f1", "f1", "micro F1"),
        ("macro_f1", "f1", "macro F1"),
    ),
    Task.WEIGHTS: (
        ("accuracy", "accuracy", "nearest of the gold's weights"),
        ("mae", "mae", "mean absolute error of a weight"),
        ("kl", "kl_divergence", "KL divergence from gold"),
    ),
}
"""Field of a row or of its notes; the hub's name of the metric; what it is."""
_HELD_OUT_METRICS = (
    ("held_out_agreement", "accuracy", "agreement with the teacher"),
    ("held_out_micro_f1", "f1", "micro F1 against the teacher"),
)


def model_card(
    manifest: Manifest,
    base_model: str = "",
    *,
    result: BenchResult | None = None,
    table: str = "",
    repository: str = "",
    header: Mapping[str, Any] | None = None,
) -> str:
    """README.md of a bundle, with the metadata header that the Hugging Face hub reads.

    The header is the model card specification's: https://huggingface.co/docs/hub/model-cards.

    Args:
        manifest: Of the bundle.
        base_model: Name of the pretrained transformer; empty: what the manifest says.
        result: What ``distill bench`` measured, this bundle among others; None: the card has held-out figures only.
        table: The same as Markdown.
        repository: Where it will be published, such as ``org/name``.
        header: Further metadata, such as ``license`` and ``teacher_terms`` (the teacher's terms of use).

    Raises:
        MissingExtraError: huggingface_hub, which writes the header, is not installed.
    """
    added = dict(header or {})
    base_model = base_model or manifest.base_model
    parts = [
        f"---\n{_header(manifest, base_model, result, added)}\n---",
        f"# {manifest.name}: {manifest.student} router",
        _summary(manifest, base_model),
        _usage(manifest, repository),
        f"## Labels\n\n{_labels(manifest.labels)}",
        *([f"## Figures\n\n{table.strip()}"] if table else []),
        _held_out(manifest, _where_gold_figures_stand(result, table)),
        _limits(manifest, result),
        _rights(manifest, base_model, added),
        _provenance(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _header(manifest: Manifest, base_model: str, result: BenchResult | None, added: Mapping[str, Any]) -> str:
    try:
        from huggingface_hub import ModelCardData
    except ImportError as error:
        raise missing_extra("huggingface_hub") from error
    metrics = list(_eval_results(manifest, result))
    fields: dict[str, Any] = {
        "library_name": "distill",
        "pipeline_tag": _TASK_TYPE,
        "tags": ["intent-classification", "router", "onnx", "knowledge-distillation"],
        "metrics": list(dict.fromkeys(each.metric_type for each in metrics)) or None,
        "model_name": f"{manifest.name}-{manifest.student}",
        "eval_results": metrics or None,
    }
    if base_model.count("/") == 1:
        fields["base_model"] = base_model
    if not metrics:
        del fields["model_name"]
    return ModelCardData(**{**fields, **added}).to_yaml(original_order=list(_HEADER_FIRST))


def _eval_results(manifest: Manifest, result: BenchResult | None) -> Iterator[EvalResult]:
    """What the hub shows as the model's evaluation: on gold where there is some, on held-out queries otherwise."""
    from huggingface_hub import EvalResult

    row = _own_row(manifest, result)
    if result is not None and row is not None and result.n_gold:
        split, dataset = "test", f"{manifest.name}: {result.n_gold:,} queries with human labels"
        found = [(_figure(row, name), kind, what) for name, kind, what in _GOLD_METRICS[manifest.task]]
    else:
        whose = "with human labels" if _has_human_teacher(manifest) else "labelled by the teacher"
        split, dataset = "validation", f"{manifest.name}: held-out queries, {whose}"
        found = [(manifest.figures.get(name), kind, what) for name, kind, what in _HELD_OUT_METRICS]
    for value, kind, what in found:
        if value is not None:
            yield EvalResult(
                task_type=_TASK_TYPE,
                dataset_type=manifest.name,
                dataset_name=dataset,
                dataset_split=split,
                metric_type=kind,
                metric_name=what,
                metric_value=round(float(value), 4),
            )


def _own_row(manifest: Manifest, result: BenchResult | None) -> BenchRow | None:
    rows = result.rows if result is not None else ()
    return next((row for row in rows if row.name == manifest.student), None)


def _figure(row: BenchRow, name: str) -> Any:
    return getattr(row, name, row.notes.get(name))


def _summary(manifest: Manifest, base_model: str) -> str:
    based = f" Base model: {_code(base_model)}." if base_model else ""
    source = "trained on human labels" if _has_human_teacher(manifest) else f"distilled from {_code(manifest.teacher)}"
    return f"Gives {_ANSWER[manifest.task]}. It is {_WHAT[manifest.student]}, {source}.{based}"


def _has_human_teacher(manifest: Manifest) -> bool:
    return not manifest.teacher or manifest.teacher.startswith(HUMAN_LABELS)


def _usage(manifest: Manifest, repository: str) -> str:
    opened = f'Router.from_pretrained("{repository}")' if repository else 'Router.load("path/of/this/folder")'
    activation = _ACTIVATION[manifest.task].format(how="" if _is_calibrated(manifest) else "not ")
    return (
        f"```python\nfrom distill import Router  # pip install {DISTRIBUTION}\n\nrouter = {opened}\n"
        f'router.route("...").{_ATTRIBUTE[manifest.task]}\n```\n\n'
        f"Without that library: `{manifest.onnx_file}` takes `input_ids` and `attention_mask` (int64) and gives `logits`; "
        f"{activation}. `tokenizer.json` makes the ids; queries are cut at {manifest.max_length} tokens. "
        "transformers.js loads the folder as it is."
    )


def _labels(labels: tuple[str, ...]) -> str:
    in_scope = [label for label in labels if label != OUT_OF_SCOPE_LABEL]
    out_of_scope = f"; {_code(OUT_OF_SCOPE_LABEL)} is what fits none" if len(in_scope) < len(labels) else ""
    return f"{len(in_scope)} labels: {_named(in_scope)}{out_of_scope}."


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(_code(label) for label in labels[:_SHOWN_LABELS])
    more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return f"{shown}{more}"


def _where_gold_figures_stand(result: BenchResult | None, table: str) -> str:
    if result is not None and not result.n_gold:
        return "nowhere yet: there was no gold"
    return "above" if table else "in the benchmark's `bench.json`"


def _held_out(manifest: Manifest, gold_figures: str) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in manifest.figures.items())
    table = f"| figure | value |\n| --- | --- |\n{rows}"
    if not _has_held_out(manifest):
        return f"## Held-out figures\n\n{_NOT_HELD_OUT} Accuracy on gold stands {gold_figures}.\n\n{table}"
    against = (
        "Measured on labelled queries that were not trained on"
        if _has_human_teacher(manifest)
        else "Measured against the teacher's labels on queries that were not trained on"
    )
    fitted = [
        *(["temperature"] if _is_calibrated(manifest) else []),
        *([] if Task(manifest.task).sums_to_one else ["thresholds"]),  # no other figure goes by them
    ]
    were = "was" if fitted == ["temperature"] else "were"
    but = (
        f", but {' and '.join(fitted)} {were} fitted on them, so they look a little better than they are"
        if fitted
        else ""
    )
    return f"## Held-out figures\n\n{against}{but}; accuracy on gold stands {gold_figures}.\n\n{table}"


def _has_held_out(manifest: Manifest) -> bool:
    return manifest.figures.get("n_held_out") != 0


def _is_calibrated(manifest: Manifest) -> bool:
    n_calibrating = manifest.figures.get("n_calibrating", manifest.figures.get("n_held_out"))
    return n_calibrating is None or n_calibrating >= FEWEST_EXAMPLES


def _corrected(manifest: Manifest) -> str:
    n_corrected = manifest.figures.get("n_corrected")
    if not n_corrected:
        return ""
    return f" but for {n_corrected:,} of {manifest.figures.get('n_train', 0):,} labels that the others spoke against and that were put right by them"


def _limits(manifest: Manifest, result: BenchResult | None) -> str:
    row = _own_row(manifest, result)
    source = "people's labels" if _has_human_teacher(manifest) else "its teacher's answers"
    limits = [
        _limit_of_scope(manifest, row),
        (
            f"It learnt from {source}, mistakes included{_corrected(manifest)}, and from the language and wording of the queries it was "
            "trained on. Measure it on queries of your own before you rely on it."
        ),
        _of_the_scores(manifest),
        f"Of a query longer than {manifest.max_length} tokens the rest is not read.",
    ]
    if manifest.student == "static":
        limits.append("It knows words and pairs of neighbouring words, not the order of a sentence.")
    if result is None or not result.n_gold:
        limits.append("It was not measured on gold: human labels of queries that had no part in its making.")
    elif missing := result.provenance.get("labels_not_in_gold"):
        limits.append(f"It was not measured on {_named(missing)}: gold has nothing of that.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _of_the_scores(manifest: Manifest) -> str:
    is_calibrated = manifest.task is Task.WEIGHTS or _is_calibrated(manifest)
    return _OF_THE_SCORES[manifest.task] if is_calibrated else _NOT_CALIBRATED


def _limit_of_scope(manifest: Manifest, row: BenchRow | None) -> str:
    if manifest.task is Task.MULTI:
        return "It knows the labels above and no others: a query that has none of them should get an empty answer."
    if manifest.task is Task.WEIGHTS:
        return "It knows the channels above and no others, and weighs every query, also one that none can answer."
    if manifest.labels[-1] != OUT_OF_SCOPE_LABEL:
        return "It knows the labels above and no others: what fits none it declines only where it is unsure."
    recall = (
        "" if row is None or row.oos_recall is None else f" Of those measured here it declined {row.oos_recall:.1%}."
    )
    return f"It knows the labels above and no others: what fits none it should decline.{recall}"


def _rights(manifest: Manifest, base_model: str, header: Mapping[str, Any]) -> str:
    terms = header.get("teacher_terms")
    unknown = f"{_NOT_STATED}; a provider may restrict training on what its models answer: read them before you publish"
    if _has_human_teacher(manifest):
        unknown = f"{_NOT_STATED}: the terms of the labelled data hold"
    facts = {
        "licence of this model": header.get("license_name") or header.get("license") or _NOT_STATED,
        "teacher": _code(manifest.teacher) if manifest.teacher else HUMAN_LABELS,
        "the teacher's terms of use": " ".join(str(terms).split()) if terms else unknown,
        "base model": _code(base_model) if base_model else _NOT_STATED,
    }
    rows = "\n".join(f"| {name} | {str(value).replace('|', '/')} |" for name, value in facts.items())
    return f"## Teacher and rights\n\n| | |\n| --- | --- |\n{rows}"


def _provenance(manifest: Manifest) -> str:
    hashes = {"data": manifest.data_sha256, "recipe": manifest.recipe_sha256, "prompt": manifest.prompt_sha256}
    facts = [f"Seed {manifest.seed}", *(f"{name} `{value[:16]}`" for name, value in hashes.items() if value)]
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return "; ".join([*facts, *([versions] if versions else [])]) + "."


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
