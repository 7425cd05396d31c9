"""One gRPC call on an HTTP/2 connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.savedmodel_server.errors import Code
from serving.savedmodel_server.rpc.call_head import CallHead

_SMALL_PART_BYTES = 4 << 10
_MOST_CUT = 4096


class StreamOwner(Protocol):
    """What answers a call."""

    def answer(self, stream: Stream, message: bytes) -> None:
        """One message and an OK end."""

    def open(self, stream: Stream) -> None:
        """The response's head: `send` follows, any number of times, and `finish`."""

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of the response."""

    def finish(self, stream: Stream) -> None:
        """An OK end, once everything is sent."""

    def fail(self, stream: Stream, code: Code, message: str) -> None:
        """End the call with a gRPC status that is not OK."""


class CutStreams:
    """The streams that we ended before the client did, which may send on for a while."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._below = 0
        """As far as older ones are remembered."""

    def add(self, number: int) -> None:
        """Remember one."""
        if len(self._numbers) >= _MOST_CUT:
            self._below = max(self._numbers)
            self._numbers.clear()
        self._numbers.add(number)

    def __contains__(self, number: int) -> bool:
        return number <= self._below or number in self._numbers


class Stream:
    """A call between its head and its answer; the caller of what runs for it."""

    __slots__ = (
        "begin_s", "closed", "connection", "deadline_s", "ended", "finished", "head", "held", "id", "opened", "out",
        "overdue", "parts", "sent", "size", "stalled_s", "timer", "unacknowledged", "window",
    )  # fmt: skip

    def __init__(self, connection: StreamOwner, number: int, head: CallHead, window: int, begin_s: float) -> None:
        self.connection = connection
        self.id = number
        self.head = head
        self.window = window
        self.begin_s = begin_s
        self.parts: list[bytes | bytearray] = []
        self.size = 0
        self.unacknowledged = 0
        """Bytes of DATA frames, with their padding, that no WINDOW_UPDATE has given back."""
        self.held = 0
        """Of the budget for unfinished requests."""
        self.ended = False
        """The client has sent all."""
        self.opened = False
        """The response's head is sent."""
        self.closed = False
        self.overdue = False
        """Its deadline has passed."""
        self.deadline_s = 0.0
        """Of the monotonic clock, where there is a timer."""
        self.timer: asyncio.TimerHandle | None = None
        self.out = b""
        self.sent = 0
        """Bytes of `out` that are sent."""
        self.stalled_s: float | None = None
        """Since when the client's windows keep something back."""
        self.finished = False
        """Nothing follows `out`."""

    def add(self, data: bytes) -> None:
        """Keep a part of the body; many small parts become few, as each would need many times its bytes."""
        self.size += len(data)
        parts = self.parts
        if parts and len(data) < _SMALL_PART_BYTES and len(last := parts[-1]) < _SMALL_PART_BYTES:
            if not isinstance(last, bytearray):
                last = parts[-1] = bytearray(last)
            last += data
        else:
            parts.append(data)

    def body(self) -> bytes:
        """Everything that the client sent."""
        first = self.parts[0] if len(self.parts) == 1 else None
        return first if isinstance(first, bytes) else b"".join(self.parts)

    def close(self) -> None:
        """Nobody waits for it any more: what has not begun to run is not run."""
        self.closed = True
        self.parts = []
        self.out = b""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
