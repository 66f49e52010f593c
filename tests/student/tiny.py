"""Tiny transformers with random weights and their own tokenizers, and data that they can learn."""

from __future__ import annotations

import json
import random

import numpy as np

from distill.student.recipe import EncoderRecipe, StaticRecipe
from distill.student.train import TrainingData
from distill.types import Example, Intent, Task

WORDS = {
    "greet": ["hello", "hi", "morning", "welcome"],
    "pay": ["pay", "bill", "invoice", "card"],
    "travel": ["fly", "train", "ticket", "hotel"],
}
FILLERS = ["the", "a", "my", "please", "now", "is", "it", "to"]
ENCODER_RECIPE = EncoderRecipe(epochs=6, batch_size=16, learning_rate=3e-3, head_rate=3.0, max_length=32)
STATIC_RECIPE = StaticRecipe(epochs=6, batch_size=64, augmentation=2, dimension=16, width=16)

_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def word_pieces(special, words):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = [f"{prefix}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##")]
    numbers = {token: number for number, token in enumerate(dict.fromkeys([*special.values(), *words, *letters]))}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_pairs(special, words):
    """As RoBERTa and ModernBERT have it: bytes, a space belongs to the word after it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special.values()), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(words)] * 3, trainer)
    return tokenizer


def pieces_of_any_script(special, words):
    """As XLM-RoBERTa has it: SentencePiece's unigrams."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    known = [f"\u2581{word}" for word in words] + sorted({letter for word in words for letter in word} | {"\u2581"})
    pieces = [(token, 0.0) for token in special.values()] + [(piece, -1.0 - len(known) / 1e3) for piece in known]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=list(special.values()).index(special["unk"])))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def make_base_model(folder, kind="bert", *, words=None, pieces=word_pieces):
    """Saves a transformer of hidden size 32, with a tokenizer whose file pads to Fixed 16 as all-MiniLM-L6-v2's pads to 128.

    The pad id is 0 for ``bert`` and 1 for ``roberta`` and ``mpnet``.
    """
    import torch
    from tokenizers import processors
    from transformers import AutoConfig, AutoModel

    special = _BERT if kind in {"bert", "modernbert"} else _ROBERTA
    words = sorted(words or {word for group in WORDS.values() for word in group} | set(FILLERS))
    tokenizer = pieces(special, words)
    numbers = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']} $A {special['sep']}",
        special_tokens=[(special[name], numbers[special[name]]) for name in ("cls", "sep")],
    )
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.enable_padding(length=16, pad_id=numbers[special["pad"]], pad_token=special["pad"])
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(numbers),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=numbers[special["pad"]],
        bos_token_id=numbers[special["cls"]],
        eos_token_id=numbers[special["sep"]],
        cls_token_id=numbers[special["cls"]],
        sep_token_id=numbers[special["sep"]],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "word_embeddings" in name or "tok_embeddings" in name:
                parameter.mul_(20.0)  # so that words differ as much as trained ones do
    from safetensors.torch import save_model

    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}), encoding="utf-8"
    )
    return folder


def make_texts(n, seed=0, *, words_of=WORDS, fillers=FILLERS):
    """Texts of five words, three of which mean nothing, with the intent of the other two."""
    chance = random.Random(seed)  # noqa: S311
    texts = []
    for number in range(n):
        intent = list(words_of)[number % len(words_of)]
        words = chance.sample(fillers, 3) + chance.sample(words_of[intent], 2)
        chance.shuffle(words)
        texts.append((" ".join(words), intent))
    return texts


def make_data(n=120, task=Task.SINGLE, labels=tuple(WORDS), **language):
    targets = np.eye(len(labels), dtype=np.float32)
    examples = tuple(
        Example(text, targets[labels.index(intent)], split="held_out" if number % 4 == 0 else "train")
        for number, (text, intent) in enumerate(make_texts(n, **language))
    )
    intents = tuple(Intent(name, f"somebody wants to {name}") for name in labels)
    return TrainingData("tiny", task, labels, examples, intents, teacher="fake-1", prompt_sha256="0" * 64)


def keep_weights(patch, path):
    """Copies the weights of the encoder that is trained last to ``path``: training removes its own when it is done."""
    from distill.student import learn

    true_keep = learn._keep

    def keep(encoder, finished):
        true_keep(encoder, finished)
        path.write_bytes(finished.read_bytes())

    patch.setattr(learn, "_keep", keep)
