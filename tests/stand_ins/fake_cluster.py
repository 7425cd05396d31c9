"""A Kubernetes API over HTTP that holds pods, events, autoscalers and one release, with watches as the real one's.

A test plays the kubelet and the controllers: it puts objects, and every watch is told. Streams can be cut, and versions
forgotten, at any moment.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from serving.backends.kubernetes.clock import ClusterClock
from serving.backends.kubernetes.cluster import Cluster
from tests.stand_ins.small_api import kubeconfig

NAMESPACE = "fake"
_LISTED = {
    f"/api/v1/namespaces/{NAMESPACE}/pods": "pods",
    f"/api/v1/namespaces/{NAMESPACE}/events": "events",
    f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers": "autoscalers",
}
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/"
_SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/"
VERSION = dict.fromkeys(
    ("major", "minor", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), ""
) | {"gitVersion": "v1.32.13"}


class FakeCluster:
    """What the API holds; `put` and `drop` are told to every watch."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"pods": {}, "events": {}, "autoscalers": {}}
        self.releases: dict[str, int] = {}
        """Deployments and how many replicas each is to have."""
        self.service: dict[str, Any] = {"spec": {"type": "ClusterIP", "clusterIP": "127.0.0.1", "ports": []}}
        self.logs: dict[tuple[str, str, bool], str] = {}
        """By pod, container, and whether it is the previous one's."""
        self.refused: dict[str, int] = {}
        """HTTP status by kind of object, instead of an answer."""
        self.may = True
        """Whether the account may do what it asks about."""
        self.streams = 0
        """Watches that were begun, ever."""
        self.since: dict[str, int] = {}
        """By kind, the version from which its last watch went on."""
        self._changes: list[tuple[int, str, str, dict[str, Any]]] = []
        self._oldest = self._cuts = 0
        self._version = 100
        self._told = threading.Condition()

    def put(self, kind: str, item: Mapping[str, Any]) -> None:
        """Add the object, or change it."""
        with self._told:
            known = item["metadata"]["name"] in self.objects[kind]
            self._change(kind, "MODIFIED" if known else "ADDED", item)

    def drop(self, kind: str, name: str) -> None:
        """Remove the object."""
        with self._told:
            self._change(kind, "DELETED", self.objects[kind][name])

    def _change(self, kind: str, what: str, item: Mapping[str, Any]) -> None:
        self._version += 1
        stored = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        if what == "DELETED":
            del self.objects[kind][stored["metadata"]["name"]]
        else:
            self.objects[kind][stored["metadata"]["name"]] = stored
        self._changes.append((self._version, kind, what, stored))
        self._told.notify_all()

    def cut(self) -> None:
        """Break every stream off."""
        with self._told:
            self._cuts += 1
            self._told.notify_all()

    def forget(self) -> None:
        """Whoever wants to go on from before now is told that it is gone."""
        with self._told:
            self._version += 1
            self._oldest = self._version

    def wait_streams(self, count: int) -> None:
        """Until so many watches were begun."""
        with self._told:
            assert self._told.wait_for(lambda: self.streams >= count, 20)

    def listed(self, kind: str) -> dict[str, Any]:
        """As a list request is answered."""
        with self._told:
            items = list(self.objects[kind].values())
            return {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def stream(self, kind: str, since: int) -> Iterator[dict[str, Any]]:
        """Changes of a kind, as they come, until the stream is cut."""
        with self._told:
            self.streams += 1
            self.since[kind] = since
            self._told.notify_all()
            if since < self._oldest:
                yield {
                    "type": "ERROR",
                    "object": {"kind": "Status", "code": 410, "message": "too old resource version"},
                }
                return
            begun, place = self._cuts, 0
            while self._cuts == begun:
                fresh = self._changes[place:]
                place = len(self._changes)
                for version, of, what, item in fresh:
                    if of == kind and version > since:
                        yield {"type": what, "object": item}
                if place == len(self._changes):
                    self._told.wait(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        cluster = self.server.cluster
        if kind := _LISTED.get(parts.path):
            if kind in cluster.refused:
                self.refuse(cluster.refused[kind], f'{kind} is forbidden: User "u" cannot watch resource "{kind}"')
            elif asked.get("watch"):
                self.follow(kind, int(asked["resourceVersion"]))
            else:
                self.reply(cluster.listed(kind))
        elif parts.path.rstrip("/") == "/version":
            self.reply(VERSION)
        elif parts.path.startswith(_DEPLOYMENT) and (name := parts.path.rpartition("/")[2]) in cluster.releases:
            self.reply({"metadata": {"name": name}, "spec": {"selector": {}, "template": {}}})
        elif parts.path.startswith(_SERVICE):
            self.reply(cluster.service)
        elif parts.path.endswith("/log"):
            place = parts.path.split("/")[-2], asked["container"], asked.get("previous") in ("True", "true")
            lines = cluster.logs.get(place, "").splitlines()[-int(asked["tailLines"]) :]
            self.send("\n".join(lines).encode(), "text/plain")
        else:
            self.refuse(404, f"{parts.path} not found")

    def do_POST(self) -> None:
        self.reply({**self.body(), "status": {"allowed": self.server.cluster.may}}, 201)

    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_PATCH(self) -> None:
        body = self.body()
        self.server.cluster.releases[self.path.split("/")[-2]] = body["spec"]["replicas"]
        self.reply({"metadata": {"name": "x"}, "spec": body["spec"]})

    def follow(self, kind: str, since: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for change in self.server.cluster.stream(kind, since):
                line = json.dumps(change).encode() + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        except OSError:
            return  # whoever watched has gone
        self.close_connection = True

    def refuse(self, status: int, message: str) -> None:
        self.reply({"kind": "Status", "message": message, "code": status}, status)

    def reply(self, content: object, status: int = 200) -> None:
        self.send(json.dumps(content).encode(), "application/json", status)

    def send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def fake_cluster() -> Iterator[FakeCluster]:
    """The server, on a port of its own."""
    cluster = FakeCluster()
    with _Server(cluster) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield cluster
        finally:
            cluster.cut()
            server.shutdown()
            serving.join()


def connected_to(fake: FakeCluster, folder: Path, monkeypatch: Any) -> Cluster:
    """The backend's cluster, speaking to the fake one, whose clock is this machine's."""
    place = kubeconfig(folder / "kubeconfig", fake.url, "fake", current="fake")
    monkeypatch.setenv("KUBECONFIG", str(place))
    cluster = Cluster.connect()
    cluster.__dict__["clock"] = ClusterClock(time.time_ns() - time.monotonic_ns(), 0)
    return cluster


_uids = itertools.count(1)
STAGES = ("spawned", "scheduled", "initialized", "started", "ready")
_CONDITIONS = {"scheduled": "PodScheduled", "initialized": "Initialized", "ready": "Ready"}


def stamp(seconds: float = 0.0) -> str:
    """Now, or so many seconds from now, as the API writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_at(stage: str, name: str, address: str = "127.0.0.2", **times: str) -> dict[str, Any]:
    """A pod of servers that has come as far as `stage`; `times` are the API's own of the stages, now without one."""
    passed = STAGES[: STAGES.index(stage) + 1]
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": times.get(one, stamp())}
        for one, kind in _CONDITIONS.items()
        if one in passed
    ]
    server: dict[str, Any] = {"name": "server", "ready": "ready" in passed, "restartCount": 0, "state": {}}
    if "started" in passed:
        server["state"] = {"running": {"startedAt": times.get("started", stamp())}}
    init: dict[str, Any] = {"name": "model-0", "state": {}}
    if "initialized" in passed:
        init["state"] = {"terminated": {"exitCode": 0, "finishedAt": times.get("initialized", stamp())}}
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "creationTimestamp": times.get("spawned", stamp()),
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {
            "nodeName": "node1" if "scheduled" in passed else None,
            "initContainers": [{"name": "model-0", "image": "servestorm/models-toy:1"}],
            "containers": [
                {"name": "server", "image": "fake:1", "resources": {"limits": {"cpu": "250m", "memory": "512Mi"}}}
            ],
        },
        "status": {
            "phase": "Running" if "started" in passed else "Pending",
            "podIP": address if "initialized" in passed else None,
            "hostIP": "127.0.0.1",
            "conditions": conditions,
            "initContainerStatuses": [init],
            "containerStatuses": [server],
        },
    }


def leaving(pod: Mapping[str, Any], grace_s: int = 30) -> dict[str, Any]:
    """The pod, told to end now."""
    marks = {"deletionTimestamp": stamp(grace_s), "deletionGracePeriodSeconds": grace_s}
    return {**pod, "metadata": {**pod["metadata"], **marks}}


def with_server(pod: Mapping[str, Any], **states: Any) -> dict[str, Any]:
    """The pod, with its server's `state`, `lastState` or `restartCount` as given, and no longer ready."""
    return _with_container(pod, "containerStatuses", states)


def with_init(pod: Mapping[str, Any], **states: Any) -> dict[str, Any]:
    """The pod, with the state of its init container as given."""
    return _with_container(pod, "initContainerStatuses", states)


def _with_container(pod: Mapping[str, Any], which: str, states: Mapping[str, Any]) -> dict[str, Any]:
    status = pod["status"]
    (container,) = status[which]
    kept = [one for one in status["conditions"] if one["type"] != "Ready"]
    return {**pod, "status": {**status, "conditions": kept, which: [{**container, **states}]}}


def with_condition(item: Mapping[str, Any], kind: str, status: str, **more: str) -> dict[str, Any]:
    """The object, with one condition as given."""
    others = [one for one in item["status"].get("conditions") or () if one["type"] != kind]
    conditions = [*others, {"type": kind, "status": status, **more}]
    return {**item, "status": {**item["status"], "conditions": conditions}}


def event_about(item: Mapping[str, Any], reason: str, message: str, kind: str = "Pod", **more: Any) -> dict[str, Any]:
    """Something that Kubernetes tells about an object."""
    number = next(_uids)
    warnings = ("Failed", "FailedScheduling", "FailedCreate", "NodeNotReady", "FailedMount")
    return {
        "metadata": {"name": f"event-{number}", "namespace": NAMESPACE, "uid": f"event-uid-{number}"},
        "involvedObject": {"kind": kind, "name": item["metadata"]["name"], "uid": item["metadata"].get("uid"), **more},
        "type": "Warning" if reason in warnings else "Normal",
        "reason": reason,
        "message": message,
        "lastTimestamp": stamp(),
        "count": 1,
    }


def pulled(pod: Mapping[str, Any], message: str = 'Container image "fake:1" already present on machine') -> Any:
    """The kubelet's word that the server's image is there."""
    return event_about(pod, "Pulled", message, fieldPath="spec.containers{server}")


def autoscaler(
    release: str, desired: int, *, active: bool = True, message: str = "", scaled: str = ""
) -> dict[str, Any]:
    """A HorizontalPodAutoscaler that wants so many replicas."""
    status: dict[str, Any] = {"desiredReplicas": desired, "currentReplicas": 1}
    if scaled:
        status["lastScaleTime"] = scaled
    item = {"metadata": {"name": release, "namespace": NAMESPACE, "uid": f"hpa-of-{release}"}, "status": status}
    return with_condition(item, "ScalingActive", str(active), message=message)


def settle(done: Any, timeout_s: float = 20.0) -> None:
    """Until `done`; what is waited for is an event, and the time only ends a test that has failed."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)
