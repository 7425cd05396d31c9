"""`docker compose up` from Debian and PyPI packages alone: the whole house, used, scaled, hurt and taken down.

One project serves all tests here, so that its minutes are spent once. Every test brings it into the state it needs.
"""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import requests

from tests.deploy.compose.promql import metrics_of_monitoring, queries
from tests.requirements_here import need_image
from tests.system.compose_project import GRPC, Project, docker, load, load_begun, until

pytestmark = [pytest.mark.docker, pytest.mark.system, pytest.mark.timeout(900)]

SERVICES = {"trainer", "savedmodel", "torchserve", "haproxy", "prometheus"}
NAMED_CNN = b"\n\x05\n\x03cnn"
"""GetModelStatusRequest, whose model_spec has the name cnn."""
AVAILABLE = b"\x10\x1e"
"""In a ModelVersionStatus: state, number 2, is 30."""
TARGETS = {"savedmodel", "torchserve", "haproxy", "generator", "prometheus"}


@pytest.fixture(scope="module")
def project():
    for image in ("trainer", "savedmodel", "torchserve", "haproxy", "prometheus", "generator"):
        need_image(f"servestorm/{image}:0.1.0")
    made = Project()
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def manifest(project, tmp_path_factory) -> Path:
    return project.copy_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("engine", ["savedmodel", "torchserve"])
def test_both_engines_answer_right_through_the_balancer(engine, protocol, project, manifest, tmp_path):
    summary = load(project, manifest, engine, protocol, tmp_path / "out")
    assert summary["answers"] == "checked"
    assert summary["ok"] == summary["scheduled"] == 40, summary["error_details"]
    proxy = f"{engine}_{protocol}"
    assert sum(project.answered(proxy).values()) >= 40


def test_what_is_served_cannot_be_changed_through_the_balancer(project):
    target = project.url("haproxy", GRPC["savedmodel"]).removeprefix("http://")
    with grpc.insecure_channel(target) as channel:
        reload = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        with pytest.raises(grpc.RpcError) as refused:
            reload(b"", timeout=10)
        status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(NAMED_CNN, timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert AVAILABLE in status


def test_torchserve_takes_no_change_of_its_models_from_its_own_network(project):
    (replica, *_) = project.containers("torchserve")
    (network,) = replica["NetworkSettings"]["Networks"].values()
    models = f"http://{network['IPAddress']}:8081/models/cnn"
    assert requests.delete(models, timeout=10).status_code == 405
    assert requests.get(models, timeout=10).json()[0]["workers"][0]["status"] == "READY"


def test_containers_are_what_the_files_promise(project):
    containers = project.containers()
    assert {c["Config"]["Labels"]["com.docker.compose.service"] for c in containers} >= SERVICES
    for container in containers:
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
        assert host["Memory"] > 0 and host["NanoCpus"] > 0
        bindings = [b for found in (host["PortBindings"] or {}).values() for b in found]
        assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings)
        if pid := container["State"]["Pid"]:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert "0" not in status["Uid"].split() and int(status["CapEff"], 16) == 0
            assert status["NoNewPrivs"] == "1"


def test_three_replicas_share_the_load(project, manifest, tmp_path):
    project.scale_torchserve(3)
    for protocol in ("rest", "grpc"):
        before = project.answered(f"torchserve_{protocol}")
        summary = load(project, manifest, "torchserve", protocol, tmp_path / protocol, rate=30, duration_s=4)
        assert summary["ok"] == summary["scheduled"] == 120, summary["error_details"]
        shares = {r: n - before.get(r, 0) for r, n in project.answered(f"torchserve_{protocol}").items()}
        assert len([share for share in shares.values() if share > 0]) == 3, shares

    def counted():
        found = project.prometheus("query", query="HandledRequests")["result"]
        return {series["metric"]["instance"] for series in found if float(series["value"][1]) > 0}

    assert len(until(lambda: len(counted()) >= 3 and counted(), "three replicas' own counters in Prometheus")) == 3


def test_prometheus_sees_every_target_and_the_load_as_it_happens(project, manifest, tmp_path):
    project.compose("up", "-d", "--wait", "--no-build", "--no-recreate", "locust-master", "locust-worker")
    for engine in ("savedmodel", "torchserve"):  # metrics of a request exist once there was one
        assert load(project, manifest, engine, "rest", tmp_path / engine)["ok"] == 40
    page = project.url("locust-master", 8089)
    until(lambda: requests.get(f"{page}/stats/requests", timeout=10).json().get("workers"), "a worker")
    started = requests.post(f"{page}/swarm", data={"user_count": 1, "spawn_rate": 1, "rate": 20}, timeout=10)
    assert started.json()["success"], started.text
    try:
        query = 'sum(servestorm_requests_total{outcome="ok"}) > 40'
        until(lambda: project.prometheus("query", query=query)["result"], "right answers in Prometheus")

        def down():
            targets = project.prometheus("targets", state="active")["activeTargets"]
            assert {target["labels"]["job"] for target in targets} == TARGETS
            return [target for target in targets if target["health"] != "up"]

        until(lambda: not down(), f"every target to be up, but {[(t['labels'], t['lastError']) for t in down()]}", 30)
        known = set(project.prometheus("label/__name__/values"))
        # an alert is a series while it is raised, TorchServe's count of failures once one has failed
        assert metrics_of_monitoring() - {"ALERTS", "Requests5XX"} <= known
        for query in queries():
            project.prometheus("query", query=query)
        rules = [rule for group in project.prometheus("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
    finally:
        requests.get(f"{page}/stop", timeout=10)
        project.compose("rm", "-sf", "locust-master", "locust-worker")


def test_a_replica_killed_under_load_costs_little_and_comes_back(project, manifest, tmp_path):
    project.scale_torchserve(3)
    before = project.answered("torchserve_rest")
    with load_begun(project, manifest, "torchserve", "rest", tmp_path / "out", 30, 12) as process:
        until(lambda: _risen(project, before) == 3, "answers of all three replicas under load")
        victim = project.compose("ps", "-q", "torchserve").split()[0]
        # the server dies as of a fault of its own, so that its restart is the policy's
        docker("exec", victim, "sh", "-c", "kill -9 -1")
        said, _ = process.communicate(timeout=120)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    failed = summary["scheduled"] - summary["ok"]
    print(f"killed under load: {failed} of {summary['scheduled']} requests failed: {summary['error_details']}")
    assert summary["scheduled"] == 360, said
    assert failed == sum(summary["errors"].values()), "every request is accounted for"
    assert failed <= 36, summary["error_details"]

    until(lambda: project.replicas("torchserve_rest") == 3, "the killed replica to be back")
    assert [c["RestartCount"] for c in project.containers("torchserve") if c["Id"] == victim] == [1]
    before = project.answered("torchserve_rest")
    summary = load(project, manifest, "torchserve", "rest", tmp_path / "again", rate=30, duration_s=4)
    assert summary["ok"] == summary["scheduled"] == 120, summary["error_details"]
    assert _risen(project, before) == 3


def _risen(project: Project, before: dict[str, float]) -> int:
    """Replicas that have answered since."""
    return sum(count > before.get(replica, 0) for replica, count in project.answered("torchserve_rest").items())


def test_down_leaves_nothing(project):
    assert project.left()
    project.down()
    assert project.left() == []
