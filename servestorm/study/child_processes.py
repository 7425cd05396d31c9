"""Processes of the study itself: generators and Prometheus. All tagged, in process groups of their own, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving import processes
from serving.orphans import OWNER_VARIABLE, owner_tag
from serving.supervisor import supervise


def tagged() -> dict[str, str]:
    """The environment variable by which `reap_orphans` finds what a killed study left."""
    return {OWNER_VARIABLE: owner_tag()}


def end_all() -> None:
    """Kill whatever still carries our tag: the net under the ordinary clean-up."""
    processes.kill(processes.family(None, OWNER_VARIABLE, owner_tag()))


def start_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program with its output in `log`, in its own process group so that Ctrl-C reaches only us.

    Not in its own session: Linux shares a core out among sessions first (autogroup), so that what one generator runs
    at idle priority to keep the core awake (loadtests/generator/keep_awake.py) would count as much as another one's
    requests. Measured with two generators on a core: requests left 1.3 ms late in the median, 0.02 ms in one session.
    """
    supervise()
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **tagged(), **(env or {})},
            cwd=cwd,
            process_group=0,
        )


def stop_child(process: subprocess.Popen[bytes], grace_s: float = 5) -> None:
    """SIGTERM to the whole process group, SIGKILL after the grace; returns when the process is gone."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(wait_s)
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
