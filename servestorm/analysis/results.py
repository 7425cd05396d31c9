"""From a run directory to its results: a pure function, so that a report can always be drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from servestorm.analysis.doubt_facts import facts_of_loads
from servestorm.analysis.doubts import Doubt, doubts
from servestorm.analysis.figures_cost import cost_figures, fleet_figures, with_cost
from servestorm.analysis.figures_split import split_figures
from servestorm.analysis.groups import groups_of
from servestorm.analysis.judgements import Judgement, ObjectiveResult, judge, objectives
from servestorm.analysis.metric import Metric
from servestorm.analysis.notes import state_notes
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import Run
from servestorm.analysis.run_numbers import measure
from servestorm.analysis.series import figures_of
from servestorm.analysis.series_autoscaling import autoscaling_figures
from servestorm.plan.limits import limits_of
from servestorm.rundir.files import SCHEMA_VERSION
from servestorm.rundir.record import RunRecord


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
    objectives: list[ObjectiveResult]
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
        notes=[*study["cores"]["notes"], *state_notes(record, runs)],
        figures={
            **figures_of(engines, used, samples),
            "cost": cost_figures(metrics, study, record.path),
            "split": split_figures(engines, used, record.cells),
            "autoscaling": autoscaling_figures(engines, used, samples),
            "fleet_cost": fleet_figures(metrics, study, record.path),
        },
    )


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
