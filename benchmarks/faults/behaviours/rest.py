"""REST servers that misbehave."""

from __future__ import annotations

import gzip
import time

from answering import Visit, answers_rightly, page

from behaviours.table import Behaviour, always, on_each

_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_DUPLICATE_AFTER_S = 0.01
_EARLY_HINTS = 1000
_LONG_HEADER_BYTES = 80_000
_DIGITS = 5_000


def _closes_at_accept(_visit: Visit) -> None:
    """Return at once: the connection is closed."""


def _never_answers(visit: Visit) -> None:
    for _ in visit.requests():
        pass


def _one_byte_a_second(visit: Visit, image: int) -> None:
    for byte in page(visit.answers.bodies[image]):
        visit.send(bytes([byte]))
        time.sleep(1)


def _length_too_small(visit: Visit, image: int) -> None:
    body = visit.answers.bodies[image]
    visit.send(_JSON + b"Content-Length: %d\r\n\r\n" % (len(body) // 2) + body)


def _length_too_large(visit: Visit, image: int) -> None:
    body = visit.answers.bodies[image]
    visit.send(_JSON + b"Content-Length: %d\r\n\r\n" % (len(body) + 100) + body)


def _chunks_broken_off(visit: Visit) -> None:
    image = next(visit.requests())
    body = visit.answers.bodies[image]
    visit.send(_JSON + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[:20])


def _wrong_numbers(visit: Visit, _image: int) -> None:
    even = b",".join([b"%.6f" % (1 / visit.answers.classes)] * visit.answers.classes)
    visit.send(page(b'{"predictions": [[%s]]}' % even))


def _odd_headers(visit: Visit, image: int) -> None:
    head = b"HTTP/1.1 200 \r\nCONTENT-TYPE:text/html\r\nx-empty:\r\nX-Twice: 1\r\nx-tWICE: 2\r\n"
    body = visit.body(image)
    visit.send(head + b"cOnTeNt-LeNgTh:  %d \t\r\n\r\n" % len(body) + body)


def _informational(visit: Visit, image: int) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * _EARLY_HINTS
    visit.send(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + page(visit.body(image)))


def _closes_each(visit: Visit) -> None:
    image = next(visit.requests())
    visit.send(page(visit.body(image), _JSON + b"Connection: close\r\n"))


def _resets_after_each(visit: Visit) -> None:
    image = next(visit.requests())
    visit.send(page(visit.body(image), _JSON + b"Connection: keep-alive\r\nKeep-Alive: timeout=60\r\n"))
    visit.reset()


def _answers_unread(visit: Visit) -> None:
    """Answer while the request lies unread, which makes the end of the connection a reset."""
    image = visit.peeked()
    visit.send(page(visit.body(image)))


def _answers_twice(visit: Visit, image: int) -> None:
    """At once, or a little later, when the client may have sent its next request."""
    answer = page(visit.body(image))
    visit.send(answer)
    if image % 2:
        time.sleep(_DUPLICATE_AFTER_S)
    visit.send(answer)


def _until_close(visit: Visit) -> None:
    image = next(visit.requests())
    visit.send(b"HTTP/1.0 200 OK\r\n\r\n" + visit.body(image))


def _resets_in_body(visit: Visit) -> None:
    image = next(visit.requests())
    visit.send(page(visit.answers.bodies[image])[:-10])
    visit.reset()


_ERROR = b"HTTP/1.1 500 Internal Server Error\r\n"
_REFUSALS = [
    page(b"", b"HTTP/1.1 404 Not Found\r\n"),
    page(b"slow down", b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n"),
    page(b"", b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 120\r\n"),
    page(b"", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n"),
]
_UNREADABLE = [
    page(b'{"answer": 7}'),
    page(b'{"predictions": [[0.1, 0.2'),
    page(b'{"predictions": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    page(b'{"predictions": [[NaN, %s]]}' % (b"9" * _DIGITS)),
    page(b""),
    page(gzip.compress(b'{"predictions": [[0.5, 0.5]]}'), _JSON + b"Content-Encoding: gzip\r\n"),
]

BEHAVIOURS: dict[str, Behaviour] = {
    "closes at accept": Behaviour(_closes_at_accept),
    "never answers": Behaviour(_never_answers),
    "answers one byte a second": Behaviour(on_each(_one_byte_a_second)),
    "Content-Length too small": Behaviour(on_each(_length_too_small)),
    "Content-Length too large": Behaviour(on_each(_length_too_large)),
    "Content-Length of 5,000 digits": Behaviour(always(_JSON + b"Content-Length: " + b"9" * _DIGITS + b"\r\n\r\n{}")),
    "chunks broken off": Behaviour(_chunks_broken_off),
    "500 to everything": Behaviour(always(page(b"out of order", _ERROR))),
    "404, 429, 503 and 302 in turn": Behaviour(always(*_REFUSALS)),
    "bodies that are no answers": Behaviour(always(*_UNREADABLE)),
    "wrong numbers": Behaviour(on_each(_wrong_numbers)),
    "odd headers": Behaviour(on_each(_odd_headers), usable=True),
    "1,001 informational answers first": Behaviour(on_each(_informational), usable=True),
    "closes after each answer": Behaviour(_closes_each, usable=True),
    "promises to stay, and resets": Behaviour(_resets_after_each),
    "answers a request that it did not read": Behaviour(_answers_unread),
    "answers twice": Behaviour(on_each(_answers_twice)),
    "a header section of 80 kB": Behaviour(
        always(_JSON + b"X-Long: " + b"x" * _LONG_HEADER_BYTES + b"\r\nContent-Length: 2\r\n\r\n{}")
    ),
    "HTTP/1.0 until the connection ends": Behaviour(_until_close, usable=True),
    "resets in the middle of the body": Behaviour(_resets_in_body),
    "accepts 20 connections a second": Behaviour(answers_rightly, accept_every_s=0.05, backlog=1),
}
