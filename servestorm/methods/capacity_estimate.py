"""Where p99 meets the objective, estimated from all probes of a search near it: a number with an interval.

What a search finds (the largest rate that passed twice) rests on tosses of a coin near the capacity, so it lies a
little low and scatters. All probes together tell more. In a queue near saturation the time to an answer grows as
1 / (1 - utilisation), whatever the law of the service times (J. F. C. Kingman, "The single server queue in heavy
traffic", 1961), so 1 / p99 falls in a straight line with the rate. The line is fitted by least squares, and where it
meets 1 / objective is the estimate. The interval is Fieller's (1954), taken wider than its name: the rates were chosen
by what earlier probes had shown, and at 95 % it held the truth in only 84 to 88 of 100 searches of simulated queues. As
it is, it holds it in 96 (`benchmarks/calibration/capacity.py`).

Probes of a few seconds on a machine with other work scatter so much that one search alone does not tell how near its
estimate is. It has no interval then, and says nothing alone; but the estimates of several searches scatter about the
truth, and that scatter is what a verdict goes by.
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
"""Upper over lower end of the interval: beyond, one search alone does not tell."""


@dataclass(frozen=True)
class Crossing:
    """The rate at which p99 meets the objective, in requests/s."""

    rate_per_s: float
    low: float | None
    high: float | None
    """95 % interval, of the scatter of the probes about the line. None, both, where these scatter so much that it has
    no end, or that `high` is over WIDEST times `low`: then the rate says something beside those of other searches only.
    """
    probes: int
    """How many were near enough to be used."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def crossing(probes: Iterable[Probe], objective_ms: float) -> Crossing | None:
    """None where the probes do not tell: under three near the objective, none on one side of it, or no line that rises
    through the objective among their rates.

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
    line = _Line.through(rates, 1 - 1 / ratios, weights=ratios)
    if not line.rises:
        return None
    rate = line.zero
    if not rates.min() <= rate <= rates.max():
        return None
    low, high = line.zero_interval() or (0.0, math.inf)
    told = 0 < high <= WIDEST * low
    return Crossing(rate, low if told else None, high if told else None, len(near))


@dataclass(frozen=True)
class _Line:
    """y over x, by weighted least squares."""

    x_mean: float
    y_mean: float
    slope: float
    spread: float
    """Weighted sum of squares of x about its mean."""
    weight: float
    """Of all points."""
    scatter: float
    """Standard deviation of a point of weight 1 about the line."""
    freedom: int

    @classmethod
    def through(cls, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> _Line:
        weight = float(weights.sum())
        x_mean, y_mean = float((weights * x).sum()) / weight, float((weights * y).sum()) / weight
        spread = float((weights * (x - x_mean) ** 2).sum())
        slope = float((weights * (x - x_mean) * (y - y_mean)).sum()) / spread
        freedom = len(x) - 2
        scatter = math.sqrt(float((weights * (y - y_mean - slope * (x - x_mean)) ** 2).sum()) / freedom)
        return cls(x_mean, y_mean, slope, spread, weight, scatter, freedom)

    @property
    def rises(self) -> bool:
        """Whether by more than the standard error of the slope: a flatter one crosses anywhere by chance."""
        return self.slope > 0 and self.slope**2 * self.spread > self.scatter**2

    @property
    def zero(self) -> float:
        """The x at which y is nought."""
        return self.x_mean - self.y_mean / self.slope

    def zero_interval(self) -> tuple[float, float] | None:
        """Fieller's interval of it; None where it has no end, because the slope may be nought."""
        doubt = float(stats.t.ppf((1 + FIELLER) / 2, self.freedom)) * self.scatter
        unsure = doubt**2 / (self.slope**2 * self.spread)
        if unsure >= 1:
            return None
        off = -self.y_mean / self.slope
        middle = off / (1 - unsure)
        half = doubt / (self.slope * (1 - unsure)) * math.sqrt((1 - unsure) / self.weight + off**2 / self.spread)
        return self.x_mean + middle - half, self.x_mean + middle + half
