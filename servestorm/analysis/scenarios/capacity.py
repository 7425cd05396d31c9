"""Capacity: the largest rate that keeps the objective, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from servestorm.analysis.cost import capacity_costs
from servestorm.analysis.figures import Figures
from servestorm.analysis.metric import Metric, Row, Value
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import Run
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.analysis.search_numbers import (
    is_search_valid,
    measured_search,
    missing_estimates,
    search_reasons,
)
from servestorm.methods.disturbance import Disturbance
from servestorm.methods.samples import Samples
from servestorm.rundir.disturbed_runs import search_disturbance
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile

PROMISE, ESTIMATE = "images_per_s", "crossing_images_per_s"
_ROWS: Final[tuple[Row, ...]] = (
    Row(
        PROMISE,
        "largest rate under the objective, that held twice",
        "images/s",
        "higher",
        "largest offered rate of a search that met the objective twice (the promise)",
    ),
    Row(
        ESTIMATE,
        "rate at which p99 meets the objective, estimated",
        "images/s",
        "higher",
        "rate at which a line through all probes of a search near the objective meets it (the estimate)",
    ),
)


class CapacityAnalysis(ScenarioAnalysis):
    """One search on one replica."""

    name = "capacity"
    computed_in = "analysis/search_numbers.py"

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        return measured_search(record, study.variants[record.cell.variant].images_per_request)

    def is_valid(self, record: CellRecord) -> bool | None:
        """See ScenarioAnalysis."""
        return is_search_valid(record)

    def reasons(self, record: CellRecord) -> list[str]:
        """See ScenarioAnalysis."""
        return search_reasons(record)

    def disturbance(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Disturbance | None:
        """See ScenarioAnalysis."""
        return search_disturbance(record, study.plan)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        promise, estimate = rows.listed(group, _ROWS)
        return promise, _with_own_intervals(estimate, rows, record)

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return _ROWS

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        if promise := runs.row(PROMISE):
            figures.capacity_per_s[runs.group] = _requests_per_s(promise, runs.record)
        if estimate := runs.row(ESTIMATE):
            figures.cost[runs.group] = capacity_costs(estimate, runs.metrics, runs.record)

    def notes(self, runs: Sequence[Run], plan: PlanFile) -> Iterable[str]:
        """Searches without an estimate, of which verdicts, cost and scaling know nothing."""
        return missing_estimates(runs)


def _with_own_intervals(estimate: Metric, rows: Rows, record: RunRecord) -> Metric:
    """The row in which an engine with one search alone has the interval of its estimate, or no estimate without one."""
    images = _images_per_request(estimate, record)
    values = {
        engine: _with_own_interval(value, rows.runs_of(estimate.group, engine), images)
        for engine, value in estimate.values.items()
    }
    return replace(estimate, values=values)


def _with_own_interval(value: Value, runs: Sequence[Run], images: int) -> Value:
    crossings = [run.capacity.crossing for run in runs if run.capacity and run.capacity.crossing]
    if value.n != 1 or len(crossings) != 1:
        return value
    interval = crossings[0].interval
    if not interval:
        return replace(value, value=None, n=0, runs=[None] * len(value.runs), ci=None, ci_from=None, value_from=None)
    return replace(value, ci=(interval[0] * images, interval[1] * images), ci_from="samples")


def _images_per_request(rate: Metric, record: RunRecord) -> int:
    label = rate.group.partition("[")[2].removesuffix("]")
    return next(variant.images_per_request for variant in record.study.variants if variant.label == label)


def _requests_per_s(rate: Metric, record: RunRecord) -> dict[str, float | None]:
    """Each engine's capacity, as the row has it, in requests/s: the unit of the probes."""
    images = _images_per_request(rate, record)
    return {engine: None if v.value is None else v.value / images for engine, v in rate.values.items()}
