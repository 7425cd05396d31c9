"""The chart's pods: what they may do, what they are given, and when they can answer."""

from __future__ import annotations

import hashlib
import re

import pytest

from serving.engines.tensorflow_settings import GRPC_THREADS
from tests.deploy.chart.rendering import (
    VALUES,
    container,
    containers,
    environment,
    flags,
    labels_of,
    pod_of,
    render,
    selects,
    workloads,
)
from tests.source_tree import ROOT

pytestmark = pytest.mark.helm
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
each_engine = pytest.mark.parametrize("engine", ["tfserving", "savedmodel", "torchserve"])
SAFE_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim"}
CI = ROOT / "deploy" / "k8s" / "servestorm" / "ci"


@each_values
def test_every_pod_meets_the_restricted_pod_security_standard_and_cannot_write_to_its_root(values):
    for thing in workloads(render(values=values)):
        pod = pod_of(thing)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= SAFE_VOLUMES
        for each in containers(pod):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in each.get("ports", []))


@each_values
def test_only_prometheus_gets_a_token_and_nobody_gets_the_addresses_of_services_as_variables(values):
    rendered = render(values=values)
    for account in rendered.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for thing in workloads(rendered):
        pod = pod_of(thing)
        component = labels_of(thing).get("app.kubernetes.io/component")
        asks = component == "prometheus" and bool(rendered.all("Role"))
        assert pod["automountServiceAccountToken"] is asks
        assert pod["enableServiceLinks"] is False


def test_prometheus_may_list_and_watch_pods_of_its_namespace_and_nothing_else():
    rendered = render("prometheus.enabled=true")
    assert rendered.get("Role", "-prometheus")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]
    assert not rendered.all("ClusterRole") and not rendered.all("ClusterRoleBinding")
    binding = rendered.get("RoleBinding", "-prometheus")
    account = pod_of(rendered.get("Deployment", "-prometheus"))["serviceAccountName"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    assert account != rendered.server()["serviceAccountName"]


@each_values
def test_every_container_is_bounded_in_cpu_and_memory(values):
    for thing in workloads(render(values=values)):
        for each in containers(pod_of(thing)):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(each["resources"][kind]), each["name"]


@each_values
def test_every_mount_has_its_volume_every_volume_is_mounted_and_every_config_map_is_there(values):
    rendered = render(values=values)
    maps = {thing["metadata"]["name"] for thing in rendered.all("ConfigMap")}
    claims = {thing["metadata"]["name"] for thing in rendered.all("PersistentVolumeClaim")}
    for thing in workloads(rendered):
        pod = pod_of(thing)
        mounted = {mount["name"] for each in containers(pod) for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, thing["metadata"]["name"]
        for each in containers(pod):
            places = [mount["mountPath"] for mount in each["volumeMounts"]]
            assert len(places) == len(set(places))
            assert {"name": "tmp", "mountPath": "/tmp"} in each["volumeMounts"]
        for volume in pod["volumes"]:
            assert volume.get("configMap", {}).get("name") in maps | {None}
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in claims | {None, "models"}
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


@each_values
def test_everything_that_selects_pods_selects_those_that_it_should(values):
    rendered = render(values=values)
    pods = {thing["metadata"]["name"]: labels_of(thing) for thing in workloads(rendered)}
    for thing in rendered.all("Deployment"):
        assert selects(thing["spec"]["selector"], labels_of(thing))
        taken = [name for name, labels in pods.items() if selects(thing["spec"]["selector"], labels)]
        assert taken == [thing["metadata"]["name"]]
        assert not any("version" in key or "chart" in key for key in labels_of(thing)), "an upgrade would restart it"
    for thing in [*rendered.all("PodDisruptionBudget"), *rendered.all("NetworkPolicy")]:
        selector = thing["spec"].get("selector") or thing["spec"]["podSelector"]
        assert any(selects(selector, labels) for labels in pods.values()), thing["metadata"]["name"]


@each_values
def test_every_service_leads_to_ports_that_its_pods_have(values):
    rendered = render(values=values)
    for service in rendered.all("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        (behind,) = [thing for thing in workloads(rendered) if selects(selector, labels_of(thing))]
        named = {port["name"] for each in pod_of(behind)["containers"] for port in each.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


THREADS = [
    ("250m", "1"),
    ("1", "1"),
    ("1500m", "1"),
    ("1.9", "1"),
    ("2", "2"),
    ("2500m", "2"),
    ("8", "8"),
    ("0.5", "1"),
]


@pytest.mark.parametrize(("limit", "threads"), THREADS)
def test_threads_are_the_whole_cpus_of_the_limit_and_at_least_one(limit, threads):
    def server(engine):
        return container(render(f"engine={engine}", f"resources.limits.cpu={limit}").server(), "server")

    for engine in ("tfserving", "savedmodel"):
        tensorflow = server(engine)
        assert flags(tensorflow["args"])["tensorflow_intra_op_parallelism"] == threads
        assert environment(tensorflow)["OMP_NUM_THREADS"] == threads
    variables = environment(server("torchserve"))
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == threads
    assert variables["JAVA_ACTIVE_PROCESSORS"] == threads
    settings = render("engine=torchserve", f"resources.limits.cpu={limit}").settings()["config.properties"]
    assert f"number_of_netty_threads={threads}\n" in settings and f"netty_client_threads={threads}\n" in settings


def test_workers_share_the_threads_and_a_number_of_threads_can_be_given():
    shared = container(render("engine=torchserve", "resources.limits.cpu=5", "workers=2").server(), "server")
    assert environment(shared)["OMP_NUM_THREADS"] == "2"
    given = container(render("resources.limits.cpu=8", "threads=3").server(), "server")
    assert flags(given["args"])["tensorflow_intra_op_parallelism"] == "3"


def test_a_tensorflow_server_takes_enough_rest_calls_at_a_time_to_fill_two_batches():
    few = flags(container(render().server(), "server")["args"])
    assert few["rest_api_num_threads"] == "16"
    many = flags(container(render("batching.maxSize=64").server(), "server")["args"])
    assert many["rest_api_num_threads"] == "128"


@pytest.mark.parametrize("engine", ["tfserving", "savedmodel"])
def test_a_tensorflow_server_has_a_grpc_thread_for_every_call_in_flight(engine):
    args = flags(container(render(f"engine={engine}").server(), "server")["args"])
    assert args["grpc_max_threads"] == str(GRPC_THREADS)


def probes(engine):
    each = container(render(f"engine={engine}").server(), "server")
    return each["startupProbe"], each["readinessProbe"], each["livenessProbe"]


def kind_of(probe):
    return {
        key: value for key, value in probe.items() if key not in ("periodSeconds", "timeoutSeconds", "failureThreshold")
    }


def test_tensorflow_serving_is_ready_when_a_version_can_be_called():
    startup, readiness, liveness = probes("tfserving")
    assert kind_of(startup) == kind_of(readiness) == {"httpGet": {"port": "rest", "path": "/v1/models/cnn/metadata"}}
    assert kind_of(liveness) == {"httpGet": {"port": "rest", "path": "/v1/models/cnn"}}


def test_savedmodel_server_is_ready_when_its_health_covers_every_model():
    startup, readiness, _ = probes("savedmodel")
    assert kind_of(startup) == kind_of(readiness) == {"grpc": {"port": 8500}}


def test_torchserve_is_ready_when_a_worker_of_every_model_is_and_not_when_its_ping_is_healthy():
    rendered = render(values=CI / "torchserve-models-values.yaml")
    each = container(rendered.server(), "server")
    for name in ("startupProbe", "readinessProbe"):
        shell, option, script = each[name]["exec"]["command"]
        assert (shell, option) == ("bash", "-c")
        assert re.findall(r"answers 8081 /models/(\w+) READY \|\| exit 1", script) == ["cnn", "resnet", "remote"]
        assert script.rstrip().endswith(": <> /dev/tcp/127.0.0.1/7070")
    assert kind_of(each["livenessProbe"]) == {"httpGet": {"port": "rest", "path": "/ping"}}


@each_engine
def test_a_slow_server_is_not_restarted_and_a_slow_start_gets_ten_minutes(engine):
    startup, readiness, liveness = probes(engine)
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60
    assert (
        liveness["periodSeconds"] * liveness["failureThreshold"]
        > readiness["periodSeconds"] * readiness["failureThreshold"]
    )


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [((), 15), (("replicas=2",), 40), (("drain.beforeStopSeconds=7",), 7), (("replicas=2", "balancer.mode=never"), 15)],
)
def test_a_pod_serves_on_until_whoever_sends_requests_knows_that_it_ends(settings, seconds):
    pod = render(*settings).server()
    assert container(pod, "server")["lifecycle"] == {"preStop": {"sleep": {"seconds": seconds}}}
    assert pod["terminationGracePeriodSeconds"] == seconds + 30


def test_kubernetes_1_29_which_cannot_sleep_itself_lets_the_image_do_it():
    server = container(render(kube="1.29").server(), "server")
    assert server["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "15"]}}}


def test_savedmodel_server_ends_before_kubernetes_would_kill_it():
    pod = render("engine=savedmodel", "drain.finishSeconds=20").server()
    server = container(pod, "server")
    drained = int(flags(server["args"])["drain_seconds"])
    assert server["lifecycle"]["preStop"]["sleep"]["seconds"] + drained < pod["terminationGracePeriodSeconds"]


def test_a_new_replica_is_ready_before_an_old_one_goes():
    rollout = render().get("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rollout == {"maxSurge": 1, "maxUnavailable": 0}


def checksum(*settings):
    return render(*settings).get("Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


@each_engine
def test_pods_are_replaced_when_their_files_change_and_only_then(engine):
    first = checksum(f"engine={engine}")
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert first != hashlib.sha256(b"").hexdigest()
    assert checksum(f"engine={engine}", "models[0].name=other", "models[0].source.image.repository=x/y") != first
    assert checksum(f"engine={engine}", "podDisruptionBudget.enabled=false") == first


def test_balancer_and_prometheus_are_replaced_when_their_files_change():
    def sums(*settings):
        rendered = render("balancer.mode=always", "prometheus.enabled=true", *settings)
        templates = [rendered.get("Deployment", suffix)["spec"]["template"] for suffix in ("-balancer", "-prometheus")]
        return [template["metadata"]["annotations"]["checksum/config"] for template in templates]

    before = sums()
    after = sums("balancer.slots=64", "prometheus.scrapeInterval=15s")
    assert all(one != other for one, other in zip(before, after, strict=True))


def images(rendered):
    return {each["image"] for thing in workloads(rendered) for each in containers(pod_of(thing))}


def test_a_registry_is_put_before_our_own_images_only():
    settings = ("images.registry=reg.example.org/team/", "replicas=2", "prometheus.enabled=true", "load.enabled=true")
    found = images(render(*settings))
    own = {image for image in found if "servestorm/" in image}
    assert own and all(image.startswith("reg.example.org/team/servestorm/") for image in own)
    assert {"tensorflow/serving:2.19.1", "haproxy:3.2.13", "prom/prometheus:v3.5.0"} == found - own


@each_values
def test_every_image_has_a_fixed_tag_or_a_digest(values):
    for image in images(render(values=values)):
        assert re.search(r"(:(?!latest$)[A-Za-z0-9][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", image), image


@pytest.mark.parametrize("name", ["airgap-values", "kind"])
def test_without_a_registry_every_image_is_our_own(name):
    (values,) = [path for path in VALUES if path.stem == name]
    found = images(render(values=values)) | images(
        render("prometheus.enabled=true", "balancer.mode=always", values=values)
    )
    assert found and all(image.startswith("servestorm/") for image in found)


def test_what_a_person_gives_pods_reaches_them():
    rendered = render(values=CI / "savedmodel-values.yaml")
    pod = rendered.server()
    template = rendered.get("Deployment")["spec"]["template"]["metadata"]
    assert template["labels"]["team"] == template["annotations"]["example.org/team"] == "vision"
    assert pod["tolerations"][0]["value"] == "serving"
    assert pod["priorityClassName"] == "high"
    assert pod["imagePullSecrets"] == [{"name": "registry-login"}]
    assert pod["serviceAccountName"] == "vision"
    assert rendered.all("ServiceAccount")[0]["metadata"]["annotations"] == {"example.org/role": "reader"}
    assert {each["imagePullPolicy"] for each in containers(pod)} == {"Always"}
    assert "nodeSelector" not in render("nodeSelector=null").server()
    assert "topologySpreadConstraints" not in pod and "topologySpreadConstraints" in render().server()
    assert rendered.get("PodDisruptionBudget")["spec"]["maxUnavailable"] == "25%"


def test_an_account_that_is_there_already_is_used_and_none_is_made():
    rendered = render("serviceAccount.create=false", "serviceAccount.name=mine")
    assert rendered.server()["serviceAccountName"] == "mine"
    assert not rendered.all("ServiceAccount")
