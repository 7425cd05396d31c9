"""When a load is VALID, when a figure of it counts, and how many samples a percentile needs.

A percentile of an open loop has two readings: from the scheduled times, and from the sends. The generator's late sends
can only have decided the figure where these differ, so a figure counts as long as they differ by no more than a stated
share. Rates, drops, failures and the generator's CPU are rules of the whole load.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

_CONFIDENCE: Final = 0.99


GENERATOR: Final = "the generator"


GAVE_UP: Final = "the load was given up"


_OVERLOADED: Final = re.compile(
    rf"\d+ arrivals were dropped: |\d+ of \d+ requests failed(?:, |$)|the achieved rate |{GAVE_UP} |"
    r"only \S+ of \d+ requests of the closed"
)


PERCENTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
"""Quantile of each percentile by its name."""


MOST_MOVED: Final[Mapping[str, float]] = {
    "p50": 0.015,
    "p90": 0.01,
    "p95": 0.01,
    "p99": 0.03,
    "p999": 0.03,
    "mean": 0.015,
}
"""A figure counts where the generator's lag moved it by no more than this share (see `moved_by`).

benchmarks/calibration/lag.py measures what a figure that counts carries from the lag."""


MAX_CPU_SHARE: Final = 0.8


MAX_RATE_DEVIATION: Final = 0.01


MIN_IN_FLIGHT_SHARE: Final = 0.95
"""Of the requests that a closed loop is to keep under way."""


@cache
def samples_needed(quantile: float) -> int:
    """Samples before a percentile is quoted: with so many, two lie above it with 99 % confidence.

    Smallest n with P(Binomial(n, 1 - q) <= 1) <= 0.01, the count that MLPerf Inference's LoadGen asks for with one
    query over the limit (Reddi et al., MLPerf Inference Benchmark, 2020): 11 for p50, 64 for p90, 662 for p99.
    """
    tail = 1 - quantile
    low, high = 2, 4
    while _at_most_one(high, tail) > 1 - _CONFIDENCE:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most_one(middle, tail) > 1 - _CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most_one(n: int, tail: float) -> float:
    return float((1 - tail) ** n + n * tail * (1 - tail) ** (n - 1))


def moved_by(scheduled: float, sent: float) -> float:
    """Share by which the generator's lag moved a figure: |scheduled - sent| / sent.

    Both are readings of one percentile, or of the mean, in the same unit: from the scheduled times, and from the sends.
    """
    return abs(scheduled - sent) / sent if sent > 0 else 0.0 if scheduled == sent else math.inf


def figure_counts(name: str, scheduled: float, sent: float) -> bool:
    """True where the lag moved the figure by no more than MOST_MOVED[name]."""
    return moved_by(scheduled, sent) <= MOST_MOVED[name]


def percentile_counts(counts: Mapping[str, bool | None]) -> bool:
    """False where the lag made every percentile INVALID that the samples are enough for.

    `counts` holds for each figure whether it counts, None where the samples are too few.
    """
    quoted = [count for name, count in counts.items() if name in PERCENTILES and count is not None]
    return any(quoted) or not quoted


def generator_at_fault(reasons: Sequence[str], *, percentile_counts: bool = True) -> bool:
    """True where a load gives no answer for nothing but the generator's own health: another try is as good.

    `reasons` are why the load is INVALID; `percentile_counts` is what the function of that name says of its figures.
    """
    return all(reason.startswith(GENERATOR) for reason in reasons) and (bool(reasons) or not percentile_counts)


def servers_overloaded(reasons: Sequence[str]) -> bool:
    """True where a load is INVALID for nothing but servers that could not take it: who asks just that has an answer."""
    return bool(reasons) and all(_OVERLOADED.match(reason) for reason in reasons)
