"""The API server's clock against this process's monotonic one: its times have whole seconds, a study's nanoseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

_SECOND_NS = 1_000_000_000
_MICROSECOND_NS = 1000
_PAUSE_S = 0.01
_LONGEST_S = 3.0


@dataclass(frozen=True)
class ClusterClock:
    """Where the API server's clock stands."""

    offset_ns: int
    """Its Unix time less our time.monotonic_ns()."""
    uncertainty_ns: int | None
    """Half the width of what the offset may be; None where the server does not send its time and ours is used."""

    def window_ns(self, stamp: datetime) -> tuple[int, int]:
        """First and last monotonic time at which a clock of the cluster could have shown `stamp`."""
        first = _unix_ns(stamp) - self.offset_ns
        return first, first + (_MICROSECOND_NS if stamp.microsecond else _SECOND_NS) - 1

    def best_ns(self, stamp: datetime | None, seen_ns: int) -> int:
        """Monotonic time of something that the API dates `stamp` and that we saw at `seen_ns`.

        That is when we saw it, held into the second that the stamp names; without a stamp, when we saw it.
        """
        if stamp is None:
            return seen_ns
        first, last = self.window_ns(stamp)
        return min(max(seen_ns, first), last)


def measure(ask: Callable[[], str | None]) -> ClusterClock:
    """The clock of a server by the Date headers that `ask` returns, one request each, around the turn of a second.

    An answer dated D was written between sending and receiving, when the server's clock showed D to D + 1 s: every
    answer narrows what the offset may be, the two around the turn to a request's length.
    """
    lowest, highest, first_date = -(1 << 80), 1 << 80, None
    began_ns = time.monotonic_ns()
    while time.monotonic_ns() - began_ns < _LONGEST_S * _SECOND_NS:
        sent_ns = time.monotonic_ns()
        date = ask()
        received_ns = time.monotonic_ns()
        if date is None:
            return ClusterClock(time.time_ns() - received_ns, None)
        date_ns = _unix_ns(parsedate_to_datetime(date))
        lowest, highest = max(lowest, date_ns - received_ns), min(highest, date_ns + _SECOND_NS - sent_ns)
        first_date = date_ns if first_date is None else first_date
        if date_ns != first_date:
            break
        time.sleep(_PAUSE_S)
    # a clock that was set meanwhile contradicts itself: its last reading is nearest
    return ClusterClock((lowest + highest) // 2, abs(highest - lowest) // 2)


def _unix_ns(stamp: datetime) -> int:
    """Exact: a float of a second has no nanoseconds left."""
    whole = stamp.replace(microsecond=0)
    return int(whole.timestamp()) * _SECOND_NS + stamp.microsecond * _MICROSECOND_NS
