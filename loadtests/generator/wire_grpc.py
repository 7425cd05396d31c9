"""gRPC's HTTP/2 as a client must speak it: unary calls with prebuilt bytes, without I/O (RFC 9113, gRPC over HTTP/2).

grpcio's own client runs threads of its own and, under gevent, a poller that has crashed there; it also stamps no time
at the socket. A unary call is one HEADERS and a few DATA frames, so they are built once and only the stream's number is
written in. Header compression of replies is left to the `hpack` library.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from serving.headers import Fields, merged
from serving.http2_frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_BYTES,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Error,
    frame,
    header_block,
    rst_stream,
    settings,
    unpadded,
    window_update,
)

_STREAM_WINDOW: Final = 64 * 1024 * 1024
_CONNECTION_WINDOW: Final = 1 << 30
_LAST_STREAM: Final = (1 << 31) - 3
_FRAME_SIZES: Final = (MAX_FRAME_BYTES, (1 << 24) - 1)
"""Least and most that a peer may allow (RFC 9113, 6.5.2)."""
_UNKNOWN: Final = 2  # gRPC's status for a reply without one


class GrpcReply:
    """One unary call's reply, complete or failed."""

    __slots__ = (
        "body",
        "error",
        "http_status",
        "message",
        "received",
        "sent_left",
        "sent_window",
        "started",
        "status",
    )

    def __init__(self, sent_left: memoryview, sent_window: int) -> None:
        self.body = b""
        self.status: int | None = None
        """gRPC status code; None until trailers came."""
        self.message = ""
        self.http_status = 0
        self.error = ""
        """Why the stream broke (RST_STREAM), empty otherwise."""
        self.received = 0
        self.started = False
        self.sent_left = sent_left
        """Bytes of DATA that flow control still holds back."""
        self.sent_window = sent_window


def request_headers(scheme: str, authority: str, path: str, timeout_s: float, metadata: Fields = ()) -> bytes:
    """A header block for one gRPC method that never touches the compression table, so it fits any connection.

    `metadata` has names in lower case; `host` takes the place of :authority, `user-agent` that of ours.
    """
    own = [
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "servestorm"),
        ("grpc-timeout", f"{max(1, int(timeout_s * 1000))}m"),
    ]
    given = [(":authority" if name == "host" else name, value) for name, value in metadata]
    # "Sensitive" fields are written as never indexed literals: they leave the peer's table as it is, and a secret is
    # kept in no table.
    fields = [(name, value, True) for name, value in merged(own, given)]
    block: bytes = Encoder().encode([(":method", "POST", False), (":scheme", scheme, False), *fields], huffman=True)
    return block


def message_bytes(message: bytes) -> bytes:
    """gRPC's length-prefixed message, not compressed."""
    return b"\0" + struct.pack(">I", len(message)) + message


class Http2Client:
    """The client's half of one connection. Bytes to write collect in `outgoing`; whoever owns the socket takes them."""

    def __init__(self) -> None:
        self.outgoing: list[bytes | memoryview] = [
            PREFACE,
            settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: _STREAM_WINDOW, MAX_CONCURRENT_STREAMS: 0}),
            window_update(0, _CONNECTION_WINDOW - DEFAULT_WINDOW),
        ]
        self.max_streams = 100
        """How many the peer allows at once (100 until its settings arrive)."""
        self.streams: dict[int, GrpcReply] = {}
        self.going_away = False
        self.newly_started: list[int] = []
        """Streams whose first bytes came since the owner last cleared this."""
        self._next_stream = 1
        self._buffer = b""
        self._decoder = Decoder()
        self._decoded: dict[bytes, list[tuple[str, str]]] = {}
        self._block: tuple[int, int, bytearray] | None = None
        self._peer_window = DEFAULT_WINDOW
        self._peer_frame = MAX_FRAME_BYTES
        self._send_window = DEFAULT_WINDOW
        self._unacknowledged = 0

    @property
    def open_for_more(self) -> bool:
        """True while another stream may be started."""
        return not self.going_away and len(self.streams) < self.max_streams and self._next_stream < _LAST_STREAM

    def start(self, headers: bytes, data: bytes) -> int:
        """Queue one call and return its stream number."""
        stream = self._next_stream
        self._next_stream += 2
        reply = GrpcReply(memoryview(data), self._peer_window)
        self.streams[stream] = reply
        self.outgoing.append(frame(HEADERS, END_HEADERS, stream, headers))
        self._send_data(stream, reply)
        return stream

    def cancel(self, stream: int) -> None:
        """Give a call up (a timeout); its late frames are ignored."""
        if self.streams.pop(stream, None) is not None:
            self.outgoing.append(rst_stream(stream, CANCEL))

    def receive(self, data: bytes) -> list[tuple[int, GrpcReply]]:
        """Take bytes; return the calls that they completed. Raises Http2Error where the connection is beyond use."""
        buffer = self._buffer + data if self._buffer else data
        position, size = 0, len(buffer)
        finished: list[tuple[int, GrpcReply]] = []
        while size - position >= HEADER_BYTES:
            high, low, kind, flags, stream = HEADER.unpack_from(buffer, position)
            length = high << 16 | low
            if length > MAX_FRAME_BYTES:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {length} bytes, over the 16 KiB announced")
            begin = position + HEADER_BYTES
            end = begin + length
            if end > size:
                break
            self._take(kind, flags, stream & 0x7FFFFFFF, buffer[begin:end], finished)
            position = end
        self._buffer = buffer[position:]
        return finished

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        if self._block is not None and kind != CONTINUATION:
            raise Http2Error(PROTOCOL_ERROR, "a header block was interrupted")
        if kind == DATA:
            self._take_data(flags, stream, payload, finished)
        elif kind == HEADERS:
            self._take_headers(flags, stream, header_block(flags, payload), finished)
        elif kind == CONTINUATION:
            self._take_continuation(flags, payload, finished)
        elif kind == WINDOW_UPDATE:
            self._take_window(stream, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, payload)
        elif kind == PING:
            if not flags & ACK:
                self.outgoing.append(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self._take_reset(stream, payload, finished)
        elif kind == GOAWAY:
            self._take_goaway(payload, finished)
        elif kind == PUSH_PROMISE:
            raise Http2Error(PROTOCOL_ERROR, "the server pushed although push is off")

    def _take_data(self, flags: int, stream: int, payload: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged > _CONNECTION_WINDOW // 2:
            self.outgoing.append(window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        reply = self.streams.get(stream)
        if reply is None:
            return
        self._note_start(stream, reply)
        reply.received += len(payload)
        data = unpadded(flags, payload)
        reply.body = reply.body + data if reply.body else data
        if len(reply.body) > _STREAM_WINDOW // 2:
            self.cancel(stream)
            reply.error = "a reply over 32 MiB"
            finished.append((stream, reply))
        elif flags & END_STREAM:
            self._finish(stream, reply, finished)

    def _note_start(self, stream: int, reply: GrpcReply) -> None:
        if not reply.started:
            reply.started = True
            self.newly_started.append(stream)

    def _take_headers(self, flags: int, stream: int, block: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        if flags & END_HEADERS:
            self._take_block(stream, bool(flags & END_STREAM), block, finished)
        else:
            self._block = (stream, flags, bytearray(block))

    def _take_continuation(self, flags: int, payload: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        if self._block is None:
            raise Http2Error(PROTOCOL_ERROR, "a CONTINUATION without its HEADERS")
        stream, first_flags, block = self._block
        block += payload
        if len(block) > 1 << 18:
            raise Http2Error(PROTOCOL_ERROR, "a header block over 256 KiB")
        if flags & END_HEADERS:
            self._block = None
            self._take_block(stream, bool(first_flags & END_STREAM), bytes(block), finished)

    def _take_block(self, stream: int, ends: bool, block: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        fields = self._decode(block)
        reply = self.streams.get(stream)
        if reply is None:
            return
        self._note_start(stream, reply)
        reply.received += len(block)
        for name, value in fields:
            if name == "grpc-status":
                reply.status = _number(value, _UNKNOWN)
            elif name == "grpc-message":
                reply.message = value
            elif name == ":status":
                reply.http_status = _number(value, 0)
        if ends:
            self._finish(stream, reply, finished)

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        """Decode a header block; a block of table indexes only leaves the table as it is and is decoded once."""
        known = self._decoded.get(block)
        if known is not None:
            return known
        try:
            fields = [(_text(f[0]), _text(f[1])) for f in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise Http2Error(PROTOCOL_ERROR, f"headers that cannot be decoded ({error})") from error
        if all(byte & 0x80 for byte in block):
            if len(self._decoded) < 256:
                self._decoded[block] = fields
        else:
            # The table may have moved: what an index means has changed.
            self._decoded.clear()
        return fields

    def _finish(self, stream: int, reply: GrpcReply, finished: list[tuple[int, GrpcReply]]) -> None:
        self.streams.pop(stream, None)
        if reply.status is None:
            reply.status = _UNKNOWN
            reply.error = f"no grpc-status (HTTP {reply.http_status})"
        if reply.sent_left:
            # Answered before the request was sent whole: tell the server that the rest will not come.
            self.outgoing.append(rst_stream(stream, CANCEL))
        finished.append((stream, reply))

    def _take_window(self, stream: int, payload: bytes) -> None:
        increment = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        if stream == 0:
            self._send_window += increment
            for number, reply in list(self.streams.items()):
                if reply.sent_left:
                    self._send_data(number, reply)
        elif (reply_ := self.streams.get(stream)) is not None:
            reply_.sent_window += increment
            if reply_.sent_left:
                self._send_data(stream, reply_)

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for offset in range(0, len(payload) - 5, 6):
            key, value = struct.unpack_from(">HI", payload, offset)
            if key == MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif key == MAX_FRAME_SIZE:
                if not _FRAME_SIZES[0] <= value <= _FRAME_SIZES[1]:
                    raise Http2Error(PROTOCOL_ERROR, f"a largest frame of {value} bytes")
                self._peer_frame = value
            elif key == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise Http2Error(FLOW_CONTROL_ERROR, f"SETTINGS with a window of {value} bytes")
                for reply in self.streams.values():
                    reply.sent_window += value - self._peer_window
                self._peer_window = value
        self.outgoing.append(frame(SETTINGS, ACK, 0))
        for number, reply in list(self.streams.items()):
            if reply.sent_left:
                self._send_data(number, reply)

    def _take_reset(self, stream: int, payload: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        reply = self.streams.pop(stream, None)
        if reply is not None:
            reply.error = f"stream reset by the server (code {int.from_bytes(payload[:4], 'big')})"
            finished.append((stream, reply))

    def _take_goaway(self, payload: bytes, finished: list[tuple[int, GrpcReply]]) -> None:
        self.going_away = True
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        for stream in [s for s in self.streams if s > last]:
            reply = self.streams.pop(stream)
            reply.error = f"connection going away (code {int.from_bytes(payload[4:8], 'big')})"
            finished.append((stream, reply))

    def _send_data(self, stream: int, reply: GrpcReply) -> None:
        left = reply.sent_left
        while left:
            size = min(len(left), self._peer_frame, self._send_window, reply.sent_window)
            if size <= 0:
                break
            last = size == len(left)
            self.outgoing.append(HEADER.pack(size >> 16, size & 0xFFFF, DATA, END_STREAM if last else 0, stream))
            self.outgoing.append(left[:size])
            left = left[size:]
            self._send_window -= size
            reply.sent_window -= size
        reply.sent_left = left


def unframe(body: bytes) -> Sequence[bytes]:
    """The messages in a reply's DATA bytes; raises Http2Error where they are cut short or compressed."""
    messages, position = [], 0
    while position < len(body):
        if len(body) - position < 5:
            raise Http2Error(PROTOCOL_ERROR, "a gRPC message cut short")
        if body[position]:
            raise Http2Error(PROTOCOL_ERROR, "a compressed gRPC message, which was not asked for")
        end = position + 5 + int.from_bytes(body[position + 1 : position + 5], "big")
        if end > len(body):
            raise Http2Error(PROTOCOL_ERROR, "a gRPC message cut short")
        messages.append(body[position + 5 : end])
        position = end
    return messages


def _number(text: str, otherwise: int) -> int:
    """A status of up to four digits; `otherwise` for any other text, whatever a server writes there."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else otherwise


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
