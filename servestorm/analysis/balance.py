"""How evenly requests were spread over the replicas.

The generator is the balancer: each request goes to the endpoint with the fewest under way. So an uneven spread says
that the replicas are not equally fast, not that the dealing is unfair. Where a balancer of its own stands between, the
samples know only that, and the replicas' own counters tell the spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servestorm.analysis.server_times import requests_by_replica
from servestorm.rundir.record import CellRecord


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


def balance(requests: NDArray[np.generic]) -> Balance:
    """Evenness of requests, given how many each endpoint got: numbers of shape (endpoints,), at least one endpoint.

    Jain's index is (sum x)^2 / (n sum x^2): Jain, Chiu and Hawe, A Quantitative Measure of Fairness and Discrimination
    for Resource Allocation in Shared Computer Systems, DEC-TR-301, 1984.
    """
    counts = tuple(int(count) for count in requests)
    total = float(requests.sum())
    if not total:
        return Balance(counts, None, None, None)
    shares = requests.astype(np.float64) / total
    jain = 1.0 / float(requests.size * np.square(shares).sum())
    return Balance(counts, tuple(float(s) for s in shares), jain, float(shares.max() * requests.size))


def counted_balance(cell: CellRecord, replicas: int) -> Balance:
    """Evenness of a cell's load by what each replica itself counted, from its metrics' first reading to the last.

    Raises StudyError for a broken file of metrics.
    """
    metrics = cell.metrics_path
    counted = requests_by_replica(cell.cell.engine, metrics) if metrics else {}
    return balance(np.array([counted.get(replica, 0.0) for replica in range(replicas)]))
