"""A namespace of a test's own on a real cluster, which admits restricted pods only, and ways to look into it."""

from __future__ import annotations

import base64
import io
import json
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kubernetes import client, dynamic
from kubernetes.stream import stream

from tests.deploy.chart.rendering import Object

PATIENCE_S = 300.0
_PIECE_BYTES = 512 * 1024
_COME_AND_GO = {"Event", "PodMetrics", "Lease"}
"""Kinds that the cluster makes by itself, and forgets by itself."""


class Space:
    """One namespace. Objects are plain dictionaries, as kubectl would print them."""

    def __init__(self, api: Any, name: str) -> None:
        self.api = api
        self.name = name
        self.core = client.CoreV1Api(api)

    def pods(self, **labels: str) -> list[Object]:
        """The pods with these labels of the chart's (component, instance), oldest first; those that end included."""
        selector = ",".join(f"app.kubernetes.io/{key}={value}" for key, value in labels.items())
        found = self._plain(self.core.list_namespaced_pod(self.name, label_selector=selector))["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def get(self, kind: str, name: str) -> Object:
        """An object by its name. Raises ApiException where it is not there."""
        read = {
            "Deployment": client.AppsV1Api(self.api).read_namespaced_deployment,
            "HorizontalPodAutoscaler": client.AutoscalingV2Api(self.api).read_namespaced_horizontal_pod_autoscaler,
            "Job": client.BatchV1Api(self.api).read_namespaced_job,
            "Pod": self.core.read_namespaced_pod,
        }[kind]
        return self._plain(read(name, self.name))

    def until(self, what: str, look: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Return once `look` says so; AssertionError with what the namespace holds after `patience_s`."""
        deadline_s = time.monotonic() + patience_s
        while not look():
            assert time.monotonic() < deadline_s, f"waited in vain for {what}:\n{self.story()}"
            time.sleep(0.5)

    def start(self, pod: Object) -> Object:
        """Create a pod and wait until it is ready; AssertionError where it ends before."""
        name = pod["metadata"]["name"]
        self.core.create_namespaced_pod(self.name, pod)
        self.until(f"pod {name}", lambda: is_ready(self.get("Pod", name)))
        return self.get("Pod", name)

    def run(self, pod: str, *command: str, container: str | None = None, limit_s: float = PATIENCE_S) -> str:
        """Standard output of a command in a pod. AssertionError with its words where it fails, or takes too long."""
        # of its own: while a stream is opened, its client can be used for nothing else
        core = client.CoreV1Api(client.ApiClient(self.api.configuration))
        where = {"container": container} if container else {}
        running = stream(
            core.connect_get_namespaced_pod_exec,
            pod,
            self.name,
            command=list(command),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
            **where,
        )
        running.run_forever(timeout=limit_s)
        assert not running.is_open(), f"{command[:2]} in {pod} did not end in {limit_s:g} s"
        told, complaint, outcome = (running.read_channel(channel) or "" for channel in (1, 2, 3))
        assert outcome, f"the stream of {command[:2]} in {pod} broke: {complaint[-2000:]}"
        ended = json.loads(outcome)
        assert ended["status"] == "Success", (
            f"{command[:2]} in {pod}: {ended['message']}: {complaint[-2000:]}{told[-1000:]}"
        )
        return told

    def fetch(self, pod: str, folder: str, target: Path) -> None:
        """Copy a folder out of a pod that has sh, tar, dd and base64.

        In pieces: the client is slow with much, and loses the end of it where the pod's side closes first.
        """
        size = int(self.run(pod, "sh", "-c", f"tar -C {folder} -cf /tmp/fetched . && wc -c < /tmp/fetched"))
        piece = f"dd if=/tmp/fetched bs={_PIECE_BYTES} count=1 skip=$0 2>/dev/null | base64"
        packed = b"".join(
            base64.b64decode(self.run(pod, "sh", "-c", piece, str(index))) for index in range(-(-size // _PIECE_BYTES))
        )
        assert len(packed) == size
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(target, filter="data")

    def inventory(self) -> set[str]:
        """Every object of the namespace, of every kind that the cluster knows."""
        everything = dynamic.DynamicClient(self.api)
        found = set()
        for resource in everything.resources.search(namespaced=True):
            if isinstance(resource, dynamic.resource.ResourceList) or "list" not in resource.verbs:
                continue
            if resource.kind in _COME_AND_GO:
                continue
            held = resource.get(namespace=self.name).to_dict()
            found |= {f"{resource.kind} {item['metadata']['name']}" for item in held["items"]}
        return found

    def story(self) -> str:
        """What pods and events say, for a test that failed."""
        lines = []
        for pod in self.pods():
            state = [each.get("state") for each in pod["status"].get("containerStatuses", [])]
            lines.append(f"{pod['metadata']['name']}: {pod['status'].get('phase')} {json.dumps(state)}")
            with suppress(client.ApiException):
                lines.append(self.core.read_namespaced_pod_log(pod["metadata"]["name"], self.name, tail_lines=10))
        events = self._plain(self.core.list_namespaced_event(self.name))["items"]
        events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        for event in events[-30:]:
            about = event["involvedObject"]
            lines.append(f"{about['kind']} {about.get('name')}: {event.get('reason')}: {event.get('message')}")
        return "\n".join(lines)

    def _plain(self, thing: Any) -> Object:
        plain: Object = self.api.sanitize_for_serialization(thing)
        return plain


def is_ready(pod: Object) -> bool:
    """Whether a pod takes requests. AssertionError where it never will."""
    status = pod["status"]
    assert status.get("phase") not in ("Failed", "Succeeded"), status
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))


def ending(pod: Object) -> bool:
    """Whether a pod has been told to end."""
    return "deletionTimestamp" in pod["metadata"]


@contextmanager
def space(api: Any, **marks: str) -> Iterator[Space]:
    """A namespace with these labels for as long as the block runs."""
    name = f"servestorm-test-{secrets.token_hex(3)}"
    core = client.CoreV1Api(api)
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **marks}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    own = Space(api, name)
    try:
        own.until("its service account", lambda: bool(core.list_namespaced_service_account(name).items))
        yield own
    finally:
        core.delete_namespace(name)
        own.until("the namespace's end", lambda: not _exists(core, name))


def _exists(core: Any, namespace: str) -> bool:
    return any(each.metadata.name == namespace for each in core.list_namespace().items)


def config_map(name: str, files: dict[str, bytes]) -> Object:
    """Files as a ConfigMap."""
    return {
        "metadata": {"name": name},
        "binaryData": {file: base64.b64encode(content).decode() for file, content in files.items()},
    }


def pod(name: str, image: str, command: list[str], **spec: Any) -> Object:
    """A small restricted pod of one container; /tmp can be written, and /scripts holds the ConfigMap of that name."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "scripts", "mountPath": "/scripts"}]
    common = {"imagePullPolicy": "IfNotPresent", "securityContext": security, "resources": resources}
    for each in spec.get("initContainers", []):
        each.update({**common, "volumeMounts": mounts})
    return {
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": name, "image": image, "command": command, "volumeMounts": mounts, **common}],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "scripts", "configMap": {"name": "scripts", "optional": True}},
            ],
            **spec,
        },
    }
