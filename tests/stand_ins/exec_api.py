"""An API server that knows only exec: one WebSocket connection, of which a script says what comes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

STDOUT, STDERR, OUTCOME = 1, 2, 3
Frame = tuple[int, bytes]
"""Channel and what comes on it."""
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def success() -> Frame:
    """How the API ends a command with exit code 0."""
    return OUTCOME, json.dumps({"metadata": {}, "status": "Success"}).encode()


def failure(code: int) -> Frame:
    """And with another."""
    told = {"status": "Failure", "reason": "NonZeroExitCode", "message": f"exit code {code}"}
    return OUTCOME, json.dumps({**told, "details": {"causes": [{"reason": "ExitCode", "message": f"{code}"}]}}).encode()


class ExecApi:
    """Answers each connection with the frames; `asked` holds path and query of each."""

    def __init__(self, frames: Sequence[Frame], *, status: int = 101, ending: str = "close") -> None:
        self.frames, self.status, self.ending = frames, status, ending
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.released = threading.Event()

    def serve(self) -> None:
        """Until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            request, *lines = head.decode().split("\r\n")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
            parts = urlsplit(request.split()[1])
            self.asked.append((parts.path, parse_qs(parts.query), headers))
            if self.status != 101:
                body = json.dumps({"kind": "Status", "message": 'pods "agent-0" are no more'})
                connection.sendall(f"HTTP/1.1 {self.status} No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                return
            accept = base64.b64encode(
                hashlib.sha1(f"{headers['sec-websocket-key']}{_MAGIC}".encode()).digest()
            ).decode()
            connection.sendall(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
            )
            for channel, data in self.frames:
                connection.sendall(_framed(0x82, bytes([channel]) + data))
            if self.ending == "close":
                connection.sendall(_framed(0x88, (1000).to_bytes(2, "big")))
                connection.recv(65536)
            elif self.ending == "hang":
                self.released.wait(30)


def _framed(kind: int, data: bytes) -> bytes:
    if len(data) < 126:
        return bytes([kind, len(data)]) + data
    if len(data) < 65536:
        return bytes([kind, 126]) + len(data).to_bytes(2, "big") + data
    return bytes([kind, 127]) + len(data).to_bytes(8, "big") + data


@contextlib.contextmanager
def exec_api(*frames: Frame, status: int = 101, ending: str = "close") -> Iterator[ExecApi]:
    """An API server for as long as the block lasts. `ending`: close, cut (without a word) or hang."""
    api = ExecApi(frames, status=status, ending=ending)
    thread = threading.Thread(target=api.serve, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.released.set()
        api.listener.shutdown(socket.SHUT_RDWR)
        api.listener.close()
        thread.join()
