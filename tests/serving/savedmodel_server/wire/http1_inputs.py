"""The bytes of HTTP/1.1 connections: good requests in every form, and most of them damaged. Same seed, same bytes.

Each request asks for a number of its own, so that an answer shows whose it is.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator

PATH = b"/v1/models/half_plus_two:predict"
TOKENS = [
    b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b"\x7f", b"\xff", b":", b";", b",", b"0", b"+", b"-", b"%", b"#", b"a",
    b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"chunked", b"Host: b\r\n", b"Content-Length: 5\r\n", b"\x0b", b'"', b"=",
]  # fmt: skip
REPLACED = [
    (b"HTTP/1.1", b"HTTP/1.2"), (b"HTTP/1.1", b"HTTP/2.0"), (b"HTTP/1.1", b"HTTP/0.9"), (b"HTTP/1.1", b"http/1.1"),
    (b" HTTP/1.1", b""), (b"HTTP/1.1", b"RTSP/1.0"), (b"HTTP/1.1", b"HTTP/1.10"), (b"POST ", b"POST  "),
    (b" HTTP/1.1", b"  HTTP/1.1"), (b"POST ", b"post "), (b"POST ", b"TRACE "), (b"POST ", b"FETCH "),
    (b"POST ", b" POST "), (b"Host: x\r\n", b""), (b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"),
    (b"Host: x", b"Host: a b"), (b"Host: x", b"Host: x/y"), (b"Host: x", b"Host: u@x"), (b"Host: x", b"Host : x"),
    (b"Host: x", b"Host: x, y"), (b"Host: x", b"Host x"), (b"Host: x\r\n", b"Host: x\r\n folded\r\n"),
    (b"Content-Length: ", b"Content-Length: +"), (b"Content-Length: ", b"Content-Length: -"),
    (b"Content-Length: ", b"Content-Length: 0x"), (b"Content-Length: ", b"Content-Length: 1, "),
    (b"Content-Length: ", b"Content-Length: 99999999999999999999"), (b"Content-Length: ", b"Content-Length : "),
    (b"Content-Length: ", b"Content-Length: 5\r\nContent-Length: "), (b"Content-Length: ", b"Content-Length:\r\n "),
    (b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, identity"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 20"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    (b"\r\n0\r\n", b"\r\n0x0\r\n"), (b"\r\n0\r\n", b"\r\n-1\r\n"), (b"\r\n0\r\n", b"\r\nffffffffffffffffff\r\n"),
    (b"\r\n0\r\n", b"\r\n0;=\r\n"), (b"\r\n0\r\n", b"\r\n0\n"), (b"\r\n0\r\n", b"0\r\n"), (b"\r\n0\r\n", b"\r\n0 \r\n"),
    (b"\r\n0\r\n", b"\r\n0\r\nContent-Length: 3\r\n"), (b"\r\n", b"\n"), (b"\r\n\r\n", b"\n\n"), (b"\r\n", b"\r\r\n"),
    (b"/v1/", b"/v\xe9/"), (b"/v1/", b"/v1#/"), (b"/v1/", b"v1/"), (b"/v1/", b"/v%1/"), (b"/v1/", b"/\x01/"),
    (b"Host: x\r\n", b"Host: x\r\nContent-Encoding: br\r\n"), (b"Host: x\r\n", b"Host: x\r\nA\x00b: c\r\n"),
    (b"Host: x\r\n", b"Host: x\r\n: c\r\n"), (b"Host: x\r\n", b"Host: x\r\nA: b\x01c\r\n"),
]  # fmt: skip


def connections(seed: int, count: int) -> Iterator[bytes]:
    """What a client sends on each of `count` connections; three of four are damaged."""
    rng = random.Random(seed)
    for number in range(count):
        requests = [request(rng, number * 8 + i) for i in range(rng.randint(1, 4))]
        data = b"".join(requests)
        damage = rng.random()
        if damage < 0.45:
            data = _replaced(data, rng)
        elif damage < 0.75:
            data = _damaged(data, rng)
        yield data


def request(rng: random.Random, value: int) -> bytes:
    """A request that HTTP/1.1 allows, for a number of its own."""
    body = json.dumps({"instances": [float(value)]}).encode()
    target = rng.choice([PATH, PATH, PATH, b"http://x" + PATH, PATH.replace(b"half", b"h%61lf")])
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: x"]
    lines += rng.sample(
        [
            b"Accept: */*", b"X-Empty:", b"X-Text:  \ta \xe9 b\t ", b"Expect: 100-continue", b"Connection: keep-alive",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
            b"Connection: Upgrade\r\nUpgrade: websocket",
        ],
        rng.randint(0, 3),
    )  # fmt: skip
    if rng.random() < 0.2:
        body = gzip.compress(body, mtime=0)
        lines.append(b"Content-Encoding: gzip")
    if rng.random() < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
    else:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(body, rng)
    rng.shuffle(lines[1:])
    empty = b"\r\n" * rng.choice([0, 0, 0, 1, 2])
    return empty + b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunked(body: bytes, rng: random.Random) -> bytes:
    out = b""
    while body:
        size = rng.randint(1, len(body))
        extension = rng.choice([b"", b"", b";a", b";a=b", b' ; a = "b;\\"c"'])
        out += b"%x" % size + extension + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    return out + b"0\r\n" + rng.choice([b"", b"", b"X-Sum: 1\r\n"]) + b"\r\n"


def _replaced(data: bytes, rng: random.Random) -> bytes:
    """One rule broken, at one of the places where it can be."""
    for _ in range(20):
        old, new = rng.choice(REPLACED)
        places = data.count(old)
        if places:
            parts = data.split(old)
            at = rng.randint(1, places)
            return old.join(parts[:at]) + new + old.join(parts[at:])
    return data


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, lost, doubled, or put in."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randint(1, 3)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randint(1, 20)]
        else:
            out[at:at] = rng.choice(TOKENS)
    return bytes(out)
