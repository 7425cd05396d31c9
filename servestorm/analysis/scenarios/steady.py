"""Steady load: latencies and throughput at one rate."""

from __future__ import annotations

from collections.abc import Iterable

from servestorm.analysis.figures import Figures
from servestorm.analysis.load_numbers import load_numbers
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import LOAD_ROWS, P99_CLAIM_ROW, PERCENTILE_ROWS, Rows
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.analysis.series import add_load_figures
from servestorm.methods.samples import Samples
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import StudyFile


class SteadyAnalysis(ScenarioAnalysis):
    """One open-loop load at the plan's rate."""

    name = "steady"
    computed_in = "analysis/load_numbers.py"

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        return Measured(load_numbers(record, samples, study.plan) if samples else {})

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.of_load(group)

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return (*PERCENTILE_ROWS, P99_CLAIM_ROW, *LOAD_ROWS)

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        add_load_figures(figures, runs)
