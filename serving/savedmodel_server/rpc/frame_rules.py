"""What RFC 9113, section 6, demands of each HTTP/2 frame that carries no part of a call."""

from __future__ import annotations

from collections.abc import Iterator

from serving import http2_frames as h2
from serving.http2_frames import Http2Error

_OF_THE_CONNECTION = frozenset((h2.SETTINGS, h2.PING, h2.GOAWAY))
_OF_A_STREAM = frozenset((h2.PRIORITY, h2.RST_STREAM, h2.CONTINUATION))
_SIZES = {h2.RST_STREAM: 4, h2.PING: 8, h2.WINDOW_UPDATE: 4, h2.PRIORITY: 5}
_NAMES = {
    h2.PRIORITY: "PRIORITY", h2.RST_STREAM: "RST_STREAM", h2.SETTINGS: "SETTINGS", h2.PING: "PING",
    h2.GOAWAY: "GOAWAY", h2.WINDOW_UPDATE: "WINDOW_UPDATE", h2.CONTINUATION: "CONTINUATION",
}  # fmt: skip
_LARGEST_FRAME_SIZE = (1 << 24) - 1


def check_frame(kind: int, number: int, size: int) -> None:
    """Raise Http2Error where a frame is on the wrong kind of stream, or of a wrong size."""
    if kind == h2.PUSH_PROMISE:
        raise Http2Error(h2.PROTOCOL_ERROR, "a client cannot push")
    if (number and kind in _OF_THE_CONNECTION) or (not number and kind in _OF_A_STREAM):
        raise Http2Error(h2.PROTOCOL_ERROR, f"{_NAMES[kind]} on stream {number}")
    if size != _SIZES.get(kind, size) or (kind == h2.GOAWAY and size < 8):
        raise Http2Error(h2.FRAME_SIZE_ERROR, f"{_NAMES[kind]} of a wrong size")


def read_settings(flags: int, payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a frame, checked; none of an acknowledgement. Raises Http2Error."""
    if len(payload) % 6 or (flags & h2.ACK and payload):
        raise Http2Error(h2.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
    for i in range(0, len(payload), 6):
        key, value = int.from_bytes(payload[i : i + 2], "big"), int.from_bytes(payload[i + 2 : i + 6], "big")
        if key == h2.INITIAL_WINDOW_SIZE and value > h2.MAX_WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
        if key == h2.ENABLE_PUSH and value > 1:
            raise Http2Error(h2.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if key == h2.MAX_FRAME_SIZE and not h2.MAX_FRAME_BYTES <= value <= _LARGEST_FRAME_SIZE:
            raise Http2Error(h2.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
        yield key, value
