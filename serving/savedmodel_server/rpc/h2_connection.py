"""One HTTP/2 connection that carries gRPC calls of one message each way (RFC 9113 and gRPC over HTTP/2).

grpcio's Python server costs about 0.4 ms of CPU a call, as much as a small network's share of a batch; this costs a
fifth of that, because a call is a few slices of bytes on the event loop's own thread. It bounds what a peer can make
it keep: the size of heads and messages, streams at a time, resets, and the time that a request may take to arrive.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hpack import Decoder
from hpack.exceptions import HPACKError

from serving.wire import http2_frames as h2
from serving.wire.http2_frames import Http2Error

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 64 << 20
MOST_STREAMS = 1024
LARGEST_HEAD_BYTES = 32 << 10
LARGEST_BACKLOG_BYTES = 64 << 20
MOST_IDLE_FRAMES = 2000
"""Frames in a row that ask for nothing (PING, SETTINGS, RST_STREAM, ...) before the connection is ended."""
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class RequestHead(NamedTuple):
    """What matters of a request's headers."""

    path: str
    encoding: str
    timeout_s: float | None
    http_error: int
    """An HTTP status where this is no gRPC request; else 0."""


class Stream:
    """One call."""

    __slots__ = ("begin_s", "closed", "connection", "ended", "head", "id", "out", "parts", "size", "trailers", "window")

    def __init__(
        self, connection: Http2Connection, number: int, head: RequestHead, window: int, begin_s: float
    ) -> None:
        self.connection = connection
        self.id = number
        self.head = head
        self.window = window
        self.begin_s = begin_s
        self.parts: list[bytes] = []
        self.size = 0
        self.ended = False
        """The client has sent all."""
        self.closed = False
        self.out = b""
        self.trailers: bytes | None = None

    def body(self) -> bytes:
        """Everything that the client sent."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


Handler = Callable[[Stream], None]
Closed = Callable[["Http2Connection"], None]


class Http2Connection(asyncio.Protocol):
    """Hands each complete request to `handler`, which answers with `send` and `finish`, now or later."""

    def __init__(self, handler: Handler, max_bytes: int, read_timeout_s: float, closed: Closed) -> None:
        self._handler = handler
        self._max_bytes = max_bytes
        self._read_timeout_s = read_timeout_s
        self._on_closed = closed
        self._decoder = Decoder(max_header_list_size=LARGEST_HEAD_BYTES)
        self._heads: dict[bytes, RequestHead] = {}
        self._buffer = b""
        self._greeted = False
        self.streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._partial: tuple[int, int, bytes] | None = None
        self._peer_window = h2.DEFAULT_WINDOW
        self._initial_window = h2.DEFAULT_WINDOW
        self._received = 0
        self._idle_frames = 0
        self._writes: list[bytes] = []
        self._ending = False

    # asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Send our settings."""
        self.transport: asyncio.Transport = transport
        self.loop = asyncio.get_running_loop()
        self._since = self.loop.time()
        self._write(
            h2.settings(
                {
                    h2.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                    h2.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    h2.MAX_HEADER_LIST_SIZE: LARGEST_HEAD_BYTES,
                }
            )
            + h2.window_update(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all calls."""
        for stream in self.streams.values():
            stream.closed = True
        self.streams.clear()
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        if self._buffer:
            data = self._buffer + data
        try:
            self._buffer = data[self._read(data) :]
        except Http2Error as error:
            self._end_with(error)

    def _read(self, data: bytes) -> int:
        """Handle every whole frame; returns how many bytes that took."""
        at = 0
        if not self._greeted:
            if not h2.PREFACE.startswith(data[: len(h2.PREFACE)]):
                raise Http2Error(h2.PROTOCOL_ERROR, "this port speaks gRPC (HTTP/2 without TLS)")
            if len(data) < len(h2.PREFACE):
                return 0
            self._greeted = True
            at = len(h2.PREFACE)
        end = len(data)
        while end - at >= h2.HEADER_BYTES:
            high, low, kind, flags, stream = h2.HEADER.unpack_from(data, at)
            size = high << 16 | low
            if size > h2.MAX_FRAME_BYTES:
                raise Http2Error(h2.FRAME_SIZE_ERROR, "frame too large")
            begin = at + h2.HEADER_BYTES
            if end - begin < size:
                break
            at = begin + size
            self._frame(kind, flags, stream & 0x7FFFFFFF, data[begin:at])
        return at

    # frames

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._partial is not None and kind != h2.CONTINUATION:
            raise Http2Error(h2.PROTOCOL_ERROR, "CONTINUATION expected")
        if kind == h2.DATA:
            self._data(flags, number, payload)
        elif kind == h2.HEADERS:
            self._headers(flags, number, payload)
        else:
            self._idle_frames += 1
            if self._idle_frames > MOST_IDLE_FRAMES:
                raise Http2Error(h2.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")
            self._control(kind, flags, number, payload)

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == h2.WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == h2.PING:
            if len(payload) != 8:
                raise Http2Error(h2.FRAME_SIZE_ERROR, "PING of a wrong size")
            if not flags & h2.ACK:
                self._write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.SETTINGS:
            self._settings(flags, payload)
        elif kind == h2.RST_STREAM:
            stream = self.streams.pop(number, None)
            if stream:
                stream.closed = True
        elif kind == h2.CONTINUATION:
            self._continuation(flags, number, payload)
        elif kind == h2.PUSH_PROMISE:
            raise Http2Error(h2.PROTOCOL_ERROR, "a client cannot push")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received > CONNECTION_WINDOW // 2:
            self._write(h2.window_update(0, self._received))
            self._received = 0
        if not number or number > self._last_stream:
            raise Http2Error(h2.PROTOCOL_ERROR, "DATA on an idle stream")
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            return
        data = h2.unpadded(flags, payload)
        if data:
            stream.parts.append(data)
            stream.size += len(data)
            if stream.size > self._max_bytes + 5:
                self.fail(stream, 8, f"Received message larger than max ({stream.size} vs. {self._max_bytes})")
                return
        else:
            self._idle_frames += 1
        if flags & h2.END_STREAM:
            self._complete(stream)
        elif stream.size > STREAM_WINDOW // 2 and payload:
            self._write(h2.window_update(number, len(payload)))

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        block = h2.header_block(flags, payload)
        if flags & h2.END_HEADERS:
            self._block(flags, number, block)
        else:
            self._partial = (flags, number, block)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._partial is None or self._partial[1] != number:
            raise Http2Error(h2.PROTOCOL_ERROR, "CONTINUATION of nothing")
        first_flags, _, block = self._partial
        block += payload
        if len(block) > LARGEST_HEAD_BYTES:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "head too large")
        self._partial = (first_flags, number, block)
        if flags & h2.END_HEADERS:
            self._partial = None
            self._block(first_flags, number, block)

    def _block(self, flags: int, number: int, block: bytes) -> None:
        head = self._heads.get(block) or self._decode(block)
        if number <= self._last_stream:
            stream = self.streams.get(number)
            if stream is not None and flags & h2.END_STREAM and not stream.ended:
                self._complete(stream)
            return
        if not number & 1:
            raise Http2Error(h2.PROTOCOL_ERROR, "a client's streams are odd")
        self._last_stream = number
        if self._ending or len(self.streams) >= MOST_STREAMS:
            self._write(h2.rst_stream(number, h2.REFUSED_STREAM))
            return
        stream = Stream(self, number, head, self._initial_window, self.loop.time())
        self.streams[number] = stream
        if head.http_error:
            self._http_error(stream)
        elif flags & h2.END_STREAM:
            self._complete(stream)

    def _decode(self, block: bytes) -> RequestHead:
        """Read a header block, and remember it if it changed no table: a client's later blocks are the same bytes."""
        entries = self._decoder.header_table.dynamic_entries
        size, first = len(entries), entries[0] if entries else None
        try:
            fields = dict(self._decoder.decode(block, raw=True))
        except (HPACKError, ValueError, UnicodeDecodeError, IndexError) as error:
            raise Http2Error(h2.COMPRESSION_ERROR, f"head not readable: {error}") from error
        head = _head(fields)
        entries = self._decoder.header_table.dynamic_entries
        if len(entries) != size or (entries and entries[0] is not first):
            self._heads.clear()
        elif len(self._heads) < 64:
            self._heads[block] = head
        return head

    def _complete(self, stream: Stream) -> None:
        stream.ended = True
        self._idle_frames = 0
        self._handler(stream)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & h2.ACK:
            return
        if len(payload) % 6:
            raise Http2Error(h2.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        for i in range(0, len(payload), 6):
            key, value = int.from_bytes(payload[i : i + 2], "big"), int.from_bytes(payload[i + 2 : i + 6], "big")
            if key == h2.INITIAL_WINDOW_SIZE:
                self._set_window(value)
        self._write(h2.frame(h2.SETTINGS, h2.ACK, 0))

    def _set_window(self, value: int) -> None:
        if value > h2.MAX_WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
        change, self._initial_window = value - self._initial_window, value
        for stream in list(self.streams.values()):
            stream.window += change
            self._pump(stream)

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(h2.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        increment = int.from_bytes(payload, "big") & h2.MAX_WINDOW
        if not increment:
            raise Http2Error(h2.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                stream.window += increment
                if stream.window > h2.MAX_WINDOW:
                    raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
                self._pump(stream)
            return
        self._peer_window += increment
        if self._peer_window > h2.MAX_WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
        for stream in [s for s in self.streams.values() if s.trailers is not None or s.out]:
            self._pump(stream)

    # answers

    def answer(self, stream: Stream, message: bytes) -> None:
        """One message and an OK end."""
        if stream.closed:
            return
        size = len(message) + 5
        if size <= h2.MAX_FRAME_BYTES and size <= self._peer_window and size <= stream.window:
            number = stream.id
            self._peer_window -= size
            self._write(
                _RESPONSE_HEAD + number.to_bytes(4, "big") + _RESPONSE_FIELDS
                + h2.HEADER.pack(0, size, h2.DATA, 0, number) + b"\x00" + (size - 5).to_bytes(4, "big") + message
                + _TRAILERS_HEAD + number.to_bytes(4, "big") + _OK_FIELDS
            )  # fmt: skip
            self._close(stream)
            return
        self.open(stream)
        self.send(stream, message)
        self.finish(stream)

    def open(self, stream: Stream) -> None:
        """The response's head: `send` follows, any number of times, and `finish`."""
        if not stream.closed:
            self._write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream.id, _RESPONSE_FIELDS))

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of the response; it waits for the client's windows."""
        if not stream.closed:
            stream.out += b"\x00" + len(message).to_bytes(4, "big") + message
            self._pump(stream)

    def finish(self, stream: Stream) -> None:
        """An OK end, once everything is sent."""
        stream.trailers = _OK_FIELDS
        self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send what the windows allow."""
        while stream.out and not stream.closed:
            size = min(len(stream.out), h2.MAX_FRAME_BYTES, self._peer_window, stream.window)
            if size <= 0:
                return
            self._write(h2.frame(h2.DATA, 0, stream.id, stream.out[:size]))
            stream.out = stream.out[size:]
            self._peer_window -= size
            stream.window -= size
        if stream.trailers is not None and not stream.closed:
            self._write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream.id, stream.trailers))
            self._close(stream)

    def fail(self, stream: Stream, code: int, message: str) -> None:
        """End the call with a gRPC status that is not OK."""
        if stream.closed:
            return
        fields = _RESPONSE_FIELDS + h2.literal(b"grpc-status", str(code).encode())
        fields += h2.literal(b"grpc-message", _percent_encoded(message))
        self._write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream.id, fields))
        self._close(stream)

    def _http_error(self, stream: Stream) -> None:
        fields = h2.status_field(stream.head.http_error)
        self._write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream.id, fields))
        self._close(stream)

    def _close(self, stream: Stream) -> None:
        stream.closed = True
        stream.parts = []
        self.streams.pop(stream.id, None)
        if not stream.ended:
            self._write(h2.rst_stream(stream.id, h2.NO_ERROR))
        if self._ending and not self.streams:
            self._flush()
            self.transport.close()

    def _write(self, data: bytes) -> None:
        """Everything that one turn of the loop writes goes out in one piece."""
        if not self._writes:
            self.loop.call_soon(self._flush)
        self._writes.append(data)

    def _flush(self) -> None:
        writes, self._writes = self._writes, []
        if not writes or self.transport.is_closing():
            return
        self.transport.write(writes[0] if len(writes) == 1 else b"".join(writes))
        if self.transport.get_write_buffer_size() > LARGEST_BACKLOG_BYTES:
            self.transport.abort()

    # the end

    def _end_with(self, error: Http2Error) -> None:
        self._buffer = b""
        self._write(h2.goaway(self._last_stream, error.code, str(error)))
        self._flush()
        self.transport.close()

    def drain(self) -> None:
        """Refuse new calls, and close when those under way are answered."""
        self._ending = True
        self._write(h2.goaway(self._last_stream, h2.NO_ERROR))
        if not self.streams:
            self._flush()
            self.transport.close()

    def check_time(self, now_s: float) -> None:
        """Give up requests that do not arrive in time, and connections that never spoke HTTP/2."""
        if not self._greeted and now_s - self._since > self._read_timeout_s:
            self.transport.abort()
            return
        for stream in list(self.streams.values()):
            if not stream.ended and now_s - stream.begin_s > self._read_timeout_s + stream.size / (16 << 10):
                self.fail(stream, 4, "The request did not arrive in time.")


_RESPONSE_FIELDS = h2.status_field(200) + h2.literal(b"content-type", b"application/grpc")
_RESPONSE_HEAD = h2.frame(h2.HEADERS, h2.END_HEADERS, 0, _RESPONSE_FIELDS)[:5]
_OK_FIELDS = h2.literal(b"grpc-status", b"0")
_TRAILERS_HEAD = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 0, _OK_FIELDS)[:5]


def _head(fields: dict[bytes, bytes]) -> RequestHead:
    path = fields.get(b":path", b"").decode("ascii", "replace")
    error = 0
    if fields.get(b":method") != b"POST":
        error = 405
    elif not fields.get(b"content-type", b"").startswith(b"application/grpc"):
        error = 415
    match = _TIMEOUT.fullmatch(fields.get(b"grpc-timeout", b""))
    timeout_s = int(match[1]) * _UNITS_S[match[2]] if match else None
    return RequestHead(path, fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace"), timeout_s, error)


def _percent_encoded(message: str) -> bytes:
    """As gRPC encodes grpc-message: printable ASCII but % as it is; cut where it would not fit a client's limit."""
    raw = message.encode("utf-8", "replace")[:4000]
    return b"".join(bytes([c]) if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in raw)
