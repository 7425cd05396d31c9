"""CPU time of this process and of everything that it started, cheap enough to be read once a second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class OwnProcesses:
    """This process and its descendants. A process is looked at once to learn whose child it is, and then remembered.

    psutil reads every process of the machine each time it is asked for children, which takes milliseconds.
    """

    def __init__(self, proc: Path = Path("/proc"), root: int | None = None) -> None:
        self._proc = str(proc)
        self._own = {os.getpid() if root is None else root}
        self._others: set[int] = set()

    def cpu_s(self) -> float | None:
        """User and system time of the living, and of the children that they have waited for; None where unreadable."""
        try:
            self._update()
        except OSError:
            return None
        times = [ticks for pid in self._own if (ticks := self._cpu_ticks(pid)) is not None]
        return sum(times) / _TICKS if times else None

    def _update(self) -> None:
        """Sort the processes that are new into ours and others."""
        with os.scandir(self._proc) as entries:
            running = {int(entry.name) for entry in entries if entry.name.isdecimal()}
        self._own &= running
        self._others &= running
        parents = {
            pid: parent for pid in running - self._own - self._others if (parent := self._parent(pid)) is not None
        }
        while born := {pid for pid, parent in parents.items() if parent in self._own} - self._own:
            self._own |= born
        self._others |= parents.keys() - self._own

    def _parent(self, pid: int) -> int | None:
        stat = self._stat(pid)
        return int(stat[1]) if stat else None

    def _cpu_ticks(self, pid: int) -> int | None:
        stat = self._stat(pid)
        return sum(map(int, stat[11:15])) if stat else None  # utime stime cutime cstime

    def _stat(self, pid: int) -> list[bytes] | None:
        """The fields of /proc/PID/stat after the name, which may hold anything; None of a process that has gone."""
        try:
            with open(f"{self._proc}/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs as much)
                return file.read(1024).rpartition(b")")[2].split()
        except OSError:
            return None
