"""The kubernetes backend's foundations against an API server of a few answers: reaching it, its clock, its refusals."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import subprocess
import threading
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.backend import AutoscalerOrder
from serving.backends.kubernetes import access, clock, cluster
from serving.backends.kubernetes.access import NEEDED, Rule, needed, require_access, rules_text
from serving.backends.kubernetes.clock import ClusterClock, measure
from serving.backends.kubernetes.cluster import ROLE, Cluster, asking
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.errors import DeploymentError, EngineUnavailable
from tests.source_tree import ROOT
from tests.stand_ins.small_api import forbidden, kubeconfig, listed, refused, small_api, thing

SECOND_NS = 10**9
REVIEWS = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
def api():
    with small_api() as server:
        yield server


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Makes a kubeconfig and points KUBECONFIG at it."""

    def make(url, *contexts, **more):
        path = kubeconfig(tmp_path / "kubeconfig", url, *contexts, **more)
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return make


@pytest.fixture
def here(api, config):
    config(api.url, "here", current="here")
    return Cluster.connect()


# reaching it


def test_a_cluster_tells_its_version_and_its_context(api, config):
    config(api.url, "work", "play", current="work")
    found = Cluster.connect()
    assert (found.version, found.context, found.kube_context) == ("1.32.13", "work", None)
    other = Cluster.connect("play")
    assert (other.context, other.kube_context) == ("play", "play")


def test_a_context_that_is_not_there_is_named_with_those_that_are(config):
    path = config("http://127.0.0.1:9", "work", "play", current="work")
    with pytest.raises(EngineUnavailable, match=rf"{path} has no context home \(it has work, play\): .*context"):
        Cluster.connect("home")


def test_a_context_is_found_also_where_none_is_the_current_one(api, config):
    config(api.url, "work")
    assert Cluster.connect("work").context == "work"
    with pytest.raises(EngineUnavailable, match=r"has no current context \(it has work\): `kubectl config use-context"):
        Cluster.connect()


def test_a_kubeconfig_that_is_missing_or_no_kubeconfig_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EngineUnavailable, match=f"no kubeconfig is at {tmp_path / 'none'}: make one"):
        Cluster.connect()
    for content in ("a: [", "", "just words", "contexts: 5", "contexts: [{name: x, context: {cluster: y}}]"):
        (tmp_path / "none").write_text(content)
        with pytest.raises(EngineUnavailable, match=r"cannot be used|has no context x"):
            Cluster.connect("x")


def test_a_pod_without_an_account_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    with pytest.raises(EngineUnavailable, match=r"this pod has no account .*automountServiceAccountToken"):
        Cluster.connect()


def test_a_server_that_does_not_answer_is_named_with_its_address(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config(place, "work", current="work")
        with pytest.raises(
            EngineUnavailable, match=rf"no Kubernetes API answers at {place} \(context work; connection r"
        ):
            Cluster.connect()


def test_a_token_that_is_refused_asks_for_a_login(api, config):
    api.told["GET /version"] = refused(401, "Unauthorized")
    config(api.url, "work", current="work", token="old")
    with pytest.raises(EngineUnavailable, match=r"refuses its token or certificate \(HTTP 401\): log in again"):
        Cluster.connect()


@pytest.mark.parametrize("answer", [(404, b"nothing here"), (200, b"<html>"), (200, {"name": "other"})])
def test_a_server_of_another_kind_is_no_kubernetes_api(api, config, answer):
    api.told["GET /version"] = answer
    config(api.url, "work", current="work")
    with pytest.raises(EngineUnavailable, match="answers, but not as a Kubernetes API does"):
        Cluster.connect()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl makes a certificate")
def test_a_certificate_of_another_authority_is_told_as_such(config, tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            with pytest.raises(OSError):
                context.wrap_socket(listener.accept()[0], server_side=True)

        thread = threading.Thread(target=shake)
        thread.start()
        config(f"https://127.0.0.1:{listener.getsockname()[1]}", "work", current="work")
        with pytest.raises(EngineUnavailable, match="is not signed by the authority that the kubeconfig names"):
            Cluster.connect()
        thread.join()


def test_no_request_waits_for_ever(here, monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which takes connections, and never says anything
        here.api.configuration.host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        told_by = pytest.raises(DeploymentError, match=r"stopped answering when it was to list pods \(timed out\)")
        with told_by, asking("list pods"):
            here.core.list_namespaced_pod("k1")


def test_a_lacking_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'servestorm\[kubernetes\]'"):
        Cluster.connect()


# what it refuses


def test_a_right_that_lacks_is_told_with_verb_resource_namespace_and_the_role(api, here):
    api.told["GET /api/v1/namespaces/k1/pods"] = forbidden("list", "pods")
    with pytest.raises(DeploymentError) as caught, asking("list its pods"):
        here.core.list_namespaced_pod("k1")
    sentence = str(caught.value)
    assert sentence.startswith("you may not list its pods") and sentence.endswith(f"ask for the rights in {ROLE}.")
    assert 'cannot list resource "pods"' in sentence and 'in the namespace "k1"' in sentence


def test_a_quota_that_is_full_is_no_lacking_right(api, here):
    api.told["GET /api/v1/namespaces/k1/pods"] = refused(403, 'pods "x" is forbidden: exceeded quota: small.')
    told_by = pytest.raises(DeploymentError, match=r"^the cluster cannot make a pod: pods .* exceeded quota: small\.$")
    with told_by, asking("make a pod"):
        here.core.list_namespaced_pod("k1")


def test_a_login_that_ends_mid_study_is_told(api, here):
    api.told["GET /api/v1/namespaces/k1/pods"] = refused(401, "Unauthorized")
    told_by = pytest.raises(DeploymentError, match="no longer knows us when it was to list pods: log in again")
    with told_by, asking("list pods"):
        here.core.list_namespaced_pod("k1")


# what it is made of


def test_nodes_are_described_where_they_may_be_read(api, here):
    info = {"kubeletVersion": "v1.32.13", "containerRuntimeVersion": "containerd://1.6", "osImage": "Debian"}
    rest = dict.fromkeys(("architecture", "bootID", "kernelVersion", "kubeProxyVersion", "machineID"), "x")
    node = thing("node1", labels={"topology.kubernetes.io/zone": "a"}) | {
        "status": {
            "capacity": {"cpu": "1500m", "memory": "16Gi"},
            "nodeInfo": info | rest | {"operatingSystem": "linux", "systemUUID": "x"},
        }
    }
    api.told["GET /api/v1/nodes"] = listed(node)
    (found,) = here.describe()["nodes"]
    assert (found["name"], found["cpus"], found["memory_bytes"]) == ("node1", 1.5, 16 * 1024**3)
    assert (found["kubelet"], found["os_image"], found["zone"]) == ("v1.32.13", "Debian", "a")
    assert found["instance_type"] is None


def test_nodes_are_unknown_where_they_may_not_be_read(api, here):
    api.told["GET /api/v1/nodes"] = forbidden("list", "nodes", "at the cluster scope")
    assert here.describe() == {"version": "1.32.13", "context": "here", "nodes": None}
    api.told["GET /api/v1/nodes"] = refused(500, "etcd is gone")
    with pytest.raises(DeploymentError, match="etcd is gone"):
        here.describe()


# its clock


def test_the_clock_of_a_server_is_found_by_its_dates(api, here):
    api.ahead_s = 1000.25
    before_ns = clock.time.time_ns() - clock.time.monotonic_ns()
    found = here.clock
    after_ns = clock.time.time_ns() - clock.time.monotonic_ns()
    slack_ns = abs(after_ns - before_ns) + 10**6  # ours may be adjusted meanwhile
    assert abs(found.offset_ns - before_ns - 1000.25 * SECOND_NS) <= found.uncertainty_ns + slack_ns
    assert here.clock is found


@given(
    st.integers(10**18, 2 * 10**18),
    st.lists(st.integers(0, 300_000_000), min_size=2, max_size=8),
    st.integers(0, 100),
)
def test_the_true_offset_lies_in_what_the_dates_allow(offset_ns, trips_ns, answered_percent):
    now_ns = 5 * SECOND_NS
    longest_ns = max(trips_ns)

    class Time:
        @staticmethod
        def monotonic_ns():
            return now_ns

        @staticmethod
        def sleep(pause_s):
            nonlocal now_ns
            now_ns += round(pause_s * SECOND_NS)

    def ask():
        nonlocal now_ns
        trip_ns = trips_ns[now_ns % len(trips_ns)]
        server_ns = now_ns + trip_ns * answered_percent // 100 + offset_ns
        now_ns += trip_ns
        written = datetime.datetime.fromtimestamp(server_ns // SECOND_NS, datetime.UTC)
        return written.strftime("%a, %d %b %Y %H:%M:%S GMT")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "time", Time)
        found = measure(ask)
    assert abs(found.offset_ns - offset_ns) <= found.uncertainty_ns + 1
    assert found.uncertainty_ns <= longest_ns + 10_000_000 + 1  # two requests around the turn and the pause between


def test_a_server_without_dates_is_taken_to_have_our_time():
    found = measure(lambda: None)
    ours_ns = clock.time.time_ns() - clock.time.monotonic_ns()
    assert found.uncertainty_ns is None and abs(found.offset_ns - ours_ns) < 10 * SECOND_NS


def test_a_stamp_holds_what_was_seen_into_its_second():
    stamp = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    unix_ns = int(stamp.timestamp()) * SECOND_NS
    known = ClusterClock(offset_ns=unix_ns - 70 * SECOND_NS, uncertainty_ns=0)  # the stamp began at our 70 s
    assert known.best_ns(stamp, 70 * SECOND_NS + 123) == 70 * SECOND_NS + 123
    assert known.best_ns(stamp, 75 * SECOND_NS) == 71 * SECOND_NS - 1
    assert known.best_ns(stamp, 3 * SECOND_NS) == 70 * SECOND_NS
    assert known.best_ns(None, 75 * SECOND_NS) == 75 * SECOND_NS
    exact = stamp.replace(microsecond=250_000)  # events and leases have microseconds
    assert known.best_ns(exact, 75 * SECOND_NS) == 70 * SECOND_NS + 250_000_999


# rights


def rules_of_the_role():
    (role,) = [each for each in yaml.safe_load_all((ROOT / ROLE).read_text()) if each]
    assert role["kind"] == "Role"
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_grants_exactly_what_is_needed():
    assert rules_of_the_role() == {(rule.group, rule.resource, verb) for rule in NEEDED for verb in rule.verbs}
    assert len({(rule.group, rule.resource) for rule in NEEDED}) == len(NEEDED)


def test_the_roles_binding_is_ready_to_be_uncommented():
    text = (ROOT / ROLE).read_text()
    commented = text[text.index("# ---") :].splitlines()
    binding = yaml.safe_load("\n".join(line.removeprefix("# ") for line in commented[2:]))
    (role,) = [each for each in yaml.safe_load_all(text) if each]
    assert binding["kind"] == "RoleBinding" and binding["roleRef"]["name"] == role["metadata"]["name"]


def test_what_a_study_does_not_use_needs_no_right():
    def names(settings):
        return {rule.resource for rule in needed(settings)}

    plain = names(KubernetesSettings())
    assert names(KubernetesSettings(reach="port-forward")) - plain == {"pods/portforward"}
    scaling = AutoscalerOrder(1, 2, 70, 60)
    assert names(KubernetesSettings(autoscaling=scaling)) - plain == {"horizontalpodautoscalers"}
    everything = KubernetesSettings(reach="port-forward", autoscaling=scaling)
    assert needed(everything) == list(NEEDED)


def reviewed(api, lacking):
    """Answers reviews: everything is allowed but (resource with subresource, verb) of `lacking`."""

    def answer(request):
        asked = request["body"]["spec"]["resourceAttributes"]
        name = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
        return 201, {"spec": {}, "status": {"allowed": (name, asked["verb"]) not in lacking}}

    api.told[REVIEWS] = answer


def test_every_right_that_lacks_is_named_at_once(api, here):
    reviewed(api, {("pods/exec", "create"), ("deployments/scale", "patch"), ("secrets", "list"), ("secrets", "get")})
    with pytest.raises(EngineUnavailable) as caught:
        require_access(here, KubernetesSettings(namespace="k1"))
    assert str(caught.value) == (
        "your account of context here may not get and list secrets, nor patch deployments.apps/scale, nor create "
        f"pods/exec in namespace k1: have somebody run `kubectl apply --namespace k1 --filename {ROLE}` and bind that "
        "role to your account."
    )


def test_who_may_do_everything_is_asked_about_each_verb_in_the_namespace(api, here):
    reviewed(api, set())
    require_access(
        here, KubernetesSettings(namespace="k1", reach="port-forward", autoscaling=AutoscalerOrder(1, 2, 70, 60))
    )
    asked = [request["body"]["spec"]["resourceAttributes"] for what, request in api.asked if what == REVIEWS]
    assert {one["namespace"] for one in asked} == {"k1"}
    found = {
        (one.get("group", ""), "/".join(filter(None, (one["resource"], one.get("subresource")))), one["verb"])
        for one in asked
    }
    assert found == rules_of_the_role()


def test_a_missing_right_of_a_feature_that_is_off_stops_nobody(api, here):
    reviewed(api, {("horizontalpodautoscalers", "create"), ("pods/portforward", "create")})
    require_access(here, KubernetesSettings(namespace="k1"))


def test_rules_are_told_as_kubectl_takes_them():
    assert rules_text([Rule("", "pods", ("get", "list", "watch"))]) == "get, list and watch pods"
    assert rules_text([Rule("apps", "deployments/scale", ("patch",))]) == "patch deployments.apps/scale"
    assert all(first != second for first, second in pairwise(NEEDED)) and access.NEEDED is NEEDED
