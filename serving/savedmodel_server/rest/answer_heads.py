"""The heads of HTTP answers that are written as bytes, beside those that uvicorn writes."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.savedmodel_server.rest.http_reply import Reply

_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d"
_CLOSES = b"\r\nconnection: close\r\n"


def answer_head(reply: Reply) -> bytes:
    """The lines of an answer's head up to the length of its body, without the end of the last."""
    size = len(reply.body)
    if reply.status == 200:  # always JSON
        return _JSON_HEAD % size
    fields = b"content-type: %b\r\ncontent-length: %d" % (reply.content_type, size)
    return STATUS_LINE[reply.status] + fields


class Dates:
    """The fields that uvicorn adds to every answer, and makes anew every second: the time."""

    def __init__(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._line = b""

    def line(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        """The fields as text, each after the end of a line."""
        if fields is not self._fields:
            self._fields = fields
            self._line = b"".join(b"\r\n%b: %b" % field for field in fields)
        return self._line


class OldTransport:
    """Writes one answer to a client of HTTP/1.0."""

    def __init__(self, transport: asyncio.Transport, *, keep_alive: bool) -> None:
        self._transport = transport
        self._keep_alive = keep_alive
        self._head_written = False

    def write(self, data: bytes) -> None:
        """The answer's head first, then its body."""
        if not self._head_written:
            self._head_written = True
            data = old_head(data, keep_alive=self._keep_alive and _CLOSES not in data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def old_head(head: bytes, *, keep_alive: bool) -> bytes:
    """An answer's head as HTTP/1.0 has it; a connection that stays open is said to."""
    line, rest = head.split(b"\r\n", 1)
    return b"HTTP/1.0" + line[8:] + (b"\r\nconnection: keep-alive\r\n" if keep_alive else b"\r\n") + rest
