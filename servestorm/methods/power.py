"""What a number of runs can show: the power of the tests, exactly, for the few runs that a study has.

Textbook power takes the scatter as known. With three runs it is estimated, and the real power is some points lower; so
it is integrated here over the scatter that the runs might show.
"""

from __future__ import annotations

import bisect
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.ratio import Effect, quantile

POWER = 0.80
MOST_RUNS_MORE = 1000
"""More runs than this are no advice."""
GRID = 48
"""Quadrature points a side: the power is then exact to about 0.001."""
GRID_PAIRED = 960
"""Quadrature points for rounds, of which there is one scatter only."""
MANY = 20
"""From so many runs a side on, the textbook's sum of two quantiles is within 1 % of the integral."""


@lru_cache(maxsize=20_000)
def standard_effect(n_a: int, n_b: int, share: float, alpha: float) -> float:
    """The true effect, in its standard errors, that runs which are not paired show at `alpha` with a chance of POWER.

    `share` is a's part of the squared standard error. Runs are taken as normal. The sample variances, and with them the
    test's degrees of freedom, are integrated over their chi-square distributions.
    """
    if min(n_a, n_b) >= MANY:
        return _sum_of_quantiles(_welch_df(n_a, n_b, share), alpha, 1 - POWER)
    from scipy.special import chdtri, stdtrit

    chances = (np.arange(GRID) + 0.5) / GRID
    part_a = share * (chdtri(n_a - 1, 1 - chances) / (n_a - 1))[:, None]
    part_b = (1 - share) * (chdtri(n_b - 1, 1 - chances) / (n_b - 1))[None, :]
    square = part_a + part_b
    df = square**2 / (part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1))
    return _effect_shown(-stdtrit(df, alpha / 2) * np.sqrt(square))


@lru_cache(maxsize=20_000)
def paired_standard_effect(rounds: int, alpha: float) -> float:
    """The true effect, in its standard errors, that so many rounds show at `alpha` with a chance of POWER."""
    if rounds >= MANY:
        return _sum_of_quantiles(rounds - 1, alpha, 1 - POWER)
    from scipy.special import chdtri

    chances = (np.arange(GRID_PAIRED) + 0.5) / GRID_PAIRED
    return _effect_shown(quantile(alpha, rounds - 1) * np.sqrt(chdtri(rounds - 1, 1 - chances) / (rounds - 1)))


def _effect_shown(least: NDArray[np.float64]) -> float:
    """The effect that is over the thresholds `least`, which are equally likely, with a chance of POWER."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    most = float(least.max())
    if not math.isfinite(most):
        return math.inf

    def lacking(effect: float) -> float:
        return POWER - float(np.mean(ndtr(effect - least) + ndtr(-effect - least)))

    return float(brentq(lacking, 0.0, 2.0 * most + 10.0, xtol=1e-4))


def smallest_ratio(effect: Effect, level: float) -> float | None:
    """The true ratio over 1 that so many runs with this scatter show at `level` with a chance of POWER.

    As small a ratio under 1 is 1 / it. None on the scale "difference", or where no ratio in reach would be shown.
    """
    size = _shown(effect, 0, level) * effect.error
    return math.exp(size) if effect.scale == "ratio" and size < _LARGEST_LOG_RATIO else None


_LARGEST_LOG_RATIO = math.log(1e6)
"""A larger ratio is no figure for a reader."""


def smallest_effect_percent(effect: Effect, level: float) -> float | None:
    """As `smallest_ratio`, as a difference in percent of mean_a, on both scales; None where mean_a is not over 0."""
    if effect.scale == "ratio":
        ratio = smallest_ratio(effect, level)
        return None if ratio is None else 100 * (ratio - 1)
    if effect.mean_a <= 0:
        return None
    percent = 100 * _shown(effect, 0, level) * effect.error / effect.mean_a
    return percent if math.isfinite(percent) else None


def runs_more(effect: Effect, margin: float, level: float, level_interval: float) -> int | None:
    """How many more runs of each side (paired: rounds) give an answer with a chance of POWER, if all is as seen.

    An answer is either the effect shown at `level`, or the 1 - `level_interval` interval inside the margin (a share,
    such as 0.05; of a ratio both 1 + margin and 1 / (1 + margin)). None where more than MOST_RUNS_MORE are needed.
    """
    size = abs(effect.estimate)
    rest = (math.log1p(margin) if effect.scale == "ratio" else margin * abs(effect.mean_a)) - size

    def answers(more: int) -> bool:
        error = _error(effect, more)
        if _shown(effect, more, level) * error <= size:
            return True
        return _room(effect, more, level_interval) * error <= rest

    more = 1 + bisect.bisect_left(range(1, MOST_RUNS_MORE + 1), True, key=answers)
    return more if more <= MOST_RUNS_MORE else None


def _error(effect: Effect, more: int) -> float:
    """The standard error with so many more runs of each side."""
    if effect.paired:
        return effect.error * math.sqrt(effect.n_a / (effect.n_a + more))
    return math.sqrt(sum(_squares(effect, more)))


def _squares(effect: Effect, more: int) -> tuple[float, float]:
    """Squared standard errors of the two sides with so many more runs of each."""
    return effect.var_a * effect.n_a / (effect.n_a + more), effect.var_b * effect.n_b / (effect.n_b + more)


def _share(effect: Effect, more: int) -> float:
    """a's part of the squared error, rounded so that the powers of few shares are computed."""
    var_a, var_b = _squares(effect, more)
    return round(var_a / (var_a + var_b), 2)


def _shown(effect: Effect, more: int, level: float) -> float:
    """The effect, in standard errors, that is shown at `level` with a chance of POWER with so many more runs."""
    if effect.paired:
        return paired_standard_effect(effect.n_a + more, level)
    return standard_effect(effect.n_a + more, effect.n_b + more, _share(effect, more), level)


def _room(effect: Effect, more: int, level: float) -> float:
    """The room, in standard errors, that an interval wants on its nearer side to end inside it with a chance of POWER.

    Half of what POWER lacks goes to each end, as if the true effect were 0; where it is not, this is enough.
    """
    n_a, n_b = effect.n_a + more, effect.n_b + more
    df = n_a - 1.0 if effect.paired else _welch_df(n_a, n_b, _share(effect, more))
    return _sum_of_quantiles(df, level, (1 - POWER) / 2)


def _welch_df(n_a: int, n_b: int, share: float) -> float:
    return 1 / (share**2 / (n_a - 1) + (1 - share) ** 2 / (n_b - 1))


def _sum_of_quantiles(df: float, level: float, missed: float) -> float:
    """Student's t of a two-sided `level`, and that which is missed with a chance of `missed`."""
    return quantile(level, df) + quantile(2 * missed, df)
