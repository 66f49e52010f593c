"""Fixtures of the student room."""

from __future__ import annotations

import pytest
from tiny import ENCODER_RECIPE, STATIC_RECIPE, keep_weights, make_base_model, make_data

from distill.student import train
from distill.student.train import train_students


@pytest.fixture
def quick(monkeypatch):
    """Recipes that take a second."""
    monkeypatch.setattr(train, "encoder_recipe", lambda *_: ENCODER_RECIPE)
    monkeypatch.setattr(train, "static_recipe", lambda *_: STATIC_RECIPE)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    return str(make_base_model(tmp_path_factory.mktemp("base") / "tiny-bert"))


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture(scope="session")
def trained(tmp_path_factory, base_model, data):
    """Folder with both bundles, the encoder's weights kept. Shared: copy it before changing it."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "encoder_recipe", lambda *_: ENCODER_RECIPE)
        patch.setattr(train, "static_recipe", lambda *_: STATIC_RECIPE)
        keep_weights(patch, out / "kept.safetensors")
        train_students(data, out, base_model=base_model, show_progress=False)
    return out


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run beside each other; torch's threads would wait for each other's processors."""
    import torch

    torch.set_num_threads(1)
