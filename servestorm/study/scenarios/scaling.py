"""Scaling: what more replicas give, in throughput or in the rate that keeps the objective."""

from __future__ import annotations

from pathlib import Path

from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import closed_load
from servestorm.study.rate_search import search, search_guess_s
from servestorm.study.scenario import StudyScenario, loads_guess_s, replicas_text


class ScalingCells(StudyScenario):
    """One number of replicas under a closed loop, or under a capacity search."""

    label = "scaling"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        scaling = load.plan.scaling
        assert scaling
        if scaling.measure == "capacity":
            search(load, folder)
            return
        images = load.variant.images_per_request
        load.offer(closed_load(scaling.concurrency, scaling.duration_s, scaling.warmup_s, images), folder)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        scaling = plan.scaling
        assert scaling
        if scaling.measure == "capacity":
            return search_guess_s(plan)
        return loads_guess_s(scaling.duration_s, scaling.warmup_s)

    def runs(self, plan: Plan) -> int:
        """See StudyScenario."""
        return (plan.scaling.repetitions if plan.scaling else None) or plan.repetitions

    def setting(self, cell: Cell) -> str:
        """See StudyScenario."""
        return replicas_text(cell)
