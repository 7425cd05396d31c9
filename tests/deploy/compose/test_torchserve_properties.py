"""Every TorchServe property that we set is one that TorchServe 0.12.0 reads: its own class file says which."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

from serving.deployment import Batching, Budget
from serving.engines import ENGINES
from tests.deploy.compose.compose_files import COMPOSE, env_file
from tests.deploy.java_strings import strings
from tests.source_tree import ROOT
from tests.stand_ins.fake_engine import write_model

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


def test_the_settings_of_the_model_are_torchserve_s_and_bound_batches_as_the_other_engine_s(jar):
    found = properties(FILES[0].read_text())
    name = env_file(ROOT / ".env.example")["MODEL_NAME"]
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
