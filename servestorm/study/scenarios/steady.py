"""Steady load: requests at one rate, whatever the server answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from servestorm.plan.study_plan import Plan
from servestorm.plan.turns import steady_slicing
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import LoadCommand, steady_load, steady_slices
from servestorm.study.round_load import GENERATORS_START_GUESS_S, offer_in_turns
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

    def measure_round(self, loads: Sequence[CellLoad], folders: Sequence[Path], meanwhile: Callable[[], None]) -> None:
        """See StudyScenario."""
        steady = loads[0].plan.steady
        assert steady
        slicing = steady_slicing(steady, loads[0].plan.backend)

        def slices(load: CellLoad) -> LoadCommand:
            return steady_slices(steady, slicing, load.variant.images_per_request)

        offer_in_turns(loads, folders, slices, slicing, meanwhile)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        assert plan.steady
        return loads_guess_s(plan.steady.duration_s, plan.steady.warmup_s)

    def expected_round_s(self, plan: Plan, cells: int, on_warm_servers: bool) -> float:
        """See StudyScenario."""
        assert plan.steady
        return GENERATORS_START_GUESS_S + steady_slicing(plan.steady, plan.backend).seconds(cells)
