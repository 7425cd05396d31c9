"""What the machine did while a load ran: the kernel's counters before and after it, which costs nothing meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from servestorm.study.gpu_counters import Gpu, GpuChange, gpus, used
from serving import processes

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CLOCKSOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


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

    @classmethod
    def now(cls, proc: Path = Path("/proc"), elsewhere_s: float | None = 0.0) -> Counters:
        """Read them now; `elsewhere_s` is CPU time of ours outside this process and its descendants."""
        busy_s, steal_s = _cores(proc)
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
        )


def _cores(proc: Path) -> tuple[dict[int, float] | None, dict[int, float] | None]:
    """Busy and stolen seconds of each core since the machine started."""
    busy, steal = {}, {}
    try:
        for line in (proc / "stat").read_text().splitlines():
            name, *numbers = line.split()
            if name.startswith("cpu") and name != "cpu":
                # user nice system idle iowait irq softirq steal; guests are in user already
                user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, numbers)
                core = int(name.removeprefix("cpu"))
                busy[core] = (user + nice + system + irq + softirq) / _TICKS
                steal[core] = stolen / _TICKS
    except (OSError, ValueError):
        return None, None
    return busy or None, steal or None


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
    """CPU time on these cores beyond what is ours; never negative."""
    steal_s: float | None
    """Time that the hypervisor took from these cores."""
    swapped_pages: int | None
    throttled_s: float | None
    """Of our own control group."""
    gpus: tuple[GpuChange, ...] | None


class MachineWatch:
    """Looks at the machine now, and again at `stop`. `cores` are those of the engine and of the generator.

    `elsewhere_s` reads the CPU time of servers that do not descend from this process.
    """

    def __init__(self, cores: Iterable[int], elsewhere_s: Callable[[], float | None] = lambda: 0.0) -> None:
        self._cores = sorted(set(cores))
        self._elsewhere_s = elsewhere_s
        self._begin = Counters.now(elsewhere_s=elsewhere_s())

    def stop(self) -> MachineChange:
        """What happened since; call it when the generator has ended and the servers still run."""
        return difference(self._begin, Counters.now(elsewhere_s=self._elsewhere_s()), self._cores, clocksource())


def clocksource(path: Path = _CLOCKSOURCE) -> str | None:
    """The kernel's clock source; None where it does not report one."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def difference(begin: Counters, end: Counters, cores: Sequence[int], clock: str | None) -> MachineChange:
    """What happened between two moments on these cores."""
    elapsed_ns = end.monotonic_ns - begin.monotonic_ns
    busy_s = _grown(begin.busy_s, end.busy_s, cores)
    ours_s = _minus(end.ours_s, begin.ours_s)
    other_s = None if busy_s is None or ours_s is None else max(0.0, busy_s - ours_s)
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
        steal_s=_grown(begin.steal_s, end.steal_s, cores),
        swapped_pages=swapped,
        throttled_s=_minus(end.throttled_s, begin.throttled_s),
        gpus=used(begin.gpus, end.gpus),
    )


def _grown(begin: Mapping[int, float] | None, end: Mapping[int, float] | None, cores: Sequence[int]) -> float | None:
    if begin is None or end is None or any(core not in begin or core not in end for core in cores):
        return None
    return sum(end[core] - begin[core] for core in cores)


def _plus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _minus(end: float | None, begin: float | None) -> float | None:
    return None if end is None or begin is None else end - begin
