"""Ends what a killed study left behind.

Every process that we start inherits an environment variable naming its owner: pid and start time. A process
whose owner no longer lives is an orphan. `serving.supervisor` ends those of a study that was killed; where it was
killed too, the next command does, as it does after a study that a crash of the machine ended.
"""

from __future__ import annotations

import hashlib
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
    """This machine, process namespace and user: a pid means nothing elsewhere, and other people's are not ours.

    The host name is part of it: containers of one image have one /etc/machine-id, and namespaces of two machines may
    have one number.
    """
    return f"{_content('/etc/machine-id')}/{platform.node()}/{_namespace()}/{os.getuid()}"


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _content(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


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
    prefix = scratch_prefix()
    return Path(tempfile.mkdtemp(prefix=prefix.name, dir=prefix.parent))


def scratch_prefix() -> Path:
    """What the paths of this process's scratch folders begin with: where its pid means something, pid, and start."""
    return Path(tempfile.gettempdir()).absolute() / f"{_SCRATCH_PREFIX}{_place()}-{owner_tag().replace(':', '-')}-"


def _place() -> str:
    """Eight letters for this process namespace since this start of this machine: temporary folders may be shared.

    What lies there of another container, or of an earlier start of the machine, cannot be told from what is in use.
    """
    return hashlib.sha256(f"{_content('/proc/sys/kernel/random/boot_id')}/{_namespace()}".encode()).hexdigest()[:8]


def _abandoned_scratch() -> Iterator[Path]:
    mine = f"{_SCRATCH_PREFIX}{_place()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{mine}*-*-*"):
        pid, start, *_ = folder.name.removeprefix(mine).split("-")
        if folder.is_dir() and folder.stat().st_uid == os.getuid() and not lives(f"{pid}:{start}"):
            yield folder


def lives(tag: str) -> bool:
    """True where the owner lives, and where the tag is not one of ours."""
    pid, _, start = tag.partition(":")
    if not (pid.isdecimal() and start.isdecimal()):
        return True
    return processes.start_ticks(int(pid)) == int(start)
