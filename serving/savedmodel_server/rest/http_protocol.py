"""uvicorn's HTTP/1.1 protocol with a short cut for `:predict` and with bounds on slow clients.

An ASGI cycle with its task, events and messages costs about 50 us a request, half of all Python's work for a small
image. A `:predict` request is answered from the parser's callbacks instead; every other request, and a `:predict`
that is pipelined behind an unfinished one, takes uvicorn's own way through the ASGI application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.savedmodel_server.rest.api import RestApi
from serving.savedmodel_server.rest.http_reply import Reply, json_error, too_large
from serving.savedmodel_server.rest.rest_path import RestTarget

SLOWEST_BYTES_PER_S = 16 << 10
"""A body may take this long in addition to the time that any request has."""
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
LARGEST_HEAD_BYTES = 64 << 10


class _HotCycle:
    """Stands where uvicorn keeps its cycle, so that pipelining and shutdown see a request under way."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.response_complete = True
        self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()


class PredictProtocol(HttpToolsProtocol):
    """One connection."""

    api: RestApi
    max_bytes: int
    read_timeout_s: float
    extra_head: bytes

    def connection_made(self, transport: Any) -> None:
        """Start to count the time that the client takes."""
        super().connection_made(transport)
        self._hot = _HotCycle()
        self._target: RestTarget | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._since: float | None = self.loop.time()
        self._reading = False
        self._in_head = True
        self._head_bytes = 0
        self._messages = 0

    def data_received(self, data: bytes) -> None:
        """Parse, and bound the head, which the parser itself does not."""
        in_head, messages = self._in_head, self._messages
        super().data_received(data)
        # What ended a request is its body; only bytes that began in a head and did not end it are a head's.
        if in_head and self._in_head and messages == self._messages:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._refuse(431, "The request's head is too large.")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._reading = True
        self._size = 0

    def on_headers_complete(self) -> None:
        """Choose the way: the short cut for a `:predict` that nothing is before, uvicorn's for all else."""
        self._in_head = False
        self._head_bytes = 0
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and self.url.endswith(b":predict") and self.parser.get_method() == b"POST":
            self._target = self.api.predict_target(self.url)
            if self._target is not None:
                self._begin_hot()
                return
        self._target = None
        super().on_headers_complete()

    def _begin_hot(self) -> None:
        hot = self._hot
        hot.response_complete = False
        hot.keep_alive = self.parser.should_keep_alive()
        self.cycle = hot  # type: ignore[assignment]
        self._parts = []
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect, up to the limit."""
        self._size += len(body)
        if self._target is None:
            super().on_body(body)
        elif self._size <= self.max_bytes:
            self._parts.append(body)
        elif not self._hot.response_complete:
            self._hot.keep_alive = False
            self._reply(too_large(self.max_bytes))

    def on_message_complete(self) -> None:
        """Run the request."""
        self._since = None
        self._reading = False
        self._in_head = True
        self._messages += 1
        target = self._target
        if target is None:
            super().on_message_complete()
            return
        self._target = None
        if self._hot.response_complete:
            return
        parts, self._parts = self._parts, []
        self.api.start_predict(target, parts[0] if len(parts) == 1 else b"".join(parts), self._reply)

    def _reply(self, reply: Reply) -> None:
        """Write the answer in one piece; the client may be gone."""
        hot = self._hot
        if hot.response_complete or self.transport.is_closing():
            hot.response_complete = True
            return
        head = _JSON_HEAD if reply.status == 200 else STATUS_LINE[reply.status] + _JSON_HEAD[17:]
        end = b"\r\n\r\n" if hot.keep_alive else b"\r\nconnection: close\r\n\r\n"
        self.transport.write(b"%b%d%b%b%b" % (head, len(reply.body), self.extra_head, end, reply.body))
        hot.response_complete = True
        if not hot.keep_alive:
            self.transport.close()
        elif self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._since = self.loop.time()

    def check_time(self, now: float) -> None:
        """Close the connection where the client is too slow to send, or idle for too long."""
        since = self._since
        if since is None or self.transport.is_closing():
            return
        if not self._reading:
            if now - since > self.timeout_keep_alive:
                self.transport.close()
        elif now - since > self.read_timeout_s + self._size / SLOWEST_BYTES_PER_S:
            self._refuse(408, "The request did not arrive in time.")

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP: the same JSON as for any other error."""
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        """Answer if nothing was answered yet, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or self.cycle is self._hot:  # type: ignore[comparison-overlap]
            self._hot.response_complete = False
            self._hot.keep_alive = False
            self._reply(Reply(status, json_error(message)))
        else:
            self.transport.close()


def protocol_class(
    api: RestApi, *, max_bytes: int, read_timeout_s: float, extra_headers: Iterable[tuple[bytes, bytes]]
) -> type[PredictProtocol]:
    """The class that uvicorn makes one of for each connection."""
    head = b"".join(b"\r\n" + name + b": " + value for name, value in extra_headers)

    class Bound(PredictProtocol):
        pass

    Bound.api, Bound.max_bytes, Bound.read_timeout_s, Bound.extra_head = api, max_bytes, read_timeout_s, head
    return Bound
