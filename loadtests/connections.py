"""Connections that carry jobs: HTTP/1.1 with one request at a time, gRPC with many.

A connection belongs to a `Dispatcher`, which gives it jobs and is told how each ended. Nothing here waits: every method
is called when its socket is ready, and time limits are enforced by the dispatcher through `expire`.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Protocol

from loadtests import jobs
from loadtests.jobs import Job
from loadtests.netloop import EPOLLIN, EPOLLOUT, TlsStream, connect_error, open_socket
from loadtests.wire_http1 import MalformedReply, ReplyParser, known_heads, read_head
from loadtests.wire_http2 import GrpcReply, Http2Connection, Http2Error, unframe

_RECEIVE_BYTES = 65_536
_HTTP1_RECEIVE_BYTES = 16_384
_OK = 200


@dataclass(frozen=True)
class Address:
    """Where an endpoint listens, resolved."""

    family: int
    sockaddr: tuple[Any, ...]
    hostname: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class PreparedRequest:
    """A request as bytes: `head` is HTTP/1.1's head and body in one, or a gRPC header block beside its `data`."""

    head: bytes
    data: bytes = b""


class Dispatcher(Protocol):
    """What a connection needs of whoever owns it."""

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call handler(mask) when `fd` is ready."""

    def rewatch(self, fd: int, mask: int) -> None:
        """Change what is waited for."""

    def unwatch(self, fd: int) -> None:
        """Forget `fd`."""

    def check(self, image: int, body: bytes) -> tuple[int, int]:
        """(outcome, correct) of a reply's body."""

    def ended(
        self,
        job: Job,
        done_ns: int,
        outcome: int,
        status: int,
        sent: int,
        received: int,
        correct: int,
        reason: str,
    ) -> None:
        """A job is over; reason names an error, empty otherwise."""

    def turn(self, connection: Connection, job: Job, done_ns: int, received: int, correct: int) -> Job | None:
        """Record a right reply of the usual kind; the job that this connection sends next, if there is one."""

    def available(self, connection: Connection) -> None:
        """The connection can take a job (again)."""

    def lost(self, connection: Connection) -> None:
        """The connection is closed and must not be used."""


class Connection:
    """What both protocols share: the socket's life. Subclasses speak the protocol."""

    def __init__(self, owner: Dispatcher, endpoint: int, address: Address, requests: list[PreparedRequest]) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.connected = False
        self.closed = False
        self.pooled = False
        """Kept by the owner among the connections that wait for a job."""
        self._requests = requests
        self._sock = open_socket(address.family, address.sockaddr)
        self._fd: int = self._sock.fileno()
        self._tls = TlsStream(self._sock, address.tls, address.hostname) if address.tls else None
        self._send: Callable[[bytes | memoryview], int] = self._tls.send if self._tls else self._sock.send
        self._receive: Callable[[int], bytes] = self._tls.recv if self._tls else self._sock.recv
        self._watching = EPOLLOUT
        owner.watch(self._fd, EPOLLOUT, self._on_connecting)

    def assign(self, job: Job) -> None:
        """Send a job's request, or keep it until the connection is made."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """True while another job may be assigned."""
        raise NotImplementedError

    def expire(self, now_ns: int) -> None:
        """End the jobs whose deadline has passed."""
        raise NotImplementedError

    def idle(self) -> bool:
        """True while no job is assigned."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket and forget it; jobs are not told."""
        if not self.closed:
            self.closed = True
            self.owner.unwatch(self._fd)
            self._sock.close()
            self.owner.lost(self)

    def _on_connecting(self, _mask: int) -> None:
        code = connect_error(self._sock)
        if code:
            self._fail(_errno_reason(code, "connect"))
            return
        try:
            if self._tls and not self._tls.handshake():
                self._wait_for(EPOLLIN | (EPOLLOUT if self._tls.wants_write else 0))
                return
        except OSError as error:
            self._fail(f"TLS handshake failed ({_tls_reason(error)})")
            return
        self.connected = True
        self.owner.unwatch(self._fd)
        self._watching = EPOLLIN
        self.owner.watch(self._fd, EPOLLIN, self._on_ready)
        self._on_connected()

    def _wait_for(self, mask: int) -> None:
        if mask != self._watching:
            self._watching = mask
            self.owner.rewatch(self._fd, mask)

    def _on_connected(self) -> None:
        raise NotImplementedError

    def _on_ready(self, mask: int) -> None:
        raise NotImplementedError

    def _fail(self, reason: str) -> None:
        raise NotImplementedError


class Http1Connection(Connection):
    """HTTP/1.1, one request at a time on a kept-alive connection."""

    def __init__(self, owner: Dispatcher, endpoint: int, address: Address, requests: list[PreparedRequest]) -> None:
        self._job: Job | None = None
        self._heads = [request.head for request in requests]
        self._check, self._turn = owner.check, owner.turn
        self._body_begins = 0
        self._unsent: memoryview | None = None
        self._parser: ReplyParser | None = None
        self._received = 0
        super().__init__(owner, endpoint, address, requests)

    def assign(self, job: Job) -> None:
        """Send the request now, or when connected."""
        self._job = job
        job.endpoint = self.endpoint
        if self.connected:
            self._transmit(job)

    def has_room(self) -> bool:
        """True between requests."""
        return self._job is None and not self.closed

    def idle(self) -> bool:
        """True between requests."""
        return self._job is None

    def expire(self, now_ns: int) -> None:
        """End the request if its time is up; its connection cannot be used again."""
        if self._job is not None and self._job.deadline_ns <= now_ns:
            reason = "timeout" if self.connected else "timeout while connecting"
            self._end_broken(now_ns, jobs.TIMEOUT, reason)

    def _on_connected(self) -> None:
        if self._job is not None:
            self._transmit(self._job)
        else:
            self.owner.available(self)

    def _transmit(self, job: Job) -> None:
        data = self._heads[job.image]
        job.sent_ns = monotonic_ns()
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(_errno_reason(error.errno, "send"))
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._wait_for(EPOLLIN | EPOLLOUT)
        elif self._tls and self._tls.wants_write:
            self._wait_for(EPOLLIN | EPOLLOUT)

    def _on_ready(self, mask: int) -> None:
        if mask & EPOLLOUT:
            self._flush()
            if mask == EPOLLOUT or self.closed:
                return
        try:
            data = self._receive(_HTTP1_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_errno_reason(error.errno, "receive"))
            return
        now_ns = monotonic_ns()
        job = self._job
        if job is None:
            # Between requests only the end of the connection can come; anything else was not asked for.
            self.close()
        elif not (self._parser is None and self._unsent is None and self._take_usual(job, data, now_ns)):
            if not data:
                self._on_eof(now_ns)
            elif self._parser is not None or not self._take_whole(job, data, now_ns):
                self._take_part(job, data, now_ns)

    def _take_usual(self, job: Job, data: bytes, now_ns: int) -> bool:
        """The case that decides the generator's speed: a whole 200 with a known head and a right answer.

        It does by itself what `_take_whole`, `_complete` and `assign` do in steps. False where it is another case.
        """
        begin = self._body_begins
        head = known_heads.get(data[:begin])
        if head is None or head.length != len(data) - begin or head.status != _OK or not head.keep_alive:
            return False
        outcome, correct = self._check(job.image, data[begin:])
        if outcome != jobs.OK:
            return False
        job.first_ns = now_ns
        self._job = None
        following = self._turn(self, job, now_ns, len(data), correct)
        if following is not None:
            self._job = following
            self._transmit(following)
        return True

    def _take_whole(self, job: Job, data: bytes, now_ns: int) -> bool:
        """One read holds the whole reply. False where it does not."""
        begin = data.find(b"\r\n\r\n") + 4
        if begin < 4:
            return False
        try:
            head = read_head(data[:begin])
        except MalformedReply:
            return False
        if head.length != len(data) - begin or head.status < _OK:
            return False
        # The next reply's head is probably as long: known heads are then found without searching.
        self._body_begins = begin
        job.first_ns = now_ns
        self._received = len(data)
        self._complete(job, now_ns, head.status, head.keep_alive, data[begin:])
        return True

    def _take_part(self, job: Job, data: bytes, now_ns: int) -> None:
        if self._parser is None:
            self._parser = ReplyParser()
            job.first_ns = now_ns
        self._received += len(data)
        parser = self._parser
        try:
            whole = parser.feed(data)
        except MalformedReply as error:
            self._end_broken(now_ns, jobs.BAD_REPLY, f"malformed reply: {error}")
            return
        if whole:
            self._complete(job, now_ns, parser.head.status, parser.head.keep_alive, parser.body)

    def _on_eof(self, now_ns: int) -> None:
        job, parser = self._job, self._parser
        if job is not None and parser is not None and parser.eof():
            self._complete(job, now_ns, parser.head.status, False, parser.body)
            return
        began = parser is not None
        self._end_broken(
            now_ns,
            jobs.BAD_REPLY if began else jobs.CONNECTION_ERROR,
            "reply cut short" if began else "connection closed before a reply",
        )

    def _complete(self, job: Job, now_ns: int, status: int, keep_alive: bool, body: bytes) -> None:
        received = self._received
        self._received = 0
        self._parser = None
        self._job = None
        if self._unsent is not None:
            # Answered before the request was sent whole: what the server would do with the rest is unknown.
            self._unsent = None
            keep_alive = False
        if 200 <= status < 300:
            outcome, correct = self.owner.check(job.image, body)
            reason = "" if outcome == jobs.OK else jobs.OUTCOMES[outcome]
        else:
            outcome, correct, reason = jobs.HTTP_ERROR, jobs.UNCHECKED, f"HTTP {status}"
        if not keep_alive:
            self.close()
        self.owner.ended(job, now_ns, outcome, status, len(self._heads[job.image]), received, correct, reason)
        if keep_alive:
            self.owner.available(self)

    def _flush(self) -> None:
        try:
            if self._tls:
                self._tls.flush()
            if self._unsent is not None:
                sent = self._send(self._unsent)
                self._unsent = self._unsent[sent:] if sent < len(self._unsent) else None
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_errno_reason(error.errno, "send"))
            return
        if self._unsent is None and not (self._tls and self._tls.wants_write):
            self._wait_for(EPOLLIN)

    def _fail(self, reason: str) -> None:
        if self._job is None:
            self.close()
        else:
            self._end_broken(monotonic_ns(), jobs.CONNECTION_ERROR, reason)

    def _end_broken(self, now_ns: int, outcome: int, reason: str) -> None:
        job, received = self._job, self._received
        self._job = None
        if job is not None and self._parser is None:
            job.first_ns = jobs.NEVER  # a job that goes round in a closed loop has the last reply's
        self.close()
        if job is not None:
            self.owner.ended(job, now_ns, outcome, -1, 0, received, jobs.UNCHECKED, reason)


class GrpcConnection(Connection):
    """gRPC over HTTP/2: as many calls at once as the server allows."""

    def __init__(self, owner: Dispatcher, endpoint: int, address: Address, requests: list[PreparedRequest]) -> None:
        self._calls: dict[int, Job] = {}
        self._waiting: list[Job] = []
        self._http2 = Http2Connection()
        self._unsent = b""
        super().__init__(owner, endpoint, address, requests)

    def assign(self, job: Job) -> None:
        """Send the call now, or when connected."""
        job.endpoint = self.endpoint
        if self.connected:
            self._transmit(job)
            self._flush()
        else:
            self._waiting.append(job)

    def has_room(self) -> bool:
        """True while the server's limit on streams is not reached."""
        if self.closed:
            return False
        return self._http2.open_for_more and len(self._waiting) + len(self._calls) < self._http2.max_streams

    def idle(self) -> bool:
        """True while no call is under way."""
        return not self._calls and not self._waiting

    def expire(self, now_ns: int) -> None:
        """Cancel the calls whose time is up; the others go on."""
        for stream, job in [(s, j) for s, j in self._calls.items() if j.deadline_ns <= now_ns]:
            self._http2.cancel(stream)
            del self._calls[stream]
            self._end(job, now_ns, jobs.TIMEOUT, "timeout")
        late = [job for job in self._waiting if job.deadline_ns <= now_ns]
        self._waiting = [job for job in self._waiting if job.deadline_ns > now_ns]
        for job in late:
            self._end(job, now_ns, jobs.TIMEOUT, "timeout while connecting")
        if self.connected and not self.closed:
            self._flush()

    def _on_connected(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._transmit(job)
        self._flush()
        if not self.closed:
            self.owner.available(self)

    def _transmit(self, job: Job) -> None:
        request = self._requests[job.image]
        job.sent_ns = monotonic_ns()
        self._calls[self._http2.start(request.head, request.data)] = job

    def _on_ready(self, mask: int) -> None:
        if mask & EPOLLOUT:
            self._flush()
            if mask == EPOLLOUT or self.closed:
                return
        try:
            data = self._receive(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_errno_reason(error.errno, "receive"))
            return
        now_ns = monotonic_ns()
        if not data:
            self._fail("connection closed before a reply")
            return
        try:
            finished = self._http2.receive(data)
        except Http2Error as error:
            self._fail(f"malformed reply: {error}", jobs.BAD_REPLY)
            return
        self._note_first_bytes(now_ns)
        for stream, reply in finished:
            self._complete(stream, reply, now_ns)
        self._after_receive(bool(finished))

    def _after_receive(self, finished: bool) -> None:
        if self.closed:
            return
        if self._http2.outgoing or self._unsent:
            self._flush()
        if self._http2.going_away and self.idle():
            self.close()
        elif finished:
            self.owner.available(self)

    def _note_first_bytes(self, now_ns: int) -> None:
        for stream in self._http2.newly_started:
            if (job := self._calls.get(stream)) is not None:
                job.first_ns = now_ns
        self._http2.newly_started.clear()

    def _complete(self, stream: int, reply: GrpcReply, now_ns: int) -> None:
        job = self._calls.pop(stream, None)
        if job is None:
            return
        sent = len(self._requests[job.image].data)
        outcome, correct, reason = self._judge(job, reply)
        status = -1 if reply.status is None else reply.status
        self.owner.ended(job, now_ns, outcome, status, sent, reply.received, correct, reason)

    def _judge(self, job: Job, reply: GrpcReply) -> tuple[int, int, str]:
        if reply.error:
            return jobs.GRPC_ERROR, jobs.UNCHECKED, reply.error
        if reply.status:
            return jobs.GRPC_ERROR, jobs.UNCHECKED, f"gRPC status {reply.status}"
        try:
            messages = unframe(reply.body)
        except Http2Error as error:
            return jobs.BAD_REPLY, jobs.UNCHECKED, f"malformed reply: {error}"
        if len(messages) != 1:
            return jobs.BAD_REPLY, jobs.UNCHECKED, f"{len(messages)} messages in a unary reply"
        outcome, correct = self.owner.check(job.image, messages[0])
        return outcome, correct, "" if outcome == jobs.OK else jobs.OUTCOMES[outcome]

    def _flush(self) -> None:
        outgoing = self._http2.outgoing
        data = b"".join([self._unsent, *outgoing]) if self._unsent or len(outgoing) != 1 else outgoing[0]
        outgoing.clear()
        self._unsent = b""
        try:
            sent = self._send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(_errno_reason(error.errno, "send"))
            return
        if sent < len(data):
            self._unsent = bytes(data[sent:])
        blocked = bool(self._unsent) or bool(self._tls and self._tls.wants_write)
        self._wait_for(EPOLLIN | EPOLLOUT if blocked else EPOLLIN)

    def _fail(self, reason: str, outcome: int = jobs.CONNECTION_ERROR) -> None:
        now_ns = monotonic_ns()
        orphans = [*self._calls.values(), *self._waiting]
        self._calls.clear()
        self._waiting.clear()
        self.close()
        for job in orphans:
            self._end(job, now_ns, outcome, reason)

    def _end(self, job: Job, now_ns: int, outcome: int, reason: str) -> None:
        self.owner.ended(job, now_ns, outcome, -1, 0, 0, jobs.UNCHECKED, reason)


def _errno_reason(code: int | None, doing: str) -> str:
    if code == errno.ECONNREFUSED:
        return "connection refused"
    if code in (errno.ECONNRESET, errno.EPIPE):
        return "connection reset"
    return f"{doing}: {os.strerror(code) if code else 'failed'}"


def _tls_reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
