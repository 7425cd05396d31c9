"""The kubernetes backend's releases without a cluster: Helm and the values, the namespace, leftovers, the backend."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from models.manifest import ModelDir
from serving import processes
from serving.backend import AutoscalerOrder, DeploymentOrder, counted
from serving.backends.kubernetes import helm as helm_module
from serving.backends.kubernetes import namespace as namespace_module
from serving.backends.kubernetes.access import needed
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.cluster import Cluster
from serving.backends.kubernetes.helm import Helm, chart_folder, translated
from serving.backends.kubernetes.leftovers import KubernetesLeftover, leftovers, remove
from serving.backends.kubernetes.namespace import claim, give_back, remove_if_empty
from serving.backends.kubernetes.owner import MACHINE, OWNER, is_left, is_mine, labels, machine_label, owner_labels
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.backends.kubernetes.values import split_reference, values_of
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import DeploymentError, EngineUnavailable, ServingError
from tests.deploy.chart.tools import helm
from tests.source_tree import ROOT
from tests.stand_ins.fake_engine import FakeEngine, write_model
from tests.stand_ins.small_api import (
    forbidden,
    helm_calls,
    kubeconfig,
    listed,
    recording_helm,
    refused,
    small_api,
    thing,
)

BUDGET = Budget(cpus=(0, 1), threads=2, memory_bytes=1536 * 1024**2, cpu_quota=0.25, warmup=False)
BATCHING = Batching(max_batch_size=8, timeout_us=2500, queue_size=64)
SCALING = AutoscalerOrder(min_replicas=1, max_replicas=3, cpu_percent=70, scale_down_stabilization_s=60)
SPACE = "/api/v1/namespaces/k1"
LISTS = ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "serviceaccounts")


@pytest.fixture
def api():
    with small_api() as server:
        yield server


@pytest.fixture
def here(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", api.url, "here", current="here")))
    return Cluster.connect()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder whose helm writes down what it is asked."""
    recording_helm(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


# Helm


def test_a_lacking_helm_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"needs helm, which is not on the PATH: install 3\.14 or newer"):
        _ = Helm().version


@pytest.mark.parametrize(
    ("told", "why"), [("v3.13.2+g1", r"is v3\.13\.2\+g1"), ("help!", "is help!"), ("", "of no version")]
)
def test_a_helm_that_is_too_old_or_none_is_named(recorded, told, why):
    recording_helm(recorded, version=told)
    with pytest.raises(EngineUnavailable, match=why):
        _ = Helm().version


@pytest.mark.parametrize("told", ["v3.14.0+g1", "v4.1.4+g05fa379"])
def test_helm_is_new_enough_from_3_14_on(recorded, told):
    recording_helm(recorded, version=told)
    assert Helm().version >= (3, 14)


def test_a_release_is_installed_with_its_files_values_and_labels_and_nothing_is_waited_for(recorded):
    (recorded / "first.yaml").write_text("spread: false")
    chart, files = recorded / "chart", [recorded / "first.yaml"]
    Helm("play").install("r1", "k1", chart, {"replicas": 2}, files=files, labels={"a": "b", "c": "d"})
    ((arguments, given),) = helm_calls(recorded)
    assert arguments[:3] == ["install", "r1", str(chart)] and yaml.safe_load(given) == {"replicas": 2}
    joined = " ".join(arguments)
    assert f"--values {files[0]} --values - " in joined  # ours go over theirs
    assert "--namespace k1" in joined and "--labels a=b,c=d" in joined and joined.endswith("--kube-context play")
    assert "wait" not in joined and "create-namespace" not in joined


def test_a_release_that_is_gone_is_fine_to_remove(recorded):
    Helm().uninstall("r1", "k1")
    ((arguments, _),) = helm_calls(recorded)
    assert arguments == ["uninstall", "r1", "--namespace", "k1", "--ignore-not-found"]


def test_a_values_file_that_is_not_there_is_named(recorded):
    with pytest.raises(ServingError, match=r"the values file \S*none\.yaml is not there: correct kubernetes\.values"):
        Helm().install("r1", "k1", recorded / "chart", {}, files=[recorded / "none.yaml"])
    assert helm_calls(recorded) == []


def test_what_helm_says_of_a_failure_becomes_our_error(recorded):
    recording_helm(recorded, says="Error: INSTALLATION FAILED: cannot reuse a name that is still in use\n", code=1)
    with pytest.raises(DeploymentError, match=r"^helm cannot install the release r1: cannot reuse a name .* in use\.$"):
        Helm().install("r1", "k1", recorded / "chart", {})


def test_a_release_that_helm_does_not_remove_is_told_with_what_tells_more(recorded):
    recording_helm(recorded, says="Error: failed to delete release: r1\n", code=1)
    with pytest.raises(
        DeploymentError, match=r"cannot remove the release r1: .*`helm uninstall r1 --namespace k1 --debug`"
    ):
        Helm().uninstall("r1", "k1")


def test_helm_that_lacks_a_right_points_to_the_role():
    said = (
        'Error: INSTALLATION FAILED: services is forbidden: User "x" cannot create resource "services" in API group ""'
    )
    error = translated("install the release r1", said)
    assert isinstance(error, DeploymentError)
    assert "helm may not install the release r1" in str(error) and "deploy/k8s/role.yaml" in str(error)


def test_helm_that_does_not_end_is_told(recorded, monkeypatch):
    (recorded / "helm").write_text(
        f"#!{sys.executable} -S\nimport sys, time\ntime.sleep(60 * (sys.argv[1] != 'version'))\nprint('v4.1.0')"
    )
    monkeypatch.setattr(helm_module, "_TIMEOUT_S", 0.5)
    known = Helm()
    known.__dict__["version"] = (4, 1)
    with pytest.raises(DeploymentError, match="helm did not end within"):
        known.install("r1", "k1", recorded / "chart", {})


def test_the_chart_is_found_in_a_checkout():
    assert chart_folder() == ROOT / "deploy" / "k8s" / "servestorm"


def test_the_packaged_chart_stands_in_where_there_is_no_checkout(tmp_path, monkeypatch):
    import serving

    package = tmp_path / "serving"
    monkeypatch.setattr(serving, "__file__", str(package / "__init__.py"))
    with pytest.raises(EngineUnavailable, match="install its wheel again"):
        chart_folder()
    copy = package / "backends" / "kubernetes" / "chart"
    shutil.copytree(ROOT / "deploy" / "k8s" / "servestorm", copy)
    assert chart_folder() == copy


# values


@pytest.fixture(scope="module", params=["helm4", "helm3"])
def program(request):
    return helm(request.param)


class Rendering(Helm):
    """Renders a release as it would be installed, without a cluster."""

    def objects(self, values, files):
        text = self._change(["template", "servestorm-1", str(chart_folder()), "--no-hooks"], "k1", values, files, None)
        return [each for each in yaml.safe_load_all(text) if each]


def rendered(program, settings, engine="savedmodel", replicas=2, batching=BATCHING, files=(), budget=BUDGET):
    model = SimpleNamespace(name="cnn")
    values = values_of(settings, ENGINES[engine], model, budget, batching, replicas, {"who": "us"})
    objects = Rendering(program=program).objects(values, files)
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.mark.helm
@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_gets_the_same_limits_threads_and_replicas(program, engine):
    found = rendered(program, KubernetesSettings(), engine)
    deployment = found["Deployment", "servestorm-1"]["spec"]
    (server,) = deployment["template"]["spec"]["containers"]
    limits = {"cpu": "250m", "memory": "1536Mi"}
    assert deployment["replicas"] == 2 and server["resources"] == {"requests": limits, "limits": limits}
    environment = {one["name"]: one.get("value") for one in server["env"]}
    assert environment["OMP_NUM_THREADS"] == "2"
    assert deployment["template"]["metadata"]["annotations"]["who"] == "us"
    (model,) = deployment["template"]["spec"]["initContainers"]
    assert model["image"].startswith("servestorm/models-cnn:")


@pytest.mark.helm
@pytest.mark.parametrize(
    "settings",
    [
        KubernetesSettings(),
        KubernetesSettings(balancer="haproxy", agents=2),
        KubernetesSettings(autoscaling=SCALING, reach="port-forward", agents=1),
    ],
    ids=["plain", "balanced", "autoscaled"],
)
def test_a_release_is_made_of_what_its_study_may_make_and_remove(program, settings):
    rules = {rule.resource: rule.verbs for rule in needed(settings)}
    for kind in {kind for kind, _ in rendered(program, settings)}:
        assert {"create", "delete", "get", "patch"} <= set(rules[f"{kind.lower()}s"])


@pytest.mark.helm
def test_batching_and_warm_up_are_the_plans(program):
    (server,) = rendered(program, KubernetesSettings())["Deployment", "servestorm-1"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert "--enable_model_warmup=false" in server["args"]
    files = rendered(program, KubernetesSettings())["ConfigMap", "servestorm-1"]["data"]
    assert "max_execution_batch_size { value: 8 }" in files["batching.config"]
    assert "batch_timeout_micros { value: 2500 }" in files["batching.config"]
    assert "max_enqueued_batches { value: 8 }" in files["batching.config"]


@pytest.mark.helm
def test_where_the_plan_says_nothing_a_replica_gets_a_cpu_and_two_gibibytes(program):
    found = rendered(program, KubernetesSettings(), budget=Budget(cpus=()))
    (server,) = found["Deployment", "servestorm-1"]["spec"]["template"]["spec"]["containers"]
    assert server["resources"]["limits"] == {"cpu": "1000m", "memory": "2048Mi"}


@pytest.mark.helm
def test_a_studys_pods_end_at_once_and_autoscaled_ones_when_nobody_asks_them_any_more(program):
    def grace(settings):
        pod = rendered(program, settings)["Deployment", "servestorm-1"]["spec"]["template"]["spec"]
        return pod["terminationGracePeriodSeconds"], "lifecycle" in pod["containers"][0]

    assert grace(KubernetesSettings()) == (3, False)
    seconds, waits = grace(KubernetesSettings(autoscaling=SCALING))
    assert seconds > 30 and waits


@pytest.mark.helm
def test_autoscaling_makes_the_plans_autoscaler_and_leaves_the_replicas_to_it(program):
    found = rendered(program, KubernetesSettings(autoscaling=SCALING))
    scaler = found["HorizontalPodAutoscaler", "servestorm-1"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 3)
    (metric,) = scaler["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == 70
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 60
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 15}]
    assert scaler["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert "replicas" not in found["Deployment", "servestorm-1"]["spec"]


@pytest.mark.helm
def test_a_balancer_stands_in_front_whatever_the_number_of_replicas(program):
    with_one = rendered(program, KubernetesSettings(balancer="haproxy"), replicas=1)
    assert with_one["Deployment", "servestorm-1-balancer"]["spec"]["replicas"] == 1
    assert ("Deployment", "servestorm-1-balancer") not in rendered(program, KubernetesSettings(), replicas=3)


@pytest.mark.helm
def test_images_registry_and_agents_are_the_plans(program):
    settings = KubernetesSettings(
        images={"savedmodel": "example.org:5000/mine/server:7", "generator": "other/generator@sha256:" + "0" * 64},
        registry="r.example.org",
        model_image="servestorm/models-special:3",
        agents=2,
    )
    found = rendered(program, settings)
    pod = found["Deployment", "servestorm-1"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "example.org:5000/mine/server:7"
    assert pod["initContainers"][0]["image"] == "r.example.org/servestorm/models-special:3"
    agents = found["Deployment", "servestorm-1-load-agent"]["spec"]
    assert agents["replicas"] == 2
    assert agents["template"]["spec"]["containers"][0]["image"] == "other/generator@sha256:" + "0" * 64


@pytest.mark.helm
def test_files_of_the_plan_hold_where_a_study_says_nothing_itself(program, tmp_path):
    (tmp_path / "more.yaml").write_text("service: {type: NodePort}\nreplicas: 9\nnodeSelector: {pool: fast}")
    found = rendered(program, KubernetesSettings(), files=[tmp_path / "more.yaml"])
    assert found["Service", "servestorm-1"]["spec"]["type"] == "NodePort"
    deployment = found["Deployment", "servestorm-1"]["spec"]
    assert deployment["replicas"] == 2 and deployment["template"]["spec"]["nodeSelector"]["pool"] == "fast"


@pytest.mark.helm
@pytest.mark.parametrize(
    ("written", "names"),
    [("replicaCount: 3", "replicaCount"), ("service: {type: Port}", "service.type"), ("spread: 5", "spread")],
)
def test_a_typo_in_the_plans_files_is_one_sentence_with_the_key(program, tmp_path, written, names):
    (tmp_path / "typo.yaml").write_text(written)
    with pytest.raises(ServingError) as caught:
        rendered(program, KubernetesSettings(), files=[tmp_path / "typo.yaml"])
    told = str(caught.value)
    assert told.startswith("the chart refuses the values: ") and names in told and "\n" not in told
    assert told.endswith("correct the files of kubernetes.values.")
    assert not isinstance(caught.value, DeploymentError)


@pytest.mark.helm
def test_what_the_chart_checks_itself_is_its_own_sentence(program, tmp_path):
    (tmp_path / "two.yaml").write_text("load: {enabled: true, model: none}")
    settings = KubernetesSettings(agents=1)
    with pytest.raises(ServingError, match=r"^the chart refuses the values: load\.model none is none of the models"):
        rendered(program, settings, files=[tmp_path / "two.yaml"])


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("servestorm/haproxy:0.1.0", ("servestorm/haproxy", "0.1.0", "")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "", "")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c", "")),
        ("a@sha256:12", ("a", "", "sha256:12")),
        ("h:1/a:2@sha256:12", ("h:1/a", "2", "sha256:12")),
    ],
)
def test_a_reference_is_taken_apart_as_the_chart_wants_it(reference, parts):
    assert tuple(split_reference(reference).values()) == parts


# the namespace


def namespace(**marks):
    return thing("k1", labels=marks)


def empty(api, **contents):
    """Answers what is in namespace k1: nothing but `contents`, and what Kubernetes puts there."""
    for kind in LISTS:
        api.told[f"GET {SPACE}/{kind}"] = listed(*contents.get(kind, []))
    api.told[f"GET {SPACE}/configmaps"] = listed(thing("kube-root-ca.crt"), *contents.get("configmaps", []))
    api.told[f"GET {SPACE}/serviceaccounts"] = listed(thing("default"), *contents.get("serviceaccounts", []))
    for kind in ("deployments", "statefulsets"):
        api.told[f"GET /apis/apps/v1/namespaces/k1/{kind}"] = listed(*contents.get(kind, []))
    api.told[f"DELETE {SPACE}"] = (200, {"kind": "Status", "status": "Success"})


@pytest.fixture
def at_exit(monkeypatch):
    """What is to be done when this process ends."""
    kept = []
    monkeypatch.setattr(namespace_module.atexit, "register", lambda *what: kept.append(what))
    return kept


def test_an_absent_namespace_is_made_marked_and_given_back_at_the_end(api, here, at_exit):
    api.told["POST /api/v1/namespaces"] = lambda request: (201, request["body"])
    assert claim(here, "k1")
    (made,) = [request["body"] for what, request in api.asked if what == "POST /api/v1/namespaces"]
    assert made["metadata"]["labels"] == {"servestorm": "studies", **owner_labels()}
    assert at_exit == [(give_back, here, "k1")]


def test_a_namespace_that_is_marked_is_used_and_not_given_back(api, here, at_exit):
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies"))
    assert not claim(here, "k1")
    assert api.paths("POST") == [] and at_exit == []


@pytest.mark.parametrize("marks", [{}, {"servestorm": "production"}, {"team": "vision"}])
def test_anothers_namespace_is_left_alone_and_told_how_to_be_marked(api, here, at_exit, marks):
    api.told[f"GET {SPACE}"] = (200, namespace(**marks))
    with pytest.raises(ServingError, match=r"`kubectl label namespace k1 servestorm=studies`") as caught:
        claim(here, "k1")
    assert not isinstance(caught.value, (DeploymentError, EngineUnavailable))
    assert api.paths("POST") == [] and at_exit == []


def test_a_namespace_that_somebody_else_makes_meanwhile_is_looked_at_again(api, here, at_exit):
    def make(_):
        api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies"))
        return refused(409, 'namespaces "k1" already exists')

    api.told["POST /api/v1/namespaces"] = make
    assert not claim(here, "k1") and at_exit == []


def test_a_namespace_on_its_way_out_is_waited_for(api, here, at_exit, monkeypatch):
    answers = [(200, thing("k1", deletionTimestamp="2026-01-01T00:00:00Z"))] * 2
    api.told[f"GET {SPACE}"] = lambda _: answers.pop() if answers else refused(404, "namespaces k1 not found")
    api.told["POST /api/v1/namespaces"] = lambda request: (201, request["body"])
    monkeypatch.setattr(namespace_module, "_POLL_S", 0.001)
    assert claim(here, "k1") and answers == []


def test_a_namespace_that_does_not_end_is_told(api, here, monkeypatch):
    api.told[f"GET {SPACE}"] = (200, thing("k1", deletionTimestamp="2026-01-01T00:00:00Z"))
    monkeypatch.setattr(namespace_module, "_GOING_S", 0)
    monkeypatch.setattr(namespace_module, "_POLL_S", 0.001)
    with pytest.raises(DeploymentError, match=r"does not come to its end: .*kubectl describe namespace k1"):
        claim(here, "k1")


def test_who_may_make_no_namespace_is_told_what_to_have_made(api, here):
    api.told["POST /api/v1/namespaces"] = forbidden("create", "namespaces", "at the cluster scope")
    with pytest.raises(EngineUnavailable, match=r"have somebody run `kubectl create namespace k1`.*role\.yaml"):
        claim(here, "k1")


def test_only_the_process_that_made_a_namespace_gives_it_back(api, here):
    empty(api)
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies", **{OWNER: "1-1", MACHINE: machine_label()}))
    give_back(here, "k1")
    assert api.paths("DELETE") == []
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies", **owner_labels()))
    give_back(here, "k1")
    assert api.paths("DELETE") == [SPACE]


@pytest.mark.parametrize("kind", [*LISTS, "deployments", "statefulsets"])
def test_a_namespace_in_which_somebody_has_something_stays(api, here, kind):
    pod = {"metadata": {}, "spec": {"containers": [{"name": "c"}]}}
    spec = {"selector": {}, "serviceName": "s", "template": pod} if kind in ("deployments", "statefulsets") else None
    empty(api, **{kind: [thing("theirs") | ({"spec": spec} if spec else {})]})
    assert not remove_if_empty(here, "k1")
    assert api.paths("DELETE") == []


def test_pods_that_are_just_going_are_waited_for(api, here, monkeypatch):
    empty(api)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1"}
    left = [thing("a", ownerReferences=[owner]), thing("b", deletionTimestamp="2026-01-01T00:00:00Z")]
    api.told[f"GET {SPACE}/pods"] = lambda _: listed(left.pop()) if left else listed()
    monkeypatch.setattr(namespace_module, "_POLL_S", 0.001)
    assert remove_if_empty(here, "k1")
    assert api.paths("DELETE") == [SPACE] and left == []


def test_a_namespace_that_cannot_be_given_back_does_not_spoil_the_end(api, here):
    api.told[f"GET {SPACE}"] = refused(500, "etcd is gone")
    give_back(here, "k1")


# leftovers


@pytest.fixture(scope="module")
def dead():
    """Labels of a process that lives no more."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        marks = {OWNER: f"{process.pid}-{processes.start_ticks(process.pid)}", MACHINE: machine_label()}
    return marks


def release(name, place="k1", **marks):
    return thing(f"sh.helm.release.v1.{name}.v1", place, labels={"owner": "helm", "name": name, **marks})


def test_labels_are_what_the_cluster_takes_and_tell_this_process():
    marks = labels("d1")
    assert set(marks) == {OWNER, MACHINE, "servestorm.deployment"}
    assert all(len(value) <= 63 and value.replace("-", "").isalnum() for value in marks.values())
    mine = SimpleNamespace(metadata=SimpleNamespace(labels=marks))
    assert is_mine(mine) and not is_left(mine)
    other = SimpleNamespace(metadata=SimpleNamespace(labels=marks | {MACHINE: "other", OWNER: "1-1"}))
    assert not is_mine(other) and not is_left(other)


def test_what_dead_owners_of_this_machine_left_is_found_wherever_we_may_look(api, here, dead):
    elsewhere = dead | {MACHINE: "of-another-machine"}
    api.told["GET /api/v1/secrets"] = listed(
        release("gone", "far", **dead),
        release("gone", "far", **dead),  # its second revision
        release("alive", **owner_labels()),
        release("others", **elsewhere),
        release("by-hand"),
    )
    api.told["GET /api/v1/namespaces"] = listed(
        thing("theirs", labels=elsewhere), thing("ours", labels=dead), thing("used", labels=owner_labels())
    )
    assert leftovers(here, "k1") == [
        KubernetesLeftover("release", "gone", "far"),
        KubernetesLeftover("namespace", "ours", "ours"),
    ]
    (query,) = [request for what, request in api.asked if what == "GET /api/v1/secrets"]
    assert query["labelSelector"] == f"owner=helm,{MACHINE}={machine_label()}"


def test_who_may_look_into_one_namespace_only_finds_what_is_there(api, here, dead):
    api.told["GET /api/v1/secrets"] = forbidden("list", "secrets", "at the cluster scope")
    api.told["GET /api/v1/namespaces"] = forbidden("list", "namespaces", "at the cluster scope")
    api.told[f"GET {SPACE}/secrets"] = listed(release("gone", **dead))
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies", **dead))
    found = leftovers(here, "k1")
    assert [str(one) for one in found] == ["release gone in namespace k1", "namespace k1"]
    assert counted(found * 2) == "2 releases and 2 namespaces" and counted(found[:1]) == "1 release"
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies"))
    assert len(leftovers(here, "k1")) == 1


def test_who_may_not_look_anywhere_is_told(api, here):
    api.told["GET /api/v1/secrets"] = forbidden("list", "secrets", "at the cluster scope")
    api.told[f"GET {SPACE}/secrets"] = forbidden("list", "secrets")
    with pytest.raises(DeploymentError, match=r"may not list the secrets in namespace k1.*role\.yaml"):
        leftovers(here, "k1")


def test_releases_go_before_the_namespaces_that_they_are_in(api, here, recorded):
    empty(api)
    helped = []  # how often helm had been called when the namespace went
    api.told[f"DELETE {SPACE}"] = lambda _: helped.append(len(helm_calls(recorded))) or (200, {"kind": "Status"})
    remove(here, Helm(), [KubernetesLeftover("namespace", "k1", "k1"), KubernetesLeftover("release", "gone", "k1")])
    ((arguments, _),) = helm_calls(recorded)
    assert arguments[:4] == ["uninstall", "gone", "--namespace", "k1"] and helped == [1]


def test_clean_removes_what_a_killed_study_left_on_the_cluster_and_tells_it(api, here, dead, tmp_path):
    empty(api)
    api.told["GET /api/v1/secrets"] = listed(release("gone", **dead), release("alive", **owner_labels()))
    api.told["GET /api/v1/namespaces"] = listed(thing("k1", labels=dead))
    recording_helm(tmp_path)
    told = clean(tmp_path, "--dry-run")
    assert "would remove release gone in namespace k1\nwould remove namespace k1\n" in told
    assert helm_calls(tmp_path) == [] and api.paths("DELETE") == []
    told = clean(tmp_path)
    assert "removed release gone in namespace k1\nremoved namespace k1\n" in told and "alive" not in told
    assert [arguments[1] for arguments, _ in helm_calls(tmp_path)] == ["gone"] and api.paths("DELETE") == [SPACE]


def test_clean_goes_on_where_no_cluster_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "Kubernetes was not looked at: no kubeconfig is at" in clean(tmp_path)


def clean(folder: Path, *options: str) -> str:
    environment = os.environ | {"PATH": str(folder), "DOCKER_HOST": "unix:///nonexistent"}
    command = [sys.executable, "-m", "servestorm.cli.main", "clean", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_doctor_tells_of_the_cluster_itself(here, monkeypatch):
    from servestorm.cli.verbs.doctor import examine

    found = {finding.name: finding for finding in examine()}
    assert found["Kubernetes"].present and found["Kubernetes"].text == "1.32.13 (context here)"
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    found = {finding.name: finding for finding in examine()}
    assert not found["Kubernetes"].present and not found["Kubernetes"].required


# the backend


class Installed:
    """Stands in for a deployment: what was done to it, in order."""

    fails = False

    def __init__(self, *given: object) -> None:
        self.given, self.done = given, list[str]()
        Installed.last = self

    def install(self, replicas: int) -> None:
        self.done.append(f"install {replicas}")
        if Installed.fails:
            raise DeploymentError("it is full.")

    def stop(self) -> None:
        self.done.append("stop")

    def keep(self, error: Exception) -> None:
        self.done.append(f"keep: {error}")


@pytest.fixture
def backend(api, here, recorded, monkeypatch):
    monkeypatch.setattr("serving.backends.kubernetes.backend.KubernetesDeployment", Installed)
    monkeypatch.setattr(Installed, "fails", False)
    api.told[f"GET {SPACE}"] = (200, namespace(servestorm="studies"))
    return KubernetesBackend(KubernetesSettings(namespace="k1"))


def start(backend, model: ModelDir, tmp_path, **more):
    common = {"replicas": 2, "budget": BUDGET, "batching": BATCHING, "workdir": tmp_path, "events": EventLog()} | more
    return backend.start(DeploymentOrder(FakeEngine("well"), model, **common))


def test_a_start_claims_the_namespace_then_drops_what_was_read_then_installs(backend, api, tmp_path):
    order = []
    deployment = start(
        backend, write_model(tmp_path / "toy"), tmp_path, before_spawn=lambda: order.append(len(api.asked))
    )
    assert api.asked[-1][0] == f"GET {SPACE}" and order == [len(api.asked)]
    assert deployment.done == ["install 2"]
    assert deployment.given[0] is backend.cluster and deployment.given[2] is backend.settings


@pytest.mark.parametrize(("keep", "done"), [(False, ["install 2", "stop"]), (True, ["install 2", "keep: it is full."])])
def test_a_failed_start_leaves_nothing_unless_it_is_to_be_kept(backend, tmp_path, monkeypatch, keep, done):
    monkeypatch.setattr(Installed, "fails", True)
    backend.settings = KubernetesSettings(namespace="k1", keep=keep)
    with pytest.raises(DeploymentError, match="it is full"):
        start(backend, write_model(tmp_path / "toy"), tmp_path)
    assert Installed.last.done == done


def test_ports_and_no_replicas_are_refused_before_the_cluster_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    model, backend = write_model(tmp_path / "toy"), KubernetesBackend()
    with pytest.raises(ServingError, match="pods have no use for"):
        start(backend, model, tmp_path, ports=[8000, 8001])
    with pytest.raises(ServingError, match="0 replicas were asked for"):
        start(backend, model, tmp_path, replicas=0)


def test_a_check_tells_image_and_cluster_and_a_lacking_right_fails_it(backend, api):
    reviews = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    api.told[reviews] = (201, {"spec": {}, "status": {"allowed": True}})
    assert backend.check(ENGINES["savedmodel"]) == (
        f"image {ENGINES['savedmodel'].image} in Kubernetes 1.32.13, context here"
    )
    named = KubernetesBackend(KubernetesSettings(images={"savedmodel": "mine:1"}, registry="r.example.org"))
    assert named.check(ENGINES["savedmodel"]).startswith("image mine:1 in")
    behind = KubernetesBackend(KubernetesSettings(registry="r.example.org/"))
    assert behind.check(ENGINES["savedmodel"]).startswith("image r.example.org/servestorm/savedmodel:")
    api.told[reviews] = (201, {"spec": {}, "status": {"allowed": False}})
    with pytest.raises(EngineUnavailable, match="may not get namespaces, nor create"):
        backend.check(ENGINES["savedmodel"])


def test_an_autoscaled_backend_is_the_same_one_on_the_same_cluster(backend):
    known = backend.cluster
    scaled = backend.autoscaled(SCALING)
    assert scaled.cluster is known and scaled.settings.autoscaling == SCALING
    assert scaled.settings.namespace == "k1" and backend.settings.autoscaling is None


def test_the_backend_describes_cluster_helm_and_clock(backend, api):
    api.told["GET /api/v1/nodes"] = forbidden("list", "nodes", "at the cluster scope")
    found = backend.describe()
    assert found["version"] == "1.32.13" and found["nodes"] is None and found["helm"] == "4.1"
    assert 0 <= found["clock_uncertainty_ms"] < 1000
