"""The model that every engine serves here, and the engines' deployments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from models.manifest import ModelDir
from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.backends.process import ProcessDeployment
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import DeploymentError, EngineUnavailable
from serving.wire import PayloadSpec, payload_spec
from tests.exported_cnn import exported_cnn
from tests.serving.conformance.broken_artifact import with_broken_artifact
from tests.serving.conformance.overruling_archive import with_own_settings

READY_S = 120
BUDGET = Budget(cpus=(0, 1))
BATCHING = Batching(max_batch_size=4, timeout_us=1000)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory) -> ModelDir:
    """Its archive sets workers and batching itself, which no deployment may take over."""
    return with_own_settings(exported_cnn(tmp_path_factory), tmp_path_factory.mktemp("served") / "cnn")


@pytest.fixture(scope="session")
def spec(served_model) -> PayloadSpec:
    return payload_spec(served_model.manifest)


@pytest.fixture(scope="session")
def load_failure(served_model, tmp_path_factory) -> Callable[[str], DeploymentError]:
    """How an engine's start as a process fails with an artifact that is none; each engine is started once."""

    @functools.cache
    def fail(engine: str) -> DeploymentError:
        folder = tmp_path_factory.mktemp(f"broken-{engine}")
        with (
            BACKENDS["process"].start(
                DeploymentOrder(
                    ENGINES[engine],
                    with_broken_artifact(served_model, folder / "model", ENGINES[engine].artifact),
                    replicas=1,
                    budget=Budget(cpus=(0, 1)),
                    batching=Batching(),
                    workdir=folder / "work",
                    events=EventLog(),
                )
            ) as deployment,
            pytest.raises(DeploymentError) as told,
        ):
            deployment.wait_ready(READY_S)
        return told.value

    return fail


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
            budget=BUDGET,
            batching=BATCHING,
            workdir=tmp_path_factory.mktemp(engine_name),
            events=events,
        )
    ) as deployment:
        deployment.wait_ready(READY_S)
        yield deployment, events
