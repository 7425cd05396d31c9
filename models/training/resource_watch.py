"""CPU, memory and disk of a training over time, from the kernel's counters of this process."""

from __future__ import annotations

import os
import resource
import threading
import time
from types import TracebackType

import psutil

from models.training.record import ResourceUse, UseSample

EVERY_S = 1.0
MOST_SAMPLES = 1200
"""Beyond it every second sample goes, and the interval doubles: a night has no more than a quarter of an hour."""


class ResourceWatch:
    """Samples once a second from `with` to its end; `use` is complete after that."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_end, name="resource-watch", daemon=True)
        self._samples: list[UseSample] = []

    def __enter__(self) -> ResourceWatch:
        self._begin_s, self._cpu_s, self._io = time.monotonic(), self._cpu(), self._process.io_counters()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._samples.append(self._now())

    @property
    def use(self) -> ResourceUse:
        """What was sampled so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return ResourceUse(cores=len(os.sched_getaffinity(0)), rss_peak_bytes=peak, samples=list(self._samples))

    def _sample_until_end(self) -> None:
        while not self._ended.wait(self.every_s):
            self._samples.append(self._now())
            if len(self._samples) >= MOST_SAMPLES:
                self._samples = self._samples[1::2]
                self.every_s *= 2

    def _now(self) -> UseSample:
        io = self._process.io_counters()
        return UseSample(
            t_s=time.monotonic() - self._begin_s,
            cpu_s=self._cpu() - self._cpu_s,
            rss_bytes=self._process.memory_info().rss,
            read_ops=io.read_count - self._io.read_count,
            read_bytes=io.read_bytes - self._io.read_bytes,
            write_ops=io.write_count - self._io.write_count,
            write_bytes=io.write_bytes - self._io.write_bytes,
        )

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
