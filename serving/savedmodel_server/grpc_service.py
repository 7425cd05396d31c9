"""PredictionService, ModelService and the health service over gRPC."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.savedmodel_server.errors import Code, RequestError, StartError, invalid
from serving.savedmodel_server.inference import Inference
from serving.savedmodel_server.messages import SIGNATURE_DEF, metadata_proto, status_proto
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.repository import Lease, Repository

LOG = logging.getLogger("savedmodel_server")
_STATUS = {status.value[0]: status for status in grpc.StatusCode}
Method = Callable[[Any], Any]


class GrpcApi:
    """The methods; each takes a request message and gives the response message, or raises RequestError."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        metrics: Metrics,
        reload: Callable[[Any], None],
    ) -> None:
        self._repository = repository
        self._inference = inference
        self._metrics = metrics
        self._reload = reload

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Every method by its full path."""
        prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        return {
            f"{prediction}Predict": self._handler("Predict", self._predict, predict_pb2.PredictRequest),
            f"{prediction}Classify": self._handler(
                "Classify", self._classify, classification_pb2.ClassificationRequest
            ),
            f"{prediction}Regress": self._handler("Regress", self._regress, regression_pb2.RegressionRequest),
            f"{prediction}MultiInference": self._handler(
                "MultiInference", self._multi_inference, inference_pb2.MultiInferenceRequest
            ),
            f"{prediction}GetModelMetadata": self._handler(
                "", self._metadata, get_model_metadata_pb2.GetModelMetadataRequest
            ),
            f"{model}GetModelStatus": self._handler("", self._status, get_model_status_pb2.GetModelStatusRequest),
            f"{model}HandleReloadConfigRequest": self._handler(
                "", self._reload_config, model_management_pb2.ReloadConfigRequest
            ),
        }

    def _handler(self, api: str, method: Method, request_class: Any) -> grpc.RpcMethodHandler:
        def run(request: Any, context: grpc.ServicerContext) -> Any:
            begin = time.perf_counter_ns()
            try:
                response = method(request)
            except RequestError as error:
                self._count(api, request, error.code)
                context.abort(_STATUS[int(error.code)], error.message)
            except Exception:
                LOG.exception("event=bug api=%s", api or request_class.__name__)
                self._count(api, request, Code.INTERNAL)
                context.abort(grpc.StatusCode.INTERNAL, "Internal error; the server's log says more.")
            self._count(api, request, Code.OK)
            if api:
                micros = (time.perf_counter_ns() - begin) / 1000
                self._metrics.request_latency.observe((_model_name(request), api, "GRPC"), micros)
            return response

        return grpc.unary_unary_rpc_method_handler(
            run,
            request_deserializer=request_class.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _count(self, api: str, request: Any, code: Code) -> None:
        if api:
            self._metrics.request_count.add((_model_name(request), code.name))

    def _lease(self, request: Any) -> Lease:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return self._lease_of(request.model_spec)

    def _lease_of(self, spec: Any) -> Lease:
        version = spec.version.value if spec.HasField("version") else None
        return self._repository.acquire(spec.name, version, spec.version_label or None)

    def _predict(self, request: Any) -> Any:
        with self._lease(request) as servable:
            return self._inference.predict(servable, request)

    def _classify(self, request: Any) -> Any:
        with self._lease(request) as servable:
            return self._inference.classify(servable, request)

    def _regress(self, request: Any) -> Any:
        with self._lease(request) as servable:
            return self._inference.regress(servable, request)

    def _multi_inference(self, request: Any) -> Any:
        if not request.tasks:
            raise invalid("Inference request must contain at least one task.")
        with self._lease_of(request.tasks[0].model_spec) as servable:
            return self._inference.multi_inference(servable, request)

    def _metadata(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_DEF:
                raise invalid(f"Metadata field {name} is not supported")
        with self._lease(request) as servable:
            return metadata_proto(servable)

    def _status(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        if spec.version_label:
            version = self._repository.label_version(spec.name, spec.version_label)
        return status_proto(self._repository.states(spec.name, version))

    def _reload_config(self, request: Any) -> Any:
        response = model_management_pb2.ReloadConfigResponse()
        try:
            self._reload(request.config)
        except RequestError as error:
            response.status.error_code = int(error.code)
            response.status.error_message = error.message
        return response


def _model_name(request: Any) -> str:
    spec = request.tasks[0].model_spec if hasattr(request, "tasks") else request.model_spec
    return str(spec.name)


class GrpcServer:
    """The listening server; `stop` refuses new calls and waits for those under way."""

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
        self._server.add_generic_rpc_handlers((_Handlers(api.handlers()),))
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

    def start(self) -> None:
        """Answer calls from now on."""
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

    def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, and cancel what is not done after `grace_s`."""
        if self.health is not None:
            self.health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


def _add_health(server: grpc.Server) -> Any:
    from grpc_health.v1 import health, health_pb2_grpc

    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)
