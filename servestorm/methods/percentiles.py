"""What may be said of samples and of runs. Too few of either gives None, never a guess.

Percentiles are exact order statistics (nearest rank: the smallest sample with at least that share at or below it),
taken from samples and never from other percentiles. A percentile is quoted only from `samples_needed` samples on (the
load generator's own rule): 11 for p50, 64 for p90, 130 for p95, 662 for p99, 6636 for p99.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loadtests.samples.validity import samples_needed
from servestorm.methods.welch import constant, known

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


def share_interval(hits: int, size: int) -> tuple[float, float]:
    """95 % interval of the share that `hits` of `size` draws show (Wilson 1927); both ends within 0 and 1."""
    from scipy.stats import binomtest

    interval = binomtest(hits, size).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Over:
    """A figure over runs: each run's own value, their mean and sample standard deviation (None under two runs)."""

    runs: tuple[float | None, ...]
    n: int
    mean: float | None
    sd: float | None


def over_runs(values: Sequence[float | None]) -> Over:
    """Mean and standard deviation (n - 1) of the values that exist."""
    there = known(values)
    mean = float(np.mean(there)) if there else None
    sd = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return Over(tuple(values), len(there), mean, sd)


def interval(
    values: Sequence[float | None], confidence: float = 0.95, *, most: float = math.inf
) -> tuple[float, float] | None:
    """Student's t interval of the mean over runs, in the unit of the values; `most` is the largest value that can be.

    Where every run is over 0 it is symmetric as a factor, mean / f to mean x f with f = exp(t x relative standard
    error): a time has a ratio scale, scatters more upwards than downwards, and is never under 0. That is the delta
    method on the logarithm of the mean (Burnham and others, "Design and analysis methods for fish survival experiments
    based on release-recapture", 1987, give the form). Where a run is 0 it is plain, and ends at 0.
    None with under two runs, or where they are all alike: runs without scatter say nothing of chance.
    """
    there = known(values)
    if len(there) < 2 or constant(there):
        return None
    from scipy.stats import t

    lowest = min(there)
    with np.errstate(all="ignore"):
        mean = np.mean(there)
        half = t.ppf((1 + confidence) / 2, len(there) - 1) * np.std(there, ddof=1) / math.sqrt(len(there))
        factor = np.exp(half / mean)
        low, high = (mean / factor, mean * factor) if lowest > 0 else (mean - half, mean + half)
    low, high = float(max(low, 0.0) if lowest >= 0 else low), float(min(high, most))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def order_interval(ordered: NDArray[np.float64], q: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of quantile `q` (0..1) between two of the sorted values; None where they are too few.

    How many values lie under the true quantile is binomial, whatever the distribution (David and Nagaraja, Order
    Statistics, 3rd edition, 2003, section 7.1; Le Boudec, Performance Evaluation of Computer and Communication Systems,
    2010, section 2.2). It takes the values to be independent. Those of one run are not: the interval is too narrow by
    what they share, and by all that differs between runs.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low = int(binom.ppf(tail, ordered.size, q))  # from 1: the true quantile is under this one with a chance <= tail
    high = int(binom.ppf(1 - tail, ordered.size, q)) + 1
    if low < 1 or high > ordered.size or ordered.size < samples_needed(q):
        return None
    return float(ordered[low - 1]), float(ordered[high - 1])
