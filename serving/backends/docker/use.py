"""What a container uses: the counters of its control group, by the engine's statistics and the kernel's own files.

CPU, throttling, disk and network come from the engine's statistics, which both versions of control groups fill.
Memory has two meanings. What the limit counts is charged to the group, page cache included. What the processes hold
is that of the backend `process`, so studies on both can be compared: it is read from /proc where the container runs
on this machine's kernel, and stands in for the group's memory less the page cache that can be dropped elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from serving import processes
from serving.backends.container_use import ContainerUse

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def of_statistics(statistics: Mapping[str, Any]) -> ContainerUse:
    """From the engine's answer about one container."""
    cpu, memory = statistics.get("cpu_stats") or {}, statistics.get("memory_stats") or {}
    details, blocks = memory.get("stats") or {}, statistics.get("blkio_stats") or {}
    transfers = blocks.get("io_service_bytes_recursive") or []
    networks = (statistics.get("networks") or {}).values()
    charged = memory.get("usage")
    # version 1 reports both its own and the groups' beneath it
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return ContainerUse(
        cpu_s=_seconds((cpu.get("cpu_usage") or {}).get("total_usage")),
        throttled_s=_seconds((cpu.get("throttling_data") or {}).get("throttled_time")),
        rss_bytes=None if charged is None else max(0, charged - cache),
        swap_bytes=details.get("total_swap", details.get("swap")),
        memory_bytes=charged,
        memory_peak_bytes=memory.get("max_usage"),
        disk_read_bytes=_transferred(transfers, "read"),
        disk_written_bytes=_transferred(transfers, "write"),
        network_received_bytes=_total(networks, "rx_bytes"),
        network_sent_bytes=_total(networks, "tx_bytes"),
        pids=(statistics.get("pids_stats") or {}).get("current"),
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _transferred(transfers: Iterable[Mapping[str, Any]], way: str) -> int:
    """Bytes over all devices; a group that has touched no disk has no entry."""
    return sum(entry["value"] for entry in transfers if str(entry.get("op", "")).lower() == way)


def _total(networks: Iterable[Mapping[str, int]], name: str) -> int | None:
    counts = [network[name] for network in networks if name in network]
    return sum(counts) if counts else None


def with_processes(use: ContainerUse, group: Group | None) -> ContainerUse:
    """With this machine's kernel's figures of the container's processes; unchanged where they run elsewhere."""
    if group is None:
        return use
    members = list(group.members())
    if not members:
        return use
    used = processes.usage(members)
    peak = use.memory_peak_bytes if use.memory_peak_bytes is not None else group.number("memory.peak")
    return replace(
        use,
        rss_bytes=used.rss_bytes,
        rss_peak_bytes=used.rss_peak_bytes,
        threads=used.threads,
        swap_bytes=used.swap_bytes,
        memory_peak_bytes=peak,
    )


@dataclass(frozen=True)
class Group:
    """The control group of a container on this machine: its folders, one, or with version 1 one a controller."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, pid: int, container: str, root: Path = _CGROUPS, proc: Path = _PROC) -> Group | None:
        """That of a container by its id and its first process; None where that runs on another machine's kernel."""
        try:
            lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return None
        if not pid or not any(container in line for line in lines):
            return None
        folders = tuple(folder for line in lines for folder in _folders(root, *line.split(":", 2)[1:]))
        return cls(folders) if folders else None

    def members(self) -> Iterator[psutil.Process]:
        """Every process in it."""
        pids = {int(pid) for text in self._texts("cgroup.procs") for pid in text.split()}
        for pid in pids:
            with suppress(psutil.Error):
                yield psutil.Process(pid)

    def number(self, name: str) -> int | None:
        """The number in one of its files; None where there is none."""
        for text in self._texts(name):
            with suppress(ValueError):
                return int(text)
        return None

    def cpu_s(self) -> float | None:
        """CPU seconds of all that ever ran in it; None where neither version's file is there."""
        if (nanoseconds := self.number("cpuacct.usage")) is not None:
            return nanoseconds / 1e9
        microseconds = self._counts("cpu.stat").get("usage_usec")
        return None if microseconds is None else int(microseconds) / 1e6

    def out_of_memory(self) -> int:
        """How often the kernel has killed one of its processes for the memory limit."""
        for name in ("memory.events", "memory.oom_control"):
            counts = self._counts(name)
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
        return 0

    def _counts(self, name: str) -> dict[str, str]:
        """The lines of its files of that name, a word and a number each."""
        lines = (line for text in self._texts(name) for line in text.splitlines() if " " in line)
        return dict(line.split(maxsplit=1) for line in lines)

    def _texts(self, name: str) -> Iterator[str]:
        for folder in self.folders:
            with suppress(OSError):
                yield (folder / name).read_text()


def _folders(root: Path, controllers: str, path: str) -> Iterator[Path]:
    """Where a line of /proc/PID/cgroup points to."""
    places = [root / controllers] if controllers else [root, root / "unified"]
    for place in places:
        folder = place / path.lstrip("/")
        if folder.is_dir():
            yield folder
