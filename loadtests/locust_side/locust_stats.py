"""Locust's own statistics and events, fed from samples in batches.

Firing Locust's `request` event costs several microseconds a request; its statistics are what its web UI, CSV files and
reports show, so they get the same numbers a hundred milliseconds at a time. Only where somebody else listens to the
event is it fired for each request.
"""

from __future__ import annotations

import time
from typing import Any

import locust.stats
import numpy as np
from locust.stats import RequestStats, StatsEntry, StatsError
from numpy.typing import NDArray

from loadtests.generator.jobs import OK, OUTCOMES
from loadtests.generator.load import ROW

_SCHEDULED, _DONE, _OUTCOME, _RECEIVED = (
    ROW.index(name) for name in ("scheduled_ns", "done_ns", "outcome", "received_bytes")
)


class LocustStatistics:
    """Feeds one environment under one request name."""

    def __init__(self, environment: Any, method: str, name: str) -> None:
        self._environment = environment
        self._method, self._name = method, name
        self._own_listeners = 1
        """Locust registers its own statistics on the event; what comes on top is a person's or a plugin's."""

    def feed(self, rows: NDArray[np.int64]) -> None:
        """Take samples, (n, len(ROW)) int64; response times are counted from the scheduled time."""
        if not len(rows):
            return
        if len(self._environment.events.request._handlers) > self._own_listeners:
            self._fire_each(rows)
        else:
            self._feed_batch(rows)

    def _feed_batch(self, rows: NDArray[np.int64]) -> None:
        stats: RequestStats = self._environment.stats
        batch = _entry(stats, self._name, self._method, rows)
        stats.total.extend(batch)
        stats.entries[(self._name, self._method)].extend(batch)
        failed = rows[:, _OUTCOME][rows[:, _OUTCOME] != OK]
        for outcome, count in zip(*np.unique(failed, return_counts=True), strict=True):
            self._count_error(stats, OUTCOMES[outcome], int(count))

    def _count_error(self, stats: RequestStats, error: str, count: int) -> None:
        key = StatsError.create_key(self._method, self._name, error)
        entry = stats.errors.setdefault(key, StatsError(self._method, self._name, error))
        entry.occurred()
        entry.occurrences += count - 1

    def _fire_each(self, rows: NDArray[np.int64]) -> None:
        fire = self._environment.events.request.fire
        for row in rows.tolist():
            outcome = row[_OUTCOME]
            fire(
                request_type=self._method,
                name=self._name,
                response_time=None if row[_DONE] < 0 else (row[_DONE] - row[_SCHEDULED]) / 1e6,
                response_length=row[_RECEIVED],
                exception=None if outcome == OK else OUTCOMES[outcome],
                context={},
                start_time=None,
                response=None,
                url=self._name,
            )


def _entry(stats: RequestStats, name: str, method: str, rows: NDArray[np.int64]) -> StatsEntry:
    entry = StatsEntry(stats, name, method)
    second = int(time.time())
    done = rows[rows[:, _DONE] >= 0]
    times_ms = (done[:, _DONE] - done[:, _SCHEDULED]) / 1e6
    entry.num_requests = len(rows)
    entry.num_none_requests = len(rows) - len(done)
    entry.num_failures = int((rows[:, _OUTCOME] != OK).sum())
    entry.num_reqs_per_sec[second] = len(rows)
    if entry.num_failures:
        entry.num_fail_per_sec[second] = entry.num_failures
    entry.last_request_timestamp = time.time()
    entry.total_content_length = int(done[:, _RECEIVED].sum())
    if len(times_ms):
        entry.total_response_time = float(times_ms.sum())
        entry.min_response_time = float(times_ms.min())
        entry.max_response_time = float(times_ms.max())
        entry.response_times.update(_buckets(times_ms))
    return entry


def _buckets(times_ms: NDArray[np.float64]) -> dict[int, int]:
    """Counts by Locust's own rounding, which a person may have replaced."""
    counts: dict[int, int] = {}
    for value, count in zip(*np.unique(np.rint(times_ms), return_counts=True), strict=True):
        bucket = locust.stats.bucket_response_time(float(value))
        counts[bucket] = counts.get(bucket, 0) + int(count)
    return counts
