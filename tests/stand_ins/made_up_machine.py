"""A machine whose readings are made up, so that no test depends on how quiet the real one is."""

from __future__ import annotations

import threading

from servestorm.study.machine_counters import Counters, Memory
from servestorm.study.machine_seconds import CpuTimes

CORES = range(1024)
Shares = tuple[float, float]
"""Of every core: used by other programs, and taken by the hypervisor."""
QUIET: Shares = (0.0, 0.0)
GIB = 2**30


class MadeUpMachine:
    """Gives each watch, such as that of a load or of a timed start, its shares in turn; the last ones go on for ever.

    Every reading is a second after the one before. Nothing of what the study itself uses is seen. `look` is what the
    study sees before it begins, by default what the first watch does.
    """

    look_s = 0.0

    def __init__(self, *watches: Shares, look: Shares | None = None) -> None:
        self._watches = watches or (QUIET,)
        self._look = look or self._watches[0]
        self._readings = 0
        self.metered = threading.Semaphore(0)
        """Released at each reading of the CPU times."""

    @classmethod
    def parsed(cls, text: str) -> MadeUpMachine:
        """Of 'OTHER,STEAL OTHER,STEAL ...', a pair a watch; quiet where the text is empty."""
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split()]
        return cls(*pairs)

    def counters(self, elsewhere_s):
        """A second after the last reading: the first of a watch adds nothing, the second one its shares."""
        watch, ends = divmod(self._readings, 2)
        self._readings += 1
        other, steal = self._shares(watch) if ends else QUIET
        busy_s, steal_s = dict.fromkeys(CORES, other), dict.fromkeys(CORES, steal)
        now_ns = self._readings * 10**9
        return Counters(now_ns, now_ns, busy_s, steal_s, elsewhere_s, 0, 0.0)

    def cpu_meter(self):
        """A meter of the watch that comes next, or of the look."""
        other, steal = self._shares(self._readings // 2) if self._looked else self._look
        self._looked = True
        seconds = iter(range(10**6))

        def read(elsewhere_s):
            s = next(seconds)
            self.metered.release()
            busy_s, steal_s = dict.fromkeys(CORES, s * other), dict.fromkeys(CORES, s * steal)
            return CpuTimes(s * 10**9, busy_s, steal_s, elsewhere_s)

        return read

    _looked = False

    def _shares(self, watch):
        return self._watches[min(watch, len(self._watches) - 1)]

    def memory(self):
        """Of a machine of 8 GiB with 6 to spare."""
        return Memory(8 * GIB, 6 * GIB, 0)
