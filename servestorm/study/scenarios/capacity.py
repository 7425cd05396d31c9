"""Capacity: a search for the largest rate that keeps the objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.rate_search import interleaved_searches, search, search_guess_s
from servestorm.study.scenario import StudyScenario


class CapacityCells(StudyScenario):
    """One search on one replica."""

    label = "capacity"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        search(load, folder)

    def measure_round(self, loads: Sequence[CellLoad], folders: Sequence[Path]) -> None:
        """The probes of all searches alternate, so that a bad moment of the machine meets neighbours alike."""
        interleaved_searches(loads, folders)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        return search_guess_s(plan)
