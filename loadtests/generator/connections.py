"""What connections that carry jobs have in common; `connection_http1` and `connection_grpc` speak the protocols.

A connection belongs to a `ConnectionOwner`, which gives it jobs and is called when each has ended. Nothing here waits:
every method is called when its socket is ready, and the owner enforces time limits through `expire`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic_ns
from typing import Any, Final, Protocol

from loadtests.generator.jobs import Job
from loadtests.generator.sockets_and_timers import EPOLLIN, EPOLLOUT, TlsStream, connect_error, open_socket
from serving.addresses import ResolvedAddress, SocketAddress
from serving.connecting import NEXT_TRY_S, tried
from serving.socket_errors import NO_DESCRIPTOR, errno_reason, tls_failure

_NEXT_TRY_NS: Final = int(NEXT_TRY_S * 1e9)
_MOST_TRIES: Final = 4
"""Addresses of a name that one connection tries at once; the oldest makes room for the next."""


@dataclass(frozen=True)
class PreparedRequest:
    """A request as bytes: `head` is HTTP/1.1's head and body in one, or a gRPC header block beside its `data`."""

    head: bytes
    data: bytes = b""


class ConnectionOwner(Protocol):
    """What a connection needs of whoever owns it."""

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call handler(mask) when `fd` is ready."""

    def rewatch(self, fd: int, mask: int) -> None:
        """Change what is waited for."""

    def unwatch(self, fd: int) -> None:
        """Forget `fd`."""

    def check(self, image: int, body: bytes) -> tuple[int, int, str]:
        """(outcome, correct, reason) of a reply's body; see Check."""

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

    def left(self, connection: Connection) -> None:
        """The connection takes no more jobs: another one may be opened in its place before it is closed."""

    def may_try_more(self) -> bool:
        """True while a connection may open another socket beside its first one."""

    def sockets_beside(self, change: int) -> None:
        """A connection has opened (1) or closed (-1) a socket beside its first one."""


@dataclass
class _Try:
    """A socket that is connecting to one address of a name."""

    address: SocketAddress
    sock: Any
    tls: TlsStream | None
    accepted: bool = False
    watching: int = EPOLLOUT
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = self.sock.fileno()

    def has_accepted(self) -> bool:
        """False where nothing came yet: the event was of a socket that had this descriptor before."""
        if not self.accepted:
            try:
                self.sock.getpeername()
            except OSError:
                return False
            self.accepted = True
        return True


class Connection:
    """What both protocols share: the socket's life. Subclasses speak the protocol."""

    def __init__(
        self, owner: ConnectionOwner, endpoint: int, address: ResolvedAddress, requests: list[PreparedRequest]
    ) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.connected = False
        self.closed = False
        self.pooled = False
        """Kept by the owner among the connections that wait for a job."""
        self._requests = requests
        self._address = address
        self._untried = list(address.candidates)
        self._answers: dict[SocketAddress, str] = {}
        """What each address that was tried answered; '' where it did not yet."""
        self._tries: dict[int, _Try] = {}
        """By their descriptors, the oldest first."""
        self._next_try_ns = 0
        self._sock: Any = None
        self._fd = -1
        self._try_next()

    def _try_next(self) -> None:
        """Begin to connect to the next address of the name, too.

        Raises OSError where none is being tried then.
        """
        while self._untried:
            one = self._untried.pop(0)
            try:
                sock = open_socket(one.family, one.sockaddr)
            except OSError as error:
                if error.errno in NO_DESCRIPTOR:
                    self._untried.insert(0, one)
                else:
                    self._answers[one] = errno_reason(error.errno, "connect")
                    if self._untried:
                        continue
                if not self._tries:
                    raise
                return
            self._begin(one, sock)
            return

    def _begin(self, one: SocketAddress, sock: Any) -> None:
        if self._tries:
            self.owner.sockets_beside(1)
        tls = self._address.tls
        attempt = _Try(one, sock, TlsStream(sock, tls, self._address.hostname) if tls else None)
        self._tries[attempt.fd] = attempt
        self._answers[one] = ""
        self._next_try_ns = monotonic_ns() + _NEXT_TRY_NS
        self.owner.watch(attempt.fd, EPOLLOUT, partial(self._on_connecting, attempt))
        if len(self._tries) > _MOST_TRIES:
            self._drop(next(iter(self._tries.values())))

    def try_more(self, now_ns: int) -> None:
        """Try the next address of the name as well, where those that are being tried were silent for 250 ms."""
        if not self.connected and self._untried and now_ns >= self._next_try_ns and self.owner.may_try_more():
            self._try_next()

    def _drop(self, attempt: _Try) -> None:
        del self._tries[attempt.fd]
        self.owner.unwatch(attempt.fd)
        attempt.sock.close()
        if self._tries:
            self.owner.sockets_beside(-1)

    def silence(self) -> str:
        """The reason of a job whose time was up before there was a connection."""
        many = len(self._address.candidates) > 1
        return (
            f"timeout while connecting ({tried(self._address, self._answers)})" if many else "timeout while connecting"
        )

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
        """Close the socket and forget it, without ending the jobs."""
        if not self.closed:
            self.closed = True
            for attempt in list(self._tries.values()):
                self._drop(attempt)
            if self._sock is not None:
                self.owner.unwatch(self._fd)
                self._sock.close()
            self.owner.lost(self)

    def _on_connecting(self, attempt: _Try, _mask: int) -> None:
        if not attempt.accepted and (code := connect_error(attempt.sock)):
            self._on_failed(attempt, errno_reason(code, "connect"))
            return
        if not attempt.has_accepted():
            return
        try:
            if attempt.tls and not attempt.tls.handshake():
                mask = EPOLLIN | (EPOLLOUT if attempt.tls.wants_write else 0)
                if mask != attempt.watching:
                    attempt.watching = mask
                    self.owner.rewatch(attempt.fd, mask)
                return
        except OSError as error:
            self._on_failed(attempt, tls_failure(error))
            return
        self._take(attempt)

    def _take(self, attempt: _Try) -> None:
        """Use the first address that answers, and forget the others."""
        self._address.prefer(attempt.address)
        for other in [each for each in self._tries.values() if each is not attempt]:
            self._drop(other)
        self._tries.clear()
        self._untried.clear()
        self._sock, self._fd, self._tls = attempt.sock, attempt.fd, attempt.tls
        self._send: Callable[[bytes | memoryview], int] = self._tls.send if self._tls else self._sock.send
        self._receive: Callable[[int], bytes] = self._tls.recv if self._tls else self._sock.recv
        self.connected = True
        self.owner.unwatch(self._fd)
        self._watching = EPOLLIN
        self.owner.watch(self._fd, EPOLLIN, self._on_ready)
        self._on_connected()

    def _on_failed(self, attempt: _Try, reason: str) -> None:
        """Go on with the next address of the name; where there is none, fail with what each of them answered."""
        self._answers[attempt.address] = reason
        self._drop(attempt)
        try:
            self._try_next()
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:  # the generator's own fault, and no address's
                self._fail(errno_reason(error.errno, "connect"))
                return
        if not self._tries:
            self._fail(tried(self._address, self._answers))

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
