"""File descriptors of this process: how many are open, how many it may open, and the limit raised where it can be.

A connection takes one. Shells and containers often start programs with a soft limit of 1,024 and a far higher hard one;
a program may raise its soft limit up to the hard one by itself (setrlimit(2)), as Go programs and the JVM do.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


def open_descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # the listing itself takes one


def allow_descriptors(needed: int | None = None) -> int:
    """Raise the soft limit to `needed`, or to the hard limit (None); the limit that then holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    wanted = min(most, sys.maxsize if needed is None else needed)
    if wanted > soft:
        # The kernel has a ceiling of its own (fs.nr_open); where that is lower, the soft limit stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard if wanted == sys.maxsize else wanted, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
