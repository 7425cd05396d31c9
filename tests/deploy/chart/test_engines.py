"""What the chart writes for each engine is what that engine reads."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from serving.savedmodel_server.flags import parse_flags
from serving.savedmodel_server.textproto import message_class
from tests.deploy.chart.rendering import CHART, VALUES, container, environment, flags, pod_of, render
from tests.deploy.java_strings import strings
from tests.serving.engines.tensorflow_serving_flags import TF_SERVING_FLAGS

pytestmark = pytest.mark.helm
CI = CHART / "ci"


def engine_of(rendered):
    return rendered.get("Deployment")["spec"]["template"]["metadata"]["labels"]["servestorm/engine"]


def servers(*engines):
    """Every rendering of these engines, with its server's arguments."""
    for values in VALUES:
        rendered = render(values=values)
        if engine_of(rendered) in engines:
            yield rendered, container(rendered.server(), "server").get("args", [])


def test_every_flag_of_tensorflow_serving_is_one_that_it_has():
    seen = set()
    for _, arguments in servers("tfserving"):
        assert set(flags(arguments)) <= TF_SERVING_FLAGS
        seen |= set(flags(arguments))
    assert {"model_config_file", "enable_batching", "batching_parameters_file"} <= seen
    assert "bind_address" not in seen  # savedmodel-server's own


def test_savedmodel_server_takes_every_flag_after_those_of_its_image_s_entry_point():
    count = 0
    for _, arguments in servers("savedmodel"):
        flags_of = parse_flags(["--bind_address=0.0.0.0", "--model_name=model", "--drain_seconds=4", *arguments])
        assert flags_of.model_config_file == "/config/models.config"
        assert flags_of.drain_seconds > 4
        count += 1
    assert count > 3


def test_the_files_that_flags_name_are_mounted_where_the_flags_say():
    for rendered, arguments in servers("tfserving", "savedmodel"):
        named = {value for name, value in flags(arguments).items() if name.endswith("_file")}
        assert named == {f"/config/{name}" for name in rendered.settings()}


def model_server_config(text):
    from tensorflow_serving.config import model_server_config_pb2

    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config


def test_tensorflow_serving_s_models_are_those_of_the_values_with_their_versions_and_labels():
    rendered = render(values=CI / "models-values.yaml")
    cnn, resnet, *others = model_server_config(rendered.settings()["models.config"])
    assert (cnn.name, cnn.base_path, cnn.model_platform) == ("cnn", "/models/cnn", "tensorflow")
    assert list(cnn.model_version_policy.specific.versions) == [1, 2]
    assert dict(cnn.version_labels) == {"stable": 1, "canary": 2}
    assert not resnet.HasField("model_version_policy")
    assert [model.name for model in others] == ["remote", "bucket", "storage"]
    # a label of a version that is still to be loaded is refused otherwise
    server = container(rendered.server(), "server")
    assert "--allow_version_labels_for_unavailable_models=true" in server["args"]
    assert not any("labels" in argument for argument in container(render().server(), "server")["args"])
    mounted = {mount["mountPath"] for mount in server["volumeMounts"]}
    assert {model.base_path for model in (cnn, resnet, *others)} <= mounted


def test_the_monitoring_file_puts_the_metrics_where_they_are_looked_for():
    told = text_format.Parse(render().settings()["monitoring.config"], message_class("MonitoringConfig")())
    assert told.prometheus_config.enable
    monitor = render("monitoring.serviceMonitor.enabled=true").get("ServiceMonitor")["spec"]["endpoints"][0]
    assert told.prometheus_config.path == monitor["path"]


def test_the_batching_file_is_tensorflow_s_and_splits_what_is_larger_than_a_batch():
    rendered = render(values=CI / "tfserving-values.yaml")
    told = text_format.Parse(rendered.settings()["batching.config"], message_class("BatchingParameters")())
    assert told.max_execution_batch_size.value == 32
    assert told.enable_large_batch_splitting.value
    assert told.max_batch_size.value >= 1024
    assert told.batch_timeout_micros.value == 2000
    assert told.max_enqueued_batches.value == 1000 // 32
    assert told.num_batch_threads.value == 2
    assert "batching.config" not in render().settings()


def test_warm_up_can_be_turned_off_in_every_engine():
    for engine in ("tfserving", "savedmodel"):
        assert (
            "--enable_model_warmup=false"
            in container(render(f"engine={engine}", "warmup=false").server(), "server")["args"]
        )
        assert not any(
            "warmup" in argument for argument in container(render(f"engine={engine}").server(), "server")["args"]
        )
    cold = container(render("engine=torchserve", "warmup=false").server(), "server")
    assert environment(cold)["SERVESTORM_WARMUP"] == "0"
    assert environment(container(render("engine=torchserve").server(), "server"))["SERVESTORM_WARMUP"] == "1"


def properties(rendered):
    lines = rendered.settings()["config.properties"].splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_property_of_torchserve_is_one_that_its_own_class_names():
    spec = importlib.util.find_spec("ts")
    assert spec and spec.origin
    known = strings(Path(spec.origin).parent / "frontend" / "model-server.jar", "org/pytorch/serve/util/ConfigManager")
    for values in VALUES:
        rendered = render(values=values)
        if engine_of(rendered) == "torchserve":
            assert set(properties(rendered)) - known == set()


def test_torchserve_s_models_are_those_of_the_values_and_share_its_settings():
    found = properties(render(values=CI / "torchserve-models-values.yaml"))
    snapshot = json.loads(found["model_snapshot"])
    assert snapshot["modelCount"] == 3
    assert {name: settings["marName"] for name, (settings,) in _settings_by_model(snapshot)} == {
        "cnn": "cnn.mar",
        "resnet": "resnet.mar",
        "remote": "remote.mar",
    }
    snapshot = json.loads(properties(render(values=CI / "torchserve-values.yaml"))["model_snapshot"])
    ((_, (two,)),) = _settings_by_model(snapshot)
    assert (two["minWorkers"], two["maxWorkers"], two["batchSize"], two["maxBatchDelay"]) == (2, 2, 8, 2)
    assert two["marName"] == "cnn.mar"
    assert (two["responseTimeout"], two["startupTimeout"]) == (120, 3600)


def _settings_by_model(snapshot):
    return [(name, tuple(versions.values())) for name, versions in snapshot["models"].items()]


def test_torchserve_can_be_managed_from_inside_the_pod_only():
    found = properties(render("engine=torchserve"))
    assert found["management_address"] == "http://127.0.0.1:8081"
    assert found["grpc_management_address"] == "127.0.0.1"
    assert found["enable_model_api"] == "false"
    pod = render("engine=torchserve").server()
    assert {port["containerPort"] for port in container(pod, "server")["ports"]} == {8080, 7070, 8082}


def test_torchserve_writes_under_tmp_only_and_reads_what_its_image_has():
    found = properties(render("engine=torchserve"))
    assert found["workflow_store"].startswith("/tmp/")
    assert found["metrics_config"] == "/etc/servestorm/metrics.yaml"
    images = CHART.parents[2] / "serving" / "images" / "torchserve"
    assert "/etc/servestorm/" in (images / "Dockerfile").read_text()
    assert yaml.safe_load((images / "metrics.yaml").read_text())["ts_metrics"]
    assert "answers" in (images / "Dockerfile").read_text()  # the probes' program


def test_each_archive_lies_in_torchserve_s_one_model_store():
    rendered = render(values=CI / "torchserve-models-values.yaml")
    mounts = [mount for mount in container(rendered.server(), "server")["volumeMounts"] if ".mar" in mount["mountPath"]]
    assert [(mount["name"], mount["subPath"], mount["mountPath"]) for mount in mounts] == [
        ("models", "cnn/cnn.mar", "/model-store/cnn.mar"),
        ("claim-1", "resnet.mar", "/model-store/resnet.mar"),
        ("models", "remote/remote.mar", "/model-store/remote.mar"),
    ]
    assert all(mount["readOnly"] for mount in mounts)
    assert properties(rendered)["model_store"] == "/model-store"


def test_the_same_ports_as_the_images_expose():
    images = CHART.parents[2] / "serving" / "images"
    for engine in ("savedmodel", "torchserve"):
        exposed = next(
            line for line in (images / engine / "Dockerfile").read_text().splitlines() if line.startswith("EXPOSE")
        )
        rendered = render(f"engine={engine}")
        ports = {port["containerPort"] for port in container(pod_of(rendered.get("Deployment")), "server")["ports"]}
        assert ports <= {int(port) for port in exposed.split()[1:]}
