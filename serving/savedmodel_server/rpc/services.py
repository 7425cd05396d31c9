"""PredictionService and ModelService: from a request message to a response message, whatever transport carries them.

The stubs come from the package tensorflow-serving-api, which imports tensorflow: this module is imported late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.savedmodel_server.calls.call import ANYBODY, Caller
from serving.savedmodel_server.calls.inference import Inference
from serving.savedmodel_server.calls.messages import SIGNATURE_DEF, metadata_proto, status_proto
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.repository import Lease, Repository

LOG = logging.getLogger("savedmodel_server")
PREDICT_PATH = "/tensorflow.serving.PredictionService/Predict"


class Method(NamedTuple):
    """One method of a service."""

    api: str
    """Its name in metrics; empty where TensorFlow Serving does not count it."""
    run: Callable[[Any, Caller], Any]
    request_class: Any


class GrpcApi:
    """The methods; each takes a request message and gives the response message, or raises RequestError."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        metrics: Metrics,
        reload: Callable[[Any], None],
    ) -> None:
        self.repository = repository
        self.inference = inference
        self.metrics = metrics
        self._reload = reload

    def methods(self) -> dict[str, Method]:
        """Every method by its full path."""
        prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        return {
            PREDICT_PATH: Method("Predict", self._predict, predict_pb2.PredictRequest),
            f"{prediction}Classify": Method("Classify", self._classify, classification_pb2.ClassificationRequest),
            f"{prediction}Regress": Method("Regress", self._regress, regression_pb2.RegressionRequest),
            f"{prediction}MultiInference": Method(
                "MultiInference", self._multi_inference, inference_pb2.MultiInferenceRequest
            ),
            f"{prediction}GetModelMetadata": Method("", self._metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            f"{model}GetModelStatus": Method("", self._status, get_model_status_pb2.GetModelStatusRequest),
            f"{model}HandleReloadConfigRequest": Method(
                "", self._reload_config, model_management_pb2.ReloadConfigRequest
            ),
        }

    def call(self, method: Method, request: Any, caller: Caller = ANYBODY) -> Any:
        """The response; every failure is a RequestError, and everything is counted."""
        begin_ns = time.perf_counter_ns()
        try:
            if caller.closed:
                raise RequestError(Code.CANCELLED, "The call was given up before it ran.")
            response = method.run(request, caller)
        except Exception as error:
            raise self.failed(method.api, request, error) from error
        self.succeeded(method.api, request, begin_ns)
        return response

    def failed(self, api: str, request: Any, error: Exception) -> RequestError:
        """Count and translate what a call raised."""
        if not isinstance(error, RequestError):
            LOG.error("event=bug api=%s", api, exc_info=error)
            error = RequestError(Code.INTERNAL, "Internal error; the server's log says more.")
        if api:
            name = _model_name(request)
            self.metrics.count_failure(name, error.code.name, is_served=name in self.repository.serving())
        return error

    def succeeded(self, api: str, request: Any, begin_ns: int) -> None:
        """Count a call that went well."""
        if api:
            name = _model_name(request)
            self.metrics.request_count.add((name, "OK"))
            micros = (time.perf_counter_ns() - begin_ns) / 1000
            self.metrics.request_latency.observe((name, api, "GRPC"), micros)

    def lease(self, request: Any) -> Lease:
        """The servable that a request names; raises RequestError."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return self._lease_of(request.model_spec)

    def _lease_of(self, spec: Any) -> Lease:
        version = spec.version.value if spec.HasField("version") else None
        return self.repository.acquire(spec.name, version, spec.version_label or None)

    def _predict(self, request: Any, caller: Caller) -> Any:
        with self.lease(request) as servable:
            return self.inference.predict(servable, request, caller)

    def _classify(self, request: Any, caller: Caller) -> Any:
        with self.lease(request) as servable:
            return self.inference.classify(servable, request, caller)

    def _regress(self, request: Any, caller: Caller) -> Any:
        with self.lease(request) as servable:
            return self.inference.regress(servable, request, caller)

    def _multi_inference(self, request: Any, caller: Caller) -> Any:
        if not request.tasks:
            raise invalid("Inference request must contain at least one task.")
        with self._lease_of(request.tasks[0].model_spec) as servable:
            return self.inference.multi_inference(servable, request, caller)

    def _metadata(self, request: Any, _: Caller) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_DEF:
                raise invalid(f"Metadata field {name} is not supported")
        with self.lease(request) as servable:
            return metadata_proto(servable)

    def _status(self, request: Any, _: Caller) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        if spec.version_label:
            version = self.repository.label_version(spec.name, spec.version_label)
        return status_proto(self.repository.states(spec.name, version))

    def _reload_config(self, request: Any, _: Caller) -> Any:
        before = {name: self.metrics.first_value(name) for name in request.metric_names}
        self._reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = int(Code.OK)
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=self.metrics.first_value(name) - value)
        return response


def _model_name(request: Any) -> str:
    if not hasattr(request, "tasks"):
        return str(request.model_spec.name)
    return str(request.tasks[0].model_spec.name) if request.tasks else ""
