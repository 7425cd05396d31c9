"""uvicorn's HTTP/1.1 protocol with our own reader, a short cut for `:predict`, and bounds on slow clients.

An ASGI cycle with its task, events and messages costs about 50 us a request, half of all Python's work for a small
image. A `:predict` request is answered as soon as it is read instead; every other request, and a `:predict`
that is pipelined behind an unfinished one, takes uvicorn's own way through the ASGI application. httptools' parser is
not used: it gives up the body of a request that asks for an upgrade, and takes what RFC 9112 says to refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.savedmodel_server.body_budget import BodyBudget
from serving.savedmodel_server.rest.answer_heads import Dates, OldTransport, answer_head, old_head
from serving.savedmodel_server.rest.api import RestApi, RunningPredict
from serving.savedmodel_server.rest.asgi import TARGET
from serving.savedmodel_server.rest.http_reply import Reply, html_reply, json_error, too_large
from serving.savedmodel_server.rest.request_head import HeadReader, RequestHead, RequestRefused
from serving.savedmodel_server.rest.request_reader import RequestReader

SLOWEST_BYTES_PER_S = 16 << 10
"""A body may take this long in addition to the time that any request has; so may an answer."""
LINGER_S = 5.0
"""How long a client that was refused may go on to send."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SMALL_PART_BYTES = 4 << 10
_LARGE_BODY_BYTES = 1 << 20


class _HotCycle:
    """Stands where uvicorn keeps its cycle, so that pipelining and shutdown see a request under way."""

    __slots__ = ("disconnected", "is_1_1", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.is_1_1 = True
        self.response_complete = True
        self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()


class _ReadRequest:
    """What uvicorn asks its parser about the request that was read last."""

    def __init__(self) -> None:
        self.head: RequestHead | None = None

    def get_http_version(self) -> str:
        """Always that whose connections may stay open: HTTP/1.0's may as well, which uvicorn does not know."""
        return "1.1"

    def get_method(self) -> bytes:
        return self.head.method if self.head else b""

    def should_keep_alive(self) -> bool:
        return self.head is None or self.head.keep_alive

    def should_upgrade(self) -> bool:
        """Never: a server may ignore Upgrade (RFC 9110, section 7.8)."""
        return False


class PredictProtocol(HttpToolsProtocol):
    """One connection."""

    api: RestApi
    heads: HeadReader
    budget: BodyBudget
    max_bytes: int
    read_timeout_s: float
    extra_head: bytes
    dates: Dates

    def connection_made(self, transport: Any) -> None:
        """Start to count the time that the client takes."""
        super().connection_made(transport)
        self.parser = self._asked = _ReadRequest()  # type: ignore[assignment]
        self._reader = RequestReader(self, self.heads)
        self._hot = _HotCycle()
        self._hot_head: RequestHead | None = None
        """Of the `:predict` that is being read."""
        self._running: RunningPredict | None = None
        self._refused: RequestRefused | None = None
        """Waits for the answers to earlier requests."""
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._held = 0
        """Of the budget."""
        self._since: float | None = self.loop.time()
        self._reading = False
        """A request has begun and is not complete."""
        self._in_body = False
        """It is `self.cycle`'s, or the newest of the pipeline."""
        self._owes_continue = False
        """A `:predict` whose body is asked for, should it not have begun."""
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._lingers_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what the client asked for."""
        super().connection_lost(exc)
        self._reader.stop()
        self._release()
        if self._running is not None:
            self._running.abandon()

    def data_received(self, data: bytes) -> None:
        """Read requests, and begin what is complete."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self._reader.feed(data)
            if self._reader.has_part:
                self._hold()
                if self._owes_continue:
                    self._owes_continue = False
                    self.transport.write(_CONTINUE)
        except RequestRefused as refusal:
            self._refuse(refusal)

    def _hold(self) -> None:
        """Count what a request has so far, should it not be complete."""
        if not self._reading:
            self._reading = True
            self._size = 0
            self._since = self.loop.time()
        if not self.budget.change(self._size - self._held):
            raise RequestRefused(503, self.budget.refusal)
        self._held = self._size

    def _release(self) -> None:
        if self._held:
            self.budget.change(-self._held)
            self._held = 0

    # the reader's events

    def on_head(self, head: RequestHead) -> None:
        """Choose the way: the short cut for a `:predict` that nothing is before, uvicorn's for all else."""
        if not self._reading:
            self._reading = True
            self._since = self.loop.time()
        self._size = 0
        self._asked.head = head
        if head.predict is not None and (self.cycle is None or self.cycle.response_complete):
            self._begin_hot(head)
            self._in_body = True
            return
        self._hot_head = None
        self._owes_continue = False
        self.on_message_begin()
        self.url = head.target.partition(b"#")[0] if head.target != b"*" else b"/"
        cast("dict[str, Any]", self.scope)[TARGET] = head.target
        self.headers += head.fields
        self.expect_100_continue = head.expects_100
        try:
            self.on_headers_complete()
        except HttpParserError as error:
            raise RequestRefused(400, "The request target is malformed.", html=True) from error
        if not head.is_1_1:
            old: Any = OldTransport(self.transport, keep_alive=head.keep_alive)
            self.cycle.transport = old
        self._in_body = True

    def _begin_hot(self, head: RequestHead) -> None:
        hot = self._hot
        hot.response_complete = False
        hot.keep_alive = head.keep_alive
        hot.is_1_1 = head.is_1_1
        self.cycle = hot  # type: ignore[assignment]
        self._hot_head = head
        self._parts = []
        self._owes_continue = head.expects_100

    def on_body(self, body: bytes) -> None:
        """Collect, up to the limit."""
        self._size += len(body)
        self._owes_continue = False
        if self._size > self.max_bytes:
            raise RequestRefused(413, too_large(self.max_bytes))
        if self._hot_head is None:
            self.cycle.waiting_for_100_continue = False
            super().on_body(body)
        elif not self._parts:
            self._parts.append(body)
        elif self._size > _LARGE_BODY_BYTES:
            self._add_to_large(body)
        elif len(body) < _SMALL_PART_BYTES and len(last := self._parts[-1]) < _SMALL_PART_BYTES:
            self._parts[-1] = bytearray(last)  # many small objects would need many times their bytes
            self._parts[-1] += body
        else:
            self._parts.append(body)

    def _add_to_large(self, body: bytes) -> None:
        """One block grows in place, and goes back to the system as a whole: many parts would leave holes."""
        if len(self._parts) > 1 or isinstance(self._parts[0], bytes):
            self._parts = [bytearray().join(self._parts)]
        self._parts[0] += body

    def on_message_complete(self) -> None:
        """Run the request."""
        self._since = None
        self._reading = self._in_body = False
        if self._held:
            self._release()
        head = self._hot_head
        if head is None:
            super().on_message_complete()
            return
        self._hot_head = None
        if self._hot.response_complete:
            return
        parts, self._parts = self._parts, []
        body = parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)
        assert head.predict is not None
        running = self.api.start_predict(head.predict, body, self._reply, gzipped=head.gzipped)
        if not running.closed:
            self._running = running

    # answers

    def _reply(self, reply: Reply, *, linger: bool = False) -> None:
        """Write the answer in one piece; the client may be gone."""
        hot = self._hot
        self._running = None
        if hot.response_complete or self.transport.is_closing():
            hot.response_complete = True
            return
        end = b"\r\n\r\n" if hot.keep_alive else b"\r\nconnection: close\r\n\r\n"
        head = answer_head(reply) + self.dates.line(self.server_state.default_headers) + self.extra_head + end
        if not hot.is_1_1:
            head = old_head(head, keep_alive=hot.keep_alive)
        self.transport.write(head + reply.body)
        hot.response_complete = True
        if not hot.keep_alive:
            self._reader.stop()
            if linger:
                self._linger()
            else:
                self.transport.close()
        elif self.pipeline or self.flow.read_paused or self._refused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Begin the next request that is pipelined, or refuse what came after the last."""
        if self._refused is not None and not self.pipeline:
            self._write_refusal(self._refused)
            return
        super().on_response_complete()
        if self._refused is not None or self.flow.write_paused:
            self.flow.pause_reading()

    def _refuse(self, refusal: RequestRefused) -> None:
        """Answer, once what came before is answered, and close."""
        self._reader.stop()
        self._release()
        self._parts = []  # the budget does not count them any more
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._write_refusal(refusal)
        elif not self._in_body or self.pipeline:
            if self._in_body:
                self.pipeline.popleft()
            self._refused = refusal
            self._since = None
            self.flow.pause_reading()
        elif self._hot_head is not None or not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
            self._write_refusal(refusal)
        else:
            self.transport.close()

    def _write_refusal(self, refusal: RequestRefused) -> None:
        hot = self.cycle = self._hot  # type: ignore[assignment]
        hot.response_complete = False
        hot.keep_alive = False
        hot.is_1_1 = True
        reply = html_reply(refusal.status) if refusal.html else Reply(refusal.status, json_error(refusal.message))
        self._reply(reply, linger=True)

    def _linger(self) -> None:
        """Close when the client does, or soon: at once, what it still sends would reset the connection."""
        self._lingers_since = self.loop.time()
        self._since = None
        self.flow.resume_reading()
        self.transport.write_eof()

    # slow clients

    def pause_writing(self) -> None:
        """The client does not read its answers: take no further requests."""
        super().pause_writing()
        self.flow.pause_reading()
        self._unread_since = self.loop.time()
        self._unread_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._unread_since = None
        if not self.pipeline and self._refused is None:
            self.flow.resume_reading()

    def check_time(self, now: float) -> None:
        """Close the connection where the client is too slow to send or to read, or idle for too long."""
        unread_s = self._unread_since
        if unread_s is not None and now - unread_s > self.read_timeout_s + self._unread_bytes / SLOWEST_BYTES_PER_S:
            self.transport.abort()
            return
        if self._lingers_since is not None and now - self._lingers_since > LINGER_S:
            self.transport.close()
        since = self._since
        if since is None or self.transport.is_closing():
            return
        if not self._reading:
            if now - since > self.timeout_keep_alive:
                self.transport.close()
        elif now - since > self.read_timeout_s + self._size / SLOWEST_BYTES_PER_S:
            self._refuse(RequestRefused(408, "The request did not arrive in time."))


def protocol_class(
    api: RestApi,
    *,
    max_bytes: int,
    budget: BodyBudget,
    read_timeout_s: float,
    extra_headers: Iterable[tuple[bytes, bytes]],
) -> type[PredictProtocol]:
    """The class that uvicorn makes one of for each connection."""
    head = b"".join(b"\r\n" + name + b": " + value for name, value in extra_headers)

    class Bound(PredictProtocol):
        pass

    Bound.api, Bound.max_bytes, Bound.read_timeout_s, Bound.extra_head = api, max_bytes, read_timeout_s, head
    Bound.heads, Bound.budget, Bound.dates = HeadReader(api, max_bytes), budget, Dates()
    return Bound
