"""Where p99 meets the objective, estimated from all probes of a search near it: a number with an interval.

What a search finds (the largest rate that passed twice) rests on tosses of a coin near the capacity, so it lies a
little low and scatters. All probes together tell more. In a queue near saturation the time to an answer grows as
1 / (1 - utilisation), whatever the law of the service times (J. F. C. Kingman, "The single server queue in heavy
traffic", 1961), so 1 / p99 falls in a straight line with the rate. The line is fitted by least squares, and where it
meets 1 / objective is the estimate. The interval is Fieller's (1954), taken wider than its name: the rates were chosen
by what earlier probes had shown, and at 95 % it held the truth in only 84 to 88 of 100 searches of simulated queues. As
it is, it holds it in 96 (`benchmarks/calibration/capacity.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from servestorm.methods.capacity_search import NO_ANSWER, Probe

NEAR: Final = 4.0
"""Probes whose p99 is within this factor of the objective are used: the line is straight nearby only."""
LEAST: Final = 3
"""Probes: fewer leave no scatter to see."""
FIELLER: Final = 0.99
"""Confidence of the interval before the choosing of rates takes its share: 95 to 97 % are left in simulated queues."""
WIDEST: Final = 1.5
"""Upper over lower end of the interval: beyond, the probes do not tell."""


@dataclass(frozen=True)
class Crossing:
    """The rate at which p99 meets the objective, in requests/s."""

    rate_per_s: float
    low: float
    high: float
    """95 % interval, of the scatter of the probes about the line."""
    probes: int
    """How many were near enough to be used."""


def crossing(probes: Iterable[Probe], objective_ms: float) -> Crossing | None:
    """None where the probes do not tell: under three near the objective, none on one side of it, or too scattered.

    An invalid or a disturbed probe is not used: its p99 is partly the generator's, or that of other programs.
    """
    near = [
        (probe.rate_per_s, probe.p99_ms / objective_ms)
        for probe in probes
        if probe.verdict not in NO_ANSWER and probe.p99_ms and 1 / NEAR <= probe.p99_ms / objective_ms <= NEAR
    ]
    if len(near) < LEAST or len({rate for rate, _ in near}) < 2:
        return None
    rates, ratios = np.array(near).T
    if ratios.min() > 1 or ratios.max() < 1:
        return None
    # the noise of a p99 is a share of it, so that of its reciprocal shrinks as p99 grows
    zero = _zero(rates, 1 - 1 / ratios, weights=ratios)
    if zero is None:
        return None
    rate, low, high = zero
    inside = rates.min() <= rate <= rates.max() and 0 < high <= WIDEST * low
    return Crossing(rate, low, high, len(near)) if inside else None


def _zero(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float, float] | None:
    """Where the fitted line is nought, with Fieller's interval; None where it does not surely rise."""
    total = weights.sum()
    x_mean, y_mean = (weights * x).sum() / total, (weights * y).sum() / total
    spread = (weights * (x - x_mean) ** 2).sum()
    slope = (weights * (x - x_mean) * (y - y_mean)).sum() / spread
    freedom = len(x) - 2
    scatter = math.sqrt((weights * (y - y_mean - slope * (x - x_mean)) ** 2).sum() / freedom)
    doubt = float(stats.t.ppf((1 + FIELLER) / 2, freedom)) * scatter
    unsure = doubt**2 / (slope**2 * spread) if slope > 0 else 1.0
    if unsure >= 1:
        return None
    off = -y_mean / slope
    middle = off / (1 - unsure)
    half = doubt / (slope * (1 - unsure)) * math.sqrt((1 - unsure) / total + off**2 / spread)
    return float(x_mean + off), float(x_mean + middle - half), float(x_mean + middle + half)
