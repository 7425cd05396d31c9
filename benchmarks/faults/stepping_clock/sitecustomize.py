"""A wall clock that steps by an hour, back and forth, in every Python process that has this folder on PYTHONPATH.

Python imports a module of this name before anything else. The machine's clock is left alone: what a process reads of
the wall clock is shifted, from time.time() to datetime.now(). The monotonic clock does not step, as on a real machine.
FAULTS_CLOCK_SEED in the environment says when: gaps of 0.3 to 2 s, from the start of the process on.
"""

from __future__ import annotations

import datetime
import os
import random
import time
from bisect import bisect_right
from typing import Any

HOUR_S = 3600
STEPS = 2000
_REAL_TIME, _REAL_TIME_NS, _RealDatetime = time.time, time.time_ns, datetime.datetime


def install(seed: str) -> None:
    """Shift the wall clock of this process from now on."""
    moments, shifts, at_s, chance = [], [0], time.monotonic(), random.Random(seed)
    for _ in range(STEPS):
        at_s += chance.uniform(0.3, 2.0)
        moments.append(at_s)
        shifts.append(chance.choice([shift for shift in (-HOUR_S, 0, HOUR_S) if shift != shifts[-1]]))

    def shift_s() -> int:
        return shifts[bisect_right(moments, time.monotonic())]

    class _Lenient(type):
        """Lets datetimes that C code has made pass for ours."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, _RealDatetime)

    class SteppingDatetime(_RealDatetime, metaclass=_Lenient):
        """Of which only the present is shifted."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return _RealDatetime.now(tz) + datetime.timedelta(seconds=shift_s())

        @classmethod
        def utcnow(cls) -> Any:
            return _RealDatetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=shift_s())

    time.time = lambda: _REAL_TIME() + shift_s()
    time.time_ns = lambda: _REAL_TIME_NS() + shift_s() * 1_000_000_000
    datetime.datetime = SteppingDatetime  # type: ignore[misc]


if "FAULTS_CLOCK_SEED" in os.environ:
    install(os.environ["FAULTS_CLOCK_SEED"])
