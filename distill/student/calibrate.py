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

_PRIOR_DEVIATION = 1.0
"""Of the temperature's logarithm, before anything is held out: where every answer is right, the likelihood alone has no bound."""


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
    """The most probable temperature T, by the likelihood of ``logits / T`` and a normal prior of log T around 0 (maximum a posteriori).

    The prior counts where few examples were held out, and next to nothing where hundreds were.

    Args:
        task: Picks softmax or sigmoid.
        logits: float32 of shape (n, n_labels).
        targets: float32 of shape (n, n_labels). But for ``multi``, a row of zeros is of no label, and says nothing of temperatures.
        weights: float32 of shape (n,), or None.
    """
    from scipy.optimize import minimize_scalar

    if task is not Task.MULTI:
        has_label = targets.any(axis=1)
        logits, targets = logits[has_label], targets[has_label]
        weights = weights if weights is None else weights[has_label]
    if len(logits) < FEWEST_EXAMPLES:
        return 1.0
    n_decisions = len(logits) * (logits.shape[1] if task is Task.MULTI else 1)

    def loss(log_temperature: float) -> float:
        """The negative logarithm of the posterior, over the number of decisions."""
        prior = (log_temperature / _PRIOR_DEVIATION) ** 2 / 2
        return negative_log_likelihood(task, logits / np.exp(log_temperature), targets, weights) + prior / n_decisions

    best = minimize_scalar(
        loss,
        bounds=(np.log(_SMALLEST), np.log(_LARGEST)),
        method="bounded",
    )
    return float(np.exp(best.x))
