"""A real savedmodel-server answers over REST and gRPC as TensorFlow Serving's documentation says."""

import base64
import subprocess
import sys

import grpc
import psutil
import pytest
import requests

from serving.ports import free_ports
from tests.serving.savedmodel_server.server_process import start_server

pytestmark = pytest.mark.system


def test_status_lists_versions_newest_first(server):
    found = requests.get(f"{server.url}/v1/models/half_plus_two", timeout=10).json()
    assert [(v["version"], v["state"]) for v in found["model_version_status"]] == [
        ("2", "AVAILABLE"),
        ("1", "AVAILABLE"),
    ]


def test_predict_answers_rows_and_columns(server):
    url = f"{server.url}/v1/models/half_plus_two:predict"
    assert requests.post(url, json={"instances": [1.0, 2.0, 5.0]}, timeout=10).json() == {
        "predictions": [2.5, 3.0, 4.5]
    }
    assert requests.post(url, json={"inputs": [1.0]}, timeout=10).json() == {"outputs": [2.5]}


def test_an_unknown_model_is_not_found(server):
    reply = requests.post(f"{server.url}/v1/models/nope:predict", json={"instances": [1]}, timeout=10)
    assert reply.status_code == 404
    assert reply.json() == {"error": "Servable not found for request: Latest(nope)"}


def test_metadata_tells_the_signatures(server):
    found = requests.get(f"{server.url}/v1/models/half_plus_two/versions/1/metadata", timeout=10).json()
    assert found["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "1"}
    x = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT" and x["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


def test_bytes_outputs_are_base64(server):
    body = {"signature_name": "to_bytes", "instances": [{"b64": base64.b64encode(b"ab").decode()}]}
    reply = requests.post(f"{server.url}/v1/models/zoo:predict", json=body, timeout=10).json()
    assert reply == {"predictions": [{"y_bytes": {"b64": "YWI="}, "y_text": "ab"}]}


def test_the_openapi_page_describes_predict_and_the_metrics_page_counts_it(server):
    paths = requests.get(f"{server.url}/openapi.json", timeout=20).json()["paths"]
    assert "/v1/models/{model_name}:predict" in paths
    requests.post(f"{server.url}/v1/models/half_plus_two:predict", json={"instances": [1.0]}, timeout=10)
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=10).text
    assert ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"}' in page


def test_grpc_predict_metadata_and_status_answer(server):
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    with grpc.insecure_channel(server.target) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half_plus_two"
        x = request.inputs["x"]
        x.dtype = 1
        x.float_val.extend([1.0, 3.0])
        x.tensor_shape.dim.add(size=2)
        response = PredictionServiceStub(channel).Predict(request, timeout=10)
        assert list(response.outputs["y"].float_val) == [2.5, 3.5]
        assert response.model_spec.version.value == 2
        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "half_plus_two"
        found = PredictionServiceStub(channel).GetModelMetadata(asked, timeout=10)
        assert "signature_def" in found.metadata
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "half_plus_two"
        states = ModelServiceStub(channel).GetModelStatus(status, timeout=10).model_version_status
        assert [s.state for s in states] == [30, 30]


def test_a_port_in_use_ends_with_one_sentence_and_code_3(server, zoo):
    taken = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "serving.savedmodel_server", f"--model_base_path={zoo / 'zoo'}"]
    done = subprocess.run(
        [*command, f"--rest_api_port={taken}", f"--port={free_ports(1)[0]}"],
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.strip().endswith("choose another --rest_api_port.") and "Traceback" not in done.stderr


@pytest.mark.parametrize("batching", [False, True])
def test_sigterm_ends_with_code_0_and_a_batching_server_answers(zoo, tmp_path, batching):
    flags = ["--enable_batching"] if batching else []
    server = start_server(tmp_path, "--model_name=half_plus_two", f"--model_base_path={zoo / 'half_plus_two'}", *flags)
    try:
        server.wait_ready("half_plus_two")
        url = f"{server.url}/v1/models/half_plus_two:predict"
        assert requests.post(url, json={"instances": [1.0, 2.0]}, timeout=20).json() == {"predictions": [2.5, 3.0]}
        page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=20).text
        assert (
            ':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="batch_threads"} 1' in page
        ) == batching
        assert ":tensorflow:cc:saved_model:load_latency{" in page
    finally:
        code = server.stop()
    assert code == 0


def test_a_server_does_not_import_what_only_training_needs(server):
    files = {file.path for file in psutil.Process(server.process.pid).memory_maps()}
    assert any("/tensorflow/" in file for file in files)
    assert not [file for file in files if "/sklearn/" in file or "/matplotlib/" in file]
