"""The operating system's side of the generator: readiness, nanosecond timers, sockets and TLS.

The generator runs on a thread of its own beside Locust's gevent hub, so everything here uses the unpatched modules:
a gevent socket on a foreign thread would wake the wrong hub. epoll's own timeout counts in milliseconds, too coarse
for a send lag of a tenth of one, so the next arrival is waited for with a timerfd (Linux, nanoseconds).
"""

from __future__ import annotations

import ctypes
import errno
import os
import ssl
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from gevent import monkey

native_socket: Any = monkey.get_original("socket", "socket")
native_epoll: Any = monkey.get_original("select", "epoll")
start_native_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
allocate_native_lock: Any = monkey.get_original("_thread", "allocate_lock")

EPOLLIN, EPOLLOUT, EPOLLET = 1, 4, 1 << 31
_CLOCK_MONOTONIC, _TFD_FLAGS, _TFD_TIMER_ABSTIME, _PR_SET_TIMERSLACK = 1, 0o2004000, 1, 29
_RECEIVE_BYTES, _PULLED_BYTES = 65_536, 4 * 1_048_576
_IPPROTO_TCP, _TCP_NODELAY, _SOL_SOCKET, _SO_ERROR = 6, 1, 1, 4


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Glance:
    """Whether an epoll has something to report, asked without giving the interpreter to another thread.

    select.epoll.poll() gives it away even where it does not wait, and who takes it may keep it past a send.
    """

    def __init__(self, epoll_fd: int) -> None:
        self._pollfd = _PollFd(epoll_fd, EPOLLIN, 0)
        self._reference = ctypes.byref(self._pollfd)
        self._poll = ctypes.PyDLL(None).poll

    def __call__(self) -> bool:
        """True where epoll.poll(0) would return something."""
        return bool(self._poll(self._reference, 1, 0) > 0)


class Timer:
    """A file descriptor that becomes readable at an absolute time.monotonic_ns()."""

    def __init__(self) -> None:
        # PyDLL keeps the interpreter lock: these calls take a microsecond, giving the lock away can cost a millisecond.
        self._libc = ctypes.PyDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._reference = ctypes.byref(self._spec)
        self._settime = self._libc.timerfd_settime

    def arm(self, at_ns: int) -> None:
        """Fire at `at_ns` (at once where that is past); arming again moves it and clears readiness."""
        value = self._spec.value
        value.s, value.ns = divmod(max(at_ns, 1), 1_000_000_000)
        self._settime(self.fd, _TFD_TIMER_ABSTIME, self._reference, None)

    def disarm(self) -> None:
        """Never fire, and clear readiness."""
        self._spec.value.s = self._spec.value.ns = 0
        self._settime(self.fd, 0, self._reference, None)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self.fd)


def sharpen_timers() -> None:
    """Ask the kernel for this thread's timers within 1 us instead of the default 50 us."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)


def wait_until(moment_ns: int) -> int:
    """Stay awake until `moment_ns`, and return the time: `moment_ns` or later."""
    now_ns = monotonic_ns()
    while now_ns < moment_ns:
        now_ns = monotonic_ns()
    return now_ns


def open_socket(family: int, address: tuple[Any, ...]) -> Any:
    """A non-blocking TCP socket that is connecting to `address`; raises OSError where that fails at once."""
    sock = native_socket(family, 1)
    try:
        sock.setblocking(False)
        sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError:
        sock.close()
        raise
    return sock


def connect_error(sock: Any) -> int:
    """errno of a finished non-blocking connect, 0 where it succeeded."""
    return int(sock.getsockopt(_SOL_SOCKET, _SO_ERROR))


class TlsStream:
    """TLS over a non-blocking socket, with a socket's own `send` and `recv`; wants_write: bytes are left to send."""

    def __init__(self, sock: Any, context: ssl.SSLContext, hostname: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._unsent = b""
        self.established = False

    @property
    def wants_write(self) -> bool:
        """True while encrypted bytes wait for the socket."""
        return bool(self._unsent)

    def handshake(self) -> bool:
        """Go on with the handshake; True when done. Raises OSError (ssl.SSLError) where it fails."""
        self._pull()
        try:
            self._tls.do_handshake()
            self.established = True
        except ssl.SSLWantReadError:
            pass
        finally:
            self.flush()
        return self.established

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt all of `data` and write what the socket takes; the rest is kept for flush()."""
        self._tls.write(data)
        self.flush()
        return len(data)

    def recv(self, _limit: int) -> bytes:
        """All decrypted bytes at hand; b"" at the end; BlockingIOError where there are none yet."""
        open_ = self._pull()
        parts = []
        try:
            while part := self._tls.read(65536):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            open_ = False
        if not parts and open_:
            raise BlockingIOError
        return b"".join(parts)

    def flush(self) -> None:
        """Write kept bytes to the socket."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]

    def _pull(self) -> bool:
        """Feed what the socket has, up to _PULLED_BYTES: the rest stays there, and epoll reports it again."""
        for _ in range(_PULLED_BYTES // _RECEIVE_BYTES):
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                self._incoming.write_eof()
                return False
            self._incoming.write(data)
        return True
