"""Ends what a killed study left behind.

Every process that we start inherits an environment variable naming its owner: pid and start time. A process
whose owner no longer lives is an orphan. `kill -9` of a study leaves servers only until the next command.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving import processes

OWNER_VARIABLE = "SERVESTORM_OWNER"
_SCRATCH_PREFIX = "servestorm-"


@dataclass(frozen=True)
class Orphans:
    """What owners that live no more left on this machine."""

    processes: tuple[psutil.Process, ...]
    folders: tuple[Path, ...]


def owner_tag() -> str:
    """Tag of this process, "<pid>:<start>"; start is in ticks since boot, which no clock change shifts."""
    return f"{os.getpid()}:{processes.start_ticks(os.getpid())}"


def machine() -> str:
    """This machine, process namespace and user: a pid means nothing elsewhere, and other people's are not ours."""
    try:
        node = Path("/etc/machine-id").read_text().strip()
    except OSError:
        node = ""
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{node or platform.node()}/{namespace}/{os.getuid()}"


def find_orphans() -> Orphans:
    """This user's processes whose owner is dead, and their scratch folders; nothing is done to them.

    Never this process, its ancestors, or anything in another process namespace.
    """
    spared = set(processes.ancestors(os.getpid()))
    owned = tuple(
        process
        for pid, tag in processes.tagged(OWNER_VARIABLE)
        if pid not in spared and not lives(tag) and (process := processes.identify(pid, OWNER_VARIABLE, tag))
    )
    return Orphans(owned, tuple(_abandoned_scratch()))


def reap_orphans(orphans: Orphans | None = None) -> int:
    """Kill the orphans and remove their scratch folders; returns the number of processes."""
    orphans = find_orphans() if orphans is None else orphans
    processes.kill(orphans.processes)
    for folder in orphans.folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(orphans.processes)


def scratch_folder() -> Path:
    """A new empty folder with a short path, named after its owner so that `reap_orphans` finds it."""
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{owner_tag().replace(':', '-')}-"))


def _abandoned_scratch() -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*-*-*"):
        pid, start, *_ = folder.name.removeprefix(_SCRATCH_PREFIX).split("-")
        if folder.is_dir() and folder.stat().st_uid == os.getuid() and not lives(f"{pid}:{start}"):
            yield folder


def lives(tag: str) -> bool:
    """True where the owner lives, and where the tag is not one of ours."""
    pid, _, start = tag.partition(":")
    if not (pid.isdecimal() and start.isdecimal()):
        return True
    return processes.start_ticks(int(pid)) == int(start)
