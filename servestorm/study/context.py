"""What every cell of a study shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.manifest import ModelDir
from servestorm.plan.cells import Cell, Variant
from servestorm.plan.scenarios import SCALE_DOWN_PERIOD_S
from servestorm.plan.study_plan import Plan
from servestorm.study.cores import Cores
from servestorm.study.load import LoadSource
from servestorm.study.machine_counters import MachineReader
from servestorm.study.scraper import Scraper
from serving.backend import AutoscalerOrder, Backend
from serving.deployment import Engine


@dataclass(frozen=True)
class StudyContext:
    """What every cell of a study shares."""

    plan: Plan
    variants: Sequence[Variant]
    models: Sequence[ModelDir]
    engines: Mapping[str, Engine]
    backend: Backend
    cores: Cores
    scraper: Scraper
    generator: LoadSource
    machine: MachineReader

    def model(self, cell: Cell) -> ModelDir:
        """The model that the cell is about."""
        return self.models[self.variants[cell.variant].model]


def autoscaler_of(plan: Plan) -> AutoscalerOrder | None:
    """The autoscaler that the plan asks for."""
    asked = plan.autoscaling
    if asked is None:
        return None
    return AutoscalerOrder(
        min_replicas=asked.min_replicas,
        max_replicas=asked.max_replicas,
        cpu_percent=asked.cpu_percent,
        scale_down_stabilization_s=asked.scale_down_stabilization_s,
        scale_down_period_s=SCALE_DOWN_PERIOD_S,
    )
