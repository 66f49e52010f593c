"""The encoder student: a pretrained transformer, mean pooling, a linear head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from distill.student.weights import BaseModel

__all__ = ["Encoder"]

_INITIAL_STD = 0.02


class Encoder(nn.Module):
    """Transformer, mean over the real tokens, dropout, linear head.

    Args:
        base: The pretrained transformer; it is trained in place.
        n_labels: Number of labels.
        dropout: Probability before the head.
    """

    def __init__(self, base: BaseModel, n_labels: int, dropout: float) -> None:
        super().__init__()
        self.body = base.body
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(int(base.body.config.hidden_size), n_labels)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(self.head.weight, std=_INITIAL_STD)
        nn.init.zeros_(self.head.bias)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean of the last layer over the real tokens: float32 of shape (batch, hidden)."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        return mean

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of shape (batch, n_labels) from ids and mask, int64 of shape (batch, length)."""
        logits: Tensor = self.head(self.dropout(self.embed(input_ids, attention_mask)))
        return logits

    def head_parameters(self) -> list[nn.Parameter]:
        """What is new, and so learns faster."""
        return list(self.head.parameters())

    @torch.no_grad()
    def bake_temperature(self, temperature: float) -> None:
        """Divides the logits by ``temperature`` from now on."""
        self.head.weight.div_(temperature)
        self.head.bias.div_(temperature)
