"""Every TorchServe property that we set is one that TorchServe 0.12.0 reads: its own class file says which."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from serving.deployment import Batching, Budget
from serving.engines import ENGINES
from tests.deploy.compose.compose_files import COMPOSE, env_file
from tests.deploy.java_strings import strings
from tests.source_tree import ROOT
from tests.stand_ins.fake_engine import write_model

ENTRY_POINT = ROOT / "serving" / "images" / "torchserve" / "entrypoint.sh"
FILES = [COMPOSE / "torchserve" / "config.properties", ROOT / "serving" / "images" / "torchserve" / "config.properties"]


@pytest.fixture(scope="module")
def jar() -> Path:
    spec = importlib.util.find_spec("ts")
    assert spec and spec.origin
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


@pytest.fixture(scope="module")
def known(jar) -> set[str]:
    names = strings(jar, "org/pytorch/serve/util/ConfigManager")
    assert "inference_address" in names and "no_such_property" not in names
    return names


def properties(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("file", FILES, ids=["compose", "image"])
def test_every_property_of_a_file_is_torchserve_s(file, known):
    assert set(properties(file.read_text())) - known == set()


def test_every_property_that_the_engine_writes_is_torchserve_s(known, tmp_path):
    model = write_model(tmp_path / "toy")
    assert model.mar_path
    with zipfile.ZipFile(model.mar_path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": "1.0"}}))
    many = Batching(max_batch_size=8, timeout_us=2500, queue_size=100)
    ENGINES["torchserve"].launch(model, 0, Budget(cpus=(0,), threads=1), many, tmp_path, None)
    assert set(properties((tmp_path / "config.properties").read_text())) - known == set()


@pytest.fixture
def started(tmp_path):
    """Runs the image's entry point with Compose's configuration; gives what it starts Java with, and its end."""
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\nwhile [ "$1" != -f ]; do shift; done\ncat "$2"\n')
    java.chmod(0o755)

    def start(name: str, file: Path = FILES[0]) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TS_CONFIG_FILE": str(file), "MODEL_NAME": name, "TS_PYTHON": "p"}
        env["HOME"] = str(tmp_path)
        return subprocess.run(["sh", ENTRY_POINT], env=env, capture_output=True, text=True, check=False)

    return start


def test_the_entry_point_refuses_a_model_name_that_would_break_the_configuration(started):
    for name in ("", "a b", "a/b", 'a"b', "a&b"):
        done = started(name)
        assert done.returncode == 2 and "names no model" in done.stderr, name


def test_a_configuration_without_the_placeholder_is_read_as_it_is(started, tmp_path):
    own = tmp_path / "config.properties"
    own.write_text("model_store=/models/mine\n")
    assert started("other", own).stdout == own.read_text()


@pytest.mark.parametrize("name", [env_file(ROOT / ".env.example")["MODEL_NAME"], "resnet-50_v1.5"])
def test_the_settings_of_the_model_are_torchserve_s_and_bound_batches_as_the_other_engine_s(name, jar, started):
    found = properties(started(name).stdout)
    snapshot = json.loads(found["model_snapshot"])
    assert snapshot["modelCount"] == len(snapshot["models"])
    assert found["model_store"] == f"/models/{name}"
    ((model, versions),) = snapshot["models"].items()
    ((_, settings),) = versions.items()
    assert model == name
    assert settings["marName"] == f"{name}.mar"
    assert set(settings) <= strings(jar, "org/pytorch/serve/wlm/Model")
    batching = (COMPOSE / "tfserving" / "batching.config").read_text()
    assert f"max_execution_batch_size {{ value: {settings['batchSize']} }}" in batching
    assert f"batch_timeout_micros {{ value: {settings['maxBatchDelay'] * 1000} }}" in batching
    assert f"max_enqueued_batches {{ value: {int(found['job_queue_size']) // settings['batchSize']} }}" in batching
    assert f"num_batch_threads {{ value: {settings['maxWorkers']} }}" in batching


def test_compose_and_the_image_configure_torchserve_alike_but_for_the_model():
    compose, image = (properties(file.read_text()) for file in FILES)
    assert set(compose) - set(image) == {"model_store", "model_snapshot"}
    assert {name: compose[name] for name in image} == image
