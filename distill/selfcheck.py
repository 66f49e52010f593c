"""The self-check: texts with the ids and logits that a bundle must give, replayed on the user's own processor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.bundle import SELFCHECK, check_graph, load_bundle
from distill.errors import BundleError

if TYPE_CHECKING:
    from distill.router import Router
    from distill.types import Reason

    Floats = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["SelfCheck", "verify_selfcheck"]


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """How a bundle answers its self-check on this machine.

    Attributes:
        n: Texts replayed.
        n_token_mismatches: Texts whose ids differ from the recorded ones.
        max_abs_difference: Largest difference from a recorded logit.
        n_label_flips: Texts whose decision (intents and reason) differs from that of the recorded logits.
        tolerance: Largest difference that passes.
    """

    n: int
    n_token_mismatches: int
    max_abs_difference: float
    n_label_flips: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether ids and decisions agree and no logit is further off than the tolerance."""
        return (
            self.n > 0
            and not self.n_token_mismatches
            and not self.n_label_flips
            and self.max_abs_difference <= self.tolerance
        )


def verify_selfcheck(router: Router) -> SelfCheck:
    """Compares every file of the bundle that is there with its SHA-256, then replays its selfcheck.jsonl on this machine, one text at a time.

    A logit may differ by 1e-3 of the largest recorded one (fp32), or by a twentieth of it (int8: processors round and
    saturate differently), while every decision must stay.

    Raises:
        BundleError: A file was altered, selfcheck.jsonl cannot be read, or the bundle was replaced since the router loaded it.
    """
    load_bundle(router.bundle.path, spare=not router.bundle.missing)
    check_graph(router.bundle, verify=False)
    path = router.bundle.path / SELFCHECK
    n = n_token_mismatches = n_label_flips = 0
    max_abs_difference = largest = 0.0
    try:
        for number, raw in enumerate(path.read_bytes().splitlines(), 1):
            line = json.loads(raw)
            expected = np.array(line["logits"], dtype=np.float32)
            if expected.shape != (len(router.labels),):
                raise BundleError(f"{path}:{number}: {expected.size} logits for {len(router.labels)} labels")
            found = _answer(router, line["input_ids"])
            n += 1
            n_token_mismatches += router.tokenise(line["text"]) != line["input_ids"]
            max_abs_difference = float(np.maximum(max_abs_difference, np.abs(found - expected).max()))  # nan stays
            largest = max(largest, float(np.abs(expected).max()))
            n_label_flips += _decision(router, found) != _decision(router, expected)
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path}: not a self-check: {error!r}") from error
    is_int8 = "quantized" in router.manifest.onnx_file
    tolerance = (0.05 if is_int8 else 1e-3) * max(largest, 1.0)
    return SelfCheck(n, n_token_mismatches, max_abs_difference, n_label_flips, tolerance)


def _answer(router: Router, ids: list[int]) -> Floats:
    """The graph's logits.

    Raises:
        ValueError: It takes no such ids.
    """
    if not ids:
        raise ValueError("no input_ids")
    try:
        return router.logits(ids)
    except BundleError as error:
        raise ValueError(f"input_ids that the graph does not take: {error}") from error


def _decision(router: Router, logits: Floats) -> tuple[str | None, tuple[str, ...], Reason]:
    prediction = router.decide(logits)
    return prediction.top_intent, prediction.intents, prediction.reason
