"""First vectors and weights of the static student's tokens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from distill.student.tokens import Ids
    from distill.student.weights import BaseModel

__all__ = ["first_gates", "token_vectors"]

_SMOOTHING = 1e-3
"""``a`` of smooth inverse frequency, a / (a + p) (Arora et al., ICLR 2017)."""


def token_vectors(base: BaseModel, dimension: int) -> Tensor:
    """The transformer's input embeddings, centred, by principal components.

    What the transformer makes of each token alone (as in model2vec) was tried as well, before and after its training: no better here, and it
    costs a pass over the vocabulary.

    Args:
        base: Before it is trained.
        dimension: Columns of the result, at most the transformer's.

    Returns:
        float32 of shape (vocabulary, dimension), with unit mean square.
    """
    body: Any = base.body
    weights: Tensor = body.get_input_embeddings().weight.detach().float()
    vectors = weights - weights.mean(dim=0)
    _, directions = torch.linalg.eigh(vectors.T @ vectors)
    reduced = vectors @ directions.flip(1)[:, :dimension]
    scaled: Tensor = (reduced / reduced.square().mean().sqrt()).contiguous()
    return scaled


def first_gates(texts: Sequence[Ids], vocabulary: int) -> Tensor:
    """Weight of each token by how rare it is in the texts: float32 of shape (vocabulary,), 1 for what never occurs."""
    counts: Counter[int] = Counter(token for ids in texts for token in ids)
    frequencies: np.ndarray[Any, Any] = np.zeros(vocabulary)
    for token, count in counts.items():
        frequencies[token] = count / counts.total()
    return torch.from_numpy((_SMOOTHING / (_SMOOTHING + frequencies)).astype(np.float32))
