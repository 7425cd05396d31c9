"""What a REST handler answers, whichever server carries it."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.rest.json_bodies.texts import quoted

HTML = b"text/html"


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    closes: bool = False
    """The connection ends with it."""


def error_reply(error: RequestError) -> Reply:
    """The JSON that TensorFlow Serving answers for a status that is not OK; nothing for an error without words."""
    return Reply(error.http_status, json_error(error.message) if error.message else b"")


def too_large(limit: int) -> str:
    """What is said of a body over the limit, with HTTP 413, for which there is no canonical code."""
    return f"The request body is larger than {limit} bytes (--max_request_bytes)."


def json_error(message: str) -> bytes:
    """The JSON object that TensorFlow Serving answers with an error."""
    return b'{\n    "error": ' + quoted(message).encode("utf-8", "replace") + b"\n}"


def html_reply(status: int) -> Reply:
    """What TensorFlow Serving's HTTP library answers by itself, before it closes the connection."""
    phrase = HTTPStatus(status).phrase
    head = f"<HTML><HEAD>\n<TITLE>{status} {phrase}</TITLE>\n</HEAD>"
    return Reply(status, f"{head}<BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n".encode(), HTML, closes=True)
