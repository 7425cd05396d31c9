"""When a probe of a capacity search is doomed: so many requests are in flight that no answer to come can save it.

A load at lambda requests/s lasts a warm-up of W seconds, which is left out of every figure, and T measured seconds. Its
p99 is over a limit of L seconds if more than 1 % of its n requests take longer than L. That cannot be seen from one
slow answer, but it can be seen from the number N of requests in flight:

* at most A of them were due within the last L seconds, A being the arrivals of so long a time;
* at most B of them belong to the warm-up, B being the arrivals of so long a time;
* the other N - A - B are measured requests that have been in flight for more than L already. Each will be answered
  late or not at all.

p99 is of right answers, and a share f of the requests may fail. If more than (0.01 + f) n of them are late or fail,
either more than f fail or more than 1 % of those that are answered are late: the probe fails whatever comes. So it is
doomed where N > A + B + (0.01 + f) n. A, B and n are Poisson with means lambda L, lambda W and lambda T; the limit
takes each at a value that it exceeds once in a thousand million loads. Little's law says the same of means: N in flight
on average means an average latency of N / lambda.

L is not the objective but `capacity_estimate.NEAR` times the objective: under it the p99 of a probe that fails still
tells where the capacity is. So giving up changes neither the verdict nor the estimate, and the rates of the search stay
the same; only time is saved, more the farther the rate is over the capacity.
"""

from __future__ import annotations

import math
from typing import Final

from servestorm.methods.capacity_estimate import NEAR
from servestorm.methods.capacity_search import SearchObjective

_LATE: Final = 0.01
"""Share of the requests that may take longer than their p99."""
_CHANCE: Final = 1e-9


def doomed_in_flight(
    rate_per_s: float, duration_s: float, warmup_s: float, objective: SearchObjective, most_in_flight: int
) -> int | None:
    """Requests in flight from which on a load of Poisson arrivals surely fails.

    `most_in_flight` is how many the generator allows: an arrival beyond is dropped, which fails the load too, unless it
    is one of the warm-up. None where the warm-up alone may bring about as many.
    """
    limit_s = NEAR * objective.p99_ms / 1000
    lost = _LATE + objective.max_error_percent / 100
    recent, of_warmup, measured = (_most(rate_per_s * time_s) for time_s in (limit_s, warmup_s, duration_s))
    doomed = recent + of_warmup + math.floor(lost * measured) + 1
    if doomed <= most_in_flight:
        return doomed
    return most_in_flight if of_warmup < most_in_flight else None


def _most(mean: float) -> int:
    """A number that a Poisson variable of that mean practically never exceeds."""
    from scipy.stats import poisson

    return int(poisson.isf(_CHANCE, mean))
