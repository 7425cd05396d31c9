"""One HTTP/2 connection that carries gRPC calls of one message each way (RFC 9113 and gRPC over HTTP/2).

grpcio's Python server costs about 0.4 ms of CPU a call, as much as a small network's share of a batch; this costs a
fifth of that, because a call is a few slices of bytes on the event loop's own thread. It bounds what a peer can make
it keep or do: the size of heads and messages, streams at a time, resets, frames that bring nothing, and the time that
a request may take to arrive and an answer to be taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from serving import http2_frames as h2
from serving.http2_frames import Http2Error
from serving.savedmodel_server.body_budget import BodyBudget
from serving.savedmodel_server.errors import Code
from serving.savedmodel_server.rpc.answer_frames import answer_head, failure, http_failure, ok_end, whole_answer
from serving.savedmodel_server.rpc.bounds import (
    CONNECTION_WINDOW,
    LARGEST_BACKLOG_BYTES,
    LARGEST_HEAD_BYTES,
    MOST_IDLE_FRAMES,
    MOST_RESETS,
    MOST_STREAMS,
    STREAM_WINDOW,
    greeting,
    is_unsent_too_long,
    is_untaken_too_long,
    longest_s,
)
from serving.savedmodel_server.rpc.call_head import Fields, malformed_trailers
from serving.savedmodel_server.rpc.frame_rules import check_frame, read_settings
from serving.savedmodel_server.rpc.head_blocks import HeadBlocks
from serving.savedmodel_server.rpc.stream import CutStreams, Stream

_LONGEST_TIMER_S = 1e6

Handler = Callable[[Stream], None]
Closed = Callable[["Http2Connection"], None]


class Http2Connection(asyncio.Protocol):
    """Hands each complete request to `handler`, which answers with `send` and `finish`, now or later."""

    def __init__(
        self, handler: Handler, max_bytes: int, budget: BodyBudget, read_timeout_s: float, closed: Closed
    ) -> None:
        self._handler = handler
        self._max_bytes = max_bytes
        self._budget = budget
        self._read_timeout_s = read_timeout_s
        self._on_closed = closed
        blocks = HeadBlocks()
        self._heads, self._read_head, self._read_fields = blocks.known, blocks.head, blocks.fields
        self._buffer = b""
        self._greeted = False
        """The preface has come."""
        self._settled = False
        """So have the client's first settings."""
        self.streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._cut = CutStreams()
        self._partial: tuple[int, int, bytes] | None = None
        self._partial_s = 0.0
        self._peer_window = h2.DEFAULT_WINDOW
        self._initial_window = h2.DEFAULT_WINDOW
        self._received = 0
        self._idle_frames = 0
        self._resets = 0
        self._backlog = 0
        """Bytes of answers that the client's windows keep back."""
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._writes: list[bytes] = []
        self._ending = False

    # asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Send our settings."""
        self.transport: asyncio.Transport = transport
        self.loop = asyncio.get_running_loop()
        self._since = self.loop.time()
        self._write(greeting())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all calls."""
        for stream in list(self.streams.values()):
            self._forget(stream)
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        if self._buffer:
            data = self._buffer + data
        try:
            self._buffer = data[self._read(data) :]
        except Http2Error as error:
            self._end_with(error)

    def pause_writing(self) -> None:
        """The client does not read: `check_time` gives it up."""
        self._unread_since = self.loop.time()
        self._unread_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The client reads on."""
        self._unread_since = None

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
        if not self._settled:
            if kind != h2.SETTINGS or flags & h2.ACK:
                raise Http2Error(h2.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self._settled = True
        if kind == h2.DATA:
            self._data(flags, number, payload)
        elif kind == h2.HEADERS:
            self._headers(flags, number, payload)
        else:
            self._count_idle()
            self._control(kind, flags, number, payload)

    def _count_idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > MOST_IDLE_FRAMES:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _count_reset(self) -> None:
        self._resets += 1
        if self._resets > MOST_RESETS:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "too many calls that are reset")

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        check_frame(kind, number, len(payload))
        if kind == h2.WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == h2.PING:
            if not flags & h2.ACK:
                self._write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.SETTINGS:
            for key, value in read_settings(flags, payload):
                if key == h2.INITIAL_WINDOW_SIZE:
                    self._set_window(value)
            if not flags & h2.ACK:
                self._write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        elif kind == h2.RST_STREAM:
            self._require_opened(number)
            stream = self.streams.get(number)
            if stream is not None:
                self._forget(stream)
                self._count_reset()
        elif kind == h2.CONTINUATION:
            self._continuation(flags, number, payload)

    def _require_opened(self, number: int) -> None:
        if number > self._last_stream or not number & 1:
            raise Http2Error(h2.PROTOCOL_ERROR, f"a frame on stream {number}, which is idle")

    def _require_cut(self, number: int) -> None:
        """Of a stream that is over: it must be one that we ended first."""
        if number not in self._cut:
            raise Http2Error(h2.STREAM_CLOSED, f"a frame on stream {number}, which is closed")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > CONNECTION_WINDOW // 2:
            self._write(h2.window_update(0, self._received))
            self._received = 0
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            self._require_opened(number)
            self._require_cut(number)
            if not size:
                self._count_idle()
            return
        data = h2.unpadded(flags, payload) if flags & h2.PADDED else payload
        stream.unacknowledged += size
        if stream.unacknowledged > STREAM_WINDOW:
            self._reset(stream, h2.FLOW_CONTROL_ERROR)
            return
        if data:
            stream.add(data)
            if stream.size > self._max_bytes + 5:
                text = f"Received message larger than max ({stream.size} vs. {self._max_bytes})"
                self.fail(stream, Code.RESOURCE_EXHAUSTED, text)
                return
        else:
            self._count_idle()
        if flags & h2.END_STREAM:
            self._complete(stream)
        else:
            self._take_part(stream)

    def _take_part(self, stream: Stream) -> None:
        """Count what an unfinished request keeps, and let its client send on."""
        if not self._budget.change(stream.size - stream.held):
            self.fail(stream, Code.UNAVAILABLE, self._budget.refusal)
            return
        stream.held = stream.size
        if stream.unacknowledged > STREAM_WINDOW // 2:
            self._write(h2.window_update(stream.id, stream.unacknowledged))
            stream.unacknowledged = 0

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise Http2Error(h2.PROTOCOL_ERROR, "a client's streams are odd")
        block = h2.header_block(flags, payload)
        if flags & h2.END_HEADERS:
            self._block(flags, number, block)
        else:
            self._partial = (flags, number, block)
            self._partial_s = self.loop.time()

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
        if number <= self._last_stream:
            self._trailers(flags, number, self._read_fields(block))
            return
        head = self._heads.get(block) or self._read_head(block)
        self._last_stream = number
        if self._ending or len(self.streams) >= MOST_STREAMS:
            self._write(h2.rst_stream(number, h2.REFUSED_STREAM))
            if not flags & h2.END_STREAM:
                self._cut.add(number)
            return
        stream = Stream(self, number, head, self._initial_window, self.loop.time())
        self.streams[number] = stream
        stream.ended = bool(flags & h2.END_STREAM)
        if head.malformed:
            self._reset(stream, h2.PROTOCOL_ERROR)
        elif head.http_error:
            self._write(http_failure(number, head.http_error))
            self._close(stream)
        else:
            if head.timeout_s is not None:
                stream.deadline_s = time.monotonic() + head.timeout_s
                stream.timer = self.loop.call_later(min(head.timeout_s, _LONGEST_TIMER_S), self._overdue, stream)
            if stream.ended:
                self._complete(stream)

    def _trailers(self, flags: int, number: int, fields: Fields) -> None:
        """A second head on a stream: what may end a body, though gRPC's clients send none."""
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            self._require_cut(number)
        elif not flags & h2.END_STREAM or malformed_trailers(fields):
            self._reset(stream, h2.PROTOCOL_ERROR)
        else:
            self._complete(stream)

    def _complete(self, stream: Stream) -> None:
        stream.ended = True
        self._idle_frames = 0
        if stream.held:
            self._release(stream)
        length = stream.head.length
        if length is not None and length != stream.size:
            self._reset(stream, h2.PROTOCOL_ERROR)
        elif stream.timer is not None and time.monotonic() >= stream.deadline_s:
            self._overdue(stream)
        else:
            self._handler(stream)

    def _set_window(self, value: int) -> None:
        change, self._initial_window = value - self._initial_window, value
        for stream in list(self.streams.values()):
            stream.window += change
            if stream.window > h2.MAX_WINDOW:
                raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
            self._pump(stream)

    def _window_update(self, number: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & h2.MAX_WINDOW
        if number:
            self._require_opened(number)
            stream = self.streams.get(number)
            if stream is not None:
                stream.window += increment
                if not increment or stream.window > h2.MAX_WINDOW:
                    self._reset(stream, h2.FLOW_CONTROL_ERROR if increment else h2.PROTOCOL_ERROR)
                else:
                    self._pump(stream)
            return
        if not increment:
            raise Http2Error(h2.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        self._peer_window += increment
        if self._peer_window > h2.MAX_WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, "window too large")
        for stream in [s for s in self.streams.values() if s.finished or s.out]:
            self._pump(stream)

    # answers

    def answer(self, stream: Stream, message: bytes) -> None:
        """One message and an OK end."""
        if stream.closed:
            return
        size = len(message) + 5
        if size <= h2.MAX_FRAME_BYTES and size <= self._peer_window and size <= stream.window:
            self._peer_window -= size
            self._write(whole_answer(stream.id, message))
            self._close(stream)
            return
        self.open(stream)
        self.send(stream, message)
        self.finish(stream)

    def open(self, stream: Stream) -> None:
        """The response's head: `send` follows, any number of times, and `finish`."""
        if not stream.closed:
            stream.opened = True
            self._write(answer_head(stream.id))

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of the response; it waits for the client's windows."""
        if stream.closed:
            return
        stream.out = stream.out[stream.sent :] + b"\x00" + len(message).to_bytes(4, "big") + message
        stream.sent = 0
        self._backlog += len(message) + 5
        self._pump(stream)
        if self._backlog > LARGEST_BACKLOG_BYTES:
            self._end_with(Http2Error(h2.ENHANCE_YOUR_CALM, "too many answers that are not taken"))

    def finish(self, stream: Stream) -> None:
        """An OK end, once everything is sent."""
        stream.finished = True
        self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send what the windows allow."""
        while stream.sent < len(stream.out) and not stream.closed:
            size = min(len(stream.out) - stream.sent, h2.MAX_FRAME_BYTES, self._peer_window, stream.window)
            if size <= 0:
                if stream.stalled_s is None:
                    stream.stalled_s = self.loop.time()
                return
            self._write(h2.frame(h2.DATA, 0, stream.id, stream.out[stream.sent : stream.sent + size]))
            stream.sent += size
            self._backlog -= size
            self._peer_window -= size
            stream.window -= size
        stream.stalled_s = None
        if stream.finished and not stream.closed:
            self._write(ok_end(stream.id))
            self._close(stream)

    def fail(self, stream: Stream, code: Code, message: str) -> None:
        """End the call with a gRPC status that is not OK."""
        if stream.closed:
            return
        self._write(failure(stream.id, code, message, opened=stream.opened))
        self._close(stream)

    def _overdue(self, stream: Stream) -> None:
        stream.overdue = True
        self.fail(stream, Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _close(self, stream: Stream) -> None:
        """The end of an answer."""
        if self._resets:
            self._resets -= 1
        self._forget(stream)
        if not stream.ended:
            self._write(h2.rst_stream(stream.id, h2.NO_ERROR))
            self._cut.add(stream.id)
        if self._ending and not self.streams:
            self._flush()
            self.transport.close()

    def _reset(self, stream: Stream, code: int) -> None:
        """A stream error: the client's fault, so that its calls are counted as if it had reset them."""
        self._forget(stream)
        self._write(h2.rst_stream(stream.id, code))
        self._cut.add(stream.id)
        self._count_reset()

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self._backlog -= len(stream.out) - stream.sent
        stream.close()
        if stream.held:
            self._release(stream)

    def _release(self, stream: Stream) -> None:
        self._budget.change(-stream.held)
        stream.held = 0

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
        """Give up requests that do not arrive in time, answers that are not taken, and silent connections."""
        limit_s = self._read_timeout_s
        unread_s = self._unread_since
        silent = not self._settled and now_s - self._since > limit_s
        if silent or (unread_s is not None and now_s - unread_s > longest_s(limit_s, self._unread_bytes)):
            self.transport.abort()
            return
        if self._partial is not None and now_s - self._partial_s > limit_s:
            self._end_with(Http2Error(h2.ENHANCE_YOUR_CALM, "the head did not arrive in time"))
            return
        try:
            for stream in list(self.streams.values()):
                if is_unsent_too_long(stream, now_s, limit_s):
                    self.fail(stream, Code.DEADLINE_EXCEEDED, "The request did not arrive in time.")
                elif is_untaken_too_long(stream, now_s, limit_s):
                    self._reset(stream, h2.CANCEL)
        except Http2Error as error:
            self._end_with(error)
