"""A study in small on containers: starts a stand-in, tells its label, and waits to be killed: `docker_owner.py DIR`."""

import sys
import time
from pathlib import Path

from fake_engine import FakeEngine, write_model

from serving.backend import DeploymentOrder
from serving.backends.docker.backend import DockerBackend
from serving.backends.docker.settings import DockerSettings
from serving.deployment import Batching, Budget, EventLog

folder = Path(sys.argv[1])
deployment = DockerBackend(DockerSettings(bake=True)).start(
    DeploymentOrder(
        FakeEngine("well"),
        write_model(folder / "toy"),
        replicas=1,
        budget=Budget(cpus=(0,)),
        batching=Batching(),
        workdir=folder / "work",
        events=EventLog(),
    )
)
deployment.wait_ready(60)
print(deployment._id, flush=True)
time.sleep(600)
