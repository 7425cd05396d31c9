"""The scenarios of a study by their names in a plan and in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servestorm.plan.cells import Scenario
from servestorm.study.scenario import ScenarioOutlook, StudyScenario
from servestorm.study.scenarios.autoscaling import AutoscalingCells
from servestorm.study.scenarios.bursty import BurstyCells
from servestorm.study.scenarios.capacity import CapacityCells
from servestorm.study.scenarios.coldstart import ColdStartCells
from servestorm.study.scenarios.scaling import ScalingCells
from servestorm.study.scenarios.steady import SteadyCells
from servestorm.study.scenarios.sweep import SweepCells
from servestorm.study.scenarios.training import TrainingCells

SCENARIO_CELLS: Final[Mapping[Scenario, StudyScenario]] = {
    "coldstart": ColdStartCells(),
    "steady": SteadyCells(),
    "bursty": BurstyCells(),
    "capacity": CapacityCells(),
    "scaling": ScalingCells(),
    "sweep": SweepCells(),
    "autoscaling": AutoscalingCells(),
}
"""Those with servers."""
SCENARIO_OUTLOOKS: Final[Mapping[Scenario, ScenarioOutlook]] = {**SCENARIO_CELLS, "training": TrainingCells()}
"""All of them."""
