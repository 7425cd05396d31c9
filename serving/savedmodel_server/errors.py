"""Canonical status codes of TensorFlow Serving and what they are over HTTP."""

from __future__ import annotations

from enum import IntEnum

from serving.errors import ServingError


class Code(IntEnum):
    """Canonical (gRPC) status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class RequestError(ServingError):
    """A request that is answered with a canonical code; `message` is what the client reads."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """HTTP status code."""
        return HTTP_STATUS[self.code]


def invalid(message: str) -> RequestError:
    """The client's fault: INVALID_ARGUMENT, HTTP 400."""
    return RequestError(Code.INVALID_ARGUMENT, message)


class FlagError(ServingError):
    """The command line or a file it names cannot be used (exit code 2)."""


class StartError(ServingError):
    """The server cannot start here: a port in use, a missing library (exit code 3)."""
