"""HTTP/1.1 as a client must read it: a parser without I/O, for replies of any framing (RFC 9112)."""

from __future__ import annotations

from typing import Final, NamedTuple

from serving.headers import Fields, merged

MAX_HEAD_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
_NO_BODY: Final = frozenset({204, 304})
_CACHE_LIMIT: Final = 1024
_CACHED_HEAD_BYTES: Final = 4096
"""Longer heads are parsed anew: the cache takes 4 MiB at most."""
_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"
_MOST_DIGITS: Final = len(str(MAX_BODY_BYTES))
"""Of a Content-Length; Python refuses to read a number of thousands of them."""


class MalformedReply(Exception):
    """The bytes are no HTTP/1.1 reply; the text is the reason."""


class ReplyHead(NamedTuple):
    """The status line and the headers that matter."""

    status: int
    length: int
    """Body bytes, or CHUNKED, or UNTIL_CLOSE."""
    keep_alive: bool


known_heads: dict[bytes, ReplyHead] = {}
"""What read_head has parsed, by its bytes with the blank line; emptied when it grows large."""


def read_head(head: bytes) -> ReplyHead:
    """Parse a status line and headers, the blank line included; equal bytes are parsed once.

    A server repeats the same head for a second at least (its Date header), so the cache answers nearly always.
    """
    known = known_heads.get(head)
    if known is None:
        known = _parse_head(head[:-4])
        if len(head) <= _CACHED_HEAD_BYTES:
            if len(known_heads) >= _CACHE_LIMIT:
                known_heads.clear()
            known_heads[head] = known
    return known


def _parse_head(head: bytes) -> ReplyHead:
    lines = head.split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit() or rest[3:4] not in (b" ", b""):
        raise MalformedReply(f"no HTTP status line: {lines[0][:60]!r}")
    status = int(rest[:3])
    fields = _fields(lines[1:])
    connection = fields.get(b"connection", b"").lower()
    keep_alive = b"close" not in connection and (version == b"HTTP/1.1" or b"keep-alive" in connection)
    if status in _NO_BODY or 100 <= status < 200:
        return ReplyHead(status, 0, keep_alive)
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"].lower() != b"chunked":
            raise MalformedReply(f"unknown transfer encoding {fields[b'transfer-encoding'][:60]!r}")
        return ReplyHead(status, CHUNKED, keep_alive)
    length = fields.get(b"content-length")
    if length is None:
        return ReplyHead(status, UNTIL_CLOSE, False)
    digits = length.lstrip(b"0") or b"0"
    if not length.isdigit() or len(digits) > _MOST_DIGITS or int(digits) > MAX_BODY_BYTES:
        raise MalformedReply(f"unusable Content-Length {length[:60]!r}")
    return ReplyHead(status, int(digits), keep_alive)


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise MalformedReply(f"no header: {line[:60]!r}")
        key, value = name.lower(), value.strip()
        if key == b"content-length" and fields.get(key, value) != value:
            raise MalformedReply("two Content-Length headers that differ")
        fields[key] = value
    return fields


class ReplyParser:
    """One reply, fed as its bytes arrive. Raises MalformedReply; `head` and `body` are valid once feed() is True."""

    def __init__(self) -> None:
        self.head = ReplyHead(0, 0, False)
        self.body = b""
        self._buffer = bytearray()
        self._in_body = False
        self._chunks = bytearray()
        self._chunk_left = -1

    def feed(self, data: bytes) -> bool:
        """Take more bytes; True when the reply is whole. Bytes after it are an error: nothing was pipelined."""
        self._buffer += data
        while not self._in_body:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise MalformedReply("headers over 64 KiB")
                return False
            self.head = read_head(bytes(self._buffer[: end + 4]))
            del self._buffer[: end + 4]
            self._in_body = not 100 <= self.head.status < 200
        return self._feed_body()

    def eof(self) -> bool:
        """The peer closed; True where that ends the reply."""
        if self._in_body and self.head.length == UNTIL_CLOSE:
            self.body = bytes(self._buffer)
            return True
        return False

    @property
    def started(self) -> bool:
        """True once any byte of a reply has arrived."""
        return self._in_body or bool(self._buffer)

    def _feed_body(self) -> bool:
        length = self.head.length
        if length == CHUNKED:
            return self._feed_chunks()
        if length == UNTIL_CLOSE:
            if len(self._buffer) > MAX_BODY_BYTES:
                raise MalformedReply("a body over 256 MiB")
            return False
        if len(self._buffer) < length:
            return False
        if len(self._buffer) > length:
            raise MalformedReply("bytes after the reply's end")
        self.body = bytes(self._buffer)
        return True

    def _feed_chunks(self) -> bool:
        while True:
            if self._chunk_left < 0 and not self._next_chunk():
                return False
            if self._chunk_left == 0:
                return self._feed_trailer()
            if len(self._buffer) < self._chunk_left + 2:
                return False
            if self._buffer[self._chunk_left : self._chunk_left + 2] != b"\r\n":
                raise MalformedReply("a chunk longer than it says")
            self._chunks += self._buffer[: self._chunk_left]
            del self._buffer[: self._chunk_left + 2]
            self._chunk_left = -1

    def _next_chunk(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > 1024:
                raise MalformedReply("a chunk size line over 1 KiB")
            return False
        size = bytes(self._buffer[:end]).partition(b";")[0].strip()
        if not size or size.strip(_HEX_DIGITS) or len(self._chunks) + int(size, 16) > MAX_BODY_BYTES:
            raise MalformedReply(f"unusable chunk size {size[:20]!r}")
        self._chunk_left = int(size, 16)
        del self._buffer[: end + 2]
        return True

    def _feed_trailer(self) -> bool:
        # The last chunk is followed by trailer fields, usually none, and a blank line.
        if self._buffer[:2] == b"\r\n":
            end = -2
        else:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise MalformedReply("trailer fields over 64 KiB")
                return False
        if len(self._buffer) > end + 4:
            raise MalformedReply("bytes after the reply's end")
        self.body = bytes(self._chunks)
        return True


def request_bytes(
    method: str, path: str, host: str, content_type: str | None, body: bytes, headers: Fields = ()
) -> bytes:
    """A whole HTTP/1.1 request on a connection to be kept alive; `headers` take the place of ours of the same name."""
    own = [("Host", host), ("User-Agent", "servestorm"), ("Accept", "*/*")]
    if content_type:
        own.append(("Content-Type", content_type))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in merged(own, headers))]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
