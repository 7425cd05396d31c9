"""The ASGI application: the inference paths are answered here at once, pages of our own by FastAPI.

FastAPI's routing and dependency injection cost more than a small network's run, and its import more than the model's
load. So `/v1/models` is read straight from the ASGI messages, and FastAPI is imported by the first request
for a page (the OpenAPI page, the metrics).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from serving.savedmodel_server.rest.http_reply import Reply, html_reply
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
TARGET = "savedmodel_server.target"
"""The scope's key for the whole request target, in which TensorFlow Serving knows no query."""
_PAGES = ("/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc")


class Front:
    """The ASGI callable that uvicorn runs."""

    def __init__(self, api: RestApi, make_app: Callable[[], App], metrics_path: str | None, *, cors: bool) -> None:
        """`metrics_path` is where `make_app`'s application has its metrics page, None where it has none."""
        self._api = api
        self._make_app = make_app
        self._metrics_path = metrics_path
        self._extra_headers = CORS if cors else []
        self._app: asyncio.Task[App] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        target = scope[TARGET].decode("ascii")
        path = re.split("[?#]", target, maxsplit=1)[0]
        if target[:4].lower() == "/v1/":
            await self._answer(scope, target, receive, send)
        elif path == self._metrics_path and target != path:
            text = f"Unexpected path: {target}. Should be {path}"
            await self._send(send, Reply(400, text.encode(), b"text/plain"))
        elif path in _PAGES or path == self._metrics_path:
            if path == self._metrics_path and scope["method"] != "HEAD":
                scope["method"] = "GET"  # TensorFlow Serving shows it for every method
            await (await self._fastapi())(scope, receive, send)
        else:
            with suppress(ClientGoneError):
                await read_body(receive)  # what is unread when the connection ends would reset it
                await self._send(send, html_reply(404))

    async def _answer(self, scope: Scope, target: str, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            await self._send(send, _preflight(scope))
            return
        try:
            body = await read_body(receive)
        except ClientGoneError:
            return
        gzipped = is_gzipped(scope["headers"])
        await self._send(send, await self._api.answer(scope["method"], target, body, gzipped=gzipped))

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *self._extra_headers,
            *([(b"connection", b"close")] if reply.closes else []),
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
    return Reply(200 if re.search(rb"https?://", origin) else 400, b"")


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
