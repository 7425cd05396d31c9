"""The ASGI application: the inference paths are answered here at once, everything else by FastAPI.

FastAPI's routing and dependency injection cost more than a small network's run, and its import more than the model's
load. So `/v1/models` is read straight from the ASGI messages, and FastAPI is imported by the first request
for another path (the OpenAPI page, the metrics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from serving.savedmodel_server.rest.http_reply import Reply
from serving.savedmodel_server.rest.request_head import is_gzipped

if TYPE_CHECKING:
    from serving.savedmodel_server.rest.api import RestApi

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]
_API_METHODS = ("GET", "POST")


class Front:
    """The ASGI callable that uvicorn runs."""

    def __init__(self, api: RestApi, make_app: Callable[[], App], *, cors: bool) -> None:
        self._api = api
        self._make_app = make_app
        self._extra_headers = CORS if cors else []
        self._app: asyncio.Task[App] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        in_api = scope["type"] == "http" and scope["path"][:4].lower() == "/v1/"
        if in_api and scope["method"] in _API_METHODS:
            await self._answer(scope, receive, send)
            return
        if in_api and scope["method"] == "OPTIONS":
            await self._send(send, _preflight(scope))
            return
        await (await self._fastapi())(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive)
        except ClientGoneError:
            return
        path = scope["raw_path"].decode("latin-1")
        gzipped = is_gzipped(scope["headers"])
        await self._send(send, await self._api.answer(scope["method"], path, body, gzipped=gzipped))

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *self._extra_headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _fastapi(self) -> App:
        if self._app is None:
            self._app = asyncio.create_task(asyncio.to_thread(self._make_app))
        return await asyncio.shield(self._app)


def _preflight(scope: Scope) -> Reply:
    """What TensorFlow Serving answers before a browser's request from another site: no body, whatever the path."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
    return Reply(200 if origin.startswith((b"http://", b"https://")) else 400, b"")


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive) -> bytes:
    """The whole body, whose size the protocol bounds; raises ClientGoneError."""
    message = await receive()
    _require(message)
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = bytearray(body)
    while message.get("more_body"):
        message = await receive()
        _require(message)
        parts += message.get("body", b"")
    return bytes(parts)


def _require(message: Message) -> None:
    if message["type"] == "http.disconnect":
        raise ClientGoneError
