"""From which request on a server's latencies are steady: the end of a cold start.

The rule, in words. The last half of the requests tells the level (its lower quartile) and the scatter (its median
absolute deviation, as a standard deviation: times 1.4826). Every run of 11 requests in a row has a lower quartile; one
that lies within 10 % of the level, or within five standard errors of such a quartile where the scatter is wider than
that, is calm. The server is steady from the first request after which no three runs in a row are not calm; slow
requests in the first calm run (over the level by 10 % of it and by six standard deviations) still count as cold. It
never settled where the third and the fourth quarter of the requests differ by more than the tolerance, or where fewer
than 20 steady requests are left.

Other programs on the machine only ever add to a latency, so that lower quartiles see through them while a server that
is still warming up is slow in all of its requests; requiring all later runs to be calm keeps a lull in a long warm-up
from passing for its end.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW = 11
TOLERANCE = 0.10
STANDARD_ERRORS = 5.0
QUARTILE_ERROR = 1.363
"""Of a normal sample's lower quartile, in sd / sqrt(n): sqrt(1/4 x 3/4) / density(-0.674)."""
OUTLIER_DEVIATIONS = 6.0
FEWEST = 40
FEWEST_STEADY = 20
_MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation by its median absolute deviation: 1 / Phi^-1(3/4)."""


def steady_from(latencies: ArrayLike) -> int | None:
    """Index of the first steady request; `latencies` are milliseconds of sequential requests, in order, (n,).

    None where they never settle, or where there are fewer than 40 of them. Raises ValueError for latencies that are
    not finite.
    """
    values = np.asarray(latencies, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("latencies must be finite: leave out the requests that failed.")
    if values.size < FEWEST:
        return None
    level, deviation = _level(values[values.size // 2 :])
    if _drifts(values, level, deviation):
        return None
    runs = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    quartiles = np.percentile(runs, 25, axis=1, method="lower")  # the third smallest of 11
    wild = np.abs(quartiles - level) > _tolerance(level, deviation, WINDOW)
    lasting = np.flatnonzero(wild[2:] & wild[1:-1] & wild[:-2]) + 2
    first = int(lasting[-1]) + 1 if lasting.size else 0
    if first >= quartiles.size:
        return None
    first += _cold(values[first : first + WINDOW], level, deviation)
    return first if values.size - first >= FEWEST_STEADY else None


def _level(values: NDArray[np.float64]) -> tuple[float, float]:
    """Lower quartile and robust standard deviation."""
    deviation = _MAD_TO_SD * float(np.median(np.abs(values - np.median(values))))
    return float(np.percentile(values, 25)), deviation


def _tolerance(level: float, deviation: float, count: int) -> float:
    """How far the lower quartile of `count` requests may lie from the level."""
    return max(TOLERANCE * level, STANDARD_ERRORS * QUARTILE_ERROR * deviation / math.sqrt(count))


def _drifts(values: NDArray[np.float64], level: float, deviation: float) -> bool:
    quarter = values.size // 4
    third, fourth = (float(np.percentile(v, 25)) for v in (values[-2 * quarter : -quarter], values[-quarter:]))
    gap = abs(third - fourth)
    return gap > math.sqrt(2) * _tolerance(level, deviation, quarter)


def _cold(run: NDArray[np.float64], level: float, deviation: float) -> int:
    """Requests at the start of the first calm run up to its last slow one: a run with three fast ones is calm."""
    limit = level + max(TOLERANCE * level, OUTLIER_DEVIATIONS * deviation)
    slow = np.flatnonzero(run > limit)
    return int(slow[-1]) + 1 if slow.size else 0
