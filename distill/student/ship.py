"""From a trained student to its bundle: export, gates, policy, figures, and the swap into place."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import __version__
from distill.bundle import ONNX_FP32, ONNX_INT8, Bundle, Manifest, load_bundle, seal
from distill.calibration import expected_calibration_error
from distill.data import remove_folder, storage_errors, swap_folder
from distill.errors import BundleError, StorageError
from distill.policy import fit_policy
from distill.progress import say
from distill.student.augment import augment
from distill.student.calibrate import negative_log_likelihood, probabilities
from distill.student.card import model_card
from distill.student.export import (
    export_encoder,
    export_static,
    onnx_logits,
    parity,
    selfcheck_texts,
    write_configuration,
    write_selfcheck,
)
from distill.student.quantise import quantise, quantise_in_blocks
from distill.student.targets import LEAST_TARGET, likeliest
from distill.student.tokens import encode
from distill.types import HOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

    from distill.policy import Policy
    from distill.student.encoder import Encoder
    from distill.student.static import Static
    from distill.types import Intent, Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["Shipment", "put_back", "ship_encoder", "ship_static"]

MOST_FLIPS = 0.01
"""Share of answers that a smaller graph may change."""

MOST_MOVED = 0.02
"""Share of a query's weights, in the mean, that a smaller graph may give to other labels: twice ``MOST_FLIPS``, as rounding moves every
query's weights a little, and few of them across a limit."""

MOST_COST = 0.002
"""Share of held-out queries that a smaller graph may answer wrongly where float32 is right, less those that it mends."""

_TEXTS_FOR_FLIPS = 1_000
_ENOUGH_HELD_OUT = 100
"""With fewer held-out queries ``MOST_FLIPS`` of them is less than one."""

_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """What a bundle is made from, besides the model.

    Attributes:
        student: ``encoder`` or ``static``.
        name: Name of the router.
        task: Picks policy and figures.
        labels: In logit order.
        intents: For the self-check's texts.
        teacher: Who labelled.
        base_model: Name of the pretrained transformer, not its path.
        config: Its config.json.
        tokenizer: Made by ``bundle_tokenizer``.
        max_length: Tokens after which a query is cut.
        held_out_texts: The student did not learn their labels. Without any there is nothing to fit a policy on, or to measure.
        held_out_targets: float32 of shape (n, n_labels).
        held_out_weights: float32 of shape (n,).
        calibration_texts: Some that were trained on, which show how large the activations get.
        prompt_sha256: Hash of the teacher's prompt.
        data_sha256: Hash of what was trained on.
        recipe_sha256: Hash of what training depended on besides data and seed.
        seed: Of the training.
        figures: What is already known, such as the temperature.
    """

    student: str
    name: str
    task: Task
    labels: tuple[str, ...]
    intents: Sequence[Intent]
    teacher: str
    base_model: str
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    max_length: int
    held_out_texts: list[str]
    held_out_targets: Array
    held_out_weights: Array
    calibration_texts: list[str]
    prompt_sha256: str
    data_sha256: str
    recipe_sha256: str
    seed: int
    figures: Mapping[str, Any] = field(default_factory=dict)


def ship_encoder(model: Encoder, shipment: Shipment, staging: Path, target: Path) -> Bundle:
    """Exports the encoder to fp32 and to the quickest int8 graph that the gate lets through, and puts the bundle at ``target``.

    Raises:
        ExportError: The graph does not give what the model gives.
        StorageError: Something could not be written.
    """
    fp32, int8 = _fresh(staging)
    export_encoder(model, fp32)
    figures = {"parity_max_abs_difference": parity(model, fp32, shipment.tokenizer.get_vocab_size())}
    calibration = encode(shipment.tokenizer, shipment.calibration_texts)
    candidates = {
        "integers": partial(quantise, fp32, calibration=calibration),
        "blocks": partial(quantise_in_blocks, fp32),
    }
    policy, gate_figures = _first_to_pass(candidates, fp32, int8, shipment)
    return _finish(shipment, staging, target, policy, {**figures, **gate_figures})


def ship_static(model: Static, shipment: Shipment, staging: Path, target: Path) -> Bundle:
    """Exports the static student with its table as float32 and, if the gate lets it, as int8, and puts the bundle at ``target``.

    Raises:
        ExportError: The graph does not give what the model gives.
        StorageError: Something could not be written.
    """
    fp32, int8 = _fresh(staging)
    folded = model.fold()
    export_static(folded, fp32)
    figures = {"parity_max_abs_difference": parity(model, fp32, shipment.tokenizer.get_vocab_size())}
    candidates = {"rows": partial(export_static, folded, table=np.int8)}
    policy, gate_figures = _first_to_pass(candidates, fp32, int8, shipment)
    return _finish(shipment, staging, target, policy, {**figures, **gate_figures})


def _fresh(staging: Path) -> tuple[Path, Path]:
    shutil.rmtree(staging, ignore_errors=True)
    with storage_errors(staging):
        (staging / ONNX_FP32).parent.mkdir(parents=True)
    return staging / ONNX_FP32, staging / ONNX_INT8


def _first_to_pass(
    candidates: Mapping[str, Callable[[Path], None]], reference: Path, smaller: Path, shipment: Shipment
) -> tuple[Policy, dict[str, Any]]:
    """Leaves the first candidate that passes the gate at ``smaller``, or nothing; gives the policy and the figures of all that were tried.

    A candidate may change ``MOST_FLIPS`` of the reference's answers, of the held-out ones by themselves too where there are enough, and
    cost ``MOST_COST`` of the held-out queries, or one query, their right label (of ``multi``: labels). Answers are what the policy that fits the
    reference decides, which ships with either graph: near a threshold a change takes less than another top label. Of weights, whose answer is not the top label alone, it may move ``MOST_MOVED`` as well.

    Args:
        candidates: What writes a smaller graph, by its name, the quickest graph first.
        reference: The float32 graph.
        smaller: The file to write.
        shipment: Whose held-out queries are asked.
    """
    texts, n_held_out = _gate_texts(shipment), len(shipment.held_out_texts)
    ids = encode(shipment.tokenizer, texts)
    logits = onnx_logits(reference, ids)
    policy = _policy(shipment, logits[:n_held_out])
    expected, declined, truth = _answers(policy, logits), _is_declined(policy, logits), _truth(shipment)
    weights = probabilities(shipment.task, logits) if shipment.task.is_mixture else None
    figures: dict[str, Any] = {"int8_shipped": False, "int8_flips_of": len(texts)}
    refusal = ""
    for name, write in candidates.items():
        write(smaller)
        logits = onnx_logits(smaller, ids)
        found = _answers(policy, logits)
        flipped = (found != expected).any(axis=1) | (_is_declined(policy, logits) != declined)
        n_lost = _n_right(expected[:n_held_out], truth) - _n_right(found[:n_held_out], truth)
        measured: dict[str, float] = {"flips": int(flipped.sum())}
        if n_held_out:
            measured["flips_held_out"] = int(flipped[:n_held_out].sum())
            measured["cost"] = round(n_lost / n_held_out, 4)
        moved = None
        if weights is not None:
            moved = np.abs(probabilities(shipment.task, logits) - weights).sum(axis=1) / 2  # total variation
            measured["moved"] = round(float(moved.mean()), 4)
        figures |= {f"int8_{name}_{figure}": value for figure, value in measured.items()}
        figures["int8_flips"] = measured["flips"]  # of the last one that was tried
        refusal = _refusal(flipped, moved, n_lost, n_held_out)
        if not refusal:
            return policy, figures | {"int8_shipped": True, "int8_kind": name}
        smaller.unlink()
    say(f"export {shipment.student}: ships in float32, as int8 {refusal}")
    return policy, figures


def _refusal(flipped: np.ndarray[Any, np.dtype[np.bool_]], moved: Array | None, n_lost: int, n_held_out: int) -> str:
    """Why a smaller graph does not pass the gate; empty where it does."""
    if not _within(flipped, MOST_FLIPS, n_held_out):
        held_out = f" ({int(flipped[:n_held_out].sum())} of {n_held_out} held-out ones)" if n_held_out else ""
        return (
            f"changes {int(flipped.sum())} of {len(flipped)} answers{held_out}; {MOST_FLIPS:.1%} of either may change"
        )
    if moved is not None and not _within(moved, MOST_MOVED, n_held_out):
        held_out = f" ({moved[:n_held_out].mean():.1%} of a held-out one's)" if n_held_out else ""
        return f"moves {moved.mean():.1%} of a query's weights{held_out}; {MOST_MOVED:.1%} of either may move"
    if n_lost > max(1, MOST_COST * n_held_out):
        return (
            f"costs {n_lost} of {n_held_out} held-out queries their right answer; {MOST_COST:.1%}, or one, may lose it"
        )
    return ""


def _within(changes: np.ndarray[Any, Any], most: float, n_held_out: int) -> bool:
    """Whether changes, (n,), are at most so large in the mean: those of all texts, and those of the held-out ones, where they are enough."""
    parts = (changes, changes[:n_held_out]) if n_held_out >= _ENOUGH_HELD_OUT else (changes,)
    return all(part.mean() <= most for part in parts)


def _gate_texts(shipment: Shipment) -> list[str]:
    """The held-out queries; where they are few, also texts made from them, or where there are none, from some that were trained on."""
    texts = list(shipment.held_out_texts)
    wanted = _TEXTS_FOR_FLIPS - len(texts)
    if wanted > 0:
        origin = texts or shipment.calibration_texts
        varied = augment(origin, -(-_TEXTS_FOR_FLIPS // len(origin)), shipment.seed)
        random.Random(shipment.seed).shuffle(varied)  # noqa: S311  # they come in alphabetical order
        texts += varied[:wanted]
    return texts


def _n_right(answers: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> int:
    return int((answers == truth).all(axis=1).sum())


def _truth(shipment: Shipment) -> np.ndarray[Any, Any]:
    """What ``_answers`` should give for the held-out queries; -1 for one that fits no label."""
    if not shipment.task.sums_to_one:
        return np.asarray(shipment.held_out_targets >= HOLDS)
    return likeliest(shipment.held_out_targets, LEAST_TARGET)[:, None]


def _answers(policy: Policy, logits: Array) -> np.ndarray[Any, Any]:
    """The top label (one column), or for ``multi`` whether each label is accepted."""
    if policy.task.sums_to_one:
        return np.asarray(logits.argmax(axis=1)[:, None])
    column = {label: number for number, label in enumerate(policy.labels)}
    accepted = np.zeros(logits.shape, bool)
    for row, prediction in zip(accepted, policy.decide_batch(probabilities(policy.task, logits)), strict=True):
        row[[column[intent] for intent in prediction.intents]] = True
    return accepted


def _policy(shipment: Shipment, logits: Array) -> Policy:
    """The policy that fits the logits of the held-out queries, float32 of shape (n, n_labels)."""
    return fit_policy(
        shipment.task,
        shipment.labels,
        probabilities(shipment.task, logits),
        shipment.held_out_targets,
        shipment.held_out_weights,
    )


def _is_declined(policy: Policy, logits: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether a query gets no intent, (n,), by logits of shape (n, n_labels)."""
    predictions = policy.decide_batch(probabilities(policy.task, logits))
    return np.asarray([prediction.intent is None for prediction in predictions])


def _finish(shipment: Shipment, staging: Path, target: Path, policy: Policy, figures: Mapping[str, Any]) -> Bundle:
    onnx_file = ONNX_INT8 if (staging / ONNX_INT8).is_file() else ONNX_FP32
    logits = np.empty((0, len(shipment.labels)), np.float32)
    if shipment.held_out_texts:
        logits = onnx_logits(staging / onnx_file, encode(shipment.tokenizer, shipment.held_out_texts))
    manifest = Manifest(
        name=shipment.name,
        student=shipment.student,
        task=shipment.task,
        labels=shipment.labels,
        policy=policy.as_dict(),
        onnx_file=onnx_file,
        max_length=shipment.max_length,
        teacher=shipment.teacher,
        base_model=shipment.base_model,
        prompt_sha256=shipment.prompt_sha256,
        data_sha256=shipment.data_sha256,
        recipe_sha256=shipment.recipe_sha256,
        seed=shipment.seed,
        parent=_bundle_id(target),
        versions={"distill": __version__, **_library_versions()},
        figures={**shipment.figures, **_held_out_figures(shipment, policy, logits), **figures},
    )
    write_configuration(
        staging,
        config=shipment.config,
        labels=shipment.labels,
        task=shipment.task,
        tokenizer=shipment.tokenizer,
        max_length=shipment.max_length,
    )
    texts = selfcheck_texts(shipment.intents, shipment.labels)
    write_selfcheck(staging / "selfcheck.jsonl", staging / onnx_file, shipment.tokenizer, texts)
    with storage_errors(staging / "README.md"):
        (staging / "README.md").write_text(model_card(manifest), encoding="utf-8")
    seal(staging, manifest)
    _swap(staging, target)
    return load_bundle(target)


def _held_out_figures(shipment: Shipment, policy: Policy, logits: Array) -> dict[str, float]:
    """What the bundle gives the held-out queries; of ``multi`` by the thresholds that were fitted on them."""
    fits = shipment.held_out_targets.any(axis=1) if shipment.task.has_one_label else slice(None)
    logits, targets = logits[fits], shipment.held_out_targets[fits]
    if not len(logits):
        return {}
    figures = {"held_out_nll": round(negative_log_likelihood(shipment.task, logits, targets), 4)}
    if not shipment.task.sums_to_one:
        answers, truths = _answers(policy, logits), targets >= HOLDS
        hits = int((answers & truths).sum())
        return figures | {"held_out_micro_f1": round(2 * hits / max(int(answers.sum() + truths.sum()), 1), 4)}
    right = logits.argmax(axis=1) == targets.argmax(axis=1)
    figures["held_out_agreement"] = round(float(right.mean()), 4)
    if shipment.task.has_one_label:
        scores = probabilities(shipment.task, logits).max(axis=1)
        figures["held_out_ece"] = round(expected_calibration_error(scores, right), 4)
    return figures


def _library_versions() -> dict[str, str]:
    """Of those that are installed under their own names: onnxruntime may be there as onnxruntime-gpu."""
    found = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _bundle_id(path: Path) -> str | None:
    """Of the bundle that stands at ``path``, if a whole one does."""
    try:
        return load_bundle(path, verify=False).manifest.bundle_id
    except BundleError:
        return None


def put_back(staging: Path, out: Path) -> None:
    """Puts back the bundle that a killed training had moved aside, to ``out/encoder`` or ``out/static``, where nothing stands there."""
    old = _moved_aside(staging)
    with suppress(BundleError), storage_errors(out):
        target = out / load_bundle(old, verify=False).manifest.student
        if not target.exists():
            old.replace(target)


def _moved_aside(staging: Path) -> Path:
    return staging.with_name(f"{staging.name}.old")


def _swap(staging: Path, target: Path) -> None:
    """Moves the finished folder to where the old one stands, which is removed."""
    old = _moved_aside(staging)
    swap_folder(staging, target, old)
    with suppress(StorageError):
        remove_folder(old)
