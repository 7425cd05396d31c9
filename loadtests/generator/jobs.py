"""One request on its way, and how it ended."""

from __future__ import annotations

from typing import Final

OUTCOMES: Final = (
    "ok",
    "wrong_answer",
    "bad_reply",
    "http_error",
    "grpc_error",
    "timeout",
    "connection_error",
    "dropped",
    "lost_worker",
)
"""Names of the outcomes; a sample stores the position in this tuple."""

(
    OK,
    WRONG_ANSWER,
    BAD_REPLY,
    HTTP_ERROR,
    GRPC_ERROR,
    TIMEOUT,
    CONNECTION_ERROR,
    DROPPED,
    LOST_WORKER,
) = range(len(OUTCOMES))

UNCHECKED, RIGHT, WRONG = -1, 1, 0
"""Values of a sample's `correct`."""

NEVER: Final = -1
"""A time that did not come: the request was not sent, or nothing was received."""


class Job:
    """A request from the moment it is due until it ended; all times are time.monotonic_ns()."""

    __slots__ = ("deadline_ns", "endpoint", "first_ns", "image", "scheduled_ns", "sent_ns")

    def __init__(self, scheduled_ns: int, deadline_ns: int, image: int) -> None:
        self.scheduled_ns = scheduled_ns
        self.deadline_ns = deadline_ns
        self.image = image
        """Index of the prepared request."""
        self.endpoint = 0
        self.sent_ns = NEVER
        self.first_ns = NEVER
