"""Ways to compare two p99 over paired rounds, simulated on recorded noise: what each finds, how often it is wrong.

A study draws recorded rounds with replacement, for both sides together, and takes the latencies of their slices. So few
rounds make a lumpy distribution: each drawn side of a round is also scaled by a random factor, so that the p99 of the
rounds scatters as `designs.drawn` lets it (Silverman and Young 1987). Without a true difference every estimate is
centred on its mean over all studies; a difference scales the latencies of B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import t as student

from servestorm.methods.percentiles import nearest_rank
from tests.simulations.designs import LogRatios, calm
from tests.simulations.recorded_noise import Recording

Q = 0.99
Floats = NDArray[np.float64]
Estimate = Callable[[Floats], Floats]
"""Sorted latencies, (..., n), to a figure of their tail, (...): scaled latencies have the scaled figure."""


@dataclass(frozen=True)
class Studies:
    """Latencies of many studies, made of recorded rounds."""

    latency_ms: Floats
    """(recorded rounds, sides, requests), sorted."""
    drawn: NDArray[np.int64]
    """(studies, rounds): which recorded round."""
    factor: Floats
    """(studies, sides, rounds): what its latencies are multiplied by."""

    def logs(self, estimate: Estimate) -> Floats:
        """Logarithm of a figure of each round, (studies, sides, rounds)."""
        of_rounds = np.log(estimate(self.latency_ms))
        return of_rounds[self.drawn].transpose(0, 2, 1) + np.log(self.factor)

    def pooled(self, study: int, side: int) -> Floats:
        """All latencies of one side, (rounds, requests)."""
        return self.latency_ms[self.drawn[study], side] * self.factor[study, side][:, None]


def latencies(noise: Recording, slices: int) -> Floats:
    """Latencies (ms) of the first slices of each round that calm machines measured, (rounds, sides, requests), sorted.

    A round that loses slices is filled up with its own, from the first on, so that all rounds have the same size.
    """
    result = []
    for sides in noise.rounds:
        pairs = list(zip(*(side[:slices] for side in sides), strict=True))
        good = [pair for pair in pairs if all(calm([one]) for one in pair)]
        filled = [good[k % len(good)] for k in range(slices)]
        result.append([np.sort(np.concatenate([pair[side].latency_ms for pair in filled])) for side in range(2)])
    return np.array(result)


def studies(latency_ms: Floats, count: int, rounds: int, rng: np.random.Generator) -> Studies:
    """`count` studies of `rounds` rounds each."""
    bandwidth = 1.06 * len(latency_ms) ** -0.2  # in standard deviations, as in designs.drawn
    logs = np.log(nearest(latency_ms))
    deviation = logs - logs.mean(axis=0)
    drawn = rng.integers(len(latency_ms), size=(count, rounds))
    smooth = rng.multivariate_normal(np.zeros(2), np.cov(logs.T), (count, rounds)).transpose(0, 2, 1)
    own = deviation[drawn].transpose(0, 2, 1)
    return Studies(latency_ms, drawn, np.exp((own + bandwidth * smooth) / math.sqrt(1 + bandwidth**2) - own))


def nearest(latency_ms: Floats) -> Floats:
    """The p99 by nearest rank, as in the product."""
    return latency_ms[..., nearest_rank(latency_ms.shape[-1], Q)]


def harrell_davis(latency_ms: Floats) -> Floats:
    """The p99 as a weighted mean of all order statistics (Harrell and Davis 1982)."""
    size = latency_ms.shape[-1]
    edges = beta.cdf(np.arange(size + 1) / size, Q * (size + 1), (1 - Q) * (size + 1))
    return latency_ms @ np.diff(edges)


def tail_mean(latency_ms: Floats, share: float = 0.02) -> Floats:
    """Mean of the longest latencies."""
    return latency_ms[..., -max(1, round(share * latency_ms.shape[-1])) :].mean(axis=-1)


def exponential_tail(latency_ms: Floats, share: float = 0.05) -> Floats:
    """The p99 of an exponential tail from the (1 - share) quantile on."""
    first = latency_ms.shape[-1] - round(share * latency_ms.shape[-1])
    threshold = latency_ms[..., first - 1]
    excess = latency_ms[..., first:].mean(axis=-1) - threshold
    return threshold + excess * math.log(share / (1 - Q))


def pareto_tail(latency_ms: Floats, share: float = 0.1) -> Floats:
    """The p99 of a generalised Pareto tail by probability-weighted moments (Hosking and Wallis 1987)."""
    count = round(share * latency_ms.shape[-1])
    threshold = latency_ms[..., -count - 1]
    excess = latency_ms[..., -count:] - threshold[..., None]
    weights = (count - np.arange(1, count + 1)) / (count - 1)
    mean, moment = excess.mean(axis=-1), (excess * weights).mean(axis=-1)
    shape = mean / (mean - 2 * moment) - 2  # k of Hosking and Wallis: positive for a bounded tail
    scale = 2 * mean * moment / (mean - 2 * moment)
    return threshold + scale * (1 - ((1 - Q) / share) ** shape) / np.where(np.abs(shape) < 1e-9, 1e-9, shape)


def rounds_paired(logs: Floats) -> LogRatios:
    """Mean of the rounds' log-ratios with their scatter: what `designs.paired` is for small scatter."""
    ratio = logs[:, 1] - logs[:, 0]
    count = ratio.shape[1]
    value = ratio.mean(axis=1)
    return _centred(value, ratio.std(axis=1, ddof=1) / math.sqrt(count), count)


def pooled_jackknife(drawn: Studies) -> LogRatios:
    """Log-ratio of the p99 of all requests of each side; its error by leaving out one round after the other."""
    studies_, count = drawn.drawn.shape
    value, error = np.empty(studies_), np.empty(studies_)
    for study in range(studies_):
        sides = [np.log(drawn.pooled(study, side)) for side in range(2)]
        value[study] = _p99(sides[1]) - _p99(sides[0])
        without = [_p99(np.delete(sides[1], k, 0)) - _p99(np.delete(sides[0], k, 0)) for k in range(count)]
        error[study] = math.sqrt((count - 1) * np.var(without))
    return _centred(value, error, count)


def pooled_bootstrap(drawn: Studies, rng: np.random.Generator, resamples: int = 100) -> LogRatios:
    """The same value; its error from rounds drawn anew from those of the study."""
    studies_, count = drawn.drawn.shape
    value, error = np.empty(studies_), np.empty(studies_)
    for study in range(studies_):
        sides = [np.log(drawn.pooled(study, side)) for side in range(2)]
        value[study] = _p99(sides[1]) - _p99(sides[0])
        again = rng.integers(count, size=(resamples, count))
        size = sides[0].size
        rank = nearest_rank(size, Q)
        ratios = [np.partition(side[again].reshape(resamples, size), rank)[:, rank] for side in sides]
        error[study] = np.std(ratios[1] - ratios[0], ddof=1) * math.sqrt(count / (count - 1))
    return _centred(value, error, count)


def exceedance_p(drawn: Studies, quantile: float, shift: float) -> Floats:
    """p of each study: shares of requests above the p99 (or another quantile) of both sides, in paired rounds.

    B is first scaled so that both sides of the record have the same quantile, then by exp(shift).
    """
    whole = [drawn.latency_ms[:, side].ravel() for side in range(2)]
    rank = nearest_rank(whole[0].size, quantile)
    same = np.partition(whole[0], rank)[rank] / np.partition(whole[1], rank)[rank]
    scales = (1.0, same * math.exp(shift))
    difference = np.empty(drawn.drawn.shape)
    for study in range(len(difference)):
        sides = [scales[side] * drawn.pooled(study, side) for side in range(2)]
        both = np.concatenate([side.ravel() for side in sides])
        place = nearest_rank(both.size, quantile)
        threshold = np.partition(both, place)[place]
        shares = [(side > threshold).mean(axis=1) for side in sides]
        difference[study] = shares[1] - shares[0]
    count = difference.shape[1]
    with np.errstate(all="ignore"):
        t = difference.mean(axis=1) / difference.std(axis=1, ddof=1) * math.sqrt(count)
    return np.where(np.isfinite(t), 2 * student.sf(np.abs(t), count - 1), 1.0)


def _p99(values: Floats) -> float:
    rank = nearest_rank(values.size, Q)
    return float(np.partition(values.ravel(), rank)[rank])


def _centred(value: Floats, error: Floats, count: int) -> LogRatios:
    return LogRatios(value - value.mean(), error, np.full(len(value), count - 1.0))
