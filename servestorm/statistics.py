"""What may be said of samples and of runs. Too few of either gives None, never a guess.

Percentiles are exact order statistics (nearest rank: the smallest sample with at least that share at or below it),
taken from samples and never from other percentiles. A percentile is quoted only from `samples_needed` samples on (the
load generator's own rule): 11 for p50, 64 for p90, 130 for p95, 662 for p99, 6636 for p99.9.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loadtests.summary import samples_needed

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def percentile(values: ArrayLike, q: float) -> float | None:
    """Nearest-rank quantile `q` (0..1) of the values, or None where there are fewer than `samples_needed(q)`."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < samples_needed(q):
        return None
    rank = nearest_rank(array.size, q)
    return float(np.partition(array, rank)[rank])


def nearest_rank(size: int, q: float) -> int:
    """Place of quantile `q` (0..1) among `size` sorted values, from 0."""
    return max(0, math.ceil(q * size) - 1)


def percentiles(values: ArrayLike) -> dict[str, float | None]:
    """Every quantile of QUANTILES by its name."""
    array: NDArray[np.float64] = np.sort(np.asarray(values, dtype=np.float64))
    return {name: percentile(array, q) for name, q in QUANTILES.items()}


@dataclass(frozen=True)
class Over:
    """A figure over runs: each run's own value, their mean and sample standard deviation (None under two runs)."""

    runs: tuple[float | None, ...]
    n: int
    mean: float | None
    sd: float | None


def over_runs(values: Sequence[float | None]) -> Over:
    """Mean and standard deviation (n - 1) of the values that exist."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Over(tuple(values), len(known), mean, sd)


def interval(values: Sequence[float | None], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over runs; None with under two of them."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, len(known) - 1) * np.std(known, ddof=1) / math.sqrt(len(known)))
    mean = float(np.mean(known))
    return mean - half, mean + half


def welch_p(a: Sequence[float | None], b: Sequence[float | None]) -> float | None:
    """Two-sided p of Welch's t-test (unequal variances) over runs.

    None where either side has fewer than two runs, or where neither varies by more than rounding.
    """
    left, right = ([value for value in side if value is not None] for side in (a, b))
    if len(left) < 2 or len(right) < 2 or (_constant(left) and _constant(right)):
        return None
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():  # it warns where one side does not vary, which is no fault of the reader's
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(ttest_ind(left, right, equal_var=False).pvalue)
    return None if math.isnan(p) else p


def _constant(values: Sequence[float]) -> bool:
    return float(np.ptp(values)) <= 1e-9 * float(np.max(np.abs(values)))
