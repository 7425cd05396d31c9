"""Arrival processes: when requests are due, as pure functions of their parameters and a seed.

Every function checks its arguments and returns a schedule in blocks (see `blocks`): sorted int64 nanoseconds after the
start of the load, each in [0, duration). The same arguments give the same bytes on every machine with the same NumPy,
and the blocks, put end to end, are what a computation in one piece gives: random numbers are drawn in the same order,
and a sum goes on where it stopped.

Processes whose rate varies are made by time rescaling: the arrivals of a unit-rate Poisson process are mapped through
the inverse of the cumulative rate (Cinlar, Introduction to Stochastic Processes, 1975, chapter 4.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.blocks import BLOCK_ARRIVALS, BlockSchedule
from loadtests.errors import LoadTestError

Schedule = NDArray[np.int64]
"""Arrivals in one array, sorted: int64 ns after the start of the load."""
_Times = NDArray[np.float64]
_NS = 1_000_000_000
MAX_ARRIVALS = 200_000_000
"""More than this is a typing error, not a load (55 hours at 1,000 requests/s)."""

MOST_TURNS = 1_000_000
"""Of a rate that changes; each of them takes memory."""
_MOST_PERIODS = 10_000
"""Of a diurnal rate within one block of arrivals."""
_SMALLEST_CV = 1e-3


@dataclass(frozen=True, eq=False)
class Arrivals:
    """When requests are due, and what else a trace says of them."""

    schedule: BlockSchedule
    record: dict[str, Any] = field(default_factory=dict)
    """What made them, for the summary."""
    images: NDArray[np.int64] | None = None
    """(arrivals,) images that each request carries; None where all carry the same number."""
    reading: str = ""
    """How a trace was read, as a sentence; empty where there is none."""


def constant(rate: float, duration_s: float) -> BlockSchedule:
    """Evenly spaced arrivals, the first at 0; `rate` in requests/s."""
    _check_load(rate, duration_s)
    count = int(np.ceil(rate * duration_s - 1e-9))

    def times() -> Iterator[_Times]:
        for begin in range(0, count, BLOCK_ARRIVALS):
            yield np.arange(begin, min(begin + BLOCK_ARRIVALS, count)) / rate

    return BlockSchedule(lambda: _to_ns(times(), duration_s), count)


def poisson(rate: float, duration_s: float, seed: int) -> BlockSchedule:
    """Independent exponential gaps with mean 1/rate (coefficient of variation 1)."""
    return gamma(rate, 1.0, duration_s, seed)


def gamma(rate: float, cv: float, duration_s: float, seed: int) -> BlockSchedule:
    """Independent gamma gaps with mean 1/rate and coefficient of variation `cv` (shape 1/cv^2)."""
    _check_load(rate, duration_s)
    if not _SMALLEST_CV <= cv < 100:
        raise LoadTestError(f"the coefficient of variation must be {_SMALLEST_CV:g} or more and under 100, not {cv:g}.")

    def make() -> Iterator[Schedule]:
        return _to_ns(_gamma_times(np.random.default_rng(seed), rate, cv, duration_s), duration_s)

    return BlockSchedule(make, rate * duration_s)


def on_off(base: float, peak: float, on_s: float, off_s: float, duration_s: float, seed: int) -> BlockSchedule:
    """Poisson arrivals at `base` for `off_s`, then at `peak` for `on_s`, and again; begins with the base."""
    _check_load(max(base, peak), duration_s)
    _check_not_negative("base rate", base)
    _check_positive("on time", on_s)
    _check_positive("off time", off_s)
    _check_turns("on and off times", on_s + off_s, duration_s)
    cycles = int(np.ceil(duration_s / (on_s + off_s)))
    return _piecewise([base, peak] * cycles, [off_s, on_s] * cycles, duration_s, seed)


def mmpp(rates: Sequence[float], dwells_s: Sequence[float], duration_s: float, seed: int) -> BlockSchedule:
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
        _check_turns("MMPP dwell time", dwell_s, duration_s)
    states, stays = _markov_path(np.random.default_rng([seed, 1]), np.asarray(dwells_s, float), duration_s)
    return _piecewise([rates[state] for state in states], stays, duration_s, seed)


def spike(base: float, peak: float, at_s: float, width_s: float, duration_s: float, seed: int) -> BlockSchedule:
    """Poisson arrivals at `base`, but at `peak` from `at_s` for `width_s`."""
    _check_load(max(base, peak), duration_s)
    _check_not_negative("base rate", base)
    _check_not_negative("peak rate", peak)
    _check_positive("spike width", width_s)
    if not 0 <= at_s < duration_s:
        raise LoadTestError(f"the spike at {at_s:g} s lies outside the load of {duration_s:g} s.")
    return _piecewise([base, peak, base], [at_s, min(width_s, duration_s), duration_s], duration_s, seed)


def ramp(start: float, end: float, duration_s: float, seed: int) -> BlockSchedule:
    """Poisson arrivals whose rate goes in a straight line from `start` to `end` requests/s."""
    _check_load(max(start, end), duration_s)
    _check_not_negative("start rate", start)
    _check_not_negative("end rate", end)
    total = (start + end) / 2 * duration_s
    slope = (end - start) / duration_s

    def times() -> Iterator[_Times]:
        for unit in _unit_arrivals(total, seed):
            if slope == 0:
                yield unit / start
            else:
                # Inverse of start * t + slope * t^2 / 2, in the form that stays exact when the slope is small.
                root = np.sqrt(np.maximum(start * start + 2 * slope * unit, 0.0))
                yield 2 * unit / (start + root)

    return BlockSchedule(lambda: _to_ns(times(), duration_s), total)


def diurnal(mean: float, amplitude: float, period_s: float, duration_s: float, seed: int) -> BlockSchedule:
    """Poisson arrivals at mean * (1 - amplitude * cos(2 pi t / period)): begins in the trough; amplitude 0..1."""
    _check_load(mean, duration_s)
    _check_positive("period", period_s)
    _check_turns("period", period_s, min(duration_s, BLOCK_ARRIVALS / mean), _MOST_PERIODS)
    if not 0 <= amplitude <= 1:
        raise LoadTestError(f"the diurnal amplitude must lie in 0..1, not {amplitude:g}.")
    total = float(_diurnal_arrivals(np.array([duration_s]), mean, amplitude, period_s)[0])

    def times() -> Iterator[_Times]:
        for unit in _unit_arrivals(total, seed):
            grid = _diurnal_grid(unit, mean, amplitude, period_s, duration_s)
            yield np.interp(unit, _diurnal_arrivals(grid, mean, amplitude, period_s), grid)

    return BlockSchedule(lambda: _to_ns(times(), duration_s), total)


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


def statistics_of(schedule: BlockSchedule, duration_s: float) -> ScheduleStatistics:
    """Rate, coefficient of variation, index of dispersion (1 s windows) and peak over mean."""
    windows = int(duration_s)
    gaps, counts = _Gaps(duration_s * _NS / max(schedule.expected, 1)), np.zeros(windows + 1, np.int64)
    for block in schedule.blocks():
        gaps.add(block)
        counts += np.bincount(np.minimum(block // _NS, windows), minlength=windows + 1)
    counts = counts[:windows]
    dispersion = peak = None
    if windows >= 2 and counts.any():
        dispersion = float(counts.var(ddof=1) / counts.mean())
        peak = float(counts.max() / counts.mean())
    return ScheduleStatistics(gaps.arrivals, duration_s, gaps.arrivals / duration_s, gaps.cv, dispersion, peak)


class _Gaps:
    """Mean and standard deviation of the gaps between arrivals that come in blocks."""

    def __init__(self, about_ns: float) -> None:
        """`about_ns` is near the mean gap: sums of the differences from it are small and therefore exact."""
        self.arrivals = 0
        self._about_ns = about_ns
        self._last_ns: int | None = None
        self._sum = self._squares = 0.0

    def add(self, block: Schedule) -> None:
        gaps = np.diff(block) if self._last_ns is None else np.diff(block, prepend=self._last_ns)
        self._last_ns = int(block[-1])
        self.arrivals += len(block)
        differences = gaps - self._about_ns
        self._sum += float(differences.sum())
        self._squares += float(np.square(differences).sum())

    @property
    def cv(self) -> float | None:
        """Standard deviation over mean; None for fewer than two gaps."""
        gaps = self.arrivals - 1
        if gaps < 2:
            return None
        mean = self._sum / gaps
        variance = max(self._squares / gaps - mean * mean, 0.0)
        return float(np.sqrt(variance) / (self._about_ns + mean)) if self._about_ns + mean > 0 else None


def _gamma_times(rng: np.random.Generator, rate: float, cv: float, duration_s: float) -> Iterator[_Times]:
    """Arrival times in blocks, up to the first block that reaches `duration_s`."""
    shape = 1 / cv**2
    last = 0.0
    while last < duration_s:
        expected = rate * (duration_s - last)
        left = int(expected + 4 * cv * np.sqrt(expected) + 16)
        begin, total = last, 0.0
        while left and last < duration_s:
            gaps = rng.gamma(shape, 1 / (rate * shape), min(left, BLOCK_ARRIVALS))
            # The sum goes on within the addition of one number after the other: its rounding stays the same.
            gaps[0] += total
            times = np.cumsum(gaps)
            total = float(times[-1])
            left -= len(times)
            last = begin + total
            yield begin + times


def _unit_arrivals(total: float, seed: int) -> Iterator[_Times]:
    """Arrivals of a unit-rate Poisson process in [0, total), in blocks of at least one."""
    if total > 0:
        for times in _gamma_times(np.random.default_rng(seed), 1.0, 1.0, total):
            inside = times[times < total]
            if len(inside):
                yield inside


def _piecewise(rates: Sequence[float], spans_s: Sequence[float], duration_s: float, seed: int) -> BlockSchedule:
    edges = np.concatenate([[0.0], np.cumsum(spans_s)])
    cumulative = np.concatenate([[0.0], np.cumsum(np.multiply(rates, spans_s))])
    rate_of, end = np.asarray(rates, float), float(np.interp(duration_s, edges, cumulative))

    def times() -> Iterator[_Times]:
        for unit in _unit_arrivals(end, seed):
            # side="right" - 1 picks the piece with a positive rate where a silent one ends at the same count.
            piece = np.searchsorted(cumulative, unit, side="right") - 1
            yield edges[piece] + (unit - cumulative[piece]) / rate_of[piece]

    return BlockSchedule(lambda: _to_ns(times(), duration_s), end)


def _diurnal_arrivals(times_s: _Times, mean: float, amplitude: float, period_s: float) -> _Times:
    """Mean number of arrivals up to each time."""
    omega = 2 * np.pi / period_s
    expected: _Times = mean * (times_s - amplitude * np.sin(omega * times_s) / omega)
    return expected


def _diurnal_grid(unit: _Times, mean: float, amplitude: float, period_s: float, duration_s: float) -> _Times:
    """Times between which the arrivals of a block are interpolated: the part of the load's grid around them.

    4096 points a period keep the inverse within 1e-6 of a period.
    """
    intervals = max(2, int(np.ceil(duration_s / period_s * 4096)))
    step_s, swing_s = duration_s / intervals, amplitude * period_s / (2 * np.pi)
    first = max(0, int((unit[0] / mean - swing_s) / step_s) - 2)
    last = min(intervals, int((unit[-1] / mean + swing_s) / step_s) + 3)
    grid: _Times = (np.arange(first, last + 1) * step_s).astype(np.float64)
    if last == intervals:
        grid[-1] = duration_s
    return grid


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


def _to_ns(times_s: Iterable[_Times], duration_s: float) -> Iterator[Schedule]:
    limit_ns = int(duration_s * _NS)
    for block in times_s:
        # of a low rate the next arrival may be centuries away, which int64 does not hold
        times_ns = np.rint(np.minimum(block, duration_s + 1) * _NS).astype(np.int64)
        yield times_ns if times_ns[-1] < limit_ns else times_ns[times_ns < limit_ns]


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


def _check_turns(what: str, each_s: float, duration_s: float, most: int = MOST_TURNS) -> None:
    if duration_s > each_s * most:
        raise LoadTestError(
            f"the {what} of {each_s:g} s would come over {most:,} times in {duration_s:g} s: give more seconds."
        )


def _check_not_negative(what: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise LoadTestError(f"the {what} must be 0 or more, not {value:g}.")
