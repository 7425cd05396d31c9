"""The next arrivals of a schedule, computed before the generator's thread needs them."""

from __future__ import annotations

from collections import deque
from typing import Final

from loadtests.arrivals.blocks import BLOCK_ARRIVALS, BlockSchedule, regrouped
from loadtests.arrivals.processes import Schedule
from loadtests.generator.sockets_and_timers import allocate_native_lock

_BLOCKS_AHEAD: Final = 64
"""4 MiB; half a million arrivals are 26 s for the fastest generator and 9 minutes at 1,000/s."""


class Lookahead:
    """Blocks of a schedule in order. One thread takes them; another one computes them ahead with `refill`.

    Whoever takes a block that is not there yet computes it itself, so a late `refill` costs time but no arrival.
    """

    def __init__(self, schedule: BlockSchedule) -> None:
        self._source = regrouped(schedule.blocks(), BLOCK_ARRIVALS)
        self._ready: deque[Schedule] = deque()
        self._lock = allocate_native_lock()
        self.refill()

    def refill(self) -> None:
        """Compute what is short of the blocks to have ahead."""
        while len(self._ready) < _BLOCKS_AHEAD and self._compute():
            pass

    def take(self) -> list[int]:
        """The next arrivals, ns after the start of the load; empty after the last one."""
        while not self._ready:
            # Whoever computed the last block while this thread waited for the lock has put it there by then.
            if not self._compute() and not self._ready:
                return []
        # Numbers of Python take 36 bytes an arrival, so only one block has them.
        moments: list[int] = self._ready.popleft().tolist()
        return moments

    def end(self) -> None:
        """Forget the arrivals that were not taken."""
        with self._lock:
            self._source = iter(())
            self._ready.clear()

    def _compute(self) -> bool:
        with self._lock:
            block = next(self._source, None)
            if block is None:
                return False
            self._ready.append(block)
            return True
