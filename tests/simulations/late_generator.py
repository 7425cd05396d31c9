"""A server with one queue, fed by a generator that sends late: how far is a latency off that counts all the same?

The server takes its requests in order, each for its recorded service time. Without lag, requests arrive as scheduled:
that is the truth. With lag they arrive later, and may arrive in a bunch and queue, so that the reading from the send is
off as well as the one from the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from loadtests.samples import validity
from loadtests.samples.slices import usable_slices
from tests.simulations.recorded_noise import Recording, Slice, blocks, quantile

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
GOALS: Final = {"p50": 0.01, "p95": 0.01, "p99": 0.03}
"""The largest error that a counted percentile may carry."""
SLICE_MS: Final = 2000.0
KINDS: Final = ("recorded", "mild", "hard", "now", "now, mild")
"""Lag as it was recorded with the noise, milder and harder; and that of the generator as it is now."""
LAGS: Final = Path(__file__).resolve().parents[2] / "benchmarks" / "calibration" / "recorded" / "lag.npz"
"""Lag of two generators that took turns: `before` arrivals were made ready ahead of their moment, and `after`."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """How late the generator is."""

    name: str
    kind: str
    """One of KINDS."""
    times: float = 1.0
    """The recorded lag, so many times."""
    hiccup_ms: float = 0.0
    hiccups_per_s: float = 0.0
    poisson: bool = False
    """Arrivals; at a constant rate without."""
    generator: str = "noise"
    """Lag as it was recorded with the noise, or in LAGS: before or after."""
    p50_ms: float | None = None
    """Service times scaled so that their median is this; as recorded without."""


def conditions() -> list[Condition]:
    """Recorded lag, scaled up, and with stops of the generator as a busy machine gives them."""
    scaled = [
        Condition(f"recorded lag x {times:g}", kind, times)
        for times, kind in ((1, "recorded"), (2, "mild"), (5, "hard"), (10, "hard"))
    ]
    poisson = [
        Condition(f"recorded lag x {times:g}, Poisson", kind, times, poisson=True)
        for times, kind in ((1, "recorded"), (5, "hard"))
    ]
    stops = [
        Condition(f"stops of {length} ms, {rate:g}/s", "mild" if length < 50 and rate < 1 else "hard", 1, length, rate)
        for length in (5, 10, 20, 50)
        for rate in (0.05, 0.2, 1)
    ]
    now = [
        replace(one, name=f"{one.name}, now", kind="now" if one.kind == "recorded" else "now, mild", generator="after")
        for one in (*scaled, *poisson, *stops)
        if one.kind != "hard"
    ]
    return [*scaled, *poisson, *stops, *now]


def fast_servers() -> list[Condition]:
    """The first server of the record, sped up, under the lag of the generator as it was and as it is."""
    return [
        Condition(f"p50 {p50_ms:g} ms, {generator}", "now", generator=generator, p50_ms=p50_ms)
        for p50_ms in (1.5, 3.0)
        for generator in ("before", "after")
    ]


@cache
def recorded_lags() -> dict[str, Floats]:
    """Lag (ms) of each generator in LAGS, (runs, requests) at 70 requests/s."""
    with np.load(LAGS) as file:
        return {name: file[f"{name}_ns"] / 1e6 for name in ("before", "after")}


def service_times(one: Slice) -> Floats:
    """Service times (ms) of a queue with one server that gives the recorded answers; never under a hundredth."""
    sent = one.offset_ms + one.lag_ms
    done = sent + one.service_ms
    begun = np.maximum(sent, np.concatenate([[-np.inf], done[:-1]]))
    return np.maximum(done - begun, 0.01)


def answered(arrived: Floats, service: Floats) -> Floats:
    """When each request is answered: Lindley's recursion, in closed form."""
    work = np.cumsum(service)
    return work + np.maximum.accumulate(arrived - work + service)


@dataclass(frozen=True)
class LateRun:
    """One run, in slices: lag and three readings of every latency, in ms."""

    lag: Sequence[Floats]
    scheduled: Sequence[Floats]
    """From the schedule, as measured."""
    sent: Sequence[Floats]
    """From the send, as measured."""
    true: Sequence[Floats]
    """Had nothing been late."""


def late_run(noise: Recording, condition: Condition, slices: int, rng: np.random.Generator) -> LateRun:
    """A run of `slices` slices of SLICE_MS at the recorded rate, on one recorded server."""
    sides = noise.rounds[rng.integers(len(noise.rounds))]
    recorded = sides[rng.integers(2) if condition.p50_ms is None else 0]
    order = blocks(len(recorded), 2 * slices + 2, rng)
    service = np.concatenate([service_times(recorded[k]) for k in order])
    if condition.p50_ms is not None:
        service *= condition.p50_ms / np.median(service)
    count = round(slices * SLICE_MS * noise.rate_per_s / 1000)
    recorded_lag = np.concatenate([recorded[k].lag_ms for k in order])
    lag = condition.times * (recorded_lag if condition.generator == "noise" else _drawn_lag(condition, count, rng))
    gap_ms = 1000 / noise.rate_per_s
    poisson = np.sort(rng.uniform(0, slices * SLICE_MS, count))
    scheduled = poisson if condition.poisson else np.arange(count) * gap_ms
    service, lag = service[:count], lag[:count]
    sent = np.maximum.accumulate(_held_up(scheduled + lag, condition, slices * SLICE_MS, rng))
    done, true = answered(sent, service), answered(scheduled, service)
    ends = np.searchsorted(scheduled, np.arange(1, slices) * SLICE_MS)
    columns = (sent - scheduled, done - scheduled, done - sent, true - scheduled)
    return LateRun(*(np.split(column, ends) for column in columns))


def _drawn_lag(condition: Condition, count: int, rng: np.random.Generator) -> Floats:
    """Lag of `count` requests in a row: a recorded run from a random request on, on a circle."""
    runs = recorded_lags()[condition.generator]
    run = runs[rng.integers(len(runs))]
    return run[(rng.integers(run.size) + np.arange(count)) % run.size]


def _held_up(sent: Floats, condition: Condition, length_ms: float, rng: np.random.Generator) -> Floats:
    """Sends with the stops of the generator: what falls into one leaves at its end."""
    count = rng.poisson(condition.hiccups_per_s * length_ms / 1000)
    for begin in rng.uniform(0, length_ms, count):
        sent = np.where((sent >= begin) & (sent < begin + condition.hiccup_ms), begin + condition.hiccup_ms, sent)
    return sent


def usable(run: LateRun, most_moved: float) -> dict[str, list[int] | None]:
    """For each percentile the slices that count under the product's rule; None where it is INVALID."""
    sizes = [part.size for part in run.lag]
    slice_of = np.repeat(np.arange(len(sizes)), sizes)
    scheduled, sent = np.concatenate(run.scheduled), np.concatenate(run.sent)
    with patch.dict(validity.MOST_MOVED, dict.fromkeys(QUANTILES, most_moved)):
        figures = usable_slices(scheduled, sent, slice_of, len(sizes))
    return {name: np.flatnonzero(figures[name].used).tolist() if figures[name].counts else None for name in QUANTILES}


@dataclass(frozen=True)
class Carried:
    """What counted figures carry from the lag, over many runs."""

    runs: int
    left_out: list[float]
    """Share of the slices that were left out, of each counted figure."""
    from_schedule: Floats
    """Figure over truth on the same slices, minus 1, of each counted figure."""
    from_send: Floats
    """The same for the reading from the send."""


def carried(runs: Sequence[LateRun], most_moved: float) -> dict[str, Carried]:
    """The errors of each percentile under the rule with that threshold."""
    decided = [usable(run, most_moved) for run in runs]
    return {name: _carried(runs, [one[name] for one in decided], QUANTILES[name]) for name in QUANTILES}


def _carried(runs: Sequence[LateRun], used: Sequence[list[int] | None], q: float) -> Carried:
    readings, left_out = [], []
    for run, places in zip(runs, used, strict=True):
        if places is not None:
            columns = (run.scheduled, run.sent, run.true)
            readings.append([quantile(np.concatenate([column[k] for k in places]), q) for column in columns])
            left_out.append(1 - len(places) / len(run.lag))
    scheduled, sent, true = np.array(readings).reshape(-1, 3).T
    return Carried(len(runs), left_out, scheduled / true - 1, sent / true - 1)
