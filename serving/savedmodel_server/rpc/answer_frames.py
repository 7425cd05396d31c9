"""The frames that answer a gRPC call."""

from __future__ import annotations

from serving import http2_frames as h2
from serving.savedmodel_server.errors import Code

_HEAD_FIELDS = h2.status_field(200) + h2.literal(b"content-type", b"application/grpc")
_HEAD = h2.frame(h2.HEADERS, h2.END_HEADERS, 0, _HEAD_FIELDS)[:5]
_OK_FIELDS = h2.literal(b"grpc-status", b"0")
_LONGEST_MESSAGE_BYTES = 4000
"""As it is encoded: clients of grpc-core may refuse heads over 8 KiB."""
_TRAILERS_HEAD = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 0, _OK_FIELDS)[:5]


def whole_answer(number: int, message: bytes) -> bytes:
    """Head, a message that fits into one frame, and an OK end."""
    stream, size = number.to_bytes(4, "big"), len(message)
    return (
        _HEAD + stream + _HEAD_FIELDS
        + h2.HEADER.pack(0, size + 5, h2.DATA, 0, number) + b"\x00" + size.to_bytes(4, "big") + message
        + _TRAILERS_HEAD + stream + _OK_FIELDS
    )  # fmt: skip


def answer_head(number: int) -> bytes:
    """The head alone."""
    return h2.frame(h2.HEADERS, h2.END_HEADERS, number, _HEAD_FIELDS)


def ok_end(number: int) -> bytes:
    """The trailers of a call that went well."""
    return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, _OK_FIELDS)


def failure(number: int, code: Code, message: str, *, opened: bool) -> bytes:
    """A status that is not OK; after the head, where that is sent (`opened`)."""
    fields = b"" if opened else _HEAD_FIELDS
    fields += h2.literal(b"grpc-status", str(int(code)).encode())
    fields += h2.literal(b"grpc-message", _percent_encoded(message))
    return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, fields)


def http_failure(number: int, status: int) -> bytes:
    """An HTTP status, for what is no gRPC call."""
    return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, h2.status_field(status))


def _percent_encoded(message: str) -> bytes:
    """As gRPC encodes grpc-message: printable ASCII but % as it is; cut where it would not fit a client's limit."""
    encoded = b""
    for character in message[:_LONGEST_MESSAGE_BYTES]:
        raw = character.encode("utf-8", "replace")
        more = raw if " " <= character <= "~" and character != "%" else b"".join(b"%%%02X" % byte for byte in raw)
        if len(encoded) + len(more) > _LONGEST_MESSAGE_BYTES:
            break
        encoded += more
    return encoded
