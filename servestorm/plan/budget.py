"""How many repetitions of its loads a study has, and how many fit into a budget of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from servestorm.plan.scenarios import Autoscaling, Bursty, Capacity, Scaling, Steady, Sweep
from servestorm.plan.turns import bursty_slicing, steady_slicing

LEAST_ROUNDS: Final = 2
"""One instance of each engine would say nothing about how instances differ."""
LEAST_PROBES: Final = 3
"""Of a search for the largest rate."""


@dataclass(frozen=True)
class PlannedLoads:
    """What a plan asks of its engines under load, and the least time that it takes: no start of a server is in it."""

    engines: int
    variants: int
    repetitions: int
    backend: str
    steady: Steady | None
    bursty: Bursty | None
    capacity: Capacity | None
    scaling: Scaling | None
    sweep: Sweep | None
    autoscaling: Autoscaling | None

    def most_repetitions(self, budget_s: float) -> int:
        """The most repetitions of every load that so many seconds can hold."""
        rounds = math.floor((budget_s - self.rest_s) / self.round_s) if self.round_s else 0
        return min(10_000, max(LEAST_ROUNDS, rounds))

    @property
    def shortest_study_s(self) -> float:
        """Seconds that two rounds of everything need at least."""
        return self.rest_s + LEAST_ROUNDS * self.round_s

    @property
    def round_s(self) -> float:
        """Seconds under load in one repetition of every load."""
        one_s = 0.0
        if self.steady:
            one_s += steady_slicing(self.steady, self.backend).seconds(self.engines)
        if self.bursty:
            slicing = bursty_slicing(self.bursty)
            one_s += (slicing.on_warm_servers() if self.steady else slicing).seconds(self.engines)
        if self.capacity:
            one_s += self.engines * LEAST_PROBES * (self.capacity.probe_s + self.capacity.warmup_s)
        return one_s * self.variants

    @property
    def rest_s(self) -> float:
        """Seconds under load of what a budget does not repeat: scaling, sweep and autoscaling."""
        each, seconds = self.engines * self.variants, 0.0
        if scaling := self.scaling:
            runs = (scaling.repetitions or self.repetitions) * len(scaling.replicas) * each
            seconds += runs * (scaling.duration_s + scaling.warmup_s)
        if sweep := self.sweep:
            servers = len(sweep.workers) * len(sweep.threads) * len(sweep.max_batch_size) * len(sweep.timeout_us)
            loads = servers * len(sweep.images_per_request) * len(sweep.concurrency) * sweep.repetitions
            seconds += self.engines * loads * (sweep.duration_s + sweep.warmup_s)
        if asked := self.autoscaling:
            runs = (asked.repetitions or self.repetitions) * each
            seconds += runs * (asked.duration_s + asked.warmup_s + asked.watch_after_s)
        return seconds
