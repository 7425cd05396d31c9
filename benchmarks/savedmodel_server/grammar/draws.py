"""Draws requests from the whole grammar. The same seed and number make the same request on every machine."""

from __future__ import annotations

import random

from benchmarks.savedmodel_server.asking import Request

TRANSPORTS = ("rest", "raw", "grpc")


def draw(seed: int, number: int, transports: tuple[str, ...] = TRANSPORTS) -> Request:
    """Request `number` of a seed; about every second one is valid. The kind names the transport and what is sent."""
    rng = random.Random(f"{seed}/{number}")
    over = rng.choices(transports, [5 if name != "raw" else 3 for name in transports])[0]
    valid = rng.random() < 0.5
    if over == "raw":
        from benchmarks.savedmodel_server.grammar.http_requests import http_request

        what, data = http_request(rng, valid)
        path = ""
    elif over == "grpc":
        from benchmarks.savedmodel_server.grammar.grpc_calls import grpc_call

        what, path, data = grpc_call(rng, valid)
    else:
        from benchmarks.savedmodel_server.grammar.json_bodies import rest_request

        what, path, data = rest_request(rng, valid)
    return Request(number, f"{over}/{'valid' if valid else 'odd'} {what}", path, data)
