"""The header block of a gRPC call: whether HTTP/2 allows it (RFC 9113, section 8), and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_A_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
Fields = Sequence[tuple[bytes, bytes]]


class CallHead(NamedTuple):
    """What matters of a request's headers."""

    path: str
    encoding: str
    timeout_s: float | None
    length: int | None
    """Bytes of the body, where the head gives them."""
    http_error: int
    """An HTTP status where this is no gRPC request; else 0."""
    malformed: str
    """What HTTP/2 forbids of this head; else empty."""


def read_head(fields: Fields) -> CallHead:
    """The head of these decoded fields."""
    by_name = dict(fields)
    path = by_name.get(b":path", b"").decode("ascii", "replace")
    encoding = by_name.get(b"grpc-encoding", b"identity").decode("ascii", "replace")
    malformed = _malformed_request(fields, by_name)
    error = 0
    if by_name.get(b":method") != b"POST":
        error = 405
    elif not by_name.get(b"content-type", b"").startswith(b"application/grpc"):
        error = 415
    length = by_name.get(b"content-length")
    timeout = by_name.get(b"grpc-timeout")
    match = _TIMEOUT.fullmatch(timeout) if timeout is not None else None
    if timeout is not None and match is None:
        error = error or 400
    return CallHead(
        path=path,
        encoding=encoding,
        timeout_s=int(match[1]) * _UNITS_S[match[2]] if match else None,
        length=int(length) if length and not malformed else None,
        http_error=error,
        malformed=malformed,
    )


def malformed_trailers(fields: Fields) -> str:
    """What HTTP/2 forbids of the fields after a body; empty where they may stand there."""
    if any(name.startswith(b":") for name, _ in fields):
        return "a pseudo-header field after the body"
    return _malformed_fields(fields)


def _malformed_request(fields: Fields, by_name: dict[bytes, bytes]) -> str:
    pseudo = [name for name, _ in fields if name.startswith(b":")]
    if any(name.startswith(b":") for name, _ in fields[len(pseudo) :]):
        return "a pseudo-header field after others"
    if len(set(pseudo)) < len(pseudo) or not _PSEUDO.issuperset(pseudo):
        return "a pseudo-header field that is unknown or there twice"
    authority = by_name.get(b":authority")
    if authority is not None and (b"@" in authority or by_name.get(b"host", authority) != authority):
        return ":authority has user information, or is not the host"
    return _malformed_target(by_name) or _malformed_fields(fields[len(pseudo) :]) or _malformed_values(fields)


def _malformed_target(by_name: dict[bytes, bytes]) -> str:
    method, path = by_name.get(b":method"), by_name.get(b":path")
    if method == b"CONNECT":
        alone = b":authority" in by_name and path is None and b":scheme" not in by_name
        return "" if alone else "CONNECT takes :authority alone"
    if not method or not path or not by_name.get(b":scheme"):
        return ":method, :scheme or :path is missing"
    if not path.startswith(b"/") and (path, method) != (b"*", b"OPTIONS"):
        return ":path does not begin with a slash"
    return ""


def _malformed_fields(fields: Fields) -> str:
    lengths = 0
    for name, value in fields:
        if _NAME.fullmatch(name) is None:
            return "a field name has a character that is not allowed"
        if name in _OF_A_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            return f"the field {name.decode()} is not allowed"
        if name == b"content-length":
            lengths += 1
            if lengths > 1 or not 0 < len(value) < 19 or not value.isdigit():
                return "content-length is not one whole number"
    return _malformed_values(fields)


def _malformed_values(fields: Fields) -> str:
    if any(_FORBIDDEN_IN_VALUE.search(value) for _, value in fields):
        return "a field value has a character that is not allowed"
    return ""
