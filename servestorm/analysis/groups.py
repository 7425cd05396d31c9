"""Groups of runs: the scenario, with what separates its groups where it has several."""

from __future__ import annotations

from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.plan.cells import Cell, Scenario
from servestorm.plan.labels import SCENARIO_LABELS
from servestorm.plan.questions import group_name
from servestorm.rundir.shapes.study import StudyFile


def groups_of(study: StudyFile) -> dict[str, str]:
    """The groups of runs that a study asks for, in order, with their titles."""
    titles: dict[str, str] = {}
    for scenario, analysis in SCENARIO_ANALYSES.items():
        for label in analysis.labels(study):
            title = f"{SCENARIO_LABELS[scenario]} ({label})" if label else SCENARIO_LABELS[scenario]
            titles.setdefault(group_name(scenario, label), title)
    return titles


def group_key(cell: Cell, study: StudyFile) -> str:
    """What a cell is a run of: 'steady', or 'steady[gRPC, 8 images]' where there are several variants."""
    return group_name(cell.scenario, SCENARIO_ANALYSES[cell.scenario].label(cell, study))


def scenario_of(group: str) -> Scenario:
    """The scenario of a group."""
    name = group.partition("[")[0]
    return next(scenario for scenario in SCENARIO_ANALYSES if scenario == name)
