"""Prometheus's configuration, its rules, and Grafana's dashboard: valid, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from loadtests.samples.prometheus import GeneratorMetrics
from serving.engines.torchserve import HANDLER_COUNTERS
from serving.savedmodel_server.metrics import Metrics
from tests.deploy.compose.compose_files import COMPOSE
from tests.deploy.compose.promql import metrics_of, metrics_of_monitoring, queries
from tests.requirements_here import lacking
from tests.source_tree import ROOT

DASHBOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "servestorm.json").read_text())
HERE = Path(__file__).parent


@pytest.fixture
def promtool():
    if shutil.which("promtool") is None:
        lacking("prometheus", "promtool is not here: apt-get install prometheus")

    def run(*arguments, cwd):
        done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def names(exposition: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in exposition.splitlines() if line and not line.startswith("#")}


def declared(metrics: Metrics) -> set[str]:
    """What TensorFlow Serving's API exposes, before anything has happened: only the headers are there."""
    kinds = re.findall(r"# TYPE (\S+) (\w+)", metrics.page().decode())
    parts = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in kinds for part in parts[kind]}


def test_prometheus_takes_its_configuration_and_the_rules_raise_what_they_should(promtool):
    promtool("check", "config", "prometheus.yml", cwd=COMPOSE / "prometheus")
    promtool("test", "rules", "objectives.test.yml", cwd=HERE)


def test_every_rule_has_a_test_that_raises_it_and_one_that_does_not():
    groups = yaml.safe_load((COMPOSE / "prometheus" / "objectives.yml").read_text())["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    cases = [case for test in yaml.safe_load((HERE / "objectives.test.yml").read_text())["tests"]
             for case in test["alert_rule_test"]]  # fmt: skip
    for name, rule in rules.items():
        outcomes = {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == name}
        assert outcomes == {True, False}, name
        assert {"summary", "remedy"} == set(rule["annotations"])


def test_the_dashboard_is_whole():
    panels = DASHBOARD["panels"]
    assert DASHBOARD["uid"] == "servestorm"
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in shown)
    places = [(x, y) for panel in panels for x, y in squares(panel["gridPos"])]
    assert len(places) == len(set(places)), "two panels lie on one another"
    assert max(x for x, _ in places) < 24


def test_the_dashboard_turns_red_where_an_objective_is_missed():
    groups = yaml.safe_load((COMPOSE / "prometheus" / "objectives.yml").read_text())["groups"]
    limits = {rule["alert"]: float(rule["expr"].split()[-1]) for group in groups for rule in group["rules"]
              if re.search(r"> [\d.]+$", rule["expr"])}  # fmt: skip
    panels = {panel["title"]: panel for panel in DASHBOARD["panels"]}
    for title, alert in (
        ("p99", "LatencyObjectiveMissed"),
        ("Failures", "FailureObjectiveMissed"),
        ("Generator's lag, p99", "GeneratorLate"),
    ):
        steps = panels[title]["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[-1]["value"] == limits[alert], title


def squares(place):
    return [
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    ]


def test_the_dashboard_asks_the_data_source_that_is_provisioned():
    provisioned = yaml.safe_load((COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    asked = re.findall(r'"datasource": \{\s*"type": "(\w+)",\s*"uid": "(\w+)"', json.dumps(DASHBOARD))
    assert set(asked) == {(source["type"], source["uid"])}
    scraped = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


def test_every_query_parses(promtool, tmp_path):
    rules = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries())]
    assert len(rules) > 30
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", "rules.yml", cwd=tmp_path)


def test_every_metric_asked_for_is_one_that_our_servers_and_the_generator_have():
    registry = CollectorRegistry()
    registry.register(GeneratorMetrics(lambda: 0, lambda: 0))
    image = yaml.safe_load((ROOT / "serving" / "images" / "torchserve" / "metrics.yaml").read_text())
    torchserve = {metric["name"] for kind in image.values() if isinstance(kind, dict)
                  for found in kind.values() for metric in found}  # fmt: skip
    assert set(HANDLER_COUNTERS) <= torchserve
    known = names(generate_latest(registry).decode()) | declared(Metrics()) | torchserve | {"up", "ALERTS"}
    asked = metrics_of_monitoring()
    assert len(asked) > 20
    # HAProxy's are looked up where it runs: tests/system/test_compose.py
    assert {name for name in asked if not name.startswith("haproxy_")} <= known


def test_metric_names_are_found_in_a_query():
    assert metrics_of('sum by (le, job) (rate(a_b{c="d_e", f=~"g"}[1m])) / 1e6 > 0 or vector(0)') == {"a_b"}
    assert metrics_of("histogram_quantile(0.9, sum(rate(:t:s:x_bucket[$__rate_interval])))") == {":t:s:x_bucket"}
