"""How long before an arrival the generator's thread wakes up, and prepares it: as long as this machine asks for.

A timer wakes its thread 0.05 to 0.2 ms late on most machines, and the wait for the rest is short. On some virtual
machines it is 0.1 to 0.2 ms in the median and 0.4 to 0.6 ms at the 95th percentile, on a core that is awake and with no
steal at all: with a fixed lead, every second request left late there. So the lead follows what is seen.
"""

from __future__ import annotations

from typing import Final

LEAST_LEAD_NS: Final = 200_000
MOST_LEAD_NS: Final = 1_000_000
_MOST_LEAD_SHARE: Final = 0.2
"""Of the mean time between two arrivals, and so of a core, that is spent waiting awake."""
_PUNCTUAL: Final = 0.98
"""Share of wake-ups for which the lead is to suffice."""
_STEP_NS: Final = 50_000
LEAST_PREPARE_NS: Final = 30_000
MOST_PREPARE_NS: Final = 150_000
_PREPARE_SHARE: Final = 0.01
"""Of the mean time between two arrivals: a reply that comes while a prepared one waits is read after its send."""


def prepare_ahead_ns(gap_ns: float) -> int:
    """How long before it is due an arrival gets its image and its connection.

    That takes a thread which has just slept 0.02 ms, and longer on a virtual machine with late timers (ADR 2).
    """
    return int(max(LEAST_PREPARE_NS, min(MOST_PREPARE_NS, _PREPARE_SHARE * gap_ns)))


class WakeUp:
    """The lead of a load whose arrivals are `gap_ns` apart in the mean."""

    def __init__(self, gap_ns: float) -> None:
        most_ns = _MOST_LEAD_SHARE * gap_ns
        self._least_ns, self._most_ns = min(LEAST_LEAD_NS, most_ns), min(MOST_LEAD_NS, most_ns)
        self._lead_ns = self._least_ns

    @property
    def lead_ns(self) -> int:
        """How long before the next arrival to wake up."""
        return int(self._lead_ns)

    @property
    def follows(self) -> bool:
        """Whether there is room between the least and the most."""
        return self._most_ns > self._least_ns

    def woke(self, spare_ns: int) -> None:
        """Note how much time a wake-up left until the arrival had to be prepared; less than 0 where it was late.

        A late one lengthens the lead and others shorten it, in the proportion in which the lead settles where the
        stated share of wake-ups is punctual (Robbins and Monro's stochastic approximation of a quantile).
        """
        step_ns = _STEP_NS * _PUNCTUAL if spare_ns < 0 else -_STEP_NS * (1 - _PUNCTUAL)
        self._lead_ns = min(self._most_ns, max(self._least_ns, self._lead_ns + step_ns))
