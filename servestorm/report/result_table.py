"""The results as formatted cells: the cards at the top, a row for each metric, and a row for each run."""

from __future__ import annotations

import itertools
from typing import Any

from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.results import Results
from servestorm.analysis.run import Run
from servestorm.plan.labels import ENGINE_LABELS, ENGINE_SHORT, number, p_text, spread
from servestorm.report import sentences, settings

_CARD_ROWS = (
    ("steady.p50", "median, steady load", "ms"),
    ("steady.p99", "p99, steady load", "ms"),
    ("bursty.p99", "p99, bursty load", "ms"),
    ("coldstart.total_s", "cold start", "s"),
    ("autoscaling.ready_s", "burst to a new replica", "s"),
)


def cards(results: Results) -> list[dict[str, Any]]:
    """The few numbers that a person asks for first."""
    rows = [(metric, term, unit) for key, term, unit in _CARD_ROWS if (metric := results.metric(key))]
    for start in ("scaling.images_per_s_x", "scaling.factor_x"):
        rows += [(m, m.label, m.unit) for m in results.metrics if m.key.startswith(start)][:1]
    if not rows:
        return []
    return [
        {
            "index": index % 3,
            "name": ENGINE_SHORT[engine],
            "aside": aside(engine),
            "figures": [
                (term, number(metric.values[engine].value), unit, invalid(metric.values[engine]))
                for metric, term, unit in rows
            ],
        }
        for index, engine in enumerate(results.engines)
    ]


def aside(engine: str) -> str:
    """What must stand beside an engine's short name: '(embedded, not TensorFlow Serving)'."""
    return ENGINE_LABELS[engine].removeprefix(ENGINE_SHORT[engine]).strip()


def invalid(value: Value) -> bool:
    """Whether there is a number, and it comes from INVALID runs."""
    return value.value is not None and not value.valid


def pairs(results: Results) -> list[dict[str, str]]:
    """Every pair of engines: its key in welch_p, and its column's title where there are several."""
    pairs = list(itertools.combinations(results.engines, 2))
    return [
        {"key": f"{a}|{b}", "label": f"{ENGINE_SHORT[a]} / {ENGINE_SHORT[b]}" if len(pairs) > 1 else ""}
        for a, b in pairs
    ]


def groups(results: Results) -> list[dict[str, Any]]:
    """The rows of the results by group of runs."""
    groups = []
    for group, metrics in itertools.groupby(results.metrics, key=lambda metric: metric.group):
        rows = [_row(results, metric) for metric in metrics]
        detail = settings.load_text(results, group)
        groups.append({"title": results.groups[group], "detail": detail, "rows": rows})
    return groups


def _row(results: Results, metric: Metric) -> dict[str, Any]:
    best = sentences.better(results, metric)
    return {
        "label": metric.label,
        "unit": metric.unit,
        "cells": [
            dict(zip(("text", "sd"), spread(metric.values[engine].value, metric.values[engine].sd), strict=True))
            | {"better": engine == best, "invalid": invalid(metric.values[engine]), "ci": _ci(metric.values[engine])}
            for engine in results.engines
        ],
        "ps": [p_text(metric.welch_p[pair["key"]]) for pair in pairs(results)],
    }


def _ci(value: Value) -> str:
    """'11.9 to 12.7', '11.9 to 12.7 (samples)' where runs do not tell, or ''."""
    if value.ci is None:
        return ""
    return " to ".join(map(number, value.ci)) + (" (samples)" if value.ci_from == "samples" else "")


def runs(results: Results) -> dict[str, Any]:
    """Every run with its own numbers."""
    head = ["Run", "State", "Requests", "p50", "p95", "p99", "mean", "images/s", "cold start, s"]
    return {"head": head, "rows": [_run(run) for run in results.runs]}


def _run(run: Run) -> dict[str, Any]:
    names = ("p50", "p95", "p99", "mean_ms", "images_per_s", "total_s")
    if run.state != "complete":
        kind, state = "bad", run.state
    elif run.valid is None:
        kind, state = "quiet", "complete"
    else:
        kind, state = ("good", "VALID") if run.valid else ("bad", "INVALID")
    requests = f"{run.requests:,}" if run.requests else "–"
    return {
        "id": run.id,
        "kind": kind,
        "state": state,
        "cells": [requests, *(number(run.numbers.get(name)) for name in names)],
        "reasons": run.reasons,
    }
