"""The docker backend on a real engine, around a stand-in server: starts, limits, watches and always tears down."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from serving.backend import DeploymentOrder
from serving.backends.docker.backend import DockerBackend
from serving.backends.docker.deployment import DockerDeployment
from serving.backends.docker.leftovers import OWNER, of_deployment
from serving.backends.docker.project import ProjectBackend
from serving.backends.docker.settings import DockerSettings
from serving.containers import image
from serving.deployment import Batching, Budget, EventLog
from serving.errors import DeploymentError, EngineUnavailable, ServingError
from serving.orphans import owner_tag
from serving.probe import first_answer, http_get
from serving.wire import WIRES
from tests.requirements_here import need_docker, need_image
from tests.source_tree import STAND_INS
from tests.stand_ins.fake_engine import FAKE_SERVER, FakeEngine, write_model

pytestmark = pytest.mark.docker
TIMEOUT_S = 60
NEVER_S = 3600  # whoever waits this long fails by its test's own limit
MIB = 2**20


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Docker's client, on an engine that holds an image of the stand-in server."""
    need_docker()
    need_image(image("savedmodel"))
    client = DockerBackend().client
    folder = tmp_path_factory.mktemp("image")
    (folder / "fake_server.py").write_bytes(FAKE_SERVER.read_bytes())
    (folder / "Dockerfile").write_text(
        f"FROM {image('savedmodel')}\n"
        "COPY fake_server.py /fake_server.py\n"
        'ENTRYPOINT ["python3", "-u", "-S", "/fake_server.py"]\n'
    )
    client.images.build(path=str(folder), tag=FakeEngine.image, rm=True)
    yield client
    client.images.remove(FakeEngine.image, force=True)


@pytest.fixture
def begin(client, tmp_path):
    """Starts a deployment of the stand-in; whatever it started is removed afterwards."""
    started = []

    def start(*modes, replicas=1, ports=None, budget=None, **settings):
        events = EventLog()
        deployment = DockerBackend(DockerSettings(**settings)).start(
            DeploymentOrder(
                FakeEngine(*modes),
                write_model(tmp_path / "toy") if not (tmp_path / "toy").exists() else model_in(tmp_path),
                replicas=replicas,
                budget=budget or Budget(cpus=(0,)),
                batching=Batching(),
                workdir=tmp_path / "work",
                events=events,
                ports=ports,
            )
        )
        started.append(deployment)
        return deployment, events

    yield start
    for deployment in started:
        deployment.stop()


def model_in(tmp_path):
    from models.manifest import ModelDir

    return ModelDir(tmp_path / "toy")


def container_of(deployment, replica: int = 0):
    return deployment._replicas[replica]._container


def names(events, replica: int | None = 0) -> list[str]:
    return [event.name for event in events.events if event.replica == replica]


def left_of(client, deployment) -> list:
    return of_deployment(client, deployment._id)


def wait_until(true) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_a_container_passes_through_its_phases_in_order_and_leaves_nothing(client, begin):
    deployment, events = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    assert deployment.alive() and left_of(client, deployment)
    deployment.stop()
    assert names(events, None) == ["image_present"]
    assert names(events) == ["created", "spawned", "started", "port_bound", "ready", "stopped"]
    times = [event.t_ns for event in events.events]
    assert times == sorted(times)
    assert left_of(client, deployment) == [] and deployment.endpoints == [] and not deployment.alive()


def test_stopping_twice_is_harmless(begin):
    deployment, events = begin("well")
    deployment.stop()
    deployment.stop()
    assert names(events).count("stopped") == 1


def test_the_container_has_its_limits_and_no_rights(begin):
    deployment, _ = begin("well", budget=Budget(cpus=(0,), memory_bytes=256 * MIB, cpu_quota=0.5))
    deployment.wait_ready(TIMEOUT_S)
    made = container_of(deployment).attrs
    host = made["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 256 * MIB, 256 * MIB)
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges"] and made["Config"]["User"] == "10001:10001"
    assert not host["PortBindings"]
    assert "cpus [0]" in deployment.logs()


def test_use_is_told_while_it_runs_and_what_was_spent_afterwards(begin):
    deployment, _ = begin("busy", budget=Budget(cpus=(0,), memory_bytes=256 * MIB, cpu_quota=0.2))
    deployment.wait_ready(TIMEOUT_S)
    use = deployment.use()
    assert use.cpu_s > 0.1 and use.throttled_s > 0  # ten million additions take more than a fifth of a core
    assert 0 < use.rss_bytes <= use.rss_peak_bytes
    assert 0 < use.memory_bytes <= use.memory_peak_bytes <= 256 * MIB
    assert use.threads >= 1 and use.pids >= use.threads and use.swap_bytes == 0
    assert use.disk_bytes >= len(b"archive") and use.disk_read_bytes >= 0
    before = use.network_received_bytes
    http_get(f"{deployment.endpoints[0].rest_url}/ready")
    assert deployment.use().network_received_bytes > before
    assert deployment.cpu_elsewhere_s() >= use.cpu_s
    assert deployment._replicas[0]._group.cpu_s() is not None  # the engine is this machine's
    assert use.cpu_s <= deployment.cpu_s() <= deployment.use().cpu_s
    deployment.stop()
    after = deployment.use()
    assert deployment.cpu_s() == after.cpu_s
    assert after.cpu_s >= use.cpu_s and after.rss_peak_bytes >= use.rss_peak_bytes
    assert after.rss_bytes is None and after.pids is None and after.throttled_s is None


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_a_container_that_exits_at_once_is_told_with_its_code_and_last_lines(begin):
    deployment, _ = begin("crash")
    with pytest.raises(DeploymentError, match=r"(?s)fake replica 0 ended with exit code 7\..*the weights are missing"):
        deployment.wait_ready(NEVER_S)
    assert not deployment.alive()


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_a_server_that_says_it_cannot_load_the_model_ends_the_wait_though_it_lives(begin):
    deployment, _ = begin("broken")
    with pytest.raises(DeploymentError, match=r"cannot load the model \(FATAL: the weights are missing\)"):
        deployment.wait_ready(NEVER_S)
    assert deployment.alive()


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_a_server_that_is_killed_for_its_memory_is_told_with_the_limit(begin):
    deployment, _ = begin("hungry", budget=Budget(cpus=(0,), memory_bytes=64 * MIB))
    with pytest.raises(DeploymentError, match=r"killed by the kernel for its memory limit of 64 MiB: raise `limits"):
        deployment.wait_ready(NEVER_S)


def test_a_server_that_never_listens_is_told_after_the_timeout_with_what_may_be_the_matter(begin):
    deployment, _ = begin("hang")
    wait_until(lambda: "thinking" in deployment.logs())
    with pytest.raises(DeploymentError, match=r"(?s)not ready within 0\.3 s.*set docker\.reach to published.*thinking"):
        deployment.wait_ready(0.3)


def test_a_server_that_ignores_sigterm_is_killed(client, begin, monkeypatch):
    monkeypatch.setattr("serving.backends.docker.deployment.STOP_GRACE_S", 0.2)
    deployment, _ = begin("stubborn")
    deployment.wait_ready(TIMEOUT_S)
    deployment.stop()
    assert left_of(client, deployment) == []


def test_a_killed_container_is_no_longer_alive_nor_ready(begin):
    deployment, _ = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    container_of(deployment).kill()
    wait_until(lambda: not deployment.alive())
    with pytest.raises(DeploymentError, match="ended with exit code 137"):
        deployment.wait_ready(TIMEOUT_S)
    assert "cpus [0]" in deployment.logs()


def test_the_first_right_answer_comes_over_the_containers_own_address(begin, tmp_path):
    deployment, _ = begin("late")
    deployment.wait_ready(TIMEOUT_S)
    (endpoint,) = deployment.endpoints
    assert not endpoint.rest_url.startswith("http://127.")
    first_answer(endpoint, WIRES["torchserve"], model_in(tmp_path), timeout_s=TIMEOUT_S, alive=deployment.alive)


def test_published_ports_are_reached_on_the_loopback_interface(begin):
    deployment, _ = begin("well", reach="published")
    with pytest.raises(DeploymentError, match="not ready"):  # the stand-in has no gRPC, which must be there too
        deployment.wait_ready(3)
    url = deployment.endpoints[0].rest_url
    assert url.startswith("http://127.0.0.1:") and http_get(f"{url}/ready", 30) == (200, b"ready")


def test_a_taken_port_is_named_with_its_holder_and_leaves_nothing(client, begin):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        holder = psutil.Process().name()
        with pytest.raises(DeploymentError, match=rf"port {port} .* {holder} \(pid {os.getpid()}\)"):
            begin("well", ports=[port])
    # of this process: other tests have networks of their own at the same time
    assert not client.networks.list(filters={"label": f"{OWNER}={owner_tag()}"})


def test_scaling_up_and_down_starts_and_stops_single_containers(begin):
    deployment, events = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    first = container_of(deployment).id
    deployment.scale(2)
    deployment.wait_ready(TIMEOUT_S)
    assert deployment.front == deployment.endpoints and len(deployment.endpoints) == 2
    deployment.scale(1)
    assert [endpoint.replica for endpoint in deployment.endpoints] == [0]
    assert container_of(deployment).id == first
    assert names(events, 1) == ["created", "spawned", "started", "port_bound", "ready", "stopped"]


def test_several_replicas_are_reached_through_the_balancer_and_one_alone_directly(client, begin):
    need_image(image("haproxy"))
    deployment, events = begin("well", replicas=2, balancer="haproxy", balancer_cpus=(max(os.sched_getaffinity(0)),))
    deployment.wait_ready(TIMEOUT_S)
    (front,) = deployment.front
    assert front not in deployment.endpoints and "balancer_ready" in names(events, None)
    answers = {http_get(f"{front.rest_url}/who", 30)[1].decode() for _ in range(20)}
    assert answers == {container_of(deployment, index).id[:12] for index in (0, 1)}
    spent = sum(replica.use().cpu_s for replica in deployment._replicas)
    assert deployment.cpu_elsewhere_s() > spent  # the balancer's own
    deployment.scale(1)
    assert deployment.front == deployment.endpoints
    deployment.stop()
    assert left_of(client, deployment) == []


def test_ctrl_c_while_stopping_still_removes_everything_and_is_passed_on(client, begin, monkeypatch):
    deployment, _ = begin("well", "well", replicas=2)
    deployment.wait_ready(TIMEOUT_S)
    pressed = [KeyboardInterrupt, KeyboardInterrupt]
    real = DockerDeployment._remove

    def remove(self, replica):
        if pressed:
            raise pressed.pop()
        real(self, replica)

    monkeypatch.setattr(DockerDeployment, "_remove", remove)
    with pytest.raises(KeyboardInterrupt):
        deployment.stop()
    assert left_of(client, deployment) == []


def test_ctrl_c_while_starting_leaves_nothing(client, begin, monkeypatch):
    made = []

    def start(replica):
        replica._container.start()
        made.append(replica._container)
        raise KeyboardInterrupt  # the container runs, and nobody knows where it listens yet

    monkeypatch.setattr("serving.backends.docker.replica.ContainerReplica.start", start)
    with pytest.raises(KeyboardInterrupt):
        begin("well")
    assert made[0].id not in {container.id for container in client.containers.list(all=True)}


def test_a_baked_image_serves_the_model_without_a_mount_and_goes_with_the_deployment(client, begin):
    deployment, events = begin("well", bake=True)
    deployment.wait_ready(TIMEOUT_S)
    assert names(events, None) == ["image_build", "image_built", "image_present"]
    container = container_of(deployment)
    assert [mount["Destination"] for mount in container.attrs["Mounts"]] == ["/config"]
    code, output = container.exec_run(["cat", "/models/toy/toy.mar"])
    assert (code, output) == (0, b"archive")
    deployment.stop()
    assert left_of(client, deployment) == []


def test_an_image_that_is_not_here_is_told_before_anything_is_made(client, begin):
    with pytest.raises(EngineUnavailable, match=r"the image servestorm/fake:0 is not here: make it with"):
        begin("well", images={"fake": "servestorm/fake:0"})


@pytest.mark.alone
def test_what_a_study_killed_with_sigkill_left_is_removed_by_clean_and_a_living_ones_is_not(client, begin, tmp_path):
    living, _ = begin("well")
    script = STAND_INS / "docker_owner.py"
    (tmp_path / "killed").mkdir()
    with subprocess.Popen([sys.executable, script, tmp_path / "killed"], stdout=subprocess.PIPE, text=True) as study:
        deployment = study.stdout.readline().strip()
        study.send_signal(signal.SIGKILL)
    kinds = {leftover.kind for leftover in of_deployment(client, deployment)}
    assert kinds == {"container", "network", "image"}
    told = _clean("--dry-run")
    assert len(re.findall(rf"would remove (?:container|network|image) \S*{deployment}", told)) == 3
    assert of_deployment(client, deployment)
    assert len(re.findall(rf"removed (?:container|network|image) \S*{deployment}", _clean())) == 3
    assert of_deployment(client, deployment) == []
    assert deployment not in _clean()
    living.wait_ready(TIMEOUT_S)
    assert living.alive()


def test_doctor_tells_of_the_engine_itself_and_of_the_images_that_it_holds(client):
    from servestorm.cli.verbs.doctor import examine

    found = {finding.name: finding for finding in examine()}
    assert found["Docker Engine"].present and client.version()["Version"] in found["Docker Engine"].text
    assert image("savedmodel") not in found["Docker images"].text  # which this test could not run without


def _clean(*options: str) -> str:
    command = [sys.executable, "-m", "servestorm.cli.main", "clean", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_containers_of_a_running_project_are_asked_measured_and_left_running(client, tmp_path):
    project, model = f"test-{uuid.uuid4().hex[:8]}", write_model(tmp_path / "toy")
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": "torchserve"}
    engine = FakeEngine("well")
    engine.name = "torchserve"
    other_name = f"servestorm-test/another:{project}"
    client.images.get(engine.image).tag(other_name)
    container = client.containers.run(engine.image, ["8000", "well", "0.0.0.0"], labels=labels, detach=True)
    try:
        backend = ProjectBackend(project, DockerSettings())
        assert f"image {engine.image} (sha256:" in backend.check(engine)
        arguments = {"budget": Budget(cpus=(0,)), "batching": Batching(), "events": EventLog()}
        arguments["workdir"] = tmp_path / "replica-0"
        with pytest.raises(ServingError, match="runs 1 of torchserve where the plan says 2"):
            backend.start(DeploymentOrder(engine, model, replicas=2, **arguments))
        with backend.start(DeploymentOrder(engine, model, replicas=1, **arguments)) as deployment:
            deployment.wait_ready(TIMEOUT_S)
            use = deployment.use()
            assert use.cpu_s > 0 and use.rss_bytes > 0 and deployment.alive()
            assert use.cpu_s <= deployment.cpu_s() <= deployment.use().cpu_s
            assert deployment.front == deployment.endpoints and "cpus [" in deployment.logs()
        container.reload()
        assert container.status == "running"
        container.kill()
        assert not deployment.alive()
        with pytest.raises(
            DeploymentError, match=f"no container of service torchserve runs in compose project {project}"
        ):
            backend.check(engine)
    finally:
        container.remove(force=True, v=True)
        client.images.remove(other_name)
