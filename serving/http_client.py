"""HTTP to a server as the loads speak it: every address of its name, TLS where its URL says https, never a proxy."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.addresses import resolve, split_url, tls_context
from serving.connecting import ConnectFailure, connect
from serving.errors import DeploymentError
from serving.headers import Fields, merged
from serving.socket_errors import errno_reason, tls_failure
from serving.wire import RestRequest


class NoAnswer(OSError):
    """No reply came, or none in time; the message says why in a few words."""


@dataclass(frozen=True)
class HttpReply:
    """The whole reply to a request."""

    status: int
    body: bytes
    server: str
    """The header Server; '' without one."""


class HttpConnection(http.client.HTTPConnection):
    """HTTP/1.1; `secure`: in TLS, with the certificates that the loads trust."""

    def __init__(self, host: str, port: int | None = None, timeout: float = 10.0, *, secure: bool = False) -> None:
        self.default_port = http.client.HTTPS_PORT if secure else http.client.HTTP_PORT
        self._secure, self._limit_s = secure, timeout
        super().__init__(host, port, timeout)

    def connect(self) -> None:
        """See HTTPConnection; raises ConnectFailure, ssl.SSLError or DeploymentError (the name does not resolve)."""
        tls = tls_context("http/1.1") if self._secure else None
        self.sock: socket.socket = connect(resolve(self.host, self.port, tls), self._limit_s)
        self.sock.settimeout(self._limit_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=self.host)


def connection_to(base_url: str, timeout_s: float) -> HttpConnection:
    """A connection, not open yet, to http(s)://HOST[:PORT]; each of its operations may take `timeout_s`."""
    host, port, secure = split_url(base_url, None)
    return HttpConnection(host, port, timeout_s, secure=secure)


def exchange(base_url: str, request: RestRequest, timeout_s: float, headers: Fields = ()) -> HttpReply:
    """The reply to `request`, on a connection of its own. Raises NoAnswer."""
    connection = connection_to(base_url, timeout_s)
    own = [("Content-Type", request.content_type)] if request.body else []
    try:
        connection.request(request.method, request.path, request.body or None, dict(merged(own, headers)))
        response = connection.getresponse()
        return HttpReply(response.status, response.read(), response.headers.get("Server", ""))
    except (OSError, http.client.HTTPException, DeploymentError) as error:
        raise NoAnswer(no_answer_reason(error)) from error
    finally:
        connection.close()


def no_answer_reason(error: Exception) -> str:
    """What is the matter with a server that gave no reply."""
    if isinstance(error, (ConnectFailure, DeploymentError)):
        return str(error).partition(": check")[0]
    if isinstance(error, ssl.SSLError):
        return tls_failure(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "connection closed before a reply"
    if isinstance(error, OSError):
        return errno_reason(error.errno, "receive")
    return "no HTTP reply"


def read_page(url: str, timeout_s: float, headers: Fields = ()) -> bytes:
    """Body of a GET of `url`. Raises OSError (urllib.error.URLError for a status over 399).

    Redirects are followed, but not with headers: one may be a secret that is meant for this server alone.
    """
    opener = _without_redirects if headers else _opener
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=timeout_s) as reply:
            return bytes(reply.read())
    except (http.client.HTTPException, DeploymentError) as error:
        raise NoAnswer(no_answer_reason(error)) from error


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens both schemes by HttpConnection."""

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(HttpConnection, secure=False), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(HttpConnection, secure=True), req)


# built by hand: the usual opener has a handler for the proxies of the environment
_opener, _without_redirects = urllib.request.OpenerDirector(), urllib.request.OpenerDirector()
for _handler in (
    _Handler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
):
    _opener.add_handler(_handler())
    _without_redirects.add_handler(_handler())
_opener.add_handler(urllib.request.HTTPRedirectHandler())
