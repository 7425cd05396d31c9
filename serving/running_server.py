"""Ways to look at a running server: on this machine, by a command in its container, or over HTTP alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from serving.authorisation import refuses, reply_named
from serving.deployment import Endpoint
from serving.errors import ServingError
from serving.probe import http_get
from serving.server_settings import Refusal

_TIMEOUT_S = 10.0
_COMMANDS = 'for file in /proc/[0-9]*/cmdline; do cat "$file" && echo; done 2>/dev/null; true'
"""Prints each command line, whose arguments end with a NUL, on a line of its own."""
_GET = (
    "import sys, urllib.request as r; "
    f"sys.stdout.buffer.write(r.urlopen('http://127.0.0.1:' + sys.argv[1], timeout={_TIMEOUT_S:g}).read())"
)


@dataclass(frozen=True)
class RemoteServer:
    """A server of which only its addresses are known; see RunningServer."""

    endpoint: Endpoint

    def commands(self) -> list[list[str]]:
        """None: its processes cannot be seen."""
        return []

    def file(self, path: str) -> None:
        """None: its files cannot be read."""

    def manage(self, path: str) -> bytes | Refusal | None:
        """See RunningServer."""
        return _get(self.endpoint, path)


@dataclass(frozen=True)
class LocalServer:
    """A process of this machine, with its children; see RunningServer."""

    endpoint: Endpoint
    pid: int | None

    def commands(self) -> list[list[str]]:
        """See RunningServer."""
        lines = []
        with suppress(psutil.Error):
            own = psutil.Process(self.pid) if self.pid else None
            for process in [own, *own.children(recursive=True)] if own else []:
                with suppress(psutil.Error):
                    lines.append(process.cmdline())
        return lines

    def file(self, path: str) -> str | None:
        """See RunningServer."""
        with suppress(OSError):
            return Path(path).read_text(errors="replace")
        return None

    def manage(self, path: str) -> bytes | Refusal | None:
        """See RunningServer."""
        return _get(self.endpoint, path)


@dataclass(frozen=True)
class ContainerServer:
    """A server in a container, looked at by commands that run inside it; see RunningServer."""

    execute: Callable[[Sequence[str]], bytes | None]
    """Runs a command in the container: what it printed, None where it failed."""
    management_port: int | None
    """Inside the container."""

    def commands(self) -> list[list[str]]:
        """See RunningServer."""
        out = self.execute(["sh", "-c", _COMMANDS]) or b""
        lines = [line.split(b"\0") for line in out.split(b"\0\n")]
        return [[argument.decode(errors="replace") for argument in line] for line in lines if line != [b""]]

    def file(self, path: str) -> str | None:
        """See RunningServer."""
        out = self.execute(["cat", path])
        return None if out is None else out.decode(errors="replace")

    def manage(self, path: str) -> bytes | None:
        """See RunningServer. From inside, for that API may listen there alone."""
        if self.management_port is None:
            return None
        # TS_PYTHON: the Python that TorchServe's image runs its workers with
        program = 'exec "${TS_PYTHON:-python3}" -I -c "$0" "$1"'
        return self.execute(["sh", "-c", program, _GET, f"{self.management_port}{path}"])


def _get(endpoint: Endpoint, path: str) -> bytes | Refusal | None:
    if not endpoint.management_url:
        return None
    base = endpoint.management_url.rstrip("/")
    try:
        headers = endpoint.management_headers.read()
    except ServingError as error:
        return Refusal(str(error).rstrip("."))
    reply = http_get(f"{base}{path}", _TIMEOUT_S, headers) if urlsplit(base).netloc else None
    if reply and refuses(*reply):
        return Refusal(reply_named(*reply))
    return reply[1] if reply and reply[0] == 200 else None
