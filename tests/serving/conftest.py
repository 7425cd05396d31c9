"""Deployments of the stand-in server on the process backend."""

from __future__ import annotations

import pytest

from models.manifest import ModelDir
from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.deployment import Batching, Budget, EventLog
from tests.stand_ins.fake_engine import FakeEngine, write_model


@pytest.fixture
def toy_model(tmp_path) -> ModelDir:
    return write_model(tmp_path / "toy")


@pytest.fixture
def begin(toy_model, tmp_path):
    """Starts a deployment of the stand-in on the process backend; whatever it started is stopped afterwards."""
    started = []

    def start(*modes, replicas=1, ports=None, cpus=(0,)):
        events = EventLog()
        deployment = BACKENDS["process"].start(
            DeploymentOrder(
                FakeEngine(*modes),
                toy_model,
                replicas=replicas,
                budget=Budget(cpus=cpus),
                batching=Batching(),
                workdir=tmp_path / "work",
                events=events,
                ports=ports,
            )
        )
        started.append(deployment)
        return deployment, events

    yield start
    for deployment in started:
        deployment.stop()
