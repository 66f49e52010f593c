"""What a cascade of student and teacher would do on gold: share asked, accuracy, cost, latency. Nothing is asked.

Both have answered every gold query already; a point of the curve takes the teacher's answer where a rule asks it and the
student's elsewhere. A point that was picked because it looks best on some gold looks better there than on new queries.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distill.benchmark.cost import as_number
from distill.benchmark.statistics import compare_paired, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.types import Interval

__all__ = ["SHARES", "CascadeInputs", "CascadePoint", "cascade_curve"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Shares of the queries that the curve's points ask, as nearly as equal confidences allow."""

_POLICY, _CONFIDENCE = "policy", "confidence"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CascadeInputs:
    """What student and teacher answered on the same n gold queries.

    Attributes:
        confidence: float64 array of shape (n,): ``distill.policy.confidence`` of the student; NaN where it was not asked
            either, as for empty input, which no cascade asks about.
        declined: bool array of shape (n,): the student's policy gives no intent, the input not being empty.
        student_right: bool array of shape (n,): the student's answer after the policy is gold.
        teacher_right: bool array of shape (n,): the teacher's is; False where it failed.
        teacher_failed: bool array of shape (n,): the teacher has no answer, so the student's stays.
        student_ms: float64 array of shape (n_calls,): times of single calls of the student.
        teacher_ms: float64 array of shape (n,): the teacher's recorded latency; NaN where not known.
        teacher_usd_per_1k: What a thousand queries cost at the teacher; None where not known.
    """

    confidence: Floats
    declined: Bools
    student_right: Bools
    teacher_right: Bools
    teacher_failed: Bools
    student_ms: Floats
    teacher_ms: Floats
    teacher_usd_per_1k: Decimal | None = None

    def __post_init__(self) -> None:
        columns = (self.declined, self.student_right, self.teacher_right, self.teacher_failed, self.teacher_ms)
        if any(column.shape != self.confidence.shape for column in columns):
            raise ValueError(f"every column needs {len(self.confidence)} queries")


@dataclass(frozen=True, slots=True)
class CascadePoint:
    """One rule of asking, and what it leads to on these gold queries.

    Attributes:
        rule: ``policy``: asked is what the student's policy declines, as ``Cascade(router, fallback)`` does.
            ``confidence``: what it is not sure of, as ``Cascade(router, fallback, ask_when=(), ask_below=...)`` does.
        ask_below: Of ``confidence``; 0 for ``policy``.
        n_asked: Queries asked.
        n_failed: Of these, without an answer of the teacher.
        share_asked: ``n_asked`` of all.
        accuracy: After the policy, on all gold queries (``accuracy_policy``).
        accuracy_ci95: Its interval (Wilson).
        drop: The teacher's accuracy minus this one, on the queries that the teacher answered.
        drop_ci95: Its interval (Tango, paired). Only where all of it lies below a loss is that loss ruled out at 95 %.
        p95_ms: Over all queries; one that is asked takes the student's time and the teacher's. None where not known.
        asking_usd_per_1k: What asking costs for a thousand queries, the student's machine apart. None where not known.
    """

    rule: str
    ask_below: float
    n_asked: int
    n_failed: int
    share_asked: float
    accuracy: float
    accuracy_ci95: Interval
    drop: float
    drop_ci95: Interval
    p95_ms: float | None
    asking_usd_per_1k: Decimal | None

    def as_dict(self) -> dict[str, Any]:
        """A dictionary for bench.json."""
        return asdict(self) | {"asking_usd_per_1k": as_number(self.asking_usd_per_1k)}


def cascade_curve(inputs: CascadeInputs, shares: Sequence[float] = SHARES) -> tuple[CascadePoint, ...]:
    """The points of the curve: what the policy declines first, then the least confident queries, share by share.

    Args:
        inputs: What student and teacher answered.
        shares: Each gives the point that asks the most queries without asking more than this share of all. Shares that
            ask the same queries give one point.

    Returns:
        The points; none where there is no query that the teacher answered.
    """
    n = len(inputs.confidence)
    if inputs.teacher_failed.all():
        return ()
    asked = {(_POLICY, 0.0): inputs.declined}
    ascending = np.sort(inputs.confidence[~np.isnan(inputs.confidence)])
    for share in sorted(shares):
        ask_below = _boundary(ascending, math.floor(share * n + 1e-9))
        asked[_CONFIDENCE, ask_below] = inputs.confidence < ask_below
    return tuple(_point(inputs, rule, ask_below, chosen) for (rule, ask_below), chosen in asked.items())


def _boundary(ascending: Floats, most: int) -> float:
    """A short number between two confidences, so that at most so many lie below: equal ones cannot be parted.

    At most 1, as a cascade takes it: who has all the confidence there is, is never asked about.
    """
    if most >= len(ascending):
        return _short_number_between(float(ascending[-1]), 1.0) if len(ascending) else 0.5
    first_kept = ascending[most]
    n_asked = int(np.searchsorted(ascending, first_kept, side="left"))
    return _short_number_between(float(ascending[n_asked - 1]), float(first_kept)) if n_asked else 0.0


def _short_number_between(low: float, high: float) -> float:
    """The middle, with as few digits as part the two: what is printed can then be set, and asks the same queries."""
    middle = (low + high) / 2
    return next((short for digits in range(1, 17) if low < (short := round(middle, digits)) < high), middle)


def _point(inputs: CascadeInputs, rule: str, ask_below: float, asked: Bools) -> CascadePoint:
    n, n_asked = len(asked), int(asked.sum())
    right = np.where(asked & ~inputs.teacher_failed, inputs.teacher_right, inputs.student_right)
    against = compare_paired(right, inputs.teacher_right, ~inputs.teacher_failed)
    usd = inputs.teacher_usd_per_1k
    cost = Decimal(0) if not n_asked else None if usd is None else usd * n_asked / n
    return CascadePoint(
        rule=rule,
        ask_below=ask_below,
        n_asked=n_asked,
        n_failed=int((asked & inputs.teacher_failed).sum()),
        share_asked=n_asked / n,
        accuracy=float(right.mean()),
        accuracy_ci95=wilson_interval(int(right.sum()), n) or (0.0, 1.0),
        drop=against.drop,
        drop_ci95=against.drop_ci95,
        p95_ms=_percentile_ms(inputs, asked, 95),
        asking_usd_per_1k=cost,
    )


def _percentile_ms(inputs: CascadeInputs, asked: Bools, percent: float) -> float | None:
    """A percentile of the mixture: the student's calls in the share not asked, and each asked query once.

    Asked queries whose latency was not recorded are left out, the others weigh the more.
    """
    known = inputs.teacher_ms[asked & ~np.isnan(inputs.teacher_ms)]
    if not len(inputs.student_ms) or (asked.any() and not len(known)):
        return None
    n_asked = int(asked.sum())
    times = np.concatenate([inputs.student_ms, known + np.median(inputs.student_ms)])
    weights = np.concatenate(
        [
            np.full(len(inputs.student_ms), (len(asked) - n_asked) / len(inputs.student_ms)),
            np.full(len(known), n_asked / max(len(known), 1)),
        ]
    )
    order = np.argsort(times, kind="stable")
    reached = np.cumsum(weights[order])
    return float(times[order][np.searchsorted(reached, (percent / 100) * reached[-1] * (1 - 1e-12))])
