"""Locust's own statistics and events, fed from samples in batches.

Firing Locust's `request` event costs several microseconds a request; its statistics are what its web UI, CSV files and
reports show, so they get the same numbers a hundred milliseconds at a time. Only where somebody else listens to the
event is it fired, for these listeners, for each request. Neither gets samples of the warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import locust.stats
import numpy as np
from locust.event import EventHook
from locust.stats import RequestStats, StatsEntry, StatsError
from numpy.typing import NDArray

from loadtests.generator.jobs import OK, OUTCOMES
from loadtests.generator.load import ROW
from loadtests.locust_side.clocks import wall_minus_monotonic_ns

_SCHEDULED, _DONE, _OUTCOME, _RECEIVED = (
    ROW.index(name) for name in ("scheduled_ns", "done_ns", "outcome", "received_bytes")
)
_NS: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_STEPS: Final = ((100, 1), (1_000, 10), (10_000, 100))
"""Locust's rounding: under so many ms to multiples of so many ms, above to 1,000 ms."""


class LocustStatistics:
    """Feeds one environment under one request name.

    `measured_from_ns` is the end of the warm-up on this machine's monotonic clock, 0 while the load has not begun.
    Locust's start, which its requests/s and its report's times count from, is that moment.
    """

    def __init__(self, environment: Any, method: str, name: str, measured_from_ns: Callable[[], int]) -> None:
        self._environment = environment
        self._method, self._name = method, name
        self._measured_from_ns = measured_from_ns
        self._start_s = 0.0
        """`measured_from_ns` on the wall clock, once it has come."""

    def tick(self) -> None:
        """To be called several times a second: Locust's statistics begin anew when the warm-up ends."""
        from_ns = self._measured_from_ns()
        if not from_ns or time.monotonic_ns() < from_ns:
            return
        stats: RequestStats = self._environment.stats
        if not self._start_s:
            self._start_s = (from_ns + wall_minus_monotonic_ns()) / 1e9
            stats.reset_all()
            stats.total.start_time = self._start_s
        # A worker's report of the time before moves the start back, "Reset Stats" moves it on.
        stats.total.start_time = max(stats.total.start_time, self._start_s)

    def feed(self, rows: NDArray[np.int64]) -> None:
        """Take measured samples, (n, len(ROW)) int64; response times are counted from the scheduled time."""
        self.tick()
        if not len(rows):
            return
        shift_ns = wall_minus_monotonic_ns()
        self._feed_batch(rows, shift_ns)
        listeners = [each for each in self._environment.events.request._handlers if not _is_locusts(each)]
        if listeners:
            self._fire_each(rows, listeners, shift_ns)

    def _feed_batch(self, rows: NDArray[np.int64], shift_ns: int) -> None:
        stats: RequestStats = self._environment.stats
        batch = entry_of(stats, self._name, self._method, rows, shift_ns)
        stats.total.extend(batch)
        stats.entries[(self._name, self._method)].extend(batch)
        for outcome in np.unique(rows[:, _OUTCOME]).tolist():
            if outcome != OK:
                moments_ns = _ended_ns(rows[rows[:, _OUTCOME] == outcome]) + shift_ns
                self._count_error(stats, OUTCOMES[outcome], moments_ns)

    def _count_error(self, stats: RequestStats, error: str, moments_ns: NDArray[np.int64]) -> None:
        key = StatsError.create_key(self._method, self._name, error)
        entry = stats.errors.setdefault(key, StatsError(self._method, self._name, error))
        first_s, last_s = float(moments_ns.min()) / 1e9, float(moments_ns.max()) / 1e9
        entry.occurrences += len(moments_ns)
        entry.first_seen = first_s if entry.first_seen is None else min(entry.first_seen, first_s)
        entry.last_seen = last_s if entry.last_seen is None else max(entry.last_seen, last_s)

    def _fire_each(self, rows: NDArray[np.int64], listeners: list[Any], shift_ns: int) -> None:
        event = EventHook()
        for listener in listeners:
            event.add_listener(listener)
        for row in rows.tolist():
            outcome = row[_OUTCOME]
            event.fire(
                request_type=self._method,
                name=self._name,
                response_time=None if row[_DONE] < 0 else (row[_DONE] - row[_SCHEDULED]) / 1e6,
                response_length=row[_RECEIVED],
                exception=None if outcome == OK else OUTCOMES[outcome],
                context={},
                start_time=(row[_SCHEDULED] + shift_ns) / 1e9,
                response=None,
                url=self._name,
            )


def _is_locusts(listener: Any) -> bool:
    """True for the listener by which Locust's runner feeds its statistics, which get our batches."""
    return getattr(listener, "__module__", "") == "locust.runners"


def _ended_ns(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each request ended; one that was never answered nor given up, when it was due."""
    return np.where(rows[:, _DONE] >= 0, rows[:, _DONE], rows[:, _SCHEDULED])


def entry_of(stats: RequestStats, name: str, method: str, rows: NDArray[np.int64], shift_ns: int) -> StatsEntry:
    """What Locust's own `log` would have made of these samples, each at the moment when it ended.

    `shift_ns` turns the samples' clock into the wall clock.
    """
    entry = StatsEntry(stats, name, method)
    ended_ns, failed = _ended_ns(rows) + shift_ns, rows[:, _OUTCOME] != OK
    done = rows[rows[:, _DONE] >= 0]
    times_ns = done[:, _DONE] - done[:, _SCHEDULED]
    entry.num_requests = len(rows)
    entry.num_none_requests = len(rows) - len(done)
    entry.num_failures = int(failed.sum())
    entry.num_reqs_per_sec.update(_by_second(ended_ns))
    entry.num_fail_per_sec.update(_by_second(ended_ns[failed]))
    entry.last_request_timestamp = float(ended_ns.max()) / 1e9
    entry.total_content_length = int(rows[:, _RECEIVED].sum())
    if len(times_ns):
        entry.total_response_time = float((times_ns / 1e6).sum())
        entry.min_response_time = float(times_ns.min()) / 1e6
        entry.max_response_time = float(times_ns.max()) / 1e6
        entry.response_times.update(buckets(times_ns))
    return entry


def _by_second(moments_ns: NDArray[np.int64]) -> dict[int, int]:
    seconds, counts = np.unique(moments_ns // _NS, return_counts=True)
    return dict(zip(seconds.tolist(), counts.tolist(), strict=True))


def buckets(times_ns: NDArray[np.int64]) -> dict[int, int]:
    """Counts by Locust's own rounding, which a person may have replaced."""
    counts: dict[int, int] = {}
    if _rounding_is_locusts():
        values, frequencies = np.unique(_rounded_ms(times_ns), return_counts=True)
        return dict(zip(values.tolist(), frequencies.tolist(), strict=True))
    for value, count in zip(*np.unique(times_ns, return_counts=True), strict=True):
        bucket = locust.stats.bucket_response_time(float(value) / 1e6)
        counts[bucket] = counts.get(bucket, 0) + int(count)
    return counts


def _rounding_is_locusts() -> bool:
    rounding = locust.stats.bucket_response_time
    return bool((rounding.__module__, rounding.__name__) == ("locust.stats", "bucket_response_time"))


def _rounded_ms(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """What `locust.stats.bucket_response_time` makes of each time: one rounding, halves to the even neighbour.

    In whole nanoseconds, where a half is exact.
    """
    limits_ns = [limit_ms * _NS_PER_MS for limit_ms, _ in _STEPS]
    steps_ms = np.array([*(step_ms for _, step_ms in _STEPS), 1_000])
    step_ms = steps_ms[np.searchsorted(limits_ns, times_ns, side="right")]
    whole, rest = np.divmod(times_ns, step_ms * _NS_PER_MS)
    twice = 2 * rest - step_ms * _NS_PER_MS
    up = (twice > 0) | ((twice == 0) & (whole % 2 == 1))
    rounded: NDArray[np.int64] = (whole + up) * step_ms
    return rounded
