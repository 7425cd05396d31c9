"""Bursty load: the rate switches between a base and a peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from servestorm.plan.scenarios import Bursty
from servestorm.plan.study_plan import Plan
from servestorm.plan.turns import Slicing, bursty_slicing
from servestorm.study.cell_load import CellLoad
from servestorm.study.load import LoadCommand, bursty_load, bursty_slices
from servestorm.study.round_load import GENERATORS_START_GUESS_S, offer_in_turns
from servestorm.study.scenario import StudyScenario, loads_guess_s


class BurstyCells(StudyScenario):
    """One open-loop load with the plan's bursts."""

    label = "bursty load"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        assert load.plan.bursty
        load.offer(bursty_load(load.plan.bursty, load.variant.images_per_request), folder)

    def measure_round(self, loads: Sequence[CellLoad], folders: Sequence[Path], meanwhile: Callable[[], None]) -> None:
        """See StudyScenario."""
        bursty = loads[0].plan.bursty
        assert bursty
        slicing = _slicing(bursty, loads[0].on_warm_servers)

        def slices(load: CellLoad) -> LoadCommand:
            return bursty_slices(bursty, slicing, load.variant.images_per_request)

        offer_in_turns(loads, folders, slices, slicing, meanwhile)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        assert plan.bursty
        return loads_guess_s(plan.bursty.duration_s, plan.bursty.warmup_s)

    def expected_round_s(self, plan: Plan, cells: int, on_warm_servers: bool) -> float:
        """See StudyScenario."""
        assert plan.bursty
        return GENERATORS_START_GUESS_S + _slicing(plan.bursty, on_warm_servers).seconds(cells)


def _slicing(bursty: Bursty, on_warm_servers: bool) -> Slicing:
    slicing = bursty_slicing(bursty)
    return slicing.on_warm_servers() if on_warm_servers else slicing
