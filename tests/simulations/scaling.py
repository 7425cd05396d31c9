"""A simulated fleet whose throughput follows a programmed law, measured as a study does: what the fit must give back.

With n replicas every one of them serves at X(n) / n of the law, with gamma service times. `saturated` counts what a
closed loop gets out of a fleet that is never idle. `capacity` searches the largest rate with p99 under an objective
(Poisson arrivals, the first idle replica takes the next request).
"""

from __future__ import annotations

import heapq

import numpy as np

from servestorm.methods.capacity_search import Probe, Search
from servestorm.methods.percentiles import percentile

COUNTS = (1, 2, 4, 8)
REPETITIONS = 5
RATE_OF_ONE = 200.0
SECONDS = 20.0
CV = 0.5


def law(n: int, sigma: float, kappa: float) -> float:
    return RATE_OF_ONE * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def service_s(n: int, sigma: float, kappa: float, size: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Gamma service times with the programmed mean, n / X(n)."""
    shape = 1 / CV**2
    return random.gamma(shape, n / law(n, sigma, kappa) / shape, size)


def saturated(n: int, sigma: float, kappa: float, random: np.random.Generator) -> float:
    """Requests/s of n replicas that are never idle."""
    enough = int(1.5 * SECONDS * law(n, sigma, kappa) / n) + 100
    ended_s = np.cumsum(service_s(n, sigma, kappa, (n, enough), random), axis=1)
    return float((ended_s <= SECONDS).sum() / SECONDS)


def capacity(n: int, sigma: float, kappa: float, random: np.random.Generator, objective_ms: float) -> float | None:
    """The rate that the product's search finds."""
    search = Search(law(n, sigma, kappa) * random.uniform(0.4, 1.6))
    while (rate := search.next_rate()) is not None:
        p99_ms = _p99_ms(n, rate, service_s(n, sigma, kappa, (int(rate * SECONDS) + 700,), random), random)
        search.record(Probe(rate, "pass" if p99_ms <= objective_ms else "fail", "", p99_ms, 0.0))
    return search.result().rate_per_s


def _p99_ms(n: int, rate: float, services_s: np.ndarray, random: np.random.Generator) -> float:
    arrivals_s = np.cumsum(random.exponential(1 / rate, services_s.size)).tolist()
    free_s, latency_s = [0.0] * n, []
    for arrival_s, needs_s in zip(arrivals_s, services_s.tolist(), strict=True):
        ended_s = max(arrival_s, free_s[0]) + needs_s
        heapq.heapreplace(free_s, ended_s)
        latency_s.append(ended_s - arrival_s)
    found = percentile(latency_s, 0.99)
    assert found is not None
    return 1000 * found


def study(
    sigma: float, kappa: float, random: np.random.Generator, objective_ms: float | None = None
) -> tuple[list[float], list[float | None]]:
    """Counts and throughputs of one study's runs; saturated without an objective."""
    pairs: list[tuple[float, float | None]] = []
    for n in COUNTS * REPETITIONS:
        if objective_ms is None:
            pairs.append((n, saturated(n, sigma, kappa, random)))
        else:
            pairs.append((n, capacity(n, sigma, kappa, random, objective_ms)))
    return [n for n, _ in pairs], [x for _, x in pairs]
