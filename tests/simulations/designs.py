"""Designs of a comparison of two engines, simulated on recorded noise: what each finds, and how often it is wrong.

A design gives the figures of the recorded rounds as it would have measured them (NaN where it throws a run away).
Studies are drawn from them without a true difference: both sides have a mean of 1. Any ratio is injected by scaling B,
since a percentile of scaled latencies is the scaled percentile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from servestorm.methods.disturbance import OTHER_PERCENT, STEAL_PERCENT
from servestorm.methods.welch import ROUNDING
from tests.simulations.recorded_noise import FIGURES, LEAD_S, Recording, Slice, figures, quantile

ALPHA, POWER = 0.05, 0.8
MAX_LAG_MS, MAX_LAG_SHARE = 1.0, 0.05
"""The rule of the blocks design, as it was until 2026-11-29 (loadtests/samples/validity.py): a run whose p99 lag is
longer than 1 ms and than 5 % of its p50 is INVALID as a whole."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """What a study spends besides measuring, in seconds, as the recording of 2026-11-29 took it."""

    start_both: float = 6.5
    """Both servers from their spawn to ready, on one core: as long as one after the other."""
    generator: float = 1.3
    stop: float = 2.0
    warm_up: float = 2.0
    """Of each engine."""
    gap: float = 0.3
    """After a slice, where CPU times are read."""

    def blocks_s(self, runs: int, run_s: float) -> float:
        """Length of a study with so many runs of each side, each on a server of its own."""
        return 2 * runs * (self.start_both / 2 + self.generator + self.stop + self.warm_up + run_s)

    def round_s(self, slices: int, slice_s: float) -> float:
        """Length of a round with so many slices of each side, measured for `slice_s` each."""
        load_s = 2 * self.warm_up + 2 * slices * (slice_s + LEAD_S + self.gap)
        return self.start_both + self.generator + self.stop + load_s

    def duet_s(self, run_s: float) -> float:
        """Length of a round in which both are loaded at once."""
        return self.start_both + self.generator + self.stop + self.warm_up + run_s


def calm(slices: list[Slice]) -> bool:
    """The rule of DISTURBED, for a run of these slices."""
    steal, other = (100 * np.mean([getattr(one, name) for one in slices]) for name in ("steal", "other_load"))
    return bool(steal <= STEAL_PERCENT and other <= OTHER_PERCENT)


def blocks_runs(noise: Recording, slices: int = 8, strict: bool = True) -> Floats:
    """Logarithm of each figure of a run of 10 s on a server of its own, (rounds, sides, figures).

    With `strict`, as it was, a late generator or a disturbance costs the whole run, after two attempts at it (as in the
    quickstart): NaN. Without, every run counts.
    """
    result = np.full((len(noise.rounds), 2, len(FIGURES)), np.nan)
    for number, side in np.ndindex(len(noise.rounds), 2):
        recorded = noise.rounds[number][side]
        for begin in (0, slices // 2):
            mine = list(recorded[begin : begin + slices])
            found = figures(mine)
            late = quantile(np.concatenate([one.lag_ms for one in mine]), 0.99)
            if not strict or (late <= max(MAX_LAG_MS, MAX_LAG_SHARE * found[0]) and calm(mine)):
                result[number, side] = np.log(found)
                break
    return result


def interleaved_runs(noise: Recording, slices: int, pieces: int = 1, apart: bool = False) -> Floats:
    """Logarithm of each figure where both sides are loaded in turns, slice k side by side, (rounds, sides, figures).

    A slice is `pieces` recorded ones in a row. They were recorded farther apart than a long slice is long: with `apart`
    B takes those after A's (farther from A than in a real study), without it those beside A's (nearer).
    A slice in which the machine was disturbed is left out on both sides; a round that loses more than half is NaN.
    """
    result = np.full((len(noise.rounds), 2, len(FIGURES)), np.nan)
    begin, count = pieces if apart else 0, slices * pieces
    for number, (left, right) in enumerate(noise.rounds):
        pairs = list(zip(left[:count], right[begin : begin + count], strict=True))
        good = [pair for pair in pairs if all(calm([one]) for one in pair)]
        if 2 * len(good) >= count:
            result[number] = np.log([figures(side) for side in zip(*good, strict=True)])
    return result


def warmed(noise: Recording, slices: int) -> Recording:
    """The recording with the first slices of every round taken for a longer warm-up."""
    return replace(noise, rounds=tuple(tuple(side[slices:] for side in sides) for sides in noise.rounds))


def duet_runs(noise: Recording) -> Floats:
    """Logarithm of p50 and p99 where both sides are loaded at once on the same core, (rounds, sides, 2)."""
    return np.log([[[quantile(one.latency_ms, q) for q in (0.5, 0.99)] for one in sides] for sides in noise.duets])


def drawn(runs: Floats, rng: np.random.Generator, studies: int, count: int, *, together: bool) -> Floats:
    """Figures of many studies of `count` runs of each side, (studies, sides, count, figures).

    Recorded rounds are drawn with replacement: for both sides `together`, or for each side alone. So few rounds make a
    lumpy distribution, so a draw is smoothed, and shrunk to keep the recorded variance and covariance of the sides (the
    smoothed bootstrap, Silverman and Young 1987; bandwidth by Silverman's rule). The mean of B is that of A.
    """
    rounds, sides, names = runs.shape
    bandwidth = 1.06 * rounds**-0.2  # in standard deviations
    at = rng.integers(rounds, size=(studies, 1 if together else sides, count)).repeat(sides if together else 1, axis=1)
    result = np.empty((studies, sides, count, names))
    for name in range(names):
        logs = runs[..., name]
        mean = np.nanmean(logs, axis=0)
        whole = logs[np.isfinite(logs).all(axis=1)]
        spread = np.cov(whole.T) if together else np.diag(np.nanvar(logs, axis=0, ddof=1))
        smooth = rng.multivariate_normal(np.zeros(sides), spread, (studies, count)).transpose(0, 2, 1)
        taken = logs[at, np.arange(sides)[:, None]] - mean[:, None]
        result[..., name] = np.exp((taken + bandwidth * smooth) / math.sqrt(1 + bandwidth**2))
    return result / np.nanmean(result, axis=(0, 2), keepdims=True)


def slice_pairs(
    noise: Recording, rng: np.random.Generator, studies: int, rounds: int, slices: int
) -> tuple[Floats, Floats]:
    """Log-ratios of the slices' p50 and CPU time, (studies, rounds, slices) each: what must not be the unit."""
    p50, cpu = (
        np.log([[pair[1] / pair[0] for pair in zip(*map(measure, sides), strict=True)] for sides in noise.rounds])
        for measure in (
            lambda side: [quantile(one.latency_ms, 0.5) for one in side],
            lambda side: [one.cpu_ms_per_image for one in side],
        )
    )
    at = rng.integers(len(p50), size=(studies, rounds))
    return p50[at, :slices], cpu[at, :slices]


@dataclass(frozen=True)
class LogRatios:
    """Log-ratio of B to A, its standard error and degrees of freedom in many studies; NaN where there is none."""

    value: Floats
    error: Floats
    df: Floats

    def p(self, shift: float = 0.0) -> Floats:
        """Two-sided p of each study, with B scaled by exp(shift); 1 where there is no estimate, or no scatter."""
        with np.errstate(all="ignore"):
            p = 2 * student.sf(np.abs(self.value + shift) / self.error, self.df)
        return np.where(np.isfinite(p) & (self.error > 0), p, 1.0)


def paired(runs: Floats) -> LogRatios:
    """The estimate of servestorm/methods/ratio.py for paired rounds, of (studies, 2, rounds) at once."""
    a, b = np.moveaxis(np.where(np.isnan(runs).any(axis=1, keepdims=True), np.nan, runs), 1, 0)
    count = np.isfinite(a).sum(axis=1)
    with np.errstate(all="ignore"):
        mean_a, mean_b = _mean(a), _mean(b)
        scatter = b / mean_b[:, None] - a / mean_a[:, None]
        error = np.sqrt(np.nansum(scatter**2, axis=1) / (count - 1) / count)
        error[error < ROUNDING] = 0.0
        return LogRatios(np.log(mean_b / mean_a), np.where(count > 1, error, np.nan), (count - 1).astype(float))


def unpaired(runs: Floats) -> LogRatios:
    """The estimate of servestorm/methods/ratio.py for runs that are not paired, of (studies, 2, runs) at once."""
    count = np.isfinite(runs).sum(axis=2)
    with np.errstate(all="ignore"):
        mean = np.nansum(runs, axis=2) / count
        square = np.nansum((runs - mean[..., None]) ** 2, axis=2) / (count - 1) / count / mean**2
        total = square.sum(axis=1)
        df = total**2 / (square**2 / (count - 1)).sum(axis=1)
        value = np.log(mean[:, 1] / mean[:, 0])
        return LogRatios(value, np.where(count.min(axis=1) > 1, np.sqrt(total), np.nan), df)


def _mean(values: Floats) -> Floats:
    return np.nansum(values, axis=1) / np.isfinite(values).sum(axis=1)


def welch_p(runs: Floats, factor: float) -> Floats:
    """p of Welch's test on raw means, of (studies, 2, runs) with B scaled: servestorm/methods/welch.py at fc2e45d."""
    count = np.isfinite(runs).sum(axis=2)
    scaled = runs * np.array([1.0, factor])[:, None]
    with np.errstate(all="ignore"):
        mean = np.nansum(scaled, axis=2) / count
        var = np.nansum((scaled - mean[..., None]) ** 2, axis=2) / (count - 1) / count
        df = var.sum(axis=1) ** 2 / (var**2 / (count - 1)).sum(axis=1)
        p = 2 * student.sf(np.abs(mean[:, 1] - mean[:, 0]) / np.sqrt(var.sum(axis=1)), df)
    return np.where(np.isfinite(p) & (count.min(axis=1) > 1), p, 1.0)


def fieller_covers(runs: Floats, ratio: float) -> tuple[int, int]:
    """How many of the studies with a bounded interval (Fieller) hold `ratio`, and how many have a bounded one."""
    count = np.isfinite(runs).sum(axis=2)
    with np.errstate(all="ignore"):
        mean = np.nansum(runs, axis=2) / count
        var = np.nansum((runs - mean[..., None]) ** 2, axis=2) / (count - 1) / count
        df = var.sum(axis=1) ** 2 / (var**2 / (count - 1)).sum(axis=1)
        square = student.ppf(1 - ALPHA / 2, df) ** 2
        bounded = (count.min(axis=1) > 1) & (square * var[:, 0] / mean[:, 0] ** 2 < 1)
        inside = (mean[:, 1] - ratio * mean[:, 0]) ** 2 <= square * (var[:, 1] + ratio**2 * var[:, 0])
    return int((inside & bounded).sum()), int(bounded.sum())


def found(p: Callable[[float], Floats], log_ratio: float, alpha: float = ALPHA) -> float:
    """Share of the studies with p under alpha where B is truly exp(log_ratio) times A, up and down averaged."""
    return float(np.mean([(p(sign * log_ratio) < alpha).mean() for sign in (1, -1)]))


def smallest_log_ratio(p: Callable[[float], Floats], alpha: float = ALPHA) -> float:
    """The log-ratio that is found with a chance of POWER; infinity where not even a factor of e^3 is, and
    where as many are found without any difference."""
    most = 3.0
    if found(p, most, alpha) < POWER or found(p, 0.0, alpha) > POWER:
        return float("inf")
    return float(brentq(lambda size: found(p, size, alpha) - POWER, 1e-5, most, xtol=1e-4))


def holm_any(ps: list[Floats], alpha: float = ALPHA) -> float:
    """Share of the studies in which Holm's procedure rejects at least one of these questions."""
    return float((np.min(ps, axis=0) * len(ps) < alpha).mean())
