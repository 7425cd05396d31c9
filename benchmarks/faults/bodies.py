"""Memory of half-sent request bodies: 20 connections that each send 20 MB of a larger body, then wait.

    python benchmarks/faults/bodies.py

Over REST and over gRPC, each against a server of its own with the default limits. What the budget for unfinished bodies
(--max_unfinished_request_bytes, by default 128 MiB) does not hold is answered with 503 or UNAVAILABLE at once, and a
small request is answered meanwhile.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import requests

sys.path.insert(0, str(Path(__file__).parent))
from figures import ROOT, Figure, table

sys.path.insert(0, str(ROOT))
from serving import http2_frames as h2
from serving.engines.tensorflow_settings import GRPC_THREADS
from tests.serving.savedmodel_server.savedmodel_zoo import save_half_plus
from tests.serving.savedmodel_server.server_process import RunningServer, start_server
from tests.serving.savedmodel_server.wire.http2_inputs import HEAD

CONNECTIONS = 20
SENT_BYTES = 20_000_000
WHOLE_BYTES = 60_000_000
BUDGET_BYTES = 2 * (64 << 20)
PART_BYTES = 1 << 20
WAVES = 2
"""The second one shows that the memory of the first is used again."""
SETTLE_S = 1.0
"""Between the last byte sent and the reading of the memory."""
MOST_SHARE = 1.1
"""Memory may grow by this much of the budget."""
Sender = Callable[[RunningServer], tuple[socket.socket, bool]]
"""Opens a connection and sends; whether the server refused."""


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    figures = run()
    print(table("bodies", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run() -> list[Figure]:
    """Send over both protocols; the figures."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="faults-bodies-") as folder:
        base = Path(folder) / "m"
        save_half_plus(base / "1", 2.0)
        for name, send in SENDERS.items():
            flags = "--model_name=m", f"--model_base_path={base}", f"--grpc_max_threads={GRPC_THREADS}"
            server = start_server(Path(folder) / name, *flags)
            try:
                server.wait_ready("m")
                figures += _measure(server, name, send)
            finally:
                server.stop()
    return figures


def _measure(server: RunningServer, name: str, send: Sender) -> list[Figure]:
    process = psutil.Process(server.process.pid)
    _predict(server)
    before = process.memory_info().rss
    held, refused, answered = zip(*(_wave(server, process, send) for _ in range(WAVES)), strict=True)
    due = CONNECTIONS - BUDGET_BYTES // SENT_BYTES
    growth = [(rss - before) >> 20 for rss in held]
    return [
        Figure(f"{name}: connections, each with {SENT_BYTES // 10**6} MB of {WHOLE_BYTES // 10**6}", CONNECTIONS),
        Figure(f"{name}: refused with 503 or UNAVAILABLE", refused[0]),
        Figure(f"{name}: of them wrongly refused, or wrongly not", sum(abs(count - due) for count in refused), 0),
        Figure(f"{name}: small requests meanwhile without an answer", WAVES - sum(answered), 0),
        Figure(f"{name}: memory before, MiB", before >> 20),
        Figure(f"{name}: growth while they wait, MiB", growth[0], MOST_SHARE * (BUDGET_BYTES >> 20)),
        Figure(f"{name}: growth while as many wait after their end, MiB", growth[1], MOST_SHARE * (BUDGET_BYTES >> 20)),
    ]


def _wave(server: RunningServer, process: psutil.Process, send: Sender) -> tuple[int, int, bool]:
    """Memory while they wait, how many were refused, and whether a small request was answered."""
    sent = [send(server) for _ in range(CONNECTIONS)]
    time.sleep(SETTLE_S)
    held, answered = process.memory_info().rss, _predict(server)
    for sock, _ in sent:
        sock.close()
    time.sleep(SETTLE_S)
    return held, sum(was_refused for _, was_refused in sent), answered


def _predict(server: RunningServer) -> bool:
    reply = requests.post(f"{server.url}/v1/models/m:predict", data=b'{"instances": [1.0]}', timeout=60)
    return reply.json() == {"predictions": [2.5]}


def send_rest(server: RunningServer, verb: str) -> tuple[socket.socket, bool]:
    """20 MB of a body over REST."""
    sock = _connected(server.url)
    try:
        sock.sendall(f"POST /v1/models/m:{verb} HTTP/1.1\r\nHost: x\r\nContent-Length: {WHOLE_BYTES}\r\n\r\n".encode())
        for _ in range(SENT_BYTES // PART_BYTES):
            sock.sendall(b" " * PART_BYTES)
        sock.sendall(b" " * (SENT_BYTES % PART_BYTES))
    except OSError:
        pass  # refused while we wrote on
    sock.settimeout(SETTLE_S)
    try:
        return sock, sock.recv(16).startswith(b"HTTP/1.1 503")
    except TimeoutError:
        return sock, False


def send_rpc(server: RunningServer) -> tuple[socket.socket, bool]:
    """20 MB of a message over gRPC, as the server's windows allow it."""
    from hpack import Encoder

    sock = _connected(f"//{server.target}")
    sock.sendall(h2.PREFACE + h2.settings({}) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, Encoder().encode(HEAD)))
    stream = sock.makefile("rb")
    data = b"\x00" + WHOLE_BYTES.to_bytes(4, "big") + bytes(SENT_BYTES)
    window, at = 0, 0
    while at < SENT_BYTES:
        frame = data[at : at + min(h2.MAX_FRAME_BYTES, SENT_BYTES - at)]
        while window < len(frame):
            more, ended = _allowed(stream)
            if ended:
                return sock, b"14" in ended
            window += more
        sock.sendall(h2.frame(h2.DATA, 0, 1, frame))
        window -= len(frame)
        at += len(frame)
    return sock, False


SENDERS: dict[str, Sender] = {
    "REST predict": lambda server: send_rest(server, "predict"),
    "REST classify": lambda server: send_rest(server, "classify"),
    "gRPC": send_rpc,
}
"""Predict has a way of its own into the server, past ASGI."""


def _allowed(stream) -> tuple[int, bytes]:
    """Bytes by which the next frame opens the stream's window, or the head that ends the call."""
    high, low, kind, _, number = h2.HEADER.unpack(stream.read(h2.HEADER_BYTES))
    payload = stream.read(high << 16 | low)
    if kind == h2.HEADERS:
        return 0, payload
    if kind == h2.SETTINGS and payload:
        settings = {
            int.from_bytes(payload[i : i + 2], "big"): payload[i + 2 : i + 6] for i in range(0, len(payload), 6)
        }
        return int.from_bytes(settings.get(h2.INITIAL_WINDOW_SIZE, b"\xff\xff"), "big"), b""
    return (int.from_bytes(payload, "big") if kind == h2.WINDOW_UPDATE and number else 0), b""


def _connected(address: str) -> socket.socket:
    host, port = address.rpartition("/")[2].rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


if __name__ == "__main__":
    sys.exit(main())
