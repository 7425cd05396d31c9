"""What a pod's server uses: its own control group and processes, read by one shell command inside its container.

Both versions of control groups are read as a container sees them, at /sys/fs/cgroup. What a file does not contain, or
what an image without sh and tail cannot be asked, is None. The command itself runs in the container and counts in it:
some milliseconds of CPU time each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.backends.container_use import ContainerUse

_GROUP = "/sys/fs/cgroup"
_FILES = (
    # version 2
    *("cpu.stat", "memory.current", "memory.peak", "memory.stat", "memory.swap.current", "io.stat", "pids.current"),
    # version 1, a folder a controller
    *("cpuacct/cpuacct.usage", "cpu/cpu.stat", "memory/memory.usage_in_bytes", "memory/memory.max_usage_in_bytes"),
    *("memory/memory.stat", "pids/pids.current", "blkio/blkio.throttle.io_service_bytes_recursive"),
    *("blkio/blkio.throttle.io_service_bytes",),
)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_OTHERS = ("/proc/net/dev", _BOOT_ID)
_END = "==> end <=="
COMMAND = (
    "sh",
    "-c",
    f"echo $$; tail -n +1 {' '.join(f'{_GROUP}/{file}' for file in _FILES)} {' '.join(_OTHERS)} "
    f"/proc/[0-9]*/status 2>/dev/null; echo; echo '{_END}'",
)
"""One program prints every file under its name: `==> NAME <==`; those that are not there it leaves out.

A stream can break off without a word, in the middle of a number: hence the last line.
"""
_KIB = 1024


@dataclass(frozen=True)
class Look:
    """What one look into a container found."""

    use: ContainerUse
    here: bool
    """Whether the container runs on this machine's own kernel."""


def look_of(text: str, boot_id: Path = Path(_BOOT_ID)) -> Look | None:
    """What the command printed, see `COMMAND`; None where not all of it came."""
    if not text.rstrip().endswith(_END):
        return None
    files, processes = _parts(text)
    here = None
    with suppress(OSError):
        here = boot_id.read_text().strip()
    return Look(_use(files, processes), here is not None and files.get(_BOOT_ID, "").strip() == here)


def _parts(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Files by their names, and the processes' states without the command's own."""
    own, _, rest = text.partition("\n")
    named = re.split(r"^==> (.*) <==\n", rest, flags=re.MULTILINE)[1:]
    files = {name.removeprefix(f"{_GROUP}/"): content for name, content in zip(named[::2], named[1::2], strict=True)}
    states = [_fields(content) for name, content in files.items() if name.endswith("/status")]
    return files, [one for one in states if own.strip() not in (one.get("Pid"), one.get("PPid"))]


def _fields(content: str) -> dict[str, str]:
    """`Name:<tab>value` by line; the unit kB is left out."""
    pairs = (line.split(":", 1) for line in content.splitlines() if ":" in line)
    return {name: value.strip().removesuffix(" kB") for name, value in pairs}


def _use(files: Mapping[str, str], processes: list[dict[str, str]]) -> ContainerUse:
    cpu_s, throttled_s = _cpu(files)
    read_bytes, written_bytes = _disk(files)
    received_bytes, sent_bytes = _network(files.get("/proc/net/dev", ""))
    memory = _pairs(files.get("memory.stat") or files.get("memory/memory.stat") or "")
    return ContainerUse(
        cpu_s=cpu_s,
        throttled_s=throttled_s,
        rss_bytes=_kib(processes, "VmRSS"),
        rss_peak_bytes=_kib(processes, "VmHWM"),
        threads=_sum(processes, "Threads"),
        swap_bytes=_first(_number(files, "memory.swap.current"), memory.get("total_swap"), memory.get("swap")),
        memory_bytes=_number(files, "memory.current", "memory/memory.usage_in_bytes"),
        memory_peak_bytes=_number(files, "memory.peak", "memory/memory.max_usage_in_bytes"),
        disk_read_bytes=read_bytes,
        disk_written_bytes=written_bytes,
        network_received_bytes=received_bytes,
        network_sent_bytes=sent_bytes,
        pids=_number(files, "pids.current", "pids/pids.current"),
    )


def _cpu(files: Mapping[str, str]) -> tuple[float | None, float | None]:
    """CPU time and time held back by the quota, in seconds."""
    version_2 = _pairs(files.get("cpu.stat", ""))
    if "usage_usec" in version_2:
        held_back = version_2.get("throttled_usec")
        return version_2["usage_usec"] / 1e6, None if held_back is None else held_back / 1e6
    used_ns = _number(files, "cpuacct/cpuacct.usage")
    held_back_ns = _pairs(files.get("cpu/cpu.stat", "")).get("throttled_time")
    return None if used_ns is None else used_ns / 1e9, None if held_back_ns is None else held_back_ns / 1e9


def _disk(files: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Bytes read and written, over all devices."""
    if "io.stat" in files:
        pairs = [word.partition("=") for word in files["io.stat"].split()]
        totals = [sum(int(value) for name, _, value in pairs if name == wanted) for wanted in ("rbytes", "wbytes")]
        return totals[0], totals[1]
    for name in ("blkio/blkio.throttle.io_service_bytes_recursive", "blkio/blkio.throttle.io_service_bytes"):
        lines = [line.split() for line in files.get(name, "").splitlines()]
        if name in files:
            ways = [sum(int(one[2]) for one in lines if len(one) == 3 and one[1] == way) for way in ("Read", "Write")]
            return ways[0], ways[1]
    return None, None


def _network(table: str) -> tuple[int | None, int | None]:
    """Bytes received and sent by every interface but the loopback; a pod has its own."""
    rows = [line.split(":", 1) for line in table.splitlines() if ":" in line]
    counts = [numbers.split() for name, numbers in rows if name.strip() != "lo"]
    if not counts:
        return None, None
    return sum(int(one[0]) for one in counts), sum(int(one[8]) for one in counts)


def _pairs(content: str) -> dict[str, int]:
    """`name number` by line."""
    return dict(_whole(content))


def _whole(content: str) -> Iterator[tuple[str, int]]:
    for line in content.splitlines():
        name, _, number = line.partition(" ")
        with suppress(ValueError):
            yield name, int(number)


def _number(files: Mapping[str, str], *names: str) -> int | None:
    """The text of the first of the files that exists."""
    for name in names:
        with suppress(ValueError, KeyError):
            return int(files[name])
    return None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _sum(processes: list[dict[str, str]], field: str) -> int | None:
    values = [int(one[field]) for one in processes if one.get(field, "").isdigit()]
    return sum(values) if values else None


def _kib(processes: list[dict[str, str]], field: str) -> int | None:
    total = _sum(processes, field)
    return None if total is None else total * _KIB
