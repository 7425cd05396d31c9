"""Designs of a comparison of two engines, simulated on recorded noise: what each finds, and how often it is wrong.

A design gives the figures of many studies, an array of (studies, sides, runs, figures), NaN where a run has none. The
true ratio of a design is that of the means over all its simulated runs, so "no difference" is exact: B is divided by
it. Any other ratio is injected by scaling B, since a percentile of scaled latencies is the scaled percentile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from servestorm.methods.disturbance import OTHER_PERCENT, STEAL_PERCENT
from tests.simulations.recorded_noise import FIGURES, LEAD_S, Recording, Slice, blocks, figures, quantile

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


def blocks_design(noise: Recording, rng: np.random.Generator, studies: int, runs: int = 3, slices: int = 8) -> Floats:
    """A server of its own for every run of 10 s, minutes apart; a late generator or a disturbance costs the whole run.

    Two attempts at each run, as in the quickstart.
    """
    result = np.full((studies, 2, runs, len(FIGURES)), np.nan)
    for study, side, run in np.ndindex(studies, 2, runs):
        recorded = noise.rounds[rng.integers(len(noise.rounds))][side]
        for _ in range(2):
            first = rng.integers(len(recorded))
            mine = [recorded[(first + k) % len(recorded)] for k in range(slices)]
            found = figures(mine)
            late = quantile(np.concatenate([one.lag_ms for one in mine]), 0.99)
            if late <= max(MAX_LAG_MS, MAX_LAG_SHARE * found[0]) and calm(mine):
                result[study, side, run] = found
                break
    return result


def interleaved_design(
    noise: Recording,
    rng: np.random.Generator,
    studies: int,
    rounds: int,
    slices: int,
    pieces: int = 1,
    apart: bool = False,
) -> Floats:
    """Both sides on servers of the same round, loaded in turns, slice k of both side by side.

    A slice is `pieces` recorded ones in a row. They were recorded farther apart than a long slice is long: with `apart`
    B takes those after A's (farther from A than in a real study), without it those beside A's (nearer).
    A slice in which the machine was disturbed is left out on both sides, unless that is more than half of them.
    """
    result = np.full((studies, 2, rounds, len(FIGURES)), np.nan)
    for study, place in np.ndindex(studies, rounds):
        left, right = noise.rounds[rng.integers(len(noise.rounds))]
        at = (pieces * blocks(len(left) // pieces, slices, rng)[:, None] + np.arange(pieces)).ravel()
        beside = (at + (pieces if apart else 0)) % len(left)
        a, b = [left[k] for k in at], [right[k] for k in beside]
        counts = [calm([one]) and calm([other]) for one, other in zip(a, b, strict=True)]
        if 2 * sum(counts) < len(counts):
            continue
        for side, chosen in enumerate((a, b)):
            result[study, side, place] = figures([one for one, good in zip(chosen, counts, strict=True) if good])
    return result


def duet_design(noise: Recording, rng: np.random.Generator, studies: int, rounds: int, slices: int = 8) -> Floats:
    """Both sides loaded at once, on the same core."""
    result = np.full((studies, 2, rounds, len(FIGURES)), np.nan)
    cut = [[_pieces(one, slices) for one in sides] for sides in noise.duets]
    for study, place in np.ndindex(studies, rounds):
        drawn = cut[rng.integers(len(cut))]
        at = blocks(slices, slices, rng)
        for side in range(2):
            latency = np.concatenate([drawn[side][k] for k in at])
            result[study, side, place, :2] = quantile(latency, 0.5), quantile(latency, 0.99)
    return result


def _pieces(one: Slice, count: int) -> list[Floats]:
    ends = np.linspace(one.offset_ms.min(), one.offset_ms.max() + 1e-6, count + 1)
    number = np.searchsorted(ends, one.offset_ms, side="right") - 1
    return [one.latency_ms[number == piece] for piece in range(count)]


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
    at = np.array([[blocks(p50.shape[1], slices, rng) for _ in range(rounds)] for _ in range(studies)])
    drawn = rng.integers(len(p50), size=(studies, rounds))[..., None]
    return p50[drawn, at], cpu[drawn, at]


@dataclass(frozen=True)
class LogRatios:
    """Log-ratio of B to A, its standard error and degrees of freedom in many studies; NaN where there is none."""

    value: Floats
    error: Floats
    df: Floats

    def p(self, shift: float = 0.0) -> Floats:
        """Two-sided p of each study, with B scaled by exp(shift); 1 where there is no estimate."""
        p = 2 * student.sf(np.abs(self.value + shift) / self.error, self.df)
        return np.where(np.isfinite(p), p, 1.0)


def paired(runs: Floats) -> LogRatios:
    """The estimate of servestorm/methods/ratio.py for paired rounds, of (studies, 2, rounds) at once."""
    a, b = np.moveaxis(np.where(np.isnan(runs).any(axis=1, keepdims=True), np.nan, runs), 1, 0)
    count = np.isfinite(a).sum(axis=1)
    with np.errstate(all="ignore"):
        mean_a, mean_b = _mean(a), _mean(b)
        scatter = b / mean_b[:, None] - a / mean_a[:, None]
        error = np.sqrt(np.nansum(scatter**2, axis=1) / (count - 1) / count)
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


def true_ratio(runs: Floats) -> float:
    """Mean of B over mean of A, over all runs of all studies of (studies, 2, runs)."""
    return float(np.nanmean(runs[:, 1]) / np.nanmean(runs[:, 0]))


def centred(runs: Floats) -> Floats:
    """The studies with B divided by the true ratio: no difference is left but noise."""
    return runs / np.array([1.0, true_ratio(runs)])[:, None]


def found(p: Callable[[float], Floats], log_ratio: float, alpha: float = ALPHA) -> float:
    """Share of the studies with p under alpha where B is truly exp(log_ratio) times A, up and down averaged."""
    return float(np.mean([(p(sign * log_ratio) < alpha).mean() for sign in (1, -1)]))


def smallest_log_ratio(p: Callable[[float], Floats], alpha: float = ALPHA) -> float:
    """The log-ratio that is found with a chance of POWER; infinity where not even a factor of e^3 is."""
    most = 3.0
    if found(p, most, alpha) < POWER:
        return float("inf")
    return float(brentq(lambda size: found(p, size, alpha) - POWER, 1e-5, most, xtol=1e-4))


def holm_any(ps: list[Floats], alpha: float = ALPHA) -> float:
    """Share of the studies in which Holm's procedure rejects at least one of these questions."""
    return float((np.min(ps, axis=0) * len(ps) < alpha).mean())
