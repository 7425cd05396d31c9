"""What containers use, whoever counts it: of one, of several, and as the use of a deployment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from serving.deployment import Use


@dataclass(frozen=True)
class ContainerUse:
    """Since the container started; None is what is not reported."""

    cpu_s: float | None = None
    throttled_s: float | None = None
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    threads: int | None = None
    swap_bytes: int | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_written_bytes: int | None = None
    network_received_bytes: int | None = None
    network_sent_bytes: int | None = None
    pids: int | None = None

    def spent(self) -> ContainerUse:
        """What outlives the container: what it had of a moment is gone with it."""
        return replace(
            self, rss_bytes=None, threads=None, swap_bytes=None, memory_bytes=None, pids=None, throttled_s=None
        )


def total(uses: Iterable[ContainerUse]) -> ContainerUse:
    """The sum over containers, None where none reports it; of throttling, which passes side by side, the mean."""
    uses = list(uses)
    summed = {field.name: _sum([getattr(use, field.name) for use in uses]) for field in fields(ContainerUse)}
    held_back = [use.throttled_s for use in uses if use.throttled_s is not None]
    summed["throttled_s"] = sum(held_back) / len(held_back) if held_back else None
    return ContainerUse(**summed)


def _sum(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def use_of(here: ContainerUse, ever: ContainerUse, alive: bool, disk_bytes: int | None) -> Use:
    """The use of a deployment: `here` of the containers that run now, `ever` of all that did."""
    return Use(
        cpu_s=ever.cpu_s,
        rss_bytes=here.rss_bytes if alive else None,
        rss_peak_bytes=here.rss_peak_bytes,
        disk_bytes=disk_bytes,
        disk_read_bytes=ever.disk_read_bytes,
        disk_written_bytes=ever.disk_written_bytes,
        threads=here.threads if alive else None,
        swap_bytes=here.swap_bytes if alive else None,
        throttled_s=here.throttled_s if alive else None,
        memory_bytes=here.memory_bytes if alive else None,
        memory_peak_bytes=here.memory_peak_bytes,
        network_received_bytes=ever.network_received_bytes,
        network_sent_bytes=ever.network_sent_bytes,
        pids=here.pids if alive else None,
    )
