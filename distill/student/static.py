"""The static student: token and bigram vectors, gates, one hidden layer. No attention.

A query's hidden state is the sum of a gated vector for each token and one for each hashed bigram, layer-normalised, so that its
length needs no count. Everything before the normalisation is linear: ``fold`` multiplies it out into one table from which
the exported graph only gathers and sums.

Token vectors come from the encoder, so that a word that never occurs in training lies near its neighbours.
Hashed n-grams as in fastText (Joulin et al., 2016); token vectors from a transformer as in model2vec (Tulkens and van Dongen, 2024).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.student.tokens import Ids

    Integers = np.ndarray[Any, np.dtype[np.int64]]

__all__ = ["BIGRAM_MULTIPLIER", "FoldedStatic", "Static", "bigram_buckets"]

BIGRAM_MULTIPLIER = 8_191
"""Of the first token's key in a bigram's hash: (first * multiplier + second) mod buckets, with a prime number of buckets."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldedStatic:
    """What the graph needs: hidden = gelu(layer_norm(sum of table rows)); logits = hidden @ head + bias.

    Attributes:
        table: float32 of shape (rows, width): a row of zeros, then the bigrams of training and the tokens, the most used
            first.
        places: int32 of shape (buckets + vocabulary,): which row stands for a bigram bucket or a token. Buckets of which
            training saw nothing, most of them, share row 0; so does what is masked.
        scale: float32 of shape (width,): of the layer norm.
        shift: float32 of shape (width,): of the layer norm.
        head: float32 of shape (width, n_labels).
        bias: float32 of shape (n_labels,).
        epsilon: Of the layer norm.
        n_buckets: Number of bigram buckets.
    """

    table: np.ndarray[Any, np.dtype[np.float32]]
    places: np.ndarray[Any, np.dtype[np.int32]]
    scale: np.ndarray[Any, np.dtype[np.float32]]
    shift: np.ndarray[Any, np.dtype[np.float32]]
    head: np.ndarray[Any, np.dtype[np.float32]]
    bias: np.ndarray[Any, np.dtype[np.float32]]
    epsilon: float
    n_buckets: int


def bigram_buckets(ids: Ids, n_buckets: int) -> list[int]:
    """Buckets of a text's bigrams; both ends count as a token of their own."""
    keys = [0, *(token + n_buckets for token in ids), 0]
    return [(first * BIGRAM_MULTIPLIER + second) % n_buckets for first, second in itertools.pairwise(keys)]


class Static(nn.Module):
    """Gated token vectors and hashed bigrams, summed; layer norm; GELU; linear head.

    Only rows that occur in training are parameters: the rest of the vocabulary keeps the encoder's vectors (the first layer, which
    is shared, still moves them), the rest of the buckets stays zero. So a step costs what the data needs, not the vocabulary.

    Args:
        vectors: float32 of shape (vocabulary, dimension): the encoder's token vectors.
        gates: float32 of shape (vocabulary,): first weight of each token.
        texts: Token ids of the training texts.
        n_labels: Number of labels.
        width: Size of the hidden layer.
        n_buckets: Number of bigram buckets, best a prime.
        dropout: Probability before the head.
        bigram_dropout: Share of the bigrams that is left out while training.
    """

    vectors: Tensor
    gates: Tensor
    token_slot: Tensor
    bucket_slot: Tensor

    def __init__(
        self,
        vectors: Tensor,
        gates: Tensor,
        texts: Sequence[Ids],
        *,
        n_labels: int,
        width: int,
        n_buckets: int,
        dropout: float,
        bigram_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_buckets, self.bigram_dropout = n_buckets, bigram_dropout
        tokens = sorted({token for ids in texts for token in ids})
        buckets = sorted({bucket for ids in texts for bucket in bigram_buckets(ids, n_buckets)} - {0})
        self.register_buffer("vectors", vectors)
        self.register_buffer("gates", gates)
        self.register_buffer("token_slot", _slots(tokens, len(vectors)))
        self.register_buffer("bucket_slot", _slots(buckets, n_buckets))
        self._row_order = _row_order(texts, self.bucket_slot.numpy(), len(vectors))
        self.token_delta = nn.Embedding(len(tokens) + 1, vectors.shape[1], padding_idx=0)
        self.gate_delta = nn.Embedding(len(tokens) + 1, 1, padding_idx=0)
        self.bigrams = nn.Embedding(len(buckets) + 1, width, padding_idx=0)
        self.first = nn.Linear(vectors.shape[1], width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_labels)
        for table in (self.token_delta, self.gate_delta, self.bigrams):
            nn.init.zeros_(table.weight)
        nn.init.orthogonal_(self.first.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of shape (batch, n_labels) from ids and mask, int64 of shape (batch, length)."""
        keys = (input_ids + self.n_buckets) * attention_mask
        hashed = functional.pad(keys, (1, 0)) * BIGRAM_MULTIPLIER + functional.pad(keys, (0, 1))
        slots = self.token_slot[input_ids] * attention_mask
        gates = self.gates[input_ids] * torch.exp(self.gate_delta(slots).squeeze(-1)) * attention_mask
        summed = functional.embedding_bag(input_ids, self.vectors, mode="sum", per_sample_weights=gates)
        summed = summed + functional.embedding_bag(
            slots, self.token_delta.weight, mode="sum", per_sample_weights=gates, padding_idx=0
        )
        bigrams = self._sum_bigrams(self.bucket_slot[hashed % self.n_buckets])
        hidden = functional.gelu(self.norm(self.first(summed) + bigrams))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits

    def _sum_bigrams(self, slots: Tensor) -> Tensor:
        """Sum of the bigrams' vectors; while training most are left out, for in a new query most bigrams are unknown."""
        if not self.training or not self.bigram_dropout:
            return functional.embedding_bag(slots, self.bigrams.weight, mode="sum", padding_idx=0)
        kept = (torch.rand(slots.shape, device=slots.device) >= self.bigram_dropout).float() / (1 - self.bigram_dropout)
        return functional.embedding_bag(slots, self.bigrams.weight, mode="sum", per_sample_weights=kept, padding_idx=0)

    def head_parameters(self) -> list[nn.Parameter]:
        """Nothing here is pretrained and trained further: everything learns at one rate."""
        return []

    @torch.no_grad()
    def bake_temperature(self, temperature: float) -> None:
        """Divides the logits by ``temperature`` from now on."""
        self.head.weight.div_(temperature)
        self.head.bias.div_(temperature)

    @torch.no_grad()
    def fold(self) -> FoldedStatic:
        """Multiplies gates, vectors and the first layer out into one table."""
        gates = self.gates * torch.exp(self.gate_delta(self.token_slot).squeeze(-1))
        tokens = self.first((self.vectors + self.token_delta(self.token_slot)) * gates.unsqueeze(-1))
        bigrams = self.bigrams.weight
        places = torch.cat([self.bucket_slot, torch.arange(len(tokens)) + len(bigrams)]).numpy()
        return FoldedStatic(
            table=torch.cat([bigrams, tokens]).numpy()[self._row_order],
            places=np.argsort(self._row_order).astype(np.int32)[places],
            scale=self.norm.weight.numpy(),
            shift=self.norm.bias.numpy(),
            head=self.head.weight.T.contiguous().numpy(),
            bias=self.head.bias.numpy(),
            epsilon=self.norm.eps,
            n_buckets=self.n_buckets,
        )


def _slots(rows: list[int], size: int) -> Tensor:
    """Place of each of ``rows`` in a compact table that begins with a zero row; 0 for every other row."""
    slots = torch.zeros(size, dtype=torch.int64)
    slots[torch.tensor(rows, dtype=torch.int64)] = torch.arange(1, len(rows) + 1)
    return slots


def _row_order(texts: Sequence[Ids], bucket_slot: Integers, vocabulary: int) -> Integers:
    """The order of the folded table's rows: a permutation of shape (rows,).

    A query after a pause waits for every page of the table that it reads, so what is read often lies together: the zeros, then the most used
    rows. Of rows that are used as often, those of a token and of the bigrams whose rarer token it is are neighbours: one query reads them. Of
    bigrams that share a bucket the last in the texts counts there.

    Args:
        texts: Token ids of the training texts.
        bucket_slot: int64 of shape (buckets,): row of each bigram bucket.
        vocabulary: Number of tokens; their rows come after those of all bigrams.
    """
    n_buckets, n_bigrams = len(bucket_slot), int(bucket_slot.max()) + 1
    each_text = ((*(token + n_buckets for token in ids), 0) for ids in texts)
    keys = np.fromiter(itertools.chain([0], itertools.chain.from_iterable(each_text)), np.int64)
    token_uses = np.bincount(keys[keys > 0] - n_buckets, minlength=vocabulary)
    first, second = keys[:-1], keys[1:]
    slots = bucket_slot[(first * BIGRAM_MULTIPLIER + second) % n_buckets]
    uses = np.concatenate([np.bincount(slots, minlength=n_bigrams), token_uses])
    uses[0] = uses.max() + 1
    uses_of_key = np.concatenate([np.full(n_buckets, len(keys)), token_uses])  # an end is never the rarer of two
    rarer = np.where(uses_of_key[first] <= uses_of_key[second], first, second) - n_buckets
    token = np.concatenate([np.zeros(n_bigrams, np.int64), np.arange(vocabulary)])
    token[slots] = np.maximum(rarer, 0)
    token_rank = np.argsort(np.argsort(-token_uses, kind="stable"))
    order: Integers = np.lexsort((token_rank[token], -uses))
    return order
