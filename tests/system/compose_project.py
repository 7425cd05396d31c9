"""The air-gapped compose project, started for tests under a name of its own, on ports that are free."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests

from tests.source_tree import ROOT

PORTS = {
    "TENSORFLOW_REST_PORT": 8501,
    "TENSORFLOW_GRPC_PORT": 8500,
    "TORCHSERVE_REST_PORT": 8080,
    "TORCHSERVE_GRPC_PORT": 7070,
    "STATISTICS_PORT": 8404,
    "PROMETHEUS_PORT": 9090,
    "LOCUST_PORT": 8089,
}
REST = {"savedmodel": 8501, "torchserve": 8080}
GRPC = {"savedmodel": 8500, "torchserve": 7070}
_SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
T = TypeVar("T")


def until(look: Callable[[], T], what: str, patience_s: float = 120.0) -> T:
    """The first true answer of `look`; fails with `what` was waited for."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.25)
    return found


class Project:
    """One compose project of the air-gapped files."""

    def __init__(self, **variables: str) -> None:
        self.name = f"servestorm-test-{os.getpid()}-{secrets.token_hex(3)}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        self._env = {**own, "EPOCHS": "1", **dict.fromkeys(PORTS, "0"), **variables}

    def compose(self, *arguments: str, patience_s: float = 600.0) -> str:
        """Standard output of `docker compose ARGUMENTS`; fails with what it said where it fails."""
        command = ["docker", "compose", "--env-file", ".env.airgap", "-p", self.name, "--profile", "load", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=patience_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def up(self, *arguments: str) -> None:
        """Start what serves, and wait until all of it is well."""
        services = ["savedmodel", "torchserve", "haproxy", "prometheus"]
        try:
            self.compose("up", "-d", "--wait", "--wait-timeout", "300", "--no-build", *arguments, *services)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--no-color', '--tail', '20')}") from None

    def down(self) -> None:
        """End all of it, volumes too."""
        self.compose("down", "-v", "--remove-orphans")

    def left(self) -> list[str]:
        """Whatever carries the project's label, also what has ended."""
        label = f"label=com.docker.compose.project={self.name}"
        kinds = (["container", "ls", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"])
        return [line for kind in kinds for line in docker(*kind, "--filter", label).split()]

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What `docker inspect` tells of the containers of these services (of all)."""
        ids = self.compose("ps", "-aq", *services).split()
        return json.loads(docker("inspect", *ids)) if ids else []

    def url(self, service: str, port: int) -> str:
        """http://127.0.0.1:PORT where a service's port is published."""
        return f"http://{self.compose('port', service, str(port)).strip()}"

    def prometheus(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of Prometheus's API."""
        answer = requests.get(f"{self.url('prometheus', 9090)}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.json()["status"] == "success", answer.text
        return answer.json()["data"]

    def balancer(self, metric: str, **labels: str) -> dict[str, float]:
        """Server (or proxy) to value of one of HAProxy's metrics, of samples with these labels."""
        page = requests.get(f"{self.url('haproxy', 8404)}/metrics?no-maint", timeout=10).text
        found: dict[str, float] = {}
        for match in _SAMPLE.finditer(page):
            told = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            if match["name"] == metric and labels.items() <= told.items():
                found[told.get("server", told["proxy"])] = float(match["value"])
        return found

    def answered(self, proxy: str) -> dict[str, float]:
        """Replica to the number of its answers with status 200 through a front."""
        return self.balancer("haproxy_server_http_responses_total", proxy=proxy, code="2xx")

    def copy_model(self, folder: Path) -> Path:
        """The manifest of the model that is served, copied out of the volume with what it names."""
        (container, *_) = self.compose("ps", "-q", "torchserve").split()
        docker("cp", f"{container}:/models/cnn", str(folder))
        return folder / "cnn" / "manifest.json"

    def scale_torchserve(self, replicas: int) -> None:
        """`--scale`, and wait until the balancer uses so many."""
        self.up("--scale", f"torchserve={replicas}", "--no-recreate")
        until(lambda: self.replicas("torchserve_rest") == replicas, f"{replicas} replicas of TorchServe")
        until(lambda: self.replicas("torchserve_grpc") == replicas, f"{replicas} replicas of TorchServe")

    def replicas(self, proxy: str) -> int:
        """Replicas that pass their check."""
        return int(self.balancer("haproxy_backend_active_servers", proxy=proxy)[proxy])


def docker(*arguments: str) -> str:
    """Standard output of `docker ARGUMENTS`."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


@contextmanager
def load_begun(
    project: Project, manifest: Path, engine: str, protocol: str, out: Path, rate: float, duration_s: float
) -> Iterator[subprocess.Popen[str]]:
    """The generator on this machine, through the balancer, while the block runs."""
    host = project.url("haproxy", REST[engine])
    target = project.url("haproxy", GRPC[engine]).removeprefix("http://")
    options = {
        "--engine": engine,
        "--protocol": protocol,
        "--host": host,
        "--grpc-target": target,
        "--manifest": manifest,
        "--rate": rate,
        "--duration": duration_s,
        "--warmup": 0,
        "--keep-awake": "off",
        "--out": out,
    }
    command = [sys.executable, "-m", "locust", "-f", ROOT / "loadtests" / "steady.py", "--headless", "--only-summary"]
    words = [str(word) for option in options.items() for word in option]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def load(
    project: Project, manifest: Path, engine: str, protocol: str, out: Path, rate: float = 20, duration_s: float = 2
) -> dict[str, Any]:
    """The summary of a load that is over."""
    with load_begun(project, manifest, engine, protocol, out, rate, duration_s) as process:
        said, _ = process.communicate(timeout=120)
    assert (out / "summary.json").exists(), said
    return json.loads((out / "summary.json").read_text())
