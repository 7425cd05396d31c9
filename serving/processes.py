"""Processes by the tag in their environment: finding, measuring and ending them (Linux, /proc)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

KILL_TIMEOUT_S = 5.0
_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used."""

    cpu_s: float
    """User and system time of the living, and of the children that they have waited for."""
    rss_bytes: int
    rss_peak_bytes: int
    """Sum of the kernel's high-water marks."""


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
    for item in (_PROC / pid / "environ").read_bytes().split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("utf-8", "replace")
    return None


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
    found: dict[int, psutil.Process] = {}
    if leader is not None:
        with suppress(psutil.Error):
            found = {p.pid: p for p in [leader, *leader.children(recursive=True)]}
    for pid, tag in tagged(variable):
        if tag == value and pid not in found and (process := identify(pid, variable, value)):
            found[pid] = process
    return list(found.values())


def usage(members: Iterable[psutil.Process]) -> Usage:
    """What the living of `members` use and have used."""
    cpu_s, rss, peak = 0.0, 0, 0
    for process in members:
        with suppress(psutil.Error, OSError):
            with process.oneshot():
                times, resident = process.cpu_times(), process.memory_info().rss
            cpu_s += times.user + times.system + times.children_user + times.children_system
            rss += resident
            peak += max(resident, _high_water_bytes(process.pid))
    return Usage(cpu_s, rss, peak)


def _high_water_bytes(pid: int) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


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
