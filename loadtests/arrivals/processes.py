"""Arrival processes: when requests are due, as pure functions of their parameters and a seed.

Every function returns a schedule: a sorted one-dimensional int64 array of nanoseconds after the start of the load,
each in [0, duration). The same arguments give the same bytes on every machine with the same NumPy.

Processes whose rate varies are made by time rescaling: the arrivals of a unit-rate Poisson process are mapped through
the inverse of the cumulative rate (Cinlar, Introduction to Stochastic Processes, 1975, chapter 4.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import LoadTestError

Schedule = NDArray[np.int64]
_NS = 1_000_000_000
MAX_ARRIVALS = 200_000_000
"""More than this is a typing error, not a load (1.6 GB of schedule)."""


@dataclass(frozen=True, eq=False)
class Arrivals:
    """When requests are due, and what else a trace says of them."""

    due_ns: Schedule
    record: dict[str, Any] = field(default_factory=dict)
    """What made them, for the summary."""
    images: NDArray[np.int64] | None = None
    """(arrivals,) images that each request carries; None where all carry the same number."""
    reading: str = ""
    """How a trace was read, as a sentence; empty where there is none."""


def constant(rate: float, duration_s: float) -> Schedule:
    """Evenly spaced arrivals, the first at 0; `rate` in requests/s."""
    _check_load(rate, duration_s)
    count = int(np.ceil(rate * duration_s - 1e-9))
    return _to_ns(np.arange(count) / rate, duration_s)


def poisson(rate: float, duration_s: float, seed: int) -> Schedule:
    """Independent exponential gaps with mean 1/rate (coefficient of variation 1)."""
    return gamma(rate, 1.0, duration_s, seed)


def gamma(rate: float, cv: float, duration_s: float, seed: int) -> Schedule:
    """Independent gamma gaps with mean 1/rate and coefficient of variation `cv` (shape 1/cv^2)."""
    _check_load(rate, duration_s)
    if not 0 < cv < 100:
        raise LoadTestError(f"the coefficient of variation must be over 0 and under 100, not {cv:g}.")
    return _to_ns(_gamma_times(np.random.default_rng(seed), rate, cv, duration_s), duration_s)


def on_off(base: float, peak: float, on_s: float, off_s: float, duration_s: float, seed: int) -> Schedule:
    """Poisson arrivals at `base` for `off_s`, then at `peak` for `on_s`, and again; begins with the base."""
    _check_load(peak, duration_s)
    _check_not_negative("base rate", base)
    _check_positive("on time", on_s)
    _check_positive("off time", off_s)
    cycles = int(np.ceil(duration_s / (on_s + off_s)))
    return _piecewise([base, peak] * cycles, [off_s, on_s] * cycles, duration_s, seed)


def mmpp(rates: Sequence[float], dwells_s: Sequence[float], duration_s: float, seed: int) -> Schedule:
    """Markov-modulated Poisson process: state i has rate `rates[i]` and an exponential stay with mean `dwells_s[i]`.

    Begins in state 0; after a stay the next state is any of the others with equal probability.
    """
    if len(rates) < 2 or len(rates) != len(dwells_s):
        raise LoadTestError(
            f"an MMPP needs at least 2 states with one rate and one dwell time each, not {len(rates)} rates "
            f"and {len(dwells_s)} dwell times."
        )
    _check_load(max(rates), duration_s)
    for rate, dwell_s in zip(rates, dwells_s, strict=True):
        _check_not_negative("MMPP rate", rate)
        _check_positive("MMPP dwell time", dwell_s)
    states, stays = _markov_path(np.random.default_rng([seed, 1]), np.asarray(dwells_s, float), duration_s)
    return _piecewise([rates[state] for state in states], stays, duration_s, seed)


def spike(base: float, peak: float, at_s: float, width_s: float, duration_s: float, seed: int) -> Schedule:
    """Poisson arrivals at `base`, but at `peak` from `at_s` for `width_s`."""
    _check_load(max(base, peak), duration_s)
    _check_not_negative("base rate", base)
    _check_not_negative("peak rate", peak)
    _check_positive("spike width", width_s)
    if not 0 <= at_s < duration_s:
        raise LoadTestError(f"the spike at {at_s:g} s lies outside the load of {duration_s:g} s.")
    return _piecewise([base, peak, base], [at_s, width_s, duration_s], duration_s, seed)


def ramp(start: float, end: float, duration_s: float, seed: int) -> Schedule:
    """Poisson arrivals whose rate goes in a straight line from `start` to `end` requests/s."""
    _check_load(max(start, end), duration_s)
    _check_not_negative("start rate", start)
    _check_not_negative("end rate", end)
    unit = _unit_arrivals((start + end) / 2 * duration_s, seed)
    slope = (end - start) / duration_s
    if slope == 0:
        return _to_ns(unit / start, duration_s)
    # Inverse of start * t + slope * t^2 / 2, in the form that stays exact when the slope is small.
    root = np.sqrt(np.maximum(start * start + 2 * slope * unit, 0.0))
    return _to_ns(2 * unit / (start + root), duration_s)


def diurnal(mean: float, amplitude: float, period_s: float, duration_s: float, seed: int) -> Schedule:
    """Poisson arrivals at mean * (1 - amplitude * cos(2 pi t / period)): begins in the trough; amplitude 0..1."""
    _check_load(mean, duration_s)
    _check_positive("period", period_s)
    if not 0 <= amplitude <= 1:
        raise LoadTestError(f"the diurnal amplitude must lie in 0..1, not {amplitude:g}.")
    omega = 2 * np.pi / period_s
    # A grid of 4096 points a period keeps the inverse within 1e-6 of a period.
    times = np.linspace(0, duration_s, max(2, int(np.ceil(duration_s / period_s * 4096))) + 1)
    cumulative = mean * (times - amplitude * np.sin(omega * times) / omega)
    return _to_ns(np.interp(_unit_arrivals(cumulative[-1], seed), cumulative, times), duration_s)


def deal(schedule: Schedule, worker: int, workers: int) -> Schedule:
    """The arrivals that worker `worker` (0-based) of `workers` sends: every workers-th one, so the union is all."""
    if not 0 <= worker < workers:
        raise LoadTestError(f"worker {worker} does not exist among {workers} workers.")
    return schedule[worker::workers]


@dataclass(frozen=True)
class ScheduleStatistics:
    """Figures of a schedule; None where there are too few arrivals to compute them."""

    arrivals: int
    duration_s: float
    rate: float
    """Mean arrivals/s."""
    cv: float | None
    """Standard deviation of the gaps over their mean."""
    dispersion: float | None
    """Index of dispersion: variance over mean of the counts in windows of one second (1 for Poisson)."""
    peak_to_mean: float | None
    """Busiest one-second window over the mean."""


def statistics_of(schedule: Schedule, duration_s: float) -> ScheduleStatistics:
    """Rate, coefficient of variation, index of dispersion (1 s windows) and peak over mean."""
    gaps = np.diff(schedule)
    cv = float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.mean() > 0 else None
    windows = int(duration_s)
    dispersion = peak = None
    if windows >= 2 and len(schedule):
        counts = np.bincount(schedule // _NS, minlength=windows)[:windows]
        if counts.mean() > 0:
            dispersion = float(counts.var(ddof=1) / counts.mean())
            peak = float(counts.max() / counts.mean())
    return ScheduleStatistics(len(schedule), duration_s, len(schedule) / duration_s, cv, dispersion, peak)


def _gamma_times(rng: np.random.Generator, rate: float, cv: float, duration_s: float) -> NDArray[np.float64]:
    shape = 1 / cv**2
    blocks, last = [], 0.0
    while last < duration_s:
        expected = rate * (duration_s - last)
        size = int(expected + 4 * cv * np.sqrt(expected) + 16)
        times = last + np.cumsum(rng.gamma(shape, 1 / (rate * shape), size))
        blocks.append(times)
        last = float(times[-1])
    return np.concatenate(blocks)


def _unit_arrivals(total: float, seed: int) -> NDArray[np.float64]:
    """Arrivals of a unit-rate Poisson process in [0, total)."""
    if total <= 0:
        return np.empty(0)
    times = _gamma_times(np.random.default_rng(seed), 1.0, 1.0, total)
    return times[times < total]


def _piecewise(rates: Sequence[float], spans_s: Sequence[float], duration_s: float, seed: int) -> Schedule:
    edges = np.concatenate([[0.0], np.cumsum(spans_s)])
    cumulative = np.concatenate([[0.0], np.cumsum(np.multiply(rates, spans_s))])
    end = float(np.interp(duration_s, edges, cumulative))
    unit = _unit_arrivals(end, seed)
    # side="right" - 1 picks the piece with a positive rate where a silent one ends at the same cumulative count.
    piece = np.searchsorted(cumulative, unit, side="right") - 1
    rate_of = np.asarray(rates, float)[piece]
    return _to_ns(edges[piece] + (unit - cumulative[piece]) / rate_of, duration_s)


def _markov_path(
    rng: np.random.Generator, dwells_s: NDArray[np.float64], duration_s: float
) -> tuple[list[int], list[float]]:
    states, stays, state, elapsed = [], [], 0, 0.0
    while elapsed < duration_s:
        stay = float(rng.exponential(dwells_s[state]))
        states.append(state)
        stays.append(stay)
        elapsed += stay
        step = int(rng.integers(1, len(dwells_s)))
        state = (state + step) % len(dwells_s)
    return states, stays


def _to_ns(times_s: NDArray[np.float64], duration_s: float) -> Schedule:
    times_ns = np.rint(times_s * _NS).astype(np.int64)
    return times_ns[times_ns < int(duration_s * _NS)]


def _check_load(rate: float, duration_s: float) -> None:
    _check_positive("rate", rate)
    _check_positive("duration", duration_s)
    if rate * duration_s > MAX_ARRIVALS:
        raise LoadTestError(
            f"{rate:g} requests/s for {duration_s:g} s are over {MAX_ARRIVALS:,} arrivals: lower one of them."
        )


def _check_positive(what: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise LoadTestError(f"the {what} must be over 0, not {value:g}.")


def _check_not_negative(what: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise LoadTestError(f"the {what} must be 0 or more, not {value:g}.")
