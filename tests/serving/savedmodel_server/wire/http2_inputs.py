"""Sequences of HTTP/2 frames: calls in every form, harmless frames between them, and at most one forbidden thing.

Each call asks for a number of its own. Same seed, same bytes.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hpack import Encoder

from serving import http2_frames as h2

PATH = "/tensorflow.serving.PredictionService/Predict"
HEAD = [
    (":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "x"),
    ("te", "trailers"), ("content-type", "application/grpc"),
]  # fmt: skip
PING_DATA = b"the-end!"


@dataclass
class Sequence:
    """What a client sends on one connection, which ends with a PING."""

    wire: bytes = h2.PREFACE
    values: dict[int, float] = field(default_factory=dict)
    """The number that each good call asks for, by its stream."""
    forbidden: str = ""
    """What must be refused; empty where all is good."""
    stream: int = 0
    """The stream that must be reset, unless the connection ends."""


def predict_message(value: float) -> bytes:
    """PredictRequest for half_plus_two with one number, written without TensorFlow's stubs."""

    def piece(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    tensor = b"\x08\x01" + piece(2, piece(2, b"\x08\x01")) + piece(5, struct.pack("<f", value))
    return piece(1, piece(1, b"half_plus_two")) + piece(2, piece(1, b"x") + piece(2, tensor))


def framed(message: bytes) -> bytes:
    return b"\x00" + struct.pack(">I", len(message)) + message


class _Client:
    """Builds one sequence."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.encoder = Encoder()
        self.sequence = Sequence()
        self.next_stream = 1

    def put(self, *frames: bytes) -> None:
        self.sequence.wire += b"".join(frames)

    def stream(self) -> int:
        number = self.next_stream
        self.next_stream += 2 * self.rng.choice([1, 1, 1, 2])
        return number

    def block(self, extra: list[tuple[str, str]] | None = None, fields: list[tuple[str, str]] | None = None) -> bytes:
        return self.encoder.encode((HEAD if fields is None else fields) + (extra or []))

    def head(self, number: int, flags: int = 0, **fields: list[tuple[str, str]]) -> bytes:
        block = self.block(**fields)
        kind = self.rng.randrange(4)
        if kind == 0:
            cut = self.rng.randint(0, len(block))
            first = h2.frame(h2.HEADERS, flags, number, block[:cut])
            return first + h2.frame(h2.CONTINUATION, h2.END_HEADERS, number, block[cut:])
        if kind == 1:
            pad = self.rng.randint(0, 9)
            padded = bytes([pad]) + b"\x00\x00\x00\x00\x0f" + block + bytes(pad)
            flags |= h2.PADDED | h2.HAS_PRIORITY
            return h2.frame(h2.HEADERS, flags | h2.END_HEADERS, number, padded)
        return h2.frame(h2.HEADERS, flags | h2.END_HEADERS, number, block)

    def call(self, value: float) -> None:
        number = self.stream()
        self.sequence.values[number] = value
        extra = self.rng.choice([[], [], [("grpc-timeout", "60S")], [("x-a", "b" * self.rng.randint(0, 99))]])
        body = framed(predict_message(value))
        cut = self.rng.choice([0, 0, self.rng.randint(1, len(body) - 1)])
        self.put(self.head(number, extra=extra))
        if cut:
            self.put(h2.frame(h2.DATA, 0, number, body[:cut]))
            self.harmless()
        if self.rng.random() < 0.3:
            pad = self.rng.randint(0, 9)
            payload = bytes([pad]) + body[cut:] + bytes(pad)
            self.put(h2.frame(h2.DATA, h2.END_STREAM | h2.PADDED, number, payload))
        else:
            self.put(h2.frame(h2.DATA, h2.END_STREAM, number, body[cut:]))

    def harmless(self) -> None:
        number = self.next_stream
        self.put(
            self.rng.choice(
                [
                    b"", b"", h2.frame(h2.PING, 0, 0, b"12345678"), h2.frame(0xBB, 0xFF, number, b"unknown"),
                    h2.frame(h2.PRIORITY, 0, number, bytes(5)), h2.window_update(0, self.rng.randint(1, 999)),
                    h2.settings({h2.INITIAL_WINDOW_SIZE: 65535 + self.rng.randint(0, 999)}), h2.settings({99: 7}),
                    h2.frame(h2.SETTINGS, h2.ACK, 0), h2.frame(h2.PING, h2.ACK, 0, bytes(8)),
                ]
            )
        )  # fmt: skip


def _open(client: _Client, **fields: list[tuple[str, str]]) -> int:
    """A call whose body has not ended."""
    number = client.stream()
    client.put(client.head(number, **fields))
    client.sequence.stream = number
    return number


def _ended(client: _Client) -> int:
    number = _open(client)
    client.put(h2.frame(h2.DATA, h2.END_STREAM, number, framed(predict_message(0.0))))
    return number


def _frame_on(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> Callable[[_Client], None]:
    return lambda client: client.put(h2.frame(kind, flags, stream, payload))


def _with_fields(fields: list[tuple[str, str]] | None = None, extra: list[tuple[str, str]] | None = None):
    def put(client: _Client) -> None:
        number = _open(client, fields=fields, extra=extra or [])
        client.put(h2.frame(h2.DATA, h2.END_STREAM, number, framed(predict_message(0.0))))

    return put


def _on_open(make: Callable[[int, _Client], bytes]) -> Callable[[_Client], None]:
    return lambda client: client.put(make(_open(client), client))


def _after_end(make: Callable[[int, _Client], bytes]) -> Callable[[_Client], None]:
    return lambda client: client.put(make(_ended(client), client))


def _without(name: str) -> list[tuple[str, str]]:
    return [entry for entry in HEAD if entry[0] != name]


def _replaced(name: str, value: str) -> list[tuple[str, str]]:
    return [(key, value if key == name else old) for key, old in HEAD]


FORBIDDEN: dict[str, Callable[[_Client], None]] = {
    "DATA on stream 0": _frame_on(h2.DATA, b"x"),
    "DATA on an idle stream": lambda c: c.put(h2.frame(h2.DATA, 0, c.next_stream + 2, b"x")),
    "DATA on a stream of the server": lambda c: c.put(h2.frame(h2.DATA, 0, 2, b"x")),
    "DATA after the end of the stream": _after_end(lambda n, c: h2.frame(h2.DATA, 0, n, b"x")),
    "DATA padded beyond its end": _on_open(lambda n, c: h2.frame(h2.DATA, h2.PADDED, n, b"\x05abc")),
    "DATA padded without a length": _on_open(lambda n, c: h2.frame(h2.DATA, h2.PADDED, n, b"")),
    "DATA beyond the content-length": lambda c: c.put(
        h2.frame(h2.DATA, h2.END_STREAM, _open(c, extra=[("content-length", "4")]), framed(predict_message(0.0)))
    ),
    "HEADERS on stream 0": lambda c: c.put(h2.frame(h2.HEADERS, h2.END_HEADERS, 0, c.block())),
    "HEADERS on an even stream": lambda c: c.put(h2.frame(h2.HEADERS, h2.END_HEADERS, 2, c.block())),
    "HEADERS on a stream that was passed over": lambda c: c.put(
        c.head(c.next_stream + 2), h2.frame(h2.HEADERS, h2.END_HEADERS, c.next_stream, c.block())
    ),
    "HEADERS after the end of the stream": _after_end(
        lambda n, c: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, n, c.block(fields=[("x", "y")]))
    ),
    "trailers that do not end the stream": _on_open(
        lambda n, c: h2.frame(h2.HEADERS, h2.END_HEADERS, n, c.block(fields=[("x", "y")]))
    ),
    "trailers with a pseudo-header field": _on_open(
        lambda n, c: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, n, c.block(fields=[(":path", "/")]))
    ),
    "HEADERS padded beyond its end": lambda c: c.put(h2.frame(h2.HEADERS, h2.PADDED | 4, c.next_stream, b"\x09\x83")),
    "HEADERS without room for its priority": lambda c: c.put(
        h2.frame(h2.HEADERS, h2.HAS_PRIORITY | h2.END_HEADERS, c.next_stream, b"\x00\x00")
    ),
    "a header block that is no HPACK": lambda c: c.put(
        h2.frame(h2.HEADERS, h2.END_HEADERS, c.next_stream, b"\xff\xff\xff\xff\xff")
    ),
    "a table larger than allowed": lambda c: c.put(
        h2.frame(h2.HEADERS, h2.END_HEADERS, c.next_stream, b"\x3f\xe1\xff\x03" + c.block())
    ),
    "another frame inside a header block": lambda c: c.put(
        h2.frame(h2.HEADERS, 0, c.next_stream, c.block()[:3]), h2.frame(h2.PING, 0, 0, bytes(8))
    ),
    "an unknown frame inside a header block": lambda c: c.put(
        h2.frame(h2.HEADERS, 0, c.next_stream, c.block()[:3]), h2.frame(0xBB, 0, 0, b"")
    ),
    "CONTINUATION on another stream": lambda c: c.put(
        h2.frame(h2.HEADERS, 0, c.next_stream, c.block()), h2.frame(h2.CONTINUATION, 4, c.next_stream + 2, b"")
    ),
    "CONTINUATION of nothing": _on_open(lambda n, c: h2.frame(h2.CONTINUATION, h2.END_HEADERS, n, b"")),
    "PRIORITY on stream 0": _frame_on(h2.PRIORITY, bytes(5)),
    "PRIORITY of a wrong size": _on_open(lambda n, c: h2.frame(h2.PRIORITY, 0, n, bytes(4))),
    "RST_STREAM on stream 0": _frame_on(h2.RST_STREAM, bytes(4)),
    "RST_STREAM on an idle stream": lambda c: c.put(h2.rst_stream(c.next_stream + 2, 8)),
    "RST_STREAM of a wrong size": _on_open(lambda n, c: h2.frame(h2.RST_STREAM, 0, n, bytes(3))),
    "SETTINGS on a stream": _on_open(lambda n, c: h2.frame(h2.SETTINGS, 0, n, b"")),
    "SETTINGS acknowledged with content": _frame_on(h2.SETTINGS, bytes(6), flags=h2.ACK),
    "SETTINGS of a wrong size": _frame_on(h2.SETTINGS, bytes(5)),
    "ENABLE_PUSH of 2": lambda c: c.put(h2.settings({h2.ENABLE_PUSH: 2})),
    "an initial window beyond 2^31-1": lambda c: c.put(h2.settings({h2.INITIAL_WINDOW_SIZE: 1 << 31})),
    "MAX_FRAME_SIZE below 16384": lambda c: c.put(h2.settings({h2.MAX_FRAME_SIZE: 16383})),
    "MAX_FRAME_SIZE beyond 2^24-1": lambda c: c.put(h2.settings({h2.MAX_FRAME_SIZE: 1 << 24})),
    "PUSH_PROMISE": _on_open(lambda n, c: h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, n, bytes(4) + c.block())),
    "PING on a stream": _on_open(lambda n, c: h2.frame(h2.PING, 0, n, bytes(8))),
    "PING of a wrong size": _frame_on(h2.PING, bytes(7)),
    "GOAWAY on a stream": _on_open(lambda n, c: h2.frame(h2.GOAWAY, 0, n, bytes(8))),
    "GOAWAY of a wrong size": _frame_on(h2.GOAWAY, bytes(7)),
    "WINDOW_UPDATE of a wrong size": _frame_on(h2.WINDOW_UPDATE, bytes(3)),
    "WINDOW_UPDATE by 0": lambda c: c.put(h2.window_update(0, 0)),
    "WINDOW_UPDATE by 0 on a stream": _on_open(lambda n, c: h2.window_update(n, 0)),
    "WINDOW_UPDATE on an idle stream": lambda c: c.put(h2.window_update(c.next_stream + 2, 1)),
    "a connection's window beyond 2^31-1": lambda c: c.put(h2.window_update(0, h2.MAX_WINDOW)),
    "a stream's window beyond 2^31-1": _on_open(lambda n, c: h2.window_update(n, h2.MAX_WINDOW)),
    "a frame beyond 16384 bytes": _on_open(lambda n, c: h2.frame(h2.DATA, 0, n, bytes(16385))),
    "a field name in capitals": _with_fields(extra=[("X-A", "b")]),
    "a field name with a space": _with_fields(extra=[("x a", "b")]),
    "an empty field name": _with_fields(extra=[("", "b")]),
    "a field value with a line end": _with_fields(extra=[("x-a", "b\r\nc: d")]),
    "a field value with a NUL": _with_fields(extra=[("x-a", "b\x00")]),
    "a field value with a space in front": _with_fields(extra=[("x-a", " b")]),
    "a field of a connection": _with_fields(extra=[("connection", "close")]),
    "transfer-encoding": _with_fields(extra=[("transfer-encoding", "chunked")]),
    "te other than trailers": _with_fields(_replaced("te", "gzip")),
    "no :method": _with_fields(_without(":method")),
    "no :scheme": _with_fields(_without(":scheme")),
    "no :path": _with_fields(_without(":path")),
    "an empty :path": _with_fields(_replaced(":path", "")),
    "a :path without a slash": _with_fields(_replaced(":path", "v1")),
    "two :path": _with_fields([*HEAD[:4], (":path", "/b"), *HEAD[4:]]),
    "an unknown pseudo-header field": _with_fields([*HEAD[:4], (":color", "red"), *HEAD[4:]]),
    "a pseudo-header field of answers": _with_fields([*HEAD[:4], (":status", "200"), *HEAD[4:]]),
    "a pseudo-header field after others": _with_fields([*_without(":path"), (":path", PATH)]),
    "CONNECT with a path": _with_fields(_replaced(":method", "CONNECT")),
    "user information in :authority": _with_fields(_replaced(":authority", "u@x")),
    "two content-length": _with_fields(extra=[("content-length", "1"), ("content-length", "2")]),
    "a content-length that is no number": _with_fields(extra=[("content-length", "+9")]),
}
"""What RFC 9113 says is an error of the connection or of the stream."""


def sequence(rng: random.Random, forbidden: str = "") -> Sequence:
    """One connection's frames, with that forbidden thing among them where one is named."""
    client = _Client(rng)
    client.put(h2.settings({}))
    for _ in range(rng.randint(0 if forbidden else 1, 6)):
        client.call(float(rng.randrange(1 << 20)))
        client.harmless()
    if forbidden:
        client.sequence.forbidden = forbidden
        FORBIDDEN[forbidden](client)
    client.put(h2.frame(h2.PING, 0, 0, PING_DATA))
    return client.sequence


def sequences(seed: int, count: int) -> Iterator[Sequence]:
    """Two of three with something forbidden."""
    rng = random.Random(seed)
    names = sorted(FORBIDDEN)
    for number in range(count):
        name = names[number % len(names)] if rng.random() < 0.67 else ""
        yield sequence(rng, name)
