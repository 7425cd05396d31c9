"""b against a over runs: as the ratio of their means, or, where a run is not over 0, as their difference.

A run is one number of one instance of a server, and runs are the unit of every claim. Two designs are judged:

* paired: run r of both sides belongs to round r, in which both were measured alternately. What a round does to both
  sides alike cancels out.
* not paired: the runs of the two sides are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.welch import ROUNDING, constant

Scale = Literal["ratio", "difference"]


@dataclass(frozen=True)
class Effect:
    """What the runs of two sides say of b against a.

    On the scale "ratio" the estimate is log(mean_b / mean_a), and all errors are relative to the means. On the scale
    "difference" it is mean_b - mean_a, in the metric's unit.
    """

    scale: Scale
    n_a: int
    n_b: int
    """Runs; of a paired design the rounds, on both sides."""
    mean_a: float
    mean_b: float
    estimate: float
    error: float
    """Standard error of the estimate."""
    df: float
    """Degrees of freedom of Student's t: rounds - 1, or Welch-Satterthwaite."""
    var_a: float
    var_b: float
    """Squared standard errors of the two means, relative on the scale "ratio"."""
    p: float
    """Two-sided, of no effect."""
    paired: bool

    @property
    def share(self) -> float:
        """a's part of the squared error of runs that are not paired, 0 to 1."""
        return self.var_a / (self.var_a + self.var_b)

    @property
    def covariance(self) -> float:
        """Of the two means: what the rounds of a paired design do to both."""
        return (self.var_a + self.var_b - self.error**2) / 2 if self.paired else 0.0


def effect_of(a: Sequence[float], b: Sequence[float], *, paired: bool = False) -> Effect | None:
    """The effect from runs that all have a number; of a paired design a[r] and b[r] belong to the same round.

    The error of a ratio is that of the delta method on the logarithm. Paired, with n rounds:
    d_r = b_r / mean_b - a_r / mean_a, error = sd(d) / sqrt(n), n - 1 degrees of freedom. Not paired:
    error^2 = (s_a / mean_a)^2 / n_a + (s_b / mean_b)^2 / n_b, with Welch-Satterthwaite degrees of freedom (Welch 1947).
    None where a side has fewer than two runs, where there is no scatter to judge by (of a paired design: between
    rounds), or where the numbers are too large to compute with. Raises ValueError where paired sides differ in length.
    """
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} runs are no pairs: give one of each side for each round")
    if min(len(a), len(b)) < 2:
        return None
    scale: Scale = "ratio" if min(*a, *b) > 0 else "difference"
    with np.errstate(all="ignore"):
        first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        mean_a, mean_b = float(np.mean(first)), float(np.mean(second))
        if not (math.isfinite(mean_a) and math.isfinite(mean_b)):
            return None
        units = (mean_a, mean_b) if scale == "ratio" else (1.0, 1.0)
        first, second = first / units[0], second / units[1]
        error, df, var_a, var_b = (_paired if paired else _independent)(first, second)
        if not error > 0:
            return None
        estimate = math.log(mean_b) - math.log(mean_a) if scale == "ratio" else mean_b - mean_a
        numbers = (mean_a, mean_b, estimate, error, df, var_a, var_b, _p(estimate, error, df))
    return Effect(scale, len(a), len(b), *numbers, paired) if all(map(math.isfinite, numbers)) else None


def _paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(error, df, var_a, var_b) from the differences of the rounds."""
    differences = second - first
    size = max(float(np.max(np.abs(first))), float(np.max(np.abs(second))))
    alike = float(np.ptp(differences)) <= ROUNDING * size
    squares = [0.0 if alike else _squared_error(differences), _squared_error(first), _squared_error(second)]
    return math.sqrt(squares[0]), first.size - 1.0, squares[1], squares[2]


def _independent(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(error, df, var_a, var_b) from the scatter of each side; one without scatter has an error of 0."""
    var_a, var_b = (0.0 if constant(list(side)) else _squared_error(side) for side in (first, second))
    square = var_a + var_b
    if not square > 0:
        return 0.0, math.nan, var_a, var_b
    share = var_a / square
    df = 1 / (share**2 / (first.size - 1) + (1 - share) ** 2 / (second.size - 1))
    return math.sqrt(square), df, var_a, var_b


def _squared_error(values: NDArray[np.float64]) -> float:
    """Squared standard error of their mean."""
    sd = float(np.std(values, ddof=1))
    return sd * (sd / values.size)


def _p(estimate: float, error: float, df: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(estimate) / error))


def ratio_interval(effect: Effect, level: float) -> tuple[float, float] | None:
    """The 1 - level interval of mean_b / mean_a: exp(estimate -+ t x error), which never leaves (0, infinity).

    None on the scale "difference", or where an end cannot be told from 0 or from infinity. It leaves 1 out exactly
    where p < level.
    """
    if effect.scale != "ratio":
        return None
    half = quantile(level, effect.df) * effect.error
    ends = effect.estimate - half, effect.estimate + half
    if not all(abs(end) < _LARGEST_LOG for end in ends):
        return None
    return math.exp(ends[0]), math.exp(ends[1])


_LARGEST_LOG = 690.0
"""exp() of more is no float any more."""


def percent_interval(effect: Effect, level: float) -> tuple[float, float] | None:
    """The 1 - level interval of (mean_b - mean_a) / mean_a * 100; it leaves 0 out exactly where p < level.

    Of a ratio it is 100 (ratio - 1). Of a difference it is Fieller's (Fieller 1954): the set of ratios r for which b
    is not found to differ from r times a. None where mean_a is not over 0, or scatters so much that the ratio has no
    finite interval.
    """
    if effect.scale == "ratio":
        ends = ratio_interval(effect, level)
        return ends and (100 * (ends[0] - 1), 100 * (ends[1] - 1))
    return _fieller_percent(effect, quantile(level, effect.df))


def _fieller_percent(effect: Effect, t: float) -> tuple[float, float] | None:
    if effect.mean_a <= 0 or not math.isfinite(t):
        return None
    # in units of mean_a, and products instead of powers: a float's power raises where its product is infinite
    ratio = effect.mean_b / effect.mean_a
    squares = (effect.var_a, effect.var_b, effect.covariance)
    var_a, var_b, covariance = (t * t * square / effect.mean_a / effect.mean_a for square in squares)
    if not var_a < 1:
        return None
    # (1 - var_a) r^2 - 2 (ratio - covariance) r + ratio^2 - var_b = 0; its discriminant is written so that two nearly
    # equal squares are never subtracted where the runs are not paired
    square = var_b + ratio * ratio * var_a - 2 * ratio * covariance + covariance * covariance - var_a * var_b
    root = math.sqrt(max(0.0, square)) if math.isfinite(square) else math.inf
    low, high = (100 * ((ratio - covariance + sign * root) / (1 - var_a) - 1) for sign in (-1, 1))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def quantile(level: float, df: float) -> float:
    """Student's t that is exceeded on either side with the chance `level` in all; infinite for a level of 0."""
    from scipy.special import stdtrit

    return float(-stdtrit(df, level / 2)) if level > 0 else math.inf
