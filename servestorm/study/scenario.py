"""What a scenario of a study decides: where its servers run, what is measured on them, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.context import StudyContext
from serving.backend import Backend
from serving.deployment import EventLog

GENERATOR_GUESS_S = 3.0
"""Of one start of the load generator, beyond its load."""


class ScenarioOutlook(Protocol):
    """What is told of one kind of cell before it runs. A scenario inherits what most of them share."""

    label: str
    """For a reader, such as 'steady load'."""

    def expected_s(self, plan: Plan) -> float:
        """First guess of a cell's length in seconds, from ready servers to their end."""
        ...

    def expected_round_s(self, plan: Plan, cells: int, on_warm_servers: bool) -> float:
        """First guess of the length of this load in a round of so many engines, in seconds, from ready servers on.

        They are warm where another load of the round comes before.
        """
        return cells * self.expected_s(plan)

    def runs(self, plan: Plan) -> int:
        """How often the plan repeats each cell; with a budget, at most."""
        return plan.most_repetitions

    def setting(self, cell: Cell) -> str:
        """What distinguishes the cell from others of its engine and repetition, for its title; begins with a comma."""
        return ""


class StudyScenario(ScenarioOutlook, Protocol):
    """One kind of cell with servers. A scenario inherits what most share: as the plan says, scraped while loaded."""

    scraped: bool = True
    """Whether the servers' metrics are read once a second; not of a server whose start is timed."""
    start_is_timed: bool = False
    """Whether the start itself is measured, so that the machine is watched from before it on."""

    def measure(self, load: CellLoad, folder: Path) -> None:
        """Measure the deployment of `load`, which is ready, and write what it gives into `folder`.

        Raises DeploymentError where a server fails, GeneratorError where a load has no summary.
        """
        ...

    def measure_round(self, loads: Sequence[CellLoad], folders: Sequence[Path], meanwhile: Callable[[], None]) -> None:
        """Measure deployments that stand together and are all ready, only one of them under load at a time.

        `folders` holds one folder for each of `loads`. `meanwhile` is called before any load: what takes a while, such
        as the start of generators, may be done beside it. By default the deployments are measured one after the other.
        Raises as `measure` does.
        """
        meanwhile()
        for load, folder in zip(loads, folders, strict=True):
            self.measure(load, folder)

    def backend(self, context: StudyContext) -> Backend:
        """Where the servers of a cell run."""
        return context.backend

    def before_spawn(self, context: StudyContext, cell: Cell, events: EventLog) -> Callable[[], None] | None:
        """What is done right before the servers start; see DeploymentOrder."""
        return None


def loads_guess_s(duration_s: float, warmup_s: float, loads: int = 1) -> float:
    """First guess of the length of so many loads, one after the other, in seconds."""
    return loads * (GENERATOR_GUESS_S + duration_s + warmup_s)


def replicas_text(cell: Cell) -> str:
    """', 2 replicas', for a cell's title."""
    return f", {cell.replicas} replica{'s' if cell.replicas > 1 else ''}"
