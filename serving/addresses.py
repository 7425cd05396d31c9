"""Names of endpoints: what a person typed, made into a URL, and the socket addresses that a name has.

A name may have several addresses: `localhost` is ::1 and 127.0.0.1 on many machines, and most servers listen on one of
them. `connecting` tries them, and so does the load generator's loop.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from serving.errors import AddressError, DeploymentError

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TRUST: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


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


def endpoint_url(text: str, path_remedy: str = "") -> str:
    """`http(s)://HOST[:PORT]` of what a person typed as an endpoint: the scheme may be missing, a slash may follow.

    `path_remedy` is added to what is said of a path. Raises AddressError with the remedy for anything else; a password
    is never repeated.
    """
    whole, parts = _read(text)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise AddressError(f"{whole!r} has a path: give only http://HOST:PORT{path_remedy}.")
    return _base(whole, parts)


def page_url(text: str, default_path: str = "") -> str:
    """As endpoint_url, of a page: path and query are kept, and `default_path` stands where there is no path."""
    whole, parts = _read(text)
    if parts.fragment or any(character.isspace() for character in whole):
        raise AddressError(f"{whole!r} is not the URL of a page: write http://HOST:PORT/PATH.")
    path = parts.path if parts.path.strip("/") else default_path
    return _base(whole, parts) + path + (f"?{parts.query}" if parts.query else "")


def grpc_target(text: str) -> str:
    """HOST[:PORT] of gRPC as a person typed it, or https://HOST[:PORT] where TLS is spoken. Raises AddressError."""
    return endpoint_url(text).removeprefix("http://")


def _read(text: str) -> tuple[str, SplitResult]:
    whole = text.strip()
    if "@" in whole:
        raise AddressError(
            "an endpoint's URL holds a user name or password, which is never sent: leave out all up to the @."
        )
    try:
        parts = urlsplit(whole if "://" in whole else f"http://{whole}")
    except ValueError as error:
        raise AddressError(f"{whole!r} is not a URL: write http://HOST:PORT.") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise AddressError(f"{whole!r} has the scheme {parts.scheme!r}: write http://HOST:PORT or https://HOST:PORT.")
    return whole, parts


def _base(whole: str, parts: SplitResult) -> str:
    host, port = _host_and_port(whole, parts)
    place = authority(host, port) if port else f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}"


def _host_and_port(whole: str, parts: SplitResult) -> tuple[str, int | None]:
    """The port is None where none is given."""
    if "[" not in parts.netloc and parts.netloc.count(":") > 1:
        raise AddressError(f"{whole!r} holds an IPv6 address without brackets: write http://[ADDRESS]:PORT.")
    try:
        port = parts.port
    except ValueError as error:
        raise AddressError(
            f"{whole!r} has no usable port: write http://HOST:PORT, with a port of 1 to 65535."
        ) from error
    if not parts.hostname or port == 0 or any(character.isspace() for character in parts.netloc):
        raise AddressError(f"{whole!r} is not a URL: write http://HOST:PORT.")
    return parts.hostname, port


def split_url(url: str, default_port: int | None) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken, of what endpoint_url takes; `default_port` None is the scheme's."""
    parts = urlsplit(endpoint_url(url))
    assert parts.hostname
    return parts.hostname, parts.port or default_port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https"


def authority(host: str, port: int) -> str:
    """host:port as a Host header wants it (brackets around IPv6)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_context(protocol: str) -> ssl.SSLContext:
    """The machine's trusted certificates (SSL_CERT_FILE names others), and the protocol to agree on."""
    return _context(protocol, *(os.environ.get(name) for name in _TRUST))


@cache
def _context(protocol: str, *_trust: str | None) -> ssl.SSLContext:
    """One for all connections: to read the certificates takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([protocol])
    return context


def resolve(host: str, port: int, tls: ssl.SSLContext | None) -> ResolvedAddress:
    """All addresses of a name, in the order of the resolver; DeploymentError if it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeploymentError(f"host {host!r} does not resolve: check that name.") from error
    unique = dict.fromkeys(SocketAddress(int(family), tuple(sockaddr)) for family, _, _, _, sockaddr in found)
    return ResolvedAddress(list(unique), host, tls)
