"""gRPC connections: many calls at once each."""

from __future__ import annotations

from time import monotonic_ns

from loadtests.generator import jobs
from loadtests.generator.connections import Connection, ConnectionOwner, PreparedRequest
from loadtests.generator.jobs import Job
from loadtests.generator.sockets_and_timers import EPOLLIN, EPOLLOUT, wait_until
from loadtests.generator.wire_grpc import GrpcReply, Http2Client, unframe
from serving.addresses import ResolvedAddress
from serving.authorisation import REFUSED, grpc_refuses
from serving.http2_frames import Http2Error
from serving.socket_errors import errno_reason

_RECEIVE_BYTES = 65_536


class GrpcConnection(Connection):
    """gRPC over HTTP/2: as many calls at once as the server allows."""

    def __init__(
        self, owner: ConnectionOwner, endpoint: int, address: ResolvedAddress, requests: list[PreparedRequest]
    ) -> None:
        self._calls: dict[int, Job] = {}
        self._waiting: list[Job] = []
        self._http2 = Http2Client()
        self._unsent = b""
        self._heard_ns = 0
        """When the last bytes came."""
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
        late = [(stream, job) for stream, job in self._calls.items() if job.deadline_ns <= now_ns]
        unsent = [job for job in self._waiting if job.deadline_ns <= now_ns]
        if unsent or any(job.sent_ns >= self._heard_ns for _, job in late):
            self._leave()
        for stream, job in late:
            self._http2.cancel(stream)
            del self._calls[stream]
            self._end(job, now_ns, jobs.TIMEOUT, "timeout")
        self._waiting = [job for job in self._waiting if job.deadline_ns > now_ns]
        for job in unsent:
            self._end(job, now_ns, jobs.TIMEOUT, self.silence())
        if self.connected and not self.closed:
            self._flush()
        self._close_if_left()

    def _leave(self) -> None:
        """Take no more calls, for nothing came within a whole time limit: the next one opens another connection.

        That is what happens over HTTP/1.1, too. The host may be gone without a word, and TCP would try for a quarter
        of an hour to reach it. What is under way may still be answered.
        """
        if not self._http2.going_away:
            self._http2.going_away = True
            self.owner.left(self)

    def _on_connected(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._transmit(job)
        self._flush()
        if not self.closed:
            self.owner.available(self)

    def _transmit(self, job: Job) -> None:
        request = self._requests[job.image]
        self._calls[self._http2.start(request.head, request.data)] = job
        job.sent_ns = wait_until(job.scheduled_ns)

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
            self._fail(errno_reason(error.errno, "receive"))
            return
        self._heard_ns = now_ns = monotonic_ns()
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
        self._close_if_left()
        if finished and not self.closed:
            self.owner.available(self)

    def _close_if_left(self) -> None:
        """A server that goes away takes no more calls: without one under way the connection only holds a place."""
        if self._http2.going_away and self.idle() and not self.closed:
            self.close()

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
        if reply.error or reply.status:
            reason = reply.error or f"gRPC status {reply.status}"
            refused = grpc_refuses(reply.status, reply.http_status)
            return jobs.GRPC_ERROR, jobs.UNCHECKED, f"{REFUSED} ({reason})" if refused else reason
        try:
            messages = unframe(reply.body)
        except Http2Error as error:
            return jobs.BAD_REPLY, jobs.UNCHECKED, f"malformed reply: {error}"
        if len(messages) != 1:
            return jobs.BAD_REPLY, jobs.UNCHECKED, f"{len(messages)} messages in a unary reply"
        return self.owner.check(job.image, messages[0])

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
            self._fail(errno_reason(error.errno, "send"))
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
