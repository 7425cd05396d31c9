"""What the analysis of a scenario gives: a run's numbers, the rows of a group of runs, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from servestorm.analysis.figures import Figures
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import Run, SearchResult, SweepPoint
from servestorm.methods.autoscaling import Autoscaled
from servestorm.methods.bursts import Burst
from servestorm.methods.disturbance import Disturbance
from servestorm.methods.run_figures import invalid_figures
from servestorm.methods.samples import Samples
from servestorm.plan.cells import Cell, Scenario
from servestorm.rundir.disturbed_runs import load_disturbance
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile

Numbers = dict[str, float | None]
"""Of one run, by the names of its rows; None is what is unknown."""


@dataclass(frozen=True)
class Measured:
    """What one run showed; the fields are those of servestorm.analysis.run.Run."""

    numbers: Numbers = field(default_factory=dict)
    phases_s: Numbers = field(default_factory=dict)
    capacity: SearchResult | None = None
    points: list[SweepPoint] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    autoscaling: Autoscaled | None = None


@dataclass(frozen=True)
class GroupOfRuns:
    """The runs of one group whose numbers are used, with what a figure may need besides."""

    group: str
    engines: Sequence[str]
    """All of the study, in its order."""
    runs: Sequence[Run]
    samples: Mapping[str, Samples]
    """By the id of the run."""
    metrics: Sequence[Metric]
    """The rows of all groups."""
    record: RunRecord

    def by_engine(self) -> dict[str, list[Run]]:
        """The runs of each engine."""
        return {engine: [run for run in self.runs if run.engine == engine] for engine in self.engines}

    def samples_by_engine(self) -> dict[str, list[Samples]]:
        """The samples of each engine's runs, where there are any."""
        return {
            engine: [self.samples[run.id] for run in own if run.id in self.samples]
            for engine, own in self.by_engine().items()
        }

    def cells_by_engine(self) -> dict[str, list[CellRecord]]:
        """What the runs of each engine left."""
        cells = {cell.cell.id: cell for cell in self.record.cells}
        return {engine: [cells[run.id] for run in own] for engine, own in self.by_engine().items()}

    def row(self, name: str) -> Metric | None:
        """The group's row of that name."""
        return next((metric for metric in self.metrics if metric.key == f"{self.group}.{name}"), None)


class ScenarioAnalysis:
    """The analysis of one scenario. The methods of this class suit one that has a group for each variant."""

    name: Scenario
    computed_in: str
    """The module that computes the values of its runs, beside that of any load."""

    def labels(self, study: StudyFile) -> list[str]:
        """What separates the groups of the scenario, in order; empty where the plan does not ask for it."""
        return [variant.label for variant in study.variants] if study.plan.asked(self.name) else []

    def label(self, cell: Cell, study: StudyFile) -> str:
        """The label of the group that a cell belongs to; '' where the scenario has one group."""
        return study.variants[cell.variant].label

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """What a run showed, complete or not; `samples` are of a complete run with one load.

        Raises StudyError for a broken file.
        """
        raise NotImplementedError

    def is_valid(self, record: CellRecord) -> bool | None:
        """Whether a complete run is VALID; None where no load was asked or none ended."""
        return record.summary.valid_as_a_whole if record.summary else None

    def reasons(self, record: CellRecord) -> list[str]:
        """Why a run is INVALID, a sentence each."""
        return record.summary.faults if record.summary else []

    def disturbance(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Disturbance | None:
        """Why a complete run is DISTURBED; None where it is not."""
        return load_disturbance(record, study.plan, samples)

    def invalid_figures(self, samples: Samples) -> dict[str, str]:
        """Why figures of a run with one load are INVALID while the run is not, by the names of their rows."""
        return invalid_figures(samples)

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """The rows of a group of runs."""
        return ()

    def defined_rows(self) -> Iterable[Row]:
        """Every row that a group of the scenario may have, for the table of definitions; N stands for a number."""
        return ()

    def notes(self, runs: Sequence[Run], plan: PlanFile) -> Iterable[str]:
        """What a reader should know of the scenario's runs as a whole, a sentence each; `runs` may be empty."""
        return ()

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """Add what the figures of a group show; nothing where there is nothing to show."""
