"""Clients that account for every request: REST on kept and pipelined connections, and gRPC calls with raw messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import grpc

ANSWER_S = 60.0
"""A request that is not answered within this time counts as unanswered."""
UNANSWERED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""What grpc reports of a call whose connection ended, or whose answer did not come."""
_LENGTH = re.compile(rb"(?i)\ncontent-length: *(\d+)")


@dataclass(frozen=True)
class Reply:
    """An answer over REST or gRPC."""

    status: str
    """Such as 200 or NOT_FOUND; empty where no answer came."""
    body: bytes = b""
    """Of a gRPC call that failed, its details."""


NO_REPLY = Reply("")


def rest_request(method: str, path: str, body: bytes = b"", *fields: str) -> bytes:
    """One HTTP/1.1 request."""
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *length, *fields, "", ""]).encode() + body


class RestConnection:
    """A kept connection; the next requests after its end open another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, requests: Sequence[bytes]) -> list[Reply]:
        """Send all in one piece and read their answers, which come in the same order; NO_REPLY where none came."""
        replies: list[Reply] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                reader = await self._send(b"".join(requests))
                for _ in requests:
                    reply, closes = await _read_reply(reader)
                    replies.append(reply)
                    if closes:
                        break
                else:
                    return replies
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        self.close()
        return replies + [NO_REPLY] * (len(requests) - len(replies))

    async def abandon(self, data: bytes) -> None:
        """Send what may be cut off anywhere, and go away without reading."""
        with suppress(OSError):
            await self._send(data)
        self.close()

    async def _send(self, data: bytes) -> asyncio.StreamReader:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(data)
        return self._reader

    def close(self) -> None:
        """Forget the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _read_reply(reader: asyncio.StreamReader) -> tuple[Reply, bool]:
    """The next answer, and whether the connection ends with it."""
    head = await reader.readuntil(b"\r\n\r\n")
    match = _LENGTH.search(head)
    body = await reader.readexactly(int(match[1])) if match else b""
    return Reply(head[9:12].decode(), body), b"connection: close" in head.lower()


class GrpcCalls:
    """Calls over one connection of their own."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])

    async def ask(self, method: str, message: bytes) -> Reply:
        """Call `method` (/package.Service/Name); OK with the response's bytes, or a code with its details."""
        try:
            return Reply("OK", await self._channel.unary_unary(method)(message, timeout=ANSWER_S))
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            return NO_REPLY if code in UNANSWERED else Reply(code, (error.details() or "").encode())

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()
