"""Which of the arrivals that several workers were dealt have no sample yet: what a lost worker takes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from loadtests.arrivals.blocks import BlockSchedule
from loadtests.arrivals.processes import Schedule

_SETTLED_ARRIVALS: Final = 262_144
"""So many samples are compared with the schedule at once (2 MiB)."""


class Unseen:
    """Samples of all workers against the schedule, which is read only as far as samples came.

    It holds the arrivals that are dealt and not reported up to the newest sample, and up to _SETTLED_ARRIVALS samples.
    """

    def __init__(self, schedule: BlockSchedule, workers: int) -> None:
        self._blocks = schedule.blocks()
        self._dealt = 0
        self._dealt_until_ns = -1
        self._left = [np.empty(0, np.int64) for _ in range(workers)]
        self._seen: list[list[Schedule]] = [[] for _ in range(workers)]
        self._waiting = 0

    def see(self, worker: int, moments_ns: Schedule) -> None:
        """Take the scheduled moments of samples, in any order, ns after the start of the load."""
        self._seen[worker].append(moments_ns)
        self._waiting += len(moments_ns)
        if self._waiting >= _SETTLED_ARRIVALS:
            self._settle()

    def rest(self, workers: Sequence[int]) -> Iterator[Schedule]:
        """The arrivals of these workers that no sample came of, to the end of the schedule, in blocks; once only."""
        self._settle()
        yield from (self._left[worker] for worker in workers)
        for block in self._blocks:
            shares = self._shares(block)
            yield from (shares[worker] for worker in workers)

    def _settle(self) -> None:
        seen = [np.concatenate([np.empty(0, np.int64), *moments]) for moments in self._seen]
        self._seen, self._waiting = [[] for _ in seen], 0
        self._deal_until(max((int(moments.max()) for moments in seen if len(moments)), default=-1))
        self._left = [_without(left, moments) for left, moments in zip(self._left, seen, strict=True)]

    def _deal_until(self, moment_ns: int) -> None:
        """Deal what is due up to a moment."""
        dealt = [[left] for left in self._left]
        while self._dealt_until_ns <= moment_ns and (block := next(self._blocks, None)) is not None:
            self._dealt_until_ns = int(block[-1])
            for parts, share in zip(dealt, self._shares(block), strict=True):
                parts.append(share)
        self._left = [np.concatenate(parts) for parts in dealt]

    def _shares(self, block: Schedule) -> list[Schedule]:
        workers = len(self._left)
        shares = [block[(worker - self._dealt) % workers :: workers] for worker in range(workers)]
        self._dealt += len(block)
        return shares


def _without(dealt: Schedule, seen: Schedule) -> Schedule:
    """`dealt` less `seen`. Two arrivals may share a nanosecond, so they are counted, not only looked up."""
    if not len(seen):
        return dealt
    moments, counts = np.unique(seen, return_counts=True)
    known, dealt_counts = np.unique(dealt, return_counts=True)
    seen_counts = np.zeros(len(known), np.int64)
    shared = np.isin(moments, known)
    seen_counts[np.searchsorted(known, moments[shared])] = counts[shared]
    return np.repeat(known, np.maximum(dealt_counts - seen_counts, 0))
