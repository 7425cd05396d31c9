"""Models come, change and go under a real savedmodel-server: versions, warm-up, configuration, TLS, health."""

import json
import shutil
import subprocess
import threading
import time

import grpc
import pytest
import requests

from tests.serving.savedmodel_server.savedmodel_zoo import save_half_plus
from tests.serving.savedmodel_server.server_process import LABELS_AT_START, start_server

pytestmark = pytest.mark.system
WAIT_S = 60


def until(condition, what):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {WAIT_S} s")


def states(server, model):
    found = requests.get(f"{server.url}/v1/models/{model}", timeout=20).json()
    return {int(v["version"]): v["state"] for v in found.get("model_version_status", [])}


@pytest.fixture(scope="session")
def lines(tmp_path_factory):
    """y = 0.5 x + version, for versions 1 to 3."""
    folder = tmp_path_factory.mktemp("lines")
    for version in (1, 2, 3):
        save_half_plus(folder / str(version), float(version))
    return folder


def put(source, base, version):
    """A version appears in one step, as a careful deployer does it."""
    shutil.copytree(source / str(version), base / f".{version}")
    (base / f".{version}").rename(base / str(version))


def test_no_answer_is_lost_or_wrong_while_versions_change_under_load(lines, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    put(lines, base, 1)
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={base}", "--enable_batching")
    over, wrong, seen = threading.Event(), [], set()

    def load():
        session = requests.Session()
        while not over.is_set():
            reply = session.post(f"{server.url}/v1/models/m:predict", data=b'{"instances": [10.0]}', timeout=20)
            value = reply.json().get("predictions", [None])[0]
            seen.add(value)
            if reply.status_code != 200 or value not in (6.0, 7.0, 8.0):
                wrong.append(reply.text)

    try:
        server.wait_ready("m")
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (2, 3):
            put(lines, base, version)
            until(lambda v=version: states(server, "m").get(v) == "AVAILABLE", f"version {version}")
            until(lambda v=version: states(server, "m").get(v - 1) == "END", f"the end of version {version - 1}")
        shutil.rmtree(base / "3")
        until(lambda: states(server, "m").get(2) == "AVAILABLE", "version 2 again")
        over.set()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        server.stop()
    assert wrong == [] and {6.0, 7.0, 8.0} <= seen


def test_a_corrupt_version_is_reported_and_the_old_one_serves_on(lines, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    put(lines, base, 1)
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={base}", "--max_num_load_retries=0")
    try:
        server.wait_ready("m")
        (base / "2").mkdir()
        (base / "2" / "saved_model.pb").write_bytes(b"no protobuf")
        until(lambda: states(server, "m").get(2) == "END", "the end of version 2")
        found = requests.get(f"{server.url}/v1/models/m/versions/2", timeout=20).json()["model_version_status"][0]
        assert found["status"]["error_code"] != "OK" and found["status"]["error_message"]
        reply = requests.post(f"{server.url}/v1/models/m:predict", data=b'{"instances": [10.0]}', timeout=20)
        assert reply.json() == {"predictions": [6.0]}
    finally:
        server.stop()


def warmup_file(version_dir, value, model="m", name="x"):
    """assets.extra/tf_serving_warmup_requests with one predict request."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    record = prediction_log_pb2.PredictionLog()
    request = record.predict_log.request
    request.model_spec.name = model
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value, tf.float32))
    (version_dir / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version_dir / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(record.SerializeToString())


def test_warm_up_runs_before_traffic_and_a_failing_one_fails_the_version(lines, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    shutil.copytree(lines / "1", base / "1")
    shutil.copytree(lines / "2", tmp_path / "2")
    warmup_file(base / "1", [1.0, 2.0])
    warmup_file(tmp_path / "2", [1.0, 2.0], name="none")
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={base}", "--max_num_load_retries=0")
    try:
        server.wait_ready("m")
        page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=20).text
        warmed = f'{{model_path="{base / "1"}",status="OK"}} 1'
        assert f":tensorflow:serving:model_warmup_latency_count{warmed}" in page
        assert f":tensorflow:serving:model_warmup_records_read{warmed}" in page
        assert ":tensorflow:core:graph_runs 1" in page
        assert ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"} 1' in page
        (tmp_path / "2").rename(base / "2")
        until(lambda: states(server, "m").get(2) == "END", "the failure of version 2")
        assert states(server, "m")[1] == "AVAILABLE"
        found = requests.get(f"{server.url}/v1/models/m/versions/2", timeout=20).json()["model_version_status"][0]
        assert "Warm-up" in found["status"]["error_message"]
    finally:
        server.stop()


def config_text(lines, label):
    return f"""model_config_list {{ config {{
      name: "m" base_path: "{lines}" model_platform: "tensorflow"
      model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
      version_labels {{ key: "stable" value: {label} }} }} }}"""


def test_the_config_file_is_read_again_and_a_reload_moves_a_label(lines, tmp_path):
    from google.protobuf import text_format
    from tensorflow_serving.apis import model_management_pb2
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

    config = tmp_path / "models.config"
    config.write_text(config_text(lines, 1))
    flags = f"--model_config_file={config}", LABELS_AT_START
    server = start_server(tmp_path, *flags, "--model_config_file_poll_wait_seconds=1")

    def stable():
        url = f"{server.url}/v1/models/m/labels/stable:predict"
        return requests.post(url, data=b'{"instances": [10.0]}', timeout=20).json().get("predictions")

    try:
        server.wait_ready("m")
        assert stable() == [6.0]
        config.write_text(config_text(lines, 2))
        until(lambda: stable() == [7.0], "the label on version 2")
        with grpc.insecure_channel(server.target) as channel:
            request = model_management_pb2.ReloadConfigRequest()
            text_format.Parse(config_text(lines, 1), request.config)
            reply = ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)
            assert reply.status.error_code == 0 and stable() == [6.0]
            model = request.config.model_config_list.config[0]
            model.model_version_policy.specific.versions.append(3)
            model.version_labels["stable"] = 3  # which this very request would load
            with pytest.raises(grpc.RpcError) as refused:
                ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert stable() == [6.0] and set(states(server, "m")) == {1, 2}
    finally:
        server.stop()


def test_labels_need_a_flag_at_the_start(lines, tmp_path):
    config = tmp_path / "models.config"
    config.write_text(config_text(lines, 1))
    server = start_server(tmp_path, f"--model_config_file={config}")
    assert server.process.wait(timeout=60) == 2
    text = "Request to assign label to version 1 of model m, which is not currently available for inference: add "
    assert f"savedmodel-server: {text}{LABELS_AT_START}" in server.log.read_text()


def test_a_reload_with_a_model_that_does_not_load_says_which_and_why(lines, tmp_path):
    from tensorflow_serving.apis import model_management_pb2
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

    (tmp_path / "bad" / "7").mkdir(parents=True)
    (tmp_path / "bad" / "7" / "saved_model.pb").write_bytes(b"no protobuf")
    flags = "--model_name=m", f"--model_base_path={lines}", "--max_num_load_retries=0"
    server = start_server(tmp_path, *flags)
    request = model_management_pb2.ReloadConfigRequest()
    for name, base in (("m", lines), ("bad", tmp_path / "bad")):
        request.config.model_config_list.config.add(name=name, base_path=str(base), model_platform="tensorflow")
    try:
        server.wait_ready("m")
        with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as refused:
            ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)
        text = "1 model(s) did not become available: {{{name: bad version: 7} due to error: "
        assert refused.value.code() is grpc.StatusCode.UNKNOWN and refused.value.details().startswith(text)
        reply = requests.post(f"{server.url}/v1/models/m:predict", data=b'{"instances": [10.0]}', timeout=20)
        assert reply.json() == {"predictions": [8.0]}
    finally:
        server.stop()


def test_a_model_whose_last_version_goes_is_not_found(lines, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    put(lines, base, 1)
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={base}")
    try:
        server.wait_ready("m")
        (base / "1").rename(tmp_path / "gone")
        until(lambda: states(server, "m") == {1: "END"}, "the end of version 1")
        reply = requests.post(f"{server.url}/v1/models/m:predict", data=b'{"instances": [10.0]}', timeout=20)
        assert (reply.status_code, reply.json()) == (404, {"error": "Servable not found for request: Latest(m)"})
        (tmp_path / "gone").rename(base / "1")
        until(lambda: states(server, "m") == {1: "AVAILABLE"}, "version 1 again")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model_config_list { config { name: 'm' } }", "base_path"),
        ("model_config_list { config { name: 'm' base_path: '/a' } }", "nor ModelServerConfig::model_platform"),
        ("model_config_list { config { base_path: '/m' } }", "name"),
        ("model_config_list { config { name: 'm' base_path: 'relative' } }", "absolute path"),
        ("model_config_list { config { name: 'm' base_path: '/a' model_platform: 'x' } }", "unsupported platform x"),
        ("model_config_lists {}", "model_config_lists"),
        ("", "needs a model_config_list"),
    ],
)
def test_a_wrong_config_file_is_one_sentence_and_code_2(tmp_path, text, says):
    config = tmp_path / "models.config"
    config.write_text(text)
    server = start_server(tmp_path, f"--model_config_file={config}")
    assert server.process.wait(timeout=60) == 2
    log = server.log.read_text()
    assert says in log and "Traceback" not in log


def test_the_health_service_follows_the_models(lines, tmp_path):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    base = tmp_path / "m"
    base.mkdir()
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={base}")
    try:
        with grpc.insecure_channel(server.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def health():
                asked = health_pb2.HealthCheckRequest(service="m")
                try:
                    return stub.Check(asked, timeout=5, wait_for_ready=True).status
                except grpc.RpcError:
                    return None

            until(lambda: health() == health_pb2.HealthCheckResponse.NOT_SERVING, "NOT_SERVING")
            put(lines, base, 1)
            until(lambda: health() == health_pb2.HealthCheckResponse.SERVING, "SERVING")
    finally:
        server.stop()


@pytest.mark.parametrize("flag", [[], ["--grpc_channel_arguments=grpc.max_concurrent_streams=100"]])
def test_health_after_a_reload_that_drops_a_model(lines, tmp_path, flag):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from tensorflow_serving.apis import model_management_pb2
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

    request = model_management_pb2.ReloadConfigRequest()
    for name in ("kept", "dropped"):
        request.config.model_config_list.config.add(name=name, base_path=str(lines), model_platform="tensorflow")
    config = tmp_path / "models.config"
    config.write_text(str(request.config))
    server = start_server(tmp_path, f"--model_config_file={config}", *flag)
    try:
        server.wait_ready("dropped")
        with grpc.insecure_channel(server.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def check(name):
                asked = health_pb2.HealthCheckRequest(service=name)
                try:
                    return stub.Check(asked, timeout=20, wait_for_ready=True).status
                except grpc.RpcError as error:
                    return error.code().name

            until(lambda: check("dropped") == health_pb2.HealthCheckResponse.SERVING, "SERVING")
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="dropped"), timeout=60)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            del request.config.model_config_list.config[1]
            assert ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30).status.error_code == 0
            until(lambda: check("dropped") == "NOT_FOUND", "NOT_FOUND")
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            assert check("") == check("kept") == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
    finally:
        server.stop()


def test_grpc_speaks_tls_with_an_ssl_config_file(lines, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    config = tmp_path / "ssl.config"
    config.write_text(
        f"server_key: {json.dumps(key.read_text())}\nserver_cert: {json.dumps(certificate.read_text())}\n"
    )
    server = start_server(tmp_path, "--model_name=m", f"--model_base_path={lines}", f"--ssl_config_file={config}")
    try:
        server.wait_ready("m")
        from tensorflow_serving.apis import get_model_status_pb2
        from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "m"
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(server.target, trusted) as channel:
            assert ModelServiceStub(channel).GetModelStatus(request, timeout=20).model_version_status
        with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError):
            ModelServiceStub(channel).GetModelStatus(request, timeout=5)
    finally:
        server.stop()


def test_a_full_queue_is_unavailable_at_once(zoo, tmp_path):
    parameters = tmp_path / "batching.txt"
    parameters.write_text(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }"
    )
    server = start_server(
        tmp_path, "--model_name=zoo", f"--model_base_path={zoo / 'zoo'}", "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )  # fmt: skip
    codes = []

    def call():
        body = {"signature_name": "spin", "instances": [20_000]}
        codes.append(requests.post(f"{server.url}/v1/models/zoo:predict", json=body, timeout=60).status_code)

    try:
        server.wait_ready("zoo")
        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
    assert set(codes) == {200, 503} and codes.index(503) < 11


def test_one_clients_bad_rows_fail_nobody_elses_batch(zoo, tmp_path):
    parameters = tmp_path / "batching.txt"
    parameters.write_text(
        "max_batch_size { value: 64 } batch_timeout_micros { value: 50000 } num_batch_threads { value: 1 }"
    )
    server = start_server(
        tmp_path, "--model_name=zoo", f"--model_base_path={zoo / 'zoo'}", "--enable_batching",
        f"--batching_parameters_file={parameters}",
    )  # fmt: skip
    answers = {}

    def call(value):
        body = {"signature_name": "raises", "instances": [value]}
        reply = requests.post(f"{server.url}/v1/models/zoo:predict", json=body, timeout=60)
        answers[value] = (reply.status_code, reply.json().get("predictions"))

    try:
        server.wait_ready("zoo")
        values = [float(i) for i in range(20)] + [1000.0]
        threads = [threading.Thread(target=call, args=(value,)) for value in values]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
    assert answers.pop(1000.0)[0] == 400
    assert answers == {float(i): (200, [float(i)]) for i in range(20)}
