from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.calibration import expected_calibration_error


@given(st.integers(0, 10_000), st.integers(1, 200), st.sampled_from([np.float32, np.float64]))
def test_ece_is_the_mean_gap_of_equally_large_bins(seed, n, kind):
    rng = np.random.default_rng(seed)
    score = rng.random(n).astype(kind)
    right, expected = rng.random(n) < score, 0.0
    for part in np.array_split(np.argsort(score, kind="stable"), 15):
        expected += len(part) / n * abs(right[part].mean() - score[part].mean()) if len(part) else 0.0
    assert expected_calibration_error(score, right) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_of_the_perfectly_and_the_wholly_wrong():
    right = np.arange(1_000) % 4 < 3
    assert expected_calibration_error(np.full(1_000, 0.75, np.float32), right) < 0.02
    assert expected_calibration_error(np.ones(10, np.float32), np.zeros(10, bool)) == 1.0
