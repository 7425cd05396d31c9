"""A load second by second while it runs: what was offered, sent, answered, failed and dropped, and how long it took.

Seconds count from the end of the warm-up. Each batch of samples costs a few NumPy calls, and memory grows by some
hundred bytes a second: latencies are stored only until the percentiles of their second are final.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.blocks import BlockSchedule
from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.generator import jobs
from loadtests.generator.load import ROW
from loadtests.samples.recorder import measured_rows
from loadtests.samples.validity import samples_needed

COUNTS: Final = ("offered", "sent", "answered", "failed", "dropped")
"""Requests of a second: due in it, sent in it, answered rightly in it, failed in it, dropped in it."""
_SCHEDULED, _SENT, _DONE, _OUTCOME = (ROW.index(name) for name in ("scheduled_ns", "sent_ns", "done_ns", "outcome"))
_NS: Final = 1_000_000_000
_NS_PER_MS: Final = 1e6
_FINAL_AFTER_S: Final = 60
"""An answer that is reported so long after its second counts, but not in the percentiles of that second."""


@dataclass(frozen=True)
class Latency:
    """Of the right answers of one second, milliseconds from the scheduled time; p99 where they are enough for it."""

    p50_ms: float
    p99_ms: float | None
    max_ms: float


class Seconds:
    """The seconds of one load; `planned` is its schedule from its start on, None in a closed loop."""

    def __init__(self, planned: BlockSchedule | None, warmup_ns: int) -> None:
        self.closed_loop = planned is None
        self._counts = {name: _Counter() for name in COUNTS}
        self._planned, self._entered, self._left = _Counter(), _Counter(), _Counter()
        for block in planned.blocks() if planned else ():
            self._planned.add(block - warmup_ns)
        self._latencies: dict[int, list[NDArray[np.int64]]] = {}
        self._figures: dict[int, Latency] = {}
        self._final_before = 0
        self.finished = False
        """True once every sample is here: what was due is then read from them, not from the schedule."""

    def add(self, rows: NDArray[np.int64], measured_from_ns: int) -> None:
        """Take samples, (n, len(ROW)) int64, of the warm-up too; only these in flight count there."""
        scheduled, done = rows[:, _SCHEDULED] - measured_from_ns, rows[:, _DONE]
        self._entered.add(scheduled)
        self._left.add(np.where(done >= 0, done - measured_from_ns, scheduled))
        rows = measured_rows(rows, MeasuredTime.since(measured_from_ns))
        scheduled, sent, done, outcome = rows[:, [_SCHEDULED, _SENT, _DONE, _OUTCOME]].T
        ended = np.where(done >= 0, done, scheduled) - measured_from_ns
        ok, dropped = outcome == jobs.OK, outcome == jobs.DROPPED
        self._counts["offered"].add(scheduled - measured_from_ns)
        self._counts["sent"].add(sent[sent >= 0] - measured_from_ns)
        self._counts["answered"].add(ended[ok])
        self._counts["failed"].add(ended[~ok & ~dropped])
        self._counts["dropped"].add(ended[dropped])
        self._store(ended[ok] // _NS, (done - scheduled)[ok])

    def totals(self, until: int) -> dict[str, int]:
        """Of the seconds before `until`, by the names of COUNTS."""
        counters = {**self._counts, "offered": self._due}
        return {name: int(counter.between(0, until).sum()) for name, counter in counters.items()}

    @property
    def dropped(self) -> int:
        """Arrivals that were dropped so far, in seconds that are not over too."""
        return self._counts["dropped"].total

    @property
    def _due(self) -> _Counter:
        """What came: while a load runs, its schedule says which requests were due."""
        return self._counts["offered"] if self.closed_loop or self.finished else self._planned

    def planned(self) -> list[int]:
        """Arrivals of each second by the schedule, those to come included; empty in a closed loop."""
        counts: list[int] = self._planned.between(0, self._planned.seconds).tolist()
        return counts

    @property
    def seconds(self) -> int:
        """How many seconds there are up to the last event so far."""
        return max(counter.seconds for counter in (*self._counts.values(), self._left))

    def table(self, begin: int, until: int, in_flight_until: int) -> dict[str, list[Any]]:
        """Columns of the seconds `begin` to `until`, which are over: COUNTS, in_flight, p50_ms, p99_ms, max_ms.

        `in_flight` is at the end of the second, None from `in_flight_until` on. Latencies of a second without a right
        answer are None, and so is `offered` in a closed loop, which offers nothing.
        """
        counters = {**self._counts, "offered": self._due}
        columns: dict[str, list[Any]] = {
            name: counter.between(begin, until).tolist() for name, counter in counters.items()
        }
        if self.closed_loop:
            columns["offered"] = [None] * (until - begin)
        known = self._in_flight(begin, until).tolist()
        columns["in_flight"] = [n if begin + at < in_flight_until else None for at, n in enumerate(known)]
        latencies = [self._latency(second) for second in range(begin, until)]
        for name in ("p50_ms", "p99_ms", "max_ms"):
            columns[name] = [getattr(latency, name) if latency else None for latency in latencies]
        return columns

    def _in_flight(self, begin: int, until: int) -> NDArray[np.int64]:
        """Requests that were due and had not ended."""
        came = self._entered if self.closed_loop or self.finished else self._planned
        return came.up_to(until)[begin:] - self._left.up_to(until)[begin:]

    def _store(self, seconds: NDArray[np.int64], latencies_ns: NDArray[np.int64]) -> None:
        for second in np.unique(seconds).tolist():
            if second >= self._final_before:
                self._figures.pop(second, None)
                self._latencies.setdefault(second, []).append(latencies_ns[seconds == second])
        newest = max(self._latencies, default=0)
        for second in [s for s in self._latencies if s < newest - _FINAL_AFTER_S]:
            self._latency(second)
            del self._latencies[second]
            self._final_before = max(self._final_before, second + 1)

    def _latency(self, second: int) -> Latency | None:
        if second not in self._figures and second in self._latencies:
            self._figures[second] = latency_of(np.concatenate(self._latencies[second]))
        return self._figures.get(second)


def latency_of(latencies_ns: NDArray[np.int64]) -> Latency:
    """Percentiles (nearest rank) of at least one latency, int64 ns."""
    ordered, count = np.sort(latencies_ns), len(latencies_ns)
    p50, p99 = (float(ordered[int(np.ceil(q * count)) - 1]) / _NS_PER_MS for q in (0.5, 0.99))
    return Latency(p50, p99 if count >= samples_needed(0.99) else None, float(ordered[-1]) / _NS_PER_MS)


class _Counter:
    """Events a second, and how many there were before second 0."""

    def __init__(self) -> None:
        self._counts = np.zeros(64, np.int64)
        self._before = 0
        self.seconds = 0
        self.total = 0

    def add(self, after_ns: NDArray[np.int64]) -> None:
        """Take moments, int64 ns after second 0 began."""
        seconds = after_ns // _NS
        self._before += int((seconds < 0).sum())
        seconds = seconds[seconds >= 0]
        if not len(seconds):
            return
        first, last = int(seconds.min()), int(seconds.max())
        self._reserve(last + 1)
        self._counts[first : last + 1] += np.bincount(seconds - first)
        self.seconds = max(self.seconds, last + 1)
        self.total += len(seconds)

    def between(self, begin: int, until: int) -> NDArray[np.int64]:
        """Counts of the seconds `begin` to `until`."""
        self._reserve(until)
        return self._counts[begin:until]

    def up_to(self, until: int) -> NDArray[np.int64]:
        """How many there were up to the end of each second before `until`, those before second 0 included."""
        return self._before + np.cumsum(self.between(0, until))

    def _reserve(self, seconds: int) -> None:
        if seconds > len(self._counts):
            self._counts = np.pad(self._counts, (0, max(seconds, 2 * len(self._counts)) - len(self._counts)))
