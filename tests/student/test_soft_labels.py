"""What trained encoders say of texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tiny import make_texts

from distill.student import soft_labels, targets, trainer
from distill.student.encoder import Encoder
from distill.student.soft_labels import Assistant, ask
from distill.student.tokens import bundle_tokenizer
from distill.student.weights import load_base_model

TEXTS = [text for text, _ in make_texts(22)]


@pytest.fixture
def assistant(base_model):
    base = load_base_model(base_model)
    torch.manual_seed(0)
    return Assistant(Encoder(base, 80, 0.0), bundle_tokenizer(base.tokenizer, 32))


@pytest.fixture
def asked(monkeypatch):
    """How many texts were asked at a time; a part is eight."""
    counts, predict = [], soft_labels.predict
    monkeypatch.setattr(soft_labels, "_MOST_IN_A_PART", 8)
    monkeypatch.setattr(
        soft_labels,
        "predict",
        lambda model, ids, *rest, **options: counts.append(len(ids)) or predict(model, ids, *rest, **options),
    )
    return counts


def logits_of(assistant, texts):
    ids = [assistant.tokenizer.encode(text).ids for text in texts]
    with torch.inference_mode():
        return np.stack(
            [
                assistant.encoder.eval()(torch.tensor([each]), torch.ones(1, len(each), dtype=torch.long))[0].numpy()
                for each in ids
            ]
        )


@pytest.mark.parametrize("sparse", [False, True])
def test_killed_asks_only_the_part_that_it_was_at_again(assistant, asked, tmp_path, monkeypatch, sparse):
    monkeypatch.setattr(trainer, "bfloat16_is_fast", lambda: False)  # whose logits differ in the third digit
    if sparse:
        monkeypatch.setattr(targets, "_MOST_CELLS", 10 * 80)
    predict, last = soft_labels.predict, []

    def killed_at_the_last(model, ids, *rest, **options):
        if len(ids) < 8:
            last.append(ids)
            raise KeyboardInterrupt
        return predict(model, ids, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(soft_labels, "predict", killed_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            ask(assistant, TEXTS, tmp_path / "kept", show_progress=False)
    assert asked == [8, 8]
    assert [len(ids) for ids in last] == [6]
    found = ask(assistant, TEXTS, tmp_path / "kept", show_progress=False)
    assert asked == [8, 8, 6]
    whole = ask(assistant, TEXTS, tmp_path / "another", show_progress=False)
    assert asked == [8, 8, 6, 8, 8, 6]
    assert found.shape == (22, 80)
    assert isinstance(found, targets.SparseTargets) is sparse
    np.testing.assert_array_equal(found[:], whole[:])
    wanted = logits_of(assistant, TEXTS)
    if sparse:
        assert [len(row) for row in np.split(found.matrix.data, 22)] == [targets.KEPT] * 22
        wanted = np.where(np.argsort(np.argsort(-wanted)) < targets.KEPT, wanted, 0)
    np.testing.assert_allclose(found[:], wanted, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", None])
def test_what_cannot_be_read_is_asked_again(assistant, asked, tmp_path, content):
    found = ask(assistant, TEXTS, tmp_path, show_progress=False)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    if content is None:
        save_file({"values": np.zeros((8, 7), np.float32)}, files[0])  # of another number of labels
    else:
        files[0].write_bytes(content)
    again = ask(assistant, TEXTS, tmp_path, show_progress=False)
    assert len(asked) == 4
    np.testing.assert_array_equal(found, again)


def test_other_texts_are_asked(assistant, asked, tmp_path):
    ask(assistant, TEXTS, tmp_path, show_progress=False)
    ask(assistant, [*TEXTS[:8], "another", *TEXTS[9:]], tmp_path, show_progress=False)
    assert asked == [8, 8, 6, 8]


def test_progress_counts_what_is_known_as_done(assistant, asked, tmp_path, monkeypatch):
    ask(assistant, TEXTS[:16], tmp_path, show_progress=False)
    skipped = []
    monkeypatch.setattr(soft_labels.Progress, "skip", lambda _, units: skipped.append(units))
    ask(assistant, TEXTS, tmp_path, show_progress=False)
    assert skipped == [16]
    assert asked == [8, 8, 6]
