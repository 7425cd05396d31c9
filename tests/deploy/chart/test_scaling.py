"""Autoscaling by CPU and by rates, and what monitoring is given."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from loadtests.samples.prometheus import GeneratorMetrics
from serving.savedmodel_server.metrics import Metrics
from tests.deploy.chart.rendering import CHART, container, labels_of, pod_of, render, selects
from tests.deploy.compose.promql import evaluate, metrics_of
from tests.requirements_here import lacking

pytestmark = pytest.mark.helm
CI = CHART / "ci"
WINDOW = "30s"
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
KUBELET = {"container_cpu_usage_seconds_total", "container_cpu_cfs_throttled_seconds_total"}
"""Of cAdvisor, for which the dashboard says that they may be missing."""


@pytest.fixture
def promtool(tmp_path):
    if shutil.which("promtool") is None:
        lacking("prometheus", "promtool is not here: apt-get install prometheus")

    def check(kind, document):
        (tmp_path / "file.yml").write_text(document if isinstance(document, str) else json.dumps(document))
        options = ["--lint=none"] if kind == "rules" else ["--syntax-only"]
        command = ["promtool", "check", kind, *options, "file.yml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


def metrics_of_ours() -> set[str]:
    """Every series name that a server or the generator has."""
    parts = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count")}
    declared = re.findall(r"# TYPE (\S+) (\w+)", Metrics().page().decode())
    found = {name + part for name, kind in declared for part in parts[kind]}
    registry = CollectorRegistry()
    registry.register(GeneratorMetrics(lambda: 0, lambda: 0))
    lines = generate_latest(registry).decode().splitlines()
    found |= {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}
    torchserve = yaml.safe_load((CHART.parents[2] / "serving" / "images" / "torchserve" / "metrics.yaml").read_text())
    return found | {
        m["name"] for kind in ("ts_metrics", "model_metrics") for of in torchserve[kind].values() for m in of
    }


def autoscaler(*settings, **where):
    return render(*settings, **where).get("HorizontalPodAutoscaler")["spec"]


def test_by_default_cpu_decides_and_the_deployment_leaves_the_number_to_the_autoscaler():
    rendered = render("autoscaling.enabled=true")
    assert rendered.get("HorizontalPodAutoscaler")["apiVersion"] == "autoscaling/v2"
    (metric,) = rendered.get("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert "replicas" not in rendered.get("Deployment")["spec"]
    assert render("replicas=3").get("Deployment")["spec"]["replicas"] == 3
    assert not render("replicas=3").all("HorizontalPodAutoscaler")
    target = rendered.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", rendered.get("Deployment")["metadata"]["name"])


def test_it_grows_at_once_and_shrinks_one_by_one():
    behavior = autoscaler("autoscaling.enabled=true")["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleUp"]["selectPolicy"] == "Max"
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }


def test_rates_are_asked_for_under_the_names_that_the_adapter_s_rules_give_them():
    rendered = render(values=CI / "autoscaling-rates-values.yaml")
    asked = {
        metric["pods"]["metric"]["name"]: metric["pods"]["target"]
        for metric in autoscaler(values=CI / "autoscaling-rates-values.yaml")["metrics"]
    }
    assert asked == {
        "torchserve_requests_in_flight": {"type": "AverageValue", "averageValue": "2500m"},
        "torchserve_requests_queued": {"type": "AverageValue", "averageValue": "1000m"},
        "torchserve_requests_per_second": {"type": "AverageValue", "averageValue": "120000m"},
    }
    assert set(asked) <= {rule["name"]["as"] for rule in rules(rendered)}
    tensorflow = autoscaler("autoscaling.enabled=true", "autoscaling.targets.requestsInFlight=2")
    names = [metric["pods"]["metric"]["name"] for metric in tensorflow["metrics"] if metric["type"] == "Pods"]
    assert names == ["tensorflow_requests_in_flight"]


def rules(rendered):
    return yaml.safe_load(rendered.get("ConfigMap", "-adapter-rules")["data"]["config.yaml"])["rules"]


@pytest.fixture
def adapter_rules():
    return rules(render(values=CI / "autoscaling-rates-values.yaml"))


def asked_by(rule):
    """The query that prometheus-adapter makes of a rule for two pods."""
    series = re.match(r"([\w:]+)\{", rule["seriesQuery"])[1]
    query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="vision",pod=~"a|b"')
    assert "<<" not in query
    return series, query


def test_the_adapter_s_rules_are_rates_of_counters_that_the_servers_have(adapter_rules, promtool):
    known = metrics_of_ours()
    assert len({rule["name"]["as"] for rule in adapter_rules}) == len(adapter_rules) == 6
    queries = []
    for rule in adapter_rules:
        series, query = asked_by(rule)
        assert series in known
        rate, failed = (
            rf"sum by \(pod\) \(rate\({name}\{{[^}}]*\}}\[{WINDOW}\]\)\)" for name in (series, "Requests5XX")
        )
        assert re.fullmatch(rf"{rate}( / 1e6| - {failed} or {rate})?", query)
        assert metrics_of(query) <= known
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
        assert re.sub(rule["name"]["matches"], rule["name"]["as"], series) == rule["name"]["as"]
        queries += [query, rule["seriesQuery"]]
    promtool(
        "rules", {"groups": [{"name": "a", "rules": [{"record": f"q:{i}", "expr": q} for i, q in enumerate(queries)]}]}
    )


def value_of(rules, name, counters, folder):
    """What the adapter would read of a rule for pod a, from counters: {(series, labels): growth a second}."""
    _, query = asked_by(next(rule for rule in rules if rule["name"]["as"] == name))
    of_pod = {(series, f'namespace="vision",pod="a",{labels}'): rate for (series, labels), rate in counters.items()}
    return evaluate(query, '{pod="a"}', of_pod, folder)


def test_microseconds_of_latency_a_second_become_requests_under_way(adapter_rules, tmp_path):
    """3 requests of 0.5 s each second are 1.5 under way; the questions of a probe are not among them."""
    series = ":tensorflow:serving:request_latency_sum"
    counters = {
        (series, 'API="Predict",entrypoint="REST"'): 1_000_000,
        (series, 'API="Predict",entrypoint="GRPC"'): 500_000,
        (series, 'API="",entrypoint="REST"'): 900_000,
    }
    assert value_of(adapter_rules, "tensorflow_requests_in_flight", counters, tmp_path) == pytest.approx(1.5)


def test_a_probe_of_tensorflow_serving_scales_no_fleet(adapter_rules, tmp_path):
    """A readiness probe a second asks for the metadata: TensorFlow Serving counts it, and it is no answer."""
    series = ":tensorflow:serving:request_latency_count"
    counters = {(series, 'API="predict",entrypoint="REST"'): 20, (series, 'API="",entrypoint="REST"'): 1}
    assert value_of(adapter_rules, "tensorflow_requests_per_second", counters, tmp_path) == pytest.approx(20)
    for rule in adapter_rules:
        only = re.search(r'API!=""', rule["seriesQuery"]), re.search(r'API!=""', rule["metricsQuery"])
        assert all(only) == any(only) == (":request_latency" in rule["seriesQuery"])


def test_what_torchserve_refuses_is_no_answer(adapter_rules, tmp_path):
    asked = ("ts_inference_requests_total", 'model_name="cnn"')
    refused = ("Requests5XX", 'Level="Host"')
    assert value_of(adapter_rules, "torchserve_requests_per_second", {asked: 20}, tmp_path) == pytest.approx(20)
    both = value_of(adapter_rules, "torchserve_requests_per_second", {asked: 20, refused: 12}, tmp_path)
    assert both == pytest.approx(8)


def test_the_adapter_s_rules_come_where_autoscaling_needs_them_or_on_demand():
    assert not render("autoscaling.enabled=true").has("ConfigMap", "-adapter-rules")
    assert render("monitoring.adapterRules.enabled=true").has("ConfigMap", "-adapter-rules")
    needed = ("autoscaling.enabled=true", "autoscaling.targets.requestsPerSecond=9")
    assert render(*needed).has("ConfigMap", "-adapter-rules")
    assert not render(*needed, "monitoring.adapterRules.enabled=false").has("ConfigMap", "-adapter-rules")


SUFFIXES = {"server": "", "balancer": "-balancer", "load": "-load"}


def scraped(*settings):
    """A rendering with all that Prometheus looks at, its configuration, and its jobs by name."""
    rendered = render("prometheus.enabled=true", "replicas=2", "load.enabled=true", *settings)
    text = rendered.get("ConfigMap", "-prometheus")["data"]["prometheus.yml"]
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert set(jobs) == set(SUFFIXES)
    return rendered, text, jobs


def ports_of(deployment):
    return {port["name"]: port["containerPort"] for each in pod_of(deployment)["containers"] for port in each["ports"]}


@pytest.mark.parametrize("engine", ["tfserving", "torchserve"])
def test_prometheus_finds_pods_by_labels_and_ports_that_they_have_and_names_them(engine, promtool):
    rendered, text, jobs = scraped(f"engine={engine}")
    # Debian's promtool knows no discovery by Kubernetes: the rest of the file is its to judge
    whole = yaml.safe_load(text)
    for job in whole["scrape_configs"]:
        (found,) = job.pop("kubernetes_sd_configs")
        assert set(found) == {"role", "namespaces", "selectors"}
        assert (found["role"], found["namespaces"]) == ("pod", {"own_namespace": True})
    promtool("config", whole)
    for name, suffix in SUFFIXES.items():
        deployment = rendered.get("Deployment", suffix)
        keep = next(rule["regex"] for rule in jobs[name]["relabel_configs"] if rule.get("action") == "keep")
        assert keep in ports_of(deployment)
        (selector,) = jobs[name]["kubernetes_sd_configs"][0]["selectors"]
        wanted = dict(pair.split("=") for pair in selector["label"].split(","))
        assert wanted.items() <= labels_of(deployment).items()
        labels = {rule["target_label"] for rule in jobs[name]["relabel_configs"] if "target_label" in rule}
        assert {"namespace", "pod"} <= labels  # what the adapter's rules ask for


@pytest.mark.parametrize("engine", ["tfserving", "torchserve"])
def test_prometheus_without_rights_finds_the_same_ports_behind_headless_services(engine, promtool):
    rendered, text, jobs = scraped(f"engine={engine}", "prometheus.discovery=dns")
    promtool("config", text)
    by_pod = scraped(f"engine={engine}")[2]
    for name, suffix in SUFFIXES.items():
        (found,) = jobs[name]["dns_sd_configs"]
        service = rendered.get("Service", "-headless" if name == "server" else suffix)
        assert found["names"] == [f"{service['metadata']['name']}.vision.svc.cluster.local"]
        assert service["spec"]["clusterIP"] == "None"
        keep = next(rule["regex"] for rule in by_pod[name]["relabel_configs"] if rule.get("action") == "keep")
        assert found["port"] == ports_of(rendered.get("Deployment", suffix))[keep]
        assert found["port"] in {port["port"] for port in service["spec"]["ports"]}
        assert jobs[name]["metrics_path"] == by_pod[name]["metrics_path"]
    pod = pod_of(rendered.get("Deployment", "-prometheus"))
    assert pod["automountServiceAccountToken"] is False
    assert not rendered.all("Role") and not rendered.all("RoleBinding")


@pytest.mark.parametrize(
    ("engine", "port", "path"),
    [("tfserving", "rest", "/monitoring/prometheus/metrics"), ("torchserve", "metrics", "/metrics")],
)
def test_the_operator_s_monitors_find_the_servers_once_each(engine, port, path):
    rendered = render(
        f"engine={engine}", "replicas=2", "monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true"
    )
    service = rendered.get("ServiceMonitor")["spec"]
    found = [each for each in rendered.all("Service") if selects(service["selector"], each["metadata"]["labels"])]
    assert [each["metadata"]["name"] for each in found] == ["r-servestorm-headless"]
    assert [(each["port"], each["path"]) for each in service["endpoints"]] == [(port, path)]
    assert port in {each["name"] for each in found[0]["spec"]["ports"]}
    pods = rendered.get("PodMonitor")["spec"]
    for suffix in ("", "-balancer"):
        deployment = rendered.get("Deployment", suffix)
        assert selects(pods["selector"], labels_of(deployment))
        ports = {each["name"] for c in pod_of(deployment)["containers"] for each in c["ports"]}
        assert len(ports & {each["port"] for each in pods["podMetricsEndpoints"]}) == 1
    assert service["namespaceSelector"] == pods["namespaceSelector"] == {"matchNames": ["vision"]}


def test_the_operator_s_labels_reach_the_monitors():
    rendered = render(values=CI / "monitoring-values.yaml")
    for kind in ("ServiceMonitor", "PodMonitor"):
        assert rendered.get(kind)["metadata"]["labels"]["release"] == "prometheus"


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    values = {"$__rate_interval": "1m", "$namespace": "vision", "$release": "r"}
    for name, value in values.items():
        found = [query.replace(name, value) for query in found]
    return found


def test_every_query_of_the_dashboard_parses_and_is_about_a_metric_that_there_is(promtool):
    found = queries()
    assert len(found) > 20
    promtool(
        "rules", {"groups": [{"name": "d", "rules": [{"record": f"q:{i}", "expr": q} for i, q in enumerate(found)]}]}
    )
    asked = {name for query in found for name in metrics_of(query)}
    assert {name for name in asked if not name.startswith("haproxy_")} <= metrics_of_ours() | KUBELET
    assert all('namespace="vision",pod=~"r.*"' in query for query in found)


def test_the_dashboard_is_whole_and_reaches_grafana_unchanged():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["targets"] for panel in panels if panel["type"] != "row")
    places = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(places) == len(set(places)) and max(x for x, _ in places) < 24
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"} <= variables
    given = render(values=CI / "monitoring-values.yaml").get("ConfigMap", "-dashboard")
    assert json.loads(given["data"]["servestorm.json"]) == DASHBOARD
    assert given["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert given["metadata"]["annotations"]["grafana_folder"] == "Models"


def test_throttling_is_of_the_container_that_serves():
    assert container(render().server(), "server")
    assert any('container="server"' in query for query in queries() if "throttled" in query)
