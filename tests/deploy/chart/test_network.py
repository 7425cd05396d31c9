"""Who reaches whom: Services, the balancer, and network policies."""

from __future__ import annotations

import http.client
import http.server
import ipaddress
import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from serving.ports import free_ports
from serving.probe import http_get
from tests.deploy.chart.rendering import CHART, VALUES, container, labels_of, pod_of, render, selects, workloads
from tests.requirements_here import lacking

pytestmark = pytest.mark.helm
CI = CHART / "ci"
PORTS = {"tfserving": (8501, 8500), "savedmodel": (8501, 8500), "torchserve": (8080, 7070)}


def behind(rendered, suffix=""):
    selector = {"matchLabels": rendered.get("Service", suffix)["spec"]["selector"]}
    (found,) = [thing["metadata"]["name"] for thing in workloads(rendered) if selects(selector, labels_of(thing))]
    return found


@pytest.mark.parametrize("engine", PORTS)
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_service_has_the_engine_s_ports_whatever_stands_behind_it(engine, replicas):
    rendered = render(f"engine={engine}", f"replicas={replicas}")
    rest, grpc = PORTS[engine]
    assert [(port["name"], port["port"]) for port in rendered.get("Service")["spec"]["ports"]] == [
        ("rest", rest),
        ("grpc", grpc),
    ]
    assert rendered.get("Service", "-headless")["spec"]["clusterIP"] == "None"
    assert behind(rendered, "-headless") == "r-servestorm"


@pytest.mark.parametrize(
    ("settings", "balanced"),
    [
        ((), False),
        (("replicas=2",), True),
        (("autoscaling.enabled=true",), True),
        (("balancer.mode=always",), True),
        (("replicas=5", "balancer.mode=never"), False),
    ],
)
def test_requests_are_balanced_one_by_one_wherever_there_can_be_two_replicas(settings, balanced):
    rendered = render(*settings)
    assert behind(rendered) == ("r-servestorm-balancer" if balanced else "r-servestorm")
    for kind in ("Deployment", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"):
        assert rendered.has(kind, "-balancer") is balanced


@pytest.fixture
def haproxy():
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        lacking("haproxy", "haproxy is not here: apt-get install haproxy")
    return program


def configuration(*settings):
    return render("balancer.mode=always", *settings).get("ConfigMap", "-balancer")["data"]["haproxy.cfg"]


@pytest.mark.parametrize("engine", PORTS)
def test_haproxy_takes_the_balancer_s_configuration(engine, haproxy, tmp_path):
    (tmp_path / "haproxy.cfg").write_text(configuration(f"engine={engine}"))
    done = subprocess.run(
        [haproxy, "-c", "-f", "haproxy.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("engine", PORTS)
def test_the_balancer_finds_replicas_by_the_headless_name_and_looks_whether_they_are_alive(engine):
    text = configuration(f"engine={engine}", "balancer.slots=7", "clusterDomain=example.internal")
    rest, grpc = PORTS[engine]
    host = "r-servestorm-headless.vision.svc.example.internal"
    assert f"server-template replica 7 {host}:{rest}\n" in text
    assert f"server-template replica 7 {host}:{grpc} proto h2 check-proto h1 port {rest}\n" in text
    assert text.count("/ping" if engine == "torchserve" else "/v1/models/cnn ") == 2
    # a change of what is served would reach one replica only
    assert ("http-request deny" in text) is (engine != "torchserve")


@contextmanager
def replica(dies):
    """A server that answers looks and, unless it dies of them, requests; gives its port and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer()

        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.close_connection = dies
            if not dies:
                self.answer()

        def answer(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


@contextmanager
def balancing(haproxy, folder, ports):
    """HAProxy with the chart's configuration before replicas with these ports; gives its own port."""
    front, look = free_ports(2)
    servers = "\n".join(f"    server replica{port} 127.0.0.1:{port}" for port in ports)
    text = re.sub(r"^resolvers .*?\n\n", "", configuration("engine=savedmodel"), flags=re.MULTILINE | re.DOTALL)
    text = text.replace(" resolvers cluster init-addr none", "")
    text = re.sub(r"^listen grpc.*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ +server-template .*$", servers, text, flags=re.MULTILINE)
    text = text.replace("bind :8501", f"bind 127.0.0.1:{front}").replace("bind :8404", f"bind 127.0.0.1:{look}")
    (folder / "haproxy.cfg").write_text(text)
    with subprocess.Popen([haproxy, "-db", "-f", "haproxy.cfg"], cwd=folder, stderr=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + 20
        while http_get(f"http://127.0.0.1:{look}/ready") is None:
            assert process.poll() is None and time.monotonic() < deadline_s, text
            time.sleep(0.02)
        try:
            yield front
        finally:
            process.kill()


def test_the_balancer_asks_another_replica_where_one_dies_under_a_request(haproxy, tmp_path):
    """Also where the request's body comes after its head, as most clients send it."""
    with (
        replica(dies=True) as (dying, asked),
        replica(dies=False) as (well, answered),
        balancing(haproxy, tmp_path, [dying, well]) as port,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for number in range(4):
            connection.putrequest("POST", "/v1/models/cnn:predict")
            connection.putheader("Content-Length", "5")
            connection.endheaders()
            time.sleep(0.05)  # HAProxy sees the head alone
            connection.send(b"body%d" % number)
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b"")
        connection.close()
    assert asked, "no request reached the replica that dies"
    assert sorted(answered) == [b"body%d" % number for number in range(4)]


def test_the_balancer_has_a_thread_for_each_whole_cpu():
    assert "nbthread 1\n" in configuration()
    assert "nbthread 2\n" in configuration("balancer.resources.limits.cpu=2500m")


def test_the_balancer_finishes_what_is_under_way_before_it_ends():
    pod = pod_of(render("balancer.mode=always").get("Deployment", "-balancer"))
    each = container(pod, "haproxy")
    assert each["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", "sleep 10 && kill -USR1 1 && sleep 30"]
    assert pod["terminationGracePeriodSeconds"] > 10 + 30


def policy(rendered, suffix=""):
    return rendered.get("NetworkPolicy", suffix)["spec"]


def who(rule):
    """The components that a rule lets in; None is everybody."""
    if "from" not in rule:
        return None
    found = set()
    for peer in rule["from"]:
        selector = peer.get("podSelector")
        if selector is None:
            found.add("namespaces" if "namespaceSelector" in peer else "addresses")
        elif not selector:
            found.add("namespace")
        elif "app.kubernetes.io/component" in selector.get("matchLabels", {}):
            found.add(selector["matchLabels"]["app.kubernetes.io/component"])
        else:
            found |= {value for each in selector["matchExpressions"] for value in each["values"]}
    return found


def ingress(rendered, port, suffix=""):
    """Who may reach a port by any rule."""
    rules = [rule for rule in policy(rendered, suffix)["ingress"] if any(p["port"] == port for p in rule["ports"])]
    found = [who(rule) for rule in rules]
    return None if None in found else set().union(*found)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_pod_is_under_one_policy_whose_ports_it_has(values):
    rendered = render(values=values)
    if not rendered.all("NetworkPolicy"):
        assert "networkPolicy: {enabled: false}" in values.read_text()
        return
    for thing in workloads(rendered):
        labels = labels_of(thing)
        covering = [each for each in rendered.all("NetworkPolicy") if selects(each["spec"]["podSelector"], labels)]
        assert len(covering) == 1, thing["metadata"]["name"]
        assert covering[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for each in rendered.all("NetworkPolicy"):
        pods = [thing for thing in workloads(rendered) if selects(each["spec"]["podSelector"], labels_of(thing))]
        named = {port["name"] for pod in pods for c in pod_of(pod)["containers"] for port in c.get("ports", [])}
        asked = {port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]}
        assert asked <= named


def test_a_server_is_reached_from_its_namespace_and_reaches_nobody():
    rendered = render()
    assert ingress(rendered, "rest") == ingress(rendered, "grpc") == {"namespace"}
    assert policy(rendered)["policyTypes"] == ["Ingress", "Egress"]
    assert policy(rendered)["egress"] == []


def test_who_is_named_takes_the_namespace_s_place_and_the_release_s_own_parts_come_along():
    peer = "networkPolicy.from[0].namespaceSelector.matchLabels.team=vision"
    alone, behind_haproxy = render(peer), render(peer, "replicas=2")
    clients = {"namespaces", "load", "load-worker", "load-agent", "test"}
    assert ingress(alone, "rest") == clients
    assert ingress(behind_haproxy, "rest") == {*clients, "balancer"}
    assert ingress(behind_haproxy, "front-grpc", "-balancer") == clients


@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort"])
def test_a_service_that_is_reached_from_outside_is_open_unless_somebody_is_named(kind):
    assert ingress(render(f"service.type={kind}"), "rest") is None
    named = render(f"service.type={kind}", "networkPolicy.from[0].ipBlock.cidr=10.0.0.0/8")
    assert "addresses" in ingress(named, "rest")


def test_metrics_are_read_by_whom_they_are_for():
    assert ingress(render("engine=torchserve", "prometheus.enabled=true"), "metrics") == {"prometheus"}
    assert ingress(render("engine=torchserve", "monitoring.podMonitor.enabled=true"), "metrics") == {"namespaces"}
    assert not any("metrics" in str(rule) for rule in policy(render("engine=torchserve"))["ingress"])
    balanced = render("replicas=2", "prometheus.enabled=true")
    assert ingress(balanced, "statistics", "-balancer") == {"prometheus"}


def test_a_download_may_ask_for_names_and_reach_web_ports_and_the_url_s_own():
    rules = policy(render(values=CI / "models-values.yaml"))["egress"]
    open_to = {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}
    # 988 is GKE's, for the identity with which a bucket is read
    assert open_to == {("UDP", 53), ("TCP", 53), ("TCP", 80), ("TCP", 443), ("TCP", 8443), ("TCP", 988)}


def reachable(rendered, suffix, address, port):
    """Whether a policy lets its pods reach an address outside of the cluster."""

    def within(block):
        network = ipaddress.ip_network(block["cidr"])
        return ip in network and not any(ip in ipaddress.ip_network(part) for part in block.get("except", []))

    ip = ipaddress.ip_address(address)
    for rule in policy(rendered, suffix)["egress"]:
        ports = [each["port"] for each in rule.get("ports", [{"port": port}])]
        blocks = [peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer]
        if port in ports and ("to" not in rule or any(map(within, blocks))):
            return True
    return False


METADATA = "169.254.169.254"


@pytest.mark.parametrize("suffix", ["", "-load"])
def test_a_download_reaches_every_address_but_the_link_local_ones(suffix):
    def release(*settings):
        url = ("models[0].name=cnn", "models[0].source.url.url=https://h/cnn.tar")
        return render("load.enabled=true", *url, f"models[0].source.url.sha256={'0' * 64}", *settings)

    for address in ("93.184.215.14", "10.1.2.3", "2606:2800::1"):
        assert reachable(release(), suffix, address, 443), address
    for address in (METADATA, "169.254.170.23", "fe80::1"):
        assert not reachable(release(), suffix, address, 80), address
        assert reachable(release("download.allowLinkLocal=true"), suffix, address, 80), address
    # a block of addresses covers no pods in some networks, and the file server may be one
    (rule,) = [rule for rule in policy(release(), suffix)["egress"] if {"namespaceSelector": {}} in rule.get("to", [])]
    assert {port["port"] for port in rule["ports"]} == {80, 443}


def test_a_bucket_is_read_with_the_identity_that_its_cloud_gives_the_pod():
    rendered = render(values=CI / "models-values.yaml")
    assert reachable(rendered, "", METADATA, 80) and reachable(rendered, "", "169.254.170.23", 80)
    assert reachable(rendered, "", "169.254.169.252", 988)
    assert not reachable(render(values=CI / "airgap-values.yaml"), "", METADATA, 80)


def pods_reached(rendered, suffix, port):
    """The components that a policy lets its pods reach at a port; None is everybody."""
    rules = [rule for rule in policy(rendered, suffix)["egress"]
             if any(each["port"] == port for each in rule.get("ports", [{"port": port}]))]  # fmt: skip
    found = [who({"from": rule["to"]} if "to" in rule else {}) for rule in rules]
    return None if None in found else set().union(*found)


@pytest.mark.parametrize("engine", PORTS)
@pytest.mark.parametrize("suffix", ["-load", "-test"])
def test_load_and_test_reach_names_and_this_release_and_nobody_else(engine, suffix):
    rendered = render(f"engine={engine}", "replicas=2", "load.enabled=true")
    rest, grpc = PORTS[engine]
    for port in (rest, grpc):
        assert pods_reached(rendered, suffix, port) == {"server", "balancer"}
        assert pods_reached(render(f"engine={engine}", "load.enabled=true"), suffix, port) == {"server"}
    for port in (80, 443, 8404, 6443):
        assert pods_reached(rendered, suffix, port) == set()
    (names,) = [rule for rule in policy(rendered, suffix)["egress"] if {"protocol": "UDP", "port": 53} in rule["ports"]]
    assert {"protocol": "TCP", "port": 53} in names["ports"] and "to" not in names


def test_what_leaves_one_pod_is_let_into_the_other():
    """Ports are named by what lets in, and numbered by what lets out."""
    rendered = render("engine=torchserve", "replicas=2", "load.enabled=true", "prometheus.enabled=true")
    pods = {labels_of(thing)["app.kubernetes.io/component"]: thing for thing in workloads(rendered)}
    for source, suffix in (("load-worker", "-load"), ("test", "-test"), ("prometheus", "-prometheus")):
        for rule in policy(rendered, suffix)["egress"]:
            for target in who({"from": rule["to"]}) if "to" in rule else ():
                named = {each["containerPort"]: each["name"] for each in pod_of(pods[target])["containers"][0]["ports"]}
                own = "" if target == "server" else f"-{target}"
                for port in rule["ports"]:
                    let_in = ingress(rendered, named[port["port"]], own) | ingress(rendered, port["port"], own)
                    assert {source, "namespace"} & let_in, (source, target, port)


@pytest.mark.parametrize(("mode", "master"), [("web", "load"), ("job", "load"), ("agents", "load-agent")])
def test_workers_reach_their_master_and_agents_each_other(mode, master):
    rendered = render("load.enabled=true", f"load.mode={mode}", "load.workers=2")
    assert pods_reached(rendered, "-load", 5557) == {master}
    assert pods_reached(rendered, "-test", 5557) == set()


def test_a_target_of_another_s_is_reached_wherever_it_lies_unless_somebody_is_named():
    for setting in ("load.target=http://elsewhere:80", "load.grpcTarget=elsewhere:9"):
        assert reachable(render("load.enabled=true", setting), "-load", "10.1.2.3", 8080), setting
    peer = "networkPolicy.loadTo[0].ipBlock.cidr=10.0.0.0/8"
    named = render("load.enabled=true", "load.target=http://elsewhere", peer)
    assert reachable(named, "-load", "10.1.2.3", 8080) and not reachable(named, "-load", "11.1.2.3", 8080)
    assert pods_reached(named, "-load", 8501) == {"server", "addresses"}


def test_prometheus_reaches_what_it_scrapes_and_where_it_discovers_pods_the_api_server():
    rendered = render("engine=torchserve", "replicas=2", "load.enabled=true", "prometheus.enabled=true")
    for port, component in ((8082, "server"), (8404, "balancer"), (9646, "load")):
        assert pods_reached(rendered, "-prometheus", port) == {component}
    assert pods_reached(rendered, "-prometheus", 8080) == set()
    for port in (443, 6443):
        assert reachable(rendered, "-prometheus", "10.96.0.1", port)
    for settings in (("prometheus.discovery=dns",), ("networkPolicy.apiServer.cidrs[0]=10.0.0.0/24",)):
        assert not reachable(render("prometheus.enabled=true", *settings), "-prometheus", "10.96.0.1", 443)
    own = ("networkPolicy.apiServer.cidrs[0]=10.0.0.0/24", "networkPolicy.apiServer.ports[0]=16443")
    assert reachable(render("prometheus.enabled=true", *own), "-prometheus", "10.0.0.1", 16443)


def test_the_balancer_reaches_the_servers_and_the_names_and_nobody_else():
    names, servers = policy(render("replicas=2"), "-balancer")["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert who({"from": servers["to"]}) == {"server"}
    assert {port["port"] for port in servers["ports"]} == {"rest", "grpc"}


def test_locust_s_web_ui_listens_inside_its_pod_only():
    rendered = render("load.enabled=true")
    each = container(pod_of(rendered.get("Deployment", "-load")), "load")
    assert {"name": "LOCUST_WEB_HOST", "value": "127.0.0.1"} in each["env"]
    assert not any(port["port"] == 8089 for service in rendered.all("Service") for port in service["spec"]["ports"])
    assert ingress(rendered, "master", "-load") == {"load-worker"}


def test_an_agent_s_master_listens_to_the_other_agents_only():
    rendered = render("load.enabled=true", "load.mode=agents")
    assert ingress(rendered, "master", "-load") == {"load-agent"}
    agents = labels_of(rendered.get("Deployment", "-load-agent"))
    kinds = policy(rendered, "-load")["podSelector"]["matchExpressions"][0]["values"]
    assert agents["app.kubernetes.io/component"] in kinds


def test_what_a_cloud_s_load_balancer_is_told_stands_at_the_service():
    rendered = render(values=CI / "monitoring-values.yaml")
    service = rendered.get("Service")
    assert service["metadata"]["annotations"] == {"example.org/internal": "true"}
    assert service["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]
    assert "annotations" not in rendered.get("Service", "-headless")["metadata"]
