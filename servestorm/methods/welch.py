"""Welch's t-test over runs, its interval on a percent scale, Holm's correction, and Hedges' g.

Everything here works on runs (one number each), never on samples: the samples of one run share that run's server, its
warm-up and its moment, so they are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

K = TypeVar("K")
ROUNDING = 1e-9
"""Runs that differ by no more than this share of their size are alike: the rest is rounding, not scatter."""


def known(values: Sequence[float | None]) -> list[float]:
    """The values that exist and are finite: a missing run is no zero."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def constant(values: Sequence[float]) -> bool:
    """Whether the values differ by no more than rounding."""
    return float(np.ptp(values)) <= ROUNDING * float(np.max(np.abs(values)))


@dataclass(frozen=True)
class Welch:
    """Two sides whose variances may differ. `t` and `p` belong to mean_b - mean_a."""

    n_a: int
    n_b: int
    mean_a: float
    mean_b: float
    var_a: float
    """Squared standard error of a's mean: s_a^2 / n_a."""
    var_b: float
    t: float
    df: float
    """Welch-Satterthwaite degrees of freedom."""
    p: float
    """Two-sided."""

    @property
    def error(self) -> float:
        """Standard error of the difference, in the metric's unit."""
        return math.sqrt(self.var_a + self.var_b)

    @property
    def share(self) -> float:
        """a's part of the squared error, 0 to 1."""
        return self.var_a / (self.var_a + self.var_b)


def welch(a: Sequence[float], b: Sequence[float]) -> Welch | None:
    """Welch's two-sided t-test (Welch 1947), through scipy.

    None where a side has fewer than two runs, where neither side varies, or where the numbers are too large to square.
    """
    if len(a) < 2 or len(b) < 2 or (constant(a) and constant(b)):
        return None
    from scipy.stats import ttest_ind_from_stats

    with np.errstate(all="ignore"):
        sd_a, sd_b = (0.0 if constant(side) else float(np.std(side, ddof=1)) for side in (a, b))
        mean_a, mean_b = float(np.mean(a)), float(np.mean(b))
        test = ttest_ind_from_stats(mean_b, sd_b, len(b), mean_a, sd_a, len(a), equal_var=False)
        var_a, var_b = sd_a * (sd_a / len(a)), sd_b * (sd_b / len(b))
        share = np.float64(var_a) / (var_a + var_b)
        df = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    numbers = (mean_a, mean_b, var_a, var_b, float(test.statistic), float(df), float(test.pvalue))
    return Welch(len(a), len(b), *numbers) if all(map(math.isfinite, numbers)) else None


def interval_percent(test: Welch, alpha: float) -> tuple[float, float] | None:
    """The 1 - alpha interval of (mean_b - mean_a) / mean_a * 100, by Fieller's theorem (Fieller 1954).

    It is the set of ratios r for which b is not found to differ from r times a, with the degrees of freedom of the test
    itself: so it leaves 0 out exactly where p < alpha, and it counts the scatter of mean_a, by which it divides.
    None where mean_a is not over 0, or scatters so much that the ratio has no finite interval.
    """
    from scipy.stats import t as student

    if test.mean_a <= 0:
        return None
    # in units of mean_a, and products instead of powers: a float's power raises where its product is infinite
    quantile = float(student.ppf(1 - alpha / 2, test.df))
    ratio = test.mean_b / test.mean_a
    var_a, var_b = (quantile * quantile * var / test.mean_a / test.mean_a for var in (test.var_a, test.var_b))
    if var_a >= 1:
        return None
    # the discriminant of the quadratic in r, written without the difference of two nearly equal squares
    root = math.sqrt(max(0.0, var_b + ratio * ratio * var_a - var_a * var_b))
    low, high = (100 * ((ratio + sign * root) / (1 - var_a) - 1) for sign in (-1, 1))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def holm(ps: Mapping[K, float]) -> dict[K, float]:
    """Each p adjusted for all tests of its family (Holm 1979): the chance of any false finding stays under alpha."""
    adjusted, largest = {}, 0.0
    for rank, key in enumerate(sorted(ps, key=lambda key: ps[key])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in ps}


def hedges(a: Sequence[float], b: Sequence[float], alpha: float) -> tuple[float | None, tuple[float, float] | None]:
    """Hedges' g of b against a and the 1 - alpha interval of the true effect, both in pooled standard deviations.

    g is the difference of the means over the pooled standard deviation, times the small-sample factor
    J(df) = gamma(df / 2) / (sqrt(df / 2) gamma((df - 1) / 2)), df = n_a + n_b - 2 (Hedges 1981). The interval inverts
    the noncentral t distribution (Steiger and Fouladi 1997). (None, None) where a side has fewer than two runs, or
    where neither varies.
    """
    if len(a) < 2 or len(b) < 2 or (constant(a) and constant(b)):
        return None, None
    from scipy.special import nctdtrinc

    df = len(a) + len(b) - 2
    with np.errstate(all="ignore"):
        squares = (len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)
        d = float((np.mean(b) - np.mean(a)) / np.sqrt(squares / df))
    if not math.isfinite(d):
        return None, None
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    scale = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    low, high = (float(nctdtrinc(df, q, d * scale)) / scale for q in (1 - alpha / 2, alpha / 2))
    return correction * d, (low, high) if math.isfinite(low) and math.isfinite(high) else None
