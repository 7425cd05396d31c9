"""When each deployment of a round is loaded: pure, so that the same seed always gives the same turns."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from servestorm.plan.scenarios import Bursty, Steady

LEAD_S: Final = 0.25
"""Load at the begin of a slice that counts for nothing: the first requests after a switch meet cold caches."""
STEADY_GAP_S: Final = 0.3
"""Without any load after a slice, in which the last answers come and the servers' CPU time is read."""
LONG_GAP_S: Final = 1.0
"""After a burst, which leaves a queue, and where a container or a pod has to be asked for its CPU time."""


WARM_AGAIN_S: Final = 1.0
"""Warm-up, at most, of a load whose servers bore another one right before: only its connections are new."""


@dataclass(frozen=True)
class LoadTurn:
    """A time in which one deployment is loaded; seconds from the round's start."""

    begin_s: float
    lead_s: float
    """At its begin, load that counts for nothing."""
    length_s: float
    """Measured seconds after that; 0 for a warm-up."""

    @property
    def end_s(self) -> float:
        """When its load ends."""
        return self.begin_s + self.lead_s + self.length_s


@dataclass(frozen=True)
class Slicing:
    """How a load is cut into slices that the deployments of a round take turns with."""

    slices: int
    """Of each deployment."""
    length_s: float
    """Measured seconds of a slice."""
    gap_s: float
    """After each turn."""
    warmup_s: float
    """Of each deployment, before the first slice."""
    lead_s: float = LEAD_S

    @property
    def measured_s(self) -> float:
        """Measured seconds of each deployment."""
        return self.slices * self.length_s

    def on_warm_servers(self) -> Slicing:
        """The same for servers that bore another load right before."""
        return replace(self, warmup_s=min(self.warmup_s, WARM_AGAIN_S))

    def seconds(self, deployments: int) -> float:
        """Length of a round of so many deployments."""
        each_s = self.warmup_s + self.gap_s + self.slices * (self.lead_s + self.length_s + self.gap_s)
        return deployments * each_s


def steady_slicing(steady: Steady, backend: str) -> Slicing:
    """The slices of a steady load on that backend; a load that is shorter than a slice is one slice."""
    length_s = min(steady.slice_s, steady.duration_s)
    gap_s = STEADY_GAP_S if backend == "process" else LONG_GAP_S
    return Slicing(round(steady.duration_s / length_s), length_s, gap_s, steady.warmup_s)


def bursty_slicing(bursty: Bursty) -> Slicing:
    """The slices of a bursty load: whole cycles, at least one."""
    cycle_s = bursty.off_s + bursty.on_s
    return Slicing(max(1, round(bursty.duration_s / cycle_s)), cycle_s, LONG_GAP_S, bursty.warmup_s)


def turn_tables(slicing: Slicing, deployments: int, seed: str) -> list[tuple[LoadTurn, ...]]:
    """The turns of each deployment: one warm-up, then its slices in order.

    Only one is loaded at a time. The slices of the same number are neighbours, in an order that the seed decides anew
    for each number, so that a bad moment of the machine hits all deployments alike.
    """
    order = random.Random(seed)
    tables: list[list[LoadTurn]] = [[] for _ in range(deployments)]
    begin_s = 0.0
    for number in range(slicing.slices + 1):
        lead_s, length_s = (slicing.lead_s, slicing.length_s) if number else (slicing.warmup_s, 0.0)
        for place in order.sample(range(deployments), deployments):
            if lead_s or length_s:
                tables[place].append(LoadTurn(round(begin_s, 6), lead_s, length_s))
            begin_s += lead_s + length_s + slicing.gap_s
    return [tuple(table) for table in tables]
