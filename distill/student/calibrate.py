"""Temperature scaling (Guo et al., ICML 2017), fitted on held-out examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distill.types import Task

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = [
    "FEWEST_EXAMPLES",
    "fit_temperature",
    "negative_log_likelihood",
    "probabilities",
]

_SMALLEST, _LARGEST = 0.05, 20.0
_CELLS_AT_ONCE = 1 << 22
"""Examples times labels: in float64, all of many examples over many labels would take gigabytes."""

FEWEST_EXAMPLES = 20
"""With fewer held-out examples the fit is noise, and the temperature stays 1."""


def probabilities(task: Task, logits: Array) -> Array:
    """Softmax (``single``, ``weights``) or sigmoid (``multi``) of logits of shape (n, n_labels), float32."""
    from scipy.special import expit, softmax

    values = expit(logits) if task is Task.MULTI else softmax(logits, axis=1)
    return np.asarray(values, np.float32)


def negative_log_likelihood(task: Task, logits: Array, targets: Array, weights: Array | None = None) -> float:
    """Mean cross-entropy of soft targets in nats: over queries, and for ``multi`` over labels as well."""
    step = max(_CELLS_AT_ONCE // logits.shape[1], 1)
    parts = (slice(start, start + step) for start in range(0, len(logits), step))
    losses = [_losses(task, logits[part], targets[part]) for part in parts]
    return float(np.average(np.concatenate(losses), weights=weights))


def _losses(task: Task, logits: Array, targets: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Cross-entropy of each query, float64 of shape (n,)."""
    from scipy.special import log_expit, log_softmax

    logits = logits.astype(np.float64)
    losses: np.ndarray[Any, np.dtype[np.float64]]
    if task is Task.MULTI:
        losses = -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits)).mean(axis=1)
    else:
        losses = -(targets * log_softmax(logits, axis=1)).sum(axis=1)
    return losses


def fit_temperature(task: Task, logits: Array, targets: Array, weights: Array | None = None) -> float:
    """The temperature T that minimises the negative log-likelihood of ``logits / T``.

    Args:
        task: Picks softmax or sigmoid.
        logits: float32 of shape (n, n_labels).
        targets: float32 of shape (n, n_labels).
        weights: float32 of shape (n,), or None.
    """
    from scipy.optimize import minimize_scalar

    if len(logits) < FEWEST_EXAMPLES:
        return 1.0
    best = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(task, logits / np.exp(log_temperature), targets, weights),
        bounds=(np.log(_SMALLEST), np.log(_LARGEST)),
        method="bounded",
    )
    return float(np.exp(best.x))
