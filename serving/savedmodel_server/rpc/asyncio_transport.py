"""The gRPC services on the event loop that also serves REST: each Predict is parsed, batched and answered there.

The other methods, which are rare, run on threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from serving.savedmodel_server.body_budget import BodyBudget
from serving.savedmodel_server.calls.inference import PredictPlan
from serving.savedmodel_server.calls.loop_bridge import LoopBridge
from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import Code, RequestError, StartError
from serving.savedmodel_server.inflate import DamagedError, TooLargeError, inflate
from serving.savedmodel_server.rpc.call_threads import CallThreads
from serving.savedmodel_server.rpc.h2_connection import Http2Connection
from serving.savedmodel_server.rpc.services import PREDICT_PATH, GrpcApi, Method
from serving.savedmodel_server.rpc.stream import Stream
from serving.savedmodel_server.versions.repository import Lease

LOG = logging.getLogger("savedmodel_server")
_HEALTH_CHECK, _HEALTH_WATCH = (f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch"))
_SERVING, _NOT_SERVING, _UNKNOWN_SERVICE = 1, 2, 3


class _UnderWay(NamedTuple):
    """A Predict between its start and its end."""

    stream: Stream
    request: Any
    lease: Lease
    plan: PredictPlan
    begin_ns: int


class AsyncioGrpcServer:
    """Belongs to the bridge's event loop."""

    def __init__(
        self,
        api: GrpcApi,
        bridge: LoopBridge,
        *,
        threads: int,
        max_bytes: int,
        budget: BodyBudget,
        read_timeout_s: float,
        health: bool,
    ) -> None:
        self._api = api
        self._bridge = bridge
        self._methods = api.methods()
        self._threads = CallThreads(threads)
        self._pool = ThreadPoolExecutor(self._threads.most, thread_name_prefix="grpc")
        self._max_bytes = max_bytes
        self._budget = budget
        self._read_timeout_s = read_timeout_s
        self._connections: set[Http2Connection] = set()
        self._health: dict[str, int] | None = {} if health else None
        self._watchers: dict[Stream, str] = {}
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> None:
        """Listen; raises StartError where the port is taken."""
        try:
            self._server = await self._bridge.loop.create_server(self._connection, address, port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"{address}:{port} cannot be bound ({reason}): choose another --port.") from error

    def _connection(self) -> Http2Connection:
        made = Http2Connection(
            self._handle, self._max_bytes, self._budget, self._read_timeout_s, self._connections.discard
        )
        self._connections.add(made)
        return made

    def check_time(self, now_s: float) -> None:
        """Give up what slow clients hold."""
        for connection in list(self._connections):
            connection.check_time(now_s)

    def set_health(self, models: dict[str, bool]) -> None:
        """The server as a whole under the empty name, and each model by its name; watchers are notified of a change."""
        if self._health is None:
            return
        statuses = {name: _SERVING if up else _NOT_SERVING for name, up in models.items()}
        statuses[""] = _SERVING if models and all(models.values()) else _NOT_SERVING
        names = statuses.keys() | self._health.keys()
        changed = {name for name in names if self._health.get(name) != statuses.get(name)}
        self._health = statuses
        for stream, name in list(self._watchers.items()):
            if stream.closed:
                del self._watchers[stream]
            elif name in changed:
                stream.connection.send(stream, _health_reply(statuses.get(name, _UNKNOWN_SERVICE)))

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, answer those under way, and close at last."""
        if self._server is not None:
            self._server.close()
        self.set_health(dict.fromkeys(self._health or {}, False))
        for stream in self._watchers:
            stream.connection.finish(stream)
        for connection in list(self._connections):
            connection.drain()
        deadline_s = self._bridge.loop.time() + grace_s
        while self._connections and self._bridge.loop.time() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.transport.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # calls

    def _handle(self, stream: Stream) -> None:
        """Answer one complete request."""
        path = stream.head.path
        try:
            if path in (_HEALTH_CHECK, _HEALTH_WATCH) and self._health is not None:  # which take no thread
                message = self._message(stream)
                self._answer_health(stream, _parsed(health_pb2.HealthCheckRequest, message).service)
                return
            self._threads.take()
            try:
                self._start(stream, path)
            except BaseException:
                self._threads.free()
                raise
        except RequestError as error:
            stream.connection.fail(stream, error.code, error.message)

    def _start(self, stream: Stream, path: str) -> None:
        """Begin a call that has a thread; what it raises is its answer."""
        message = self._message(stream)
        if path == PREDICT_PATH:
            self._start_predict(stream, _parsed(self._methods[path].request_class, message))
        elif path in self._methods:
            self._start_apart(stream, self._methods[path], message)
        else:
            raise RequestError(Code.UNIMPLEMENTED, "Method not found!")

    def _message(self, stream: Stream) -> bytes:
        message = _unframed(stream.body(), stream.head.encoding, self._max_bytes)
        stream.parts = []
        return message

    def _start_predict(self, stream: Stream, request: Any) -> None:
        begin_ns = time.perf_counter_ns()
        try:
            lease = self._api.lease(request)
            try:
                plan = self._api.inference.plan_predict(lease.servable, request)
            except BaseException:
                lease.release()
                raise
        except Exception as error:
            raise self._api.failed("Predict", request, error) from error
        call = _UnderWay(stream, request, lease, plan, begin_ns)
        self._bridge.start(
            lease, plan.signature, plan.arrays, lambda outputs, error: self._end_predict(call, outputs, error), stream
        )

    def _end_predict(self, call: _UnderWay, outputs: Sequence[Array] | None, error: RequestError | None) -> None:
        self._threads.free()
        stream = call.stream
        try:
            if stream.closed:
                raise _given_up(stream)
            if outputs is None:
                raise error or RequestError(Code.INTERNAL, "A run ended without outputs.")
            message = self._api.inference.predicted(call.lease.servable, call.plan, outputs).SerializeToString()
        except Exception as failure:  # noqa: BLE001 - a bug must not end the loop's other calls
            failed = self._api.failed("Predict", call.request, failure)
            stream.connection.fail(stream, failed.code, failed.message)
            return
        self._api.succeeded("Predict", call.request, call.begin_ns)
        stream.connection.answer(stream, message)

    def _start_apart(self, stream: Stream, method: Method, message: bytes) -> None:
        future = self._bridge.loop.run_in_executor(self._pool, self._run_apart, method, message, stream)
        future.add_done_callback(lambda ran: self._end_apart(stream, ran))

    def _end_apart(self, stream: Stream, ran: asyncio.Future[bytes]) -> None:
        self._threads.free()
        _answer_apart(stream, ran)

    def _run_apart(self, method: Method, message: bytes, stream: Stream) -> bytes:
        response = self._api.call(method, _parsed(method.request_class, message), stream)
        serialized: bytes = response.SerializeToString()
        return serialized

    def _answer_health(self, stream: Stream, service: str) -> None:
        state = (self._health or {}).get(service)
        connection = stream.connection
        if stream.head.path == _HEALTH_WATCH:
            connection.open(stream)
            connection.send(stream, _health_reply(state or _UNKNOWN_SERVICE))
            self._watchers[stream] = service
        elif state is None:
            raise RequestError(Code.NOT_FOUND, f"The health service knows no {service!r}.")
        else:
            connection.answer(stream, _health_reply(state))


def _answer_apart(stream: Stream, ran: asyncio.Future[bytes]) -> None:
    if ran.cancelled():
        stream.connection.fail(stream, Code.UNAVAILABLE, "The server is stopping.")
        return
    error = ran.exception()
    if error is None:
        stream.connection.answer(stream, ran.result())
        return
    if isinstance(error, RequestError):
        refusal = error
    else:
        LOG.error("event=bug path=%s", stream.head.path, exc_info=error)
        refusal = RequestError(Code.INTERNAL, "Internal error; the server's log says more.")
    stream.connection.fail(stream, refusal.code, refusal.message)


def _given_up(stream: Stream) -> RequestError:
    """How a call counts whose client has left, or does not wait any longer."""
    code = Code.DEADLINE_EXCEEDED if stream.overdue else Code.CANCELLED
    return RequestError(code, "The call was given up before its answer.")


def _health_reply(state: int) -> bytes:
    message: bytes = health_pb2.HealthCheckResponse(status=state).SerializeToString()
    return message


def _parsed(request_class: Any, message: bytes) -> Any:
    try:
        return request_class.FromString(message)
    except DecodeError as error:
        raise RequestError(Code.INTERNAL, f"Exception deserializing request! {error}") from error


def _unframed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The one message of a unary request; raises RequestError."""
    if len(body) < 5 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise RequestError(Code.INTERNAL, "A unary request must hold exactly one message.")
    if body[0] == 0:
        return body[5:]
    if body[0] != 1 or encoding not in ("gzip", "deflate"):
        raise RequestError(Code.UNIMPLEMENTED, f"Compression {encoding!r} is not supported.")
    return _inflated(body[5:], max_bytes)


def _inflated(data: bytes, max_bytes: int) -> bytes:
    """gzip or zlib data, refused as soon as it grows past the limit, and where it is damaged or cut off."""
    try:
        return inflate(data, max_bytes, zlib_too=True)
    except TooLargeError:
        raise RequestError(Code.RESOURCE_EXHAUSTED, f"Decompressed message larger than max ({max_bytes}).") from None
    except DamagedError as error:
        raise RequestError(Code.INTERNAL, f"The message cannot be decompressed: {error}.") from error
