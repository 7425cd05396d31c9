"""From flags to a serving process and back: bind, load, listen, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Coroutine, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import uvicorn
import uvloop

from models.quiet_import import start_up_lines_left_out
from serving.errors import ServingError
from serving.savedmodel_server.body_budget import BodyBudget
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.calls.loop_bridge import LoopBridge
from serving.savedmodel_server.errors import StartError
from serving.savedmodel_server.flags import Flags
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.rest.asgi import CORS, App, Front
from serving.savedmodel_server.runtime.graph_session import import_graph
from serving.savedmodel_server.versions.batching import read_batching_parameters
from serving.savedmodel_server.versions.model_config import (
    check_first_labels,
    check_new_models,
    check_served_models,
    configs_of_request,
    flag_configs,
    read_model_config_file,
    tls_credentials,
)
from serving.savedmodel_server.versions.model_versions import ModelConfig
from serving.savedmodel_server.versions.repository import Repository, RepositoryOptions
from serving.savedmodel_server.versions.servable import Servable, ServableOptions

LOG = logging.getLogger("savedmodel_server")
INTERRUPTED = 130
RELOAD_TIMEOUT_S = 600.0
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SWITCH_INTERVAL_S = 0.0005
"""Python's 5 ms would let the loop wait for a thread that prepares a call of a few hundred microseconds."""


class Server:
    """One process's server. `run` returns the exit code."""

    def __init__(self, flags: Flags) -> None:
        """Check the files that flags name and that the ports are free; raises FlagError or StartError."""
        self._flags = flags
        self._metrics = Metrics()
        self._monitoring_path = monitoring_path(flags)
        self._batching = None
        if flags.enable_batching:
            path = Path(flags.batching_parameters_file) if flags.batching_parameters_file else None
            self._batching = read_batching_parameters(path, flags.rest_threads)
        self._credentials = tls_credentials(flags.ssl_config_file)
        self._configs = read_model_config_file(flags) if flags.model_config_file else flag_configs(flags)
        check_first_labels(self._configs, flags)
        self._rest_socket = _bound(flags.bind_address, flags.rest_api_port, "rest_api_port")
        with contextlib.closing(_bound(flags.bind_address, flags.port, "port") or socket.socket()):
            pass
        self._budget = BodyBudget(flags.unfinished_bytes)
        self._rpc: Rpc | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupted = False
        self._reloading = Lock()

    def run(self) -> int:
        """Serve until SIGTERM (exit code 0) or SIGINT (130)."""
        begin = time.monotonic()
        gc.disable()  # until all is loaded: imports make objects that stay, and the collector would walk them often
        with start_up_lines_left_out():
            import_graph(b"", self._load_options().session_config()).close()
        from serving.savedmodel_server.calls.inference import Inference

        LOG.info("event=tensorflow_imported seconds=%.3f", time.monotonic() - begin)
        self._dispatcher = Dispatcher(self._flags.rest_threads, self._batching, self._metrics)
        self._inference = Inference(
            self._metrics,
            self._dispatcher,
            as_content=self._flags.enable_serialization_as_tensor_content,
            check_method_names=self._flags.enable_signature_method_name_check,
        )
        self._repository = Repository(
            self._load,
            RepositoryOptions(
                poll_s=max(0, self._flags.file_system_poll_wait_seconds),
                load_retries=self._flags.max_num_load_retries,
                retry_interval_s=max(0.0, self._flags.load_retry_interval_micros / 1e6),
                labels_for_unavailable=self._flags.allow_version_labels_for_unavailable_models,
            ),
        )
        self._repository.configure(self._configs)
        self._repository.start()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        uvloop.run(self._serve())
        return INTERRUPTED if self._interrupted else 0

    def _load(self, name: str, version: int, path: Path) -> Servable:
        servable = self._load_counted(name, version, path)
        for signature, reason in servable.unbatched.items():
            self._metrics.unbatched_requests.add((name, str(version), signature, reason), 0)
        if self._flags.enable_model_warmup:
            self._warm_up(servable, path)
        return servable

    def _load_counted(self, name: str, version: int, path: Path) -> Servable:
        begin_ns = time.perf_counter_ns()
        status = "fail"
        try:
            servable = Servable(name, version, path, self._load_options())
            status = "success"
            return servable
        finally:
            self._metrics.load_attempts.add((str(path), status))
            self._metrics.load_latency.add((str(path),), (time.perf_counter_ns() - begin_ns) // 1000)

    def _warm_up(self, servable: Servable, path: Path) -> None:
        from serving.savedmodel_server.calls.warmup import warm_up

        try:
            warm_up(self._inference, servable, path, self._metrics, self._flags.num_request_iterations_for_warmup)
        except BaseException:
            servable.close()
            raise

    def _load_options(self) -> ServableOptions:
        flags = self._flags
        return ServableOptions(
            tags=tuple(flags.saved_model_tags.split(",")),
            intra_op_threads=flags.intra_op_threads,
            inter_op_threads=flags.inter_op_threads,
            batching=self._batching,
        )

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number, stop)
        await asyncio.to_thread(self._repository.settled.wait)
        bridge = LoopBridge(loop, self._dispatcher, self._metrics)
        rest = self._rest(bridge)
        rpc = self._rpc = await self._grpc(bridge)
        gc.freeze()  # what the imports made lives for ever: the collector need not look at it again
        gc.enable()
        tasks = self._start_watches(rest, rpc)
        serving = asyncio.create_task(rest.serve(sockets=[self._rest_socket])) if rest and self._rest_socket else None
        LOG.info(
            "event=listening address=%s rest_api_port=%d port=%d",
            self._flags.bind_address,
            self._flags.rest_api_port,
            self._flags.port,
        )
        await stop.wait()
        await self._drain(rest, serving, rpc)
        for task in tasks:
            task.cancel()
        self._dispatcher.close()

    def _start_watches(self, rest: _Uvicorn | None, rpc: Rpc | None) -> list[asyncio.Task[None]]:
        watches: list[Coroutine[Any, Any, None]] = [self._watch_clients(rest, rpc)]
        if rpc:
            watches.append(self._watch_health(rpc))
        every_s = float(self._flags.model_config_file_poll_wait_seconds)
        if self._flags.model_config_file and every_s > 0:
            watches.append(self._watch_config_file(every_s))
        return [asyncio.create_task(watch) for watch in watches]

    def _on_signal(self, number: int, stop: asyncio.Event) -> None:
        self._interrupted = number == signal.SIGINT
        LOG.info("event=stopping signal=%s drain_seconds=%d", signal.Signals(number).name, self._flags.drain_seconds)
        stop.set()

    def _reload(self, config: Any) -> None:
        """Serve the models of a ModelServerConfig; raises RequestError in TensorFlow Serving's order of checks."""
        configs = configs_of_request(config)
        with self._reloading:
            served = self._repository.serving()
            check_served_models(config, served)
            self._repository.check_labels(configs)
            check_new_models(config, served)
            self._reconfigure(configs)

    def _reload_file(self, configs: list[ModelConfig]) -> None:
        with self._reloading:
            self._reconfigure(configs)

    def _reconfigure(self, configs: list[ModelConfig]) -> None:
        self._repository.reconfigure(configs, RELOAD_TIMEOUT_S)
        if self._rpc is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell_health, self._rpc)

    def _tell_health(self, rpc: Rpc) -> None:
        rpc.set_health(self._repository.serving())

    async def _watch_config_file(self, every_s: float) -> None:
        """Serve what is in --model_config_file now; a file that cannot be used is logged, and changes nothing."""
        configs = self._configs
        while True:
            await asyncio.sleep(every_s)
            try:
                changed = await asyncio.to_thread(read_model_config_file, self._flags)
                if changed != configs:
                    await asyncio.to_thread(self._reload_file, changed)
                    configs = changed
            except ServingError as error:
                LOG.error("event=config_refused file=%s error=%r", self._flags.model_config_file, str(error))

    async def _grpc(self, bridge: LoopBridge) -> Rpc | None:
        """The listening gRPC server: grpcio's for TLS and channel arguments, else the one on this loop."""
        from serving.savedmodel_server.rpc.services import GrpcApi

        flags = self._flags
        if not flags.port:
            return None
        api = GrpcApi(self._repository, self._inference, self._metrics, self._reload)
        health = flags.enable_grpc_healthcheck_service
        if self._credentials is None and not flags.grpc_channel_arguments:
            from serving.savedmodel_server.rpc.asyncio_transport import AsyncioGrpcServer

            server = AsyncioGrpcServer(
                api,
                bridge,
                threads=flags.grpc_threads,
                max_bytes=flags.max_request_bytes,
                budget=self._budget,
                read_timeout_s=flags.rest_api_timeout_in_ms / 1000,
                health=health,
            )
            await server.start(flags.bind_address, flags.port)
            return server
        from serving.savedmodel_server.rpc.grpcio_transport import GrpcServer

        return GrpcServer(
            api,
            f"{flags.bind_address}:{flags.port}",
            threads=flags.grpc_threads,
            max_bytes=flags.max_request_bytes,
            arguments=channel_arguments(flags.grpc_channel_arguments),
            credentials=self._credentials,
            health=health,
        )

    def _rest(self, bridge: LoopBridge) -> _Uvicorn | None:
        from serving.savedmodel_server.rest.api import RestApi
        from serving.savedmodel_server.rest.http_protocol import protocol_class

        if self._rest_socket is None:
            return None
        timeout_s, max_bytes = self._flags.rest_api_timeout_in_ms / 1000, self._flags.max_request_bytes
        api = RestApi(self._repository, bridge, self._inference, self._metrics, timeout_s, max_bytes)

        def make_app() -> App:
            from serving.savedmodel_server.rest.fastapi_app import make_app

            return make_app(api, self._metrics, self._monitoring_path)

        front = Front(api, make_app, self._monitoring_path, cors=self._flags.rest_api_enable_cors_support)
        protocol = protocol_class(
            api,
            max_bytes=max_bytes,
            budget=self._budget,
            read_timeout_s=timeout_s,
            extra_headers=CORS if self._flags.rest_api_enable_cors_support else (),
        )
        return _Uvicorn(
            uvicorn.Config(
                front,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=self._flags.drain_seconds,
            )
        )

    async def _watch_health(self, rpc: Rpc) -> None:
        while True:
            self._tell_health(rpc)
            await asyncio.sleep(0.2)

    async def _watch_clients(self, rest: _Uvicorn | None, rpc: Rpc | None) -> None:
        """Close connections whose client is too slow, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            if rest:
                rest.check_time(loop.time())
            if rpc:
                rpc.check_time(loop.time())

    async def _drain(self, rest: _Uvicorn | None, serving: asyncio.Task[None] | None, rpc: Rpc | None) -> None:
        """Refuse what is new, finish what is under way, within --drain_seconds."""
        grace = self._flags.drain_seconds
        ends: list[Awaitable[None]] = []
        if rpc:
            ends.append(rpc.stop(grace))
        if rest and serving:
            rest.should_exit = True
            ends.append(serving)
        await asyncio.gather(*ends)
        await asyncio.to_thread(self._repository.stop, grace)


class Rpc(Protocol):
    """A listening gRPC server."""

    def set_health(self, models: dict[str, bool]) -> None:
        """Which models are served."""

    def check_time(self, now_s: float) -> None:
        """Give up what slow clients hold."""

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, and end when those under way are answered."""


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again after its end, and so change the exit code."""

    def check_time(self, now_s: float) -> None:
        """Close connections whose client is too slow."""
        for connection in list(self.server_state.connections):
            connection.check_time(now_s)  # type: ignore[union-attr]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(address: str, port: int, flag: str) -> socket.socket | None:
    """A socket that holds the port, so that a port in use shows before the slow imports; it does not listen yet."""
    if not port:
        return None
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)
        raise StartError(f"{address}:{port} cannot be bound ({reason}): choose another --{flag}.") from error
    return bound


def channel_arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    """--grpc_channel_arguments: key=value pairs, whole numbers as numbers."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    return tuple((key, int(value) if _INTEGER.fullmatch(value) else value) for key, _, value in pairs)


def monitoring_path(flags: Flags) -> str | None:
    """Where the metrics page lies, by default on (in TensorFlow Serving off); None where the file turns it off."""
    from serving.savedmodel_server.textproto import message_class, read_text_proto

    default = "/monitoring/prometheus/metrics"
    if not flags.monitoring_config_file:
        return default
    proto = read_text_proto(
        Path(flags.monitoring_config_file), message_class("MonitoringConfig")(), "monitoring_config_file"
    )
    if not proto.prometheus_config.enable:
        return None
    return str(proto.prometheus_config.path) or default
