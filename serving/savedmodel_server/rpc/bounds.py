"""What the peer of one HTTP/2 connection may make us keep or do, and how long it may take."""

from __future__ import annotations

from serving import http2_frames as h2
from serving.savedmodel_server.rpc.stream import Stream

STREAM_WINDOW = 4 << 20
"""Bytes of one request that the client may send ahead of our WINDOW_UPDATE."""
CONNECTION_WINDOW = 64 << 20
"""The same of all requests of a connection."""
MOST_STREAMS = 1024
LARGEST_HEAD_BYTES = 32 << 10
LARGEST_BACKLOG_BYTES = 64 << 20
"""Of answers that the client does not take."""
MOST_IDLE_FRAMES = 2000
"""Frames in a row that bring nothing (PING, SETTINGS, RST_STREAM, empty DATA, ...) before the connection is ended."""
MOST_RESETS = 1000
"""Calls that are reset unanswered, less those answered, before the connection is ended."""
SLOWEST_BYTES_PER_S = 16 << 10


def greeting() -> bytes:
    """Our first frames: SETTINGS with the bounds, and a WINDOW_UPDATE for the connection."""
    announced = {
        h2.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        h2.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        h2.MAX_HEADER_LIST_SIZE: LARGEST_HEAD_BYTES,
    }
    return h2.settings(announced) + h2.window_update(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW)


def longest_s(limit_s: float, size_bytes: int) -> float:
    """Seconds that so many bytes may take: `limit_s`, and more the more they are."""
    return limit_s + size_bytes / SLOWEST_BYTES_PER_S


def is_unsent_too_long(stream: Stream, now_s: float, limit_s: float) -> bool:
    """True where a request did not arrive in time."""
    return not stream.ended and now_s - stream.begin_s > longest_s(limit_s, stream.size)


def is_untaken_too_long(stream: Stream, now_s: float, limit_s: float) -> bool:
    """True where the client's windows have kept an answer back for too long."""
    since_s = stream.stalled_s
    return since_s is not None and now_s - since_s > longest_s(limit_s, stream.sent)
