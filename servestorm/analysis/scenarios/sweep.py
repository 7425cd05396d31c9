"""Sweep: throughput against p99 of every combination of server settings and client batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from servestorm.analysis.figures import Figures, Setting
from servestorm.analysis.run import SweepPoint
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.methods.disturbance import Disturbance, worst
from servestorm.methods.pareto import front
from servestorm.methods.percentiles import over_runs
from servestorm.methods.samples import Samples
from servestorm.plan.cells import Cell
from servestorm.rundir.disturbed_runs import disturbance_of
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.search import PointFile
from servestorm.rundir.shapes.study import StudyFile

SETTINGS: Final[Mapping[str, Callable[[int], str]]] = {
    "max_batch_size": lambda size: f"server batch {size}" if size > 1 else "no server batch",
    "timeout_us": lambda us: f"{us / 1000:g} ms delay",
    "threads": lambda count: f"{count} thread{'s' if count > 1 else ''}",
    "replicas": lambda count: f"{count} replica{'s' if count > 1 else ''}",
    "images_per_request": lambda count: f"{count} image{'s' if count > 1 else ''} a request",
    "concurrency": lambda count: f"{count} in flight",
}
"""What a sweep varies, in words; a label names only what does vary."""


class SweepAnalysis(ScenarioAnalysis):
    """One combination of server settings, under every client batch with every number of requests in flight."""

    name = "sweep"
    computed_in = "analysis/scenarios/sweep.py"

    def labels(self, study: StudyFile) -> list[str]:
        """One group: a sweep is of the first variant alone."""
        return super().labels(study)[:1]

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        found = {load.number: disturbance_of(load.use, study.plan) for load in record.loads}
        points = enumerate(record.sweep or [], 1)
        return Measured(points=[_point(point, record.cell, found.get(number)) for number, point in points])

    def is_valid(self, record: CellRecord) -> bool | None:
        """See ScenarioAnalysis."""
        return any(point.valid for point in record.sweep) if record.sweep else None

    def disturbance(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Disturbance | None:
        """The worst of its VALID loads, where every one of them is DISTURBED."""
        found = [point.disturbed for point in self.measure(record, study, samples).points if point.valid]
        return None if None in found else worst(one for one in found if one)

    def reasons(self, record: CellRecord) -> list[str]:
        """See ScenarioAnalysis."""
        return sorted({reason for point in record.sweep or [] for reason in point.reasons})

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """Every setting with the means over its VALID loads, undisturbed ones first, and whether it is on the front."""
        points = {engine: [point for run in own for point in run.points] for engine, own in runs.by_engine().items()}
        everything = [point for own in points.values() for point in own]
        if not runs.runs:
            return
        varied = [name for name in SETTINGS if len({getattr(point, name) for point in everything}) > 1]
        figures.sweep[runs.group] = {
            engine: _settings(own, varied or ["concurrency"]) for engine, own in points.items()
        }


def _point(point: PointFile, cell: Cell, disturbed: Disturbance | None) -> SweepPoint:
    return SweepPoint(
        images_per_request=point.images_per_request,
        concurrency=point.concurrency,
        images_per_s=point.images_per_s,
        p50_ms=point.p50_ms,
        p99_ms=point.p99_ms,
        valid=point.valid,
        reasons=point.reasons,
        threads=cell.threads,
        max_batch_size=cell.max_batch_size,
        timeout_us=cell.timeout_us,
        replicas=cell.replicas,
        disturbed=disturbed,
    )


def _settings(points: Sequence[SweepPoint], varied: Sequence[str]) -> list[Setting]:
    loads: dict[str, list[SweepPoint]] = {}
    for point in points:
        loads.setdefault(", ".join(SETTINGS[name](getattr(point, name)) for name in varied), []).append(point)
    rows = [
        (label, _mean(own, lambda load: load.images_per_s), _mean(own, lambda load: load.p99_ms), _disturbed(own))
        for label, own in loads.items()
    ]
    best = set(front([(None, None) if disturbed else (rate, p99_ms) for _, rate, p99_ms, disturbed in rows]))
    return [
        Setting(label=label, images_per_s=rate, p99_ms=p99_ms, front=place in best, disturbed=disturbed)
        for place, (label, rate, p99_ms, disturbed) in enumerate(rows)
    ]


def _disturbed(loads: Sequence[SweepPoint]) -> bool:
    """Whether all VALID loads of a setting are DISTURBED."""
    valid = [load for load in loads if load.valid]
    return bool(valid) and all(load.disturbed for load in valid)


def _mean(loads: Sequence[SweepPoint], value_of: Callable[[SweepPoint], float | None]) -> float | None:
    valid = [load for load in loads if load.valid]
    used = [load for load in valid if not load.disturbed] or valid
    return over_runs([value_of(load) for load in used]).mean
