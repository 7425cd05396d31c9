"""Ends the servers and load generators of a study that was killed: a program of its own, which imports nothing of ours.

    python -I -S supervisor_process.py VARIABLE TAG SCRATCH

A study starts it (`serving.supervisor`) and holds the other end of its standard input, which the kernel closes however
the study ends: kill -9 and the out-of-memory killer too. Then every process of this user and process namespace is
killed that was started with VARIABLE=TAG in its environment, and every descendant of one: TorchServe's workers are
children of its front end, which cannot end them when it is killed itself. The folders whose paths begin with SCRATCH
are removed.

A parent-death signal (prctl(2)) would not do: it comes when the *thread* that started the process ends, and a child's
children do not inherit it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ALL_ENDED = b"e"
"""What a study that has ended everything itself writes before it ends."""
_SETTLED_S = 0.5
"""So long no process may be found: one that was being started when the study was killed shows its environment late."""
_LONGEST_S = 60.0
_PAUSE_S = 0.02


def main(variable: str, tag: str, scratch: str) -> None:
    """Wait for the study's end, and end what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the study, and not before
    os.write(1, b"ready\n")
    entry = f"{variable}={tag}".encode()
    if os.read(0, 1) == ALL_ENDED and not kill_family(entry):
        return
    begun_s = seen_s = time.monotonic()
    while (now_s := time.monotonic()) - seen_s < _SETTLED_S and now_s - begun_s < _LONGEST_S:
        if kill_family(entry):
            seen_s = now_s
        time.sleep(_PAUSE_S)
    _remove(scratch)


def kill_family(entry: bytes) -> int:
    """SIGKILL to all that carry the entry in their environment, and to their descendants; returns their number."""
    handles = {pid: _handle(pid) for pid in _family(entry)}
    members = _family(entry) & handles.keys() if handles else set()  # a handle stays with its process: pids do not
    for pid, handle in handles.items():
        try:
            if pid in members:
                _kill(pid, handle)
        except ProcessLookupError:
            pass
        finally:
            if handle is not None:
                os.close(handle)
    return len(members)


def _handle(pid: int) -> int | None:
    """None where the process has ended, and where a container's rules or an old kernel give no handles."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _kill(pid: int, handle: int | None) -> None:
    if handle is None:
        os.kill(pid, signal.SIGKILL)
    else:
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _family(entry: bytes) -> set[int]:
    """Pids of those that carry the entry, and of their descendants."""
    with os.scandir("/proc") as entries:
        pids = {int(entry.name) for entry in entries if entry.name.isdecimal()}
    family = {pid for pid in pids if _carries(pid, entry)}
    parents = {pid: parent for pid in pids - family if (parent := _parent(pid))} if family else {}
    while born := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= born
    return family


def _carries(pid: int, entry: bytes) -> bool:
    """Whether a process of this user and process namespace that lives was started with the entry."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 (pathlib takes longer to import than all else)
            if entry not in file.read().split(b"\0"):
                return False
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return False


def _parent(pid: int) -> int:
    """Its parent; 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            state, parent, *_ = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if state in b"ZX" else int(parent)


def _remove(scratch: str) -> None:
    import shutil

    folder, _, prefix = scratch.rpartition("/")
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
