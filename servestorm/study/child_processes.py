"""Processes of the study itself: the load generator and Prometheus. All tagged, in sessions of their own, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving import processes
from serving.orphans import OWNER_VARIABLE, owner_tag


def tagged() -> dict[str, str]:
    """The environment variable by which `reap_orphans` finds what a killed study left."""
    return {OWNER_VARIABLE: owner_tag()}


def end_all() -> None:
    """Kill whatever still carries our tag: the net under the ordinary clean-up."""
    processes.kill(processes.family(None, OWNER_VARIABLE, owner_tag()))


def start_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program with its output in `log`, in its own session so that Ctrl-C reaches only us."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **tagged(), **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def stop_child(process: subprocess.Popen[bytes], grace_s: float = 5) -> None:
    """SIGTERM to the whole session, SIGKILL after the grace; returns when the process is gone."""
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
