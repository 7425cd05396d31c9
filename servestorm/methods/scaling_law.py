"""How throughput grows with replicas: speed-up, efficiency, and the Universal Scalability Law.

The law (Gunther, Guerrilla Capacity Planning, 2007, chapter 4) is

    X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1))

lambda is what one replica does, sigma the share of work that waits in line (contention), kappa the price of every pair
of replicas that must agree or shares a cache (coherency); where kappa is over 0, more replicas make less from
sqrt((1 - sigma) / kappa) on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.welch import constant

Array = NDArray[np.float64]
_FEWEST_COUNTS: Final = 3
_NEGLIGIBLE: Final = 1e-9
"""A smaller share lost at the largest count is rounding: it would put the peak at millions of replicas."""


@dataclass(frozen=True)
class Usl:
    """A fitted law; throughput in the unit that was given."""

    lambda_: float
    """Throughput of one replica."""
    sigma: float
    """Contention, 0 or more."""
    kappa: float
    """Coherency, 0 or more."""
    r2: float | None
    """Share of the throughput's variance that the law explains; None where the throughput does not vary."""
    peak_replicas: float | None
    """Replicas (not a whole number) at which throughput is largest; None where it never falls."""

    def predicted(self, n: float) -> float:
        """Throughput of `n` replicas, 1 or more."""
        return float(_law(np.array([n]), self.lambda_, self.sigma, self.kappa)[0])

    def curve(self, most: float, points: int = 60) -> list[tuple[float, float]]:
        """(replicas, throughput) from 1 to `most`, for a plot."""
        return [(float(n), self.predicted(float(n))) for n in np.linspace(1.0, most, points)]


def fit_usl(replicas: Sequence[float], throughput: Sequence[float | None]) -> Usl | None:
    """Fit the law to (replicas, throughput) pairs, one a run, repetitions as pairs of their own.

    Least squares of relative errors, because throughput scatters by a share of itself; the start is the exact solution
    of the law's linear form n / X by non-negative least squares, so the fit finds the one optimum that matters.
    None with under three distinct counts: three unknowns cannot be told from two. Three counts are met exactly, so
    their r2 proves nothing. A missing throughput, or one of 0 (no answer came), is left out.
    """
    pairs = [(n, x) for n, x in zip(replicas, throughput, strict=True) if x is not None and x > 0]
    if len({n for n, _ in pairs}) < _FEWEST_COUNTS:
        return None
    n, x = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    lambda_, sigma, kappa = _refined(n, x, _linear(n, x))
    most = float(n.max())
    kappa = kappa if kappa * most * (most - 1) > _NEGLIGIBLE else 0.0
    sigma = sigma if sigma * (most - 1) > _NEGLIGIBLE else 0.0
    return Usl(lambda_, sigma, kappa, _r2(x, _law(n, lambda_, sigma, kappa)), _peak(sigma, kappa))


def _law(n: Array, lambda_: float, sigma: float, kappa: float) -> Array:
    return lambda_ * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def _linear(n: Array, x: Array) -> Array:
    """(lambda, sigma, kappa) from n / X = 1/lambda + sigma/lambda (n - 1) + kappa/lambda n (n - 1)."""
    from scipy.optimize import nnls

    # every row is divided by its n / X, so that each run's relative error counts alike
    rows = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)]) * (x / n)[:, None]
    inverse, contention, coherency = nnls(rows, np.ones_like(n))[0]
    inverse = max(float(inverse), 1e-12 * float((n / x).max()))
    return np.array([1 / inverse, contention / inverse, coherency / inverse])


def _refined(n: Array, x: Array, start: Array) -> tuple[float, float, float]:
    from scipy.optimize import least_squares

    def errors(unknown: Array) -> Array:
        return _law(n, math.exp(unknown[0]), unknown[1], unknown[2]) / x - 1

    # lambda's logarithm, so that all three unknowns are of the same order
    first = np.array([math.log(start[0]), start[1], start[2]])
    fitted = least_squares(errors, first, bounds=([-np.inf, 0, 0], np.inf), xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    best = min((first, fitted), key=lambda unknown: float(np.square(errors(unknown)).sum()))
    return math.exp(best[0]), float(best[1]), float(best[2])


def _r2(x: Array, predicted: Array) -> float | None:
    spread = float(np.square(x - x.mean()).sum())
    return 1 - float(np.square(x - predicted).sum()) / spread if spread > 0 else None


def _peak(sigma: float, kappa: float) -> float | None:
    """Gunther's n* = sqrt((1 - sigma) / kappa); never under the one replica there must be."""
    if kappa == 0:
        return None if sigma <= 1 else 1.0
    return max(1.0, math.sqrt(max(0.0, 1 - sigma) / kappa))


@dataclass(frozen=True)
class Step:
    """What one count of replicas did against the fewest that were measured."""

    replicas: float
    runs: tuple[float, ...]
    """Throughput of each run."""
    speedup: float
    """Throughput over that of the fewest replicas."""
    speedup_ci: tuple[float, float] | None
    """95 % interval over runs; None where either side has under two runs or neither varies, or the runs say nothing."""
    efficiency: float
    """Speed-up over how many times as many replicas there are: 1 is perfect."""
    efficiency_ci: tuple[float, float] | None


def steps(replicas: Sequence[float], throughput: Sequence[float | None]) -> list[Step]:
    """Speed-up and efficiency of every count, by rising count; pairs as for `fit_usl`, [] where none is known.

    A speed-up is a ratio of geometric means over runs, and its interval is Welch's (unequal variances) of the
    difference of logarithms, turned back: a ratio of two noisy figures is never negative and not symmetric. The fewest
    replicas have a speed-up of 1 by definition, without an interval.
    """
    runs: dict[float, list[float]] = {}
    for n, x in zip(replicas, throughput, strict=True):
        if x is not None and x > 0:
            runs.setdefault(n, []).append(x)
    counts = sorted(runs)
    return [_step(n, runs[n], counts[0], runs[counts[0]]) for n in counts]


def _step(n: float, runs: Sequence[float], fewest: float, base: Sequence[float]) -> Step:
    times = n / fewest
    speedup = math.exp(float(np.mean(np.log(runs)) - np.mean(np.log(base))))
    ci = _ratio_ci(runs, base) if times > 1 else None
    efficiency_ci = (ci[0] / times, ci[1] / times) if ci else None
    return Step(n, tuple(runs), speedup, ci, speedup / times, efficiency_ci)


def _ratio_ci(over: Sequence[float], under: Sequence[float]) -> tuple[float, float] | None:
    if len(over) < 2 or len(under) < 2 or (constant(over) and constant(under)):
        return None
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():  # of a side that does not vary, and of an exponential without bounds
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = ttest_ind(np.log(over), np.log(under), equal_var=False).confidence_interval(0.95)
        low, high = (float(np.exp(end)) for end in interval)
    return (low, high) if math.isfinite(high) else None
