"""gRPC servers that misbehave, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from answering import Serve, Visit

from behaviours.table import Behaviour, in_turns
from serving.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PING,
    PREFACE,
    REFUSED_STREAM,
    SETTINGS,
    frame,
    goaway,
    literal,
    rst_stream,
    settings,
    status_field,
    window_update,
)

_LAST_STREAM = 2**31 - 1
_HEAD = status_field(200) + literal(b"content-type", b"application/grpc")
_PREFIX_BYTES = 5
_STATUSES = ["²".encode("latin-1"), b"9" * 5_000, b"-1", b"99999999999", b""]
"""Of trailers, in turn; none is a status."""


def _calls(visit: Visit, *, greets: bool = True) -> Iterator[tuple[int, int]]:
    """(stream, image) of each call that came whole; `greets`: with SETTINGS and all the flow control that it needs."""
    visit.read(len(PREFACE))
    if greets:
        visit.send(settings({INITIAL_WINDOW_SIZE: 1 << 20, MAX_FRAME_SIZE: 1 << 14}) + window_update(0, 1 << 30))
    bodies: dict[int, bytes] = {}
    while True:
        high, low, kind, flags, stream = HEADER.unpack(visit.read(HEADER_BYTES))
        payload = visit.read(high << 16 | low)
        if kind == DATA:
            bodies[stream] = bodies.get(stream, b"") + payload
            if flags & END_STREAM:
                yield stream, visit.answers.image_of[bodies.pop(stream)[_PREFIX_BYTES:]]
        elif kind in (SETTINGS, PING) and not flags & ACK and greets:
            visit.send(frame(kind, ACK, 0, payload if kind == PING else b""))


def _on_each_call(answer: Callable[[Visit, int, int], None]) -> Serve:
    def serve(visit: Visit) -> None:
        for stream, image in _calls(visit):
            answer(visit, stream, image)

    return serve


def _reply(stream: int, data: bytes, status: bytes = b"0") -> bytes:
    """A whole reply of one call."""
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, literal(b"grpc-status", status))
    return frame(HEADERS, END_HEADERS, stream, _HEAD) + frame(DATA, 0, stream, data) + trailers


def _framed(message: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def _goes_away_after_each(visit: Visit, stream: int, image: int) -> None:
    visit.send(_reply(stream, _framed(visit.message(image))) + goaway(stream, 0))


def _goes_away_and_falls_silent(visit: Visit) -> None:
    calls = _calls(visit)
    next(calls)
    visit.send(goaway(_LAST_STREAM, 0))
    for _ in calls:
        pass


def _never_greets(visit: Visit) -> None:
    for _ in _calls(visit, greets=False):
        pass


def _statuses_that_are_none(visit: Visit) -> None:
    statuses = in_turns(_STATUSES)
    for stream, _ in _calls(visit):
        visit.send(_reply(stream, _framed(b""), next(statuses)))


def _messages_that_are_none(visit: Visit) -> None:
    answers = visit.answers
    for place, (stream, image) in enumerate(_calls(visit)):
        message = answers.messages[image]
        data = [
            _framed(answers.wrong_message),
            _framed(message) + _framed(message),
            _framed(message, compressed=1),
            _framed(message)[:-3],
            _framed(b"\xff" * 40),
            b"",
        ]
        visit.send(_reply(stream, data[place % len(data)]))


def _breaks_off(visit: Visit) -> None:
    """Answer the first call of a connection by half of it, or by a frame that no peer may send."""
    stream, image = next(_calls(visit))
    whole = _reply(stream, _framed(visit.answers.messages[image]))
    visit.send(whole[: len(whole) // 2] if image % 2 else HEADER.pack(0x10, 0, DATA, 0, stream))


BEHAVIOURS: dict[str, Behaviour] = {
    "gRPC: GOAWAY after each answer": Behaviour(_on_each_call(_goes_away_after_each)),
    "gRPC: GOAWAY, then silence": Behaviour(_goes_away_and_falls_silent),
    "gRPC: RST_STREAM for each call": Behaviour(
        _on_each_call(lambda visit, stream, _image: visit.send(rst_stream(stream, REFUSED_STREAM)))
    ),
    "gRPC: never its SETTINGS": Behaviour(_never_greets),
    "gRPC: statuses that are no numbers": Behaviour(_statuses_that_are_none),
    "gRPC: messages that are no answers": Behaviour(_messages_that_are_none),
    "gRPC: breaks off": Behaviour(_breaks_off),
}
