"""HTTP/1.1 connections: one request at a time each."""

from __future__ import annotations

from time import monotonic_ns

from loadtests.generator import jobs
from loadtests.generator.connections import Connection, ConnectionOwner, PreparedRequest
from loadtests.generator.jobs import Job
from loadtests.generator.sockets_and_timers import EPOLLIN, EPOLLOUT, wait_until
from loadtests.generator.wire_http1 import MalformedReply, ReplyParser, known_heads, read_head
from serving.addresses import ResolvedAddress
from serving.authorisation import reply_named
from serving.socket_errors import errno_reason

_RECEIVE_BYTES = 16_384
_OK = 200


class Http1Connection(Connection):
    """HTTP/1.1, one request at a time on a kept-alive connection."""

    def __init__(
        self, owner: ConnectionOwner, endpoint: int, address: ResolvedAddress, requests: list[PreparedRequest]
    ) -> None:
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
            reason = "timeout" if self.connected else self.silence()
            self._end_broken(now_ns, jobs.TIMEOUT, reason)

    def _on_connected(self) -> None:
        if self._job is not None:
            self._transmit(self._job)
        else:
            self.owner.available(self)

    def _transmit(self, job: Job) -> None:
        data = self._heads[job.image]
        job.sent_ns = wait_until(job.scheduled_ns)
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(errno_reason(error.errno, "send"))
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
            data = self._receive(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(errno_reason(error.errno, "receive"))
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
        outcome, correct, _ = self._check(job.image, data[begin:])
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
            outcome, correct, reason = self.owner.check(job.image, body)
        else:
            outcome, correct, reason = jobs.HTTP_ERROR, jobs.UNCHECKED, reply_named(status, body)
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
            self._fail(errno_reason(error.errno, "send"))
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
