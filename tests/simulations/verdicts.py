"""Simulated studies whose truth is known, judged by the real verdicts: how often they are wrong and how often right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from servestorm.methods.percentiles import percentile
from servestorm.methods.power import standard_effect
from servestorm.methods.verdict import Question, Verdict, verdict, verdicts

ALPHA = 0.05
SCATTER = 0.04
"""Standard deviation between runs, a share of the mean."""
RUNS = (3, 5, 10)
SAMPLES = 800
"""Latencies of a simulated run."""
Simulator = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Share:
    """k of n, with its 95 % interval."""

    k: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        found = binomtest(self.k, self.n).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.k / self.n:.1f} % | {100 * low:.1f} to {100 * high:.1f} %"


def normal(rng: np.random.Generator, metrics: int, runs: int) -> np.ndarray:
    """Values of shape (metrics, runs) around 10."""
    return 10 * (1 + SCATTER * rng.standard_normal((metrics, runs)))


def log_normal(rng: np.random.Generator, metrics: int, runs: int) -> np.ndarray:
    """Skewed as bad days skew: a run in forty is twice the usual."""
    return 10 * np.exp(0.3 * rng.standard_normal((metrics, runs)))


def latencies(rng: np.random.Generator, metrics: int, runs: int) -> np.ndarray:
    """p50, p99, mean and rate of runs of latencies, of shape (4, runs): skewed, with stalls, and each run a bit off."""
    del metrics  # these four, which depend on each other as real ones do
    base = 4 * np.exp(0.02 * rng.standard_normal(runs))[:, None]
    values = base * (0.7 + rng.gamma(1.5, 0.2, (runs, SAMPLES))) + 40 * (rng.random((runs, SAMPLES)) > 0.995)
    rate = rng.poisson(80 * 12, runs) / 12
    return np.array([[percentile(run, q) for run in values] for q in (0.5, 0.99)] + [values.mean(axis=1), rate])


SIMULATORS: dict[str, tuple[Simulator, int]] = {
    "normal": (normal, 1),
    "normal, 5 metrics": (normal, 5),
    "log-normal": (log_normal, 1),
    "log-normal, 5 metrics": (log_normal, 5),
    "latencies, 4 metrics": (latencies, 4),
}


def judged(a: np.ndarray, b: np.ndarray, margin: float) -> list[Verdict]:
    """One study: every metric as a member of one family."""
    return list(verdicts({i: Question(list(a[i]), list(b[i]), "lower") for i in range(len(a))}, margin, ALPHA).values())


def false_verdicts(simulate: Simulator, metrics: int, runs: int, studies: int, seed: int) -> tuple[Share, Share]:
    """Studies of one engine against itself with any verdict of A or B: without a margin, and with that of 5 %."""
    rng = np.random.default_rng([seed, runs, metrics, *simulate.__name__.encode()])
    strict = usual = 0
    for _ in range(studies):
        a, b = simulate(rng, metrics, runs), simulate(rng, metrics, runs)
        wrong = [found for found in judged(a, b, 0.0) if found.outcome in ("A", "B")]
        strict += bool(wrong)
        usual += any(not inside(found.ci_percent, 5.0) for found in wrong)
    return Share(strict, studies), Share(usual, studies)


def inside(interval: tuple[float, float] | None, percent: float) -> bool:
    return interval is not None and -percent <= interval[0] and interval[1] <= percent


def found_effects(runs: int, ratio: float, studies: int, seed: int) -> tuple[float, Share]:
    """The smallest effect (percent) said for so many runs, b scattering `ratio` times as much, and how often found."""
    rng = np.random.default_rng([seed, runs, int(10 * ratio)])
    share = 1 / (1 + ratio**2)
    error = SCATTER * np.sqrt((1 + ratio**2) / runs)
    effect = standard_effect(runs, runs, round(share, 2), ALPHA) * error
    found = 0
    for _ in range(studies):
        a = 1 + SCATTER * rng.standard_normal(runs)
        b = np.exp(effect) * (1 + ratio * SCATTER * rng.standard_normal(runs))
        found += verdict(list(a), list(b), "higher", margin=0.0).outcome == "B"
    return 100 * (np.exp(effect) - 1), Share(found, studies)


def percent_coverage(simulate: Simulator, percent: float, runs: int, studies: int, seed: int) -> Share:
    """How often ci_percent holds the true difference; an interval without an end is left out of the count."""
    rng = np.random.default_rng([seed, runs, int(percent), *simulate.__name__.encode()])
    held = known = 0
    for _ in range(studies):
        a, b = simulate(rng, 1, runs)[0], simulate(rng, 1, runs)[0] * (1 + percent / 100)
        interval = verdict(list(a), list(b), "lower").ci_percent
        known += interval is not None
        held += interval is not None and interval[0] <= percent <= interval[1]
    return Share(held, known)


def g_coverage(effect: float, runs: int, studies: int, seed: int) -> Share:
    """How often g_ci holds the true difference in standard deviations."""
    rng = np.random.default_rng([seed, runs, int(10 * effect)])
    held = 0
    for _ in range(studies):
        a, b = 20 + rng.standard_normal(runs), 20 + effect + rng.standard_normal(runs)
        interval = verdict(list(a), list(b), "lower").g_ci
        held += interval is not None and interval[0] <= effect <= interval[1]
    return Share(held, studies)


def advice(percent: float, runs: int, studies: int, seed: int) -> tuple[float, Share]:
    """Median of the runs advised to inconclusive studies, and how many had an answer with those and their own."""
    rng = np.random.default_rng([seed, runs, int(10 * percent)])
    answered, advised = 0, []
    while len(advised) < studies:
        a, b = normal(rng, 1, runs)[0], normal(rng, 1, runs)[0] * (1 + percent / 100)
        more = verdict(list(a), list(b), "lower").runs_more
        if more is None:
            continue
        advised.append(more)
        a = np.concatenate([a, normal(rng, 1, more)[0]])
        b = np.concatenate([b, normal(rng, 1, more)[0] * (1 + percent / 100)])
        answered += verdict(list(a), list(b), "lower").outcome != "inconclusive"
    return float(np.median(advised)), Share(answered, studies)
