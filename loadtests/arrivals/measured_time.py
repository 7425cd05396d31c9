"""When a load is measured: all of its time after the warm-up, or only its turns where it takes turns with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NO_END = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class MeasuredTime:
    """Intervals [begin, end) in order and apart, int64 ns: after a load's start, or on a clock (see `started`).

    Requests that are due outside of them are warm-up: sent and recorded, but part of no figure.
    """

    begin_ns: NDArray[np.int64]
    """(intervals,)"""
    end_ns: NDArray[np.int64]
    """(intervals,)"""

    @classmethod
    def since(cls, begin_ns: int) -> MeasuredTime:
        """One interval that never ends."""
        return cls(np.array([begin_ns], np.int64), np.array([_NO_END], np.int64))

    def started(self, start_ns: int) -> MeasuredTime:
        """The same intervals of a load that started at `start_ns`."""
        ends = np.where(self.end_ns == _NO_END, self.end_ns, np.minimum(self.end_ns, _NO_END - start_ns) + start_ns)
        return MeasuredTime(self.begin_ns + start_ns, ends)

    @property
    def from_ns(self) -> int:
        """Begin of the first interval."""
        return int(self.begin_ns[0])

    def interval_of(self, moments_ns: ArrayLike) -> NDArray[np.int64]:
        """Number of the interval in which each moment lies, -1 where it lies in none."""
        moments = np.asarray(moments_ns, np.int64)
        number = np.searchsorted(self.begin_ns, moments, side="right") - 1
        inside = (number >= 0) & (moments < self.end_ns[number])
        return np.where(inside, number, -1)

    def contains(self, moments_ns: ArrayLike) -> NDArray[np.bool_]:
        """Whether each moment lies in one of the intervals."""
        return self.interval_of(moments_ns) >= 0

    def within_ns(self, from_ns: int, until_ns: int) -> int:
        """How much of the time between two moments is measured."""
        return int(np.maximum(np.minimum(self.end_ns, until_ns) - np.maximum(self.begin_ns, from_ns), 0).sum())


ALWAYS: Final = MeasuredTime.since(0)
"""Of a load without a warm-up: from its start on."""
