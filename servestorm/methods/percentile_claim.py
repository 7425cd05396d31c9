"""What may be promised of a percentile: "p99 is at most X", with 99 % confidence.

A percentile of the samples is as often too low as too high. How many of n independent samples lie above the true
q-quantile is binomial with n and 1 - q, whatever the distribution. If the true quantile were over an order statistic X
with t samples above it, at most t samples would lie above the quantile, and that has the chance P(Binomial(n, 1 - q)
<= t). The claim is the smallest X for which this is at most 1 %.

It is the rule by which LoadGen, the load generator of MLPerf Inference (Reddi and others, "MLPerf Inference
Benchmark", ISCA 2020), ends a run of its scenario Server early (`loadgen/early_stopping.cc` and `results.cc`): the run
is successful where n is at least the smallest number for which P(Binomial(n, 1 - q) <= t) < 1 %, t being the queries
over the latency limit. So the claim is the smallest limit under which LoadGen would call the run successful. For
single-stream runs LoadGen prints the next larger sample, which is a little more careful than it need be.

LoadGen takes the samples to be independent. Latencies of one load are not: a queue delays neighbours together, so the
samples above a percentile come in bunches, and a load holds fewer bunches than samples. Of simulated queues at a
utilisation of 0.5, LoadGen's claim with "99 %" confidence is false in 15 of 100 loads, at 0.8 in 50, and this one in 3
and in 6 (`benchmarks/calibration/claims.py`). For this, n is divided by how many times more the number of samples over
the percentile scatters between slices of the load than it would if they were independent: batch means (Conway, "Some
tactical problems in digital simulation", 1963). The claim is never under LoadGen's, and close to it where neighbours
have nothing to do with each other.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE: Final = 0.99


def allowed_above(count: int, q: float) -> int | None:
    """How many of `count` independent samples may lie above the claim of quantile `q` (0..1); None: too few samples.

    Largest t with P(Binomial(count, 1 - q) <= t) <= 0.01. For p99 the first claim takes 459 samples, and the first
    with one sample above it 662.
    """
    from scipy.stats import binom

    allowed = int(binom.ppf(1 - CONFIDENCE, count, 1 - q)) - 1 if count else -1
    return allowed if allowed >= 0 else None


def percentile_claim(values: ArrayLike, q: float, slice_of: NDArray[np.integer] | None = None) -> float | None:
    """The smallest of the values that quantile `q` (0..1) does not exceed, with 99 % confidence; in their unit.

    `values`, (n,), are of one load; `slice_of`, (n,), is the slice of time that each belongs to. Without it the values
    are taken to be independent, as LoadGen takes them. None where there are too few values, or
    too few bunches of them.
    """
    array = np.asarray(values, dtype=np.float64)
    bunched = 1.0 if slice_of is None else bunching(array, q, slice_of)
    allowed = allowed_above(int(array.size / bunched), q)
    if allowed is None:
        return None
    place = array.size - 1 - math.floor(allowed * bunched)
    return float(np.partition(array, place)[place])


def bunching(values: NDArray[np.float64], q: float, slice_of: NDArray[np.integer]) -> float:
    """How many times more the number of values over their quantile `q` scatters between slices than by chance; >= 1.

    Mean square of the slices' numbers about what their sizes lead to expect, by that of a binomial.
    """
    if not values.size:
        return 1.0
    rank = max(0, math.ceil(q * values.size) - 1)
    over = values > np.partition(values, rank)[rank]
    _, place = np.unique(slice_of, return_inverse=True)
    sizes, counts = np.bincount(place), np.bincount(place, weights=over)
    share = over.mean()
    if sizes.size < 2 or share == 0:
        return 1.0
    squares = (counts - sizes * share) ** 2 / (sizes * share * (1 - share))
    return max(1.0, float(squares.sum() / (sizes.size - 1)))
