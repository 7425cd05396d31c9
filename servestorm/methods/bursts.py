"""What each burst did to a server: violations, the queue that built up, and the time until it was over.

Burst i (0-based) of an on-off load lasts from start + i (on + off) + off for `on` seconds, because the load begins with
its base rate (loadtests/arrivals.py, on_off).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.samples.validity import samples_needed

Times = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NS: Final = 1_000_000_000
RECOVERY_WINDOW_S: Final = 0.5
RECOVERY_SHARE: Final = 0.05
"""Recovered is a window in which no more than this share of the requests is late or failed."""
REST_SHARE: Final = 0.01
"""Recovered within a burst also needs that of the burst's remaining requests no more than this share is so."""


@dataclass(frozen=True)
class Burst:
    """One burst; seconds count from the start of the measured load."""

    index: int
    start_s: float
    end_s: float
    requests: int
    """Scheduled within the burst."""
    failed: int
    """Of those, without a right answer: dropped ones and timeouts too."""
    violations: int | None
    """Of those, failed or later than the objective; None without an objective."""
    queue_start: int
    """Requests under way (due and without an end) when the burst begins."""
    queue_end: int
    """The same when it ends: the difference is what built up."""
    queue_peak: int
    """The most within the burst."""
    observed_s: float
    """Seconds from the burst's end to the next burst or the end of the load: recovery can be seen only there."""
    recover_s: float | None
    """Seconds after the burst's end until latencies are back; None where that was not seen."""

    @property
    def violation_percent(self) -> float | None:
        """Violations as a share of the burst's requests; None without an objective or a request."""
        return 100 * self.violations / self.requests if self.violations is not None and self.requests else None


@dataclass(frozen=True)
class LoadSamples:
    """Requests of one load by scheduled time, int64 ns of one clock; one entry a request in all arrays."""

    scheduled_ns: Times
    done_ns: Times
    """When the request ended, answered or not; under 0 where it never was under way (dropped)."""
    ok: Flags
    """A right answer came."""
    start_ns: int
    """When the schedule of bursts began (the end of the warm-up), on the same clock."""


def bursts(
    load: LoadSamples, *, on_s: float, off_s: float, duration_s: float, objective_ms: float | None = None
) -> list[Burst]:
    """Every burst that begins within the load, by time.

    A latency is a whole request's, from its scheduled time. Recovery is the first moment from which
    RECOVERY_WINDOW_S of requests, at least one and not past the next burst, hold no more than RECOVERY_SHARE of late
    or failed ones: the burst's end itself, or the scheduled time of the right and timely request that begins such a
    window. Late is over the objective; without one it is over the 99th percentile (nearest rank) of the right answers
    scheduled before the first burst, and where those are too few for a median nothing is said of recovery.
    """
    period_ns, on_ns, off_ns = (int(seconds * _NS) for seconds in (on_s + off_s, on_s, off_s))
    length_ns = int(duration_s * _NS)
    scheduled_ns, done_ns = _since(load.start_ns, load.scheduled_ns), _since(load.start_ns, load.done_ns)
    level_ns = _level_ns(load, scheduled_ns, off_ns) if objective_ms is None else int(objective_ms * 1e6)
    bad = late_or_failed(load, level_ns)
    queue = _Queue(scheduled_ns, done_ns, load.done_ns >= 0)
    results = []
    for index in range(math.ceil((length_ns - off_ns) / period_ns)):
        begin_ns = index * period_ns + off_ns
        end_ns, limit_ns = min(begin_ns + on_ns, length_ns), min(begin_ns + period_ns, length_ns)
        first, last = np.searchsorted(scheduled_ns, (begin_ns, end_ns))
        recover_ns = _recovery_ns(scheduled_ns, bad, end_ns, limit_ns) if bad is not None else None
        late = int(bad[first:last].sum()) if bad is not None and objective_ms is not None else None
        results.append(
            Burst(
                index=index,
                start_s=begin_ns / _NS,
                end_s=end_ns / _NS,
                requests=int(last - first),
                failed=int(last - first - load.ok[first:last].sum()),
                violations=late,
                queue_start=queue.at(begin_ns),
                queue_end=queue.at(end_ns),
                queue_peak=queue.peak(begin_ns, end_ns),
                observed_s=(limit_ns - end_ns) / _NS,
                recover_s=None if recover_ns is None else recover_ns / _NS,
            )
        )
    return results


def bursts_in_turns(
    turns: Sequence[LoadSamples], *, on_s: float, off_s: float, objective_ms: float | None = None
) -> list[Burst]:
    """The burst of every turn of one cycle, by time: turn i begins i (on + off) seconds after the first.

    Each is judged as in `bursts` by the requests of its own turn. A turn ends with its burst, and what comes after it
    waits for the next turn, so that nothing is seen of recovery.
    """
    found = []
    for index, load in enumerate(turns):
        own = bursts(load, on_s=on_s, off_s=off_s, duration_s=off_s + on_s, objective_ms=objective_ms)
        begin_s = index * (off_s + on_s)
        found += [
            replace(burst, index=index, start_s=begin_s + burst.start_s, end_s=begin_s + burst.end_s) for burst in own
        ]
    return found


def _since(start_ns: int, times_ns: Times) -> Times:
    """Times that count from `start_ns`: no copy where they do already, for there may be tens of millions."""
    return times_ns - start_ns if start_ns else times_ns


def _level_ns(load: LoadSamples, scheduled_ns: Times, off_ns: int) -> int | None:
    """The 99th percentile before the first burst, or None with too few right answers for even a median."""
    calm = load.ok & (scheduled_ns >= 0) & (scheduled_ns < off_ns)
    latency_ns = np.sort((load.done_ns - load.scheduled_ns)[calm])
    if latency_ns.size < samples_needed(0.5):
        return None
    return int(latency_ns[math.ceil(0.99 * latency_ns.size) - 1])


def late_or_failed(load: LoadSamples, level_ns: int | None) -> Flags | None:
    """Of each request whether it got no right answer, or a later one than `level_ns`; None without a level."""
    return None if level_ns is None else ~load.ok | (load.done_ns - load.scheduled_ns > level_ns)


def recovered_within(scheduled_ns: Times, bad: Flags, begin_ns: int, end_ns: int) -> int | None:
    """Nanoseconds from a burst's begin to the moment from which on it keeps the objective; None where none is in it.

    That moment begins a calm window, as in `bursts`, and REST_SHARE bounds what is late or failed of all requests from
    there to the burst's end: 99 % of them keep the objective. So neither the first requests of a queue that has yet to
    build up nor a good moment in a bad burst count as recovery, and a bad moment in a good one is forgiven.
    """
    first, last = np.searchsorted(scheduled_ns, (begin_ns, end_ns))
    due_ns, bad = scheduled_ns[first:last], bad[first:last]
    from_ns, calm = _calm_windows(due_ns, bad, begin_ns, end_ns)
    begin = np.concatenate([[0], np.arange(due_ns.size)])
    bad_before = np.concatenate([[0], np.cumsum(bad)])
    calm &= bad_before[-1] - bad_before[begin] <= REST_SHARE * (due_ns.size - begin)
    return int(from_ns[calm.argmax()]) - begin_ns if calm.any() else None


def _recovery_ns(scheduled_ns: Times, bad: Flags, end_ns: int, limit_ns: int) -> int | None:
    """Nanoseconds after `end_ns`; None where no such window lies whole before `limit_ns`."""
    first, last = np.searchsorted(scheduled_ns, (end_ns, limit_ns))
    from_ns, calm = _calm_windows(scheduled_ns[first:last], bad[first:last], end_ns, limit_ns)
    return int(from_ns[calm.argmax()]) - end_ns if calm.any() else None


def _calm_windows(due_ns: Times, bad: Flags, begin_ns: int, limit_ns: int) -> tuple[Times, Flags]:
    """Where a window may begin (at `begin_ns`, and at each request), and whether it is calm and whole before the limit.

    `due_ns` and `bad` are of the requests between the two.
    """
    window_ns = int(RECOVERY_WINDOW_S * _NS)
    bad_before = np.concatenate([[0], np.cumsum(bad)])
    from_ns = np.concatenate([[begin_ns], due_ns])
    begin = np.concatenate([[0], np.arange(due_ns.size)])
    until = np.searchsorted(due_ns, from_ns + window_ns)
    requests, late = until - begin, bad_before[until] - bad_before[begin]
    # a window that begins with a late request has not recovered there, however many timely ones follow
    calm = (requests > 0) & (late <= RECOVERY_SHARE * requests) & (from_ns + window_ns <= limit_ns)
    calm &= ~np.concatenate([bad[:1] if due_ns.size else [True], bad])
    return from_ns, calm


class _Queue:
    """Requests under way at any moment: those that were due less those that ended."""

    def __init__(self, scheduled_ns: Times, done_ns: Times, under_way: Flags) -> None:
        all_under_way = bool(under_way.all())
        self._due_ns = scheduled_ns if all_under_way else scheduled_ns[under_way]
        self._ended_ns = np.sort(done_ns if all_under_way else done_ns[under_way])

    def at(self, t_ns: int) -> int:
        """Due before t and not ended before it."""
        return int(np.searchsorted(self._due_ns, t_ns) - np.searchsorted(self._ended_ns, t_ns))

    def peak(self, begin_ns: int, end_ns: int) -> int:
        """The most within [begin, end): the queue grows at arrivals only, so only there can it be largest."""
        first, last = np.searchsorted(self._due_ns, (begin_ns, end_ns))
        ended = np.searchsorted(self._ended_ns, self._due_ns[first:last], side="right")
        depth = np.arange(first + 1, last + 1) - ended
        return max(self.at(begin_ns), int(depth.max(initial=0)))
