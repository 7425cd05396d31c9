"""What a REST handler answers, whichever server carries it."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from serving.savedmodel_server.errors import RequestError


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"


def error_reply(error: RequestError) -> Reply:
    """The JSON that TensorFlow Serving answers for a status that is not OK."""
    return Reply(error.http_status, json_error(error.message))


def too_large(limit: int) -> str:
    """What is said of a body over the limit, with HTTP 413, for which there is no canonical code."""
    return f"The request body is larger than {limit} bytes (--max_request_bytes)."


def json_error(message: str) -> bytes:
    """The JSON object that TensorFlow Serving answers with an error."""
    text = message.encode("utf-8", "replace").decode()
    return orjson.dumps({"error": text}, option=orjson.OPT_INDENT_2)
