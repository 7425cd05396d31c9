"""What a server of the campaign is: how it serves a connection, and what may be expected of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from answering import Serve, Visit


@dataclass(frozen=True)
class Behaviour:
    """One row of the table."""

    serve: Serve
    usable: bool = False
    """True where every answer is right and HTTP allows its form: each arrival must get its right answer."""
    accept_every_s: float = 0.0
    backlog: int = 512


def on_each(*answers: Callable[[Visit, int], None]) -> Serve:
    """Serve a connection by reading its requests; they are answered in these ways in turn."""

    def serve(visit: Visit) -> None:
        for place, image in enumerate(visit.requests()):
            answers[place % len(answers)](visit, image)

    return serve


def always(*replies: bytes) -> Serve:
    """Serve a connection with the same replies in turn, whatever is asked."""
    return on_each(*(_sender(reply) for reply in replies))


def _sender(reply: bytes) -> Callable[[Visit, int], None]:
    return lambda visit, _image: visit.send(reply)


def in_turns(values: Sequence[bytes]) -> Iterator[bytes]:
    """The values, again and again."""
    while True:
        yield from values
