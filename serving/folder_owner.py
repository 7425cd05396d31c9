"""A folder has one owner: the process that writes into it holds a lock on a file there.

The lock is the kernel's (flock(2)): it holds between processes and between the threads of one, in other containers that
share the folder too, and ends with its process however that ends. The file is removed with the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Final

from serving.errors import ServingError

OWNER: Final = ".owner"
"""Names the process that holds the lock: pid and host name."""
_TAKEN: Final = (errno.EWOULDBLOCK, errno.EAGAIN)


class FolderTaken(ServingError):
    """Another process or thread writes into the folder."""


class FolderOwner:
    """This object's hold on a folder, until `release`.

    Raises FolderTaken where another process or thread has it, naming its pid, and OSError where it cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / OWNER
        self._descriptor: int | None = _locked(folder, self._path)

    def release(self) -> None:
        """Let others have the folder; works once."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # nobody else can hold a lock on the file that is removed
                self._path.unlink()
            os.close(descriptor)


def _locked(folder: Path, path: Path) -> int:
    """A descriptor that holds the lock on the file that lies at `path`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                with suppress(OSError):  # a full disk: the lock holds without a name
                    os.pwrite(descriptor, f"{os.getpid()} {platform.node()}\n".encode(), 0)
                return descriptor
        except OSError as error:
            refusal = _refusal(folder, descriptor) if error.errno in _TAKEN else None
            os.close(descriptor)
            if refusal is None:
                raise
            raise refusal from error
        os.close(descriptor)  # its owner removed it between our two steps


def _lies_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _refusal(folder: Path, descriptor: int) -> FolderTaken:
    pid, _, host = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip().partition(" ")
    who = f"process {pid}" if pid.isdecimal() else "another process"
    where = f" on {host}" if host and host != platform.node() else ""
    return FolderTaken(f"{folder} is in use by {who}{where}, which writes into it: wait until that ends, or end it.")
