"""HTTP/2 frames (RFC 9113), as our gRPC server and the load generator's client write and read them, without I/O.

Of HPACK (RFC 7541) there is what the server writes: literals that enter no table.
"""

from __future__ import annotations

from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = Struct(">BHBBL")
"""Length (high byte, low bytes), type, flags, stream."""
HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384
DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 8, 9, 11

ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6


class Http2Error(Exception):
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def window_update(stream: int, increment: int) -> bytes:
    """Allow the peer that many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """End one stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_stream: int, code: int, why: str = "") -> bytes:
    """Begin the end of the connection."""
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode())


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that enters no table (RFC 7541, 6.2.2), without Huffman coding."""
    return b"\x00" + _counted(name) + _counted(value)


def _counted(text: bytes) -> bytes:
    return _integer(len(text), 7) + text


def _integer(value: int, prefix_bits: int) -> bytes:
    """RFC 7541, 5.1, with all bits before the prefix 0."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([value])
    out = [limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def status_field(status: int) -> bytes:
    """`:status`, from the static table where it is there."""
    index = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}.get(status)
    return bytes([0x80 | index]) if index else literal(b":status", str(status).encode())


def header_block(flags: int, payload: bytes) -> bytes:
    """A HEADERS frame's block, without padding and priority; raises Http2Error."""
    block = unpadded(flags, payload)
    if not flags & HAS_PRIORITY:
        return block
    if len(block) < 5:
        raise Http2Error(FRAME_SIZE_ERROR, "HEADERS shorter than its priority")
    return block[5:]


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without its padding; raises Http2Error."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
