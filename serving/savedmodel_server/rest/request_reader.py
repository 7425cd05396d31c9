"""Cuts the bytes of one HTTP/1.1 connection into requests (RFC 9112, sections 2, 6 and 7)."""

from __future__ import annotations

import re
from typing import Protocol

from serving.savedmodel_server.rest.request_head import (
    FIELD_LINE,
    LARGEST_HEAD_BYTES,
    TOKEN,
    HeadReader,
    RequestHead,
    RequestRefused,
    check_beginning,
    check_characters,
    check_lines,
)

LARGEST_CHUNK_LINE_BYTES = 4 << 10
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"+(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"+|" + _QUOTED + rb"))?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,32})(?:" + _EXTENSION + rb")*+")
_CHUNK_BEGINNING = re.compile(rb"[0-9A-Fa-f]{0,32}(?:[ \t;][\t -~\x80-\xff]*+)?\r?")
_TRAILERS = re.compile(rb"(?:" + FIELD_LINE + rb")*+")
_FRAMING = re.compile(rb"(?:^|\n)(?:content-length|transfer-encoding|host|trailer):", re.IGNORECASE)
_HEAD, _BODY, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILER, _STOPPED = range(7)


class Events(Protocol):
    """What the reader calls, in this order, for each request; each may raise RequestRefused."""

    def on_head(self, head: RequestHead) -> None:
        """The head is complete."""

    def on_body(self, body: bytes) -> None:
        """A part of the body."""

    def on_message_complete(self) -> None:
        """The request is complete."""


class RequestReader:
    """One connection's."""

    def __init__(self, events: Events, heads: HeadReader) -> None:
        self._events = events
        self._heads = heads
        self._state = _HEAD
        self._pending = bytearray()
        """Bytes of a head, a chunk's line or the trailers, which are not complete."""
        self._left = 0
        """Bytes that the body or the chunk still lacks."""
        self._is_last = False

    @property
    def has_part(self) -> bool:
        """True while a request has begun and is not complete."""
        return self._state not in (_HEAD, _STOPPED) or bool(self._pending)

    def stop(self) -> None:
        """Ignore whatever follows."""
        self._state = _STOPPED
        self._pending.clear()

    def feed(self, data: bytes) -> None:
        """Read; raises RequestRefused where the bytes are no request, after which nothing may be fed."""
        at, end = 0, len(data)
        while at < end:
            state = self._state
            if state == _HEAD:
                at = self._head(data, at)
            elif state in (_BODY, _CHUNK_DATA):
                at = self._data(data, at, end)
            elif state == _TRAILER:
                at = self._trailers(data, at)
            elif state == _STOPPED:
                return
            else:
                at = self._chunk_line(data, at)

    def _head(self, data: bytes, at: int) -> int:
        """Read a head, or keep what there is of it; returns where to read on."""
        if not self._pending:
            while data.startswith(b"\r\n", at):  # an empty line before a request is ignored
                at += 2
            found = data.find(b"\r\n\r\n", at)
            if found >= 0:
                self._begin(self._heads.read(data[at : found + 4]))
                return found + 4
        return self._more_head(data, at)

    def _more_head(self, data: bytes, at: int) -> int:
        pending, known = self._pending, len(self._pending)
        pending += data[at : at + LARGEST_HEAD_BYTES + 4 - known]
        if pending[:2] == b"\r\n":
            pending.clear()
            return at + 2 - known
        found = pending.find(b"\r\n\r\n", max(0, known - 3))
        if found >= 0:
            head = bytes(pending[: found + 4])
            pending.clear()
            self._begin(self._heads.read(head))
            return at + found + 4 - known
        if pending != b"\r":
            check_beginning(pending, len(pending) - known)
        if len(pending) >= LARGEST_HEAD_BYTES:
            raise RequestRefused(431, "The request's head is too large.")
        return len(data)

    def _begin(self, head: RequestHead) -> None:
        self._is_last = not head.keep_alive
        self._events.on_head(head)
        if self._state == _STOPPED:
            return
        if head.chunked:
            self._state = _CHUNK_SIZE
        elif head.length:
            self._state, self._left = _BODY, head.length
        else:
            self._end()

    def _data(self, data: bytes, at: int, end: int) -> int:
        size = min(self._left, end - at)
        self._left -= size
        self._events.on_body(data[at : at + size])
        if not self._left and self._state != _STOPPED:
            if self._state == _CHUNK_DATA:
                self._state = _CHUNK_END
            else:
                self._end()
        return at + size

    def _end(self) -> None:
        self._state = _STOPPED if self._is_last else _HEAD
        self._events.on_message_complete()

    def _chunk_line(self, data: bytes, at: int) -> int:
        """The line with a chunk's size, or the end of the line after its data."""
        pending = self._pending
        found = data.find(b"\n", at, at + LARGEST_CHUNK_LINE_BYTES)
        pending += data[at : found + 1 if found >= 0 else at + LARGEST_CHUNK_LINE_BYTES]
        is_size = self._state == _CHUNK_SIZE
        if found < 0:
            beginning = _CHUNK_BEGINNING.fullmatch(pending) if is_size else pending == b"\r"
            if not beginning or len(pending) >= LARGEST_CHUNK_LINE_BYTES:
                raise RequestRefused(400, "A chunk of the body is malformed.")
            return len(data)
        line = bytes(pending)
        pending.clear()
        if is_size:
            self._begin_chunk(line)
        elif line == b"\r\n":
            self._state = _CHUNK_SIZE
        else:
            raise RequestRefused(400, "A chunk of the body is longer than its size.")
        return found + 1

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line, 0, len(line) - 2) if line.endswith(b"\r\n") else None
        if match is None or len(line) > LARGEST_CHUNK_LINE_BYTES:
            raise RequestRefused(400, "A chunk's size is malformed.")
        self._left = int(match[1], 16)
        if self._left >> 60:
            raise RequestRefused(413, "The request body is too large.")
        self._state = _CHUNK_DATA if self._left else _TRAILER

    def _trailers(self, data: bytes, at: int) -> int:
        """Check the fields after the last chunk, which nothing reads."""
        pending, known = self._pending, len(self._pending)
        pending += data[at : at + LARGEST_HEAD_BYTES + 4 - known]
        found = 0 if pending.startswith(b"\r\n") else pending.find(b"\r\n\r\n", max(0, known - 3)) + 2
        if found == 1:
            check_characters(pending, len(pending) - known)
            check_lines(pending, len(pending) - known, 0)
            if len(pending) >= LARGEST_HEAD_BYTES:
                raise RequestRefused(431, "The request's trailers are too large.")
            return len(data)
        trailers = bytes(pending[:found])
        pending.clear()
        if _TRAILERS.fullmatch(trailers) is None or _FRAMING.search(trailers):
            raise RequestRefused(400, "The fields after the last chunk are malformed.")
        self._end()
        return at + found + 2 - known
