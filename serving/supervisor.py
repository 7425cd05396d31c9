"""One small process beside this one, which ends all that this one started when it is killed.

It is started before the first server, which starts as fast as without it: it is no parent of the servers, and sleeps.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from serving import supervisor_process
from serving.orphans import OWNER_VARIABLE, owner_tag, scratch_prefix

_READY_S = 5.0
"""Longest wait for it: a machine that is so slow is not kept from its study."""
_END_S = 5.0


class _Supervisor:
    """The process, where one was started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start it unless it runs, and wait until it has: it takes no time from what is started next."""
        with self._starting:
            if self._process is None or self._process.poll() is not None:
                self.forget()
                self._process = _started()

    def end(self) -> None:
        """Tell it that all was ended, and wait for its own end."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with suppress(OSError):
            process.stdin.write(supervisor_process.ALL_ENDED)
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)

    def forget(self) -> None:
        """Close our end of its pipe; in a copy of this process, which is not what it waits for."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()


def _started() -> subprocess.Popen[bytes]:
    program = str(Path(supervisor_process.__file__).resolve())
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", program, OWNER_VARIABLE, owner_tag(), str(scratch_prefix())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={name: value for name, value in os.environ.items() if name != OWNER_VARIABLE},
        cwd="/",
        start_new_session=True,  # what ends us by our process group does not end it
    )
    assert process.stdout is not None
    select.select([process.stdout], [], [], _READY_S)
    process.stdout.close()
    return process


_SUPERVISOR = _Supervisor()
supervise = _SUPERVISOR.start
"""Have what this process starts ended when this process is killed; to be called before something is started."""
atexit.register(_SUPERVISOR.end)
os.register_at_fork(after_in_child=_SUPERVISOR.forget)
