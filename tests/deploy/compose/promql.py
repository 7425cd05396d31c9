"""The queries of the dashboard and of the rules, and the metrics that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.deploy.compose.compose_files import COMPOSE
from tests.requirements_here import lacking

_NOT_METRICS = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)')
_NAME = re.compile(r"(?<![\w.])[A-Za-z_:][\w:]*+(?!\s*\()")
_WORDS = {"by", "without", "or", "and", "unless", "on", "ignoring", "bool", "offset"}
_INTERVAL = "15s"


def queries() -> list[str]:
    """Every query of the dashboard and every rule's expression, Grafana's interval filled in."""
    dashboard = json.loads((COMPOSE / "grafana" / "dashboards" / "servestorm.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    groups = yaml.safe_load((COMPOSE / "prometheus" / "objectives.yml").read_text())["groups"]
    found += [rule["expr"] for group in groups for rule in group["rules"]]
    return [query.replace("$__rate_interval", _INTERVAL) for query in found]


def metrics_of(query: str) -> set[str]:
    """The metrics that a query names."""
    # Selectors may stand inside of strings and the other way round, so the strings go first.
    bare = _NOT_METRICS.sub(" ", re.sub(r'"[^"]*"', '""', query))
    return set(_NAME.findall(bare)) - _WORDS


def metrics_of_monitoring() -> set[str]:
    """The metrics that the dashboard and the rules name."""
    return {name for query in queries() for name in metrics_of(query)}


def evaluate(query: str, labels: str, counters: Mapping[tuple[str, str], float], folder: Path) -> float:
    """Prometheus' answer with these labels to a query, from counters: {(series, their labels): growth a second}.

    promtool only tells whether a value is the expected one, and of a wrong expectation what the right one is.
    """
    if shutil.which("promtool") is None:
        lacking("prometheus", "promtool is not here: apt-get install prometheus")
    series = [{"series": f"{name}{{{own}}}", "values": f"0+{5 * rate}x40"} for (name, own), rate in counters.items()]
    expected = {"expr": query, "eval_time": "2m", "exp_samples": [{"labels": labels, "value": -1}]}
    test = {"interval": "5s", "input_series": series, "promql_expr_test": [expected]}
    (folder / "case.json").write_text(json.dumps({"rule_files": [], "evaluation_interval": "5s", "tests": [test]}))
    command = ["promtool", "test", "rules", "case.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    told = re.search(rf"got:\s*{re.escape(labels)} (\S+)$", done.stdout + done.stderr, re.MULTILINE)
    assert told, done.stdout + done.stderr
    return float(told[1])
