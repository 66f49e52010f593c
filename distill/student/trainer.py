"""Training on transformers' Trainer, with the loss, the sampler and the learning rates as ours."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distill.data import storage_errors
from distill.errors import StorageError
from distill.student.processes import add_up, is_first_process, n_processes, own_share
from distill.student.quiet import quiet
from distill.student.tokens import batches_of_like_length, pad
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from distill.progress import Progress
    from distill.student.targets import Targets
    from distill.student.tokens import Ids

__all__ = [
    "Learner",
    "Schedule",
    "TrainingSet",
    "bfloat16_is_fast",
    "checkpoint_errors",
    "distillation_loss",
    "fit",
    "predict",
]

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
"""Of 1,024: oneDNN keeps code and buffers for each shape of a batch, 0.7 GB within minutes of all-mpnet-base-v2, and is as quick with fewer."""

_MEGA_BATCH = 32
"""Batches within which texts are sorted by length: like lengths, yet a different company every epoch."""
_PREDICT_BATCH = 128
_SECONDS_BETWEEN_CHECKPOINTS = 300.0
"""So much is lost at most when training is cut, and shorter training leaves nothing."""
_STEPS_BETWEEN_LOOKS = 20
"""After so many steps it is asked whether a checkpoint is due: several processes have to agree on it."""

_MOST_KEPT_BYTES = 1.5e9
"""Of activations for the backward pass, estimated: what a batch of longer texts would keep is computed twice instead."""

_VECTORS_A_LAYER, _MATRICES_A_HEAD, _FLOAT_BYTES = 24, 3, 4
"""What a layer of a transformer keeps, in float32: vectors of its width for each token, and attention matrices for each head."""


class Learner(Protocol):
    """What ``fit`` trains: a torch module from ids and mask to logits."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at ``head_rate`` times the rate of the rest."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: Passes over the data.
        batch_size: Examples a step.
        learning_rate: Peak rate of AdamW; cosine with warm-up.
        warmup: Share of the steps in which the rate rises.
        weight_decay: Of matrices; biases and norms have none.
        head_rate: Rate of the head over ``learning_rate``.
        mixed_precision: bfloat16 autocast, where the processor has it quick.
        threads: Of torch. None: as many as it takes. One is fastest for operations of microseconds.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    head_rate: float = 1.0
    mixed_precision: bool = False
    threads: int | None = None


def distillation_loss(task: Task, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy with soft targets (Hinton et al., 2015), averaged with the examples' weights.

    ``single`` and ``weights``: over the softmax, so that it differs from the KL divergence by the targets' entropy only. ``multi``:
    binary, summed over labels.

    Args:
        task: Picks the loss.
        logits: float of shape (batch, n_labels).
        target: float32 of shape (batch, n_labels).
        weight: float32 of shape (batch,).
    """
    logits = logits.float()
    if task is Task.MULTI:
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    else:
        losses = functional.cross_entropy(logits, target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)


class TrainingSet(Dataset[Any]):
    """Examples, of which a batch at a time becomes tensors. The ids are kept by ``datasets``, as Arrow.

    Args:
        ids: Token ids of each text.
        targets: float32 of shape (n, n_labels).
        weights: float32 of shape (n,).
    """

    def __init__(self, ids: Sequence[Ids], targets: Targets, weights: np.ndarray[Any, Any]) -> None:
        import datasets

        self.rows = datasets.Dataset.from_dict({"input_ids": list(ids)})
        self.lengths = [len(each) for each in ids]
        self.targets, self.weights = targets, weights

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> dict[str, Tensor]:
        """The batch of some examples: input_ids, attention_mask, target and weight."""
        input_ids, attention_mask = pad(self.rows[positions]["input_ids"])
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "target": torch.from_numpy(self.targets[positions]),
            "weight": torch.from_numpy(self.weights[positions]),
        }


def fit(
    model: nn.Module,
    data: TrainingSet,
    schedule: Schedule,
    *,
    task: Task,
    seed: int,
    work: Path,
    progress: Progress,
) -> None:
    """Trains ``model`` in place.

    Training leaves a checkpoint every five minutes in ``work`` and goes on from the last one there, to the same model.

    Args:
        model: A ``Learner``.
        data: What to learn.
        schedule: Epochs, batch size and rates.
        task: Picks the loss.
        seed: The same seed gives the same model on the same machine.
        work: Folder for checkpoints.
        progress: Advanced by the number of examples of each step.

    Raises:
        StorageError: A checkpoint could not be written.
    """
    steps = schedule.epochs * -(-len(data) // schedule.batch_size)
    _give_memory_back()
    with quiet(), checkpoint_errors(work), _threads(schedule.threads):
        trainer = _DistillTrainer(
            model,
            data,
            schedule,
            task,
            _arguments(schedule, seed, work, steps=steps),
            progress,
        )
        trainer.train(resume_from_checkpoint=_last_checkpoint(work))
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # autocast would stay in forward
    model.eval().to("cpu")
    del trainer
    _give_memory_back()


def _give_memory_back() -> None:
    """Returns what was freed to the system, by training or before it: glibc keeps gigabytes between what it still holds, and adds to them."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _arguments(schedule: Schedule, seed: int, work: Path, *, steps: int) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=-(-schedule.batch_size // n_processes()),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        warmup_steps=round(schedule.warmup * steps),
        lr_scheduler_type="cosine",
        bf16=schedule.mixed_precision and bfloat16_is_fast(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",  # ``_Checkpoints`` says when
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["target"],
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
    )
    if (
        arguments.n_gpu > 1
    ):  # asking sets it: batches would grow, and steps become fewer, with the GPUs that one process sees
        arguments._n_gpu = 1  # noqa: SLF001  # there is no other way
    return arguments


def _last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint: its state is what is written last. What a killed save left is removed."""
    found: dict[int, Path] = {}
    for folder in work.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if _is_whole(folder / TRAINER_STATE_NAME):
            found[int(folder.name.rpartition("-")[2])] = folder
        elif is_first_process():
            shutil.rmtree(folder)
    return str(found[max(found)]) if found else None


def _is_whole(state: Path) -> bool:
    try:
        json.loads(state.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


@contextmanager
def checkpoint_errors(work: Path) -> Iterator[None]:
    """What safetensors and torch raise in the place of an ``OSError`` when the disk is full, as one clear line."""
    try:
        with storage_errors(work):
            yield
    except SafetensorError as error:
        raise StorageError(f"{work}: cannot be written ({error})") from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error):
            raise
        raise StorageError(f"{work}: a checkpoint cannot be written; is the disk full?") from error


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bfloat16_is_fast() -> bool:
    """Whether the device that trains multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class _LikeLengthSampler(Sampler[int]):
    """Positions such that each run of ``batch_size`` has like lengths. A function of seed and epoch alone, so that training resumes."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = np.random.default_rng((self.seed, self.epoch))
        order = chance.permutation(len(self.lengths))
        size = self.batch_size * _MEGA_BATCH
        runs = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([run[np.argsort(self.lengths[run], kind="stable")] for run in runs])
        n_whole = len(order) // self.batch_size
        whole = order[: n_whole * self.batch_size].reshape(n_whole, self.batch_size)
        rest = order[n_whole * self.batch_size :]
        yield from np.concatenate([whole[chance.permutation(n_whole)].ravel(), rest]).tolist()


class _DistillTrainer(Trainer):
    """transformers' Trainer with soft targets, batches of like length and a faster head."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingSet,
        schedule: Schedule,
        task: Task,
        arguments: TrainingArguments,
        progress: Progress,
    ) -> None:
        self.sampler = _LikeLengthSampler(data.lengths, arguments.train_batch_size, arguments.seed)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=_as_it_is,
            callbacks=[_Bar(progress, schedule.batch_size, len(data)), _Checkpoints()],
        )
        self.add_callback(_Epochs(self.sampler))
        self.remove_callback(PrinterCallback)
        self.schedule, self.task = schedule, task

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002
        return self.sampler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """The loss of a batch, as ``Trainer`` asks for it: the weighted mean cross-entropy of soft targets, in nats.

        Args:
            model: From ids and mask to logits of shape (batch_size, n_labels).
            inputs: ``input_ids`` and ``attention_mask``, int64 of shape (batch_size, sequence_length); ``target``, float32 of shape
                (batch_size, n_labels); ``weight``, float32 of shape (batch_size,).
            return_outputs: Whether the logits are wanted too.
            num_items_in_batch: For losses that are summed over tokens; unused.

        Returns:
            The loss, a scalar; or loss and logits.
        """
        with _recomputed_layers(model, inputs["input_ids"]):
            logits = model(inputs["input_ids"], inputs["attention_mask"])
        loss = distillation_loss(self.task, logits, inputs["target"], inputs["weight"])
        return (loss, logits) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, made once, with four groups of parameters at most.

        The head learns ``head_rate`` times as fast as what is pretrained. Matrices decay; biases and the scales of normalisation,
        which have one dimension, do not.

        Args:
            model: Whose parameters are learnt; None: the trainer's.
        """
        if self.optimizer is None:
            network: Any = model if model is not None else self.model
            head = {id(parameter) for parameter in network.head_parameters()}
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for parameter in network.parameters():
                if parameter.requires_grad:
                    groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
            rate, decay = self.schedule.learning_rate, self.schedule.weight_decay
            self.optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": rate * self.schedule.head_rate if is_head else rate,
                        "weight_decay": decay if is_matrix else 0.0,
                    }
                    for (is_head, is_matrix), parameters in groups.items()
                ],
                fused=True,
            )
        return self.optimizer


class _Bar(TrainerCallback):
    """Our progress instead of tqdm."""

    def __init__(self, progress: Progress, batch_size: int, n_examples: int) -> None:
        self.progress, self.batch_size, self.n_examples = progress, batch_size, n_examples
        self.done = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Counts what was learnt before a checkpoint, but not as of this run."""
        self.done = self._n_done(state.global_step)
        if self.done:
            self.progress.skip(self.done)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Advances by the examples of a step."""
        done = self._n_done(state.global_step)
        self.progress.advance(done - self.done)
        self.done = done

    def _n_done(self, global_step: int) -> int:
        """Examples of so many steps: the last one of an epoch may have fewer than a batch."""
        epochs, steps = divmod(global_step, -(-self.n_examples // self.batch_size))
        return epochs * self.n_examples + min(steps * self.batch_size, self.n_examples)


class _Epochs(TrainerCallback):
    """Tells the sampler its epoch: where several processes go on amid one, what accelerate wraps it in keeps that from it."""

    def __init__(self, sampler: _LikeLengthSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The epoch that begins, or goes on: ``state.epoch`` counts what was learnt, in passes."""
        self.sampler.set_epoch(int((state.epoch or 0.0) + _ROUNDING))


_ROUNDING = 1e-6
"""Passes: less than a step of any data set, and more than sums of floats are off by."""


class _Checkpoints(TrainerCallback):
    """Asks for a checkpoint by the clock: an epoch may last an hour, or a second."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Has a checkpoint written when one is due for any of the processes."""
        if state.global_step % _STEPS_BETWEEN_LOOKS:
            return
        is_due = np.array([time.monotonic() - self.last >= _SECONDS_BETWEEN_CHECKPOINTS], np.float32)
        add_up(is_due)
        if is_due.any():
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Counts from the end of writing, lest a slow disk be written to all the time."""
        self.last = time.monotonic()


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def _recomputed_layers(model: nn.Module, input_ids: Tensor) -> Iterator[None]:
    """Lets a transformer's layers compute their activations anew for the backward pass where keeping them would take gigabytes.

    What is learnt is the same (Chen et al., 2016), and few batches are of texts so long.
    """
    layers = _layers(model)
    if _kept_bytes(model, len(layers), input_ids) <= _MOST_KEPT_BYTES:
        yield
        return
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: the longest list of modules in it."""
    return list(max((each for each in model.modules() if isinstance(each, nn.ModuleList)), key=len, default=()))


def _kept_bytes(model: nn.Module, n_layers: int, input_ids: Tensor) -> float:
    """About how many bytes of activations the layers keep for the backward pass, in float32."""
    own = getattr(model, "module", model)  # with several processes it is wrapped
    config: Any = getattr(getattr(own, "body", None), "config", None)
    if config is None:
        return 0.0
    vectors = getattr(config, "hidden_size", 0) * _VECTORS_A_LAYER
    matrices = getattr(config, "num_attention_heads", 0) * input_ids.shape[1] * _MATRICES_A_HEAD
    return float(input_ids.numel() * n_layers * (vectors + matrices) * _FLOAT_BYTES)


def predict(
    model: nn.Module, ids: Sequence[Ids], progress: Progress | None = None, *, fast: bool = False
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of each text: float32 of shape (n, outputs).

    Several processes share the batches out, so all of them must ask the same.

    Args:
        model: From ids and mask to logits.
        ids: Token ids of each text.
        progress: Advanced by the number of texts of each batch.
        fast: Takes bfloat16 where it is quick (for soft labels by the hundred thousand; not for calibration).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits: np.ndarray[Any, np.dtype[np.float32]] = np.empty((0, 0), np.float32)
    model.eval().to(device)
    batches = batches_of_like_length(ids, _PREDICT_BATCH)
    has_one_for_each = len(ids) > (n_processes() - 1) * _PREDICT_BATCH
    n_sharing = n_processes() if has_one_for_each else 1
    n_done = 0
    with torch.inference_mode(), _autocast(device, enabled=fast and bfloat16_is_fast()):
        for positions, (input_ids, mask) in own_share(batches) if n_sharing > 1 else batches:
            output = model(torch.from_numpy(input_ids).to(device), torch.from_numpy(mask).to(device))
            if not len(logits):
                logits = np.zeros((len(ids), output.shape[1]), np.float32)
            logits[positions] = output.float().cpu().numpy()
            if progress is not None:
                n_new = min(n_sharing * len(positions), len(ids) - n_done)
                progress.advance(n_new)
                n_done += n_new
    if n_sharing > 1:
        add_up(logits)
    model.to("cpu")
    return logits


@contextmanager
def _autocast(device: torch.device, *, enabled: bool) -> Iterator[None]:
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
        yield
