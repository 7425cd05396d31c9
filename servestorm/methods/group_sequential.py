"""Looks at data that still grow: how small a p must be at each, so that all looks together are wrong in alpha of cases.

A study that may stop as soon as a question is decided looks at its data several times, and each look is a chance to be
wrong. The error is spent over the looks by a spending function of the information share, the part of the whole study
that has been measured (Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983), of
the type of O'Brien and Fleming: hardly anything early, nearly everything at the end. Looks need not be planned in
number or in time; but when to look must not depend on what was seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_FAR = 8.0
"""Standard deviations beyond which nothing is left to integrate."""
_Z_STEP = 0.25
_Z_GRID = tuple(0.05 + _Z_STEP * place for place in range(34))
"""Two-sided normal quantiles of the alphas between which `level_used` interpolates."""


def spent(alpha: float, share: float) -> float:
    """The part of alpha that is spent up to an information share (0..1]: 4 (1 - Phi(z_(1 - alpha/4) / sqrt(share))).

    That is alpha/2 on each side by the one-sided function of O'Brien and Fleming's type (Lan and DeMets 1983).
    """
    from scipy.special import ndtr, ndtri

    return float(4 * ndtr(ndtri(alpha / 4) / math.sqrt(share)))


def nominal_level(alpha: float, shares: Sequence[float]) -> float:
    """The two-sided level at the last of the looks at rising information shares (0..1]: alpha where there is none.

    A p under it decides at that look, and 1 - level is the confidence of its repeated confidence interval: the
    intervals of all looks hold the truth together with a chance of 1 - alpha (Jennison and Turnbull, Group Sequential
    Methods, 2000, chapter 9). Computed by numerical integration over the joint normal distribution of the looks
    (Armitage, McPherson and Rowe 1969). Raises ValueError where alpha or the shares are out of range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} must be between 0 and 1")
    looks = checked_shares(shares)
    return _look(float(alpha), looks).level if looks else alpha


def level_used(p: float, shares: Sequence[float]) -> float:
    """The smallest alpha at which p would decide at the last of these looks: p itself where there is only the end.

    The inverse of `nominal_level` in alpha, which rises with alpha. Holm's correction of these is Holm's correction of
    a group-sequential family (Maurer and Bretz, "Multiple testing in group sequential trials using graphical
    approaches", Statistics in Biopharmaceutical Research 5, 2013). Exact to about 0.01 %; 1 where no alpha under 1
    would do.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.special import ndtr, ndtri

    looks = checked_shares(shares)
    if looks in ((), (1.0,)):
        return p
    alpha_z, level_z = _levels(looks)
    z = float(-ndtri(p / 2)) if p > 0 else math.inf
    if level_z.size < 2 or z <= level_z[0]:
        return 1.0
    reached = alpha_z[-1] if z >= level_z[-1] else PchipInterpolator(level_z, alpha_z)(z)
    return float(2 * ndtr(-reached))


def checked_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """The shares as they are; raises ValueError unless they rise, over 0 and up to 1."""
    looks = tuple(float(share) for share in shares)
    rising = all(low < high for low, high in itertools.pairwise((0.0, *looks)))
    if not rising or any(share > 1 for share in looks):
        raise ValueError(f"the shares {list(looks)} must rise, over 0 and up to 1")
    return looks


@dataclass(frozen=True)
class _Look:
    """One look, and the distribution of the score where no look so far decided."""

    level: float
    places: NDArray[np.float64]
    """Of the score: z sqrt(share), a Brownian motion in the share."""
    masses: NDArray[np.float64]
    """The probability at each place."""


@lru_cache(maxsize=8192)
def _look(alpha: float, shares: tuple[float, ...]) -> _Look:
    from scipy.special import ndtr, ndtri

    share, earlier = shares[-1], shares[:-1]
    before = _look(alpha, earlier) if earlier else _Look(1.0, np.zeros(1), np.ones(1))
    step = math.sqrt(share - (earlier[-1] if earlier else 0.0))
    spend = spent(alpha, share) - (spent(alpha, earlier[-1]) if earlier else 0.0)
    # without the looks before, this bound would spend as much; with them it spends less, so the root is not over it
    most = float(-ndtri(spend / 2)) * math.sqrt(share) if spend > 0 else math.inf
    bound = _bound(before, step, spend, most) if earlier and math.isfinite(most) else most
    places, weights = _nodes(min(bound, _FAR * math.sqrt(share)), step)
    with np.errstate(under="ignore"):
        steps = (places[:, None] - before.places[None, :]) / step
        density = np.exp(-0.5 * steps**2) @ before.masses / (step * math.sqrt(2 * math.pi))
    return _Look(float(2 * ndtr(-bound / math.sqrt(share))), places, weights * density)


def _bound(before: _Look, step: float, spend: float, most: float) -> float:
    """The score beyond which, on either side, the chance `spend` lies that no look before decided."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def excess(bound: float) -> float:
        beyond = ndtr((before.places - bound) / step) + ndtr((-before.places - bound) / step)
        return float(before.masses @ beyond) - spend

    return float(brentq(excess, 0.0, most, xtol=1e-12)) if excess(most) < 0 < excess(0.0) else most


@lru_cache(maxsize=64)
def _legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(count)


def _nodes(reach: float, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre places and weights on [-reach, reach], dense enough for densities as wide as step."""
    count = 32 * math.ceil(1 + min(12.0, reach / step / 4))
    places, weights = _legendre(count)
    return reach * places, reach * weights


@lru_cache(maxsize=512)
def _levels(shares: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided normal quantiles of alphas and of their nominal levels, rising, as far as both can be told from 0."""
    from scipy.special import ndtr, ndtri

    alpha_z = np.array(_Z_GRID)
    level_z = np.array([-ndtri(_look(float(2 * ndtr(-z)), shares).level / 2) for z in alpha_z])
    usable = np.isfinite(level_z)  # a level of 0 has no quantile
    return alpha_z[usable], level_z[usable]
