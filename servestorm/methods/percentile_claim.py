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

Latencies of one load are not quite independent: a queue delays neighbours together. Where they come in long bunches the
confidence is under 99 %; longer loads hold more bunches, and several instances more still.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE: Final = 0.99


def allowed_above(count: int, q: float) -> int | None:
    """How many of `count` samples may lie above the claim of quantile `q` (0..1); None where even none is too many.

    Largest t with P(Binomial(count, 1 - q) <= t) <= 0.01. For p99 the first claim takes 459 samples, and the first
    with one sample above it 662.
    """
    from scipy.stats import binom

    allowed = int(binom.ppf(1 - CONFIDENCE, count, 1 - q)) - 1 if count else -1
    return allowed if allowed >= 0 else None


def percentile_claim(values: ArrayLike, q: float) -> float | None:
    """The smallest of the values that quantile `q` (0..1) does not exceed, with 99 % confidence; in their unit.

    None where there are too few of them.
    """
    array = np.asarray(values, dtype=np.float64)
    allowed = allowed_above(array.size, q)
    if allowed is None:
        return None
    place = array.size - 1 - allowed
    return float(np.partition(array, place)[place])
