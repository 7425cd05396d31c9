"""What is read of a pod, without a cluster: its moments, its troubles, what its server uses, the way to it."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime

import pytest

from serving.backends.container_use import ContainerUse
from serving.backends.kubernetes.cgroup import look_of
from serving.backends.kubernetes.model_check import holds
from serving.backends.kubernetes.pod_troubles import PATIENCE_S, not_created, trouble, unscaled
from serving.backends.kubernetes.pods import has_failed, moments, pull_detail, short
from serving.backends.kubernetes.service import Way, way_to
from tests.stand_ins.fake_cluster import autoscaler, leaving, pod_at, with_condition, with_init, with_server
from tests.stand_ins.fake_engine import write_model

WHO = "fake replica 0"
RUNNING = pod_at("ready", "toy-0")
STARTED = pod_at("started", "toy-0")
PULLING = pod_at("scheduled", "toy-0")
OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}


def waiting(reason, message=""):
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def test_a_pods_moments_come_in_order_with_the_apis_own_times():
    times = {
        "spawned": "2026-01-02T10:00:00Z",
        "scheduled": "2026-01-02T10:00:01Z",
        "initialized": "2026-01-02T10:00:03Z",
        "started": "2026-01-02T10:00:04Z",
        "ready": "2026-01-02T10:00:09Z",
    }
    found = moments(pod_at("ready", "toy-0", **times))
    assert [moment.name for moment in found] == ["spawned", "scheduled", "initialized", "started", "ready"]
    assert [moment.stamp.second for moment in found] == [0, 1, 3, 4, 9]
    assert [moment.name for moment in moments(pod_at("scheduled", "toy-0"))] == ["spawned", "scheduled"]


def test_the_initial_containers_end_is_when_the_last_one_ended_not_when_the_kubelet_wrote_so():
    pod = with_condition(STARTED, "Initialized", "True", lastTransitionTime="2026-01-02T10:00:09Z")
    pod = with_init(pod, state={"terminated": {"exitCode": 0, "finishedAt": "2026-01-02T10:00:05Z"}})
    (found,) = (moment for moment in moments(pod) if moment.name == "initialized")
    assert found.stamp == datetime(2026, 1, 2, 10, 0, 5, tzinfo=UTC)


def test_a_pod_was_told_to_end_when_its_grace_began():
    marks = {"deletionTimestamp": "2026-01-02T10:00:40Z", "deletionGracePeriodSeconds": 30}
    pod = {**RUNNING, "metadata": {**RUNNING["metadata"], **marks}}
    *_, last = moments(pod)
    assert (last.name, last.stamp.second) == ("terminating", 10)
    assert "ready" not in [moment.name for moment in moments(pod)]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('Container image "x:1" already present on machine', "already present"),
        (
            'Successfully pulled image "x:1" in 2.345s (2.345s including waiting). Image size: 1 bytes.',
            "pulled in 2.345s",
        ),
        ('Successfully pulled image "x:1" in 812ms (1m3.2s including waiting)', "pulled in 812ms"),
        ('Successfully pulled image "x:1" in 1m3.2s (1m3.2s including waiting)', "pulled in 1m3.2s"),
    ],
)
def test_what_a_pull_took_is_read_from_the_kubelets_words(message, told):
    assert pull_detail(message) == told


def test_a_server_that_ends_by_itself_has_failed_and_one_that_was_told_to_has_not():
    assert not has_failed(RUNNING)
    assert has_failed(with_server(RUNNING, state=CRASH))
    assert has_failed(with_server(RUNNING, restartCount=1, lastState=CRASH))
    assert not has_failed(leaving(with_server(RUNNING, state={"terminated": {"exitCode": 143}})))
    evicted = with_condition(leaving(RUNNING), "DisruptionTarget", "True", reason="EvictionByEvictionAPI")
    assert has_failed(evicted)


@pytest.mark.parametrize(
    ("pod", "told", "patience_s"),
    [
        (with_server(STARTED, state=OOM), "killed by the kernel for its memory limit of 512Mi: raise `limits", 0),
        (
            with_server(STARTED, lastState=OOM, **waiting("CrashLoopBackOff")),
            "its memory limit of 512Mi",
            0,
        ),
        (with_server(STARTED, state=CRASH), f"{WHO} ended with exit code 3.", 0),
        (with_server(STARTED, lastState=CRASH, **waiting("CrashLoopBackOff")), "ended with exit code 3.", 0),
        (
            with_server(PULLING, **waiting("ErrImagePull", "failed to pull image: no such host")),
            "the image fake:1 of fake replica 0 is not on node node1 and cannot be pulled (failed to pull image: no "
            "such host): load it",
            PATIENCE_S,
        ),
        (with_server(PULLING, **waiting("ErrImageNeverPull")), "the image fake:1 of", 0),
        (
            with_init(PULLING, **waiting("ImagePullBackOff", "Back-off")),
            "the image servestorm/models-toy:1 of",
            PATIENCE_S,
        ),
        (
            with_init(PULLING, state={"terminated": {"exitCode": 1}}),
            "got no model, because its init container model-0 ended with exit code 1: make its image "
            "servestorm/models-toy:1 with `servestorm image`",
            0,
        ),
        (
            with_server(PULLING, **waiting("CreateContainerConfigError", 'configmap "x" not found')),
            'cannot be started (CreateContainerConfigError: configmap "x" not found): look at it with',
            PATIENCE_S,
        ),
        (
            with_condition(
                pod_at("spawned", "toy-0"),
                "PodScheduled",
                "False",
                message="0/1 nodes are available: 1 Insufficient cpu.",
            ),
            "stays Pending (0/1 nodes are available: 1 Insufficient cpu): lower `limits` or the number of replicas",
            math.inf,
        ),
        (
            with_condition(
                pod_at("spawned", "toy-0"), "PodScheduled", "False", message="1 node(s) had untolerated taint {gpu: }"
            ),
            "set nodeSelector or tolerations in a file under `kubernetes.values`",
            math.inf,
        ),
        (
            {**RUNNING, "status": {**RUNNING["status"], "reason": "NodeLost"}},
            "is lost, because its node node1 does not answer any more",
            0,
        ),
        (
            with_condition(leaving(RUNNING), "DisruptionTarget", "True", message="node low on memory"),
            "was taken off node node1 (node low on memory)",
            0,
        ),
    ],
)
def test_each_trouble_of_a_pod_is_one_sentence_with_the_remedy(pod, told, patience_s):
    found = trouble(pod, WHO)
    assert told in found.sentence and found.sentence.endswith(".") and "\n" not in found.sentence
    assert found.patience_s == patience_s


def test_a_pod_without_trouble_has_none_and_a_warning_is_told_of_one_that_has_not_started():
    assert trouble(RUNNING, WHO) is None and trouble(RUNNING, WHO, "Readiness probe failed") is None
    found = trouble(PULLING, WHO, 'MountVolume.SetUp failed for volume "config"')
    assert "has not started (MountVolume.SetUp failed" in found.sentence and found.patience_s == math.inf


def test_which_containers_log_belongs_to_a_trouble_is_told():
    first = trouble(with_server(STARTED, state=CRASH), WHO)
    assert (first.container, first.previous) == ("server", False)
    later = trouble(with_server(STARTED, restartCount=1, lastState=CRASH), WHO)
    assert (later.container, later.previous) == ("server", True)
    assert trouble(with_init(PULLING, state={"terminated": {"exitCode": 1}}), WHO).container == "model-0"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('pods "x" is forbidden: exceeded quota: small', "raise the namespace's quota"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "weakens the pods' security"),
        ('admission webhook "policy" denied the request', "choose another one under `kubernetes.namespace`"),
    ],
)
def test_why_no_pod_may_be_made_is_told(message, told):
    found = not_created(message, "fake")
    assert message in found.sentence and told in found.sentence


def test_an_autoscaler_without_metrics_is_told_at_once_only_where_nothing_can_bring_them():
    assert unscaled(autoscaler("r", 1)) is None
    early = unscaled(autoscaler("r", 1, active=False, message="no metrics returned from resource metrics API"))
    assert early.patience_s == math.inf
    never = unscaled(
        autoscaler("r", 1, active=False, message="the server could not find the requested resource (get pods.metrics)")
    )
    assert never.patience_s == PATIENCE_S and "install metrics-server" in never.sentence


def test_of_a_long_message_the_end_is_told():
    assert short("a" * 400 + ": no space left\non device.").endswith(": no space left on device")
    assert len(short("a" * 4000)) < 310


def service(kind, **status):
    ports = [{"port": 8501, "nodePort": 30001}, {"port": 8500, "nodePort": 30000}]
    return {"spec": {"type": kind, "clusterIP": "10.0.0.9", "ports": ports}, "status": status}


@pytest.mark.parametrize(
    ("told", "way"),
    [
        (service("ClusterIP"), Way("ClusterIP", "10.0.0.9", {8501: 8501, 8500: 8500})),
        (service("NodePort"), Way("NodePort", "192.0.2.1", {8501: 30001, 8500: 30000})),
        (
            service("LoadBalancer", loadBalancer={"ingress": [{"hostname": "lb.example"}]}),
            Way("LoadBalancer", "lb.example", {8501: 8501, 8500: 8500}),
        ),
        (service("LoadBalancer", loadBalancer={}), None),
    ],
)
def test_a_service_is_tried_at_its_load_balancer_else_at_a_node_else_at_its_own_address(told, way):
    assert way_to(told, "192.0.2.1") == way


def printed(files, states, shell="7"):
    """As the command in a container prints them."""
    parts = [f"==> {name} <==\n{content}" for name, content in files.items()]
    parts += [f"==> /proc/{pid}/status <==\nName:\tx\nPid:\t{pid}\n{text}" for pid, text in states.items()]
    return f"{shell}\n" + "\n".join(parts) + "\n\n==> end <==\n"


NETWORK = """Inter-|   Receive                                              |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier
    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0
  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0
"""
STATES = {
    8: "PPid:\t7\nVmHWM:\t  500 kB\nVmRSS:\t  500 kB\nThreads:\t1\n",
    1: "VmHWM:\t    30 kB\nVmRSS:\t    20 kB\nThreads:\t4\n",
    5: "VmHWM:\t    10 kB\nVmRSS:\t    10 kB\nThreads:\t1\n",
    7: "VmHWM:\t  9000 kB\nVmRSS:\t  9000 kB\nThreads:\t1\n",
}
GROUP = "/sys/fs/cgroup"


def test_use_is_read_from_control_groups_of_version_2(tmp_path):
    boot = tmp_path / "boot_id"
    boot.write_text("this-boot\n")
    files = {
        f"{GROUP}/cpu.stat": "usage_usec 2500000\nuser_usec 1\nthrottled_usec 1500000\n",
        f"{GROUP}/memory.current": "4096\n",
        f"{GROUP}/memory.peak": "8192\n",
        f"{GROUP}/memory.stat": "anon 5\nfile 6\n",
        f"{GROUP}/memory.swap.current": "0\n",
        f"{GROUP}/io.stat": "8:0 rbytes=10 wbytes=1 rios=3\n8:16 rbytes=20 wbytes=2\n",
        f"{GROUP}/pids.current": "6\n",
        "/proc/net/dev": NETWORK,
        "/proc/sys/kernel/random/boot_id": "this-boot\n",
    }
    look = look_of(printed(files, STATES), boot)
    assert look.here
    assert look.use == ContainerUse(
        cpu_s=2.5,
        throttled_s=1.5,
        rss_bytes=30 * 1024,  # without the command's own
        rss_peak_bytes=40 * 1024,
        threads=5,
        swap_bytes=0,
        memory_bytes=4096,
        memory_peak_bytes=8192,
        disk_read_bytes=30,
        disk_written_bytes=3,
        network_received_bytes=100,
        network_sent_bytes=200,
        pids=6,
    )


def test_use_is_read_from_control_groups_of_version_1(tmp_path):
    (tmp_path / "boot_id").write_text("another\n")
    files = {
        f"{GROUP}/cpuacct/cpuacct.usage": "2500000000\n",
        f"{GROUP}/cpu/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 1500000000\n",
        f"{GROUP}/memory/memory.usage_in_bytes": "4096\n",
        f"{GROUP}/memory/memory.max_usage_in_bytes": "8192\n",
        f"{GROUP}/memory/memory.stat": "cache 1\nswap 3\ntotal_swap 7\n",
        f"{GROUP}/pids/pids.current": "6\n",
        f"{GROUP}/blkio/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 4\n8:0 Total 14\nTotal 14\n",
        "/proc/sys/kernel/random/boot_id": "this-boot\n",
    }
    look = look_of(printed(files, {}), tmp_path / "boot_id")
    assert not look.here
    assert (look.use.cpu_s, look.use.throttled_s, look.use.swap_bytes) == (2.5, 1.5, 7)
    assert (look.use.memory_bytes, look.use.memory_peak_bytes, look.use.pids) == (4096, 8192, 6)
    assert (look.use.disk_read_bytes, look.use.disk_written_bytes) == (10, 4)


def test_what_a_container_does_not_tell_is_unknown_and_not_nothing(tmp_path):
    look = look_of(printed({}, {}), tmp_path / "nowhere")
    assert look.use == ContainerUse() and not look.here


def test_a_look_that_broke_off_tells_nothing():
    files = {f"{GROUP}/cpu.stat": "usage_usec 2500000\n"}
    assert look_of(printed(files, {})).use.cpu_s == 2.5
    for end in (3, 20, 40):
        assert look_of(printed(files, {})[:-end]) is None


def test_a_container_holds_the_model_when_its_manifest_is_the_plans(tmp_path):
    model = write_model(tmp_path / "toy")
    asked = []

    def run(code, told):
        return lambda command: (asked.append(command), (code, told))[1]

    own = hashlib.sha256((model.path / "manifest.json").read_bytes()).hexdigest().encode()
    assert holds(run(0, own + b"  /models/toy/manifest.json\n"), "savedmodel", model)
    assert asked[-1] == ["sha256sum", "/models/toy/manifest.json"]
    assert not holds(run(0, own[::-1] + b"  /models/toy/manifest.json\n"), "savedmodel", model)
    assert not holds(run(1, b""), "savedmodel", model)


def test_an_archive_is_the_plans_when_its_length_and_its_end_are(tmp_path):
    model = write_model(tmp_path / "toy")
    model.mar_path.write_bytes(b"archive")
    digest = hashlib.sha256(b"archive").hexdigest().encode()
    assert holds(lambda _: (0, b"7\n" + digest + b"  -\n"), "mar", model)
    assert not holds(lambda _: (0, b"8\n" + digest + b"  -\n"), "mar", model)
    assert not holds(lambda _: (0, b"7\n" + b"0" * 64 + b"  -\n"), "mar", model)
    assert not holds(lambda _: (1, b""), "mar", model)
