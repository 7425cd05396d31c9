"""Pods of the load generator that are folders of this machine: what is executed in them runs as a process here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from serving.backends.kubernetes import agents
from serving.backends.kubernetes.agents import Agents
from serving.backends.kubernetes.execute import Executed, NotExecuted
from tests.source_tree import ROOT


class AgentsHere:
    """Stands for a release's agents in a cluster; `/results` and `/models` of each lie under `folder`."""

    def __init__(self, folder: Path, number: int, monkeypatch: Any) -> None:
        self.folder = folder
        self.pods = [pod(f"agent-{place}") for place in range(number)]
        self.breaks = lambda count: False
        """Whether the stream of the so-manieth command breaks after it was carried out."""
        self.scripts: list[list[str]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._ports = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
        self.cluster: Any = SimpleNamespace(core=SimpleNamespace(list_namespaced_pod=self._list))
        monkeypatch.setattr(agents, "execute", self.execute)
        monkeypatch.setattr(agents, "_PAUSE_S", 0.01)
        for each in self.pods:
            self.results(each["metadata"]["name"]).mkdir(parents=True)

    def agents(self) -> Agents:
        """They, asked for by release and number."""
        return Agents(self.cluster, "k3", "r", len(self.pods))

    def results(self, name: str) -> Path:
        """What is /results in the pod."""
        return self.folder / name

    def pids(self) -> list[int]:
        """Of everything that was begun in the pods and still lives."""
        mark = f"AGENTS_HERE={self.folder}".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in _environment(path)]

    def execute(
        self, _cluster: Any, namespace: str, pod: str, container: str, command: list[str], timeout_s: float
    ) -> Executed:
        """The API's exec."""
        assert (namespace, container) == ("k3", "agent")
        if pod not in {each["metadata"]["name"] for each in self.pods}:
            raise NotExecuted(f"no command can be run in pod {pod}: not found.")
        self.scripts.append([pod, *command])
        models, results = str(self.folder / "models"), str(self.results(pod))
        words = [word.replace("/models", models).replace("/results", results) for word in command]
        env = {**os.environ, **self._ports, "PATH": self.path, "AGENTS_HERE": str(self.folder)}
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, timeout=timeout_s, check=False)
        if self.breaks(len(self.scripts)):
            raise NotExecuted(f"the stream of a command in pod {pod} ended before the command did.")
        return Executed(done.returncode, done.stdout, done.stderr.decode().strip())

    def _list(self, namespace: str, *, label_selector: str, _preload_content: bool) -> Any:
        assert namespace == "k3"
        assert label_selector == "app.kubernetes.io/instance=r,app.kubernetes.io/component=load-agent"
        return SimpleNamespace(data=json.dumps({"items": self.pods}))


def _environment(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # it has just ended
        return []


def pod(name: str, *, ready: bool = True, **status: Any) -> dict[str, Any]:
    """A pod as the API tells it."""
    return {
        "metadata": {"name": name, "namespace": "k3", "uid": f"uid-{name}"},
        "spec": {"nodeName": "node1", "containers": [{"name": "agent", "image": "servestorm/generator:0.1.0"}]},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "agent", "restartCount": 0, "state": {"running": {}}}],
            **status,
        },
    }
