"""A server with one queue, fed by a generator that sends late: how far is a latency off that counts all the same?

The server takes its requests in order, each for its recorded service time. Without lag, requests arrive as scheduled:
that is the truth. With lag they arrive later, and may arrive in a bunch and queue, so that the reading from the send is
off as well as the one from the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed
from tests.simulations.recorded_noise import Recording, Slice, blocks, quantile

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
GOALS: Final = {"p50": 0.01, "p95": 0.01, "p99": 0.03}
"""The largest error that a counted percentile may carry."""
SLICE_MS: Final = 2000.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """How late the generator is."""

    name: str
    times: float = 1.0
    """The recorded lag, so many times."""
    hiccup_ms: float = 0.0
    hiccups_per_s: float = 0.0
    poisson: bool = False
    """Arrivals; at a constant rate without."""


def conditions() -> list[Condition]:
    """Recorded lag, scaled up, and with stops of the generator as a busy machine gives them."""
    scaled = [Condition(f"recorded lag x {times:g}", times) for times in (1, 2, 5, 10)]
    poisson = [Condition(f"recorded lag x {times:g}, Poisson", times, poisson=True) for times in (1, 5)]
    hiccups = [
        Condition(f"stops of {length:g} ms, {rate:g}/s", 1.0, length, rate)
        for length in (5, 10, 20, 50)
        for rate in (0.05, 0.2, 1)
    ]
    late = [Condition(f"stops of 20 ms, {rate:g}/s, Poisson", 1.0, 20, rate, True) for rate in (0.05, 1)]
    return [*scaled, *poisson, *hiccups, *late]


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
    recorded = noise.rounds[rng.integers(len(noise.rounds))][rng.integers(2)]
    order = blocks(len(recorded), 2 * slices + 2, rng)
    service = np.concatenate([service_times(recorded[k]) for k in order])
    lag = condition.times * np.concatenate([recorded[k].lag_ms for k in order])
    count = round(slices * SLICE_MS * noise.rate_per_s / 1000)
    gap_ms = 1000 / noise.rate_per_s
    poisson = np.sort(rng.uniform(0, slices * SLICE_MS, count))
    scheduled = poisson if condition.poisson else np.arange(count) * gap_ms
    service, lag = service[:count], lag[:count]
    sent = np.maximum.accumulate(_held_up(scheduled + lag, condition, slices * SLICE_MS, rng))
    done, true = answered(sent, service), answered(scheduled, service)
    ends = np.searchsorted(scheduled, np.arange(1, slices) * SLICE_MS)
    columns = (sent - scheduled, done - scheduled, done - sent, true - scheduled)
    return LateRun(*(np.split(column, ends) for column in columns))


def _held_up(sent: Floats, condition: Condition, length_ms: float, rng: np.random.Generator) -> Floats:
    """Sends with the stops of the generator: what falls into one leaves at its end."""
    count = rng.poisson(condition.hiccups_per_s * length_ms / 1000)
    for begin in rng.uniform(0, length_ms, count):
        sent = np.where((sent >= begin) & (sent < begin + condition.hiccup_ms), begin + condition.hiccup_ms, sent)
    return sent


Rule = Callable[[str, LateRun, float], list[int] | None]
"""(percentile, run, most that the lag may have moved it) -> slices that count; None where the figure is INVALID."""


def usable(name: str, run: LateRun, most_moved: float) -> list[int] | None:
    """The slices with the largest p99 lag are left out one after another until the two readings agree.

    At most half of the slices are left out, and never so many that the percentile is not supported.
    """
    q = QUANTILES[name]
    order = sorted(range(len(run.lag)), key=lambda k: quantile(run.lag[k], 0.99))
    fewest = (len(order) + 1) // 2
    while len(order) >= fewest and sum(run.sent[k].size for k in order) >= samples_needed(q):
        scheduled, sent = (quantile(np.concatenate([side[k] for k in order]), q) for side in (run.scheduled, run.sent))
        if abs(scheduled - sent) <= most_moved * sent:
            return sorted(order)
        order.pop()
    return None


@dataclass(frozen=True)
class Carried:
    """What counted figures carry from the lag, over many runs."""

    runs: int
    counted: int
    left_out: float
    """Share of the slices of counted figures that were left out."""
    errors: Floats
    """Figure over truth on the same slices, minus 1."""


def carried(runs: Sequence[LateRun], name: str, most_moved: float, rule: Rule = usable) -> Carried:
    """The errors of this percentile under the rule with that threshold."""
    q, errors, left_out = QUANTILES[name], [], []
    for run in runs:
        used = rule(name, run, most_moved)
        if used is None:
            continue
        measured, true = (quantile(np.concatenate([side[k] for k in used]), q) for side in (run.scheduled, run.true))
        errors.append(measured / true - 1)
        left_out.append(1 - len(used) / len(run.lag))
    share = float(np.mean(left_out)) if left_out else 0.0
    return Carried(len(runs), len(errors), share, np.array(errors))
