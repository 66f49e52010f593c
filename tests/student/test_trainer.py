"""Loss, order of the examples, augmentation, and going on after an interruption."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from distill.errors import StorageError
from distill.progress import Progress
from distill.student import trainer
from distill.student.encoder import Encoder
from distill.student.trainer import Schedule, TrainingSet, distillation_loss, fit, predict
from distill.student.weights import load_base_model
from distill.types import Task


def test_loss_is_soft_cross_entropy():
    chance = np.random.default_rng(0)
    logits, target = chance.normal(size=(5, 3)).astype(np.float32), chance.dirichlet([1, 1, 1], 5).astype(np.float32)
    weight = np.array([1, 2, 0, 1, 1], np.float32)
    expected = np.average(-(target * log_softmax(logits, axis=1)).sum(1), weights=weight)
    for task in (Task.SINGLE, Task.WEIGHTS):
        found = distillation_loss(task, *map(torch.from_numpy, (logits, target, weight)))
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("given", "holds"), [({}, "64"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
def test_few_shapes_of_a_batch_are_remembered_unless_that_was_set_otherwise(given, holds):
    code = "import os, distill.student.trainer; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == holds


def test_loss_of_many_labels_is_binary_cross_entropy():
    logits, target = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).float()
    expected = sum(
        log_loss(target[:, label], torch.sigmoid(logits[:, label]).double(), labels=[0, 1]) for label in range(4)
    )
    assert distillation_loss(Task.MULTI, logits, target, torch.ones(6)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("learnt", "epoch"), [(None, 0), (0.0, 0), (1.0, 1), (2.4, 2), (2.99999999, 3)])
def test_the_sampler_is_told_the_epoch_that_goes_on(learnt, epoch):
    sampler = trainer._LikeLengthSampler([1, 2, 3], 2, seed=0)
    trainer._Epochs(sampler).on_epoch_begin(None, SimpleNamespace(epoch=learnt), None)
    assert sampler.epoch == epoch


@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 3))
def test_every_example_once_an_epoch(lengths, batch_size, epoch):
    sampler = trainer._LikeLengthSampler(lengths, batch_size, seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)


def test_batches_have_like_lengths_and_change_company():
    lengths = np.random.default_rng(0).integers(1, 60, 640)
    sampler = trainer._LikeLengthSampler(lengths, 16, seed=0)
    first = np.array(list(sampler)).reshape(-1, 16)
    assert np.ptp(lengths[first], axis=1).mean() < 5
    sampler.set_epoch(1)
    assert {tuple(sorted(batch)) for batch in first.tolist()}.isdisjoint(
        {tuple(sorted(batch)) for batch in np.array(list(sampler)).reshape(-1, 16).tolist()}
    )


class Bag(torch.nn.Module):
    """Mean of embeddings; enough to be trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(20, 2)

    def forward(self, input_ids, attention_mask):
        return (self.table(input_ids) * attention_mask.unsqueeze(-1)).sum(1)

    def head_parameters(self):
        return []


class NoisyBag(Bag):
    """Draws random numbers in each step, as dropout does."""

    def forward(self, input_ids, attention_mask):
        return torch.nn.functional.dropout(super().forward(input_ids, attention_mask), 0.3, self.training)


@pytest.mark.parametrize(("steps", "kept"), [(5, 80), (3, 96)], ids=["after an epoch", "amid an epoch"])
def test_training_that_was_killed_goes_on_to_the_same_model(tmp_path, monkeypatch, steps, kept):
    monkeypatch.setattr(trainer, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(trainer, "_STEPS_BETWEEN_LOOKS", steps)
    chance = np.random.default_rng(0)
    ids = [chance.integers(20, size=length).tolist() for length in chance.integers(1, 9, 40)]
    data = TrainingSet(ids, np.eye(2, dtype=np.float32)[chance.integers(2, size=40)], np.ones(40, np.float32))
    schedule = Schedule(epochs=4, batch_size=8, learning_rate=0.05, warmup=0.1, weight_decay=0.0)
    options = {"task": Task.SINGLE, "seed": 3}
    whole = NoisyBag()
    fit(whole, data, schedule, **options, work=tmp_path / "whole", progress=Progress("x", 160, show=False))

    class Killed(Progress):
        def advance(self, units=1, **_):
            super().advance(units)
            if self.done >= 100:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(NoisyBag(), data, schedule, **options, work=tmp_path / "cut", progress=Killed("x", 160, show=False))
    (tmp_path / "cut" / "checkpoint-99").mkdir()  # what a save that was killed leaves
    resumed, progress = NoisyBag(), Progress("x", 160, show=False)
    fit(resumed, data, schedule, **options, work=tmp_path / "cut", progress=progress)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())
    assert (progress.done, progress._done_before) == (160, kept)


def test_checkpoints_are_written_by_the_clock(tmp_path, monkeypatch):
    seconds, saved = itertools.count(), []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 100.0 * next(seconds)))
    monkeypatch.setattr(trainer, "_STEPS_BETWEEN_LOOKS", 2)
    monkeypatch.setattr(
        trainer._DistillTrainer, "_save_checkpoint", lambda self, *_: saved.append(self.state.global_step)
    )
    data = TrainingSet([[1], [2]] * 12, np.eye(2, dtype=np.float32)[[0, 1] * 12], np.ones(24, np.float32))
    schedule = Schedule(epochs=1, batch_size=1, learning_rate=0.05, warmup=0.1, weight_decay=0.0)
    fit(Bag(), data, schedule, task=Task.SINGLE, seed=0, work=tmp_path, progress=Progress("x", 24, show=False))
    assert saved == [6, 12, 18, 24]


def test_a_process_that_sees_several_gpus_takes_the_batches_of_one(tmp_path, monkeypatch):
    """transformers would wrap the model in DataParallel, make batches so many times larger and take as many fewer steps."""
    gpus = {"is_available": True, "device_count": 4, "set_device": None, "is_bf16_supported": False}
    for name, value in gpus.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    schedule = Schedule(epochs=1, batch_size=64, learning_rate=0.05, warmup=0.1, weight_decay=0.0)
    try:
        arguments = trainer._arguments(schedule, 0, tmp_path, steps=9)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert not arguments.use_cpu
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 64)


def test_a_batch_is_the_examples_padded():
    targets = np.random.default_rng(0).dirichlet([1, 1, 1], 4).astype(np.float32)
    data = TrainingSet([[5], [6, 7, 8], [], [9]], targets, np.arange(4, dtype=np.float32))
    batch = data.__getitems__([1, 3])
    assert batch["input_ids"].tolist() == [[6, 7, 8], [9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    np.testing.assert_array_equal(batch["target"].numpy(), targets[[1, 3]])
    assert batch["weight"].tolist() == [1.0, 3.0]
    assert len(data) == 4


@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert"])
def test_layers_that_are_computed_twice_learn_the_same(tmp_path, monkeypatch, kind):
    """A batch of long texts keeps no activations: the model is the same to the bit, dropout included."""
    from tiny import make_base_model

    folder = str(make_base_model(tmp_path / kind, kind))
    chance = np.random.default_rng(0)
    ids = [chance.integers(5, 40, size=length).tolist() for length in chance.integers(2, 30, 48)]
    data = TrainingSet(ids, np.eye(3, dtype=np.float32)[chance.integers(3, size=48)], np.ones(48, np.float32))
    schedule = Schedule(epochs=2, batch_size=16, learning_rate=1e-2, warmup=0.1, weight_decay=0.01)
    calls, real = [], trainer.checkpoint

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(trainer, "checkpoint", counted)
    models = []
    for limit in (float("inf"), 0.0):
        monkeypatch.setattr(trainer, "_MOST_KEPT_BYTES", limit)
        torch.manual_seed(1)
        model = Encoder(load_base_model(folder), 3, dropout=0.3)
        fit(model, data, schedule, task=Task.SINGLE, seed=0, work=tmp_path, progress=Progress("x", 96, show=False))
        models.append(model)
        assert bool(calls) == (limit == 0.0)
    assert len(calls) == 2 * 6, "two layers, six steps"
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name
    np.testing.assert_array_equal(predict(models[0], ids), predict(models[1], ids))


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_full_disk_is_one_clear_line(tmp_path, monkeypatch, error):
    monkeypatch.setattr(trainer, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(trainer, "_STEPS_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(trainer._DistillTrainer, "_save_checkpoint", lambda *_: (_ for _ in ()).throw(error))
    data = TrainingSet([[1], [2]], np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    schedule = Schedule(epochs=1, batch_size=2, learning_rate=0.05, warmup=0.1, weight_decay=0.0)
    with pytest.raises(StorageError, match="cannot be written"):
        fit(Bag(), data, schedule, task=Task.SINGLE, seed=0, work=tmp_path, progress=Progress("x", 2, show=False))


@pytest.mark.parametrize("state", [None, b"", b'{"epoch": 1', b'{"epoch": 1}'])
def test_a_checkpoint_whose_state_is_torn_is_removed(tmp_path, state):
    for number, written in ((1, b"{}"), (2, state)):
        (tmp_path / f"checkpoint-{number}").mkdir()
        if written is not None:
            (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_bytes(written)
    is_whole = state == b'{"epoch": 1}'
    assert trainer._last_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{2 if is_whole else 1}")
    assert (tmp_path / "checkpoint-2").exists() == is_whole
