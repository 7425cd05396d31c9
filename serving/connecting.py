"""A connection to a name that may have several addresses, as RFC 8305 has it.

They are tried in the order of the resolver, the next one as soon as the one before it fails or has been silent for 250
ms, and the first that accepts is taken. A silent one stays tried until then, so that a slow one is not lost.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from serving.addresses import ResolvedAddress, SocketAddress
from serving.socket_errors import errno_reason

NEXT_TRY_S: Final = 0.25
"""Silence of one address before the next one is tried as well: the Connection Attempt Delay of RFC 8305."""
_SILENT: Final = "no answer"


class ConnectFailure(OSError):
    """No address of a name accepts a connection; the message says what each of those that were tried answered."""


def tried(address: ResolvedAddress, answers: Mapping[SocketAddress, str]) -> str:
    """'[::1]:8501 connection refused, 127.0.0.1:8501 no answer'; the reason alone where the name has one address.

    `answers`: of the addresses that were tried; an empty one did not come.
    """
    if len(address.candidates) == 1:
        return next(iter(answers.values())) or _SILENT
    return ", ".join(f"{one} {reason or _SILENT}" for one, reason in answers.items())


def connect(address: ResolvedAddress, timeout_s: float) -> socket.socket:
    """A blocking TCP socket to the first address that accepts; that one is tried first from then on.

    Raises ConnectFailure where none accepts within `timeout_s`.
    """
    untried = list(address.candidates)
    # in a short time, each of them must still get its turn
    delay_s = min(NEXT_TRY_S, timeout_s / (len(untried) + 1))
    answers: dict[SocketAddress, str] = {}
    trying: dict[socket.socket, SocketAddress] = {}
    now_s = next_s = time.monotonic()
    deadline_s = now_s + timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            while (untried or trying) and now_s < deadline_s:
                if untried and (now_s >= next_s or not trying):
                    one = untried.pop(0)
                    answers[one] = ""
                    try:
                        sock = _begin(one)
                    except OSError as error:
                        answers[one] = errno_reason(error.errno, "connect")
                    else:
                        trying[sock] = one
                        selector.register(sock, selectors.EVENT_WRITE)
                        next_s = now_s + delay_s
                    continue
                for key, _ in selector.select((min(next_s, deadline_s) if untried else deadline_s) - now_s):
                    sock = key.fileobj  # type: ignore[assignment]  # what was registered
                    selector.unregister(sock)
                    one = trying.pop(sock)
                    if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                        address.prefer(one)
                        sock.setblocking(True)
                        return sock
                    sock.close()
                    answers[one], next_s = errno_reason(code, "connect"), now_s
                now_s = time.monotonic()
        finally:
            for sock in trying:
                sock.close()
    raise ConnectFailure(tried(address, answers))


def prefer_what_accepts(address: ResolvedAddress) -> ResolvedAddress:
    """`address` with the first one that accepts a connection now in front; unchanged where none does."""
    if len(address.candidates) > 1:
        with suppress(ConnectFailure):
            connect(address, NEXT_TRY_S * (len(address.candidates) + 1)).close()
    return address


def _begin(one: SocketAddress) -> socket.socket:
    """A socket that is connecting; raises OSError where that fails at once."""
    sock = socket.socket(one.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(one.sockaddr)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError:
        sock.close()
        raise
    return sock
