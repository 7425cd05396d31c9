"""REST requests of every kind for the model half_plus_two, each with the status and the answer that is its own."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from clients import rest_request

MODEL = "/v1/models/half_plus_two"


@dataclass(frozen=True)
class Case:
    """One request; `own` is all of the answer's body, or for some kinds a part that only this one's has."""

    kind: str
    wire: bytes
    status: str
    own: bytes
    whole: bool = False
    ends_connection: bool = False

    def is_own(self, body: bytes) -> bool:
        """Whether a body answers this request and no other."""
        return body == self.own if self.whole else self.own in body


def choose(number: int, rng: random.Random) -> Case:
    """A request of a random kind; `number` is below 2**22 and no other request has it."""
    return rng.choices(_MAKERS, _WEIGHTS)[0](number, rng)


def _predict(number: int, rng: random.Random) -> Case:
    body = json.dumps({"instances": [float(number)]}).encode()
    fields = []
    if rng.random() < 0.2:
        body, fields = gzip.compress(body, 1, mtime=0), ["Content-Encoding: gzip"]
    own = json.dumps({"predictions": [number / 2 + 2]}).encode()
    where = rng.choice(["", "", "/versions/2"])
    return Case("REST predict", rest_request("POST", f"{MODEL}{where}:predict", body, *fields), "200", own, whole=True)


def _regress(number: int, _: random.Random) -> Case:
    body = json.dumps({"signature_name": "regress_x_to_y", "examples": [{"x": float(number)}]}).encode()
    own = json.dumps({"results": [number / 2 + 2]}).encode()
    return Case("REST regress", rest_request("POST", f"{MODEL}:regress", body), "200", own, whole=True)


def _classify(number: int, _: random.Random) -> Case:
    body = json.dumps({"signature_name": "classify_x_to_y", "examples": [{"x": float(number)}]}).encode()
    score = number / 2 + 2
    own = json.dumps({"results": [[[f"{score:.1f}", score]]]}).encode()
    return Case("REST classify", rest_request("POST", f"{MODEL}:classify", body), "200", own, whole=True)


def _look(number: int, rng: random.Random) -> Case:
    path, kind, own = rng.choice(
        [
            (MODEL, "status", b'"AVAILABLE"'),
            (f"{MODEL}/versions/2", "status", b'"AVAILABLE"'),
            (f"{MODEL}/metadata", "metadata", b'"classify_x_to_y"'),
            ("/monitoring/prometheus/metrics", "metrics", b":tensorflow:serving:request_count"),
        ]
    )
    return Case(f"REST {kind}", rest_request("GET", path), "200", own)


def _unknown_model(number: int, rng: random.Random) -> Case:
    name = f"nope{number:07d}"
    if rng.random() < 0.5:
        wire = rest_request("POST", f"/v1/models/{name}:predict", b'{"instances": [1.0]}')
    else:
        wire = rest_request("GET", f"/v1/models/{name}")
    return Case("REST broken: unknown model", wire, "404", name.encode())


def _unknown_path(number: int, _: random.Random) -> Case:
    wire = rest_request("GET", f"/nope{number}")
    return Case("REST broken: unknown path", wire, "404", b'"error"')


def _malformed_path(number: int, _: random.Random) -> Case:
    wire = rest_request("POST", f"/v1/nope{number:07d}", b"{}")
    return Case("REST broken: malformed path", wire, "400", b"/v1/nope%07d" % number)


def _bad_body(_: int, rng: random.Random) -> Case:
    body = rng.choice([b'{"instances": [1.0', b'{"instances": "a"}', b"{}", b"[1]", b'{"instances": [[1.0, 2.0]]}'])
    return Case("REST broken: body", rest_request("POST", f"{MODEL}:predict", body), "400", b'"error"')


def _bad_version(number: int, _: random.Random) -> Case:
    wire = rest_request("POST", f"{MODEL}/versions/{number + 10}:predict", b'{"instances": [1.0]}')
    return Case("REST broken: unknown version", wire, "404", b"half_plus_two, %d)" % (number + 10))


def _no_http(_: int, rng: random.Random) -> Case:
    wire, status = rng.choice(
        [
            (b"this is no request\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
            (b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n", "501"),
        ]
    )
    return Case("REST broken: no HTTP", wire, status, b'"error"', ends_connection=True)


Maker = Callable[[int, random.Random], Case]
_SHARES: dict[Maker, int] = {
    _predict: 40, _regress: 10, _classify: 10, _look: 12, _unknown_model: 4, _unknown_path: 3, _malformed_path: 3,
    _bad_body: 6, _bad_version: 3, _no_http: 3,
}  # fmt: skip
_MAKERS, _WEIGHTS = list(_SHARES), list(_SHARES.values())
