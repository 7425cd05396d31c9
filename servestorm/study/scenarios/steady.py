"""Steady load: requests at one rate, whatever the server answers."""

from __future__ import annotations

from pathlib import Path

from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import steady_load
from servestorm.study.scenario import StudyScenario, loads_guess_s


class SteadyCells(StudyScenario):
    """One open-loop load at the plan's rate."""

    label = "steady load"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        steady = load.plan.steady
        assert steady
        images = load.variant.images_per_request
        load.offer(steady_load(steady.rate_per_s, steady.duration_s, steady.warmup_s, images), folder)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        assert plan.steady
        return loads_guess_s(plan.steady.duration_s, plan.steady.warmup_s)
