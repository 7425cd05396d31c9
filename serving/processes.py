"""Processes by the tag in their environment: finding, measuring and ending them (Linux, /proc)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

KILL_TIMEOUT_S = 5.0
_STARTING_S = 0.1
"""Longest wait for the environment of a process that has just been started."""
_PROC = Path("/proc")
_CPUCLOCK_SCHED = 2
"""Of a process's clock id: see clock_getcpuclockid(3)."""


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used."""

    cpu_s: float
    """User and system time of the living, and of the children that they have waited for."""
    rss_bytes: int
    rss_peak_bytes: int
    """Sum of the kernel's high-water marks."""
    disk_read_bytes: int = 0
    """From the disk itself, not from the page cache, children that were waited for included."""
    disk_written_bytes: int = 0
    threads: int = 0
    swap_bytes: int = 0


def start_ticks(pid: int) -> int | None:
    """Start of a living process in clock ticks since boot; None for a dead one or a zombie."""
    try:
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def ancestors(pid: int) -> list[int]:
    """`pid`, its parent, and so on up."""
    try:
        return [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.Error:
        return [pid]


def tagged(variable: str) -> Iterator[tuple[int, str]]:
    """Pid and value of every process of this user, in this process namespace, started with `variable` set."""
    user, namespace = os.getuid(), _namespace("self")
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if not entry.name.isdecimal():
                continue
            with suppress(OSError):  # it may end at any moment
                if entry.stat().st_uid != user:
                    continue
                value = _variable(entry.name, variable)
                if value is not None and _namespace(entry.name) == namespace:
                    yield int(entry.name), value


def _variable(pid: str, variable: str) -> str | None:
    prefix = variable.encode() + b"="
    for item in _environment(pid).split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("utf-8", "replace")
    return None


def _environment(pid: str) -> bytes:
    """The variables with which a process was started, each ended by a NUL.

    subprocess.Popen returns as soon as the new program has taken the place of the copied process; its environment can
    be read only 0.2 ms later (Linux 6.18). It is waited for in children of this process, which may be in that moment.
    """
    file, ends_s = _PROC / pid / "environ", time.monotonic() + _STARTING_S
    while not (content := file.read_bytes()) and _is_own_child(pid) and time.monotonic() < ends_s:
        time.sleep(0.0005)
    return content


def _is_own_child(pid: str) -> bool:
    """Whether this process started it, and it has not ended."""
    state, parent, *_ = (_PROC / pid / "stat").read_text().rpartition(")")[2].split()
    return state not in "ZX" and int(parent) == os.getpid()


def _namespace(pid: str) -> str:
    return str((_PROC / pid / "ns" / "pid").readlink())


def identify(pid: int, variable: str, value: str) -> psutil.Process | None:
    """A handle that stays with this very process, where it still carries the tag: pids are used again."""
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if _variable(str(pid), variable) == value:
            return process
    return None


def family(leader: psutil.Process | None, variable: str, value: str) -> list[psutil.Process]:
    """A leader, its descendants, and everything that carries the tag: a daemonised child keeps only that."""
    processes: dict[int, psutil.Process] = {}
    if leader is not None:
        with suppress(psutil.Error):
            processes = {p.pid: p for p in [leader, *leader.children(recursive=True)]}
    for pid, tag in tagged(variable):
        if tag == value and pid not in processes and (process := identify(pid, variable, value)):
            processes[pid] = process
    return list(processes.values())


def usage(members: Iterable[psutil.Process]) -> Usage:
    """What the living of `members` use and have used."""
    total = Usage(0.0, 0, 0)
    for process in members:
        with suppress(psutil.Error, OSError):
            total = _sum(total, _usage_of(process))
    return total


def _usage_of(process: psutil.Process) -> Usage:
    with process.oneshot():
        times, resident = process.cpu_times(), process.memory_info().rss
    own_s = _cpu_clock_s(process.pid)
    status = _fields(process.pid, "status")
    read, written = _disk(process.pid)
    return Usage(
        cpu_s=(times.user + times.system if own_s is None else own_s) + times.children_user + times.children_system,
        rss_bytes=resident,
        rss_peak_bytes=max(resident, _kib(status, "VmHWM")),
        disk_read_bytes=read,
        disk_written_bytes=written,
        threads=int(status.get("Threads", "0")),
        swap_bytes=_kib(status, "VmSwap"),
    )


def _cpu_clock_s(pid: int) -> float | None:
    """The CPU time of a process by its own clock, threads that have ended included; None where it has none.

    It counts nanoseconds, while /proc/PID/stat counts ticks of 10 ms, which are too coarse for a few seconds of load.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9
    except OSError:
        return None


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(*(getattr(a, field.name) + getattr(b, field.name) for field in fields(Usage)))


def _disk(pid: int) -> tuple[int, int]:
    """Bytes read from and written to the disk: /proc/PID/io adds those of children that were waited for."""
    try:
        io = _fields(pid, "io")
    except OSError:  # it became another user's
        return 0, 0
    return int(io.get("read_bytes", "0")), int(io.get("write_bytes", "0"))


def _fields(pid: int, name: str) -> dict[str, str]:
    """The `name: value` lines of a file of a process."""
    lines = (_PROC / str(pid) / name).read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _kib(status: dict[str, str], key: str) -> int:
    return int(status.get(key, "0").split()[0]) * 1024


def throttled_s(pid: int, root: Path = Path("/sys/fs/cgroup"), proc: Path = _PROC) -> float | None:
    """Seconds for which a process's control groups were kept off the CPU by their quota since they exist.

    The most of its group and the groups above it; None where it is unknown. Versions 1 and 2 of cgroups.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    throttled = [seconds for line in lines for seconds in _throttled(root, *line.split(":", 2)[1:])]
    return max(throttled, default=None)


def _throttled(root: Path, controllers: str, path: str) -> Iterator[float]:
    names = controllers.split(",")
    if controllers and "cpu" not in names:
        return
    places = [root / "cpu", root / controllers] if controllers else [root, root / "unified"]
    for place in places:
        group = place / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                yield from _throttled_in(folder / "cpu.stat")
            if folder == place:
                break


def _throttled_in(stat: Path) -> Iterator[float]:
    values = dict(line.split() for line in stat.read_text().splitlines())
    if "throttled_usec" in values:
        yield int(values["throttled_usec"]) / 1e6
    elif "throttled_time" in values:  # version 1 counts nanoseconds
        yield int(values["throttled_time"]) / 1e9


def kill(members: Iterable[psutil.Process], timeout_s: float = KILL_TIMEOUT_S) -> None:
    """SIGKILL, and wait until each is gone or a zombie that only its own parent can bury."""
    members = list(members)
    for process in members:
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + timeout_s
    while any(_runs(process) for process in members) and time.monotonic() < deadline:
        time.sleep(0.002)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
