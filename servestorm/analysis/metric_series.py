"""The series of a metrics.parquet: how much counters grew during a load, how exactly that is known, means of gauges."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from servestorm.rundir.metrics_table import Readings

Labels = Mapping[str, str]
Keep = Callable[[Labels], bool]
Points = list[tuple[int, float]]
"""(Unix time in ms, value) of one series."""

_DIGITS = 6
"""Significant digits in which TensorFlow Serving writes the sum of a histogram."""


def anything(_: Labels) -> bool:
    """Every series of a metric."""
    return True


@dataclass(frozen=True)
class Growth:
    """How much a counter grew, over all its series."""

    amount: float
    coarseness: float = 0.0
    """The error that rounding may have put into the amount: 0 where the server writes more than six digits."""

    def __sub__(self, other: Growth) -> Growth:
        return Growth(self.amount - other.amount, self.coarseness + other.coarseness)


class MetricSeries:
    """Increases of counters and means of gauges, over all replicas.

    Readings after `until_ms` are left out; increases count from `since_ms`, or from the first reading of a replica.
    """

    def __init__(self, readings: Readings, since_ms: int | None, until_ms: int | None) -> None:
        self._points: dict[tuple[str, int, str], Points] = defaultdict(list)
        # when a replica was first read separates a series that began late from one that was not read before
        self._first_ms = readings.first_unix_ms
        self._since_ms = since_ms
        for point in readings.points:
            if until_ms is None or point.time_unix_ms <= until_ms:
                # prometheus-client's parser names every counter _total, a Prometheus keeps the server's own name
                key = (point.metric.removesuffix("_total"), point.replica, point.labels)
                self._points[key].append((point.time_unix_ms, point.value))

    def has(self, metric: str, keep: Keep = anything) -> bool:
        """Whether there is such a series at all."""
        return next(self._of(metric, keep), None) is not None

    def increase(self, metric: str, keep: Keep = anything) -> float | None:
        """Of a counter, over all its series whose labels are kept; None where there is none, or it stood still."""
        return sum(self.increases(metric, keep).values()) or None

    def increases(self, metric: str, keep: Keep = anything) -> dict[int, float]:
        """Of a counter, by replica, over all its series whose labels are kept; without those where it stood still."""
        grown_by: dict[int, float] = defaultdict(float)
        for replica, points in self._of(metric, keep):
            grown_by[replica] += self._grown(replica, points)
        return {replica: grown for replica, grown in grown_by.items() if grown}

    def growth(self, metric: str, keep: Keep = anything) -> Growth:
        """As `increase`, with how coarse the server's digits make it; 0 where it stood still."""
        coarseness = sum(_last_digit([value for _, value in points]) for _, points in self._of(metric, keep))
        return Growth(self.increase(metric, keep) or 0.0, coarseness)

    def mean(self, metric: str) -> float | None:
        """Of a gauge, over its readings after the first, which tells of requests before."""
        values = [
            value
            for replica, points in self._of(metric, anything)
            for time_ms, value in points
            if time_ms > self._begin_ms(replica)
        ]
        return sum(values) / len(values) if values else None

    def _of(self, metric: str, keep: Keep) -> Iterator[tuple[int, Points]]:
        """(replica, readings in the order of time) of each series of the metric."""
        for (name, replica, labels), points in self._points.items():
            if name == metric and keep(json.loads(labels)):
                yield replica, sorted(points)

    def _grown(self, replica: int, points: Points) -> float:
        since_ms = self._begin_ms(replica)
        before = [value for time_ms, value in points if time_ms <= since_ms]
        values = [before[-1] if before else 0.0, *(value for time_ms, value in points if time_ms > since_ms)]
        # a counter that falls began anew with its server
        return sum(b - a if b >= a else b for a, b in itertools.pairwise(values))

    def _begin_ms(self, replica: int) -> int:
        return self._first_ms[replica] if self._since_ms is None else self._since_ms


def _last_digit(values: list[float]) -> float:
    """What the sixth digit of the largest value is worth; 0 where whole numbers fit, or a value has more digits.

    A difference of two such values is off by at most that: each of the two is rounded by up to half of it.
    """
    largest = max(values, default=0.0)
    if largest < 10**_DIGITS or any(value != float(f"{value:.{_DIGITS}g}") for value in values):
        return 0.0
    return float(10.0 ** (math.floor(math.log10(largest)) - _DIGITS + 1))
