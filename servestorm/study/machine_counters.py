"""What the machine did while a load ran: all of the kernel's counters before and after it, CPU times once a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from servestorm.rundir.machine_table import MachineSecond
from servestorm.study.cores import Cores
from servestorm.study.gpu_counters import Gpu, GpuChange, gpus, used
from servestorm.study.machine_seconds import CpuTimes, by_second, grown, minus
from servestorm.study.own_processes import OwnProcesses
from serving import processes

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CLOCKSOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
EVERY_S: Final = 1.0
"""Seconds between two readings of the CPU times."""
LOOK_S: Final = 3.0
"""How long a study looks at the machine before it begins."""


@dataclass(frozen=True)
class Counters:
    """The kernel's counters at one moment; None is what it does not report."""

    monotonic_ns: int
    wall_ns: int
    busy_s: Mapping[int, float] | None
    """User and system time of each core."""
    steal_s: Mapping[int, float] | None
    """Time that the hypervisor gave others while a core wanted to run."""
    ours_s: float | None
    """CPU time of this process and of everything it started: servers, generator, scraper; containers too."""
    swapped_pages: int | None
    throttled_s: float | None
    """Of our own control group."""
    gpus: tuple[Gpu, ...] | None = None
    interrupts_s: Mapping[int, float] | None = None
    """The part of each core's busy time in which it served interrupts: no program's, and mostly the load's own."""

    @classmethod
    def now(cls, proc: Path = Path("/proc"), elsewhere_s: float | None = 0.0) -> Counters:
        """Read them now; `elsewhere_s` is CPU time of ours outside this process and its descendants."""
        busy_s, steal_s, interrupts_s = _cores(proc)
        wall_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        return cls(
            monotonic_ns=monotonic_ns,
            wall_ns=wall_ns,
            busy_s=busy_s,
            steal_s=steal_s,
            ours_s=_plus(_ours_s(), elsewhere_s),
            swapped_pages=_swapped(proc),
            throttled_s=processes.throttled_s(os.getpid()),
            gpus=gpus(),
            interrupts_s=interrupts_s,
        )


@dataclass(frozen=True)
class Memory:
    """The machine's memory at one moment, bytes; None is what is unknown."""

    total_bytes: int | None
    available_bytes: int | None
    swap_used_bytes: int | None


CpuMeter = Callable[[float | None], CpuTimes]
"""Reads the CPU times now; it is given the CPU time of ours outside this process and its descendants."""


class MachineReader(Protocol):
    """Where a study learns what the machine does; tests put made-up machines here."""

    look_s: float
    """How long a study looks at the machine before it begins."""

    def counters(self, elsewhere_s: float | None) -> Counters:
        """All counters now; `elsewhere_s` is CPU time of ours outside this process and its descendants."""

    def cpu_meter(self) -> CpuMeter:
        """A meter for one load: it remembers which processes are ours."""

    def memory(self) -> Memory:
        """The memory now."""


class KernelReader:
    """This machine's kernel."""

    look_s = LOOK_S

    def counters(self, elsewhere_s: float | None) -> Counters:
        """See MachineReader."""
        return Counters.now(elsewhere_s=elsewhere_s)

    def cpu_meter(self) -> CpuMeter:
        """See MachineReader."""
        processes = OwnProcesses()

        def read(elsewhere_s: float | None) -> CpuTimes:
            busy_s, steal_s, interrupts_s = _cores(Path("/proc"))
            ours_s = _plus(processes.cpu_s(), elsewhere_s)
            return CpuTimes(time.monotonic_ns(), busy_s, steal_s, ours_s, interrupts_s)

        return read

    def memory(self) -> Memory:
        """See MachineReader."""
        return memory()


KERNEL: Final = KernelReader()


def memory(proc: Path = Path("/proc")) -> Memory:
    """The machine's memory and swap now."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        sizes = {name: 1024 * int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
        return Memory(sizes["MemTotal"], sizes["MemAvailable"], sizes["SwapTotal"] - sizes["SwapFree"])
    except (OSError, ValueError, KeyError, IndexError):
        return Memory(None, None, None)


Seconds = dict[int, float] | None
"""Of each core; None where the kernel does not report them."""


def _cores(proc: Path) -> tuple[Seconds, Seconds, Seconds]:
    """Busy and stolen seconds of each core since the machine started, and the busy ones that served interrupts."""
    busy, steal, interrupts = {}, {}, {}
    try:
        for line in (proc / "stat").read_text().splitlines():
            if not line.startswith("cpu"):
                break  # interrupts, of which there may be thousands
            name, *numbers = line.split()
            if name != "cpu":
                # user nice system idle iowait irq softirq steal; guests are in user already
                user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, numbers)
                core = int(name.removeprefix("cpu"))
                busy[core] = (user + nice + system + irq + softirq) / _TICKS
                steal[core] = stolen / _TICKS
                interrupts[core] = (irq + softirq) / _TICKS
    except (OSError, ValueError):
        return None, None, None
    return busy or None, steal or None, interrupts or None


def _ours_s() -> float | None:
    try:
        me = psutil.Process()
        return processes.usage([me, *me.children(recursive=True)]).cpu_s
    except psutil.Error:
        return None


def _swapped(proc: Path) -> int | None:
    try:
        pairs = dict(line.split() for line in (proc / "vmstat").read_text().splitlines())
        return int(pairs["pswpin"]) + int(pairs["pswpout"])
    except (OSError, ValueError, KeyError):
        return None


@dataclass(frozen=True)
class MachineChange:
    """What the machine did between two moments, for use.json; None is what the kernel does not report."""

    elapsed_s: float
    wall_drift_ms: float
    """How far the wall clock left the monotonic one."""
    clocksource: str | None
    cores: tuple[int, ...]
    """Of the engine and of the generator."""
    ours_s: float | None
    """CPU time of the study, its servers and its generator."""
    other_s: float | None
    """CPU time on these cores beyond what is ours and what served interrupts; never negative."""
    steal_s: float | None
    """Time that the hypervisor took from these cores."""
    swapped_pages: int | None
    throttled_s: float | None
    """Of our own control group."""
    gpus: tuple[GpuChange, ...] | None


class MachineWatch:
    """Looks at the machine now, once a second until `stop`, and then again.

    `cores` are those of the engine and of the generator. `elsewhere_s` reads the CPU time of servers that do not
    descend from this process; where that costs time of its own (`elsewhere_each_s` is false) it is read now and at
    `stop` alone, and nothing is known of other programs second by second.
    """

    def __init__(
        self,
        cores: Iterable[int],
        elsewhere_s: Callable[[], float | None] = lambda: 0.0,
        machine: MachineReader = KERNEL,
        elsewhere_each_s: bool = False,
    ) -> None:
        self._cores = sorted(set(cores))
        self._elsewhere_s, self._machine = elsewhere_s, machine
        self._elsewhere_each_s = elsewhere_s if elsewhere_each_s else lambda: None
        self._meter = machine.cpu_meter()
        self._begin = machine.counters(elsewhere_s())
        self._readings = [self._meter(self._elsewhere_each_s())]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="machine", daemon=True)
        self._thread.start()

    def stop(self) -> MachineChange:
        """What happened since; call it when the generator has ended and the servers still run."""
        self.close()
        last = self._meter(self._elsewhere_each_s())
        if len(self._readings) > 1 and last.monotonic_ns - self._readings[-1].monotonic_ns < EVERY_S / 2 * 1e9:
            self._readings.pop()  # in a few milliseconds the kernel's ticks show nothing
        self._readings.append(last)
        end = self._machine.counters(self._elsewhere_s())
        return difference(self._begin, end, self._cores, clocksource())

    def close(self) -> None:
        """Read no more; harmless after `stop`."""
        self._stopped.set()
        self._thread.join()

    def by_second(self, cores: Cores) -> list[MachineSecond]:
        """What happened in each second until `stop`."""
        return by_second(self._readings, cores)

    def _read_on(self) -> None:
        due_s = time.monotonic() + EVERY_S
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            self._readings.append(self._meter(self._elsewhere_each_s()))
            due_s = max(due_s, time.monotonic() - EVERY_S) + EVERY_S


def clocksource(path: Path = _CLOCKSOURCE) -> str | None:
    """The kernel's clock source; None where it does not report one."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def difference(begin: Counters, end: Counters, cores: Sequence[int], clock: str | None) -> MachineChange:
    """What happened between two moments on these cores."""
    elapsed_ns = end.monotonic_ns - begin.monotonic_ns
    busy_s, interrupts_s = grown(begin.busy_s, end.busy_s, cores), grown(begin.interrupts_s, end.interrupts_s, cores)
    ours_s = minus(end.ours_s, begin.ours_s)
    other_s = None if busy_s is None or ours_s is None else max(0.0, busy_s - (interrupts_s or 0.0) - ours_s)
    swapped = None
    if begin.swapped_pages is not None and end.swapped_pages is not None:
        swapped = end.swapped_pages - begin.swapped_pages
    return MachineChange(
        elapsed_s=elapsed_ns / 1e9,
        wall_drift_ms=(end.wall_ns - begin.wall_ns - elapsed_ns) / 1e6,
        clocksource=clock,
        cores=tuple(cores),
        ours_s=ours_s,
        other_s=other_s,
        steal_s=grown(begin.steal_s, end.steal_s, cores),
        swapped_pages=swapped,
        throttled_s=minus(end.throttled_s, begin.throttled_s),
        gpus=used(begin.gpus, end.gpus),
    )


def _plus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
