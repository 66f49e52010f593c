"""Texts to token ids: the base model's tokenizer, made fit for a router."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["IdBatch", "Ids", "batches_of_like_length", "bundle_tokenizer", "encode", "pad"]

Ids = list[int]
IdBatch = tuple["np.ndarray[Any, np.dtype[np.int64]]", "np.ndarray[Any, np.dtype[np.int64]]"]

_ENCODED_AT_ONCE = 8_192
"""Texts: an encoding holds its tokens as strings too, a kilobyte each."""


def bundle_tokenizer(tokenizer: Tokenizer, max_length: int, *, special_tokens: bool = True) -> Tokenizer:
    """A copy without padding, that cuts at ``max_length`` tokens.

    all-MiniLM-L6-v2's own file pads every query to 128 tokens: loaded as it is, it would cost ten times the time.

    Args:
        tokenizer: The base model's.
        max_length: Tokens after which a query is cut, special ones included.
        special_tokens: False leaves out what the post-processor adds ([CLS], [SEP]).
    """
    content = json.loads(tokenizer.to_str())
    content["padding"] = content["truncation"] = None
    if not special_tokens:
        content["post_processor"] = None
    copy = Tokenizer.from_str(json.dumps(content))
    copy.enable_truncation(max_length)
    return copy


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Token ids of each text."""
    ids: list[Ids] = []
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        ids += [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts[start : start + _ENCODED_AT_ONCE]))]
    return ids


def pad(ids: Sequence[Ids]) -> IdBatch:
    """``input_ids`` and ``attention_mask``, int64 of shape (batch, longest); the padding's id is 0, only the mask counts."""
    length = max(1, *map(len, ids))
    input_ids = np.zeros((len(ids), length), np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = tokens
        attention_mask[row, : len(tokens)] = 1
    return input_ids, attention_mask


def batches_of_like_length(ids: Sequence[Ids], batch_size: int) -> Iterator[tuple[list[int], IdBatch]]:
    """Positions and padded batch, shortest texts first."""
    order = sorted(range(len(ids)), key=lambda position: len(ids[position]))
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size]
        yield positions, pad([ids[position] for position in positions])
