"""The queries of the dashboard and of the rules, and the metrics that they name."""

from __future__ import annotations

import json
import re

import yaml

from tests.deploy.compose.compose_files import COMPOSE

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
