"""The server under test: our own, or any that `--rest URL --grpc ADDR` name.

To hold a real TensorFlow Serving against these cases, write its models and start it on them::

    python tests/serving/savedmodel_server/savedmodel_zoo.py /tmp/zoo
    tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file=/tmp/zoo/models.config \\
        --allow_version_labels_for_unavailable_models
    pytest tests/serving/savedmodel_server/tfserving_api --rest http://127.0.0.1:8501 --grpc 127.0.0.1:8500
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import requests

from tests.serving.savedmodel_server.server_process import start_server


@dataclass
class Api:
    """Both faces of one server."""

    rest: str
    channel: grpc.Channel

    def get(self, path: str) -> tuple[int, Any]:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """Any method; the answer's body is None where it is empty."""
        return _answer(requests.request(method, self.rest + path, data=body, timeout=30))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """`body`: an object to be sent as JSON, or text or bytes to be sent as they are."""
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body)
        return _answer(requests.post(self.rest + path, data=data, timeout=30))

    def predict(self, model: str, body: Any) -> tuple[int, Any]:
        return self.post(f"/v1/models/{model}:predict", body)

    def zoo(self, signature: str, **body: Any) -> tuple[int, Any]:
        return self.predict("zoo", {"signature_name": signature, **body})

    def zoo_text(self, signature: str, key: str, value: str) -> tuple[int, Any]:
        """As `zoo`, with a value that Python would write otherwise."""
        return self.predict("zoo", f'{{"signature_name": "{signature}", "{key}": {value}}}')

    def call(self, method: str, request: Any, response_class: Any) -> Any:
        """A unary call of PredictionService or ModelService; raises grpc.RpcError."""
        service = "ModelService" if method in ("GetModelStatus", "HandleReloadConfigRequest") else "PredictionService"
        run = self.channel.unary_unary(
            f"/tensorflow.serving.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_class.FromString,
        )
        return run(request, timeout=30)


def _answer(reply: requests.Response) -> tuple[int, Any]:
    assert reply.headers["content-type"] == "application/json"
    return reply.status_code, json.loads(reply.text) if reply.content else None


TRANSPORTS = {
    "loop": [],  # gRPC on the event loop, the default
    "grpcio": ["--grpc_channel_arguments=grpc.max_concurrent_streams=100"],  # which the default cannot take
}


@pytest.fixture(scope="session", params=TRANSPORTS)
def api(request, tmp_path_factory):
    """Each of our gRPC transports, or the one server that the options name."""
    rest, target = (request.config.getoption(name, default=None) for name in ("--rest", "--grpc"))
    if rest and target:
        if request.param != "loop":
            pytest.skip("a server that the options name has one transport")
        with grpc.insecure_channel(target) as channel:
            yield Api(rest.rstrip("/"), channel)
        return
    if request.param == "loop":  # that of the other tests
        server = request.getfixturevalue("server")
        with grpc.insecure_channel(server.target) as channel:
            yield Api(server.url, channel)
        return
    config = request.getfixturevalue("zoo") / "models.config"
    server = start_server(
        tmp_path_factory.mktemp("server"), f"--model_config_file={config}", *TRANSPORTS[request.param]
    )
    try:
        server.wait_ready("zoo")
        with grpc.insecure_channel(server.target) as channel:
            yield Api(server.url, channel)
    finally:
        server.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where a TensorFlow Serving runs that `tfserving_api` is to be held against, instead of our own server."""
    group = parser.getgroup("tfserving_api")
    group.addoption("--rest", help="http://host:port of a running server that serves savedmodel_zoo.py's models")
    group.addoption("--grpc", help="host:port of the same server's gRPC port")
