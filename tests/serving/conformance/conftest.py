"""The model that every engine serves here, and the engines' deployments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.manifest import MANIFEST_NAME, ModelDir
from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.backends.process import ProcessDeployment
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import EngineUnavailable
from serving.wire import PayloadSpec, payload_spec
from tests.source_tree import ROOT

BUILT = ROOT / "build" / "models" / "cnn"
READY_S = 120
BATCHING = Batching(max_batch_size=4, timeout_us=1000)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory) -> ModelDir:
    """The exported cnn; made from a training of one epoch where `servestorm export` has not run."""
    if (BUILT / MANIFEST_NAME).is_file():
        return ModelDir(BUILT)
    from models.artifacts.export import export_model
    from models.datasets.load import load_dataset
    from models.training.train import train

    folder = tmp_path_factory.mktemp("export")
    dataset = load_dataset("digits", seed=0)
    train("torch", dataset, folder / "weights", epochs=1, seed=0)
    return export_model("cnn", folder / "weights", dataset, folder / "models", weights_from="torch")


@pytest.fixture(scope="session")
def spec(served_model) -> PayloadSpec:
    return payload_spec(served_model.manifest)


# Of the module, not of the session: the tests that come later look for processes that were left.
@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request) -> str:
    """Each engine that can run here; the others are skipped with what they lack."""
    try:
        ENGINES[request.param].check()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def deployed(engine_name, served_model, tmp_path_factory) -> Iterator[tuple[ProcessDeployment, EventLog]]:
    """Two ready replicas of the engine, and what happened to them."""
    events = EventLog()
    with BACKENDS["process"].start(
        DeploymentOrder(
            ENGINES[engine_name],
            served_model,
            replicas=2,
            budget=Budget(cpus=(0, 1)),
            batching=BATCHING,
            workdir=tmp_path_factory.mktemp(engine_name),
            events=events,
        )
    ) as deployment:
        deployment.wait_ready(READY_S)
        yield deployment, events


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where a TensorFlow Serving runs that `tfserving_api` is to be held against, instead of our own server."""
    group = parser.getgroup("tfserving_api")
    group.addoption("--rest", help="http://host:port of a running server that serves savedmodel_zoo.py's models")
    group.addoption("--grpc", help="host:port of the same server's gRPC port")
