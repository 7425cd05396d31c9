"""From a plan to its cells: pure, so that the same plan and seed always give the same study."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from servestorm.plan import Plan

Scenario = Literal["coldstart", "steady", "bursty", "scaling"]
SCENARIOS: tuple[Scenario, ...] = ("coldstart", "steady", "bursty", "scaling")

# seconds from process start to first right answer on one slow core; only the progress bar's first guess
START_GUESS_S = {"torchserve": 12.0, "savedmodel": 7.0, "tfserving": 3.0}
STOP_GUESS_S = 2.0
GENERATOR_GUESS_S = 3.0


@dataclass(frozen=True)
class Cell:
    """One run: one deployment under one scenario, once."""

    index: int
    """Place in the study, from 0."""
    scenario: Scenario
    engine: str
    replicas: int
    repetition: int
    """From 1."""
    seed: int
    """Of the arrivals: the same for every engine of a repetition, so that all see the same schedule."""

    @property
    def id(self) -> str:
        """Name of its folder in the run directory."""
        replicas = f"-x{self.replicas}" if self.scenario == "scaling" else ""
        return f"{self.index:03d}-{self.scenario}-{self.engine}{replicas}-{self.repetition}"

    def as_dict(self) -> dict[str, Any]:
        """For cell.json."""
        return {"id": self.id, **asdict(self)}


def cells_of(plan: Plan) -> list[Cell]:
    """Every run of the plan, in order: scenario by scenario, engines interleaved in seeded random order.

    Steady and bursty load share their blocks: one repetition of all of them, shuffled, before the next repetition, so
    that a drift of the machine hits every engine alike.
    """
    order = random.Random(plan.seed)
    cells: list[Cell] = []
    for repetition, block in _blocks(plan):
        entries = list(block)
        order.shuffle(entries)
        for scenario, engine, replicas in entries:
            cells.append(Cell(len(cells), scenario, engine, replicas, repetition, plan.seed * 1000 + repetition))
    return cells


def _blocks(plan: Plan) -> Iterable[tuple[int, list[tuple[Scenario, str, int]]]]:
    for repetition in range(1, plan.cold_starts + 1):
        yield repetition, [("coldstart", engine, 1) for engine in plan.engines]
    loads: list[Scenario] = []
    if plan.steady:
        loads.append("steady")
    if plan.bursty:
        loads.append("bursty")
    for repetition in range(1, plan.repetitions + 1):
        yield repetition, [(load, engine, 1) for load in loads for engine in plan.engines]
    if plan.scaling:
        for repetition in range(1, plan.scaling.repetitions + 1):
            yield repetition, [("scaling", e, n) for n in plan.scaling.replicas for e in plan.engines]


def expected_s(plan: Plan, cell: Cell) -> float:
    """First guess of a cell's length in seconds, for the progress bar."""
    starting = START_GUESS_S.get(cell.engine, 10.0) * cell.replicas + STOP_GUESS_S
    load = {"steady": plan.steady, "bursty": plan.bursty, "scaling": plan.scaling}.get(cell.scenario)
    return starting if load is None else starting + GENERATOR_GUESS_S + load.duration_s + load.warmup_s
