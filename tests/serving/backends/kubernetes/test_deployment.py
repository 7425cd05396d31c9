"""A deployment's life on a faked cluster, and each fault of it as one sentence with the remedy."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import yaml

from serving.backend import AutoscalerOrder, DeploymentOrder
from serving.backends.kubernetes import api_watches, pod_troubles, release_faults, routes
from serving.backends.kubernetes import deployment as module
from serving.backends.kubernetes.cgroup import COMMAND
from serving.backends.kubernetes.deployment import KubernetesDeployment
from serving.backends.kubernetes.execute import Executed, NotExecuted
from serving.backends.kubernetes.forward import Forward
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Batching, Budget, ContainerLaunch, EventLog
from serving.errors import DeploymentError, ServingError
from serving.ports import free_ports
from tests.stand_ins.fake_cluster import (
    NAMESPACE,
    autoscaler,
    connected_to,
    event_about,
    fake_cluster,
    leaving,
    pod_at,
    pulled,
    settle,
    with_condition,
    with_init,
    with_server,
)
from tests.stand_ins.fake_engine import write_model

READY_S = 20
SCALING = AutoscalerOrder(1, 3, 70, 30)
CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}


class PodEngine:
    """Listens nowhere itself; its pods' addresses are of the loopback network, where a test listens for them."""

    name, artifact, image = "fake", "savedmodel", "servestorm-test/fake:1"

    def __init__(self):
        self.rest, self.grpc = free_ports(2)

    def contain(self, model, budget, batching, config):
        return ContainerLaunch(
            [], {}, config, self.rest, self.grpc, self.rest, "/metrics", management_port=9, fatal="FATAL"
        )


class FakeHelm:
    """Makes and removes the Deployment of a release; a pod is there at once, its kubelet is the test."""

    def __init__(self, cluster):
        self.cluster, self.calls, self.says = cluster, [], None

    def install(self, release, namespace, chart, values, *, files=(), labels=None):
        self.calls.append(("install", release, namespace))
        if self.says:
            raise self.says
        self.cluster.releases[release] = values["replicas"]

    def uninstall(self, release, namespace, *, wait=False, timeout_s=60):
        self.calls.append(("uninstall", release, namespace))
        self.cluster.releases.pop(release, None)
        for name in list(self.cluster.objects["pods"]):
            self.cluster.drop("pods", name)


@pytest.fixture
def fake():
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def connected(fake, tmp_path, monkeypatch):
    return connected_to(fake, tmp_path, monkeypatch)


@pytest.fixture
def inside(monkeypatch, tmp_path):
    """What commands in containers say: the model's manifest, and what a server uses."""
    told = SimpleNamespace(manifest=None, cpu_s=1.5, broken=False, asked=[])

    def execute(_cluster, _namespace, pod, container, command, timeout_s=30.0):
        told.asked.append((pod, container))
        if told.broken:
            raise NotExecuted("no command can be run in it: it is gone.")
        if command == COMMAND:
            text = f"7\n==> /sys/fs/cgroup/cpu.stat <==\nusage_usec {int(told.cpu_s * 1e6)}\n"
            text += "==> /sys/fs/cgroup/memory.current <==\n4096\n\n==> end <==\n"
            return Executed(0, text.encode(), "")
        return Executed(0, told.manifest, "") if told.manifest is not None else Executed(1, b"", "no such file")

    monkeypatch.setattr(module, "execute", execute)
    monkeypatch.setattr(release_faults, "execute", execute)
    return told


@pytest.fixture
def made(fake, connected, inside, tmp_path, monkeypatch):
    """Makes deployments on the faked cluster; whatever it made is stopped afterwards."""
    monkeypatch.setattr(release_faults, "_ASK_S", 0.0)
    model = write_model(tmp_path / "toy")
    inside.manifest = hashlib.sha256((model.path / "manifest.json").read_bytes()).hexdigest().encode()
    started = []

    def make(replicas=1, **settings):
        settings = KubernetesSettings(namespace=NAMESPACE, **settings)
        events, engine = EventLog(), PodEngine()
        work = tmp_path / f"work-{len(started)}"
        work.mkdir()
        budget = Budget(cpus=(0,), cpu_quota=0.25, memory_bytes=512 * 2**20)
        fake.service["spec"]["ports"] = [{"port": engine.rest}, {"port": engine.grpc}]
        order = DeploymentOrder(
            engine, model, replicas=replicas, budget=budget, batching=Batching(), workdir=work, events=events
        )
        deployment = KubernetesDeployment(connected, FakeHelm(fake), settings, order)
        started.append(deployment)
        return deployment

    yield make
    for deployment in started:
        deployment.stop()


@pytest.fixture
def listening():
    """Listens at addresses of the loopback network, for pods and for the Service."""
    sockets = []

    def listen(deployment, *hosts):
        for host in hosts:
            for port in (deployment._engine.rest, deployment._engine.grpc):
                sockets.append(socket.create_server((host, port)))

    yield listen
    for one in sockets:
        one.close()


def named(deployment, number):
    return f"{deployment.release}-5d9-{number}"


def play(fake, deployment, number, stage, **more):
    """Shows a pod of the deployment as far as `stage`."""
    pod = pod_at(stage, named(deployment, number), f"127.0.0.{number + 2}", **more)
    fake.put("pods", pod)
    return pod


@pytest.fixture
def ready(fake, made, listening):
    """A deployment whose pods and Service answer."""

    def make(replicas=1, **settings):
        deployment = made(**settings)
        hosts = [f"127.0.0.{number + 2}" for number in range(max(replicas, 3))]
        listening(deployment, "127.0.0.1", *hosts)
        deployment.install(replicas)
        for number in range(replicas):
            pod = play(fake, deployment, number, "started")
            fake.put("events", pulled(pod))
            play(fake, deployment, number, "ready")
        deployment.wait_ready(READY_S)
        settle(lambda: all("image_pulled" in one.recorded_ns for one in deployment._observed.replicas))
        return deployment

    return make


def names(deployment, replica):
    return [event.name for event in deployment._events.events if event.replica == replica]


def test_a_release_becomes_ready_is_reached_and_goes(fake, ready):
    deployment = ready()
    assert deployment.alive()
    assert sorted(names(deployment, 0)) == sorted(
        ["spawned", "scheduled", "initialized", "image_pulled", "started", "ready"]
    )
    assert deployment._events.events[0].name == "installed"
    assert deployment._events.events[-1].name in ("service_ready", "image_pulled")
    (endpoint,), (front,) = deployment.endpoints, deployment.front
    rest = deployment._engine.rest
    assert endpoint.rest_url == f"http://127.0.0.2:{rest}" and endpoint.metrics_url.endswith("/metrics")
    assert endpoint.management_url is None  # it listens inside the pod only
    assert front.rest_url == f"http://127.0.0.1:{rest}" and front.metrics_url == ""
    deployment.stop()
    deployment.stop()
    assert names(deployment, 0)[-1] == "stopped" and names(deployment, 0).count("stopped") == 1
    assert not deployment.alive() and deployment.endpoints == []
    assert [call[0] for call in deployment._helm.calls] == ["install", "uninstall"]


def test_nothing_of_a_start_is_late_for_what_was_watched(ready):
    deployment = ready()
    times = [
        deployment._observed.replicas[0].recorded_ns[name] for name in ("spawned", "scheduled", "started", "ready")
    ]
    assert times == sorted(times) and max(times) <= time.monotonic_ns()


def test_replicas_are_added_and_taken_away_and_only_the_told_ones_may_go(fake, ready):
    deployment = ready()
    deployment.scale(3)
    assert fake.releases[deployment.release] == 3
    for number in (1, 2):
        play(fake, deployment, number, "ready")
    deployment.wait_ready(READY_S)
    assert [endpoint.replica for endpoint in deployment.endpoints] == [0, 1, 2] and deployment.alive()

    def controller():
        settle(lambda: fake.releases[deployment.release] == 1)
        for number in (0, 2):
            fake.put("pods", leaving(pod_at("ready", named(deployment, number))))
            fake.drop("pods", named(deployment, number))

    thread = threading.Thread(target=controller)
    thread.start()
    deployment.scale(1)
    thread.join()
    deployment.wait_ready(READY_S)
    assert deployment.alive() and [endpoint.replica for endpoint in deployment.endpoints] == [1]
    assert names(deployment, 2)[-2:] == ["terminating", "stopped"]
    with pytest.raises(ServingError, match="-1 replicas were asked for"):
        deployment.scale(-1)


def test_none_is_a_number_of_replicas_too(fake, ready):
    deployment = ready()
    thread = threading.Timer(0, lambda: (settle(lambda: 0 in fake.releases.values()), drop_all(fake)))
    thread.start()
    deployment.scale(0)
    assert not deployment.alive() and deployment.endpoints == []
    deployment.scale(1)
    play(fake, deployment, 1, "ready")
    deployment.wait_ready(READY_S)
    assert deployment.alive()


def drop_all(fake):
    for name in list(fake.objects["pods"]):
        fake.drop("pods", name)


def test_use_is_the_containers_and_outlives_them(ready, inside):
    deployment = ready(2)
    use = deployment.use()
    assert (use.cpu_s, use.memory_bytes) == (3.0, 8192) and use.disk_bytes > 0
    inside.cpu_s = 2.0
    deployment.stop()
    assert deployment.use().cpu_s == 4.0 and deployment.use().memory_bytes is None
    assert deployment.cpu_elsewhere_s() == 0.0  # the containers told no kernel of this machine


def test_use_that_cannot_be_asked_is_what_was_seen_last(ready, inside):
    deployment = ready()
    assert deployment.use().cpu_s == 1.5
    inside.broken = True
    assert deployment.use().cpu_s == 1.5 and deployment.use().memory_bytes is None


def test_logs_name_the_replica_and_outlive_it(fake, ready):
    deployment = ready()
    fake.logs[named(deployment, 0), "server", False] = "one\ntwo\nthree"
    assert deployment.logs(2) == "[replica 0] two\n[replica 0] three"
    deployment.stop()
    fake.logs.clear()
    assert deployment.logs(1) == "[replica 0] three"


def test_what_is_kept_of_a_release_tells_its_pods_its_events_and_its_values(ready):
    deployment = ready()
    deployment.stop()
    records = deployment.records()
    assert set(records) == {"pods.json", "cluster-events.txt", "values.yaml"}
    (pod,) = json.loads(records["pods.json"])
    assert pod["pod"] == named(deployment, 0) and pod["gone"] and "managedFields" not in pod["object"]["metadata"]
    assert f" Normal Pulled Pod/{named(deployment, 0)}: Container image" in records["cluster-events.txt"]
    assert yaml.safe_load(records["values.yaml"])["engine"] == "fake"


def test_an_autoscaled_release_is_ready_when_the_autoscaler_can_decide(fake, made, listening):
    deployment = made(autoscaling=SCALING)
    listening(deployment, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    fake.put("autoscalers", autoscaler(deployment.release, 1, active=False, message="no metrics returned"))
    with pytest.raises(DeploymentError, match=r"the autoscaler gets no metrics \(no metrics returned\): install metr"):
        deployment.wait_ready(0.3)
    fake.put("autoscalers", autoscaler(deployment.release, 1))
    deployment.wait_ready(READY_S)
    fake.put("autoscalers", autoscaler(deployment.release, 2))
    play(fake, deployment, 1, "ready")
    settle(lambda: len(deployment.endpoints) == 2)
    fake.put("pods", leaving(pod_at("ready", named(deployment, 0))))
    settle(lambda: [endpoint.replica for endpoint in deployment.endpoints] == [1])
    assert deployment.alive()  # an autoscaler's pods may go
    assert "hpa_scaled" in [event.name for event in deployment._events.events]
    assert "desiredReplicas" in deployment.records()["hpa.json"]
    with pytest.raises(ServingError, match="the autoscaler decides how many"):
        deployment.scale(2)


def test_a_metrics_api_that_is_not_there_is_told_before_time_is_up(fake, made, monkeypatch):
    monkeypatch.setattr(pod_troubles, "PATIENCE_S", 0.0)
    deployment = made(autoscaling=SCALING)
    deployment.install(1)
    absent = "unable to fetch metrics: the server could not find the requested resource (get pods.metrics.k8s.io)"
    fake.put("autoscalers", autoscaler(deployment.release, 1, active=False, message=absent))
    with pytest.raises(DeploymentError, match="install metrics-server"):
        deployment.wait_ready(READY_S)


def test_the_file_of_ready_pods_is_always_whole_and_new(fake, ready):
    deployment = ready(reach="pods")
    assert deployment.front == deployment.endpoints

    def listed():
        return [one["rest"] for one in json.loads(deployment.front_file.read_text())]

    rest, grpc = deployment._engine.rest, deployment._engine.grpc
    assert json.loads(deployment.front_file.read_text()) == [
        {"rest": f"http://127.0.0.2:{rest}", "grpc": f"127.0.0.2:{grpc}"}
    ]
    play(fake, deployment, 1, "started")
    play(fake, deployment, 2, "ready")
    settle(lambda: listed() == [f"http://127.0.0.2:{rest}", f"http://127.0.0.4:{rest}"])
    fake.put("pods", leaving(pod_at("ready", named(deployment, 0))))
    settle(lambda: listed() == [f"http://127.0.0.4:{rest}"])


def test_pods_that_cannot_be_reached_are_told_or_reached_through_the_api(fake, made, listening, monkeypatch):
    monkeypatch.setattr(routes, "_TRY_S", 0.01)
    monkeypatch.setattr(routes, "_reachable", lambda host, port, refused=False: host == "127.0.0.1")
    direct = made(reach="pods")
    direct.install(1)
    play(fake, direct, 0, "ready")
    with pytest.raises(DeploymentError, match=r"own addresses \(127.0.0.2\) cannot be reached from here: set `kubern"):
        direct.wait_ready(READY_S)
    direct.stop()
    service = made()
    service.install(1)
    play(fake, service, 0, "ready")
    service.wait_ready(READY_S)
    (endpoint,), (front,) = service.endpoints, service.front
    assert endpoint.rest_url.startswith("http://127.0.0.1:") and endpoint.management_url
    assert front.rest_url == f"http://127.0.0.1:{service._engine.rest}" != endpoint.rest_url


def test_pods_that_can_be_reached_in_no_way_are_told(fake, made, monkeypatch):
    monkeypatch.setattr(routes, "_reachable", lambda host, port, refused=False: False)
    fake.may = False
    deployment = made()
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    with pytest.raises(DeploymentError, match=r"may not forward their ports \(create and get pods/portforward\): ask"):
        deployment.wait_ready(READY_S)


def test_a_service_that_does_not_answer_from_here_is_told_with_its_address(fake, made, listening, monkeypatch):
    monkeypatch.setattr(routes, "_SERVICE_S", 0.0)
    deployment = made()
    listening(deployment, "127.0.0.2")
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    with pytest.raises(DeploymentError, match=r"does not answer from here at its ClusterIP 127.0.0.1:\d+: set `kube"):
        deployment.wait_ready(READY_S)


def test_a_load_balancer_that_gets_no_address_is_told(fake, made, listening):
    fake.service = {"spec": {"type": "LoadBalancer", "clusterIP": "127.0.0.1", "ports": []}, "status": {}}
    deployment = made()
    listening(deployment, "127.0.0.2")
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    with pytest.raises(DeploymentError, match="got no address of a load balancer"):
        deployment.wait_ready(0.5)


def test_load_from_inside_calls_the_service_by_its_name(fake, made, listening):
    deployment = made(agents=1)
    listening(deployment, "127.0.0.2")  # the Service answers nobody here
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    deployment.wait_ready(READY_S)
    (front,) = deployment.front
    assert front.rest_url == f"http://{deployment.release}.{NAMESPACE}.svc:{deployment._engine.rest}"


def test_through_the_api_everything_has_an_address_of_this_machine(fake, made):
    deployment = made(reach="port-forward")
    deployment.install(2)
    for number in (0, 1):
        play(fake, deployment, number, "ready")
    deployment.wait_ready(READY_S)
    first, second = deployment.endpoints
    assert deployment.front == [first, second] and first.rest_url != second.rest_url
    assert all(one.rest_url.startswith("http://127.0.0.1:") and one.management_url for one in (first, second))


def test_a_balancer_is_not_gone_past(made):
    deployment = made(reach="pods", balancer="haproxy")
    with pytest.raises(ServingError, match=r"kubernetes\.reach pods goes past a balancer"):
        deployment.install(1)
    assert deployment._helm.calls == []


def test_bytes_go_both_ways_through_a_forwarded_port(connected, monkeypatch):
    def portforward(_method, pod, namespace, ports):
        near, far = socket.socketpair()

        def echo():
            with far:
                while block := far.recv(100):
                    far.sendall(f"{pod}/{namespace}/{ports}: ".encode() + block)

        threading.Thread(target=echo, daemon=True).start()
        return SimpleNamespace(socket=lambda _port: near)

    monkeypatch.setattr("kubernetes.stream.portforward", portforward)
    carried = Forward(connected, "k2", "toy-0", [8501])
    host, _, port = carried.address(8501).partition(":")
    with socket.create_connection((host, int(port)), 5) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"toy-0/k2/8501: hello"
    carried.close()


def test_a_port_that_cannot_be_forwarded_hangs_up(connected):
    carried = Forward(connected, "k2", "toy-0", [8501])  # the faked API knows no such thing
    host, _, port = carried.address(8501).partition(":")
    with socket.create_connection((host, int(port)), 5) as client:
        client.settimeout(10)
        assert client.recv(100) == b""
    carried.close()


def test_a_forwarded_port_goes_on_when_file_descriptors_were_short(connected, monkeypatch):
    class Scarce(socket.socket):
        failures = 2

        def accept(self):
            if Scarce.failures:
                Scarce.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    def create_server(address):
        listener = Scarce()
        listener.bind(address)
        listener.listen()
        return listener

    monkeypatch.setattr(socket, "create_server", create_server)
    carried = Forward(connected, "k2", "toy-0", [8501])
    host, _, port = carried.address(8501).partition(":")
    with socket.create_connection((host, int(port)), 5) as client:
        client.settimeout(10)
        assert client.recv(100) == b""  # the faked API forwards nothing, so the client is hung up on
    assert Scarce.failures == 0
    carried.close()


def refused_creation(release):
    controller = {"metadata": {"name": f"{release}-5d9", "uid": "rs"}}
    return event_about(controller, "FailedCreate", "exceeded quota: small, requested: cpu=1", kind="ReplicaSet")


PENDING = ("PodScheduled", "False")
FAULTS = {
    "crash": (
        lambda pod: with_server(pod, state=CRASH),
        r"(?s)fake replica 0 ended with exit code 3\..*ends with:\nlast",
    ),
    "restart": (
        lambda pod: with_server(pod, restartCount=1, lastState=CRASH),
        r"(?s)ended with exit code 3\..*ends with:\nbefore",
    ),
    "memory": (
        lambda pod: with_server(pod, state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        "memory limit of 512Mi: raise",
    ),
    "image": (
        lambda pod: with_server(pod, state={"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}),
        "the image fake:1 of fake replica 0 .* cannot be pulled",
    ),
    "model": (
        lambda pod: with_init(pod, state={"terminated": {"exitCode": 1}}),
        r"(?s)init container model-0 ended with exit code 1.*ends with:\nno /models",
    ),
    "evicted": (
        lambda pod: with_condition(leaving(pod), "DisruptionTarget", "True", message="low on memory"),
        "taken off node node1",
    ),
}


@pytest.mark.parametrize(("change", "told"), FAULTS.values(), ids=FAULTS)
def test_a_pod_that_will_not_become_ready_is_told_before_time_is_up(fake, made, monkeypatch, change, told):
    monkeypatch.setattr(release_faults.Faults, "_out_of_patience", lambda _self, _about, found: bool(found))
    deployment = made()
    deployment.install(1)
    name = named(deployment, 0)
    fake.logs.update({(name, "server", False): "last words", (name, "server", True): "before it"})
    fake.logs[name, "model-0", False] = "no /models"
    fake.put("pods", change(pod_at("started", name)))
    with pytest.raises(DeploymentError, match=told):
        deployment.wait_ready(READY_S)


def test_a_pull_that_failed_once_is_given_another_chance(fake, made, listening):
    deployment = made()
    listening(deployment, "127.0.0.1", "127.0.0.2")
    deployment.install(1)
    failing = {"waiting": {"reason": "ErrImagePull", "message": "timeout"}}
    fake.put("pods", with_server(pod_at("scheduled", named(deployment, 0)), state=failing))
    threading.Timer(0.3, lambda: play(fake, deployment, 0, "ready")).start()
    deployment.wait_ready(READY_S)


def test_a_pod_that_stays_pending_is_told_when_time_is_up(fake, made):
    deployment = made()
    deployment.install(1)
    pod = pod_at("spawned", named(deployment, 0))
    fake.put("pods", with_condition(pod, *PENDING, message="0/1 nodes are available: 1 Insufficient cpu."))
    with pytest.raises(DeploymentError, match=r"stays Pending \(0/1 nodes are available: 1 Insufficient cpu\): lower"):
        deployment.wait_ready(0.3)


def test_pods_that_may_not_be_made_are_told_with_the_controllers_reason(fake, made):
    deployment = made()
    deployment.install(1)
    fake.put("events", refused_creation(deployment.release))
    settle(deployment._observed.refusal)
    with pytest.raises(DeploymentError, match=r"no pod of fake may be made \(exceeded quota: small"):
        deployment.wait_ready(0.3)


def test_a_server_that_says_that_it_never_will_be_ready_is_told_with_its_words(fake, made):
    deployment = made()
    deployment.install(1)
    play(fake, deployment, 0, "started")
    fake.logs[named(deployment, 0), "server", False] = "starting\nFATAL: no graph\nwaiting"
    with pytest.raises(DeploymentError, match=r"(?s)cannot load the model \(FATAL: no graph\).*ends with:\nstarting"):
        deployment.wait_ready(READY_S)


def test_an_image_with_another_model_is_told_with_its_name(fake, made, inside):
    deployment = made()
    deployment.install(1)
    inside.manifest = b"0" * 64
    play(fake, deployment, 0, "started")
    with pytest.raises(DeploymentError, match=r"its model image servestorm/models-toy:1 was made from another export"):
        deployment.wait_ready(READY_S)


def test_a_server_that_is_slow_is_told_with_its_log_when_time_is_up(fake, made):
    deployment = made()
    deployment.install(1)
    play(fake, deployment, 0, "started")
    fake.logs[named(deployment, 0), "server", False] = "loading"
    with pytest.raises(DeploymentError, match=r"(?s)was not ready within 0\.5 s: raise the timeout.*ends with:\nloadi"):
        deployment.wait_ready(0.5)


def test_pods_that_nobody_makes_are_told(made):
    deployment = made()
    deployment.install(1)
    with pytest.raises(DeploymentError, match=r"0 of 1 pods of fake were made within 0\.2 s: look at `kubectl descr"):
        deployment.wait_ready(0.2)


def test_a_pod_that_somebody_deletes_ends_the_run_even_if_another_one_takes_its_place(fake, ready):
    deployment = ready()
    play(fake, deployment, 1, "ready")
    fake.drop("pods", named(deployment, 0))
    settle(lambda: not deployment.alive())
    with pytest.raises(
        DeploymentError, match=rf"replica 0 \(pod {named(deployment, 0)}\) was deleted by somebody else"
    ):
        deployment.wait_ready(READY_S)


def test_a_release_that_somebody_removes_is_told(fake, ready):
    deployment = ready()
    fake.releases.clear()
    drop_all(fake)
    settle(lambda: not deployment.alive())
    with pytest.raises(DeploymentError, match=rf"the release {deployment.release} was removed from namespace"):
        deployment.wait_ready(READY_S)


def test_a_node_lost_in_mid_run_ends_it_and_is_named(fake, ready):
    deployment = ready()
    fake.put("events", event_about(fake.objects["pods"][named(deployment, 0)], "NodeNotReady", "Node is not ready"))
    settle(lambda: not deployment.alive())
    with pytest.raises(DeploymentError, match="fake replica 0 is lost, because its node node1 does not answer"):
        deployment.wait_ready(READY_S)


def test_a_server_that_ends_in_mid_run_is_told(fake, ready, inside):
    deployment = ready()
    assert deployment.use().cpu_s == 1.5
    fake.logs[named(deployment, 0), "server", True] = "out of luck"
    fake.put("pods", with_server(pod_at("ready", named(deployment, 0)), restartCount=1, lastState=CRASH))
    settle(lambda: not deployment.alive())
    with pytest.raises(DeploymentError, match=r"(?s)replica 0 ended with exit code 3\..*out of luck"):
        deployment.wait_ready(READY_S)
    inside.cpu_s = 0.5  # the server in its place has begun to count anew
    assert deployment.use().cpu_s == 1.5


def test_a_refused_release_is_removed(fake, made):
    deployment = made()
    deployment._helm.says = DeploymentError("helm cannot install the release: something is wrong.")
    with pytest.raises(DeploymentError, match="something is wrong"), deployment:
        deployment.install(1)
    assert deployment._helm.calls[-1][0] == "uninstall"


def test_a_failed_release_is_left_where_the_settings_say_keep_and_the_error_says_how_to_remove_it(fake, made):
    deployment = made(keep=True)
    told = r"was kept: `helm uninstall servestorm-\w+ --namespace fake` removes it"
    with pytest.raises(DeploymentError, match=told), deployment:
        deployment.install(1)
        deployment.wait_ready(0.1)
    assert deployment.release in fake.releases
    assert [call[0] for call in deployment._helm.calls] == ["install"]


def test_an_interrupted_run_is_removed_even_where_the_settings_say_keep(fake, made):
    deployment = made(keep=True)
    with pytest.raises(KeyboardInterrupt), deployment:
        deployment.install(1)
        raise KeyboardInterrupt
    assert fake.releases == {}


def test_a_second_interrupt_does_not_keep_the_release_from_being_removed(fake, ready):
    deployment = ready()
    uninstall, interrupts = deployment._helm.uninstall, [KeyboardInterrupt, KeyboardInterrupt]

    def interrupted(*arguments):
        if interrupts:
            raise interrupts.pop()
        uninstall(*arguments)

    deployment._helm.uninstall = interrupted
    with pytest.raises(KeyboardInterrupt):
        deployment.stop()
    assert fake.releases == {} and fake.objects["pods"] == {} and not deployment.alive()


def test_a_release_that_could_not_be_removed_is_tried_again(fake, ready):
    deployment = ready()
    uninstall, faults_left = deployment._helm.uninstall, [DeploymentError("helm cannot remove it.")]

    def failing(*arguments):
        if faults_left:
            raise faults_left.pop()
        uninstall(*arguments)

    deployment._helm.uninstall = failing
    with pytest.raises(DeploymentError, match="cannot remove"):
        deployment.stop()
    deployment.stop()
    assert fake.releases == {}


def test_pods_that_do_not_end_are_named_with_their_node(fake, ready, monkeypatch):
    deployment = ready()
    monkeypatch.setattr(module, "_GOING_S", 0.0)
    deployment._helm.uninstall = lambda *_: fake.releases.clear()
    with pytest.raises(DeploymentError, match=rf"do not end \({named(deployment, 0)} on node node1\): where a node is"):
        deployment.stop()
    drop_all(fake)


def test_an_api_that_stops_answering_is_told_while_waiting(fake, made, monkeypatch):
    deployment = made()
    deployment.install(1)
    monkeypatch.setattr(api_watches, "SILENT_S", 0.0)
    fake.refused.update({"pods": 503, "events": 503})
    fake.cut()
    with pytest.raises(DeploymentError, match=r"watch (pods|events)"):
        deployment.wait_ready(READY_S)
    fake.refused.clear()


@pytest.mark.parametrize("keep", [False, True])
def test_forwarding_ends_with_the_deployment_even_where_the_pods_stay(fake, made, keep):
    deployment = made(reach="port-forward", keep=keep)
    deployment.install(1)
    play(fake, deployment, 0, "ready")
    deployment.wait_ready(READY_S)
    host, _, port = deployment.endpoints[0].grpc_target.partition(":")
    if keep:
        deployment.keep(DeploymentError("something failed."))
    else:
        deployment.stop()

    def closed():
        try:
            socket.create_connection((host, int(port)), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    settle(closed)


def test_a_log_that_is_read_in_the_middle_of_a_traceback_is_read_again(fake, made, monkeypatch):
    deployment = made()
    deployment.install(1)
    play(fake, deployment, 0, "started")
    place, asked = (named(deployment, 0), "server", False), []
    fake.logs[place] = "starting\nFATAL: the worker died"
    real = release_faults.reason

    def reason_then_more(lines, pattern):
        asked.append(lines)
        worker = ("W-9000 MODEL_LOG - Traceback (most recent call last):", "W-9000 MODEL_LOG - ImportError: no shears")
        fake.logs[place] = "\n".join(["starting", "FATAL: the worker died", *worker])
        return real(lines, pattern)

    monkeypatch.setattr(release_faults, "reason", reason_then_more)
    with pytest.raises(DeploymentError, match=r"cannot load the model \(ImportError: no shears\)"):
        deployment.wait_ready(READY_S)
    assert len(asked) == 2
