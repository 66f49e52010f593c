"""The encoder student: a pretrained transformer, mean pooling to a vector of fixed length, a linear head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from distill.student.weights import BaseModel

__all__ = ["Encoder", "FeatureDropout", "Pooled"]

_INITIAL_STD = 0.02
_SEQUENCE = 3
_LENGTH = 8.0
"""Of the vectors that the head sees: so that its rate suits both the body's and a head of common size."""


class FeatureDropout(nn.Module):
    """Dropout with one mask for all tokens of a text (variational dropout, Gal and Ghahramani, NeurIPS 2016).

    A number of the mask serves every token: drawing one for each token was a sixth of the training time on a processor. What is no
    sequence of vectors, such as attention, is let through.

    Args:
        rate: Share of the features that is dropped.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.p = 0.0  # what transformers hands to functional.dropout for attention

    def forward(self, values: Tensor) -> Tensor:
        """``values`` of shape (batch, length, features), with some features dropped while training."""
        if not self.training or not self.rate or values.ndim != _SEQUENCE:
            return values
        shape = (values.shape[0], 1, values.shape[2])
        kept = torch.rand(shape, device=values.device) >= self.rate
        return values * (kept / (1 - self.rate)).to(values.dtype)


class Encoder(nn.Module):
    """Transformer, mean over the real tokens at a fixed length, dropout, linear head.

    Args:
        base: The pretrained transformer; it is trained in place.
        n_labels: Number of labels.
        dropout: Probability before the head.
    """

    def __init__(self, base: BaseModel, n_labels: int, dropout: float) -> None:
        super().__init__()
        self.body = base.body
        _drop_features(self.body)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(int(base.body.config.hidden_size), n_labels)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(self.head.weight, std=_INITIAL_STD)
        nn.init.zeros_(self.head.bias)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The text's direction: mean of the last layer over the real tokens, of length 1; float32 of shape (batch, hidden)."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return functional.normalize((states * mask).sum(1).float(), dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of shape (batch, n_labels) from ids and mask, int64 of shape (batch, length)."""
        logits: Tensor = self.head(self.dropout(self.embed(input_ids, attention_mask) * _LENGTH))
        return logits

    @torch.no_grad()
    def start_head(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the head to one that was fitted on vectors of length 1."""
        self.head.weight.copy_(weight / _LENGTH)
        self.head.bias.copy_(bias)

    def head_parameters(self) -> list[nn.Parameter]:
        """What is new, and so learns faster."""
        return list(self.head.parameters())

    @torch.no_grad()
    def bake_temperature(self, temperature: float) -> None:
        """Divides the logits by ``temperature`` from now on."""
        self.head.weight.div_(temperature)
        self.head.bias.div_(temperature)


class Pooled(nn.Module):
    """An encoder without its head: from ids and mask to vectors of length 1.

    Args:
        encoder: Shared, not copied.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """float32 of shape (batch, hidden)."""
        return self.encoder.embed(input_ids, attention_mask)


def _drop_features(body: nn.Module) -> None:
    """Puts ``FeatureDropout`` in the place of every dropout."""
    for module in list(body.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, FeatureDropout(child.p))
