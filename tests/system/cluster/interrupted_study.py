"""A study in small on a cluster: starts one replica, tells its release, and waits: MODEL NAMESPACE FOLDER."""

import sys
import time
from pathlib import Path

from models.manifest import ModelDir
from serving.backend import DeploymentOrder
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES

model, namespace, folder = sys.argv[1:]
with KubernetesBackend(KubernetesSettings(namespace=namespace)).start(
    DeploymentOrder(
        ENGINES["savedmodel"],
        ModelDir(Path(model)),
        replicas=1,
        budget=Budget(cpus=(), cpu_quota=0.25, memory_bytes=1024**3),
        batching=Batching(),
        workdir=Path(folder),
        events=EventLog(),
    )
) as deployment:
    print(deployment.release, flush=True)
    time.sleep(600)
