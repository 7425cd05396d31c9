"""Requests as bytes, and the answer of a server to each: over REST, over a connection of its own, or over gRPC."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit

ANSWER_S = 30.0
BUSY_ATTEMPTS, BUSY_S = 200, 0.02
SENTINEL = b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n\r\n"
SILENT, CLOSED, GARBLED = "silent", "closed without an answer", "no HTTP"


class NoServer(Exception):
    """An address does not answer, or serves other models; the message says which."""


@dataclass(frozen=True)
class Request:
    """One request. `kind` begins with its transport: "rest/...", "raw/..." or "grpc/...".

    rest: POST of `body` to `path`. raw: `body` is all that is sent on the connection, `path` is empty.
    grpc: `path` is the method, `body` the message.
    """

    number: int
    kind: str
    path: str
    body: bytes

    @property
    def over(self) -> str:
        return self.kind.partition("/")[0]

    def is_unreadable(self) -> bool:
        """Whether it may be a message that no gRPC server can parse, for which the code is INTERNAL."""
        return self.over == "grpc" and self.kind.endswith("damaged bytes")

    def is_head(self) -> bool:
        """Whether the answer has no body whatever its Content-Length says."""
        return self.over == "raw" and self.body.startswith(b"HEAD ")


@dataclass(frozen=True)
class Answer:
    """A server's answer.

    status: the number (rest); version, number, "open" or "closed" for the connection, and "undated" where there is no
    Date (raw); the code's name (grpc).
    body: the reply's bytes; of a gRPC error its details.
    """

    status: str
    content_type: str = ""
    body: bytes = b""

    def is_error(self) -> bool:
        return self.status != "OK" and not any(part.startswith("2") for part in self.status.split())


@dataclass(frozen=True)
class HttpReply:
    """A reply as read from a connection; `ends` where that is over after it."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    ends: bool


class HttpConnection:
    """A connection to one port."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self.socket = socket.create_connection((host, port), timeout=ANSWER_S)
        except OSError as error:
            raise NoServer(f"{host}:{port} does not answer: {error}") from error
        self.file = self.socket.makefile("rb")
        self.used = False

    def exchange(self, data: bytes, *, head: bool = False) -> HttpReply | str:
        """The reply to `data`; SILENT, CLOSED or GARBLED where there is none. `head`: without its body."""
        with contextlib.suppress(OSError):  # a server may refuse early and read no further: its refusal is there
            self.socket.sendall(data)
        try:
            reply = read_reply(self.file, head)
        except TimeoutError:
            return SILENT
        except OSError:
            return CLOSED
        except ValueError:
            return GARBLED
        self.used = True
        return reply or CLOSED

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def read_reply(file: BinaryIO, head: bool) -> HttpReply | None:
    """The next final reply; None where the connection ends before one. Raises ValueError for what is no HTTP."""
    while True:
        version, _, rest = file.readline().decode("latin-1").partition(" ")
        if not rest:
            return None
        headers = dict(read_headers(file))
        status = int(rest[:3])
        if status >= 200:
            break
    body, whole = b"", True
    if head or status in (204, 304):
        pass
    elif "chunked" in headers.get("transfer-encoding", ""):
        body = b"".join(read_chunks(file))
    elif "content-length" in headers:
        size = int(headers["content-length"])
        body = file.read(size)
        if len(body) < size:
            return None
    else:
        body, whole = file.read(), False
    return HttpReply(version, status, headers, body, not whole or "close" in headers.get("connection", "").lower())


def read_headers(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Each header, its name in lower case."""
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Each chunk of a body."""
    while size := int(file.readline().partition(b";")[0], 16):
        yield file.read(size)
        file.readline()
    list(read_headers(file))


class Address:
    """A server's REST URL and gRPC target."""

    def __init__(self, url: str, target: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or not parts.port or parts.scheme != "http":
            raise ValueError(f"{url!r} is not a REST URL: give http://host:port.")
        self.host, self.port, self.target = parts.hostname, parts.port, target
        self.local = threading.local()

    def check(self, models: Sequence[str], grpc: bool) -> None:
        """Raises NoServer unless it serves the models, and answers over gRPC where that is asked for."""
        for model in models:
            head = f"GET /v1/models/{model} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            reply = self.connect().exchange(head.encode())
            if isinstance(reply, str) or reply.status != 200:
                what = reply if isinstance(reply, str) else f"status {reply.status}"
                raise NoServer(f"http://{self.host}:{self.port} does not serve {model}: {what}.")
        if grpc:
            self.check_grpc()

    def check_grpc(self) -> None:
        """Raises NoServer where nobody speaks gRPC at the target."""
        import grpc

        try:
            grpc.channel_ready_future(self.channel()).result(timeout=10)
        except grpc.FutureTimeoutError as error:
            raise NoServer(f"{self.target} does not answer over gRPC.") from error

    def connect(self) -> HttpConnection:
        return HttpConnection(self.host, self.port)

    def channel(self):
        import grpc

        if not hasattr(self.local, "channel"):
            self.local.channel = grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)])
        return self.local.channel

    def ask(self, request: Request) -> Answer:
        """The answer to one request. Raises NoServer where nobody listens any more."""
        return {"rest": self.ask_rest, "raw": self.ask_raw, "grpc": self.ask_grpc}[request.over](request)

    def ask_rest(self, request: Request) -> Answer:
        """A POST over the calling thread's kept connection."""
        head = f"POST {request.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        data = head.encode() + b"Content-Length: %d\r\n\r\n" % len(request.body) + request.body
        connection = getattr(self.local, "connection", None) or self.connect()
        reply = connection.exchange(data)
        if reply == CLOSED and connection.used:  # the server may close a connection that it has kept for long
            connection.close()
            connection = self.connect()
            reply = connection.exchange(data)
        ends = isinstance(reply, str) or reply.ends
        if ends:
            connection.close()
        self.local.connection = None if ends else connection
        return Answer(reply) if isinstance(reply, str) else http_answer(str(reply.status), reply)

    def ask_raw(self, request: Request) -> Answer:
        """The bytes over a connection of its own, then a GET that shows whether the connection is still open."""
        connection = self.connect()
        try:
            reply = connection.exchange(request.body, head=request.is_head())
            if isinstance(reply, str):
                return Answer(reply)
            is_open = not reply.ends and isinstance(connection.exchange(SENTINEL), HttpReply)
            outcome = ("open" if is_open else "closed") + ("" if "date" in reply.headers else " undated")
            return http_answer(f"{reply.version} {reply.status} {outcome}", reply)
        finally:
            connection.close()

    def ask_grpc(self, request: Request) -> Answer:
        """A unary call, sent again while all of the server's threads are taken: that says nothing about the request."""
        for _ in range(BUSY_ATTEMPTS):
            answer = self.call(request)
            if answer.status != "RESOURCE_EXHAUSTED" or b"Threadpool" not in answer.body:
                break
            time.sleep(BUSY_S)
        return answer

    def call(self, request: Request) -> Answer:
        """A unary call, sent once."""
        import grpc

        try:
            return Answer("OK", body=self.channel().unary_unary(request.path)(request.body, timeout=ANSWER_S))
        except grpc.RpcError as error:
            details = (error.details() or "").encode("utf-8", "surrogateescape")
            if error.code() is grpc.StatusCode.UNAVAILABLE and b"onnect" in details:
                raise NoServer(f"{self.target} does not answer any more: {error.details()}") from error
            return Answer(error.code().name, body=details)


def http_answer(status: str, reply: HttpReply) -> Answer:
    return Answer(status, reply.headers.get("content-type", ""), reply.body)


def ask_all(addresses: Sequence[Address], requests: Iterable[Request], connections: int) -> Iterator[tuple]:
    """(request, an answer of each address) in order, with `connections` requests in flight at each address."""

    def share(address: Address, requests: list[Request], at: int) -> list[Answer]:
        return [address.ask(request) for request in requests[at::connections]]

    with ThreadPoolExecutor(len(addresses) * connections) as pool:
        for block in blocks(requests, 64 * connections):
            runs = [[pool.submit(share, address, block, at) for at in range(connections)] for address in addresses]
            shares = [[run.result() for run in of_address] for of_address in runs]
            for at, request in enumerate(block):
                yield request, *(share[at % connections][at // connections] for share in shares)


def blocks(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    block: list[Request] = []
    for request in requests:
        block.append(request)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
