"""In the place of a sentence encoder: texts are alike as far as they share words."""

from __future__ import annotations

import re
import zlib
from functools import cache

import numpy as np

_DIMENSION = 512


@cache
def _of(word):
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=_DIMENSION)


class ByWords:
    """Counts what it was asked; the vector of a text is the sum of its words' own."""

    def __init__(self):
        self.embedded = []

    def embed(self, texts, on_done=None):
        self.embedded += texts
        vectors = np.zeros((len(texts), _DIMENSION), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.casefold()):
                vectors[row] += _of(word)
        if on_done is not None:
            on_done(len(texts))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
