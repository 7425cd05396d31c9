"""What a strict server makes of the bytes of one HTTP/1.1 connection: a second reader, written from RFC 9112's text.

Beyond the RFC, a target may have a fragment, as TensorFlow Serving takes it. This reader shares no code with the
server, goes line by line, and keeps everything it reads.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field

TOKEN = frozenset((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
HEX = frozenset(string.hexdigits.encode())
PCHAR = frozenset((string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/?").encode())
HOST = frozenset((string.ascii_letters + string.digits + "-._~!$&'()*+,;=").encode())
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")


class Refused(Exception):
    """The bytes break a rule, or ask for what this server does not do."""


class Incomplete(Exception):
    """The bytes end before the request does."""


@dataclass
class Judged:
    """The requests that a server answers, and what it makes of the rest."""

    requests: list[Request] = field(default_factory=list)
    refused: str = ""
    """Why the next bytes are refused; empty where they are not."""
    closes: bool = False
    """The connection ends after the last answer."""


@dataclass
class Request:
    """One complete request."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    minor: int
    was_absolute: bool
    """The target named a host, as for a proxy; the connection is closed then."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def line(self) -> bytes:
        """Up to the next CRLF; a CR or an LF by itself is refused."""
        end = self.data.find(b"\n", self.at)
        line = self.data[self.at : end + 1 if end >= 0 else len(self.data)]
        if b"\r" in line[:-2] or (end >= 0 and not line.endswith(b"\r\n")):
            raise Refused("a line that does not end with CRLF")
        if end < 0:
            raise Incomplete
        self.at = end + 1
        return line[:-2]

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise Incomplete
        self.at += size
        return self.data[self.at - size : self.at]


def judge(data: bytes) -> Judged:
    """Everything that one connection's bytes are."""
    source, out = _Bytes(data), Judged()
    while source.at < len(data):
        try:
            request = _request(source)
        except Refused as error:
            out.refused, out.closes = str(error), True
            return out
        except Incomplete:
            return out
        if request is None:
            return out
        out.requests.append(request)
        connection = [word.strip(b" \t").lower() for v in request.values(b"connection") for word in v.split(b",")]
        if b"close" in connection or request.was_absolute or (request.minor == 0 and b"keep-alive" not in connection):
            out.closes = True
            return out
    return out


def _request(source: _Bytes) -> Request | None:
    line = source.line()
    while not line:
        if source.at == len(source.data):
            return None
        line = source.line()
    method, target, minor = _request_line(line)
    fields = _fields(source)
    request = Request(method, _target(method, target), fields, b"", minor, target[:1] not in b"/*")
    _check_host(request)
    codings = [c.strip(b" \t").lower() for v in request.values(b"transfer-encoding") for c in v.split(b",")]
    lengths = request.values(b"content-length")
    if codings and (codings != [b"chunked"] or lengths or minor == 0):
        raise Refused("Transfer-Encoding")
    if len(lengths) > 1 or any(not v or set(v) - set(b"0123456789") or len(v.lstrip(b"0")) > 18 for v in lengths):
        raise Refused("Content-Length")
    if codings:
        request.body = _chunked(source)
    elif lengths:
        request.body = source.take(int(lengths[0]))
    return request


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts) or set(parts[0]) - TOKEN or min(parts[1]) < 0x21 or max(parts[1]) > 0x7E:
        raise Refused("request line")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused("version")
    if parts[0] not in METHODS:
        raise Refused("method")
    return parts[0], parts[1], int(parts[2][-1:])


def _target(method: bytes, target: bytes) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https") and not target.startswith(b"/"):
        end = min((at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0), default=len(rest))
        authority, target = rest[:end], rest[end:]
        if not target.startswith(b"/"):
            target = b"/" + target
        if not authority or authority.startswith(b":") or not _is_authority(authority):
            raise Refused("authority")
    before, _, fragment = target.partition(b"#")
    if not target.startswith(b"/") or not _are_pchars(before, PCHAR) or not _are_pchars(fragment, PCHAR):
        raise Refused("target")
    return target


def _are_pchars(text: bytes, allowed: frozenset[int]) -> bool:
    first, *escapes = text.split(b"%")
    if set(first) - allowed:
        return False
    return all(len(e) >= 2 and set(e[:2]) <= HEX and not set(e[2:]) - allowed for e in escapes)


def _is_authority(text: bytes) -> bool:
    if text.startswith(b"["):
        host, mark, port = text[1:].partition(b"]")
        good = bool(host) and bool(mark) and not set(host) - HEX - set(b":.") - set(string.ascii_letters.encode())
        return good and (not port or (port.startswith(b":") and not set(port[1:]) - set(b"0123456789")))
    host, _, port = text.partition(b":")
    return _are_pchars(host, HOST) and not set(port) - set(b"0123456789")


def _fields(source: _Bytes) -> list[tuple[bytes, bytes]]:
    fields = []
    while line := source.line():
        name, colon, value = line.partition(b":")
        if not colon or not name or set(name) - TOKEN:
            raise Refused("field name")
        if any((c < 0x20 and c != 9) or c == 0x7F for c in value):
            raise Refused("field value")
        fields.append((name, value.strip(b" \t")))
    return fields


def _check_host(request: Request) -> None:
    hosts = request.values(b"host")
    if len(hosts) > 1 or (request.minor and not hosts) or any(not _is_authority(host) for host in hosts):
        raise Refused("Host")


def _chunked(source: _Bytes) -> bytes:
    body = b""
    while True:
        size, extensions = _chunk_size(source.line())
        _check_extensions(extensions)
        if not size:
            break
        body += source.take(size)
        end = source.data[source.at : source.at + 2]
        if not b"\r\n".startswith(end):
            raise Refused("chunk longer than its size")
        source.take(2)
    for name, _ in _fields(source):
        if name.lower() in (b"content-length", b"transfer-encoding", b"host", b"trailer"):
            raise Refused("trailer")
    return body


def _chunk_size(line: bytes) -> tuple[int, bytes]:
    end = next((i for i, c in enumerate(line) if c not in HEX), len(line))
    if not end or end > 32 or len(line) > 4094 or len(line[:end].lstrip(b"0")) > 15:
        raise Refused("chunk size")
    return int(line[:end], 16), line[end:]


def _check_extensions(rest: bytes) -> None:
    """*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )"""
    while rest:
        rest = rest.lstrip(b" \t")
        if not rest.startswith(b";"):
            raise Refused("chunk extension")
        rest = _after_token(rest[1:].lstrip(b" \t"))
        after = rest.lstrip(b" \t")
        if after.startswith(b"="):
            value = after[1:].lstrip(b" \t")
            rest = _after_quoted(value) if value.startswith(b'"') else _after_token(value)


def _after_token(text: bytes) -> bytes:
    end = next((i for i, c in enumerate(text) if c not in TOKEN), len(text))
    if not end:
        raise Refused("chunk extension")
    return text[end:]


def _after_quoted(text: bytes) -> bytes:
    at = 1
    while at < len(text):
        c = text[at]
        if (c < 0x20 and c != 9) or c == 0x7F:
            break
        if c == 0x22:
            return text[at + 1 :]
        at += 1
        if c == 0x5C:
            if at == len(text) or (text[at] < 0x20 and text[at] != 9) or text[at] == 0x7F:
                break
            at += 1
    raise Refused("chunk extension")
