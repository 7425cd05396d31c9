"""From a run directory to its results: a pure function, so that a report can always be drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from servestorm.analysis.doubts import Doubt, doubts, facts_of_loads
from servestorm.analysis.figures_cost import cost_figures, fleet_figures, with_cost
from servestorm.analysis.figures_split import split_figures
from servestorm.analysis.judgements import Judgement, Kept, judge, objectives
from servestorm.analysis.rows import Metric, Rows
from servestorm.analysis.run_numbers import Run, measure
from servestorm.analysis.series import figures_of
from servestorm.analysis.series_autoscaling import autoscaling_figures
from servestorm.plan.labels import SCENARIO_LABELS, group_key, group_label
from servestorm.plan.limits import limits_of
from servestorm.rundir.record import SCHEMA_VERSION, RunRecord

SCENARIOS = ("coldstart", "steady", "bursty", "capacity", "scaling", "sweep", "autoscaling")


@dataclass(frozen=True)
class Results:
    """Everything that the table, the report and results.json show."""

    id: str
    state: str
    reason: str | None
    study: dict[str, Any]
    environment: dict[str, Any]
    models: list[dict[str, Any]]
    engines: list[str]
    groups: dict[str, str]
    """Title of each group of runs that the plan asks for, such as {'steady[gRPC]': 'Steady load (gRPC)'}."""
    metrics: list[Metric]
    verdicts: list[Judgement]
    objectives: list[Kept]
    runs: list[Run]
    doubts: list[Doubt]
    """Reasons to doubt the runs under load, the gravest first."""
    notes: list[str]
    figures: dict[str, Any]

    def metric(self, key: str) -> Metric | None:
        """A row by its key, such as steady.p99."""
        return next((metric for metric in self.metrics if metric.key == key), None)

    def rows(self, scenario: str, name: str) -> list[Metric]:
        """The rows of that name in every group of a scenario."""
        return [m for m in self.metrics if m.scenario == scenario and m.key.rpartition(".")[2] == name]

    def unanswered(self) -> list[tuple[str, str]]:
        """(group, engine) of the plan for which no run counts."""
        answered = {(run.group, run.engine) for run in self.runs if run.counts}
        return [(g, e) for g in self.groups for e in self.engines if (g, e) not in answered]

    def as_json(self) -> dict[str, Any]:
        """What results.json holds."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def groups_of(study: Mapping[str, Any]) -> dict[str, str]:
    """The groups of runs that a study asks for, in order, with their titles."""
    plan = study["plan"]
    found: dict[str, str] = {}
    starts = 0 if runs_already(plan) else plan["cold_starts"]
    for scenario in SCENARIOS:
        if not (starts if scenario == "coldstart" else plan.get(scenario)):  # younger than some runs
            continue
        variants = study["variants"][:1] if scenario == "sweep" else study["variants"]
        starts_of = itertools.product(plan["page_cache"], plan["server_warmup"])
        conditions = list(starts_of) if scenario == "coldstart" else [("warm", True)]
        for variant, (cache, warmup) in itertools.product(variants, conditions):
            label = group_label(scenario, variant, cache, warmup)
            title = f"{SCENARIO_LABELS[scenario]} ({label})" if label else SCENARIO_LABELS[scenario]
            cell = {"scenario": scenario, "page_cache": cache, "server_warmup": warmup}
            found.setdefault(group_key(cell, variant), title)
    return found


def compute(record: RunRecord) -> Results:
    """Every number of a run directory."""
    study, engines = record.study, list(record.study["plan"]["engines"])
    plan, groups = study["plan"], groups_of(study)
    measured = [measure(cell, study) for cell in record.cells]
    runs, samples = [run for run, _ in measured], {run.id: found for run, found in measured if found is not None}
    used = usable(runs)
    rows = Rows(engines, used, samples)
    metrics = with_cost([metric for group in groups for metric in rows.of(group, plan)], study, record.path)
    return Results(
        id=study["id"],
        state=study["state"],
        reason=study.get("reason"),
        study=study,
        environment=record.environment,
        models=[_model(manifest) for manifest in record.manifests],
        engines=engines,
        groups=groups,
        metrics=metrics,
        verdicts=judge(metrics, plan, groups),
        objectives=objectives(metrics, plan),
        runs=runs,
        doubts=_doubts(record),
        notes=[*study["cores"]["notes"], *_state_notes(record, runs)],
        figures={
            **figures_of(engines, used, samples),
            "cost": cost_figures(metrics, study, record.path),
            "split": split_figures(engines, used, record.cells),
            "autoscaling": autoscaling_figures(engines, used, samples),
            "fleet_cost": fleet_figures(metrics, study, record.path),
        },
    )


def runs_already(plan: Mapping[str, Any]) -> bool:
    """Whether the servers were started by somebody else."""
    return plan["backend"] == "attach" or bool((plan.get("docker") or {}).get("project"))


def _doubts(record: RunRecord) -> list[Doubt]:
    plan, cores = record.study["plan"], record.study["cores"]
    told = {
        "engine_cores": cores["engine"],
        "generator_cores": cores["generator"],
        "quota_cpus": limits_of(plan)[0],
        "loaded_from_here": plan.get("load_from", "here") == "here",
        "haproxy": any((plan.get(backend) or {}).get("balancer") == "haproxy" for backend in ("docker", "kubernetes")),
    }
    loads = [facts_of_loads(cell, threads=cell.cell["threads"], **told) for cell in record.cells if cell.complete]
    return doubts(itertools.chain.from_iterable(loads))


def usable(runs: Sequence[Run]) -> list[Run]:
    """The runs behind the numbers: those that count; where an engine has none in a scenario, its INVALID ones."""
    answered = {(run.group, run.engine) for run in runs if run.counts}
    return [run for run in runs if run.counts or (run.state == "complete" and (run.group, run.engine) not in answered)]


def _model(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """What the report says of the model."""
    keys = ("name", "version", "architecture", "dataset", "weights_from", "parity", "labels", "input", "created_at")
    artifacts = ("savedmodel", "mar")  # their SHA-256 tells a comparison whether two runs served the same files
    return {key: manifest.get(key) for key in (*keys, *artifacts)} if manifest else {}


def _state_notes(record: RunRecord, runs: Sequence[Run]) -> list[str]:
    notes = []
    if runs_already(record.study["plan"]):
        notes.append(
            "The endpoints ran already, and were only asked: nothing is told of cold starts, scaling or their use, "
            "nor of what else they were doing."
            if record.study["plan"]["backend"] == "attach"
            else "The containers ran already, and were only asked: nothing is told of cold starts or scaling, nor of "
            "what else they were doing."
        )
    notes += _cluster_notes(record)
    planned = len(record.study["cells"])
    if (complete := sum(run.state == "complete" for run in runs)) < planned:
        notes.append(f"{complete} of {planned} runs are complete; the numbers below are of those alone.")
    if repeats := sum(cell.repeats for cell in record.cells):
        tries = "1 try of a load is" if repeats == 1 else f"{repeats} tries of a load are"
        they = "it was" if repeats == 1 else "they were"
        notes.append(
            f"{tries} INVALID for no other reason than that the generator was late or busy; {they} repeated on the "
            "same servers, and kept beside the tries that count."
        )
    notes += _autoscaling_notes(record.study["plan"], runs)
    if invalid := sum(run.valid is False for run in runs):
        are = "is" if invalid == 1 else "are"
        notes.append(
            f"{invalid} of {planned} runs {are} INVALID, for the reasons below, and left out of the numbers; where no "
            "valid run is left, the numbers are marked INVALID."
        )
    return notes


def _autoscaling_notes(plan: Mapping[str, Any], runs: Sequence[Run]) -> Iterator[str]:
    """What keeps the figures of an autoscaler from telling all."""
    scaled = [run for run in runs if run.scenario == "autoscaling" and run.counts]
    if any(run.autoscaling is None for run in scaled):
        yield (
            "The clock of the load generator and that of the replicas' events could not be compared in some runs under "
            "an autoscaler: of those only latencies are told."
        )
    said = plan.get("kubernetes") or {}
    if scaled and said.get("reach", "service") == "service" and said.get("balancer", "none") == "none":
        yield (
            "Under the autoscaler load went to a Service, which deals out connections and not requests: a new replica "
            "gets none that are open. Set kubernetes.balancer: haproxy or kubernetes.reach: pods to see what it "
            "can do."
        )


def _cluster_notes(record: RunRecord) -> Iterator[str]:
    """What a cluster had its servers and the load generator share."""
    told, plan = record.environment.get("kubernetes"), record.study["plan"]
    if not told:
        return
    nodes, here = told.get("nodes") or [], plan.get("load_from", "here") == "here"
    if here and any(node.get("this_machine") for node in nodes):
        yield (
            "The load generator ran on a node of the cluster, whose cores are the servers' and the cluster's own too: "
            "they slow each other, and latencies are pessimistic."
        )
    if not here and len(nodes) == 1:
        yield (
            "The cluster has one node, so that the load generator ran beside the servers: they slow each other, and "
            "latencies are pessimistic."
        )
    if here and (plan.get("kubernetes") or {}).get("reach") == "port-forward":
        yield "Requests went through the API server (reach: port-forward): latencies hold its part too."
