"""A closed-loop client that costs as little as it can: one prebuilt request a connection, on uvloop.

    python client.py rest|grpc|litserve|bentoml PORT MODEL_DIR IN_FLIGHT SECONDS CPU [COUNT]

Prints one JSON object: rate (requests/s), p50_ms, p99_ms, errors (answers whose class is not the golden one), count.
With COUNT it sends that many requests and ends, whatever the seconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvloop
from tensor import predict_message, probabilities

from serving import http2_frames as h2

WARM_UP_SHARE = 0.2


class Run:
    """What all connections share."""

    def __init__(self, kind: str, model: Path, count: int) -> None:
        self.kind = kind
        self.latencies: list[float] = []
        self.sent = 0
        self.count = count
        self.errors = 0
        self.example = ""
        self.over = asyncio.Event()
        manifest = json.loads((model / "manifest.json").read_text())
        golden = manifest["golden"][0]
        self.image = (model / golden["path"]).read_bytes()
        self.classes = len(golden["probabilities"])
        self.expected = max(range(len(golden["probabilities"])), key=golden["probabilities"].__getitem__)

    def check(self, found: list[float], began: float) -> bool:
        """Record one answer; False when the run is over."""
        self.latencies.append(time.perf_counter() - began)
        if max(range(len(found)), key=found.__getitem__) != self.expected:
            self.errors += 1
            self.example = str(found)
        return self.more()

    def more(self) -> bool:
        """Count one more request."""
        self.sent += 1
        if self.count and self.sent > self.count:
            self.over.set()
            return False
        return True


class Http(asyncio.Protocol):
    """One request at a time over HTTP/1.1."""

    def __init__(self, run: Run) -> None:
        self.run = run
        text = base64.b64encode(run.image).decode()
        path, body = {
            "rest": ("/v1/models/cnn:predict", {"instances": [{"b64": text}]}),
            "litserve": ("/predict", {"image": text}),
            "bentoml": ("/predict", {"images": [text]}),
        }[run.kind]
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self.request = head.encode() + data
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.received = b""
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end].lower()
        at = head.find(b"content-length:")
        if len(self.received) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        if self.run.check(self.row(self.received[end + 4 :]), self.began):
            self.send()

    def row(self, body: bytes) -> list[float]:
        found = orjson.loads(body)
        row: list[float] = found["predictions"][0] if self.run.kind == "rest" else found
        return row[0] if isinstance(row[0], list) else row


class Grpc(asyncio.Protocol):
    """One call at a time over HTTP/2, with prebuilt frames."""

    def __init__(self, run: Run) -> None:
        self.run = run
        fields = {
            b":method": b"POST", b":scheme": b"http", b":path": b"/tensorflow.serving.PredictionService/Predict",
            b":authority": b"x", b"te": b"trailers", b"content-type": b"application/grpc",
        }  # fmt: skip
        self.block = b"".join(h2.literal(name, value) for name, value in fields.items())
        message = predict_message(run.image)
        self.data = b"\x00" + len(message).to_bytes(4, "big") + message
        self.stream = -1
        self.received = b""
        self.answer = b""
        self.taken = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(h2.PREFACE + h2.settings({}) + h2.window_update(0, 1 << 30))
        self.send()

    def send(self) -> None:
        self.stream += 2
        self.began = time.perf_counter()
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, self.stream, self.block)
        self.transport.write(head + h2.frame(h2.DATA, h2.END_STREAM, self.stream, self.data))

    def data_received(self, data: bytes) -> None:
        data = self.received + data
        at = 0
        while len(data) - at >= h2.HEADER_BYTES:
            high, low, kind, flags, _ = h2.HEADER.unpack_from(data, at)
            end = at + h2.HEADER_BYTES + (high << 16 | low)
            if len(data) < end:
                break
            self.frame(kind, flags, data[at + h2.HEADER_BYTES : end])
            at = end
        self.received = data[at:]

    def frame(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == h2.DATA:
            self.answer += payload
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            self.transport.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        elif kind == h2.PING and not flags & h2.ACK:
            self.transport.write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.HEADERS and flags & h2.END_STREAM:
            answer, self.answer = self.answer, b""
            if self.run.check(probabilities(answer[5:], self.run.classes), self.began):
                self.send()


async def main() -> None:
    kind, port, model, in_flight, seconds, cpu, *rest = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    run = Run(kind, Path(model), int(rest[0]) if rest else 0)
    protocol = Grpc if kind == "grpc" else Http
    loop = asyncio.get_running_loop()
    for _ in range(int(in_flight)):
        run.sent += 1
        await loop.create_connection(lambda: protocol(run), "127.0.0.1", int(port))
    if run.count:
        await run.over.wait()
    else:
        await asyncio.sleep(float(seconds) * WARM_UP_SHARE)
    run.latencies.clear()
    began = time.perf_counter()
    if not run.count:
        await asyncio.sleep(float(seconds))
    elapsed = max(time.perf_counter() - began, 1e-9)
    found = sorted(run.latencies)
    result = {"rate": len(found) / elapsed, "errors": run.errors, "example": run.example, "count": run.sent}
    if found:
        result |= {"p50_ms": found[len(found) // 2] * 1e3, "p99_ms": found[int(len(found) * 0.99)] * 1e3}
    print(json.dumps(result))


uvloop.run(main())
