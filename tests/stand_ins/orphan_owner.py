"""A study in small: starts a stand-in server, tells its pids, and waits to be killed: `orphan_owner.py DIR MODE`."""

import sys
import time
from pathlib import Path

from fake_engine import FakeEngine, write_model

from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.deployment import Batching, Budget, EventLog
from serving.orphans import scratch_folder

folder, mode = Path(sys.argv[1]), sys.argv[2]
deployment = BACKENDS["process"].start(
    DeploymentOrder(
        FakeEngine(mode),
        write_model(folder / "toy"),
        replicas=1,
        budget=Budget(cpus=(0,)),
        batching=Batching(),
        workdir=folder / "work",
        events=EventLog(),
    )
)
deployment.wait_ready(30)
pids = (folder / "work" / "replica-0" / "family").read_text()
print(f"{pids} {scratch_folder()}", flush=True)
time.sleep(600)
