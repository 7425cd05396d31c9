"""The ASGI application: the inference paths are answered here at once, everything else by FastAPI.

FastAPI's routing and dependency injection cost more than a small network's run, and its import more than the model's
load. So `/v1/models` is read straight from the ASGI messages, and FastAPI is imported by the first request
for another path (the OpenAPI page, the metrics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from serving.savedmodel_server.rest.http_reply import Reply, too_large

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

    def __init__(self, api: RestApi, make_app: Callable[[], App], *, max_bytes: int, cors: bool) -> None:
        self._api = api
        self._make_app = make_app
        self._max_bytes = max_bytes
        self._extra_headers = CORS if cors else []
        self._app: asyncio.Task[App] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        in_api = scope["type"] == "http" and scope["path"][:4].lower() == "/v1/"
        if in_api and scope["method"] in _API_METHODS:
            await self._answer(scope, receive, send)
            return
        await (await self._fastapi())(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._max_bytes)
        if body is None:
            await self._send(send, too_large(self._max_bytes), close=True)
            return
        path = scope["raw_path"].decode("latin-1")
        await self._send(send, await self._api.answer(scope["method"], path, body))

    async def _send(self, send: Send, reply: Reply, *, close: bool = False) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *self._extra_headers,
        ]
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _fastapi(self) -> App:
        if self._app is None:
            self._app = asyncio.create_task(asyncio.to_thread(self._make_app))
        return await asyncio.shield(self._app)


async def read_body(receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body, or None as soon as it is longer than `max_bytes`. A client that goes away ends the request."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        _require(message)
        return body if len(body) <= max_bytes else None
    parts, size = [body], len(body)
    while message.get("more_body"):
        if size > max_bytes:
            return None
        message = await receive()
        _require(message)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    return b"".join(parts) if size <= max_bytes else None


def _require(message: Message) -> None:
    if message["type"] == "http.disconnect":
        raise asyncio.CancelledError
