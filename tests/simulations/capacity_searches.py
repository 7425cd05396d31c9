"""The product's search for a capacity on simulated M/D/1 queues, whose capacity is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from loadtests.arrivals.processes import poisson
from loadtests.samples.summary import distribution
from loadtests.samples.validity import samples_needed
from servestorm.methods.capacity_search import Capacity, LoadOutcome, Search, SearchObjective
from servestorm.methods.doomed_load import doomed_in_flight
from servestorm.methods.probe_verdict import probe_of
from tests.simulations import md1

SERVICE_MS = 2.0
MOST_ERROR_PERCENT = 0.1
START_PER_S = 100.0

Offer = Callable[[float, int], LoadOutcome]
"""The outcome of a load at a rate; the number of the probe seeds it."""


def find(offer: Offer, objective_ms: float, tolerance: float, start_per_s: float = START_PER_S) -> Capacity:
    """A whole search as a study makes it."""
    search = Search(start_per_s, tolerance=tolerance)
    objective = SearchObjective(objective_ms, MOST_ERROR_PERCENT)
    number = 0
    while (rate := search.next_rate()) is not None:
        search.record(probe_of(rate, offer(rate, number), objective))
        number += 1
    return search.result()


def length_s(rate: float, seconds: float) -> float:
    """At least as long as a p99 needs, and a tenth more because Poisson arrivals vary."""
    return max(seconds, 1.1 * samples_needed(0.99) / rate)


def simulated(service_ms: float, seconds: float, seed: int) -> Offer:
    """Loads of a simulated M/D/1 queue."""

    def offer(rate: float, number: int) -> LoadOutcome:
        schedule = poisson(rate, length_s(rate, seconds), 1000 * seed + number).whole()
        latency_ms = md1.simulated_ms(schedule / 1e9, service_ms)
        count = len(schedule)
        p99_ms = distribution((latency_ms * 1e6).astype(np.int64)).p99
        counts = {"scheduled": count, "ok": count, "dropped": 0, "wrong_answers": 0, "lost": 0}
        return LoadOutcome(valid=True, reasons=[], **counts, p99_ms=p99_ms, service_p99_ms=None, lag_p99_ms=None)

    return offer


def given_up_early(service_ms: float, seconds: float, seed: int, objective_ms: float) -> Offer:
    """As `simulated`, but a load ends as soon as so many requests are in flight that it is doomed."""
    full = simulated(service_ms, seconds, seed)
    objective = SearchObjective(objective_ms, MOST_ERROR_PERCENT)

    def offer(rate: float, number: int) -> LoadOutcome:
        schedule_s = poisson(rate, length_s(rate, seconds), 1000 * seed + number).whole() / 1e9
        done_s = schedule_s + md1.simulated_ms(schedule_s, service_ms) / 1000
        in_flight = np.arange(1, schedule_s.size + 1) - np.searchsorted(done_s, schedule_s)
        limit = doomed_in_flight(rate, length_s(rate, seconds), 0.0, objective, 10**9)
        return replace(full(rate, number), given_up=limit is not None and bool((in_flight >= limit).any()))

    return offer
