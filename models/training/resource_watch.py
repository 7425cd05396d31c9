"""CPU, memory and disk of a training over time, from the kernel's counters of its processes."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import psutil

from models.training.record import ResourceUse, UseSample

EVERY_S = 1.0
MOST_SAMPLES = 1200
"""Beyond it every second sample goes, and the interval doubles: a night has no more than a quarter of an hour."""


class _Counters(NamedTuple):
    """The kernel's, of processes and their threads."""

    t_s: float
    cpu_s: float
    read_ops: int
    read_bytes: int
    write_ops: int
    write_bytes: int

    def plus(self, more: _Counters) -> _Counters:
        """All of both."""
        return _Counters(
            self.t_s + more.t_s,
            self.cpu_s + more.cpu_s,
            self.read_ops + more.read_ops,
            self.read_bytes + more.read_bytes,
            self.write_ops + more.write_ops,
            self.write_bytes + more.write_bytes,
        )

    def minus(self, less: _Counters) -> _Counters:
        """What was counted since."""
        return _Counters(
            self.t_s - less.t_s,
            self.cpu_s - less.cpu_s,
            self.read_ops - less.read_ops,
            self.read_bytes - less.read_bytes,
            self.write_ops - less.write_ops,
            self.write_bytes - less.write_bytes,
        )


_NOTHING: Final = _Counters(0.0, 0.0, 0, 0, 0, 0)


class ResourceWatch:
    """Samples once a second while it runs, from `with` to its end; `use` is complete after that.

    It counts this process and the `helpers`, whose process IDs are given; they live as long as it samples. What happens
    outside `running` counts neither as time nor as use: a training may wait for its turn.
    """

    def __init__(self, every_s: float = EVERY_S, helpers: Sequence[int] = ()) -> None:
        self.every_s = every_s
        self._processes = [psutil.Process(), *map(psutil.Process, helpers)]
        self._peaks = [0] * len(self._processes)
        self._last: dict[int, _Counters] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_end, name="resource-watch", daemon=True)
        self._lock = threading.Lock()
        self._samples: list[UseSample] = []
        self._before, self._resumed_at = _NOTHING, None

    _before: _Counters
    """Of all times in which it ran, but for the present one."""
    _resumed_at: _Counters | None
    """When it began to run; None while it does not."""

    def __enter__(self) -> ResourceWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._peaks = [_peak_bytes(process.pid) for process in self._processes]

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens meanwhile is of the training."""
        with self._lock:
            self._resumed_at = self._counters()
        try:
            yield
        finally:
            with self._lock:
                self._samples.append(self._now())
                self._before, self._resumed_at = self._used(), None

    @property
    def use(self) -> ResourceUse:
        """What was sampled so far."""
        return ResourceUse(
            cores=len(os.sched_getaffinity(0)), rss_peak_bytes=sum(self._peaks), samples=list(self._samples)
        )

    def _sample_until_end(self) -> None:
        while not self._ended.wait(self.every_s):
            with self._lock:
                if self._resumed_at is None:
                    continue
                self._samples.append(self._now())
                if len(self._samples) >= MOST_SAMPLES:
                    self._samples = self._samples[1::2]
                    self.every_s *= 2

    def _now(self) -> UseSample:
        rss_bytes = sum(map(_rss_bytes, self._processes))
        return UseSample(**self._used()._asdict(), rss_bytes=rss_bytes)

    def _used(self) -> _Counters:
        """Since it first ran, while it ran."""
        assert self._resumed_at is not None
        now = self._counters()
        return self._before.plus(now.minus(self._resumed_at))

    def _counters(self) -> _Counters:
        every = (self._counters_of(process) for process in self._processes)
        return functools.reduce(_Counters.plus, every, _NOTHING)._replace(t_s=time.monotonic())

    def _counters_of(self, process: psutil.Process) -> _Counters:
        """As they were last, of a helper that was killed."""
        with suppress(psutil.Error):
            self._last[process.pid] = _counters(process)
        return self._last.get(process.pid, _NOTHING)


def cpu_s(processes: Sequence[int]) -> float:
    """CPU time of this process and of others, all threads of each."""
    return time.process_time() + sum(_cpu_s(psutil.Process(pid)) for pid in processes)


def _counters(process: psutil.Process) -> _Counters:
    io = process.io_counters()
    return _Counters(0.0, _cpu_s(process), io.read_count, io.read_bytes, io.write_count, io.write_bytes)


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it was killed
        return 0


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    """Largest resident memory so far; 0 of a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
