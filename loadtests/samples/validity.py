"""When a load is VALID: the limits of its generator, and how many samples a percentile needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

_CONFIDENCE: Final = 0.99


GENERATOR: Final = "the generator"


_OVERLOADED: Final = re.compile(
    r"\d+ arrivals were dropped: |\d+ of \d+ requests failed(?:, |$)|the achieved rate |"
    r"only \S+ of \d+ requests of the closed"
)


MAX_LAG_MS: Final = 1.0


MAX_LAG_SHARE: Final = 0.05


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


def generator_at_fault(reasons: Sequence[str]) -> bool:
    """True where a load is INVALID for nothing but the generator's own health: another try is as good."""
    return bool(reasons) and all(reason.startswith(GENERATOR) for reason in reasons)


def servers_overloaded(reasons: Sequence[str]) -> bool:
    """True where a load is INVALID for nothing but servers that could not take it: who asks just that has an answer."""
    return bool(reasons) and all(_OVERLOADED.match(reason) for reason in reasons)
