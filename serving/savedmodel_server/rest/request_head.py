"""The head of an HTTP/1.1 request, read as RFC 9112 defines it; what the grammar does not allow is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from serving.savedmodel_server.rest.http_reply import too_large
from serving.savedmodel_server.rest.rest_path import RestTarget

if TYPE_CHECKING:
    from serving.savedmodel_server.rest.api import RestApi

LARGEST_HEAD_BYTES = 64 << 10
LARGEST_TARGET_BYTES = 8 << 10
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD_LINE = TOKEN + rb":[\t -~\x80-\xff]*\r\n"
_LINE = rb"(" + TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])\r\n"
_REQUEST_LINE = re.compile(_LINE)
_FIELD_LINES = re.compile(rb"(?:" + FIELD_LINE + rb")*+")
_BEGINNING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*+(?:(?<=.) [!-~]*+(?:(?<=[!-~]) [HTP/0-9.]*+\r?)?)?")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
_PCHARS = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*"
_MORE = rb"(?:" + _PCHARS[:-1] + rb"|\?)*"
_PATH = re.compile(rb"/" + _PCHARS + rb"(?:\?" + _MORE + rb")?(?:#" + _MORE + rb")?")
_HOST = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[[0-9A-Za-z:.]+\]"
_AUTHORITY = re.compile(rb"(?:" + _HOST + rb")(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@:]+|\[[^/?#@]*\])(:[0-9]*)?([/?#].*)?", re.IGNORECASE)
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
_HEADS_KEPT = 1024
_KEPT_BYTES = 1024
_MOST_DIGITS = 18
_BAD_TARGET = "The request target is malformed."
_BAD_FIELD = "A header field is malformed."
_LONG_TARGET = f"The request target is longer than {LARGEST_TARGET_BYTES} bytes."


class RequestRefused(Exception):
    """A request that is answered with `status`, after which the connection is closed."""

    def __init__(self, status: int, message: str, *, html: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.html = html
        """TensorFlow Serving's HTTP library answers it by itself, with a page instead of JSON."""


class RequestHead(NamedTuple):
    """What a head says; field names are in lower case, and the target is in origin form (or `*`).

    A fragment, which HTTP knows in no target, is a part of it, as in TensorFlow Serving.
    """

    method: bytes
    target: bytes
    is_1_1: bool
    fields: list[tuple[bytes, bytes]]
    length: int
    """Bytes of the body; 0 where it is chunked, or where there is none."""
    chunked: bool
    keep_alive: bool
    expects_100: bool
    gzipped: bool
    predict: RestTarget | None
    """What a `:predict` names that nothing is wrong with."""


class HeadReader:
    """Reads the heads of one server's connections, and remembers those that clients repeat."""

    def __init__(self, api: RestApi, max_bytes: int) -> None:
        self._api = api
        self._max_bytes = max_bytes
        self._kept: dict[bytes, RequestHead] = {}

    def read(self, head: bytes) -> RequestHead:
        """The head that these bytes are, with the empty line at its end; raises RequestRefused."""
        found = self._kept.get(head)
        if found is None:
            found = self._parsed(head)
            if len(head) <= _KEPT_BYTES:
                if len(self._kept) >= _HEADS_KEPT:
                    self._kept.clear()
                self._kept[head] = found
        return found

    def _parsed(self, head: bytes) -> RequestHead:
        if len(head) > LARGEST_HEAD_BYTES:
            raise RequestRefused(431, "The request's head is too large.")
        line = read_request_line(head)
        if _FIELD_LINES.fullmatch(head, line.end, len(head) - 2) is None:
            raise RequestRefused(400, _BAD_FIELD)
        fields = [_field(text) for text in head[line.end : -4].split(b"\r\n") if text]
        return self._judged(line, fields)

    def _judged(self, line: RequestLine, fields: list[tuple[bytes, bytes]]) -> RequestHead:
        method, target, is_1_1 = line.method, line.target, line.is_1_1
        _check_host(fields, is_1_1)
        chunked = _is_chunked(fields, is_1_1)
        length = _length(fields)
        if chunked and length is not None:
            raise RequestRefused(400, "Content-Length and Transfer-Encoding exclude each other.")
        expects_100 = is_1_1 and any(value.lower() == b"100-continue" for value in _values(fields, b"expect"))
        if expects_100 and (length or 0) > self._max_bytes:
            raise RequestRefused(413, too_large(self._max_bytes))
        connection = [word.lower() for word in _members(fields, b"connection")]
        return RequestHead(
            method=method,
            target=target,
            is_1_1=is_1_1,
            fields=fields,
            length=length or 0,
            chunked=chunked,
            keep_alive=b"close" not in connection
            and (is_1_1 or b"keep-alive" in connection)
            and not line.was_absolute,  # as TensorFlow Serving answers what a proxy is asked
            expects_100=expects_100,
            gzipped=is_gzipped(fields),
            predict=self._api.predict_target(target) if method == b"POST" else None,
        )


class RequestLine(NamedTuple):
    """The first line of a head, which ends at `end`."""

    method: bytes
    target: bytes
    is_1_1: bool
    was_absolute: bool
    """The target named a host."""
    end: int


def read_request_line(head: bytes | bytearray) -> RequestLine:
    """The line that a head begins with; raises RequestRefused."""
    match = _REQUEST_LINE.match(head)
    if match is None:
        raise RequestRefused(400, "The request line is malformed.")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise RequestRefused(400 if major in (b"0", b"1") else 505, "Only HTTP/1.0 and HTTP/1.1 are supported.")
    if method not in _METHODS:
        raise RequestRefused(501, f"Method {method[:32].decode()} is not supported.", html=True)
    if len(target) > LARGEST_TARGET_BYTES:
        raise RequestRefused(414, _LONG_TARGET)
    origin = _origin_form(method, target)
    return RequestLine(method, origin, minor == b"1", target[:1] not in b"/*", match.end())


def check_beginning(part: bytes | bytearray, new: int) -> None:
    """Raise RequestRefused where nothing that follows could make a head of `part`, of which `new` bytes are new."""
    check_characters(part, new)
    end = part.find(b"\r\n", 0, LARGEST_HEAD_BYTES)
    if end < 0:
        if _BEGINNING.fullmatch(part) is None:
            raise RequestRefused(400, "The request line is malformed.")
        if len(part) > LARGEST_TARGET_BYTES + 64:
            raise RequestRefused(414, _LONG_TARGET)
        return
    if end + 2 > len(part) - new:
        read_request_line(bytes(part[: end + 2]))
    check_lines(part, new, end + 2)


def check_characters(part: bytes | bytearray, new: int) -> None:
    """Raise RequestRefused where `part`, of which `new` bytes are new, holds what no line of a head does."""
    if _FORBIDDEN.search(part, max(0, len(part) - new - 1)):
        raise RequestRefused(400, "The head contains a character that HTTP does not allow.")


def check_lines(part: bytes | bytearray, new: int, begin: int) -> None:
    """Raise RequestRefused where a field line from `begin` on, which one of the `new` bytes ends, is malformed."""
    known = len(part) - new
    if part.find(b"\n", max(known, begin)) < 0:
        return
    before = part.rfind(b"\r\n", begin, known)
    first = begin if before < 0 else before + 2
    if _FIELD_LINES.fullmatch(part, first, part.rfind(b"\n") + 1) is None:
        raise RequestRefused(400, _BAD_FIELD)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _origin_form(method: bytes, target: bytes) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        return target
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        authority, rest = absolute[1] + (absolute[2] or b""), absolute[3] or b"/"
        target = rest if rest.startswith(b"/") else b"/" + rest
        if _AUTHORITY.fullmatch(authority) is None:
            raise RequestRefused(400, _BAD_TARGET, html=True)
    if _PATH.fullmatch(target) is None:
        raise RequestRefused(400, _BAD_TARGET, html=True)
    return target


def _values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for found, value in fields if found == name]


def _members(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The members of a list-based field, over all its lines."""
    return [member.strip(b" \t") for value in _values(fields, name) for member in value.split(b",")]


def _check_host(fields: list[tuple[bytes, bytes]], is_1_1: bool) -> None:
    hosts = _values(fields, b"host")
    if len(hosts) > 1 or (is_1_1 and not hosts):
        raise RequestRefused(400, f"A request must have one Host field; this one has {len(hosts)}.")
    if hosts and _AUTHORITY.fullmatch(hosts[0]) is None:
        raise RequestRefused(400, "The Host field is malformed.")


def _is_chunked(fields: list[tuple[bytes, bytes]], is_1_1: bool) -> bool:
    if not _values(fields, b"transfer-encoding"):
        return False
    codings = [member.lower() for member in _members(fields, b"transfer-encoding")]
    if not is_1_1 or codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
        raise RequestRefused(400, "Transfer-Encoding must be chunked, and of HTTP/1.1.")
    if len(codings) > 1:
        raise RequestRefused(501, "No Transfer-Encoding but chunked is supported.")
    return True


def _length(fields: list[tuple[bytes, bytes]]) -> int | None:
    lengths = _values(fields, b"content-length")
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise RequestRefused(400, "Content-Length must be one whole number.")
    digits = lengths[0].lstrip(b"0")
    if len(digits) > _MOST_DIGITS:
        raise RequestRefused(413, "The request body is too large.")
    return int(digits or b"0")


def is_gzipped(fields: list[tuple[bytes, bytes]]) -> bool:
    """True for a body with `Content-Encoding: gzip`; any other coding counts for nothing, as in TensorFlow Serving."""
    return any(b"gzip" in value.lower() for value in _values(fields, b"content-encoding"))
