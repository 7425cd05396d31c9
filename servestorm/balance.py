"""How evenly requests were spread over the replicas.

The generator is the balancer: each request goes to the endpoint with the fewest under way. So an uneven spread says
that the replicas are not equally fast, not that the dealing is unfair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Balance:
    """Shares are 0..1 of all requests; everything but the counts is None where no request was sent."""

    requests: tuple[int, ...]
    """Of each endpoint, in its order."""
    shares: tuple[float, ...] | None
    jain: float | None
    """Jain's fairness index: 1 where all are equal, 1/n where one endpoint takes all."""
    largest_over_mean: float | None
    """Requests of the busiest endpoint over those of an average one: 1 where all are equal, n at worst."""


def balance(endpoint: ArrayLike, endpoints: int) -> Balance:
    """Evenness over `endpoints` (at least 1) of the samples' `endpoint` column (integers from 0; others are left out).

    Give the samples that were sent: a dropped arrival has no endpoint of its own. Jain's index is
    (sum x)^2 / (n sum x^2): Jain, Chiu and Hawe, A Quantitative Measure of Fairness and Discrimination for Resource
    Allocation in Shared Computer Systems, DEC-TR-301, 1984.
    """
    index = np.asarray(endpoint).astype(np.int64)
    counts = np.bincount(index[(index >= 0) & (index < endpoints)], minlength=endpoints)
    requests = tuple(int(count) for count in counts)
    total = float(counts.sum())
    if not total:
        return Balance(requests, None, None, None)
    shares = counts / total
    jain = 1.0 / float(endpoints * np.square(shares).sum())
    return Balance(requests, tuple(float(s) for s in shares), jain, float(shares.max() * endpoints))
