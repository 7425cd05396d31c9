"""Names of endpoints: what a person typed, made into a URL, and the socket addresses that a name has.

A name may have several addresses: `localhost` is ::1 and 127.0.0.1 on many machines, and most servers listen on one of
them. They are tried in turn, in the order that the machine's resolver gives (RFC 6724), and the one that accepts is
tried first from then on. Two are never tried at once, as RFC 8305 has it for a person who waits: the first try is made
before a load begins, and each address gets as long there as that RFC gives the first (250 ms).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator.socket_errors import errno_reason

_TRY_S: Final = 0.25
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class SocketAddress(NamedTuple):
    """One address of a name, as a socket takes it."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        return authority(self.sockaddr[0], self.sockaddr[1])


class ResolvedAddress:
    """Where an endpoint listens: every address of its name, the one to try first in front."""

    def __init__(self, candidates: Sequence[SocketAddress], hostname: str, tls: ssl.SSLContext | None = None) -> None:
        self.candidates = tuple(candidates)
        self.hostname = hostname
        self.tls = tls

    def prefer(self, accepted: SocketAddress) -> None:
        """Try this one first from now on: it accepts connections."""
        if self.candidates[0] is not accepted:
            self.candidates = (accepted, *(one for one in self.candidates if one is not accepted))


def endpoint_url(text: str) -> str:
    """`http(s)://HOST[:PORT]` of what a person typed as an endpoint: the scheme may be missing, a slash may follow.

    Raises LoadTestError with the remedy for anything else; a password is never repeated.
    """
    whole = text.strip()
    if "@" in whole:
        raise LoadTestError(
            "an endpoint's URL holds a user name or password, which is never sent: leave out all up to the @."
        )
    try:
        parts = urlsplit(whole if "://" in whole else f"http://{whole}")
    except ValueError as error:
        raise LoadTestError(f"{whole!r} is not a URL: write http://HOST:PORT.") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise LoadTestError(f"{whole!r} has the scheme {parts.scheme!r}: write http://HOST:PORT or https://HOST:PORT.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise LoadTestError(f"{whole!r} has a path: give only http://HOST:PORT (engine http takes --http-path).")
    host, port = _host_and_port(whole, parts)
    place = authority(host, port) if port else f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}"


def _host_and_port(whole: str, parts: SplitResult) -> tuple[str, int | None]:
    """The port is None where none is given."""
    if "[" not in parts.netloc and parts.netloc.count(":") > 1:
        raise LoadTestError(f"{whole!r} holds an IPv6 address without brackets: write http://[ADDRESS]:PORT.")
    try:
        port = parts.port
    except ValueError as error:
        raise LoadTestError(
            f"{whole!r} has no usable port: write http://HOST:PORT, with a port of 1 to 65535."
        ) from error
    if not parts.hostname or port == 0 or any(character.isspace() for character in parts.netloc):
        raise LoadTestError(f"{whole!r} is not a URL: write http://HOST:PORT.")
    return parts.hostname, port


def split_url(url: str, default_port: int | None) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken, of what endpoint_url takes; `default_port` None is the scheme's."""
    parts = urlsplit(endpoint_url(url))
    assert parts.hostname
    return parts.hostname, parts.port or default_port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https"


def authority(host: str, port: int) -> str:
    """host:port as a Host header wants it (brackets around IPv6)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int, tls: ssl.SSLContext | None) -> ResolvedAddress:
    """All addresses of a name, the first that accepts connections in front; LoadEnvironmentError if it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LoadEnvironmentError(f"host {host!r} does not resolve: check --host.") from error
    unique = dict.fromkeys(SocketAddress(int(family), tuple(sockaddr)) for family, _, _, _, sockaddr in found)
    address = ResolvedAddress(list(unique), host, tls)
    if len(address.candidates) > 1:
        accepted = next((one for one in address.candidates if not connect_failure(one)), None)
        if accepted:
            address.prefer(accepted)
    return address


def connect_failure(address: SocketAddress) -> str:
    """Why no connection can be made now, tried for 250 ms; '' where one can."""
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TRY_S)
        try:
            sock.connect(address.sockaddr)
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return errno_reason(error.errno, "connect")
    return ""


def failures(address: ResolvedAddress) -> str:
    """What each address of a name answers now: '[::1]:8501 connection refused, 127.0.0.1:8501 no answer'."""
    return ", ".join(f"{one} {connect_failure(one) or 'accepts connections'}" for one in address.candidates)
