"""One suite for every backend that starts servers, with every engine that can run on it."""

from __future__ import annotations

import os
import signal
import socket
import time

import numpy as np
import pytest

from models.manifest import ModelDir
from serving.backend import DeploymentOrder
from serving.backends import BACKENDS
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.execute import execute
from serving.backends.kubernetes.namespace import give_back
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.containers import image as image_of
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import DeploymentError, EngineUnavailable, ServingError
from serving.probe import first_answer, http_send
from serving.server_settings import differences
from serving.wire import WIRES, is_right, payload_spec
from tests.requirements_here import need_docker, need_image, need_kubernetes
from tests.serving.conformance.broken_artifact import with_broken_artifact
from tests.system.cluster.space import pod, space

READY_S = 180
TIMEOUT_S = 60
MIB = 2**20
CLUSTER = KubernetesBackend(KubernetesSettings(namespace=f"servestorm-test-{os.getpid()}"))
RUNS_ON = {**BACKENDS, "kubernetes": CLUSTER}
MARKS = {"docker": [pytest.mark.docker], "kubernetes": [pytest.mark.kubernetes, pytest.mark.helm]}
BESIDES = ("created", "scheduled", "initialized", "image_pulled", "started", "terminating")
"""Events of a replica that a process has not, and a container or a pod has."""
ON = [
    pytest.param(
        (backend, engine),
        id=f"{backend}-{engine}",
        marks=[pytest.mark.system, *MARKS.get(backend, ())],
    )
    for backend in BACKENDS
    for engine in ENGINES
]


@pytest.fixture(scope="module", params=ON)
def on(request):
    """(backend, engine), each pair that can run here."""
    backend, engine = request.param
    if backend == "docker" and engine != "tfserving":  # whose image no test pulls
        need_image(ENGINES[engine].image)
    if backend == "docker":
        need_docker()
        images = BACKENDS["docker"].client.images.list(ENGINES[engine].image)
        if not images:
            pytest.skip(f"the image {ENGINES[engine].image} is not here")
    if backend == "kubernetes":
        if engine == "tfserving":
            pytest.skip(f"no cluster of ours holds the image {ENGINES[engine].image}")
        need_kubernetes(ENGINES[engine].image, image_of("models-cnn"))
        request.addfinalizer(lambda: give_back(CLUSTER.cluster, CLUSTER.settings.namespace))
    try:
        RUNS_ON[backend].check(ENGINES[engine])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    return backend, engine


@pytest.fixture(scope="module")
def model(on, request, tmp_path_factory):
    """The model that is served: on a cluster that of its image, which may be another export than ours."""
    if on[0] != "kubernetes":
        return request.getfixturevalue("served_model")
    folder = tmp_path_factory.mktemp("model") / "cnn"
    with space(need_kubernetes()) as own:
        own.start(pod("model", image_of("models-cnn"), ["sleep", "3600"]))
        own.fetch("model", "/models/cnn", folder)
    return ModelDir(folder)


def begin(on, model, workdir, events=None, ports=None):
    backend, engine = on
    limits = {"cpu_quota": 0.5, "memory_bytes": 1024 * MIB} if backend == "kubernetes" else {}
    return RUNS_ON[backend].start(
        DeploymentOrder(
            ENGINES[engine],
            model,
            replicas=1,
            budget=Budget(cpus=tuple(sorted(os.sched_getaffinity(0))), **limits),
            batching=Batching(),
            workdir=workdir,
            events=events or EventLog(),
            ports=ports,
        )
    )


@pytest.fixture(scope="module")
def deployed(on, model, tmp_path_factory):
    """One replica, ready, and what happened to it. The tests of this module are its life, in their order."""
    events = EventLog()
    with begin(on, model, tmp_path_factory.mktemp("backend"), events) as deployment:
        deployment.wait_ready(READY_S)
        yield deployment, events


def names(events, replica: int) -> list[str]:
    """What happened to a replica, without what not every backend tells."""
    told = [event.name for event in events.events if event.replica == replica]
    return [name for name in told if name not in (*BESIDES, "port_bound")]


def in_order(events) -> bool:
    """Whether each replica's events follow one another; what a cluster dates itself is told when it is heard."""
    chains = {event.replica: [] for event in events.events}
    for event in events.events:
        chains[event.replica].append(event)
    firm = ("spawned", "port_bound", "scheduled", "started", "ready", "terminating", "stopped")
    return all(
        [event.t_ns for event in chain if event.name in firm]
        == sorted(event.t_ns for event in chain if event.name in firm)
        for chain in chains.values()
    )


def ask(deployment, on, model) -> None:
    """Every golden image to every replica; each answer must be right."""
    wire, spec = WIRES[on[1]], payload_spec(model.manifest)
    for endpoint in deployment.endpoints:
        for golden, image in zip(model.manifest.golden, model.golden_images(), strict=True):
            request = wire.rest_predict(model.name, [image], "image", spec)
            status, body = http_send(endpoint.rest_url, request, TIMEOUT_S)
            assert status == 200, body
            assert is_right(wire.rest_answer(body), np.array([golden.probabilities]), 1e-4)


def test_a_replica_becomes_ready_in_order_and_gives_right_answers(on, deployed, model):
    deployment, events = deployed
    assert deployment.alive() and len(deployment.front) == 1
    assert on[0] == "kubernetes" or deployment.front == deployment.endpoints
    assert names(events, 0) == ["spawned", "ready"] and in_order(events)
    bound = [event.name for event in events.events].count("port_bound")
    assert bound == (0 if on[0] == "kubernetes" else 1)
    answered_ns = first_answer(deployment.endpoints[0], WIRES[on[1]], model, timeout_s=TIMEOUT_S)
    assert answered_ns > events.events[-1].t_ns
    ask(deployment, on, model)


def test_a_replica_reports_the_settings_that_it_was_ordered_with(on, deployed, model):
    deployment, engine = deployed[0], ENGINES[on[1]]
    settings = engine.settings(deployment.server(deployment.endpoints[0]), model)
    assert differences(settings, engine.ordered(Budget(cpus=(0,)), Batching())) == []
    assert settings.max_batch_size.value == 1
    assert (settings.workers.value if on[1] == "torchserve" else settings.threads.value) == 1


def test_use_grows_with_the_answers_and_knows_memory_and_disk(on, deployed, model):
    deployment, _ = deployed
    before = deployment.use()
    ask(deployment, on, model)
    after = deployment.use()
    assert after.cpu_s > before.cpu_s > 0
    assert 0 < after.rss_bytes <= after.rss_peak_bytes
    assert after.threads > 1 and after.swap_bytes is not None
    assert after.disk_bytes >= model.manifest.savedmodel.size_bytes // 2
    assert after.disk_read_bytes >= 0 and after.disk_written_bytes >= 0
    elsewhere_s = deployment.cpu_elsewhere_s()
    if on[0] == "kubernetes":  # whose nodes may be this machine, or others
        assert elsewhere_s == 0 or elsewhere_s >= after.cpu_s
    else:
        assert elsewhere_s == 0 if on[0] == "process" else elsewhere_s >= after.cpu_s


def test_logs_tell_the_replica_and_no_more_lines_than_wanted(deployed):
    deployment, _ = deployed
    lines = deployment.logs(3).splitlines()
    assert 1 <= len(lines) <= 3 and all(line.startswith("[replica 0] ") for line in lines)


def test_replicas_are_added_and_taken_away_one_by_one(on, deployed, model):
    deployment, events = deployed
    deployment.scale(2)
    deployment.wait_ready(READY_S)
    first, second = deployment.endpoints
    assert (first.replica, second.replica) == (0, 1)
    for field in ("rest_url", "grpc_target", "metrics_url"):
        assert getattr(first, field) != getattr(second, field)
    ask(deployment, on, model)
    deployment.scale(1)
    # Kubernetes chooses which one goes; the others take the last one
    assert deployment.endpoints in ([[first], [second]] if on[0] == "kubernetes" else [[first]])
    assert deployment.alive()
    gone = 1 - deployment.endpoints[0].replica
    assert names(events, gone) == ["spawned", "ready", "stopped"]
    ask(deployment, on, model)


def test_a_taken_port_is_named_before_anything_starts(on, model, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        events = EventLog()
        told = f"port {port} on 127.0.0.1 is in use by"
        if on[0] == "kubernetes":
            told = "ports were given, which pods have no use for"
        with pytest.raises(ServingError, match=told):
            begin(on, model, tmp_path, events, ports=[port])
    assert "spawned" not in names(events, 0)


def test_an_artifact_that_cannot_be_loaded_is_told_with_the_last_log_lines(on, model, load_failure, tmp_path):
    if on[0] == "process":
        with pytest.raises(DeploymentError, match=f"{on[1]} replica 0 cannot load the model") as told:
            raise load_failure(on[1])
        assert "ends with:" in str(told.value)
        return
    broken = with_broken_artifact(model, tmp_path / "model", ENGINES[on[1]].artifact)
    with begin(on, broken, tmp_path / "work") as deployment:
        if on[0] == "kubernetes":  # whose image holds the model as it was
            with pytest.raises(DeploymentError, match=f"{on[1]} replica 0 does not hold the model in .*from another"):
                deployment.wait_ready(READY_S)
            return
        with pytest.raises(DeploymentError, match=f"{on[1]} replica 0 cannot load the model") as told:
            deployment.wait_ready(READY_S)
        assert "ends with:" in str(told.value)


def test_a_killed_server_is_told_with_its_last_log_lines_and_stopping_twice_is_harmless(on, deployed):
    deployment, events = deployed
    index = deployment.endpoints[0].replica
    assert deployment.use().cpu_s > 0
    _kill(on[0], deployment)
    deadline = time.monotonic() + TIMEOUT_S
    while deployment.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not deployment.alive()
    killed = "exit code [0-9]+" if on[0] == "kubernetes" else "signal 9|exit code 137"
    with pytest.raises(DeploymentError, match=f"(?s){on[1]} replica {index} ended with ({killed}).*ends with:"):
        deployment.wait_ready(READY_S)
    spent_s = deployment.use().cpu_s
    deployment.stop()
    deployment.stop()
    assert names(events, index).count("stopped") == 1
    assert deployment.endpoints == [] and not deployment.alive()
    assert deployment.use().cpu_s >= spent_s > 0 and deployment.use().rss_bytes is None


def _kill(backend, deployment):
    """End the only server. A pod's first process cannot be killed from inside it: it is told to end, unasked by us."""
    if backend == "kubernetes":
        (replica,) = deployment._observed.active()
        execute(CLUSTER.cluster, deployment.namespace, replica.name, "server", ["sh", "-c", "kill -TERM 1"])
    elif backend == "docker":
        deployment._replicas[0]._container.kill()
    else:
        os.kill(deployment._replicas[0]._process.pid, signal.SIGKILL)
