"""The gRPC services on grpcio's own server: for TLS, and wherever --grpc_channel_arguments are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.savedmodel_server.errors import RequestError, StartError
from serving.savedmodel_server.rpc.call_threads import CallThreads
from serving.savedmodel_server.rpc.services import GrpcApi, Method

_STATUS = {status.value[0]: status for status in grpc.StatusCode}


class GrpcServer:
    """Listens from the start."""

    def __init__(
        self,
        api: GrpcApi,
        address: str,
        *,
        threads: int,
        max_bytes: int,
        arguments: tuple[tuple[str, str | int], ...] = (),
        credentials: grpc.ServerCredentials | None = None,
        health: bool = True,
    ) -> None:
        """Bind `address` (host:port); raises StartError where that fails."""
        limits = (("grpc.max_receive_message_length", max_bytes), ("grpc.max_send_message_length", -1))
        options = (("grpc.so_reuseport", 0), *limits, *arguments)
        self._server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"), options=options)
        self._server.add_generic_rpc_handlers((_Handlers(api, CallThreads(threads)),))
        self.health = _add_health(self._server) if health else None
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise StartError(
                f"{address} cannot be bound for gRPC (is the port in use?): choose another --port."
            ) from error
        self._server.start()

    def set_health(self, models: dict[str, bool]) -> None:
        """Tell the health service: the server as a whole under the empty name, and each model by its name."""
        if self.health is None:
            return
        from grpc_health.v1 import health_pb2

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        self.health.set("", serving if models and all(models.values()) else not_serving)
        for name, up in models.items():
            self.health.set(name, serving if up else not_serving)
        self.health.keep_only({"", *models})

    def check_time(self, now_s: float) -> None:
        """grpcio bounds its clients itself."""

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, and cancel what is not done after `grace_s`."""
        if self.health is not None:
            self.health.enter_graceful_shutdown()
        await asyncio.to_thread(self._server.stop(grace_s).wait)


def _add_health(server: grpc.Server) -> Any:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    class Health(health.HealthServicer):  # type: ignore[misc]
        def keep_only(self, names: set[str]) -> None:
            """Forget all other names: Check answers NOT_FOUND for them, and Watch SERVICE_UNKNOWN."""
            with self._lock:
                for name in self._server_status.keys() - names:
                    self.set(name, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                    self._server_status.pop(name, None)

    servicer = Health()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, api: GrpcApi, threads: CallThreads) -> None:
        self._handlers = {path: _handler(api, method, threads) for path, method in api.methods().items()}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


class _RpcCaller:
    """Closed once the call is over: answered, cancelled or overdue."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def _handler(api: GrpcApi, method: Method, threads: CallThreads) -> grpc.RpcMethodHandler:
    def run(request: Any, context: grpc.ServicerContext) -> Any:
        caller = _RpcCaller()
        remaining_s = context.time_remaining()
        if not context.add_callback(caller.close) or (remaining_s is not None and remaining_s <= 0):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        try:
            threads.take()
            try:
                return api.call(method, request, caller)
            finally:
                threads.free()
        except RequestError as error:
            context.abort(_STATUS[int(error.code)], error.message)

    return grpc.unary_unary_rpc_method_handler(
        _parsing(method.request_class, run),
        response_serializer=lambda message: message.SerializeToString(),
    )


def _parsing(request_class: Any, run: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[bytes, Any], Any]:
    """`run` for messages as bytes.

    grpcio is not asked to parse them: it never ends the stream of one that it cannot parse (1.85), until the streams
    of the connection are used up.
    """

    def parse(message: bytes, context: grpc.ServicerContext) -> Any:
        try:
            request = request_class.FromString(message)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INTERNAL, f"Exception deserializing request! {error}")
        return run(request, context)

    return parse
