"""A linear head fitted on the vectors of a pretrained encoder that stays as it is: where fine-tuning starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distill.student.calibrate import negative_log_likelihood, probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from distill.progress import Progress
    from distill.student.targets import Targets
    from distill.types import Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["linear_probe", "most_iterations"]

_STRENGTH = 10.0
_ITERATIONS, _LEAST_ITERATIONS, _MOST_WORK = 100, 5, 2_000_000_000
"""``_MOST_WORK`` is of examples times labels times iterations: beyond 20 million of the first two the last become fewer."""

_ROWS, _CELLS = 4_096, 1 << 22
"""Rows at once, fewer where there are many labels: memory does not grow with the number of examples times that of labels."""


def most_iterations(n_examples: int, n_labels: int) -> int:
    """How many iterations ``linear_probe`` takes at most."""
    return min(_ITERATIONS, max(_LEAST_ITERATIONS, _MOST_WORK // (n_examples * n_labels)))


def linear_probe(
    task: Task, vectors: Array, targets: Targets, weights: Array, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Multinomial (``multi``: binary) logistic regression with soft targets and an L2 penalty, by L-BFGS.

    With one label a query it is scikit-learn's ``LogisticRegression(C=10)``. A head that starts here does not pull the pretrained
    vectors apart before it fits them (linear probing, then fine-tuning: Kumar et al., ICLR 2022).

    Args:
        task: Picks softmax or sigmoid.
        vectors: float32 of shape (n, dimension), of length 1.
        targets: float32 of shape (n, n_labels).
        weights: float32 of shape (n,).
        progress: Advanced by one an iteration; there are ``most_iterations`` at most.

    Returns:
        Weight, float32 of shape (n_labels, dimension), and bias, float32 of shape (n_labels,).
    """
    from scipy.optimize import minimize

    n_labels, dimension, total = targets.shape[1], vectors.shape[1], float(weights.sum())
    columns = 1 if task.sums_to_one else n_labels
    step = min(_ROWS, max(_CELLS // n_labels, 1))

    def value_and_gradient(flat: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        """What is minimised, in nats: the mean cross-entropy of a query over all its labels, and the penalty of the weights.

        Args:
            flat: Weight and bias, a row a label: float64 of shape (n_labels * (dimension + 1),), as L-BFGS has it.

        Returns:
            The value, and its gradient in the shape of ``flat``. ``step`` rows at a time, so that memory does not grow with n.
        """
        head = flat.reshape(n_labels, dimension + 1).astype(np.float32)
        weight, bias = head[:, :-1], head[:, -1]
        gradient = np.zeros((n_labels, dimension + 1))
        gradient[:, :-1] = weight / (_STRENGTH * total)
        value = float(np.square(weight, dtype=np.float64).sum()) / (2 * _STRENGTH * total)
        for start in range(0, len(vectors), step):
            rows = slice(start, start + step)
            x, y, w = vectors[rows], targets[rows], weights[rows]
            logits = x @ weight.T + bias
            value += negative_log_likelihood(task, logits, y, w) * columns * float(w.sum()) / total
            error = (probabilities(task, logits) - y) * (w / total)[:, None]
            gradient[:, :-1] += error.T @ x
            gradient[:, -1] += error.sum(axis=0)
        return value, gradient.ravel()

    found = minimize(
        value_and_gradient,
        np.zeros(n_labels * (dimension + 1)),
        jac=True,
        callback=None if progress is None else lambda _: progress.advance(),
        method="L-BFGS-B",
        options={"maxiter": most_iterations(len(vectors), n_labels), "ftol": 1e-7},
    )
    head = torch.from_numpy(found.x.reshape(n_labels, dimension + 1).astype(np.float32))
    return head[:, :-1].contiguous(), head[:, -1].contiguous()
