"""From one cell's folder to its run. What is unknown is None."""

from __future__ import annotations

from typing import Final

from servestorm.analysis.groups import group_key
from servestorm.analysis.run import Run
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.methods.samples import Samples
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.cell import OutcomeFile
from servestorm.rundir.shapes.study import StudyFile

UNFINISHED: Final = OutcomeFile(state="unfinished", reason="the study was killed in it")
"""The outcome of a cell that left none."""


def measure(record: CellRecord, study: StudyFile, samples: Samples | None) -> Run:
    """A cell's run; `samples` are of a complete one with one load. Raises StudyError for a broken file.

    `study` holds the plan and its variants.
    """
    cell, outcome = record.cell, record.outcome or UNFINISHED
    analysis = SCENARIO_ANALYSES[cell.scenario]
    measured = analysis.measure(record, study, samples)
    return Run(
        id=cell.id,
        scenario=cell.scenario,
        engine=cell.engine,
        replicas=cell.replicas,
        repetition=cell.repetition,
        group=group_key(cell, study),
        state=outcome.state,
        valid=analysis.is_valid(record) if record.complete else None,
        reasons=[*([outcome.reason] if outcome.reason else []), *analysis.reasons(record)],
        numbers=measured.numbers,
        samples=int(samples.right().sum()) if samples else 0,
        requests=int(samples.ok.size) if samples else 0,
        phases_s=measured.phases_s,
        capacity=measured.capacity,
        bursts=measured.bursts,
        autoscaling=measured.autoscaling,
        points=measured.points,
        disturbed=analysis.disturbance(record, study, samples) if record.complete else None,
        slices=samples.use.count() if samples else None,
        invalid_figures=analysis.invalid_figures(samples) if samples else {},
    )
