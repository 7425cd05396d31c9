"""What connections that carry jobs have in common; `connection_http1` and `connection_grpc` speak the protocols.

A connection belongs to a `ConnectionOwner`, which gives it jobs and is called when each has ended. Nothing here waits:
every method is called when its socket is ready, and the owner enforces time limits through `expire`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loadtests.generator.addresses import ResolvedAddress
from loadtests.generator.jobs import Job
from loadtests.generator.socket_errors import NO_DESCRIPTOR, errno_reason
from loadtests.generator.sockets_and_timers import EPOLLIN, EPOLLOUT, TlsStream, connect_error, open_socket


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
        self._refusals: list[str] = []
        self._connect()

    def _connect(self) -> None:
        """Begin to connect to the next address of the name; raises OSError where the last one fails at once."""
        self._trying = self._untried.pop(0)
        try:
            self._sock = open_socket(self._trying.family, self._trying.sockaddr)
        except OSError as error:
            if not self._untried or error.errno in NO_DESCRIPTOR:
                raise
            self._refusals.append(f"{self._trying} {errno_reason(error.errno, 'connect')}")
            self._connect()
            return
        self._fd: int = self._sock.fileno()
        tls = self._address.tls
        self._tls = TlsStream(self._sock, tls, self._address.hostname) if tls else None
        self._send: Callable[[bytes | memoryview], int] = self._tls.send if self._tls else self._sock.send
        self._receive: Callable[[int], bytes] = self._tls.recv if self._tls else self._sock.recv
        self._watching = EPOLLOUT
        self.owner.watch(self._fd, EPOLLOUT, self._on_connecting)

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
            self.owner.unwatch(self._fd)
            self._sock.close()
            self.owner.lost(self)

    def _on_connecting(self, _mask: int) -> None:
        code = connect_error(self._sock)
        if code:
            self._on_refused(errno_reason(code, "connect"))
            return
        self._address.prefer(self._trying)
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

    def _on_refused(self, reason: str) -> None:
        """Go on with the next address of the name; where there is none, fail with what each of them answered."""
        self._refusals.append(f"{self._trying} {reason}")
        if self._untried:
            refused, refused_fd = self._sock, self._fd
            try:
                self._connect()
            except OSError as error:
                reason = errno_reason(error.errno, "connect")
                if error.errno in NO_DESCRIPTOR:
                    self._refusals.clear()  # the generator's own fault, and no address's
                self._refusals.append(f"{self._trying} {reason}")
            else:
                self.owner.unwatch(refused_fd)
                refused.close()
                return
        self._fail(reason if len(self._refusals) == 1 else ", ".join(self._refusals))

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


def _tls_reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
