"""The clocks of this machine, as other processes and Locust need them."""

from __future__ import annotations

import time
from pathlib import Path


def wall_minus_monotonic_ns() -> int:
    """What to add to this machine's monotonic clock for the wall clock."""
    return time.time_ns() - time.monotonic_ns()


def boot_id() -> str:
    """Equal for processes that share one monotonic clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
