"""An API server of a few answers over HTTP on loopback, and a helm that writes down what it is asked to do."""

from __future__ import annotations

import email.utils
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
"""HTTP status and body, which becomes JSON unless it is bytes."""


def refused(status: int, message: str) -> Answer:
    """As the API refuses something."""
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}


def forbidden(verb: str, resource: str, place: str = 'in the namespace "k1"') -> Answer:
    """As RBAC does."""
    who = 'User "system:serviceaccount:k1:reader"'
    return refused(403, f'{resource} is forbidden: {who} cannot {verb} resource "{resource}" in API group "" {place}')


def listed(*things: Any) -> Answer:
    """A list of objects."""
    return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": list(things)}


def thing(name: str, namespace: str | None = None, **metadata: Any) -> dict[str, Any]:
    """An object with little besides its name."""
    return {"metadata": {"name": name, "namespace": namespace, **metadata}}


class SmallApi:
    """Answers of `told`, by method and path, and by the path alone; `asked` holds every request."""

    def __init__(self) -> None:
        self.told: dict[str, Answer | Callable[[dict[str, Any]], Answer]] = {
            "GET /version": (200, _VERSION),
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Method and path; the query, and the body as `body`."""
        self.ahead_s = 0.0
        """How much the server's clock is ahead of ours."""
        self.url = ""

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        parts = urlsplit(target.replace("/version/", "/version"))
        request: dict[str, Any] = {key: values[0] for key, values in parse_qs(parts.query).items()}
        request["body"] = json.loads(body) if body else None
        self.asked.append((f"{method} {parts.path}", request))
        told = self.told.get(f"{method} {parts.path}", refused(404, f"{parts.path} not found"))
        return told(request) if callable(told) else told

    def paths(self, method: str) -> list[str]:
        """What was asked for with this method."""
        return [what.partition(" ")[2] for what, _ in self.asked if what.startswith(f"{method} ")]


_VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.13+abc",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}


@contextmanager
def small_api() -> Iterator[SmallApi]:
    """The server, on a port of its own."""
    api = SmallApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            status, told = api.answer(self.command, self.path, self.rfile.read(length))
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def date_time_string(self, timestamp: float | None = None) -> str:
            return email.utils.formatdate(time.time() + api.ahead_s, usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(path: Path, url: str, *contexts: str, current: str | None = None, **user: str) -> Path:
    """A kubeconfig in which every context leads to the same server."""
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "small", "cluster": {"server": url}}],
        "users": [{"name": "somebody", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "small", "user": "somebody"}} for name in contexts],
    }
    path.write_text(json.dumps(told | ({"current-context": current} if current else {})))
    return path


def recording_helm(folder: Path, version: str = "v4.1.4+g05fa379", says: str = "", code: int = 0) -> Path:
    """A program `helm` that adds each call to the file `calls` beside it: its arguments and its input as JSON."""
    program = folder / "helm"
    program.write_text(
        f"""#!{sys.executable} -S
import json, sys
if sys.argv[1] == "version":
    print({version!r})
    sys.exit(0)
given = sys.stdin.read()
with open({str(folder / "calls")!r}, "a") as calls:
    print(json.dumps([sys.argv[1:], given]), file=calls)
sys.stderr.write({says!r})
sys.exit({code})
"""
    )
    program.chmod(0o755)
    return program


def helm_calls(folder: Path) -> list[tuple[list[str], str]]:
    """The arguments and the input of each call."""
    written = folder / "calls"
    return [tuple(json.loads(line)) for line in written.read_text().splitlines()] if written.exists() else []
