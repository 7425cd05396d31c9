"""report.html, report.md and results.json from a run directory: a pure function of what lies there."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import jinja2

from servestorm import __version__
from servestorm.analysis.groups import runs_already
from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.results import Results, compute
from servestorm.analysis.run import Run
from servestorm.plan.cells import batching_label
from servestorm.plan.labels import ENGINE_LABELS, ENGINE_SHORT, number, p_text, spread
from servestorm.plan.study_plan import BatchingPlan
from servestorm.report import sentences
from servestorm.report.figures import figures
from servestorm.report.markdown import markdown
from servestorm.rundir.files import write_json, write_text
from servestorm.rundir.record import read_run

_HERE = Path(__file__).parent


def write_report(run: Path) -> tuple[Results, Path]:
    """Compute the results of a run directory, write results.json, report.html and report.md into it.

    Gives the results and the path of report.html.

    Raises StudyError where the directory is not a run, or is broken.
    """
    results = compute(read_run(run))
    write_json(run / "results.json", results.as_json())
    facts = page_facts(results)
    path = run / "report.html"
    write_text(path, render(facts))
    write_text(run / "report.md", markdown(facts))
    return results, path


def render(facts: dict[str, Any]) -> str:
    """The self-contained page of what page_facts() gives: no scripts, nothing from elsewhere."""
    return _template().render(css=(_HERE / "report.css").read_text(), **facts)


@functools.cache
def _template() -> jinja2.Template:
    """Compiled once a process: that takes longer than to fill it in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def page_facts(results: Results) -> dict[str, Any]:
    """Everything that the page and its Markdown twin say, in words and formatted numbers."""
    shown = [figure for figure in figures(results) if figure["parts"]]
    fixed = [("validity", "Validity"), ("environment", "Environment"), ("method", "How to read this")]
    return {
        "version": __version__,
        "id": results.id,
        "headline": sentences.headline(results),
        "meta": _meta(results),
        "badges": _badges(results),
        "sections": [
            ("summary", "In short"),
            ("results", "Results"),
            *((f["id"], f["title"]) for f in shown),
            *fixed,
        ],
        "cards": _cards(results),
        "summary": sentences.summary(results),
        "doubts": sentences.doubts(results),
        "engines": [{"name": ENGINE_SHORT[engine], "aside": _aside(engine)} for engine in results.engines],
        "pairs": _pairs(results),
        "groups": _groups(results),
        "figures": shown,
        "validity": sentences.validity(results),
        "runs": _runs(results),
        "environment": _environment(results),
    }


def _meta(results: Results) -> list[str]:
    plan = results.study["plan"]
    protocols = " and ".join({"rest": "REST", "grpc": "gRPC"}[protocol] for protocol in plan["protocol"])
    images = " or ".join(map(str, plan["images_per_request"]))
    return [
        results.study["started_at"].replace("T", " ").replace("+00:00", " UTC"),
        *(
            f"{model.get('name', '?')}, trained on {model['dataset']}"
            if model.get("dataset")
            else str(model.get("name"))
            for model in results.models
        ),
        f"{protocols}, payload {' and '.join(plan['payload'])}",
        f"{images} image{'' if images == '1' else 's'} a request",
    ]


def _badges(results: Results) -> list[dict[str, str]]:
    badges = []
    if results.state != "complete":
        badges.append({"kind": "bad", "text": results.state})
    invalid = sum(run.valid is False for run in results.runs)
    judged = sum(run.valid is not None for run in results.runs)
    if invalid:
        badges.append({"kind": "bad", "text": f"{invalid} of {judged} load runs INVALID"})
    elif judged:
        badges.append({"kind": "good", "text": f"all {judged} load runs VALID"})
    parities = [model["parity"]["status"] for model in results.models if model.get("parity")]
    if parities:
        proved = set(parities) == {"proved"}
        text = "artifacts proved equal" if proved else next(status for status in parities if status != "proved")
        badges.append({"kind": "good" if proved else "bad", "text": text})
    return badges


_CARD_ROWS = (
    ("steady.p50", "median, steady load", "ms"),
    ("steady.p99", "p99, steady load", "ms"),
    ("bursty.p99", "p99, bursty load", "ms"),
    ("coldstart.total_s", "cold start", "s"),
    ("autoscaling.ready_s", "burst to a new replica", "s"),
)


def _cards(results: Results) -> list[dict[str, Any]]:
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
            "aside": _aside(engine),
            "figures": [
                (term, number(metric.values[engine].value), unit, invalid(metric.values[engine]))
                for metric, term, unit in rows
            ],
        }
        for index, engine in enumerate(results.engines)
    ]


def _aside(engine: str) -> str:
    """What must stand beside an engine's short name: '(embedded, not TensorFlow Serving)'."""
    return ENGINE_LABELS[engine].removeprefix(ENGINE_SHORT[engine]).strip()


def invalid(value: Value) -> bool:
    """Whether there is a number, and it comes from INVALID runs."""
    return value.value is not None and not value.valid


def _pairs(results: Results) -> list[dict[str, str]]:
    pairs = list(itertools.combinations(results.engines, 2))
    return [
        {"key": f"{a}|{b}", "label": f"{ENGINE_SHORT[a]} / {ENGINE_SHORT[b]}" if len(pairs) > 1 else ""}
        for a, b in pairs
    ]


def _groups(results: Results) -> list[dict[str, Any]]:
    plan = results.study["plan"]
    groups = []
    for group, metrics in itertools.groupby(results.metrics, key=lambda metric: metric.group):
        rows = [_row(results, metric) for metric in metrics]
        detail = sentences.load_text(plan, group.partition("[")[0])
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
        "ps": [p_text(metric.welch_p[pair["key"]]) for pair in _pairs(results)],
    }


def _ci(value: Value) -> str:
    """'11.9 to 12.7', '11.9 to 12.7 (samples)' where runs do not tell, or ''."""
    if value.ci is None:
        return ""
    return " to ".join(map(number, value.ci)) + (" (samples)" if value.ci_from == "samples" else "")


def _runs(results: Results) -> dict[str, Any]:
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


def _containers(results: Results) -> list[tuple[str, Any]]:
    """What a study on containers says of them; nothing for any other."""
    engine, plan = results.environment.get("docker_engine"), results.study["plan"]
    if not engine:
        return []
    said = plan.get("docker") or {}
    kind = f"{engine.get('ServerVersion')}, cgroups v{engine.get('CgroupVersion')}, {engine.get('Driver')}"
    return [
        ("Docker Engine", kind),
        ("Limits of a replica", sentences.limits_text(results).removeprefix(", each limited to ") or "none"),
        ("Balancer", "HAProxy" if said.get("balancer") == "haproxy" else "the load generator"),
    ]


def _pods(results: Results) -> list[tuple[str, Any]]:
    """What a study in a cluster says of it; nothing for any other."""
    told, plan = results.environment.get("kubernetes"), results.study["plan"]
    if not told:
        return []
    said = plan.get("kubernetes") or {}
    from_cluster = plan.get("load_from") == "cluster"
    return [
        ("Kubernetes", told.get("version")),
        ("Nodes", sentences.nodes_text(told.get("nodes"))),
        ("Limits of a replica", sentences.limits_text(results).removeprefix(", each limited to ")),
        ("Load comes from", "pods of the cluster" if from_cluster else "this machine"),
        (
            "Load goes to",
            {"pods": "the pods", "port-forward": "the pods, through the API server"}.get(
                said.get("reach", "service"), "the Service"
            ),
        ),
        (
            "Balancer",
            _BALANCER[said.get("balancer", "none")]
            if said.get("reach", "service") == "service"
            else "the load generator",
        ),
    ]


_BALANCER = {"haproxy": "HAProxy", "none": "the Service, by connections"}


def _server_settings(plan: dict[str, Any]) -> list[tuple[str, Any]]:
    """What the servers were told; nothing of those that somebody else started."""
    if runs_already(plan):
        return []
    return [
        ("Threads a replica", " or ".join(map(str, plan["threads"]))),
        ("Batching", "; ".join(batching_label(BatchingPlan(**batching)) for batching in plan["batching"])),
    ]


def _environment(results: Results) -> list[dict[str, Any]]:
    here, plan, cores = results.environment, results.study["plan"], results.study["cores"]
    memory = f"{here['memory_bytes'] / 2**30:.1f} GiB" if here.get("memory_bytes") else None
    machine = [
        ("Processor", here.get("cpu_model")),
        ("Cores", f"{here.get('cores_usable')} of {here.get('cores')} usable"),
        ("Memory", memory),
        ("System", here.get("system")),
        ("Kernel", here.get("kernel")),
        ("Engine's cores", ", ".join(map(str, cores["engine"])) or "of the cluster's choice"),
        ("Generator's cores", ", ".join(map(str, cores["generator"]))),
    ]
    study = [
        *(
            fact
            for model in results.models
            for fact in (
                ("Model", f"{model.get('name')} {model.get('version', '')}"),
                ("Artifacts", sentences.parity_text(model)),
            )
        ),
        *_containers(results),
        *_pods(results),
        *_server_settings(plan),
        ("Seed", plan["seed"]),
        ("Git commit", (here.get("git_commit") or "")[:12] or None),
        *((ENGINE_SHORT[name], version) for name, version in results.study["engines"].items()),
    ]
    software = [("Python", here.get("python")), ("Java", here.get("java")), *here.get("packages", {}).items()]
    blocks = (("Machine", machine), ("Study", study), ("Software", software))
    return [
        {"title": title, "facts": [(term, "unknown" if value is None else value) for term, value in facts]}
        for title, facts in blocks
    ]
