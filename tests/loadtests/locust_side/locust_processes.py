"""Locust processes for tests, with the methods of subprocess.Popen: forks of a process that has imported Locust."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FORKS = Path(__file__).with_name("locust_forks.py")


class LocustProcess:
    """`python ARGUMENT...`, where the arguments are `-m locust ...` or `-c CODE ...`; its output goes to a file."""

    def __init__(self, args: list[str], cwd: Path) -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdout = tempfile.NamedTemporaryFile("r", prefix="locust-", suffix=".log")  # noqa: SIM115
        request = {"start": args, "cwd": str(cwd), "env": dict(os.environ), "output": self.stdout.name}
        self.pid: int = _ask(request)["pid"]

    def __del__(self) -> None:
        # pytest holds an open file that is collected against whichever test runs at that moment
        self.stdout.close()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0, self.stdout.read())
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it wrote, once it has ended. Raises subprocess.TimeoutExpired."""
        self.wait(timeout)
        self.stdout.seek(0)
        return self.stdout.read(), None

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def exit_code_of(summary: dict[str, Any]) -> int:
    """What a headless load with that summary.json ends with."""
    counts = [each["counts"] for name, each in summary["figures"].items() if name != "mean"]
    return 0 if summary["valid"] and (True in counts or False not in counts) else 4


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    forks = _forks()
    assert forks.stdin and forks.stdout
    forks.stdin.write(json.dumps(request) + "\n")
    forks.stdin.flush()
    answer: dict[str, Any] = json.loads(forks.stdout.readline())
    return answer


@functools.cache
def _forks() -> subprocess.Popen[str]:
    """The process that is forked, one for all tests of this process."""
    process = subprocess.Popen([sys.executable, FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process
