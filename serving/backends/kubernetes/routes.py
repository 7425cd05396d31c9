"""Where a release is reached: each pod, the Service in front of them, or both through the API."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from serving.backends.kubernetes.access import may_forward
from serving.backends.kubernetes.api_objects import answer_of
from serving.backends.kubernetes.cluster import ROLE, Cluster, asking
from serving.backends.kubernetes.forward import Forward
from serving.backends.kubernetes.pods import Object, name_of
from serving.backends.kubernetes.release_state import PodReplica
from serving.backends.kubernetes.service import Way, way_to
from serving.backends.kubernetes.settings import BALANCER, KubernetesSettings
from serving.deployment import ContainerLaunch, Endpoint, EventLog
from serving.errors import DeploymentError
from serving.probe import http_get

_TRY_S = 1.0
_POLL_S = 0.2
_SERVICE_S = 15.0
"""For the nodes to hear of a Service's pods."""
ELSEWHERE = "set `kubernetes.reach` to port-forward, or send the load from inside with `--load-from cluster`"


class Reach:
    """The addresses of one release, as far as they are known; `endpoints` are those of the pods."""

    def __init__(
        self,
        cluster: Cluster,
        settings: KubernetesSettings,
        release: str,
        launch: ContainerLaunch,
        events: EventLog,
        front_file: Path,
    ) -> None:
        self.endpoints: list[Endpoint] = []
        self.front_file = front_file
        self._cluster, self._settings, self._release = cluster, settings, release
        self._launch, self._events = launch, events
        self._decided = settings.reach == "port-forward"
        self._direct: bool | None = False if self._decided else None
        self._forwards: dict[str, Forward] = {}
        self._service: Endpoint | None = None
        self._listed: str | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def front(self) -> list[Endpoint]:
        """Where load goes: the Service, or the pods themselves."""
        return [self._service] if self._service else self.endpoints

    def follow(self, replicas: Sequence[PodReplica]) -> None:
        """Take the pods as they are now. Nobody is asked."""
        with self._lock:
            if self._closed:
                return
            self._list_front([one for one in replicas if one.ready])
            if self._direct is not None:
                reached = [one for one in replicas if one.active and one.address and one.started]
                self.endpoints = [self._endpoint(one) for one in reached]
                for name in self._forwards.keys() - {one.name for one in replicas if one.active} - {BALANCER}:
                    self._forwards.pop(name).close()

    def _endpoint(self, replica: PodReplica) -> Endpoint:
        if self._direct:
            return self._own(replica)
        if replica.name not in self._forwards:
            self._forwards[replica.name] = self._forward(replica.name, self._launch.ports())
        return self._launch.endpoint(replica.index, self._forwards[replica.name].address)

    def _forward(self, pod: str, ports: Sequence[int]) -> Forward:
        return Forward(self._cluster, self._settings.namespace, pod, ports)

    def _own(self, replica: PodReplica) -> Endpoint:
        """At the pod's own address, where TorchServe's management API does not listen."""
        host = bracketed(replica.address or "")
        return replace(self._launch.endpoint(replica.index, lambda port: f"{host}:{port}"), management_url=None)

    def _list_front(self, ready: Sequence[PodReplica]) -> None:
        """Write the addresses that are ready now, for a load generator that follows the file."""
        own = [self._own(one) for one in ready if one.address]
        text = json.dumps([{"rest": one.rest_url, "grpc": one.grpc_target} for one in own])
        if text != self._listed:
            fresh = self.front_file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.front_file)
            self._listed = text

    def decide(self, replicas: Sequence[PodReplica]) -> None:
        """Find out, as soon as a pod has an address, whether it can be reached from here. Asks the network.

        A refused connection proves that there is a way; once the pod is ready, only an answer does.
        """
        reachable = next((one for one in replicas if one.active and one.address), None)
        if self._decided or reachable is None or reachable.address is None:
            return
        self._direct = _reachable(reachable.address, self._launch.rest_port, refused=not reachable.ready)
        self._decided = reachable.ready or not self._direct
        if not self._direct:
            self._require_another_way(reachable.address)
        self.follow(replicas)

    def _require_another_way(self, address: str) -> None:
        """Raise DeploymentError where the pods' ports may not be forwarded, or load would have to go to them."""
        far = f"the pods' own addresses ({address}) cannot be reached from here"
        if self._settings.reach == "pods" and not self._settings.agents:
            raise DeploymentError(f"{far}: {ELSEWHERE}.")
        if not may_forward(self._cluster, self._settings.namespace):
            raise DeploymentError(
                f"{far}, and your account may not forward their ports (create and get pods/portforward): ask for the "
                f"rights in {ROLE}, or run the study where the pods can be reached."
            )

    def find_front(self, replicas: Sequence[PodReplica], deadline: float) -> None:
        """Find where load goes, waiting for it until `deadline`. Raises DeploymentError where nothing answers there."""
        if self._service is not None:
            return
        if self._settings.reach == "port-forward" and self._settings.balancer == BALANCER:
            endpoint = self._launch.endpoint(0, self._forward_balancer(deadline).address)
            self._events.add("balancer_ready", detail=endpoint.rest_url)
        elif self._settings.reach == "service":
            way = self._way(replicas, deadline)
            endpoint = self._at(way)
            self._events.add("service_ready", detail=f"{way.kind} {endpoint.rest_url}")
        else:
            return
        # what stands in front of several replicas has no metrics of their own
        self._service = replace(endpoint, metrics_url="", management_url=None)
        if self._settings.balancer == BALANCER and not self._settings.agents:
            self._await_balancer(self._service, deadline)

    def _await_balancer(self, front: Endpoint, deadline: float) -> None:
        """Until the balancer has heard of a replica: it answers 503 before. Raises DeploymentError."""
        while (reply := http_get(f"{front.rest_url}/")) is None or reply[0] == HTTPStatus.SERVICE_UNAVAILABLE:
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"the balancer of release {self._release} has found no replica that is ready: see its log with "
                    f"`kubectl logs --namespace {self._settings.namespace} --selector {self._balancer()}`."
                )
            time.sleep(_POLL_S)

    def _balancer(self) -> str:
        """Selector of its pods."""
        return f"app.kubernetes.io/instance={self._release},app.kubernetes.io/component=balancer"

    def _way(self, replicas: Sequence[PodReplica], deadline: float) -> Way:
        ports = (self._launch.rest_port, self._launch.grpc_port)
        if self._settings.agents:  # they call it by its name, which leads nowhere from here
            host = f"{self._release}.{self._settings.namespace}.svc"
            return Way("by name", host, {port: port for port in ports})
        node = next((one.pod["status"].get("hostIP") for one in replicas if one.ready), None)
        began = time.monotonic()
        while True:
            way = way_to(self._read_service(), node)
            if way and all(_reachable(way.host, way.ports[port]) for port in ports):
                return way
            now = time.monotonic()
            if now > deadline or (way and way.kind != "LoadBalancer" and now - began > _SERVICE_S):
                raise DeploymentError(self._no_way(way))
            time.sleep(_POLL_S)

    def _no_way(self, way: Way | None) -> str:
        name = f"the Service {self._release} in namespace {self._settings.namespace}"
        if way is None:
            return (
                f"{name} got no address of a load balancer: give the cluster one, choose another `service.type` under "
                f"`kubernetes.values`, or {ELSEWHERE}."
            )
        place = f"{way.host}:{way.ports[self._launch.rest_port]}"
        return f"{name} does not answer from here at its {way.kind} {place}: {ELSEWHERE}."

    def _read_service(self) -> Object:
        with asking(f"read the service {self._release}"):
            return answer_of(self._cluster.core.read_namespaced_service, self._release, self._settings.namespace)

    def _at(self, way: Way) -> Endpoint:
        host = bracketed(way.host)
        return self._launch.endpoint(0, lambda port: f"{host}:{way.ports.get(port, port)}")

    def _forward_balancer(self, deadline: float) -> Forward:
        while BALANCER not in self._forwards:
            with asking("look for the balancer"):
                pods = answer_of(
                    self._cluster.core.list_namespaced_pod, self._settings.namespace, label_selector=self._balancer()
                )
            running = [name_of(pod) for pod in pods["items"] if pod["status"].get("phase") == "Running"]
            if running:
                self._forwards[BALANCER] = self._forward(running[0], self._launch.ports())
            elif time.monotonic() > deadline:
                raise DeploymentError(
                    f"the balancer of release {self._release} does not run: see why with `kubectl describe pods "
                    f"--namespace {self._settings.namespace} --selector {self._balancer()}`."
                )
            else:
                time.sleep(_POLL_S)
        return self._forwards[BALANCER]

    def close(self) -> None:
        """End every forwarding; nothing is reached any more."""
        with self._lock:
            self._closed = True
            self.endpoints, self._service = [], None
            for forward in self._forwards.values():
                forward.close()
            with contextlib.suppress(OSError):
                self.front_file.unlink()


def bracketed(host: str) -> str:
    """As a URL takes it."""
    return f"[{host}]" if ":" in host else host


def _reachable(host: str, port: int, *, refused: bool = False) -> bool:
    """Whether something accepts connections there, or, where `refused` is fine, at least refuses."""
    try:
        socket.create_connection((host, port), _TRY_S).close()
    except ConnectionRefusedError:
        return refused
    except OSError:
        return False
    return True
