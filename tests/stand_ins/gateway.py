"""A gateway that demands a bearer token and keeps what it was asked; it answers itself, or passes requests on."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

INVALID_KEY = json.dumps(
    {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}
).encode()
STATUS = b'{"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}'
ANSWER = b'{"predictions": [[0.25, 0.75]]}'
METRICS = b"gateway_requests_total 7\n"


@dataclass
class Gateway:
    """What it demands, what it answers with, and what came."""

    url: str
    token: str | None
    """None: everybody passes."""
    refusal: tuple[int, bytes]
    upstream: Mapping[str, str]
    """Address by the beginning of a path; '' is the beginning of every path."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""

    def headers_of(self, path: str) -> dict[str, str]:
        """Those of the last request to that path."""
        return next(headers for _, asked, headers in reversed(self.asked) if asked == path)


def _passed_on(asked: http.server.BaseHTTPRequestHandler, place: str, body: bytes) -> tuple[int, bytes]:
    """What the server behind the gateway answers; it gets no header of the request but the type of its body."""
    connection = http.client.HTTPConnection(urlsplit(place).netloc, timeout=60)
    passed = {"Content-Type": asked.headers["Content-Type"]} if body else {}
    connection.request(asked.command, asked.path, body or None, passed)
    reply = connection.getresponse()
    answered = reply.status, reply.read()
    connection.close()
    return answered


@contextmanager
def gateway(
    token: str | None = None,
    refusal: tuple[int, bytes] = (401, b""),
    upstream: Mapping[str, str] | None = None,
    redirect: str | None = None,
) -> Iterator[Gateway]:
    """A gateway on 127.0.0.1; without `upstream` it answers as TensorFlow Serving with one model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.command, self.path, dict(self.headers.items())))
            if redirect:
                self._send(302, b"", Location=redirect)
            elif token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self._send(*refusal)
            else:
                self._send(*self._answer(body))

        do_POST = do_GET

        def _answer(self, body: bytes) -> tuple[int, bytes]:
            place = next((url for begin, url in found.upstream.items() if self.path.startswith(begin)), None)
            if place:
                return _passed_on(self, place, body)
            if self.path == "/metrics":
                return 200, METRICS
            return 200, STATUS if self.command == "GET" else ANSWER

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Gateway(f"http://127.0.0.1:{server.server_address[1]}", token, refusal, upstream or {})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
