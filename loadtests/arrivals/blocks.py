"""Schedules in blocks: computed piece by piece, as often as they are asked for, so that nobody has to hold a whole one.

A day at 1,000 requests/s is 86 million arrivals. A process reads a schedule in order and once, so it needs only the
next arrivals. Each reader computes them anew from the same parameters and seed, and gets the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.errors import LoadTestError

BLOCK_ARRIVALS: Final = 8192
"""Arrivals that are computed at once: few enough that no NumPy call holds up a thread that sends requests."""

_Moments = NDArray[np.int64]


class BlockSchedule:
    """A schedule that is computed each time it is read. All moments are int64 ns after the start of the load."""

    def __init__(self, make: Callable[[], Iterator[_Moments]], expected: float) -> None:
        """`make` begins at the first arrival each time; `expected` is the mean number of arrivals."""
        self._make = make
        self.expected = expected
        """How many arrivals the parameters give on average; exact where nothing is random."""

    def blocks(self) -> Iterator[_Moments]:
        """The arrivals in order, in sorted blocks of at least one."""
        return (block for block in self._make() if len(block))

    def whole(self) -> _Moments:
        """All arrivals in one array: 8 bytes each."""
        return np.concatenate([np.empty(0, np.int64), *self.blocks()])

    def count(self) -> int:
        """How many arrivals there are; computes them all."""
        return sum(map(len, self.blocks()))

    def is_empty(self) -> bool:
        """True where there is no arrival; computes the first block only."""
        return next(self.blocks(), None) is None

    def deal(self, worker: int, workers: int) -> BlockSchedule:
        """The arrivals that worker `worker` (0-based) of `workers` sends: every workers-th one, so the union is all."""
        _check_worker(worker, workers)
        return BlockSchedule(lambda: _every(self.blocks(), worker, workers), self.expected / workers)

    def after(self, first: BlockSchedule, begin_ns: int) -> BlockSchedule:
        """`first`, which ends before `begin_ns`, and then this schedule, `begin_ns` later."""

        def make() -> Iterator[_Moments]:
            yield from first.blocks()
            for block in self.blocks():
                yield block + begin_ns

        return BlockSchedule(make, first.expected + self.expected)


class RecordedSchedule(BlockSchedule):
    """A schedule that is in memory, since a file or another program gave it: a share of it takes the share's memory."""

    def __init__(self, moments_ns: _Moments) -> None:
        super().__init__(lambda: _cut(moments_ns, BLOCK_ARRIVALS), float(len(moments_ns)))
        self._moments_ns = moments_ns

    def whole(self) -> _Moments:
        """The array itself."""
        return self._moments_ns

    def deal(self, worker: int, workers: int) -> RecordedSchedule:
        """As in BlockSchedule; holds nothing of the other shares."""
        _check_worker(worker, workers)
        return RecordedSchedule(self._moments_ns[worker::workers].copy())

    def after(self, first: BlockSchedule, begin_ns: int) -> RecordedSchedule:
        """As in BlockSchedule."""
        return RecordedSchedule(np.concatenate([first.whole(), self._moments_ns + begin_ns]))


NO_ARRIVALS: Final = RecordedSchedule(np.empty(0, np.int64))
"""Of a closed loop."""


class MeasuredAmong:
    """How many of the first arrivals of a schedule are measured; reads the schedule as far as it is asked about."""

    def __init__(self, schedule: BlockSchedule, measured: MeasuredTime) -> None:
        """`measured` counts from the start of the load."""
        self._blocks, self._measured = schedule.blocks(), measured
        self._block = np.empty(0, np.int64)
        self._before = self._measured_before = 0

    def first(self, arrivals: int) -> int:
        """Of the first `arrivals`, which never become fewer from call to call."""
        while arrivals > self._before + len(self._block):
            following = next(self._blocks, None)
            if following is None:
                break
            self._measured_before += int(self._measured.contains(self._block).sum())
            self._before += len(self._block)
            self._block = following
        return self._measured_before + int(self._measured.contains(self._block[: arrivals - self._before]).sum())


def regrouped(blocks: Iterator[_Moments], size: int) -> Iterator[_Moments]:
    """The same arrivals in blocks of `size`, the last one as large as is left."""
    waiting: list[_Moments] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= size:
            *whole, rest = _cut(np.concatenate(waiting), size)
            yield from whole
            if len(rest) == size:
                yield rest
                rest = rest[:0]
            waiting, held = [rest], len(rest)
    if held:
        yield np.concatenate(waiting)


def _every(blocks: Iterator[_Moments], offset: int, step: int) -> Iterator[_Moments]:
    """Every step-th arrival from number `offset` on."""
    for block in blocks:
        yield block[offset::step]
        offset = (offset - len(block)) % step


def _cut(moments_ns: _Moments, size: int) -> Iterator[_Moments]:
    return (moments_ns[begin : begin + size] for begin in range(0, len(moments_ns), size))


def _check_worker(worker: int, workers: int) -> None:
    if not 0 <= worker < workers:
        raise LoadTestError(f"worker {worker} does not exist among {workers} workers.")
