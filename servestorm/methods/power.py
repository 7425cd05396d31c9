"""What a number of runs can show: the power of Welch's test, exactly, for the few runs that a study has.

Textbook power takes the degrees of freedom as known. With three runs they are estimated, and the real power is some
points lower; so it is integrated here over the scatter that the runs might show.
"""

from __future__ import annotations

import bisect
import math
from functools import lru_cache

import numpy as np

from servestorm.methods.welch import Welch

POWER = 0.80
MOST_RUNS_MORE = 1000
"""More runs than this are no advice."""
GRID = 48
"""Quadrature points a side: the power is then exact to about 0.001."""
MANY = 20
"""From so many runs a side on, the textbook's sum of two quantiles is within 1 % of the integral."""


@lru_cache(maxsize=20_000)
def standard_effect(n_a: int, n_b: int, share: float, alpha: float) -> float:
    """The true difference, in its standard errors, that Welch's test finds at `alpha` with a chance of POWER.

    `share` is a's part of the squared standard error. Runs are taken as normal. The sample variances, and with them the
    test's degrees of freedom, are integrated over their chi-square distributions.
    """
    if min(n_a, n_b) >= MANY:
        return _sum_of_quantiles(n_a, n_b, share, 1 - alpha / 2, POWER)
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr, stdtrit

    chances = (np.arange(GRID) + 0.5) / GRID
    part_a = share * (chdtri(n_a - 1, 1 - chances) / (n_a - 1))[:, None]
    part_b = (1 - share) * (chdtri(n_b - 1, 1 - chances) / (n_b - 1))[None, :]
    square = part_a + part_b
    df = square**2 / (part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1))
    least = stdtrit(df, 1 - alpha / 2) * np.sqrt(square)

    def lacking(effect: float) -> float:
        return POWER - float(np.mean(ndtr(effect - least) + ndtr(-effect - least)))

    return float(brentq(lacking, 0.0, 2.0 * float(least.max()) + 10.0, xtol=1e-4))


def smallest_effect_percent(test: Welch, alpha: float) -> float | None:
    """The true difference, in percent of mean_a, that so many runs with this scatter show with a chance of POWER.

    None where mean_a is not over 0.
    """
    if test.mean_a <= 0:
        return None
    return 100 * standard_effect(test.n_a, test.n_b, round(test.share, 2), alpha) * test.error / test.mean_a


def runs_more(test: Welch, margin: float, alpha: float, alpha_interval: float) -> int | None:
    """How many more runs of each side give an answer with a chance of POWER, if mean and scatter are as seen.

    An answer is either the difference shown at `alpha`, or the 1 - `alpha_interval` interval inside the margin (a
    share, such as 0.05). None where more than MOST_RUNS_MORE are needed.
    """
    difference = abs(test.mean_b - test.mean_a)
    rest = margin * abs(test.mean_a) - difference

    def answers(more: int) -> bool:
        n_a, n_b = test.n_a + more, test.n_b + more
        var_a, var_b = test.var_a * test.n_a / n_a, test.var_b * test.n_b / n_b
        error, share = math.sqrt(var_a + var_b), round(var_a / (var_a + var_b), 2)
        if standard_effect(n_a, n_b, share, alpha) * error <= difference:
            return True
        return equivalence_effect(n_a, n_b, share, alpha_interval) * error <= rest

    more = 1 + bisect.bisect_left(range(1, MOST_RUNS_MORE + 1), True, key=answers)
    return more if more <= MOST_RUNS_MORE else None


def equivalence_effect(n_a: int, n_b: int, share: float, alpha: float) -> float:
    """The room, in standard errors, that an interval wants on its nearer side to end inside it with a chance of POWER.

    Half of what POWER lacks goes to each end, as if the true difference were 0; where it is not, this is enough.
    """
    return _sum_of_quantiles(n_a, n_b, share, 1 - alpha / 2, (1 + POWER) / 2)


def _sum_of_quantiles(n_a: int, n_b: int, share: float, *chances: float) -> float:
    from scipy.special import stdtrit

    df = 1 / (share**2 / (n_a - 1) + (1 - share) ** 2 / (n_b - 1))
    return float(sum(stdtrit(df, chance) for chance in chances))
