"""The chart installed in a namespace, by Helm."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from typing import Any

from kubernetes import client

from tests.deploy.chart.rendering import CHART, Object
from tests.deploy.chart.tools import helm
from tests.system.cluster.space import Space, ending, is_ready

REST = {"savedmodel": 8501, "torchserve": 8080}
SETTINGS: dict[str, Any] = {
    # what a cluster without a registry holds
    "images": {"haproxy": {"repository": "servestorm/haproxy", "tag": ""}},
    "balancer": {"mode": "always", "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "500m"}}},
    # small enough for all of them on two CPUs, and free to start fast
    "resources": {"requests": {"cpu": "150m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    "load": {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}},
}
_COUNTS = {
    # the readiness probe is in it too, with an empty label API
    "savedmodel": (
        8501,
        "/monitoring/prometheus/metrics",
        r'^:tensorflow:serving:request_latency_count\{[^}]*API="[^"]+"[^}]*\} (\S+)$',
    ),
    "torchserve": (8082, "/metrics", r"^ts_inference_requests_total\{[^}]*\} (\S+)$"),
}
# The servers' own Python: TorchServe answers and leaves the connection open, which simpler tools wait on.
_GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


class Release:
    """One release. Its values are kept between upgrades, as `--reuse-values` does."""

    def __init__(self, space: Space, name: str, engine: str) -> None:
        self.space = space
        self.name = name
        self.engine = engine
        self.full = f"{name}-servestorm"
        self._values: dict[str, Any] = merged(SETTINGS, {"engine": engine})

    @property
    def url(self) -> str:
        """Of its Service, inside the cluster."""
        return f"http://{self.full}.{self.space.name}:{REST[self.engine]}"

    def apply(self, **values: Any) -> None:
        """Install or upgrade with these values on top of the ones before, without waiting."""
        self._values = merged(self._values, values)
        done = self.helm("upgrade", "--install", self.name, str(CHART), "--values", "-", given=self._values)
        assert done.returncode == 0, done.stderr

    def helm(self, verb: str, *arguments: str, given: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Helm in the namespace, with values on its standard input."""
        command = [helm(), verb, *arguments, "--namespace", self.space.name]
        text = json.dumps(given) if given is not None else None
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    def settle(self) -> None:
        """Wait until every pod is of the newest kind and ready, and the old ones are gone."""
        self.space.until("the balancer", lambda: self._rolled_out(f"{self.full}-balancer"))
        self.space.until("the servers", lambda: self._rolled_out(self.full))
        self.space.until("the old pods' end", lambda: not any(ending(pod) for pod in self.pods()))

    def pods(self, component: str = "server") -> list[Object]:
        """The servers, or another component's pods."""
        return self.space.pods(instance=self.name, component=component)

    def ready(self) -> list[str]:
        """Names of the servers that take requests."""
        return [pod["metadata"]["name"] for pod in self.pods() if not ending(pod) and is_ready(pod)]

    def counts(self) -> dict[str, float]:
        """Requests that each server says to have answered, by the pod's name."""
        port, path, pattern = _COUNTS[self.engine]
        found = {}
        for name in self.ready():
            page = self._get(name, port, path)
            found[name] = sum(float(value) for value in re.findall(pattern, page, re.MULTILINE))
        return found

    def versions(self) -> set[str]:
        """Versions of the model cnn that the servers say to serve, each server asked by itself."""
        found = set()
        for name in self.ready():
            if self.engine == "torchserve":
                page = self._get(name, 8081, "/models/cnn")
                found |= set(re.findall(r'"modelVersion": *"([^"]+)"', page))
            else:
                page = self._get(name, 8501, "/v1/models/cnn")
                found |= set(re.findall(r'"version": *"([^"]+)"', page))
        return found

    def kill(self, pod: str) -> None:
        """Kill the server in a pod by SIGKILL, and return once Kubernetes has noticed."""
        before = self.restarts(pod)
        with suppress(AssertionError, client.ApiException):  # the container ends under the command
            self.space.run(pod, "bash", "-c", "kill -KILL -1", container="server")
        self.space.until("the kill to be noticed", lambda: self.restarts(pod) > before)

    def restarts(self, pod: str) -> int:
        """How often the server in a pod was started again."""
        (server,) = self.space.get("Pod", pod)["status"]["containerStatuses"]
        return int(server["restartCount"])

    def uninstall(self) -> None:
        """Take it away, and wait until its pods are gone."""
        done = self.helm("uninstall", self.name)
        assert done.returncode == 0, done.stderr
        self.space.until("the pods' end", lambda: not self.space.pods(instance=self.name))

    def _get(self, pod: str, port: int, path: str) -> str:
        return self.space.run(pod, "python", "-c", _GET, f"http://127.0.0.1:{port}{path}", container="server")

    def _rolled_out(self, deployment: str) -> bool:
        found = self.space.get("Deployment", deployment)
        status, wanted = found["status"], found["spec"]["replicas"]
        return (
            status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted
            and status.get("availableReplicas", 0) == wanted
        )


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: tables key by key, everything else replaced."""
    whole = dict(below)
    for key, value in above.items():
        old = whole.get(key)
        whole[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole
