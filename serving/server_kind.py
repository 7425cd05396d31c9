"""Which engine answers at an address, and whether it serves a model: asked over REST, in each engine's own words."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from serving.authorisation import refuses, reply_named
from serving.headers import Fields
from serving.http_client import exchange
from serving.wire import RestRequest

TORCHSERVE: Final = "torchserve"
_PING: Final = (HTTPStatus.OK, HTTPStatus.INTERNAL_SERVER_ERROR)
"""Of TorchServe's ping: healthy, or not."""
_NOT_YET: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
"""What TorchServe answers where the model or its worker is not there yet."""


@dataclass(frozen=True)
class ServerKind:
    """What answers at an address."""

    engine: str | None
    """savedmodel, tfserving or torchserve; None: none of them, or TensorFlow Serving without this model."""
    missing: str
    """What it lacks before it can answer for the model, in a few words; '' where it lacks nothing that it reports."""


def server_kind(url: str, model: str, timeout_s: float, headers: Fields = ()) -> ServerKind:
    """Ask for TensorFlow Serving's status of the model, then for TorchServe's ping.

    A healthy ping says nothing of the model: see torchserve_lacks. Raises NoAnswer.
    """
    status = exchange(url, RestRequest("GET", f"/v1/models/{quote(model, safe='')}", "", b""), timeout_s, headers)
    if b"model_version_status" in status.body:
        engine = "savedmodel" if "savedmodel-server" in status.server else "tfserving"
        return ServerKind(engine, "" if b'"AVAILABLE"' in status.body else f"the model {model} is being loaded")
    ping = exchange(url, RestRequest("GET", "/ping", "", b""), timeout_s, headers)
    if b'"status"' in ping.body and ping.status in _PING:
        return ServerKind(TORCHSERVE, "")
    for reply in (status, ping):
        if refuses(reply.status, reply.body):
            return ServerKind(None, reply_named(reply.status, reply.body))
    return ServerKind(None, f"it is neither TensorFlow Serving with a model {model} nor TorchServe")


def torchserve_lacks(url: str, model: str, image: bytes, timeout_s: float, headers: Fields = ()) -> str:
    """What TorchServe lacks before it can answer for the model; '' where it answers the image, well or not.

    Raises NoAnswer.
    """
    path = f"/predictions/{quote(model, safe='')}"
    reply = exchange(url, RestRequest("POST", path, "application/octet-stream", image), timeout_s, headers)
    if refuses(reply.status, reply.body):
        return reply_named(reply.status, reply.body)
    return f"TorchServe has no worker for {model}" if reply.status in _NOT_YET else ""
