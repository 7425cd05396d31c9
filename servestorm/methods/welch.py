"""Welch's t-test over runs, Holm's correction, and Hedges' g.

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
    with np.errstate(over="ignore"):
        return float(np.ptp(values)) <= ROUNDING * float(np.max(np.abs(values)))


def finite_mean(values: Sequence[float]) -> float | None:
    """Their mean; None of none, or where it is too large for a float."""
    with np.errstate(over="ignore"):
        mean = float(np.mean(values)) if values else math.inf
    return mean if math.isfinite(mean) else None


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
