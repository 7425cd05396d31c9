"""Rendered pods as containers of a Docker Engine: the same images, arguments, files, user, limits and probes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.probe import http_get
from tests.deploy.chart.rendering import Object, Rendered, container, pod_of

PATIENCE_S = 180.0


class Cluster:
    """Pods of one rendering in one network, under the names that Services give them."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        self._rendered = rendered
        self._folder = folder
        self._name = f"servestorm-test-{os.getpid()}-{secrets.token_hex(3)}"
        self._label = ("--label", f"servestorm.test={self._name}")

    def volume(self, name: str) -> Path:
        """An emptyDir, which every pod here shares under its name."""
        path = self._folder / name
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        return path

    def start(self, thing: Object, name: str, alias: str) -> Running:
        """Start a container of a pod in the background."""
        told = docker("run", "--detach", *self._options(thing, name, alias))
        return Running(told.strip(), container(pod_of(thing), name))

    def finish(self, thing: Object, name: str) -> subprocess.CompletedProcess[str]:
        """Run a container of a pod to its end."""
        command = ["docker", "run", "--rm", *self._options(thing, name, "")]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def _options(self, thing: Object, name: str, alias: str) -> list[str]:
        pod = pod_of(thing)
        each = container(pod, name)
        security, limits = pod["securityContext"], each["resources"]["limits"]
        user = f"{security['runAsUser']}:{security['runAsGroup']}"
        options = [*self._label, "--network", self._name, "--read-only", "--user", user, "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--pids-limit", "512", "--cpus", str(limits["cpu"])]
        options += ["--memory", limits["memory"].removesuffix("i").lower()]
        options += ["--network-alias", alias] if alias else []
        for mount in each["volumeMounts"]:
            options += ["--volume", self._bound(pod, mount)]
        for variable in each.get("env", []):
            options += ["--env", f"{variable['name']}={variable.get('value', 'pod')}"]
        command = [*each.get("command", []), *(arg.replace("$(POD_NAME)", "pod") for arg in each.get("args", []))]
        if "command" in each:
            options += ["--entrypoint", command.pop(0)]
        return [*options, each["image"], *command]

    def _bound(self, pod: Object, mount: Object) -> str:
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        if "configMap" in volume:
            source = self._config_map(volume["configMap"]["name"])
        else:
            source = self.volume(volume["name"]) / mount.get("subPath", "")
        assert source.exists(), f"{source} is not there: Kubernetes would make an empty folder of it"
        return f"{source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"

    def _config_map(self, name: str) -> Path:
        (found,) = [thing for thing in self._rendered.all("ConfigMap") if thing["metadata"]["name"] == name]
        folder = self._folder / f"configmap-{name}"
        folder.mkdir(exist_ok=True)
        for file, text in found["data"].items():
            (folder / file).write_text(text)
        return folder

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """The network for as long as the block runs; nothing is left after it."""
        docker("network", "create", *self._label, self._name)
        try:
            yield self
        finally:
            found = docker("ps", "--all", "--quiet", "--filter", f"label=servestorm.test={self._name}").split()
            if found:
                docker("rm", "--force", *found)
            docker("network", "rm", self._name)


class Running:
    """A container that was started."""

    def __init__(self, identity: str, spec: Object) -> None:
        self._id = identity
        self.spec = spec

    @property
    def address(self) -> str:
        """Its own in the network, which this machine reaches."""
        (network,) = self._told()["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def port(self, name: str) -> int:
        """The port of a name."""
        (found,) = [port["containerPort"] for port in self.spec["ports"] if port["name"] == name]
        return int(found)

    def url(self, port: str, path: str = "") -> str:
        """Address of a named port."""
        return f"http://{self.address}:{self.port(port)}{path}"

    def passes(self, probe: str) -> bool:
        """What the kubelet would find."""
        look = self.spec[probe]
        if "exec" in look:
            return self.execute(*look["exec"]["command"]).returncode == 0
        if "grpc" in look:
            return _serving(f"{self.address}:{look['grpc']['port']}")
        reply = http_get(self.url(look["httpGet"]["port"], look["httpGet"]["path"]), look.get("timeoutSeconds", 1))
        return reply is not None and 200 <= reply[0] < 400

    def wait(self, probe: str) -> None:
        """Return once it passes; AssertionError with its last words where it ends, or takes too long."""
        self._until(lambda: self.passes(probe), probe)

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        self._until(lambda: not self._told()["State"]["Running"], "its end")
        return int(self._told()["State"]["ExitCode"])

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(["docker", "exec", self._id, *command], capture_output=True, text=True, check=False)

    def stop(self, grace_s: int) -> int:
        """SIGTERM, and SIGKILL after the grace; its exit code."""
        docker("stop", "--time", str(grace_s), self._id)
        return int(self._told()["State"]["ExitCode"])

    def _told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self._id))[0]
        return found

    def _until(self, look: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not look():
            told = self._told()["State"]
            last = subprocess.run(
                ["docker", "logs", "--tail", "15", self._id], capture_output=True, text=True, check=False
            )
            words = f"{last.stdout}{last.stderr}"
            assert told["Running"] or what == "its end", f"ended with {told['ExitCode']} before {what}: {words}"
            assert time.monotonic() < deadline_s, f"waited in vain for {what}: {words}"
            time.sleep(0.25)


def docker(*arguments: str) -> str:
    """Standard output of a docker command that must not fail."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr[-2000:]}"
    return done.stdout


def _serving(target: str) -> bool:
    try:
        with grpc.insecure_channel(target) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    except grpc.RpcError:
        return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
