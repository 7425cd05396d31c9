"""The analysis of every scenario, in the order of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from servestorm.analysis.scenario import ScenarioAnalysis
from servestorm.analysis.scenarios.autoscaling import AutoscalingAnalysis
from servestorm.analysis.scenarios.bursty import BurstyAnalysis
from servestorm.analysis.scenarios.capacity import CapacityAnalysis
from servestorm.analysis.scenarios.coldstart import ColdStartAnalysis
from servestorm.analysis.scenarios.scaling import ScalingAnalysis
from servestorm.analysis.scenarios.steady import SteadyAnalysis
from servestorm.analysis.scenarios.sweep import SweepAnalysis
from servestorm.analysis.scenarios.training import TrainingAnalysis
from servestorm.plan.cells import Scenario

_ALL: Final[tuple[ScenarioAnalysis, ...]] = (
    ColdStartAnalysis(),
    SteadyAnalysis(),
    BurstyAnalysis(),
    CapacityAnalysis(),
    ScalingAnalysis(),
    SweepAnalysis(),
    AutoscalingAnalysis(),
    TrainingAnalysis(),
)
SCENARIO_ANALYSES: Final[Mapping[Scenario, ScenarioAnalysis]] = {analysis.name: analysis for analysis in _ALL}
