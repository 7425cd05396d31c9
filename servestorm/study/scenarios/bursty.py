"""Bursty load: the rate switches between a base and a peak."""

from __future__ import annotations

from pathlib import Path

from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import bursty_load
from servestorm.study.scenario import StudyScenario, loads_guess_s


class BurstyCells(StudyScenario):
    """One open-loop load with the plan's bursts."""

    label = "bursty load"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        assert load.plan.bursty
        load.offer(bursty_load(load.plan.bursty, load.variant.images_per_request), folder)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        assert plan.bursty
        return loads_guess_s(plan.bursty.duration_s, plan.bursty.warmup_s)
