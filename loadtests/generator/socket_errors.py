"""What errors of sockets are called in the summary."""

from __future__ import annotations

import errno
import os
from typing import Final

TOO_FEW_DESCRIPTORS: Final = "no file descriptor left (ulimit -n)"
"""What a request failed of that the generator had no socket for."""
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


def errno_reason(code: int | None, doing: str) -> str:
    """The reason of a request that failed of this errno; `doing` is connect, send or receive."""
    if code == errno.ECONNREFUSED:
        return "connection refused"
    if code in (errno.ECONNRESET, errno.EPIPE):
        return "connection reset"
    if code in NO_DESCRIPTOR:
        return TOO_FEW_DESCRIPTORS
    return f"{doing}: {os.strerror(code) if code else 'failed'}"
