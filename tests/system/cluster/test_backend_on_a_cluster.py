"""What the backend says on a real cluster: every way to the pods, and every fault that can be made there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from models.manifest import ModelDir
from serving.backend import DeploymentOrder
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import DeploymentError
from serving.probe import first_answer
from serving.wire import WIRES
from tests.deploy.chart.tools import helm
from tests.source_tree import ROOT
from tests.system.cluster.space import Space, space

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.system, pytest.mark.timeout(900)]
READY_S = 300
MIB = 1024**2
SMALL = Budget(cpus=(), cpu_quota=0.25, memory_bytes=1024 * MIB)


@pytest.fixture(scope="module")
def place(own: Space, tmp_path_factory: Any) -> Iterator[Space]:
    """A namespace that studies may use, with helm at hand."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "helm").symlink_to(helm())
    with pytest.MonkeyPatch.context() as patch, space(own.api, servestorm="studies") as made:
        patch.setenv("PATH", str(folder), prepend=":")
        yield made


@pytest.fixture
def begin(place: Space, model: ModelDir, tmp_path: Path) -> Iterator[Any]:
    """Starts a release with the settings given; whatever it started is removed afterwards."""
    started = []

    def start(budget: Budget = SMALL, replicas: int = 1, **settings: Any) -> Any:
        backend = KubernetesBackend(KubernetesSettings(namespace=place.name, **settings))
        deployment = backend.start(
            DeploymentOrder(
                ENGINES["savedmodel"],
                model,
                replicas=replicas,
                budget=budget,
                batching=Batching(),
                workdir=tmp_path,
                events=EventLog(),
            )
        )
        started.append(deployment)
        return deployment

    yield start
    for deployment in started:
        deployment._gone = False  # also what was kept
        deployment.stop()


WAYS = [
    ("service", "none"),
    ("service", "haproxy"),
    ("pods", "none"),
    ("port-forward", "none"),
    ("port-forward", "haproxy"),
]


@pytest.mark.parametrize(("reach", "balancer"), WAYS)
def test_a_right_answer_comes_back_on_every_way(begin: Any, model: ModelDir, reach: str, balancer: str) -> None:
    deployment = begin(reach=reach, balancer=balancer, images={"haproxy": "servestorm/haproxy:0.1.0"})
    deployment.wait_ready(READY_S)
    first_answer(deployment.front[0], WIRES["savedmodel"], model, timeout_s=60)
    first_answer(deployment.endpoints[0], WIRES["savedmodel"], model, timeout_s=60)
    (listed,) = json.loads(deployment.front_file.read_text())
    assert (listed["rest"] == deployment.endpoints[0].rest_url) == (reach != "port-forward")
    told = {event.name for event in deployment._events.events}
    assert {"spawned", "scheduled", "initialized", "image_pulled", "started", "ready"} <= told
    assert deployment.alive()


def test_an_image_that_is_nowhere_is_told_before_time_is_up(begin: Any) -> None:
    deployment = begin(images={"savedmodel": "servestorm/nowhere:1"})
    with pytest.raises(DeploymentError, match="the image servestorm/nowhere:1 of savedmodel replica 0 is not on node"):
        deployment.wait_ready(READY_S)


def test_a_pod_that_no_node_has_room_for_is_told_with_the_schedulers_words(begin: Any) -> None:
    deployment = begin(Budget(cpus=(), cpu_quota=500, memory_bytes=1024 * MIB))
    with pytest.raises(
        DeploymentError, match=r"savedmodel replica 0 stays Pending \(.*Insufficient cpu.*\): lower `lim"
    ):
        deployment.wait_ready(5)


def test_a_server_that_takes_more_memory_than_it_may_is_told_with_the_limit(begin: Any) -> None:
    deployment = begin(Budget(cpus=(), cpu_quota=0.5, memory_bytes=100 * MIB))
    with pytest.raises(DeploymentError, match=r"was killed by the kernel for its memory limit of 100Mi: raise `limits"):
        deployment.wait_ready(READY_S)


def test_a_model_image_without_a_model_is_told(begin: Any) -> None:
    deployment = begin(model_image="servestorm/haproxy:0.1.0")
    with pytest.raises(DeploymentError, match=r"got no model, because its init container model-0 ended with exit code"):
        deployment.wait_ready(READY_S)


def test_pods_over_the_namespaces_quota_are_told_with_its_name(begin: Any, place: Space) -> None:
    quota = {"metadata": {"name": "tight"}, "spec": {"hard": {"limits.cpu": "100m"}}}
    place.core.create_namespaced_resource_quota(place.name, quota)
    try:
        deployment = begin()
        with pytest.raises(DeploymentError, match=r"no pod of savedmodel may be made \(.*exceeded quota: tight"):
            deployment.wait_ready(READY_S)
    finally:
        place.core.delete_namespaced_resource_quota("tight", place.name)


def test_a_deleted_pod_and_a_removed_release_end_the_run(begin: Any, place: Space) -> None:
    deployment = begin()
    deployment.wait_ready(READY_S)
    (pod,) = place.pods(instance=deployment.release)
    place.core.delete_namespaced_pod(pod["metadata"]["name"], place.name)
    place.until("the pod's end", lambda: not deployment.alive(), patience_s=30)
    with pytest.raises(DeploymentError, match="was deleted by somebody else"):
        deployment.wait_ready(READY_S)
    client.AppsV1Api(place.api).delete_namespaced_deployment(deployment.release, place.name)
    with pytest.raises(DeploymentError, match=f"the release {deployment.release} was removed from namespace"):
        deployment.wait_ready(READY_S)


def test_a_release_is_kept_where_the_settings_say_so(begin: Any, place: Space) -> None:
    deployment = begin(images={"savedmodel": "servestorm/nowhere:1"}, keep=True)
    told = f"helm uninstall {deployment.release} --namespace {place.name}` removes it"
    with pytest.raises(DeploymentError, match=told), deployment:
        deployment.wait_ready(1)
    assert place.get("Deployment", deployment.release)


def test_an_impatient_interrupt_leaves_nothing(place: Space, model: ModelDir, tmp_path: Path) -> None:
    before = place.inventory()
    script = Path(__file__).with_name("interrupted_study.py")
    command = [sys.executable, script, model.path, place.name, tmp_path]
    root = ROOT
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as study:
        release = study.stdout.readline().strip()  # type: ignore[union-attr]
        assert place.get("Deployment", release)
        os.killpg(study.pid, signal.SIGINT)
        place.until("the removal's beginning", lambda: study.poll() is not None or _removing(place, release))
        os.killpg(study.pid, signal.SIGINT)
        assert study.wait(120) != 0
    assert place.inventory() <= before


def _removing(place: Space, release: str) -> bool:
    return release not in {item.split(" ", 1)[1] for item in place.inventory() if item.startswith("Deployment ")}
