"""Capacity: the largest rate that keeps the objective, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from servestorm.analysis.cost import capacity_costs
from servestorm.analysis.figures import Figures
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import Rows
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.analysis.search_numbers import is_search_valid, measured_search, search_disturbance, search_reasons
from servestorm.methods.disturbance import Disturbance
from servestorm.methods.samples import Samples
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import StudyFile

_ROWS: Final[tuple[Row, ...]] = (
    Row(
        "images_per_s",
        "largest rate under the objective, that held twice",
        "images/s",
        "higher",
        "largest offered rate of a search that met the objective twice (the promise)",
    ),
    Row(
        "crossing_images_per_s",
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
        return search_disturbance(record, study)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.listed(group, _ROWS, optional={"crossing_images_per_s"})

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return _ROWS

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        if rate := runs.row("images_per_s"):
            figures.capacity_per_s[runs.group] = _requests_per_s(rate, runs.record)
            figures.cost[runs.group] = capacity_costs(rate, runs.metrics, runs.record)


def _requests_per_s(rate: Metric, record: RunRecord) -> dict[str, float | None]:
    """Each engine's capacity, as the row has it, in requests/s: the unit of the probes."""
    label = rate.group.partition("[")[2].removesuffix("]")
    images = next(variant.images_per_request for variant in record.study.variants if variant.label == label)
    return {engine: None if v.value is None else v.value / images for engine, v in rate.values.items()}
